//! One job: a state machine that hands out its work in batches.
//!
//! The steps of a job ([`Job::run`]) are a task of the multi-threaded runtime. Whenever a step has work that can be divided, a
//! stage, it gives it to this actor and starts workers, which ask the actor for one batch after the other. So the actor
//! never waits, and answers at any time how far the job is.
//!
//! ```text
//!               BeginStage              EndStage               Ended
//!  Planning ────────────────→ Running ───────────→ Finishing ─────────→ Ended
//!    ↑  │ AwaitRetry             ↑                  │      │ AwaitRetry
//!    │  └──────────→ Waiting ←───┼──────────────────┼──────┘
//!    └───────────────────┘       └──────────────────┘
//!          BeginRetry                 BeginStage
//! ```
//!
//! A job is Running while any of its stages is, and else Waiting while anything waits. Steps that end early send
//! [`Finish`] from any state.
//!
//! | message | from | answer |
//! |---|---|---|
//! | [`BeginPart`] | steps | |
//! | [`BeginStage`], [`EndStage`] | steps | the id of the stage; the stage |
//! | [`AwaitRetry`], [`BeginRetry`] | steps | |
//! | [`TakeBatch`] | worker | the next batch, when there is one; `None` when there are no more |
//! | [`Finish`], [`Ended`] | steps, at their end | a last [`JobSnapshot`] |
//! | [`Cancel`] | supervisor, routine | |
//! | [`Suspend`] | supervisor | |
//! | [`GetSnapshot`] | supervisor, routine | a [`JobSnapshot`] |
//!
//! The parent is told of the end with [`JobEnded`], whatever happens to the steps or to the actor. A job whose actor crashes is
//! continued by its successor, if it has one, and else fails.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, Addr, AsyncContext as _, Context, Handler, Message, MessageResult, Recipient, ResponseFuture,
    SpawnHandle,
};
use slog::{Logger, error, info};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::messages::system::{Event, JobLabel, JobWork};
use crate::messages::{JobId, JobSnapshot, PendingRetry, RunningJob};
use crate::shared::Shared;

pub(crate) mod backup;
mod kind;
mod progress;
pub(crate) mod restore;
mod stage;
mod steps;
pub(crate) mod verify;

use kind::Conclusion;
pub(crate) use kind::{Job, ResultOf};
use progress::{Amounts, Pace};
use stage::{Returned, Stage, StageId, Stages, Worker};
use steps::{AwaitRetry, BeginPart, BeginRetry, BeginStage, EndStage, Ended, Finish, Steps};

pub(crate) type BackupJobActor = JobActor<backup::Backup>;
pub(crate) type RestoreJobActor = JobActor<restore::Restore>;
pub(crate) type VerifyJobActor = JobActor<verify::Verify>;

/// How often the progress of a job is measured and published.
const TICK: Duration = Duration::from_secs(1);

/// A job has ended.
#[derive(Debug)]
pub(crate) struct JobEnded<J: Job> {
    pub id: JobId,
    pub result: Arc<ResultOf<J>>,
}

impl<J: Job> Message for JobEnded<J> {
    type Result = ();
}

/// A worker has nothing to do.
pub(crate) struct TakeBatch<J: Job> {
    stage: StageId,
    /// What became of its batch before.
    ended: Option<Returned<J::Stage>>,
}

impl<J: Job> Message for TakeBatch<J> {
    type Result = Option<<J::Stage as Stage>::Batch>;
}

/// Ends a job early.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Cancel;

/// Ends a backup at a checkpoint, to be continued. Jobs of other kinds pass it over.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Suspend;

/// Asks how far the job is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GetSnapshot<C>(PhantomData<fn() -> C>);

impl<C> GetSnapshot<C> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<C: 'static> Message for GetSnapshot<C> {
    type Result = JobSnapshot<C>;
}

/// What a job is doing.
#[derive(Debug)]
enum JobState<J: Job> {
    /// The steps find out what there is to do.
    Planning,
    /// Workers are at work.
    Running,
    /// Nothing is done until what failed is tried again.
    Waiting,
    /// What the workers did is completed.
    Finishing,
    Ended(Arc<ResultOf<J>>),
}

/// A part of a job.
#[derive(Debug)]
struct Part<P> {
    progress: Arc<P>,
    expected: Option<u64>,
}

