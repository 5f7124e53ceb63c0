//! What each option of `abs backup` and `abs restore` does to the records.

mod chains;
mod definitions;
mod encryption;
mod files;
mod masking;
mod policies;
mod random;
mod rates;
mod records;
mod restore;
mod selection;

use std::collections::BTreeSet;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::raw::{self, Raw, integer, string};
use crate::support::{Dump, Server};

/// Where a test keeps its backups.
struct Backups(TempDir);

impl Backups {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder of this name.
    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Backs up with these options and returns what the files hold.
    #[track_caller]
    fn dump(&self, server: &Server, name: &str, options: &[&str]) -> Dump {
        server.backup(&self.at(name), options).ok();
        Dump::read(&self.at(name))
    }
}

/// The sets of the sample, one of them with a name that needs care; every fourth record is in none.
const SETS: [&str; 4] = ["", "users", "orders", "odd set\\\n"];

/// Records of these numbers: in four sets, every other with its key, two bins, every third with a third bin.
fn sample(numbers: std::ops::Range<u64>) -> Vec<Raw> {
    numbers
        .map(|number| {
            let mut record = Raw::new(number)
                .set(SETS[number as usize % SETS.len()])
                .bin("n", integer(number as i64))
                .bin("text", string(format!("value {number}")));
            if number % 2 == 0 {
                record = record.key(integer(number as i64));
            }
            if number % 3 == 0 {
                record = record.bin("third", integer(1));
            }
            record
        })
        .collect()
}

/// Loads the sample and returns it.
#[track_caller]
fn load(server: &Server, numbers: std::ops::Range<u64>) -> Vec<Raw> {
    let records = sample(numbers);
    raw::load(server, &records);
    records
}

/// The digests of a backup.
fn digests(dump: &Dump) -> BTreeSet<&str> {
    dump.records.keys().map(String::as_str).collect()
}

/// Insists that a backup holds those of the records that `chosen` lets through, and no others.
#[track_caller]
fn holds(dump: &Dump, records: &[Raw], chosen: impl Fn(&Raw) -> bool) {
    let expected: BTreeSet<String> = records.iter().filter(|record| chosen(record)).map(Raw::name).collect();
    let missing = expected.iter().filter(|digest| !dump.records.contains_key(*digest)).count();
    let extra = dump.records.keys().filter(|digest| !expected.contains(*digest)).count();
    assert_eq!((missing, extra), (0, 0), "missing and extra of {} records", expected.len());
}
