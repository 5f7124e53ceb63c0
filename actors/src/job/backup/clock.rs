//! The bounds of time of a backup, by the clocks of the service and of the cluster.

use std::time::Duration;

use abs_cluster::{Cluster, ClusterError, ClusterTime};
use abs_engine::catalog::Base;
use abs_engine::{BackupPlan, EngineError};
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use slog::warn;

use super::{Backup, Place, RoutineRun, until_stopped};
use crate::job::Steps;
use crate::run_error::RunError;
use crate::shared::ADJUSTED;

impl RoutineRun {
    /// Reads the cluster's clock, and sets the bounds of time of a plan, which builds on `base` if there is one.
    pub(super) async fn set_bounds(
        &self,
        steps: &Steps<Backup>,
        place: &Place,
        plan: &BackupPlan,
        base: Option<Base>,
    ) -> Result<BackupPlan, RunError> {
        let mut plan = plan.clone();
        let reading = if plan.no_records {
            Reading { now: steps.shared.clock.now(), since_start: Duration::ZERO, time: None }
        } else {
            self.read_clock(steps, &place.cluster, &plan).await?
        };
        let now = reading.now;
        plan.cluster_time = reading.at_start();
        let namespace = plan.namespace.as_str();
        let overlap =
            TimeDelta::from_std(self.settings.policy.overlap).unwrap_or(TimeDelta::MAX).max(ADJUSTED);
        let cluster_now = reading.time.and_then(|time| DateTime::from_timestamp_millis(time.earliest));
        match cluster_now {
            Some(cluster_now) if (cluster_now - now).abs() > overlap => {
                warn!(
                    steps.log, "the clocks of the cluster and of this service differ";
                    "namespace" => namespace, "cluster" => %cluster_now, "service" => %now
                );
            }
            None if !plan.no_records
                && steps.shared.is_news(format!("clock of {}/{namespace}", self.settings.name)) =>
            {
                warn!(
                    steps.log, "the clock of the cluster cannot be read: that of this service is used instead";
                    "namespace" => namespace
                );
            }
            _ => {}
        }
        if let Some(base) = base {
            let bound = lower_bound(base, self.settings.policy.overlap, now, cluster_now);
            plan.from = Some(base.created);
            plan.modified_after = Some(bound);
            let usual = base.cluster_created.unwrap_or(base.created);
            if usual - bound > overlap + overlap {
                warn!(
                    steps.log, "one of the clocks of the cluster and of this service was set since the last backup: \
                               changes since an earlier time are read again";
                    "namespace" => namespace, "since" => %bound
                );
            }
        }
        Ok(plan)
    }

    /// Reads the cluster's clock. A node that leaves just now is no reason to fail. For the exact time that a sealed backup
    /// ends at, the quickest of a few readings counts.
    async fn read_clock(
        &self,
        steps: &Steps<Backup>,
        cluster: &Cluster,
        plan: &BackupPlan,
    ) -> Result<Reading, RunError> {
        let (mut attempt, mut best) = (0, None::<(Duration, Reading)>);
        for _ in 0..if plan.sealed { READINGS } else { 1 } {
            let cluster_time = loop {
                let (now, steady) = (steps.shared.clock.now(), steps.shared.clock.steady());
                let error = match until_stopped(steps, self.continues, cluster.time(&plan.namespace)).await? {
                    Ok(time) => {
                        let took = steps.shared.clock.steady().saturating_sub(steady);
                        if best.as_ref().is_none_or(|(other, _)| took < *other) {
                            best = Some((
                                took,
                                Reading { now, since_start: steady.saturating_sub(self.begun), time },
                            ));
                        }
                        break time;
                    }
                    Err(e) => e,
                };
                let may_pass = error.is_transient() || matches!(error, ClusterError::NoNode(_));
                let wait = plan.retry.wait(attempt).filter(|_| may_pass);
                let Some(wait) = wait else { return Err(EngineError::from(error).into()) };
                attempt += 1;
                until_stopped(steps, self.continues, tokio::time::sleep(wait)).await?;
            };
            if cluster_time.is_none() || best.as_ref().is_some_and(|(took, _)| *took < QUICK) {
                break;
            }
        }
        let Some((took, mut reading)) = best else { return Err(EngineError::Canceled.into()) };
        // The nodes may have been asked late in a slow reading.
        let slow = TimeDelta::from_std(took.saturating_sub(SLOW)).unwrap_or(TimeDelta::MAX);
        reading.now = (reading.now + slow).trunc_subsecs(3);
        Ok(reading)
    }
}

/// How often the cluster's clock is read at most, until a reading is quick.
const READINGS: usize = 3;
/// A reading that takes no longer is as good as one of a moment.
const QUICK: Duration = Duration::from_millis(50);
/// One that takes longer may be of any moment in between.
const SLOW: Duration = Duration::from_secs(1);

/// A reading of the cluster's clock.
struct Reading {
    /// When it began by the service's clock, and how long after the start of the run.
    now: DateTime<Utc>,
    since_start: Duration,
    time: Option<ClusterTime>,
}

impl Reading {
    /// What the cluster's clock said when the run was started.
    fn at_start(&self) -> Option<ClusterTime> {
        let ClusterTime { earliest, latest } = self.time?;
        let since = i64::try_from(self.since_start.as_millis()).ok()?;
        Some(ClusterTime { earliest: earliest.checked_sub(since)?, latest: latest.checked_sub(since)? })
    }
}

/// The lower bound of the last update of records that are not in the backup `base`, by the cluster's clock; `now` and
/// `cluster_now` are the times of both clocks at this moment.
///
/// Setting one of the clocks changes their difference. A cluster whose clock was set back since the backup may have stamped
/// changes with times before it, but with none before the time that the clock, set back as it is now, would have shown at
/// the backup.
fn lower_bound(
    base: Base,
    overlap: Duration,
    now: DateTime<Utc>,
    cluster_now: Option<DateTime<Utc>>,
) -> DateTime<Utc> {
    let then = base.cluster_created.unwrap_or(base.created);
    let as_of_now = cluster_now.and_then(|cluster_now| base.created.checked_add_signed(cluster_now - now));
    let overlap = TimeDelta::from_std(overlap).unwrap_or(TimeDelta::MAX);
    let bound = as_of_now.map_or(then, |as_of_now| as_of_now.min(then)).checked_sub_signed(overlap);
    // What would be out of range for the server is before all records.
    bound.unwrap_or(DateTime::UNIX_EPOCH).max(DateTime::UNIX_EPOCH)
}
