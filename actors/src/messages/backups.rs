//! Requests about the backups of routines.

use std::collections::BTreeMap;
use std::time::Duration;

use abs_engine::catalog::{Backup, BackupKind};
use abs_storage::ObjectPath;
use actix::Message;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{JobId, RequestError};

/// Starts a backup of a routine after `delay`, under the same rules of admission as a scheduled one.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub struct TriggerBackup {
    /// The routine.
    pub routine: String,
    /// Full or incremental.
    pub kind: BackupKind,
    /// How long to wait first.
    pub delay: Duration,
}

/// Cancels what runs of a routine, full and incremental; their partial data is deleted.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub struct CancelBackups {
    /// The routine.
    pub routine: String,
}

/// Pins the backups that a routine began at a time, or takes their pin away: what is pinned is kept, with what it builds on.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub struct PinBackup {
    /// The routine.
    pub routine: String,
    /// When the run began, in milliseconds since 1970.
    pub timestamp: i64,
    /// Whether it is to have a pin.
    pub pinned: bool,
}

/// Deletes the backups that a routine began at a time; the answer is the folders of the runs that are gone.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<ObjectPath>, RequestError>")]
pub struct DeleteBackup {
    /// The routine.
    pub routine: String,
    /// When the run began, in milliseconds since 1970.
    pub timestamp: i64,
    /// Delete those that build on it, too.
    pub cascade: bool,
    /// Only answer what would be deleted, or why not.
    pub dry_run: bool,
}

/// Asks what a routine is doing, did last and will do next.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<RoutineState, RequestError>")]
pub struct GetRoutineState {
    /// The routine.
    pub routine: String,
}

/// A routine at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutineState {
    /// The full backup that runs.
    pub full: Option<RunningJob>,
    /// The incremental backup that runs.
    pub incremental: Option<RunningJob>,
    /// When the last successful full backup was made.
    pub last_full: Option<DateTime<Utc>>,
    /// When the last successful incremental backup was made.
    pub last_incremental: Option<DateTime<Utc>>,
    /// When the next full backup is due; none when the routine is disabled.
    pub next_full: Option<DateTime<Utc>>,
    /// When the next incremental backup is due.
    pub next_incremental: Option<DateTime<Utc>>,
}

/// The progress of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunningJob {
    /// The job.
    pub id: JobId,
    /// Records there will be, as far as can be known.
    pub total_records: u64,
    /// Records done.
    pub done_records: u64,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When it ended; `None` while it runs.
    pub finished: Option<DateTime<Utc>>,
    /// How long it runs, or ran.
    pub duration: Duration,
    /// 0 to 100.
    pub percentage_done: u8,
    /// When it will be done; known from 1 % on.
    pub estimated_end: Option<DateTime<Utc>>,
    /// Records per second.
    pub records_per_second: u64,
    /// Kilobytes per second.
    pub kilobytes_per_second: u64,
    /// Records read and not yet written.
    pub pipeline: u64,
    /// The next attempt at what failed, of a job that waits for it.
    pub retry: Option<PendingRetry>,
}

/// An attempt that is still to come, after one that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PendingRetry {
    /// When.
    pub at: DateTime<Utc>,
    /// Why the one before failed.
    pub error: String,
}

/// Lists the backups of one routine, or of all, in the order of their times. It fails when none of them can be listed.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<BackupLists, RequestError>")]
pub struct ListBackups {
    /// The routine; `None` for all that are configured.
    pub routine: Option<String>,
    /// Full or incremental.
    pub kind: BackupKind,
    /// Only backups made at this time or later; milliseconds since 1970.
    pub from: Option<i64>,
    /// Only backups made at this time or earlier.
    pub to: Option<i64>,
    /// How long storages may take; what could not be listed by then is unavailable.
    pub limit: Duration,
}

/// The backups of routines.
#[derive(Clone, Debug, Default)]
pub struct BackupLists {
    /// Those of each routine.
    pub routines: BTreeMap<String, RoutineBackups>,
    /// Routines whose backups cannot be listed now, and why.
    pub unavailable: BTreeMap<String, RequestError>,
}

/// The backups of a routine.
#[derive(Clone, Debug)]
pub struct RoutineBackups {
    /// Where they are, as configured (with its secrets).
    pub storage: abs_config::Storage,
    /// One entry per namespace.
    pub backups: Vec<Backup>,
}

/// Asks for the cluster configuration that was saved with the backup of a routine at a time: file names and contents.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<Vec<(String, Vec<u8>)>, RequestError>")]
pub struct GetClusterConfiguration {
    /// The routine.
    pub routine: String,
    /// The backup's time; milliseconds since 1970.
    pub timestamp: i64,
}
