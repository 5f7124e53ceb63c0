//! metadata.yaml: what a backup holds. A backup exists when this file exists; it is written last.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of the file.
pub const METADATA_FILE: &str = "metadata.yaml";

/// The contents of a metadata.yaml, under the keys of Aerospike Backup Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Metadata {
    /// When the backup began; milliseconds.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub created: DateTime<Utc>,
    /// When it ended; when it began if older versions do not say.
    #[serde(
        serialize_with = "write_time",
        deserialize_with = "read_time",
        default = "Metadata::no_lower_bound"
    )]
    pub finished: DateTime<Utc>,
    /// The lower bound of the records' last update; the year 1 for a full backup, and before 3.0 for every one.
    #[serde(
        serialize_with = "write_time",
        deserialize_with = "read_time",
        default = "Metadata::no_lower_bound"
    )]
    pub from: DateTime<Utc>,
    /// The namespace.
    pub namespace: String,
    /// Records in the files.
    #[serde(default)]
    pub record_count: u64,
    /// Bytes of the files.
    #[serde(default)]
    pub byte_count: u64,
    /// Number of .asb files.
    #[serde(default)]
    pub file_count: u64,
    /// Index definitions in the files.
    #[serde(default)]
    pub secondary_index_count: u64,
    /// UDF modules in the files.
    #[serde(default)]
    pub udf_count: u64,
    /// `NONE` or `ZSTD`.
    #[serde(default)]
    pub compression: String,
    /// `NONE` or a cipher: `AES128`, `AES256`, `AES128GCM` or `AES256GCM`.
    #[serde(default)]
    pub encryption: String,
    /// Set indexes, by name: their sets. The .asb format has no line for them; other readers pass this key over.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set_indexes: BTreeMap<String, String>,
    /// What of the namespace was selected, as a short hash: two backups with the same one hold the same part of it.
    /// Backups of other tools and of older versions don't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<String>,
    /// The lower bound that the server compared with, by the cluster's clock; `from` names the backup built on.
    #[serde(
        serialize_with = "write_some_time",
        deserialize_with = "read_some_time",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub from_bound: Option<DateTime<Utc>>,
    /// When the backup began by the cluster's clock, by that of the node that is furthest behind.
    #[serde(
        serialize_with = "write_some_time",
        deserialize_with = "read_some_time",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub cluster_created: Option<DateTime<Utc>>,
    /// Tells the key from others; other tools and older versions don't say. Other readers pass this key over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_key: Option<String>,
    /// Values of masked bins may be redacted ones (`allow-masked`): a restore would write them over the real ones. Other
    /// readers pass this key over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
    /// The BLAKE3 hash of the manifest.json beside it; always the last line. Other readers pass this key over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_hash: Option<String>,
}

impl Metadata {
    /// The `from` of a full backup: 0001-01-01T00:00:00Z.
    #[must_use]
    pub fn no_lower_bound() -> DateTime<Utc> {
        NaiveDate::from_ymd_opt(1, 1, 1).and_then(|d| d.and_hms_opt(0, 0, 0)).unwrap_or_default().and_utc()
    }

    /// True for a full backup.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.from == Self::no_lower_bound()
    }

    /// The text of the file.
    pub fn to_yaml(&self) -> Result<String, serde_norway::Error> {
        serde_norway::to_string(self)
    }

    /// Reads the text of a file.
    pub fn from_yaml(text: &[u8]) -> Result<Self, serde_norway::Error> {
        let mut metadata: Self = serde_norway::from_slice(text)?;
        metadata.finished = metadata.finished.max(metadata.created);
        Ok(metadata)
    }
}

fn write_time<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn write_some_time<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => write_time(time, serializer),
        None => serializer.serialize_none(),
    }
}

fn read_some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    read_time(deserializer).map(Some)
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
    let text = String::deserialize(deserializer)?;
    DateTime::parse_from_rfc3339(&text)
        .map(|time| time.to_utc())
        .map_err(|e| serde::de::Error::custom(format!("{text:?} is not an RFC 3339 time: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_reference_service_is_read_and_written_the_same() {
        let text = "created: 2025-01-02T03:04:05.678Z\nfinished: 2025-01-02T03:05:00.100Z\nfrom: 0001-01-01T00:00:00Z\n\
                    namespace: test\nrecord-count: 42\nbyte-count: 1000\nfile-count: 2\nsecondary-index-count: 1\n\
                    udf-count: 0\ncompression: NONE\nencryption: NONE\n";
        let metadata = Metadata::from_yaml(text.as_bytes()).unwrap();
        assert_eq!(metadata.from, Metadata::no_lower_bound());
        assert!(!metadata.masked);
        assert_eq!(metadata.to_yaml().unwrap(), text);
    }

    /// Protects: the keys that other tools do not know come back as they were written, and stay away when there is
    /// nothing to say.
    #[test]
    fn the_keys_of_this_service_are_read_and_written_the_same() {
        let text = "created: 2025-01-02T03:04:05.678Z\nfinished: 2025-01-02T03:05:00.100Z\nfrom: 2025-01-01T00:00:00Z\n\
                    namespace: test\nrecord-count: 42\nbyte-count: 1000\nfile-count: 2\nsecondary-index-count: 1\n\
                    udf-count: 0\ncompression: NONE\nencryption: NONE\nset-indexes:\n  i: s\nselection: 0123abcd\n\
                    from-bound: 2024-12-31T23:59:50Z\ncluster-created: 2025-01-02T03:04:05.600Z\n";
        let metadata = Metadata::from_yaml(text.as_bytes()).unwrap();
        assert_eq!(metadata.selection.as_deref(), Some("0123abcd"));
        assert!(
            metadata.from_bound < Some(metadata.from) && metadata.cluster_created < Some(metadata.created)
        );
        assert_eq!(metadata.to_yaml().unwrap(), text);
    }

    #[test]
    fn what_older_services_left_out_is_filled_in() {
        // As 2.0 wrote it: without an end, without what the files are packed with, without zeros.
        let text = "created: 2024-03-14T13:13:28.96962301Z\nnamespace: test\nbyte-count: 48\nfile-count: 1\n";
        let metadata = Metadata::from_yaml(text.as_bytes()).unwrap();
        assert_eq!(metadata.finished, metadata.created);
        assert_eq!(metadata.from, Metadata::no_lower_bound());
        assert_eq!((metadata.record_count, metadata.byte_count, metadata.compression.as_str()), (0, 48, ""));
    }

    #[test]
    fn a_cut_or_foreign_file_is_an_error() {
        for text in ["", "created: x", "namespace: test\n", "- 1\n"] {
            assert!(Metadata::from_yaml(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
