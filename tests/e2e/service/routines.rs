//! The life of a routine through the API: it is made, disabled, enabled, changed and deleted while it runs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::support::{Home, Service, configuration, eventually};
use crate::raw::{self, Raw, integer};
use crate::support::Server;

/// Two policies: one that does what it can, and one that takes a minute for each 3000 records.
const POLICIES: &str = "backup-policies:\n  slow: {records-per-second: 50, parallel: 1}\n";

fn every_second(name: &str) -> String {
    format!(
        "{name}: {{source-cluster: cluster, storage: disk, backup-policy: policy, \
         interval-cron: '* * * * * *', namespaces: [NAMESPACE]}}"
    )
}

/// Folders below this one that hold files of a backup and no metadata: what a run left that did not end well.
fn partial(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.ends_with(".abs-locks") {
        } else if path.is_dir() {
            found.extend(partial(&path));
        } else {
            files.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    if !files.is_empty() && !files.iter().any(|name| name == "metadata.yaml") {
        found.push(format!("{}: {files:?}", folder.display()));
    }
    found
}

/// A service, one of its routines, and another service on another port with a routine of every second, which is not to
/// notice anything.
struct Stage<'a> {
    service: &'a Service,
    home: &'a Home,
    neighbour: &'a Service,
}

impl Stage<'_> {
    fn count(&self) -> usize {
        self.service.backups("full", "routine").len()
    }

    fn state(&self) -> Value {
        self.service.json("/v1/backups/currentBackup/routine")
    }

    fn routine(&self) -> Value {
        self.service.json("/v1/config/routines/routine")
    }

    #[track_caller]
    fn change(&self, key: &str, value: Value) {
        let mut routine = self.routine();
        routine[key] = value;
        self.service.put("/v1/config/routines/routine", Some(&routine.to_string())).is(200);
        assert_eq!(self.routine(), routine);
    }

    #[track_caller]
    fn switch(&self, what: &str) {
        self.service.put(&format!("/v1/config/routines/routine/{what}"), None).is(204);
    }

    /// Backups are made.
    #[track_caller]
    fn grows(&self) {
        let before = self.count();
        eventually(|| self.count() > before + 1).unwrap_or_else(|()| panic!("{}", self.service.log()));
    }

    /// While the neighbour makes several backups, none is made here.
    #[track_caller]
    fn rests(&self) {
        eventually(|| self.state()["full"].is_null()).unwrap();
        let before = self.count();
        self.neighbour_goes_on();
        assert_eq!(self.count(), before, "{}", self.service.log());
        assert_eq!(partial(&self.home.storage()), [""; 0]);
    }

    #[track_caller]
    fn neighbour_goes_on(&self) {
        let count = || self.neighbour.backups("full", "other").len();
        let before = count();
        eventually(|| count() >= before + 2).unwrap_or_else(|()| panic!("{}", self.neighbour.log()));
    }

    /// Waits for a run that is under way, with something written, and returns when it began.
    #[track_caller]
    fn runs(&self) -> Value {
        let mut full = Value::Null;
        eventually(|| {
            full = self.state()["full"].take();
            full.is_object() && !partial(&self.home.storage()).is_empty()
        })
        .unwrap_or_else(|()| panic!("{full}: {}", self.service.log()));
        full["start-time"].take()
    }
}

