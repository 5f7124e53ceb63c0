//! Requests about verifications of backups.

use std::sync::{Arc, PoisonError};

use abs_config::{KeySecrets, RoutineSettings, VerifyMode};
use abs_engine::Depth;
use abs_engine::catalog::BackupKind;
use actix::{Addr, AsyncContext as _, Context, Handler, ResponseFuture};
use chrono::{DateTime, Utc};
use slog::o;
use tokio::sync::oneshot;

use super::SupervisorActor;
use super::jobs::Job;
use super::restores::{Answer, plan_answer, refuse};
use super::system::reach;
use crate::job::verify::{Verify, VerifyWork};
use crate::job::{GetSnapshot, JobEnded, VerifyJobActor};
use crate::journal::REMEMBERED;
use crate::messages::{
    CancelVerification, GetVerification, JobId, RequestError, Status, VerificationStatus, VerifyBackup,
    VerifyResult, VerifySubject,
};
use crate::routine::VerifyRuns;
use crate::shared::Shared;

/// A verification that has ended.
#[derive(Debug)]
pub(super) struct EndedVerification {
    subject: VerifySubject,
    result: Arc<VerifyResult>,
}

impl Handler<VerifyBackup> for SupervisorActor {
    type Result = Answer;

    fn handle(
        &mut self,
        VerifyBackup { subject, wait }: VerifyBackup,
        context: &mut Self::Context,
    ) -> Answer {
        if self.stopping {
            return refuse(RequestError::Stopping);
        }
        let settings = match self.routine(&subject.routine) {
            Ok(routine) => Arc::clone(&routine.settings),
            Err(e) => return refuse(e),
        };
        let Some(time) = DateTime::<Utc>::from_timestamp_millis(subject.timestamp) else {
            let timestamp = subject.timestamp;
            return refuse(RequestError::Invalid(format!("timestamp: {timestamp} is beyond all times")));
        };
        let (planned, plan_ends) = oneshot::channel();
        let (id, actor) = self.start_verification(subject, settings, time, planned, context);
        plan_answer(id, actor, plan_ends, wait)
    }
}

impl SupervisorActor {
    fn start_verification(
        &mut self,
        subject: VerifySubject,
        settings: Arc<RoutineSettings>,
        time: DateTime<Utc>,
        planned: oneshot::Sender<Result<(), RequestError>>,
        context: &Context<Self>,
    ) -> (JobId, Addr<VerifyJobActor>) {
        let id = self.shared.new_id();
        let routine = subject.routine.clone();
        let log = self.shared.log.new(o!("job" => id.0, "routine" => routine.clone(), "type" => "verify"));
        let plan = Box::pin(plan(Arc::clone(&self.shared), settings, time));
        let verify = Verify { routine, depth: subject.depth, plan, planned };
        let actor = VerifyJobActor::start(&self.shared, id, log, verify, context.address().recipient());
        self.add(id, Job::Verify { subject, actor: actor.clone() });
        (id, actor)
    }

    /// Verifies the newest of the runs that wait for it, unless another verification of the routine is running: its end
    /// starts the next one. Retention, which waits for the end of verifications, goes first.
    pub(super) fn verify_next(&mut self, name: &str, context: &Context<Self>) {
        let is_running = |job: &Job| matches!(job, Job::Verify { subject, .. } if subject.routine == name);
        if self.stopping || self.jobs.values().any(is_running) {
            return;
        }
        let Some(routine) = self.routines.get_mut(name) else { return };
        if routine.memory.lock().unwrap_or_else(PoisonError::into_inner).retention_due {
            return;
        }
        let Some(time) = routine.unverified.pop_last() else { return };
        let settings = Arc::clone(&routine.settings);
        let depth = match settings.policy.verify_mode {
            VerifyMode::Full => Depth::Full,
            VerifyMode::Quick => Depth::Quick,
        };
        let subject = VerifySubject { routine: name.to_owned(), timestamp: time.timestamp_millis(), depth };
        // No request waits for the plan.
        let (planned, _) = oneshot::channel();
        self.start_verification(subject, settings, time, planned, context);
    }
}

