//! Nodes that restart or leave while a job is under way, and what that means for the records.

use abs_cluster::{Cluster, NamespaceStatistics, NodeUptimes};

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
        let Some(away) = self.away(cluster, "backup").await else { return Ok(None) };
        let away = match away {
            Ok(away) => away,
            Err(unknown) => return Ok(Some(unknown)),
        };
        let Self { namespace, statistics, .. } = self;
        if away.count() <= self.spare() {
            return Ok(Some(format!(
                "namespace {namespace}: nodes restarted or left during the backup; other nodes have copies of their records: \
                 {away}"
            )));
        }
        // Of a node that is alone nobody else answers for its partitions meanwhile.
        let is_alone = self.uptimes.len() == 1;
        if statistics.volatile || away.left.len() > self.spare() || (self.spare() == 0 && !is_alone) {
            return Err(EngineError::Restarted { namespace: namespace.clone(), nodes: away.to_string() });
        }
        let before = statistics.objects;
        let held = cluster.statistics(namespace).await.map(|now| now.objects);
        if held.as_ref().is_ok_and(|now| *now < before / 2) {
            return Err(EngineError::Restarted { namespace: namespace.clone(), nodes: away.to_string() });
        }
        let held = held.map_or_else(|e| e.to_string(), |now| now.to_string());
        Ok(Some(format!(
            "namespace {namespace}: nodes restarted during the backup, records may be missing if several were away at a time \
             or one lost its disk; objects before: {before}, now: {held}: {away}"
        )))
    }

    /// Whether records may be lost that a restore has written since; returns what the user should know.
    pub(crate) async fn check_written(&self, cluster: &Cluster) -> Result<Option<String>, EngineError> {
        let Some(away) = self.away(cluster, "restore").await else { return Ok(None) };
        let away = match away {
            Ok(away) => away,
            Err(unknown) => return Ok(Some(unknown)),
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

    /// The nodes that were away since the beginning, or why that is unknown: a cluster that is gone now has not spoilt
    /// what was done before.
    async fn away(&self, cluster: &Cluster, job: &str) -> Option<Result<Away, String>> {
        let now = match cluster.uptimes().await {
            Ok(now) => now,
            Err(e) => {
                let what = format!("it is not known whether nodes restarted during the {job}");
                return Some(Err(format!("namespace {}: {what}: {e}", self.namespace)));
            }
        };
        let names = |nodes: Vec<std::sync::Arc<str>>| nodes.iter().map(ToString::to_string).collect();
        let away =
            Away { restarted: names(self.uptimes.restarted(&now)), left: names(self.uptimes.left(&now)) };
        (away.count() > 0).then_some(Ok(away))
    }
}

/// Nodes that were away.
struct Away {
    restarted: Vec<String>,
    left: Vec<String>,
}

impl Away {
    fn count(&self) -> usize {
        self.restarted.len() + self.left.len()
    }
}

impl std::fmt::Display for Away {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let restarted = self.restarted.iter().map(|node| format!("{node} restarted"));
        let left = self.left.iter().map(|node| format!("{node} left"));
        f.write_str(&restarted.chain(left).collect::<Vec<_>>().join(", "))
    }
}
