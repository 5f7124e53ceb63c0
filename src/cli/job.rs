//! Runs one job under a supervisor: started, shown, canceled by a signal, all by messages.

use std::sync::Arc;

use abs_actors::{
    CancelJob, GetJob, JobCounters, JobEnd, JobId, StartBackup, StartRestore, SupervisorActor, WaitForJob,
    supervise,
};
use actix::Addr;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::view::{Look, watch};

/// A job to start.
pub(super) enum Start {
    Backup(StartBackup),
    Restore(StartRestore),
}

/// Runs a job and shows it as `verb`.
pub(super) async fn run(
    start: Start,
    verb: &'static str,
    cancel: CancellationToken,
) -> Result<(Arc<JobEnd>, JobCounters), Failure> {
    let supervisor = supervise(Handle::current()).map_err(Failure::job)?;
    let id = match start {
        Start::Backup(start) => supervisor.send(start).await,
        Start::Restore(start) => supervisor.send(start).await,
    }
    .map_err(Failure::job)?;
    let canceler = supervisor.clone();
    tokio::spawn(async move {
        cancel.cancelled().await;
        // A job that ended first needs no canceling.
        let _ = canceler.send(CancelJob(id)).await;
    });
    let end =
        watch(verb, async || Some(look(counters(&supervisor, id).await?)), supervisor.send(WaitForJob(id)));
    let gone = || Failure::job("the supervisor is gone");
    let end = end.await.map_err(Failure::job)?.ok_or_else(gone)?;
    let counters = counters(&supervisor, id).await.ok_or_else(gone)?;
    Ok((end, counters))
}

async fn counters(supervisor: &Addr<SupervisorActor>, id: JobId) -> Option<JobCounters> {
    Some(supervisor.send(GetJob(id)).await.ok()??.counters)
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
