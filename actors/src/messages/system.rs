//! Requests about the service itself.

use std::sync::Arc;
use std::time::Duration;

use abs_engine::catalog::BackupKind;
use actix::Message;
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::broadcast;

use super::{JobId, RunningJob, Status};

/// Asks whether every storage and cluster of the configuration can be reached.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Readiness")]
pub struct CheckReadiness;

/// What can be reached: of each name nothing, or why not.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    /// The storages.
    pub storage: Vec<(String, Result<(), String>)>,
    /// The clusters.
    pub clusters: Vec<(String, Result<(), String>)>,
    /// The service is stopping.
    pub stopping: bool,
}

impl Readiness {
    /// True when everything can be reached and the service takes work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.stopping && self.storage.iter().chain(&self.clusters).all(|(_, result)| result.is_ok())
    }
}

/// Asks to hear of all events from now on. A receiver that is too slow loses the oldest.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "broadcast::Receiver<Arc<Event>>")]
pub struct Subscribe;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A job began.
    JobStarted {
        /// When.
        at: DateTime<Utc>,
        /// What job.
        job: JobLabel,
    },
    /// A job goes on; said about once a second.
    JobProgress {
        /// When.
        at: DateTime<Utc>,
        /// What job.
        job: JobLabel,
        /// How it stands.
        progress: RunningJob,
    },
    /// A job ended.
    JobFinished {
        /// When.
        at: DateTime<Utc>,
        /// What job.
        job: JobLabel,
        /// How.
        state: Status,
        /// Why it failed.
        error: Option<String>,
        /// How it stood at the end.
        progress: RunningJob,
    },
    /// A backup was due and not made.
    BackupSkipped {
        /// When.
        at: DateTime<Utc>,
        /// Of which routine.
        routine: String,
        /// Full or incremental.
        kind: BackupKind,
        /// Why.
        reason: String,
    },
    /// A routine was added, changed, enabled, disabled or removed.
    RoutineChanged {
        /// When.
        at: DateTime<Utc>,
        /// Which.
        routine: String,
        /// How.
        change: RoutineChange,
    },
}

/// What job an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobLabel {
    /// The job.
    pub id: JobId,
    /// What it does.
    pub work: JobWork,
}

/// What a job does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobWork {
    /// A backup of a routine.
    Backup {
        /// The routine.
        routine: String,
        /// Full or incremental.
        kind: BackupKind,
        /// The time of the run.
        created: DateTime<Utc>,
    },
    /// A restore; of a routine when it is one to a point in time.
    Restore {
        /// The routine.
        routine: Option<String>,
    },
    /// A verification of the backups of a run.
    Verify {
        /// The routine.
        routine: String,
    },
}

/// How a routine changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoutineChange {
    /// It is new.
    Added,
    /// Its settings changed.
    Changed,
    /// It runs again.
    Enabled,
    /// It runs no more.
    Disabled,
    /// It is gone.
    Removed,
}

/// Asks for all metrics in the text format of Prometheus.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "String")]
pub struct RenderMetrics;

/// Takes no more work, gives running jobs `grace` to end, then cancels them; answered when all have ended.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Shutdown {
    /// How long running jobs may go on.
    pub grace: Duration,
}
