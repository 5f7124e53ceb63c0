//! What a policy makes of backups through the service: retention, compression and encryption, the configuration of the
//! cluster.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::net::TcpListener;

use abs_devserver::{Fault, Kind};
use serde_json::{Value, json};

use super::restores::done;
use super::{Home, counts, held, holds, is_data, metric, open, put, request_of, with_policy};
use crate::faults::empty;
use crate::raw::{self, Raw, blob};
use crate::service::place::{Place, on_every_storage};
use crate::service::support::{ROUTINE, Service, configuration, eventually};
use crate::support::{Server, golden};

on_every_storage!(
    retention_keeps_what_it_says,
    retention_waits_for_a_restore,
    compressed_and_encrypted_backups_restore_with_their_key,
    the_configuration_of_the_cluster_is_saved_and_retrieved,
    a_namespace_that_fails_leaves_the_others_whole,
);

/// Waits until these backups, and no others, are listed.
#[track_caller]
fn lists(service: &Service, kind: &str, expected: &[&Value]) {
    let mut found = Vec::new();
    eventually(|| {
        found = service.backups(kind, "routine");
        found.iter().collect::<Vec<_>>() == expected
    })
    .unwrap_or_else(|()| panic!("{found:#?}\nshould be\n{expected:#?}\n{}", service.log()));
}

/// Protects: after each full backup the last two full ones stay, and the incremental ones of the last; what goes, goes
/// from the storage too.
fn retention_keeps_what_it_says(place: Place) {
    let server = Server::embedded(1);
    let home = with_policy(&server, "{retention: {full: 2, incremental: 1}}").at(place);
    let service = home.serve();
    let mut value = 0;
    let mut backup = |kind| {
        value += 1;
        put(&server, 0..10, value);
        service.backup(kind, "routine").remove(0)
    };
    let fulls = [backup("full")];
    let first = [backup("incremental"), backup("incremental")];
    lists(&service, "incremental", &[&first[0], &first[1]]);
    let fulls = [&fulls[0], &backup("full")];
    lists(&service, "full", &fulls);
    lists(&service, "incremental", &[]);
    let second = [backup("incremental")];
    lists(&service, "incremental", &[&second[0]]);
    let last = backup("full");
    lists(&service, "full", &[fulls[1], &last]);
    lists(&service, "incremental", &[]);
    // What is no longer listed is deleted file by file.
    let kept = |name: &String| {
        [fulls[1], &last].iter().any(|backup| name.starts_with(backup["key"].as_str().unwrap()))
    };
    eventually(|| home.files().iter().all(kept))
        .unwrap_or_else(|()| panic!("more is left than {fulls:?} and {last}: {:?}", home.files()));
    if place == Place::Local {
        eventually(|| fs::read_dir(home.storage().join("routine/backup")).unwrap().count() == 2).unwrap();
    }
}

/// Protects: what a restore reads is not deleted under it; it goes when the restore has ended.
fn retention_waits_for_a_restore(place: Place) {
    let server = Server::embedded(1);
    put(&server, 0..100, 1);
    let home = with_policy(&server, "{retention: {full: 1}}").at(place);
    let service = home.serve();
    let first = service.backup("full", "routine").remove(0);
    // Into another namespace: of this one no backup is made meanwhile.
    let map = json!({"source": server.namespace, "destination": "source-ns1"});
    let slow = json!({"tps": 1, "batch-size": 1, "max-async-batches": 1, "namespace": map});
    let restore = service.start_restore("full", &request_of(&first, &slow));
    let second = service.backup("full", "routine").remove(0);
    assert_eq!(service.json(&format!("/v1/restore/status/{restore}"))["status"], "Running");
    assert_eq!(service.backups("full", "routine"), [first, second.clone()]);
    service.post(&format!("/v1/restore/cancel/{restore}"), None).is(202);
    lists(&service, "full", &[&second]);
}

/// An agent that knows one secret.
fn agent(secret: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 8];
            stream.read_exact(&mut head).unwrap();
            let mut body = vec![0; u32::from_be_bytes(head[4..].try_into().unwrap()) as usize];
            stream.read_exact(&mut body).unwrap();
            assert_eq!(
                serde_json::from_slice::<Value>(&body).unwrap(),
                json!({"Resource": "backup", "SecretKey": "key"})
            );
            let answer = json!({"SecretValue": secret}).to_string();
            let length = (answer.len() as u32).to_be_bytes();
            stream.write_all(&[&head[..4], &length, answer.as_bytes()].concat()).unwrap();
        }
    });
    port
}

