//! Verifications: what a request learns, and how they end early.

use std::time::Duration;

use abs_engine::catalog::BackupKind::{Full, Incremental};
use abs_engine::{Depth, Verdict};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock as _;
use crate::messages::*;
use crate::testing::{World, time};

const POLICY: &str = "  p: {retry-policy: {base-timeout: 1, max-retries: 0}, parallel: 1}\n";
const DAILY: &str = "  daily: {source-cluster: dev, storage: here, namespaces: [test], interval-cron: '@daily', \
                     backup-policy: p}\n";

async fn ended(world: &World, id: JobId) -> VerificationStatus {
    let ended = async {
        loop {
            let status = world.send(GetVerification(id)).await.unwrap();
            if status.state != Status::Running {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::testing::HANGS, ended).await.expect("the verification hangs")
}

/// Protects: a verification has its id before it knows what there is, can be canceled then, and lets go of the routine at its
/// end; one that may go on finds what there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_verification_is_canceled_or_ends() {
    let mut world = World::start("2026-01-01T10:30:00Z", POLICY, DAILY).await;
    world.write("test", 0..10).await;
    world.trigger(Full).await;
    assert_eq!(world.finished().await, (Full, Status::Done, None));
    let list = ListBackups {
        routine: Some("daily".to_owned()),
        kind: Full,
        from: None,
        to: None,
        limit: crate::testing::HANGS,
    };
    let lists = world.send(list).await.unwrap();
    let timestamp = lists.routines["daily"].backups[0].created.timestamp_millis();
    let subject = VerifySubject { routine: "daily".to_owned(), timestamp, depth: Depth::Full };
    let wait = || PlanWait { limit: Duration::from_millis(20), given_up: CancellationToken::new() };

    // Retention holds the routine: nothing can be planned.
    let retention = world.shared.readers.of("daily").write_owned().await;
    let canceled = world.send(VerifyBackup { subject: subject.clone(), wait: wait() }).await.unwrap();
    let other = world.send(VerifyBackup { subject: subject.clone(), wait: wait() }).await.unwrap();
    assert_eq!(world.send(GetVerification(canceled)).await.unwrap().state, Status::Running);
    world.send(CancelVerification(canceled)).await.unwrap();
    let status = ended(&world, canceled).await;
    assert_eq!((status.state, status.found), (Status::Canceled, None));
    world.send(CancelVerification(canceled)).await.unwrap();

    drop(retention);
    let status = ended(&world, other).await;
    assert_eq!((status.state, &status.error), (Status::Done, &None));
    let found = status.found.unwrap();
    assert_eq!((found.verdict(), found.backups[0].records), (Verdict::Whole, Some(10)), "{found:?}");
    let late = world.send(CancelVerification(other)).await.unwrap_err();
    assert!(late.to_string().ends_with("has ended"), "{late}");
    // No reader is left.
    let writer = world.shared.readers.of("daily").write_owned();
    tokio::time::timeout(crate::testing::HANGS, writer).await.expect("retention waits");
    let nothing = VerifySubject { timestamp: timestamp + 1, ..subject };
    let error = world.send(VerifyBackup { subject: nothing, wait: PlanWait::default() }).await.unwrap_err();
    assert!(matches!(error, RequestError::NotFound { what: "backup", .. }), "{error}");
}

/// Protects: by a schedule the runs are verified that a restore would read, one after the other, the newest first, and no others.
#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_verifies_the_newest_chain() {
    let policy = POLICY.replace("p: {", "p: {verify: '0 0 11 * * *', verify-mode: quick, ");
    let mut world = World::start("2026-01-01T10:30:00Z", &policy, DAILY).await;
    world.write("test", 0..10).await;
    let mut made = Vec::new();
    for kind in [Full, Full, Incremental] {
        world.trigger(kind).await;
        assert_eq!(world.finished().await, (kind, Status::Done, None));
        made.push(world.clock.now());
    }
    world.clock.set(time("2026-01-01T11:00:00Z"));
    let mut ids = Vec::new();
    for created in [made[2], made[1]] {
        let id = world.verification().await;
        for before in ids.drain(..) {
            assert_eq!(world.send(GetVerification(before)).await.unwrap().state, Status::Done);
        }
        let VerificationStatus { subject, .. } = world.send(GetVerification(id)).await.unwrap();
        let routine = "daily".to_owned();
        let expected = VerifySubject { routine, timestamp: created.timestamp_millis(), depth: Depth::Quick };
        assert_eq!(subject, expected);
        ids.push(id);
    }
    // No other one comes before one that is asked for.
    let timestamp = made[0].timestamp_millis();
    let subject = VerifySubject { routine: "daily".to_owned(), timestamp, depth: Depth::Quick };
    let id = world.send(VerifyBackup { subject, wait: PlanWait::default() }).await.unwrap();
    assert_eq!(world.verification().await, id);
}
