//! The jobs that the supervisor owns, and requests about single ones of the command line.

use std::sync::Arc;

use abs_config::{ClusterSettings, OnInterrupt, RoutineSettings};
use abs_engine::catalog::BackupKind;
use actix::{Addr, AsyncContext as _, Handler, MessageResult, ResponseFuture};
use chrono::{DateTime, Utc};
use slog::o;
use tokio::sync::SetOnce;

use super::SupervisorActor;
use crate::job::backup::Backup;
use crate::job::restore::Restore;
use crate::job::{BackupJobActor, Cancel, GetSnapshot, RestoreJobActor, Suspend, VerifyJobActor};
use crate::messages::{
    BackupResult, CancelJob, GetJob, JobCounters, JobId, JobSnapshot, RestoreResult, RunningJob, StartBackup,
    StartRestore, SuspendJob, VerifySubject, WaitForBackup, WaitForRestore,
};
use crate::shared::Clusters;

/// A job as the supervisor knows it.
#[derive(Debug)]
pub(crate) enum Job {
    /// A backup of the command line.
    SingleBackup {
        actor: Addr<BackupJobActor>,
        /// Set when it has ended.
        result: Arc<SetOnce<Arc<BackupResult>>>,
    },
    /// A restore of the command line.
    SingleRestore {
        actor: Addr<RestoreJobActor>,
        /// Set when it has ended.
        result: Arc<SetOnce<Arc<RestoreResult>>>,
    },
    /// A run of a routine.
    Run {
        settings: Arc<RoutineSettings>,
        kind: BackupKind,
        created: DateTime<Utc>,
        actor: Addr<BackupJobActor>,
    },
    /// A restore that was asked of the service.
    Restore {
        actor: Addr<RestoreJobActor>,
        /// What no backup may read meanwhile; `None` until that is known.
        reserved: Option<Reserved>,
    },
    /// A verification that was asked of the service.
    Verify { subject: VerifySubject, actor: Addr<VerifyJobActor> },
}

/// Namespaces of a cluster that are being restored.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub cluster: Arc<ClusterSettings>,
    pub namespaces: Vec<String>,
}

impl Reserved {
    /// A namespace that a backup would read while it is being restored.
    pub(crate) fn conflict(&self, backup: &RoutineSettings, clusters: &Clusters) -> Option<&str> {
        let is_read = |namespace: &&String| {
            backup.namespaces.is_empty() || backup.namespaces.iter().any(|name| name.as_str() == **namespace)
        };
        let found = self.namespaces.iter().find(is_read)?;
        clusters.are_same(&self.cluster, &backup.cluster).then_some(found)
    }
}

impl Job {
    /// Ends the job early.
    pub(crate) fn cancel(&self) {
        match self {
            Self::SingleBackup { actor, .. } | Self::Run { actor, .. } => actor.do_send(Cancel),
            Self::SingleRestore { actor, .. } | Self::Restore { actor, .. } => actor.do_send(Cancel),
            Self::Verify { actor, .. } => actor.do_send(Cancel),
        }
    }

    /// Ends a backup at a checkpoint, to be continued.
    pub(crate) fn suspend(&self) {
        if let Some(actor) = self.backup() {
            actor.do_send(Suspend);
        }
    }

    /// Whether the next start of the service continues the job when the process ends.
    pub(crate) fn is_continued(&self) -> bool {
        matches!(self, Self::Run { settings, .. } if settings.policy.on_interrupt == OnInterrupt::Resume)
    }

    fn backup(&self) -> Option<&Addr<BackupJobActor>> {
        match self {
            Self::SingleBackup { actor, .. } | Self::Run { actor, .. } => Some(actor),
            Self::SingleRestore { .. } | Self::Restore { .. } | Self::Verify { .. } => None,
        }
    }

    fn restore(&self) -> Option<&Addr<RestoreJobActor>> {
        match self {
            Self::SingleRestore { actor, .. } | Self::Restore { actor, .. } => Some(actor),
            Self::SingleBackup { .. } | Self::Run { .. } | Self::Verify { .. } => None,
        }
    }
}

