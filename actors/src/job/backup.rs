//! What a backup does, step by step.
//!
//! Namespaces are backed up at the same time and fail alone: a namespace that fails is tried again as the retry policy
//! says, and what is whole of the others stays. A run that is canceled leaves nothing.

use std::sync::Arc;
use std::time::Duration;

use abs_config::{OnInterrupt, RoutineSettings};
use abs_engine::catalog::{BackupKind, Catalog, CatalogError, run_folder};
use abs_engine::{
    BackupLimits, BackupPlan, BackupProgress, BackupReport, BackupRun, BackupSnapshot, EngineError,
    NamespaceLimits, NodeLoad,
};
use abs_storage::ObjectPath;
use actix::{Message, Recipient};
use chrono::{DateTime, Utc};
use slog::{error, info, warn};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::progress::Amounts;
use super::{Conclusion, Job, Steps};
use crate::messages::system::JobWork;
use crate::messages::{BackupResult, JobEnd, JobId, StartBackup};
use crate::metrics::{Outcome, Totals};
use crate::run_error::RunError;

mod clock;
mod prepare;
mod scan;

use prepare::{Place, Step};
use scan::Scan;

/// How long a canceled run waits until what it left is deleted.
const REMOVAL: Duration = Duration::from_secs(2);

/// How many jobs a run may have, each after the crash of the one before; when the last one crashes the run fails.
const MOST_GENERATIONS: u32 = 4;

/// The kind of job that makes backups.
#[derive(Debug)]
pub(crate) enum Backup {
    /// One for the command line.
    Single(Box<StartBackup>),
    /// A run of a routine.
    Run(RoutineRun),
}

/// A run of a routine.
#[derive(Clone, Debug)]
pub(crate) struct RoutineRun {
    pub settings: Arc<RoutineSettings>,
    pub kind: BackupKind,
    pub created: DateTime<Utc>,
    /// The steady time at `created`, or when it was continued.
    pub begun: Duration,
    /// It was begun by a process that has ended, or by a job that crashed.
    pub continues: bool,
    /// Of its job.
    pub generation: u32,
    /// What starts the job that continues it after another crash.
    pub parent: Recipient<RestartRun>,
}

/// The actor of a run has crashed: another one is to continue it, with the same id.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub(crate) struct RestartRun {
    pub id: JobId,
    pub run: RoutineRun,
}

impl Job for Backup {
    type Stage = Scan;
    type Progress = BackupProgress;
    type Counts = BackupSnapshot;
    type Report = BackupReport;

    fn describe(&self) -> Option<JobWork> {
        match self {
            Self::Single(_) => None,
            Self::Run(RoutineRun { settings, kind, created, .. }) => {
                Some(JobWork::Backup { routine: settings.name.clone(), kind: *kind, created: *created })
            }
        }
    }

    fn load(&self) -> NodeLoad {
        NodeLoad::new(match self {
            Self::Single(_) => None,
            Self::Run(run) => run.settings.policy.max_concurrent_nodes,
        })
    }

    fn generation(&self) -> u32 {
        match self {
            Self::Single(_) => 1,
            Self::Run(run) => run.generation,
        }
    }

    fn successor(&self) -> Option<Self> {
        let Self::Run(run) = self else { return None };
        let is_resumed = run.settings.policy.on_interrupt == OnInterrupt::Resume;
        let generation = run.generation + 1;
        (is_resumed && generation <= MOST_GENERATIONS)
            .then(|| Self::Run(RoutineRun { continues: true, generation, ..run.clone() }))
    }

    async fn succeed(self, id: JobId) -> bool {
        match self {
            Self::Single(_) => false,
            Self::Run(run) => run.parent.clone().send(RestartRun { id, run }).await.unwrap_or(false),
        }
    }

    async fn run(self, steps: &Steps<Self>) -> Conclusion<BackupReport> {
        match self {
            Self::Single(start) => single(*start, steps).await.map(|report| vec![report]).into(),
            Self::Run(run) => run.make(steps).await,
        }
    }

    fn announce_end(steps: &Steps<Self>, work: &JobWork, result: &BackupResult) {
        if let JobWork::Backup { routine, kind, created } = work {
            announce_end(steps, routine, *kind, *created, result);
        }
    }

    fn counts(progress: &BackupProgress) -> BackupSnapshot {
        progress.snapshot()
    }

    fn warnings(_: &BackupProgress) -> Vec<String> {
        // They are in the reports.
        Vec::new()
    }

    fn amounts(counts: &BackupSnapshot, _: Option<u64>) -> Amounts {
        Amounts {
            expected: counts.expected_records,
            done: counts.records_written,
            bytes: counts.bytes_written,
            pipeline: counts.records_read.saturating_sub(counts.records_written),
            share: 0.0,
        }
    }

    fn set_elapsed(counts: &mut BackupSnapshot, elapsed: Duration) {
        counts.elapsed = elapsed;
    }
}

