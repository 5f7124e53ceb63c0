//! What a run of a routine finds out before its first namespace begins.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use abs_asb::EncryptionKey;
use abs_cluster::Cluster;
use abs_config::IncrementalMode;
use abs_engine::catalog::{BackupKind, Base, CatalogError, Foundations, Misdated, namespace_folder};
use abs_engine::{BackupLimits, BackupPlan, BackupReport, EngineError, find_metadata, find_unfinished};
use abs_storage::{ObjectPath, Storage};
use chrono::{DateTime, TimeDelta, Utc};
use slog::{error, info, warn};

use super::{Backup, RoutineRun, until_stopped};
use crate::job::Steps;
use crate::messages::PendingRetry;
use crate::metrics::Outcome;
use crate::run_error::RunError;
use crate::settings;
use crate::shared::Lease;
use crate::supervise::wait_after;
use crate::suspects::{latest_true, mark_suspects};

/// Where one namespace is read and written.
pub(super) struct Place {
    pub cluster: Cluster,
    pub storage: Arc<dyn Storage>,
    pub folder: ObjectPath,
}

impl Place {
    /// Deletes what attempts left that failed.
    pub(super) async fn discard(&self, steps: &Steps<Backup>, plan: &BackupPlan) {
        if let Err(e) = abs_engine::discard(&self.storage, &self.folder, plan).await {
            error!(steps.log, "what the backup left could not be deleted"; "error" => %e);
        }
    }
}

/// What is known before the first namespace begins.
pub(super) struct Prepared {
    pub lease: Arc<Lease>,
    pub limits: Arc<BackupLimits>,
    /// Where, what, and what it builds on.
    pub namespaces: Vec<(Place, BackupPlan, Option<Base>)>,
}

impl RoutineRun {
    /// Finds out what there is to do.
    pub(super) async fn prepare(&self, steps: &Steps<Backup>) -> Result<Prepared, RunError> {
        let settings = &self.settings;
        let ask = || async {
            // Questions may be dropped at any moment.
            let asked = until_stopped(steps, self.continues, async {
                let lease = steps.shared.clusters.lease(&settings.cluster).await?;
                let namespaces = match &settings.namespaces[..] {
                    [] => lease.cluster.namespaces().await.map_err(EngineError::from)?,
                    names => names.iter().map(|name| name.as_str().to_owned()).collect(),
                };
                let key = settings::main_key(&settings.keys).await?;
                let later = self.mark_suspects(steps).await;
                let foundations = match self.kind {
                    // What it finds there is no reason not to make a full backup.
                    BackupKind::Full => Foundations::default(),
                    BackupKind::Incremental => {
                        let (catalog, later) = (self.catalog(steps), later?);
                        let traits = self.plan(steps, "", key.clone()).chain_traits();
                        catalog
                            .foundations(&settings.name, &namespaces, self.created, &traits, &later)
                            .await?
                    }
                };
                Ok::<_, RunError>((lease, namespaces, key, foundations))
            });
            asked.await?
        };
        let (lease, names, key, foundations) = self.with_retries(steps, &Step::Questions, ask).await?;
        if let Some(due) = foundations.full_due {
            return Err(due.into());
        }
        if self.kind == BackupKind::Incremental && foundations.of.is_empty() {
            // The routine has full backups, but of other namespaces.
            let (routine, time) = (settings.name.clone(), self.created);
            return Err(CatalogError::NoBackup { routine, time, suspect: None }.into());
        }
        let run = self.folder()?;
        if self.kind == BackupKind::Full && settings.policy.with_cluster_configuration {
            let write = || async {
                let written = until_stopped(steps, self.continues, async {
                    let all = lease.cluster.configuration().await.map_err(EngineError::from)?;
                    for (index, (_, text)) in all.iter().enumerate() {
                        self.catalog(steps).write_configuration(&run, index, text).await?;
                    }
                    Ok(())
                });
                written.await?
            };
            self.with_retries(steps, &Step::Configuration, write).await?;
        }
        let mut namespaces = Vec::new();
        for name in names {
            let (mut plan, mut base) = (self.plan(steps, &name, key.clone()), None);
            if self.kind == BackupKind::Incremental {
                let Some(foundation) = foundations.of.get(&name) else {
                    info!(steps.log, "namespace skipped: it has no full backup yet"; "namespace" => &name);
                    continue;
                };
                base = Some(match settings.policy.incremental_mode {
                    IncrementalMode::Differential => foundation.last,
                    IncrementalMode::Cumulative => foundation.full,
                });
                (plan.no_indexes, plan.no_udfs, plan.skip_empty) = (true, true, true);
            }
            let place = Place {
                cluster: lease.cluster.clone(),
                storage: Arc::clone(self.catalog(steps).storage()),
                folder: namespace_folder(&run, &name).map_err(CatalogError::from)?,
            };
            namespaces.push((place, plan, base));
        }
        let limits = match namespaces.first() {
            Some((_, plan, _)) => BackupLimits::new(plan, Some(Arc::clone(&lease.scans))),
            None => BackupLimits::new(&BackupPlan::new(""), None),
        };
        Ok(Prepared { lease, limits, namespaces })
    }

