//! Restores, handed out file by file.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use abs_devserver::{DevServer, Fault, Kind};
use abs_engine::{
    BackupPlan, ChainRestore, EngineError, FileQueue, FileTaskId, RestoreLimits, RestorePlan,
    RestoreProgress, RestoreReport, RestoreWorker,
};
use abs_storage::ObjectPath;
use chrono::Utc;
use tokio::task::JoinSet;

use crate::support::{FAST, HANGS, Records, Server, Target, plan, strike};

const RECORDS: u64 = 3000;

/// A server whose first namespace is backed up into several files.
async fn backed_up() -> (Server, Target, Records) {
    let server = Server::start(2).await;
    let records = server.load("one", "", 0..RECORDS, 1500).await;
    let target = Target::new();
    let plan = BackupPlan { file_limit: 1_000_000, ..plan("one") };
    let report = target.backup(&server, "b", &plan, Utc::now()).await.unwrap();
    assert!(report.metadata.file_count > 3);
    (server, target, records)
}

pub fn into_two() -> RestorePlan {
    RestorePlan { resend: FAST, batch_size: 50, ..RestorePlan::new("one", "two") }
}

async fn begin(
    server: &Server,
    target: &Target,
    plan: &RestorePlan,
    limits: &Arc<RestoreLimits>,
) -> (Arc<ChainRestore>, FileQueue) {
    let (folder, progress) = (ObjectPath::new("b").unwrap(), Arc::new(RestoreProgress::default()));
    let (storage, cancel) = (&target.storage, &target.cancel);
    let links = [folder.into()];
    let run =
        ChainRestore::begin(&server.cluster, storage, &links, plan, limits, &progress, cancel).await.unwrap();
    let queue = run.next_link().await.unwrap();
    (run, queue)
}

/// Hands the files to `workers` workers, and ends the run when each of them has flushed or failed.
pub async fn dispatch(
    run: Arc<ChainRestore>,
    mut queue: FileQueue,
    workers: usize,
) -> Result<RestoreReport, EngineError> {
    let work = async {
        let mut idle: Vec<_> = (0..workers).map(|_| RestoreWorker::new(Arc::clone(&run))).collect();
        let mut tasks = JoinSet::new();
        let mut out: HashMap<_, FileTaskId> = HashMap::new();
        loop {
            while !run.is_stopped()
                && let Some(mut worker) = idle.pop()
            {
                let Some(task) = queue.next_task() else {
                    tasks.spawn(async move {
                        let flushed = worker.flush().await;
                        (None, flushed)
                    });
                    continue;
                };
                let id = task.id();
                let handle = tasks.spawn(async move {
                    let worked = worker.work(&task).await;
                    (Some(worker), worked)
                });
                out.insert(handle.id(), id);
            }
            let Some(joined) = tasks.join_next_with_id().await else { break };
            let (task, result) = match joined {
                Ok((task, (worker, result))) => {
                    idle.extend(worker);
                    (task, result)
                }
                Err(e) => (e.id(), Err(EngineError::Worker("a worker fell".to_owned()))),
            };
            if let Some(id) = out.remove(&task) {
                queue.ended(id);
            }
            if let Err(e) = result {
                run.fail(e);
            }
        }
        assert!(run.next_link().await.is_none(), "there is one link");
        run.finish().await
    };
    tokio::time::timeout(HANGS, work).await.expect("the restore hangs")
}

/// Everything comes back, whatever the number of files and workers.
#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back() {
    let (server, target, records) = backed_up().await;
    for workers in [1, 4, 16] {
        let plan = RestorePlan { no_generation: true, ..into_two() };
        let limits = RestoreLimits::new(&plan, 1);
        let (run, queue) = begin(&server, &target, &plan, &limits).await;
        let report = dispatch(run, queue, workers).await.unwrap();
        assert_eq!((report.counts.read, report.counts.inserted), (RECORDS, RECORDS));
    }
    let again = BackupPlan { compact: true, ..crate::support::plan("two") };
    target.backup(&server, "again", &again, Utc::now()).await.unwrap();
    assert!(target.records("again") == records);
}

