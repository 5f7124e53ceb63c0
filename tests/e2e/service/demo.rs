//! `abs demo`: the first thing that a newcomer runs.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde_json::{Value, json};

use super::support::stored;
use crate::support::{abs, command, outcome, signal};

/// Protects: the first thing a newcomer runs works, ends by itself, and leaves behind what it says.
#[test]
fn demo_once() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("demo");
    let place = place.to_str().unwrap();
    let end = abs(&["demo", "--once", "--records", "2000", "--directory", place]).ok();
    assert_eq!(end.stderr, "");
    let steps: Vec<&str> = end.stdout.lines().collect();
    assert_eq!(steps.len(), 8, "{end:?}");
    assert!(steps.iter().zip('1'..).all(|(step, number)| step.starts_with(number)), "{end:?}");
    assert!(steps[4].contains("changed 200 records and made an incremental backup: 200 records"), "{end:?}");
    assert!(steps[7].contains("all 2,000 are the same"), "{end:?}");
    let backups = stored(&Path::new(place).join("backups"));
    assert_eq!(backups.iter().filter(|path| path.ends_with("metadata.yaml")).count(), 2, "{backups:?}");
    abs(&["config", "check", &format!("{place}/abs.yml")]).ok();
    abs(&["demo", "--once", "--directory", place]).fails(1, &["demo is not empty"]);
}

/// Protects: the demo stays, what it tells to try works, and it cleans up behind itself.
#[test]
fn demo() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = self::command(&["demo", "--records", "100"]);
    let mut child = command.env("TMPDIR", temporary.path()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("All files are in") {
        assert_ne!(output.read_line(&mut text).unwrap(), 0, "{text}");
    }
    let tries: Vec<&str> = text.lines().filter(|line| line.trim_start().starts_with("curl ")).collect();
    assert_eq!(tries.len(), 6, "{text}");
    let url = |line: &str| line.split(' ').find(|word| word.starts_with("http://")).unwrap().to_owned();
    let backups: Value =
        serde_json::from_str(&ureq::get(url(tries[0])).call().unwrap().body_mut().read_to_string().unwrap())
            .unwrap();
    assert_eq!(backups["demo"][0]["record-count"], json!(100));
    assert_eq!(ureq::post(url(tries[1])).send_empty().unwrap().status(), 202);
    signal(child.id(), "INT");
    output.read_to_string(&mut text).unwrap();
    outcome(child).ok();
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}
