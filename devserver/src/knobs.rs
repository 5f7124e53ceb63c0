//! What tests turn while the server runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::builder::ServerError;
use crate::cluster::Cluster;
use crate::counters::Counts;
use crate::faults::{Fault, FaultId};
use crate::record::PARTITIONS;
use crate::security::{self, Proof};

/// What tests turn: faults, ownership, the clock; and what they read: counters.
#[derive(Clone, Debug)]
pub struct Knobs {
    cluster: Arc<Cluster>,
}

impl Knobs {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Knobs {
        Knobs { cluster }
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Puts a fault into effect, until it is lifted or used up.
    #[expect(clippy::must_use_candidate, reason = "most faults are never lifted")]
    pub fn inject(&self, fault: Fault) -> FaultId {
        self.cluster.faults.inject(fault)
    }

    /// Takes a fault out of effect.
    pub fn lift(&self, fault: FaultId) {
        self.cluster.faults.lift(fault);
    }

    /// Takes all faults out of effect, refused partitions too.
    pub fn clear(&self) {
        self.cluster.faults.clear();
    }

    /// Makes a partition unavailable on every node (result 11), or available again.
    pub fn refuse_partition(&self, partition: usize, refused: bool) -> Result<(), ServerError> {
        check_partition(partition)?;
        self.cluster.faults.set_refused(partition, refused);
        Ok(())
    }

    /// Makes `node` the master of a partition of every namespace, with its records; clients see a new
    /// partition generation. A stopped node masters it when it starts again.
    pub fn move_partition(&self, partition: usize, node: usize) -> Result<(), ServerError> {
        check_partition(partition)?;
        if node >= self.cluster.counters.len() {
            return Err(ServerError::NoSuchNode(node));
        }
        self.cluster.move_partition(partition, node);
        Ok(())
    }

    /// The node that masters a partition now.
    #[must_use]
    pub fn master_of(&self, partition: usize) -> Option<usize> {
        if partition < PARTITIONS { self.cluster.master(partition) } else { None }
    }

    /// Forgets all sessions, as nodes that start again do: their tokens are refused. Open connections stay.
    pub fn forget_sessions(&self) {
        if let Some(security) = &self.cluster.enterprise.security {
            security.forget_sessions();
        }
    }

    /// Changes a user's password and ends his sessions, on a server that has users.
    pub fn set_password(&self, user: &str, password: &str) -> Result<(), ServerError> {
        if let Some(security) = &self.cluster.enterprise.security {
            security.set_user(user, Proof::Password(security::hash(password)?));
        }
        Ok(())
    }

    /// Moves the server's clock forward for good: records expire, last-update times grow.
    pub fn advance_clock(&self, by: Duration) {
        self.cluster.clock.advance(by);
    }

    /// Moves the server's clock back for good. As on the real server, the last-update time of a record never goes back.
    pub fn set_clock_back(&self, by: Duration) {
        self.cluster.clock.set_back(by);
    }

    /// Sets how many milliseconds the clock of `node` is ahead of the others; behind them when negative.
    pub fn skew_clock(&self, node: usize, ahead_ms: i64) -> Result<(), ServerError> {
        self.cluster.counters.get(node).ok_or(ServerError::NoSuchNode(node))?;
        self.cluster.clock.skew(node, ahead_ms);
        Ok(())
    }

    /// What a node did so far.
    pub fn counts_of(&self, node: usize) -> Result<Counts, ServerError> {
        let counters = self.cluster.counters.get(node).ok_or(ServerError::NoSuchNode(node))?;
        Ok(counters.snapshot())
    }

    /// What all nodes did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let snapshots = self.cluster.counters.iter().map(|counters| counters.snapshot());
        snapshots.fold(Counts::default(), |sum, counts| sum + counts)
    }

    /// How many records a namespace holds, expired ones that are not yet swept counted.
    #[must_use]
    pub fn objects(&self, namespace: &str) -> Option<u64> {
        let namespace = self.cluster.namespace(namespace.as_bytes())?;
        Some(namespace.objects.load(Ordering::Relaxed))
    }
}

fn check_partition(partition: usize) -> Result<(), ServerError> {
    if partition < PARTITIONS { Ok(()) } else { Err(ServerError::NoSuchPartition(partition)) }
}
