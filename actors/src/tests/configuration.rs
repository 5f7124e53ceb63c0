//! Changes while the service runs.

use abs_config::{BackupRoutine, Secrets as _};
use abs_engine::catalog::BackupKind::Full;

use crate::messages::system::{Event, RoutineChange};
use crate::messages::*;
use crate::testing::{World, time};

const ROUTINE: &str =
    "  daily: {source-cluster: dev, storage: here, namespaces: [test], interval-cron: '@daily'}\n";

fn routine(cron: &str) -> Box<BackupRoutine> {
    Box::new(BackupRoutine {
        source_cluster: "dev".to_owned(),
        storage: "here".to_owned(),
        interval_cron: cron.to_owned(),
        namespaces: vec!["test".to_owned()],
        ..BackupRoutine::default()
    })
}

async fn change(world: &World, change: ConfigChange) -> Result<(), String> {
    world.send(ChangeConfig(change)).await.map_err(|e| e.to_string())
}

async fn next_full(world: &World, routine: &str) -> Option<String> {
    let state = world.send(GetRoutineState { routine: routine.to_owned() }).await.unwrap();
    state.next_full.map(|time| time.to_rfc3339())
}

/// Every change is applied at once, stored, and told; a bad one changes nothing anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn changes_are_applied_and_stored() {
    let mut world = World::start("2026-01-01T10:30:00Z", "  {}", ROUTINE).await;
    let stored = |world: &World| world.source.0.lock().unwrap().clone().unwrap();
    let name = || "hourly".to_owned();
    change(&world, ConfigChange::Routine(Edit::Add(name(), routine("@hourly")))).await.unwrap();
    assert_eq!(next_full(&world, "hourly").await.unwrap(), "2026-01-01T11:00:00+00:00");
    assert!(stored(&world).contains("hourly"));
    let again =
        change(&world, ConfigChange::Routine(Edit::Add(name(), routine("@hourly")))).await.unwrap_err();
    assert!(again.contains("exists already"), "{again}");

    change(&world, ConfigChange::Routine(Edit::Update(name(), routine("0 45 * * * *")))).await.unwrap();
    assert_eq!(next_full(&world, "hourly").await.unwrap(), "2026-01-01T10:45:00+00:00");
    let bad = change(&world, ConfigChange::Routine(Edit::Update(name(), routine("soon")))).await.unwrap_err();
    assert!(bad.contains("backup-routines.hourly.interval-cron"), "{bad}");
    assert_eq!(next_full(&world, "hourly").await.unwrap(), "2026-01-01T10:45:00+00:00");

    let used = change(&world, ConfigChange::Cluster(Edit::Delete("dev".to_owned()))).await.unwrap_err();
    assert!(used.contains("is used by routine"), "{used}");
    change(&world, ConfigChange::Routine(Edit::Delete(name()))).await.unwrap();
    let gone = GetRoutineState { routine: name() };
    assert_eq!(world.send(gone).await.unwrap_err().to_string(), "routine hourly not found");
    let missing = change(&world, ConfigChange::Routine(Edit::Delete(name()))).await.unwrap_err();
    assert_eq!(missing, "routine hourly not found");
    assert!(!stored(&world).contains("hourly"));

    for expected in [RoutineChange::Added, RoutineChange::Changed, RoutineChange::Removed] {
        let (told, change) = world
            .event(|event| match event {
                Event::RoutineChanged { routine, change, .. } if routine == "hourly" => {
                    Some((routine.clone(), *change))
                }
                _ => None,
            })
            .await;
        assert_eq!((told.as_str(), change), ("hourly", expected));
    }
}

