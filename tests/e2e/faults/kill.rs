//! Processes that are killed.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, SystemTime};

use super::{Data, Losses, Numbers, Original, kills, left_in};
use crate::support::{Dump, Server, abs, command, golden, outcome, same, signal};

/// Protects: a backup that is killed again and again, at any moment, and continued, has each record once. `ABS_KILLS` says
/// how many backups to make.
#[test]
fn a_backup_that_is_killed_is_continued() {
    let backups = kills(4);
    let original = Original::new();
    let server = &original.server;
    let mut numbers = Numbers(1);
    let (mut losses, mut continued) = (Losses::default(), 0);
    for number in 0..backups {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let fixed = ["backup", "-h", &server.address, "-n", &server.namespace, "--parallel-write", "2"];
        let slow = ["--bandwidth", "8", "--checkpoint-interval", "20"];
        let mut place = ["-d", path];
        for _ in 0..3 {
            let begun = SystemTime::now();
            let mut child = command(&[&fixed[..], &slow, &place].concat()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(numbers.below(900)));
            child.kill().unwrap();
            let killed = SystemTime::now();
            let ended = outcome(child);
            assert_ne!(ended.code, Some(1), "{ended:?}");
            let safe = last_checkpoint(folder.path()).map_or(begun, |last| last.max(begun));
            losses.0.push(killed.duration_since(safe).unwrap_or_default());
            if left_in(folder.path()).contains(&"metadata.yaml".to_owned()) {
                break;
            }
            if folder.path().join("manifest/0.json").exists() {
                place = ["--continue", path];
                continued += 1;
            } else {
                // It was killed before it had begun.
                let _ = std::fs::remove_dir_all(path);
                place = ["-d", path];
            }
        }
        if !left_in(folder.path()).contains(&"metadata.yaml".to_owned()) {
            let summary = command(&[&fixed[..], &place, &["--json"]].concat()).spawn().unwrap();
            let summary = outcome(summary).ok().json();
            assert_eq!(summary["record-count"], 3000);
        }
        original.is_in(folder.path());
        let is_odd =
            |name: &String| name.starts_with("in-progress") || name.starts_with(".abs") || name == "manifest";
        if left_in(folder.path()).iter().any(is_odd) {
            // It was killed when it was whole, and only its claim was left to delete.
            let again = command(&[&fixed[..], &["--continue", path]].concat()).spawn().unwrap();
            outcome(again).fails(1, &["holds a whole backup"]);
        }
        assert_eq!(left_in(folder.path()).into_iter().find(is_odd), None, "backup {number}");
        crate::support::abs(&["inspect", path]).ok();
    }
    losses.tell(&format!("{backups} backups"), continued);
}

/// When the last checkpoint in the folder of a backup was written.
fn last_checkpoint(folder: &Path) -> Option<SystemTime> {
    let checkpoints = std::fs::read_dir(folder.join("manifest")).ok()?.filter_map(Result::ok);
    checkpoints.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max()
}

/// Protects: what cannot be continued is refused with its reason, and stays.
#[test]
fn what_cannot_be_continued_is_refused() {
    let server = Server::embedded(1);
    Data { records: 3000, partitions: 500, size: 2000 }.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let fixed = ["backup", "-h", &server.address, "-n", &server.namespace];
    let go_on = |options: &[&str]| {
        outcome(command(&[&fixed[..], &["--continue", path], options].concat()).spawn().unwrap())
    };
    go_on(&[]).fails(1, &["holds no unfinished backup"]);
    let slow = ["--bandwidth", "2", "--checkpoint-interval", "20", "-d", path];
    let mut child = command(&[&fixed[..], &slow].concat()).spawn().unwrap();
    super::until("there is a checkpoint", || folder.path().join("manifest/1.json").exists());
    go_on(&[]).fails(1, &["another process is writing"]);
    child.kill().unwrap();
    outcome(child);
    go_on(&["--set", "other"]).fails(1, &["another selection"]);
    // Its node has the same id.
    let other = Server::embedded(1);
    let elsewhere = ["backup", "-h", &other.address, "-n", &other.namespace, "--continue", path];
    outcome(command(&elsewhere).spawn().unwrap()).fails(1, &["cluster"]);
    server.backup(folder.path(), &[]).fails(1, &["a process that ended", "continue it"]);
    assert!(folder.path().join("manifest/1.json").exists());
    go_on(&["-d", path]).fails(2, &["--continue"]);
    go_on(&[]).ok();
    assert_eq!(Dump::read(folder.path()).records.len(), 3000);
}

/// Protects: a backup whose process is stopped for longer than its lease is continued by another one, which alone finishes it:
/// each record is there once, and the first process leaves nothing when it runs again.
#[test]
fn a_backup_that_is_stopped_is_taken_over() {
    let original = Original::new();
    let server = &original.server;
    let fixed = ["backup", "-h", &server.address, "-n", &server.namespace, "--lease", "1000"];
    let slow = ["--bandwidth", "2", "--checkpoint-interval", "20"];
    for is_over in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let first = command(&[&fixed[..], &slow, &["-d", path]].concat()).spawn().unwrap();
        super::until("there is a checkpoint", || folder.path().join("manifest/1.json").exists());
        signal(first.id(), "STOP");
        let speed = if is_over { &[] } else { &slow[..] };
        let second = command(&[&fixed[..], speed, &["--continue", path]].concat()).spawn().unwrap();
        let end_second = |second| {
            let end = outcome(second).ok();
            assert!(end.stderr.contains("may still be written by another process"), "{end:?}");
        };
        let end_first = |first: Child| {
            signal(first.id(), "CONT");
            outcome(first).fails(1, &["another process"]);
        };
        if is_over {
            end_second(second);
            end_first(first);
        } else {
            super::until("it is taken over", || folder.path().join("in-progress-2").exists());
            end_first(first);
            end_second(second);
        }
        check(folder.path(), &original);
    }
}

