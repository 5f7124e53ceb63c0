//! When backups are made, and when not.

use std::time::Duration;

use abs_devserver::{Fault, Kind};
use abs_engine::catalog::BackupKind::{self, Full, Incremental};
use chrono::{TimeDelta, Utc};

use crate::messages::*;
use crate::testing::{World, time};

const DAILY: &str = "  daily:\n    source-cluster: dev\n    storage: here\n    namespaces: [test]\n    \
                     interval-cron: '0 0 12 * * *'\n    incr-interval-cron: '0 0 * * * *'\n    backup-policy: p\n";
const POLICY: &str = "  p: {retry-policy: {base-timeout: 1, max-retries: 2}}\n";

/// Hour by hour of a day: incremental backups wait for the first full one, give way to one that is due at the same
/// time, and leave nothing when nothing changed; each is named by the time it was due.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_a_routine() {
    let mut world = World::start("2026-01-01T10:30:00Z", POLICY, DAILY).await;
    world.write("test", 0..50).await;
    assert_eq!(world.next_waking().await, time("2026-01-01T11:00:00Z"));
    assert_eq!(world.skipped().await, (Incremental, "there is no full backup yet".to_owned()));
    // At noon both are due.
    assert_eq!(world.next_waking().await, time("2026-01-01T12:00:00Z"));
    assert_eq!(world.skipped().await, (Incremental, "a full backup is due at the same time".to_owned()));
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    // The server's clock is of today: what was written then is newer than anything of that day.
    assert_eq!(world.next_waking().await, time("2026-01-01T13:00:00Z"));
    assert_eq!(world.finished().await, (Incremental, Status::Done, None));
    let expect = |time: &str| vec![(time.to_owned(), "test".to_owned(), 50)];
    assert_eq!(world.backups("daily", Full).await, expect("2026-01-01T12:00:00+00:00"));
    assert_eq!(world.backups("daily", Incremental).await, expect("2026-01-01T13:00:00+00:00"));

    let state = world.send(GetRoutineState { routine: "daily".to_owned() }).await.unwrap();
    assert_eq!(state.last_full, Some(time("2026-01-01T12:00:00Z")));
    assert_eq!(state.last_incremental, Some(time("2026-01-01T13:00:00Z")));
    assert_eq!(state.next_full, Some(time("2026-01-02T12:00:00Z")));
    assert_eq!(state.next_incremental, Some(time("2026-01-01T14:00:00Z")));
    assert_eq!((state.full, state.incremental), (None, None));
    let metrics = world.send(RenderMetrics).await;
    let line = "backup_events_total{outcome=\"skip\",routine=\"daily\",type=\"incremental\"}";
    assert!(metrics.contains(line), "{metrics}");
}

/// An incremental backup holds what changed since the backup before it, or since the full one if it is cumulative; when
/// nothing changed it leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_incremental_backups_hold() {
    for (policy, second) in [("  p: {overlap: 0}\n", 10), ("  p: {overlap: 0, incr-mode: cumulative}\n", 15)]
    {
        let now = Utc::now();
        let mut world = World::start(&now.to_rfc3339(), policy, DAILY).await;
        world.write("test", 0..50).await;
        // Backups are named by this clock, changes by the server's: wait until one is past the other.
        let later = |world: &World| world.clock.set(Utc::now() + TimeDelta::milliseconds(1));
        let pause = || tokio::time::sleep(Duration::from_millis(5));
        later(&world);
        pause().await;
        world.trigger(Full).await;
        assert_eq!(world.finished().await, (Full, Status::Done, None));
        world.trigger(Incremental).await;
        assert_eq!(world.finished().await, (Incremental, Status::Done, None));
        assert_eq!(world.backups("daily", Incremental).await, []);
        let folder = world.folder.path().join("daily/incremental");
        assert!(!folder.exists() || std::fs::read_dir(folder).unwrap().count() == 0, "not even a folder");
        for numbers in [50..55, 40..50] {
            world.write("test", numbers).await;
            later(&world);
            pause().await;
            world.trigger(Incremental).await;
            assert_eq!(world.finished().await, (Incremental, Status::Done, None));
        }
        let counts: Vec<_> =
            world.backups("daily", Incremental).await.iter().map(|(.., count)| *count).collect();
        assert_eq!(counts, [5, second], "{policy}");
        assert_eq!(world.backups("daily", Full).await[0].2, 50);
    }
}

