//! What all nodes of the process share: namespaces, who owns which partition, UDFs, clock, faults, counters.
//!
//! Records live here, not in a node: a node is a door. That is why a stopped node's partitions are served by
//! the others at once, as if every record had a second copy.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::clock::Clock;
use crate::counters::Counters;
use crate::faults::Faults;
use crate::masking::MaskingRule;
use crate::namespace::{Namespace, Removal};
use crate::record::PARTITIONS;
use crate::security::Security;
use crate::tls::Tls;
use crate::udf::Modules;

/// What only the enterprise edition has, as far as the server was given it.
#[derive(Debug, Default)]
pub(crate) struct Enterprise {
    pub(crate) security: Option<Security>,
    pub(crate) tls: Option<Tls>,
    /// The rack of each node.
    pub(crate) racks: Option<Vec<u32>>,
    pub(crate) masking: Vec<MaskingRule>,
}

impl Enterprise {
    /// Whether the server has anything of it, and so is one.
    pub(crate) fn is_there(&self) -> bool {
        self.security.is_some() || self.tls.is_some() || self.racks.is_some() || !self.masking.is_empty()
    }

    pub(crate) fn rack(&self, node: usize) -> u32 {
        self.racks.as_ref().and_then(|racks| racks.get(node)).copied().unwrap_or(0)
    }
}

/// Shared state of all nodes.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) namespaces: Vec<Arc<Namespace>>,
    pub(crate) replication_factor: usize,
    pub(crate) enterprise: Enterprise,
    /// Whether records are lost with the last node.
    pub(crate) is_volatile: bool,
    pub(crate) clock: Clock,
    pub(crate) modules: Modules,
    pub(crate) faults: Faults,
    /// One per node.
    pub(crate) counters: Vec<Arc<Counters>>,
    members: RwLock<Members>,
    /// Counts changes of the partition map.
    partition_generation: AtomicU64,
    /// Counts changes of who is there.
    peers_generation: AtomicU64,
}

#[derive(Debug)]
struct Members {
    nodes: Vec<Member>,
    /// For each partition all nodes in the order in which they take it: the first that lives is its master.
    succession: Vec<Vec<usize>>,
}

/// A node as the others see it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) address: SocketAddr,
    pub(crate) alive: bool,
    /// When it started, in seconds since 2010.
    pub(crate) started: u32,
}

impl Members {
    fn replica(&self, partition: usize, replica: usize) -> Option<usize> {
        self.succession[partition].iter().copied().filter(|node| self.nodes[*node].alive).nth(replica)
    }
}

impl Cluster {
    pub(crate) fn new(
        name: String,
        namespaces: Vec<Arc<Namespace>>,
        replication_factor: usize,
        addresses: &[SocketAddr],
        enterprise: Enterprise,
        is_volatile: bool,
    ) -> Cluster {
        let n = addresses.len();
        // Masters are dealt out in turn; who follows differs from partition to partition, so that the
        // partitions of a node that stops spread over all others.
        let succession = (0..PARTITIONS)
            .map(|partition| {
                let master = partition % n;
                let mut rest: Vec<usize> = (1..n).map(|step| (master + step) % n).collect();
                if !rest.is_empty() {
                    let turn = (partition / n) % rest.len();
                    rest.rotate_left(turn);
                }
                across_racks(std::iter::once(master).chain(rest), &enterprise)
            })
            .collect();
        let clock = Clock::new(n);
        let started = clock.now_secs();
        Cluster {
            name,
            namespaces,
            replication_factor,
            enterprise,
            is_volatile,
            clock,
            modules: Modules::default(),
            faults: Faults::default(),
            counters: addresses.iter().map(|_| Arc::default()).collect(),
            members: RwLock::new(Members {
                nodes: addresses.iter().map(|&address| Member { address, alive: true, started }).collect(),
                succession,
            }),
            partition_generation: AtomicU64::new(0),
            peers_generation: AtomicU64::new(n as u64 - 1),
        }
    }

    pub(crate) fn namespace(&self, name: &[u8]) -> Option<&Arc<Namespace>> {
        self.namespaces.iter().find(|namespace| namespace.name.as_bytes() == name)
    }

