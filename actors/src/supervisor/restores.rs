//! Requests about restores.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Addr, AsyncContext as _, Handler, ResponseFuture};
use slog::o;
use tokio::sync::oneshot;

use super::jobs::{Job, Reserved};
use super::planner::{Planner, invalid};
use super::{REMEMBERED, SupervisorActor};
use crate::job::restore::{ReserveNamespaces, Restore, RestoreWork, ServiceRestore};
use crate::job::{self, Cancel, GetSnapshot, JobActor, JobEnded, RestoreJobActor};
use crate::messages::{
    CancelRestore, GetRestore, JobId, ListRestores, PlanWait, RequestError, RestorePath, RestoreStatus,
    RestoreToTime, Status,
};

/// The answer to a request that starts a job.
pub(super) type Answer = ResponseFuture<Result<JobId, RequestError>>;

/// The answer to a request that is refused at once.
pub(super) fn refuse(error: RequestError) -> Answer {
    Box::pin(async { Err(error) })
}

/// The answer to a request that started a job: given when the job has made its plan, or when the wait is over.
pub(super) fn plan_answer<J: job::Job>(
    id: JobId,
    actor: Addr<JobActor<J>>,
    plan_ends: oneshot::Receiver<Result<(), RequestError>>,
    wait: PlanWait,
) -> Answer {
    Box::pin(async move {
        tokio::select! {
            // Steps that panicked have sent nothing; their job ends all the same.
            plan = plan_ends => plan.unwrap_or(Ok(()))?,
            () = wait.given_up.cancelled() => {
                actor.do_send(Cancel);
                return Err(RequestError::Failed("the request was given up".to_owned()));
            }
            () = tokio::time::sleep(wait.limit) => {}
        }
        Ok(id)
    })
}

impl SupervisorActor {
    /// Starts a restore, which plans itself first, and answers when its plan is made, or when the wait is over.
    fn start_restore(
        &mut self,
        routine: Option<String>,
        plan: impl Future<Output = Result<RestoreWork, RequestError>> + Send + 'static,
        wait: PlanWait,
        context: &actix::Context<Self>,
    ) -> Answer {
        let id = self.shared.new_id();
        let (planned, plan_ends) = oneshot::channel();
        let log = match &routine {
            Some(name) => {
                self.shared.log.new(o!("job" => id.0, "routine" => name.clone(), "type" => "restore"))
            }
            None => self.shared.log.new(o!("job" => id.0, "type" => "restore")),
        };
        let reserve = context.address().recipient();
        let restore = Restore::Service(ServiceRestore { routine, plan: Box::pin(plan), planned, reserve });
        let actor = RestoreJobActor::start(&self.shared, id, log, restore, context.address().recipient());
        self.add(id, Job::Restore { actor: actor.clone(), reserved: None });
        plan_answer(id, actor, plan_ends, wait)
    }

    /// What plans go by; none are made when the service is stopping.
    fn planner(&self) -> Result<Planner, RequestError> {
        match &self.service {
            Some(service) if !self.stopping => {
                let settings = Arc::clone(service.configuration.settings());
                Ok(Planner { settings, shared: Arc::clone(&self.shared) })
            }
            _ => Err(RequestError::Stopping),
        }
    }
}

impl Handler<RestorePath> for SupervisorActor {
    type Result = Answer;

    fn handle(&mut self, message: RestorePath, context: &mut Self::Context) -> Self::Result {
        let RestorePath { request, wait, .. } = message;
        let planned = self.planner().and_then(|planner| {
            let request = request.check(&planner.settings).map_err(invalid)?;
            Ok((planner, request))
        });
        match planned {
            Ok((planner, request)) => self.start_restore(None, planner.path(request), wait, context),
            Err(e) => refuse(e),
        }
    }
}

impl Handler<RestoreToTime> for SupervisorActor {
    type Result = Answer;

    fn handle(&mut self, message: RestoreToTime, context: &mut Self::Context) -> Self::Result {
        let RestoreToTime { request, wait } = message;
        let planned = self.planner().and_then(|planner| {
            let request = request.check(&planner.settings).map_err(invalid)?;
            Ok((planner, request))
        });
        match planned {
            Ok((planner, request)) => {
                let routine = request.routine.clone();
                self.start_restore(Some(routine), planner.time(request), wait, context)
            }
            Err(e) => refuse(e),
        }
    }
}

