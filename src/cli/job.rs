//! Runs one job under a supervisor: started, shown, canceled by a signal, all by messages.

use std::sync::Arc;

use abs_actors::{
    BackupResult, CancelJob, GetJob, JobCounters, JobId, RestoreResult, StartBackup, StartRestore,
    SupervisorActor, SuspendJob, WaitForBackup, WaitForRestore, supervise,
};
use actix::dev::ToEnvelope;
use actix::{Addr, Context, Handler, Message};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::view::{Look, watch};

/// Runs a backup, which `cancel` ends, or suspends if `suspends`.
pub(super) async fn back_up(
    start: StartBackup,
    cancel: CancellationToken,
    suspends: bool,
) -> Result<Arc<BackupResult>, Failure> {
    run(start, WaitForBackup, "backing up", cancel, suspends).await
}

/// Runs a restore.
pub(super) async fn restore(
    start: StartRestore,
    cancel: CancellationToken,
) -> Result<Arc<RestoreResult>, Failure> {
    run(start, WaitForRestore, "restoring", cancel, false).await
}

/// Runs a job and shows it as `verb`.
async fn run<S, W, R>(
    start: S,
    wait: fn(JobId) -> W,
    verb: &'static str,
    cancel: CancellationToken,
    suspends: bool,
) -> Result<Arc<R>, Failure>
where
    S: Message<Result = JobId> + Send + 'static,
    W: Message<Result = Option<Arc<R>>> + Send + 'static,
    R: Send + Sync + 'static,
    SupervisorActor: Handler<S> + Handler<W>,
    Context<SupervisorActor>: ToEnvelope<SupervisorActor, S> + ToEnvelope<SupervisorActor, W>,
{
    let supervisor = supervise(Handle::current()).map_err(Failure::job)?;
    let id = supervisor.send(start).await.map_err(Failure::job)?;
    let canceler = supervisor.clone();
    tokio::spawn(async move {
        cancel.cancelled().await;
        // A job that has ended needs neither.
        if suspends {
            let _ = canceler.send(SuspendJob(id)).await;
        } else {
            let _ = canceler.send(CancelJob(id)).await;
        }
    });
    let end = watch(verb, async || Some(look(counters(&supervisor, id).await?)), supervisor.send(wait(id)));
    end.await.map_err(Failure::job)?.ok_or_else(|| Failure::job("the supervisor is gone"))
}

async fn counters(supervisor: &Addr<SupervisorActor>, id: JobId) -> Option<JobCounters> {
    supervisor.send(GetJob(id)).await.ok()?
}

fn look(counters: JobCounters) -> Look {
    match counters {
        JobCounters::Backup(now) => Look {
            // At a slow rate records are on their way to a file for long.
            done: now.records_read,
            total: now.expected_records,
            records: now.records_read,
            bytes: now.bytes_written,
            elapsed: now.elapsed,
        },
        JobCounters::Restore(now) => Look {
            done: now.bytes_read,
            total: now.total_bytes,
            records: now.read,
            bytes: now.bytes_read,
            elapsed: now.elapsed,
        },
    }
}
