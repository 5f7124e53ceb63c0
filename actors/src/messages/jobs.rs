//! Single jobs, as the command line starts them; and what all jobs have in common.

use std::fmt;
use std::sync::Arc;

use abs_cluster::Cluster;
use abs_engine::{
    BackupPlan, BackupReport, BackupSnapshot, EngineError, Link, RestorePlan, RestoreReport, RestoreSnapshot,
};
use abs_storage::{ObjectPath, Storage};
use actix::Message;
use serde::{Deserialize, Serialize};

use super::{RunningJob, Status};

/// A job: positive, below 2^53 so that every JSON reader keeps it, never used twice, later ones greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Starts a backup of one namespace into an empty folder.
#[derive(Debug, Message)]
#[rtype(result = "JobId")]
pub struct StartBackup {
    /// The cluster to read.
    pub cluster: Cluster,
    /// The storage to write to.
    pub storage: Arc<dyn Storage>,
    /// The folder in it.
    pub folder: ObjectPath,
    /// What to do.
    pub plan: BackupPlan,
}

/// Starts a restore of a chain of backups.
#[derive(Debug, Message)]
#[rtype(result = "JobId")]
pub struct StartRestore {
    /// The cluster to write to.
    pub cluster: Cluster,
    /// The storage to read.
    pub storage: Arc<dyn Storage>,
    /// The links of the chain, the newest first.
    pub links: Vec<Link>,
    /// What to do.
    pub plan: RestorePlan,
}

/// How a job ended.
#[derive(Debug)]
pub enum JobEnd {
    /// It did all it was asked.
    Done,
    /// It was canceled.
    Canceled,
    /// It failed.
    Failed(EngineError),
    /// It did nothing: a full backup is due in place of this incremental one, for this reason.
    FullDue(String),
}

impl From<EngineError> for JobEnd {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Canceled => Self::Canceled,
            error => Self::Failed(error),
        }
    }
}

impl JobEnd {
    /// The status that it leaves the job in.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Done | Self::FullDue(_) => Status::Done,
            Self::Canceled => Status::Canceled,
            Self::Failed(_) => Status::Failed,
        }
    }

    /// Why the job failed, if it did.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Failed(e) => Some(e.to_string()),
            Self::Done | Self::Canceled | Self::FullDue(_) => None,
        }
    }
}

/// How far a job is, or was at its end.
#[derive(Clone, Debug)]
pub struct JobSnapshot<C> {
    /// The values of its counters.
    pub counts: C,
    /// Its progress.
    pub progress: RunningJob,
    /// Warnings for the user, one line each.
    pub warnings: Vec<String>,
}

/// How a job ended, and what it did.
#[derive(Debug)]
pub struct JobResult<C, R> {
    /// How it ended.
    pub end: JobEnd,
    /// A report for each namespace that was backed up or restored, and whose backup was kept.
    pub reports: Vec<R>,
    /// How far it was.
    pub snapshot: JobSnapshot<C>,
}

/// How a backup ended.
pub type BackupResult = JobResult<BackupSnapshot, BackupReport>;

/// How a restore ended.
pub type RestoreResult = JobResult<RestoreSnapshot, RestoreReport>;

impl<C, R> JobResult<C, R> {
    /// The reports of a job that was done.
    ///
    /// # Errors
    /// Why it was not.
    pub fn done(&self) -> Result<&[R], &EngineError> {
        match &self.end {
            JobEnd::Done | JobEnd::FullDue(_) => Ok(&self.reports),
            JobEnd::Canceled => Err(&EngineError::Canceled),
            JobEnd::Failed(e) => Err(e),
        }
    }
}

impl BackupResult {
    /// Whether there is a new backup; an incremental one without records leaves nothing.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.reports.iter().any(|report| !report.empty)
    }
}

/// The counters of a job at one moment.
#[derive(Clone, Debug)]
pub enum JobCounters {
    /// Of a backup.
    Backup(BackupSnapshot),
    /// Of a restore.
    Restore(RestoreSnapshot),
}

/// Asks for the counters of a job; `None` when there is no such job.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<JobCounters>")]
pub struct GetJob(pub JobId);

/// Asks for the result of a single backup, which is the answer when it has ended; `None` when there is no such job.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<Arc<BackupResult>>")]
pub struct WaitForBackup(pub JobId);

/// Asks for the result of a single restore, which is the answer when it has ended; `None` when there is no such job.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<Arc<RestoreResult>>")]
pub struct WaitForRestore(pub JobId);

/// Cancels a job; false when there is no such job or it has ended.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "bool")]
pub struct CancelJob(pub JobId);

/// Ends a backup at a checkpoint, to be continued.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct SuspendJob(pub JobId);
