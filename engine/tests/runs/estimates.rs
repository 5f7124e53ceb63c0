//! How many records there will be.

use std::sync::Arc;

use abs_engine::{BackupLimits, BackupPlan, BackupProgress, BackupRun, NodeLoad, PartitionChoice, Scanner};
use abs_storage::ObjectPath;
use chrono::Utc;

use crate::support::{Server, Target, dispatch, plan};

/// Without a filter the cluster knows; of some partitions, their share.
#[tokio::test(flavor = "multi_thread")]
async fn of_everything() {
    let server = Server::start(2).await;
    server.load("one", "", 0..2000, 10).await;
    let target = Target::new();
    for (count, expected) in [(4096, 2000), (1024, 500)] {
        let partitions = PartitionChoice::Partitions((0..count).collect());
        let plan = BackupPlan { partitions, ..plan("one") };
        let progress = Arc::new(BackupProgress::default());
        let _run = begin(&server, &target, &count.to_string(), &plan, &progress).await;
        assert_eq!(progress.snapshot().expected_records, expected);
    }
}

/// With a filter it begins with one partition, gets better with every batch, and is right at the end.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_selection() {
    let server = Server::start(2).await;
    server.load("one", "in", 0..40_000, 10).await;
    server.load("one", "out", 40_000..60_000, 10).await;
    let target = Target::new();
    let plan = BackupPlan { sets: vec!["in".to_owned()], ..plan("one") };
    let progress = Arc::new(BackupProgress::default());
    let (run, mut queue) = begin(&server, &target, "b", &plan, &progress).await;
    assert_eq!(progress.snapshot().expected_records, 0, "nothing is known yet");

    let mut load = NodeLoad::new(None);
    let sample = queue.next(&mut load).unwrap();
    assert_eq!(sample.partitions().len(), 1);
    let end = Scanner::new().scan(&run, sample).await;
    queue.ended(&mut load, end).unwrap();
    let expected = progress.snapshot().expected_records;
    assert!((10_000..160_000).contains(&expected), "{expected} by one partition of about ten records");
    assert!(queue.next(&mut load).is_some_and(|batch| batch.partitions().len() > 16));

    let (run, queue) = begin(&server, &target, "c", &plan, &progress).await;
    let mut done = dispatch(vec![(Arc::clone(&run), queue)], load, 4).await;
    run.finish(done.queues.pop().unwrap()).await.unwrap();
    assert_eq!(progress.snapshot().expected_records, 40_000);
}

async fn begin(
    server: &Server,
    target: &Target,
    folder: &str,
    plan: &BackupPlan,
    progress: &Arc<BackupProgress>,
) -> (Arc<BackupRun>, abs_engine::PartitionQueue) {
    let (limits, folder) = (BackupLimits::new(plan, None), ObjectPath::new(folder).unwrap());
    let (storage, cancel) = (&target.storage, &target.cancel);
    BackupRun::begin(&server.cluster, storage, &folder, plan, Utc::now(), &limits, progress, cancel)
        .await
        .unwrap()
}
