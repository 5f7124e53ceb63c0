//! Users who change their mind.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use abs_devserver::{Fault, Kind};
use abs_engine::{BackupPlan, EngineError};

use super::{Data, Numbers, empty, left_in, plan_backup, until};
use crate::support::{Dump, Outcome, Server, command, golden, outcome, signal};

/// What a canceled run must look like: exit code 1 and one line.
#[track_caller]
fn canceled(outcome: Outcome) {
    outcome.fails(1, &["abs: canceled"]);
}

fn run(server: &Server, verb: &str, folder: &Path, options: &[&str]) -> std::process::Child {
    let fixed = [verb, "-h", &server.address, "-n", &server.namespace, "-d", folder.to_str().unwrap()];
    command(&[&fixed[..], options].concat()).spawn().unwrap()
}

/// A backup that is canceled by Ctrl-C or SIGTERM leaves nothing behind: no whole file, no half one.
#[test]
fn a_backup_that_is_canceled_leaves_nothing() {
    let server = Server::embedded(2);
    Data { records: 2000, partitions: 500, size: 5000 }.fill(&server);
    for name in ["INT", "TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let options = ["--bandwidth", "2", "--file-limit", "1", "--parallel-write", "2"];
        let child = run(&server, "backup", folder.path(), &options);
        until("a whole file and an unfinished one", || {
            let names = left_in(folder.path());
            names.iter().any(|n| n.starts_with('0') || n.starts_with('1'))
                && names.iter().any(|n| n.starts_with(".abs-tmp-"))
        });
        signal(child.id(), name);
        canceled(outcome(child));
        assert_eq!(left_in(folder.path()), [""; 0], "SIG{name}");
    }
}

/// Protects: a signal counts from the start of the process on, also while it still reads its options: the job is canceled with
/// the exit code that says so, not ended by the system.
#[test]
fn a_signal_counts_from_the_start() {
    let server = Server::embedded(1);
    server.dev().knobs().inject(Fault::delay_request(Kind::Any, Duration::from_hours(1)));
    let place = tempfile::tempdir().unwrap();
    let pipe = place.path().join("key");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let key = std::fs::read(golden().join("test-key.b64")).unwrap();
    let options = ["--encrypt", "aes256", "--encryption-key-file", pipe.to_str().unwrap()];
    let folder = tempfile::tempdir().unwrap();
    for verb in ["backup", "restore"] {
        let child = run(&server, verb, folder.path(), &options);
        // Opened when the process opens it, which then waits for the key.
        let mut writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
        signal(child.id(), "TERM");
        writer.write_all(&key).unwrap();
        drop(writer);
        canceled(outcome(child));
    }
}

/// The same when the job is limited in records, when a node is silent, and when no node answers at all.
#[test]
fn a_job_that_waits_can_be_canceled() {
    let server = Server::embedded(2);
    Data { records: 3000, partitions: 500, size: 500 }.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let queries = || server.dev().knobs().counts().queries;

    let child = run(&server, "backup", folder.path(), &["--records-per-second", "100"]);
    until("a scan is under way", || queries() > 0);
    signal(child.id(), "INT");
    canceled(outcome(child));
    assert_eq!(left_in(folder.path()), [""; 0]);

    let silent = server.dev().knobs().inject(Fault::delay_request(Kind::Query, Duration::from_hours(1)));
    let before = queries();
    let child = run(&server, "backup", folder.path(), &[]);
    until("a scan is under way", || queries() >= before);
    std::thread::sleep(Duration::from_millis(200));
    signal(child.id(), "TERM");
    canceled(outcome(child));
    assert_eq!(left_in(folder.path()), [""; 0]);
    server.dev().knobs().lift(silent);
}

/// A cluster that never says a word is no reason not to hear Ctrl-C.
#[test]
fn a_connect_can_be_canceled() {
    let server = Server::embedded(1);
    server.dev().knobs().inject(Fault::delay_request(Kind::Any, Duration::from_hours(1)));
    let folder = tempfile::tempdir().unwrap();
    for verb in ["backup", "restore"] {
        let before = server.dev().knobs().counts().connections;
        let child = run(&server, verb, folder.path(), &["--connect-timeout", "600000"]);
        until("it connects", || server.dev().knobs().counts().connections > before);
        std::thread::sleep(Duration::from_millis(200));
        signal(child.id(), "INT");
        canceled(outcome(child));
    }
}

