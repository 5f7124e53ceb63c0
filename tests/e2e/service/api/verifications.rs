//! Verifications of backups: started, watched, counted, canceled.

use std::fs;

use serde_json::{Value, json};

use super::{counts, is_data, looks_like, metric, put, with_policy};
use crate::service::place::{Place, on_every_storage};
use crate::service::support::{Home, ROUTINE, Service, eventually};
use crate::support::{Server, golden};

on_every_storage!(a_backup_is_verified);

/// Starts a verification and waits for its end.
#[track_caller]
fn verified(service: &Service, routine: &str, backup: &Value, query: &str) -> Value {
    let path = format!("/v1/backups/verify/{routine}/{}{query}", backup["timestamp"]);
    let id = service.post(&path, None).is(202).json().as_u64().unwrap();
    let mut status = Value::Null;
    eventually(|| {
        status = service.json(&format!("/v1/backups/verify/status/{id}"));
        status["status"] != "Running"
    })
    .unwrap_or_else(|()| panic!("it does not end: {status}\n{}", service.log()));
    status
}

/// What the status of a verification that is done looks like.
fn example() -> Value {
    json!({
        "routine": "daily", "timestamp": 1_704_110_400_000_i64, "depth": "full", "status": "Done",
        "verdict": "whole", "unfinished": ["a folder"],
        "backups": [{
            "key": "daily/backup/1704110400000/data/test", "namespace": "test", "verdict": "whole",
            "structure-only": false, "files": 2, "bytes": 1000, "records": 10, "problems": ["a line"],
            "not-verifiable": ["a line"]
        }],
        "current-job": {
            "total-records": 10, "done-records": 10, "start-time": "2024-01-01T12:00:00Z",
            "finish-time": "2024-01-01T13:00:00Z", "duration": 7, "percentage-done": 100,
            "metrics": {"records-per-second": 1000, "kilobytes-per-second": 30_000, "pipeline": 0}
        }
    })
}

/// Protects: a backup of a routine, full or incremental, is verified in full or quickly; the result is in the status, in the
/// metrics and in the log, and nothing changes in the storage.
fn a_backup_is_verified(place: Place) {
    let server = Server::embedded(2);
    put(&server, 0..50, 1);
    let home = Home::of(&server, ROUTINE).at(place);
    let service = home.serve();
    let full = service.backup("full", "routine").remove(0);
    put(&server, 10..40, 2);
    let incremental = service.backup("incremental", "routine").remove(0);
    let files = home.files();
    for (backup, records) in [(&full, 50), (&incremental, 30)] {
        let status = verified(&service, "routine", backup, "");
        looks_like(&status, &example());
        assert_eq!((&status["verdict"], &status["depth"]), (&json!("whole"), &json!("full")), "{status}");
        let [found] = &status["backups"].as_array().unwrap()[..] else { panic!("{status}") };
        assert_eq!((&found["key"], &found["namespace"]), (&backup["key"], &backup["namespace"]));
        assert_eq!((&found["files"], &found["bytes"]), (&backup["file-count"], &backup["byte-count"]));
        assert_eq!((&found["records"], &found["structure-only"]), (&json!(records), &json!(false)));
        assert_eq!(status["current-job"]["done-records"], records);
    }
    let status = verified(&service, "routine", &full, "?quick=true");
    assert_eq!((&status["verdict"], &status["depth"]), (&json!("whole"), &json!("quick")), "{status}");
    assert_eq!(status["backups"][0]["records"], Value::Null);
    assert_eq!(home.files(), files);
    assert!(metric(&service, "backup_verified_timestamp{routine=\"routine\"}") > 0);
    counts(&service, "backup_verify_failures_total{routine=\"routine\"}", 0);
    service.logs(&["the backup is verified", "routine", "whole"]);
}

/// Protects: damage is told file by file, and counted; a verification that found it did what it was asked. A request that
/// names what is not there is refused.
#[test]
fn damage_is_told() {
    let server = Server::embedded(1);
    put(&server, 0..50, 1);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    let backup = service.backup("full", "routine").remove(0);
    let mut files = home.files();
    files.retain(|name| is_data(name));
    let file = home.storage().join(&files[0]);
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 1;
    fs::write(&file, &bytes).unwrap();
    assert_eq!(verified(&service, "routine", &backup, "?quick=true")["verdict"], "whole");
    let failures = "backup_verify_failures_total{routine=\"routine\"}";
    counts(&service, failures, 0);
    let status = verified(&service, "routine", &backup, "");
    looks_like(&status, &example());
    assert_eq!((&status["status"], &status["verdict"]), (&json!("Done"), &json!("damaged")));
    let problem = status["backups"][0]["problems"][0].as_str().unwrap();
    assert!(problem.starts_with(&format!("{}: damaged: its bytes 0 to ", files[0])), "{problem}");
    counts(&service, failures, 1);
    service.logs(&["the backup is damaged", problem]);

    // A damaged metadata.yaml hides no backup.
    let metadata = home.storage().join(backup["key"].as_str().unwrap()).join("metadata.yaml");
    fs::write(&metadata, "nonsense").unwrap();
    let status = verified(&service, "routine", &backup, "?quick=true");
    assert_eq!(status["verdict"], "damaged", "{status}");
    counts(&service, failures, 2);

    let time = &backup["timestamp"];
    let refusals = [
        (format!("/v1/backups/verify/nobody/{time}"), 404, "routine nobody not found"),
        ("/v1/backups/verify/routine/12345".to_owned(), 404, "backup 12345 of routine routine not found"),
        ("/v1/backups/verify/routine/yesterday".to_owned(), 400, "timestamp: \"yesterday\""),
        (format!("/v1/backups/verify/routine/{time}?quick=perhaps"), 400, "quick: "),
        ("/v1/backups/verify/cancel/7".to_owned(), 404, "verification job 7 not found"),
    ];
    for (path, status, part) in refusals {
        service.post(&path, None).refuses(status, &[part]);
    }
    counts(&service, failures, 2);
    service.get("/v1/backups/verify/status/7").refuses(404, &["verification job 7 not found"]);
    service.get("/v1/backups/verify/status/x").refuses(400, &["jobId: "]);
    assert_eq!(service.json("/v1/restore/jobs"), json!({}));
}

