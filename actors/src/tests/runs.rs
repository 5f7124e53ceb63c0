//! What runs find and leave in the storage, and who knows of them.

use std::sync::{Mutex, mpsc};

use abs_config::{LocalStorage, Storage};
use abs_engine::Fault;
use abs_engine::catalog::BackupKind::{Full, Incremental};
use chrono::{TimeDelta, Utc};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::messages::*;
use crate::testing::{HANGS, World, time};

const NOW: &str = "2026-01-01T10:30:00Z";
const POLICY: &str =
    "  p: {retry-policy: {base-timeout: 1, max-retries: 0}, retention: {full: 1}, parallel: 1}\n";
const DAILY: &str = "  daily: {source-cluster: dev, storage: here, namespaces: [test], interval-cron: '@daily', \
                     incr-interval-cron: '@hourly', backup-policy: p}\n";

/// Scans that wait in their workers, canceled or not, until this is dropped.
struct Held {
    _release: mpsc::Sender<()>,
    struck: UnboundedReceiver<()>,
    _fault: Fault,
}

impl Held {
    fn scans_of(world: &World) -> Self {
        let (release, held) = mpsc::channel::<()>();
        let (strike, struck) = unbounded_channel();
        let held = Mutex::new(held);
        let fault = world.strike_backups(move || {
            let _ = strike.send(());
            // Until the sender is gone.
            let _ = tokio::task::block_in_place(|| held.lock().unwrap().recv());
        });
        Self { _release: release, struck, _fault: fault }
    }

    /// Waits until there is one.
    async fn wait(&mut self) {
        tokio::time::timeout(HANGS, self.struck.recv()).await.unwrap().unwrap();
    }
}

async fn state(world: &World) -> RoutineState {
    world.send(GetRoutineState { routine: "daily".to_owned() }).await.unwrap()
}

async fn change(world: &World, change: ConfigChange) {
    world.send(ChangeConfig(change)).await.unwrap();
}

/// Moves the storage to another folder.
async fn move_storage(world: &World, folder: &str) {
    let path = world.folder.path().join(folder).display().to_string();
    let local = LocalStorage { path, min_part_size: None };
    let storage = Storage { local_storage: Some(local), ..Storage::default() };
    change(world, ConfigChange::Storage(Edit::Update("here".to_owned(), Box::new(storage)))).await;
}

/// Another service that shares the storage may begin in the same millisecond: its backup is not ours to delete.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_finds_in_its_folder_is_left_alone() {
    let mut world = World::start(NOW, POLICY, DAILY).await;
    world.write("test", 0..50).await;
    state(&world).await;
    let run = world.folder.path().join(format!("daily/backup/{}", time(NOW).timestamp_millis() + 1));
    std::fs::create_dir_all(run.join("data/test")).unwrap();
    let file = run.join("data/test/test_0.asb");
    std::fs::write(&file, "theirs").unwrap();
    world.trigger(Full).await;
    let (_, end, error) = world.finished().await;
    assert_eq!(end, Status::Failed);
    assert!(error.unwrap().contains("not empty"));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "theirs");
}

/// A run goes on with the storage it began with; what it makes there counts for nothing in the routine's new storage.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_in_the_storage_before_is_none_in_this_one() {
    let mut world = World::start(NOW, POLICY, DAILY).await;
    world.write("test", 0..50).await;
    let mut held = Held::scans_of(&world);
    world.trigger(Full).await;
    held.wait().await;
    assert!(state(&world).await.full.is_some());
    move_storage(&world, "elsewhere").await;
    drop(held);
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    assert!(world.folder.path().join("daily/backup").exists());
    assert_eq!(state(&world).await.last_full, None);
    world.trigger(Incremental).await;
    assert_eq!(world.skipped().await, (Incremental, "there is no full backup yet".to_owned()));
}

/// An incremental backup of namespaces none of which has a full one saves nothing, and does not say otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_backup_needs_something_to_build_on() {
    let mut world = World::start(NOW, POLICY, DAILY).await;
    world.write("test", 0..50).await;
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    let config = world.send(GetConfig).await.config;
    let mut routine = config.backup_routines["daily"].clone();
    routine.namespaces = vec!["other".to_owned()];
    change(&world, ConfigChange::Routine(Edit::Update("daily".to_owned(), Box::new(routine)))).await;
    world.trigger(Incremental).await;
    let (_, end, error) = world.finished().await;
    assert_eq!(end, Status::Failed);
    assert!(error.unwrap().starts_with("routine daily has no full backup at or before"));
}

