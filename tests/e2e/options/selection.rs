//! Which records a backup takes.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use abs_cluster::partition_of;
use aerospike::expressions as exp;

use super::{Backups, digests, holds, load};
use crate::raw::{self, Raw};
use crate::support::{Dump, Server};

/// Protects: one set goes into the request, several into a filter, and names are taken as they are.
#[test]
fn sets() {
    let (server, backups) = (Server::start(3), Backups::new());
    let records = load(&server, 0..400);
    let cases: [(&str, &[&str], &[&str]); 6] = [
        ("one", &["--set", "users"], &["users"]),
        ("odd", &["--set", "odd set\\\n"], &["odd set\\\n"]),
        ("list", &["--set", "users,orders"], &["users", "orders"]),
        ("twice", &["--set", "users", "--set", "odd set\\\n"], &["users", "odd set\\\n"]),
        ("as-in-the-service", &["--set-list", "users,orders"], &["users", "orders"]),
        ("none", &["--set", "nobody"], &[]),
    ];
    for (name, options, sets) in cases {
        let dump = backups.dump(&server, name, options);
        holds(&dump, &records, |record| sets.iter().any(|set| set.as_bytes() == record.set));
    }
    holds(&backups.dump(&server, "all", &[]), &records, |_| true);
}

/// Protects: only the bins asked for are written, each once, and a record that has none of them is no record of the backup.
#[test]
fn bins() {
    let (server, backups) = (Server::start(2), Backups::new());
    let records = load(&server, 0..300);
    let has = |record: &Raw, bin: &[u8]| record.bins.iter().any(|(name, _)| name == bin);
    let dump = backups.dump(&server, "two", &["--bin-list", "n,third,n"]);
    holds(&dump, &records, |_| true);
    for (record, found) in records.iter().map(|record| (record, &dump.records[&record.name()])) {
        assert_eq!(found.bins.len(), 1 + usize::from(has(record, b"third")), "{found:?}");
        assert!(found.bins.iter().all(|line| line.starts_with(b"- I n ") || line.starts_with(b"- I third ")));
    }
    let summary = server.backup(&backups.at("one"), &["--bin-list", "third", "--json"]).ok().json();
    assert_eq!(summary["record-count"], 100);
    holds(&Dump::read(&backups.at("one")), &records, |record| has(record, b"third"));
    holds(&backups.dump(&server, "none", &["--bin-list", "nothing"]), &records, |_| false);
}

/// Which partitions a list means.
type Chosen = fn(u16) -> bool;

/// Protects: `FIRST-COUNT` means what it says, each partition is read from its start to its end, and disjoint lists are
/// the whole together.
#[test]
fn partitions() {
    let (server, backups) = (Server::start(3), Backups::new());
    let records = load(&server, 0..3000);
    let cases: [(&str, Chosen); 6] = [
        ("0,100-50", |p| p == 0 || (100..150).contains(&p)),
        ("4095", |p| p == 4095),
        ("2000-1000,1500-1000", |p| (1500..3000).contains(&p)),
        ("0-1", |p| p == 0),
        ("1-2095", |p| (1..2096).contains(&p)),
        ("2096-2000", |p| p >= 2096),
    ];
    let mut union = BTreeSet::new();
    let mut sum = 0;
    for (list, chosen) in cases {
        let dump = backups.dump(&server, list, &["--partition-list", list, "--parallel", "3"]);
        holds(&dump, &records, |record| chosen(partition_of(&record.digest)));
        if ["0-1", "1-2095", "2096-2000"].contains(&list) {
            sum += dump.records.len();
            union.extend(dump.records.into_keys());
        }
    }
    assert_eq!((sum, union.len()), (records.len(), records.len()));
}

