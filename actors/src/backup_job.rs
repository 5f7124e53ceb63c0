//! One backup run: its namespaces, their partitions in batches, and the workers that get them.
//!
//! The [`driver`](crate::backup_run) of the run, a task of the runtime, begins a namespace and hands its partitions over
//! with [`ScanPartitions`]; this actor starts workers, one set for all namespaces, gives each a batch whenever it asks for
//! one with [`TakeBatch`], and answers the driver when all partitions are read or the run of the namespace has failed.
//!
//! | message | from | answer |
//! |---|---|---|
//! | [`BeginNamespace`] | driver | |
//! | [`AwaitRetry`], [`BeginRetry`] | driver | |
//! | [`ScanPartitions`] | driver | the queue, when it is over |
//! | [`TakeBatch`] | worker | the next batch, when there is one; `None` when there are no more |
//! | [`WorkerFell`] | watcher of a worker | |
//! | [`Cancel`], [`GetProgress`] | routine, supervisor, watcher of the driver | |
//! | [`GetJob`], [`WaitForJob`] | supervisor | |

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use abs_config::RoutineSettings;
use abs_engine::catalog::BackupKind;
use abs_engine::{
    BackupProgress, BackupRun, BackupSnapshot, Batch, BatchEnd, BatchId, EngineError, NodeLoad,
    PartitionQueue, Scanner,
};
use actix::{
    Actor, ActorContext as _, Addr, AsyncContext as _, Context, Handler, Message, MessageResult,
    ResponseFuture,
};
use chrono::{DateTime, Utc};
use slog::{Logger, error, o};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::backup_run::{self, RoutineRun};
use crate::job::{Amounts, Cancel, End, Falls, Pace, end_of, fallen};
use crate::messages::system::{Event, JobLabel, JobWork};
use crate::messages::{
    GetJob, JobCounters, JobEnd, JobId, JobStatus, PendingRetry, RunningJob, StartBackup, WaitForJob,
};
use crate::shared::Shared;
use crate::supervisor::{Ended, JobEnded, SupervisorActor};

/// How often the job's progress is looked at and told.
const TICK: Duration = Duration::from_secs(1);

/// An attempt at a namespace begins; its counters take the place of those of the attempt before.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct BeginNamespace {
    pub namespace: String,
    pub progress: Arc<BackupProgress>,
}

/// An attempt at a namespace, or at what comes before all namespaces, failed; the next one is still to come. The counters
/// of the failed one are of what was deleted.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct AwaitRetry {
    /// What failed.
    pub what: String,
    /// The namespace, if it was one.
    pub namespace: Option<String>,
    pub retry: PendingRetry,
}

/// What was waited for to be tried again is tried again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct BeginRetry(pub String);

/// Scans all partitions of a queue.
#[derive(Debug, Message)]
#[rtype(result = "PartitionQueue")]
pub(crate) struct ScanPartitions {
    pub run: Arc<BackupRun>,
    pub queue: PartitionQueue,
    /// How many workers scan, over all namespaces of the job.
    pub workers: usize,
}

/// Asks how far the run is.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "RunningJob")]
pub(crate) struct GetProgress {
    /// How long it took, when it has ended.
    pub ended: Option<Duration>,
}

/// Names the scan of a queue within its job.
type ScanId = u64;

/// Names a worker within its job.
type WorkerId = u64;

/// A worker has nothing to do.
#[derive(Debug, Message)]
#[rtype(result = "Option<Assignment>")]
struct TakeBatch {
    worker: WorkerId,
    /// What became of its batch before.
    ended: Option<(ScanId, BatchEnd)>,
}

/// A batch for a worker.
#[derive(Debug)]
struct Assignment {
    scan: ScanId,
    run: Arc<BackupRun>,
    batch: Batch,
}

/// A worker panicked.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct WorkerFell {
    worker: WorkerId,
}

/// Owns one backup run.
#[derive(Debug)]
pub struct BackupJobActor {
    shared: Arc<Shared>,
    id: JobId,
    /// The run's routine, kind and time, unless the command line asked for it.
    work: Option<Work>,
    log: Logger,
    cancel: CancellationToken,
    _falls: Falls,
    pace: Pace,
    namespaces: HashMap<String, Arc<BackupProgress>>,
    /// What waits to be tried again.
    retries: BTreeMap<String, PendingRetry>,
    scans: BTreeMap<ScanId, Scan>,
    last_scan: ScanId,
    /// Workers that there may be.
    parallel: usize,
    /// Workers that there are.
    workers: usize,
    last_worker: WorkerId,
    /// Workers that have nothing.
    idle: Vec<(WorkerId, oneshot::Sender<Option<Assignment>>)>,
    /// What each worker has.
    out: HashMap<WorkerId, (ScanId, BatchId)>,
    load: NodeLoad,
    end: End,
}

