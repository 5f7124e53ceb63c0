//! Where things lie: the names of folders and files, written and read.

use std::fmt;

use abs_config::TimestampFormat;
use abs_storage::{InvalidPath, ObjectPath};
use chrono::{DateTime, Utc};
use serde::Serialize;

/// The folder of a run that holds the namespaces.
pub(super) const DATA: &str = "data";
/// The folder of a run that holds the configuration of the cluster.
const CONFIGURATION: &str = "configuration";
/// What the names of configuration files end with.
pub(super) const CONFIGURATION_EXTENSION: &str = ".conf";

/// Full or incremental.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupKind {
    /// All records, and the definitions of indexes and UDFs.
    Full,
    /// The records changed since an earlier backup.
    Incremental,
}

impl BackupKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Full, Self::Incremental];

    /// `full` or `incremental`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
        }
    }

    /// The folder of a routine's runs of this kind.
    pub(super) fn folder(self, routine: &str) -> Result<ObjectPath, InvalidPath> {
        ObjectPath::new(routine)?.join(self.folder_name())
    }

    /// The name of that folder.
    pub(crate) fn folder_name(self) -> &'static str {
        match self {
            Self::Full => "backup",
            Self::Incremental => "incremental",
        }
    }
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The folder of the run of `routine` that began at `at` (to the millisecond); with `format` its name also says the
/// time (UTC) to people.
pub fn run_folder(
    routine: &str,
    kind: BackupKind,
    at: DateTime<Utc>,
    format: Option<TimestampFormat>,
) -> Result<ObjectPath, InvalidPath> {
    let mut name = at.timestamp_millis().to_string();
    if let Some(format) = format {
        let pattern = match format {
            TimestampFormat::Iso => "_%Y-%m-%dT%H-%M-%S",
            TimestampFormat::Eu => "_%d-%b-%Y-%H-%M-%S",
            TimestampFormat::Us => "_%b-%d-%Y-%H-%M-%S",
        };
        name += &at.format(pattern).to_string();
    }
    kind.folder(routine)?.join(&name)
}

/// The folder of a namespace in a run: that of its files and its metadata.yaml, the `key` of the backup.
pub fn namespace_folder(run: &ObjectPath, namespace: &str) -> Result<ObjectPath, InvalidPath> {
    run.join(DATA)?.join(namespace)
}

/// The folder of a run for the configuration of the cluster.
pub(super) fn configuration_folder(run: &ObjectPath) -> Result<ObjectPath, InvalidPath> {
    run.join(CONFIGURATION)
}

/// The file for the configuration of the `index`th node of the cluster.
pub(super) fn configuration_file(run: &ObjectPath, index: usize) -> Result<ObjectPath, InvalidPath> {
    configuration_folder(run)?.join(&format!("aerospike_{index}{CONFIGURATION_EXTENSION}"))
}

/// The first millisecond since 1970 that does not fit into a metadata.yaml: it is no time of a run, but perhaps one in
/// microseconds.
const YEAR_10000: i64 = 253_402_300_800_000;

/// The time that the name of a run's folder says; none if it is no run's folder.
pub(super) fn time_in(name: &str) -> Option<DateTime<Utc>> {
    // What follows is for people, and may be in any form.
    let digits = name.split('_').next().unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    DateTime::from_timestamp_millis(digits.parse().ok().filter(|ms| *ms < YEAR_10000)?)
}

/// Whether the name of a folder looks like a run's but says no time.
pub(super) fn is_absurd(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_digit()) && time_in(name).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_by_its_time_in_all_formats() {
        let at = DateTime::from_timestamp_millis(1_704_110_400_123).unwrap();
        for (format, name) in [
            (None, "1704110400123"),
            (Some(TimestampFormat::Iso), "1704110400123_2024-01-01T12-00-00"),
            (Some(TimestampFormat::Eu), "1704110400123_01-Jan-2024-12-00-00"),
            (Some(TimestampFormat::Us), "1704110400123_Jan-01-2024-12-00-00"),
        ] {
            let run = run_folder("nightly", BackupKind::Full, at, format).unwrap();
            assert_eq!(run.as_str(), format!("nightly/backup/{name}"));
            assert_eq!(time_in(run.name()), Some(at));
        }
        let run = run_folder("r", BackupKind::Incremental, at, None).unwrap();
        assert_eq!(namespace_folder(&run, "test").unwrap().as_str(), "r/incremental/1704110400123/data/test");
        let file = configuration_file(&run, 3).unwrap();
        assert_eq!(file.as_str(), "r/incremental/1704110400123/configuration/aerospike_3.conf");
    }

    #[test]
    fn other_names_say_no_time() {
        for name in [
            "",
            "_1",
            "data",
            "configuration",
            "source-ns1",
            "1704110400123x",
            "-5",
            "+5",
            "1 ",
            "9999999999999999999",
            "1704110400123000",
            "8210266876799999",
            "253402300800000",
        ] {
            assert_eq!(time_in(name), None, "{name:?}");
        }
        assert!(time_in("253402300799999").is_some(), "the last millisecond of the year 9999");
        assert!(is_absurd("1704110400123000") && is_absurd("8210266876799999_x"));
        assert!(!is_absurd("1704110400123") && !is_absurd("notes") && !is_absurd("data"));
    }

    #[test]
    fn a_routine_cannot_lead_out_of_the_storage() {
        assert!(run_folder("../x", BackupKind::Full, DateTime::UNIX_EPOCH, None).is_err());
        let run = run_folder("r", BackupKind::Full, DateTime::UNIX_EPOCH, None).unwrap();
        assert!(namespace_folder(&run, "..").is_err());
    }
}
