//! Workers that panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use abs_config::Retry;
use abs_devserver::Kind;
use abs_engine::{BackupLimits, BackupPlan, EngineError, Fault, NodeLoad};
use chrono::Utc;

use crate::support::{FAST, Server, Target, alone, dispatch, plan, scatter, strike};

/// Whatever the moment at which workers panic, while connections break as well: every record is there, and none twice.
#[tokio::test(flavor = "multi_thread")]
async fn workers_that_panic_lose_and_repeat_nothing() {
    let server = Server::start(3).await;
    // Eight mebibytes: several blocks in every one of the first batches.
    let records = server.load("one", "", 0..4000, 2000).await;
    let target = Target::new();
    for round in 0..12 {
        let strikes = AtomicU64::new(0);
        let fault = Fault::in_backup("one", &target.storage.describe(), move || {
            let number = strikes.fetch_add(1, Relaxed);
            if number < 200 && scatter(round << 32 | number).is_multiple_of(4) {
                strike();
            }
        });
        // By chance one batch may be struck many times in a row.
        let retry = Retry { max_retries: 200, ..FAST };
        let cut = abs_devserver::Fault::cut_reply(Kind::Query, scatter(round) % 1_000_000).times(5);
        let cut = server.dev.knobs().inject(cut);
        let plan = BackupPlan { parallel: 4, retry, ..plan("one") };
        let limits = alone(&plan);
        let folder = format!("round-{round}");
        let (run, queue) = target.begin(&server, &folder, &plan, Utc::now(), &limits).await.unwrap();
        let mut done = dispatch(vec![(Arc::clone(&run), queue)], NodeLoad::new(None), 4).await;
        let report = run.finish(done.queues.pop().unwrap()).await.unwrap();
        server.dev.knobs().lift(cut);
        drop(fault);
        assert!(done.fallen > 3, "{} panics in round {round}", done.fallen);
        assert!(report.retries >= done.fallen as u64);
        assert_eq!(report.metadata.record_count, 4000);
        assert!(target.records(&folder) == records, "round {round}");
    }
}

/// After a panic only the block that was lost is read again, not the batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_costs_one_block() {
    const SIZE: u64 = 2000;
    let server = Server::start(1).await;
    let records = server.load("one", "", 0..4000, SIZE as usize).await;
    let target = Target::new();
    // In the middle of the first batch, which is half of all partitions.
    let _fault = target.strike_backup(3);
    let plan = BackupPlan { parallel: 1, ..plan("one") };
    let limits = alone(&plan);
    let progress = Arc::new(abs_engine::BackupProgress::default());
    let (run, queue) = abs_engine::BackupRun::begin(
        &server.cluster,
        &target.storage,
        &abs_storage::ObjectPath::new("b").unwrap(),
        &plan,
        Utc::now(),
        &limits,
        &progress,
        &target.cancel,
    )
    .await
    .unwrap();
    let mut done = dispatch(vec![(Arc::clone(&run), queue)], NodeLoad::new(None), 1).await;
    assert_eq!(done.fallen, 1);
    run.finish(done.queues.pop().unwrap()).await.unwrap();
    assert!(target.records("b") == records);
    let again = progress.snapshot().records_read - 4000;
    // A block is 512 KiB of text, and blobs become a third larger.
    assert!((1..=(512 << 10) / SIZE).contains(&again), "{again} records were read again");
}

/// A partition at which every worker panics fails its run and no other, and leaves nothing of it behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_partition_fails_its_run_alone() {
    let server = Server::start(2).await;
    server.load("one", "", 0..2000, 1000).await;
    let records = server.load("two", "", 0..2000, 1000).await;
    let target = Target::new();
    let _poisoned = Fault::in_partition(77, "one", &target.storage.describe(), strike);
    let (bad, good) = (plan("one"), plan("two"));
    let limits = BackupLimits::new(&good, None).divide(2);
    let (first, bad) = target.begin(&server, "bad", &bad, Utc::now(), &limits[0]).await.unwrap();
    let (second, good) = target.begin(&server, "good", &good, Utc::now(), &limits[1]).await.unwrap();
    let runs = vec![(Arc::clone(&first), bad), (Arc::clone(&second), good)];
    let mut done = dispatch(runs, NodeLoad::new(None), 3).await;
    assert_eq!(done.fallen, 11);
    second.finish(done.queues.pop().unwrap()).await.unwrap();
    assert!(target.records("good") == records);
    let error = first.finish(done.queues.pop().unwrap()).await.unwrap_err();
    assert!(matches!(error, EngineError::Partition { attempts: 11, .. }), "{error}");
    assert!(error.to_string().ends_with("the worker that read it panicked"), "{error}");
    assert!(target.left().iter().all(|path| !path.contains("bad")), "{:?}", target.left());
}
