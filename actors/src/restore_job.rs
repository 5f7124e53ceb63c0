//! One restore: the chains it reads, their files, and the workers that read them.
//!
//! The [`driver`](crate::restore_run) of the restore, a task of the runtime, plans it, and hands the files of each link of a
//! chain over with [`ReadFiles`]; this actor starts workers, gives each a file, or a share of one, whenever it asks with
//! [`TakeFile`], and answers the driver when all workers have ended.
//!
//! | message | from | answer |
//! |---|---|---|
//! | [`BeginChain`] | driver | |
//! | [`ReadFiles`] | driver | when all files are read, or the run has failed |
//! | [`TakeFile`] | worker | the next file; `None` when there are no more |
//! | [`WorkerEnded`] | watcher of a worker | |
//! | [`Cancel`], [`GetStatus`] | supervisor | |
//! | [`GetJob`], [`WaitForJob`] | supervisor | |

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use abs_engine::{
    ChainRestore, EngineError, FileQueue, FileTask, FileTaskId, RestoreProgress, RestoreReport,
    RestoreSnapshot, RestoreWorker,
};
use actix::{
    Actor, ActorContext as _, Addr, AsyncContext as _, Context, Handler, Message, MessageResult,
    ResponseFuture,
};
use slog::{Logger, error, info, o};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::job::{Amounts, Cancel, End, Falls, Pace, end_of, fallen};
use crate::messages::system::{Event, JobLabel, JobWork};
use crate::messages::{
    GetJob, JobCounters, JobEnd, JobId, JobState, JobStatus, RequestError, RestoreStatus, RunningJob,
    StartRestore, WaitForJob,
};
use crate::restore_run::{self, RestoreWork, ServiceRestore};
use crate::shared::Shared;
use crate::supervisor::{Ended, JobEnded, SupervisorActor};

/// How often the job's progress is looked at and told.
const TICK: Duration = Duration::from_secs(1);

/// The restore of a chain begins.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct BeginChain {
    pub progress: Arc<RestoreProgress>,
    /// How many records its backups hold, if that is known.
    pub expected: Option<u64>,
}

/// Reads all files of a queue.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct ReadFiles {
    pub run: Arc<ChainRestore>,
    pub queue: FileQueue,
    /// How many workers read.
    pub workers: usize,
}

/// Names the reading of a queue within its job.
type ReadingId = u64;

/// A worker has nothing to do.
#[derive(Debug, Message)]
#[rtype(result = "Option<FileTask>")]
struct TakeFile {
    reading: ReadingId,
    /// The file it has done with.
    ended: Option<FileTaskId>,
}

/// A worker went home, or panicked.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct WorkerEnded {
    reading: ReadingId,
    result: Result<(), EngineError>,
}

/// Asks how the restore stands.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "RestoreStatus")]
pub(crate) struct GetStatus {
    /// The restore has ended.
    pub is_last: bool,
}

/// Owns one restore.
#[derive(Debug)]
pub struct RestoreJobActor {
    shared: Arc<Shared>,
    id: JobId,
    /// What is told of it, unless the command line asked for it.
    work: Option<JobWork>,
    log: Logger,
    cancel: CancellationToken,
    _falls: Falls,
    pace: Pace,
    /// Of every chain begun so far.
    chains: Vec<Arc<RestoreProgress>>,
    /// Records of these chains, if that is known.
    expected: Option<u64>,
    readings: HashMap<ReadingId, Reading>,
    last_reading: ReadingId,
    end: End,
}

/// The reading of a queue.
#[derive(Debug)]
struct Reading {
    run: Arc<ChainRestore>,
    queue: FileQueue,
    /// Workers that have not gone home.
    workers: usize,
    over: oneshot::Sender<()>,
}

impl RestoreJobActor {
    /// Starts a single restore for the command line.
    pub(crate) fn single(
        shared: &Arc<Shared>,
        id: JobId,
        start: StartRestore,
        supervisor: Addr<SupervisorActor>,
    ) -> Addr<Self> {
        let log = shared.log.new(o!("job" => id.0));
        Self::begin(shared, id, None, log, supervisor, |job, cancel| async move {
            restore_run::single(start, &job, &cancel).await.map(|report| vec![report])
        })
    }

