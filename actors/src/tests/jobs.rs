//! Single jobs, as the command line starts them.

use std::sync::Arc;

use abs_engine::{BackupPlan, EngineError, RestorePlan};
use abs_storage::{Local, ObjectPath, Storage};

use crate::messages::*;
use crate::testing::World;

/// A job is started, watched, waited for by several, and still known after its end; a failed job hurts no other.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_live_and_end_by_messages() {
    let world = World::start("2026-01-01T00:00:00Z", "  {}", "  {}").await;
    world.write("test", 0..100).await;
    let storage: Arc<dyn Storage> = Arc::new(Local::new(world.folder.path()));
    let backup = |folder: &str, plan| StartBackup {
        cluster: world.cluster.clone(),
        storage: Arc::clone(&storage),
        folder: ObjectPath::new(folder).unwrap(),
        plan,
    };
    let bad = world.send(backup("bad", BackupPlan::new("nope"))).await;
    let good = world.send(backup("good", BackupPlan::new("test"))).await;
    let (first, second) = tokio::join!(world.send(WaitForJob(good)), world.send(WaitForJob(good)));
    for end in [first.unwrap(), second.unwrap()] {
        assert!(matches!(&*end, JobEnd::Backup(Ok(reports)) if reports[0].metadata.record_count == 100));
    }
    let end = world.send(WaitForJob(bad)).await.unwrap();
    assert!(matches!(&*end, JobEnd::Backup(Err(EngineError::Cluster(_)))), "{end:?}");
    let status = world.send(GetJob(good)).await.unwrap();
    assert!(matches!(status.counters, JobCounters::Backup(c) if c.partitions_done == 4096));
    assert!(status.end.is_some());
    assert!(!world.send(CancelJob(good)).await, "it has ended");
    assert!(world.send(GetJob(JobId(99))).await.is_none());
    assert!(world.send(WaitForJob(JobId(99))).await.is_none());

    let restore = StartRestore {
        cluster: world.cluster.clone(),
        storage: Arc::clone(&storage),
        links: vec![ObjectPath::new("good").unwrap().into()],
        plan: RestorePlan::new("test", "other"),
    };
    let restore = world.send(restore).await;
    let end = world.send(WaitForJob(restore)).await.unwrap();
    assert!(matches!(&*end, JobEnd::Restore(Ok(reports)) if reports[0].counts.inserted == 100), "{end:?}");
}
