//! Partitions: which record belongs to which, which node masters which, and how far each was read.

use std::collections::HashMap;

use abs_asb::Digest;

use crate::{ClusterError, Node, Racks};

/// The number of partitions of every namespace.
pub const PARTITIONS: u16 = 4096;

/// The partition of a record: the low 12 bits of the first two digest bytes, read little-endian.
#[must_use]
pub fn partition_of(digest: &Digest) -> u16 {
    u16::from_le_bytes([digest[0], digest[1]]) & (PARTITIONS - 1)
}

/// A partition and how far it has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionCursor {
    /// 0 to 4095.
    pub partition: u16,
    /// The digest after which to go on; `None` to read the partition from its start.
    pub after: Option<Digest>,
}

impl From<u16> for PartitionCursor {
    fn from(partition: u16) -> Self {
        Self { partition, after: None }
    }
}

/// Which node to ask for which partition of one namespace, at one moment: its master, or a replica in a rack that is
/// preferred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMap {
    nodes: Vec<Node>,
    /// Index into `nodes` per partition; `NOBODY` when no node claims it.
    owners: Vec<u16>,
}

/// What one node says of the partitions it has.
struct Claims {
    regime: u32,
    /// Bitmaps, the master's first: those of replicas name the partitions that the node has whole.
    columns: Vec<Vec<u8>>,
}

impl Claims {
    fn has(&self, column: usize, partition: usize) -> bool {
        self.columns[column][partition / 8] & (0x80 >> (partition % 8)) != 0
    }

    fn is_replica(&self, partition: usize) -> bool {
        (1..self.columns.len()).any(|column| self.has(column, partition))
    }
}

const NOBODY: u16 = u16::MAX;

impl PartitionMap {
    /// Builds the map from each node's answer to the info command `replicas`.
    ///
    /// The answer is a list of `namespace:regime,replicas,bitmap,…;` items; each bitmap is base64 of 4,096 bits, most
    /// significant first, one for each partition: the first names those that the node masters, the others those of
    /// which it is a replica that has everything. When two nodes claim to be the master, as they may for a moment while
    /// a cluster re-forms, the higher regime wins.
    ///
    /// `preference` gives the place of a node in the order of preference, 0 for the first; of the nodes that have a
    /// partition the one with the first place is asked, the master when none has a place.
    pub(crate) fn from_answers(
        namespace: &str,
        answers: Vec<(Node, String)>,
        preference: impl Fn(&Node) -> Option<usize>,
    ) -> Self {
        let mut nodes = Vec::with_capacity(answers.len());
        let mut all = Vec::new();
        for (node, answer) in answers {
            if let Some(claims) = claims(namespace, &answer) {
                all.push((nodes.len() as u16, preference(&node), claims));
            }
            nodes.push(node);
        }
        let owner = |partition: usize| {
            let masters = all.iter().filter(|(_, _, claims)| claims.has(0, partition));
            let Some((master, place, claims)) = masters.max_by_key(|(_, _, claims)| claims.regime) else {
                return NOBODY;
            };
            // A replica counts in the master's own regime: in another it may speak of a cluster that is no more.
            let replicas = all.iter().filter(|(_, place, other)| {
                place.is_some() && other.regime == claims.regime && other.is_replica(partition)
            });
            let best = replicas.min_by_key(|(_, place, _)| *place);
            match best {
                Some((replica, other, _)) if place.is_none() || other < place => *replica,
                _ => *master,
            }
        };
        let owners = (0..usize::from(PARTITIONS)).map(owner).collect();
        Self { nodes, owners }
    }

    /// The nodes of the map; indices of the other calls refer to this list.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The index of the node to ask for `partition`, if there is one.
    #[must_use]
    pub fn owner(&self, partition: u16) -> Option<usize> {
        match self.owners[usize::from(partition % PARTITIONS)] {
            NOBODY => None,
            index => Some(usize::from(index)),
        }
    }

    /// The partitions that the node of this name masters, or is to be asked for.
    #[must_use]
    pub fn mastered_by(&self, name: &str) -> Vec<u16> {
        self.owned_by(|node| &*node.name == name)
    }

    /// The same of all nodes in these racks; fails when one of them has no node.
    pub fn mastered_in(&self, racks: &Racks, wanted: &[u32]) -> Result<Vec<u16>, ClusterError> {
        let there = racks.ids();
        match wanted.iter().find(|rack| !there.contains(rack)) {
            Some(rack) => Err(ClusterError::NoRack(*rack)),
            None => Ok(self.owned_by(|node| racks.of(node).is_some_and(|rack| wanted.contains(&rack)))),
        }
    }

    fn owned_by(&self, is_meant: impl Fn(&Node) -> bool) -> Vec<u16> {
        let meant: Vec<bool> = self.nodes.iter().map(is_meant).collect();
        (0..PARTITIONS).filter(|&p| self.owner(p).is_some_and(|node| meant[node])).collect()
    }

