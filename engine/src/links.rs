//! From folders of backups to the links of a chain.

use std::collections::BTreeMap;

use abs_storage::ObjectPath;
use chrono::{DateTime, Utc};

use crate::catalog::{BackupKind, MARK_FILE, Moment};
use crate::files::FoundBackup;
use crate::metadata::Metadata;
use crate::restore::Link;

/// Why folders cannot be restored as one chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// There is no folder.
    #[error("there is no backup to restore{}", .time.map(|time| format!(" of {} or before", Moment(time))).unwrap_or_default())]
    Empty {
        /// The moment to restore.
        time: Option<DateTime<Utc>>,
    },
    /// Some of the folders have a metadata.yaml.
    #[error(
        "{with} has a metadata.yaml and {without} has none: restore them one after the other, or with --unordered as one"
    )]
    Mixed {
        /// A folder that has one.
        with: ObjectPath,
        /// A folder that has none.
        without: ObjectPath,
    },
    /// There is more than one full backup.
    #[error(
        "{one} and {other} are full backups of different times: name one, or the moment to restore with --time"
    )]
    SeveralFull {
        /// One of them.
        one: ObjectPath,
        /// Another.
        other: ObjectPath,
    },
    /// There is no full backup.
    #[error(
        "none of the folders is a full backup: a chain begins with one; --unordered restores them as one"
    )]
    NoFull,
    /// Folders without a metadata.yaml have no time.
    #[error("{folder} has no metadata.yaml, so its time is unknown: it cannot be restored with --time")]
    NoTime {
        /// The folder.
        folder: ObjectPath,
    },
    /// The time of a backup is wrong.
    #[error(
        "{folder} is marked {MARK_FILE}, or dated later than it was written: its place in a chain is unknown; restore it \
         alone, or with --unordered"
    )]
    Suspect {
        /// The backup.
        folder: ObjectPath,
    },
    /// A backup that another one builds on is missing.
    #[error("{folder} builds on the backup of {}, which is not among the folders", Moment(*.from))]
    Gap {
        /// The backup.
        folder: ObjectPath,
        /// When the missing one was made.
        from: DateTime<Utc>,
    },
}

/// A folder to restore.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there are few")]
pub enum Folder {
    /// One with a metadata.yaml.
    Backup(FoundBackup),
    /// One without.
    Bare(ObjectPath),
}

impl Folder {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &ObjectPath {
        match self {
            Self::Backup(FoundBackup { folder, .. }) | Self::Bare(folder) => folder,
        }
    }
}

/// Whether a backup is a full one. Before 3.0 metadata.yaml did not say it, but the folder of the run.
fn is_full(folder: &ObjectPath, metadata: &Metadata) -> bool {
    let is_silent = metadata.compression.is_empty();
    let is_incremental = folder.parts().any(|part| part == BackupKind::Incremental.folder_name());
    metadata.is_full() && !(is_silent && is_incremental)
}

