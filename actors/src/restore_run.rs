//! What a restore does, step by step, on the runtime.
//!
//! The namespaces of a restore to a point in time are restored at the same time, the backups of each one after the other:
//! from the oldest to the newest, so that later records overwrite earlier ones; or, into an empty namespace, from the
//! newest to the oldest, creating only what is not there yet, which writes every record once.

use std::sync::Arc;

use abs_cluster::Cluster;
use abs_config::{ClusterSettings, RestoreSettings, Secret};
use abs_engine::catalog::listing::AT_ONCE;
use abs_engine::{
    EngineError, Metadata, RestoreLimits, RestorePlan, RestoreProgress, RestoreReport, RestoreRun,
    check_readable,
};
use abs_storage::{ObjectPath, Storage};
use actix::Addr;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use slog::{Logger, error, info, warn};
use tokio::sync::OwnedRwLockReadGuard;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::job::fallen;
use crate::messages::system::{Event, JobLabel};
use crate::messages::{JobState, RestoreStatus, StartRestore};
use crate::metrics::Totals;
use crate::restore_job::{BeginBackup, ReadFiles, RestoreJobActor};
use crate::run_error::RunError;
use crate::settings;
use crate::shared::Shared;

/// Makes the one restore that the command line asked for.
pub(crate) async fn single(
    start: StartRestore,
    job: &Addr<RestoreJobActor>,
    cancel: &CancellationToken,
) -> Result<RestoreReport, EngineError> {
    let StartRestore { cluster, storage, folder, plan } = start;
    let limits = RestoreLimits::new(&plan);
    piece(job, &cluster, &storage, &folder, &plan, &limits, cancel).await
}

/// Restores one backup: its files are read by the workers of the job's actor.
async fn piece(
    job: &Addr<RestoreJobActor>,
    cluster: &Cluster,
    storage: &Arc<dyn Storage>,
    folder: &ObjectPath,
    plan: &RestorePlan,
    limits: &Arc<RestoreLimits>,
    cancel: &CancellationToken,
) -> Result<RestoreReport, EngineError> {
    let progress = Arc::new(RestoreProgress::default());
    job.send(BeginBackup(Arc::clone(&progress))).await.map_err(fallen)?;
    let (run, queue) = RestoreRun::begin(cluster, storage, folder, plan, limits, &progress, cancel).await?;
    let read = ReadFiles { run: Arc::clone(&run), queue, workers: plan.parallel.max(1) };
    if let Err(e) = job.send(read).await {
        run.fail(fallen(e));
    }
    run.finish().await
}

/// A restore that was asked of the service.
#[derive(Debug)]
pub(crate) struct RestoreWork {
    /// The routine, of a restore to a point in time.
    pub routine: Option<String>,
    /// The cluster to write to.
    pub cluster: Arc<ClusterSettings>,
    /// The storage to read from.
    pub storage: Arc<dyn Storage>,
    pub policy: RestoreSettings,
    pub encryption_key: Option<Secret>,
    /// Of each namespace the backups to restore, from the oldest to the newest.
    pub chains: Vec<Vec<Piece>>,
    /// An empty namespace may be restored from the newest backup to the oldest.
    pub reorder: bool,
    /// Keeps retention away from what is read.
    pub reading: Option<OwnedRwLockReadGuard<()>>,
}

/// One backup to restore.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub folder: ObjectPath,
    pub metadata: Arc<Metadata>,
}

impl RestoreWork {
    /// Records in all backups.
    pub(crate) fn expected_records(&self) -> u64 {
        self.chains.iter().flatten().map(|piece| piece.metadata.record_count).sum()
    }

    /// Restores everything.
    pub(crate) async fn restore(
        self,
        shared: &Shared,
        log: &Logger,
        job: &Addr<RestoreJobActor>,
        cancel: &CancellationToken,
    ) -> Result<Vec<RestoreReport>, EngineError> {
        let all = self.all(shared, log, job, cancel).await;
        all.map_err(|e| match e {
            RunError::Engine(e) => e,
            other => EngineError::Plan(other.to_string()),
        })
    }

