//! A full disk.

use std::path::Path;
use std::process::{Command, Stdio};

use abs_asb::{Udf, UdfLanguage};

use super::{Data, left_in};
use crate::support::{Outcome, Server};

/// Runs a backup into a file system of `size` bytes that exists for this run only, in a mount namespace of its own. Returns
/// what was left in it too. Needs root.
fn backup_to_disk(server: &Server, size: u64, options: &[&str]) -> (Outcome, String) {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let script = r#"
        disk=$1 size=$2 left=$3; shift 3
        mount -t tmpfs -o "size=$size" none "$disk" || exit 99
        "$@"; code=$?
        ls -A "$disk" > "$left"
        exit $code"#;
    let left = folder.path().join("left");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh", &text(&disk), &size.to_string(), &text(&left)])
        .args([env!("CARGO_BIN_EXE_abs"), "backup", "-h", &server.address, "-n", &server.namespace])
        .args(["-d", &text(&disk)])
        .args(options)
        .stdin(Stdio::null())
        .output()
        .expect("unshare of util-linux");
    let outcome = Outcome::of(output);
    assert_ne!(outcome.code, Some(99), "mounting a small disk needs root: {outcome:?}");
    assert_eq!(left_in(&disk), [""; 0], "the disk is mounted for the run alone");
    (outcome, std::fs::read_to_string(left).unwrap_or_else(|e| panic!("unshare needs root: {e}")))
}

/// A disk that gets full fails the backup in one line that names the file and the reason, and everything written is
/// removed, whatever the disk has no room for: a file's data or the metadata at the very end.
#[test]
fn a_full_disk_is_one_line_and_leaves_nothing() {
    let server = Server::embedded(2);
    Data { records: 200, partitions: 100, size: 200 }.fill(&server);
    // Definitions that need several pages.
    let udf = Udf { language: UdfLanguage::Lua, name: "big.lua".to_owned(), content: vec![b' '; 10_000] };
    server.runtime.block_on(server.cluster.put_udf(&udf)).unwrap();
    let mut failed = Vec::new();
    for pages in 1.. {
        let (outcome, left) = backup_to_disk(&server, pages * 4096, &["--parallel", "1"]);
        if outcome.code == Some(0) {
            assert!(left.contains("metadata.yaml"), "{left}");
            break;
        }
        let error = outcome.fails(1, &["cannot write ", "/disk/", "No space left"]).stderr;
        assert_eq!(left, "", "{pages} pages");
        failed.push(error);
    }
    assert!(failed.len() > 10, "{failed:?}");
    for file in ["metadata_source-ns2_1.asb", "metadata.yaml"] {
        assert!(failed.iter().any(|error| error.contains(file)), "{file} never met a full disk: {failed:?}");
    }
}

/// The same with several whole files on the disk already, with and without compression.
#[test]
fn a_disk_that_gets_full_late_keeps_no_file() {
    let server = Server::embedded(2);
    Data { records: 1500, partitions: 500, size: 4000 }.fill(&server);
    for (size, options) in [(5 << 20, &["--file-limit", "1"][..]), (900_000, &["--compress", "zstd:1"])] {
        let (outcome, left) = backup_to_disk(&server, size, options);
        outcome.fails(1, &["cannot write ", ".asb", "No space left"]);
        assert_eq!(left, "", "{options:?}");
    }
}
