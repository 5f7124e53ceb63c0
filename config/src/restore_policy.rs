//! How a backup is restored.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::check::{Check, Findings, most};
use crate::retry::{Retry, RetryPolicy};
use crate::secret::{SecretText, Secrets, below};
use crate::{
    Bandwidth, CompressionMode, Encryption, EncryptionPolicy, NamespaceMap, Problems, RecordRate,
    RestoreCompressionPolicy,
};

/// 8.
const DEFAULT_PARALLEL: NonZeroU32 = NonZeroU32::MIN.saturating_add(7);
/// 128, of records in a batch and of batches.
const DEFAULT_BATCH: NonZeroU32 = NonZeroU32::MIN.saturating_add(127);
/// The smallest limit of bytes, in MiB per second: that of one record of the largest size.
const LEAST_BANDWIDTH: i64 = 8;
/// The longest name of a set, in bytes (the server's limit).
pub(crate) const MAX_SET: usize = 63;
/// The longest name of a bin, in bytes (the server's limit).
pub(crate) const MAX_BIN: usize = 15;

/// The document `dto.RestorePolicy`. Every key is optional; [`RestorePolicy::check`] gives what they mean.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::RestorePolicy)]
pub struct RestorePolicy {
    /// Readers of files in parallel, at least 1; 8 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 8, minimum = 1, maximum = 1024, example = 8)]
    pub parallel: Option<i64>,
    /// No records are restored; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub no_records: Option<bool>,
    /// No secondary indexes are restored; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub no_indexes: Option<bool>,
    /// No UDF modules are restored; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub no_udfs: Option<bool>,
    /// How long a socket may be idle, in milliseconds; 60,000 by default; 0 means as `total-timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 60000, minimum = 0, maximum = 2_678_400_000_i64, example = 1000)]
    pub socket_timeout: Option<i64>,
    /// How long one command may take, in milliseconds; 0, the default, means as long as it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 0, minimum = 0, maximum = 2_678_400_000_i64, example = 2000)]
    pub total_timeout: Option<i64>,
    /// Records are written one by one, not in batches; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub disable_batch_writes: Option<bool>,
    /// Records in a batch, at least 1; 128 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 128, minimum = 1, maximum = 65535, example = 32)]
    pub batch_size: Option<i64>,
    /// Batches on their way at the same time, at least 1; 128 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 128, minimum = 1, maximum = 4096, example = 32)]
    pub max_async_batches: Option<i64>,
    /// Restores into another namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<RestoreNamespace>,
    /// The sets to restore; all by default or for an empty list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["set1", "set2"]))]
    pub set_list: Option<Vec<String>>,
    /// The bins to restore; all by default or for an empty list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["bin1", "bin2"]))]
    pub bin_list: Option<Vec<String>>,
    /// A record that exists loses the bins that the backup lacks; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub replace: Option<bool>,
    /// A record that exists stays as it is; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub unique: Option<bool>,
    /// A record that exists is overwritten even if its generation is newer; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub no_generation: Option<bool>,
    /// A limit in MiB per second, at least 8; none by default or for 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1_048_576, example = 50000)]
    pub bandwidth: Option<i64>,
    /// A limit in records per second; none by default or for 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 4_294_967_295_i64, example = 4000)]
    pub tps: Option<i64>,
    /// How the files were encrypted; not at all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionPolicy>,
    /// How the files were compressed; not at all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<RestoreCompressionPolicy>,
    /// What happens when a write fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_policy: Option<RetryPolicy>,
    /// Seconds added to the life of records that expire; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 0, minimum = 0, maximum = 315_360_000, example = 86400)]
    pub extra_ttl: Option<i64>,
    /// A backup whose files do not hold what its metadata.yaml says is restored as far as it is there; false by default.
    #[serde(rename = "override", skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub override_counts: Option<bool>,
    /// Everything is read and parsed, nothing is written, and the status says what a restore would do; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub validate_only: Option<bool>,
    /// Memory in MiB for the digests of the newer backups of chains, from 1 to 65,536; 256 by default. What does not fit is
    /// kept in a temporary file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 256, minimum = 1, maximum = 65536)]
    pub chain_memory: Option<i64>,
}

