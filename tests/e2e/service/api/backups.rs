//! Backups on demand: making, listing and canceling them.

use serde_json::{Value, json};

use super::restores::{done, numbers};
use super::{
    counts, held, holds, is_data, is_time, looks_like, metric, milliseconds, open, put, request_of, routine,
    with_policy,
};
use crate::faults::empty;
use crate::raw::{self, Raw, blob};
use crate::service::place::{Place, masked, on_every_storage};
use crate::service::support::{Home, ROUTINE, Service, configuration, eventually};
use crate::support::{Server, golden};

on_every_storage!(
    on_demand_they_are_listed_field_by_field,
    lists_have_bounds,
    an_incremental_backup_needs_a_full_one_and_a_change,
    canceled_backups_leave_nothing,
);

/// What the reference shows of a backup.
fn example() -> Value {
    json!({
        "created": "2024-01-01T12:00:00Z", "timestamp": 1_704_110_400_000_i64,
        "finished": "2024-01-01T12:05:00Z", "duration": 300, "from": "0001-01-01T00:00:00Z",
        "namespace": "source-ns1", "record-count": 42, "byte-count": 480_000, "file-count": 1,
        "secondary-index-count": 5, "udf-count": 1, "key": "routine1/backup/1704110400000/source-ns1",
        "storage": {"local-storage": {"path": "backups"}}, "compression": "ZSTD", "encryption": "NONE"
    })
}

/// Insists that what is listed of a backup is true of it, whatever it holds.
#[track_caller]
fn is_true(home: &Home, kind: &str, backup: &Value) {
    let mut example = example();
    example["storage"] = home.entry();
    looks_like(backup, &example);
    let text = |key: &str| backup[key].as_str().unwrap();
    let created = backup["timestamp"].as_i64().unwrap();
    assert_eq!(milliseconds(&backup["created"]), created);
    let finished = milliseconds(&backup["finished"]);
    assert!(created <= finished, "{backup}");
    assert_eq!(backup["duration"], (finished - created) / 1000, "{backup}");
    let folder = if kind == "full" { "backup" } else { "incremental" };
    assert_eq!(text("key"), format!("routine/{folder}/{created}/data/{}", text("namespace")));
    assert_eq!(backup["storage"], masked(home.entry()));
    let folder = format!("{}/", text("key"));
    let mut there = home.files();
    there.retain(|name| name.starts_with(&folder));
    assert_eq!(there.iter().filter(|name| name.ends_with("/metadata.yaml")).count(), 1, "{there:?}");
    let data: Vec<_> = there.iter().filter(|name| is_data(name)).collect();
    // And the manifest.
    assert_eq!(data.len() + 2, there.len(), "{there:?}");
    assert_eq!(backup["file-count"], data.len());
    let bytes: usize = data.iter().map(|name| home.read(name).len()).sum();
    assert_eq!(backup["byte-count"], bytes);
}

/// Protects: full and incremental backups on demand are listed as the reference lists them, and what is listed is true;
/// an incremental backup holds the records that changed since the backup before, and no definitions.
fn on_demand_they_are_listed_field_by_field(place: Place) {
    let server = Server::embedded(2);
    server.restore("source-ns1", &golden().join("asb/plain"), &[]).ok();
    let records = server.objects();
    let home = Home::of(&server, ROUTINE).at(place);
    let service = home.serve();
    assert_eq!(service.json("/v1/backups/full"), json!({"routine": []}));
    assert_eq!(service.json("/v1/backups/incremental/routine"), json!([]));

    let [full] = &service.backup("full", "routine")[..] else { panic!("one namespace") };
    is_true(&home, "full", full);
    for (key, value) in [
        ("namespace", json!(server.namespace)),
        ("from", json!("0001-01-01T00:00:00Z")),
        ("record-count", json!(records)),
        ("secondary-index-count", json!(8)),
        ("udf-count", json!(1)),
        ("compression", json!("NONE")),
        ("encryption", json!("NONE")),
    ] {
        assert_eq!(full[key], value, "{key}");
    }

    put(&server, 0..30, 1);
    let first = service.backup("incremental", "routine").remove(0);
    put(&server, 20..60, 2);
    let second = service.backup("incremental", "routine").remove(0);
    for (backup, base, records) in [(&first, full, 30), (&second, &first, 40)] {
        is_true(&home, "incremental", backup);
        assert_eq!((&backup["from"], &backup["record-count"]), (&base["created"], &json!(records)));
        assert_eq!((&backup["secondary-index-count"], &backup["udf-count"]), (&json!(0), &json!(0)));
    }
    assert_eq!(service.json("/v1/backups/full"), json!({"routine": [full]}));
    assert_eq!(service.json("/v1/backups/incremental"), json!({"routine": [first, second]}));
    let state = service.json("/v1/backups/currentBackup/routine");
    assert_eq!((&state["last-full"], &state["last-incremental"]), (&full["created"], &second["created"]));
}

