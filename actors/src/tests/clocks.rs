//! Clocks that are wrong, of the service and of the cluster, and that are set while backups are made.

use std::collections::BTreeMap;
use std::time::Duration;

use abs_asb::{Digest, Header, Item, Items, Position};
use abs_engine::catalog::BackupKind::{self, Full, Incremental};
use abs_engine::catalog::{Backup, Catalog};
use chrono::{DateTime, TimeDelta, Utc};

use crate::clock::Clock as _;
use crate::messages::*;
use crate::testing::{HANGS, World, digest, time};

mod histories;

const POLICY: &str = "  p: {retry-policy: {base-timeout: 1, max-retries: 0}}\n";
/// Not by schedule, as far as tests move clocks.
const YEARLY: &str = "  daily: {source-cluster: dev, storage: here, namespaces: [test], interval-cron: '@yearly', \
                      backup-policy: p}\n";
const HOURLY: &str = "  daily: {source-cluster: dev, storage: here, namespaces: [test], interval-cron: '0 0 12 * * *', \
                      incr-interval-cron: '0 0 * * * *', backup-policy: p}\n";
const HOUR: TimeDelta = TimeDelta::hours(1);

/// Long enough for the clock of the server to move on.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

fn std(time: TimeDelta) -> Duration {
    time.to_std().unwrap()
}

async fn state(world: &World) -> RoutineState {
    world.send(GetRoutineState { routine: "daily".to_owned() }).await.unwrap()
}

async fn list(world: &World, kind: BackupKind) -> Vec<Backup> {
    let list = ListBackups { routine: Some("daily".to_owned()), kind, from: None, to: None, limit: HANGS };
    world.send(list).await.unwrap().routines.remove("daily").unwrap().backups
}

/// Waits until something holds.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(HANGS, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Makes a backup; if it waits for the clock, the clock goes on. Returns the kind that was made.
async fn back_up(world: &mut World, kind: BackupKind) -> BackupKind {
    let replaced = |world: &World| world.warnings("in place of this incremental one").len();
    let before = replaced(world);
    world.trigger(kind).await;
    loop {
        let (clock, server) = (world.clock.clone(), world.dev.knobs().clone());
        let pump = async move {
            loop {
                let now = clock.now();
                if let Some(soon) = clock.next_waking().filter(|next| *next < now + TimeDelta::seconds(30)) {
                    clock.set(soon);
                    server.advance_clock((soon - now).to_std().unwrap_or_default());
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let (made, state, error) = tokio::select! {
            ended = world.finished() => ended,
            () = pump => unreachable!(),
        };
        assert_eq!((state, error), (Status::Done, None));
        if made == Full || replaced(world) == before {
            return made;
        }
    }
}

/// The values of the records that a restore to a moment would bring back.
async fn restored(world: &World, moment: DateTime<Utc>) -> BTreeMap<Digest, u64> {
    let storage = abs_storage::Local::new(world.folder.path());
    let catalog = Catalog::new(std::sync::Arc::new(storage));
    let chain = catalog.chain("daily", "test", moment).await.unwrap();
    let mut all = BTreeMap::new();
    for backup in chain.backups() {
        all.extend(records(world, backup));
    }
    all
}

/// The values of the records of a backup.
fn records(world: &World, backup: &Backup) -> BTreeMap<Digest, u64> {
    let mut records = BTreeMap::new();
    for entry in std::fs::read_dir(world.folder.path().join(backup.key.as_str())).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "asb") {
            continue;
        }
        let text = std::fs::read(&path).unwrap();
        let (_, length, _) = Header::parse(&text, true).unwrap().unwrap();
        let mut items = Items::new(&text[length..], Position::START);
        while let Some(item) = items.next().unwrap() {
            let Item::Record(mut record) = item else { continue };
            let (digest, mut value) = (record.digest, Vec::new());
            record.next_bin().unwrap().unwrap().value.append_to(&mut value).unwrap();
            records.insert(digest, u64::from_be_bytes(value.try_into().unwrap()));
        }
    }
    records
}

/// Protects: one full backup with the clock ahead spoils nothing: runs have true times from the moment on when the clock is
/// put right, the next one is full, and a restore to now gives what is there now.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_ahead_spoils_nothing() {
    let noon = time("2026-01-01T12:30:00Z");
    let mut world = World::start(&noon.to_rfc3339(), POLICY, YEARLY).await;
    world.write("test", 0..20).await;
    assert_eq!(back_up(&mut world, Full).await, Full);
    world.clock.jump(noon + HOUR * 24);
    assert_eq!(back_up(&mut world, Full).await, Full);
    world.clock.jump(noon + HOUR);
    world.put("test", [(0, 100)]).await;
    pause().await;
    assert_eq!(back_up(&mut world, Incremental).await, Full);
    world.put("test", [(1, 101)]).await;
    world.clock.set(noon + HOUR * 2);
    assert_eq!(back_up(&mut world, Incremental).await, Incremental);
    let (fulls, incrementals) = (list(&world, Full).await, list(&world, Incremental).await);
    let trusted: Vec<_> = fulls.iter().map(|full| (full.created - noon, full.is_trusted())).collect();
    let ms = TimeDelta::milliseconds(1);
    assert_eq!(trusted, [(ms, true), (HOUR + ms, true), (HOUR * 24 + ms, false)]);
    assert_eq!(incrementals[0].created, noon + HOUR * 2 + ms);
    assert_eq!(state(&world).await.last_full, Some(noon + HOUR + ms));
    assert_eq!(world.warnings("dated in the future").len(), 1);
    for moment in [noon + HOUR * 3, noon + HOUR * 48] {
        let restored = restored(&world, moment).await;
        assert_eq!((restored[&digest(0)], restored[&digest(1)], restored.len()), (100, 101, 20));
    }
}

