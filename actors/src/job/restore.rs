//! What a restore does, step by step.
//!
//! The namespaces of a restore to a point in time are restored at the same time, each of them as one chain.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use abs_config::{ClusterSettings, KeySecrets, RestoreSettings};
use abs_engine::{
    ChainPosition, EngineError, KeyRing, RestoreLimits, RestorePlan, RestoreProgress, RestoreReport,
    RestoreSnapshot,
};
use abs_storage::Storage;
use actix::{Message, Recipient};
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use slog::{error, info, warn};
use tokio::sync::{OwnedRwLockReadGuard, oneshot};
use tokio::task::JoinSet;

use self::chain::{ChainTask, restore_chain};
use self::journaling::keep_journal;
use self::patience::patiently;
use self::reading::Reading;
use super::progress::Amounts;
use super::{Conclusion, Job, Steps};
use crate::journal::Chain;
use crate::messages::system::JobWork;
use crate::messages::{JobEnd, JobId, RequestError, RestoreResult, StartRestore};
use crate::metrics::Totals;
use crate::run_error::RunError;
use crate::settings;
use crate::shared::Lease;

mod chain;
mod journaling;
mod marks;
mod patience;
mod reading;

/// The kind of job that restores.
pub(crate) enum Restore {
    /// One for the command line.
    Single(Box<StartRestore>),
    /// One for a client of the service.
    Service(ServiceRestore),
}

impl fmt::Debug for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Restore")
    }
}

/// A restore for a client of the service, and the channel on which its plan is reported.
pub(crate) struct ServiceRestore {
    /// The routine whose namespaces are restored to a point in time, if it is such a restore.
    pub routine: Option<String>,
    /// Finds out what there is to restore.
    pub plan: Plan,
    /// Receives whether the restore can be made, as soon as that is known.
    pub planned: oneshot::Sender<Result<(), RequestError>>,
    pub reserve: Recipient<ReserveNamespaces>,
    /// Of a restore that an earlier process began.
    pub resumed: Option<Resumed>,
}

/// Finds out what there is to restore, or why there is not; again if that may have changed.
pub(crate) type Plan = Box<dyn Fn() -> BoxFuture<'static, Result<RestoreWork, RequestError>> + Send + Sync>;

/// How far a restore is that an earlier process began.
pub(crate) struct Resumed {
    pub started: DateTime<Utc>,
    /// Until when it waits for its cluster and its storage.
    pub until: DateTime<Utc>,
    /// Of its chains; none if it had not been planned.
    pub positions: Vec<ChainPosition>,
}

/// The work of a restore for a client of the service.
#[derive(Debug)]
pub(crate) struct RestoreWork {
    /// The cluster to write to.
    pub cluster: Arc<ClusterSettings>,
    /// The storage to read from.
    pub storage: Arc<dyn Storage>,
    pub policy: RestoreSettings,
    pub keys: KeySecrets,
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

impl Job for Restore {
    type Stage = Reading;
    type Progress = RestoreProgress;
    type Counts = RestoreSnapshot;
    type Report = RestoreReport;

    fn describe(&self) -> Option<JobWork> {
        match self {
            Self::Single(_) => None,
            Self::Service(restore) => Some(JobWork::Restore { routine: restore.routine.clone() }),
        }
    }

    fn began(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Single(_) => None,
            Self::Service(restore) => restore.resumed.as_ref().map(|resumed| resumed.started),
        }
    }

    fn load(&self) {}

    async fn run(self, steps: &Steps<Self>) -> Conclusion<RestoreReport> {
        match self {
            Self::Single(start) => single(*start, steps).await.map(|report| vec![report]).into(),
            Self::Service(restore) => restore.run(steps).await.into(),
        }
    }

    fn announce_end(steps: &Steps<Self>, _: &JobWork, result: &RestoreResult) {
        announce_end(steps, result);
    }

    fn counts(progress: &RestoreProgress) -> RestoreSnapshot {
        progress.snapshot()
    }

