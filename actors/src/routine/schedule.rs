//! When backups are due.

use std::sync::Arc;

use abs_engine::catalog::BackupKind;
use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use chrono::{DateTime, TimeDelta, Utc};

use super::{ApplyRetention, RoutineActor};
use crate::suspects::tolerance;

/// A backup that was asked for with a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delayed {
    pub kind: BackupKind,
    pub start: DateTime<Utc>,
}

impl RoutineActor {
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

    /// Sets both timers anew, from `after` on; of a disabled routine, none.
    pub(super) fn schedule_all(&mut self, after: DateTime<Utc>, context: &mut Context<Self>) {
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

    /// Looks whether the clock was set: schedules go by it, and the times of backups.
    pub(super) fn notice_jumps(&mut self, context: &mut Context<Self>) {
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
}