/// The scan of a queue.
#[derive(Debug)]
struct Scan {
    run: Arc<BackupRun>,
    queue: PartitionQueue,
    /// Batches that workers have.
    out: usize,
    over: oneshot::Sender<PartitionQueue>,
}

/// Which run of which routine it is.
type Work = (String, BackupKind, DateTime<Utc>);

/// What a job actor is made of before it runs.
struct Beginning {
    shared: Arc<Shared>,
    id: JobId,
    work: Option<Work>,
    log: Logger,
    load: NodeLoad,
    supervisor: Addr<SupervisorActor>,
}

impl BackupJobActor {
    /// Starts a single backup for the command line.
    pub(crate) fn single(
        shared: &Arc<Shared>,
        id: JobId,
        start: StartBackup,
        supervisor: Addr<SupervisorActor>,
    ) -> Addr<Self> {
        let log = shared.log.new(o!("job" => id.0));
        let load = NodeLoad::new(None);
        let run_log = log.clone();
        let beginning = Beginning { shared: Arc::clone(shared), id, work: None, log, load, supervisor };
        Self::begin(beginning, |job, cancel| async move {
            let end = backup_run::single(start, &job, &run_log, &cancel).await;
            (JobEnd::Backup(end.map(|report| vec![report])), Ended::Single)
        })
    }

    /// Starts a run of a routine.
    pub(crate) fn run_of(
        shared: &Arc<Shared>,
        id: JobId,
        settings: Arc<RoutineSettings>,
        kind: BackupKind,
        created: DateTime<Utc>,
        supervisor: Addr<SupervisorActor>,
    ) -> Addr<Self> {
        let routine = settings.name.clone();
        let log = shared.log.new(o!("job" => id.0, "routine" => routine.clone(), "type" => kind.as_str()));
        let load = NodeLoad::new(settings.policy.max_concurrent_nodes);
        let begun = shared.clock.steady();
        let run = RoutineRun { shared: Arc::clone(shared), settings, kind, created, begun, log: log.clone() };
        backup_run::announce_start(shared, &log, id, &routine, kind);
        let work = Some((routine, kind, created));
        let beginning = Beginning { shared: Arc::clone(shared), id, work, log, load, supervisor };
        Self::begin(beginning, |job, cancel| async move {
            let (result, end) = run.make(&job, &cancel).await;
            (JobEnd::Backup(result), Ended::Run(end))
        })
    }

    /// Starts the actor, and `drive` on the runtime. Whatever happens to either, the supervisor hears of the end.
    fn begin<F>(beginning: Beginning, drive: impl FnOnce(Addr<Self>, CancellationToken) -> F) -> Addr<Self>
    where
        F: Future<Output = (JobEnd, Ended)> + Send + 'static,
    {
        let Beginning { shared, id, work, log, load, supervisor } = beginning;
        let cancel = CancellationToken::new();
        let (sender, end) = watch::channel(None);
        let (falls, fell) = Falls::new(&cancel);
        let started = shared.clock.now();
        Self::create(|context| {
            let job = context.address();
            let driver = shared.runtime.spawn(drive(job.clone(), cancel.clone()));
            let (telling, watcher_log, watched) = (Arc::clone(&shared), log.clone(), work.clone());
            shared.runtime.spawn(async move {
                let failure = match driver.await {
                    // Nobody canceled: who would have been told to is gone.
                    Ok((JobEnd::Backup(Err(EngineError::Canceled)), _)) if fell.load(Ordering::SeqCst) => {
                        Err(fallen(()))
                    }
                    Ok(end) => Ok(end),
                    Err(e) => Err(EngineError::Worker(e.to_string())),
                };
                let (end, ended) = failure.unwrap_or_else(|error| {
                    let ended = match watched {
                        Some(_) => Ended::Run(backup_run::failed(&error)),
                        None => Ended::Single,
                    };
                    (JobEnd::Backup(Err(error)), ended)
                });
                // An actor that fell took the counters with it.
                let duration = match &ended {
                    Ended::Run(end) => end.totals.duration,
                    _ => Duration::ZERO,
                };
                let progress = job
                    .send(GetProgress { ended: Some(duration) })
                    .await
                    .unwrap_or_else(|_| Pace::new(started).progress(id, Amounts::default(), Some(duration)));
                // From here on the actor tells of no more progress.
                sender.send_replace(Some(Arc::new(end)));
                let event = match (&ended, &watched) {
                    (Ended::Run(end), Some((routine, kind, created))) => {
                        let run = (id, routine.as_str(), *kind, *created);
                        Some(backup_run::announce_end(&telling, &watcher_log, run, end, progress))
                    }
                    _ => None,
                };
                // A supervisor that is gone needs no news.
                let _ = supervisor.send(JobEnded { id, end: ended }).await;
                if let Some(event) = event {
                    telling.publish(|_| event);
                }
            });
            Self {
                pace: Pace::new(started),
                shared: Arc::clone(&shared),
                id,
                work,
                log,
                cancel,
                _falls: falls,
                namespaces: HashMap::new(),
                retries: BTreeMap::new(),
                scans: BTreeMap::new(),
                last_scan: 0,
                parallel: 0,
                workers: 0,
                last_worker: 0,
                idle: Vec::new(),
                out: HashMap::new(),
                load,
                end,
            }
        })
    }

