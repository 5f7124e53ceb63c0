//! Restores of one backup by its path: what they do, what they say, what they refuse.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use abs_devserver::{Fault, Kind};
use serde_json::{Value, json};

use super::{Home, counts, destination, held, holds, looks_like, put, request_of};
use crate::faults::empty;
use crate::service::place::{Place, on_every_storage};
use crate::service::support::{ROUTINE, Service, eventually};
use crate::support::{Server, golden};

on_every_storage!(a_backup_is_restored_by_its_path_as_the_guide_says,);

/// What the reference shows of a restore.
pub fn example(job: &Value) -> Value {
    json!({
        "read-records": 100_000, "total-bytes": 30_000_000, "expired-records": 0, "skipped-records": 0,
        "ignored-records": 0, "inserted-records": 50_000, "existed-records": 0, "fresher-records": 0,
        "index-count": 4, "udf-count": 1, "errors-in-doubt": 0, "current-job": job, "status": "Running"
    })
}

/// The same of one that has ended: it says when, and no longer when it will.
pub fn ended() -> Value {
    example(&json!({
        "total-records": 100_000, "done-records": 50_000, "start-time": "2024-01-01T12:00:00Z",
        "finish-time": "2024-01-01T13:00:00Z", "duration": 7, "percentage-done": 50,
        "metrics": {"records-per-second": 1000, "kilobytes-per-second": 30_000, "pipeline": 0}
    }))
}

/// Restores, and insists that all is well and that the fates of the records add up.
#[track_caller]
pub fn done(service: &Service, kind: &str, request: &Value) -> Value {
    let status = service.restore(kind, request);
    assert_eq!(status["status"], "Done", "{status}\n{}", service.log());
    let mut example = ended();
    if status["warnings"].is_array() {
        example["warnings"] = json!(["a line"]);
    }
    if status["superseded-records"].is_u64() {
        example["superseded-records"] = json!(1);
    }
    looks_like(&status, &example);
    let count = |key: &str| status[key].as_u64().unwrap_or_default();
    let fates = ["inserted", "fresher", "existed", "ignored", "skipped", "expired", "superseded"];
    let sum: u64 = fates.iter().map(|fate| count(&format!("{fate}-records"))).sum();
    assert_eq!(count("read-records"), sum, "{status}");
    status
}

/// Insists on these numbers of a status.
#[track_caller]
pub fn numbers(status: &Value, expected: &[(&str, u64)]) {
    for (key, number) in expected {
        assert_eq!(status[*key], *number, "{key} of {status}");
    }
}

/// Protects: the restore of the reference's guide, with source, path and destination as a list and a configuration show
/// them; what is overwritten is up to the policy; definitions come back with the records.
fn a_backup_is_restored_by_its_path_as_the_guide_says(place: Place) {
    let server = Server::embedded(2);
    server.restore("source-ns1", &golden().join("asb/plain"), &[]).ok();
    put(&server, 0..50, 1);
    let records = server.objects();
    let before = held(&server);
    let service = Home::of(&server, ROUTINE).at(place).serve();
    let full = service.backup("full", "routine").remove(0);
    let inline = |policy: Value| {
        json!({
            "destination": destination(&server), "policy": policy, "source": full["storage"],
            "backup-data-path": full["key"]
        })
    };
    // Newer records stay, unless the generation is not to count.
    put(&server, 0..30, 2);
    let status = done(&service, "full", &inline(json!({"no-indexes": true, "no-udfs": true})));
    numbers(
        &status,
        &[("fresher-records", records), ("inserted-records", 0), ("index-count", 0), ("udf-count", 0)],
    );
    let status = done(&service, "full", &inline(json!({"unique": true})));
    numbers(&status, &[("existed-records", records), ("inserted-records", 0)]);
    assert_ne!(held(&server), before);
    let status = done(&service, "full", &inline(json!({"no-generation": true})));
    numbers(&status, &[("inserted-records", records), ("read-records", records)]);
    holds(&server, &before);

    // By names, into nothing.
    server.wipe();
    let status = done(&service, "full", &request_of(&full, &json!({})));
    numbers(
        &status,
        &[("inserted-records", records), ("index-count", 8), ("udf-count", 1), ("errors-in-doubt", 0)],
    );
    assert!(status["total-bytes"].as_u64().unwrap() >= full["byte-count"].as_u64().unwrap(), "{status}");
    numbers(
        &status["current-job"],
        &[("done-records", records), ("total-records", records), ("percentage-done", 100)],
    );
    holds(&server, &before);
    counts(&service, "restore_events_total{outcome=\"success\"}", 4);
}

