//! Nodes that restart or leave while a job is under way, and what that means for the records.

use std::fmt;
use std::sync::Arc;

use abs_cluster::{Cluster, ClusterError, NamespaceStatistics, NodeUptimes};

use crate::error::EngineError;

/// What is known of the nodes at the beginning of a job.
#[derive(Clone, Debug)]
pub(crate) struct NodesBefore {
    namespace: String,
    uptimes: NodeUptimes,
    statistics: NamespaceStatistics,
}

impl NodesBefore {
    pub(crate) async fn ask(
        cluster: &Cluster,
        namespace: &str,
        statistics: NamespaceStatistics,
    ) -> Result<Self, EngineError> {
        Ok(Self { namespace: namespace.to_owned(), uptimes: cluster.uptimes().await?, statistics })
    }

    /// Whether records may be missing from what a backup has read since; returns what the user should know.
    pub(crate) async fn check_read(&self, cluster: &Cluster) -> Result<Option<String>, EngineError> {
        let away = match self.away(cluster).await {
            Ok(away) if away.count() == 0 => return Ok(None),
            Ok(away) => away,
            Err(e) => return Ok(Some(self.unknown("backup", &e))),
        };
        let Self { namespace, statistics, .. } = self;
        if away.count() <= self.spare() {
            return Ok(Some(format!(
                "namespace {namespace}: nodes restarted or left during the backup; other nodes have copies of their records: \
                 {away}"
            )));
        }
        let missing = || EngineError::Restarted { namespace: namespace.clone(), nodes: away.to_string() };
        // While a single node is down, no other node answers for its partitions.
        let is_single = self.uptimes.count() == 1;
        if statistics.volatile || away.left.len() > self.spare() || (self.spare() == 0 && !is_single) {
            return Err(missing());
        }
        let before = statistics.objects;
        let held = cluster.statistics(namespace).await.map(|now| now.objects);
        if held.as_ref().is_ok_and(|now| *now < before / 2) {
            return Err(missing());
        }
        let held = held.map_or_else(|e| e.to_string(), |now| now.to_string());
        Ok(Some(format!(
            "namespace {namespace}: nodes restarted during the backup, records may be missing if several were away at a time \
             or one lost its disk; objects before: {before}, now: {held}: {away}"
        )))
    }

    /// Whether records may be lost that a restore has written since; returns what the user should know.
    pub(crate) async fn check_written(&self, cluster: &Cluster) -> Result<Option<String>, EngineError> {
        let away = match self.away(cluster).await {
            Ok(away) if away.count() == 0 => return Ok(None),
            Ok(away) => away,
            Err(e) => return Ok(Some(self.unknown("restore", &e))),
        };
        let namespace = self.namespace.clone();
        if self.statistics.volatile && away.count() > self.spare() {
            return Err(EngineError::RestoreLost { namespace, nodes: away.to_string() });
        }
        Ok(Some(format!("namespace {namespace}: nodes restarted or left during the restore: {away}")))
    }

    /// Records of the namespace, each counted once.
    pub(crate) fn records(&self) -> u64 {
        self.statistics.master_objects
    }

    /// How many nodes may be away without a loss of records: as many as there are further copies.
    fn spare(&self) -> usize {
        usize::try_from(self.statistics.replication_factor.saturating_sub(1)).unwrap_or(usize::MAX)
    }

    /// The nodes that were away since the beginning.
    async fn away(&self, cluster: &Cluster) -> Result<Away, ClusterError> {
        let now = cluster.uptimes().await?;
        Ok(Away { restarted: self.uptimes.restarted(&now), left: self.uptimes.left(&now) })
    }

    /// The warning when that cannot be found out: a cluster that is unreachable now has not spoilt what was done before.
    fn unknown(&self, job: &str, error: &ClusterError) -> String {
        format!(
            "namespace {}: it is not known whether nodes restarted during the {job}: {error}",
            self.namespace
        )
    }
}

/// Nodes that were away.
struct Away {
    restarted: Vec<Arc<str>>,
    left: Vec<Arc<str>>,
}

impl Away {
    fn count(&self) -> usize {
        self.restarted.len() + self.left.len()
    }
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let restarted = self.restarted.iter().map(|node| format!("{node} restarted"));
        let left = self.left.iter().map(|node| format!("{node} left"));
        f.write_str(&restarted.chain(left).collect::<Vec<_>>().join(", "))
    }
}
