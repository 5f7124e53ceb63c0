//! The steps of a job, a task of the runtime beside its actor.

use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use abs_engine::EngineError;
use actix::{Addr, Message, Recipient};
use futures_util::FutureExt as _;
use slog::{Logger, error};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::progress::{Amounts, Pace};
use super::stage::{self, Stage as _, StageId};
use super::{Conclusion, Job, JobActor, JobEnded, ResultOf};
use crate::messages::system::{Event, JobLabel, JobWork};
use crate::messages::{JobEnd, JobId, JobResult, JobSnapshot, PendingRetry};
use crate::shared::Shared;

/// A part of the job begins.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct BeginPart<P: Send + Sync> {
    pub name: String,
    pub progress: Arc<P>,
    pub expected: Option<u64>,
}

/// A step failed and will be tried again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct AwaitRetry {
    pub what: String,
    pub part: Option<String>,
    pub retry: PendingRetry,
}

/// A step is tried again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct BeginRetry(pub String);

/// The work of a stage is to be done.
pub(super) struct BeginStage<J: Job> {
    pub stage: J::Stage,
    pub workers: usize,
}

impl<J: Job> Message for BeginStage<J> {
    type Result = StageId;
}

/// The workers of a stage have ended.
pub(super) struct EndStage<J: Job>(pub StageId, PhantomData<fn() -> J>);

impl<J: Job> EndStage<J> {
    fn new(stage: StageId) -> Self {
        Self(stage, PhantomData)
    }
}

impl<J: Job> Message for EndStage<J> {
    type Result = Option<J::Stage>;
}

/// The steps have ended: asks for a last snapshot.
pub(super) struct Finish<J: Job>(PhantomData<fn() -> J>);

impl<J: Job> Finish<J> {
    fn new() -> Self {
        Self(PhantomData)
    }
}

impl<J: Job> Message for Finish<J> {
    type Result = JobSnapshot<J::Counts>;
}

/// The job has ended.
pub(super) struct Ended<J: Job>(pub Arc<ResultOf<J>>);

impl<J: Job> Message for Ended<J> {
    type Result = ();
}

/// The error of a job whose actor is gone.
fn crashed() -> EngineError {
    EngineError::Worker("the actor of the job crashed".to_owned())
}

/// What the steps of a job have at hand.
pub(crate) struct Steps<J: Job> {
    pub shared: Arc<Shared>,
    pub id: JobId,
    pub log: Logger,
    /// Canceled when the job is to end early.
    pub cancel: CancellationToken,
    /// Canceled when a backup is to end at a checkpoint.
    pub suspend: CancellationToken,
    /// Another job continues this one when its actor crashes.
    pub has_successor: bool,
    pub job: Addr<JobActor<J>>,
}

impl<J: Job> Clone for Steps<J> {
    fn clone(&self) -> Self {
        let Self { shared, id, log, cancel, suspend, has_successor, job } = self;
        Self {
            shared: Arc::clone(shared),
            id: *id,
            log: log.clone(),
            cancel: cancel.clone(),
            suspend: suspend.clone(),
            has_successor: *has_successor,
            job: job.clone(),
        }
    }
}

impl<J: Job> Steps<J> {
    /// Why a step ends when the actor is gone.
    fn crashed(&self) -> EngineError {
        if self.has_successor {
            // Perhaps the actor has not done it yet.
            self.suspend.cancel();
            EngineError::Suspended
        } else {
            crashed()
        }
    }

    /// Begins a part of the job, perhaps once more: its counters take the place of those of the attempt before.
    /// `expected` is how many records it holds, if that is known.
    pub(crate) async fn begin(
        &self,
        part: &str,
        progress: &Arc<J::Progress>,
        expected: Option<u64>,
    ) -> Result<(), EngineError> {
        let progress = Arc::clone(progress);
        let begun = self.job.send(BeginPart { name: part.to_owned(), progress, expected }).await;
        begun.map_err(|_| self.crashed())
    }

    /// Lets `workers` workers do the work of a stage; returns the stage when it is over.
    pub(crate) async fn run_stage(&self, stage: J::Stage, workers: usize) -> Result<J::Stage, EngineError> {
        let idle: Vec<_> = (0..workers.max(1)).map(|_| stage.worker()).collect();
        let stage = self.job.send(BeginStage::<J> { stage, workers }).await.map_err(|_| self.crashed())?;
        let mut working: JoinSet<_> =
            idle.into_iter().map(|worker| stage::run_worker(self.job.clone(), stage, worker)).collect();
        let mut panic = None;
        while let Some(joined) = working.join_next().await {
            panic = panic.or(joined.err());
        }
        let ended = self.job.send(EndStage::<J>::new(stage)).await;
        let stage = ended.ok().flatten().ok_or_else(|| self.crashed())?;
        if let Some(panic) = panic {
            stage.fail(EngineError::Worker(panic.to_string()));
        }
        Ok(stage)
    }

    /// Reports that `what` failed and will be tried again. `part` is the part that failed, if it was one: what it counted is
    /// of no use any more.
    pub(crate) async fn await_retry(&self, what: String, part: Option<String>, retry: PendingRetry) {
        // An actor that crashed has stopped the job.
        let _ = self.job.send(AwaitRetry { what, part, retry }).await;
    }

    /// Reports that `what` is tried again.
    pub(crate) async fn begin_retry(&self, what: String) {
        let _ = self.job.send(BeginRetry(what)).await;
    }
}

/// Takes a job through its steps. Whatever happens to them, or to the actor, the parent is told of the end, unless a successor
/// continues the job.
pub(super) async fn drive<J: Job>(
    job: J,
    successor: Option<J>,
    work: Option<JobWork>,
    steps: Steps<J>,
    parent: Recipient<JobEnded<J>>,
) {
    let started = steps.shared.clock.now();
    let ran = AssertUnwindSafe(job.run(&steps)).catch_unwind().await;
    let Conclusion { mut end, reports } =
        ran.unwrap_or_else(|_| EngineError::Worker("the job panicked".to_owned()).into());
    let snapshot = if let Ok(snapshot) = steps.job.send(Finish::new()).await {
        snapshot
    } else {
        error!(steps.log, "the actor of the job crashed: a defect of this program");
        let is_canceled = successor.is_some() && steps.cancel.is_cancelled();
        if !is_canceled && matches!(end, JobEnd::Canceled | JobEnd::Failed(_)) {
            if let Some(successor) = successor
                && successor.succeed(steps.id).await
            {
                return;
            }
            if matches!(end, JobEnd::Canceled) {
                // By the crash alone: a user who cancels asks the actor.
                end = crashed().into();
            }
        }
        let progress =
            Pace::new(started, started).progress(steps.id, Amounts::default(), Some(Duration::ZERO));
        JobSnapshot { counts: J::Counts::default(), progress, warnings: Vec::new() }
    };
    let result = Arc::new(JobResult { end, reports, snapshot });
    // From here on the actor publishes no more progress.
    let _ = steps.job.send(Ended(Arc::clone(&result))).await;
    if let Some(work) = &work {
        J::announce_end(&steps, work, &result);
    }
    // A parent that is gone needs no news.
    let _ = parent.send(JobEnded { id: steps.id, result: Arc::clone(&result) }).await;
    // After the parent: a client that hears of the end finds it everywhere.
    if let Some(work) = work {
        let (state, error) = (result.end.status(), result.end.error());
        let (id, progress) = (steps.id, result.snapshot.progress.clone());
        steps.shared.publish(|at| Event::JobFinished {
            at,
            job: JobLabel { id, work },
            state,
            error,
            progress,
        });
    }
}
