//! Actors and workers that crash.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use abs_devserver::{Fault, Kind};
use abs_engine::catalog::BackupKind::Full;

use crate::messages::system::{Event, JobLabel};
use crate::messages::*;
use crate::supervisor::testing::Strike;
use crate::testing::World;

const ROUTINES: &str = "  daily: {source-cluster: dev, storage: here, namespaces: [test], interval-cron: '@daily', backup-policy: p}\n  \
                        second: {source-cluster: dev, storage: here, namespaces: [test], interval-cron: '@daily'}\n";
const POLICY: &str = "  p: {retry-policy: {base-timeout: 1, max-retries: 2}}\n";

async fn world() -> World {
    let world = World::start("2026-01-01T10:30:00Z", POLICY, ROUTINES).await;
    world.write("test", 0..500).await;
    world
}

/// The job that starts next.
async fn started(world: &mut World) -> JobLabel {
    world
        .event(|event| match event {
            Event::JobStarted { job, .. } => Some(job.clone()),
            _ => None,
        })
        .await
}

/// Workers that panic lose their batches, which others read again: the backup holds every record once.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_panics_loses_no_record() {
    let mut world = world().await;
    let panics = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&panics);
    let _fault = world.strike_backups(move || {
        assert!(!count.fetch_add(1, Ordering::Relaxed).is_multiple_of(7), "as the test wishes");
    });
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    assert!(panics.load(Ordering::Relaxed) > 7);
    assert_eq!(world.backups("daily", Full).await[0].2, 500);
}

/// A run whose workers always panic fails with an error, and leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_go_on_fails_alone() {
    let mut world = world().await;
    let fault = world.strike_backups(|| panic!("as the test wishes"));
    world.trigger(Full).await;
    let (_, state, error) = world.finished().await;
    assert_eq!(state, Status::Failed);
    assert!(error.unwrap().contains("panicked"));
    drop(fault);
    assert_eq!(world.backups("daily", Full).await, []);
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, Status::Done, None));
}

async fn full_run(world: &World) -> Option<RunningJob> {
    world.send(GetRoutineState { routine: "daily".to_owned() }).await.unwrap().full
}

/// A run whose job actor crashed, when it waits to be continued.
async fn waiting(world: &World) -> RunningJob {
    let waits = async {
        loop {
            if let Some(run) = full_run(world).await
                && run.retry.is_some()
            {
                return run;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::testing::HANGS, waits).await.unwrap()
}

/// Protects: a run whose job actor crashes is continued from its last checkpoint by another one, with the same id and time, and
/// has each record once; until then it waits, and says why; restarts are counted. With `on-interrupt: discard` it fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_survives_the_crash_of_its_job_actor() {
    const ONE: &str = "p: {parallel: 1, checkpoint-interval: 1, ";
    for discards in [false, true] {
        let one = if discards { format!("{ONE}on-interrupt: discard, ") } else { ONE.to_owned() };
        let mut world = World::start("2026-01-01T10:30:00Z", &POLICY.replace("p: {", &one), ROUTINES).await;
        world.write("test", 0..500).await;
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (held, reached) = (Mutex::new(held), AtomicU32::new(0));
        let fault = world.strike_backups(move || {
            if reached.fetch_add(1, Ordering::Relaxed) >= 9 {
                // Until the sender is gone.
                let _ = tokio::task::block_in_place(|| held.lock().unwrap().recv());
            }
        });
        world.trigger(Full).await;
        let job = started(&mut world).await;
        let folder = world.folder.path().join("daily/backup/1767263400001/data/test/manifest");
        let checkpoint = async {
            while !folder.join("1.json").exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(crate::testing::HANGS, checkpoint).await.unwrap();
        world.send(Strike::Job(job.id)).await;
        drop((release, fault));
        if discards {
            let (_, state, error) = world.finished().await;
            assert_eq!(state, Status::Failed);
            assert_eq!(error.unwrap(), "a worker of the job failed: the actor of the job crashed");
            assert_eq!(world.backups("daily", Full).await, []);
            continue;
        }
        let run = waiting(&world).await;
        assert_eq!((run.id, run.retry.unwrap().error.as_str()), (job.id, "the actor of the job crashed"));
        assert_eq!(world.finished().await, (Full, Status::Done, None));
        assert_eq!(world.warnings("backed up from the start"), Vec::<String>::new());
        let made = ("2026-01-01T10:30:00.001+00:00".to_owned(), "test".to_owned(), 500);
        assert_eq!(world.backups("daily", Full).await, [made]);
        assert!(!folder.exists(), "the checkpoints are merged");
        let restarts = "aerospike_backup_service_job_restarts_total{routine=\"daily\"} 1";
        let metrics = world.send(RenderMetrics).await;
        assert!(metrics.contains(restarts), "{metrics}");
    }
}

/// Protects: a run that waits after a crash of its job can be canceled, one whose jobs crash again and again fails, and both
/// leave nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_jobs_keep_crashing_fails() {
    let mut world = world().await;
    world.dev.knobs().inject(Fault::delay_reply(Kind::Query, Duration::from_mins(5)));
    let left = |world: &World| {
        std::fs::read_dir(world.folder.path().join("daily/backup")).map_or(0, Iterator::count)
    };
    world.trigger(Full).await;
    let job = started(&mut world).await;
    world.send(Strike::Job(job.id)).await;
    waiting(&world).await;
    world.send(CancelBackups { routine: "daily".to_owned() }).await.unwrap();
    assert_eq!(world.finished().await.1, Status::Canceled);
    assert_eq!((left(&world), full_run(&world).await.is_none()), (0, true));

    world.trigger(Full).await;
    let job = started(&mut world).await;
    for _ in 0..3 {
        world.send(Strike::Job(job.id)).await;
        waiting(&world).await;
    }
    world.send(Strike::Job(job.id)).await;
    let (_, state, error) = world.finished().await;
    assert_eq!(state, Status::Failed);
    assert_eq!(error.unwrap(), "a worker of the job failed: the actor of the job crashed");
    assert_eq!((left(&world), full_run(&world).await.is_none()), (0, true));
    world.dev.knobs().clear();
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, Status::Done, None));
}