/// Protects: a backup dated in the future is listed with a warning and can be restored by its key, but no restore to a point in
/// time takes it, and the next backup is a full one.
#[test]
fn a_backup_of_a_time_to_come_is_kept_aside() {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    let full = service.backup("full", "routine").remove(0);
    let now = full["timestamp"].as_i64().unwrap();
    let runs = home.storage().join("routine/backup");
    let later = runs.join((now + 86_400_000).to_string());
    let copy =
        std::process::Command::new("cp").arg("-r").arg(runs.join(now.to_string())).arg(&later).status();
    assert!(copy.unwrap().success());
    put(&server, 0..20, 2);
    let expected = held(&server);

    service.post("/v1/backups/incremental/routine", None).is(202);
    eventually(|| service.backups("full", "routine").len() == 3)
        .unwrap_or_else(|()| panic!("no full backup is made:\n{}", service.log()));
    let listed = service.backups("full", "routine");
    assert_eq!(listed[0], full);
    assert_eq!(listed[1].get("warnings"), None);
    let warnings = listed[2]["warnings"].as_array().unwrap();
    assert!(
        warnings.len() == 1 && warnings[0].as_str().unwrap().contains("a clock was wrong"),
        "{warnings:?}"
    );
    assert!(later.join("data").join(&server.namespace).join("clock-suspect").exists());
    service.logs(&["WARN", "dated in the future"]);
    assert_eq!(service.json("/v1/backups/currentBackup/routine")["last-full"], listed[1]["created"]);

    empty(&server);
    done(&service, "timestamp", &json!({"routine": "routine", "time": now + 2 * 86_400_000}));
    holds(&server, &expected);
    empty(&server);
    let status = done(&service, "full", &request_of(&listed[2], &json!({})));
    numbers(&status, &[("inserted-records", 10)]);
}

/// Protects: the answer to a request for a backup is 202 without a body; the deprecated request makes a full one.
#[test]
fn the_deprecated_request_makes_a_full_backup() {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let service = Home::of(&server, ROUTINE).serve();
    assert_eq!(service.post("/v1/backups/schedule/routine?delay=0", None).is(202).text, "");
    eventually(|| !service.backups("full", "routine").is_empty()).unwrap();
    counts(&service, "runs_total", 1);
    service.post("/v1/backups/schedule/nobody", None).refuses(404, &["routine nobody not found"]);
    service.post("/v1/backups/schedule/routine?delay=-1", None).refuses(400, &["delay", "-1"]);
}

/// Protects: a delay is waited for, of either kind; one that is no number of milliseconds is refused.
#[test]
fn a_delay_is_waited_for() {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    for kind in ["full", "incremental"] {
        put(&server, 0..10, 2);
        let asked = chrono::Utc::now().timestamp_millis();
        assert_eq!(service.post(&format!("/v1/backups/{kind}/routine?delay=400"), None).is(202).text, "");
        // An hour from now, so never here.
        service.post(&format!("/v1/backups/{kind}/routine?delay=3600000"), None).is(202);
        eventually(|| !service.backups(kind, "routine").is_empty())
            .unwrap_or_else(|()| panic!("no {kind} backup:\n{}", service.log()));
        let made = service.backups(kind, "routine");
        assert!(made[0]["timestamp"].as_i64().unwrap() >= asked + 400, "{made:?} after {asked}");
        for bad in ["-1", "x", "1.5", "1s"] {
            service
                .post(&format!("/v1/backups/{kind}/routine?delay={bad}"), None)
                .refuses(400, &["delay", bad]);
        }
        service.post(&format!("/v1/backups/{kind}/nobody?delay=1"), None).refuses(404, &["routine nobody"]);
    }
    counts(&service, "runs_total", 1);
    counts(&service, "incremental_runs_total", 1);
}