    fn warnings(progress: &RestoreProgress) -> Vec<String> {
        progress.warnings()
    }

    fn amounts(counts: &RestoreSnapshot, expected: Option<u64>) -> Amounts {
        Amounts {
            expected: expected.unwrap_or_default(),
            done: counts.settled(),
            bytes: counts.bytes_read,
            pipeline: counts.read.saturating_sub(counts.settled()),
            share: counts.bytes_read as f64 / counts.total_bytes.max(1) as f64,
        }
    }

    fn set_elapsed(counts: &mut RestoreSnapshot, elapsed: Duration) {
        counts.elapsed = elapsed;
    }
}

/// Makes the one restore that the command line asked for.
async fn single(start: StartRestore, steps: &Steps<Restore>) -> Result<RestoreReport, EngineError> {
    let StartRestore { cluster, storage, links, plan } = start;
    let limits = RestoreLimits::new(&plan, 1);
    let chain = Chain { source: plan.source.clone(), links, records: None, warnings: Vec::new() };
    let task = ChainTask { chain, plan, position: None, until: None, run: Arc::default() };
    restore_chain(steps, &cluster, &storage, task, &limits, &steps.cancel).await
}

impl ServiceRestore {
    /// Plans the restore, reports the plan, and carries it out.
    async fn run(self, steps: &Steps<Restore>) -> Result<Vec<RestoreReport>, EngineError> {
        let (until, positions) = if let Some(Resumed { started, until, positions }) = self.resumed {
            info!(steps.log, "resuming the restore that the end of the service interrupted"; "started" => %started);
            (Some(until), positions)
        } else {
            if let Some(journal) = &steps.shared.journal {
                // Before its id is known.
                journal.note_start(steps.id).await;
            }
            (None, Vec::new())
        };
        let prepare = || prepare(steps, &self.plan, &self.reserve);
        let planning = patiently(steps, &steps.cancel, until, "the plan", Unprepared::may_pass, prepare);
        let prepared = steps.cancel.run_until_cancelled(planning).await;
        let failed = |e: &dyn fmt::Display| {
            let interrupted = if until.is_some() { "interrupted, and cannot be continued: " } else { "" };
            EngineError::Plan(format!("{interrupted}{e}"))
        };
        let (refusal, prepared) = match prepared.unwrap_or(Err(EngineError::Canceled.into())) {
            Ok(prepared) => (None, Ok(prepared)),
            Err(Unprepared::Refused(e)) => (Some(e.clone()), Err(failed(&e))),
            Err(Unprepared::Failed(RunError::Engine(EngineError::Canceled))) => {
                (None, Err(EngineError::Canceled))
            }
            Err(Unprepared::Failed(e)) => (None, Err(failed(&e))),
        };
        // A request that waits no longer needs no answer.
        let _ = self.planned.send(refusal.map_or(Ok(()), Err));
        prepared?.restore(steps, until, positions).await
    }
}

/// Why a restore cannot begin.
enum Unprepared {
    /// The request cannot be carried out.
    Refused(RequestError),
    /// Something that the request does not say failed.
    Failed(RunError),
}

impl Unprepared {
    /// Whether it is worth another try.
    fn may_pass(&self) -> bool {
        match self {
            Self::Refused(RequestError::Failed(_) | RequestError::Conflict(_)) => true,
            Self::Refused(_) => false,
            Self::Failed(e) => e.is_transient(),
        }
    }
}

impl fmt::Display for Unprepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(e) => e.fmt(f),
            Self::Failed(e) => e.fmt(f),
        }
    }
}