/// Protects: the nodes' own partitions are found by name and by address, and all nodes together are the whole.
#[test]
fn nodes() {
    let (server, backups) = (Server::start(3), Backups::new());
    let records = load(&server, 0..1000);
    let map = server.runtime.block_on(server.cluster.partition_map(&server.namespace)).unwrap();
    let mut sum = 0;
    for (index, node) in map.nodes().iter().enumerate() {
        let address = format!("{}:{}", node.host, node.port);
        for (form, name) in [("name", &*node.name), ("address", &*address)] {
            let dump = backups.dump(&server, &format!("{form}{index}"), &["--node-list", name]);
            holds(&dump, &records, |record| map.owner(partition_of(&record.digest)) == Some(index));
            sum += dump.records.len();
        }
    }
    assert_eq!(sum, 2 * records.len());
    let all: Vec<&str> = map.nodes().iter().map(|node| &*node.name).collect();
    holds(&backups.dump(&server, "all", &["--node-list", &all.join(",")]), &records, |_| true);
}

/// Protects: the bounds of an incremental backup. At a moment between two loads, what was last updated before and what
/// was afterwards are disjoint and together everything, so nothing falls between a backup and the next one.
#[test]
fn last_update() {
    let (server, backups) = (Server::start(2), Backups::new());
    let mut records = load(&server, 0..400);
    let split = between();
    // A quarter is written again, and there are new ones.
    raw::load(&server, &records[..100]);
    records.extend(load(&server, 400..600));
    let late: BTreeSet<_> =
        records[..100].iter().chain(&records[400..]).map(|record| record.digest).collect();
    let milliseconds = split.to_string();
    let text = chrono::DateTime::from_timestamp_millis(split).unwrap().to_rfc3339();

    let after = backups.dump(&server, "after", &["--modified-after", &milliseconds]);
    holds(&after, &records, |record| late.contains(&record.digest));
    let before = backups.dump(&server, "before", &["--modified-before", &text]);
    holds(&before, &records, |record| !late.contains(&record.digest));
    assert!(digests(&after).is_disjoint(&digests(&before)));

    let metadata = std::fs::read_to_string(backups.at("after").join("metadata.yaml")).unwrap();
    let from = metadata.lines().find_map(|line| line.strip_prefix("from: ")).unwrap();
    assert_eq!(chrono::DateTime::parse_from_rfc3339(from).unwrap().timestamp_millis(), split);

    let end = between().to_string();
    let window = ["--modified-after", &milliseconds, "--modified-before", &end];
    assert_eq!(backups.dump(&server, "window", &window).records, after.records);
    assert!(backups.dump(&server, "nothing", &["--modified-after", &end]).records.is_empty());
}

/// A moment in milliseconds since 1970 that no write before or after this call shares.
fn between() -> i64 {
    sleep(Duration::from_millis(20));
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    sleep(Duration::from_millis(20));
    moment
}

/// Protects: the user's own filter goes to the server as it is, alone and joined with each of the other conditions.
#[test]
fn filter_expressions() {
    let (server, backups) = (Server::start(2), Backups::new());
    let records = load(&server, 0..400);
    let split = between().to_string();
    let filter = exp::gt(exp::int_bin("n".to_owned()), exp::int_val(99)).base64().unwrap();
    let passes = |record: &Raw| i64::from_be_bytes(record.bins[0].1.data[..].try_into().unwrap()) > 99;
    let with = |name: &str, options: &[&str]| {
        backups.dump(&server, name, &[&["--filter-exp", &filter], options].concat())
    };
    holds(&with("alone", &[]), &records, passes);
    holds(&with("set", &["--set", "users"]), &records, |r| passes(r) && r.set == b"users");
    holds(&with("sets", &["--set", "users,orders"]), &records, |r| {
        passes(r) && (r.set == b"users" || r.set == b"orders")
    });
    holds(&with("late", &["--modified-after", &split]), &records, |_| false);
    holds(&with("early", &["--modified-before", &split]), &records, passes);
    let third = with("bin", &["--bin-list", "third"]);
    holds(&third, &records, |record| passes(record) && record.bins.len() == 3);
    assert!(third.records.values().all(|record| record.bins.len() == 1));
}