    /// Starts a restore that was asked of the service, of a `routine` when it is one to a point in time.
    pub(crate) fn of_service<P>(
        shared: &Arc<Shared>,
        routine: Option<String>,
        restore: ServiceRestore<P>,
        supervisor: Addr<SupervisorActor>,
    ) -> Addr<Self>
    where
        P: Future<Output = Result<RestoreWork, RequestError>> + Send + 'static,
    {
        let id = restore.id;
        let log = match &routine {
            Some(routine) => {
                shared.log.new(o!("job" => id.0, "routine" => routine.clone(), "type" => "restore"))
            }
            None => shared.log.new(o!("job" => id.0, "type" => "restore")),
        };
        info!(log, "restore started");
        shared.metrics.restore_started();
        let work = JobWork::Restore { routine };
        let job = JobLabel { id, work: work.clone() };
        shared.publish(|at| Event::JobStarted { at, job });
        let (sharing, driver_log) = (Arc::clone(shared), log.clone());
        Self::begin(shared, id, Some(work), log, supervisor, |job, cancel| async move {
            restore.run(&sharing, &driver_log, &job, &cancel).await
        })
    }

    /// Starts the actor, and `drive` on the runtime. Whatever happens to either, the supervisor hears of the end.
    fn begin<F>(
        shared: &Arc<Shared>,
        id: JobId,
        work: Option<JobWork>,
        log: Logger,
        supervisor: Addr<SupervisorActor>,
        drive: impl FnOnce(Addr<Self>, CancellationToken) -> F,
    ) -> Addr<Self>
    where
        F: Future<Output = Result<Vec<RestoreReport>, EngineError>> + Send + 'static,
    {
        let cancel = CancellationToken::new();
        let (falls, fell) = Falls::new(&cancel);
        let (sender, end) = watch::channel(None);
        let label = work.clone();
        let started = shared.clock.now();
        Self::create(|context| {
            let job = context.address();
            let driver = shared.runtime.spawn(drive(job.clone(), cancel.clone()));
            let (watched, watcher_log) = (Arc::clone(shared), log.clone());
            shared.runtime.spawn(async move {
                let result = match driver.await {
                    // Nobody canceled: who would have been told to is gone.
                    Ok(Err(EngineError::Canceled)) if fell.load(Ordering::SeqCst) => Err(fallen(())),
                    Ok(result) => result,
                    Err(e) => Err(EngineError::Worker(e.to_string())),
                };
                let mut event = None;
                let end = match label {
                    None => Ended::Single,
                    Some(work) => {
                        // An actor that fell took the counters with it.
                        let status =
                            job.send(GetStatus { is_last: true }).await.unwrap_or_else(|_| RestoreStatus {
                                counts: RestoreSnapshot::default(),
                                job: Pace::new(started).progress(
                                    id,
                                    Amounts::default(),
                                    Some(Duration::ZERO),
                                ),
                                state: JobState::Failed,
                                error: None,
                                warnings: Vec::new(),
                            });
                        let label = JobLabel { id, work };
                        let (status, told) =
                            restore_run::conclude(&watched, &watcher_log, label, &result, status);
                        event = Some(told);
                        Ended::Restore(Box::new(status))
                    }
                };
                sender.send_replace(Some(Arc::new(JobEnd::Restore(result))));
                // A supervisor that is gone needs no news.
                let _ = supervisor.send(JobEnded { id, end }).await;
                if let Some(event) = event {
                    watched.publish(|_| event);
                }
            });
            Self {
                pace: Pace::new(started),
                shared: Arc::clone(shared),
                id,
                work,
                log,
                cancel,
                _falls: falls,
                chains: Vec::new(),
                expected: Some(0),
                readings: HashMap::new(),
                last_reading: 0,
                end,
            }
        })
    }

    fn snapshot(&self) -> RestoreSnapshot {
        let mut sum = RestoreSnapshot { elapsed: self.pace.elapsed(), ..RestoreSnapshot::default() };
        for part in self.chains.iter().map(|progress| progress.snapshot()) {
            sum += part;
        }
        sum
    }

    fn amounts(&self, sum: &RestoreSnapshot) -> Amounts {
        Amounts {
            expected: self.expected.unwrap_or_default(),
            done: sum.settled(),
            bytes: sum.bytes_read,
            pipeline: sum.read.saturating_sub(sum.settled()),
            share: sum.bytes_read as f64 / sum.total_bytes.max(1) as f64,
        }
    }

    fn progress(&self) -> RunningJob {
        self.pace.progress(self.id, self.amounts(&self.snapshot()), None)
    }

    fn tick(&mut self, context: &mut Context<Self>) {
        // The timer would keep the actor alive, though nobody knows it any more.
        if self.work.is_some() && self.end.borrow().is_some() {
            return context.stop();
        }
        let amounts = self.amounts(&self.snapshot());
        self.pace.sample(amounts);
        let Some(work) = &self.work else { return };
        let progress = self.progress();
        self.shared.publish(|at| Event::JobProgress {
            at,
            job: JobLabel { id: self.id, work: work.clone() },
            progress,
        });
    }
}

