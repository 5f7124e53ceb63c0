//! Several folders as one chain: which of them `abs restore` takes, in which order, and which it refuses.

use std::fs;
use std::path::{Path, PathBuf};

use super::Backups;
use crate::raw::{self, Contents, Particle, Raw, integer, read};
use crate::support::{Outcome, Server, abs};

/// What metadata.yaml in a folder says of a key.
fn metadata(folder: &Path, key: &str) -> String {
    let text = fs::read_to_string(folder.join("metadata.yaml")).unwrap();
    let prefix = format!("{key}: ");
    let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
    value.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
}

/// Backs up what changed since the backup in `base`.
fn incremental(server: &Server, folder: &Path, base: &Path, options: &[&str]) {
    let since = ["--modified-after", &metadata(base, "cluster-created")];
    server.backup(folder, &[&since[..], options].concat()).ok();
}

/// Full, then three incremental backups in folders `a` to `d`, and what the namespace held at each of them.
fn chain(server: &Server, backups: &Backups) -> [(PathBuf, Contents); 4] {
    let write = |numbers: std::ops::Range<u64>, bin: &str, value: i64| {
        raw::load(server, &numbers.map(|n| Raw::new(n).bin(bin, integer(value))).collect::<Vec<_>>());
    };
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| backups.at(name));
    write(0..40, "one", 1);
    write(0..40, "two", 1);
    server.backup(&a, &[]).ok();
    let first = read(server);
    write(10..50, "one", 2);
    incremental(server, &b, &a, &[]);
    let second = read(server);
    // Created again: of a lower generation than before, and without its second bin.
    let nothing = || Particle { kind: 0, data: Vec::new() };
    let delete = |n| Raw::new(n).bin("one", nothing()).bin("two", nothing());
    raw::load(server, &(5..15).map(delete).collect::<Vec<_>>());
    write(5..15, "one", 3);
    incremental(server, &c, &b, &[]);
    let third = read(server);
    write(0..60, "two", 4);
    incremental(server, &d, &c, &[]);
    [(a, first), (b, second), (c, third), (d, read(server))]
}

/// Restores folders.
fn restore(server: &Server, options: &[&str]) -> Outcome {
    let (address, namespace) = (&*server.address, &*server.namespace);
    abs(&[&["restore", "-h", address, "-n", namespace, "--json"], options].concat())
}

fn list(folders: &[&Path]) -> String {
    folders.iter().map(|folder| folder.to_str().unwrap()).collect::<Vec<_>>().join(",")
}

/// Insists that these are the records and their bins; generations are counted anew.
#[track_caller]
fn holds(server: &Server, expected: &Contents) {
    let bins = |contents: &Contents| {
        contents.iter().map(|(digest, record)| (*digest, record.bins.clone())).collect::<Vec<_>>()
    };
    assert_eq!(bins(&read(server)), bins(expected));
}

/// Protects: folders of one chain restore its moment exactly, in whatever order they are named, or found below a folder,
/// with a moment or without.
#[test]
fn folders_of_a_chain_are_one_restore() {
    let (server, backups) = (Server::start(2), Backups::new());
    let chain = chain(&server, &backups);
    let [a, b, c, d] = chain.each_ref().map(|(folder, _)| folder.as_path());
    let parent = backups.at("").to_str().unwrap().to_owned();
    for (folders, moment) in [(&[a][..], 0), (&[b, a], 1), (&[a, c, b, a], 2), (&[d, b, a, c], 3)] {
        server.wipe();
        let summary = restore(&server, &["--directory-list", &list(folders)]).ok().json();
        holds(&server, &chain[moment].1);
        let number = |key: &str| summary[key].as_u64().unwrap();
        assert_eq!(number("inserted-records") + number("superseded-records"), number("read-records"));
    }
    for (moment, (folder, expected)) in chain.iter().enumerate() {
        server.wipe();
        let time = metadata(folder, "created");
        restore(&server, &["--parent-directory", &parent, "--time", &time]).ok();
        holds(&server, expected);
        if moment == 3 {
            server.wipe();
            restore(&server, &["--parent-directory", &parent]).ok();
            holds(&server, expected);
            server.wipe();
            restore(&server, &["--parent-directory", &parent, "--directory-list", "d,c,b,a"]).ok();
            holds(&server, expected);
        }
    }
    // A gap, no beginning, nothing so old.
    server.wipe();
    restore(&server, &["--directory-list", &list(&[a, c])]).fails(2, &["builds on the backup of"]);
    restore(&server, &["--directory-list", &list(&[b, c])]).fails(2, &["--unordered"]);
    let before = ["--parent-directory", &parent, "--time", "2020-01-01T00:00:00Z"];
    restore(&server, &before).fails(2, &["no backup"]);
    assert_eq!(server.objects(), 0);
}