impl<E: Into<RunError>> From<E> for Unprepared {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

async fn prepare(
    steps: &Steps<Restore>,
    plan: &Plan,
    reserve: &Recipient<ReserveNamespaces>,
) -> Result<Prepared, Unprepared> {
    let work = plan().await.map_err(Unprepared::Refused)?;
    let keys = settings::key_ring(&work.keys).await?;
    let plans: Vec<_> = work
        .chains
        .iter()
        .map(|chain| RestorePlan {
            may_lack_bins: work.may_lack_bins,
            ..RestorePlan::from_settings(&work.policy, &chain.source, keys.clone())
        })
        .collect();
    let namespaces: Vec<_> = plans.iter().map(|plan| plan.destination.clone()).collect();
    // Once it was connected, a cluster is known by its nodes, too.
    let lease = steps.shared.clusters.lease(&work.cluster).await?;
    if !work.policy.validate_only {
        let cluster = Arc::clone(&work.cluster);
        let reserved = reserve.send(ReserveNamespaces { id: steps.id, cluster, namespaces }).await;
        reserved.map_err(|_| Unprepared::Refused(RequestError::Stopping))?.map_err(Unprepared::Refused)?;
    }
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
    lease: Arc<Lease>,
}

impl Prepared {
    async fn restore(
        self,
        steps: &Steps<Restore>,
        until: Option<DateTime<Utc>>,
        positions: Vec<ChainPosition>,
    ) -> Result<Vec<RestoreReport>, EngineError> {
        let RestoreWork { storage, policy, chains, reading, .. } = self.work;
        let limits =
            RestoreLimits::new(&RestorePlan::from_settings(&policy, "", KeyRing::default()), chains.len());
        let mut positions = positions.into_iter();
        let tasks = chains.into_iter().zip(self.plans).map(|(chain, plan)| ChainTask {
            chain,
            plan,
            // A validation begins again: its sample is of all records.
            position: positions.next().filter(|_| !policy.validate_only),
            until,
            run: Arc::default(),
        });
        let tasks: Vec<_> = tasks.collect();
        let _journaling = keep_journal(steps, &tasks).await;
        let mut namespaces = JoinSet::new();
        // When one namespace fails there is no point in filling the others.
        let stop = steps.cancel.child_token();
        for task in tasks {
            let (cluster, storage) = (self.lease.cluster.clone(), Arc::clone(&storage));
            let (limits, steps, stop) = (Arc::clone(&limits), steps.clone(), stop.clone());
            namespaces.spawn(async move {
                let folders: Vec<_> =
                    task.chain.links.iter().flat_map(|link| &link.folders).map(ToString::to_string).collect();
                info!(steps.log, "restoring"; "backups" => folders.join(", "), "namespace" => &task.plan.destination);
                restore_chain(&steps, &cluster, &storage, task, &limits, &stop).await
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

/// Counts and logs the end of a restore.
fn announce_end(steps: &Steps<Restore>, result: &RestoreResult) {
    let (log, snapshot) = (&steps.log, &result.snapshot);
    let RestoreSnapshot { inserted, in_doubt, read, bytes_read, .. } = snapshot.counts;
    match &result.end {
        JobEnd::Failed(e) => {
            error!(log, "restore failed"; "error" => %e, "inserted" => inserted, "in_doubt" => in_doubt);
        }
        JobEnd::Canceled => warn!(log, "restore canceled"; "inserted" => inserted, "in_doubt" => in_doubt),
        JobEnd::Done | JobEnd::FullDue(_) => {
            info!(log, "restore done"; "inserted" => inserted, "read" => read);
        }
    }
    for warning in &snapshot.warnings {
        warn!(log, "{warning}");
    }
    for (code, count) in &snapshot.counts.refused {
        warn!(log, "the cluster refused records"; "code" => code.0, "meaning" => code.meaning(), "remedy" => code.remedy(), "records" => count);
    }
    for name in result.reports.iter().flat_map(|report| &report.conflicting_indexes) {
        warn!(log, "the index exists already with another definition and was left alone"; "index" => name);
    }
    let totals = Totals { records: inserted, bytes: bytes_read, duration: snapshot.progress.duration };
    steps.shared.metrics.restore_ended(result.end.status().into(), totals);
}
