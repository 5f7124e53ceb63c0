//! Runs that fail and go on from their last checkpoint.

use std::sync::Arc;
use std::time::Duration;

use abs_asb::Cipher;
use abs_config::Retry;
use abs_engine::{BackupPlan, Depth, EngineError, NodeLoad, Verdict, discard, verify};
use abs_storage::ObjectPath;
use chrono::{DateTime, Utc};

use crate::damage::key;
use crate::support::{Records, Server, Target, alone, dispatch, partition, plan, scatter};

/// A plan with many checkpoints, whose first panic fails the run.
fn fragile(namespace: &str) -> BackupPlan {
    let retry = Retry { base: Duration::ZERO, multiplier: 1.0, max_retries: 0 };
    BackupPlan {
        parallel: 3,
        parallel_write: 2,
        checkpoint_interval: Duration::from_millis(1),
        retry,
        ..plan(namespace)
    }
}

/// One attempt; returns how many records it began with, and what became of it.
async fn attempt(
    server: &Server,
    target: &Target,
    folder: &str,
    plan: &BackupPlan,
    created: DateTime<Utc>,
) -> (u64, Result<u64, EngineError>) {
    let limits = alone(plan);
    let (run, queue) = target.begin(server, folder, plan, created, &limits).await.unwrap();
    let began_with = run.progress().snapshot().records_written;
    let mut done = dispatch(vec![(Arc::clone(&run), queue)], NodeLoad::new(None), plan.parallel).await;
    let result = run.finish(done.queues.pop().unwrap()).await;
    (began_with, result.map(|report| report.metadata.record_count))
}

/// Protects: whenever a run fails, the next attempt has every record once, and keeps what was durable; the files of all attempts
/// are authenticated as of one run.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_from_its_checkpoint() {
    let server = Server::start(2).await;
    let records = server.load("one", "", 0..4000, 2000).await;
    let target = Target::new();
    let mut kept = 0;
    for round in 0..12 {
        let (folder, created) = (format!("round-{round}"), Utc::now());
        let encryption = (round % 2 == 1).then(|| key(Cipher::Aes256Gcm));
        let mut attempts = 0;
        loop {
            attempts += 1;
            let _fault = (attempts < 4).then(|| target.strike_backup(scatter(round << 8 | attempts) % 40));
            let plan = BackupPlan {
                compression: (round % 2 == 1).then_some(1),
                encryption: encryption.clone(),
                ..fragile("one")
            };
            let (began_with, result) = attempt(&server, &target, &folder, &plan, created).await;
            kept += began_with;
            match result {
                Ok(count) => {
                    assert_eq!(count, 4000);
                    break;
                }
                Err(e) => assert!(matches!(e, EngineError::Partition { .. }), "{e}"),
            }
        }
        if encryption.is_none() {
            assert!(target.records(&folder) == records, "round {round}");
        } else {
            let (place, keys) = (ObjectPath::new(&folder).unwrap(), encryption.into());
            let found = verify(&target.storage, &place, &keys, Depth::Full, &Arc::default()).await.unwrap();
            assert_eq!(
                (found.verdict(), found.backups[0].records),
                (Verdict::Whole, Some(4000)),
                "{found:?}"
            );
        }
        let left = target.left();
        let foreign = |path: &&String| {
            path.contains(&folder) && (path.contains("in-progress") || path.contains(".abs-tmp"))
        };
        assert_eq!(left.iter().find(foreign), None);
        assert!(
            !left.iter().any(|path| path.ends_with(&format!("{folder}/manifest"))),
            "the checkpoints are merged"
        );
    }
    assert!(kept > 4000, "only {kept} records were kept over all rounds");
}

/// Protects: another plan does not go on with the files of this one, and what is not wanted any more is deleted.
#[tokio::test(flavor = "multi_thread")]
async fn another_plan_begins_anew() {
    let server = Server::start(1).await;
    server.load("one", "", 0..4000, 2000).await;
    let records = server.load("one", "s", 5000..5010, 10).await;
    let target = Target::new();
    let created = Utc::now();
    let begun = || async {
        loop {
            let _fault = target.strike_backup(30);
            let (_, result) = attempt(&server, &target, "b", &fragile("one"), created).await;
            result.unwrap_err();
            if target.left().iter().any(|path| path.ends_with("manifest/1.json")) {
                break;
            }
        }
    };
    begun().await;
    let plan = BackupPlan { sets: vec!["s".to_owned()], ..fragile("one") };
    let (began_with, result) = attempt(&server, &target, "b", &plan, created).await;
    assert_eq!((began_with, result.unwrap()), (0, 10));
    assert!(target.records("b") == records);
    std::fs::remove_dir_all(target.folder.path().join("b")).unwrap();

    begun().await;
    discard(&target.storage, &ObjectPath::new("b").unwrap(), &plan).await.unwrap();
    assert_eq!(target.left(), Vec::<String>::new());
}

/// Protects: a checkpoint that the end of the run overtakes gives no file up. The last scans find nothing, so the run ends while
/// the blocks of the first ones still wait for slow writers.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_at_the_end_gives_no_file_up() {
    let server = Server::start(1).await;
    let mut records = Records::new();
    for number in (0..8000).filter(|number| partition(*number) < 100) {
        records.extend(server.load("one", "", number..number + 1, 50_000).await);
    }
    let target = Target::new();
    for round in 0..8 {
        let plan = BackupPlan {
            parallel: 1,
            parallel_write: 8,
            bandwidth: 20 << 20,
            checkpoint_interval: Duration::from_millis(1 + round % 3),
            ..plan("one")
        };
        let folder = format!("round-{round}");
        let (_, result) = attempt(&server, &target, &folder, &plan, Utc::now()).await;
        assert_eq!(result.unwrap(), records.len() as u64, "round {round}");
        assert!(target.records(&folder) == records, "round {round}");
    }
}

/// Protects: a backup that is whole is never touched, whatever claims its process left.
#[tokio::test(flavor = "multi_thread")]
async fn a_finished_backup_is_not_continued() {
    let server = Server::start(1).await;
    server.load("one", "", 0..100, 100).await;
    let target = Target::new();
    let folder = ObjectPath::new("b").unwrap();
    attempt(&server, &target, "b", &fragile("one"), Utc::now()).await.1.unwrap();
    // As a process leaves it that was killed right after metadata.yaml was written.
    let left = "being written here, number 0 by other pid:[1] 1 1\n";
    std::fs::write(target.folder.path().join("b/in-progress"), left).unwrap();
    let plan = BackupPlan { continues: true, ..fragile("one") };
    let error = abs_engine::find_unfinished(&target.storage, &folder, &plan).await.unwrap_err();
    assert!(matches!(error, EngineError::Claimed { .. }), "{error}");
    let before = target.left();
    discard(&target.storage, &folder, &plan).await.unwrap();
    let limits = alone(&plan);
    let begun = target.begin(&server, "b", &plan, Utc::now(), &limits).await.map(drop);
    assert!(matches!(begun, Err(EngineError::NotEmpty { .. })), "{begun:?}");
    assert_eq!(target.left(), before);
}