/// Protects: a backup whose time is wrong is in no chain: left out below a folder, refused in a list, restored alone.
#[test]
fn a_backup_of_a_wrong_time_is_in_no_chain() {
    let (server, backups) = (Server::start(1), Backups::new());
    let chain = chain(&server, &backups);
    let [a, b, c, d] = chain.each_ref().map(|(folder, _)| folder.as_path());
    let parent = backups.at("").to_str().unwrap().to_owned();
    fs::write(d.join("clock-suspect"), "").unwrap();
    server.wipe();
    let outcome = restore(&server, &["--parent-directory", &parent]).ok();
    assert!(outcome.stderr.contains("clock-suspect"), "{outcome:?}");
    holds(&server, &chain[2].1);
    restore(&server, &["--directory-list", &list(&[a, b, c, d])]).fails(2, &["/d ", "clock-suspect"]);
    server.wipe();
    restore(&server, &["-d", d.to_str().unwrap()]).ok();
    assert_eq!(server.objects(), 60);
    server.wipe();
    restore(&server, &["--parent-directory", &parent, "--unordered"]).ok();
    assert_eq!(server.objects(), 60);
    fs::remove_file(d.join("clock-suspect")).unwrap();

    // Without a mark: dated later than it was written.
    let path = c.join("metadata.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace(&metadata(c, "created"), "2120-01-01T00:00:00Z");
    fs::write(&path, text).unwrap();
    server.wipe();
    restore(&server, &["--parent-directory", &parent]).fails(2, &["builds on the backup of"]);
    let time = metadata(b, "created");
    let outcome = restore(&server, &["--parent-directory", &parent, "--time", &time]).ok();
    assert!(outcome.stderr.contains("clock-suspect"), "{outcome:?}");
    holds(&server, &chain[1].1);
}

/// Protects: backups of different bins are put together bin by bin, so that none hides what only an older one has; the
/// policy decides about a record once.
#[test]
fn backups_of_different_bins_are_put_together() {
    let (server, backups) = (Server::start(2), Backups::new());
    let write = |numbers: std::ops::Range<u64>, bin: &str, value: i64| {
        raw::load(&server, &numbers.map(|n| Raw::new(n).bin(bin, integer(value))).collect::<Vec<_>>());
    };
    let [a, b, c] = ["a", "b", "c"].map(|name| backups.at(name));
    write(0..30, "one", 1);
    write(0..30, "two", 1);
    server.backup(&a, &[]).ok();
    write(10..40, "one", 2);
    incremental(&server, &b, &a, &["--bin-list", "one"]);
    write(20..50, "two", 3);
    incremental(&server, &c, &b, &["--bin-list", "two"]);
    let expected = read(&server);
    for options in [&[][..], &["--no-generation"], &["--unique"], &["--replace"], &["--chain-memory", "1"]] {
        server.wipe();
        let folders = list(&[&c, &a, &b]);
        let options = [&["--directory-list", &folders], options].concat();
        let summary = restore(&server, &options).ok().json();
        let warning = summary["warnings"][0].as_str().unwrap();
        assert!(warning.contains("bin by bin"), "{warning}");
        holds(&server, &expected);
        assert_eq!((&summary["inserted-records"], &summary["superseded-records"]), (&90.into(), &0.into()));
    }
    // Against what is there: by the policy, for each record once.
    server.wipe();
    write(0..25, "other", 7);
    let folders = list(&[&a, &b, &c]);
    let summary = restore(&server, &["--directory-list", &folders, "--unique"]).ok().json();
    assert_eq!((&summary["existed-records"], &summary["inserted-records"]), (&45.into(), &45.into()));
    restore(&server, &["--directory-list", &folders, "--replace", "--no-generation"]).ok();
    holds(&server, &expected);
}

/// Protects: a chain whose backups do not all have the key that is given is refused before a record is written; with all of
/// its keys it is restored.
#[test]
fn a_chain_of_two_keys_writes_nothing() {
    let (server, backups) = (Server::start(1), Backups::new());
    let key = crate::support::golden().join("test-key.b64");
    let encrypted = |mode| ["--encrypt", mode, "--encryption-key-file", key.to_str().unwrap()];
    let [a, b] = ["a", "b"].map(|name| backups.at(name));
    let write = |value| {
        raw::load(&server, &(0..40).map(|n| Raw::new(n).bin("one", integer(value))).collect::<Vec<_>>());
    };
    write(1);
    server.backup(&a, &encrypted("aes128")).ok();
    write(2);
    incremental(&server, &b, &a, &encrypted("aes256"));
    server.wipe();
    for mode in ["aes128", "aes256"] {
        let folders = list(&[&a, &b]);
        let options = [&["--directory-list", &folders][..], &encrypted(mode)].concat();
        restore(&server, &options).fails(1, &[".asb", "encrypted with another key"]);
        assert_eq!(server.objects(), 0);
    }
    let folders = list(&[&a, &b]);
    let read_key = format!("aes128:{}", key.display());
    let options =
        [&["--directory-list", &folders, "--read-key", &read_key][..], &encrypted("aes256")].concat();
    restore(&server, &options).ok();
    assert_eq!(server.objects(), 40);
}