/// The chain that folders make, the newest link first, up to `time` if there is one.
///
/// Folders with a metadata.yaml are one full backup and incremental ones that build on it; those of the same time are one
/// link. Folders without any are one link.
///
/// # Errors
/// When the folders are not one chain.
pub fn links_of(folders: Vec<Folder>, time: Option<DateTime<Utc>>) -> Result<Vec<Link>, LinkError> {
    let is_alone = folders.len() == 1;
    let mut described: BTreeMap<DateTime<Utc>, Vec<(ObjectPath, Metadata)>> = BTreeMap::new();
    let mut bare = Vec::new();
    for folder in folders {
        match folder {
            Folder::Backup(FoundBackup { folder, is_suspect: true, .. }) if !is_alone => {
                return Err(LinkError::Suspect { folder });
            }
            Folder::Backup(FoundBackup { folder, metadata, .. }) => {
                described.entry(metadata.created).or_default().push((folder, metadata));
            }
            Folder::Bare(folder) => bare.push(folder),
        }
    }
    if let (Some((with, _)), Some(without)) = (described.values().flatten().next(), bare.first()) {
        return Err(LinkError::Mixed { with: with.clone(), without: without.clone() });
    }
    if let Some(folder) = bare.first() {
        return match time {
            Some(_) => Err(LinkError::NoTime { folder: folder.clone() }),
            None => Ok(vec![Link { folders: bare, is_described: false }]),
        };
    }
    described.retain(|created, _| time.is_none_or(|time| *created <= time));
    let has_full =
        |link: &[(ObjectPath, Metadata)]| link.iter().any(|(folder, metadata)| is_full(folder, metadata));
    let fulls: Vec<_> = described.iter().filter(|(_, link)| has_full(link)).collect();
    let full = match (&fulls[..], time) {
        ([], _) if described.is_empty() => return Err(LinkError::Empty { time }),
        ([], _) => return Err(LinkError::NoFull),
        ([(_, one), (_, other), ..], None) => {
            return Err(LinkError::SeveralFull { one: one[0].0.clone(), other: other[0].0.clone() });
        }
        ([.., (created, _)], _) => **created,
    };
    let mut links = Vec::new();
    let mut covered = full;
    for (created, link) in described.split_off(&full) {
        let gap = link.iter().find(|(_, metadata)| metadata.from > covered);
        if let Some((folder, metadata)) = gap {
            return Err(LinkError::Gap { folder: folder.clone(), from: metadata.from });
        }
        // The `from` of a backup made with --modified-after may be a time of the cluster's clock.
        let by_cluster = link.iter().filter_map(|(_, metadata)| metadata.cluster_created).min();
        covered = created.max(by_cluster.unwrap_or(created));
        let folders = link.into_iter().map(|(folder, _)| folder).collect();
        links.push(Link { folders, is_described: true });
    }
    links.reverse();
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::metadata;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    /// A backup of this time, on top of another.
    fn backup(name: &str, created: i64, from: Option<i64>) -> Folder {
        let metadata = metadata("test", at(created), from.map(at));
        Folder::Backup(FoundBackup { folder: ObjectPath::new(name).unwrap(), metadata, is_suspect: false })
    }

    /// One whose time is wrong.
    fn suspect(name: &str, created: i64, from: Option<i64>) -> Folder {
        let Folder::Backup(found) = backup(name, created, from) else { unreachable!() };
        Folder::Backup(FoundBackup { is_suspect: true, ..found })
    }

    fn bare(name: &str) -> Folder {
        Folder::Bare(ObjectPath::new(name).unwrap())
    }

    fn names(folders: Vec<Folder>, time: Option<i64>) -> Result<String, LinkError> {
        let links = links_of(folders, time.map(at))?;
        let link = |link: &Link| link.folders.iter().map(ObjectPath::as_str).collect::<Vec<_>>().join("+");
        Ok(links.iter().map(link).collect::<Vec<_>>().join(" "))
    }

    /// Protects: folders are ordered by their times, whatever the order they are given in.
    #[test]
    fn a_full_backup_and_its_incrementals_are_a_chain() {
        let folders = || vec![backup("c", 30, Some(20)), backup("a", 10, None), backup("b", 20, Some(10))];
        assert_eq!(names(folders(), None).unwrap(), "c b a");
        assert_eq!(names(folders(), Some(29)).unwrap(), "b a");
        assert_eq!(names(folders(), Some(9)), Err(LinkError::Empty { time: Some(at(9)) }));
        // Cumulative.
        let folders = vec![backup("c", 30, Some(10)), backup("a", 10, None), backup("b", 20, Some(10))];
        assert_eq!(names(folders, None).unwrap(), "c b a");
        // Before 3.0.
        let old = |name, created| {
            let Folder::Backup(mut found) = backup(name, created, None) else { unreachable!() };
            found.metadata.compression.clear();
            Folder::Backup(found)
        };
        let folders = vec![old("r/incremental/2/c", 30), old("r/backup/1/a", 10)];
        assert_eq!(names(folders, Some(30)).unwrap(), "r/incremental/2/c r/backup/1/a");
        assert_eq!(names(vec![backup("incremental/a", 10, None)], None).unwrap(), "incremental/a");
        // By the cluster's clock, which is ahead.
        let Folder::Backup(mut full) = backup("a", 10, None) else { unreachable!() };
        full.metadata.cluster_created = Some(at(12));
        assert_eq!(names(vec![Folder::Backup(full), backup("b", 20, Some(12))], None).unwrap(), "b a");
        // Parts of one backup.
        let folders = vec![backup("x", 10, None), backup("b", 20, Some(10)), backup("y", 10, None)];
        assert_eq!(names(folders, None).unwrap(), "b x+y");
        assert_eq!(names(vec![bare("x"), bare("y")], None).unwrap(), "x+y");
    }

    /// Protects: what is not one chain is refused, not restored in some order.
    #[test]
    fn what_is_no_chain_is_refused() {
        let two = || vec![backup("a", 10, None), backup("b", 20, None), backup("c", 30, Some(20))];
        assert!(matches!(names(vec![bare("x")], Some(1)), Err(LinkError::NoTime { .. })));
        assert!(matches!(names(two(), None), Err(LinkError::SeveralFull { .. })));
        assert_eq!(names(two(), Some(30)).unwrap(), "c b");
        assert_eq!(names(two(), Some(15)).unwrap(), "a");
        assert!(matches!(names(vec![backup("a", 1, None), bare("b")], None), Err(LinkError::Mixed { .. })));
        assert_eq!(names(vec![backup("b", 20, Some(10))], None), Err(LinkError::NoFull));
        let gap = names(vec![backup("a", 10, None), backup("c", 30, Some(20))], None).unwrap_err();
        assert!(gap.to_string().starts_with("c builds on the backup of 1970-01-01T00:00:20Z"), "{gap}");
        assert_eq!(names(Vec::new(), None), Err(LinkError::Empty { time: None }));
        let wrong = || suspect("b", 20, Some(10));
        assert!(matches!(names(vec![backup("a", 10, None), wrong()], None), Err(LinkError::Suspect { .. })));
        assert_eq!(names(vec![suspect("a", 10, None)], None).unwrap(), "a");
    }
}