/// Protects: lists are of all routines or of one, in the order of time, and bounds take in what is on them.
fn lists_have_bounds(place: Place) {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let service = Home::of(&server, &format!("{}\n{}", routine("one"), routine("two"))).at(place).serve();
    for kind in ["full", "incremental"] {
        let backups: Vec<Value> = (0..3)
            .map(|n| {
                put(&server, 0..10, n);
                service.backup(kind, "one").remove(0)
            })
            .collect();
        let two = if kind == "full" { service.backup(kind, "two") } else { Vec::new() };
        let all: Vec<_> = backups.iter().collect();
        let times: Vec<i64> = backups.iter().map(|backup| backup["timestamp"].as_i64().unwrap()).collect();
        assert!(times.is_sorted());
        for (range, expected) in [
            (String::new(), &all[..]),
            (format!("?from={}", times[1]), &all[1..]),
            (format!("?to={}", times[1]), &all[..2]),
            (format!("?from={0}&to={0}", times[1]), &all[1..2]),
            (format!("?from={}&to={}", times[0] + 1, times[2] - 1), &all[1..2]),
            (format!("?to={}", times[0] - 1), &all[..0]),
            (format!("?from={}", i64::MAX), &all[..0]),
            ("?from=0".to_owned(), &all[..]),
        ] {
            assert_eq!(service.json(&format!("/v1/backups/{kind}/one{range}")), json!(expected), "{range}");
            assert_eq!(
                service.json(&format!("/v1/backups/{kind}{range}"))["one"],
                json!(expected),
                "{range}"
            );
        }
        assert_eq!(service.json(&format!("/v1/backups/{kind}"))["two"], json!(two));
        for path in [format!("/v1/backups/{kind}"), format!("/v1/backups/{kind}/one")] {
            service.get(&format!("{path}?from=x")).refuses(400, &["from", "\"x\"", "milliseconds"]);
            service.get(&format!("{path}?to=-1")).refuses(400, &["to", "\"-1\"", "milliseconds"]);
            service.get(&format!("{path}?from=2&to=1")).refuses(400, &["from", "later than"]);
        }
        service.get(&format!("/v1/backups/{kind}/nobody")).refuses(404, &["routine nobody not found"]);
    }
}

/// Protects: no incremental backup before the first full one; one of nothing leaves nothing; each is counted as what it
/// was.
fn an_incremental_backup_needs_a_full_one_and_a_change(place: Place) {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let home = Home::of(&server, ROUTINE).at(place);
    let service = home.serve();
    let event = |outcome: &str| {
        format!("backup_events_total{{outcome=\"{outcome}\",routine=\"routine\",type=\"incremental\"}}")
    };
    service.post("/v1/backups/incremental/routine", None).is(202);
    counts(&service, &event("skip"), 1);
    counts(&service, "incremental_skip_total", 1);
    assert_eq!(home.files(), [""; 0]);
    service.backup("full", "routine");
    let before = home.files();
    service.post("/v1/backups/incremental/routine", None).is(202);
    counts(&service, &event("success"), 1);
    assert_eq!(home.files(), before);
    assert_eq!(service.json("/v1/backups/incremental/routine"), json!([]));
    assert_eq!(metric(&service, "incremental_runs_total"), 1);
}

/// So many records that a backup of 10 a second does not end in this test; so large that the server sends few at a time.
fn many(server: &Server) {
    let records: Vec<_> = (0..300).map(|n| Raw::new(n).bin("bin", blob(vec![7; 100_000]))).collect();
    raw::load(server, &records);
}

/// Begins a backup, and waits until some of it is written.
fn begin(service: &Service, kind: &str) {
    service.post(&format!("/v1/backups/{kind}/routine"), None).is(202);
    eventually(|| {
        let state = service.json("/v1/backups/currentBackup/routine");
        state[kind]["done-records"].as_u64().is_some_and(|done| done > 0)
    })
    .unwrap_or_else(|()| panic!("no {kind} backup begins:\n{}", service.log()));
}

/// Waits until nothing of the routine runs.
fn quiet(service: &Service) -> Value {
    let mut state = Value::Null;
    eventually(|| {
        state = service.json("/v1/backups/currentBackup/routine");
        state.get("full").is_none() && state.get("incremental").is_none()
    })
    .unwrap_or_else(|()| panic!("it does not end: {state}\n{}", service.log()));
    state
}

