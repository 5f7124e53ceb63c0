//! Pins, and the deletion of single runs.

use serde_json::{Value, json};

use super::{put, request_of};
use crate::service::place::{Place, on_every_storage};
use crate::service::support::{Home, ROUTINE, Service};
use crate::support::Server;

on_every_storage!(a_backup_is_deleted_unless_it_is_needed);

#[track_caller]
fn runs(service: &Service, backup: &Value, query: &str) -> Vec<String> {
    let path = format!("/v1/backups/run/routine/{}{query}", backup["timestamp"]);
    let answer = service.delete(&path).is(200).json();
    assert_eq!(answer["dry-run"], query.contains("dry-run=true"));
    answer["runs"].as_array().unwrap().iter().map(|run| run.as_str().unwrap().to_owned()).collect()
}

/// Protects: a backup is deleted when it is asked for, with those that build on it if that is said, and never while one
/// needs it or a pin keeps it; what is left can be restored, and the next incremental backup builds on it.
fn a_backup_is_deleted_unless_it_is_needed(place: Place) {
    let server = Server::embedded(1);
    put(&server, 0..20, 1);
    let home = Home::of(&server, ROUTINE).at(place);
    let service = home.serve();
    let first = service.backup("full", "routine").remove(0);
    let second = service.backup("full", "routine").remove(0);
    let mut incrementals = Vec::new();
    for value in 2..5 {
        put(&server, 0..5, value);
        incrementals.push(service.backup("incremental", "routine").remove(0));
    }
    let of = |backup: &Value, verb: &str| format!("/v1/backups/{verb}/routine/{}", backup["timestamp"]);
    let run_of = |backup: &Value| {
        let key = backup["key"].as_str().unwrap();
        key.split_once("/data/").unwrap().0.to_owned()
    };

    service.delete(&of(&incrementals[0], "run")).refuses(409, &["2 later backups build on", "cascade=true"]);
    let last = [&incrementals[2], &incrementals[1]].map(run_of);
    assert_eq!(runs(&service, &incrementals[1], "?cascade=true&dry-run=true"), last);
    assert_eq!(service.backups("incremental", "routine").len(), 3, "nothing was deleted");

    service.put(&of(&incrementals[0], "pin"), None).is(200);
    let pinned = |backup: &Value| backup["pinned"] == json!(true);
    let listed = service.backups("incremental", "routine");
    assert_eq!(listed.iter().map(pinned).collect::<Vec<_>>(), [true, false, false]);
    service
        .delete(&format!("{}?cascade=true", of(&second, "run")))
        .refuses(409, &[&run_of(&incrementals[0]), "is pinned"]);

    // A dry run says what the deletion would.
    let reading = service.start_restore("full", &request_of(&first, &json!({"tps": 1})));
    for query in ["", "?dry-run=true"] {
        service.delete(&format!("{}{query}", of(&first, "run"))).refuses(409, &["are being read"]);
    }
    service.post(&format!("/v1/restore/cancel/{reading}"), None).is(202);
    service.restored(reading);

    assert_eq!(runs(&service, &incrementals[1], "?cascade=true"), last);
    assert_eq!(runs(&service, &first, ""), [run_of(&first)]);
    assert!(home.files().iter().all(|file| !file.contains(&run_of(&first))));
    put(&server, 5..10, 7);
    let next = service.backup("incremental", "routine").remove(0);
    assert_eq!((&next["from"], &next["record-count"]), (&incrementals[0]["created"], &json!(10)));

    service.delete(&of(&incrementals[0], "pin")).is(200);
    runs(&service, &second, "?cascade=true");
    assert_eq!(home.files().iter().filter(|file| file.contains("/data/")).count(), 0, "{:?}", home.files());
    service.post("/v1/backups/incremental/routine", None).is(202);
    service.logs(&["there is no full backup yet"]);

    service.delete(&of(&second, "run")).refuses(404, &["not found"]);
    service.put(&of(&second, "pin"), None).refuses(404, &["not found"]);
    service.delete("/v1/backups/run/other/1").refuses(404, &["routine other not found"]);
    service.delete("/v1/backups/run/routine/x").refuses(400, &["timestamp"]);
    service.delete(&format!("{}?cascade=perhaps", of(&second, "run"))).refuses(400, &["cascade"]);
    service.delete(&format!("{}?dryrun=true", of(&second, "run"))).refuses(400, &["dryrun", "dry-run"]);
}