/// Protects: a clock that was behind for a moment costs no backup: what seemed to be of the future stays until as many full
/// backups as retention keeps were made since, a restore says what it leaves out, and without the mark all is as before.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_behind_deletes_nothing() {
    let noon = time("2026-01-01T12:30:00Z");
    let policy = "  p: {retry-policy: {base-timeout: 1, max-retries: 0}, retention: {full: 3}}\n";
    let mut world = World::start(&noon.to_rfc3339(), policy, YEARLY).await;
    world.write("test", 0..20).await;
    assert_eq!(back_up(&mut world, Full).await, Full);
    world.put("test", [(0, 100)]).await;
    pause().await;
    assert_eq!(back_up(&mut world, Incremental).await, Incremental);
    let then = world.clock.now();
    let good: Vec<_> = [list(&world, Full).await, list(&world, Incremental).await].concat();
    world.clock.jump(noon - HOUR);
    assert_eq!(back_up(&mut world, Full).await, Full);
    world.clock.jump(noon + HOUR);
    assert_eq!(back_up(&mut world, Full).await, Full);
    let fulls = list(&world, Full).await;
    assert_eq!(fulls.iter().filter(|full| !full.is_trusted()).count(), 1);
    assert_eq!(fulls.len() + list(&world, Incremental).await.len(), 4, "nothing was deleted");
    let catalog = Catalog::new(std::sync::Arc::new(abs_storage::Local::new(world.folder.path())));
    let passed_over = catalog.chain("daily", "test", then).await.unwrap().passed_over;
    assert!(passed_over.is_empty(), "what was written later is not left out: {passed_over:?}");
    for backup in &good {
        std::fs::remove_file(world.folder.path().join(backup.key.as_str()).join("clock-suspect")).unwrap();
    }
    assert_eq!(restored(&world, then).await[&digest(0)], 100);
    // Three full backups have been made since.
    world.clock.set(noon + HOUR * 2);
    assert_eq!(back_up(&mut world, Full).await, Full);
    until("retention", async || list(&world, Full).await.len() == 3).await;
}