/// Makes the one backup that the command line asked for.
async fn single(start: StartBackup, steps: &Steps<Backup>) -> Result<BackupReport, EngineError> {
    let StartBackup { cluster, storage, folder, mut plan } = start;
    let created = if plan.continues {
        abs_engine::find_unfinished(&storage, &folder, &plan).await?
    } else {
        Utc::now()
    };
    // The bound for a backup that builds on this one.
    if plan.cluster_time.is_none() && !plan.no_records {
        let read = timeout(plan.socket_timeout, cluster.time(&plan.namespace));
        let read = until_stopped(steps, plan.continues, read).await?;
        plan.cluster_time = read.ok().and_then(Result::ok).flatten();
        if plan.cluster_time.is_none() {
            warn!(steps.log, "the clock of the cluster cannot be read");
        }
    }
    let limits = BackupLimits::new(&plan, None).divide(1).remove(0);
    let place = Place { cluster, storage, folder };
    let result = attempt(steps, &place, &plan, created, &limits).await;
    let is_kept = matches!(result, Ok(_) | Err(EngineError::Suspended));
    if !is_kept && !steps.cancel.is_cancelled() && !plan.continues {
        place.discard(steps, &plan).await;
    }
    result
}

/// Does `work` until the job is canceled or suspended. A run that does not continue another one has nothing yet that could be
/// continued.
async fn until_stopped<T>(
    steps: &Steps<Backup>,
    continues: bool,
    work: impl Future<Output = T>,
) -> Result<T, EngineError> {
    tokio::select! {
        biased;
        () = steps.cancel.cancelled() => Err(EngineError::Canceled),
        () = steps.suspend.cancelled() => Err(if continues { EngineError::Suspended } else { EngineError::Canceled }),
        result = work => Ok(result),
    }
}

/// One attempt at a namespace. When it fails for a reason that may pass, the next one goes on from its last checkpoint.
async fn attempt(
    steps: &Steps<Backup>,
    place: &Place,
    plan: &BackupPlan,
    created: DateTime<Utc>,
    limits: &NamespaceLimits,
) -> Result<BackupReport, EngineError> {
    let progress = Arc::new(BackupProgress::default());
    steps.begin(&plan.namespace, &progress, None).await?;
    let Place { cluster, storage, folder } = place;
    let plan = &BackupPlan { suspend: steps.suspend.clone(), ..plan.clone() };
    let (run, queue) =
        BackupRun::begin(cluster, storage, folder, plan, created, limits, &progress, &steps.cancel).await?;
    for warning in run.warnings() {
        warn!(steps.log, "{}", warning);
    }
    match steps.run_stage(Scan { run: Arc::clone(&run), queue }, plan.parallel).await {
        Ok(Scan { queue, .. }) => {
            let report = run.finish(queue).await?;
            for warning in report.warnings.iter().skip(run.warnings().len()) {
                warn!(steps.log, "{}", warning);
            }
            Ok(report)
        }
        // The queue is gone with the actor.
        Err(e) => Err(run.abandon(e).await),
    }
}

impl RoutineRun {
    /// Makes the run.
    async fn make(&self, steps: &Steps<Backup>) -> Conclusion<BackupReport> {
        let Made { mut reports, error, stays } = self.namespaces(steps).await;
        let is_canceled = steps.cancel.is_cancelled();
        let end = match error {
            None => JobEnd::Done,
            // Whatever else went wrong.
            Some(_) if is_canceled => JobEnd::Canceled,
            Some(RunError::FullDue(due)) => JobEnd::FullDue(due.to_string()),
            Some(RunError::Engine(e)) => e.into(),
            Some(e) => JobEnd::Failed(EngineError::Plan(e.to_string())),
        };
        // After a failure the namespaces that are whole are worth keeping; but of an incremental one nothing is lost, because
        // the next one takes the same records again. After a cancel nothing is kept.
        let is_wanted = match end {
            JobEnd::Done => true,
            JobEnd::Failed(_) => self.kind == BackupKind::Full,
            JobEnd::Canceled | JobEnd::FullDue(_) => false,
        };
        if !is_wanted {
            reports.clear();
        }
        if !stays && reports.iter().all(|report| report.empty) {
            self.remove(steps, matches!(end, JobEnd::Canceled)).await;
        }
        Conclusion { end, reports }
    }

    fn catalog(&self, steps: &Steps<Backup>) -> Catalog {
        steps.shared.catalogs.of(&self.settings.storage)
    }

    fn folder(&self) -> Result<ObjectPath, CatalogError> {
        Ok(run_folder(&self.settings.name, self.kind, self.created, self.settings.timestamp_format)?)
    }

