//! Single jobs, as the command line starts them; and what all jobs have in common.

use std::fmt;
use std::sync::Arc;

use abs_cluster::Cluster;
use abs_engine::{
    BackupPlan, BackupReport, BackupSnapshot, EngineError, Link, RestorePlan, RestoreReport, RestoreSnapshot,
};
use abs_storage::{ObjectPath, Storage};
use actix::Message;

/// A job: positive, below 2^53 so that every JSON reader keeps it, never used twice, later ones greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// A backup, with a report per namespace.
    Backup(Result<Vec<BackupReport>, EngineError>),
    /// A restore, with a report per namespace.
    Restore(Result<Vec<RestoreReport>, EngineError>),
}

/// The counters of a job at one moment.
#[derive(Clone, Debug)]
pub enum JobCounters {
    /// Of a backup.
    Backup(BackupSnapshot),
    /// Of a restore.
    Restore(RestoreSnapshot),
}

/// A job at one moment.
#[derive(Clone, Debug)]
pub struct JobStatus {
    /// Its counters.
    pub counters: JobCounters,
    /// How it ended; `None` while it runs.
    pub end: Option<Arc<JobEnd>>,
}

/// Asks for the status of a job; `None` when there is no such job.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<JobStatus>")]
pub struct GetJob(pub JobId);

/// Asks for the end of a job, and gets it when there is one; `None` when there is no such job.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<Arc<JobEnd>>")]
pub struct WaitForJob(pub JobId);

/// Cancels a job; false when there is no such job or it has ended.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "bool")]
pub struct CancelJob(pub JobId);