/// What cannot be stored is not applied; what is stored and read again is applied; what is broken there is not.
#[tokio::test(flavor = "multi_thread")]
async fn the_source_and_the_service_agree() {
    let mut world = World::start("2026-01-01T10:30:00Z", "  {}", ROUTINE).await;
    let before = world.source.0.lock().unwrap().clone();
    *world.source.0.lock().unwrap() = Err("the disk is full".to_owned());
    let disable = |disabled| ConfigChange::SetDisabled { routine: "daily".to_owned(), disabled };
    let full = change(&world, disable(true)).await.unwrap_err();
    assert_eq!(full, "the change was not made: the disk is full");
    assert!(next_full(&world, "daily").await.is_some());

    *world.source.0.lock().unwrap() = before.clone().map(|text| text.replace("@daily", "@monthly"));
    world.send(ReloadConfig).await.unwrap();
    assert_eq!(next_full(&world, "daily").await.unwrap(), "2026-02-01T00:00:00+00:00");
    *world.source.0.lock().unwrap() = before.map(|text| text.replace("@daily", "@never"));
    assert!(matches!(world.send(ReloadConfig).await, Err(RequestError::Invalid(_))));
    assert_eq!(next_full(&world, "daily").await.unwrap(), "2026-02-01T00:00:00+00:00");

    // A schedule that is changed in another respect goes on.
    change(&world, disable(true)).await.unwrap();
    assert_eq!(next_full(&world, "daily").await, None);
    change(&world, disable(false)).await.unwrap();
    assert_eq!(next_full(&world, "daily").await.unwrap(), "2026-02-01T00:00:00+00:00");
    world.clock.set(time("2026-02-01T00:00:00Z"));
    assert_eq!(world.finished().await, (Full, Status::Done, None));
}

/// Protects: a source that hangs fails one change with a reason; it does not block later changes for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_hangs_is_given_up() {
    let world = World::start("2026-01-01T10:30:00Z", "  {}", ROUTINE).await;
    let disable = || ConfigChange::SetDisabled { routine: "daily".to_owned(), disabled: true };
    world.source.1.store(true, std::sync::atomic::Ordering::Relaxed);
    let (first, second) = tokio::join!(change(&world, disable()), change(&world, disable()));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(error, "the change was not made: writing memory took longer than 500ms");
    }
    assert!(next_full(&world, "daily").await.is_some());
    world.source.1.store(false, std::sync::atomic::Ordering::Relaxed);
    change(&world, disable()).await.unwrap();
    assert_eq!(next_full(&world, "daily").await, None);
}

/// What the environment says cannot be changed here: the change would be gone when the configuration is read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_environment_overrides_is_refused() {
    let variable = ("ABS__BACKUP_ROUTINES__DAILY__INTERVAL_CRON".to_owned(), "@yearly".to_owned());
    let world = World::start_in(&[variable].into(), "2026-01-01T10:30:00Z", "  {}", ROUTINE).await;
    let before = world.source.0.lock().unwrap().clone();
    assert_eq!(next_full(&world, "daily").await.unwrap(), "2027-01-01T00:00:00+00:00");
    let name = || "daily".to_owned();
    for refused in [Edit::Update(name(), routine("@hourly")), Edit::Delete(name())] {
        let error = change(&world, ConfigChange::Routine(refused)).await.unwrap_err();
        assert!(error.contains("environment"), "{error}");
    }
    assert_eq!(next_full(&world, "daily").await.unwrap(), "2027-01-01T00:00:00+00:00");
    assert_eq!(*world.source.0.lock().unwrap(), before);
    let disable = ConfigChange::SetDisabled { routine: name(), disabled: true };
    change(&world, disable).await.unwrap();
    assert_eq!(next_full(&world, "daily").await, None);
}

/// What the environment says is not written into the source, its secrets least of all.
#[tokio::test(flavor = "multi_thread")]
async fn the_environment_stays_out_of_the_source() {
    let variable =
        |key: &str, value: &str| (format!("ABS__AEROSPIKE_CLUSTERS__DEV__{key}"), value.to_owned());
    let environment = [
        variable("CREDENTIALS__PASSWORD", "hidden"),
        variable("CREDENTIALS__USER", "me"),
        variable("LABEL", "from outside"),
    ];
    let world = World::start_in(&environment.into(), "2026-01-01T10:30:00Z", "  {}", ROUTINE).await;
    let mut config = world.send(GetConfig).await.config.masked();
    config.backup_routines.insert("hourly".to_owned(), *routine("@hourly"));
    change(&world, ConfigChange::Replace(Box::new(config))).await.unwrap();
    assert!(next_full(&world, "hourly").await.is_some());
    let cluster = world.send(GetConfig).await.config.masked().aerospike_clusters["dev"].clone();
    change(&world, ConfigChange::Cluster(Edit::Update("dev".to_owned(), Box::new(cluster)))).await.unwrap();
    let stored = world.source.0.lock().unwrap().clone().unwrap();
    assert!(stored.contains("hourly") && stored.contains("seed-nodes"), "{stored}");
    for outside in ["hidden", "credentials", "outside"] {
        assert!(!stored.contains(outside), "{stored}");
    }
}