    fn read(&self) -> RwLockReadGuard<'_, Members> {
        self.members.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        self.read().nodes.clone()
    }

    pub(crate) fn alive(&self) -> usize {
        self.read().nodes.iter().filter(|node| node.alive).count()
    }

    /// How many replicas each partition has now, the master counted.
    pub(crate) fn effective_replication_factor(&self) -> usize {
        self.replication_factor.min(self.alive()).max(1)
    }

    /// The node that masters the partition, if any lives.
    pub(crate) fn master(&self, partition: usize) -> Option<usize> {
        self.read().replica(partition, 0)
    }

    /// Whether `node` holds the partition, as master or as one of its replicas.
    pub(crate) fn holds(&self, node: usize, partition: usize) -> bool {
        let replicas = self.effective_replication_factor();
        let members = self.read();
        (0..replicas).any(|replica| members.replica(partition, replica) == Some(node))
    }

    /// A bitmap of the partitions of which `node` is the given replica (0 = master), most significant bit
    /// first.
    pub(crate) fn replica_bitmap(&self, node: usize, replica: usize) -> Vec<u8> {
        let members = self.read();
        let mut bits = vec![0; PARTITIONS / 8];
        for partition in 0..PARTITIONS {
            if members.replica(partition, replica) == Some(node) {
                bits[partition / 8] |= 0x80 >> (partition % 8);
            }
        }
        bits
    }

    pub(crate) fn partition_generation(&self) -> u64 {
        self.partition_generation.load(Ordering::Relaxed)
    }

    pub(crate) fn peers_generation(&self) -> u64 {
        self.peers_generation.load(Ordering::Relaxed)
    }

    /// Whether a fault makes the partition unavailable.
    pub(crate) fn refuses(&self, partition: usize) -> bool {
        self.faults.refuses_partition(partition)
    }

    /// Makes `node` the first in line for the partition.
    pub(crate) fn move_partition(&self, partition: usize, node: usize) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        let line = &mut members.succession[partition];
        if let Some(at) = line.iter().position(|&other| other == node) {
            line.remove(at);
            line.insert(0, node);
        }
        drop(members);
        self.partition_generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a node left or came.
    pub(crate) fn set_alive(&self, node: usize, alive: bool) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        members.nodes[node].alive = alive;
        if alive {
            members.nodes[node].started = self.clock.now_secs();
        }
        drop(members);
        if self.is_volatile && self.alive() == 0 {
            for namespace in &self.namespaces {
                namespace.sweep(Removal::Deleted, |_| true);
            }
        }
        self.partition_generation.fetch_add(1, Ordering::Relaxed);
        self.peers_generation.fetch_add(1, Ordering::Relaxed);
    }

    /// The name of a node, as info answers have it: 16 hex digits without leading zeros.
    pub(crate) fn node_name(node: usize) -> String {
        format!("DE{:04X}", node + 1)
    }

    /// A number that changes with the set of live nodes, as the cluster key does.
    pub(crate) fn key(&self) -> u64 {
        0xdec1_0000_0000 + self.peers_generation()
    }
}

/// Puts nodes of racks that did not have their turn before the others.
fn across_racks(line: impl Iterator<Item = usize>, enterprise: &Enterprise) -> Vec<usize> {
    let mut left: Vec<usize> = line.collect();
    let mut line = Vec::with_capacity(left.len());
    let mut had = Vec::new();
    while !left.is_empty() {
        let next = left.iter().position(|node| !had.contains(&enterprise.rack(*node)));
        let Some(at) = next else {
            had.clear();
            continue;
        };
        let node = left.remove(at);
        had.push(enterprise.rack(node));
        line.push(node);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(nodes: u16) -> Cluster {
        let addresses: Vec<SocketAddr> =
            (0..nodes).map(|node| SocketAddr::from(([127, 0, 0, 1], 3000 + node))).collect();
        Cluster::new("c".into(), Vec::new(), 2, &addresses, Enterprise::default(), false)
    }

    fn owned(cluster: &Cluster, node: usize, replica: usize) -> u32 {
        cluster.replica_bitmap(node, replica).iter().map(|byte| byte.count_ones()).sum()
    }

    #[test]
    fn every_partition_has_one_master_and_another_node_as_its_replica() {
        let cluster = cluster(3);
        for replica in 0..2 {
            let counts: Vec<u32> = (0..3).map(|node| owned(&cluster, node, replica)).collect();
            assert_eq!(counts.iter().sum::<u32>(), 4096);
            assert!(counts.iter().all(|count| (1200..1500).contains(count)), "{counts:?}");
        }
        for partition in 0..PARTITIONS {
            assert_eq!((0..3).filter(|node| cluster.holds(*node, partition)).count(), 2);
        }
    }

    #[test]
    fn a_node_that_left_owns_nothing_until_it_is_back() {
        let cluster = cluster(2);
        let before: Vec<_> = (0..PARTITIONS).map(|partition| cluster.master(partition)).collect();
        let (key, generation) = (cluster.key(), cluster.partition_generation());
        cluster.set_alive(0, false);
        assert_eq!((owned(&cluster, 0, 0), owned(&cluster, 1, 0)), (0, 4096));
        assert_eq!(cluster.effective_replication_factor(), 1);
        assert!(cluster.key() != key && cluster.partition_generation() > generation);
        cluster.set_alive(0, true);
        assert!((0..PARTITIONS).map(|partition| cluster.master(partition)).eq(before));
    }

    #[test]
    fn a_moved_partition_stays_with_its_node() {
        let cluster = cluster(3);
        for node in [2, 0, 1] {
            cluster.move_partition(5, node);
            assert_eq!(cluster.master(5), Some(node));
        }
        cluster.set_alive(1, false);
        assert_eq!(cluster.master(5), Some(0));
        cluster.set_alive(1, true);
        assert_eq!(cluster.master(5), Some(1));
    }
}