/// Protects: with a state file a signal suspends a backup at a checkpoint, and it is continued from there, with nothing lost;
/// without one it leaves nothing. State files of other tools are refused.
#[test]
fn a_signal_suspends_a_backup() {
    let original = Original::new();
    let server = &original.server;
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state");
    let state = state.to_str().unwrap();
    let fixed = ["backup", "-h", &server.address, "-n", &server.namespace];
    // No checkpoint but the one that the signal asks for.
    let slow = ["--bandwidth", "2", "--checkpoint-interval", "86400000"];
    for (signal_name, is_suspended) in [("TERM", true), ("INT", true), ("INT", false)] {
        let folder = place.path().join(format!("{signal_name}-{is_suspended}"));
        let path = folder.to_str().unwrap();
        let options: &[&str] = if is_suspended { &["--state-file-dst", state] } else { &[] };
        let child = command(&[&fixed[..], &slow, &["-d", path], options].concat()).spawn().unwrap();
        let has_data = || {
            let entries = std::fs::read_dir(&folder).into_iter().flatten();
            entries
                .filter_map(Result::ok)
                .any(|entry| entry.metadata().is_ok_and(|file| file.len() > 100_000))
        };
        super::until("data is written", has_data);
        signal(child.id(), signal_name);
        if !is_suspended {
            outcome(child).fails(1, &["canceled"]);
            assert_eq!(left_in(&folder), Vec::<String>::new());
            continue;
        }
        outcome(child).fails(1, &["the backup was suspended", "--continue", state]);
        assert!(left_in(&folder.join("manifest")).contains(&"1.json".to_owned()));
        let summary =
            outcome(command(&[&fixed[..], &["--continue", state, "--json"]].concat()).spawn().unwrap());
        assert_eq!(summary.ok().json()["record-count"], 3000);
        check(&folder, &original);
    }
    outcome(command(&[&fixed[..], &["--continue", state]].concat()).spawn().unwrap())
        .fails(1, &["holds no unfinished backup"]);
    std::fs::write(state, b"\x0c\xff\x81\x02\x01").unwrap();
    let refused = command(&[&fixed[..], &["--continue", state]].concat()).spawn().unwrap();
    outcome(refused).fails(2, &["is no state file of abs backup"]);
    // Nothing of the user's is overwritten, and nothing is done before that is known.
    let folder = place.path().join("none");
    let over = ["-d", folder.to_str().unwrap(), "--state-file-dst"];
    for other in [state, "/dev/null"] {
        let refused = command(&[&fixed[..], &over, &[other]].concat()).spawn().unwrap();
        outcome(refused).fails(2, &["--state-file-dst", other, "no state file"]);
    }
    assert_eq!(std::fs::read(state).unwrap(), b"\x0c\xff\x81\x02\x01");
    assert!(!folder.exists());
    let nowhere = ["-d", "b", "--state-file-dst", "/nonexistent/state"];
    outcome(command(&[&fixed[..], &nowhere].concat()).spawn().unwrap()).fails(2, &["/nonexistent"]);
}

/// Checks that a backup is whole, and nothing else is in its folder.
fn check(folder: &Path, original: &Original) {
    original.is_in(folder);
    let mut files = left_in(folder);
    for name in ["manifest.json", "metadata.yaml"] {
        let found = files.iter().position(|file| file == name).unwrap_or_else(|| panic!("{files:?}"));
        files.remove(found);
    }
    // Nothing else is there but the files that the manifest names.
    let report = abs(&["verify", "-d", folder.to_str().unwrap(), "--json"]).ok().json();
    assert_eq!(report["backups"][0]["files"], files.len(), "{report}: {files:?}");
}

/// Protects: a backup that is killed before its first checkpoint, and continued, has its definitions and each record once.
#[test]
fn a_backup_without_a_checkpoint_begins_anew() {
    let server = Server::embedded(1);
    server.restore("source-ns1", &golden().join("asb/plain"), &[]).ok();
    let whole = tempfile::tempdir().unwrap();
    server.backup(whole.path(), &[]).ok();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let fixed = ["backup", "-h", &server.address, "-n", &server.namespace];
    let slow = ["--records-per-second", "200", "--checkpoint-interval", "0", "-d", path];
    let mut child = command(&[&fixed[..], &slow].concat()).spawn().unwrap();
    super::until("it is described", || folder.path().join("manifest/0.json").exists());
    std::thread::sleep(Duration::from_millis(300));
    child.kill().unwrap();
    outcome(child);
    outcome(command(&[&fixed[..], &["--continue", path]].concat()).spawn().unwrap()).ok();
    same(&Dump::read(folder.path()), &Dump::read(whole.path()));
    crate::support::abs(&["inspect", path]).ok();
    outcome(command(&[&fixed[..], &["--continue", path]].concat()).spawn().unwrap())
        .fails(1, &["holds no unfinished backup"]);
}
