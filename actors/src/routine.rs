//! One routine: its schedule, what may start, what runs, what was made last.
//!
//! | message | from | answer |
//! |---|---|---|
//! | [`Configure`] | supervisor | |
//! | [`Trigger`] | supervisor | whether the request is taken |
//! | [`Release`] | supervisor, at the end | |
//! | [`CancelRuns`] | supervisor | |
//! | [`GetState`] | supervisor | a [`RoutineState`] |
//! | [`RunEnded`] | supervisor | |
//! | [`Adopt`] | supervisor, of each run that there is when the actor is started, or whose job was restarted | |
//! | [`ClockSet`] | supervisor | |
//! | [`ApplyRetention`] | supervisor, when a restore ended; itself, when retention was applied | |
//! | [`Pin`] | supervisor | |
//! | [`Delete`] | supervisor | the runs that are gone |

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abs_config::RoutineSettings;
use abs_engine::BackupSnapshot;
use abs_engine::catalog::{BackupKind, run_folder};
use abs_storage::ObjectPath;
use actix::{
    Actor, ActorContext as _, Addr, Context, Handler, Message, Recipient, ResponseFuture, SpawnHandle,
};
use chrono::{DateTime, TimeDelta, Utc};
use slog::{Logger, info, o};

use crate::job::{BackupJobActor, Cancel, GetSnapshot};
use crate::messages::{BackupResult, JobEnd, JobId, JobSnapshot, RoutineState, RunningJob};
use crate::shared::{Jumps, Shared};
use crate::supervise::Backoff;

mod admission;
mod hold;
mod retention;
mod schedule;
mod storage;
mod verification;

pub(crate) use admission::{NoRun, StartRun, Trigger};
use hold::Hold;
pub(crate) use hold::Release;
pub(crate) use retention::{ApplyRetention, Delete, Pin};
use schedule::{Delayed, Timer};
pub(crate) use verification::VerifyRuns;

/// Gives the routine new settings; the first ones when it was made.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Configure(pub Arc<RoutineSettings>);

/// Ends the routine: it is not configured any more. What runs of it is canceled.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Retire;

/// Cancels what runs.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct CancelRuns;

/// Asks what the routine is doing.
#[derive(Debug, Message)]
#[rtype(result = "RoutineState")]
pub(crate) struct GetState;

/// A run of this routine ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct RunEnded {
    pub id: JobId,
    /// Those that it began with.
    pub settings: Arc<RoutineSettings>,
    pub kind: BackupKind,
    pub created: DateTime<Utc>,
    pub result: Arc<BackupResult>,
}

/// A run that continued while its routine's actor was restarted, that is canceled while its routine is added again, or whose job
/// crashed and was restarted.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Adopt {
    pub id: JobId,
    /// Those that it began with.
    pub settings: Arc<RoutineSettings>,
    pub kind: BackupKind,
    pub created: DateTime<Utc>,
    pub actor: Addr<BackupJobActor>,
}

/// The clock was set.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ClockSet;

/// A run of this routine.
#[derive(Debug)]
struct Run {
    id: JobId,
    actor: Addr<BackupJobActor>,
    folder: Option<ObjectPath>,
}

/// The backups of one kind.
#[derive(Debug, Default)]
struct Lane {
    timer: Timer,
    /// Asked for and not running yet.
    starting: bool,
    runs: Vec<Run>,
    last: Option<DateTime<Utc>>,
}

impl Lane {
    fn is_busy(&self) -> bool {
        self.starting || !self.runs.is_empty()
    }
}

/// Owns a routine.
#[derive(Debug)]
pub(crate) struct RoutineActor {
    shared: Arc<Shared>,
    supervisor: Recipient<StartRun>,
    verifier: Recipient<VerifyRuns>,
    settings: Arc<RoutineSettings>,
    log: Logger,
    hold: Hold,
    full: Lane,
    incremental: Lane,
    verification: Timer,
    /// Of the last run: each run has a time of its own.
    created: DateTime<Utc>,
    /// Why the next backup is a full one, unless the storage says why.
    full_due: Option<&'static str>,
    /// Folders of no run that the log has warned of.
    strays: BTreeSet<ObjectPath>,
    /// The jumps of the clock that were noticed.
    jumps: Jumps,
    /// By how much the clock was set back since the last full backup.
    set_back: TimeDelta,
    memory: Arc<Mutex<Memory>>,
    /// The first actor of the routine, not one that was restarted.
    is_first: bool,
    /// Backups that were due since this time are still to be started.
    start_after: DateTime<Utc>,
    /// Reads what was made last, or waits to do so.
    loading: Option<SpawnHandle>,
    loads: Backoff,
    /// Deletions that were asked for and have not ended.
    deletions: usize,
}

/// What a routine does not forget when its actor fails: the supervisor keeps it for the next one.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Retention was due while a restore read.
    pub retention_due: bool,
    /// Backups that were asked for and whose time has not come.
    delayed: Vec<Delayed>,
}

/// What a routine's actor begins with.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub settings: Arc<RoutineSettings>,
    pub memory: Arc<Mutex<Memory>>,
    /// The time of the last run; the actor is a restarted one if there is one.
    pub created: DateTime<Utc>,
    /// The first actor of the routine, not one that was restarted.
    pub is_first: bool,
    /// Backups that were due since this time are still to be started.
    pub start_after: DateTime<Utc>,
}

