//! Racks: which node is in which.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Cluster, ClusterError, Node, PartitionMap};

/// The rack of each node, for one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Racks {
    /// By node id.
    of_nodes: BTreeMap<String, u32>,
}

impl Racks {
    /// The rack of a node; `None` for a node that has joined since.
    #[must_use]
    pub fn of(&self, node: &Node) -> Option<u32> {
        self.of_nodes.get(&*node.name).copied()
    }

    /// The racks that have a node.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<u32> {
        self.of_nodes.values().copied().collect()
    }

    /// Reads the answer to `racks:`, which is `ns=N:rack_1=A,B:rack_2=C:roster_rack_1=…;ns=…`.
    fn parse(namespace: &str, answer: &str) -> Option<Self> {
        let mut parts = answer.split(';').find_map(|item| {
            let mut parts = item.split(':');
            (parts.next()? == format!("ns={namespace}")).then_some(parts)
        })?;
        let mut of_nodes = BTreeMap::new();
        // What follows is the roster, which says what should be.
        while let Some((rack, nodes)) =
            parts.next().and_then(|part| part.strip_prefix("rack_")?.split_once('='))
        {
            let rack = rack.parse().ok()?;
            of_nodes.extend(nodes.split(',').map(|node| (node.to_owned(), rack)));
        }
        Some(Self { of_nodes })
    }
}

impl Cluster {
    /// Which rack each node is in, as `namespace` sees it. Servers without racks have all nodes in rack 0.
    pub async fn racks(&self, namespace: &str) -> Result<Racks, ClusterError> {
        let answer = match self.info("racks:").await {
            // Code 25: only the enterprise edition has racks.
            Err(ClusterError::Info { answer, .. }) if answer.starts_with("ERROR:25:") => {
                let of_nodes = self.nodes().iter().map(|node| (node.name.to_string(), 0)).collect();
                return Ok(Racks { of_nodes });
            }
            answer => answer?,
        };
        Racks::parse(namespace, &answer).ok_or_else(|| ClusterError::NoNamespace(namespace.to_owned()))
    }

    /// Asks all nodes which partitions of `namespace` they have, now, and takes for each a node of the first of these
    /// racks that has it whole; its master when none has.
    pub async fn partition_map_preferring(
        &self,
        namespace: &str,
        racks: &[u32],
    ) -> Result<PartitionMap, ClusterError> {
        if racks.is_empty() {
            return self.partition_map(namespace).await;
        }
        let of_nodes = self.racks(namespace).await?;
        let place = |node: &Node| racks.iter().position(|rack| Some(*rack) == of_nodes.of(node));
        Ok(PartitionMap::from_answers(namespace, self.info_all("replicas").await?.answers, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_gives_the_racks_of_its_namespace_and_not_the_roster() {
        let answer = "ns=a:rack_0=BB9;ns=test:rack_1=BB9,A1:rack_2=C3:roster_rack_7=A1";
        let racks = Racks::parse("test", answer).unwrap();
        let node = |name: &str| Node { name: name.into(), host: "h".into(), port: 3000, tls_name: None };
        assert_eq!(
            ["BB9", "A1", "C3", "D4"].map(|name| racks.of(&node(name))),
            [Some(1), Some(1), Some(2), None]
        );
        assert_eq!(racks.ids(), BTreeSet::from([1, 2]));
        assert_eq!(Racks::parse("tes", answer), None);
        assert_eq!(Racks::parse("test", "ns=test:rack_x=A"), None);
    }
}