/// Protects: an incremental backup restores alone, to another cluster and namespace, in parts, as the policy says.
#[test]
fn an_incremental_backup_is_restored_as_the_policy_says() {
    let server = Server::embedded(2);
    let mut other = Server::embedded(1);
    put(&server, 0..20, 1);
    let service = Home::of(&server, ROUTINE).serve();
    service.backup("full", "routine");
    put(&server, 10..40, 2);
    let incremental = service.backup("incremental", "routine").remove(0);
    other.namespace = "source-ns1".to_owned();
    let map = json!({"source": server.namespace, "destination": other.namespace});
    for (policy, inserted, skipped) in [
        (json!({"namespace": map}), 30, 0),
        (json!({"namespace": map, "set-list": ["s"], "bin-list": ["value"]}), 30, 0),
        (json!({"namespace": map, "set-list": ["other"]}), 0, 30),
        (json!({"namespace": map, "bin-list": ["other"]}), 0, 30),
        (json!({"namespace": map, "disable-batch-writes": true, "extra-ttl": 100, "parallel": 2}), 30, 0),
    ] {
        empty(&other);
        let request = json!({
            "destination": destination(&other), "policy": policy, "source-name": "disk",
            "backup-data-path": incremental["key"]
        });
        let status = done(&service, "incremental", &request);
        numbers(&status, &[("inserted-records", inserted), ("skipped-records", skipped)]);
        assert_eq!(other.objects(), inserted);
    }
    let request = json!({
        "destination": destination(&other), "policy": {"namespace": {"source": "x", "destination": "y"}},
        "source-name": "disk", "backup-data-path": incremental["key"]
    });
    service
        .post("/v1/restore/incremental", Some(&request.to_string()))
        .refuses(400, &["policy.namespace.source", "x is not the namespace", &server.namespace]);
}

