//! Who falls hurts nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use abs_devserver::{Fault, Kind};
use abs_engine::FaultPoint;
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
    *world.shared.fault.lock().unwrap() = Some(abs_engine::Fault::new(move |point| {
        let is_struck =
            matches!(point, FaultPoint::Scan(_)) && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(7);
        assert!(!is_struck, "as the test wishes");
    }));
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, JobState::Done, None));
    assert!(panics.load(Ordering::Relaxed) > 7);
    assert_eq!(world.backups("daily", Full).await[0].2, 500);
}

/// A run whose workers always panic fails with a word, and leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_go_on_fails_alone() {
    let mut world = world().await;
    *world.shared.fault.lock().unwrap() = Some(abs_engine::Fault::new(|_| panic!("as the test wishes")));
    world.trigger(Full).await;
    let (_, state, error) = world.finished().await;
    assert_eq!(state, JobState::Failed);
    assert!(error.unwrap().contains("panicked"));
    *world.shared.fault.lock().unwrap() = None;
    assert_eq!(world.backups("daily", Full).await, []);
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, JobState::Done, None));
}

/// A job whose actor falls ends as failed and stops its workers; its routine goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_actor_that_falls_fails_its_job_only() {
    let mut world = world().await;
    world.dev.knobs().inject(Fault::delay_reply(Kind::Query, Duration::from_secs(30)));
    world.trigger(Full).await;
    let job = started(&mut world).await;
    world.send(Strike::Job(job.id)).await;
    let (_, state, error) = world.finished().await;
    assert_eq!(state, JobState::Failed, "{error:?}");
    assert_eq!(error.unwrap(), "a worker of the job failed: the actor of the job failed");
    world.dev.knobs().clear();
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, JobState::Done, None));
    assert_eq!(world.backups("daily", Full).await.len(), 1);
}

/// A routine that falls is set up again, and takes up the run that went on meanwhile; others answer all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_routine_that_falls_is_set_up_again() {
    let mut world = world().await;
    let held = world.dev.knobs().inject(Fault::delay_reply(Kind::Query, Duration::from_secs(30)));
    world.trigger(Full).await;
    let job = started(&mut world).await;
    world.send(Strike::Routine("daily".to_owned())).await;
    let other = GetRoutineState { routine: "second".to_owned() };
    assert!(world.send(other).await.unwrap().next_full.is_some());
    let up_again = async {
        loop {
            match world.send(GetRoutineState { routine: "daily".to_owned() }).await {
                Ok(state) => break state,
                Err(e) => assert!(e.to_string().contains("does not answer"), "{e}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let state = tokio::time::timeout(crate::testing::HANGS, up_again).await.unwrap();
    assert_eq!(state.full.map(|run| run.id), Some(job.id));
    assert!(state.next_full.is_some());
    world.dev.knobs().lift(held);
    world.send(CancelBackups { routine: "daily".to_owned() }).await.unwrap();
    assert_eq!(world.finished().await.1, JobState::Canceled);
}

/// When the service stops, running jobs may end; those that do not in time are canceled, and nothing new begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_stops_in_order() {
    let mut world = world().await;
    world.dev.knobs().inject(Fault::delay_reply(Kind::Query, Duration::from_secs(30)));
    world.trigger(Full).await;
    started(&mut world).await;
    world.send(Shutdown { grace: Duration::from_millis(50) }).await;
    assert_eq!(world.finished().await.1, JobState::Canceled);
    let trigger = TriggerBackup { routine: "second".to_owned(), kind: Full, delay: Duration::ZERO };
    assert_eq!(world.send(trigger).await, Err(RequestError::Stopping));
    assert!(!world.send(CheckReadiness).await.is_ready());
    let folder = world.folder.path().join("daily/backup");
    assert!(!folder.exists() || std::fs::read_dir(folder).unwrap().count() == 0);
}
