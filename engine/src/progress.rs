//! Numbers that move while a job runs.

use std::array;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use abs_cluster::ResultCode;
use serde::{Deserialize, Serialize};

/// Counters of a backup; shared with whoever watches it.
#[derive(Debug)]
pub struct BackupProgress {
    started: Instant,
    pub(crate) expected_records: AtomicU64,
    pub(crate) records_read: AtomicU64,
    pub(crate) records_written: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) files: AtomicU64,
    pub(crate) partitions_done: AtomicU64,
    pub(crate) retries: AtomicU64,
}

/// The counters of a backup at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupSnapshot {
    /// Time since the job began.
    pub elapsed: Duration,
    /// How many records there will be, as far as can be known; 0 when it cannot. Of a backup with a filter it is estimated
    /// by the batches that were read, a single partition at first.
    pub expected_records: u64,
    /// Records received from the cluster; those that a worker lost when it panicked are received again, and counted again.
    pub records_read: u64,
    /// Records handed to storage; the rest of those received are in flight.
    pub records_written: u64,
    /// Bytes handed to storage.
    pub bytes_written: u64,
    /// Files begun.
    pub files: u64,
    /// Partitions read to their end.
    pub partitions_done: u64,
    /// Scans that had to be continued after a failure.
    pub retries: u64,
}

impl Default for BackupProgress {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            expected_records: AtomicU64::default(),
            records_read: AtomicU64::default(),
            records_written: AtomicU64::default(),
            bytes_written: AtomicU64::default(),
            files: AtomicU64::default(),
            partitions_done: AtomicU64::default(),
            retries: AtomicU64::default(),
        }
    }
}

impl AddAssign for BackupSnapshot {
    /// Adds the counters of another part of the job; the time stays.
    fn add_assign(&mut self, part: Self) {
        self.expected_records += part.expected_records;
        self.records_read += part.records_read;
        self.records_written += part.records_written;
        self.bytes_written += part.bytes_written;
        self.files += part.files;
        self.partitions_done += part.partitions_done;
        self.retries += part.retries;
    }
}

impl BackupProgress {
    /// Counts what an earlier attempt has left.
    pub(crate) fn resume(&self, records: u64, bytes: u64, files: u64) {
        self.records_read.fetch_add(records, Relaxed);
        self.records_written.fetch_add(records, Relaxed);
        self.bytes_written.fetch_add(bytes, Relaxed);
        self.files.fetch_add(files, Relaxed);
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> BackupSnapshot {
        BackupSnapshot {
            elapsed: self.started.elapsed(),
            expected_records: self.expected_records.load(Relaxed),
            records_read: self.records_read.load(Relaxed),
            records_written: self.records_written.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            files: self.files.load(Relaxed),
            partitions_done: self.partitions_done.load(Relaxed),
            retries: self.retries.load(Relaxed),
        }
    }
}

/// Counters of a restore; shared with whoever watches it.
#[derive(Debug)]
pub struct RestoreProgress {
    started: Instant,
    pub(crate) total_bytes: AtomicU64,
    pub(crate) bytes_read: AtomicU64,
    pub(crate) read: AtomicU64,
    pub(crate) inserted: AtomicU64,
    pub(crate) fresher: AtomicU64,
    pub(crate) existed: AtomicU64,
    pub(crate) ignored: AtomicU64,
    /// By result code.
    refused: [AtomicU64; 256],
    pub(crate) skipped: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) superseded: AtomicU64,
    pub(crate) unsent: AtomicU64,
    pub(crate) in_doubt: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) indexes: AtomicU64,
    pub(crate) udfs: AtomicU64,
    warnings: Mutex<Vec<String>>,
}

/// The counters of a restore at one moment. At the end
/// `read = inserted + fresher + existed + ignored + skipped + expired + superseded + unsent`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RestoreSnapshot {
    /// Time since the job began.
    pub elapsed: Duration,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Bytes read from storage.
    pub bytes_read: u64,
    /// Records found in the files.
    pub read: u64,
    /// Records written.
    pub inserted: u64,
    /// Records left alone because the stored generation is not lower.
    pub fresher: u64,
    /// Records left alone because they exist (`unique`).
    pub existed: u64,
    /// Records that the server refused for good (`ignore-record-error`).
    pub ignored: u64,
    /// Records that the server refused for good, by its answer: those ignored, and those that made the restore fail.
    #[serde(with = "numbers")]
    pub refused: BTreeMap<ResultCode, u64>,
    /// Records left out by `set-list`, `bin-list` or `no-records`.
    pub skipped: u64,
    /// Records whose time to live has run out.
    pub expired: u64,
    /// Older versions of records of which a newer backup of the chain holds another one.
    pub superseded: u64,
    /// Records that were not sent because nothing is to be written (`validate-only`).
    pub unsent: u64,
    /// Rows that may have been written without its being known: their answer was lost, the server's own time for them ran
    /// out, or the restore was interrupted or ended before. Counted for each such attempt, also of rows that were sent
    /// again.
    pub in_doubt: u64,
    /// Batches that were sent again, whole or in part.
    pub retries: u64,
    /// Indexes created or found.
    pub indexes: u64,
    /// UDF modules registered.
    pub udfs: u64,
}

