//! Backups of what changed.

use abs_engine::BackupPlan;
use chrono::{TimeDelta, Utc};

use crate::support::{Server, Target, plan};

/// An incremental backup of nothing leaves nothing and says so; one of something is there.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_one_leaves_nothing() {
    let server = Server::start(2).await;
    server.load("one", "", 0..100, 10).await;
    let target = Target::new();
    let later = Utc::now() + TimeDelta::hours(1);
    let plan = BackupPlan { modified_after: Some(later), skip_empty: true, ..plan("one") };
    let report = target.backup(&server, "i", &plan, later).await.unwrap();
    assert!(report.empty);
    assert_eq!(report.metadata.record_count, 0);
    assert_eq!(target.left(), [""; 0]);

    server.dev.knobs().advance_clock(std::time::Duration::from_hours(2));
    let changed = server.load("one", "", 40..60, 20).await;
    let report = target.backup(&server, "i", &plan, later).await.unwrap();
    assert!(!report.empty);
    assert_eq!(report.metadata.from, later);
    assert!(target.records("i") == changed);
}

/// Wherever the border between a sealed backup and the incremental one after it falls, in the millisecond of an update
/// too: every record is in one of them, and none in both.
#[tokio::test(flavor = "multi_thread")]
async fn a_border_loses_and_repeats_nothing() {
    let server = Server::start(1).await;
    let before = Utc::now();
    let mut records = server.load("one", "", 0..50, 10).await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    records.extend(server.load("one", "", 50..100, 10).await);
    let after = Utc::now() + TimeDelta::milliseconds(2);
    let target = Target::new();
    let mut borders = 0;
    let mut border = before - TimeDelta::milliseconds(2);
    while border < after {
        let name = borders.to_string();
        let full = BackupPlan { sealed: true, ..plan("one") };
        let report = target.backup(&server, &format!("full-{name}"), &full, border).await.unwrap();
        let next = BackupPlan { modified_after: Some(report.metadata.created), ..plan("one") };
        target.backup(&server, &format!("next-{name}"), &next, Utc::now()).await.unwrap();
        let mut both = target.records(&format!("full-{name}"));
        let next = target.records(&format!("next-{name}"));
        assert_eq!(both.len() + next.len(), 100, "at {border}");
        both.extend(next);
        assert!(both == records, "at {border}");
        borders += 1;
        border += TimeDelta::milliseconds(1);
    }
    assert!(borders > 5);
}
