//! What a job is asked to do.

use std::time::Duration;

use abs_asb::EncryptionKey;
use abs_cluster::ClusterTime;
use abs_config::{
    BackupSettings, Bandwidth, Compression, Existing, FileHash, RecordRate, RestoreSettings, Retry, SizeMb,
};
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use crate::catalog::ChainTraits;
use crate::claim::Owner;
use crate::keys::KeyRing;

/// Ten retries over about eleven seconds: long enough for a cluster to re-form after a node left.
const RETRY: Retry = Retry { base: Duration::from_millis(100), multiplier: 1.5, max_retries: 10 };

/// Memory for the digests of a chain by default: 256 MiB.
const CHAIN_MEMORY: usize = 256 << 20;

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
    /// Those that the nodes of these racks master when the backup starts.
    Racks(Vec<u32>),
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
    /// Racks to read from, the best first; each partition's master when none of them has it.
    pub prefer_racks: Vec<u32>,
    /// When the backup was made that this one builds on: the `from` of its metadata. Without it that is `modified_after`.
    pub from: Option<DateTime<Utc>>,
    /// Only records last updated at this time or later, by the cluster's clock. Servers keep the time of an update in
    /// milliseconds, so one in the very millisecond in which another backup began may be younger than that one's scan, and
    /// is read again rather than lost.
    pub modified_after: Option<DateTime<Utc>>,
    /// Only records last updated before this time, by the cluster's clock.
    pub modified_before: Option<DateTime<Utc>>,
    /// Only records last updated before the backup began.
    pub sealed: bool,
    /// When the backup begins by the cluster's clock, if that could be read: that is what the cluster compares times with.
    pub cluster_time: Option<ClusterTime>,
    /// Only records that this base64 expression lets through.
    pub filter: Option<String>,
    /// Write no records.
    pub no_records: bool,
    /// Write no index definitions.
    pub no_indexes: bool,
    /// Write no UDF modules.
    pub no_udfs: bool,
    /// Take redacted values where masking rules keep the user from reading the real ones.
    pub allow_masked: bool,
    /// Leave nothing behind, no file and no metadata.yaml, when there is no record to write.
    pub skip_empty: bool,
    /// Scans at a time over the whole job; at least 1.
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
    /// How whole files are hashed.
    pub file_hash: FileHash,
    /// The time between checkpoints; zero for none.
    pub checkpoint_interval: Duration,
    /// Continue the unfinished backup of a process that has ended, if the folder holds one.
    pub continues: bool,
    /// What the claim on the folder says of this process.
    pub owner: Owner,
    /// Once it is cancelled, the run makes a last checkpoint and ends, to be continued.
    pub suspend: CancellationToken,
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
            prefer_racks: Vec::new(),
            from: None,
            modified_after: None,
            modified_before: None,
            sealed: false,
            cluster_time: None,
            filter: None,
            no_records: false,
            no_indexes: false,
            no_udfs: false,
            allow_masked: false,
            skip_empty: false,
            parallel: 4,
            parallel_write: 4,
            file_limit: 0,
            compact: false,
            compression: None,
            encryption: None,
            file_hash: FileHash::default(),
            checkpoint_interval: Duration::from_mins(1),
            continues: false,
            owner: Owner::default(),
            suspend: CancellationToken::new(),
            records_per_second: 0,
            bandwidth: 0,
            socket_timeout: Duration::from_secs(10),
            total_timeout: Duration::ZERO,
            retry: RETRY,
        }
    }
}

impl BackupPlan {
    /// What the backups of a chain have in common.
    #[must_use]
    pub fn chain_traits(&self) -> ChainTraits {
        ChainTraits {
            selection: self.selection(),
            encryption: match &self.encryption {
                None => "NONE".to_owned(),
                Some(key) => key.cipher().to_string(),
            },
            encryption_key: self.encryption.as_ref().map(EncryptionKey::id),
        }
    }
}