/// Makes every scan wait, so that a backup runs until `release`d.
fn hold(world: &World) -> abs_devserver::FaultId {
    world.dev.knobs().inject(Fault::delay_reply(Kind::Query, Duration::from_secs(30)))
}

async fn is_running(world: &World, kind: BackupKind) -> bool {
    let state = world.send(GetRoutineState { routine: "daily".to_owned() }).await.unwrap();
    match kind {
        Full => state.full.is_some(),
        Incremental => state.incremental.is_some(),
    }
}

/// One full backup at a time; an incremental one only alone, unless the policy lets it run beside others.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_keeps_others_out() {
    let mut world = World::start("2026-01-01T10:30:00Z", POLICY, DAILY).await;
    world.write("test", 0..50).await;
    world.trigger(Full).await;
    world.finished().await;
    hold(&world);
    world.trigger(Full).await;
    assert!(is_running(&world, Full).await);
    world.trigger(Full).await;
    assert_eq!(world.skipped().await, (Full, "the one before is still running".to_owned()));
    world.trigger(Incremental).await;
    assert_eq!(world.skipped().await, (Incremental, "a full backup is running".to_owned()));

    // Canceling leaves nothing of it, and is no failure.
    world.send(CancelBackups { routine: "daily".to_owned() }).await.unwrap();
    assert_eq!(world.finished().await, (Full, Status::Canceled, None));
    assert!(!is_running(&world, Full).await);
    assert_eq!(std::fs::read_dir(world.folder.path().join("daily/backup")).unwrap().count(), 1);

    // A full one starts beside an incremental one.
    world.trigger(Incremental).await;
    assert!(is_running(&world, Incremental).await);
    world.trigger(Incremental).await;
    assert_eq!(world.skipped().await, (Incremental, "the one before is still running".to_owned()));
    world.trigger(Full).await;
    assert!(is_running(&world, Full).await && is_running(&world, Incremental).await);
    world.dev.knobs().clear();
    world.send(CancelBackups { routine: "daily".to_owned() }).await.unwrap();
    for _ in 0..2 {
        assert_eq!(world.finished().await.1, Status::Canceled);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_lets_incremental_backups_run_beside_others() {
    let policy = "  p: {concurrent-incremental: true}\n";
    let mut world = World::start("2026-01-01T10:30:00Z", policy, DAILY).await;
    world.write("test", 0..50).await;
    world.trigger(Full).await;
    world.finished().await;
    hold(&world);
    world.trigger(Full).await;
    world.trigger(Incremental).await;
    assert!(is_running(&world, Full).await && is_running(&world, Incremental).await);
    world.send(CancelBackups { routine: "daily".to_owned() }).await.unwrap();
    for _ in 0..2 {
        assert_eq!(world.finished().await.1, Status::Canceled);
    }
}

/// A backup that was asked for with a delay begins when that is over, and not if the routine was disabled meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_can_be_asked_for_later() {
    let mut world = World::start("2026-01-01T10:30:00Z", POLICY, DAILY).await;
    let later = |kind| TriggerBackup { routine: "daily".to_owned(), kind, delay: Duration::from_mins(1) };
    world.send(later(Full)).await.unwrap();
    assert!(!is_running(&world, Full).await);
    assert_eq!(world.next_waking().await, time("2026-01-01T10:31:00Z"));
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    assert_eq!(world.backups("daily", Full).await[0].0, "2026-01-01T10:31:00+00:00");

    let disable = ConfigChange::SetDisabled { routine: "daily".to_owned(), disabled: true };
    for _ in 0..1000 {
        world.send(later(Full)).await.unwrap();
    }
    let too_many = world.send(later(Full)).await.unwrap_err();
    assert!(too_many.to_string().contains("asked for already"), "{too_many}");
    world.send(ChangeConfig(disable)).await.unwrap();
    world.clock.set(time("2026-01-03T00:00:00Z"));
    let state = world.send(GetRoutineState { routine: "daily".to_owned() }).await.unwrap();
    assert_eq!((state.next_full, state.full), (None, None));
    let refused = world.send(later(Full)).await.unwrap_err();
    assert!(refused.to_string().contains("disabled"), "{refused}");
    assert_eq!(world.backups("daily", Full).await.len(), 1);
    let nobody = TriggerBackup { routine: "nobody".to_owned(), kind: Full, delay: Duration::ZERO };
    assert_eq!(world.send(nobody).await.unwrap_err().to_string(), "routine nobody not found");
}