/// Result codes as plain numbers.
mod numbers {
    use std::collections::BTreeMap;

    use abs_cluster::ResultCode;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        counts: &BTreeMap<ResultCode, u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(counts.iter().map(|(code, count)| (code.0, count)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<ResultCode, u64>, D::Error> {
        let counts = BTreeMap::<u8, u64>::deserialize(deserializer)?;
        Ok(counts.into_iter().map(|(code, count)| (ResultCode(code), count)).collect())
    }
}

impl Default for RestoreProgress {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Self {
            started: Instant::now(),
            total_bytes: zero(),
            bytes_read: zero(),
            read: zero(),
            inserted: zero(),
            fresher: zero(),
            existed: zero(),
            ignored: zero(),
            refused: array::from_fn(|_| zero()),
            skipped: zero(),
            expired: zero(),
            superseded: zero(),
            unsent: zero(),
            in_doubt: zero(),
            retries: zero(),
            indexes: zero(),
            udfs: zero(),
            warnings: Mutex::default(),
        }
    }
}

impl AddAssign for RestoreSnapshot {
    /// Adds the counters of another part of the job; the time stays.
    fn add_assign(&mut self, part: Self) {
        self.total_bytes += part.total_bytes;
        self.bytes_read += part.bytes_read;
        self.read += part.read;
        self.inserted += part.inserted;
        self.fresher += part.fresher;
        self.existed += part.existed;
        self.ignored += part.ignored;
        for (code, count) in part.refused {
            *self.refused.entry(code).or_default() += count;
        }
        self.skipped += part.skipped;
        self.expired += part.expired;
        self.superseded += part.superseded;
        self.unsent += part.unsent;
        self.in_doubt += part.in_doubt;
        self.retries += part.retries;
        self.indexes += part.indexes;
        self.udfs += part.udfs;
    }
}

impl RestoreSnapshot {
    /// Records with a final result.
    #[must_use]
    pub fn settled(&self) -> u64 {
        let c = self;
        c.inserted + c.fresher + c.existed + c.ignored + c.skipped + c.expired + c.superseded + c.unsent
    }
}

impl RestoreProgress {
    /// Adds a warning for the user, one line.
    pub fn warn(&self, line: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Warnings for the user, one line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a record that the server refused for good.
    pub(crate) fn refuse(&self, code: ResultCode) {
        self.refused[usize::from(code.0)].fetch_add(1, Relaxed);
    }

    /// Counts what became of records.
    pub(crate) fn add(&self, counts: &RestoreSnapshot) {
        let add = |counter: &AtomicU64, n| {
            if n > 0 {
                counter.fetch_add(n, Relaxed);
            }
        };
        add(&self.read, counts.read);
        add(&self.inserted, counts.inserted);
        add(&self.fresher, counts.fresher);
        add(&self.existed, counts.existed);
        add(&self.ignored, counts.ignored);
        for (code, count) in &counts.refused {
            add(&self.refused[usize::from(code.0)], *count);
        }
        add(&self.skipped, counts.skipped);
        add(&self.expired, counts.expired);
        add(&self.superseded, counts.superseded);
        add(&self.unsent, counts.unsent);
        add(&self.in_doubt, counts.in_doubt);
        add(&self.retries, counts.retries);
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> RestoreSnapshot {
        let mut counts = RestoreSnapshot {
            elapsed: self.started.elapsed(),
            total_bytes: self.total_bytes.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            read: self.read.load(Relaxed),
            inserted: self.inserted.load(Relaxed),
            fresher: self.fresher.load(Relaxed),
            existed: self.existed.load(Relaxed),
            ignored: self.ignored.load(Relaxed),
            refused: (0..=u8::MAX)
                .map(ResultCode)
                .zip(self.refused.iter().map(|count| count.load(Relaxed)))
                .filter(|&(_, count)| count > 0)
                .collect(),
            skipped: self.skipped.load(Relaxed),
            expired: self.expired.load(Relaxed),
            superseded: self.superseded.load(Relaxed),
            unsent: self.unsent.load(Relaxed),
            in_doubt: self.in_doubt.load(Relaxed),
            retries: self.retries.load(Relaxed),
            indexes: self.indexes.load(Relaxed),
            udfs: self.udfs.load(Relaxed),
        };
        // Rows of a block may be answered before the block is counted.
        counts.read = counts.read.max(counts.settled());
        counts
    }
}
