//! `abs verify`: what it says of backups, whole, damaged, old and unfinished.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::load;
use crate::raw::{self, Raw, blob};
use crate::support::{Outcome, Server, abs, golden, python};

/// Runs `abs verify` of a folder.
fn verify(folder: &Path, options: &[&str]) -> Outcome {
    abs(&[&["verify", "-d", folder.to_str().unwrap()], options].concat())
}

fn key() -> String {
    golden().join("test-key.b64").to_str().unwrap().to_owned()
}

/// Protects: a backup is told whole with what it holds, in a full and in a quick look; encrypted ones need their key.
#[test]
fn a_backup_is_whole() {
    let server = Server::start(1);
    load(&server, 100);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    server.backup(&at("plain"), &["--compress", "zstd"]).ok();
    let outcome = verify(&at("plain"), &[]).ok();
    let line = format!("{}: whole: ", at("plain").display());
    assert!(outcome.stdout.starts_with(&line) && outcome.stdout.ends_with(", 100 records\n"), "{outcome:?}");
    let outcome = verify(&at("plain"), &["--quick"]).ok();
    assert!(outcome.stdout.ends_with("B; quick: no file was read\n"), "{outcome:?}");
    assert_eq!(outcome.stdout.lines().count(), 1, "{outcome:?}");

    let key = key();
    let encryption = ["--encrypt", "aes256", "--encryption-key-file", &key];
    server.backup(&at("encrypted"), &encryption).ok();
    verify(&at("encrypted"), &encryption).ok();
    verify(&at("encrypted"), &["--quick"]).ok();
    let keys: [(&str, &[&str], &str); 3] = [
        (
            "encrypted",
            &[],
            "  not verifiable: it is encrypted with key d26420ed0d59b55d, and no key was given\n",
        ),
        (
            "encrypted",
            &["--encrypt", "aes128", "--encryption-key-file", &key],
            "  not verifiable: it is encrypted with another key: d26420ed0d59b55d, not cefb42e33ceb2085\n",
        ),
        ("plain", &encryption, "  not verifiable: it is not encrypted, but a key was given\n"),
    ];
    for (name, options, line) in keys {
        let outcome = verify(&at(name), options).fails(2, &["1 backup not verifiable"]);
        assert!(outcome.stdout.contains(line), "{outcome:?}");
    }
}

/// Protects: an independent implementation of docs/FORMAT.md (`tests/e2e/python/manifest.py`) finds the authentication code, the
/// checksums and the hashes of a manifest right, and a change of one number wrong.
#[test]
fn another_implementation_checks_the_manifest() {
    let server = Server::start(1);
    load(&server, 100);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("b");
    let encryption = ["--encrypt", "aes256", "--encryption-key-file", &key(), "--file-hash", "sha256"];
    server.backup(&folder, &encryption).ok();
    // The AES key of test-key.b64, as docs/FORMAT.md has it.
    let aes_key = "f7d7f98079cf84cea99a3b49c977f7c6fb9bd211e5ae87e0fb857a2ce3b31493";
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/python/manifest.py");
    let check = || Command::new(python()).arg(&script).arg(&folder).arg(aes_key).output().unwrap();
    let output = check();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"100\n");
    let manifest = fs::read_to_string(folder.join("manifest.json")).unwrap();
    fs::write(folder.join("manifest.json"), manifest.replacen("\"records\":", "\"records\":1", 1)).unwrap();
    let output = check();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("mac"));
}

/// Protects: each damaged file is named in one line; a quick look finds what is missing or has another size.
#[test]
fn damaged_files_are_named() {
    let server = Server::start(1);
    let records: Vec<_> = (0..40).map(|n| Raw::new(n).bin("b", blob(vec![n as u8; 100_000]))).collect();
    raw::load(&server, &records);
    let folder = tempfile::tempdir().unwrap();
    server.backup(folder.path(), &["--parallel-write", "1", "--file-limit", "1"]).ok();
    let mut files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "asb"));
    files.sort();
    let name = |number: usize| files[number].file_name().unwrap().to_str().unwrap().to_owned();
    assert!(files.len() >= 3, "{files:?}");
    let mut bytes = fs::read(&files[0]).unwrap();
    bytes[1000] ^= 1;
    fs::write(&files[0], &bytes).unwrap();
    verify(folder.path(), &["--quick"]).ok();
    let outcome = verify(folder.path(), &[]).fails(1, &["1 backup damaged"]);
    let line = format!("  problem: {}: damaged: its bytes 0 to ", name(0));
    assert!(outcome.stdout.starts_with(&line) && outcome.stdout.lines().count() == 2, "{outcome:?}");
    assert!(outcome.stdout.contains(&format!("{}: damaged: ", folder.path().display())), "{outcome:?}");

    fs::write(&files[1], "cut").unwrap();
    fs::remove_file(&files[2]).unwrap();
    fs::write(folder.path().join("more.asb"), "more").unwrap();
    for (options, lines) in [(&["--quick"][..], 4), (&[], 5)] {
        let outcome = verify(folder.path(), options).fails(1, &["1 backup damaged"]);
        for part in [
            format!("  problem: {}: damaged: it has 3 bytes instead of ", name(1)),
            format!("  problem: {}: damaged: it is gone\n", name(2)),
            "  problem: more.asb: damaged: it does not belong to the backup".to_owned(),
        ] {
            assert!(outcome.stdout.contains(&part), "{part} is missing in {outcome:?}");
        }
        assert_eq!(outcome.stdout.lines().count(), lines, "{outcome:?}");
    }

    let outcome = verify(folder.path(), &["--json", "--quick"]);
    let found = outcome.json();
    assert_eq!(
        (outcome.code, &found["verdict"], &found["depth"]),
        (Some(1), &"damaged".into(), &"quick".into())
    );
    assert_eq!(found["backups"][0]["problems"].as_array().unwrap().len(), 3, "{found}");
    assert_eq!(found["backups"][0]["namespace"], server.namespace.as_str());
}

