//! Sends batches of rows, reads their answers, sends again what may succeed later.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use abs_cluster::{
    BatchFlags, BatchMessage, Cluster, ClusterError, Node, PartitionMap, ResultCode, RowResults, partition_of,
};
use abs_config::Retry;
use tokio::task::JoinSet;

use crate::error::EngineError;
use crate::limits::RestoreLimits;
use crate::outcome::Outcome;
use crate::progress::RestoreProgress;
use crate::rows::digest_text;

/// Bytes of batches in flight, over all runs of a job; bounds its memory whatever the size of records.
pub(crate) const IN_FLIGHT: usize = 32 << 20;
/// A batch is sent when it has this many bytes, whatever its number of rows.
pub(crate) const BATCH_BYTES: usize = 1 << 20;

/// What the senders of a job share.
#[derive(Debug)]
pub(crate) struct SendJob {
    pub cluster: Cluster,
    pub namespace: String,
    pub singly: bool,
    pub ignore_record_error: bool,
    pub socket_timeout: Duration,
    /// Of one attempt at a batch; zero for no limit.
    pub total_timeout: Duration,
    pub retry: Retry,
    pub limits: Arc<RestoreLimits>,
    pub progress: Arc<RestoreProgress>,
    pub outcome: Arc<Outcome>,
    pub map: RwLock<Arc<PartitionMap>>,
    /// Read by every batch in flight: who can write knows that nothing is.
    pub in_flight: Arc<tokio::sync::RwLock<()>>,
    pub spare: Mutex<Vec<BatchMessage>>,
}

