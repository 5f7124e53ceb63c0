//! How many records there will be.

use std::sync::Arc;
use std::time::Duration;

use abs_cluster::partition_of;
use abs_devserver::DevServer;
use abs_engine::{BackupPlan, BackupProgress, BackupRun, NodeLoad, PartitionChoice, Scanner};
use abs_storage::ObjectPath;
use chrono::{TimeDelta, Utc};

use crate::support::{Records, Server, Target, alone, dispatch, plan};

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

/// Protects: of some sets the cluster knows, too, from the beginning, however many nodes hold a record.
#[tokio::test(flavor = "multi_thread")]
async fn of_sets() {
    for replicas in [1, 2] {
        let server = Server::build(DevServer::builder().nodes(3).replication_factor(replicas)).await;
        server.load("one", "a", 0..2000, 10).await;
        server.load("one", "b", 2000..2600, 10).await;
        server.load("one", "c", 2600..5000, 10).await;
        let target = Target::new();
        let sets = |sets: &[&str]| sets.iter().map(ToString::to_string).collect();
        for (number, (sets, expected)) in
            [(sets(&["a"]), 2000), (sets(&["b", "a"]), 2600), (sets(&["none"]), 0)].into_iter().enumerate()
        {
            let plan = BackupPlan { sets, ..plan("one") };
            let progress = Arc::new(BackupProgress::default());
            let _run = begin(&server, &target, &number.to_string(), &plan, &progress).await;
            assert_eq!(progress.snapshot().expected_records, expected);
        }
    }
}

/// With a filter it begins with one partition, gets better with every batch, and is right at the end.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_selection() {
    let server = Server::start(2).await;
    server.load("one", "", 40_000..60_000, 10).await;
    server.dev.knobs().advance_clock(Duration::from_hours(2));
    server.load("one", "", 0..40_000, 10).await;
    let target = Target::new();
    let plan = BackupPlan { modified_after: Some(Utc::now() + TimeDelta::hours(1)), ..plan("one") };
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

    let progress = Arc::new(BackupProgress::default());
    let (run, queue) = begin(&server, &target, "c", &plan, &progress).await;
    let mut done = dispatch(vec![(Arc::clone(&run), queue)], load, 4).await;
    run.finish(done.queues.pop().unwrap()).await.unwrap();
    assert_eq!(progress.snapshot().expected_records, 40_000);
}

/// Protects: at a limited rate a batch is worth about a second, and one that would be more is cut, so that the counters
/// move; every record is there once.
#[tokio::test(flavor = "multi_thread")]
async fn a_limited_rate_makes_small_batches() {
    let server = Server::start(1).await;
    let records = server.load("one", "", 0..12_288, 10).await;
    let target = Target::new();
    // Half of the rate is for each scan: 300 records, of 3 in each partition.
    let few = BackupPlan { records_per_second: 600, parallel: 2, ..plan("one") };
    let progress = Arc::new(BackupProgress::default());
    let (run, mut queue) = begin(&server, &target, "few", &few, &progress).await;
    let batch = queue.next(&mut NodeLoad::new(None)).unwrap();
    assert_eq!(batch.partitions().len(), 100);
    drop(run);

    // A record of which each partition has three is more than the rate allows in a second.
    let plan = BackupPlan { records_per_second: 20_000, parallel: 20_000, ..plan("one") };
    let partitions = PartitionChoice::Partitions((0..200).collect());
    let plan = BackupPlan { partitions, ..plan };
    let before = server.dev.knobs().counts().queries;
    let (run, queue) = begin(&server, &target, "one", &plan, &progress).await;
    let mut done = dispatch(vec![(Arc::clone(&run), queue)], NodeLoad::new(None), 4).await;
    run.finish(done.queues.pop().unwrap()).await.unwrap();
    let found = target.records("one");
    let expected: Records = records.into_iter().filter(|(digest, _)| partition_of(digest) < 200).collect();
    assert!(found == expected);
    let queries = server.dev.knobs().counts().queries - before;
    assert_eq!(queries, expected.len() as u64 + 200, "one for each record, and one for each end");
    assert_eq!(progress.snapshot().partitions_done, 200);
}

async fn begin(
    server: &Server,
    target: &Target,
    folder: &str,
    plan: &BackupPlan,
    progress: &Arc<BackupProgress>,
) -> (Arc<BackupRun>, abs_engine::PartitionQueue) {
    let (limits, folder) = (alone(plan), ObjectPath::new(folder).unwrap());
    let (storage, cancel) = (&target.storage, &target.cancel);
    BackupRun::begin(&server.cluster, storage, &folder, plan, Utc::now(), &limits, progress, cancel)
        .await
        .unwrap()
}
