//! Sends batches of rows, reads their answers, sends again what may succeed later.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use abs_cluster::{
    BatchFlags, BatchMessage, Cluster, ClusterError, Node, PartitionMap, ResultCode, RowResults, partition_of,
};
use abs_config::Retry;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::answered::RowBatch;
use crate::decided::{DigestCollector, key_of};
use crate::error::{EngineError, with_remedy};
use crate::fault::done;
use crate::limits::RestoreLimits;
use crate::outcome::Outcome;
use crate::progress::{RestoreProgress, RestoreSnapshot};
use crate::rows::digest_text;

/// Bytes of batches in flight, over all runs of a job; bounds its memory whatever the size of records.
pub(crate) const IN_FLIGHT: usize = 32 << 20;
/// A batch is sent when it has this many bytes, whatever its number of rows.
pub(crate) const BATCH_BYTES: usize = 1 << 20;
/// What a batch in flight takes beside its rows.
const OVERHEAD: usize = 4 << 10;

/// The longest wait before rows are sent again, whatever a policy says: far from what a clock can count.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// What the senders of a job share.
#[derive(Debug)]
pub(crate) struct SendJob {
    pub cluster: Cluster,
    pub namespace: String,
    /// Seconds by which the cluster's clock is ahead of ours: times to live are counted by its clock.
    pub ahead: i32,
    pub singly: bool,
    pub ignore_record_error: bool,
    pub socket_timeout: Duration,
    /// Of one attempt at a batch; zero for no limit.
    pub total_timeout: Duration,
    /// The short waits, after the one attempt that is made at once.
    pub resend: Retry,
    /// The waits after those.
    pub retry: Retry,
    pub limits: Arc<RestoreLimits>,
    pub progress: Arc<RestoreProgress>,
    pub outcome: Arc<Outcome>,
    pub routes: Routes,
    /// Read by every batch in flight: who can write knows that nothing is.
    pub in_flight: Arc<tokio::sync::RwLock<()>>,
    pub spare: Mutex<Vec<RowBatch>>,
    /// Where the digests of the rows go that are written, if a later link asks for them.
    pub written: Mutex<Option<Arc<DigestCollector>>>,
    /// MiB that the digests of all links may need.
    pub digests_mib: u64,
}

/// The partition map in use.
#[derive(Debug)]
pub(crate) struct Routes {
    map: RwLock<Arc<PartitionMap>>,
    /// How often it was looked up.
    lookups: AtomicU64,
    /// Held during a look-up: batches that fail together share one.
    looking: tokio::sync::Mutex<()>,
}

impl Routes {
    pub(crate) fn new(map: PartitionMap) -> Self {
        Self {
            map: RwLock::new(Arc::new(map)),
            lookups: AtomicU64::new(0),
            looking: tokio::sync::Mutex::default(),
        }
    }
}

/// Rows that wait to be sent again.
struct Waiting {
    batch: RowBatch,
    /// How often they were sent since some row of their batch last got its final answer.
    attempts: u32,
    due: Instant,
    /// Look-ups of the partition map until then.
    lookups: u64,
}

/// What a batch of this size takes of [`IN_FLIGHT`].
fn cost(bytes: usize) -> u32 {
    (bytes + OVERHEAD).min(IN_FLIGHT) as u32
}

