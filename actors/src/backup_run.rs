//! What a backup run does, step by step, on the runtime.
//!
//! Namespaces are backed up at the same time and fail alone: a namespace that fails is tried again as the retry policy
//! says, and what is whole of the others stays. A run that is canceled leaves nothing.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abs_asb::EncryptionKey;
use abs_cluster::{Cluster, ClusterError, ClusterTime};
use abs_config::{IncrementalMode, RoutineSettings};
use abs_engine::catalog::{
    BackupKind, Base, Catalog, CatalogError, Foundations, Misdated, namespace_folder, run_folder,
};
use abs_engine::{
    BackupLimits, BackupPlan, BackupProgress, BackupReport, BackupRun, EngineError, NamespaceLimits,
};
use abs_storage::{ObjectPath, Storage};
use actix::Addr;
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use slog::{Logger, error, info, warn};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::backup_job::{AwaitRetry, BackupJobActor, BeginNamespace, BeginRetry, ScanPartitions};
use crate::job::fallen;
use crate::messages::system::{Event, JobLabel, JobWork};
use crate::messages::{JobId, JobState, PendingRetry, RunningJob, StartBackup};
use crate::metrics::{Outcome, Totals};
use crate::routine::RunEnd;
use crate::run_error::RunError;
use crate::settings;
use crate::shared::{Lease, Shared};

/// How long a canceled run waits until what it left is deleted.
const REMOVAL: Duration = Duration::from_secs(2);

/// Makes the one backup that the command line asked for.
pub(crate) async fn single(
    start: StartBackup,
    job: &Addr<BackupJobActor>,
    log: &Logger,
    cancel: &CancellationToken,
) -> Result<BackupReport, EngineError> {
    let StartBackup { cluster, storage, folder, mut plan } = start;
    let created = Utc::now();
    // The bound for a backup that builds on this one.
    if plan.cluster_time.is_none() && !plan.no_records {
        let read = timeout(plan.socket_timeout, cluster.time(&plan.namespace));
        let read = cancel.run_until_cancelled(read).await.ok_or(EngineError::Canceled)?;
        plan.cluster_time = read.ok().and_then(Result::ok).flatten();
        if plan.cluster_time.is_none() {
            warn!(log, "the clock of the cluster cannot be read");
        }
    }
    let limits = BackupLimits::new(&plan, None).divide(1).remove(0);
    attempt(job, &Place { cluster, storage, folder }, &plan, created, &limits, log, cancel).await
}

/// Where one namespace is read and written.
struct Place {
    cluster: Cluster,
    storage: Arc<dyn Storage>,
    folder: ObjectPath,
}

/// One attempt at a namespace: its partitions are scanned by the workers of the job's actor.
async fn attempt(
    job: &Addr<BackupJobActor>,
    place: &Place,
    plan: &BackupPlan,
    created: DateTime<Utc>,
    limits: &NamespaceLimits,
    log: &Logger,
    cancel: &CancellationToken,
) -> Result<BackupReport, EngineError> {
    let progress = Arc::new(BackupProgress::default());
    let begin = BeginNamespace { namespace: plan.namespace.clone(), progress: Arc::clone(&progress) };
    job.send(begin).await.map_err(fallen)?;
    let Place { cluster, storage, folder } = place;
    let (run, queue) =
        BackupRun::begin(cluster, storage, folder, plan, created, limits, &progress, cancel).await?;
    for warning in run.warnings() {
        warn!(log, "{}", warning);
    }
    let scan = ScanPartitions { run: Arc::clone(&run), queue, workers: plan.parallel.max(1) };
    match job.send(scan).await {
        Ok(queue) => {
            let report = run.finish(queue).await?;
            for warning in report.warnings.iter().skip(run.warnings().len()) {
                warn!(log, "{}", warning);
            }
            Ok(report)
        }
        // The queue is gone with the actor.
        Err(e) => Err(run.abandon(fallen(e)).await),
    }
}

/// A run of a routine.
#[derive(Clone, Debug)]
pub(crate) struct RoutineRun {
    pub shared: Arc<Shared>,
    pub settings: Arc<RoutineSettings>,
    pub kind: BackupKind,
    pub created: DateTime<Utc>,
    /// The steady time at `created`.
    pub begun: Duration,
    pub log: Logger,
}