/// A worker: asks for files and reads them until there are no more.
async fn work(
    job: Addr<RestoreJobActor>,
    reading: ReadingId,
    run: Arc<ChainRestore>,
) -> Result<(), EngineError> {
    let mut worker = RestoreWorker::new(run);
    let mut ended = None;
    // A job actor that fell has canceled everything.
    while let Ok(Some(task)) = job.send(TakeFile { reading, ended }).await {
        worker.work(&task).await?;
        ended = Some(task.id());
    }
    worker.flush().await
}

impl Actor for RestoreJobActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(TICK, Self::tick);
    }
}

impl Handler<BeginChain> for RestoreJobActor {
    type Result = ();

    fn handle(&mut self, BeginChain { progress, expected }: BeginChain, _: &mut Self::Context) {
        self.chains.push(progress);
        self.expected = self.expected.zip(expected).map(|(sum, more)| sum + more);
    }
}

impl Handler<ReadFiles> for RestoreJobActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, message: ReadFiles, context: &mut Self::Context) -> Self::Result {
        let ReadFiles { run, queue, workers } = message;
        let (over, answer) = oneshot::channel();
        self.last_reading += 1;
        let id = self.last_reading;
        let workers = workers.max(1);
        for _ in 0..workers {
            let job = context.address();
            let working = self.shared.runtime.spawn(work(job.clone(), id, Arc::clone(&run)));
            self.shared.runtime.spawn(async move {
                let result = working.await.unwrap_or_else(|e| Err(EngineError::Worker(e.to_string())));
                job.do_send(WorkerEnded { reading: id, result });
            });
        }
        self.readings.insert(id, Reading { run, queue, workers, over });
        // The sender is dropped with the actor only, and the question with it.
        Box::pin(async move {
            if answer.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

impl Handler<TakeFile> for RestoreJobActor {
    type Result = MessageResult<TakeFile>;

    fn handle(&mut self, TakeFile { reading, ended }: TakeFile, _: &mut Self::Context) -> Self::Result {
        let Some(reading) = self.readings.get_mut(&reading) else { return MessageResult(None) };
        if let Some(task) = ended {
            reading.queue.ended(task);
        }
        MessageResult(if reading.run.is_stopped() { None } else { reading.queue.next_task() })
    }
}

impl Handler<WorkerEnded> for RestoreJobActor {
    type Result = ();

    fn handle(&mut self, WorkerEnded { reading, result }: WorkerEnded, _: &mut Self::Context) {
        let Some(found) = self.readings.get_mut(&reading) else { return };
        if let Err(e) = result {
            if matches!(e, EngineError::Worker(_)) {
                error!(self.log, "a worker failed: a defect of this program"; "error" => %e);
            }
            found.run.fail(e);
        }
        found.workers -= 1;
        if found.workers == 0
            && let Some(over) = self.readings.remove(&reading)
        {
            // A driver that is gone has been canceled.
            let _ = over.over.send(());
        }
    }
}

impl Handler<Cancel> for RestoreJobActor {
    type Result = ();

    fn handle(&mut self, _: Cancel, _: &mut Self::Context) {
        self.cancel.cancel();
    }
}

impl Handler<GetStatus> for RestoreJobActor {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, GetStatus { is_last }: GetStatus, _: &mut Self::Context) -> Self::Result {
        let counts = self.snapshot();
        let ended = is_last.then(|| self.pace.elapsed());
        let job = self.pace.progress(self.id, self.amounts(&counts), ended);
        let warnings = self.chains.iter().flat_map(|progress| progress.warnings()).collect();
        MessageResult(RestoreStatus { counts, job, state: JobState::Running, error: None, warnings })
    }
}

impl Handler<GetJob> for RestoreJobActor {
    type Result = MessageResult<GetJob>;

    fn handle(&mut self, _: GetJob, _: &mut Self::Context) -> Self::Result {
        // The end first: the counters that go with an end are the final ones.
        let end = self.end.borrow().clone();
        MessageResult(Some(JobStatus { counters: JobCounters::Restore(self.snapshot()), end }))
    }
}

impl Handler<WaitForJob> for RestoreJobActor {
    type Result = ResponseFuture<Option<Arc<JobEnd>>>;

    fn handle(&mut self, _: WaitForJob, _: &mut Self::Context) -> Self::Result {
        Box::pin(end_of(self.end.clone()))
    }
}