/// Protects: when the very first full backup has a wrong time, the next backup is a full one at once, also after a restart, and
/// also when that time has come.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_backup_with_the_clock_ahead_is_made_again() {
    let noon = time("2026-01-01T12:30:00Z");
    for (is_started_again, now) in [(false, noon), (true, noon), (true, noon + HOUR * 3)] {
        let mut world = World::start(&(noon + HOUR).to_rfc3339(), POLICY, YEARLY).await;
        world.write("test", 0..20).await;
        assert_eq!(back_up(&mut world, Full).await, Full);
        world.clock.jump(noon);
        if is_started_again {
            world.send(crate::supervisor::testing::Strike::Routine("daily".to_owned())).await;
            let is_marked = async || !world.warnings("dated in the future").is_empty();
            until("the backup is marked", is_marked).await;
            let is_up = async || world.send(GetRoutineState { routine: "daily".to_owned() }).await.is_ok();
            until("the routine is set up again", is_up).await;
        }
        world.clock.set(now);
        assert_eq!(back_up(&mut world, Incremental).await, Full);
        assert_eq!(back_up(&mut world, Incremental).await, Incremental);
        let fulls = list(&world, Full).await;
        let trusted: Vec<_> =
            fulls.iter().filter(|full| full.is_trusted()).map(|full| full.created).collect();
        assert_eq!(trusted, [now + TimeDelta::milliseconds(1)]);
    }
}

/// Protects: a service whose clock is ahead of the cluster's loses no change, whatever the overlap, and tells the bound that
/// was sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_ahead_of_the_cluster_loses_no_change() {
    for (policy, repeated) in [("  p: {overlap: 0}\n", 0), ("  p: {}\n", 20)] {
        let mut world = World::start(&Utc::now().to_rfc3339(), policy, YEARLY).await;
        world.dev.knobs().set_clock_back(std(HOUR));
        world.write("test", 0..20).await;
        pause().await;
        assert_eq!(back_up(&mut world, Full).await, Full);
        world.write("test", 20..30).await;
        assert_eq!(back_up(&mut world, Incremental).await, Incremental);
        let (full, incremental) =
            (list(&world, Full).await.remove(0), list(&world, Incremental).await.remove(0));
        assert_eq!(records(&world, &incremental).len(), 10 + repeated, "{policy}");
        assert_eq!(incremental.metadata.from, full.created);
        let cluster_created = full.metadata.cluster_created.unwrap();
        assert!(cluster_created < full.created - HOUR / 2, "{cluster_created}");
        assert!(incremental.metadata.from_bound.unwrap() <= cluster_created);
        // An incremental backup of the overlap alone is one, too.
        assert_eq!(back_up(&mut world, Incremental).await, Incremental);
        assert_eq!(list(&world, Incremental).await.len(), if repeated == 0 { 1 } else { 2 });
        assert!(!world.warnings("the clocks of the cluster and of this service differ").is_empty());
    }
}

/// Protects: a node that is behind the others loses no change either.
#[tokio::test(flavor = "multi_thread")]
async fn the_node_that_is_furthest_behind_counts() {
    let mut world = World::start(&Utc::now().to_rfc3339(), "  p: {overlap: 0}\n", YEARLY).await;
    world.dev.knobs().skew_clock(1, -60_000).unwrap();
    world.write("test", 0..20).await;
    pause().await;
    assert_eq!(back_up(&mut world, Full).await, Full);
    world.write("test", 20..60).await;
    assert_eq!(back_up(&mut world, Incremental).await, Incremental);
    assert_eq!(restored(&world, world.clock.now()).await.len(), 60);
}

