//! What a routine knows of its storage.

use std::sync::Arc;

use abs_config::{OnInterrupt, RoutineSettings, StorageSettings};
use abs_engine::catalog::{BackupKind, CatalogError, Misdated, Swept, Unfinished};
use abs_storage::ObjectPath;
use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use chrono::{DateTime, TimeDelta, Utc};
use slog::{info, warn};

use super::{RoutineActor, folder};
use crate::suspects::{latest_true, mark_suspects};

/// What was made last.
#[derive(Debug)]
pub(super) struct Lasts {
    /// Where.
    storage: Arc<StorageSettings>,
    /// The latest possible time of a backup.
    latest: DateTime<Utc>,
    full: Option<DateTime<Utc>>,
    /// Whether there are full backups, but none whose time is right.
    pub is_full_suspect: bool,
    incremental: Option<DateTime<Utc>>,
    /// Folders that are named like those of runs, but of no possible time.
    strays: Vec<ObjectPath>,
}

/// The longest time after which an interrupted backup is continued.
const LONGEST_INTERRUPTION: TimeDelta = TimeDelta::days(1);

/// Whether an interrupted run is continued: while its last checkpoint is younger than the interval of its schedule.
fn is_worth_continuing(settings: &RoutineSettings, run: &Unfinished) -> bool {
    let schedule = match run.kind {
        BackupKind::Full => Some(&settings.full),
        BackupKind::Incremental => settings.incremental.as_ref(),
    };
    let next = schedule.and_then(|schedule| schedule.next_after(run.created));
    let interval = next.map_or(LONGEST_INTERRUPTION, |next| LONGEST_INTERRUPTION.min(next - run.created));
    let age = run.checkpoint.elapsed().unwrap_or_default();
    settings.policy.on_interrupt == OnInterrupt::Resume
        && !settings.disabled
        // The format of the names of folders may have changed.
        && folder(settings, run.kind, run.created).as_ref() == Some(&run.run)
        && interval.to_std().is_ok_and(|interval| age < interval)
}

impl RoutineActor {
    /// Reads from storage what was made last, and marks what is dated in the future.
    pub(super) fn load(&self) -> impl Future<Output = Result<Lasts, String>> + 'static {
        let storage = Arc::clone(&self.settings.storage);
        let catalog = self.shared.catalogs.of(&storage);
        let (routine, log) = (self.settings.name.clone(), self.log.clone());
        let latest = latest_true(&self.settings, self.shared.clock.now());
        let (runtime, permit) = (self.shared.runtime.clone(), self.permit().ok());
        async move {
            // Storage is read on the multi-threaded runtime, not here where only books are kept.
            let read = runtime.spawn(async move {
                // A storage that cannot be written to may still be readable.
                let misdated = match permit {
                    Some(permit) => permit.guard(mark_suspects(&catalog, &routine, latest, &log)).await,
                    None => Ok(Misdated::default()),
                };
                let strays = misdated.unwrap_or_default().strays;
                let full = catalog.last(&routine, BackupKind::Full, ..=latest).await?;
                let incremental = catalog.last(&routine, BackupKind::Incremental, ..=latest).await?;
                let is_full_suspect =
                    full.is_none() && !catalog.list(&routine, BackupKind::Full, ..).await?.backups.is_empty();
                Ok::<_, CatalogError>(Lasts { storage, latest, full, is_full_suspect, incremental, strays })
            });
            match read.await {
                Ok(lasts) => lasts.map_err(|e| e.to_string()),
                Err(e) => Err(format!("a worker failed: {e}")),
            }
        }
    }

    /// Reads from storage what was made last, again and again until the storage answers.
    pub(super) fn keep_loading(&mut self, context: &mut Context<Self>) {
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

    /// Continues what a crash interrupted, and deletes what else it left behind. While it is not known whether a process on
    /// another machine has ended, that is repeated. Backups that are due wait for it: what is continued may be what is due.
    pub(super) fn sweep(&self, is_first: bool, context: &mut Context<Self>) {
        let Ok(permit) = self.permit() else { return };
        let catalog = self.shared.catalogs.of(&self.settings.storage);
        let (settings, log) = (Arc::clone(&self.settings), self.log.clone());
        let swept = self.shared.runtime.spawn(async move {
            let keeps = |run: &Unfinished| is_worth_continuing(&settings, run);
            let sweep = async { Ok(catalog.sweep(&settings.name, keeps).await) };
            let Swept { deleted, unfinished, again_in, result } = permit.guard(sweep).await?;
            for folder in deleted {
                info!(log, "deleted what a crash left of a backup"; "folder" => %folder);
            }
            if let Err(e) = result {
                warn!(log, "what a crash may have left is still there"; "error" => %e);
            }
            Ok::<_, CatalogError>((unfinished, again_in))
        });
        context.spawn(swept.into_actor(self).map(move |swept, actor, context| {
            // When the routine was lost, the service that has it sweeps.
            let (unfinished, again_in) = swept.ok().and_then(Result::ok).unwrap_or_default();
            if let Some(wait) = again_in {
                context.run_later(wait, |actor, context| actor.sweep(false, context));
            }
            for Unfinished { kind, created, run, .. } in unfinished {
                // Another one may have begun meanwhile, or the routine been disabled.
                let Err(reason) = actor.check(kind) else {
                    actor.continue_run(kind, created, context);
                    continue;
                };
                warn!(actor.log, "an interrupted backup is deleted"; "folder" => %run, "reason" => reason);
                let (catalog, log) = (actor.shared.catalogs.of(&actor.settings.storage), actor.log.clone());
                let Ok(permit) = actor.permit() else { return };
                actor.shared.runtime.spawn(async move {
                    if let Err(e) = permit.guard(catalog.remove_unfinished(&run)).await {
                        warn!(log, "it could not be deleted"; "error" => %e);
                    }
                });
            }
            // A run that is still unknown then has a process that goes on with it.
            if again_in.is_none() || !is_first {
                actor.catch_up(context);
            }
        }));
    }

    pub(super) fn loaded(&mut self, lasts: Lasts) {
        let Lasts { storage, latest, full, incremental, strays, .. } = lasts;
        // While it was read the routine may have moved to another storage, and a run may have ended.
        if storage == self.settings.storage {
            self.forget_after(latest);
            self.full.last = self.full.last.max(full);
            self.incremental.last = self.incremental.last.max(incremental);
            for stray in strays {
                if self.strays.insert(stray.clone()) {
                    warn!(self.log, "a folder is passed over: its name says no time at which a backup can have begun"; "folder" => %stray);
                }
            }
        }
    }

    /// Forgets the last backups if they are dated later than any true time.
    pub(super) fn forget_after(&mut self, latest: DateTime<Utc>) {
        for lane in [&mut self.full, &mut self.incremental] {
            lane.last = lane.last.filter(|last| *last <= latest);
        }
    }
}