    /// Deletes what the run left. A run that was canceled does not wait for a storage that hangs.
    async fn remove(&self, steps: &Steps<Backup>, is_canceled: bool) {
        let (run, catalog, log) = (self.clone(), self.catalog(steps), steps.log.clone());
        let removal = tokio::spawn(async move {
            let removed = async { catalog.remove_run(&run.folder()?).await };
            if let Err(e) = removed.await {
                error!(log, "what the run left could not be deleted"; "error" => %e);
            }
        });
        let limit = if is_canceled { REMOVAL } else { Duration::MAX };
        // A panic in there is logged where it happens.
        if timeout(limit, removal).await.is_err() {
            warn!(steps.log, "the storage does not answer: what the run left is deleted when it does");
        }
    }

    /// Backs up all namespaces at the same time.
    async fn namespaces(&self, steps: &Steps<Backup>) -> Made {
        let prepared = async {
            self.await_restart(steps).await?;
            self.prepare(steps).await
        };
        let prepared = match prepared.await {
            Ok(prepared) => prepared,
            Err(e) => {
                let stays = self.continues && stays(&e);
                return Made { stays, error: Some(e), ..Made::default() };
            }
        };
        let run = Arc::new(self.clone());
        let mut namespaces = JoinSet::new();
        let shares = prepared.limits.divide(prepared.namespaces.len());
        for ((place, plan, base), limits) in prepared.namespaces.into_iter().zip(shares) {
            let (run, steps) = (Arc::clone(&run), steps.clone());
            namespaces.spawn(async move {
                let work = || async {
                    if let Some(report) = run.find_finished(&steps, &place, &plan).await? {
                        return Ok(report);
                    }
                    let plan = run.set_bounds(&steps, &place, &plan, base).await?;
                    Ok(attempt(&steps, &place, &plan, run.created, &limits).await?)
                };
                let result = run.with_retries(&steps, &Step::Namespace(plan.namespace.clone()), work).await;
                let is_kept = matches!(result, Ok(_) | Err(RunError::Engine(EngineError::Suspended)));
                if !is_kept && !steps.cancel.is_cancelled() {
                    place.discard(&steps, &plan).await;
                }
                if let Err(e) = &result
                    && !matches!(e, RunError::Engine(EngineError::Canceled | EngineError::Suspended))
                {
                    error!(steps.log, "namespace failed"; "namespace" => &plan.namespace, "error" => %e);
                }
                result
            });
        }
        let mut made = Made::default();
        while let Some(ended) = namespaces.join_next().await {
            match ended.unwrap_or_else(|e| Err(EngineError::Worker(e.to_string()).into())) {
                Ok(report) => made.reports.push(report),
                // The first says why, all are in the log; one that was canceled says no more than that.
                Err(e) => {
                    made.stays |= stays(&e);
                    if matches!(made.error, None | Some(RunError::Engine(EngineError::Canceled))) {
                        made.error = Some(e);
                    }
                }
            }
        }
        // Until here jobs of other routines share the connections.
        drop(prepared.lease);
        made
    }
}

/// What was made of the namespaces of a run.
#[derive(Default)]
struct Made {
    reports: Vec<BackupReport>,
    error: Option<RunError>,
    /// The run's folder holds what it must not delete: what the next start continues, or what another service made that uses the
    /// storage and has begun in the same millisecond.
    stays: bool,
}

/// Whether what is in the folder of a run that ended so is left there.
fn stays(error: &RunError) -> bool {
    matches!(
        error,
        RunError::Engine(
            EngineError::NotEmpty { .. }
                | EngineError::LeftOver { .. }
                | EngineError::Claimed { .. }
                | EngineError::Taken { .. }
                | EngineError::Suspended
        )
    )
}

/// Counts and logs the end of a run.
fn announce_end(
    steps: &Steps<Backup>,
    routine: &str,
    kind: BackupKind,
    created: DateTime<Utc>,
    result: &BackupResult,
) {
    let log = &steps.log;
    let mut totals = Totals { duration: result.snapshot.progress.duration, ..Totals::default() };
    for report in result.reports.iter().filter(|report| !report.empty) {
        totals.records += report.metadata.record_count;
        totals.bytes += report.metadata.byte_count;
    }
    let Totals { records, bytes, duration } = totals;
    match &result.end {
        JobEnd::Failed(EngineError::Suspended) => {
            warn!(log, "backup suspended: the next start continues it");
        }
        JobEnd::Failed(e) => error!(log, "backup failed"; "error" => %e),
        JobEnd::FullDue(due) => {
            warn!(log, "a full backup is made in place of this incremental one"; "reason" => due);
        }
        JobEnd::Canceled => warn!(log, "backup canceled"),
        JobEnd::Done if !result.is_kept() => info!(log, "backup done: nothing has changed"),
        JobEnd::Done => {
            info!(log, "backup done"; "records" => records, "bytes" => bytes, "seconds" => duration.as_secs_f64());
        }
    }
    let outcome = match &result.end {
        JobEnd::FullDue(_) => Outcome::Skip,
        end => end.status().into(),
    };
    steps.shared.metrics.backup_ended(routine, kind, outcome, totals, created);
}
