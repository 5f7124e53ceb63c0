//! The configuration through the API: read, changed, refused, written back; secrets.

use std::fs;

use serde_json::{Value, json};

use super::{Home, files, holds, put, request_of};
use crate::faults::empty;
use crate::service::support::{ROUTINE, configuration, eventually};
use crate::support::Server;

/// Protects: the three lists of the reference's guide have what the file has, in its words.
#[test]
fn it_is_shown_as_it_was_written() {
    let home = Home::new(
        r#"
service: {http: {address: 127.0.0.1, port: 0}}
aerospike-clusters:
  absDefaultCluster:
    seed-nodes: [{host-name: host.docker.internal, port: 3000}]
    credentials: {user: tester, password: "secrets:resource:psw", secret-agent-name: agent}
  other: {seed-nodes: [{host-name: 127.0.0.1, port: 3000}]}
storage:
  local: {local-storage: {path: ./localStorage}}
backup-policies:
  defaultPolicy: {parallel: 8, file-limit: 50_000}
backup-routines:
  routine1:
    {backup-policy: defaultPolicy, source-cluster: other, storage: local, interval-cron: "@yearly",
     namespaces: [source-ns7], disabled: true}
  routine2:
    {backup-policy: defaultPolicy, source-cluster: other, storage: local, interval-cron: "@yearly",
     namespaces: [source-ns8], set-list: [backupSet], bin-list: [backupBin], disabled: true}
secret-agents:
  agent: {connection-type: tcp, address: 127.0.0.1, port: 3005}
"#,
    );
    let service = home.serve();
    let clusters = json!({
        "absDefaultCluster": {
            "seed-nodes": [{"host-name": "host.docker.internal", "port": 3000}],
            "credentials": {"user": "tester", "password": "secrets:resource:psw", "secret-agent-name": "agent"}
        },
        "other": {"seed-nodes": [{"host-name": "127.0.0.1", "port": 3000}]}
    });
    let routine = |namespace: &str| {
        json!({
            "backup-policy": "defaultPolicy", "source-cluster": "other", "storage": "local",
            "interval-cron": "@yearly", "namespaces": [namespace], "disabled": true
        })
    };
    let mut second = routine("source-ns8");
    second["set-list"] = json!(["backupSet"]);
    second["bin-list"] = json!(["backupBin"]);
    let routines = json!({"routine1": routine("source-ns7"), "routine2": second});
    let storage = json!({"local": {"local-storage": {"path": "./localStorage"}}});
    let policies = json!({"defaultPolicy": {"parallel": 8, "file-limit": 50_000}});
    for (path, expected) in
        [("clusters", &clusters), ("routines", &routines), ("storage", &storage), ("policies", &policies)]
    {
        assert_eq!(service.json(&format!("/v1/config/{path}")), *expected);
        for (name, entry) in expected.as_object().unwrap() {
            assert_eq!(service.json(&format!("/v1/config/{path}/{name}")), *entry);
        }
    }
    let whole = service.json("/v1/config");
    for (key, expected) in [
        ("aerospike-clusters", clusters),
        ("backup-routines", routines),
        ("storage", storage),
        ("backup-policies", policies),
        ("secret-agents", json!({"agent": {"connection-type": "tcp", "address": "127.0.0.1", "port": 3005}})),
        ("service", json!({"http": {"address": "127.0.0.1", "port": 0}})),
    ] {
        assert_eq!(whole[key], expected, "{key}");
    }
    assert_eq!(whole.as_object().unwrap().len(), 6);
    // What is shown can be sent back, and changes nothing.
    service.put("/v1/config", Some(&whole.to_string())).is(200);
    assert_eq!(service.json("/v1/config"), whole);
}