/// The end of a run that fell before it could say anything.
pub(crate) fn failed(error: &EngineError) -> RunEnd {
    RunEnd {
        state: JobState::Failed,
        error: Some(error.to_string()),
        totals: Totals::default(),
        kept: false,
        full_due: None,
    }
}

impl RoutineRun {
    /// Makes the run.
    pub(crate) async fn make(
        self,
        job: &Addr<BackupJobActor>,
        cancel: &CancellationToken,
    ) -> (Result<Vec<BackupReport>, EngineError>, RunEnd) {
        let began = Instant::now();
        let Made { reports, mut error, is_foreign } = self.namespaces(job, cancel).await;
        let full_due = match error.take() {
            Some(RunError::FullDue(due)) if !cancel.is_cancelled() => Some(due.to_string()),
            other => {
                error = other;
                None
            }
        };
        // Whatever else went wrong: somebody wished it to end.
        let is_canceled = error.is_some() && cancel.is_cancelled();
        let mut end = RunEnd {
            state: match &error {
                None => JobState::Done,
                Some(_) if is_canceled => JobState::Canceled,
                Some(_) => JobState::Failed,
            },
            error: error.as_ref().filter(|_| !is_canceled).map(ToString::to_string),
            totals: Totals { duration: began.elapsed(), ..Totals::default() },
            kept: false,
            full_due,
        };
        for report in reports.iter().filter(|report| !report.empty) {
            end.totals.records += report.metadata.record_count;
            end.totals.bytes += report.metadata.byte_count;
            end.kept = true;
        }
        // Who cancels wants nothing of the run. After a failure the namespaces that are whole are worth keeping; but of an
        // incremental one nothing is lost, because the next one takes the same records again.
        let is_wanted = end.state == JobState::Done || (!is_canceled && self.kind == BackupKind::Full);
        if !is_wanted || !end.kept {
            end.kept = false;
            if !is_foreign {
                self.remove(is_canceled).await;
            }
        }
        let result = match error {
            None => Ok(reports),
            Some(_) if is_canceled => Err(EngineError::Canceled),
            Some(RunError::Engine(e)) => Err(e),
            Some(e) => Err(EngineError::Plan(e.to_string())),
        };
        (result, end)
    }

    fn catalog(&self) -> Catalog {
        self.shared.catalogs.of(&self.settings.storage)
    }

    fn folder(&self) -> Result<ObjectPath, CatalogError> {
        Ok(run_folder(&self.settings.name, self.kind, self.created, self.settings.timestamp_format)?)
    }

    /// Deletes what the run left. A run that was canceled does not wait for a storage that hangs.
    async fn remove(&self, is_canceled: bool) {
        let run = self.clone();
        let removal = tokio::spawn(async move {
            let removed = async { run.catalog().remove_run(&run.folder()?).await };
            if let Err(e) = removed.await {
                error!(run.log, "what the run left could not be deleted"; "error" => %e);
            }
        });
        let limit = if is_canceled { REMOVAL } else { Duration::MAX };
        // A panic in there is logged where it happens.
        if timeout(limit, removal).await.is_err() {
            warn!(self.log, "the storage does not answer: what the run left is deleted when it does");
        }
    }

