//! What a catalog says of what it finds.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use abs_storage::{InvalidPath, ObjectPath, StorageError};
use chrono::{DateTime, SecondsFormat, Utc};

use crate::Metadata;
use crate::catalog::BackupKind;
use crate::catalog::chain::suspect_hint;

/// A backup of one namespace: it has a metadata.yaml, so it is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The routine that made it.
    pub routine: String,
    /// Full or incremental.
    pub kind: BackupKind,
    /// When it was begun, to the millisecond: the time in its path, the same for all namespaces of a run.
    pub created: DateTime<Utc>,
    /// What its metadata.yaml says.
    pub metadata: Arc<Metadata>,
    /// The folder of its metadata.yaml, from the root of the storage: the `key` of the API, and what its
    /// `backup-data-path` takes.
    pub key: ObjectPath,
    /// The folder of the run that made it and perhaps others, of other namespaces.
    pub run: ObjectPath,
    /// When its metadata.yaml was written, by the storage's clock.
    pub written: SystemTime,
    /// When it was noticed, by the storage's clock, that `created` is later than the truth: the clock of the service was
    /// wrong. Such a backup is listed and can be restored by its folder, but belongs to no chain.
    pub suspect: Option<SystemTime>,
    /// Whether a pin keeps its run.
    pub pinned: bool,
}

impl Backup {
    /// Whether `created` is right, as far as is known.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.suspect.is_none()
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.metadata.namespace
    }
}

/// A backup that is there but cannot be read: its metadata.yaml is damaged, or the storage does not give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Full or incremental.
    pub kind: BackupKind,
    /// The time in its path, if there is one.
    pub created: Option<DateTime<Utc>>,
    /// Its metadata.yaml; the folder of the run if not even that could be listed.
    pub place: ObjectPath,
    /// The folder of its run.
    pub run: ObjectPath,
    /// Why it cannot be read.
    pub cause: String,
}

impl Unreadable {
    /// Whether this may be a backup of `namespace`, whose folder bears its name in every layout.
    pub(super) fn may_be_of(&self, namespace: &str) -> bool {
        let Some(key) = self.place.parent().filter(|_| self.place != self.run) else { return true };
        if self.created.is_none() {
            return key.name() == namespace;
        }
        key.below(&self.run)
            .is_none_or(|below| below.is_empty() || below.split('/').any(|part| part == namespace))
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: the backup cannot be read: {}", self.place, self.cause)
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The backups, by time, then by namespace.
    pub backups: Vec<Backup>,
    /// What is there too but cannot be read, by path.
    pub unreadable: Vec<Unreadable>,
}

/// A time in a message: for people, and as the API's milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub DateTime<Utc>);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        write!(f, "{text} ({})", self.0.timestamp_millis())
    }
}

/// Why the catalog could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The name of a routine or a namespace cannot be a part of a path.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// The routine had no backup to restore from at that time.
    #[error(transparent)]
    Chain(#[from] super::ChainError),
    /// No full backup was made until then.
    #[error(
        "routine {routine} has no full backup at or before {}{}",
        Moment(*.time),
        .suspect.as_ref().map(suspect_hint).unwrap_or_default()
    )]
    NoBackup {
        /// The routine.
        routine: String,
        /// Until when it was looked for.
        time: DateTime<Utc>,
        /// The folder of one whose time is wrong.
        suspect: Option<ObjectPath>,
    },
    /// A backup was made without the configuration of its cluster.
    #[error("{run} holds no cluster configuration: its policy was without with-cluster-configuration")]
    NoConfiguration {
        /// The folder of the run.
        run: ObjectPath,
    },
    /// A run cannot be deleted: others build on it.
    #[error(
        "routine {routine}: {count} later {} on the backup of {time}, the first of {by}; cascade=true deletes {} as well",
        if *.count == 1 { "backup builds" } else { "backups build" },
        if *.count == 1 { "it" } else { "them" }
    )]
    BuiltOn {
        /// The routine.
        routine: String,
        /// When it was made.
        time: Moment,
        /// When the first was made that builds on it.
        by: Moment,
        /// How many build on it.
        count: usize,
    },
    /// A run cannot be deleted: it is pinned, or a pinned one builds on it.
    #[error(
        "{run} is not deleted: {}",
        if .run == .pin { "it is pinned".to_owned() } else { format!("{pin} is pinned and needs it") }
    )]
    Pinned {
        /// The folder of the run.
        run: ObjectPath,
        /// The folder of the run that has the pin.
        pin: ObjectPath,
    },
    /// A run cannot be deleted: it is being read.
    #[error("{run} is not deleted: a restore reads it")]
    InUse {
        /// The folder of the run.
        run: ObjectPath,
    },
    /// A run cannot be pinned: it is being deleted.
    #[error("{run} is being deleted")]
    Deleting {
        /// The folder of the run.
        run: ObjectPath,
    },
    /// Another process works on the routine.
    #[error("routine {routine}: another service has it now")]
    NotHeld {
        /// The routine.
        routine: String,
    },
    /// What is to be deleted is not the folder of a run.
    #[error("{folder} is not the folder of a run: it is not deleted")]
    NotARun {
        /// The folder.
        folder: ObjectPath,
    },
}
