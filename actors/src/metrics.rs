//! What Prometheus is told. The names are a contract: dashboards of the reference service go on working.

use std::time::Duration;

use abs_engine::catalog::BackupKind;
use chrono::{DateTime, Utc};
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::messages::{RunningJob, Status};

const PREFIX: &str = "aerospike_backup_service";
const LABELS: &[&str] = &["routine", "type"];
const ROUTINE: &[&str] = &["routine"];
/// Seconds: from the backup of a set to one of a cluster over night.
const DURATIONS: [f64; 13] =
    [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 21_600.0, 86_400.0];

/// All metrics of the service.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    duration: HistogramVec,
    events: IntCounterVec,
    in_progress: IntGaugeVec,
    progress: IntGaugeVec,
    last_successful: IntGaugeVec,
    estimated_end: IntGaugeVec,
    last_bytes: IntGaugeVec,
    last_records: IntGaugeVec,
    bytes: IntCounterVec,
    records: IntCounterVec,
    restarts: IntCounterVec,
    job_restarts: IntCounterVec,
    restores: IntCounterVec,
    restores_in_progress: IntGauge,
    restored_bytes: IntCounter,
    restored_records: IntCounter,
    restore_duration: Histogram,
    held: IntGaugeVec,
    verified: IntGaugeVec,
    verify_failures: IntCounterVec,
    /// The deprecated metrics, without labels: of full backups, then of incremental ones.
    old: [OldMetrics; 2],
}

#[derive(Debug)]
struct OldMetrics {
    runs: IntCounter,
    failures: IntCounter,
    skips: IntCounter,
    duration: IntGauge,
}

/// What may happen to a backup, as the label `outcome` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
    Canceled,
    Retry,
    Skip,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Canceled => "canceled",
            Self::Retry => "retry",
            Self::Skip => "skip",
        }
    }
}

impl From<Status> for Outcome {
    fn from(state: Status) -> Self {
        match state {
            Status::Done => Self::Success,
            Status::Canceled => Self::Canceled,
            Status::Running | Status::Failed => Self::Failure,
        }
    }
}