/// Protects: the list of restores, with every filter; both sets of names of their states.
#[test]
fn restores_are_listed_by_state_and_time() {
    let server = Server::embedded(1);
    put(&server, 0..100, 1);
    let service = Home::of(&server, ROUTINE).serve();
    assert_eq!(service.json("/v1/restore/jobs"), json!({}));
    let backup = service.backup("full", "routine").remove(0);
    let request = |policy: Value| request_of(&backup, &policy);
    let good = service.start_restore("full", &request(json!({})));
    let good_end = service.restored(good);
    assert_eq!(good_end["status"], "Done");
    let nowhere = json!({"namespace": {"source": server.namespace, "destination": "nowhere"}});
    service
        .post("/v1/restore/full", Some(&request(nowhere).to_string()))
        .refuses(400, &["no namespace nowhere", &server.namespace]);
    // Its job is there all the same.
    let bad = eventually_failed(&service, 1).remove(0);
    let bad_end = service.restored(bad);
    let mut expected = ended();
    expected["error"] = json!("why");
    looks_like(&bad_end, &expected);
    assert!(bad_end["error"].as_str().unwrap().contains("nowhere"), "{bad_end}");
    let slow = json!({"tps": 1, "batch-size": 1, "max-async-batches": 1, "no-generation": true});
    let canceled = service.start_restore("full", &request(slow));
    service.post(&format!("/v1/restore/cancel/{canceled}"), None).is(202);
    assert_eq!(service.restored(canceled)["status"], "Canceled");
    service.post(&format!("/v1/restore/cancel/{good}"), None).refuses(400, &[&good.to_string(), "ended"]);
    assert!(0 < good && good < bad && bad < canceled && canceled < 1 << 63);

    let jobs = |query: &str| service.json(&format!("/v1/restore/jobs{query}"));
    let ids = |query: &str| {
        let mut ids: Vec<u64> =
            jobs(query).as_object().unwrap().keys().map(|id| id.parse().unwrap()).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(jobs("")[good.to_string()], good_end);
    for (status, expected) in [
        ("Done", &[good][..]),
        ("success", &[good]),
        ("Failed", &[bad]),
        ("FAILURE", &[bad]),
        ("canceled", &[canceled]),
        ("Done,Failed", &[good, bad]),
        ("success, failure", &[good, bad]),
        ("!Failed,Canceled", &[good]),
        ("!failure", &[good, canceled]),
        ("!Running", &[good, bad, canceled]),
        ("Running", &[]),
    ] {
        let query = format!("?status={}", status.replace(' ', "%20").replace('!', "%21"));
        assert_eq!(ids(&query), expected, "{status}");
    }
    service.get("/v1/restore/jobs?status=").refuses(400, &["status: has no value"]);
    let time = |id: u64| super::milliseconds(&jobs("")[id.to_string()]["current-job"]["start-time"]);
    let (first, last) = (time(good), time(canceled));
    assert_eq!(ids(&format!("?from={first}&to={last}")), [good, bad, canceled]);
    assert_eq!(ids(&format!("?to={}", first - 1)), [0; 0]);
    assert_eq!(ids(&format!("?from={}", last + 1)), [0; 0]);
    assert!(ids(&format!("?to={first}")).contains(&good));
    assert_eq!(ids(&format!("?from={first}&status=Failed")), [bad]);
    for (query, parts) in [
        ("status=Gone", ["status", "\"Gone\""]),
        ("status=Done,Gone", ["status", "\"Gone\""]),
        ("from=x", ["from", "\"x\""]),
        ("from=2&to=1", ["from", "later"]),
    ] {
        service.get(&format!("/v1/restore/jobs?{query}")).refuses(400, &parts);
    }
    for id in ["0", "123456789", "9223372036854775807"] {
        service.get(&format!("/v1/restore/status/{id}")).refuses(404, &[id, "not found"]);
        service.post(&format!("/v1/restore/cancel/{id}"), None).refuses(404, &[id, "not found"]);
    }
    for id in ["x", "-1", "1.5", "9223372036854775808"] {
        service.get(&format!("/v1/restore/status/{id}")).refuses(400, &["jobId", id]);
        service.post(&format!("/v1/restore/cancel/{id}"), None).refuses(400, &["jobId", id]);
    }
    counts(&service, "restore_events_total{outcome=\"failure\"}", 1);
}

/// Protects: a request that cannot be done is refused at once with what is wrong, and starts nothing.
#[test]
fn requests_that_cannot_be_done_are_refused() {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let service = Home::of(&server, ROUTINE).serve();
    let backup = service.backup("full", "routine").remove(0);
    let good = request_of(&backup, &json!({}));
    let with = |changes: Value| {
        let mut request = good.clone();
        for (key, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => request.as_object_mut().unwrap().remove(key),
                value => request.as_object_mut().unwrap().insert(key.clone(), value.clone()),
            };
        }
        request.to_string()
    };
    let cluster = destination(&server);
    for kind in ["full", "incremental"] {
        for (request, parts) in [
            (with(json!({"destination": cluster})), &["destination"][..]),
            (with(json!({"destination-name": null})), &["destination"]),
            (with(json!({"destination-name": "nobody"})), &["destination-name", "nobody"]),
            (
                with(json!({"destination-name": null, "destination": {"seed-nodes": []}})),
                &["destination.seed-nodes"],
            ),
            (with(json!({"source": backup["storage"]})), &["source"]),
            (with(json!({"source-name": null})), &["source"]),
            (with(json!({"source-name": "nobody"})), &["source-name", "nobody"]),
            (with(json!({"backup-data-path": null})), &["backup-data-path"]),
            (with(json!({"backup-data-path": "../other"})), &["backup-data-path"]),
            (
                with(json!({"backup-data-path": "routine/backup/1/data/x"})),
                &["backup-data-path", "no backup"],
            ),
            (with(json!({"policy": {"bandwidth": 7}})), &["policy.bandwidth"]),
            (
                with(json!({"policy": {"parallel": 0, "batch-size": -1}})),
                &["policy.parallel", "policy.batch-size"],
            ),
            (with(json!({"policy": {"no-generations": true}})), &["policy.no-generations", "is no key here"]),
            (with(json!({"secret-agent-name": "nobody"})), &["secret-agent-name", "nobody"]),
            (with(json!({"paths": "x"})), &["paths", "is no key here"]),
            (String::new(), &[]),
            ("[1".to_owned(), &[]),
        ] {
            service.post(&format!("/v1/restore/{kind}"), Some(&request)).refuses(400, parts);
        }
    }
    let time = backup["timestamp"].as_i64().unwrap();
    let at = |changes: Value| {
        let mut request = json!({"routine": "routine", "time": time});
        for (key, value) in changes.as_object().unwrap() {
            request[key] = value.clone();
        }
        request.to_string()
    };
    for (request, parts) in [
        (at(json!({"routine": "nobody"})), &["routine", "nobody"][..]),
        (at(json!({"time": 1})), &["time"]),
        (at(json!({"time": time - 1})), &["routine routine", "no full backup"]),
        (at(json!({"time": "now"})), &["time"]),
        (at(json!({"destination-name": "cluster", "destination": cluster})), &["destination"]),
        (at(json!({"destination-name": "nobody"})), &["destination-name", "nobody"]),
        (at(json!({"source-name": "nobody"})), &["source-name", "nobody"]),
        (at(json!({"policy": {"compression": {"mode": "ZSTD"}}})), &["policy.compression"]),
        (
            at(json!({"policy": {"namespace": {"source": "x", "destination": "y"}}})),
            &["policy.namespace.source", "x"],
        ),
        (at(json!({"reorder": true})), &["reorder", "is no key here"]),
        (json!({"routine": "routine"}).to_string(), &["time"]),
        (json!({"time": time}).to_string(), &["routine"]),
    ] {
        service.post("/v1/restore/timestamp", Some(&request)).refuses(400, parts);
    }
    // Those that had to look for the backup first have a job that failed; the others have none.
    eventually_failed(&service, 4);
}

