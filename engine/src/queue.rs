//! The partitions of a run that are still to be read, handed out in batches by node.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use abs_cluster::{Node, PartitionCursor, PartitionMap};
use tokio_util::sync::CancellationToken;

use crate::cursors::Cursors;
use crate::error::EngineError;
use crate::progress::BackupProgress;

/// The smallest batch worth a scan of its own.
const MIN_BATCH: usize = 16;

/// A partition still to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub cursor: PartitionCursor,
    /// How often it was tried in vain since it last made progress.
    pub attempts: u32,
    /// Records read of it; none when that is not known, after a failure.
    pub read: Option<u64>,
}

/// Names a batch among those of its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchId(u64);

/// Some partitions for a worker to scan, all of one node.
#[derive(Debug)]
pub struct Batch {
    pub(crate) id: BatchId,
    /// `None` for partitions that no node serves at the moment.
    pub(crate) node: Option<Node>,
    pub(crate) partitions: Arc<[Pending]>,
    /// Records after which it ends although there may be more; 0 for none.
    pub(crate) most_records: u64,
}

impl Batch {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> BatchId {
        self.id
    }

    /// The node to scan; `None` when no node serves these partitions at the moment.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// The partitions to scan.
    #[must_use]
    pub fn partitions(&self) -> impl ExactSizeIterator<Item = u16> {
        self.partitions.iter().map(|pending| pending.cursor.partition)
    }
}

/// What became of a batch.
#[derive(Debug)]
pub struct BatchEnd {
    pub(crate) id: BatchId,
    pub(crate) result: Result<Scanned, EngineError>,
}

impl BatchEnd {
    /// The name of the batch.
    #[must_use]
    pub fn id(&self) -> BatchId {
        self.id
    }
}

/// What a worker read of a batch.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub records: u64,
    /// What is still to be read.
    pub unfinished: Vec<Pending>,
    /// The partition that has more records than the batch was to read.
    pub more: Option<Pending>,
    /// A partition map that was looked up since.
    pub map: Option<PartitionMap>,
}

/// The scans that run at a time on each node, over all namespaces of a job.
#[derive(Debug)]
pub struct NodeLoad {
    /// By the node's name; `None` counts the batches of no node.
    scans: HashMap<Option<Arc<str>>, usize>,
    most_nodes: usize,
}

impl NodeLoad {
    /// No scans yet, and never any on more than `most_nodes` nodes at a time.
    #[must_use]
    pub fn new(most_nodes: Option<NonZeroU32>) -> Self {
        let most_nodes = most_nodes.map_or(usize::MAX, |most| most.get() as usize);
        Self { scans: HashMap::new(), most_nodes }
    }

    fn scans_on(&self, node: Option<&Node>) -> usize {
        self.scans.get(&node.map(|node| Arc::clone(&node.name))).copied().unwrap_or(0)
    }

    /// True when one more scan on this node leaves no more nodes busy than allowed.
    fn admits(&self, node: Option<&Node>) -> bool {
        node.is_none() || self.scans_on(node) > 0 || self.scans.keys().flatten().count() < self.most_nodes
    }

    fn enter(&mut self, node: Option<&Node>) {
        *self.scans.entry(node.map(|node| Arc::clone(&node.name))).or_default() += 1;
    }

    fn leave(&mut self, node: Option<&Node>) {
        let node = node.map(|node| Arc::clone(&node.name));
        if let Some(count) = self.scans.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                self.scans.remove(&node);
            }
        }
    }
}

/// What the queue has to know of its run.
#[derive(Debug)]
pub(crate) struct QueueSetup {
    pub namespace: String,
    /// Workers at a time.
    pub parallel: usize,
    /// How often a partition may be tried in vain before the run fails, beside the first time.
    pub max_retries: u32,
    /// Records of a partition, on average; at most, when they are estimated.
    pub density: f64,
    /// Estimate the records of the run by those of the batches that were read, the first of which is a single
    /// partition so that there is an estimate soon.
    pub estimate: bool,
    /// About how many records a batch has at most: at a limited rate the server sends no more than that at once, so that
    /// the counters move.
    pub records_per_batch: u64,
    pub progress: Arc<BackupProgress>,
    pub cursors: Arc<Cursors>,
    /// The stop sign of the run.
    pub stop: CancellationToken,
}

