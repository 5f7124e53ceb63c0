//! Single jobs, as the command line starts them.

use std::sync::Arc;
use std::time::Duration;

use abs_devserver::{Fault, Kind};
use abs_engine::{BackupPlan, EngineError, RestorePlan};
use abs_storage::{Local, ObjectPath, Storage};

use crate::messages::*;
use crate::supervisor::testing::Strike;
use crate::testing::{HANGS, World};

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
    let (first, second) = tokio::join!(world.send(WaitForBackup(good)), world.send(WaitForBackup(good)));
    for result in [first.unwrap(), second.unwrap()] {
        assert_eq!(result.done().unwrap()[0].metadata.record_count, 100);
        assert_eq!(result.snapshot.counts.partitions_done, 4096);
    }
    let result = world.send(WaitForBackup(bad)).await.unwrap();
    assert!(matches!(result.done(), Err(EngineError::Cluster(_))), "{result:?}");
    let counters = world.send(GetJob(good)).await.unwrap();
    assert!(matches!(counters, JobCounters::Backup(c) if c.partitions_done == 4096));
    assert!(!world.send(CancelJob(good)).await, "it has ended");
    assert!(world.send(GetJob(JobId(99))).await.is_none());
    assert!(world.send(WaitForBackup(JobId(99))).await.is_none());

    let restore = StartRestore {
        cluster: world.cluster.clone(),
        storage: Arc::clone(&storage),
        links: vec![ObjectPath::new("good").unwrap().into()],
        plan: RestorePlan::new("test", "other"),
    };
    let restore = world.send(restore).await;
    assert!(world.send(WaitForBackup(restore)).await.is_none(), "it is no backup");
    let result = world.send(WaitForRestore(restore)).await.unwrap();
    assert_eq!(result.done().unwrap()[0].counts.inserted, 100);
}

/// Protects: the result of a job whose actor crashes comes when the job has cleaned up, because the command line ends then.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_actor_leaves_no_files() {
    let world = World::start("2026-01-01T00:00:00Z", "  {}", "  {}").await;
    world.write("test", 0..100).await;
    world.dev.knobs().inject(Fault::delay_reply(Kind::Query, Duration::from_secs(30)));
    let id = world
        .send(StartBackup {
            cluster: world.cluster.clone(),
            storage: Arc::new(Local::new(world.folder.path())),
            folder: ObjectPath::new("backup").unwrap(),
            plan: BackupPlan::new("test"),
        })
        .await;
    let folder = world.folder.path().join("backup");
    let claimed = async {
        while !folder.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(HANGS, claimed).await.unwrap();
    world.send(Strike::Job(id)).await;
    let result = world.send(WaitForBackup(id)).await.unwrap();
    assert_eq!(
        result.done().unwrap_err().to_string(),
        "a worker of the job failed: the actor of the job crashed"
    );
    assert!(!folder.exists());
}
