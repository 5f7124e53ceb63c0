//! How a backup is made.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::check::{Check, Findings, most};
use crate::retention::{Retention, RetentionPolicy};
use crate::retry::{Retry, RetryPolicy};
use crate::secret::{SecretText, Secrets, below};
use crate::text::words;
use crate::{
    Bandwidth, Compression, CompressionPolicy, Encryption, EncryptionPolicy, FileHash, Problems, RecordRate,
    SizeMb, Verify, VerifyMode, unsupported,
};

/// 8.
const DEFAULT_PARALLEL: NonZeroU32 = NonZeroU32::MIN.saturating_add(7);
const DEFAULT_FILE_LIMIT_MB: u32 = 250;
/// 1024.
const MOST_FILES: NonZeroU32 = NonZeroU32::MIN.saturating_add(most::FILES as u32 - 1);
const DEFAULT_OVERLAP_MS: u32 = 10_000;
const DEFAULT_CHECKPOINT_MS: u32 = 60_000;

/// The document `dto.BackupPolicy`. Every key is optional; [`BackupPolicy::check`] gives what they mean.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::BackupPolicy)]
pub struct BackupPolicy {
    /// Scans in parallel, at least 1; 8 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 8, minimum = 1, maximum = 4096, example = 1)]
    pub parallel: Option<i64>,
    /// Files written in parallel, at least 1; as `parallel` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 8, minimum = 1, maximum = 1024, example = 1)]
    pub parallel_write: Option<i64>,
    /// How long a socket may be idle, in milliseconds; 60,000 by default; 0 means as `total-timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 60000, minimum = 0, maximum = 2_678_400_000_i64)]
    pub socket_timeout: Option<i64>,
    /// How long one scan may take, in milliseconds; 0, the default, means as long as it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 0, minimum = 0, maximum = 2_678_400_000_i64)]
    pub total_timeout: Option<i64>,
    /// What happens when a namespace fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<RetryPolicy>,
    /// How long backups are kept; for ever by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionPolicy>,
    /// Only records changed before the start are taken; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub sealed: Option<bool>,
    /// No records are taken; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub no_records: Option<bool>,
    /// No secondary indexes are taken; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub no_indexes: Option<bool>,
    /// No UDF modules are taken; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub no_udfs: Option<bool>,
    /// A limit in MiB per second; none by default or for 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1_048_576, example = 10000)]
    pub bandwidth: Option<i64>,
    /// A limit in records per second; none by default or for 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 4_294_967_295_i64, example = 1000)]
    pub records_per_second: Option<i64>,
    /// The size in MB at which a file ends and the next begins; 250 by default; 0 means no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 250, minimum = 0, maximum = 4_294_967_295_i64)]
    pub file_limit: Option<i64>,
    /// How files are encrypted; not at all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionPolicy>,
    /// How files are compressed; not at all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<CompressionPolicy>,
    /// Incremental backups run beside other backups of the routine; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_incremental: Option<bool>,
    /// The configuration of the cluster is taken too; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub with_cluster_configuration: Option<bool>,
    /// How many nodes are asked at the same time; all by default or for 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 4096)]
    pub max_concurrent_nodes: Option<i64>,
    /// The server compresses what it sends (Enterprise Edition); false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_scan_compression: Option<bool>,
    /// Blobs, maps and lists are written raw, not in base64, which makes smaller files (since 3.6); false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub compact: Option<bool>,
    /// What an incremental backup takes (since 3.7): all changes since the last backup (`differential`, the default), or
    /// since the last full backup (`cumulative`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<IncrementalMode>, inline, default = "differential")]
    pub incr_mode: Option<String>,
    /// How far an incremental backup reaches back before the start of the one that it builds on, in milliseconds; 10,000 by
    /// default. It makes up for clocks that differ: what changed in that time is backed up twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 10000, minimum = 0, maximum = 86_400_000)]
    pub overlap: Option<i64>,
    /// Redacted values are taken where masking rules of the namespace hide the real ones from the user (ours; Enterprise
    /// Edition, server 8.1.1); false, the default, fails the backup instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub allow_masked: Option<bool>,
    /// The hash of each whole file in the manifest of the backup (ours): `none`, `blake3` (the default) or `sha256`. Checksums
    /// of each MiB are always there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<FileHash>, inline, default = "blake3")]
    pub file_hash: Option<String>,
    /// The time between checkpoints of a running backup in milliseconds (ours); 60,000 by default, 0 for none. After a failure
    /// the backup goes on from its last checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 60000, minimum = 0, maximum = 86_400_000)]
    pub checkpoint_interval: Option<i64>,
    /// What happens to a backup that the end of the service interrupted (ours): `resume`, the default, continues it at the next
    /// start while its last checkpoint is younger than the interval of its schedule and than a day; `discard` deletes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<OnInterrupt>, inline, default = "resume")]
    pub on_interrupt: Option<String>,
    /// When the service verifies backups by itself (ours): `none`, the default; `after-backup`, each one when it has been made;
    /// or by a cron expression as that of a routine, what a restore to that time would read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = "none", example = "after-backup")]
    pub verify: Option<String>,
    /// How closely `verify` looks (ours): `full`, the default, reads everything; `quick` looks at the manifest and whether every
    /// file is there and has its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<VerifyMode>, inline, default = "full")]
    pub verify_mode: Option<String>,
}