impl SendJob {
    /// The partition map in use.
    pub(crate) fn map(&self) -> Arc<PartitionMap> {
        Arc::clone(&self.routes.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// An empty batch.
    pub(crate) fn batch(&self) -> RowBatch {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| self.new_batch())
    }

    fn new_batch(&self) -> RowBatch {
        // The server honours the flag for namespaces in memory only.
        let flags = BatchFlags { inline: true, inline_ssd: false };
        RowBatch::new(BatchMessage::new(&self.namespace, flags).by_clock_ahead(self.ahead))
    }

    /// Lets go of a batch whose rows have their final answers, or are in another one. Its buffer is kept for another one;
    /// those of rows that were sent again are of all sizes and not kept.
    fn recycle(&self, mut batch: RowBatch, is_first: bool) {
        let is_kept = is_first && batch.rows.bytes() <= BATCH_BYTES + BATCH_BYTES / 4;
        batch.release();
        if is_kept {
            self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
        }
    }

    /// Waits for memory and a slot among the batches in flight and sends the batch, as one of `tasks`. Reports the error
    /// of a batch that failed before.
    pub(crate) async fn launch(
        self: &Arc<Self>,
        node: Option<Node>,
        batch: RowBatch,
        tasks: &mut JoinSet<Result<(), EngineError>>,
    ) -> Result<(), EngineError> {
        while let Some(done) = tasks.try_join_next() {
            done.unwrap_or_else(|e| Err(EngineError::Worker(e.to_string())))?;
        }
        // The memory first: a batch that waits for a slot has its memory, so every holder of a slot can go on.
        let memory = Arc::clone(&self.limits.memory).acquire_many_owned(cost(batch.rows.bytes()));
        let memory = memory.await.map_err(|_| EngineError::Canceled)?;
        let slot = self.slot().await?;
        let in_flight = Arc::clone(&self.in_flight).read_owned().await;
        let job = Arc::clone(self);
        tasks.spawn(async move {
            let sent = job.send(node, batch, memory, slot).await;
            drop(in_flight);
            sent
        });
        Ok(())
    }

    /// Counts the rows of a batch that is not sent.
    pub(crate) fn discard(&self, batch: RowBatch) {
        for (rows, block) in batch.blocks() {
            let counts = RestoreSnapshot { unsent: rows.len() as u64, ..RestoreSnapshot::default() };
            self.progress.add(&counts);
            block.count(counts);
        }
        self.recycle(batch, true);
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, EngineError> {
        Arc::clone(&self.limits.batches).acquire_owned().await.map_err(|_| EngineError::Canceled)
    }

    /// Sends a batch until every row has its final answer. Rows that wait to be sent again keep their own bytes of the
    /// memory, and no slot: other batches go on. When the run is stopped nothing is sent any more, but what was sent is
    /// counted.
    async fn send(
        &self,
        node: Option<Node>,
        batch: RowBatch,
        mut memory: OwnedSemaphorePermit,
        mut slot: OwnedSemaphorePermit,
    ) -> Result<(), EngineError> {
        let mut results = RowResults::new();
        let mut waiting = Vec::new();
        waiting.extend(self.attempt(node, batch, 0, &mut results).await?);
        loop {
            drop(slot);
            let bytes = waiting.iter().map(|rows: &Waiting| rows.batch.rows.bytes()).sum();
            let excess = memory.num_permits().saturating_sub(cost(bytes) as usize);
            drop(memory.split(excess));
            let first = waiting.iter().enumerate().min_by_key(|(_, rows)| rows.due).map(|(index, _)| index);
            let Some(first) = first else { return Ok(()) };
            let rows = waiting.swap_remove(first);
            let is_due = self.outcome.stop.run_until_cancelled(async {
                sleep_until(rows.due).await;
                self.look_up(rows.lookups).await;
                self.slot().await
            });
            slot = is_due.await.unwrap_or(Err(EngineError::Canceled))?;
            for (node, batch) in self.regroup(rows.batch) {
                waiting.extend(self.attempt(node, batch, rows.attempts, &mut results).await?);
            }
        }
    }

    /// Sends a batch once. What is to be sent again comes back.
    async fn attempt(
        &self,
        node: Option<Node>,
        mut batch: RowBatch,
        attempts: u32,
        results: &mut RowResults,
    ) -> Result<Option<Waiting>, EngineError> {
        let sent = if let Some(node) = &node {
            self.exchange(node, &mut batch.rows, results).await
        } else {
            refuse_all(&batch.rows, results);
            Ok(())
        };
        done("batch-sent");
        let is_first = attempts == 0;
        let is_answered = node.is_some() && sent.is_ok();
        let (mut cause, failed) = match sent {
            Ok(()) => (String::new(), Ok(())),
            Err(e) if e.is_transient() => (e.to_string(), Ok(())),
            Err(e) => (String::new(), Err(e)),
        };
        let mut again = Vec::new();
        let mut refused = Ok(());
        for (rows, block) in batch.blocks() {
            let mut counts = RestoreSnapshot::default();
            for row in rows {
                match results[row] {
                    Some(code) if code.is_transient() => {
                        if cause.is_empty() {
                            cause = with_remedy(code);
                        }
                        counts.in_doubt += u64::from(code.is_in_doubt());
                        again.push(row);
                    }
                    Some(code) => refused = refused.and(self.count(code, &batch.rows, row, &mut counts)),
                    None => {
                        if cause.is_empty() {
                            "no answer for some of them".clone_into(&mut cause);
                        }
                        counts.in_doubt += 1;
                        again.push(row);
                    }
                }
            }
            self.progress.add(&counts);
            block.count(counts);
        }
        refused.and(failed)?;
        self.collect_written(&batch.rows, results).await?;
        if again.is_empty() {
            self.recycle(batch, is_first);
            return Ok(None);
        }
        let attempts = if again.len() < batch.rows.len() { 1 } else { attempts + 1 };
        let Some(wait) = self.wait(attempts) else {
            if is_answered {
                again.iter().filter_map(|&row| results[row]).for_each(|code| self.progress.refuse(code));
            }
            let (namespace, rows) = (self.namespace.clone(), again.len());
            return Err(EngineError::Batch { namespace, rows, attempts, cause });
        };
        self.progress.retries.fetch_add(1, Relaxed);
        let due = Instant::now() + wait.min(LONGEST);
        if again.len() < batch.rows.len() {
            // A buffer of its own size: many batches may wait, each for a few rows.
            let mut few = self.new_batch();
            for row in again {
                few.append_row_of(&batch, row);
            }
            let whole = std::mem::replace(&mut batch, few);
            self.recycle(whole, is_first);
        }
        Ok(Some(Waiting { batch, attempts, due, lookups: self.routes.lookups.load(Relaxed) }))
    }

    /// The error of digests that cannot be kept.
    pub(crate) fn no_room(&self, cause: &std::io::Error) -> EngineError {
        let (folder, needed_mib) = (std::env::temp_dir(), self.digests_mib);
        EngineError::ChainMemory { folder, needed_mib, cause: cause.to_string() }
    }

    pub(crate) fn written(&self) -> MutexGuard<'_, Option<Arc<DigestCollector>>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the digests of the rows that were written to the collector of the link, if it has one.
    async fn collect_written(&self, batch: &BatchMessage, results: &RowResults) -> Result<(), EngineError> {
        let Some(collector) = self.written().clone() else { return Ok(()) };
        let rows = (0..batch.len()).zip(results).filter(|(_, result)| **result == Some(ResultCode::OK));
        let keys: Vec<_> = rows.map(|(row, _)| key_of(&batch.digest(row))).collect();
        let added = tokio::task::spawn_blocking(move || collector.add(keys)).await;
        added.map_err(|e| EngineError::Worker(e.to_string()))?.map_err(|e| self.no_room(&e))
    }

    /// How long rows wait that were sent `attempts` times; none when they are given up. At first they are sent again at
    /// once, by a new partition map; then after short waits, which bridge the seconds that a cluster needs to re-form;
    /// then as the policy says.
    fn wait(&self, attempts: u32) -> Option<Duration> {
        let Some(short) = attempts.checked_sub(2) else { return Some(Duration::ZERO) };
        let long = short.checked_sub(self.resend.max_retries);
        self.resend.wait(short).or_else(|| self.retry.wait(long?))
    }

    /// Sends a batch and reads the answers to its rows. Those that have none afterwards may have been written.
    async fn exchange(
        &self,
        node: &Node,
        batch: &mut BatchMessage,
        results: &mut RowResults,
    ) -> Result<(), EngineError> {
        // While nothing was sent no row is in doubt.
        refuse_all(batch, results);
        let connecting = self.outcome.stop.run_until_cancelled(self.cluster.connection(node));
        let mut connection = connecting.await.ok_or(EngineError::Canceled)??;
        connection.set_timeout(self.socket_timeout);
        let write = async {
            if self.singly {
                connection.write_singly(batch, results).await
            } else {
                connection.write_batch(batch, results).await
            }
        };
        let write = async {
            if self.total_timeout.is_zero() {
                return write.await;
            }
            tokio::time::timeout(self.total_timeout, write).await.unwrap_or_else(|_| {
                let (verb, node, after) = ("writing to", node.address(), self.total_timeout);
                Err(ClusterError::Timeout { verb, node, after })
            })
        };
        self.outcome.answer(write).await.ok_or(EngineError::Canceled)??;
        self.cluster.release(node, connection);
        Ok(())
    }

    fn count(
        &self,
        code: ResultCode,
        batch: &BatchMessage,
        row: usize,
        counts: &mut RestoreSnapshot,
    ) -> Result<(), EngineError> {
        match code {
            ResultCode::OK => counts.inserted += 1,
            ResultCode::GENERATION => counts.fresher += 1,
            ResultCode::EXISTS => counts.existed += 1,
            code => {
                *counts.refused.entry(code).or_default() += 1;
                // What is about more than the record would lose every record that comes, one by one.
                if !(self.ignore_record_error && code.is_of_record()) {
                    let digest = digest_text(&batch.digest(row));
                    return Err(EngineError::Row { namespace: self.namespace.clone(), digest, code });
                }
                counts.ignored += 1;
            }
        }
        Ok(())
    }

    /// Looks up who owns the partitions now, unless that was done since there had been `lookups`.
    async fn look_up(&self, lookups: u64) {
        let _looking = self.routes.looking.lock().await;
        if self.routes.lookups.load(Relaxed) != lookups {
            return;
        }
        // While the cluster cannot be asked the old map stands: the next attempt fails and comes back here.
        if let Ok(map) = self.cluster.partition_map(&self.namespace).await {
            let mut current = self.routes.map.write().unwrap_or_else(PoisonError::into_inner);
            // Workers send what they have gathered when the map changes.
            if map != **current {
                *current = Arc::new(map);
            }
        }
        self.routes.lookups.fetch_add(1, Relaxed);
    }

    /// Makes a batch per node of rows to send again.
    fn regroup(&self, mut batch: RowBatch) -> Vec<(Option<Node>, RowBatch)> {
        let map = self.map();
        let owner = |row: usize| map.owner(partition_of(&batch.rows.digest(row)));
        let node = |owner: Option<usize>| owner.map(|index| map.nodes()[index].clone());
        if (1..batch.rows.len()).all(|row| owner(row) == owner(0)) {
            return vec![(node(owner(0)), batch)];
        }
        let mut batches: HashMap<Option<usize>, RowBatch> = HashMap::new();
        for row in 0..batch.rows.len() {
            batches.entry(owner(row)).or_insert_with(|| self.new_batch()).append_row_of(&batch, row);
        }
        batch.release();
        batches.into_iter().map(|(owner, batch)| (node(owner), batch)).collect()
    }
}

/// The answers to a batch that no node takes now.
fn refuse_all(batch: &BatchMessage, results: &mut RowResults) {
    results.clear();
    results.resize(batch.len(), Some(ResultCode::PARTITION_UNAVAILABLE));
}
