//! How many records a backup without a filter will have. One with a filter is estimated by its queue.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use abs_cluster::{Cluster, PARTITIONS, PartitionCursor};

use crate::outcome::Outcome;
use crate::progress::BackupProgress;

/// How often the cluster is asked again.
const REFRESH: Duration = Duration::from_mins(10);

/// The share of a namespace that some partitions are.
pub(crate) fn share_of_namespace(partitions: &[PartitionCursor]) -> f64 {
    partitions.len() as f64 / f64::from(PARTITIONS)
}

/// The records of a share of a namespace that has `objects`.
pub(crate) fn expect(objects: u64, share: f64, progress: &BackupProgress) {
    progress.expected_records.store((objects as f64 * share) as u64, Relaxed);
}

/// Asks the cluster now and then how many records there are, until the run ends.
pub(crate) async fn keep_expected(
    cluster: Cluster,
    namespace: String,
    share: f64,
    progress: Arc<BackupProgress>,
    outcome: Arc<Outcome>,
) {
    let refresh = async {
        loop {
            tokio::time::sleep(REFRESH).await;
            // While the cluster cannot be asked the old number stands.
            if let Ok(statistics) = cluster.statistics(&namespace).await {
                expect(statistics.master_objects, share, &progress);
            }
        }
    };
    // Ends with the run.
    let _: Option<()> = outcome.stop.run_until_cancelled(refresh).await;
}