words! {
    /// What an incremental backup takes.
    #[derive(Default)]
    pub enum IncrementalMode: "mode of incremental backups" {
        /// What changed since the last backup, full or incremental.
        #[default]
        Differential = "differential",
        /// What changed since the last full backup.
        Cumulative = "cumulative",
    }
}

words! {
    /// What happens to a backup that the end of the service interrupted.
    #[derive(Default)]
    pub enum OnInterrupt: "way to treat an interrupted backup" {
        /// It is continued at the next start.
        #[default]
        Resume = "resume",
        /// It is deleted.
        Discard = "discard",
    }
}

/// What a [`BackupPolicy`] means, with all defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupSettings {
    /// Scans in parallel.
    pub parallel: NonZeroU32,
    /// Files written in parallel.
    pub parallel_write: NonZeroU32,
    /// How long a socket may be idle; for ever if none.
    pub socket_timeout: Option<Duration>,
    /// How long one scan may take; for ever if none.
    pub total_timeout: Option<Duration>,
    /// What happens when a namespace fails.
    pub retry: Retry,
    /// How long backups are kept.
    pub retention: Retention,
    /// Only records changed before the start are taken.
    pub sealed: bool,
    /// Whether records are taken.
    pub records: bool,
    /// Whether secondary indexes are taken.
    pub indexes: bool,
    /// Whether UDF modules are taken.
    pub udfs: bool,
    /// The limit of bytes.
    pub bandwidth: Option<Bandwidth>,
    /// The limit of records.
    pub records_per_second: Option<RecordRate>,
    /// The size at which a file ends and the next begins.
    pub file_limit: Option<SizeMb>,
    /// How files are encrypted.
    pub encryption: Encryption,
    /// How files are compressed.
    pub compression: Compression,
    /// Incremental backups run beside other backups of the routine.
    pub concurrent_incremental: bool,
    /// The configuration of the cluster is taken too.
    pub with_cluster_configuration: bool,
    /// How many nodes are asked at the same time; all if none.
    pub max_concurrent_nodes: Option<NonZeroU32>,
    /// Blobs, maps and lists are written raw, not in base64.
    pub compact: bool,
    /// What an incremental backup takes.
    pub incremental_mode: IncrementalMode,
    /// How far an incremental backup reaches back before the start of the one that it builds on.
    pub overlap: Duration,
    /// Redacted values are taken where masking rules hide the real ones.
    pub allow_masked: bool,
    /// The hash of each whole file.
    pub file_hash: FileHash,
    /// The time between checkpoints; zero for none.
    pub checkpoint_interval: Duration,
    /// What happens to a backup that the end of the service interrupted.
    pub on_interrupt: OnInterrupt,
    /// When the service verifies backups by itself; a schedule goes by the clocks of the routine.
    pub verify: Verify,
    /// How closely it looks then.
    pub verify_mode: VerifyMode,
}

impl Default for BackupSettings {
    /// What a policy without any key means.
    fn default() -> Self {
        BackupPolicy::default().settings(&mut Check::new("", &mut Findings::default()))
    }
}

impl Secrets for BackupPolicy {
    fn each_secret(&mut self, path: &str, visit: &mut dyn FnMut(String, &mut SecretText)) {
        if let Some(encryption) = &mut self.encryption {
            encryption.each_secret(&below(path, "encryption"), visit);
        }
    }
}

impl BackupPolicy {
    /// What the policy means, or all that is wrong with it. `path` is its place in the document, such as
    /// `backup-policies.daily`; empty if it is the document.
    pub fn check(&self, path: &str) -> Result<BackupSettings, Problems> {
        Check::document(path, |check| self.settings(check))
    }