    /// Gives batches to the workers that have none, and queues that are over back to the driver.
    fn dispatch(&mut self) {
        while let Some((worker, idle)) = self.idle.pop() {
            let Some(assignment) = self.next_batch() else {
                self.idle.push((worker, idle));
                break;
            };
            let (scan, batch) = (assignment.scan, assignment.batch.id());
            self.out.insert(worker, (scan, batch));
            if idle.send(Some(assignment)).is_err() {
                // The worker is gone before it got the batch; its watcher has replaced it, or will.
                self.out.remove(&worker);
                self.lose(scan, batch);
            }
        }
        for (_, scan) in self.scans.extract_if(.., |_, scan| scan.queue.is_over()) {
            // A driver that is gone has been canceled.
            let _ = scan.over.send(scan.queue);
        }
        if self.scans.is_empty() {
            self.workers = self.workers.saturating_sub(self.idle.len());
            for (_, idle) in self.idle.drain(..) {
                // A worker that is gone needs no word.
                let _ = idle.send(None);
            }
        }
    }

    /// The next batch, of the namespace that the fewest workers are at.
    fn next_batch(&mut self) -> Option<Assignment> {
        let mut order: Vec<_> = self.scans.iter_mut().collect();
        order.sort_by_key(|(_, scan)| scan.out);
        order.into_iter().find_map(|(id, scan)| {
            let batch = scan.queue.next(&mut self.load)?;
            scan.out += 1;
            Some(Assignment { scan: *id, run: Arc::clone(&scan.run), batch })
        })
    }

    /// Takes a batch back whose worker panicked.
    fn lose(&mut self, scan: ScanId, batch: BatchId) {
        let Some(scan) = self.scans.get_mut(&scan) else { return };
        scan.out -= 1;
        if let Err(e) = scan.queue.lost(&mut self.load, batch) {
            scan.run.fail(e);
        }
    }

    /// Starts as many workers as there may be, when there is something to do.
    fn start_workers(&mut self, job: &Addr<Self>) {
        while self.workers < self.parallel && !self.scans.is_empty() {
            self.workers += 1;
            self.last_worker += 1;
            let (worker, watcher) = (self.last_worker, job.clone());
            let working = self.shared.runtime.spawn(work(job.clone(), worker));
            self.shared.runtime.spawn(async move {
                if working.await.is_err() {
                    watcher.do_send(WorkerFell { worker });
                }
            });
        }
    }

    fn snapshot(&self) -> BackupSnapshot {
        let mut sum = BackupSnapshot { elapsed: self.pace.elapsed(), ..BackupSnapshot::default() };
        for part in self.namespaces.values().map(|progress| progress.snapshot()) {
            sum += part;
        }
        sum
    }

    fn amounts(&self) -> Amounts {
        let sum = self.snapshot();
        Amounts {
            expected: sum.expected_records,
            done: sum.records_written,
            bytes: sum.bytes_written,
            pipeline: sum.records_read.saturating_sub(sum.records_written),
            share: 0.0,
        }
    }

    fn progress(&self, ended: Option<Duration>) -> RunningJob {
        let progress = self.pace.progress(self.id, self.amounts(), ended);
        match self.retries.values().min_by_key(|retry| retry.at).filter(|_| ended.is_none()) {
            // While something waits there is no saying when all will be done.
            Some(retry) => RunningJob { estimated_end: None, retry: Some(retry.clone()), ..progress },
            None => progress,
        }
    }

    fn tick(&mut self, context: &mut Context<Self>) {
        // The timer would keep the actor alive, though nobody knows it any more.
        if self.work.is_some() && self.end.borrow().is_some() {
            return context.stop();
        }
        // A run that was canceled, or whose writers failed, may have no worker that would say so.
        self.dispatch();
        let amounts = self.amounts();
        self.pace.sample(amounts);
        let Some((routine, kind, _)) = &self.work else { return };
        let progress = self.progress(None);
        self.shared.metrics.backup_progress(routine, *kind, &progress);
        self.shared.publish(|at| {
            let work = JobWork::Backup { routine: routine.clone(), kind: *kind };
            Event::JobProgress { at, job: JobLabel { id: self.id, work }, progress }
        });
    }
}