/// Hands out batches until every partition is read. Pure books: it never waits.
#[derive(Debug)]
pub struct PartitionQueue {
    setup: QueueSetup,
    partitions: usize,
    pending: Vec<Pending>,
    map: PartitionMap,
    /// Batches handed out and not ended.
    out: HashMap<BatchId, Out>,
    last: BatchId,
    failed: bool,
    /// Partitions read whole in one batch, and their records.
    sampled: (u64, u64),
}

#[derive(Debug)]
struct Out {
    node: Option<Node>,
    partitions: Arc<[Pending]>,
}

impl PartitionQueue {
    pub(crate) fn new(setup: QueueSetup, partitions: Vec<PartitionCursor>, map: PartitionMap) -> Self {
        let pending: Vec<_> =
            partitions.into_iter().map(|cursor| Pending { cursor, attempts: 0, read: Some(0) }).collect();
        Self {
            setup,
            partitions: pending.len(),
            pending,
            map,
            out: HashMap::new(),
            last: BatchId(0),
            failed: false,
            sampled: (0, 0),
        }
    }

    /// The next batch, for the node with the fewest scans. `None` while nothing can be handed out: until a batch ends, or
    /// for good.
    ///
    /// Batches shrink towards the end so that all workers finish together.
    pub fn next(&mut self, load: &mut NodeLoad) -> Option<Batch> {
        if self.is_stopped() {
            return None;
        }
        let nodes = self.map.nodes();
        let nobody = nodes.len();
        let owner = |pending: &Pending| self.map.owner(pending.cursor.partition).unwrap_or(nobody);
        let mut counts = vec![0_usize; nobody + 1];
        for pending in &self.pending {
            counts[owner(pending)] += 1;
        }
        let chosen = (0..=nobody)
            .filter(|&index| counts[index] > 0 && load.admits(nodes.get(index)))
            .min_by_key(|&index| (load.scans_on(nodes.get(index)), std::cmp::Reverse(counts[index])))?;
        let busy = counts.iter().filter(|&&count| count > 0).count().min(load.most_nodes);
        let size = if self.setup.estimate && self.last.0 == 0 {
            1
        } else {
            let size = (counts[chosen] * busy).div_ceil(2 * self.setup.parallel).max(MIN_BATCH);
            size.min((self.setup.records_per_batch as f64 / self.density()) as usize).max(1)
        };
        let mut partitions = Vec::with_capacity(size.min(counts[chosen]));
        self.pending.retain(|entry| {
            let take =
                partitions.len() < size && self.map.owner(entry.cursor.partition).unwrap_or(nobody) == chosen;
            if take {
                partitions.push(*entry);
            }
            !take
        });
        let most_records = match self.setup.records_per_batch {
            // Of several partitions those that are done would be asked again and again.
            most if partitions.len() == 1 && most != u64::MAX => most,
            _ => 0,
        };
        let node = nodes.get(chosen).cloned();
        load.enter(node.as_ref());
        self.last.0 += 1;
        let partitions: Arc<[Pending]> = partitions.into();
        self.out.insert(self.last, Out { node: node.clone(), partitions: Arc::clone(&partitions) });
        Some(Batch { id: self.last, node, partitions, most_records })
    }