impl Metrics {
    /// # Errors
    /// When two metrics have the same name; never, then, once a test has made them.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let make = Maker(Registry::new());
        Ok(Self {
            duration: make.add(HistogramVec::new(
                HistogramOpts::new("backup_duration_seconds", "How long successful backups took.")
                    .namespace(PREFIX)
                    .buckets(DURATIONS.to_vec()),
                LABELS,
            ))?,
            events: make.add(IntCounterVec::new(
                Opts::new("backup_events_total", "What happened to backups.").namespace(PREFIX),
                &["routine", "type", "outcome"],
            ))?,
            in_progress: make.gauges("backup_in_progress", "Backups that run.")?,
            progress: make
                .gauges("backup_progress_pct", "How much of the running backup is done, in percent.")?,
            last_successful: make.gauges(
                "last_successful_backup_timestamp",
                "When the last successful backup was made, in seconds.",
            )?,
            estimated_end: make.gauges(
                "backup_estimated_completion_timestamp",
                "When the running backup will be done, in seconds; 0 when that is not known.",
            )?,
            last_bytes: make.gauges("last_backup_size_bytes", "Bytes of the last successful backup.")?,
            last_records: make
                .gauges("last_backup_size_records", "Records of the last successful backup.")?,
            bytes: make.counters("backup_bytes_total", "Bytes of successful backups.")?,
            records: make.counters("backup_records_total", "Records of successful backups.")?,
            restarts: make.add(IntCounterVec::new(
                Opts::new("routine_restarts_total", "Restarts of routines that failed.").namespace(PREFIX),
                ROUTINE,
            ))?,
            job_restarts: make.add(IntCounterVec::new(
                Opts::new("job_restarts_total", "Restarts of backups whose jobs crashed.").namespace(PREFIX),
                ROUTINE,
            ))?,
            held: make.add(IntGaugeVec::new(
                Opts::new(
                    "routine_held",
                    "1 if this service works on the routine, 0 if not: another one does, it is disabled, or its storage fails.",
                )
                .namespace(PREFIX),
                ROUTINE,
            ))?,
            restores: make.add(IntCounterVec::new(
                Opts::new("restore_events_total", "What happened to restores.").namespace(PREFIX),
                &["outcome"],
            ))?,
            restores_in_progress: make.gauge("restore_in_progress", "Restores that run.")?,
            restored_bytes: make.counter("restore_bytes_total", "Bytes read by restores.")?,
            restored_records: make.counter("restore_records_total", "Records written by restores.")?,
            restore_duration: make.add(Histogram::with_opts(
                HistogramOpts::new("restore_duration_seconds", "How long restores took.")
                    .namespace(PREFIX)
                    .buckets(DURATIONS.to_vec()),
            ))?,
            verified: make.add(IntGaugeVec::new(
                Opts::new(
                    "backup_verified_timestamp",
                    "When backups were last verified and found whole, in seconds.",
                )
                .namespace(PREFIX),
                ROUTINE,
            ))?,
            verify_failures: make.add(IntCounterVec::new(
                Opts::new("backup_verify_failures_total", "Verifications that did not find backups whole.")
                    .namespace(PREFIX),
                ROUTINE,
            ))?,
            old: [make.old("")?, make.old("incremental_")?],
            registry: make.0,
        })
    }

    /// A backup began.
    pub(crate) fn backup_started(&self, routine: &str, kind: BackupKind) {
        self.in_progress.with_label_values(&[routine, kind.as_str()]).inc();
        self.progress.with_label_values(&[routine, kind.as_str()]).set(0);
        self.old(kind).runs.inc();
    }

    /// A backup goes on.
    pub(crate) fn backup_progress(&self, routine: &str, kind: BackupKind, job: &RunningJob) {
        let labels = &[routine, kind.as_str()];
        self.progress.with_label_values(labels).set(i64::from(job.percentage_done));
        self.estimated_end
            .with_label_values(labels)
            .set(job.estimated_end.map_or(0, |time| time.timestamp()));
    }

    /// Something happened to a backup.
    pub(crate) fn backup_event(&self, routine: &str, kind: BackupKind, outcome: Outcome) {
        self.events.with_label_values(&[routine, kind.as_str(), outcome.as_str()]).inc();
        match outcome {
            Outcome::Failure => self.old(kind).failures.inc(),
            Outcome::Skip => self.old(kind).skips.inc(),
            Outcome::Success | Outcome::Canceled | Outcome::Retry => {}
        }
    }

    /// A backup ended.
    pub(crate) fn backup_ended(
        &self,
        routine: &str,
        kind: BackupKind,
        outcome: Outcome,
        totals: Totals,
        created: DateTime<Utc>,
    ) {
        let labels = &[routine, kind.as_str()];
        self.backup_event(routine, kind, outcome);
        let in_progress = self.in_progress.with_label_values(labels);
        // There may be several incremental ones, or none that was counted: the routine may have been forgotten meanwhile.
        in_progress.set((in_progress.get() - 1).max(0));
        self.progress.with_label_values(labels).set(0);
        self.estimated_end.with_label_values(labels).set(0);
        if outcome == Outcome::Success {
            self.duration.with_label_values(labels).observe(totals.duration.as_secs_f64());
            self.old(kind).duration.set(totals.duration.as_millis() as i64);
            self.last_successful.with_label_values(labels).set(created.timestamp());
            self.last_bytes.with_label_values(labels).set(totals.bytes as i64);
            self.last_records.with_label_values(labels).set(totals.records as i64);
            self.bytes.with_label_values(labels).inc_by(totals.bytes);
            self.records.with_label_values(labels).inc_by(totals.records);
        }
    }

    /// A routine begins: alerts need its series from the start.
    pub(crate) fn routine_added(&self, routine: &str) {
        self.restarts.with_label_values(&[routine]);
        self.job_restarts.with_label_values(&[routine]);
        self.held.with_label_values(&[routine]);
        self.verify_failures.with_label_values(&[routine]);
    }

    /// This service works on a routine, or not.
    pub(crate) fn routine_held(&self, routine: &str, held: bool) {
        self.held.with_label_values(&[routine]).set(held.into());
    }

    /// A routine that had failed was restarted.
    pub(crate) fn routine_restarted(&self, routine: &str) {
        self.restarts.with_label_values(&[routine]).inc();
    }

    /// A backup of a routine whose job had crashed is continued.
    pub(crate) fn job_restarted(&self, routine: &str) {
        self.job_restarts.with_label_values(&[routine]).inc();
    }

    /// A restore began.
    pub(crate) fn restore_started(&self) {
        self.restores_in_progress.inc();
    }

    /// A restore ended.
    pub(crate) fn restore_ended(&self, outcome: Outcome, totals: Totals) {
        self.restores_in_progress.dec();
        self.restores.with_label_values(&[outcome.as_str()]).inc();
        self.restored_bytes.inc_by(totals.bytes);
        self.restored_records.inc_by(totals.records);
        self.restore_duration.observe(totals.duration.as_secs_f64());
    }

    /// A verification of backups ended: at this time, if it found them whole.
    pub(crate) fn verification_ended(&self, routine: &str, whole: Option<DateTime<Utc>>) {
        match whole {
            Some(time) => self.verified.with_label_values(&[routine]).set(time.timestamp()),
            None => self.verify_failures.with_label_values(&[routine]).inc(),
        }
    }

    /// Forgets a routine that is gone.
    pub(crate) fn forget(&self, routine: &str) {
        let _ = self.restarts.remove_label_values(&[routine]);
        let _ = self.job_restarts.remove_label_values(&[routine]);
        let _ = self.held.remove_label_values(&[routine]);
        let _ = self.verified.remove_label_values(&[routine]);
        let _ = self.verify_failures.remove_label_values(&[routine]);
        for kind in [BackupKind::Full, BackupKind::Incremental] {
            let labels = &[routine, kind.as_str()];
            // A metric that the routine never had is no loss.
            for gauges in [
                &self.in_progress,
                &self.progress,
                &self.last_successful,
                &self.estimated_end,
                &self.last_bytes,
            ] {
                let _ = gauges.remove_label_values(labels);
            }
            let _ = self.last_records.remove_label_values(labels);
            let _ = self.bytes.remove_label_values(labels);
            let _ = self.records.remove_label_values(labels);
            let _ = self.duration.remove_label_values(labels);
            for outcome in
                [Outcome::Success, Outcome::Failure, Outcome::Canceled, Outcome::Retry, Outcome::Skip]
            {
                let _ = self.events.remove_label_values(&[routine, kind.as_str(), outcome.as_str()]);
            }
        }
    }

    /// All metrics in the text format of Prometheus.
    pub(crate) fn render(&self) -> String {
        // Writing to memory cannot fail, and all names and labels are text.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    fn old(&self, kind: BackupKind) -> &OldMetrics {
        let [full, incremental] = &self.old;
        match kind {
            BackupKind::Full => full,
            BackupKind::Incremental => incremental,
        }
    }
}