    /// Backs up all namespaces at the same time.
    async fn namespaces(&self, job: &Addr<BackupJobActor>, cancel: &CancellationToken) -> Made {
        let prepared = match self.prepare(job, cancel).await {
            Ok(prepared) => prepared,
            Err(e) => return Made { error: Some(e), ..Made::default() },
        };
        let run = Arc::new(self.clone());
        let mut namespaces = JoinSet::new();
        let shares = prepared.limits.divide(prepared.namespaces.len());
        for ((place, plan, base), limits) in prepared.namespaces.into_iter().zip(shares) {
            let (run, job, cancel) = (Arc::clone(&run), job.clone(), cancel.clone());
            namespaces.spawn(async move {
                let work = || async {
                    let plan = run.dated(&place, &plan, base, &cancel).await?;
                    Ok(attempt(&job, &place, &plan, run.created, &limits, &run.log, &cancel).await?)
                };
                let result = run.tried(&job, &Step::Namespace(plan.namespace.clone()), &cancel, work).await;
                if let Err(e) = &result
                    && !matches!(e, RunError::Engine(EngineError::Canceled))
                {
                    error!(run.log, "namespace failed"; "namespace" => &plan.namespace, "error" => %e);
                }
                result
            });
        }
        let mut made = Made::default();
        while let Some(ended) = namespaces.join_next().await {
            match ended.unwrap_or_else(|e| Err(EngineError::Worker(e.to_string()).into())) {
                Ok(report) => made.reports.push(report),
                // The first says why, all are in the log; who was canceled says no more than that.
                Err(e) => {
                    made.is_foreign |= matches!(
                        e,
                        RunError::Engine(
                            EngineError::NotEmpty { .. }
                                | EngineError::LeftOver { .. }
                                | EngineError::Claimed { .. }
                                | EngineError::Taken { .. }
                        )
                    );
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

    /// Finds out what there is to do.
    async fn prepare(
        &self,
        job: &Addr<BackupJobActor>,
        cancel: &CancellationToken,
    ) -> Result<Prepared, RunError> {
        let settings = &self.settings;
        let canceled = || RunError::Engine(EngineError::Canceled);
        let ask = || async {
            // Questions may be dropped at any moment.
            let asked = cancel.run_until_cancelled(async {
                let lease = self.shared.clusters.lease(&settings.cluster).await?;
                let namespaces = match &settings.namespaces[..] {
                    [] => lease.cluster.namespaces().await.map_err(EngineError::from)?,
                    names => names.iter().map(|name| name.as_str().to_owned()).collect(),
                };
                let key =
                    settings::key(&settings.policy.encryption, settings.encryption_key.as_ref()).await?;
                let later = self.mark_suspects().await;
                let foundations = match self.kind {
                    // What it finds there is no reason not to make a full backup.
                    BackupKind::Full => Foundations::default(),
                    BackupKind::Incremental => {
                        let (catalog, later) = (self.catalog(), later?);
                        let traits = self.plan("", key.clone()).chain_traits();
                        catalog
                            .foundations(&settings.name, &namespaces, self.created, &traits, &later)
                            .await?
                    }
                };
                Ok::<_, RunError>((lease, namespaces, key, foundations))
            });
            asked.await.ok_or_else(canceled)?
        };
        let (lease, names, key, foundations) = self.tried(job, &Step::Questions, cancel, ask).await?;
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
                let written = cancel.run_until_cancelled(async {
                    let all = lease.cluster.configuration().await.map_err(EngineError::from)?;
                    for (index, (_, text)) in all.iter().enumerate() {
                        self.catalog().write_configuration(&run, index, text).await?;
                    }
                    Ok(())
                });
                written.await.ok_or_else(canceled)?
            };
            self.tried(job, &Step::Configuration, cancel, write).await?;
        }
        let mut namespaces = Vec::new();
        for name in names {
            let (mut plan, mut base) = (self.plan(&name, key.clone()), None);
            if self.kind == BackupKind::Incremental {
                let Some(foundation) = foundations.of.get(&name) else {
                    info!(self.log, "namespace skipped: it has no full backup yet"; "namespace" => &name);
                    continue;
                };
                base = Some(match settings.policy.incremental_mode {
                    IncrementalMode::Differential => foundation.last,
                    IncrementalMode::Cumulative => foundation.full,
                });
                (plan.no_indexes, plan.no_udfs, plan.skip_empty) = (true, true, true);
            }
            #[cfg(test)]
            plan.fault.clone_from(&self.shared.fault.lock().unwrap());
            let place = Place {
                cluster: lease.cluster.clone(),
                storage: Arc::clone(self.catalog().storage()),
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

    /// What is backed up of a namespace, without bounds of time.
    fn plan(&self, namespace: &str, key: Option<EncryptionKey>) -> BackupPlan {
        let settings = &self.settings;
        let mut plan = BackupPlan::from_settings(&settings.policy, namespace, key);
        plan.sets.clone_from(&settings.sets);
        plan.bins.clone_from(&settings.bins);
        plan.filter.clone_from(&settings.filter);
        plan.partitions = settings::partitions(settings);
        plan.prefer_racks.clone_from(&settings.cluster.prefer_racks);
        plan
    }

    async fn mark_suspects(&self) -> Result<Misdated, CatalogError> {
        let latest = latest_true(&self.settings, self.shared.clock.now());
        mark_suspects(&self.catalog(), &self.settings.name, latest, &self.log).await
    }

    /// Reads the cluster's clock, and sets the bounds of time of a plan that builds on `base`.
    async fn dated(
        &self,
        place: &Place,
        plan: &BackupPlan,
        base: Option<Base>,
        cancel: &CancellationToken,
    ) -> Result<BackupPlan, RunError> {
        let mut plan = plan.clone();
        let reading = if plan.no_records {
            Reading { now: self.shared.clock.now(), since_start: Duration::ZERO, time: None }
        } else {
            self.read_clock(&place.cluster, &plan, cancel).await?
        };
        let now = reading.now;
        plan.cluster_time = reading.at_start();
        let namespace = plan.namespace.as_str();
        let overlap =
            TimeDelta::from_std(self.settings.policy.overlap).unwrap_or(TimeDelta::MAX).max(ADJUSTED);
        let cluster_now = reading.time.and_then(|time| DateTime::from_timestamp_millis(time.earliest));
        match cluster_now {
            Some(cluster_now) if (cluster_now - now).abs() > overlap => {
                warn!(
                    self.log, "the clocks of the cluster and of this service differ";
                    "namespace" => namespace, "cluster" => %cluster_now, "service" => %now
                );
            }
            None if !plan.no_records
                && self.shared.is_news(format!("clock of {}/{namespace}", self.settings.name)) =>
            {
                warn!(
                    self.log, "the clock of the cluster cannot be read: that of this service is used instead";
                    "namespace" => namespace
                );
            }
            _ => {}
        }
        if let Some(base) = base {
            let bound = lower_bound(base, self.settings.policy.overlap, now, cluster_now);
            plan.from = Some(base.created);
            plan.modified_after = Some(bound);
            let usual = base.cluster_created.unwrap_or(base.created);
            if usual - bound > overlap + overlap {
                warn!(
                    self.log, "one of the clocks of the cluster and of this service was set since the last backup: \
                               changes since an earlier time are read again";
                    "namespace" => namespace, "since" => %bound
                );
            }
        }
        Ok(plan)
    }

    /// Reads the cluster's clock. A node that leaves just now is no reason to fail. For the exact time that a sealed backup
    /// ends at, the quickest of a few readings counts.
    async fn read_clock(
        &self,
        cluster: &Cluster,
        plan: &BackupPlan,
        cancel: &CancellationToken,
    ) -> Result<Reading, RunError> {
        let (mut attempt, mut best) = (0, None::<(Duration, Reading)>);
        for _ in 0..if plan.sealed { READINGS } else { 1 } {
            let cluster_time = loop {
                let (now, steady) = (self.shared.clock.now(), self.shared.clock.steady());
                let read = cancel.run_until_cancelled(cluster.time(&plan.namespace)).await;
                let error = match read.ok_or(EngineError::Canceled)? {
                    Ok(time) => {
                        let took = self.shared.clock.steady().saturating_sub(steady);
                        if best.as_ref().is_none_or(|(other, _)| took < *other) {
                            best = Some((
                                took,
                                Reading { now, since_start: steady.saturating_sub(self.begun), time },
                            ));
                        }
                        break time;
                    }
                    Err(e) => e,
                };
                let may_pass = error.is_transient() || matches!(error, ClusterError::NoNode(_));
                let wait = plan.retry.wait(attempt).filter(|_| may_pass);
                let Some(wait) = wait else { return Err(EngineError::from(error).into()) };
                attempt += 1;
                let slept = cancel.run_until_cancelled(tokio::time::sleep(wait)).await;
                slept.ok_or(EngineError::Canceled)?;
            };
            if cluster_time.is_none() || best.as_ref().is_some_and(|(took, _)| *took < QUICK) {
                break;
            }
        }
        let Some((took, mut reading)) = best else { return Err(EngineError::Canceled.into()) };
        // The nodes may have been asked late in a slow reading.
        let slow = TimeDelta::from_std(took.saturating_sub(SLOW)).unwrap_or(TimeDelta::MAX);
        reading.now = (reading.now + slow).trunc_subsecs(3);
        Ok(reading)
    }

    /// Does `work`, and again as the retry policy says while it fails for reasons that may pass.
    async fn tried<T, F>(
        &self,
        job: &Addr<BackupJobActor>,
        step: &Step,
        cancel: &CancellationToken,
        mut work: impl FnMut() -> F,
    ) -> Result<T, RunError>
    where
        F: Future<Output = Result<T, RunError>>,
    {
        let mut attempt = 0;
        loop {
            let error = match work().await {
                Err(e) if e.is_transient() && !cancel.is_cancelled() => e,
                result => return result,
            };
            let Some(wait) = self.settings.policy.retry.wait(attempt) else { return Err(error) };
            attempt += 1;
            warn!(self.log, "trying again"; "what" => %step, "attempt" => attempt, "wait" => ?wait, "error" => %error);
            self.shared.metrics.backup_event(&self.settings.name, self.kind, Outcome::Retry);
            let at = TimeDelta::from_std(wait).ok().and_then(|wait| Utc::now().checked_add_signed(wait));
            let retry = PendingRetry { at: at.unwrap_or(DateTime::<Utc>::MAX_UTC), error: error.to_string() };
            // An actor that fell has canceled the run.
            let _ = job.send(AwaitRetry { what: step.to_string(), namespace: step.namespace(), retry }).await;
            if cancel.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return Err(EngineError::Canceled.into());
            }
            let _ = job.send(BeginRetry(step.to_string())).await;
        }
    }
}

/// A step of a run that may be tried more than once.
#[derive(Clone, Debug)]
enum Step {
    Questions,
    Configuration,
    Namespace(String),
}

impl Step {
    fn namespace(&self) -> Option<String> {
        match self {
            Self::Namespace(name) => Some(name.clone()),
            Self::Questions | Self::Configuration => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Questions => f.write_str("the cluster and the storage"),
            Self::Configuration => f.write_str("the configuration of the cluster"),
            Self::Namespace(name) => write!(f, "namespace {name}"),
        }
    }
}

/// How often the cluster's clock is read at most, until a reading is quick.
const READINGS: usize = 3;
/// A reading that takes no longer is as good as one of a moment.
const QUICK: Duration = Duration::from_millis(50);
/// One that takes longer may be of any moment in between.
const SLOW: Duration = Duration::from_secs(1);

/// A reading of the cluster's clock.
struct Reading {
    /// When it began by the service's clock, and how long after the start of the run.
    now: DateTime<Utc>,
    since_start: Duration,
    time: Option<ClusterTime>,
}

impl Reading {
    /// What the cluster's clock said when the run was started.
    fn at_start(&self) -> Option<ClusterTime> {
        let ClusterTime { earliest, latest } = self.time?;
        let since = i64::try_from(self.since_start.as_millis()).ok()?;
        Some(ClusterTime { earliest: earliest.checked_sub(since)?, latest: latest.checked_sub(since)? })
    }
}

/// Clocks are put right by less than this all the time.
const ADJUSTED: TimeDelta = TimeDelta::seconds(1);

/// By how much the service's clock may be wrong before it matters: the overlap, but never for long, because the next run
/// waits for the time of the one before.
pub(crate) fn tolerance(settings: &RoutineSettings) -> TimeDelta {
    TimeDelta::from_std(settings.policy.overlap)
        .unwrap_or(TimeDelta::MAX)
        .clamp(ADJUSTED, TimeDelta::minutes(1))
}

/// The latest time that a backup can truly have when the clock says `now`.
pub(crate) fn latest_true(settings: &RoutineSettings, now: DateTime<Utc>) -> DateTime<Utc> {
    now.checked_add_signed(tolerance(settings)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Marks the backups of a routine that are dated later than `latest`, and tells of them.
pub(crate) async fn mark_suspects(
    catalog: &Catalog,
    routine: &str,
    latest: DateTime<Utc>,
    log: &Logger,
) -> Result<Misdated, CatalogError> {
    let found = catalog.mark_suspects(routine, latest).await;
    match &found {
        Ok(found) => {
            for backup in &found.marked {
                warn!(
                    log, "a backup is dated in the future: the clock was ahead when it was made, or is behind now. It is left \
                          out from now on, and the next backup is a full one; if its time is right, delete the object \
                          clock-suspect in its folder";
                    "backup" => %backup.key, "dated" => %backup.created
                );
            }
        }
        Err(e) => warn!(log, "backups that are dated in the future cannot be looked for"; "error" => %e),
    }
    found
}

/// The lower bound of the last update of records that are not in the backup `base`, by the cluster's clock; `now` and
/// `cluster_now` are the times of both clocks at this moment.
///
/// Setting one of the clocks changes their difference. A cluster whose clock was set back since the backup may have stamped
/// changes with times before it, but with none before the time that the clock, set back as it is now, would have shown at
/// the backup.
fn lower_bound(
    base: Base,
    overlap: Duration,
    now: DateTime<Utc>,
    cluster_now: Option<DateTime<Utc>>,
) -> DateTime<Utc> {
    let then = base.cluster_created.unwrap_or(base.created);
    let as_of_now = cluster_now.and_then(|cluster_now| base.created.checked_add_signed(cluster_now - now));
    let overlap = TimeDelta::from_std(overlap).unwrap_or(TimeDelta::MAX);
    let bound = as_of_now.map_or(then, |as_of_now| as_of_now.min(then)).checked_sub_signed(overlap);
    // What would be out of range for the server is before all records.
    bound.unwrap_or(DateTime::UNIX_EPOCH).max(DateTime::UNIX_EPOCH)
}

/// What is known before the first namespace begins.
struct Prepared {
    lease: Arc<Lease>,
    limits: Arc<BackupLimits>,
    /// Where, what, and what it builds on.
    namespaces: Vec<(Place, BackupPlan, Option<Base>)>,
}

/// What became of the namespaces.
#[derive(Default)]
struct Made {
    reports: Vec<BackupReport>,
    error: Option<RunError>,
    /// The run's folder holds what it has not made: another service may use the storage and have begun in the same
    /// millisecond.
    is_foreign: bool,
}

/// Counts and tells the beginning of a run.
pub(crate) fn announce_start(shared: &Shared, log: &Logger, id: JobId, routine: &str, kind: BackupKind) {
    info!(log, "backup started");
    shared.metrics.backup_started(routine, kind);
    let work = JobWork::Backup { routine: routine.to_owned(), kind };
    shared.publish(|at| Event::JobStarted { at, job: JobLabel { id, work } });
}

/// Counts and logs the end of a run; returns the event, to be told when everybody within knows of the end.
pub(crate) fn announce_end(
    shared: &Shared,
    log: &Logger,
    (id, routine, kind, created): (JobId, &str, BackupKind, DateTime<Utc>),
    end: &RunEnd,
    progress: RunningJob,
) -> Event {
    let Totals { records, bytes, duration } = end.totals;
    match (&end.error, end.state) {
        (Some(e), _) => error!(log, "backup failed"; "error" => e),
        (None, _) if end.full_due.is_some() => {
            warn!(log, "a full backup is made in place of this incremental one"; "reason" => &end.full_due);
        }
        (None, JobState::Canceled) => warn!(log, "backup canceled"),
        (None, _) if !end.kept => info!(log, "backup done: nothing has changed"),
        (None, _) => {
            info!(log, "backup done"; "records" => records, "bytes" => bytes, "seconds" => duration.as_secs_f64());
        }
    }
    let outcome = if end.full_due.is_some() { Outcome::Skip } else { end.state.into() };
    shared.metrics.backup_ended(routine, kind, outcome, end.totals, created);
    let work = JobWork::Backup { routine: routine.to_owned(), kind };
    let (state, error) = (end.state, end.error.clone());
    Event::JobFinished { at: shared.clock.now(), job: JobLabel { id, work }, state, error, progress }
}