/// Protects: encrypted backups are verified with the key of the routine, those from before it encrypted without; the storage
/// that fails is a failed job and no damage.
#[test]
fn a_verification_uses_the_key_of_the_routine() {
    let server = Server::embedded(1);
    put(&server, 0..50, 1);
    let key = golden().join("test-key.b64");
    let plain = with_policy(&server, "{}");
    let service = plain.serve();
    let old = service.backup("full", "routine").remove(0);
    let policy = json!({"overlap": 0, "encryption": {"mode": "AES256", "key-file": key}});
    service.put("/v1/config/policies/policy", Some(&policy.to_string())).is(200);
    let new = service.backup("full", "routine").remove(0);
    assert_eq!((&old["encryption"], &new["encryption"]), (&json!("NONE"), &json!("AES256")));
    for backup in [&old, &new] {
        let status = verified(&service, "routine", backup, "");
        assert_eq!(status["verdict"], "whole", "{status}");
    }
    let policy = json!({"overlap": 0, "encryption": {"mode": "AES128", "key-file": key}});
    service.put("/v1/config/policies/policy", Some(&policy.to_string())).is(200);
    let status = verified(&service, "routine", &new, "");
    assert_eq!(status["verdict"], "not-verifiable", "{status}");
    let other = "it is encrypted with another key: d26420ed0d59b55d, not cefb42e33ceb2085";
    assert_eq!(status["backups"][0]["not-verifiable"], json!([other]));
    counts(&service, "backup_verify_failures_total{routine=\"routine\"}", 1);
    // The key of before goes on to be known.
    let old = json!([{"mode": "AES256", "key-file": key}]);
    let policy =
        json!({"overlap": 0, "encryption": {"mode": "AES256GCM", "key-file": key, "read-keys": old}});
    service.put("/v1/config/policies/policy", Some(&policy.to_string())).is(200);
    let newest = service.backup("full", "routine").remove(0);
    assert_eq!(newest["encryption"], "AES256GCM");
    for backup in [&new, &newest] {
        let status = verified(&service, "routine", backup, "");
        assert_eq!(status["verdict"], "whole", "{status}");
    }
    // The series of a routine that goes go, too.
    service.delete("/v1/config/routines/routine").is(204);
    assert!(!service.get("/metrics").is(200).text.contains("verify_failures_total{routine=\"routine\"}"));
}

/// Protects: with `verify: after-backup` each backup is verified without a request, and retention still gets its turn.
#[test]
fn backups_are_verified_after_they_were_made() {
    let server = Server::embedded(1);
    put(&server, 0..50, 1);
    let home = with_policy(&server, "{verify: after-backup, retention: {full: 1}}");
    let service = home.serve();
    let old = service.backup("full", "routine").remove(0);
    let full = service.backup("full", "routine").remove(0);
    put(&server, 0..20, 2);
    let incremental = service.backup("incremental", "routine").remove(0);
    for backup in [&full, &incremental] {
        service.logs(&["the backup is verified", backup["key"].as_str().unwrap(), "whole"]);
    }
    let gone = old["key"].as_str().unwrap();
    eventually(|| home.files().iter().all(|file| !file.starts_with(gone))).expect("retention waits for ever");
    assert!(metric(&service, "backup_verified_timestamp{routine=\"routine\"}") > 0);
}

/// Protects: by a schedule damage that came after a backup was made is found, told with the backup and the file, and counted; the backup
/// stays, and so does a chain that cannot be restored any more a failure.
#[test]
fn a_schedule_finds_damage() {
    let server = Server::embedded(1);
    put(&server, 0..50, 1);
    let home = with_policy(&server, "{}");
    let service = home.serve();
    let full = service.backup("full", "routine").remove(0);
    put(&server, 0..20, 2);
    let incremental = service.backup("incremental", "routine").remove(0);
    let key = full["key"].as_str().unwrap();
    let data = home.files().into_iter().find(|name| name.starts_with(key) && is_data(name)).unwrap();
    let mut bytes = fs::read(home.storage().join(&data)).unwrap();
    bytes[100] ^= 1;
    fs::write(home.storage().join(&data), &bytes).unwrap();
    let failures = "backup_verify_failures_total{routine=\"routine\"}";
    counts(&service, failures, 0);
    let policy = json!({"overlap": 0, "verify": "* * * * * *"}).to_string();
    service.put("/v1/config/policies/policy", Some(&policy)).is(200);
    service.logs(&["ERRO", "the backup is damaged", key, &data]);
    service.logs(&["the backup is verified", incremental["key"].as_str().unwrap(), "whole"]);
    eventually(|| metric(&service, failures) > 0).expect("the damage is counted");
    assert_eq!(service.backups("full", "routine").len(), 1);

    fs::remove_dir_all(home.storage().join(key)).unwrap();
    service.logs(&["ERRO", "verification failed", "there is no full backup"]);
}
