//! What runs: numbers that move, while it runs.

use std::io::{BufRead as _, BufReader};

use serde_json::{Value, json};

use super::{Home, counts, looks_like, metric, milliseconds, open, put, with_policy};
use crate::raw::{self, Raw, blob, integer};
use crate::service::place::{Place, on_every_storage};
use crate::service::support::{ROUTINE, Service, eventually};
use crate::support::Server;

on_every_storage!(
    both_kinds_at_once_are_shown_while_they_run,
    a_restore_is_shown_while_it_runs_and_canceled_keeps_what_it_restored,
);

/// A record of every partition: what is estimated from one partition is true of all.
const RECORDS: u64 = 4096;

fn fill(server: &Server, value: i64) {
    let record = |n: u64| {
        let mut record = Raw::new(n).bin("value", integer(value)).bin("more", blob([0; 8000]));
        let [low, high] = ((n % 4096) as u16).to_le_bytes();
        record.digest[0] = low;
        record.digest[1] = record.digest[1] & 0xf0 | high;
        record
    };
    raw::load(server, &(0..RECORDS).map(record).collect::<Vec<_>>());
}

/// What the reference shows of a job that runs, with the `duration` of its OpenAPI.
fn example() -> Value {
    json!({
        "total-records": 100_000, "done-records": 50_000, "start-time": "2024-01-01T12:00:00Z", "duration": 7,
        "percentage-done": 50, "estimated-end-time": "2024-01-01T13:00:00Z",
        "metrics": {"records-per-second": 1000, "kilobytes-per-second": 30_000, "pipeline": 0}
    })
}

/// Waits until `job` of this answer shows all that the example shows, and more records done than `done`; returns it.
#[track_caller]
fn moved(service: &Service, path: &str, job: &str, done: u64) -> Value {
    let mut state = Value::Null;
    eventually(|| {
        state = service.json(path);
        let job = &state[job];
        job["done-records"].as_u64().is_some_and(|records| records > done)
            && job.get("estimated-end-time").is_some()
    })
    .unwrap_or_else(|()| panic!("{job} does not move on: {state:#}\n{}", service.log()));
    state[job].clone()
}

#[track_caller]
fn adds_up(job: &Value) {
    looks_like(job, &example());
    let number = |key: &str| job[key].as_u64().unwrap();
    assert!(number("done-records") <= number("total-records"), "{job}");
    assert_eq!(number("percentage-done"), 100 * number("done-records") / number("total-records"), "{job}");
    assert!(milliseconds(&job["start-time"]) < milliseconds(&job["estimated-end-time"]), "{job}");
}