/// Protects: a policy that compresses and encrypts, with a key from a file and from a secret agent: what is stored can be
/// read with the key alone, and comes back with it; a restore that says otherwise is told so.
fn compressed_and_encrypted_backups_restore_with_their_key(place: Place) {
    let server = Server::embedded(2);
    let secret = fs::read_to_string(golden().join("test-key.b64")).unwrap().trim().to_owned();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n");
    let port = agent(base64_simd::STANDARD.encode_to_string(pem.as_bytes()));
    let text = configuration(&server, ROUTINE);
    let key = Home::new("");
    let key_file = key.path().join("key.pem");
    fs::write(&key_file, &pem).unwrap();
    let value = b"plainly to be seen";
    let records: Vec<_> = (0..200).map(|n| Raw::new(n).bin("bin", blob(value.repeat(20)))).collect();
    raw::load(&server, &records);
    let expected = held(&server);
    for (mode, level, source) in [
        ("AES128", 1, json!({"key-file": key_file})),
        ("AES256", 3, json!({"key-secret": "secrets:backup:key"})),
        ("AES256GCM", 1, json!({"key-secret": "secrets:backup:key"})),
    ] {
        let mut encryption = source;
        encryption["mode"] = json!(mode);
        let agents = format!(
            "secret-agents: {{agent: {{address: 127.0.0.1, port: {port}, connection-type: tcp, is-base64: true}}}}\n"
        );
        let policy =
            format!("policy: {{compression: {{mode: ZSTD, level: {level}}}, encryption: {encryption}, retry");
        let text =
            text.replace("policy: {retry", &policy).replace("storage:\n", &format!("{agents}storage:\n"));
        let home = Home::new(
            &text.replace("source-cluster: cluster", "source-cluster: cluster, secret-agent: agent"),
        )
        .at(place);
        let service = home.serve();
        let backup = service.backup("full", "routine").remove(0);
        assert_eq!((&backup["compression"], &backup["encryption"]), (&json!("ZSTD"), &json!(mode)));
        assert!(backup["byte-count"].as_u64().unwrap() < 200 * value.len() as u64 * 20 / 2, "{backup}");
        for name in home.files().iter().filter(|name| is_data(name)) {
            let bytes = home.read(name);
            assert!(!bytes.windows(value.len()).any(|part| part == value), "{name}");
        }
        let policy = json!({"compression": {"mode": "ZSTD"}, "encryption": encryption});
        let mut request = request_of(&backup, &policy);
        request["secret-agent-name"] = json!("agent");
        empty(&server);
        done(&service, "full", &request);
        holds(&server, &expected);
        // With the key among those that older backups are read with.
        let mut read_key = encryption.clone();
        read_key["mode"] = json!(mode);
        let policy =
            json!({"encryption": {"mode": "AES128GCM", "key-file": key_file, "read-keys": [read_key]}});
        let mut request = request_of(&backup, &policy);
        request["secret-agent-name"] = json!("agent");
        empty(&server);
        done(&service, "full", &request);
        holds(&server, &expected);
        // By time, without a word about compression, which the backup knows itself.
        empty(&server);
        let at = json!({
            "routine": "routine", "time": backup["timestamp"], "policy": {"encryption": encryption},
            "secret-agent-name": "agent"
        });
        done(&service, "timestamp", &at);
        holds(&server, &expected);
        // Without the key.
        empty(&server);
        service
            .post("/v1/restore/full", Some(&request_of(&backup, &json!({})).to_string()))
            .refuses(400, &["policy.encryption", "NONE", mode]);
        assert_eq!(server.objects(), 0);
        raw::load(&server, &records);
    }
}

