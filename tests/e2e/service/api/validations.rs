//! `validate-only`: what a restore would do, without doing it.

use serde_json::{Value, json};

use super::restores::{done, numbers};
use super::{held, holds, put, request_of};
use crate::faults::empty;
use crate::service::support::{Home, ROUTINE};
use crate::support::{Server, golden};

/// Insists that neither records nor definitions are there.
#[track_caller]
fn is_empty(server: &Server) {
    assert_eq!(server.objects(), 0);
    for command in [format!("sindex-list:namespace={}", server.namespace), "udf-list".to_owned()] {
        let answer = server.info(&command);
        assert!(!answer.contains("indexname=") && !answer.contains("filename="), "{command}: {answer}");
    }
}

/// Protects: a validation writes nothing, and says of the backups what there is and of the records what the policy would do
/// with them, as they are stored now.
#[test]
fn a_validation_says_what_a_restore_would_do() {
    let server = Server::embedded(2);
    // The second generation of each.
    put(&server, 0..300, 1);
    put(&server, 0..300, 2);
    let service = Home::of(&server, ROUTINE).serve();
    let backup = service.backup("full", "routine").remove(0);
    empty(&server);
    put(&server, 0..150, 3);
    put(&server, 0..50, 4);
    let before = held(&server);
    let validate = |policy: Value| {
        let mut policy = policy;
        policy["validate-only"] = json!(true);
        let status = service.restore("full", &request_of(&backup, &policy));
        assert_eq!(status["status"], "Done", "{status}\n{}", service.log());
        numbers(&status, &[("read-records", 300), ("inserted-records", 0), ("index-count", 0)]);
        holds(&server, &before);
        status["validations"].as_array().unwrap().clone()
    };
    let [validation] = &validate(json!({}))[..] else { panic!("there is one namespace") };
    assert_eq!(validation["namespace"], server.namespace.as_str());
    numbers(validation, &[("records", 300), ("bytes", backup["byte-count"].as_u64().unwrap())]);
    assert_eq!(validation["files"], backup["file-count"]);
    assert!(validation["backups"][0].as_str().unwrap().contains(backup["key"].as_str().unwrap()));
    let sample = |inserted: u64, overwritten: u64, fresher: u64, existed: u64| {
        json!({
            "records": 300, "inserted": inserted, "overwritten": overwritten, "fresher": fresher, "existed": existed
        })
    };
    assert_eq!(validation["sample"], sample(150, 100, 50, 0));
    assert_eq!(validate(json!({"no-generation": true}))[0]["sample"], sample(150, 150, 0, 0));
    assert_eq!(validate(json!({"unique": true}))[0]["sample"], sample(150, 0, 0, 150));
    // And so it comes.
    let status = done(&service, "full", &request_of(&backup, &json!({})));
    numbers(&status, &[("inserted-records", 250), ("fresher-records", 50)]);
}

/// Protects: definitions are counted and not restored, by the service and on the command line; damage is found.
#[test]
fn a_validation_restores_no_definitions() {
    let server = Server::embedded(1);
    server.restore("source-ns1", &golden().join("asb/plain"), &[]).ok();
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    let backup = service.backup("full", "routine").remove(0);
    let counts = ["secondary-index-count", "udf-count"].map(|key| backup[key].as_u64().unwrap());
    assert!(counts.iter().all(|count| *count > 0));
    server.wipe();
    let request = request_of(&backup, &json!({"validate-only": true}));
    let status = service.restore("full", &request);
    assert_eq!(status["status"], "Done", "{status}");
    let validation = &status["validations"][0];
    numbers(validation, &[("index-count", counts[0]), ("udf-count", counts[1])]);
    assert_eq!(validation["sample"]["records"], validation["sample"]["inserted"]);
    is_empty(&server);

    let folder = home.storage().join(backup["key"].as_str().unwrap());
    let namespace = server.namespace.clone();
    let summary = server.restore(&namespace, &folder, &["--validate-only", "--json"]).ok().json();
    let validation = &summary["validation"];
    assert_eq!((&validation["records"], &summary["inserted-records"]), (&summary["read-records"], &json!(0)));
    assert_eq!((&validation["indexes"], &validation["udfs"]), (&json!(counts[0]), &json!(counts[1])));
    let text = server.restore(&namespace, &folder, &["--validate-only"]).ok().stdout;
    assert!(text.contains("nothing was written") && text.contains("would be inserted"), "{text}");
    is_empty(&server);

    let file = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|end| end == "asb")).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let status = service.restore("full", &request);
    assert_eq!(status["status"], "Failed", "{status}");
    assert!(status["error"].as_str().unwrap().contains("damaged"), "{status}");
}
