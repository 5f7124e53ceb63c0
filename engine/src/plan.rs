//! What a job is asked to do.

use std::time::Duration;

use abs_asb::EncryptionKey;
use abs_config::Retry;
use chrono::{DateTime, Utc};

/// Ten retries over about eleven seconds: long enough for a cluster to re-form after a node left.
const RETRY: Retry = Retry { base: Duration::from_millis(100), multiplier: 1.5, max_retries: 10 };

/// Which partitions a backup reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PartitionChoice {
    /// All 4,096.
    #[default]
    All,
    /// These.
    Partitions(Vec<u16>),
    /// Those that these nodes, by name or `HOST:PORT`, master when the backup starts.
    Nodes(Vec<String>),
}

/// A backup of one namespace.
#[derive(Clone, Debug)]
pub struct BackupPlan {
    /// The namespace.
    pub namespace: String,
    /// Only records of these sets; empty for all.
    pub sets: Vec<String>,
    /// Only these bins; empty for all.
    pub bins: Vec<String>,
    /// Which partitions.
    pub partitions: PartitionChoice,
    /// Only records last updated at this time or later.
    pub modified_after: Option<DateTime<Utc>>,
    /// Only records last updated before this time.
    pub modified_before: Option<DateTime<Utc>>,
    /// Only records that this base64 expression lets through.
    pub filter: Option<String>,
    /// Write no records.
    pub no_records: bool,
    /// Write no index definitions.
    pub no_indexes: bool,
    /// Write no UDF modules.
    pub no_udfs: bool,
    /// Scans at a time; at least 1.
    pub parallel: usize,
    /// Files written at a time; at least 1.
    pub parallel_write: usize,
    /// Bytes after which a new file begins; 0 for no limit.
    pub file_limit: u64,
    /// Blobs, maps, lists and HLLs raw instead of in base64.
    pub compact: bool,
    /// The zstd level; `None` for no compression.
    pub compression: Option<i32>,
    /// The key to encrypt with.
    pub encryption: Option<EncryptionKey>,
    /// Records per second over the whole job; 0 for no limit.
    pub records_per_second: u32,
    /// Bytes written per second over the whole job; 0 for no limit.
    pub bandwidth: u64,
    /// How long a node may be silent.
    pub socket_timeout: Duration,
    /// How long one scan of a batch of partitions may take; zero for no limit.
    pub total_timeout: Duration,
    /// When to try a partition again.
    pub retry: Retry,
}

impl BackupPlan {
    /// A full backup of `namespace` with the defaults of the command line.
    #[must_use]
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            sets: Vec::new(),
            bins: Vec::new(),
            partitions: PartitionChoice::All,
            modified_after: None,
            modified_before: None,
            filter: None,
            no_records: false,
            no_indexes: false,
            no_udfs: false,
            parallel: 4,
            parallel_write: 4,
            file_limit: 0,
            compact: false,
            compression: None,
            encryption: None,
            records_per_second: 0,
            bandwidth: 0,
            socket_timeout: Duration::from_secs(10),
            total_timeout: Duration::ZERO,
            retry: RETRY,
        }
    }
}

/// A restore of the files of a folder into one namespace.
#[derive(Clone, Debug)]
pub struct RestorePlan {
    /// The namespace that the files were made from.
    pub source: String,
    /// The namespace to write to.
    pub destination: String,
    /// Only records of these sets; empty for all.
    pub sets: Vec<String>,
    /// Only these bins; empty for all. A record left with none is skipped.
    pub bins: Vec<String>,
    /// Restore no records.
    pub no_records: bool,
    /// Restore no indexes.
    pub no_indexes: bool,
    /// Restore no UDF modules.
    pub no_udfs: bool,
    /// Overwrite whatever generation is stored; otherwise only older generations are overwritten.
    pub no_generation: bool,
    /// Only create records that do not exist.
    pub unique: bool,
    /// Drop bins of stored records that the backup lacks.
    pub replace: bool,
    /// Seconds added to the time to live of records that expire.
    pub extra_ttl: u32,
    /// Count records that the server refuses for good instead of failing.
    pub ignore_record_error: bool,
    /// Readers at a time; at least 1.
    pub parallel: usize,
    /// Rows per batch; at least 1.
    pub batch_size: usize,
    /// Batches in flight; at least 1.
    pub max_async_batches: usize,
    /// Write record by record.
    pub disable_batch_writes: bool,
    /// Records per second over the whole job; 0 for no limit.
    pub records_per_second: u64,
    /// Bytes read per second over the whole job; 0 for no limit.
    pub bandwidth: u64,
    /// How long a node may be silent.
    pub socket_timeout: Duration,
    /// The key that the files were encrypted with.
    pub encryption: Option<EncryptionKey>,
    /// When to write a batch again.
    pub retry: Retry,
}

impl RestorePlan {
    /// A restore of everything with the defaults of the command line.
    #[must_use]
    pub fn new(source: impl Into<String>, destination: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            sets: Vec::new(),
            bins: Vec::new(),
            no_records: false,
            no_indexes: false,
            no_udfs: false,
            no_generation: false,
            unique: false,
            replace: false,
            extra_ttl: 0,
            ignore_record_error: false,
            parallel: 4,
            batch_size: 128,
            max_async_batches: 128,
            disable_batch_writes: false,
            records_per_second: 0,
            bandwidth: 0,
            socket_timeout: Duration::from_secs(10),
            encryption: None,
            retry: RETRY,
        }
    }
}