impl Handler<VerifyRuns> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, VerifyRuns { routine, times }: VerifyRuns, context: &mut Self::Context) {
        if let Some(routine) = self.routines.get_mut(&routine) {
            routine.unverified.extend(times);
        }
        self.verify_next(&routine, context);
    }
}

/// Finds the runs of a time.
async fn plan(
    shared: Arc<Shared>,
    settings: Arc<RoutineSettings>,
    time: DateTime<Utc>,
) -> Result<VerifyWork, RequestError> {
    let catalog = shared.catalogs.of(&settings.storage);
    reach(&catalog).await?;
    let reading = shared.readers.of(&settings.name).read_owned().await;
    let (mut runs, mut backups) = (Vec::new(), Vec::new());
    for kind in BackupKind::ALL {
        let listed = catalog.list(&settings.name, kind, time..=time).await;
        let listed = listed.map_err(|e| RequestError::Failed(e.to_string()))?;
        // One whose metadata.yaml cannot be read is damaged, or not verifiable.
        let unreadable = listed.unreadable.into_iter().filter(|other| other.created == Some(time));
        runs.extend(unreadable.map(|other| other.run));
        runs.extend(listed.backups.iter().map(|backup| backup.run.clone()));
        backups.extend(listed.backups);
    }
    runs.sort();
    runs.dedup();
    if runs.is_empty() {
        let name = format!("{} of routine {}", time.timestamp_millis(), settings.name);
        return Err(RequestError::not_found("backup", name));
    }
    // The routine may have begun to encrypt since.
    let is_plain = !backups.is_empty()
        && backups.iter().all(|backup| backup.metadata.encryption.eq_ignore_ascii_case("NONE"));
    Ok(VerifyWork {
        storage: Arc::clone(catalog.storage()),
        runs,
        keys: if is_plain { KeySecrets::default() } else { settings.keys.clone() },
        records: backups.iter().map(|backup| backup.metadata.record_count).sum(),
        reading,
    })
}

impl Handler<JobEnded<Verify>> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, JobEnded { id, result }: JobEnded<Verify>, context: &mut Self::Context) {
        let Some(Job::Verify { subject, .. }) = self.remove(id) else { return };
        if !self.routines.contains_key(&subject.routine) {
            // The routine went while this ran, and the end of it brought its metrics back.
            self.shared.metrics.forget(&subject.routine);
        }
        self.reading_ended();
        self.verify_next(&subject.routine, context);
        self.ended_verifications.insert(id, EndedVerification { subject, result });
        if self.ended_verifications.len() > REMEMBERED {
            self.ended_verifications.pop_first();
        }
    }
}

impl Handler<GetVerification> for SupervisorActor {
    type Result = ResponseFuture<Result<VerificationStatus, RequestError>>;

    fn handle(&mut self, GetVerification(id): GetVerification, _: &mut Self::Context) -> Self::Result {
        if let Some(EndedVerification { subject, result }) = self.ended_verifications.get(&id) {
            let status = VerificationStatus::ended(subject.clone(), result);
            return Box::pin(async { Ok(status) });
        }
        let Some(Job::Verify { subject, actor }) = self.jobs.get(&id) else {
            return Box::pin(async move { Err(not_found(id)) });
        };
        let (subject, snapshot) = (subject.clone(), actor.send(GetSnapshot::new()));
        Box::pin(async move {
            let snapshot = snapshot.await.map_err(|_| {
                RequestError::Failed(format!("verification job {id} does not answer: try again"))
            })?;
            Ok(VerificationStatus::running(subject, snapshot))
        })
    }
}

impl Handler<CancelVerification> for SupervisorActor {
    type Result = Result<(), RequestError>;

    fn handle(&mut self, CancelVerification(id): CancelVerification, _: &mut Self::Context) -> Self::Result {
        if let Some(job @ Job::Verify { .. }) = self.jobs.get(&id) {
            job.cancel();
            return Ok(());
        }
        match self.ended_verifications.get(&id).map(|ended| ended.result.end.status()) {
            // As often as one likes.
            Some(Status::Canceled) => Ok(()),
            Some(_) => Err(RequestError::Invalid(format!("verification job {id} has ended"))),
            None => Err(not_found(id)),
        }
    }
}

fn not_found(id: JobId) -> RequestError {
    RequestError::not_found("verification job", id)
}