/// Protects: below a folder every backup is verified, and what is not a backup is told apart from a damaged one.
#[test]
fn every_backup_below_a_folder_is_verified() {
    let server = Server::start(1);
    load(&server, 10);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["a/1", "a/2", "b"] {
        server.backup(&at(name), &[]).ok();
    }
    let outcome = verify(folder.path(), &[]).ok();
    let folders: Vec<_> = outcome.stdout.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(folders, ["a/1", "a/2", "b"].map(|name| at(name).to_str().unwrap().to_owned()), "{outcome:?}");

    // The manifest lost its metadata.yaml.
    fs::remove_file(at("b/metadata.yaml")).unwrap();
    let outcome = verify(folder.path(), &[]).fails(1, &["1 backup damaged"]);
    let line = "  problem: b/metadata.yaml: damaged: it is gone, although there is a manifest.json\n";
    assert!(outcome.stdout.contains(line), "{outcome:?}");
    assert_eq!(outcome.stdout.matches(": whole: ").count(), 2, "{outcome:?}");

    // The claim says that it never was one.
    fs::remove_file(at("b/manifest.json")).unwrap();
    fs::write(at("b/in-progress"), "").unwrap();
    let outcome = verify(folder.path(), &[]).ok();
    assert!(outcome.stdout.contains("/b: left out: it is being written, or "), "{outcome:?}");
    verify(&at("b"), &[]).fails(2, &["holds no whole backup"]);

    fs::create_dir(at("c")).unwrap();
    verify(&at("c"), &[]).fails(2, &["holds no backup"]);
    verify(&at("nothing"), &[]).fails(2, &["nothing does not exist"]);
}

/// Protects: backups that have no manifest verify, of the official tools and of earlier versions; the result says how little
/// that is.
#[test]
fn a_backup_without_manifest_is_checked_for_its_structure() {
    let asb = golden().join("asb");
    let key = key();
    for form in ["plain", "compact", "zstd", "aes128", "aes256", "zstd-aes256"] {
        let encryption = ["--encrypt", form.trim_start_matches("zstd-"), "--encryption-key-file", &key];
        let options: &[&str] = if form.contains("aes") { &encryption } else { &[] };
        for (options, records) in
            [(options, ", 2,064 records; "), (&["--quick"], "; quick: no file was read; ")]
        {
            let outcome = verify(&asb.join(form), options).ok();
            let end = format!("{records}structure only: it has no manifest.json\n");
            assert!(outcome.stdout.ends_with(&end), "{form}: {outcome:?}");
            assert_eq!(outcome.stdout.lines().count(), 1, "{form}: {outcome:?}");
        }
    }
    // All below one folder: each is one for itself, and two can be read without a key.
    let outcome = verify(&asb, &[]).fails(1, &["3 backups damaged"]);
    assert_eq!(outcome.stdout.matches(": whole: ").count(), 3, "{outcome:?}");

    // With a metadata.yaml that names no manifest.
    let server = Server::start(1);
    load(&server, 100);
    let folder = tempfile::tempdir().unwrap();
    server.backup(folder.path(), &[]).ok();
    let metadata = folder.path().join("metadata.yaml");
    let text = fs::read_to_string(&metadata).unwrap();
    let (old, _) = text.split_once("manifest-hash: ").unwrap();
    fs::write(&metadata, old).unwrap();
    let outcome = verify(folder.path(), &["--quick"]).fails(1, &["damaged"]);
    assert!(
        outcome.stdout.contains("metadata.yaml: damaged: it does not name the manifest.json"),
        "{outcome:?}"
    );
    fs::remove_file(folder.path().join("manifest.json")).unwrap();
    let outcome = verify(folder.path(), &[]).ok();
    assert!(outcome.stdout.contains(", 100 records; structure only: it has no manifest.json"), "{outcome:?}");
    fs::write(&metadata, old.replace("record-count: 100", "record-count: 101")).unwrap();
    verify(folder.path(), &["--quick"]).ok();
    let outcome = verify(folder.path(), &[]).fails(1, &["1 backup damaged"]);
    assert!(outcome.stdout.contains("metadata.yaml says 101 records, the files hold 100"), "{outcome:?}");
}
