//! Restores: what a request learns of the restore that it starts.

use std::time::Duration;

use abs_engine::catalog::BackupKind::Full;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock as _;
use crate::messages::*;
use crate::testing::World;

const POLICY: &str = "  p: {retry-policy: {base-timeout: 1, max-retries: 0}, parallel: 1}\n";
const DAILY: &str = "  daily: {source-cluster: dev, storage: here, namespaces: [test], interval-cron: '@daily', \
                     backup-policy: p}\n";

/// A world with a full backup, and a request to restore it.
async fn backed_up() -> (World, abs_config::RestoreTimestampRequest) {
    let mut world = World::start("2026-01-01T10:30:00Z", POLICY, DAILY).await;
    world.write("test", 0..10).await;
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    let time = world.clock.now().timestamp_millis() + 1;
    let request = format!(r#"{{"routine": "daily", "time": {time}}}"#);
    (world, abs_config::from_json(request.as_bytes()).unwrap())
}

async fn ended(world: &World, id: JobId) -> RestoreStatus {
    let ended = async {
        loop {
            let status = world.send(GetRestore(id)).await.unwrap();
            if status.state != Status::Running {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::testing::HANGS, ended).await.expect("the restore hangs")
}

/// Protects: a restore whose plan takes long has its id before, and goes on; one whose request is given up is canceled, so
/// that a request that is made again starts no second one.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_has_an_id_before_its_plan() {
    let (world, request) = backed_up().await;
    // Retention holds the routine: nothing can be planned.
    let retention = world.shared.readers.of("daily").write_owned().await;
    let wait = PlanWait { limit: Duration::from_millis(20), given_up: CancellationToken::new() };
    let id = world.send(RestoreToTime { request: request.clone(), wait }).await.unwrap();
    assert_eq!(world.send(GetRestore(id)).await.unwrap().state, Status::Running);

    let given_up = CancellationToken::new();
    given_up.cancel();
    let wait = PlanWait { limit: crate::testing::HANGS, given_up };
    world.send(RestoreToTime { request: request.clone(), wait }).await.unwrap_err();
    let all = world.send(ListRestores::default()).await;
    let other = all.keys().copied().find(|other| *other != id).unwrap();
    assert_eq!(ended(&world, other).await.state, Status::Canceled);

    drop(retention);
    let status = ended(&world, id).await;
    assert_eq!((status.state, status.error), (Status::Done, None));
    assert_eq!(status.counts.read, 10);
}
