//! The partitions of a backup that are still to be read, handed out in batches by node.

use std::sync::{Mutex, MutexGuard, PoisonError};

use abs_cluster::{Node, PartitionCursor, PartitionMap};
use tokio::sync::Notify;

/// The smallest batch worth a scan of its own.
const MIN_BATCH: usize = 16;

/// A partition still to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub cursor: PartitionCursor,
    /// How often it was tried in vain since it last made progress.
    pub attempts: u32,
}

/// A batch of partitions to scan on one node; `None` for partitions that no node serves at the moment.
#[derive(Debug)]
pub(crate) struct Batch {
    pub node: Option<Node>,
    pub partitions: Vec<Pending>,
}

/// Hands out batches until every partition is done.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Notify,
    parallel: usize,
}

#[derive(Debug)]
struct State {
    pending: Vec<Pending>,
    map: PartitionMap,
    /// Batches handed out and not given back, by node name; the last entry counts those of no node.
    busy: Vec<(Option<Node>, usize)>,
}

impl State {
    fn busy_on(&self, node: Option<&Node>) -> usize {
        self.busy.iter().find(|(n, _)| n.as_ref() == node).map_or(0, |(_, count)| *count)
    }

    fn add_busy(&mut self, node: Option<&Node>) {
        match self.busy.iter_mut().find(|(n, _)| n.as_ref() == node) {
            Some((_, count)) => *count += 1,
            None => self.busy.push((node.cloned(), 1)),
        }
    }

    fn drop_busy(&mut self, node: Option<&Node>) {
        if let Some((_, count)) = self.busy.iter_mut().find(|(n, _)| n.as_ref() == node) {
            *count -= 1;
        }
        self.busy.retain(|(_, count)| *count > 0);
    }
}

impl Queue {
    /// A queue of `partitions`, to be read by `parallel` workers.
    pub(crate) fn new(partitions: Vec<PartitionCursor>, map: PartitionMap, parallel: usize) -> Self {
        let pending = partitions.into_iter().map(|cursor| Pending { cursor, attempts: 0 }).collect();
        Self { state: Mutex::new(State { pending, map, busy: Vec::new() }), changed: Notify::new(), parallel }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch; waits while other workers may still give partitions back, `None` when all are done.
    pub(crate) async fn take(&self) -> Option<Batch> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if let Some(batch) = self.cut(&mut state) {
                    state.add_busy(batch.node.as_ref());
                    return Some(batch);
                }
                if state.busy.is_empty() {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Cuts a batch for the node with the fewest scans. Batches shrink towards the end so that all workers finish
    /// together.
    fn cut(&self, state: &mut State) -> Option<Batch> {
        let mut counts: Vec<usize> = vec![0; state.map.nodes().len() + 1];
        let nobody = counts.len() - 1;
        let owner =
            |map: &PartitionMap, pending: &Pending| map.owner(pending.cursor.partition).unwrap_or(nobody);
        for pending in &state.pending {
            counts[owner(&state.map, pending)] += 1;
        }
        let node = |index: usize| state.map.nodes().get(index);
        let chosen = (0..counts.len())
            .filter(|&index| counts[index] > 0)
            .min_by_key(|&index| (state.busy_on(node(index)), std::cmp::Reverse(counts[index])))?;
        let nodes = counts.iter().filter(|&&count| count > 0).count();
        let size = (counts[chosen] * nodes).div_ceil(2 * self.parallel).max(MIN_BATCH);
        let node = node(chosen).cloned();
        let mut partitions = Vec::with_capacity(size.min(counts[chosen]));
        let State { pending, map, .. } = state;
        pending.retain(|entry| {
            let take = partitions.len() < size && owner(map, entry) == chosen;
            if take {
                partitions.push(*entry);
            }
            !take
        });
        Some(Batch { node, partitions })
    }

    /// Ends a batch: what is `unfinished` of it will be handed out again.
    pub(crate) fn give_back(&self, node: Option<&Node>, unfinished: Vec<Pending>) {
        let mut state = self.state();
        state.drop_busy(node);
        state.pending.extend(unfinished);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Uses a newer map from now on.
    pub(crate) fn update(&self, map: PartitionMap) {
        self.state().map = map;
    }
}
