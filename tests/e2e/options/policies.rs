//! What a restore does about records that are there already, and about time.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::Backups;
use crate::raw::{self, Particle, Raw, integer, read};
use crate::support::Server;

/// Restores and insists that every record read has one fate.
#[track_caller]
fn restore(server: &Server, folder: &Path, options: &[&str]) -> Value {
    let summary = server.restore(&server.namespace, folder, &[options, &["--json"]].concat()).ok().json();
    let count = |key: &str| summary[format!("{key}-records")].as_u64().unwrap();
    let fates = ["inserted", "fresher", "existed", "ignored", "skipped", "expired"].map(count);
    assert_eq!(count("read"), fates.iter().sum::<u64>(), "{summary}");
    summary
}

/// The counters that are not 0.
fn fates(summary: &Value) -> Vec<(&str, u64)> {
    ["inserted", "fresher", "existed", "ignored", "skipped", "expired"]
        .into_iter()
        .map(|name| (name, summary[format!("{name}-records")].as_u64().unwrap()))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// A record with one bin.
fn record(number: u64, value: i64) -> Raw {
    Raw::new(number).set("s").bin("v", integer(value))
}

fn value(server: &Server, number: u64) -> Option<Particle> {
    read(server).get(&raw::digest(number)).map(|stored| stored.bins[&b"v"[..]].clone())
}

/// Protects: by default only records of a lower generation are overwritten; `--no-generation` overwrites all, and
/// `--unique` none.
#[test]
fn generations() {
    let (server, backups) = (Server::start(2), Backups::new());
    // In the backup: record 1 of generation 1, record 2 of generation 3, record 3 of generation 2, record 4.
    let old = |number| record(number, 10);
    raw::load(&server, &[1, 2, 3, 4].map(old));
    raw::load(&server, &[2, 3].map(old));
    raw::load(&server, &[2].map(old));
    let folder = backups.at("b");
    server.backup(&folder, &[]).ok();

    // On the server: record 1 is newer, record 2 older, record 3 as new, record 4 is not there.
    let stage = || {
        server.wipe();
        let new = |number| record(number, 20);
        raw::load(&server, &[1, 2, 3].map(new));
        raw::load(&server, &[1, 3].map(new));
    };
    let values = || [1, 2, 3, 4].map(|number| value(&server, number));
    let (old, new) = (Some(integer(10)), Some(integer(20)));

    stage();
    assert_eq!(fates(&restore(&server, &folder, &[])), [("inserted", 2), ("fresher", 2)]);
    assert_eq!(values(), [new.clone(), old.clone(), new.clone(), old.clone()]);
    assert_eq!(fates(&restore(&server, &folder, &["--no-generation"])), [("inserted", 4)]);
    assert_eq!(values(), [(); 4].map(|()| old.clone()));

    stage();
    assert_eq!(fates(&restore(&server, &folder, &["--unique"])), [("inserted", 1), ("existed", 3)]);
    assert_eq!(values(), [new.clone(), new.clone(), new, old]);
    let options = ["--unique", "--disable-batch-writes"];
    assert_eq!(fates(&restore(&server, &folder, &options)), [("existed", 4)]);

    // The same default by single writes.
    stage();
    let fates_singly = restore(&server, &folder, &["--disable-batch-writes"]);
    assert_eq!(fates(&fates_singly), [("inserted", 2), ("fresher", 2)]);
}

/// Protects: by default the bins of a record are merged into the stored ones; `--replace` leaves only the backup's, and
/// still asks for the generation.
#[test]
fn merge_and_replace() {
    let (server, backups) = (Server::start(2), Backups::new());
    raw::load(&server, &[record(1, 10).bin("a", integer(1))]);
    let folder = backups.at("b");
    server.backup(&folder, &[]).ok();
    let stored = record(1, 20).bin("b", integer(2));
    let bins = || {
        let stored = read(&server).remove(&raw::digest(1)).unwrap();
        let names = stored.bins.keys().map(|name| String::from_utf8(name.clone()).unwrap());
        (names.collect::<Vec<_>>().join(" "), stored.bins[&b"v"[..]].clone())
    };
    for (options, fate, left) in [
        (&["--no-generation"][..], "inserted", ("a b v", 10)),
        (&["--no-generation", "--replace"], "inserted", ("a v", 10)),
        (&["--replace"], "fresher", ("b v", 20)),
        (&["--unique"], "existed", ("b v", 20)),
        (&["--no-generation", "--bin-list", "a"], "inserted", ("a b v", 20)),
        (&["--no-generation", "--replace", "--disable-batch-writes"], "inserted", ("a v", 10)),
    ] {
        server.wipe();
        raw::load(&server, std::slice::from_ref(&stored));
        assert_eq!(fates(&restore(&server, &folder, options)), [(fate, 1)], "{options:?}");
        assert_eq!(bins(), (left.0.to_owned(), integer(left.1)), "{options:?}");
    }
}

/// Seconds since the epoch of void times.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 1_262_304_000
}