/// Protects: each kind of entry is added, read, changed and deleted, is in the file and in force from then on, and every
/// wrong step is refused with the reference's code.
#[test]
fn entries_come_and_go() {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    let other = home.path().join("other");
    let cluster = super::destination(&server);
    let mut slower = cluster.clone();
    slower["conn-timeout"] = json!(7000);
    let routine = json!({
        "source-cluster": "new", "storage": "new", "backup-policy": "new", "interval-cron": "@daily",
        "namespaces": [server.namespace]
    });
    let mut hourly = routine.clone();
    hourly["interval-cron"] = json!("@hourly");
    let entries = [
        ("clusters", "cluster", cluster, slower),
        ("policies", "policy", json!({"parallel": 2}), json!({"parallel": 3, "sealed": true})),
        (
            "storage",
            "storage",
            json!({"local-storage": {"path": home.path().join("first")}}),
            json!({"local-storage": {"path": other}}),
        ),
        ("routines", "routine", routine, hourly),
    ];
    for (kind, what, first, second) in &entries {
        let (path, missing) = (format!("/v1/config/{kind}/new"), format!("{what} new not found"));
        let (first, second) = (first.to_string(), second.to_string());
        service.get(&path).refuses(404, &[&missing]);
        service.put(&path, Some(&first)).refuses(400, &[&missing]);
        service.delete(&path).refuses(400, &[&missing]);
        assert_eq!(service.post(&path, Some(&first)).is(201).text, "");
        service.post(&path, Some(&first)).refuses(400, &["new exists already"]);
        assert_eq!(service.json(&path).to_string(), first);
        assert_eq!(service.put(&path, Some(&second)).is(200).text, "");
        assert_eq!(service.json(&path).to_string(), second);
    }
    // All are in force.
    let backup = service.backup("full", "new").remove(0);
    assert!(files(&other).iter().any(|name| name.starts_with(backup["key"].as_str().unwrap())));
    for (kind, what, ..) in &entries[..3] {
        service
            .delete(&format!("/v1/config/{kind}/new"))
            .refuses(400, &[&format!("{what} new is used by routine new")]);
    }
    // And in the file.
    service.stop();
    let service = home.serve();
    for (kind, _, _, second) in entries.iter().rev() {
        let path = format!("/v1/config/{kind}/new");
        assert_eq!(service.json(&path), *second);
        assert_eq!(service.delete(&path).is(204).text, "");
        service.get(&path).is(404);
    }
    assert!(!home.configured().contains("new"), "{}", home.configured());
    service.post("/v1/backups/full/new", None).refuses(404, &["routine new not found"]);
    // What is deleted is deleted from the configuration alone.
    assert!(!files(&other).is_empty());
}

