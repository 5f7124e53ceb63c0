//! What a restore does, step by step, on the runtime.
//!
//! The namespaces of a restore to a point in time are restored at the same time, each of them as one chain.

use std::sync::Arc;

use abs_cluster::Cluster;
use abs_config::{ClusterSettings, RestoreSettings, Secret};
use abs_engine::{
    ChainRestore, EngineError, Link, RestoreLimits, RestorePlan, RestoreProgress, RestoreReport,
    RestoreSnapshot,
};
use abs_storage::Storage;
use actix::{Addr, Message, Recipient};
use slog::{Logger, error, info, warn};
use tokio::sync::{OwnedRwLockReadGuard, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::job::fallen;
use crate::messages::system::{Event, JobLabel};
use crate::messages::{JobId, JobState, RequestError, RestoreStatus, StartRestore};
use crate::metrics::Totals;
use crate::restore_job::{BeginChain, ReadFiles, RestoreJobActor};
use crate::run_error::RunError;
use crate::settings;
use crate::shared::Shared;

/// Restores one chain: the files of each link are read by the workers of the job's actor.
async fn restore_chain(
    job: &Addr<RestoreJobActor>,
    cluster: &Cluster,
    storage: &Arc<dyn Storage>,
    chain: &Chain,
    plan: &RestorePlan,
    limits: &Arc<RestoreLimits>,
    cancel: &CancellationToken,
) -> Result<RestoreReport, EngineError> {
    let progress = Arc::new(RestoreProgress::default());
    for warning in &chain.warnings {
        progress.warn(warning.clone());
    }
    let begin = BeginChain { progress: Arc::clone(&progress), expected: chain.records };
    job.send(begin).await.map_err(fallen)?;
    let run = ChainRestore::begin(cluster, storage, &chain.links, plan, limits, &progress, cancel).await?;
    while let Some(queue) = run.next_link().await {
        let read = ReadFiles { run: Arc::clone(&run), queue, workers: plan.parallel.max(1) };
        if let Err(e) = job.send(read).await {
            run.fail(fallen(e));
        }
    }
    run.finish().await
}

/// Makes the one restore that the command line asked for.
pub(crate) async fn single(
    start: StartRestore,
    job: &Addr<RestoreJobActor>,
    cancel: &CancellationToken,
) -> Result<RestoreReport, EngineError> {
    let StartRestore { cluster, storage, links, plan } = start;
    let limits = RestoreLimits::new(&plan, 1);
    let chain = Chain { source: plan.source.clone(), links, records: None, warnings: Vec::new() };
    restore_chain(job, &cluster, &storage, &chain, &plan, &limits, cancel).await
}

/// The links to restore into one namespace, the newest first.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// The namespace that they are backups of.
    pub source: String,
    pub links: Vec<Link>,
    /// How many records they hold, if that is known.
    pub records: Option<u64>,
    /// Warnings for the user, one line each.
    pub warnings: Vec<String>,
}

/// The work of a restore for a client of the service.
#[derive(Debug)]
pub(crate) struct RestoreWork {
    /// The cluster to write to.
    pub cluster: Arc<ClusterSettings>,
    /// The storage to read from.
    pub storage: Arc<dyn Storage>,
    pub policy: RestoreSettings,
    pub encryption_key: Option<Secret>,
    /// One for each namespace.
    pub chains: Vec<Chain>,
    /// Whether the routine that made the backups has a list of bins.
    pub may_lack_bins: bool,
    /// Keeps retention away from what is read.
    pub reading: Vec<OwnedRwLockReadGuard<()>>,
}

/// Keeps backups of some namespaces from running until the restore has ended; refused while one of them runs.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub(crate) struct ReserveNamespaces {
    pub id: JobId,
    pub cluster: Arc<ClusterSettings>,
    pub namespaces: Vec<String>,
}

/// A restore for a client of the service, and the channel on which its plan is reported.
pub(crate) struct ServiceRestore<P> {
    pub id: JobId,
    /// Finds out what there is to restore.
    pub plan: P,
    /// Receives whether the restore can be made, as soon as that is known.
    pub planned: oneshot::Sender<Result<(), RequestError>>,
    pub reserve: Recipient<ReserveNamespaces>,
}

impl<P> ServiceRestore<P>
where
    P: Future<Output = Result<RestoreWork, RequestError>>,
{
    /// Plans the restore, reports the plan, and carries it out.
    pub(crate) async fn run(
        self,
        shared: &Shared,
        log: &Logger,
        job: &Addr<RestoreJobActor>,
        cancel: &CancellationToken,
    ) -> Result<Vec<RestoreReport>, EngineError> {
        let planning = prepare(self.id, self.plan, self.reserve, shared);
        let prepared = cancel.run_until_cancelled(planning).await;
        let (refusal, prepared) = match prepared.unwrap_or(Err(EngineError::Canceled.into())) {
            Ok(prepared) => (None, Ok(prepared)),
            Err(Unprepared::Refused(e)) => (Some(e.clone()), Err(EngineError::Plan(e.to_string()))),
            Err(Unprepared::Failed(RunError::Engine(e))) => (None, Err(e)),
            Err(Unprepared::Failed(e)) => (None, Err(EngineError::Plan(e.to_string()))),
        };
        // A request that waits no longer needs no answer.
        let _ = self.planned.send(refusal.map_or(Ok(()), Err));
        prepared?.restore(log, job, cancel).await
    }
}