impl Handler<ReserveNamespaces> for SupervisorActor {
    type Result = Result<(), RequestError>;

    fn handle(&mut self, reserve: ReserveNamespaces, _: &mut Self::Context) -> Self::Result {
        let ReserveNamespaces { id, cluster, namespaces } = reserve;
        let wanted = Reserved { cluster, namespaces };
        for job in self.jobs.values() {
            if let Job::Run { settings, .. } = job
                && let Some(namespace) = wanted.conflict(settings, &self.shared.clusters)
            {
                return Err(RequestError::Conflict(format!(
                    "namespace {namespace} is being backed up by routine {}: wait for the backup, or cancel it",
                    settings.name
                )));
            }
        }
        if let Some(Job::Restore { reserved, .. }) = self.jobs.get_mut(&id) {
            *reserved = Some(wanted);
        }
        Ok(())
    }
}

impl Handler<JobEnded<Restore>> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, JobEnded { id, result }: JobEnded<Restore>, _: &mut Self::Context) {
        if let Some(Job::SingleRestore { result: place, .. }) = self.jobs.get(&id) {
            let _ = place.set(result);
            return;
        }
        self.remove(id);
        self.reading_ended();
        self.ended_restores.insert(id, result);
        if self.ended_restores.len() > REMEMBERED {
            self.ended_restores.pop_first();
        }
    }
}

impl Handler<GetRestore> for SupervisorActor {
    type Result = ResponseFuture<Result<RestoreStatus, RequestError>>;

    fn handle(&mut self, GetRestore(id): GetRestore, _: &mut Self::Context) -> Self::Result {
        let ended = self.ended_restores.get(&id).cloned();
        let asked = match self.jobs.get(&id) {
            Some(Job::Restore { actor, .. }) => Some(actor.send(GetSnapshot::new())),
            _ => None,
        };
        Box::pin(async move {
            match (ended, asked) {
                (Some(result), _) => Ok(RestoreStatus::from(&*result)),
                (None, Some(asked)) => asked.await.map(RestoreStatus::from).map_err(|_| {
                    RequestError::Failed(format!("restore job {id} does not answer: try again"))
                }),
                (None, None) => Err(RequestError::not_found("restore job", id)),
            }
        })
    }
}

impl Handler<ListRestores> for SupervisorActor {
    type Result = ResponseFuture<BTreeMap<JobId, RestoreStatus>>;

    fn handle(&mut self, wanted: ListRestores, _: &mut Self::Context) -> Self::Result {
        let mut all: BTreeMap<_, _> =
            self.ended_restores.iter().map(|(id, result)| (*id, RestoreStatus::from(&**result))).collect();
        let mut asked = Vec::new();
        for (id, job) in &self.jobs {
            if let Job::Restore { actor, .. } = job {
                asked.push((*id, actor.send(GetSnapshot::new())));
            }
        }
        Box::pin(async move {
            for (id, answer) in asked {
                // One that crashes at this moment is listed the next time, as failed.
                if let Ok(snapshot) = answer.await {
                    all.insert(id, snapshot.into());
                }
            }
            all.retain(|_, status| {
                let began = status.job.started.timestamp_millis();
                wanted.from.is_none_or(|from| from <= began)
                    && wanted.to.is_none_or(|to| began <= to)
                    && wanted.status.lets_through(status.state)
            });
            all
        })
    }
}

impl Handler<CancelRestore> for SupervisorActor {
    type Result = Result<(), RequestError>;

    fn handle(&mut self, CancelRestore(id): CancelRestore, _: &mut Self::Context) -> Self::Result {
        match self.jobs.get(&id) {
            Some(job @ Job::Restore { .. }) => {
                job.cancel();
                Ok(())
            }
            _ => match self.ended_restores.get(&id).map(|result| result.end.status()) {
                // As often as one likes.
                Some(Status::Canceled) => Ok(()),
                Some(_) => Err(RequestError::Invalid(format!("restore job {id} has ended"))),
                None => Err(RequestError::not_found("restore job", id)),
            },
        }
    }
}
