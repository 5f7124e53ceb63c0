//! Numbers that nodes publish about a namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Cluster, ClusterError, Node};

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
    /// Copies of each record, the master's counted; the least that a node says.
    pub replication_factor: u64,
    /// True when records are in memory only: a node that restarts comes back empty.
    pub volatile: bool,
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
            let copies = number(answer, "effective_replication_factor").max(1);
            sum.replication_factor =
                if sum.replication_factor == 0 { copies } else { sum.replication_factor.min(copies) };
            let is_backed = answer.split(';').any(|pair| {
                ["storage-engine.file", "storage-engine.device"].iter().any(|key| pair.starts_with(key))
            });
            sum.volatile |= value(answer, "storage-engine") == Some("memory") && !is_backed;
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

/// How much an uptime may be off: it is said in whole seconds, and the answer takes its time.
const SLACK: Duration = Duration::from_secs(2);

/// Since when each node runs.
#[derive(Clone, Debug, Default)]
pub struct NodeUptimes {
    /// By node id.
    of_nodes: BTreeMap<Arc<str>, Uptime>,
    /// Nodes that are there but did not answer.
    silent: BTreeSet<Arc<str>>,
}

#[derive(Clone, Copy, Debug)]
struct Uptime {
    uptime: Duration,
    at: Instant,
}

impl NodeUptimes {
    /// The nodes that have started again between this and `later`.
    #[must_use]
    pub fn restarted(&self, later: &Self) -> Vec<Arc<str>> {
        let is_younger = |(name, before): (&Arc<str>, &Uptime)| {
            let now = later.of_nodes.get(name)?;
            let expected = before.uptime + now.at.saturating_duration_since(before.at);
            (now.uptime < before.uptime || now.uptime + SLACK < expected).then(|| Arc::clone(name))
        };
        self.of_nodes.iter().filter_map(is_younger).collect()
    }

    /// The nodes that are not in the cluster any more in `later`.
    #[must_use]
    pub fn left(&self, later: &Self) -> Vec<Arc<str>> {
        let is_there = |name: &Arc<str>| later.of_nodes.contains_key(name) || later.silent.contains(name);
        self.of_nodes.keys().filter(|name| !is_there(name)).cloned().collect()
    }

    /// How many nodes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.of_nodes.len() + self.silent.len()
    }
}

impl Cluster {
    /// Asks every node how long it has been running.
    pub async fn uptimes(&self) -> Result<NodeUptimes, ClusterError> {
        let all = self.info_all("statistics").await?;
        let at = Instant::now();
        let uptime = |(node, answer): (Node, String)| {
            let seconds = answer.split(';').find_map(|pair| pair.strip_prefix("uptime=")?.parse().ok())?;
            Some((node.name, Uptime { uptime: Duration::from_secs(seconds), at }))
        };
        let silent = all.silent.into_iter().map(|(node, _)| node.name).collect();
        Ok(NodeUptimes { of_nodes: all.answers.into_iter().filter_map(uptime).collect(), silent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: a node that started again is seen, also when it has been up for longer than before meanwhile; one that
    /// went on or joined is not.
    #[test]
    fn a_node_that_started_again_is_younger_than_it_should_be() {
        let start = Instant::now();
        let of = |nodes: &[(&str, u64)], after: u64| {
            let at = start + Duration::from_secs(after);
            let uptime = |seconds: &u64| Uptime { uptime: Duration::from_secs(*seconds), at };
            NodeUptimes {
                of_nodes: nodes.iter().map(|(name, seconds)| ((*name).into(), uptime(seconds))).collect(),
                silent: BTreeSet::new(),
            }
        };
        let before = of(&[("A", 5), ("B", 1000), ("C", 7), ("D", 9), ("F", 9)], 0);
        let mut later = of(&[("A", 50), ("B", 3), ("C", 106), ("E", 1)], 100);
        later.silent.insert("F".into());
        assert_eq!(before.restarted(&later), [Arc::from("A"), Arc::from("B")]);
        assert_eq!(before.left(&later), [Arc::from("D")]);
    }
}
