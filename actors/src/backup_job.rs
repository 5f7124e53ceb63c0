//! One backup.

use std::sync::Arc;

use abs_cluster::Cluster;
use abs_engine::{BackupPlan, BackupProgress};
use abs_storage::{ObjectPath, Storage};
use actix::Message;
use tokio::runtime::Handle;

use crate::job::{JobActor, JobCounters, JobEnd, JobId, Progress};

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

/// Owns one backup.
pub type BackupJobActor = JobActor<BackupProgress>;

impl Progress for BackupProgress {
    fn counters(&self) -> JobCounters {
        JobCounters::Backup(self.snapshot())
    }
}

impl StartBackup {
    /// Starts the job on the multi-threaded runtime.
    pub(crate) fn run(self, runtime: &Handle) -> BackupJobActor {
        let progress = Arc::new(BackupProgress::default());
        let counters = Arc::clone(&progress);
        JobActor::run(
            runtime,
            progress,
            |e| JobEnd::Backup(Err(e)),
            |cancel| async move {
                let Self { cluster, storage, folder, plan } = self;
                JobEnd::Backup(
                    abs_engine::backup(&cluster, &storage, &folder, &plan, &counters, &cancel).await,
                )
            },
        )
    }
}