/// A routine that crashes is restarted, and adopts the run that continued meanwhile; others answer all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_routine_that_crashes_is_restarted() {
    let mut world = world().await;
    let held = world.dev.knobs().inject(Fault::delay_reply(Kind::Query, Duration::from_secs(30)));
    world.trigger(Full).await;
    let job = started(&mut world).await;
    world.send(Strike::Routine("daily".to_owned())).await;
    let other = GetRoutineState { routine: "second".to_owned() };
    assert!(world.send(other).await.unwrap().next_full.is_some());
    let state = world.up_again("daily").await;
    assert_eq!(state.full.map(|run| run.id), Some(job.id));
    assert!(state.next_full.is_some());
    world.dev.knobs().lift(held);
    world.send(CancelBackups { routine: "daily".to_owned() }).await.unwrap();
    assert_eq!(world.finished().await.1, Status::Canceled);
}

/// Protects: a routine that was restarted starts what became due meanwhile, and keeps the time of its last run, backups asked
/// for with a delay, and due retention; restarts are counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_routine_forgets_nothing() {
    let policy = POLICY.replace("max-retries: 2}", "max-retries: 2}, retention: {full: 1}");
    let mut world = World::start("2026-01-01T23:30:00Z", &policy, ROUTINES).await;
    world.write("test", 0..10).await;
    let listed = async |world: &World| {
        world.backups("daily", Full).await.into_iter().map(|(time, ..)| time).collect::<Vec<_>>()
    };
    let strike = async |world: &World| world.send(Strike::Routine("daily".to_owned())).await;
    strike(&world).await;
    world.clock.set("2026-01-02T00:00:00Z".parse().unwrap());
    // The other routine has one at the same time.
    for _ in 0..2 {
        assert_eq!(world.finished().await, (Full, Status::Done, None));
    }
    assert_eq!(listed(&world).await, ["2026-01-02T00:00:00+00:00"]);

    // A run that is canceled leaves nothing in the storage that could tell its time.
    let held = world.dev.knobs().inject(Fault::delay_reply(Kind::Query, Duration::from_secs(30)));
    world.trigger(Full).await;
    world.event(|event| matches!(event, Event::JobStarted { .. }).then_some(())).await;
    world.send(CancelBackups { routine: "daily".to_owned() }).await.unwrap();
    assert_eq!(world.finished().await.1, Status::Canceled);
    world.dev.knobs().lift(held);
    let delay = Duration::from_hours(1);
    world.send(TriggerBackup { routine: "daily".to_owned(), kind: Full, delay }).await.unwrap();
    // As if a restore read.
    let reads = world.shared.readers.of("daily").read_owned().await;
    strike(&world).await;
    world.up_again("daily").await;
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    assert_eq!(listed(&world).await, ["2026-01-02T00:00:00+00:00", "2026-01-02T00:00:00.002+00:00"]);

    drop(reads);
    strike(&world).await;
    world.up_again("daily").await;
    let thinned_out = async {
        while listed(&world).await != ["2026-01-02T00:00:00.002+00:00"] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::testing::HANGS, thinned_out).await.unwrap();
    world.clock.set("2026-01-02T01:00:01Z".parse().unwrap());
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    let restarts = "aerospike_backup_service_routine_restarts_total{routine=\"daily\"} 3";
    let metrics = world.send(RenderMetrics).await;
    assert!(metrics.contains(restarts), "{metrics}");
}

/// When the service stops, running jobs may end, and nothing new begins. Of those that do not end in time, backups are left
/// for the next start to continue; with `on-interrupt: discard` they are canceled, and leave nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_stops_in_order() {
    for discards in [true, false] {
        let policy =
            if discards { POLICY.replace("p: {", "p: {on-interrupt: discard, ") } else { POLICY.to_owned() };
        let mut world = World::start("2026-01-01T12:00:00Z", &policy, ROUTINES).await;
        world.write("test", 0..500).await;
        world.dev.knobs().inject(Fault::delay_reply(Kind::Query, Duration::from_secs(30)));
        world.trigger(Full).await;
        started(&mut world).await;
        world.send(Shutdown { grace: Duration::from_millis(50) }).await;
        if discards {
            assert_eq!(world.finished().await.1, Status::Canceled);
            let folder = world.folder.path().join("daily/backup");
            assert!(!folder.exists() || std::fs::read_dir(folder).unwrap().count() == 0);
        }
        let trigger = TriggerBackup { routine: "second".to_owned(), kind: Full, delay: Duration::ZERO };
        assert_eq!(world.send(trigger).await, Err(RequestError::Stopping));
        assert!(!world.send(CheckReadiness).await.is_ready());
    }
}