/// A routine that is deleted and added again knows of the run that is still being canceled.
#[tokio::test(flavor = "multi_thread")]
async fn a_routine_that_comes_back_knows_what_runs() {
    let mut world = World::start(NOW, POLICY, DAILY).await;
    world.write("test", 0..50).await;
    let mut held = Held::scans_of(&world);
    world.trigger(Full).await;
    held.wait().await;
    let run = state(&world).await.full.map(|run| run.id);
    assert!(run.is_some());
    let routine = world.send(GetConfig).await.config.backup_routines["daily"].clone();
    change(&world, ConfigChange::Routine(Edit::Delete("daily".to_owned()))).await;
    change(&world, ConfigChange::Routine(Edit::Add("daily".to_owned(), Box::new(routine)))).await;
    assert_eq!(state(&world).await.full.map(|run| run.id), run);
    world.trigger(Full).await;
    assert_eq!(world.skipped().await, (Full, "the one before is still running".to_owned()));
    drop(held);
    assert_eq!(world.finished().await, (Full, Status::Canceled, None));
    assert_eq!(state(&world).await.full, None);
    let left = std::fs::read_dir(world.folder.path().join("daily/backup"));
    assert_eq!(left.map_or(0, Iterator::count), 0);
}

/// A run that was canceled is canceled, also when something of it had failed before, and leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_failed_in_part_can_be_canceled() {
    let routine = DAILY.replace("[test]", "[nope, test]");
    let mut world = World::start(NOW, POLICY, &routine).await;
    world.write("test", 0..50).await;
    let mut held = Held::scans_of(&world);
    world.trigger(Full).await;
    held.wait().await;
    // The other namespace fails meanwhile.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    world.send(CancelBackups { routine: "daily".to_owned() }).await.unwrap();
    drop(held);
    assert_eq!(world.finished().await, (Full, Status::Canceled, None));
    assert_eq!(world.backups("daily", Full).await, []);
}

/// Protects: a run that waits for its next attempt says so, with the error and the time, and shows nothing of the failed
/// attempt, whose files are deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_waits_for_its_next_attempt_says_so() {
    let policy = "  p: {retry-policy: {base-timeout: 3600000, max-retries: 1}, parallel: 1}\n";
    let mut world = World::start(NOW, policy, DAILY).await;
    world.write("test", 0..500).await;
    // One partition is given up after ten further attempts; others are read by then.
    let _fault =
        Fault::in_partition(9, "test", &world.storage(), || std::panic::resume_unwind(Box::new("injected")));
    world.trigger(Full).await;
    let waits = async {
        loop {
            if let Some(job) = state(&world).await.full
                && let Some(retry) = job.retry.clone()
            {
                return (job, retry);
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let (job, retry) = tokio::time::timeout(HANGS, waits).await.expect("it never waits");
    assert!(retry.error.contains("given up after 11 attempts"), "{retry:?}");
    assert!(retry.at > Utc::now() + TimeDelta::minutes(50), "{retry:?}");
    assert_eq!((job.done_records, job.percentage_done, job.estimated_end), (0, 0, None));
    world.send(CancelBackups { routine: "daily".to_owned() }).await.unwrap();
    assert_eq!(world.finished().await.1, Status::Canceled);
}

/// Protects: one set of workers serves all namespaces of a run, which end well also when there are more of them than
/// workers and files.
#[tokio::test(flavor = "multi_thread")]
async fn many_namespaces_share_one_worker_and_one_file() {
    let policy = "  p: {retry-policy: {base-timeout: 1, max-retries: 0}, parallel: 1, parallel-write: 1}\n";
    let routine = DAILY.replace("[test]", "[]");
    let mut world = World::start(NOW, policy, &routine).await;
    world.write("test", 0..500).await;
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    let backups = world.backups("daily", Full).await;
    assert!(backups.len() > 1, "{backups:?}");
    assert_eq!(backups.iter().map(|(_, _, records)| records).sum::<u64>(), 500);
}

/// Protects: retention runs after every full run that kept something; one namespace that always fails does not fill the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_fails_does_not_stop_retention() {
    let mut world = World::start(NOW, POLICY, &DAILY.replace("[test]", "[test, nope]")).await;
    world.write("test", 0..10).await;
    for _ in 0..4 {
        world.trigger(Full).await;
        assert_eq!(world.finished().await.1, Status::Failed);
    }
    let thinned_out = async {
        while world.backups("daily", Full).await.len() != 1 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(HANGS, thinned_out).await.unwrap();
}

/// Protects: that backups cannot be listed is told as that, and not as if there were none; they are found when the storage is
/// there again.
#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_cannot_be_read_is_not_an_empty_one() {
    let mut world = World::start(NOW, POLICY, DAILY).await;
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    let last = state(&world).await.last_full.unwrap();
    let [there, away] = ["daily", "away"].map(|name| world.folder.path().join(name));
    std::fs::rename(&there, &away).unwrap();
    // A link to itself cannot be followed, not even by root.
    std::os::unix::fs::symlink(&there, &there).unwrap();
    world.send(crate::supervisor::testing::Strike::Routine("daily".to_owned())).await;
    world.up_again("daily").await;
    world.trigger(Incremental).await;
    let (_, reason) = world.skipped().await;
    assert!(reason.starts_with("the backups cannot be listed: cannot list"), "{reason}");
    assert_eq!(state(&world).await.last_full, None);
    std::fs::remove_file(&there).unwrap();
    std::fs::rename(&away, &there).unwrap();
    let found = async {
        while state(&world).await.last_full != Some(last) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(HANGS, found).await.unwrap();
}
