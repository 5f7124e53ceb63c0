//! The one who owns every job.

use std::collections::HashMap;
use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Arbiter, Context, Handler, Message, Recipient, ResponseFuture, System};
use tokio::runtime::Handle;

use crate::backup_job::StartBackup;
use crate::job::{CancelJob, GetJob, JobEnd, JobId, JobStatus, WaitForJob};
use crate::restore_job::StartRestore;

/// Owns the actors of all jobs; others know jobs by their ids only.
#[derive(Debug)]
pub struct SupervisorActor {
    runtime: Handle,
    jobs: HashMap<JobId, Job>,
    last: u64,
}

/// The ways to reach a job's actor, whatever its kind.
#[derive(Debug)]
struct Job {
    status: Recipient<GetJob>,
    wait: Recipient<WaitForJob>,
    cancel: Recipient<CancelJob>,
}

impl<A> From<Addr<A>> for Job
where
    A: Actor + Handler<GetJob> + Handler<WaitForJob> + Handler<CancelJob>,
    A::Context: ToEnvelope<A, GetJob> + ToEnvelope<A, WaitForJob> + ToEnvelope<A, CancelJob>,
{
    fn from(address: Addr<A>) -> Self {
        Self {
            status: address.clone().recipient(),
            wait: address.clone().recipient(),
            cancel: address.recipient(),
        }
    }
}

/// Starts a supervisor on an arbiter of its own, whose jobs work on `runtime`, a multi-threaded one.
///
/// # Errors
/// When the system refuses a thread.
pub fn supervise(runtime: Handle) -> std::io::Result<Addr<SupervisorActor>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("actors".to_owned()).spawn(move || {
        let system = System::new();
        system.block_on(async {
            let supervisor = SupervisorActor { runtime, jobs: HashMap::new(), last: 0 };
            let arbiter = Arbiter::current();
            // The caller waits for the address, so the channel is open.
            let _ = sender.send(SupervisorActor::start_in_arbiter(&arbiter, |_| supervisor));
        });
        // Runs until the process ends.
        let _ = system.run();
    })?;
    receiver.recv().map_err(std::io::Error::other)
}

impl SupervisorActor {
    fn adopt(&mut self, job: impl Into<Job>) -> JobId {
        self.last += 1;
        let id = JobId(self.last);
        self.jobs.insert(id, job.into());
        id
    }

    /// Passes a question on to the job's actor.
    fn ask<M, T>(&self, id: JobId, message: M, by: fn(&Job) -> &Recipient<M>) -> ResponseFuture<Option<T>>
    where
        M: Message<Result = T> + Send + 'static,
        T: Send + 'static,
    {
        let Some(job) = self.jobs.get(&id) else { return Box::pin(async { None }) };
        let answer = by(job).send(message);
        Box::pin(async move { answer.await.ok() })
    }
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;
}

impl Handler<StartBackup> for SupervisorActor {
    type Result = actix::MessageResult<StartBackup>;

    fn handle(&mut self, job: StartBackup, _: &mut Self::Context) -> Self::Result {
        let actor = job.run(&self.runtime).start();
        actix::MessageResult(self.adopt(actor))
    }
}

impl Handler<StartRestore> for SupervisorActor {
    type Result = actix::MessageResult<StartRestore>;

    fn handle(&mut self, job: StartRestore, _: &mut Self::Context) -> Self::Result {
        let actor = job.run(&self.runtime).start();
        actix::MessageResult(self.adopt(actor))
    }
}

impl Handler<GetJob> for SupervisorActor {
    type Result = ResponseFuture<Option<JobStatus>>;

    fn handle(&mut self, message: GetJob, _: &mut Self::Context) -> Self::Result {
        let answer = self.ask(message.0, message, |job| &job.status);
        Box::pin(async move { answer.await.flatten() })
    }
}

impl Handler<WaitForJob> for SupervisorActor {
    type Result = ResponseFuture<Option<Arc<JobEnd>>>;

    fn handle(&mut self, message: WaitForJob, _: &mut Self::Context) -> Self::Result {
        let answer = self.ask(message.0, message, |job| &job.wait);
        Box::pin(async move { answer.await.flatten() })
    }
}

impl Handler<CancelJob> for SupervisorActor {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, message: CancelJob, _: &mut Self::Context) -> Self::Result {
        let answer = self.ask(message.0, message, |job| &job.cancel);
        Box::pin(async move { answer.await.unwrap_or(false) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use abs_cluster::{Cluster, ConnectOptions};
    use abs_devserver::DevServer;
    use abs_engine::{BackupPlan, EngineError, RestorePlan};
    use abs_storage::{Local, ObjectPath, Storage};

    use super::*;
    use crate::job::JobCounters;

    async fn server() -> (DevServer, Cluster) {
        let builder = DevServer::builder().listen(([127, 0, 0, 1], 0).into()).namespace("test", 64 << 20);
        let server = builder.start().await.unwrap();
        let options = ConnectOptions {
            seeds: vec![server.addresses()[0].to_string().parse().unwrap()],
            timeout: Duration::from_secs(5),
            use_services_alternate: false,
        };
        (server, Cluster::connect(options).await.unwrap())
    }

    /// A job is started, watched, waited for by several, and still known after its end; a failed job hurts no other.
    #[tokio::test(flavor = "multi_thread")]
    async fn jobs_live_and_end_by_messages() {
        let (_server, cluster) = server().await;
        let folder = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Local::new(folder.path()));
        let supervisor = supervise(Handle::current()).unwrap();
        let backup = |plan| StartBackup {
            cluster: cluster.clone(),
            storage: Arc::clone(&storage),
            folder: ObjectPath::root(),
            plan,
        };
        let bad = supervisor.send(backup(BackupPlan::new("nope"))).await.unwrap();
        let good = supervisor.send(backup(BackupPlan::new("test"))).await.unwrap();
        let (first, second) =
            tokio::join!(supervisor.send(WaitForJob(good)), supervisor.send(WaitForJob(good)));
        for end in [first.unwrap().unwrap(), second.unwrap().unwrap()] {
            assert!(matches!(&*end, JobEnd::Backup(Ok(report)) if report.metadata.namespace == "test"));
        }
        let end = supervisor.send(WaitForJob(bad)).await.unwrap().unwrap();
        assert!(matches!(&*end, JobEnd::Backup(Err(EngineError::Cluster(_)))), "{end:?}");
        let status = supervisor.send(GetJob(good)).await.unwrap().unwrap();
        assert!(matches!(status.counters, JobCounters::Backup(c) if c.partitions_done == 4096));
        assert!(status.end.is_some());
        assert!(!supervisor.send(CancelJob(good)).await.unwrap(), "it has ended");
        assert!(supervisor.send(GetJob(JobId(99))).await.unwrap().is_none());
        assert!(supervisor.send(WaitForJob(JobId(99))).await.unwrap().is_none());

        let restore = StartRestore {
            cluster,
            storage,
            folder: ObjectPath::root(),
            plan: RestorePlan::new("test", "test"),
        };
        let restore = supervisor.send(restore).await.unwrap();
        let end = supervisor.send(WaitForJob(restore)).await.unwrap().unwrap();
        assert!(matches!(&*end, JobEnd::Restore(Ok(report)) if report.counts.read == 0));
    }
}
