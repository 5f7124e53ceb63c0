//! When backups and verifications are due.

use std::sync::Arc;

use abs_config::{Schedule, Verify};
use abs_engine::catalog::BackupKind;
use actix::{ActorFutureExt as _, AsyncContext as _, Context, SpawnHandle, WrapFuture as _};
use chrono::{DateTime, TimeDelta, Utc};

use super::{ApplyRetention, RoutineActor};
use crate::suspects::tolerance;

/// A backup that was asked for with a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delayed {
    pub kind: BackupKind,
    pub start: DateTime<Utc>,
}

/// What a routine does by a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Backup(BackupKind),
    Verification,
}

impl Task {
    const ALL: [Self; 3] =
        [Self::Backup(BackupKind::Full), Self::Backup(BackupKind::Incremental), Self::Verification];
}

/// A schedule, and the wait for its next time.
#[derive(Debug, Default)]
pub(super) struct Timer {
    schedule: Option<Schedule>,
    pub next: Option<DateTime<Utc>>,
    wait: Option<SpawnHandle>,
}

impl RoutineActor {
    fn timer(&mut self, task: Task) -> &mut Timer {
        match task {
            Task::Backup(kind) => &mut self.lane(kind).timer,
            Task::Verification => &mut self.verification,
        }
    }

    /// The schedule of a task; a disabled routine has none.
    fn schedule_of(&self, task: Task) -> Option<&Schedule> {
        match (task, &self.settings.policy.verify) {
            _ if self.settings.disabled => None,
            (Task::Backup(BackupKind::Full), _) => Some(&self.settings.full),
            (Task::Backup(BackupKind::Incremental), _) => self.settings.incremental.as_ref(),
            (Task::Verification, Verify::Scheduled(schedule)) => Some(&**schedule),
            (Task::Verification, Verify::None | Verify::AfterBackup) => None,
        }
    }

    /// Takes up what an actor of the routine that failed was to do.
    pub(super) fn resume(&self, context: &mut Context<Self>) {
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

    pub(super) fn start_later(&self, delayed: Delayed, context: &mut Context<Self>) {
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

    /// Sets all timers anew, from `after` on.
    pub(super) fn schedule_all(&mut self, after: DateTime<Utc>, context: &mut Context<Self>) {
        for task in Task::ALL {
            let schedule = self.schedule_of(task).cloned();
            // Who changes something else must not postpone what is due.
            if self.timer(task).schedule != schedule {
                self.timer(task).schedule = schedule;
                self.schedule(task, after, context);
            }
        }
    }

    /// Whether a backup was due after a time.
    pub(super) fn was_due(&mut self, kind: BackupKind, since: DateTime<Utc>) -> bool {
        let now = self.shared.clock.now();
        let schedule = self.lane(kind).timer.schedule.as_ref();
        schedule.and_then(|schedule| schedule.next_after(since)).is_some_and(|due| due <= now)
    }

    /// Starts what of a kind is due since a time, and waits for its next time.
    pub(super) fn schedule_backups(
        &mut self,
        kind: BackupKind,
        after: DateTime<Utc>,
        context: &mut Context<Self>,
    ) {
        self.schedule(Task::Backup(kind), after, context);
    }

    fn schedule(&mut self, task: Task, after: DateTime<Utc>, context: &mut Context<Self>) {
        let timer = self.timer(task);
        if let Some(wait) = timer.wait.take() {
            context.cancel_future(wait);
        }
        timer.next = timer.schedule.as_ref().and_then(|schedule| schedule.next_after(after));
        if let Some(due) = timer.next {
            let clock = Arc::clone(&self.shared.clock);
            let wait = async move { clock.sleep_until(due).await };
            let wait = context
                .spawn(wait.into_actor(self).map(move |(), actor, context| actor.due(task, due, context)));
            self.timer(task).wait = Some(wait);
        }
    }

    /// The time of a task has come.
    fn due(&mut self, task: Task, due: DateTime<Utc>, context: &mut Context<Self>) {
        self.timer(task).wait = None;
        // Times that went by while the process slept are not caught up on one by one.
        let after = due.max(self.shared.clock.now());
        self.schedule(task, after, context);
        let Task::Backup(kind) = task else { return self.verify_newest(context) };
        if self.defers() {
            return;
        }
        let just_before = due - TimeDelta::milliseconds(1);
        let with_full = kind == BackupKind::Incremental
            && self.settings.full.next_after(just_before).is_some_and(|full| full == due);
        if with_full {
            self.skip(kind, "a full backup is due at the same time");
        } else {
            self.admit(kind, context);
        }
    }

    /// Looks whether the clock was set: schedules go by it, and the times of backups.
    pub(super) fn notice_jumps(&mut self, context: &mut Context<Self>) {
        let jumps = self.shared.look_at_clock();
        let before = std::mem::replace(&mut self.jumps, jumps);
        if before == jumps {
            return;
        }
        let now = self.shared.clock.now();
        for task in Task::ALL {
            // What is due already starts by itself, once.
            if self.timer(task).next.is_none_or(|next| next > now) {
                self.schedule(task, now, context);
            }
        }
        self.set_back += jumps.set_back - before.set_back;
        if self.set_back > tolerance(&self.settings) {
            // The cluster's clock may have been set back with it, which the difference of both does not tell.
            self.full_due = Some("the clock was set back");
        }
        self.keep_loading(context);
    }
}