/// Two restores of one job share what it may have in flight, and both end.
#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_job_share_its_limits() {
    let (server, target, _) = backed_up().await;
    let plan = RestorePlan { parallel: 1, max_async_batches: 1, no_generation: true, ..into_two() };
    let limits = RestoreLimits::new(&plan, 1);
    let (first, first_queue) = begin(&server, &target, &plan, &limits).await;
    let (second, second_queue) = begin(&server, &target, &plan, &limits).await;
    let (first, second) = tokio::join!(dispatch(first, first_queue, 3), dispatch(second, second_queue, 3));
    assert_eq!(first.unwrap().counts.inserted + second.unwrap().counts.inserted, 2 * RECORDS);
}

/// Protects: a restore whose records were lost again by a restart does not end well; one whose records outlive it tells.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_restart_lost_again_fail_the_run() {
    for is_volatile in [true, false] {
        let builder = DevServer::builder();
        let server = Server::build(if is_volatile { builder.volatile() } else { builder }).await;
        server.load("one", "", 0..RECORDS, 1500).await;
        let target = Target::new();
        target.backup(&server, "b", &plan("one"), Utc::now()).await.unwrap();
        server.dev.knobs().advance_clock(Duration::from_hours(1));
        let plan = into_two();
        let limits = RestoreLimits::new(&plan, 1);
        let (run, queue) = begin(&server, &target, &plan, &limits).await;
        server.dev.stop_node(0).await.unwrap();
        server.dev.start_node(0).await.unwrap();
        let ended = dispatch(run, queue, 2).await;
        if is_volatile {
            let error = ended.unwrap_err();
            assert!(matches!(error, EngineError::RestoreLost { .. }), "{error}");
        } else {
            let [warning] = &ended.as_ref().unwrap().warnings[..] else { panic!("{ended:?}") };
            assert!(warning.contains("DE0001 restarted"), "{warning}");
        }
    }
}

/// A worker that panics fails its run: nobody knows which of its rows were sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_the_run() {
    let (server, target, _) = backed_up().await;
    let strikes = AtomicU64::new(0);
    let _fault = abs_engine::Fault::in_restore("one", &target.storage.describe(), move || {
        if strikes.fetch_add(1, Relaxed) == 9 {
            strike();
        }
    });
    let plan = into_two();
    let limits = RestoreLimits::new(&plan, 1);
    let (run, queue) = begin(&server, &target, &plan, &limits).await;
    let error = dispatch(run, queue, 4).await.unwrap_err();
    assert!(matches!(error, EngineError::Worker(_)), "{error}");
    assert!(server.dev.knobs().objects("two").unwrap() < RECORDS);
}

/// A run is not done before its workers have flushed.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_not_flushed_are_not_done() {
    let (server, target, _) = backed_up().await;
    let plan = into_two();
    let limits = RestoreLimits::new(&plan, 1);
    let (run, mut queue) = begin(&server, &target, &plan, &limits).await;
    let mut worker = RestoreWorker::new(Arc::clone(&run));
    while let Some(task) = queue.next_task() {
        worker.work(&task).await.unwrap();
        queue.ended(task.id());
    }
    assert!(queue.is_over());
    assert!(matches!(run.finish().await, Err(EngineError::Canceled)));
}

/// A node that takes a batch and says nothing is given up after the batch's own time; the rows are in doubt, and sent again.
#[tokio::test(flavor = "multi_thread")]
async fn the_total_timeout_ends_a_silent_batch() {
    let hour = Duration::from_hours(1);
    let (server, target, _) = backed_up().await;
    server.dev.knobs().inject(Fault::delay_reply(Kind::Batch, hour).times(2));
    let plan = RestorePlan {
        socket_timeout: hour,
        total_timeout: Duration::from_millis(300),
        no_generation: true,
        ..into_two()
    };
    let limits = RestoreLimits::new(&plan, 1);
    let (run, queue) = begin(&server, &target, &plan, &limits).await;
    let report = dispatch(run, queue, 2).await.unwrap();
    assert_eq!(report.counts.inserted, RECORDS);
    assert!(report.counts.in_doubt > 0 && report.counts.retries >= 2);
}
