//! Rates are kept. Only lower bounds of time are looked at: a busy machine may always be slower.

use std::time::{Duration, Instant};

use super::{Backups, holds, load};
use crate::raw::{self, Raw, blob};
use crate::support::{Outcome, Server};

/// Runs something and insists that it took this long at the least.
#[track_caller]
fn takes(at_least: Duration, what: impl FnOnce() -> Outcome) -> Outcome {
    let start = Instant::now();
    let outcome = what().ok();
    assert!(start.elapsed() >= at_least, "{:?} instead of {at_least:?}: {outcome:?}", start.elapsed());
    outcome
}

/// Protects: `--records-per-second` of a backup, over all its scans together, and `--tps` of a restore.
#[test]
fn records_per_second() {
    let (server, backups) = (Server::start(2), Backups::new());
    let records = load(&server, 0..600);
    let options = ["--records-per-second", "300", "--parallel", "4"];
    takes(Duration::from_secs(2), || server.backup(&backups.at("b"), &options));
    holds(&crate::support::Dump::read(&backups.at("b")), &records, |_| true);
    server.wipe();
    let options = ["--tps", "300", "--json"];
    let outcome =
        takes(Duration::from_secs(2), || server.restore(&server.namespace, &backups.at("b"), &options));
    assert_eq!(outcome.json()["inserted-records"], 600);
}

/// Protects: `--bandwidth` of both commands, in MiB of file bytes.
#[test]
fn bandwidth() {
    let (server, backups) = (Server::start(2), Backups::new());
    let records: Vec<_> = (0..24).map(|n| Raw::new(n).bin("b", blob(vec![n as u8; 100_000]))).collect();
    raw::load(&server, &records);
    // 24 × 100,000 bytes raw.
    let options = ["--bandwidth", "1", "--compact", "--parallel", "4"];
    let time = Duration::from_secs_f64(2_400_000.0 / f64::from(1 << 20));
    takes(time, || server.backup(&backups.at("b"), &options));
    server.wipe();
    let options = ["--bandwidth", "1", "--json"];
    let outcome = takes(time, || server.restore(&server.namespace, &backups.at("b"), &options));
    assert_eq!(outcome.json()["inserted-records"], 24);
}