    /// The backup of a namespace that was finished before the process ended that began this run.
    pub(super) async fn find_finished(
        &self,
        steps: &Steps<Backup>,
        Place { storage, folder, .. }: &Place,
        plan: &BackupPlan,
    ) -> Result<Option<BackupReport>, RunError> {
        if !self.continues {
            return Ok(None);
        }
        // When it is not known whether it is there, nothing of the backup may be touched.
        if let Some(metadata) = find_metadata(&**storage, folder).await? {
            let (elapsed, retries, warnings) = (Duration::ZERO, 0, Vec::new());
            return Ok(Some(BackupReport { metadata, elapsed, retries, empty: false, warnings }));
        }
        if let Err(e) = find_unfinished(storage, folder, plan).await {
            warn!(steps.log, "the namespace is backed up from the start"; "namespace" => &plan.namespace, "reason" => %e);
        }
        Ok(None)
    }

    /// What is backed up of a namespace, without bounds of time.
    fn plan(&self, steps: &Steps<Backup>, namespace: &str, key: Option<EncryptionKey>) -> BackupPlan {
        let settings = &self.settings;
        let mut plan = BackupPlan::from_settings(&settings.policy, namespace, key);
        plan.sets.clone_from(&settings.sets);
        plan.bins.clone_from(&settings.bins);
        plan.filter.clone_from(&settings.filter);
        plan.partitions = settings::partitions(settings);
        plan.prefer_racks.clone_from(&settings.cluster.prefer_racks);
        plan.continues = self.continues;
        plan.owner = self.catalog(steps).owner().clone();
        plan
    }

    async fn mark_suspects(&self, steps: &Steps<Backup>) -> Result<Misdated, CatalogError> {
        let latest = latest_true(&self.settings, steps.shared.clock.now());
        mark_suspects(&self.catalog(steps), &self.settings.name, latest, &steps.log).await
    }

    /// Does `work`, and again as the retry policy says while it fails for reasons that may pass.
    pub(super) async fn with_retries<T, F>(
        &self,
        steps: &Steps<Backup>,
        step: &Step,
        mut work: impl FnMut() -> F,
    ) -> Result<T, RunError>
    where
        F: Future<Output = Result<T, RunError>>,
    {
        let mut attempt = 0;
        loop {
            let error = match work().await {
                Err(e) if e.is_transient() && !steps.cancel.is_cancelled() => e,
                result => return result,
            };
            let Some(wait) = self.settings.policy.retry.wait(attempt) else { return Err(error) };
            attempt += 1;
            warn!(steps.log, "trying again"; "what" => %step, "attempt" => attempt, "wait" => ?wait, "error" => %error);
            steps.shared.metrics.backup_event(&self.settings.name, self.kind, Outcome::Retry);
            pause(steps, step, wait, error.to_string()).await?;
        }
    }

    /// Waits before a run is continued whose job crashed.
    pub(super) async fn await_restart(&self, steps: &Steps<Backup>) -> Result<(), RunError> {
        if self.generation == 1 {
            return Ok(());
        }
        let wait = wait_after(self.generation - 1);
        info!(steps.log, "continuing the backup whose job crashed"; "generation" => self.generation, "in" => ?wait);
        pause(steps, &Step::Run, wait, "the actor of the job crashed".to_owned()).await
    }
}

/// Waits until `step` is tried again after an error.
async fn pause(steps: &Steps<Backup>, step: &Step, wait: Duration, error: String) -> Result<(), RunError> {
    let at = TimeDelta::from_std(wait).ok().and_then(|wait| Utc::now().checked_add_signed(wait));
    let retry = PendingRetry { at: at.unwrap_or(DateTime::<Utc>::MAX_UTC), error };
    steps.await_retry(step.to_string(), step.namespace(), retry).await;
    until_stopped(steps, true, tokio::time::sleep(wait)).await?;
    steps.begin_retry(step.to_string()).await;
    Ok(())
}

/// A step of a run that may be tried more than once.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Run,
    Questions,
    Configuration,
    Namespace(String),
}

impl Step {
    fn namespace(&self) -> Option<String> {
        match self {
            Self::Namespace(name) => Some(name.clone()),
            Self::Run | Self::Questions | Self::Configuration => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run => f.write_str("the run"),
            Self::Questions => f.write_str("the cluster and the storage"),
            Self::Configuration => f.write_str("the configuration of the cluster"),
            Self::Namespace(name) => write!(f, "namespace {name}"),
        }
    }
}
