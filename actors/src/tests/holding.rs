//! Which of several services works on a routine, in a storage whose routines no locks keep apart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use abs_config::StorageSettings;
use abs_engine::Owner;
use abs_engine::catalog::BackupKind::{self, Full};
use abs_engine::catalog::{Attempt, Catalog, RoutineClaim};
use chrono::TimeDelta;

use crate::clock::Clock as _;
use crate::messages::*;
use crate::testing::{HANGS, Setup, World, time};

const ROUTINE: &str = "  daily: {source-cluster: dev, storage: here, namespaces: [test], interval-cron: '@daily', backup-policy: p}\n";
const POLICY: &str = "  p: {retry-policy: {base-timeout: 1, max-retries: 0}, retention: {full: 1}}\n";

/// A storage without locks.
fn setup() -> Setup {
    Setup { locks: |_| false, ..Setup::default() }
}

async fn world(setup: Setup, now: &str) -> World {
    let world = World::start_with(setup, now, POLICY, ROUTINE).await;
    world.write("test", 0..10).await;
    world
}

/// Has the routine, as another service that runs.
async fn other(folder: &Path) -> RoutineClaim {
    let storage = abs_storage::open(&StorageSettings::Local { path: folder.to_owned() });
    let owner = Owner::new(Some("other".to_owned()), Duration::from_hours(1));
    match Catalog::with_owner(storage, owner).claim_routine("daily").await.unwrap() {
        Attempt::Taken(claim) => claim,
        attempt => panic!("{attempt:?}"),
    }
}

fn claims(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder.join("daily/.abs-lease")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

async fn held(world: &World) -> bool {
    let metrics = world.send(RenderMetrics).await;
    let line = |held| format!("aerospike_backup_service_routine_held{{routine=\"daily\"}} {held}\n");
    assert_ne!(metrics.contains(&line(0)), metrics.contains(&line(1)), "{metrics}");
    metrics.contains(&line(1))
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(HANGS, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn trigger(kind: BackupKind) -> TriggerBackup {
    TriggerBackup { routine: "daily".to_owned(), kind, delay: Duration::ZERO }
}

fn delete(timestamp: i64, dry_run: bool) -> DeleteBackup {
    DeleteBackup { routine: "daily".to_owned(), timestamp, cascade: false, dry_run }
}

fn pin(timestamp: i64) -> PinBackup {
    PinBackup { routine: "daily".to_owned(), timestamp, pinned: true }
}

/// Protects: the first service has the routine, makes its backups, and leaves nothing of its claim when it ends in order or
/// the routine is removed.
#[tokio::test(flavor = "multi_thread")]
async fn the_routine_of_nobody_is_held() {
    for removes in [false, true] {
        let mut world = world(setup(), "2026-01-01T10:30:00Z").await;
        world.trigger(Full).await;
        assert_eq!(world.finished().await, (Full, Status::Done, None));
        assert!(held(&world).await);
        assert_eq!(claims(world.folder.path()).len(), 1);
        world.clock.set(time("2026-01-02T00:00:00Z"));
        assert_eq!(world.finished().await, (Full, Status::Done, None));
        if removes {
            let edit = Edit::Delete("daily".to_owned());
            world.send(ChangeConfig(ConfigChange::Routine(edit))).await.unwrap();
            until("released", async || claims(world.folder.path()).is_empty()).await;
        } else {
            world.send(Shutdown { grace: Duration::ZERO }).await;
            assert_eq!(claims(world.folder.path()), Vec::<PathBuf>::new());
        }
    }
}

/// Protects: a service that finds the routine held makes, deletes and pins nothing and says which service has the routine; it
/// still lists. When the other one is gone, it takes over, and makes the backup that was due after the last sign of life.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over() {
    let setup = setup();
    let claim = other(setup.folder.path()).await;
    let mut world = world(setup, "2026-01-01T23:59:57Z").await;
    let refusal = |result: Result<(), RequestError>| match result {
        Err(RequestError::Conflict(text)) => {
            assert!(text.contains("service other has the routine"), "{text}");
        }
        other => panic!("{other:?}"),
    };
    refusal(world.send(trigger(Full)).await);
    refusal(world.send(pin(1)).await);
    for dry_run in [false, true] {
        refusal(world.send(delete(1, dry_run)).await.map(drop));
    }
    assert_eq!(world.backups("daily", Full).await, []);
    assert!(!held(&world).await);
    assert_eq!(world.warnings("this one stands by").len(), 1);

    // It is looked for again after this, and the backup of midnight is due.
    drop(claim);
    world.clock.set(time("2026-01-02T00:00:04Z"));
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    assert!(held(&world).await);
    assert_eq!(world.backups("daily", Full).await[0].0, "2026-01-02T00:00:04+00:00");
    let metrics = world.send(RenderMetrics).await;
    assert!(!metrics.contains("outcome=\"skip\""), "{metrics}");
}

/// Protects: what the other service has made is not made again.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_repeats_nothing() {
    let setup = setup();
    let path = setup.folder.path().to_owned();
    let claim = other(&path).await;
    let mut world = world(setup, "2026-01-01T23:59:57Z").await;
    assert!(world.send(trigger(Full)).await.is_err());
    // It made that of midnight, and ended.
    let run = path.join("daily/backup/1767312000001/data/test");
    std::fs::create_dir_all(&run).unwrap();
    let text = "created: 2026-01-02T00:00:00.001Z\nfinished: 2026-01-02T00:00:01Z\nfrom: 0001-01-01T00:00:00Z\nnamespace: test\n\
                record-count: 1\nbyte-count: 1\nfile-count: 1\nsecondary-index-count: 0\nudf-count: 0\ncompression: NONE\n\
                encryption: NONE\n";
    std::fs::write(run.join("metadata.yaml"), text).unwrap();
    claim.release().await.unwrap();
    world.clock.set(time("2026-01-02T00:00:04Z"));
    until("held", async || held(&world).await).await;
    // Whatever is due is started when the storage was read.
    let next = async || {
        let state = world.send(GetRoutineState { routine: "daily".to_owned() }).await.unwrap();
        (state.last_full, state.next_full)
    };
    let expected = (Some(time("2026-01-02T00:00:00.001Z")), Some(time("2026-01-03T00:00:00Z")));
    until("read", async || next().await == expected).await;
    world.clock.set(time("2026-01-03T00:00:00Z"));
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    until("retention", async || world.backups("daily", Full).await.len() == 1).await;
    assert_eq!(world.backups("daily", Full).await[0].0, "2026-01-03T00:00:00+00:00");
}

/// Protects: a service that could not renew its claim until another one took the routine stops working on it, and takes it
/// over again when it is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_routine_that_is_lost_is_let_go() {
    let owner = Owner::new(Some("this".to_owned()), Duration::from_millis(400));
    let world = world(Setup { owner, ..setup() }, "2026-01-01T10:30:00Z").await;
    until("held", async || held(&world).await).await;
    let leases = world.folder.path().join("daily/.abs-lease");
    let claim =
        "a service works on this routine, number 3, owner other, lease 3600000, beat 1 by boot pid:[1] 1 1\n";
    std::fs::write(leases.join("lease-2"), claim).unwrap();
    // As if the storage failed: its claim cannot be written where a folder is. It may be written once more meanwhile.
    let own = leases.join("lease-1");
    while std::fs::remove_file(&own).and_then(|()| std::fs::create_dir(&own)).is_err() {}
    until("lost", async || !held(&world).await).await;
    assert_eq!(world.warnings("another service has taken the routine").len(), 1);
    let refused = world.send(trigger(Full)).await.unwrap_err();
    assert!(refused.to_string().contains("service other has the routine"), "{refused}");
    std::fs::remove_dir(own).unwrap();
    std::fs::remove_file(leases.join("lease-2")).unwrap();
    until("held again", async || {
        world.clock.set(world.clock.now() + TimeDelta::milliseconds(100));
        held(&world).await
    })
    .await;
    world.send(trigger(Full)).await.unwrap();
}