/// Protects: the configuration of the cluster's nodes is saved with a full backup when the policy wants it, where the
/// reference puts it, and comes as a zip file.
fn the_configuration_of_the_cluster_is_saved_and_retrieved(place: Place) {
    let server = Server::embedded(2);
    put(&server, 0..10, 1);
    let home = with_policy(&server, "{with-cluster-configuration: true}").at(place);
    let service = home.serve();
    let time = service.backup("full", "routine")[0]["timestamp"].as_i64().unwrap();
    let folder = format!("routine/backup/{time}/configuration");
    let path = format!("/v1/retrieve/configuration/routine/{time}");
    let answer = open(&service, &path);
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"application/zip".parse().unwrap())
    );
    let bytes = answer.into_body().read_to_vec().unwrap();
    let mut archive = zip::ZipArchive::new(Cursor::new(&bytes)).unwrap();
    assert_eq!(archive.len(), 2);
    for index in 0..2 {
        let name = format!("aerospike_{index}.conf");
        let mut text = String::new();
        archive.by_name(&name).unwrap().read_to_string(&mut text).unwrap();
        assert!(text.contains("namespace source-ns2"), "{text}");
        assert_eq!(text, String::from_utf8(home.read(&format!("{folder}/{name}"))).unwrap());
    }
    put(&server, 0..10, 2);
    let incremental = service.backup("incremental", "routine")[0]["timestamp"].as_i64().unwrap();
    // Of an incremental one, it is that of the full one before.
    let later = open(&service, &format!("/v1/retrieve/configuration/routine/{incremental}"));
    assert_eq!(later.into_body().read_to_vec().unwrap(), bytes);
    assert!(
        !home
            .files()
            .iter()
            .any(|name| { name.starts_with("routine/incremental") && name.contains("configuration") })
    );
    for (path, status, parts) in [
        ("nobody/1".to_owned(), 404, ["nobody", "not found"]),
        ("routine/x".to_owned(), 400, ["timestamp", "\"x\""]),
        (format!("routine/{}", time - 1), 400, ["routine routine", "no full backup"]),
    ] {
        service.get(&format!("/v1/retrieve/configuration/{path}")).refuses(status, &parts);
    }
}

/// Protects: a namespace that fails does not touch the others; a run that fails for good is counted and leaves no partial
/// data, and the service goes on.
fn a_namespace_that_fails_leaves_the_others_whole(place: Place) {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let text = configuration(&server, ROUTINE);
    let home = Home::new(&text.replace("[source-ns2]", "[source-ns2, nowhere]")).at(place);
    let service = home.serve();
    let failure = "backup_events_total{outcome=\"failure\",routine=\"routine\",type=\"full\"}";
    service.post("/v1/backups/full/routine", None).is(202);
    counts(&service, failure, 1);
    counts(&service, "failure_total", 1);
    service.logs(&["backup failed", "nowhere"]);
    let kept = service.backups("full", "routine");
    assert_eq!(
        (kept.len(), &kept[0]["namespace"], &kept[0]["record-count"]),
        (1, &json!("source-ns2"), &json!(10))
    );
    let key = kept[0]["key"].as_str().unwrap();
    assert!(home.files().iter().all(|name| name.starts_with(key)), "{:?}", home.files());
    // For good: there is nothing to wait for.
    let retried = "backup_events_total{outcome=\"retry\",routine=\"routine\",type=\"full\"}";
    assert_eq!(metric(&service, retried), 0);
    let routine = service.json("/v1/config/routines/routine").to_string();
    let only = routine.replace("\"source-ns2\",", "");
    assert_ne!(only, routine);
    service.put("/v1/config/routines/routine", Some(&only)).is(200);
    service.post("/v1/backups/full/routine", None).is(202);
    counts(&service, failure, 2);
    assert!(home.files().iter().all(|name| name.starts_with(key)), "{:?}", home.files());
}

/// Protects: what fails for a while is tried again as the retry policy says, and the backup is whole in the end; one that
/// fails in the end leaves nothing.
#[test]
fn what_fails_for_a_while_is_tried_again() {
    let server = Server::embedded(2);
    put(&server, 0..500, 1);
    let home = with_policy(&server, "{retry-policy: {base-timeout: 50, multiplier: 1, max-retries: 1000}}");
    let service = home.serve();
    let event = |outcome: &str| {
        format!("backup_events_total{{outcome=\"{outcome}\",routine=\"routine\",type=\"full\"}}")
    };
    let knobs = server.dev().knobs();
    knobs.inject(Fault::cut_request(Kind::Any));
    service.post("/v1/backups/full/routine", None).is(202);
    eventually(|| metric(&service, &event("retry")) > 1)
        .unwrap_or_else(|()| panic!("it is not tried again:\n{}", service.log()));
    knobs.clear();
    counts(&service, &event("success"), 1);
    let made = service.backups("full", "routine");
    assert_eq!((made.len(), &made[0]["record-count"]), (1, &json!(500)));
    let before = home.files();

    let policy = json!({"retry-policy": {"base-timeout": 1, "max-retries": 1}}).to_string();
    service.put("/v1/config/policies/policy", Some(&policy)).is(200);
    let retries = metric(&service, &event("retry"));
    knobs.inject(Fault::cut_request(Kind::Any));
    service.post("/v1/backups/full/routine", None).is(202);
    counts(&service, &event("failure"), 1);
    assert_eq!(metric(&service, &event("retry")), retries + 1);
    assert_eq!(home.files(), before);
    service.logs(&["backup failed", "cluster"]);
}