    pub(crate) fn settings(&self, check: &mut Check<'_>) -> BackupSettings {
        unsupported::backup_policy(self, check);
        let parallel = check.count("parallel", self.parallel, DEFAULT_PARALLEL, most::SCANS);
        // A limit of files, not of scans.
        let writers = parallel.min(MOST_FILES);
        let parallel_write = check.count("parallel-write", self.parallel_write, writers, most::FILES);
        let (socket_timeout, total_timeout) = check.timeouts(self.socket_timeout, self.total_timeout);
        let yes = |key: Option<bool>| key.unwrap_or(false);
        BackupSettings {
            parallel,
            parallel_write,
            socket_timeout,
            total_timeout,
            retry: self.retry_policy.clone().unwrap_or_default().settings(&mut check.inside("retry-policy")),
            retention: self.retention.clone().unwrap_or_default().settings(&mut check.inside("retention")),
            sealed: yes(self.sealed),
            records: !yes(self.no_records),
            indexes: !yes(self.no_indexes),
            udfs: !yes(self.no_udfs),
            bandwidth: Bandwidth::new(check.limit("bandwidth", self.bandwidth, 0, most::BANDWIDTH)),
            records_per_second: RecordRate::new(check.limit(
                "records-per-second",
                self.records_per_second,
                0,
                most::ANY,
            )),
            file_limit: SizeMb::new(check.limit(
                "file-limit",
                self.file_limit,
                DEFAULT_FILE_LIMIT_MB,
                most::ANY,
            )),
            encryption: self.encryption.clone().unwrap_or_default().settings(&mut check.inside("encryption")),
            compression: self
                .compression
                .clone()
                .unwrap_or_default()
                .settings(&mut check.inside("compression")),
            concurrent_incremental: yes(self.concurrent_incremental),
            with_cluster_configuration: yes(self.with_cluster_configuration),
            max_concurrent_nodes: NonZeroU32::new(check.limit(
                "max-concurrent-nodes",
                self.max_concurrent_nodes,
                0,
                most::NODES,
            )),
            compact: yes(self.compact),
            incremental_mode: check.word("incr-mode", self.incr_mode.as_deref()),
            overlap: check.milliseconds("overlap", self.overlap, DEFAULT_OVERLAP_MS, 0..=most::WAIT),
            allow_masked: yes(self.allow_masked),
            file_hash: check.word("file-hash", self.file_hash.as_deref()),
            checkpoint_interval: check.milliseconds(
                "checkpoint-interval",
                self.checkpoint_interval,
                DEFAULT_CHECKPOINT_MS,
                0..=most::WAIT,
            ),
            on_interrupt: check.word("on-interrupt", self.on_interrupt.as_deref()),
            verify: check.word("verify", self.verify.as_deref()),
            verify_mode: check.word("verify-mode", self.verify_mode.as_deref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: &str) -> BackupPolicy {
        serde_json::from_str(document).unwrap()
    }

    #[test]
    fn an_empty_policy_has_the_defaults_of_the_api() {
        let settings = read("{}").check("").unwrap();
        assert_eq!(settings, BackupSettings::default());
        assert_eq!((settings.parallel.get(), settings.parallel_write.get()), (8, 8));
        assert_eq!(settings.socket_timeout, Some(Duration::from_mins(1)));
        assert_eq!(settings.total_timeout, None);
        assert_eq!(settings.file_limit.map(SizeMb::megabytes), Some(250));
        assert_eq!(settings.retry, Retry::default());
        assert_eq!(settings.overlap, Duration::from_secs(10));
        assert_eq!(
            (settings.bandwidth, settings.records_per_second, settings.max_concurrent_nodes),
            (None, None, None)
        );
        assert!(
            settings.records
                && settings.indexes
                && settings.udfs
                && !settings.sealed
                && !settings.allow_masked
        );
        assert_eq!((settings.encryption, settings.compression), (Encryption::default(), Compression::None));
        assert_eq!((settings.verify, settings.verify_mode), (Verify::None, VerifyMode::Full));
    }

    #[test]
    fn every_key_of_the_api_is_understood_and_written_back() {
        let document = r#"{"parallel":1,"parallel-write":2,"socket-timeout":1000,"total-timeout":2000,"retry-policy":{"base-timeout":1,"multiplier":1.5,"max-retries":3},"retention":{"full":2,"incremental":1},"sealed":true,"no-records":true,"no-indexes":true,"no-udfs":true,"bandwidth":10000,"records-per-second":1000,"file-limit":50000000,"encryption":{"mode":"AES128","key-file":"/k"},"compression":{"mode":"ZSTD","level":20},"concurrent-incremental":true,"with-cluster-configuration":true,"max-concurrent-nodes":4,"use-scan-compression":false,"compact":true,"incr-mode":"cumulative","overlap":5,"allow-masked":true,"file-hash":"sha256","checkpoint-interval":0,"on-interrupt":"discard","verify":"after-backup","verify-mode":"quick"}"#;
        let policy = read(document);
        assert_eq!(serde_json::to_string(&policy).unwrap(), document);
        let settings = policy.check("p").unwrap();
        assert_eq!((settings.parallel.get(), settings.parallel_write.get()), (1, 2));
        assert_eq!(settings.total_timeout, Some(Duration::from_secs(2)));
        assert!(!settings.records && settings.sealed && settings.compact && settings.allow_masked);
        assert_eq!(settings.incremental_mode, IncrementalMode::Cumulative);
        assert_eq!((settings.overlap, settings.file_hash), (Duration::from_millis(5), FileHash::Sha256));
        assert_eq!(
            (settings.checkpoint_interval, settings.on_interrupt),
            (Duration::ZERO, OnInterrupt::Discard)
        );
        assert_eq!((settings.verify, settings.verify_mode), (Verify::AfterBackup, VerifyMode::Quick));
        assert_eq!(settings.bandwidth.map(Bandwidth::bytes_per_second), Some(10_000 << 20));
        assert_eq!(settings.max_concurrent_nodes.map(NonZeroU32::get), Some(4));
        assert_eq!(
            serde_json::to_string(&read("{}")).unwrap(),
            "{}",
            "defaults are not written into documents"
        );
        assert_eq!(read(r#"{"bandwidth":null}"#), BackupPolicy::default());
    }

    #[test]
    fn what_depends_on_another_key_follows_it() {
        assert_eq!(read(r#"{"parallel":3}"#).check("").unwrap().parallel_write.get(), 3);
        let settings = read(r#"{"socket-timeout":0,"total-timeout":5}"#).check("").unwrap();
        assert_eq!(settings.socket_timeout, Some(Duration::from_millis(5)));
        assert_eq!(read(r#"{"socket-timeout":0}"#).check("").unwrap().socket_timeout, None);
        let settings = read(r#"{"file-limit":0,"bandwidth":0,"records-per-second":0}"#).check("").unwrap();
        assert_eq!(
            (settings.file_limit, settings.bandwidth, settings.records_per_second),
            (None, None, None)
        );
    }

    #[test]
    fn all_problems_are_reported_with_their_paths() {
        let policy = read(
            r#"{"parallel":0,"socket-timeout":-1,"retry-policy":{"multiplier":0},"retention":{"full":0},
                "bandwidth":-5,"file-limit":4294967296,"encryption":{"mode":"AES128"},"compression":{"level":99},"use-scan-compression":true,
                "incr-mode":"weekly","overlap":-1,"verify":"weekly","verify-mode":"deep"}"#,
        );
        let problems = policy.check("backup-policies.daily").unwrap_err();
        let lines: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
        let expected = [
            "use-scan-compression: is not supported by this version: leave it out",
            "parallel: must be at least 1, not 0",
            "socket-timeout: must be at least 0, not -1",
            "retry-policy.multiplier: must be at least 1, not 0",
            "retention.full: must be at least 1, not 0",
            "bandwidth: must be at least 0, not -5",
            "encryption: needs the key: give one of key-file, key-env and key-secret",
            "compression.level: must be at most 22, not 99",
            "incr-mode: \"weekly\" is no mode of incremental backups: it can be differential or cumulative",
            "overlap: must be at least 0, not -1",
            "verify: \"weekly\" is neither none nor after-backup, and is not a schedule: it has 1 fields, not 6 or 7: seconds minutes hours day-of-month month day-of-week [year]",
            "verify-mode: \"deep\" is no mode of verifications: it can be full or quick",
            "file-limit: must be at most 4294967295, not 4294967296",
        ];
        assert_eq!(lines, expected.map(|line| format!("backup-policies.daily.{line}")));
        assert_eq!(policy.check("").unwrap_err().list()[0].to_string(), expected[0]);
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused() {
        for bad in [
            r#"{"paralel":1}"#,
            r#"{"Parallel":1}"#,
            r#"{"parallel":"1"}"#,
            r#"{"parallel":1.5}"#,
            r#"{"sealed":1}"#,
        ] {
            assert!(serde_json::from_str::<BackupPolicy>(bad).is_err(), "{bad} was taken");
        }
    }
}
