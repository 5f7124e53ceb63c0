//! One routine: its schedule, what may start, what runs, what was made last.
//!
//! | message | from | answer |
//! |---|---|---|
//! | [`Configure`] | supervisor | |
//! | [`Trigger`] | supervisor | whether the request is taken |
//! | [`CancelRuns`] | supervisor | |
//! | [`GetState`] | supervisor | a [`RoutineState`] |
//! | [`RunEnded`] | supervisor | |
//! | [`Adopt`] | supervisor, of each run that goes on when the actor is started | |
//! | [`ClockSet`] | supervisor | |
//! | [`ApplyRetention`] | supervisor, when a restore ended; itself, when retention was applied | |

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use abs_config::{RoutineSettings, Schedule, StorageSettings};
use abs_engine::BackupSnapshot;
use abs_engine::catalog::{BackupKind, CatalogError, run_folder};
use abs_storage::ObjectPath;
use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, Addr, AsyncContext as _, Context, Handler, Message,
    Recipient, ResponseFuture, SpawnHandle, WrapFuture as _,
};
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use slog::{Logger, error, info, o, warn};

use crate::job::{BackupJobActor, Cancel, GetSnapshot};
use crate::messages::system::Event;
use crate::messages::{BackupResult, JobEnd, JobId, JobSnapshot, RequestError, RoutineState, RunningJob};
use crate::metrics::Outcome;
use crate::shared::{Jumps, Shared};
use crate::supervise::Backoff;
use crate::suspects::{latest_true, mark_suspects, tolerance};

/// Backups that may be asked for with a delay at the same time: each takes memory until its time has come.
const MOST_DELAYED: usize = 1000;

/// A routine asks for a run of its own.
#[derive(Debug, Message)]
#[rtype(result = "Result<(JobId, Addr<BackupJobActor>), NoRun>")]
pub(crate) struct StartRun {
    pub settings: Arc<RoutineSettings>,
    pub kind: BackupKind,
    pub created: DateTime<Utc>,
}

/// Why a run is not started.
#[derive(Debug)]
pub(crate) enum NoRun {
    /// The service is stopping.
    Stopping,
    /// This namespace is being restored.
    Restoring(String),
}

/// Gives the routine new settings; the first ones when it was made.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Configure(pub Arc<RoutineSettings>);

/// Ends the routine: it is not configured any more. What runs of it is canceled.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Retire;

/// Asks for a backup after a delay.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub(crate) struct Trigger {
    pub kind: BackupKind,
    pub delay: Duration,
}

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

/// A run that went on while its routine's actor was started again, or is canceled while its routine is added again.
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

/// Deletes what the policy keeps no longer, unless a restore of the routine reads.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ApplyRetention;

/// A run of this routine.
#[derive(Debug)]
struct Run {
    id: JobId,
    actor: Addr<BackupJobActor>,
    folder: Option<ObjectPath>,
}

/// One of the two schedules of a routine.
#[derive(Debug, Default)]
struct Lane {
    schedule: Option<Schedule>,
    next: Option<DateTime<Utc>>,
    timer: Option<SpawnHandle>,
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
    settings: Arc<RoutineSettings>,
    log: Logger,
    full: Lane,
    incremental: Lane,
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
}

/// What a routine does not forget when its actor fails: the supervisor keeps it for the next one.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Retention was due while a restore read.
    pub retention_due: bool,
    /// Backups that were asked for and whose time has not come.
    delayed: Vec<Delayed>,
}