/// The document `dto.TimestampRestorePolicy`: a [`RestorePolicy`] without `compression`, which each backup's metadata
/// tells.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimestampRestorePolicy(RestorePolicy);

impl PartialSchema for TimestampRestorePolicy {
    fn schema() -> RefOr<Schema> {
        let mut schema = RestorePolicy::schema();
        if let RefOr::T(Schema::Object(policy)) = &mut schema {
            policy.properties.remove("compression");
            policy.description = Some("How a restore to a point in time is made.".to_owned());
        }
        schema
    }
}

impl ToSchema for TimestampRestorePolicy {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("dto.TimestampRestorePolicy")
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        RestorePolicy::schemas(schemas);
    }
}

impl Secrets for TimestampRestorePolicy {
    fn each_secret(&mut self, path: &str, visit: &mut dyn FnMut(String, &mut SecretText)) {
        self.0.each_secret(path, visit);
    }
}

impl TimestampRestorePolicy {
    pub(crate) fn settings(&self, check: &mut Check<'_>) -> RestoreSettings {
        if self.0.compression.is_some() {
            check.problem("compression", "is told by the metadata of each backup: leave it out");
        }
        self.0.settings(check)
    }
}

/// The document `dto.RestoreNamespace`; both keys are required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = dto::RestoreNamespace)]
pub struct RestoreNamespace {
    /// The namespace in the backup.
    #[schema(example = "source-ns")]
    pub source: String,
    /// The namespace in the cluster.
    #[schema(example = "destination-ns")]
    pub destination: String,
}

/// What becomes of a record that exists in the cluster when the backup holds one of the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Existing {
    /// It stays as it is (`unique`).
    Stays,
    /// The bins of the backup are written over it; its other bins stay.
    TakesBins {
        /// Only if the generation in the backup is greater (not `no-generation`).
        if_older: bool,
    },
    /// It is replaced as a whole (`replace`).
    IsReplaced {
        /// Only if the generation in the backup is greater (not `no-generation`).
        if_older: bool,
    },
}

/// What a [`RestorePolicy`] means, with all defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoreSettings {
    /// Readers of files in parallel.
    pub parallel: NonZeroU32,
    /// Whether records are restored.
    pub records: bool,
    /// Whether secondary indexes are restored.
    pub indexes: bool,
    /// Whether UDF modules are restored.
    pub udfs: bool,
    /// How long a socket may be idle; for ever if none.
    pub socket_timeout: Option<Duration>,
    /// How long one command may take; for ever if none.
    pub total_timeout: Option<Duration>,
    /// Whether records may be written in batches.
    pub batch_writes: bool,
    /// Records in a batch.
    pub batch_size: NonZeroU32,
    /// Batches on their way at the same time.
    pub max_async_batches: NonZeroU32,
    /// From which namespace into which; as in the backup if none.
    pub namespace: Option<NamespaceMap>,
    /// The sets to restore; all if empty.
    pub set_list: Vec<String>,
    /// The bins to restore; all if empty.
    pub bin_list: Vec<String>,
    /// What becomes of records that exist.
    pub existing: Existing,
    /// The limit of bytes.
    pub bandwidth: Option<Bandwidth>,
    /// The limit of records.
    pub tps: Option<RecordRate>,
    /// How the files were encrypted.
    pub encryption: Encryption,
    /// How the files were compressed.
    pub compression: CompressionMode,
    /// What happens when a write fails.
    pub retry: Retry,
    /// Seconds added to the life of records that expire.
    pub extra_ttl: u32,
    /// Whether a backup whose files do not hold what its metadata.yaml says is restored as far as it is there.
    pub override_counts: bool,
    /// Whether nothing is written, and it is found out what would be.
    pub validate_only: bool,
    /// Memory for the digests of the newer backups of chains, in MiB.
    pub chain_memory: u32,
}

impl Default for RestoreSettings {
    /// What a policy without any key means.
    fn default() -> Self {
        RestorePolicy::default().settings(&mut Check::new("", &mut Findings::default()))
    }
}