/// Owns one job.
#[derive(Debug)]
pub(crate) struct JobActor<J: Job> {
    shared: Arc<Shared>,
    id: JobId,
    work: Option<JobWork>,
    log: Logger,
    cancel: CancellationToken,
    suspend: CancellationToken,
    /// An actor that crashes suspends or cancels its job: the workers must not continue without it.
    _stop_on_crash: DropGuard,
    state: JobState<J>,
    pace: Pace,
    /// By name.
    parts: BTreeMap<String, Part<J::Progress>>,
    /// What waits to be tried again.
    retries: BTreeMap<String, PendingRetry>,
    stages: Stages<J::Stage>,
    ticks: Option<SpawnHandle>,
}

impl<J: Job> JobActor<J> {
    /// Starts a job, which tells its parent when it has ended.
    pub(crate) fn start(
        shared: &Arc<Shared>,
        id: JobId,
        log: Logger,
        job: J,
        parent: Recipient<JobEnded<J>>,
    ) -> Addr<Self> {
        let (cancel, suspend) = (CancellationToken::new(), CancellationToken::new());
        let now = shared.clock.now();
        let pace = Pace::new(job.began().unwrap_or(now), now);
        Self::create(|context| {
            let successor = job.successor();
            let stop = if successor.is_some() { suspend.clone() } else { cancel.clone() };
            let steps = Steps {
                shared: Arc::clone(shared),
                id,
                log: log.clone(),
                cancel: cancel.clone(),
                suspend: suspend.clone(),
                has_successor: successor.is_some(),
                job: context.address(),
            };
            let (work, load) = (job.describe(), job.load());
            if let Some(work) = &work
                && job.generation() == 1
            {
                announce_start(shared, &log, id, work);
            }
            shared.runtime.spawn(steps::drive(job, successor, work.clone(), steps, parent));
            Self {
                shared: Arc::clone(shared),
                id,
                work,
                log,
                _stop_on_crash: stop.drop_guard(),
                cancel,
                suspend,
                state: JobState::Planning,
                pace,
                parts: BTreeMap::new(),
                retries: BTreeMap::new(),
                stages: Stages::new(load),
                ticks: None,
            }
        })
    }

    /// Enters a state, unless the job has ended. Stages that are worked on make it Running, and what waits Waiting.
    fn enter(&mut self, state: JobState<J>) {
        if matches!(self.state, JobState::Ended(_)) {
            return;
        }
        self.state = if !self.stages.is_empty() {
            JobState::Running
        } else if !self.retries.is_empty() {
            JobState::Waiting
        } else {
            state
        };
    }

    fn counts(&self) -> J::Counts {
        let mut counts = J::Counts::default();
        for part in self.parts.values() {
            counts += J::counts(&part.progress);
        }
        counts
    }

    fn snapshot(&self, is_last: bool) -> JobSnapshot<J::Counts> {
        if let JobState::Ended(result) = &self.state {
            return result.snapshot.clone();
        }
        let elapsed = self.pace.elapsed();
        let mut counts = self.counts();
        J::set_elapsed(&mut counts, elapsed);
        let amounts = self.amounts(&counts);
        let mut progress = self.pace.progress(self.id, amounts, is_last.then_some(elapsed));
        if let Some(retry) = self.retries.values().min_by_key(|retry| retry.at).filter(|_| !is_last) {
            // While something waits it is not known when all will be done.
            progress = RunningJob { estimated_end: None, retry: Some(retry.clone()), ..progress };
        }
        let warnings = self.parts.values().flat_map(|part| J::warnings(&part.progress)).collect();
        JobSnapshot { counts, progress, warnings }
    }

    fn amounts(&self, counts: &J::Counts) -> Amounts {
        J::amounts(counts, self.parts.values().map(|part| part.expected).sum())
    }

    fn tick(&mut self, _: &mut Context<Self>) {
        // A job that was canceled, or that failed, may have no worker that would ask.
        self.stages.dispatch();
        self.pace.sample(self.amounts(&self.counts()));
        let Some(work) = &self.work else { return };
        let progress = self.snapshot(false).progress;
        if let JobWork::Backup { routine, kind, .. } = work {
            self.shared.metrics.backup_progress(routine, *kind, &progress);
        }
        let job = JobLabel { id: self.id, work: work.clone() };
        self.shared.publish(|at| Event::JobProgress { at, job, progress });
    }
}