/// Protects: canceling ends what runs, at once and without a trace; the routine goes on. So does disabling.
fn canceled_backups_leave_nothing(place: Place) {
    let server = Server::embedded(2);
    many(&server);
    let home = with_policy(&server, "{records-per-second: 10, parallel: 2}").at(place);
    let service = home.serve();
    let canceled = "backup_events_total{outcome=\"canceled\",routine=\"routine\",type=\"full\"}";
    begin(&service, "full");
    assert_eq!(service.post("/v1/backups/cancel/routine", None).is(202).text, "");
    counts(&service, canceled, 1);
    let state = quiet(&service);
    assert!(state.get("last-full").is_none() && is_time(state["next-full"].as_str().unwrap()), "{state}");
    assert_eq!(home.files(), [""; 0]);
    assert_eq!(service.json("/v1/backups/full"), json!({"routine": []}));

    begin(&service, "full");
    service.put("/v1/config/routines/routine/disable", None).is(204);
    counts(&service, canceled, 2);
    assert_eq!(quiet(&service), json!({}));
    assert_eq!(home.files(), [""; 0]);
    service.post("/v1/backups/full/routine", None).refuses(400, &["routine routine is disabled"]);

    // Nothing runs: canceled all the same.
    service.post("/v1/backups/cancel/routine", None).is(202);
    service.post("/v1/backups/cancel/nobody", None).refuses(404, &["routine nobody not found"]);
}

/// Protects: a full backup that is asked for while one runs is skipped and counted, an incremental one too.
#[test]
fn a_backup_while_one_runs_is_skipped() {
    let server = Server::embedded(1);
    many(&server);
    let service = with_policy(&server, "{records-per-second: 10}").serve();
    begin(&service, "full");
    for kind in ["full", "incremental"] {
        service.post(&format!("/v1/backups/{kind}/routine"), None).is(202);
        counts(
            &service,
            &format!("backup_events_total{{outcome=\"skip\",routine=\"routine\",type=\"{kind}\"}}"),
            1,
        );
    }
    service.logs(&["backup skipped", "the one before is still running"]);
    assert_eq!(metric(&service, "runs_total"), 1);
    assert_eq!(metric(&service, "incremental_runs_total"), 0);
}

/// Protects: a storage that cannot be read hides the backups of no other; which routines are left out is told.
#[test]
fn a_storage_that_is_down_hides_no_other() {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let second = ROUTINE.replacen("routine:", "ä,b:", 1).replace("storage: disk", "storage: other");
    let text = configuration(&server, &format!("{ROUTINE}\n{second}"))
        .replace("\nbackup-policies", "\n  other: {local-storage: {path: STORAGE/other}}\nbackup-policies");
    let home = Home::new(&text);
    let service = home.serve();
    let backup = service.backup("full", "routine").remove(0);
    let all = || open(&service, "/v1/backups/full");
    let names = |answer: &ureq::http::Response<ureq::Body>| {
        answer.headers().get("x-unavailable-routines").map(|name| name.to_str().unwrap().to_owned())
    };
    assert_eq!(names(&all()), None);
    assert_eq!(service.json("/v1/backups/full"), json!({"routine": [backup], "ä,b": []}));
    // A link to itself cannot be followed, not even by root.
    let folder = home.storage().join("other/ä,b");
    std::os::unix::fs::symlink(&folder, &folder).unwrap();
    assert_eq!(names(&all()).as_deref(), Some("%C3%A4%2Cb"));
    assert_eq!(service.json("/v1/backups/full"), json!({"routine": [backup]}));
    service.logs(&["WARN", "the backups cannot be listed", "ä,b"]);
    service.get("/v1/backups/full/%C3%A4,b").refuses(500, &["cannot list"]);
    for path in ["full/routine?delay=", "full/routine?delay=+"] {
        service.post(&format!("/v1/backups/{path}"), None).refuses(400, &["delay: "]);
    }
    for query in ["from=", "to=", "from=1&to="] {
        service.get(&format!("/v1/backups/full?{query}")).refuses(400, &["has no value"]);
    }
    service.get("/v1/restore/jobs?status=").refuses(400, &["status: has no value"]);
}
