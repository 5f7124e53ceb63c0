//! One restore.

use std::sync::Arc;

use abs_cluster::Cluster;
use abs_engine::{RestorePlan, RestoreProgress};
use abs_storage::{ObjectPath, Storage};
use actix::Message;
use tokio::runtime::Handle;

use crate::job::{JobActor, JobCounters, JobEnd, JobId, Progress};

/// Starts a restore of the files of a folder.
#[derive(Debug, Message)]
#[rtype(result = "JobId")]
pub struct StartRestore {
    /// The cluster to write to.
    pub cluster: Cluster,
    /// The storage to read.
    pub storage: Arc<dyn Storage>,
    /// The folder in it.
    pub folder: ObjectPath,
    /// What to do.
    pub plan: RestorePlan,
}

/// Owns one restore.
pub type RestoreJobActor = JobActor<RestoreProgress>;

impl Progress for RestoreProgress {
    fn counters(&self) -> JobCounters {
        JobCounters::Restore(self.snapshot())
    }
}

impl StartRestore {
    /// Starts the job on the multi-threaded runtime.
    pub(crate) fn run(self, runtime: &Handle) -> RestoreJobActor {
        let progress = Arc::new(RestoreProgress::default());
        let counters = Arc::clone(&progress);
        JobActor::run(
            runtime,
            progress,
            |e| JobEnd::Restore(Err(e)),
            |cancel| async move {
                let Self { cluster, storage, folder, plan } = self;
                JobEnd::Restore(
                    abs_engine::restore(&cluster, &storage, &folder, &plan, &counters, &cancel).await,
                )
            },
        )
    }
}