/// Protects: `sealed` goes by the cluster's clock.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_backup_with_the_clock_behind_holds_everything() {
    let behind = Utc::now() - HOUR;
    let mut world = World::start(&behind.to_rfc3339(), "  p: {sealed: true}\n", YEARLY).await;
    world.dev.knobs().skew_clock(1, -60_000).unwrap();
    world.write("test", 0..50).await;
    pause().await;
    assert_eq!(back_up(&mut world, Full).await, Full);
    assert_eq!(records(&world, &list(&world, Full).await[0]).len(), 50);
}

/// Protects: a sealed backup warns of records that it lacks because their times are later than the clock of the cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_backup_warns_of_records_that_it_lacks() {
    let mut world = World::start(&Utc::now().to_rfc3339(), "  p: {sealed: true}\n", YEARLY).await;
    world.write("test", 0..20).await;
    pause().await;
    world.dev.knobs().advance_clock(std(HOUR));
    world.write("test", 20..50).await;
    world.dev.knobs().set_clock_back(std(HOUR));
    assert_eq!(back_up(&mut world, Full).await, Full);
    assert_eq!(records(&world, &list(&world, Full).await[0]).len(), 20);
    assert_eq!(world.warnings("30 of 50 records are not in this sealed backup").len(), 1);
}

/// Protects: changes that a cluster stamped with a clock that was set back are in the next incremental backup.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_clock_is_set_back_loses_no_change() {
    let mut world = World::start(&Utc::now().to_rfc3339(), POLICY, YEARLY).await;
    world.write("test", 0..20).await;
    assert_eq!(back_up(&mut world, Full).await, Full);
    world.dev.knobs().set_clock_back(std(HOUR));
    world.write("test", 20..30).await;
    assert_eq!(back_up(&mut world, Incremental).await, Incremental);
    assert_eq!(restored(&world, world.clock.now()).await.len(), 30);
    assert_eq!(world.warnings("was set since the last backup").len(), 1);
}

/// Protects: schedules go by the clock as it is, in whichever direction it was set, and the log tells both times, once.
#[tokio::test(flavor = "multi_thread")]
async fn schedules_follow_a_clock_that_is_set() {
    let start = time("2026-01-02T10:30:00Z");
    let world = World::start(&start.to_rfc3339(), POLICY, HOURLY).await;
    let next = async |full: DateTime<Utc>, incremental: DateTime<Utc>| {
        let is_next = async || {
            let state = state(&world).await;
            (state.next_full, state.next_incremental) == (Some(full), Some(incremental))
        };
        until(&format!("the next ones are at {full} and {incremental}"), is_next).await;
    };
    next(time("2026-01-02T12:00:00Z"), time("2026-01-02T11:00:00Z")).await;
    world.clock.jump(time("2026-01-01T08:15:00Z"));
    next(time("2026-01-01T12:00:00Z"), time("2026-01-01T09:00:00Z")).await;
    world.clock.jump(time("2026-01-03T20:45:00Z"));
    next(time("2026-01-04T12:00:00Z"), time("2026-01-03T21:00:00Z")).await;
    until("what was due is made, once", async || list(&world, Full).await.len() == 1).await;
    // Not the reason of a full backup in place of the incremental one, should that be due first: "the clock was set back".
    let told = world.warnings("the clock was set, or the machine was suspended");
    let set = |expected: &str, now: &str| {
        told.iter()
            .filter(|line| {
                line.contains(&format!("expected={expected}")) && line.contains(&format!("now={now}"))
            })
            .count()
    };
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(set("2026-01-02 10:30:00 UTC", "2026-01-01 08:15:00 UTC"), 1, "{told:?}");
    assert_eq!(set("2026-01-01 08:15:00 UTC", "2026-01-03 20:45:00 UTC"), 1, "{told:?}");
}

/// Protects: a delay is as long as was asked for, whatever happens to the clock.
#[tokio::test(flavor = "multi_thread")]
async fn a_delay_does_not_depend_on_the_clock() {
    let start = time("2026-01-02T10:30:00Z");
    let mut world = World::start(&start.to_rfc3339(), POLICY, YEARLY).await;
    let (routine, delay) = ("daily".to_owned(), Duration::from_mins(1));
    world.send(TriggerBackup { routine, kind: Full, delay }).await.unwrap();
    world.clock.jump(start - HOUR);
    assert_eq!(world.next_waking().await, start - HOUR + TimeDelta::minutes(1));
    assert_eq!(world.finished().await, (Full, Status::Done, None));
}