impl Secrets for RestorePolicy {
    fn each_secret(&mut self, path: &str, visit: &mut dyn FnMut(String, &mut SecretText)) {
        if let Some(encryption) = &mut self.encryption {
            encryption.each_secret(&below(path, "encryption"), visit);
        }
    }
}

impl RestorePolicy {
    /// What the policy means, or all that is wrong with it. `path` is its place in the document, such as `policy`; empty
    /// if it is the document.
    pub fn check(&self, path: &str) -> Result<RestoreSettings, Problems> {
        Check::document(path, |check| self.settings(check))
    }

    pub(crate) fn settings(&self, check: &mut Check<'_>) -> RestoreSettings {
        let yes = |key: Option<bool>| key.unwrap_or(false);
        let parallel = check.count("parallel", self.parallel, DEFAULT_PARALLEL, most::FILES);
        let (socket_timeout, total_timeout) = check.timeouts(self.socket_timeout, self.total_timeout);
        RestoreSettings {
            parallel,
            records: !yes(self.no_records),
            indexes: !yes(self.no_indexes),
            udfs: !yes(self.no_udfs),
            socket_timeout,
            total_timeout,
            batch_writes: !yes(self.disable_batch_writes),
            batch_size: check.count("batch-size", self.batch_size, DEFAULT_BATCH, most::BATCH),
            max_async_batches: check.count(
                "max-async-batches",
                self.max_async_batches,
                DEFAULT_BATCH,
                most::CONNECTIONS,
            ),
            namespace: self.namespace.as_ref().and_then(|map| map.settings(&mut check.inside("namespace"))),
            set_list: check.names("set-list", self.set_list.as_deref(), MAX_SET),
            bin_list: check.names("bin-list", self.bin_list.as_deref(), MAX_BIN),
            existing: self.existing(check),
            bandwidth: self.bandwidth(check),
            tps: RecordRate::new(check.limit("tps", self.tps, 0, most::ANY)),
            encryption: self.encryption.clone().unwrap_or_default().settings(&mut check.inside("encryption")),
            compression: self
                .compression
                .clone()
                .unwrap_or_default()
                .settings(&mut check.inside("compression")),
            retry: self.retry_policy.clone().unwrap_or_default().settings(&mut check.inside("retry-policy")),
            extra_ttl: check.limit("extra-ttl", self.extra_ttl, 0, most::TTL),
            override_counts: yes(self.override_counts),
            validate_only: yes(self.validate_only),
            chain_memory: check.clamped("chain-memory", self.chain_memory, 256, 1..=most::CHAIN_MEMORY),
        }
    }

    fn existing(&self, check: &mut Check<'_>) -> Existing {
        let if_older = !self.no_generation.unwrap_or(false);
        match (self.unique.unwrap_or(false), self.replace.unwrap_or(false)) {
            (true, true) => {
                check
                    .problem("unique", "contradicts replace: records that exist either stay or are replaced");
                Existing::Stays
            }
            (true, false) => Existing::Stays,
            (false, true) => Existing::IsReplaced { if_older },
            (false, false) => Existing::TakesBins { if_older },
        }
    }

    fn bandwidth(&self, check: &mut Check<'_>) -> Option<Bandwidth> {
        let limit = check.limit("bandwidth", self.bandwidth, 0, most::BANDWIDTH);
        if (1..LEAST_BANDWIDTH).contains(&i64::from(limit)) {
            let message = format!("must be at least {LEAST_BANDWIDTH} MiB/s, or 0 for no limit, not {limit}");
            check.problem("bandwidth", message);
        }
        Bandwidth::new(limit)
    }
}

impl RestoreNamespace {
    fn settings(&self, check: &mut Check<'_>) -> Option<NamespaceMap> {
        let source = check.valid("source", self.source.parse());
        let destination = check.valid("destination", self.destination.parse());
        Some(NamespaceMap { source: source?, destination: destination? })
    }
}