impl SendJob {
    /// The partition map in use.
    pub(crate) fn map(&self) -> Arc<PartitionMap> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// An empty batch.
    pub(crate) fn batch(&self) -> BatchMessage {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| {
            // The server honours the flag for namespaces in memory only.
            BatchMessage::new(&self.namespace, BatchFlags { inline: true, inline_ssd: false })
        })
    }

    fn recycle(&self, mut batch: BatchMessage) {
        if batch.bytes() <= BATCH_BYTES + BATCH_BYTES / 4 {
            batch.clear();
            self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
        }
    }

    /// Waits for a place among the batches in flight and sends the batch from there, as one of `tasks`. Reports the
    /// error of a batch that failed before.
    pub(crate) async fn launch(
        self: &Arc<Self>,
        node: Option<Node>,
        batch: BatchMessage,
        tasks: &mut JoinSet<Result<(), EngineError>>,
    ) -> Result<(), EngineError> {
        while let Some(done) = tasks.try_join_next() {
            done.unwrap_or_else(|e| Err(EngineError::Worker(e.to_string())))?;
        }
        let bytes = batch.bytes().min(IN_FLIGHT) as u32;
        let closed = |_| EngineError::Canceled;
        let slot = Arc::clone(&self.limits.batches).acquire_owned().await.map_err(closed)?;
        let memory = Arc::clone(&self.limits.memory).acquire_many_owned(bytes).await.map_err(closed)?;
        let in_flight = Arc::clone(&self.in_flight).read_owned().await;
        let job = Arc::clone(self);
        tasks.spawn(async move {
            let sent = job.outcome.stop.run_until_cancelled(job.send(node, batch)).await;
            drop((slot, memory, in_flight));
            sent.unwrap_or(Err(EngineError::Canceled))
        });
        Ok(())
    }

    /// Sends a batch until every row has its final answer.
    async fn send(&self, node: Option<Node>, batch: BatchMessage) -> Result<(), EngineError> {
        let mut results = RowResults::new();
        let mut work = vec![(node, batch, 0)];
        while let Some((node, mut batch, attempts)) = work.pop() {
            let outcome = if let Some(node) = &node {
                self.exchange(node, &mut batch, &mut results).await
            } else {
                results.clear();
                results.resize(batch.len(), Some(ResultCode::PARTITION_UNAVAILABLE));
                Ok(())
            };
            let mut again = Vec::new();
            let mut cause = match &outcome {
                Ok(()) => String::new(),
                Err(e) if e.is_transient() => e.to_string(),
                Err(_) => return outcome.map_err(EngineError::from),
            };
            let mut counts = Counts::default();
            let mut refused = Ok(());
            for (row, result) in results.iter().enumerate() {
                match *result {
                    Some(code) if code.is_transient() => {
                        if cause.is_empty() {
                            cause = code.to_string();
                        }
                        again.push(row);
                    }
                    Some(code) => refused = refused.and(self.count(code, &batch, row, &mut counts)),
                    None => {
                        if cause.is_empty() {
                            "no answer for some of them".clone_into(&mut cause);
                        }
                        counts.in_doubt += 1;
                        again.push(row);
                    }
                }
            }
            counts.add_to(&self.progress);
            refused?;
            if again.is_empty() {
                self.recycle(batch);
                continue;
            }
            let attempts = if again.len() < batch.len() { 1 } else { attempts + 1 };
            self.progress.retries.fetch_add(1, Relaxed);
            let pause = self.retry.wait(attempts - 1).ok_or_else(|| EngineError::Batch {
                namespace: self.namespace.clone(),
                rows: again.len(),
                attempts,
                cause,
            })?;
            tokio::time::sleep(pause).await;
            work.extend(self.regroup(&batch, &again).await.into_iter().map(|(node, b)| (node, b, attempts)));
        }
        Ok(())
    }

    async fn exchange(
        &self,
        node: &Node,
        batch: &mut BatchMessage,
        results: &mut RowResults,
    ) -> Result<(), ClusterError> {
        results.clear();
        let connection = self.cluster.connection(node).await;
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(e) => {
                // Nothing was sent: no row is in doubt.
                results.resize(batch.len(), Some(ResultCode::PARTITION_UNAVAILABLE));
                return Err(e);
            }
        };
        connection.set_timeout(self.socket_timeout);
        let write = async {
            if self.singly {
                connection.write_singly(batch, results).await
            } else {
                connection.write_batch(batch, results).await
            }
        };
        if self.total_timeout.is_zero() {
            write.await?;
        } else {
            // Rows without an answer by then are in doubt, as after a lost connection.
            tokio::time::timeout(self.total_timeout, write).await.unwrap_or_else(|_| {
                let (verb, node, after) = ("writing to", node.address(), self.total_timeout);
                Err(ClusterError::Timeout { verb, node, after })
            })?;
        }
        self.cluster.release(node, connection);
        Ok(())
    }

    fn count(
        &self,
        code: ResultCode,
        batch: &BatchMessage,
        row: usize,
        counts: &mut Counts,
    ) -> Result<(), EngineError> {
        match code {
            ResultCode::OK => counts.inserted += 1,
            ResultCode::GENERATION => counts.fresher += 1,
            ResultCode::EXISTS => counts.existed += 1,
            _ if self.ignore_record_error => counts.ignored += 1,
            code => {
                let digest = digest_text(&batch.digest(row));
                return Err(EngineError::Row { namespace: self.namespace.clone(), digest, code });
            }
        }
        Ok(())
    }

    /// Looks up who owns the partitions now and makes a batch per node of the rows to send again.
    async fn regroup(&self, batch: &BatchMessage, rows: &[usize]) -> Vec<(Option<Node>, BatchMessage)> {
        // While the cluster cannot be asked the old map stands: the next attempt fails and comes back here.
        if let Ok(map) = self.cluster.partition_map(&self.namespace).await {
            *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
        }
        let map = self.map();
        let mut batches: HashMap<Option<usize>, BatchMessage> = HashMap::new();
        for &row in rows {
            let owner = map.owner(partition_of(&batch.digest(row)));
            batches.entry(owner).or_insert_with(|| self.batch()).append_row_of(batch, row);
        }
        batches.into_iter().map(|(owner, batch)| (owner.map(|n| map.nodes()[n].clone()), batch)).collect()
    }
}

#[derive(Default)]
struct Counts {
    inserted: u64,
    fresher: u64,
    existed: u64,
    ignored: u64,
    in_doubt: u64,
}

impl Counts {
    fn add_to(&self, progress: &RestoreProgress) {
        let add = |counter: &AtomicU64, n| {
            if n > 0 {
                counter.fetch_add(n, Relaxed);
            }
        };
        add(&progress.inserted, self.inserted);
        add(&progress.fresher, self.fresher);
        add(&progress.existed, self.existed);
        add(&progress.ignored, self.ignored);
        add(&progress.in_doubt, self.in_doubt);
    }
}
