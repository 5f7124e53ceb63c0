//! What a restore takes, how it sends it, and what it does not accept.

use std::fs;

use super::{Backups, SETS, load};
use crate::raw::{Raw, read, same};
use crate::support::{Dump, Server, abs, remove_manifest};

/// Which records a case takes.
type Chosen = fn(&Raw) -> bool;

/// Protects: sets and bins are chosen by their names, and a record left with no bin is skipped, not deleted or emptied.
#[test]
fn sets_and_bins() {
    let (server, backups) = (Server::start(2), Backups::new());
    let records = load(&server, 0..300);
    let folder = backups.at("b");
    server.backup(&folder, &[]).ok();
    let cases: [(&[&str], Chosen, usize); 6] = [
        (&["--set-list", "users"], |r| r.set == b"users", 3),
        (&["--set-list", "users,odd set\\\n"], |r| r.set == b"users" || r.set == SETS[3].as_bytes(), 3),
        (&["--set", "nobody"], |_| false, 3),
        (&["--bin-list", "third"], |r| r.bins.len() == 3, 1),
        (&["--bin-list", "n,third"], |_| true, 2),
        (&["--bin-list", "nothing"], |_| false, 0),
    ];
    for (options, chosen, most_bins) in cases {
        server.wipe();
        let summary =
            server.restore(&server.namespace, &folder, &[options, &["--json"]].concat()).ok().json();
        let expected = records.iter().filter(|record| chosen(record)).count();
        assert_eq!(summary["read-records"], 300);
        assert_eq!(summary["inserted-records"], expected, "{options:?}");
        assert_eq!(summary["skipped-records"], 300 - expected, "{options:?}");
        let found = read(&server);
        assert_eq!(found.len(), expected, "{options:?}");
        assert!(found.values().all(|record| record.bins.len() <= most_bins), "{options:?}");
        assert!(records.iter().all(|record| found.contains_key(&record.digest) == chosen(record)));
    }
}

/// Protects: batches of one and of any number, one in flight and many, one reader and many, batch writes and single ones
/// all write the same.
#[test]
fn batches_of_any_size() {
    let (server, backups) = (Server::start(3), Backups::new());
    load(&server, 0..1500);
    let before = read(&server);
    let folder = backups.at("b");
    server.backup(&folder, &["--parallel", "2"]).ok();
    for options in [
        &["--batch-size", "1"][..],
        &["--batch-size", "1", "--max-async-batches", "1", "--parallel", "1"],
        &["--batch-size", "65535"],
        &["--max-async-batches", "1"],
        &["--parallel", "1", "--max-async-batches", "4096"],
        &["--parallel", "64", "--batch-size", "3"],
        &["--disable-batch-writes"],
        &["--disable-batch-writes", "--batch-size", "1", "--parallel", "1"],
    ] {
        server.wipe();
        let options = [options, &["--json"]].concat();
        let summary = server.restore(&server.namespace, &folder, &options).ok().json();
        assert_eq!(summary["inserted-records"], 1500, "{options:?}");
        assert_eq!((&summary["errors-in-doubt"], &summary["retries"]), (&0.into(), &0.into()), "{options:?}");
        same(&read(&server), &before);
    }
}

/// Protects: `SOURCE,DESTINATION` writes to another namespace what came from this one; files of another source are refused
/// by name, before a record of them is written.
#[test]
fn namespaces() {
    let server = Server::start(2);
    let backups = Backups::new();
    load(&server, 0..100);
    let before = read(&server);
    server.backup(&backups.at("b"), &[]).ok();
    remove_manifest(&backups.at("b"));
    server.wipe();
    // The text says another namespace from here on; its name has another length.
    let folder = backups.at("elsewhere");
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(backups.at("b")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let text = ["# namespace ", "\nnamespace: ", "\n+ n "].into_iter().fold(text, |text, before| {
            text.replace(&format!("{before}{}\n", server.namespace), &format!("{before}elsewhere\n"))
        });
        fs::write(folder.join(path.file_name().unwrap()), text).unwrap();
    }
    server.restore("elsewhere", &folder, &[]).ok();
    same(&read(&server), &before);
    server.wipe();
    let names = [&*format!("{:?}", server.namespace), "\"elsewhere\""];
    let refused = || server.restore(&server.namespace, &folder, &[]);
    refused().fails(1, &[&["metadata.yaml"], &names[..]].concat());
    fs::remove_file(folder.join("metadata.yaml")).unwrap();
    refused().fails(1, &[&[".asb"], &names[..]].concat());
    // A file of records of two namespaces, whatever its head says.
    let path = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let path = path.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("# namespace elsewhere", &format!("# namespace {}", server.namespace)))
        .unwrap();
    refused().fails(1, &[&[".asb"], &names[..]].concat());
    assert_eq!(server.objects(), 0);
    fs::write(&path, text).unwrap();

    // A destination that is not there, and a source alone, which is its own destination.
    let folder = folder.to_str().unwrap();
    let to = |names: &str| abs(&["restore", "-h", &server.address, "-n", names, "-d", folder]);
    to("elsewhere,nowhere").fails(1, &["no namespace \"nowhere\""]);
    to("elsewhere").fails(1, &["no namespace \"elsewhere\""]);
}

