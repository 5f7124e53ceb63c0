//! Single jobs of the command line.

use std::sync::Arc;

use actix::{AsyncContext as _, Handler, MessageResult, ResponseFuture};

use super::SupervisorActor;
use crate::backup_job::BackupJobActor;
use crate::job::Job;
use crate::messages::{CancelJob, GetJob, JobEnd, JobStatus, StartBackup, StartRestore, WaitForJob};
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

impl Handler<GetJob> for SupervisorActor {
    type Result = ResponseFuture<Option<JobStatus>>;

    fn handle(&mut self, message: GetJob, _: &mut Self::Context) -> Self::Result {
        match self.jobs.get(&message.0) {
            Some(Job::Backup(actor) | Job::Run { actor, .. }) => {
                let answer = actor.send(message);
                Box::pin(async move { answer.await.ok().flatten() })
            }
            Some(Job::SingleRestore(actor) | Job::Restore(actor)) => {
                let answer = actor.send(message);
                Box::pin(async move { answer.await.ok().flatten() })
            }
            None => Box::pin(async { None }),
        }
    }
}

impl Handler<WaitForJob> for SupervisorActor {
    type Result = ResponseFuture<Option<Arc<JobEnd>>>;

    fn handle(&mut self, message: WaitForJob, _: &mut Self::Context) -> Self::Result {
        match self.jobs.get(&message.0) {
            Some(Job::Backup(actor) | Job::Run { actor, .. }) => {
                let answer = actor.send(message);
                Box::pin(async move { answer.await.ok().flatten() })
            }
            Some(Job::SingleRestore(actor) | Job::Restore(actor)) => {
                let answer = actor.send(message);
                Box::pin(async move { answer.await.ok().flatten() })
            }
            None => Box::pin(async { None }),
        }
    }
}

impl Handler<CancelJob> for SupervisorActor {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, CancelJob(id): CancelJob, context: &mut Self::Context) -> Self::Result {
        let status = Handler::<GetJob>::handle(self, GetJob(id), context);
        if let Some(job) = self.jobs.get(&id) {
            job.cancel();
        }
        Box::pin(async move { status.await.is_some_and(|status| status.end.is_none()) })
    }
}
