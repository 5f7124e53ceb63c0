//! What all jobs have in common: an id, counters, an end.

use std::fmt;
use std::sync::Arc;

use abs_engine::{BackupReport, BackupSnapshot, EngineError, RestoreReport, RestoreSnapshot};
use actix::{Actor, Context, Handler, Message, MessageResult, ResponseFuture};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A job of this process: positive, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub(crate) u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a job ended.
#[derive(Debug)]
pub enum JobEnd {
    /// A backup.
    Backup(Result<BackupReport, EngineError>),
    /// A restore.
    Restore(Result<RestoreReport, EngineError>),
}

/// The counters of a job at one moment.
#[derive(Clone, Copy, Debug)]
pub enum JobCounters {
    /// Of a backup.
    Backup(BackupSnapshot),
    /// Of a restore.
    Restore(RestoreSnapshot),
}

/// A job at one moment.
#[derive(Clone, Debug)]
pub struct JobStatus {
    /// Its counters.
    pub counters: JobCounters,
    /// How it ended; `None` while it runs.
    pub end: Option<Arc<JobEnd>>,
}

/// Asks for the status of a job; `None` when there is no such job.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<JobStatus>")]
pub struct GetJob(pub JobId);

/// Asks for the end of a job, and gets it when there is one; `None` when there is no such job.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Option<Arc<JobEnd>>")]
pub struct WaitForJob(pub JobId);

/// Cancels a job; false when there is no such job or it has ended.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "bool")]
pub struct CancelJob(pub JobId);

/// The counters of a kind of job.
pub trait Progress: std::fmt::Debug + Send + Sync + 'static {
    /// The counters now.
    fn counters(&self) -> JobCounters;
}

/// Owns one job from its start to its end: it is canceled at most once and waited for by anybody.
#[derive(Debug)]
pub struct JobActor<P> {
    progress: Arc<P>,
    cancel: CancellationToken,
    end: watch::Receiver<Option<Arc<JobEnd>>>,
}

impl<P: Progress> JobActor<P> {
    /// Runs `work` on the multi-threaded runtime. A panic in it ends this job, as `failed`, and nothing else.
    pub(crate) fn run<F>(
        runtime: &Handle,
        progress: Arc<P>,
        failed: fn(EngineError) -> JobEnd,
        work: impl FnOnce(CancellationToken) -> F,
    ) -> Self
    where
        F: Future<Output = JobEnd> + Send + 'static,
    {
        let cancel = CancellationToken::new();
        let (sender, end) = watch::channel(None);
        let running = runtime.spawn(work(cancel.clone()));
        runtime.spawn(async move {
            let end = running.await.unwrap_or_else(|e| failed(EngineError::Worker(e.to_string())));
            sender.send_replace(Some(Arc::new(end)));
        });
        Self { progress, cancel, end }
    }
}

impl<P: Progress> Actor for JobActor<P> {
    type Context = Context<Self>;
}

impl<P: Progress> Handler<GetJob> for JobActor<P> {
    type Result = MessageResult<GetJob>;

    fn handle(&mut self, _: GetJob, _: &mut Self::Context) -> Self::Result {
        // The end first: the counters that go with an end are the final ones.
        let end = self.end.borrow().clone();
        MessageResult(Some(JobStatus { counters: self.progress.counters(), end }))
    }
}

impl<P: Progress> Handler<WaitForJob> for JobActor<P> {
    type Result = ResponseFuture<Option<Arc<JobEnd>>>;

    fn handle(&mut self, _: WaitForJob, _: &mut Self::Context) -> Self::Result {
        let mut end = self.end.clone();
        Box::pin(async move {
            // The sender sends before it is dropped.
            let end = end.wait_for(Option::is_some).await.ok()?;
            end.clone()
        })
    }
}

impl<P: Progress> Handler<CancelJob> for JobActor<P> {
    type Result = bool;

    fn handle(&mut self, _: CancelJob, _: &mut Self::Context) -> bool {
        self.cancel.cancel();
        self.end.borrow().is_none()
    }
}