impl Handler<StartBackup> for SupervisorActor {
    type Result = MessageResult<StartBackup>;

    fn handle(&mut self, start: StartBackup, context: &mut Self::Context) -> Self::Result {
        let id = self.shared.new_id();
        let log = self.shared.log.new(o!("job" => id.0));
        let parent = context.address().recipient();
        let actor = BackupJobActor::start(&self.shared, id, log, Backup::Single(Box::new(start)), parent);
        self.jobs.insert(id, Job::SingleBackup { actor, result: Arc::default() });
        MessageResult(id)
    }
}

impl Handler<StartRestore> for SupervisorActor {
    type Result = MessageResult<StartRestore>;

    fn handle(&mut self, start: StartRestore, context: &mut Self::Context) -> Self::Result {
        let id = self.shared.new_id();
        let log = self.shared.log.new(o!("job" => id.0));
        let parent = context.address().recipient();
        let actor = RestoreJobActor::start(&self.shared, id, log, Restore::Single(Box::new(start)), parent);
        self.jobs.insert(id, Job::SingleRestore { actor, result: Arc::default() });
        MessageResult(id)
    }
}

impl SupervisorActor {
    /// Asks a job how far it is; `None` when there is no such job.
    fn snapshot(&self, id: JobId) -> ResponseFuture<Option<(JobCounters, RunningJob)>> {
        let backup = self.jobs.get(&id).and_then(Job::backup).map(|actor| actor.send(GetSnapshot::new()));
        let restore = self.jobs.get(&id).and_then(Job::restore).map(|actor| actor.send(GetSnapshot::new()));
        Box::pin(async move {
            if let Some(backup) = backup {
                let JobSnapshot { counts, progress, .. } = backup.await.ok()?;
                return Some((JobCounters::Backup(counts), progress));
            }
            let JobSnapshot { counts, progress, .. } = restore?.await.ok()?;
            Some((JobCounters::Restore(counts), progress))
        })
    }
}

impl Handler<GetJob> for SupervisorActor {
    type Result = ResponseFuture<Option<JobCounters>>;

    fn handle(&mut self, GetJob(id): GetJob, _: &mut Self::Context) -> Self::Result {
        let snapshot = self.snapshot(id);
        Box::pin(async move { snapshot.await.map(|(counters, _)| counters) })
    }
}

impl Handler<WaitForBackup> for SupervisorActor {
    type Result = ResponseFuture<Option<Arc<BackupResult>>>;

    fn handle(&mut self, WaitForBackup(id): WaitForBackup, _: &mut Self::Context) -> Self::Result {
        let Some(Job::SingleBackup { result, .. }) = self.jobs.get(&id) else {
            return Box::pin(async { None });
        };
        let result = Arc::clone(result);
        Box::pin(async move { Some(Arc::clone(result.wait().await)) })
    }
}

impl Handler<WaitForRestore> for SupervisorActor {
    type Result = ResponseFuture<Option<Arc<RestoreResult>>>;

    fn handle(&mut self, WaitForRestore(id): WaitForRestore, _: &mut Self::Context) -> Self::Result {
        let Some(Job::SingleRestore { result, .. }) = self.jobs.get(&id) else {
            return Box::pin(async { None });
        };
        let result = Arc::clone(result);
        Box::pin(async move { Some(Arc::clone(result.wait().await)) })
    }
}

impl Handler<SuspendJob> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, SuspendJob(id): SuspendJob, _: &mut Self::Context) {
        if let Some(job) = self.jobs.get(&id) {
            job.suspend();
        }
    }
}

impl Handler<CancelJob> for SupervisorActor {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, CancelJob(id): CancelJob, _: &mut Self::Context) -> Self::Result {
        let snapshot = self.snapshot(id);
        self.jobs.get(&id).into_iter().for_each(Job::cancel);
        Box::pin(async move { snapshot.await.is_some_and(|(_, progress)| progress.finished.is_none()) })
    }
}