/// Why a restore cannot begin.
enum Unprepared {
    /// The request cannot be carried out.
    Refused(RequestError),
    /// Something that the request does not say failed.
    Failed(RunError),
}

impl<E: Into<RunError>> From<E> for Unprepared {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

async fn prepare(
    id: JobId,
    plan: impl Future<Output = Result<RestoreWork, RequestError>>,
    reserve: Recipient<ReserveNamespaces>,
    shared: &Shared,
) -> Result<Prepared, Unprepared> {
    let work = plan.await.map_err(Unprepared::Refused)?;
    let key = settings::key(&work.policy.encryption, work.encryption_key.as_ref()).await?;
    let plans: Vec<_> = work
        .chains
        .iter()
        .map(|chain| RestorePlan {
            may_lack_bins: work.may_lack_bins,
            ..RestorePlan::from_settings(&work.policy, &chain.source, key.clone())
        })
        .collect();
    let namespaces: Vec<_> = plans.iter().map(|plan| plan.destination.clone()).collect();
    // Once it was connected, a cluster is known by its nodes, too.
    let lease = shared.clusters.lease(&work.cluster).await?;
    let reserved =
        reserve.send(ReserveNamespaces { id, cluster: Arc::clone(&work.cluster), namespaces }).await;
    reserved.map_err(|_| Unprepared::Refused(RequestError::Stopping))?.map_err(Unprepared::Refused)?;
    let known = lease.cluster.namespaces().await.map_err(EngineError::from)?;
    if let Some(plan) = plans.iter().find(|plan| !known.contains(&plan.destination)) {
        return Err(Unprepared::Refused(RequestError::Invalid(format!(
            "the cluster has no namespace {}, only {}",
            plan.destination,
            known.join(", ")
        ))));
    }
    Ok(Prepared { work, plans, lease })
}

/// A restore that can begin.
struct Prepared {
    work: RestoreWork,
    /// In the order of the chains.
    plans: Vec<RestorePlan>,
    lease: Arc<crate::shared::Lease>,
}

impl Prepared {
    async fn restore(
        self,
        log: &Logger,
        job: &Addr<RestoreJobActor>,
        cancel: &CancellationToken,
    ) -> Result<Vec<RestoreReport>, EngineError> {
        let RestoreWork { storage, policy, chains, reading, .. } = self.work;
        let limits = RestoreLimits::new(&RestorePlan::from_settings(&policy, "", None), chains.len());
        let mut namespaces = JoinSet::new();
        // When one namespace fails there is no point in filling the others.
        let stop = cancel.child_token();
        for (chain, plan) in chains.into_iter().zip(self.plans) {
            let (cluster, storage) = (self.lease.cluster.clone(), Arc::clone(&storage));
            let (limits, job, log, stop) = (Arc::clone(&limits), job.clone(), log.clone(), stop.clone());
            namespaces.spawn(async move {
                let folders: Vec<_> =
                    chain.links.iter().flat_map(|link| &link.folders).map(ToString::to_string).collect();
                info!(log, "restoring"; "backups" => folders.join(", "), "namespace" => &plan.destination);
                restore_chain(&job, &cluster, &storage, &chain, &plan, &limits, &stop).await
            });
        }
        let mut reports = Vec::new();
        let mut failure = None;
        while let Some(ended) = namespaces.join_next().await {
            match ended.unwrap_or_else(|e| Err(EngineError::Worker(e.to_string()))) {
                Ok(report) => reports.push(report),
                Err(e) => {
                    stop.cancel();
                    // A namespace that was stopped gives no reason.
                    if matches!(failure, None | Some(EngineError::Canceled)) {
                        failure = Some(e);
                    }
                }
            }
        }
        drop(reading);
        failure.map_or(Ok(reports), Err)
    }
}

/// Counts and logs the end of a restore; returns its final status, and the event, to be published when the supervisor
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
    let RestoreStatus { counts, job, warnings, .. } = status;
    let RestoreSnapshot { inserted, read, .. } = counts;
    match &error {
        Some(e) => error!(log, "restore failed"; "error" => e, "inserted" => inserted),
        None if state == JobState::Canceled => warn!(log, "restore canceled"; "inserted" => inserted),
        None => info!(log, "restore done"; "inserted" => inserted, "read" => read),
    }
    for warning in &warnings {
        warn!(log, "{warning}");
    }
    for (code, count) in &counts.refused {
        warn!(log, "the cluster refused records"; "code" => code.0, "meaning" => code.meaning(), "remedy" => code.remedy(), "records" => count);
    }
    if let Ok(reports) = result {
        for name in reports.iter().flat_map(|report| &report.conflicting_indexes) {
            warn!(log, "the index exists already with another definition and was left alone"; "index" => name);
        }
    }
    let totals = Totals { records: inserted, bytes: counts.bytes_read, duration: job.duration };
    shared.metrics.restore_ended(state.into(), totals);
    let (told, progress) = (error.clone(), job.clone());
    let event = Event::JobFinished { at: shared.clock.now(), job: label, state, error: told, progress };
    (RestoreStatus { counts, job, state, error, warnings }, event)
}
