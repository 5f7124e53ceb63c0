//! Restores whose process is killed.

use std::path::Path;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{Losses, Numbers, Original, empty, kills, until};
use crate::service::support::{Home, ROUTINE, Service, files};
use crate::support::{abs, command, outcome};

/// Insists that no mark of a reader is left below a folder, and no unfinished file.
#[track_caller]
fn is_clean(folder: &Path) {
    let is_odd = |path: &String| {
        let path = Path::new(path);
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("reading-")
            || name.starts_with(".abs-tmp")
            || path.extension().is_some_and(|extension| extension == "tmp")
    };
    assert_eq!(files(folder).into_iter().find(is_odd), None);
}

/// A service, and the journal of its restores.
struct Served {
    home: Home,
    service: Service,
    begun: SystemTime,
}

impl Served {
    fn new(home: Home) -> Self {
        let begun = SystemTime::now();
        Self { service: home.serve(), home, begun }
    }

    /// What the journal holds of a restore that has not ended.
    fn work(&self, job: u64) -> Option<Value> {
        let file = self.home.path().join(format!("abs-state/restores/{job}.json"));
        let document: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        document.get("work").cloned()
    }

    /// When a restore was last journaled by this process, unless it has ended.
    fn journaled(&self, job: u64) -> Option<SystemTime> {
        let last: DateTime<Utc> = self.work(job)?["last"].as_str().unwrap().parse().unwrap();
        Some(SystemTime::from(last).max(self.begun))
    }

    /// How many records of a restore have been answered as the journal says, unless it has ended.
    fn answered(&self, job: u64) -> Option<u64> {
        let work = self.work(job)?;
        let counts = &work["chains"][0][1]["counts"];
        Some(["inserted", "fresher"].iter().filter_map(|count| counts[*count].as_u64()).sum())
    }

    /// Kills the process; says how much work of a restore was lost, if there was any to lose.
    fn kill(self, job: u64) -> (Home, Option<Duration>) {
        self.service.signal("KILL");
        let killed = SystemTime::now();
        let safe = self.journaled(job);
        let Self { home, service, .. } = self;
        service.ended();
        (home, safe.map(|safe| killed.duration_since(safe).unwrap_or_default()))
    }
}

/// Protects: a restore whose service is killed again and again, at any moment, goes on with its id until it is done: each record
/// is there, with the right values, and nothing else is left. `ABS_KILLS` says how many restores to make.
#[test]
fn a_restore_of_a_service_that_is_killed_is_resumed() {
    let restores = kills(2);
    let original = Original::new();
    let server = &original.server;
    let mut served = Served::new(Home::of(server, ROUTINE));
    let backup = served.service.backup("full", "routine").remove(0);
    let request = json!({
        "destination-name": "cluster", "source-name": "disk", "backup-data-path": backup["key"],
        "policy": {"tps": 1000, "batch-size": 10, "parallel": 2}
    });
    let mut numbers = Numbers(2);
    let mut losses = Losses::default();
    for _ in 0..restores {
        empty(server);
        let job = served.service.start_restore("full", &request);
        for round in 0.. {
            // It would not be resumed a fourth time without progress.
            if round % 2 == 1 {
                let before = served.answered(job);
                until("it gets further", || served.answered(job).is_none_or(|now| Some(now) > before));
            }
            std::thread::sleep(Duration::from_millis(numbers.below(900)));
            let (home, lost) = served.kill(job);
            served = Served::new(home);
            let status = served.service.json(&format!("/v1/restore/status/{job}"));
            assert!(status["status"] == "Running" || status["status"] == "Done", "{status}");
            match lost {
                Some(lost) => losses.0.push(lost),
                None => break,
            }
        }
        let end = served.service.restored(job);
        assert_eq!(end["status"], "Done", "{end}\n{}", served.service.log());
        let number = |key: &str| end[key].as_u64().unwrap();
        assert_eq!(number("read-records"), 3000, "{end}");
        assert_eq!(number("inserted-records") + number("fresher-records"), 3000, "{end}");
        original.is_restored();
        is_clean(served.home.path());
    }
    losses.tell(&format!("{restores} restores of a service"), losses.0.len());
}

/// Protects: a restore of the command line that is killed is made good by running it again, and leaves nothing.
#[test]
fn a_restore_that_is_killed_is_run_again() {
    let restores = kills(2);
    let original = Original::new();
    let server = &original.server;
    let mut numbers = Numbers(3);
    let path = original.backup.path().to_str().unwrap();
    let fixed = ["restore", "-h", &server.address, "-n", &server.namespace, "-d", path];
    for _ in 0..restores {
        empty(server);
        for _ in 0..2 {
            let mut child = command(&[&fixed[..], &["--tps", "2000"]].concat()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(numbers.below(1200)));
            child.kill().unwrap();
            outcome(child);
        }
        let summary = abs(&[&fixed[..], &["--json"]].concat()).ok().json();
        let number = |key: &str| summary[key].as_u64().unwrap();
        assert_eq!(number("inserted-records") + number("fresher-records"), 3000, "{summary}");
        original.is_restored();
        is_clean(original.backup.path());
    }
}