impl RoutineActor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        supervisor: Recipient<StartRun>,
        verifier: Recipient<VerifyRuns>,
        Beginning { settings, memory, created, is_first, start_after }: Beginning,
    ) -> Self {
        let log = shared.log.new(o!("routine" => settings.name.clone()));
        let jumps = shared.look_at_clock();
        Self {
            jumps,
            set_back: TimeDelta::zero(),
            shared,
            supervisor,
            verifier,
            settings,
            log,
            hold: Hold::new(),
            full: Lane::default(),
            incremental: Lane::default(),
            verification: Timer::default(),
            created,
            memory,
            is_first,
            start_after,
            loading: None,
            loads: Backoff::default(),
            deletions: 0,
            full_due: None,
            strays: BTreeSet::new(),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lane(&mut self, kind: BackupKind) -> &mut Lane {
        match kind {
            BackupKind::Full => &mut self.full,
            BackupKind::Incremental => &mut self.incremental,
        }
    }

    fn cancel_runs(&self) {
        for run in self.full.runs.iter().chain(&self.incremental.runs) {
            info!(self.log, "canceling"; "job" => run.id.0);
            run.actor.do_send(Cancel);
        }
    }
}

impl Actor for RoutineActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.seek(self.start_after, context);
        if self.is_first {
            self.sweep(true, context);
        }
        self.keep_loading(context);
        self.schedule_all(self.start_after, context);
        self.resume(context);
    }
}

impl Handler<Configure> for RoutineActor {
    type Result = ();

    fn handle(&mut self, Configure(settings): Configure, context: &mut Self::Context) {
        let before = std::mem::replace(&mut self.settings, settings);
        if self.settings.disabled && !before.disabled {
            self.cancel_runs();
        }
        let now = self.shared.clock.now();
        let is_elsewhere = self.settings.storage != before.storage;
        if is_elsewhere || self.settings.disabled != before.disabled {
            self.let_go(context);
            if is_elsewhere {
                // What is given up there may take long.
                self.hold.released = None;
            }
            self.seek(now, context);
        }
        if is_elsewhere {
            // Another storage holds other backups.
            (self.full.last, self.incremental.last) = (None, None);
            self.keep_loading(context);
        }
        self.schedule_all(now, context);
    }
}

impl Handler<Retire> for RoutineActor {
    type Result = ();

    fn handle(&mut self, _: Retire, context: &mut Self::Context) {
        self.cancel_runs();
        self.let_go(context);
        context.stop();
    }
}

impl Handler<CancelRuns> for RoutineActor {
    type Result = ();

    fn handle(&mut self, _: CancelRuns, _: &mut Self::Context) {
        self.cancel_runs();
    }
}

impl Handler<GetState> for RoutineActor {
    type Result = ResponseFuture<RoutineState>;

    fn handle(&mut self, _: GetState, _: &mut Self::Context) -> Self::Result {
        let mut state = RoutineState {
            last_full: self.full.last,
            last_incremental: self.incremental.last,
            next_full: self.full.timer.next,
            next_incremental: self.incremental.timer.next,
            ..RoutineState::default()
        };
        let job = |lane: &Lane| lane.runs.last().map(|run| run.actor.send(GetSnapshot::new()));
        let (full, incremental) = (job(&self.full), job(&self.incremental));
        Box::pin(async move {
            // A job that has just ended answers no more.
            if let Some(progress) = full {
                state.full = running(progress.await);
            }
            if let Some(progress) = incremental {
                state.incremental = running(progress.await);
            }
            state
        })
    }
}

impl Handler<RunEnded> for RoutineActor {
    type Result = ();

    fn handle(&mut self, ended: RunEnded, context: &mut Self::Context) {
        let RunEnded { id, settings, kind, created, result } = ended;
        let is_here = settings.storage == self.settings.storage;
        let lane = self.lane(kind);
        lane.runs.retain(|run| run.id != id);
        if !is_here {
            // What it made is in the storage that the routine had before.
            return;
        }
        let is_kept = result.is_kept();
        if is_kept {
            lane.last = lane.last.max(Some(created));
            if kind == BackupKind::Full {
                (self.full_due, self.set_back) = (None, TimeDelta::zero());
            }
        }
        if matches!(result.end, JobEnd::FullDue(_)) {
            self.admit(BackupKind::Full, context);
        }
        // Also when another namespace has failed: what was kept takes room.
        if is_kept && kind == BackupKind::Full {
            self.retain(context);
        }
    }
}

impl Handler<Adopt> for RoutineActor {
    type Result = ();

    fn handle(&mut self, adopted: Adopt, _: &mut Self::Context) {
        let Adopt { id, settings, kind, created, actor } = adopted;
        let folder = folder(&settings, kind, created);
        let runs = &mut self.lane(kind).runs;
        runs.retain(|run| run.id != id);
        runs.push(Run { id, actor, folder });
    }
}

impl Handler<ClockSet> for RoutineActor {
    type Result = ();

    fn handle(&mut self, _: ClockSet, context: &mut Self::Context) {
        self.notice_jumps(context);
    }
}

/// The progress of a job that has not ended.
fn running<E>(snapshot: Result<JobSnapshot<BackupSnapshot>, E>) -> Option<RunningJob> {
    snapshot.ok().map(|snapshot| snapshot.progress).filter(|progress| progress.finished.is_none())
}

/// The folder of a run.
fn folder(settings: &RoutineSettings, kind: BackupKind, created: DateTime<Utc>) -> Option<ObjectPath> {
    run_folder(&settings.name, kind, created, settings.timestamp_format).ok()
}