/// Waits until there are this many restores that have failed, and no others but those that are done; their ids.
fn eventually_failed(service: &Service, number: usize) -> Vec<u64> {
    let jobs = || service.json("/v1/restore/jobs?status=%21Done").as_object().unwrap().clone();
    let all_failed = || jobs().len() == number && jobs().values().all(|job| job["status"] == "Failed");
    eventually(all_failed).unwrap_or_else(|()| panic!("not {number} failed: {:#?}", jobs()));
    jobs().keys().map(|id| id.parse().unwrap()).collect()
}

/// Protects: a namespace is not restored while it is being backed up, nor backed up while it is being restored: the first is
/// refused, the second skipped and counted.
#[test]
fn a_namespace_is_not_restored_and_backed_up_at_the_same_time() {
    let server = Server::embedded(2);
    put(&server, 0..2000, 1);
    let home = super::with_policy(&server, "{records-per-second: 100, parallel: 1}");
    let service = home.serve();
    let slow = json!({"tps": 10, "batch-size": 1, "max-async-batches": 1, "no-generation": true});
    service.post("/v1/backups/full/routine", None).is(202);
    eventually(|| !service.json("/v1/backups/currentBackup/routine")["full"].is_null()).unwrap();
    let other = Home::of(&server, ROUTINE).serve();
    let backup = other.backup("full", "routine").remove(0);
    let mut request = request_of(&backup, &slow);
    request["source"] = backup["storage"].clone();
    for key in ["source-name", "destination-name"] {
        request.as_object_mut().unwrap().remove(key);
    }
    // Whatever name it has, and whichever of its nodes is named.
    let [first, second] = [0, 1].map(|node| server.dev().addresses()[node].port());
    for (host, port) in [("127.0.0.1", first), ("127.0.0.1", second), ("localhost", first)] {
        request["destination"] = json!({"seed-nodes": [{"host-name": host, "port": port}]});
        service
            .post("/v1/restore/full", Some(&request.to_string()))
            .refuses(409, &[&server.namespace, "routine"]);
    }
    service.post("/v1/backups/cancel/routine", None);
    eventually(|| service.json("/v1/backups/currentBackup/routine")["full"].is_null()).unwrap();
    let restore = service.start_restore("full", &request);
    service.post("/v1/backups/full/routine", None).is(202);
    counts(&service, "backup_events_total{outcome=\"skip\",routine=\"routine\",type=\"full\"}", 1);
    service.logs(&["backup skipped", "is being restored"]);
    // Another namespace is not affected.
    service.post(&format!("/v1/restore/cancel/{restore}"), None).is(202);
    service.restored(restore);
    service.post("/v1/backups/full/routine", None).is(202);
    eventually(|| !service.json("/v1/backups/currentBackup/routine")["full"].is_null()).unwrap();
}