    /// True when every partition has a node to ask.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.owners.contains(&NOBODY)
    }

    /// How many partitions each node is to be asked for, by node name.
    #[must_use]
    pub fn shares(&self) -> HashMap<&str, usize> {
        let mut shares = HashMap::new();
        for &owner in self.owners.iter().filter(|&&o| o != NOBODY) {
            *shares.entry(&*self.nodes[usize::from(owner)].name).or_default() += 1;
        }
        shares
    }
}

/// What an answer to `replicas` says of one namespace.
fn claims(namespace: &str, answer: &str) -> Option<Claims> {
    let item = answer.split(';').find_map(|item| item.strip_prefix(namespace)?.strip_prefix(':'))?;
    let mut parts = item.split(',');
    let regime = parts.next()?.parse().ok()?;
    let _replicas = parts.next()?;
    let decode = |part: &str| {
        let bitmap = base64_simd::STANDARD.decode_to_vec(part).ok()?;
        (bitmap.len() == usize::from(PARTITIONS) / 8).then_some(bitmap)
    };
    let columns: Vec<_> = parts.map(decode).collect::<Option<_>>()?;
    (!columns.is_empty()).then_some(Claims { regime, columns })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Node {
        Node { name: name.into(), host: "127.0.0.1".into(), port: 3000, tls_name: None }
    }

    fn bitmap(has: impl Fn(usize) -> bool) -> String {
        let mut bits = vec![0_u8; 512];
        for p in (0..4096).filter(|&p| has(p)) {
            bits[p / 8] |= 0x80 >> (p % 8);
        }
        base64_simd::STANDARD.encode_to_string(bits)
    }

    fn answer(regime: u32, mastered: impl Fn(usize) -> bool) -> String {
        format!("other:1,1,AAAA;test:{regime},1,{};", bitmap(mastered))
    }

    fn with_replicas(
        regime: u32,
        mastered: impl Fn(usize) -> bool,
        replica: impl Fn(usize) -> bool,
    ) -> String {
        format!("test:{regime},2,{},{}", bitmap(mastered), bitmap(replica))
    }

    fn masters(answers: Vec<(Node, String)>) -> PartitionMap {
        PartitionMap::from_answers("test", answers, |_| None)
    }

    #[test]
    fn partition_is_the_low_twelve_bits() {
        let mut digest = [0xff; 20];
        assert_eq!(partition_of(&digest), 4095);
        (digest[0], digest[1]) = (0x34, 0xf2);
        assert_eq!(partition_of(&digest), 0x234);
    }

    #[test]
    fn the_higher_regime_owns_a_contested_partition() {
        let map = masters(vec![(node("A"), answer(7, |p| p < 3000)), (node("B"), answer(6, |p| p >= 2000))]);
        assert!(map.is_complete());
        assert_eq!(map.owner(2500), Some(0));
        assert_eq!(map.owner(3000), Some(1));
        assert_eq!(map.mastered_by("B").len(), 1096);
        assert_eq!(map.shares()["A"], 3000);
    }

    #[test]
    fn an_unreadable_answer_owns_nothing() {
        for bad in ["", "test:", "test:1,1,AAAA", "test:x,1,AAAA", "ERROR:4:unrecognized command"] {
            let map = masters(vec![(node("A"), bad.to_owned())]);
            assert!((0..4096).all(|p| map.owner(p).is_none()), "{bad}");
        }
    }

    /// Protects: prefer-racks takes a whole replica in the first rack that has one, and the master where none has.
    #[test]
    fn a_replica_in_a_preferred_rack_is_asked_before_the_master() {
        let answers = || {
            vec![
                (node("A"), with_replicas(5, |p| p < 2000, |p| p >= 3000)),
                (node("B"), with_replicas(5, |p| (2000..3000).contains(&p), |p| p < 1000)),
                // Says of itself that it is behind.
                (node("C"), with_replicas(4, |p| p >= 3000, |p| p < 3000)),
            ]
        };
        let prefer = |order: &'static [&str]| {
            PartitionMap::from_answers("test", answers(), move |node| {
                order.iter().position(|name| *name == &*node.name)
            })
        };
        let owners = |map: &PartitionMap| [500, 1500, 2500, 3500].map(|p| map.owner(p).unwrap());
        assert_eq!(owners(&prefer(&[])), [0, 0, 1, 2]);
        assert_eq!(owners(&prefer(&["B"])), [1, 0, 1, 2]);
        assert_eq!(owners(&prefer(&["A", "B"])), [0, 0, 1, 2]);
        assert_eq!(owners(&prefer(&["B", "A"])), [1, 0, 1, 2]);
        assert_eq!(owners(&prefer(&["C"])), [0, 0, 1, 2]);
        assert!(prefer(&["B"]).is_complete());
    }
}