/// Protects: what is wrong with a change is all said at once, with its path; nothing of it is done.
#[test]
fn wrong_changes_are_refused_with_their_path() {
    let server = Server::embedded(1);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    let (before, file) = (service.json("/v1/config"), home.configured());
    let routine = |changes: Value| {
        let mut routine = before["backup-routines"]["routine"].clone();
        for (key, value) in changes.as_object().unwrap() {
            routine[key] = value.clone();
        }
        routine
    };
    for (path, body, parts) in [
        ("clusters/new", json!({}), &["seed-nodes"][..]),
        (
            "clusters/new",
            json!({"seed-nodes": [{"host-name": "h", "port": 99_999}]}),
            &["seed-nodes[0].port"],
        ),
        (
            "clusters/new",
            json!({"seed-nodes": [{"host-name": "h", "ports": 1}]}),
            &["seed-nodes[0].ports", "is no key here"],
        ),
        ("clusters/new", json!([]), &["the body of the request must be an object"]),
        ("policies/new", json!({"parallel": "8"}), &["parallel", "whole number"]),
        ("policies/new", json!({"parallel": 0, "bandwidth": -1}), &["new.parallel", "new.bandwidth"]),
        ("policies/new", json!({"retention": {"fulls": 1}}), &["retention.fulls", "is no key here"]),
        ("policies/new", json!({"use-scan-compression": true}), &["use-scan-compression", "not supported"]),
        ("policies/new", json!({"compression": {"mode": "LZ4"}}), &["compression.mode", "LZ4", "ZSTD"]),
        ("policies/new", json!({"encryption": {"mode": "AES128"}}), &["encryption", "key-file"]),
        ("storage/new", json!({}), &["new", "local-storage"]),
        ("storage/new", json!({"local-storage": {"path": "a/../b"}}), &["local-storage.path"]),
        (
            "storage/new",
            json!({"s3-storage": {"bucket": "", "path": "p", "s3-region": "r", "access-key-id": "k"}}),
            &["new.s3-storage.bucket", "new.s3-storage.secret-access-key"],
        ),
        (
            "routines/new",
            routine(json!({"source-cluster": "nobody", "storage": "nowhere"})),
            &["backup-routines.new.source-cluster", "nobody", "backup-routines.new.storage", "nowhere"],
        ),
        (
            "routines/new",
            routine(json!({"backup-policy": "none"})),
            &["backup-routines.new.backup-policy", "none"],
        ),
        ("routines/new", routine(json!({"interval-cron": "every day"})), &["new.interval-cron", "every day"]),
        ("routines/new", routine(json!({"schedule-timezone": "Mars"})), &["new.schedule-timezone", "Mars"]),
        (
            "routines/new",
            routine(json!({"partition-list": "0-1", "node-list": ["A"]})),
            &["partition-list", "node-list"],
        ),
        (
            "routines/new",
            routine(json!({"set-list": ["a", "b"], "filter-exp": "kxGRSJNMBqFh"})),
            &["filter-exp"],
        ),
        ("routines/new", routine(json!({"secret-agent": "nobody"})), &["secret-agent", "nobody"]),
        ("routines/new", routine(json!({"intervall": "x"})), &["intervall", "is no key here"]),
    ] {
        service.post(&format!("/v1/config/{path}"), Some(&body.to_string())).refuses(400, parts);
    }
    let mut whole = before.clone();
    whole["backup-routines"]["routine"]["source-cluster"] = json!("nobody");
    whole["backup-policies"]["policy"]["parallel"] = json!(0);
    let parts = ["backup-policies.policy.parallel", "backup-routines.routine.source-cluster"];
    service.put("/v1/config", Some(&whole.to_string())).refuses(400, &parts);
    service.put("/v1/config", Some(r#"{"servise": {}}"#)).refuses(400, &["servise", "is no key here"]);
    for path in ["/v1/config", "/v1/config/policies/policy"] {
        for (wrong, part) in
            [(Some("{"), "is no JSON"), (Some("parallel: 1"), "is no JSON"), (None, "is empty")]
        {
            service.put(path, wrong).refuses(400, &[&format!("the body of the request {part}")]);
        }
    }
    assert_eq!((service.json("/v1/config"), home.configured()), (before, file));
}

/// Protects: a whole configuration is taken at once: routines come, go and change.
#[test]
fn the_whole_is_replaced() {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    let mut whole = service.json("/v1/config");
    let routines = whole["backup-routines"].as_object_mut().unwrap();
    let routine = routines.remove("routine").unwrap();
    routines.insert("other".to_owned(), routine);
    assert_eq!(service.put("/v1/config", Some(&whole.to_string())).is(200).text, "");
    assert_eq!(service.json("/v1/config"), whole);
    assert_eq!(service.json("/v1/backups/full"), json!({"other": []}));
    service.backup("full", "other");
    service.get("/v1/backups/full/routine").refuses(404, &["routine routine not found"]);
}

/// Protects: a disabled routine has nothing planned and takes no orders until it is enabled; the file says so too.
#[test]
fn routines_are_disabled_and_enabled() {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    let state = "/v1/backups/currentBackup/routine";
    assert!(service.json(state)["next-full"].is_string());
    for _ in 0..2 {
        assert_eq!(service.put("/v1/config/routines/routine/disable", None).is(204).text, "");
        assert_eq!(service.json("/v1/config/routines/routine")["disabled"], true);
        assert_eq!(service.json(state), json!({}));
        assert!(home.configured().contains("disabled: true"));
    }
    for _ in 0..2 {
        assert_eq!(service.put("/v1/config/routines/routine/enable", None).is(204).text, "");
        assert!(service.json(state)["next-full"].is_string());
        assert!(!home.configured().contains("disabled: true"));
    }
    service.backup("full", "routine");
    for action in ["enable", "disable"] {
        service
            .put(&format!("/v1/config/routines/nobody/{action}"), None)
            .refuses(404, &["routine nobody not found"]);
    }
}

/// Protects: the file is read again when asked, and a wrong one changes nothing.
#[test]
fn the_file_is_applied_again() {
    let server = Server::embedded(1);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    let text = configuration(&server, ROUTINE);
    home.configure(&text.replace("policy: {retry", "policy: {parallel: 1_6, retry"));
    assert_eq!(service.post("/v1/config/apply", None).is(200).text, "");
    assert_eq!(service.json("/v1/config/policies/policy")["parallel"], 16);
    home.configure(&text.replace("policy: {retry", "policy: {parallel: 0, retry"));
    service.post("/v1/config/apply", None).refuses(400, &["backup-policies.policy.parallel"]);
    home.configure(&text.replace("policy: {retry", "policy: {paralel: 1, retry"));
    service.post("/v1/config/apply", None).refuses(400, &["backup-policies.policy.paralel"]);
    fs::remove_file(home.config()).unwrap();
    service.post("/v1/config/apply", None).refuses(400, &["config.yml"]);
    assert_eq!(service.json("/v1/config/policies/policy")["parallel"], 16);
}

/// Protects: a running job keeps what it began with, whatever changes meanwhile.
#[test]
fn running_jobs_keep_what_they_began_with() {
    let server = Server::embedded(1);
    put(&server, 0..3000, 1);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    // It cannot end before this partition can be read.
    server.dev().knobs().refuse_partition(7, true).unwrap();
    service.post("/v1/backups/full/routine", None).is(202);
    let running = || service.json("/v1/backups/currentBackup/routine")["full"]["done-records"].as_u64();
    eventually(|| running().is_some_and(|done| done > 0))
        .unwrap_or_else(|()| panic!("it does not begin:\n{}", service.log()));
    let other = json!({"local-storage": {"path": home.path().join("other")}});
    service.put("/v1/config/storage/disk", Some(&other.to_string())).is(200);
    service.put("/v1/config/policies/policy", Some(r#"{"compression": {"mode": "ZSTD"}}"#)).is(200);
    assert!(running().is_some());
    server.dev().knobs().refuse_partition(7, false).unwrap();
    eventually(|| running().is_none()).unwrap_or_else(|()| panic!("it does not end:\n{}", service.log()));
    assert_eq!(service.json("/v1/backups/full/routine"), json!([]));
    assert_eq!(service.backup("full", "routine")[0]["compression"], "ZSTD");
    service
        .put(
            "/v1/config",
            Some(&{
                let mut whole = service.json("/v1/config");
                whole["storage"]["disk"]["local-storage"]["path"] = json!(home.storage());
                whole.to_string()
            }),
        )
        .is(200);
    let first = service.backups("full", "routine");
    assert_eq!(
        (first.len(), &first[0]["record-count"], &first[0]["compression"]),
        (1, &json!(3000), &json!("NONE"))
    );
}

/// Protects: a password reads `[secret]`, wherever it is shown; sent back so it stays what it was; a new one needs a real
/// one; a backup's storage and a cluster as they are shown are good for a restore; on request all is shown as 3.5 did.
#[test]
fn secrets_are_masked_and_come_back() {
    let mut builder = abs_devserver::DevServer::builder().listen(([127, 0, 0, 1], 0).into());
    builder = builder.namespace("source-ns2", 1 << 26).user("tester", "psw");
    let server = Server::embedded(1);
    let locked = server.runtime.block_on(builder.start()).unwrap();
    let address = locked.addresses()[0].to_string();
    let port = address.rsplit_once(':').unwrap().1;
    let entry = format!(
        "locked: {{seed-nodes: [{{host-name: 127.0.0.1, port: {port}}}], credentials: {{user: tester, password: psw}}}}"
    );
    let text = configuration(&server, ROUTINE).replace("storage:\n", &format!("  {entry}\nstorage:\n"));
    put(&server, 0..20, 1);
    let expected = super::held(&server);
    let home = Home::new(&text);
    let service = home.serve();
    let path = "/v1/config/clusters/locked";
    let shown = service.json(path);
    assert_eq!(shown["credentials"], json!({"user": "tester", "password": "[secret]"}));
    for path in ["/v1/config/clusters", "/v1/config"] {
        let text = service.get(path).is(200).text;
        assert!(text.contains("[secret]") && !text.contains("psw"), "{text}");
    }
    let mut changed = shown.clone();
    changed["label"] = json!("changed");
    service.put(path, Some(&changed.to_string())).is(200);
    let mut whole = service.json("/v1/config");
    whole["aerospike-clusters"]["locked"]["conn-timeout"] = json!(6000);
    service.put("/v1/config", Some(&whole.to_string())).is(200);
    assert!(home.configured().contains("password: psw"), "{}", home.configured());
    service
        .post("/v1/config/clusters/new", Some(&shown.to_string()))
        .refuses(400, &["credentials.password", "[secret]"]);

    let clusters = whole["aerospike-clusters"].as_object_mut().unwrap();
    let renamed = clusters.remove("locked").unwrap();
    clusters.insert("renamed".to_owned(), renamed);
    service
        .put("/v1/config", Some(&whole.to_string()))
        .refuses(400, &["aerospike-clusters.renamed.credentials.password", "[secret]"]);

    // The password is still the right one.
    let backup = service.backup("full", "routine").remove(0);
    let mut request = request_of(&backup, &json!({}));
    request["destination-name"] = json!("locked");
    super::restores::done(&service, "full", &request);
    // As it is shown, it is good for a destination.
    request.as_object_mut().unwrap().remove("destination-name");
    request["destination"] = service.json(path);
    request["policy"] = json!({"no-generation": true});
    super::restores::done(&service, "full", &request);
    request["destination"]["credentials"]["user"] = json!("somebody");
    service.post("/v1/restore/full", Some(&request.to_string())).refuses(400, &["password", "[secret]"]);
    drop(locked);
    empty(&server);
    super::restores::done(&service, "full", &request_of(&backup, &json!({})));
    holds(&server, &expected);
    service.stop();

    home.configure(&text.replace("port: 0}", "port: 0, show-secrets: true}"));
    let service = home.serve();
    assert_eq!(service.json(path)["credentials"], json!({"user": "tester", "password": "psw"}));
}
