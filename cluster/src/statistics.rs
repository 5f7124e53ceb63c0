//! Numbers that nodes publish about a namespace.

use crate::{Cluster, ClusterError};

/// What the whole cluster says of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceStatistics {
    /// Records, each counted once, at its master.
    pub master_objects: u64,
    /// Records, replicas included.
    pub objects: u64,
    /// Bytes of records, replicas included.
    pub data_used_bytes: u64,
    /// True when some node refuses writes.
    pub stop_writes: bool,
    /// Nodes of the cluster that did not answer: the sums are without theirs.
    pub silent_nodes: usize,
}

/// A value of an answer that is a list of `key=value` pairs.
fn value<'a>(answer: &'a str, key: &str) -> Option<&'a str> {
    answer
        .split([';', ':'])
        .find_map(|pair| pair.split_once('=').filter(|(found, _)| *found == key))
        .map(|(_, value)| value)
}

/// The same as a number; 0 when there is none.
fn number(answer: &str, key: &str) -> u64 {
    value(answer, key).and_then(|value| value.parse().ok()).unwrap_or(0)
}

impl Cluster {
    /// Sums the statistics of all nodes; fails when the cluster does not have the namespace.
    pub async fn statistics(&self, namespace: &str) -> Result<NamespaceStatistics, ClusterError> {
        if !self.namespaces().await?.iter().any(|name| name == namespace) {
            return Err(ClusterError::NoNamespace(namespace.to_owned()));
        }
        let all = self.info_all(&format!("namespace/{namespace}")).await?;
        let mut sum =
            NamespaceStatistics { silent_nodes: all.silent.len(), ..NamespaceStatistics::default() };
        for (_, answer) in &all.answers {
            sum.master_objects += number(answer, "master_objects");
            sum.objects += number(answer, "objects");
            // Servers before 7.0 name it by the storage engine.
            sum.data_used_bytes += ["data_used_bytes", "device_used_bytes", "memory_used_data_bytes"]
                .into_iter()
                .map(|key| number(answer, key))
                .sum::<u64>();
            sum.stop_writes |= value(answer, "stop_writes") == Some("true");
            // Nodes know of nodes that we do not: those that we could never reach.
            let nodes = usize::try_from(number(answer, "ns_cluster_size")).unwrap_or(0);
            sum.silent_nodes = sum.silent_nodes.max(nodes.saturating_sub(all.answers.len()));
        }
        Ok(sum)
    }

    /// Records of some sets, replicas included.
    pub async fn set_objects(&self, namespace: &str, sets: &[String]) -> Result<u64, ClusterError> {
        let all = self.info_all(&format!("sets/{namespace}")).await?;
        let counted = all.answers.iter().flat_map(|(_, answer)| answer.split(';'));
        let counted =
            counted.filter(|set| value(set, "set").is_some_and(|name| sets.iter().any(|s| s == name)));
        Ok(counted.map(|set| number(set, "objects")).sum())
    }
}
