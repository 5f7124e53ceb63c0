//! The metrics as they are told.

use super::*;

/// Incremental backups may run at the same time.
#[test]
fn each_backup_that_runs_is_counted() {
    let metrics = Metrics::new().unwrap();
    let running = |count| {
        let line = "aerospike_backup_service_backup_in_progress{routine=\"daily\",type=\"incremental\"}";
        assert!(metrics.render().contains(&format!("{line} {count}\n")), "{}", metrics.render());
    };
    metrics.backup_started("daily", BackupKind::Incremental);
    metrics.backup_started("daily", BackupKind::Incremental);
    running(2);
    for left in [1, 0, 0] {
        let (end, totals) = (Outcome::Canceled, Totals::default());
        metrics.backup_ended("daily", BackupKind::Incremental, end, totals, DateTime::UNIX_EPOCH);
        running(left);
    }
}

#[test]
fn the_names_of_the_contract_are_there_and_a_routine_that_is_gone_is_not() {
    let metrics = Metrics::new().unwrap();
    let totals = Totals { records: 7, bytes: 900, duration: Duration::from_secs(2) };
    for kind in [BackupKind::Full, BackupKind::Incremental] {
        metrics.backup_started("daily", kind);
        metrics.backup_event("daily", kind, Outcome::Retry);
        metrics.backup_event("daily", kind, Outcome::Skip);
        metrics.backup_ended("daily", kind, Outcome::Success, totals, DateTime::UNIX_EPOCH);
        metrics.backup_ended("daily", kind, Outcome::Failure, totals, DateTime::UNIX_EPOCH);
    }
    metrics.routine_restarted("daily");
    metrics.job_restarted("daily");
    metrics.routine_held("daily", true);
    metrics.restore_started();
    metrics.restore_ended(Outcome::Success, totals);
    metrics.verification_ended("daily", Some(DateTime::UNIX_EPOCH));
    metrics.verification_ended("daily", None);
    let text = metrics.render();
    for line in [
        "backup_duration_seconds_count{routine=\"daily\",type=\"full\"} 1",
        "backup_events_total{outcome=\"retry\",routine=\"daily\",type=\"incremental\"} 1",
        "backup_in_progress{routine=\"daily\",type=\"full\"} 0",
        "backup_progress_pct{routine=\"daily\",type=\"full\"} 0",
        "last_successful_backup_timestamp{routine=\"daily\",type=\"full\"} 0",
        "routine_restarts_total{routine=\"daily\"} 1",
        "job_restarts_total{routine=\"daily\"} 1",
        "routine_held{routine=\"daily\"} 1",
        "restore_events_total{outcome=\"success\"} 1",
        "restore_in_progress 0",
        "runs_total 1",
        "incremental_runs_total 1",
        "failure_total 1",
        "incremental_failure_total 1",
        "skip_total 1",
        "incremental_skip_total 1",
        "duration_millis 2000",
        "incremental_duration_millis 2000",
        "backup_bytes_total{routine=\"daily\",type=\"full\"} 900",
        "backup_records_total{routine=\"daily\",type=\"full\"} 7",
        "last_backup_size_bytes{routine=\"daily\",type=\"full\"} 900",
        "last_backup_size_records{routine=\"daily\",type=\"full\"} 7",
        "restore_bytes_total 900",
        "restore_records_total 7",
        "restore_duration_seconds_count 1",
        "backup_verified_timestamp{routine=\"daily\"} 0",
        "backup_verify_failures_total{routine=\"daily\"} 1",
    ] {
        assert!(text.contains(&format!("\naerospike_backup_service_{line}\n")), "{line} is not in\n{text}");
    }
    metrics.forget("daily");
    assert!(!metrics.render().contains("daily"));
}
