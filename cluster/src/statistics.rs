//! Numbers that nodes publish about a namespace.

use crate::{Cluster, ClusterError};

/// What the whole cluster says of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespaceStatistics {
    /// Records, each counted once, at its master.
    pub master_objects: u64,
    /// Bytes of records, replicas included.
    pub data_used_bytes: u64,
    /// True when some node refuses writes.
    pub stop_writes: bool,
}

impl Cluster {
    /// Sums the statistics of all nodes; fails when the cluster does not have the namespace.
    pub async fn statistics(&self, namespace: &str) -> Result<NamespaceStatistics, ClusterError> {
        if !self.namespaces().await?.iter().any(|name| name == namespace) {
            return Err(ClusterError::NoNamespace(namespace.to_owned()));
        }
        let mut sum = NamespaceStatistics::default();
        for (_, answer) in self.info_all(&format!("namespace/{namespace}")).await? {
            let value = |key: &str| {
                answer
                    .split(';')
                    .find_map(|pair| pair.split_once('=').filter(|(k, _)| *k == key))
                    .map(|(_, v)| v)
            };
            let number = |key: &str| value(key).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
            sum.master_objects += number("master_objects");
            // Servers before 7.0 name it by the storage engine.
            sum.data_used_bytes +=
                number("data_used_bytes") + number("device_used_bytes") + number("memory_used_data_bytes");
            sum.stop_writes |= value("stop_writes") == Some("true");
        }
        Ok(sum)
    }

    /// Records of one set, replicas included.
    pub async fn set_objects(&self, namespace: &str, set: &str) -> Result<u64, ClusterError> {
        let answers = self.info_all(&format!("sets/{namespace}/{set}")).await?;
        let objects = |answer: &str| {
            answer.split([':', ';']).find_map(|pair| pair.strip_prefix("objects=")?.parse::<u64>().ok())
        };
        Ok(answers.iter().filter_map(|(_, answer)| objects(answer)).sum())
    }
}
