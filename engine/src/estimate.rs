//! How many records a backup will have, as far as the cluster knows. One with a filter is estimated by its queue.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use abs_cluster::{Cluster, ClusterError, NamespaceStatistics, PARTITIONS};

use crate::outcome::Outcome;
use crate::plan::BackupPlan;
use crate::progress::BackupProgress;

/// How often the cluster is asked again.
const REFRESH: Duration = Duration::from_mins(10);

/// Which records a backup takes, by whether the cluster counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    All,
    /// Those of some sets.
    Sets,
    /// Those that a filter lets through.
    Unknown,
}

impl Selection {
    pub(crate) fn of(plan: &BackupPlan) -> Self {
        if plan.filter.is_some() || plan.modified_after.is_some() {
            Self::Unknown
        } else if plan.sets.is_empty() {
            Self::All
        } else {
            Self::Sets
        }
    }
}

/// The records of a partition, on average: those of the sets that the plan asks for, whatever filters leave of them.
pub(crate) async fn density(
    cluster: &Cluster,
    plan: &BackupPlan,
    statistics: &NamespaceStatistics,
) -> Result<f64, ClusterError> {
    let records = if plan.sets.is_empty() {
        statistics.master_objects as f64
    } else {
        // Nodes count the records of a set together with those that they are a replica of.
        let masters = statistics.master_objects as f64 / statistics.objects.max(1) as f64;
        cluster.set_objects(&plan.namespace, &plan.sets).await? as f64 * masters
    };
    Ok(records / f64::from(PARTITIONS))
}

/// Says how many records there are in so many partitions.
pub(crate) fn expect(density: f64, partitions: usize, progress: &BackupProgress) {
    progress.expected_records.store((density * partitions as f64).round() as u64, Relaxed);
}

/// Asks the cluster now and then how many records there are in so many partitions, until the run ends.
pub(crate) async fn keep_expected(
    cluster: Cluster,
    plan: BackupPlan,
    partitions: usize,
    progress: Arc<BackupProgress>,
    outcome: Arc<Outcome>,
) {
    let refresh = async {
        loop {
            tokio::time::sleep(REFRESH).await;
            // While the cluster cannot be asked the old number stands.
            if let Ok(statistics) = cluster.statistics(&plan.namespace).await
                && let Ok(density) = density(&cluster, &plan, &statistics).await
            {
                expect(density, partitions, &progress);
            }
        }
    };
    // Ends with the run.
    let _: Option<()> = outcome.stop.run_until_cancelled(refresh).await;
}