/// A backup that was asked for with a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Delayed {
    kind: BackupKind,
    start: DateTime<Utc>,
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
        Beginning { settings, memory, created, is_first, start_after }: Beginning,
    ) -> Self {
        let log = shared.log.new(o!("routine" => settings.name.clone()));
        let jumps = shared.look_at_clock();
        Self {
            jumps,
            set_back: TimeDelta::zero(),
            shared,
            supervisor,
            settings,
            log,
            full: Lane::default(),
            incremental: Lane::default(),
            created,
            memory,
            is_first,
            start_after,
            loading: None,
            loads: Backoff::default(),
            full_due: None,
            strays: BTreeSet::new(),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what an actor of the routine that failed was to do.
    fn resume(&self, context: &mut Context<Self>) {
        let (delayed, retention_due) = {
            let memory = self.memory();
            (memory.delayed.clone(), memory.retention_due)
        };
        for delayed in delayed {
            self.start_later(delayed, context);
        }
        if retention_due {
            // Retention of the failed actor may still be running; its end is not reported to this one.
            let lock = self.shared.readers.of(&self.settings.name);
            let free = async move { drop(lock.read_owned().await) };
            context.spawn(free.into_actor(self).map(|(), _, context| context.notify(ApplyRetention)));
        }
    }

    fn start_later(&self, delayed: Delayed, context: &mut Context<Self>) {
        let clock = Arc::clone(&self.shared.clock);
        // A clock that is set moves no delay.
        let wait = (delayed.start - self.shared.clock.now()).to_std().unwrap_or_default();
        let wait = async move { clock.sleep(wait).await };
        context.spawn(wait.into_actor(self).map(move |(), actor, context| {
            {
                let mut memory = actor.memory();
                if let Some(i) = memory.delayed.iter().position(|other| *other == delayed) {
                    memory.delayed.swap_remove(i);
                }
            }
            actor.admit(delayed.kind, context);
        }));
    }

    fn lane(&mut self, kind: BackupKind) -> &mut Lane {
        match kind {
            BackupKind::Full => &mut self.full,
            BackupKind::Incremental => &mut self.incremental,
        }
    }

    /// Sets both timers anew, from `after` on; of a disabled routine, none.
    fn schedule_all(&mut self, after: DateTime<Utc>, context: &mut Context<Self>) {
        let (full, incremental) = if self.settings.disabled {
            (None, None)
        } else {
            (Some(self.settings.full.clone()), self.settings.incremental.clone())
        };
        for (kind, schedule) in [(BackupKind::Full, full), (BackupKind::Incremental, incremental)] {
            // Who changes something else must not postpone what is due.
            if self.lane(kind).schedule != schedule {
                self.lane(kind).schedule = schedule;
                self.schedule(kind, after, context);
            }
        }
    }

    fn schedule(&mut self, kind: BackupKind, after: DateTime<Utc>, context: &mut Context<Self>) {
        let lane = self.lane(kind);
        if let Some(timer) = lane.timer.take() {
            context.cancel_future(timer);
        }
        lane.next = lane.schedule.as_ref().and_then(|schedule| schedule.next_after(after));
        if let Some(due) = lane.next {
            let clock = Arc::clone(&self.shared.clock);
            let wait = async move { clock.sleep_until(due).await };
            let timer = context
                .spawn(wait.into_actor(self).map(move |(), actor, context| actor.due(kind, due, context)));
            self.lane(kind).timer = Some(timer);
        }
    }

    /// The time of a scheduled backup has come.
    fn due(&mut self, kind: BackupKind, due: DateTime<Utc>, context: &mut Context<Self>) {
        self.lane(kind).timer = None;
        // Times that went by while the process slept are not caught up on one by one.
        let after = due.max(self.shared.clock.now());
        self.schedule(kind, after, context);
        let just_before = due - TimeDelta::milliseconds(1);
        let with_full = kind == BackupKind::Incremental
            && self.settings.full.next_after(just_before).is_some_and(|full| full == due);
        if with_full {
            self.skip(kind, "a full backup is due at the same time");
        } else {
            self.admit(kind, context);
        }
    }

    /// Starts a backup if the rules let it.
    fn admit(&mut self, kind: BackupKind, context: &mut Context<Self>) {
        if self.settings.disabled {
            return;
        }
        self.notice_jumps(context);
        let alone = kind == BackupKind::Full || self.settings.policy.concurrent_incremental;
        if self.lane(kind).is_busy() && (kind == BackupKind::Full || !alone) {
            return self.skip(kind, "the one before is still running");
        }
        if kind == BackupKind::Full {
            return self.start(kind, context);
        }
        if self.full.is_busy() && !alone {
            return self.skip(kind, "a full backup is running");
        }
        if let Some(reason) = self.full_due {
            warn!(self.log, "a full backup is made in place of an incremental one"; "reason" => reason);
            return self.admit(BackupKind::Full, context);
        }
        if self.full.last.is_some() {
            return self.start(kind, context);
        }
        // Perhaps the storage could not be read before, or somebody brought backups there.
        let load = self.load();
        context.spawn(load.into_actor(self).map(|lasts, actor, context| {
            let unlisted = lasts.as_ref().err().cloned();
            let mut is_full_suspect = false;
            if let Ok(lasts) = lasts {
                is_full_suspect = lasts.is_full_suspect;
                actor.loaded(lasts);
            }
            if actor.full.last.is_some() {
                // Much may have changed while the storage was read.
                actor.admit(BackupKind::Incremental, context);
            } else if let Some(error) = unlisted {
                actor.skip(BackupKind::Incremental, &format!("the backups cannot be listed: {error}"));
            } else if is_full_suspect {
                // Otherwise incremental backups would wait for the next scheduled full one.
                actor.full_due = Some("the times of all full backups are wrong");
                actor.admit(BackupKind::Incremental, context);
            } else {
                actor.skip(BackupKind::Incremental, "there is no full backup yet");
            }
        }));
    }

    fn skip(&self, kind: BackupKind, reason: &str) {
        let routine = &self.settings.name;
        warn!(self.log, "backup skipped"; "type" => kind.as_str(), "reason" => reason);
        self.shared.metrics.backup_event(routine, kind, Outcome::Skip);
        self.shared.publish(|at| Event::BackupSkipped {
            at,
            routine: routine.clone(),
            kind,
            reason: reason.to_owned(),
        });
    }

    fn start(&mut self, kind: BackupKind, context: &mut Context<Self>) {
        self.lane(kind).starting = true;
        let now = self.shared.clock.now().trunc_subsecs(3);
        let latest = latest_true(&self.settings, now);
        if self.full.last.max(self.incremental.last) > Some(latest) {
            // The clock was set back: which backup is the last of those that count is in the storage.
            let load = self.load();
            context.spawn(load.into_actor(self).map(move |lasts, actor, context| {
                actor.lane(kind).starting = false;
                if let Ok(lasts) = lasts {
                    actor.loaded(lasts);
                } else {
                    let latest = latest_true(&actor.settings, actor.shared.clock.now());
                    for lane in [&mut actor.full, &mut actor.incremental] {
                        lane.last = lane.last.filter(|last| *last <= latest);
                    }
                }
                if !actor.settings.disabled {
                    actor.start(kind, context);
                }
            }));
            return;
        }
        // The time of a run names its folder, so no two runs have the same, and it is later than those of the backups that
        // the run may build on. A backup dated further in the future is none of them.
        let last = [Some(self.created), self.full.last, self.incremental.last].into_iter().flatten();
        if let Some(last) = last.filter(|last| (now..=latest).contains(last)).max() {
            let clock = Arc::clone(&self.shared.clock);
            let wait = (last - now).to_std().unwrap_or_default() + Duration::from_millis(1);
            let waited = async move { clock.sleep(wait).await };
            context.spawn(waited.into_actor(self).map(move |(), actor, context| {
                actor.lane(kind).starting = false;
                if !actor.settings.disabled {
                    actor.start(kind, context);
                }
            }));
            return;
        }
        self.created = now;
        let folder = folder(&self.settings, kind, self.created);
        let start = StartRun { settings: Arc::clone(&self.settings), kind, created: self.created };
        let asked = self.supervisor.send(start);
        // The supervisor answers at once; until it did, the end of the run must not be heard of.
        context.wait(asked.into_actor(self).map(move |answer, actor, _| {
            let lane = actor.lane(kind);
            lane.starting = false;
            match answer {
                Ok(Ok((id, job))) => lane.runs.push(Run { id, actor: job, folder }),
                Ok(Err(NoRun::Restoring(namespace))) => {
                    actor.skip(kind, &format!("namespace {namespace} is being restored"));
                }
                // A supervisor that has ended or is stopping starts nothing.
                Ok(Err(NoRun::Stopping)) | Err(_) => {}
            }
        }));
    }

    /// Reads from storage what was made last, and marks what is dated in the future.
    fn load(&self) -> impl Future<Output = Result<Lasts, String>> + 'static {
        let storage = Arc::clone(&self.settings.storage);
        let catalog = self.shared.catalogs.of(&storage);
        let (routine, log) = (self.settings.name.clone(), self.log.clone());
        let latest = latest_true(&self.settings, self.shared.clock.now());
        let runtime = self.shared.runtime.clone();
        async move {
            // Storage is read on the multi-threaded runtime, not here where only books are kept.
            let read = runtime.spawn(async move {
                // A storage that cannot be written to may still be readable.
                let misdated = mark_suspects(&catalog, &routine, latest, &log).await.unwrap_or_default();
                let full = catalog.last(&routine, BackupKind::Full, ..=latest).await?;
                let incremental = catalog.last(&routine, BackupKind::Incremental, ..=latest).await?;
                let is_full_suspect =
                    full.is_none() && !catalog.list(&routine, BackupKind::Full, ..).await?.backups.is_empty();
                let strays = misdated.strays;
                Ok::<_, CatalogError>(Lasts { storage, latest, full, is_full_suspect, incremental, strays })
            });
            match read.await {
                Ok(lasts) => lasts.map_err(|e| e.to_string()),
                Err(e) => Err(format!("a worker failed: {e}")),
            }
        }
    }

    /// Reads from storage what was made last, again and again until the storage answers.
    fn keep_loading(&mut self, context: &mut Context<Self>) {
        if let Some(loading) = self.loading.take() {
            context.cancel_future(loading);
        }
        let load = self.load();
        self.loading = Some(context.spawn(load.into_actor(self).map(|lasts, actor, context| match lasts {
            Ok(lasts) => {
                actor.loaded(lasts);
                actor.loads.reset();
            }
            Err(error) => {
                let wait = actor.loads.next_wait();
                warn!(actor.log, "the backups cannot be listed"; "error" => error, "next_attempt_in" => ?wait);
                actor.loading = Some(context.run_later(wait, Self::keep_loading));
            }
        })));
    }

    /// Deletes what a crash left behind.
    fn sweep(&self) {
        let catalog = self.shared.catalogs.of(&self.settings.storage);
        let (routine, log) = (self.settings.name.clone(), self.log.clone());
        self.shared.runtime.spawn(async move {
            let (deleted, result) = catalog.sweep(&routine).await;
            for folder in deleted {
                info!(log, "deleted what a crash left of a backup"; "folder" => %folder);
            }
            if let Err(e) = result {
                warn!(log, "what a crash may have left is still there"; "error" => %e);
            }
        });
    }

    fn loaded(&mut self, lasts: Lasts) {
        let Lasts { storage, latest, full, incremental, strays, .. } = lasts;
        // While it was read the routine may have moved to another storage, and a run may have ended.
        if storage == self.settings.storage {
            let newer = |known: Option<DateTime<Utc>>, read| known.filter(|known| *known <= latest).max(read);
            self.full.last = newer(self.full.last, full);
            self.incremental.last = newer(self.incremental.last, incremental);
            for stray in strays {
                if self.strays.insert(stray.clone()) {
                    warn!(self.log, "a folder is passed over: its name says no time at which a backup can have begun"; "folder" => %stray);
                }
            }
        }
    }

    /// Looks whether the clock was set: schedules go by it, and the times of backups.
    fn notice_jumps(&mut self, context: &mut Context<Self>) {
        let jumps = self.shared.look_at_clock();
        let before = std::mem::replace(&mut self.jumps, jumps);
        if before == jumps {
            return;
        }
        let now = self.shared.clock.now();
        for kind in BackupKind::ALL {
            // What is due already starts by itself, once.
            if self.lane(kind).next.is_none_or(|next| next > now) {
                self.schedule(kind, now, context);
            }
        }
        self.set_back += jumps.set_back - before.set_back;
        if self.set_back > tolerance(&self.settings) {
            // The cluster's clock may have been set back with it, which the difference of both does not tell.
            self.full_due = Some("the clock was set back");
        }
        self.keep_loading(context);
    }

    fn cancel_runs(&self) {
        for run in self.full.runs.iter().chain(&self.incremental.runs) {
            info!(self.log, "canceling"; "job" => run.id.0);
            run.actor.do_send(Cancel);
        }
    }

    /// Deletes what the policy keeps no longer. Never while a restore of this routine reads: the supervisor says when it
    /// has ended.
    fn retain(&mut self, context: &Context<Self>) {
        let routine = self.settings.name.clone();
        let lock = self.shared.readers.of(&routine).try_write_owned();
        self.memory().retention_due = lock.is_err();
        let Ok(alone) = lock else { return };
        let catalog = self.shared.catalogs.of(&self.settings.storage);
        let (retention, log) = (self.settings.policy.retention, self.log.clone());
        let latest = latest_true(&self.settings, self.shared.clock.now());
        // A run that goes on has no metadata.yaml yet, as what a crash leaves has none.
        let runs = self.full.runs.iter().chain(&self.incremental.runs);
        let in_use: Vec<_> = runs.filter_map(|run| run.folder.clone()).collect();
        let routine_actor = context.address();
        self.shared.runtime.spawn(async move {
            // What is dated in the future would count as the newest for ever.
            let applied = match mark_suspects(&catalog, &routine, latest, &log).await {
                Ok(_) => catalog.apply_retention(&routine, retention, &in_use).await,
                Err(e) => Err(e),
            };
            match applied {
                Ok(deleted) => {
                    for run in deleted {
                        info!(log, "deleted, as the retention policy says"; "backup" => %run);
                    }
                }
                Err(e) => {
                    error!(log, "retention failed; it is tried again after the next full backup"; "error" => %e);
                }
            }
            drop(alone);
            // A full backup that ended meanwhile found the lock taken.
            routine_actor.do_send(ApplyRetention);
        });
    }
}