/// Protects: a client that hangs up while its restore is planned leaves no restore that it does not know.
#[test]
fn a_restore_ends_with_its_request() {
    let server = Server::embedded(1);
    put(&server, 0..100, 1);
    let service = Home::of(&server, ROUTINE).serve();
    let backup = service.backup("full", "routine").remove(0);
    let request = request_of(&backup, &json!({"no-generation": true})).to_string();
    server.dev().knobs().inject(Fault::delay_request(Kind::Info, Duration::from_millis(500)));
    let mut client = TcpStream::connect(service.address().trim_start_matches("http://")).unwrap();
    let length = request.len();
    write!(client, "POST /v1/restore/full HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{request}")
        .unwrap();
    let jobs = || service.json("/v1/restore/jobs").as_object().unwrap().clone();
    eventually(|| !jobs().is_empty()).unwrap_or_else(|()| panic!("it does not begin:\n{}", service.log()));
    drop(client);
    eventually(|| jobs().values().all(|job| job["status"] == "Canceled"))
        .unwrap_or_else(|()| panic!("it is not canceled: {:#?}", jobs()));
}

/// Protects: the folder of a run restores every namespace of it; a folder without metadata.yaml is restored as it is, with a
/// warning, into the namespace that its files name.
#[test]
fn a_whole_run_and_a_folder_without_metadata_are_restored() {
    let mut server = Server::embedded(1);
    let names = ["source-ns1", "source-ns2"];
    for name in names {
        name.clone_into(&mut server.namespace);
        put(&server, 0..50, 1);
    }
    let text = crate::service::support::configuration(&server, ROUTINE);
    let home = Home::new(&text.replace("namespaces: [source-ns2]", "namespaces: []"));
    let service = home.serve();
    let backups = service.backup("full", "routine");
    let key = backups[0]["key"].as_str().unwrap();
    let run = key.split("/data/").next().unwrap();
    let request = |path: &str| {
        json!({
            "destination-name": "cluster", "source-name": "disk", "backup-data-path": path,
            "policy": {"no-generation": true}
        })
    };
    let status = done(&service, "full", &request(run));
    numbers(&status, &[("inserted-records", 100)]);
    std::fs::remove_file(home.storage().join(key).join("metadata.yaml")).unwrap();
    let status = done(&service, "full", &request(key));
    numbers(&status, &[("inserted-records", 50)]);
    let warning = status["warnings"][0].as_str().unwrap();
    assert!(warning.contains(key) && warning.contains("no metadata.yaml"), "{warning}");
    // Runs of different times are not one.
    service.backup("full", "routine");
    service
        .post("/v1/restore/full", Some(&request("routine/backup").to_string()))
        .refuses(400, &["backup-data-path", "different times"]);
}

/// Protects: what the request says of the encryption is compared with metadata.yaml before anything is written.
#[test]
fn an_encryption_that_does_not_agree_is_refused() {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let service = Home::of(&server, ROUTINE).serve();
    let backup = service.backup("full", "routine").remove(0);
    let key = golden().join("test-key.b64");
    let policy = json!({"encryption": {"mode": "AES256", "key-file": key}});
    service
        .post("/v1/restore/full", Some(&request_of(&backup, &policy).to_string()))
        .refuses(400, &["policy.encryption", "AES256", "NONE"]);
}

/// Protects: `override` restores what is there of a backup that lacks a file, with its indexes, and says what lacks.
#[test]
fn what_is_there_of_a_backup_is_restored_when_counts_are_overridden() {
    let server = Server::embedded(1);
    server.restore("source-ns1", &golden().join("asb/plain"), &[]).ok();
    let home = super::with_policy(&server, "{file-limit: 1, parallel: 1}");
    let service = home.serve();
    let backup = service.backup("full", "routine").remove(0);
    let folder = home.storage().join(backup["key"].as_str().unwrap());
    let yaml = std::fs::read_to_string(folder.join("metadata.yaml")).unwrap();
    let records = backup["record-count"].as_u64().unwrap();
    let more = yaml.replace(&format!("record-count: {records}"), &format!("record-count: {}", records + 1));
    assert_ne!(more, yaml);
    std::fs::write(folder.join("metadata.yaml"), more).unwrap();
    let status = service.restore("full", &request_of(&backup, &json!({"no-generation": true})));
    assert_eq!(status["status"], "Failed", "{status}");
    assert!(status["error"].as_str().unwrap().contains("metadata.yaml: damaged"), "{status}");
    let status =
        done(&service, "full", &request_of(&backup, &json!({"no-generation": true, "override": true})));
    let indexes = backup["secondary-index-count"].as_u64().unwrap();
    numbers(&status, &[("inserted-records", records), ("index-count", indexes)]);
    assert!(indexes > 0);
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("metadata.yaml: damaged"), "{warnings}");
    assert!(warnings.contains(&format!("says {} records", records + 1)), "{warnings}");
}