    /// Takes a batch back: what is unfinished of it will be handed out again.
    ///
    /// # Errors
    /// Why the run has failed for good, to be given to [`BackupRun::fail`](crate::BackupRun::fail); there are no more
    /// batches then.
    pub fn ended(&mut self, load: &mut NodeLoad, end: BatchEnd) -> Result<(), EngineError> {
        let Some(out) = self.take_back(load, end.id) else { return Ok(()) };
        let Scanned { records, unfinished, more, map } = end.result.inspect_err(|_| self.failed = true)?;
        let left: HashSet<_> =
            unfinished.iter().chain(&more).map(|pending| pending.cursor.partition).collect();
        let all = out.partitions.iter().map(|pending| pending.cursor.partition);
        let done = all.filter(|id| !left.contains(id)).inspect(|&id| self.setup.cursors.end(id)).count();
        self.setup.progress.partitions_done.fetch_add(done as u64, Relaxed);
        let before: Option<u64> = out.partitions.iter().map(|partition| partition.read).sum();
        if self.setup.estimate
            && done == out.partitions.len()
            && let Some(before) = before
        {
            let (partitions, sum) = &mut self.sampled;
            *partitions += out.partitions.len() as u64;
            *sum += before + records;
            let expected = *sum as f64 * self.partitions as f64 / *partitions as f64;
            self.setup.progress.expected_records.store(expected as u64, Relaxed);
        }
        self.pending.extend(unfinished);
        // It goes on before others begin.
        self.pending.splice(..0, more);
        if let Some(map) = map {
            self.map = map;
        }
        Ok(())
    }

    /// Takes back a batch whose worker panicked, from where its last block ends; that counts as an attempt.
    ///
    /// # Errors
    /// When it happened too often without progress: the run has failed.
    pub fn lost(&mut self, load: &mut NodeLoad, id: BatchId) -> Result<(), EngineError> {
        let Some(out) = self.take_back(load, id) else { return Ok(()) };
        self.setup.progress.retries.fetch_add(1, Relaxed);
        let left = |before: &Pending| {
            let cursor = self.setup.cursors.of(before.cursor.partition);
            Pending { cursor, attempts: before.attempts, read: None }
        };
        let mut unfinished: Vec<_> = out.partitions.iter().map(left).collect();
        let worst = count_attempt(&out.partitions, &mut unfinished);
        if worst > self.setup.max_retries {
            self.failed = true;
            return Err(given_up(
                &self.setup.namespace,
                &unfinished,
                worst,
                "the worker that read it panicked",
            ));
        }
        self.pending.extend(unfinished);
        Ok(())
    }

    /// Records of a partition, on average, as far as is known.
    fn density(&self) -> f64 {
        match self.sampled {
            (0, _) => self.setup.density,
            // That none of a few has any says little of the others.
            (partitions, records) => ((records + 1) as f64 / partitions as f64).min(self.setup.density),
        }
    }

    fn take_back(&mut self, load: &mut NodeLoad, id: BatchId) -> Option<Out> {
        let out = self.out.remove(&id)?;
        load.leave(out.node.as_ref());
        Some(out)
    }

    /// True when every partition was read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !self.failed && self.pending.is_empty() && self.out.is_empty()
    }

    /// True when no batch is out and none will be: everything was read, or the run has failed or was canceled.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.out.is_empty() && (self.is_stopped() || self.pending.is_empty())
    }

    fn is_stopped(&self) -> bool {
        self.failed || self.setup.stop.is_cancelled()
    }
}

/// Counts an attempt at what is unfinished of a batch; returns how often the worst partition was tried in vain, at least 1.
pub(crate) fn count_attempt(before: &[Pending], unfinished: &mut [Pending]) -> u32 {
    let mut worst = 1;
    for pending in &mut *unfinished {
        let place = before.iter().find(|b| b.cursor.partition == pending.cursor.partition);
        let stood_still = place.is_some_and(|b| b.cursor.after == pending.cursor.after);
        pending.attempts = if stood_still { pending.attempts + 1 } else { 0 };
        worst = worst.max(pending.attempts);
    }
    // A batch whose other partitions made progress is not stuck: its cut connection is no partition's fault.
    let moved = unfinished.len() < before.len() || unfinished.iter().any(|p| p.attempts == 0);
    if moved {
        for pending in unfinished {
            pending.attempts = pending.attempts.min(1);
        }
        worst = 1;
    }
    worst
}

/// The error of partitions that were tried too often.
pub(crate) fn given_up(namespace: &str, unfinished: &[Pending], attempts: u32, cause: &str) -> EngineError {
    EngineError::Partition {
        namespace: namespace.to_owned(),
        partition: unfinished.iter().max_by_key(|p| p.attempts).map_or(0, |p| p.cursor.partition),
        attempts,
        cause: cause.to_owned(),
    }
}