/// Counts, logs and publishes the start of a job.
fn announce_start(shared: &Shared, log: &Logger, id: JobId, work: &JobWork) {
    match work {
        JobWork::Backup { routine, kind, .. } => {
            info!(log, "backup started");
            shared.metrics.backup_started(routine, *kind);
        }
        JobWork::Restore { .. } => {
            info!(log, "restore started");
            shared.metrics.restore_started();
        }
        JobWork::Verify { .. } => info!(log, "verification started"),
    }
    let job = JobLabel { id, work: work.clone() };
    shared.publish(|at| Event::JobStarted { at, job });
}

impl<J: Job> Actor for JobActor<J> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.ticks = Some(context.run_interval(TICK, Self::tick));
    }
}

impl<J: Job> Handler<BeginPart<J::Progress>> for JobActor<J> {
    type Result = ();

    fn handle(&mut self, begin: BeginPart<J::Progress>, _: &mut Self::Context) {
        let BeginPart { name, progress, expected } = begin;
        self.parts.insert(name, Part { progress, expected });
    }
}

impl<J: Job> Handler<BeginStage<J>> for JobActor<J> {
    type Result = MessageResult<BeginStage<J>>;

    fn handle(
        &mut self,
        BeginStage { stage, workers }: BeginStage<J>,
        _: &mut Self::Context,
    ) -> Self::Result {
        let id = self.stages.add(stage, workers);
        self.enter(JobState::Running);
        MessageResult(id)
    }
}

impl<J: Job> Handler<EndStage<J>> for JobActor<J> {
    type Result = MessageResult<EndStage<J>>;

    fn handle(&mut self, end: EndStage<J>, _: &mut Self::Context) -> Self::Result {
        let stage = self.stages.remove(end.0);
        self.enter(JobState::Finishing);
        MessageResult(stage)
    }
}

impl<J: Job> Handler<AwaitRetry> for JobActor<J> {
    type Result = ();

    fn handle(&mut self, AwaitRetry { what, part, retry }: AwaitRetry, _: &mut Self::Context) {
        if let Some(part) = part {
            self.parts.remove(&part);
        }
        self.retries.insert(what, retry);
        self.enter(JobState::Waiting);
    }
}

impl<J: Job> Handler<BeginRetry> for JobActor<J> {
    type Result = ();

    fn handle(&mut self, BeginRetry(what): BeginRetry, _: &mut Self::Context) {
        self.retries.remove(&what);
        self.enter(JobState::Planning);
    }
}

impl<J: Job> Handler<TakeBatch<J>> for JobActor<J> {
    type Result = ResponseFuture<Option<<J::Stage as Stage>::Batch>>;

    fn handle(&mut self, TakeBatch { stage, ended }: TakeBatch<J>, _: &mut Self::Context) -> Self::Result {
        if matches!(ended, Some(Returned::Lost(_))) {
            error!(self.log, "a worker panicked: a defect of this program");
        }
        let answer = self.stages.take_back(stage, ended);
        self.stages.dispatch();
        Box::pin(async move { answer.await.ok().flatten() })
    }
}

impl<J: Job> Handler<Finish<J>> for JobActor<J> {
    type Result = MessageResult<Finish<J>>;

    fn handle(&mut self, _: Finish<J>, _: &mut Self::Context) -> Self::Result {
        self.enter(JobState::Finishing);
        MessageResult(self.snapshot(true))
    }
}

impl<J: Job> Handler<Ended<J>> for JobActor<J> {
    type Result = ();

    fn handle(&mut self, Ended(result): Ended<J>, context: &mut Self::Context) {
        // The actor ends when nobody has its address any more.
        if let Some(ticks) = self.ticks.take() {
            context.cancel_future(ticks);
        }
        self.state = JobState::Ended(result);
    }
}

impl<J: Job> Handler<Cancel> for JobActor<J> {
    type Result = ();

    fn handle(&mut self, _: Cancel, _: &mut Self::Context) {
        self.cancel.cancel();
        self.stages.dispatch();
    }
}

impl<J: Job> Handler<Suspend> for JobActor<J> {
    type Result = ();

    fn handle(&mut self, _: Suspend, _: &mut Self::Context) {
        self.suspend.cancel();
    }
}

impl<J: Job> Handler<GetSnapshot<J::Counts>> for JobActor<J> {
    type Result = MessageResult<GetSnapshot<J::Counts>>;

    fn handle(&mut self, _: GetSnapshot<J::Counts>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.snapshot(false))
    }
}
