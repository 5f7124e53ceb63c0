//! Processes that end after a step, as in a crash.

use std::path::Path;

use super::{Original, empty, left_in};
use crate::support::{Outcome, abs, command, outcome};

/// What a backup does that others may find half done.
const STEPS: [&str; 8] = [
    "claim-put",
    "run-described",
    "file-sealed",
    "checkpoint-put",
    "manifest-put",
    "metadata-put",
    "checkpoints-deleted",
    "claim-deleted",
];

/// Runs `abs`, which ends when it has done a step for the last of so many times.
fn crash(arguments: &[&str], step: &str, times: u32) -> Outcome {
    let points = format!("{step}={}*off->return", times - 1);
    outcome(command(arguments).env("FAILPOINTS", points).spawn().unwrap())
}

/// Protects: a backup whose process ends after any step is whole, or can be continued, also when the process that continues it
/// ends after that step; it has each record once, and nothing is left over.
#[test]
fn a_crash_after_any_step_of_a_backup() {
    let original = Original::new();
    let server = &original.server;
    for step in STEPS {
        for times in [1, 3] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().to_str().unwrap();
            let fixed = ["backup", "-h", &server.address, "-n", &server.namespace, "--parallel-write", "2"];
            let slow = ["--bandwidth", "16", "--checkpoint-interval", "20"];
            let backup = |place: [&'static str; 1]| [&fixed[..], &slow, &place, &[path]].concat();
            let first = crash(&backup(["-d"]), step, times);
            assert!(times > 1 || first.code.is_none(), "{step} is no step: {first:?}");
            if first.code.is_none() && !is_whole(folder.path()) {
                if folder.path().join("manifest/0.json").exists() {
                    let second = crash(&backup(["--continue"]), step, times);
                    assert_ne!(second.code, Some(1), "{step}: {second:?}");
                } else {
                    // It had not begun.
                    std::fs::remove_dir_all(path).unwrap();
                    outcome(command(&backup(["-d"])).spawn().unwrap()).ok();
                }
            }
            let last = outcome(command(&backup(["--continue"])).spawn().unwrap());
            if last.code == Some(1) {
                // It was whole before; what was left is deleted.
                assert!(last.stderr.contains("holds"), "{step}: {last:?}");
            } else {
                last.ok();
            }
            assert!(is_whole(folder.path()), "{step}, {times}");
            original.is_in(folder.path());
            let left = left_in(folder.path());
            let is_odd = |name: &&String| {
                name.starts_with("in-progress") || name.starts_with(".abs") || *name == "manifest"
            };
            assert_eq!(left.iter().find(is_odd), None, "{step}, {times}");
            abs(&["verify", "-d", path]).ok();
        }
    }
}

fn is_whole(folder: &Path) -> bool {
    folder.join("metadata.yaml").exists()
}

/// Protects: a restore whose process ends when some batches were sent is made good by running it again.
#[test]
fn a_crash_during_a_restore() {
    let original = Original::new();
    let server = &original.server;
    for times in [1, 5] {
        empty(server);
        let path = original.backup.path().to_str().unwrap();
        let restore = ["restore", "-h", &server.address, "-n", &server.namespace, "-d", path];
        let ended = crash(&restore, "batch-sent", times);
        assert_eq!(ended.code, None, "{ended:?}");
        abs(&restore).ok();
        original.is_restored();
    }
}