/// Protects: while it cannot be known who has the routine, backups that are due are skipped and say why; when it can, the
/// routine goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_fails_is_asked_again() {
    let setup = setup();
    let leases = setup.folder.path().join("daily/.abs-lease");
    std::fs::create_dir_all(leases.parent().unwrap()).unwrap();
    std::fs::write(&leases, "").unwrap();
    let mut world = world(setup, "2026-01-01T23:59:57Z").await;
    let refused = world.send(trigger(Full)).await.unwrap_err();
    assert!(matches!(&refused, RequestError::Failed(e) if e.contains("cannot be claimed")), "{refused:?}");
    world.clock.set(time("2026-01-02T00:00:00Z"));
    let (kind, reason) = world.skipped().await;
    assert!(kind == Full && reason.starts_with("the routine cannot be claimed: "), "{reason}");
    assert_eq!(world.warnings("so no backups are made").len(), 1);
    assert!(!held(&world).await);
    std::fs::remove_file(&leases).unwrap();
    until("held", async || {
        world.clock.set(world.clock.now() + TimeDelta::seconds(60));
        held(&world).await
    })
    .await;
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, Status::Done, None));
}

/// Protects: a disabled routine leaves the routine to other services; a backup of it can still be deleted, and pinned, if no
/// other one has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_routine_is_for_others() {
    let mut world = world(setup(), "2026-01-01T10:30:00Z").await;
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    let made = world.clock.now().timestamp_millis();
    let disable =
        |disabled| ChangeConfig(ConfigChange::SetDisabled { routine: "daily".to_owned(), disabled });
    world.send(disable(true)).await.unwrap();
    until("released", async || claims(world.folder.path()).is_empty()).await;
    assert!(!held(&world).await);
    let claim = other(world.folder.path()).await;
    for refused in [world.send(pin(made)).await, world.send(delete(made, false)).await.map(drop)] {
        assert!(matches!(&refused, Err(RequestError::Conflict(_))), "{refused:?}");
    }
    claim.release().await.unwrap();
    world.send(delete(made, false)).await.unwrap();
    assert_eq!(world.backups("daily", Full).await, []);
    assert_eq!(claims(world.folder.path()), Vec::<PathBuf>::new());
    world.send(disable(false)).await.unwrap();
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    assert!(held(&world).await);
}