impl From<NamespaceMap> for RestoreNamespace {
    fn from(map: NamespaceMap) -> Self {
        Self { source: map.source.into(), destination: map.destination.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: &str) -> RestorePolicy {
        serde_json::from_str(document).unwrap()
    }

    #[test]
    fn an_empty_policy_has_the_defaults_of_the_api() {
        let settings = read("{}").check("").unwrap();
        assert_eq!(settings, RestoreSettings::default());
        assert_eq!(
            (settings.parallel.get(), settings.batch_size.get(), settings.max_async_batches.get()),
            (8, 128, 128)
        );
        assert_eq!(settings.existing, Existing::TakesBins { if_older: true });
        assert_eq!(settings.socket_timeout, Some(Duration::from_mins(1)));
        assert!(settings.batch_writes && settings.records && settings.indexes && settings.udfs);
        assert_eq!((settings.namespace, settings.extra_ttl), (None, 0));
        assert_eq!(
            (settings.encryption, settings.compression),
            (Encryption::default(), CompressionMode::None)
        );
    }

    #[test]
    fn every_key_of_the_api_is_understood_and_written_back() {
        let document = r#"{"parallel":1,"no-records":true,"no-indexes":true,"no-udfs":true,"socket-timeout":1000,"total-timeout":2000,"disable-batch-writes":true,"batch-size":32,"max-async-batches":16,"namespace":{"source":"a","destination":"b"},"set-list":["set1","set2"],"bin-list":["bin1"],"replace":true,"unique":false,"no-generation":true,"bandwidth":50000,"tps":4000,"encryption":{"mode":"AES256","key-env":"K"},"compression":{"mode":"ZSTD"},"retry-policy":{"base-timeout":1,"multiplier":1.5,"max-retries":0},"extra-ttl":86400}"#;
        let policy = read(document);
        assert_eq!(serde_json::to_string(&policy).unwrap(), document);
        let settings = policy.check("").unwrap();
        assert_eq!(settings.namespace, Some("a,b".parse().unwrap()));
        assert_eq!(settings.existing, Existing::IsReplaced { if_older: false });
        assert_eq!((settings.set_list.len(), settings.bin_list.len(), settings.extra_ttl), (2, 1, 86_400));
        assert_eq!(settings.tps.map(RecordRate::get), Some(4000));
        assert_eq!(settings.compression, CompressionMode::Zstd);
        let map: NamespaceMap = "a,b".parse().unwrap();
        assert_eq!(policy.namespace, Some(RestoreNamespace::from(map)));
    }

    #[test]
    fn all_problems_are_reported_with_their_paths() {
        let policy = read(
            r#"{"parallel":0,"batch-size":0,"namespace":{"source":"","destination":"a/b"},
                "set-list":["","ok"],"bin-list":["a-bin-with-16-by"],"unique":true,"replace":true,"bandwidth":7,
                "tps":-1,"compression":{"mode":"LZ4"},"extra-ttl":-1}"#,
        );
        let problems = policy.check("policy").unwrap_err();
        let lines: Vec<_> = problems.list().iter().map(ToString::to_string).collect();
        let expected = [
            "parallel: must be at least 1, not 0",
            "batch-size: must be at least 1, not 0",
            "namespace.source: \"\" is not the name of a namespace: it has 0 bytes, not 1 to 31",
            "namespace.destination: \"a/b\" is not the name of a namespace: it holds '/'",
            "set-list[0]: must be a name of 1 to 63 bytes, not \"\" (0 bytes)",
            "bin-list[0]: must be a name of 1 to 15 bytes, not \"a-bin-with-16-by\" (16 bytes)",
            "unique: contradicts replace: records that exist either stay or are replaced",
            "bandwidth: must be at least 8 MiB/s, or 0 for no limit, not 7",
            "tps: must be at least 0, not -1",
            "compression.mode: \"LZ4\" is no compression mode: it can be NONE or ZSTD",
            "extra-ttl: must be at least 0, not -1",
        ];
        assert_eq!(lines, expected.map(|line| format!("policy.{line}")));
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused() {
        for bad in [
            r#"{"paralel":1}"#,
            r#"{"namespace":{"source":"a"}}"#,
            r#"{"namespace":"a,b"}"#,
            r#"{"compression":{"mode":"ZSTD","level":1}}"#,
            r#"{"set-list":"a"}"#,
            r#"{"tps":true}"#,
        ] {
            assert!(serde_json::from_str::<RestorePolicy>(bad).is_err(), "{bad} was taken");
        }
    }
}