    /// Fails when one of several backups lies in an archive, before the first of them is restored.
    async fn check_readable(&self) -> Result<(), EngineError> {
        let pieces: Vec<_> = self.chains.iter().flatten().collect();
        if pieces.len() < 2 {
            // It is looked at before anything of it is restored.
            return Ok(());
        }
        let checks = pieces.into_iter().map(|piece| check_readable(&*self.storage, &piece.folder));
        let checks: Vec<_> = checks.collect();
        stream::iter(checks).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn all(
        self,
        shared: &Shared,
        log: &Logger,
        job: &Addr<RestoreJobActor>,
        cancel: &CancellationToken,
    ) -> Result<Vec<RestoreReport>, RunError> {
        let canceled = || RunError::Engine(EngineError::Canceled);
        let connect = cancel.run_until_cancelled(shared.clusters.lease(&self.cluster));
        let lease = connect.await.ok_or_else(canceled)??;
        let key =
            cancel.run_until_cancelled(settings::key(&self.policy.encryption, self.encryption_key.as_ref()));
        let key = key.await.ok_or_else(canceled)??;
        let readable = cancel.run_until_cancelled(self.check_readable());
        readable.await.ok_or_else(canceled)??;
        let limits = RestoreLimits::new(&RestorePlan::from_settings(&self.policy, "", None));
        let mut namespaces = JoinSet::new();
        // When one namespace fails there is no point in filling the others.
        let stop = cancel.child_token();
        for mut chain in self.chains {
            let Some(source) = chain.first().map(|piece| piece.metadata.namespace.clone()) else { continue };
            let mut plan = RestorePlan::from_settings(&self.policy, &source, key.clone());
            let (cluster, storage, limits) =
                (lease.cluster.clone(), Arc::clone(&self.storage), Arc::clone(&limits));
            let (job, log, stop, reorder) = (job.clone(), log.clone(), stop.clone(), self.reorder);
            namespaces.spawn(async move {
                if reorder && chain.len() > 1 {
                    let statistics = cluster.statistics(&plan.destination);
                    let statistics = stop.run_until_cancelled(statistics).await.ok_or(EngineError::Canceled)??;
                    if statistics.master_objects == 0 {
                        info!(log, "the namespace is empty: restoring the newest backup first"; "namespace" => &plan.destination);
                        chain.reverse();
                        plan.unique = true;
                    }
                }
                let mut reports = Vec::new();
                for Piece { folder, .. } in &chain {
                    info!(log, "restoring"; "backup" => %folder, "namespace" => &plan.destination);
                    reports.push(piece(&job, &cluster, &storage, folder, &plan, &limits, &stop).await?);
                }
                Ok::<_, EngineError>(reports)
            });
        }
        let mut reports = Vec::new();
        let mut failure = None;
        while let Some(ended) = namespaces.join_next().await {
            match ended.unwrap_or_else(|e| Err(EngineError::Worker(e.to_string()))) {
                Ok(done) => reports.extend(done),
                Err(e) => {
                    stop.cancel();
                    // Who was stopped says no more than that.
                    if matches!(failure, None | Some(EngineError::Canceled)) {
                        failure = Some(e);
                    }
                }
            }
        }
        drop(self.reading);
        match failure {
            Some(e) => Err(e.into()),
            None => Ok(reports),
        }
    }
}

/// Counts and logs the end of a restore; returns how it stands for good, and the event, to be told when everybody within
/// knows of the end.
pub(crate) fn conclude(
    shared: &Shared,
    log: &Logger,
    label: JobLabel,
    result: &Result<Vec<RestoreReport>, EngineError>,
    status: RestoreStatus,
) -> (RestoreStatus, Event) {
    let (state, error) = match result {
        Ok(_) => (JobState::Done, None),
        Err(EngineError::Canceled) => (JobState::Canceled, None),
        Err(e) => (JobState::Failed, Some(e.to_string())),
    };
    let counts = status.counts;
    let totals = Totals { records: counts.inserted, bytes: counts.bytes_read, duration: status.job.duration };
    match &error {
        Some(e) => error!(log, "restore failed"; "error" => e, "inserted" => counts.inserted),
        None if state == JobState::Canceled => warn!(log, "restore canceled"; "inserted" => counts.inserted),
        None => info!(log, "restore done"; "inserted" => counts.inserted, "read" => counts.read),
    }
    if let Ok(reports) = result {
        for name in reports.iter().flat_map(|report| &report.conflicting_indexes) {
            warn!(log, "the index exists already with another definition and was left alone"; "index" => name);
        }
    }
    shared.metrics.restore_ended(state.into(), totals);
    let status = RestoreStatus { counts, job: status.job, state, error };
    let (error, progress) = (status.error.clone(), status.job.clone());
    let event = Event::JobFinished { at: shared.clock.now(), job: label, state, error, progress };
    (status, event)
}