impl BackupPlan {
    /// A full backup of `namespace` by a policy, its encryption key fetched.
    ///
    /// The policy's retries are those of a namespace that failed and belong to whoever begins runs; a partition is tried
    /// again as by [`new`](Self::new), which bridges the seconds that a cluster needs to re-form.
    #[must_use]
    pub fn from_settings(
        settings: &BackupSettings,
        namespace: impl Into<String>,
        key: Option<EncryptionKey>,
    ) -> Self {
        Self {
            no_records: !settings.records,
            no_indexes: !settings.indexes,
            no_udfs: !settings.udfs,
            allow_masked: settings.allow_masked,
            sealed: settings.sealed,
            parallel: settings.parallel.get() as usize,
            parallel_write: settings.parallel_write.get() as usize,
            file_limit: settings.file_limit.map_or(0, SizeMb::bytes),
            compact: settings.compact,
            compression: match settings.compression {
                Compression::None => None,
                Compression::Zstd(level) => Some(level.get()),
            },
            encryption: key,
            file_hash: settings.file_hash,
            checkpoint_interval: settings.checkpoint_interval,
            records_per_second: settings.records_per_second.map_or(0, RecordRate::get),
            bandwidth: settings.bandwidth.map_or(0, Bandwidth::bytes_per_second),
            socket_timeout: settings.socket_timeout.unwrap_or(Duration::MAX),
            total_timeout: settings.total_timeout.unwrap_or(Duration::ZERO),
            ..Self::new(namespace)
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
    /// Restore what is there of a backup whose files do not hold what its metadata.yaml says.
    pub override_counts: bool,
    /// Write nothing, and find out what would be written.
    pub validate_only: bool,
    /// Whether backups that do not say what part of the namespace they hold may lack some bins.
    pub may_lack_bins: bool,
    /// Bytes of memory for the digests of newer backups of a chain; what does not fit is in a temporary file.
    pub chain_memory: usize,
    /// Readers at a time over the whole job; at least 1.
    pub parallel: usize,
    /// Rows per batch; at least 1.
    pub batch_size: usize,
    /// Batches in flight over the whole job; at least 1.
    pub max_async_batches: usize,
    /// Write record by record.
    pub disable_batch_writes: bool,
    /// Records per second over the whole job; 0 for no limit.
    pub records_per_second: u64,
    /// Bytes read per second over the whole job; 0 for no limit.
    pub bandwidth: u64,
    /// How long a node may be silent.
    pub socket_timeout: Duration,
    /// How long one attempt at a batch may take; zero for no limit.
    pub total_timeout: Duration,
    /// The keys that the files may have been encrypted with.
    pub encryption: KeyRing,
    /// The short waits before rows are written again that were refused for the moment, after one attempt at once.
    pub resend: Retry,
    /// The waits after those.
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
            override_counts: false,
            validate_only: false,
            may_lack_bins: false,
            chain_memory: CHAIN_MEMORY,
            parallel: 4,
            batch_size: 128,
            max_async_batches: 128,
            disable_batch_writes: false,
            records_per_second: 0,
            bandwidth: 0,
            socket_timeout: Duration::from_secs(10),
            total_timeout: Duration::ZERO,
            encryption: KeyRing::default(),
            resend: RETRY,
            retry: Retry::NEVER,
        }
    }
}

