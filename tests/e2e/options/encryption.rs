//! Authenticated encryption, and several keys.

use std::fs;
use std::path::Path;

use super::{Backups, holds};
use crate::raw::{self, Raw, blob};
use crate::support::{Outcome, Server, abs, golden, remove_manifest};

fn verify(folder: &Path, options: &[&str]) -> Outcome {
    abs(&[&["verify", "-d", folder.to_str().unwrap()], options].concat())
}

/// Protects: a backup with authentication comes back with its key, also when that is one of several, and with no other.
#[test]
fn an_authenticated_backup_is_read_with_its_key() {
    let (server, backups) = (Server::start(1), Backups::new());
    let records: Vec<_> = (0..40).map(|n| Raw::new(n).bin("b", blob(vec![n as u8; 100_000]))).collect();
    let key = golden().join("test-key.b64");
    let key = key.to_str().unwrap();
    let with = |mode| ["--encrypt", mode, "--encryption-key-file", key];
    for (mode, name, compression) in
        [("aes128gcm", "AES128GCM", "none"), ("aes256gcm", "AES256GCM", "zstd:1")]
    {
        raw::load(&server, &records);
        let folder = backups.at(mode);
        let options = [&with(mode)[..], &["--compress", compression, "--file-limit", "1", "--json"]].concat();
        assert_eq!(server.backup(&folder, &options).ok().json()["encryption"], name);
        for (number, options) in [
            with(mode).to_vec(),
            vec!["--read-key", &format!("{mode}:{key}")],
            [&with("aes256")[..], &["--read-key", &format!("{mode}:{key}")]].concat(),
        ]
        .iter()
        .enumerate()
        {
            verify(&folder, options).ok();
            server.wipe();
            server.restore(&server.namespace, &folder, options).ok();
            let again = backups.dump(&server, &format!("{mode}-{number}"), &[]);
            holds(&again, &records, |_| true);
        }
        server.wipe();
        verify(&folder, &[]).fails(2, &["not verifiable"]);
        for (options, part) in [
            (vec![], "and no key was given"),
            (with("aes256").to_vec(), "not d26420ed0d59b55d"),
            (with("aes128").to_vec(), "not cefb42e33ceb2085"),
        ] {
            let outcome = verify(&folder, &options).fails(2, &["not verifiable"]);
            assert!(outcome.stdout.contains(part), "{outcome:?}");
            server.restore(&server.namespace, &folder, &options).fails(1, &["encrypted with ", part]);
        }
        assert_eq!(server.objects(), 0);
    }
}

/// Protects: without a manifest, too, a file that was changed, cut, renamed or exchanged fails the restore, and no value is
/// restored that was not backed up.
#[test]
fn an_authenticated_file_is_read_only_as_it_was_written() {
    let (server, backups) = (Server::start(1), Backups::new());
    let records: Vec<_> = (0..30).map(|n| Raw::new(n).bin("b", blob(vec![n as u8; 100_000]))).collect();
    raw::load(&server, &records);
    let original = backups.dump(&server, "original", &[]);
    let folder = backups.at("b");
    let key = golden().join("test-key.b64");
    let encryption = ["--encrypt", "aes256gcm", "--encryption-key-file", key.to_str().unwrap()];
    let options = ["--file-limit", "1", "--parallel-write", "1"];
    server.backup(&folder, &[&encryption[..], &options].concat()).ok();
    remove_manifest(&folder);
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files = entries.filter(|path| path.extension().is_some_and(|e| e == "asb"));
    let (one, two) = (files.next().unwrap(), files.next().unwrap());
    let (first, second) = (fs::read(&one).unwrap(), fs::read(&two).unwrap());
    let flipped = |place: usize| {
        let mut bytes = first.clone();
        bytes[place] ^= 1;
        bytes
    };
    server.wipe();
    for (bytes, part) in [
        (flipped(first.len() / 2), "are not those that were written: the file was cut or changed"),
        (first[..first.len() - 1].to_vec(), "the file was cut or changed"),
        ([&first[..], b"more"].concat(), "the file was cut or changed"),
        (second, "renamed or in the place of another file"),
    ] {
        fs::write(&one, bytes).unwrap();
        let outcome = server.restore(&server.namespace, &folder, &encryption);
        outcome.fails(1, &[one.file_name().unwrap().to_str().unwrap(), ": damaged: ", part]);
        verify(&folder, &encryption).fails(1, &["1 backup damaged"]);
    }
    for (digest, record) in backups.dump(&server, "restored", &[]).records {
        assert!(original.records[&digest].bins == record.bins, "{digest}");
    }
}