/// A restore that is canceled keeps what it restored.
#[test]
fn a_restore_that_is_canceled_keeps_what_it_restored() {
    let server = Server::embedded(2);
    Data { records: 4000, partitions: 500, size: 1500 }.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    server.backup(folder.path(), &[]).ok();
    for name in ["INT", "TERM"] {
        empty(&server);
        let child = run(&server, "restore", folder.path(), &["--tps", "500", "--parallel", "1"]);
        until("some records are restored", || server.objects() >= 100);
        signal(child.id(), name);
        canceled(outcome(child));
        let kept = server.objects();
        assert!((100..4000).contains(&kept), "{kept} records");
        assert_eq!(Dump::read(folder.path()).records.len(), 4000, "the backup is as it was");
    }
}

/// Canceled at any moment, a backup is whole or leaves nothing: neither a file that was being completed nor a
/// metadata.yaml that stands for files that are gone. And it is so when the call returns, not a moment later.
#[test]
fn a_backup_canceled_at_any_moment_is_whole_or_leaves_nothing() {
    let server = Server::embedded(2);
    Data { records: 600, partitions: 300, size: 5000 }.fill(&server);
    let root = tempfile::tempdir().unwrap();
    let plan = BackupPlan {
        file_limit: 200_000,
        parallel_write: 3,
        no_indexes: false,
        no_udfs: false,
        ..plan_backup(&server)
    };
    let start = Instant::now();
    super::backup(&server, &root.path().join("uncanceled"), &plan, async |_| {}).unwrap();
    let usual = start.elapsed().as_micros() as u64;
    let mut numbers = Numbers(7);
    let (mut rounds, mut stopped) = (0, 0);
    // On a busy machine the usual time says little, so more of them may end before they are canceled.
    while rounds < 150 || stopped <= 50 {
        assert!(rounds < 2000, "only {stopped} were canceled in time");
        let folder = root.path().join(rounds.to_string());
        rounds += 1;
        let after = Duration::from_micros(numbers.below(usual + usual / 4));
        let result = super::backup(&server, &folder, &plan, async |job| {
            tokio::time::sleep(after).await;
            job.cancel().await;
        });
        match result {
            Ok(report) => {
                assert_eq!(report.metadata.record_count, 600);
                assert_eq!(Dump::read(&folder).records.len(), 600);
            }
            Err(failed) if matches!(*failed, EngineError::Canceled) => {
                stopped += 1;
                assert_eq!(left_in(&folder), [""; 0], "canceled after {after:?}");
            }
            Err(failed) => panic!("{failed:?}"),
        }
    }
    for round in 0..rounds {
        let folder = root.path().join(round.to_string());
        let names = left_in(&folder);
        assert!(names.is_empty() || names.contains(&"metadata.yaml".to_owned()), "later: {names:?}");
        assert!(!names.iter().any(|name| name.starts_with('.')), "later: {names:?}");
    }
}

/// Protects: a folder that a killed backup left is named as such, with what to do, and one that is being written as that.
#[test]
fn a_folder_of_a_killed_backup_is_named_as_such() {
    let server = Server::embedded(1);
    Data { records: 500, partitions: 500, size: 500 }.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let mut child = run(&server, "backup", folder.path(), &["--records-per-second", "1"]);
    until("the folder is claimed", || left_in(folder.path()).iter().any(|name| name == "in-progress"));
    let place = folder.path().to_str().unwrap();
    server.backup(folder.path(), &[]).fails(1, &[place, "another process is writing", "in-progress"]);
    child.kill().unwrap();
    child.wait().unwrap();
    let refused = server.backup(folder.path(), &[]);
    refused.fails(1, &[place, "unfinished backup of a process that ended", "delete the folder"]);
}