/// A file as another writer may have left it: a record for each number, generation and void time, in set `s`.
fn write_file(folder: &Path, namespace: &str, records: &[(u64, u64, u64)]) {
    let head = format!("Version 3.1\n# namespace {namespace}\n# first-file\n");
    let records: Vec<String> = records
        .iter()
        .map(|&(number, generation, void_time)| text(namespace, number, "s", generation, void_time))
        .collect();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("a.asb"), head + &records.concat()).unwrap();
}

/// The lines of a record.
fn text(namespace: &str, number: u64, set: &str, generation: u64, void_time: u64) -> String {
    let digest = Raw::new(number).name();
    let head = format!("+ n {namespace}\n+ d {digest}\n+ s {set}\n+ g {generation}\n+ t {void_time}\n");
    format!("{head}+ b 1\n- I v {number}\n")
}

/// Protects: what has expired since is counted and not written, the rest keeps its void time, `--extra-ttl` moves it before
/// that is judged, and records that never expire stay so.
#[test]
fn void_times() {
    let (server, backups) = (Server::start(2), Backups::new());
    let (folder, start) = (backups.at("f"), now());
    let times = [
        (1, 0),
        (2, 1),
        (3, start - 5),
        (4, start + 1000),
        (5, start + 300_000_000),
        (6, start + 310_000_000),
    ];
    write_file(&folder, &server.namespace, &times.map(|(number, time)| (number, 1, time)));
    let void_times = || {
        let contents = read(&server);
        [1, 4, 5, 6].map(|number| u64::from(contents[&raw::digest(number)].void_time))
    };
    for (extra, expired) in [(0, 2), (500, 1)] {
        server.wipe();
        let summary = restore(&server, &folder, &["--extra-ttl", &extra.to_string()]);
        assert_eq!(fates(&summary), [("inserted", 6 - expired), ("expired", expired)]);
        let [never, near, far, farthest] = void_times();
        assert_eq!(never, 0);
        for (time, before) in
            [(near, start + 1000), (far, start + 300_000_000), (farthest, start + 310_000_000)]
        {
            assert!((before + extra..=before + extra + 5).contains(&time), "{time} for {before} and {extra}");
        }
    }
}

/// Protects: expiry and times to live go by the clock of the cluster, not by that of this machine; also into an empty
/// namespace.
#[test]
fn void_times_by_the_clock_of_the_cluster() {
    let (server, backups) = (Server::embedded(2), Backups::new());
    let (folder, start) = (backups.at("f"), now());
    write_file(&folder, &server.namespace, &[(1, 1, 0), (2, 1, start + 1000), (3, 1, start + 5000)]);
    server.dev().knobs().advance_clock(std::time::Duration::from_secs(2000));
    for (inserted, policy) in [(2, "--replace"), (2, "--no-generation")] {
        let summary = restore(&server, &folder, &[policy]);
        assert_eq!(fates(&summary), [("inserted", inserted), ("expired", 1)]);
        let time = u64::from(read(&server)[&raw::digest(3)].void_time);
        assert!((start + 5000..start + 5010).contains(&time), "{time} for {start} and 5000");
    }
}

/// Protects: a restore that a rate makes last does not move void times: how long a record lives is counted from when it
/// is sent.
#[test]
fn void_times_of_a_slow_restore() {
    let (server, backups) = (Server::start(2), Backups::new());
    let (folder, start) = (backups.at("f"), now());
    let records: Vec<_> = (0..700).map(|number| (number, 1, start + 1000)).collect();
    write_file(&folder, &server.namespace, &records);
    restore(&server, &folder, &["--tps", "100", "--parallel", "1"]);
    let last = read(&server).into_values().map(|stored| u64::from(stored.void_time)).max().unwrap();
    assert!((start + 1000..=start + 1004).contains(&last), "{} s late", last - start - 1000);
}

