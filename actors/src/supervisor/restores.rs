//! Requests about restores.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;

use actix::{
    ActorFutureExt as _, Addr, AsyncContext as _, Handler, ResponseActFuture, ResponseFuture, WrapFuture as _,
};
use futures_util::FutureExt as _;
use slog::o;
use tokio::sync::oneshot;

use super::SupervisorActor;
use super::jobs::{Job, Reserved};
use super::planner::Planner;
use crate::job::restore::{Plan, ReserveNamespaces, Restore, Resumed, ServiceRestore};
use crate::job::{self, Cancel, GetSnapshot, JobActor, JobEnded, RestoreJobActor};
use crate::journal::{Interrupted, Memory, RestoreOrder, forgotten};
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
        order: RestoreOrder,
        wait: PlanWait,
        context: &actix::Context<Self>,
    ) -> Answer {
        let asked = match self.planner().and_then(|planner| planner.ask(&order)) {
            Ok(asked) => asked,
            Err(e) => return refuse(e),
        };
        let (id, routine) = (self.shared.new_id(), order.routine());
        if let Some(journal) = &self.shared.journal {
            journal.begin(id, order, self.shared.clock.now());
        }
        let (planned, plan_ends) = oneshot::channel();
        let actor = self.add_restore(id, routine, asked.plan(None), planned, None, None, context);
        plan_answer(id, actor, plan_ends, wait)
    }

    /// Continues the restores that the end of an earlier process interrupted.
    pub(super) fn resume_restores(&mut self, context: &actix::Context<Self>) {
        let Some(journal) = self.shared.journal.clone() else { return };
        let Memory { ended, interrupted, last_id } = journal.take_memory();
        self.ended_restores = ended;
        self.shared.skip_id(last_id);
        for Interrupted { id, started, until, order, chains } in interrupted {
            let (chains, positions): (Vec<_>, Vec<_>) = chains.into_iter().unzip();
            let asked = self.planner().and_then(|planner| planner.ask(&order));
            let reserved = asked.as_ref().ok().map(|asked| asked.reserves(&chains));
            let plan: Plan = match asked {
                Ok(asked) => asked.plan((!chains.is_empty()).then_some(chains)),
                Err(e) => Box::new(move || ready(Err(e.clone())).boxed()),
            };
            let resumed = Some(Resumed { started, until, positions });
            // Nobody waits for its plan.
            let (planned, _) = oneshot::channel();
            self.add_restore(id, order.routine(), plan, planned, resumed, reserved, context);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what the two kinds of starts differ in")]
    fn add_restore(
        &mut self,
        id: JobId,
        routine: Option<String>,
        plan: Plan,
        planned: oneshot::Sender<Result<(), RequestError>>,
        resumed: Option<Resumed>,
        reserved: Option<Reserved>,
        context: &actix::Context<Self>,
    ) -> Addr<RestoreJobActor> {
        let log = match &routine {
            Some(name) => {
                self.shared.log.new(o!("job" => id.0, "routine" => name.clone(), "type" => "restore"))
            }
            None => self.shared.log.new(o!("job" => id.0, "type" => "restore")),
        };
        let reserve = context.address().recipient();
        let restore = Restore::Service(ServiceRestore { routine, plan, planned, reserve, resumed });
        let actor = RestoreJobActor::start(&self.shared, id, log, restore, context.address().recipient());
        self.add(id, Job::Restore { actor: actor.clone(), reserved });
        actor
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
        self.start_restore(RestoreOrder::Path(request), wait, context)
    }
}

impl Handler<RestoreToTime> for SupervisorActor {
    type Result = Answer;

    fn handle(&mut self, message: RestoreToTime, context: &mut Self::Context) -> Self::Result {
        let RestoreToTime { request, wait } = message;
        self.start_restore(RestoreOrder::Time(request), wait, context)
    }
}

impl Handler<JobEnded<Restore>> for SupervisorActor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, JobEnded { id, result }: JobEnded<Restore>, _: &mut Self::Context) -> Self::Result {
        if let Some(Job::SingleRestore { result: place, .. }) = self.jobs.get(&id) {
            // A job ends once.
            let _ = place.set(result);
            return Box::pin(async {}.into_actor(self));
        }
        let status = RestoreStatus::from(&*result);
        let journaled = self.shared.journal.as_ref().map(|journal| journal.end(id, status.clone()));
        let journaled = async move {
            // Before a client can see the end: then it sees it after a crash, too.
            if let Some(journaled) = journaled {
                journaled.await;
            }
        };
        Box::pin(journaled.into_actor(self).map(move |(), actor, _| {
            actor.remove(id);
            actor.reading_ended();
            actor.ended_restores.insert(id, status);
            let forgotten = forgotten(&mut actor.ended_restores, actor.shared.clock.now());
            if let Some(journal) = &actor.shared.journal {
                journal.forget(forgotten);
            }
        }))
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
                (Some(status), _) => Ok(status),
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
        let mut all = self.ended_restores.clone();
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
    type Result = ResponseFuture<Result<(), RequestError>>;

    fn handle(&mut self, CancelRestore(id): CancelRestore, _: &mut Self::Context) -> Self::Result {
        if let Some(Job::Restore { actor, .. }) = self.jobs.get(&id) {
            let journaled = self.shared.journal.as_ref().map(|journal| journal.cancel(id));
            let actor = actor.clone();
            return Box::pin(async move {
                // First, so that a crash does not bring the restore back.
                if let Some(journaled) = journaled {
                    journaled.await;
                }
                actor.do_send(Cancel);
                Ok(())
            });
        }
        let answer = match self.ended_restores.get(&id).map(|status| status.state) {
            // As often as one likes.
            Some(Status::Canceled) => Ok(()),
            Some(_) => Err(RequestError::Invalid(format!("restore job {id} has ended"))),
            None => Err(RequestError::not_found("restore job", id)),
        };
        Box::pin(async { answer })
    }
}