/// What a job moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub records: u64,
    pub bytes: u64,
    pub duration: Duration,
}

/// Makes metrics and registers them.
struct Maker(Registry);

impl Maker {
    fn add<M: Collector + Clone + 'static>(
        &self,
        metric: Result<M, prometheus::Error>,
    ) -> Result<M, prometheus::Error> {
        let metric = metric?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauges(&self, name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help).namespace(PREFIX), LABELS))
    }

    fn counters(&self, name: &str, help: &str) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help).namespace(PREFIX), LABELS))
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::with_opts(Opts::new(name, help).namespace(PREFIX)))
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::with_opts(Opts::new(name, help).namespace(PREFIX)))
    }

    fn old(&self, kind: &str) -> Result<OldMetrics, prometheus::Error> {
        let name = |what: &str| format!("{kind}{what}");
        Ok(OldMetrics {
            runs: self.counter(&name("runs_total"), "Deprecated: see backup_events_total.")?,
            failures: self.counter(&name("failure_total"), "Deprecated: see backup_events_total.")?,
            skips: self.counter(&name("skip_total"), "Deprecated: see backup_events_total.")?,
            duration: self.gauge(&name("duration_millis"), "Deprecated: see backup_duration_seconds.")?,
        })
    }
}

#[cfg(test)]
mod tests;