/// Protects: a full backup starts while an incremental one runs, which goes on; both are shown with the numbers of the
/// reference, which move; both can be canceled, and nothing is left of either.
fn both_kinds_at_once_are_shown_while_they_run(place: Place) {
    let server = Server::embedded(2);
    fill(&server, 1);
    let home = with_policy(&server, "{}").at(place);
    let service = home.serve();
    let last = service.backup("full", "routine").remove(0);
    let before = home.files();
    service.put("/v1/config/policies/policy", Some(r#"{"records-per-second": 200, "parallel": 2}"#)).is(200);
    fill(&server, 2);
    let path = "/v1/backups/currentBackup/routine";
    service.post("/v1/backups/incremental/routine", None).is(202);
    moved(&service, path, "incremental", 0);
    service.post("/v1/backups/full/routine", None).is(202);
    for kind in ["full", "incremental"] {
        let early = moved(&service, path, kind, 0);
        let late = moved(&service, path, kind, early["done-records"].as_u64().unwrap());
        for job in [&early, &late] {
            adds_up(job);
            assert_eq!(job["total-records"], RECORDS, "{kind}: {job}");
        }
        assert_eq!(early["start-time"], late["start-time"]);
        let labels = format!("{{routine=\"routine\",type=\"{kind}\"}}");
        assert_eq!(metric(&service, &format!("backup_in_progress{labels}")), 1);
        eventually(|| metric(&service, &format!("backup_progress_pct{labels}")) > 0).unwrap();
        eventually(|| metric(&service, &format!("backup_estimated_completion_timestamp{labels}")) > 0)
            .unwrap();
    }
    let time = "2024-01-01T12:00:00Z";
    let state = service.json(path);
    looks_like(
        &state,
        &json!({
            "full": example(), "incremental": example(),
            "last-full": time, "next-full": time, "next-incremental": time
        }),
    );
    assert_eq!(state["last-full"], last["created"]);
    service.post("/v1/backups/cancel/routine", None).is(202);
    eventually(|| {
        let state = service.json(path);
        state.get("full").is_none() && state.get("incremental").is_none()
    })
    .unwrap();
    assert_eq!(home.files(), before);
    service.get("/v1/backups/currentBackup/nobody").refuses(404, &["routine nobody not found"]);
}

/// Protects: a restore shows its numbers while it runs, and canceling it keeps what was restored.
fn a_restore_is_shown_while_it_runs_and_canceled_keeps_what_it_restored(place: Place) {
    let server = Server::embedded(2);
    fill(&server, 1);
    let home = Home::of(&server, ROUTINE).at(place);
    let service = home.serve();
    let backup = service.backup("full", "routine").remove(0);
    crate::faults::empty(&server);
    let request = super::request_of(&backup, &json!({"tps": 400, "batch-size": 16, "max-async-batches": 1}));
    let id = service.start_restore("full", &request);
    let path = format!("/v1/restore/status/{id}");
    let early = moved(&service, &path, "current-job", 0);
    let late = moved(&service, &path, "current-job", early["done-records"].as_u64().unwrap());
    for job in [&early, &late] {
        adds_up(job);
        assert_eq!(job["total-records"], RECORDS);
    }
    let status = service.json(&path);
    assert_eq!(status["status"], "Running");
    looks_like(&status, &super::restores::example(&example()));
    let listed = |filter: &str| service.json(&format!("/v1/restore/jobs?status={filter}"));
    let ids = |jobs: Value| jobs.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for filter in ["Running", "running", "!Done", "RUNNING,done"] {
        assert_eq!(ids(listed(filter)), [id.to_string()], "{filter}");
    }
    assert_eq!(listed("!running"), json!({}));
    assert_eq!(metric(&service, "restore_in_progress"), 1);

    assert_eq!(service.post(&format!("/v1/restore/cancel/{id}"), None).is(202).text, "");
    let end = service.restored(id);
    assert_eq!(end["status"], "Canceled", "{end}");
    assert!(end.get("error").is_none(), "{end}");
    assert!(end["current-job"].get("finish-time").is_some(), "{end}");
    let restored = end["inserted-records"].as_u64().unwrap();
    assert!((1..RECORDS).contains(&restored), "{end}");
    assert_eq!(server.objects(), restored);
    assert_eq!(ids(listed("canceled")), [id.to_string()]);
    counts(&service, "restore_events_total{outcome=\"canceled\"}", 1);
    counts(&service, "restore_in_progress", 0);
    service.post(&format!("/v1/restore/cancel/{id}"), None).is(202);
}

/// Protects: who listens hears what happens as it happens, in its order, with the job's progress.
#[test]
fn events_are_told_as_they_happen() {
    let server = Server::embedded(1);
    put(&server, 0..1000, 1);
    let home = with_policy(&server, "{records-per-second: 500}");
    let service = home.serve();
    let stream = open(&service, "/v1/events");
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut lines = BufReader::new(stream.into_body().into_reader()).lines().map(Result::unwrap);
    // It is listened to from here on.
    assert!(lines.next().unwrap().starts_with(':'));
    let mut next = || {
        let mut line = |key: &str| {
            let line = lines.by_ref().find(|line| line.starts_with(key)).unwrap();
            line[key.len()..].trim().to_owned()
        };
        let name = line("event:");
        let data: Value = serde_json::from_str(&line("data:")).unwrap();
        assert!(super::is_time(data["at"].as_str().unwrap()), "{data}");
        (name, data)
    };
    service.put("/v1/config/routines/routine/disable", None).is(204);
    service.put("/v1/config/routines/routine/enable", None).is(204);
    for change in ["disabled", "enabled"] {
        let (name, data) = next();
        assert_eq!(
            (name.as_str(), &data["routine"], &data["change"]),
            ("routine-changed", &json!("routine"), &json!(change))
        );
    }
    service.post("/v1/backups/full/routine", None).is(202);
    let (name, started) = next();
    assert_eq!(
        (name.as_str(), &started["routine"], &started["kind"]),
        ("job-started", &json!("routine"), &json!("full"))
    );
    let mut seen = 0;
    let end = loop {
        let (name, data) = next();
        assert_eq!(data["job-id"], started["job-id"]);
        let done = data["progress"]["done-records"].as_u64().unwrap();
        assert!(done >= seen, "{data}");
        seen = done;
        if name != "job-progress" {
            assert_eq!(name, "job-finished");
            break data;
        }
    };
    assert_eq!((&end["status"], seen), (&json!("Done"), 1000), "{end}");
    service.post("/v1/backups/full/nobody", None).is(404);
    let backup = service.backups("full", "routine").remove(0);
    let job = service.start_restore("full", &super::request_of(&backup, &json!({})));
    for expected in ["job-started", "job-finished"] {
        let (name, data) = loop {
            let (name, data) = next();
            if name != "job-progress" {
                break (name, data);
            }
        };
        assert_eq!(
            (name.as_str(), &data["job-id"], &data["kind"]),
            (expected, &json!(job), &json!("restore"))
        );
    }
    service.delete("/v1/config/routines/routine").is(204);
    assert_eq!(next().1["change"], "removed");
}