/// Protects: two runs never have the same time, though the clock stands still.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_a_time_of_its_own() {
    let start = time("2026-01-02T10:30:00Z");
    let mut world = World::start(&start.to_rfc3339(), POLICY, YEARLY).await;
    world.write("test", 0..20).await;
    assert_eq!(back_up(&mut world, Full).await, Full);
    world.clock.jump(start - TimeDelta::milliseconds(500));
    assert_eq!(back_up(&mut world, Full).await, Full);
    let created: Vec<_> = list(&world, Full).await.iter().map(|full| full.created - start).collect();
    assert_eq!(created, [TimeDelta::milliseconds(1), TimeDelta::milliseconds(2)]);
}

/// Protects: whatever lies among the runs of a routine neither stops it nor sets its time, and is warned of once.
#[tokio::test(flavor = "multi_thread")]
async fn stray_folders_stop_nothing() {
    let start = time("2026-01-02T10:30:00Z");
    let mut world = World::start(&start.to_rfc3339(), POLICY, YEARLY).await;
    let strays =
        ["1767349800000000", "8210266876799999", "99999999999999999999", "253402300799999", "1798885800000"];
    for stray in strays {
        std::fs::create_dir_all(world.folder.path().join("daily/backup").join(stray).join("data/test"))
            .unwrap();
        std::fs::write(world.folder.path().join("daily/backup").join(stray).join("data/test/x"), "").unwrap();
    }
    world.write("test", 0..20).await;
    // The routine looks at its backups again.
    let start = start + TimeDelta::seconds(2);
    world.clock.jump(start);
    until("the strays are told of", async || world.warnings("a folder is passed over").len() == strays.len())
        .await;
    assert_eq!(back_up(&mut world, Full).await, Full);
    assert_eq!(back_up(&mut world, Incremental).await, Incremental);
    assert_eq!(list(&world, Full).await[0].created, start + TimeDelta::milliseconds(1));
    assert_eq!(list(&world, Incremental).await[0].created, start + TimeDelta::milliseconds(2));
    assert_eq!(world.warnings("a folder is passed over").len(), strays.len());
}

/// Protects: an incremental backup never continues one of another part of the namespace.
#[tokio::test(flavor = "multi_thread")]
async fn another_selection_makes_a_full_backup() {
    let start = time("2026-01-02T10:30:00Z");
    let mut world = World::start(&start.to_rfc3339(), POLICY, YEARLY).await;
    world.write("test", 0..20).await;
    assert_eq!(back_up(&mut world, Full).await, Full);
    assert_eq!(back_up(&mut world, Incremental).await, Incremental);
    let mut routine = world.send(GetConfig).await.config.backup_routines["daily"].clone();
    routine.bin_list = Some(vec!["n".to_owned()]);
    let edit = Edit::Update("daily".to_owned(), Box::new(routine));
    world.send(ChangeConfig(ConfigChange::Routine(edit))).await.unwrap();
    assert_eq!(back_up(&mut world, Incremental).await, Full);
    assert_eq!(world.warnings("the selection of the routine has changed").len(), 1);
    assert_eq!(back_up(&mut world, Incremental).await, Incremental);
    let selections: Vec<_> =
        list(&world, Full).await.iter().map(|full| full.metadata.selection.clone()).collect();
    assert!(selections[0] != selections[1] && selections.iter().all(Option::is_some), "{selections:?}");
    let metrics = world.send(RenderMetrics).await;
    let skip = "backup_events_total{outcome=\"skip\",routine=\"daily\",type=\"incremental\"} 1";
    assert!(metrics.contains(skip), "{metrics}");
}
