//! Partitions: which record belongs to which, which node masters which, and how far each was read.

use std::collections::HashMap;

use abs_asb::Digest;

use crate::cluster::Node;

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

/// Which node masters which partition of one namespace, at one moment.
#[derive(Clone, Debug)]
pub struct PartitionMap {
    nodes: Vec<Node>,
    /// Index into `nodes` per partition; `NOBODY` when no node claims it.
    owners: Vec<u16>,
}

const NOBODY: u16 = u16::MAX;

impl PartitionMap {
    /// Builds the map from each node's answer to the info command `replicas`.
    ///
    /// The answer is a list of `namespace:regime,replicas,bitmap,…;` items; the first bitmap is base64 of 4,096
    /// bits, most significant first, one for each partition the node masters. When two nodes claim a partition, as
    /// they may for a moment while a cluster re-forms, the higher regime wins.
    pub(crate) fn from_answers(namespace: &str, answers: Vec<(Node, String)>) -> Self {
        let mut owners = vec![NOBODY; usize::from(PARTITIONS)];
        let mut regimes = vec![0_u32; usize::from(PARTITIONS)];
        let mut nodes = Vec::with_capacity(answers.len());
        for (node, answer) in answers {
            let index = nodes.len() as u16;
            nodes.push(node);
            let Some((regime, bitmap)) = master_bitmap(namespace, &answer) else { continue };
            for partition in 0..usize::from(PARTITIONS) {
                let mastered = bitmap[partition / 8] & (0x80 >> (partition % 8)) != 0;
                if mastered && (owners[partition] == NOBODY || regime >= regimes[partition]) {
                    owners[partition] = index;
                    regimes[partition] = regime;
                }
            }
        }
        Self { nodes, owners }
    }

    /// The nodes of the map; indices of the other calls refer to this list.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The index of the node that masters `partition`, if one does.
    #[must_use]
    pub fn owner(&self, partition: u16) -> Option<usize> {
        match self.owners[usize::from(partition % PARTITIONS)] {
            NOBODY => None,
            index => Some(usize::from(index)),
        }
    }

    /// The partitions that the node of this name masters.
    #[must_use]
    pub fn mastered_by(&self, name: &str) -> Vec<u16> {
        (0..PARTITIONS).filter(|&p| self.owner(p).is_some_and(|n| &*self.nodes[n].name == name)).collect()
    }

    /// True when every partition has a master.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.owners.contains(&NOBODY)
    }

    /// How many partitions each node masters, by node name.
    #[must_use]
    pub fn shares(&self) -> HashMap<&str, usize> {
        let mut shares = HashMap::new();
        for &owner in self.owners.iter().filter(|&&o| o != NOBODY) {
            *shares.entry(&*self.nodes[usize::from(owner)].name).or_default() += 1;
        }
        shares
    }
}

/// The regime and the master bitmap of one namespace in an answer to `replicas`.
fn master_bitmap(namespace: &str, answer: &str) -> Option<(u32, Vec<u8>)> {
    let item = answer.split(';').find_map(|item| item.strip_prefix(namespace)?.strip_prefix(':'))?;
    let mut parts = item.split(',');
    let regime = parts.next()?.parse().ok()?;
    let _replicas = parts.next()?;
    let bitmap = base64_simd::STANDARD.decode_to_vec(parts.next()?).ok()?;
    (bitmap.len() == usize::from(PARTITIONS) / 8).then_some((regime, bitmap))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Node {
        Node { name: name.into(), host: "127.0.0.1".into(), port: 3000 }
    }

    fn answer(regime: u32, mastered: impl Fn(usize) -> bool) -> String {
        let mut bits = vec![0_u8; 512];
        for p in (0..4096).filter(|&p| mastered(p)) {
            bits[p / 8] |= 0x80 >> (p % 8);
        }
        format!("other:1,1,AAAA;test:{regime},1,{};", base64_simd::STANDARD.encode_to_string(bits))
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
        let map = PartitionMap::from_answers(
            "test",
            vec![(node("A"), answer(7, |p| p < 3000)), (node("B"), answer(6, |p| p >= 2000))],
        );
        assert!(map.is_complete());
        assert_eq!(map.owner(2500), Some(0));
        assert_eq!(map.owner(3000), Some(1));
        assert_eq!(map.mastered_by("B").len(), 1096);
        assert_eq!(map.shares()["A"], 3000);
    }

    #[test]
    fn an_unreadable_answer_owns_nothing() {
        for bad in ["", "test:", "test:1,1,AAAA", "test:x,1,AAAA", "ERROR:4:unrecognized command"] {
            let map = PartitionMap::from_answers("test", vec![(node("A"), bad.to_owned())]);
            assert!((0..4096).all(|p| map.owner(p).is_none()), "{bad}");
        }
    }
}