impl Actor for RoutineActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        if self.is_first {
            self.sweep();
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
        if self.settings.storage != before.storage {
            // Another storage holds other backups.
            (self.full.last, self.incremental.last) = (None, None);
            self.keep_loading(context);
        }
        self.schedule_all(self.shared.clock.now(), context);
    }
}

impl Handler<Retire> for RoutineActor {
    type Result = ();

    fn handle(&mut self, _: Retire, context: &mut Self::Context) {
        self.cancel_runs();
        context.stop();
    }
}

impl Handler<Trigger> for RoutineActor {
    type Result = Result<(), RequestError>;

    fn handle(&mut self, Trigger { kind, delay }: Trigger, context: &mut Self::Context) -> Self::Result {
        let name = &self.settings.name;
        if self.settings.disabled {
            return Err(RequestError::Invalid(format!("routine {name} is disabled: enable it first")));
        }
        let now = self.shared.clock.now();
        let start = TimeDelta::from_std(delay).ok().and_then(|delay| now.checked_add_signed(delay));
        let start = start.ok_or_else(|| RequestError::Invalid("delay: is beyond all times".to_owned()))?;
        info!(self.log, "backup asked for"; "type" => kind.as_str(), "start" => %start);
        if delay.is_zero() {
            self.admit(kind, context);
            return Ok(());
        }
        let delayed = Delayed { kind, start };
        {
            let mut memory = self.memory();
            if memory.delayed.len() == MOST_DELAYED {
                return Err(RequestError::Invalid(format!(
                    "{MOST_DELAYED} backups of routine {name} are asked for already"
                )));
            }
            memory.delayed.push(delayed);
        }
        self.start_later(delayed, context);
        Ok(())
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
            next_full: self.full.next,
            next_incremental: self.incremental.next,
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
        self.lane(kind).runs.push(Run { id, actor, folder });
    }
}

impl Handler<ClockSet> for RoutineActor {
    type Result = ();

    fn handle(&mut self, _: ClockSet, context: &mut Self::Context) {
        self.notice_jumps(context);
    }
}

impl Handler<ApplyRetention> for RoutineActor {
    type Result = ();

    fn handle(&mut self, _: ApplyRetention, context: &mut Self::Context) {
        let is_due = self.memory().retention_due;
        if is_due {
            self.retain(context);
        }
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

/// What was made last.
#[derive(Debug)]
struct Lasts {
    /// Where.
    storage: Arc<StorageSettings>,
    /// The latest possible time of a backup.
    latest: DateTime<Utc>,
    full: Option<DateTime<Utc>>,
    /// Whether there are full backups, but none whose time is right.
    is_full_suspect: bool,
    incremental: Option<DateTime<Utc>>,
    /// Folders that are named like those of runs, but of no possible time.
    strays: Vec<ObjectPath>,
}
