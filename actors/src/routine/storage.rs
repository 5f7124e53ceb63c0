//! What a routine knows of its storage.

use std::collections::BTreeSet;
use std::sync::Arc;

use abs_config::{OnInterrupt, RoutineSettings, StorageSettings};
use abs_engine::catalog::{BackupKind, CatalogError, Swept, Unfinished};
use abs_storage::ObjectPath;
use actix::{ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, WrapFuture as _};
use chrono::{DateTime, TimeDelta, Utc};
use slog::{error, info, warn};

use super::{RoutineActor, folder};
use crate::suspects::{latest_true, mark_suspects};

/// Deletes what the policy keeps no longer, unless a restore of the routine reads.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ApplyRetention;

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

    /// Continues what a crash interrupted, and deletes what else it left behind.
    pub(super) fn sweep(&self, context: &mut Context<Self>) {
        let catalog = self.shared.catalogs.of(&self.settings.storage);
        let (settings, log) = (Arc::clone(&self.settings), self.log.clone());
        let swept = self.shared.runtime.spawn(async move {
            let keeps = |run: &Unfinished| is_worth_continuing(&settings, run);
            let Swept { deleted, unfinished, result } = catalog.sweep(&settings.name, keeps).await;
            for folder in deleted {
                info!(log, "deleted what a crash left of a backup"; "folder" => %folder);
            }
            if let Err(e) = result {
                warn!(log, "what a crash may have left is still there"; "error" => %e);
            }
            unfinished
        });
        context.spawn(swept.into_actor(self).map(|unfinished, actor, context| {
            for Unfinished { kind, created, run, .. } in unfinished.unwrap_or_default() {
                // Another one may have begun meanwhile, or the routine been disabled.
                let Err(reason) = actor.check(kind) else {
                    actor.continue_run(kind, created, context);
                    continue;
                };
                warn!(actor.log, "an interrupted backup is deleted"; "folder" => %run, "reason" => reason);
                let (catalog, log) = (actor.shared.catalogs.of(&actor.settings.storage), actor.log.clone());
                actor.shared.runtime.spawn(async move {
                    if let Err(e) = catalog.remove_run(&run).await {
                        warn!(log, "it could not be deleted"; "error" => %e);
                    }
                });
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

    /// Deletes what the policy keeps no longer. Never while a restore of this routine reads: the supervisor says when it
    /// has ended.
    pub(super) fn retain(&mut self, context: &Context<Self>) {
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

impl Handler<ApplyRetention> for RoutineActor {
    type Result = ();

    fn handle(&mut self, _: ApplyRetention, context: &mut Self::Context) {
        let is_due = self.memory().retention_due;
        if is_due {
            self.retain(context);
        }
    }
}