impl RestorePlan {
    /// A restore of a backup of namespace `source` by a policy, its encryption keys fetched. When the policy maps a namespace
    /// to another, the backup must be of that one.
    #[must_use]
    pub fn from_settings(settings: &RestoreSettings, source: &str, keys: KeyRing) -> Self {
        let (source, destination) = match &settings.namespace {
            Some(map) => (map.source.as_str(), map.destination.as_str()),
            None => (source, source),
        };
        let (unique, replace, if_older) = match settings.existing {
            Existing::Stays => (true, false, true),
            Existing::TakesBins { if_older } => (false, false, if_older),
            Existing::IsReplaced { if_older } => (false, true, if_older),
        };
        Self {
            sets: settings.set_list.clone(),
            bins: settings.bin_list.clone(),
            no_records: !settings.records,
            no_indexes: !settings.indexes,
            no_udfs: !settings.udfs,
            no_generation: !if_older,
            unique,
            replace,
            extra_ttl: settings.extra_ttl,
            override_counts: settings.override_counts,
            validate_only: settings.validate_only,
            chain_memory: (settings.chain_memory as usize) << 20,
            parallel: settings.parallel.get() as usize,
            batch_size: settings.batch_size.get() as usize,
            max_async_batches: settings.max_async_batches.get() as usize,
            disable_batch_writes: !settings.batch_writes,
            records_per_second: settings.tps.map_or(0, |rate| u64::from(rate.get())),
            bandwidth: settings.bandwidth.map_or(0, Bandwidth::bytes_per_second),
            socket_timeout: settings.socket_timeout.unwrap_or(Duration::MAX),
            total_timeout: settings.total_timeout.unwrap_or(Duration::ZERO),
            encryption: keys,
            retry: settings.retry,
            ..Self::new(source, destination)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_backup_by_a_policy() {
        let plan = BackupPlan::from_settings(&BackupSettings::default(), "n", None);
        assert_eq!((plan.namespace.as_str(), plan.parallel, plan.parallel_write), ("n", 8, 8));
        assert_eq!((plan.file_limit, plan.bandwidth, plan.records_per_second), (250 << 20, 0, 0));
        assert_eq!((plan.socket_timeout, plan.total_timeout), (Duration::from_mins(1), Duration::ZERO));
        assert!(!plan.no_records && !plan.no_indexes && !plan.no_udfs && !plan.sealed && !plan.compact);
        assert!(plan.compression.is_none() && plan.encryption.is_none());

        let settings = BackupSettings {
            parallel: NonZeroU32::MIN,
            records: false,
            indexes: false,
            udfs: false,
            sealed: true,
            compact: true,
            compression: "zstd:7".parse().unwrap(),
            socket_timeout: None,
            total_timeout: Some(Duration::from_secs(1)),
            bandwidth: Bandwidth::new(3),
            records_per_second: RecordRate::new(5),
            ..BackupSettings::default()
        };
        let plan = BackupPlan::from_settings(&settings, "n", None);
        assert_eq!((plan.parallel, plan.parallel_write, plan.compression), (1, 8, Some(7)));
        assert!(plan.no_records && plan.no_indexes && plan.no_udfs && plan.sealed && plan.compact);
        assert_eq!((plan.socket_timeout, plan.total_timeout), (Duration::MAX, Duration::from_secs(1)));
        assert_eq!((plan.bandwidth, plan.records_per_second), (3 << 20, 5));
    }

    #[test]
    fn a_restore_by_a_policy() {
        let plan = RestorePlan::from_settings(&RestoreSettings::default(), "n", KeyRing::default());
        assert_eq!((plan.source.as_str(), plan.destination.as_str()), ("n", "n"));
        assert_eq!((plan.parallel, plan.batch_size, plan.max_async_batches), (8, 128, 128));
        assert!(!plan.unique && !plan.replace && !plan.no_generation && !plan.disable_batch_writes);
        assert_eq!(plan.retry, Retry::default());

        for (existing, expected) in [
            (Existing::Stays, (true, false, false)),
            (Existing::TakesBins { if_older: false }, (false, false, true)),
            (Existing::IsReplaced { if_older: true }, (false, true, false)),
            (Existing::IsReplaced { if_older: false }, (false, true, true)),
        ] {
            let settings = RestoreSettings { existing, batch_writes: false, ..RestoreSettings::default() };
            let plan = RestorePlan::from_settings(&settings, "n", KeyRing::default());
            assert_eq!((plan.unique, plan.replace, plan.no_generation), expected);
            assert!(plan.disable_batch_writes);
        }
    }
}