/// Runs `test` on a routine of every second, with 100 records to back up.
fn stage(test: impl FnOnce(&Stage<'_>, &Server)) {
    let server = Server::embedded(1);
    load(&server, 100);
    let [home, other] = ["routine", "other"].map(|name| {
        let text = configuration(&server, &every_second(name));
        Home::new(&text.replace("backup-policies:\n", POLICIES))
    });
    let (service, neighbour) = (home.serve(), other.serve());
    let stage = Stage { service: &service, home: &home, neighbour: &neighbour };
    stage.grows();
    test(&stage, &server);
    for service in [service, neighbour] {
        let log = service.stop().stdout;
        let errors: Vec<_> = log.lines().filter(|line| line.contains(" ERRO")).collect();
        assert_eq!(errors, [""; 0]);
    }
    for home in [home, other] {
        assert_eq!(partial(&home.storage()), [""; 0]);
    }
}

fn load(server: &Server, count: u64) {
    raw::load(server, &(0..count).map(|n| Raw::new(n).bin("bin", integer(1))).collect::<Vec<_>>());
}

/// Protects: a routine of every second that is disabled, enabled and changed through the API while it runs does what it
/// should each time; another service notices nothing.
#[test]
fn a_routine_does_as_it_is_told() {
    stage(|stage, _| {
        stage.switch("disable");
        assert_eq!(stage.state()["next-full"], Value::Null);
        stage.service.post("/v1/backups/full/routine", None).refuses(400, &["routine", "disabled"]);
        stage.rests();
        stage.switch("disable");
        stage.switch("enable");
        assert!(stage.state()["next-full"].is_string());
        stage.grows();

        stage.change("interval-cron", json!("@yearly"));
        let next = stage.state()["next-full"].take();
        assert!(next.as_str().unwrap().ends_with("-01-01T00:00:00Z"), "{next}");
        stage.rests();
        // What is refused changes nothing.
        let mut wrong = stage.routine();
        wrong["interval-cron"] = json!("every now and then");
        stage
            .service
            .put("/v1/config/routines/routine", Some(&wrong.to_string()))
            .refuses(400, &["backup-routines.routine.interval-cron"]);
        assert_eq!(stage.state()["next-full"], next);
        stage.change("schedule-timezone", json!("Asia/Kolkata"));
        let there = stage.state()["next-full"].take();
        assert!(there.as_str().unwrap().ends_with("-12-31T18:30:00Z"), "{there}");

        stage.change("namespaces", json!(["source-ns1", "source-ns2"]));
        stage.change("interval-cron", json!("* * * * * *"));
        let of_last = || {
            let backups = stage.service.backups("full", "routine");
            let last = backups.iter().filter_map(|backup| backup["timestamp"].as_i64()).max();
            let of_last = backups.iter().filter(|backup| backup["timestamp"].as_i64() == last);
            of_last.map(|backup| backup["namespace"].clone()).collect::<Vec<_>>()
        };
        eventually(|| of_last() == ["source-ns1", "source-ns2"])
            .unwrap_or_else(|()| panic!("{:?}", of_last()));
    });
}

/// Protects: a run goes on with what it started with; disabling and deleting its routine cancels it, and nothing half done
/// stays behind; what was there before stays.
#[test]
fn what_runs_ends_with_its_routine() {
    stage(|stage, server| {
        let service = stage.service;
        load(server, 3000);
        stage.change("backup-policy", json!("slow"));
        // The last run with the old policy may still be there at first.
        let mut began = Value::Null;
        eventually(|| {
            let before = std::mem::replace(&mut began, stage.runs());
            stage.neighbour_goes_on();
            before == began
        })
        .unwrap();
        stage.change("backup-policy", json!("policy"));
        stage.neighbour_goes_on();
        assert_eq!(stage.state()["full"]["start-time"], began);
        let before = stage.count();
        stage.switch("disable");
        stage.rests();
        assert_eq!(stage.count(), before);
        service.logs(&["routine=routine", "canceled"]);

        let stored = || fs::read_dir(stage.home.storage().join("routine/backup")).unwrap().count();
        assert_eq!(stored(), before);
        stage.change("backup-policy", json!("slow"));
        stage.switch("enable");
        stage.runs();
        service.delete("/v1/config/routines/routine").is(204);
        service.get("/v1/backups/currentBackup/routine").refuses(404, &["routine routine not found"]);
        service.delete("/v1/config/routines/routine").refuses(400, &["routine routine not found"]);
        eventually(|| stored() == before).unwrap_or_else(|()| panic!("{}", service.log()));
        stage.neighbour_goes_on();
        assert_eq!((stored(), partial(&stage.home.storage())), (before, Vec::new()));
        let metrics = service.get("/metrics").is(200).text;
        assert!(!metrics.contains("routine=\"routine\""), "{metrics}");

        // It can come back, to its old backups.
        let again = json!({"source-cluster": "cluster", "storage": "disk", "backup-policy": "policy",
            "interval-cron": "* * * * * *", "namespaces": [server.namespace]});
        service.post("/v1/config/routines/routine", Some(&again.to_string())).is(201);
        assert!(stage.count() >= before);
        stage.grows();
        service.post("/v1/config/routines/routine", Some(&again.to_string())).refuses(400, &["routine"]);
    });
}
