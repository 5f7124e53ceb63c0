//! One backup run: its namespaces, their partitions in batches, and the workers that get them.
//!
//! The [`driver`](crate::backup_run) of the run, a task of the runtime, begins a namespace and hands its partitions over
//! with [`ScanPartitions`]; this actor starts workers, gives each a batch whenever it asks for one with [`TakeBatch`], and
//! answers the driver when all partitions are read or the run of the namespace has failed.
//!
//! | message | from | answer |
//! |---|---|---|
//! | [`BeginNamespace`] | driver | |
//! | [`ScanPartitions`] | driver | the queue, when it is over |
//! | [`TakeBatch`] | worker | the next batch, when there is one; `None` when there are no more |
//! | [`WorkerFell`] | watcher of a worker | |
//! | [`Cancel`], [`GetProgress`] | routine, supervisor, watcher of the driver | |
//! | [`GetJob`], [`WaitForJob`] | supervisor | |

use std::collections::HashMap;
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
use crate::messages::{GetJob, JobCounters, JobEnd, JobId, JobStatus, RunningJob, StartBackup, WaitForJob};
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

/// Scans all partitions of a queue.
#[derive(Debug, Message)]
#[rtype(result = "PartitionQueue")]
pub(crate) struct ScanPartitions {
    pub run: Arc<BackupRun>,
    pub queue: PartitionQueue,
    /// How many workers scan.
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

/// A worker has nothing to do.
#[derive(Debug, Message)]
#[rtype(result = "Option<Batch>")]
struct TakeBatch {
    scan: ScanId,
    worker: usize,
    /// What became of its batch before.
    ended: Option<BatchEnd>,
}

/// A worker panicked.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct WorkerFell {
    scan: ScanId,
    worker: usize,
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
    scans: HashMap<ScanId, Scan>,
    last_scan: ScanId,
    load: NodeLoad,
    end: End,
}

/// The scan of a queue.
#[derive(Debug)]
struct Scan {
    run: Arc<BackupRun>,
    queue: PartitionQueue,
    /// What each worker has.
    out: HashMap<usize, BatchId>,
    /// Workers that have nothing.
    idle: Vec<(usize, oneshot::Sender<Option<Batch>>)>,
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
        let beginning = Beginning { shared: Arc::clone(shared), id, work: None, log, load, supervisor };
        Self::begin(beginning, |job, cancel| async move {
            let end = backup_run::single(start, &job, &cancel).await;
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
        let run = RoutineRun { shared: Arc::clone(shared), settings, kind, created, log: log.clone() };
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
                scans: HashMap::new(),
                last_scan: 0,
                load,
                end,
            }
        })
    }

    /// Gives batches to the workers that have none, and queues that are over back to the driver.
    fn dispatch(&mut self) {
        for scan in self.scans.values_mut() {
            while let Some((worker, idle)) = scan.idle.pop() {
                let Some(batch) = scan.queue.next(&mut self.load) else {
                    scan.idle.push((worker, idle));
                    break;
                };
                scan.out.insert(worker, batch.id());
                if let Err(Some(batch)) = idle.send(Some(batch)) {
                    // The worker is gone before it got the batch; its watcher has replaced it, or will.
                    scan.out.remove(&worker);
                    if let Err(e) = scan.queue.lost(&mut self.load, batch.id()) {
                        scan.run.fail(e);
                    }
                }
            }
        }
        let over: Vec<_> =
            self.scans.iter().filter(|(_, scan)| scan.queue.is_over()).map(|(id, _)| *id).collect();
        for scan in over.into_iter().filter_map(|id| self.scans.remove(&id)) {
            for (_, idle) in scan.idle {
                // A worker that is gone needs no word.
                let _ = idle.send(None);
            }
            // A driver that is gone has been canceled.
            let _ = scan.over.send(scan.queue);
        }
    }

    fn start_worker(&self, scan: ScanId, worker: usize, run: &Arc<BackupRun>, job: Addr<Self>) {
        let working = self.shared.runtime.spawn(work(job.clone(), scan, worker, Arc::clone(run)));
        self.shared.runtime.spawn(async move {
            if working.await.is_err() {
                job.do_send(WorkerFell { scan, worker });
            }
        });
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
        self.pace.progress(self.id, self.amounts(), ended)
    }

    fn tick(&mut self, context: &mut Context<Self>) {
        // The timer would keep the actor alive, though nobody knows it any more.
        if self.work.is_some() && self.end.borrow().is_some() {
            return context.stop();
        }
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
async fn work(job: Addr<BackupJobActor>, scan: ScanId, worker: usize, run: Arc<BackupRun>) {
    let mut scanner = Scanner::new();
    let mut ended = None;
    // A job actor that fell has canceled everything.
    while let Ok(Some(batch)) = job.send(TakeBatch { scan, worker, ended }).await {
        ended = Some(scanner.scan(&run, batch).await);
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

impl Handler<ScanPartitions> for BackupJobActor {
    type Result = ResponseFuture<PartitionQueue>;

    fn handle(&mut self, message: ScanPartitions, context: &mut Self::Context) -> Self::Result {
        let ScanPartitions { run, queue, workers } = message;
        let (over, answer) = oneshot::channel();
        self.last_scan += 1;
        let id = self.last_scan;
        for worker in 0..workers {
            self.start_worker(id, worker, &run, context.address());
        }
        let scan = Scan { run, queue, out: HashMap::new(), idle: Vec::new(), over };
        self.scans.insert(id, scan);
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
    type Result = ResponseFuture<Option<Batch>>;

    fn handle(&mut self, message: TakeBatch, _: &mut Self::Context) -> Self::Result {
        let TakeBatch { scan, worker, ended } = message;
        let Some(found) = self.scans.get_mut(&scan) else { return Box::pin(async { None }) };
        if let Some(ended) = ended {
            found.out.remove(&worker);
            if let Err(e) = found.queue.ended(&mut self.load, ended) {
                found.run.fail(e);
            }
        }
        let (idle, answer) = oneshot::channel();
        found.idle.push((worker, idle));
        self.dispatch();
        Box::pin(async move { answer.await.ok().flatten() })
    }
}

impl Handler<WorkerFell> for BackupJobActor {
    type Result = ();

    fn handle(&mut self, WorkerFell { scan, worker }: WorkerFell, context: &mut Self::Context) {
        let Some(found) = self.scans.get_mut(&scan) else { return };
        error!(self.log, "a worker failed: a defect of this program; its batch is read again"; "worker" => worker);
        let lost = match found.out.remove(&worker) {
            Some(batch) => found.queue.lost(&mut self.load, batch),
            // It fell without having anything to do: another one would, too.
            None => Err(EngineError::Worker("a worker failed between two batches".to_owned())),
        };
        match lost {
            Ok(()) => {
                let run = Arc::clone(&found.run);
                self.start_worker(scan, worker, &run, context.address());
            }
            Err(e) => found.run.fail(e),
        }
        self.dispatch();
    }
}

impl Handler<Cancel> for BackupJobActor {
    type Result = ();

    fn handle(&mut self, _: Cancel, _: &mut Self::Context) {
        self.cancel.cancel();
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