/// Protects: a backup that is not whole is never taken for one: a missing file, a file too many, a foreign or damaged
/// metadata.yaml. Without metadata.yaml, as other tools leave it, there is nothing to compare.
#[test]
fn a_backup_that_is_not_whole() {
    let (server, backups) = (Server::start(2), Backups::new());
    load(&server, 0..400);
    let folder = backups.at("b");
    server.backup(&folder, &["--parallel", "2"]).ok();
    remove_manifest(&folder);
    let metadata = folder.join("metadata.yaml");
    let original = fs::read_to_string(&metadata).unwrap();
    let restore = || {
        server.wipe();
        server.restore(&server.namespace, &folder, &[])
    };
    let says = |from: &str, to: &str| {
        assert!(original.contains(from), "{original}");
        fs::write(&metadata, original.replace(from, to)).unwrap();
    };

    says("record-count: 400", "record-count: 401");
    restore().fails(1, &["not whole", "401 records", "400 records"]);
    says("udf-count: 0", "udf-count: 1");
    restore().fails(1, &["not whole", "1 UDF modules"]);
    says("file-count: ", "file-count: 1");
    restore().fails(1, &["not whole", " files"]);
    // What is known before the first record is said before it.
    assert_eq!(server.objects(), 0);
    says("record-count: 400", "record-count: many");
    restore().fails(1, &["metadata.yaml", "record-count"]);
    fs::write(&metadata, "").unwrap();
    restore().fails(1, &["metadata.yaml"]);
    fs::write(&metadata, &original).unwrap();

    let some = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let some = some.filter(|path| path.extension().is_some_and(|e| e == "asb"));
    let some = some.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let twin = folder.join("twin.asb");
    fs::copy(&some, &twin).unwrap();
    restore().fails(1, &["not whole"]);
    fs::rename(&twin, &some).unwrap();
    restore().ok();
    fs::remove_file(&some).unwrap();
    restore().fails(1, &["not whole", " files"]);
    assert_eq!(server.objects(), 0);

    fs::remove_file(&metadata).unwrap();
    let left = Dump::read(&folder).records.len() as u64;
    restore().ok();
    assert_eq!(server.objects(), left);
}

/// Protects: with `--override`, what is left of a file that was cut off is restored, and the warnings say what is missing.
#[test]
fn what_is_left_of_a_file_is_restored() {
    let (server, backups) = (Server::start(1), Backups::new());
    load(&server, 0..2000);
    for (name, options) in [("plain", &[][..]), ("packed", &["--compress", "zstd"])] {
        let folder = backups.at(name);
        server.backup(&folder, &[&["--parallel", "1"], options].concat()).ok();
        remove_manifest(&folder);
        let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "asb"));
        let file = files.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() * 3 / 4]).unwrap();
        server.wipe();
        server.restore(&server.namespace, &folder, &[]).fails(1, &[".asb", "ends inside"]);
        server.wipe();
        let summary = server.restore(&server.namespace, &folder, &["--override", "--json"]).ok().json();
        let restored = summary["inserted-records"].as_u64().unwrap();
        assert!((500..2000).contains(&restored) && server.objects() == restored, "{name}: {summary}");
        let warnings = summary["warnings"].to_string();
        assert!(warnings.contains("ends inside") && warnings.contains("2000 records"), "{warnings}");
        server.backup(&backups.at("other"), &[]).ok();
        fs::remove_dir_all(backups.at("other")).unwrap();
        server.wipe();
        load(&server, 0..2000);
    }
}

/// Protects: a backup of nothing exists and restores to nothing, unlike a folder that holds none.
#[test]
fn a_backup_of_nothing() {
    let (server, backups) = (Server::start(1), Backups::new());
    for (name, options) in [("all", &[][..]), ("records", &["--no-indexes", "--no-udfs"])] {
        let summary = server.backup(&backups.at(name), &[options, &["--json"]].concat()).ok().json();
        assert_eq!(summary["record-count"], 0);
        let summary = server.restore(&server.namespace, &backups.at(name), &["--json"]).ok().json();
        assert_eq!(summary["read-records"], 0);
        abs(&["inspect", backups.at(name).to_str().unwrap()]).ok();
    }
    fs::create_dir(backups.at("empty")).unwrap();
    server.restore(&server.namespace, &backups.at("empty"), &[]).fails(1, &["holds no backup"]);
}

/// Protects: files are found in folders of any depth with their metadata.yaml, only those that end in .asb are read, and
/// two backups are never mixed.
#[test]
fn files_in_folders() {
    let (server, backups) = (Server::start(1), Backups::new());
    let records = load(&server, 0..200);
    let before = read(&server);
    let folder = backups.at("routine/backup/1/data/ns");
    server.backup(&folder, &["--parallel", "4"]).ok();
    remove_manifest(&folder);
    fs::write(backups.at("routine/notes.txt"), "not a backup").unwrap();
    fs::write(folder.join("x.asb.tmp"), "not a backup").unwrap();
    server.wipe();
    let restore = || {
        server.wipe();
        server.restore(&server.namespace, &backups.at("routine"), &["--json"])
    };
    assert_eq!(restore().ok().json()["inserted-records"], records.len());
    same(&read(&server), &before);
    let metadata = folder.join("metadata.yaml");
    let text = fs::read_to_string(&metadata).unwrap();
    fs::write(&metadata, text.replace("record-count: 200", "record-count: 201")).unwrap();
    restore().fails(1, &["not whole", "201 records"]);
    fs::write(&metadata, text).unwrap();

    server.backup(&backups.at("routine/backup/2/data/ns"), &[]).ok();
    let names = ["routine holds several backups", "backup/1/data/ns/metadata.yaml", "backup/2/"];
    restore().fails(1, &names);
    assert_eq!(server.objects(), 0);
    abs(&["inspect", backups.at("routine").to_str().unwrap()]).ok();
}
