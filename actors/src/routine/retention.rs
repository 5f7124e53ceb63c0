//! What is kept of a routine's backups, and what is deleted.

use std::collections::BTreeSet;

use abs_engine::catalog::CatalogError;
use abs_storage::ObjectPath;
use actix::fut::ready;
use actix::{
    ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, ResponseActFuture, WrapFuture as _,
};
use chrono::{DateTime, Utc};
use slog::{error, info};

use super::RoutineActor;
use crate::messages::RequestError;
use crate::suspects::{latest_true, mark_suspects};

/// Deletes what the policy keeps no longer, unless a restore of the routine reads.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ApplyRetention;

/// Pins the runs of a time, or takes their pin away.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub(crate) struct Pin {
    pub created: DateTime<Utc>,
    pub pinned: bool,
}

/// Deletes the runs of a time; the answer is their folders.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<ObjectPath>, RequestError>")]
pub(crate) struct Delete {
    pub created: DateTime<Utc>,
    /// Delete those that build on them, too.
    pub cascade: bool,
    /// Only answer what would be deleted, or why not.
    pub dry_run: bool,
}

impl RoutineActor {
    /// Deletes what the policy keeps no longer. Never while a restore of this routine reads: the supervisor says when it
    /// has ended.
    pub(super) fn retain(&mut self, context: &Context<Self>) {
        let Ok(permit) = self.permit() else {
            self.memory().retention_due = true;
            return;
        };
        let routine = self.settings.name.clone();
        let lock = self.shared.readers.of(&routine).try_write_owned();
        self.memory().retention_due = lock.is_err();
        let Ok(alone) = lock else { return };
        // Verifications let retention go first.
        self.verify(BTreeSet::new());
        let catalog = self.shared.catalogs.of(&self.settings.storage);
        let (retention, log) = (self.settings.policy.retention, self.log.clone());
        let latest = latest_true(&self.settings, self.shared.clock.now());
        // A run that goes on has no metadata.yaml yet, as what a crash leaves has none.
        let runs = self.full.runs.iter().chain(&self.incremental.runs);
        let in_use: Vec<_> = runs.filter_map(|run| run.folder.clone()).collect();
        let routine_actor = context.address();
        self.shared.runtime.spawn(async move {
            // What is dated in the future would count as the newest for ever.
            let apply = async {
                mark_suspects(&catalog, &routine, latest, &log).await?;
                catalog.apply_retention(&routine, retention, &in_use).await
            };
            match permit.guard(apply).await {
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

    fn not_found(&self, created: DateTime<Utc>) -> RequestError {
        let name = format!("{} of routine {}", created.timestamp_millis(), self.settings.name);
        RequestError::not_found("backup", name)
    }
}

fn refusal(error: &CatalogError) -> RequestError {
    match error {
        CatalogError::BuiltOn { .. }
        | CatalogError::Pinned { .. }
        | CatalogError::InUse { .. }
        | CatalogError::NotHeld { .. }
        | CatalogError::Deleting { .. } => RequestError::Conflict(error.to_string()),
        _ => RequestError::Failed(error.to_string()),
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

impl Handler<Pin> for RoutineActor {
    type Result = ResponseActFuture<Self, Result<(), RequestError>>;

    fn handle(&mut self, pin: Pin, _: &mut Self::Context) -> Self::Result {
        let decided = self.decided().into_actor(self);
        Box::pin(decided.then(|(), actor, _| actor.pin(pin)))
    }
}

impl RoutineActor {
    fn pin(&self, Pin { created, pinned }: Pin) -> ResponseActFuture<Self, Result<(), RequestError>> {
        let permit = match self.permit_request() {
            Ok(permit) => permit,
            Err(e) => return Box::pin(ready(Err(e))),
        };
        let catalog = self.shared.catalogs.of(&self.settings.storage);
        let (routine, log) = (self.settings.name.clone(), self.log.clone());
        let lock = self.shared.readers.of(&self.settings.name);
        let changed = self.shared.runtime.spawn(async move {
            // Neither retention nor a deletion decides meanwhile.
            let _reading = lock.read_owned().await;
            let change = async {
                if pinned { catalog.pin(&routine, created).await } else { catalog.unpin(&routine, created).await }
            };
            let runs = permit.guard(change).await?;
            for run in &runs {
                info!(log, "{}", if pinned { "backup pinned" } else { "backup is not pinned any more" }; "backup" => %run);
            }
            Ok::<_, CatalogError>(!runs.is_empty())
        });
        Box::pin(changed.into_actor(self).map(move |changed, actor, context| {
            // Retention may have found the lock taken.
            context.notify(ApplyRetention);
            match changed {
                Ok(Ok(true)) => Ok(()),
                Ok(Ok(false)) => Err(actor.not_found(created)),
                Ok(Err(e)) => Err(refusal(&e)),
                Err(e) => Err(RequestError::Failed(e.to_string())),
            }
        }))
    }
}

impl Handler<Delete> for RoutineActor {
    type Result = ResponseActFuture<Self, Result<Vec<ObjectPath>, RequestError>>;

    fn handle(&mut self, delete: Delete, _: &mut Self::Context) -> Self::Result {
        let decided = self.decided().into_actor(self);
        Box::pin(decided.then(|(), actor, _| match actor.delete(delete) {
            Ok(deleting) => deleting,
            Err(e) => Box::pin(ready(Err(e))),
        }))
    }
}

type Deleting = ResponseActFuture<RoutineActor, Result<Vec<ObjectPath>, RequestError>>;

impl RoutineActor {
    fn delete(&mut self, Delete { created, cascade, dry_run }: Delete) -> Result<Deleting, RequestError> {
        let refuse =
            |reason: &str| Err(RequestError::Conflict(format!("routine {}: {reason}", self.settings.name)));
        let permit = self.permit_request()?;
        if self.full.is_busy() || self.incremental.is_busy() {
            // What runs may build on it.
            return refuse("a backup is running: cancel it, or try again when it has ended");
        }
        let Ok(alone) = self.shared.readers.of(&self.settings.name).try_write_owned() else {
            return refuse(
                "its backups are being read: try again when the restore or the verification has ended",
            );
        };
        let catalog = self.shared.catalogs.of(&self.settings.storage);
        let (routine, log) = (self.settings.name.clone(), self.log.clone());
        self.deletions += 1;
        let deleted = self.shared.runtime.spawn(async move {
            if dry_run {
                let runs = catalog.plan_deletion(&routine, created, cascade).await?;
                return catalog.check_deletion(&runs).await.map(|()| runs);
            }
            let delete = async {
                let runs = catalog.plan_deletion(&routine, created, cascade).await?;
                let (deleted, result) = catalog.delete_runs(runs).await;
                for run in &deleted {
                    info!(log, "deleted, as it was asked for"; "backup" => %run);
                }
                result.map(|()| deleted)
            };
            let deleted = permit.guard(delete).await;
            drop(alone);
            deleted
        });
        Ok(Box::pin(deleted.into_actor(self).map(move |deleted, actor, context| {
            actor.deletions -= 1;
            // Retention may have found the lock taken.
            context.notify(ApplyRetention);
            if !dry_run {
                // Which are the last ones now is in the storage.
                (actor.full.last, actor.incremental.last) = (None, None);
                actor.keep_loading(context);
            }
            match deleted {
                Ok(Ok(runs)) if runs.is_empty() => Err(actor.not_found(created)),
                Ok(Ok(runs)) => Ok(runs),
                Ok(Err(e)) => Err(refusal(&e)),
                Err(e) => Err(RequestError::Failed(e.to_string())),
            }
        })))
    }
}
