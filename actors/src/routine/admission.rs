//! What may start, and its start.

use std::sync::Arc;
use std::time::Duration;

use abs_config::RoutineSettings;
use abs_engine::catalog::BackupKind;
use actix::{
    ActorFutureExt as _, Addr, AsyncContext as _, Context, Handler, Message, ResponseActFuture,
    WrapFuture as _,
};
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use slog::{info, warn};

use super::hold::Permit;
use super::schedule::Delayed;
use super::{RoutineActor, Run, folder};
use crate::job::BackupJobActor;
use crate::messages::system::Event;
use crate::messages::{JobId, RequestError};
use crate::metrics::Outcome;
use crate::suspects::latest_true;

/// Backups that may be asked for with a delay at the same time: each takes memory until its time has come.
const MOST_DELAYED: usize = 1000;

/// Asks for a backup after a delay.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub(crate) struct Trigger {
    pub kind: BackupKind,
    pub delay: Duration,
}

/// A routine asks for a run of its own.
#[derive(Debug, Message)]
#[rtype(result = "Result<(JobId, Addr<BackupJobActor>), NoRun>")]
pub(crate) struct StartRun {
    pub settings: Arc<RoutineSettings>,
    pub kind: BackupKind,
    pub created: DateTime<Utc>,
    /// It was begun by a process that has ended.
    pub continues: bool,
}

/// Why a run is not started.
#[derive(Debug)]
pub(crate) enum NoRun {
    /// The service is stopping.
    Stopping,
    /// This namespace is being restored.
    Restoring(String),
}

/// Whether a backup may start, or why not.
fn check(
    kind: BackupKind,
    full_busy: bool,
    incremental_busy: bool,
    concurrent: bool,
) -> Result<(), &'static str> {
    match (kind, full_busy, incremental_busy, concurrent) {
        (BackupKind::Full, true, _, _) | (BackupKind::Incremental, _, true, false) => {
            Err("the one before is still running")
        }
        (BackupKind::Incremental, true, false, false) => Err("a full backup is running"),
        (BackupKind::Full, false, _, _)
        | (BackupKind::Incremental, _, _, true)
        | (BackupKind::Incremental, false, false, false) => Ok(()),
    }
}

impl Handler<Trigger> for RoutineActor {
    type Result = ResponseActFuture<Self, Result<(), RequestError>>;

    fn handle(&mut self, trigger: Trigger, _: &mut Self::Context) -> Self::Result {
        let decided = self.decided().into_actor(self);
        Box::pin(decided.map(move |(), actor, context| actor.trigger(trigger, context)))
    }
}

impl RoutineActor {
    fn trigger(
        &mut self,
        Trigger { kind, delay }: Trigger,
        context: &mut Context<Self>,
    ) -> Result<(), RequestError> {
        let name = &self.settings.name;
        if self.settings.disabled {
            return Err(RequestError::Invalid(format!("routine {name} is disabled: enable it first")));
        }
        self.permit_request()?;
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

    /// Starts a backup if the rules let it.
    pub(super) fn admit(&mut self, kind: BackupKind, context: &mut Context<Self>) {
        if self.settings.disabled {
            return;
        }
        match self.permit() {
            Ok(permit @ Permit::Claimed(_)) => {
                let check = async move { permit.check().await };
                context.spawn(check.into_actor(self).map(move |checked, actor, context| match checked {
                    Ok(()) => actor.admit_held(kind, context),
                    Err(e) => actor.skip(kind, &e.to_string()),
                }));
            }
            Ok(Permit::Unclaimed | Permit::OnDemand(..)) => self.admit_held(kind, context),
            Err(reason) => self.skip(kind, &reason),
        }
    }

    /// Starts a backup of a routine that this service has.
    fn admit_held(&mut self, kind: BackupKind, context: &mut Context<Self>) {
        self.notice_jumps(context);
        if let Err(reason) = self.check(kind) {
            return self.skip(kind, reason);
        }
        if kind == BackupKind::Full {
            return self.start(kind, context);
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

    /// Whether a backup may start now, or why not.
    pub(super) fn check(&self, kind: BackupKind) -> Result<(), &'static str> {
        if self.settings.disabled {
            return Err("the routine is disabled");
        }
        if self.deletions > 0 {
            return Err("a backup is being deleted");
        }
        let concurrent = self.settings.policy.concurrent_incremental;
        check(kind, self.full.is_busy(), self.incremental.is_busy(), concurrent)
    }

    pub(super) fn skip(&self, kind: BackupKind, reason: &str) {
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

    /// Starts a backup that had to wait, unless the routine was disabled meanwhile.
    fn start_again(&mut self, kind: BackupKind, context: &mut Context<Self>) {
        self.lane(kind).starting = false;
        if !self.settings.disabled {
            self.start(kind, context);
        }
    }

    fn start(&mut self, kind: BackupKind, context: &mut Context<Self>) {
        self.lane(kind).starting = true;
        let now = self.shared.clock.now().trunc_subsecs(3);
        let latest = latest_true(&self.settings, now);
        if self.full.last.max(self.incremental.last) > Some(latest) {
            // The clock was set back: which backup is the last of those that count is in the storage.
            let load = self.load();
            context.spawn(load.into_actor(self).map(move |lasts, actor, context| {
                match lasts {
                    Ok(lasts) => actor.loaded(lasts),
                    // It is logged by the reading that is repeated until the storage answers.
                    Err(_) => actor.forget_after(latest),
                }
                actor.start_again(kind, context);
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
            context.spawn(
                waited.into_actor(self).map(move |(), actor, context| actor.start_again(kind, context)),
            );
            return;
        }
        self.begin(kind, now, false, context);
    }

    /// Continues a run that was begun by a process that has ended.
    pub(super) fn continue_run(
        &mut self,
        kind: BackupKind,
        created: DateTime<Utc>,
        context: &mut Context<Self>,
    ) {
        info!(self.log, "continuing the backup that the end of the service interrupted"; "type" => kind.as_str(), "created" => %created);
        self.lane(kind).starting = true;
        self.begin(kind, created, true, context);
    }

    fn begin(
        &mut self,
        kind: BackupKind,
        created: DateTime<Utc>,
        continues: bool,
        context: &mut Context<Self>,
    ) {
        self.created = self.created.max(created);
        let folder = folder(&self.settings, kind, created);
        let start = StartRun { settings: Arc::clone(&self.settings), kind, created, continues };
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
}

#[cfg(test)]
mod tests {
    use BackupKind::{Full, Incremental};

    use super::*;

    /// Protects: two full backups of a routine never run at the same time; incremental ones run beside others only with
    /// `concurrent-incremental`.
    #[test]
    fn what_runs_decides_what_may_start() {
        for (full_busy, incremental_busy) in [(false, false), (false, true), (true, false), (true, true)] {
            for concurrent in [false, true] {
                let may_start = |kind| check(kind, full_busy, incremental_busy, concurrent).is_ok();
                assert_eq!(may_start(Full), !full_busy);
                assert_eq!(may_start(Incremental), concurrent || !(full_busy || incremental_busy));
            }
        }
        assert_eq!(check(Incremental, true, false, false), Err("a full backup is running"));
    }
}