/// A worker: asks for batches and scans them until there are no more.
async fn work(job: Addr<BackupJobActor>, worker: WorkerId) {
    let mut scanner = Scanner::new();
    let mut ended = None;
    // A job actor that fell has canceled everything.
    while let Ok(Some(Assignment { scan, run, batch })) = job.send(TakeBatch { worker, ended }).await {
        ended = Some((scan, scanner.scan(&run, batch).await));
    }
}

impl Actor for BackupJobActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(TICK, Self::tick);
    }
}

impl Handler<BeginNamespace> for BackupJobActor {
    type Result = ();

    fn handle(&mut self, BeginNamespace { namespace, progress }: BeginNamespace, _: &mut Self::Context) {
        self.namespaces.insert(namespace, progress);
    }
}

impl Handler<AwaitRetry> for BackupJobActor {
    type Result = ();

    fn handle(&mut self, message: AwaitRetry, _: &mut Self::Context) {
        let AwaitRetry { what, namespace, retry } = message;
        self.retries.insert(what, retry);
        if let Some(namespace) = namespace {
            self.namespaces.insert(namespace, Arc::default());
        }
    }
}

impl Handler<BeginRetry> for BackupJobActor {
    type Result = ();

    fn handle(&mut self, BeginRetry(what): BeginRetry, _: &mut Self::Context) {
        self.retries.remove(&what);
    }
}

impl Handler<ScanPartitions> for BackupJobActor {
    type Result = ResponseFuture<PartitionQueue>;

    fn handle(&mut self, message: ScanPartitions, context: &mut Self::Context) -> Self::Result {
        let ScanPartitions { run, queue, workers } = message;
        let (over, answer) = oneshot::channel();
        self.last_scan += 1;
        let id = self.last_scan;
        self.scans.insert(id, Scan { run, queue, out: 0, over });
        self.parallel = self.parallel.max(workers);
        self.start_workers(&context.address());
        // There may be nothing to scan.
        self.dispatch();
        // The sender is dropped with the actor only, and the question with it.
        Box::pin(async move {
            match answer.await {
                Ok(queue) => queue,
                Err(_) => std::future::pending().await,
            }
        })
    }
}

impl Handler<TakeBatch> for BackupJobActor {
    type Result = ResponseFuture<Option<Assignment>>;

    fn handle(&mut self, message: TakeBatch, _: &mut Self::Context) -> Self::Result {
        let TakeBatch { worker, ended } = message;
        if let Some((scan, ended)) = ended
            && self.out.remove(&worker).is_some()
            && let Some(scan) = self.scans.get_mut(&scan)
        {
            scan.out -= 1;
            if let Err(e) = scan.queue.ended(&mut self.load, ended) {
                scan.run.fail(e);
            }
        }
        let (idle, answer) = oneshot::channel();
        self.idle.push((worker, idle));
        self.dispatch();
        Box::pin(async move { answer.await.ok().flatten() })
    }
}

impl Handler<WorkerFell> for BackupJobActor {
    type Result = ();

    fn handle(&mut self, WorkerFell { worker }: WorkerFell, context: &mut Self::Context) {
        error!(self.log, "a worker failed: a defect of this program; its batch is read again"; "worker" => worker);
        self.workers = self.workers.saturating_sub(1);
        match self.out.remove(&worker) {
            Some((scan, batch)) => self.lose(scan, batch),
            // It fell without having anything to do: another one would, too.
            None => {
                for scan in self.scans.values() {
                    scan.run.fail(EngineError::Worker("a worker failed between two batches".to_owned()));
                }
            }
        }
        self.dispatch();
        self.start_workers(&context.address());
    }
}

impl Handler<Cancel> for BackupJobActor {
    type Result = ();

    fn handle(&mut self, _: Cancel, _: &mut Self::Context) {
        self.cancel.cancel();
        self.dispatch();
    }
}

impl Handler<GetProgress> for BackupJobActor {
    type Result = MessageResult<GetProgress>;

    fn handle(&mut self, GetProgress { ended }: GetProgress, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.progress(ended))
    }
}

impl Handler<GetJob> for BackupJobActor {
    type Result = MessageResult<GetJob>;

    fn handle(&mut self, _: GetJob, _: &mut Self::Context) -> Self::Result {
        // The end first: the counters that go with an end are the final ones.
        let end = self.end.borrow().clone();
        MessageResult(Some(JobStatus { counters: JobCounters::Backup(self.snapshot()), end }))
    }
}

impl Handler<WaitForJob> for BackupJobActor {
    type Result = ResponseFuture<Option<Arc<JobEnd>>>;

    fn handle(&mut self, _: WaitForJob, _: &mut Self::Context) -> Self::Result {
        Box::pin(end_of(self.end.clone()))
    }
}
