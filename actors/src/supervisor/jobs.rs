//! Single jobs of the command line.

use std::sync::Arc;

use actix::{AsyncContext as _, Handler, Message, MessageResult, ResponseFuture};

use super::SupervisorActor;
use crate::backup_job::BackupJobActor;
use crate::job::Job;
use crate::messages::{CancelJob, GetJob, JobEnd, JobId, JobStatus, StartBackup, StartRestore, WaitForJob};
use crate::restore_job::RestoreJobActor;

impl Handler<StartBackup> for SupervisorActor {
    type Result = MessageResult<StartBackup>;

    fn handle(&mut self, start: StartBackup, context: &mut Self::Context) -> Self::Result {
        let id = self.shared.new_id();
        let actor = BackupJobActor::single(&self.shared, id, start, context.address());
        self.jobs.insert(id, Job::Backup(actor));
        MessageResult(id)
    }
}

impl Handler<StartRestore> for SupervisorActor {
    type Result = MessageResult<StartRestore>;

    fn handle(&mut self, start: StartRestore, context: &mut Self::Context) -> Self::Result {
        let id = self.shared.new_id();
        let actor = RestoreJobActor::single(&self.shared, id, start, context.address());
        self.jobs.insert(id, Job::SingleRestore(actor));
        MessageResult(id)
    }
}

impl SupervisorActor {
    /// Asks a job; `None` when there is no such job.
    fn ask<M, T>(&self, id: JobId, message: M) -> ResponseFuture<Option<T>>
    where
        M: Message<Result = Option<T>> + Send + 'static,
        T: Send + 'static,
        BackupJobActor: Handler<M>,
        RestoreJobActor: Handler<M>,
    {
        match self.jobs.get(&id) {
            Some(Job::Backup(actor) | Job::Run { actor, .. }) => {
                let answer = actor.send(message);
                Box::pin(async move { answer.await.ok().flatten() })
            }
            Some(Job::SingleRestore(actor) | Job::Restore { actor, .. }) => {
                let answer = actor.send(message);
                Box::pin(async move { answer.await.ok().flatten() })
            }
            None => Box::pin(async { None }),
        }
    }
}

impl Handler<GetJob> for SupervisorActor {
    type Result = ResponseFuture<Option<JobStatus>>;

    fn handle(&mut self, message: GetJob, _: &mut Self::Context) -> Self::Result {
        self.ask(message.0, message)
    }
}

impl Handler<WaitForJob> for SupervisorActor {
    type Result = ResponseFuture<Option<Arc<JobEnd>>>;

    fn handle(&mut self, message: WaitForJob, _: &mut Self::Context) -> Self::Result {
        self.ask(message.0, message)
    }
}

impl Handler<CancelJob> for SupervisorActor {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, CancelJob(id): CancelJob, _: &mut Self::Context) -> Self::Result {
        let status = self.ask(id, GetJob(id));
        if let Some(job) = self.jobs.get(&id) {
            job.cancel();
        }
        Box::pin(async move { status.await.is_some_and(|status| status.end.is_none()) })
    }
}