/// Protects: void times and generations beyond what a server can take are brought into its range, not wrapped.
#[test]
fn numbers_out_of_the_servers_range() {
    let (server, backups) = (Server::start(1), Backups::new());
    let folder = backups.at("f");
    let records = [(1, 70_000, 0), (2, 65_535, u64::from(u32::MAX)), (3, 0, 0)];
    write_file(&folder, &server.namespace, &records);
    let summary = restore(&server, &folder, &["--extra-ttl", "4294967295"]);
    // No record is of a lower generation than 0, not even one that is not there.
    let fates = fates(&summary);
    assert!(fates == [("inserted", 2), ("fresher", 1)] || fates == [("inserted", 3)], "{summary}");
    let ten_years = now() + 3650 * 86_400;
    let void_time = u64::from(read(&server)[&raw::digest(2)].void_time);
    assert!((ten_years - 60..=ten_years + 5).contains(&void_time), "{void_time}");
}

/// Protects: a record that the server refuses for good ends the restore with its digest and the reason, or is counted when
/// asked to; all others are written either way.
#[test]
fn refused_records() {
    let (server, backups) = (Server::start(2), Backups::new());
    let keyed = |number, key| record(number, 10).key(integer(key));
    raw::load(&server, &[keyed(1, 1), keyed(2, 2), record(3, 10)]);
    let folder = backups.at("b");
    server.backup(&folder, &[]).ok();
    server.wipe();
    // A record of the same digest and another key cannot be the same record.
    raw::load(&server, &[keyed(1, 99)]);
    let outcome = server.restore(&server.namespace, &folder, &["--no-generation"]);
    outcome.fails(1, &["writing record", &Raw::new(1).name(), "key mismatch"]);
    let summary = restore(&server, &folder, &["--no-generation", "--ignore-record-error"]);
    assert_eq!(fates(&summary), [("inserted", 2), ("ignored", 1)]);
    let singly = ["--no-generation", "--ignore-record-error", "--disable-batch-writes"];
    assert_eq!(fates(&restore(&server, &folder, &singly)), [("inserted", 2), ("ignored", 1)]);
}

/// Protects: all counters together, in one restore: read = inserted + fresher + existed + ignored + skipped + expired.
#[test]
fn every_fate_at_once() {
    let (server, backups) = (Server::start(2), Backups::new());
    let (folder, start) = (backups.at("f"), now());
    let mut records: Vec<_> = (0..40).map(|number| (number, 2, 0)).collect();
    records.extend((100..107).map(|number| (number, 2, start - 10)));
    write_file(&folder, &server.namespace, &records);
    // Another set, to be skipped.
    let others: Vec<_> = (200..205).map(|number| text(&server.namespace, number, "other", 2, 0)).collect();
    let file = folder.join("a.asb");
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + &others.concat()).unwrap();
    // Numbers 0 to 2 are as new on the server, number 3 has a key there and another one in the file: it is refused.
    let stored = |number: u64| record(number, 20);
    raw::load(&server, &[0, 1, 2].map(stored));
    raw::load(&server, &[0, 1, 2].map(stored));
    raw::load(&server, &[stored(3).key(integer(3))]);
    let whole = std::fs::read_to_string(&file).unwrap();
    let keyless = text(&server.namespace, 3, "s", 2, 0);
    assert!(whole.contains(&keyless));
    std::fs::write(&file, whole.replace(&keyless, &format!("+ k I 33\n{keyless}"))).unwrap();
    let summary = restore(&server, &folder, &["--set-list", "s", "--ignore-record-error"]);
    let expected = [("inserted", 36), ("fresher", 3), ("ignored", 1), ("skipped", 5), ("expired", 7)];
    assert_eq!(fates(&summary), expected);
    let summary = restore(&server, &folder, &["--set-list", "s", "--unique"]);
    assert_eq!(fates(&summary), [("existed", 40), ("skipped", 5), ("expired", 7)]);
    let summary = restore(&server, &folder, &["--no-records"]);
    assert_eq!(fates(&summary), [("skipped", 52)]);
}
