//! Scan workers: from the records of a batch of partitions to blocks of .asb text.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use abs_asb::Encoder;
use abs_cluster::{
    Cluster, ClusterError, PARTITIONS, ResultCode, Scan, ScanEvent, ScanRecord, ScanRequest, partition_of,
};
use abs_config::Retry;

use crate::error::EngineError;
use crate::limiter::{Limiter, limit};
use crate::progress::BackupProgress;
use crate::queue::{Batch, Pending, Queue};

/// Bytes of text that are handed to a file writer at a time.
pub(crate) const BLOCK: usize = 512 << 10;
/// Blocks that one huge record made larger than this are not used again.
const KEEP_BLOCK: usize = 2 * BLOCK;

/// Text of whole records on its way to a file.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub text: Vec<u8>,
    pub records: u64,
}

/// The way of blocks to the writers, and of their emptied buffers back.
#[derive(Clone, Debug)]
pub(crate) struct BlockPipe {
    pub full: async_channel::Sender<Block>,
    pub empty: async_channel::Receiver<Vec<u8>>,
}

impl BlockPipe {
    fn buffer(&self) -> Vec<u8> {
        // Room for the record that fills the block beyond its mark.
        self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BLOCK + BLOCK / 8))
    }
}

/// Gives an emptied buffer back for the next block.
pub(crate) fn recycle(empty: &async_channel::Sender<Vec<u8>>, mut buffer: Vec<u8>) {
    buffer.clear();
    if (BLOCK..KEEP_BLOCK).contains(&buffer.capacity()) {
        // A full or closed channel means that nobody needs it.
        let _ = empty.try_send(buffer);
    }
}

/// What the scan workers of a backup share.
#[derive(Debug)]
pub(crate) struct ScanJob {
    pub cluster: Cluster,
    pub request: ScanRequest,
    pub encoder: Encoder,
    pub queue: Queue,
    pub records_per_second: Option<Limiter>,
    pub retry: Retry,
    pub progress: Arc<BackupProgress>,
}

/// Where a partition stands in the batch under way.
const NOT_IN_BATCH: u16 = u16::MAX;

/// One of the scan workers of a backup.
pub(crate) struct Scanner {
    job: Arc<ScanJob>,
    pipe: BlockPipe,
    block: Block,
    /// Place in the batch of each partition.
    places: Vec<u16>,
}

impl Scanner {
    pub(crate) fn new(job: Arc<ScanJob>, pipe: BlockPipe) -> Self {
        let block = Block { text: pipe.buffer(), records: 0 };
        Self { job, pipe, block, places: vec![NOT_IN_BATCH; usize::from(PARTITIONS)] }
    }

    /// Reads batches until no partition is left.
    pub(crate) async fn run(mut self) -> Result<(), EngineError> {
        while let Some(mut batch) = self.job.queue.take().await {
            let before = batch.partitions.clone();
            for (place, pending) in before.iter().enumerate() {
                self.places[usize::from(pending.cursor.partition)] = place as u16;
            }
            let result = self.scan(&mut batch).await;
            for pending in &before {
                self.places[usize::from(pending.cursor.partition)] = NOT_IN_BATCH;
            }
            let (unfinished, cause) = result?;
            let done = before.len() - unfinished.len();
            self.job.progress.partitions_done.fetch_add(done as u64, Relaxed);
            let unfinished = if unfinished.is_empty() {
                unfinished
            } else {
                self.before_retry(&before, unfinished, &cause).await?
            };
            self.job.queue.give_back(batch.node.as_ref(), unfinished);
        }
        self.hand_over().await
    }

    /// Scans a batch and moves its cursors along; returns what of it is unfinished and why. Errors are final.
    async fn scan(&mut self, batch: &mut Batch) -> Result<(Vec<Pending>, String), EngineError> {
        let mut refused = Vec::new();
        match self.stream(batch, &mut refused).await {
            Ok(()) => {
                let cause = refused.last().map(|(_, code)| format!("{code}")).unwrap_or_default();
                let unfinished = refused.iter().map(|&(place, _)| batch.partitions[place]).collect();
                Ok((unfinished, cause))
            }
            Err(EngineError::Cluster(e)) if e.is_transient() => {
                Ok((std::mem::take(&mut batch.partitions), e.to_string()))
            }
            Err(e) => Err(e),
        }
    }

    /// Reads the stream of one scan to its end. Partitions that the server refused are added to `refused`.
    async fn stream(
        &mut self,
        batch: &mut Batch,
        refused: &mut Vec<(usize, ResultCode)>,
    ) -> Result<(), EngineError> {
        let job = Arc::clone(&self.job);
        let Some(node) = &batch.node else {
            refused
                .extend((0..batch.partitions.len()).map(|place| (place, ResultCode::PARTITION_UNAVAILABLE)));
            return Ok(());
        };
        let cursors: Vec<_> = batch.partitions.iter().map(|pending| pending.cursor).collect();
        let connection = job.cluster.connection(node).await?;
        let mut scan = Scan::start(connection, &job.request, &cursors).await?;
        let malformed = |what| ClusterError::Malformed { node: node.address(), what };
        loop {
            let mut records = 0;
            for event in scan.next().await? {
                match event? {
                    ScanEvent::Record(record) => {
                        let place = self.places[usize::from(partition_of(record.head.digest))];
                        let pending = batch.partitions.get_mut(usize::from(place));
                        let pending = pending.ok_or_else(|| malformed("a record of another partition"))?;
                        self.append(&record)?;
                        pending.cursor.after = Some(*record.head.digest);
                        records += 1;
                        if self.block.text.len() >= BLOCK {
                            self.hand_over().await?;
                        }
                    }
                    ScanEvent::PartitionDone { code: ResultCode::OK, .. } => {}
                    ScanEvent::PartitionDone { partition, code } => {
                        let place = self.places.get(usize::from(partition)).copied().unwrap_or(NOT_IN_BATCH);
                        if usize::from(place) >= batch.partitions.len() {
                            return Err(malformed("the end of another partition").into());
                        }
                        refused.push((usize::from(place), code));
                    }
                    ScanEvent::Last(ResultCode::OK) => {
                        job.progress.records_read.fetch_add(records, Relaxed);
                        job.cluster.release(node, scan.into_connection());
                        limit(job.records_per_second.as_ref(), records).await;
                        return Ok(());
                    }
                    ScanEvent::Last(code) => {
                        let node = node.address();
                        let filtered =
                            if job.request.filter.is_some() { " with a filter expression" } else { "" };
                        let what = format!("scanning namespace {}{filtered}", job.request.namespace);
                        return Err(ClusterError::Server { what, node, code }.into());
                    }
                }
            }
            job.progress.records_read.fetch_add(records, Relaxed);
            limit(job.records_per_second.as_ref(), records).await;
        }
    }

    #[inline]
    fn append(&mut self, record: &ScanRecord<'_>) -> Result<(), EngineError> {
        self.block.records += 1;
        self.job.encoder.record(&record.head, record.bins.clone(), &mut self.block.text).map_err(|cause| {
            EngineError::Record {
                namespace: self.job.request.namespace.clone(),
                digest: crate::rows::digest_text(record.head.digest),
                cause,
            }
        })
    }

    /// Hands the block to a file writer and takes an empty one.
    async fn hand_over(&mut self) -> Result<(), EngineError> {
        let empty = Block { text: self.pipe.buffer(), records: 0 };
        let block = std::mem::replace(&mut self.block, empty);
        // The channel closes when a writer failed; its error is the one to report.
        self.pipe.full.send(block).await.map_err(|_| EngineError::Canceled)
    }

    /// Counts the attempt, waits, and looks up who owns the partitions now.
    async fn before_retry(
        &self,
        before: &[Pending],
        mut unfinished: Vec<Pending>,
        cause: &str,
    ) -> Result<Vec<Pending>, EngineError> {
        let job = &self.job;
        job.progress.retries.fetch_add(1, Relaxed);
        let mut worst = 1;
        for pending in &mut unfinished {
            let place = before.iter().find(|b| b.cursor.partition == pending.cursor.partition);
            let stood_still = place.is_some_and(|b| b.cursor.after == pending.cursor.after);
            pending.attempts = if stood_still { pending.attempts + 1 } else { 0 };
            worst = worst.max(pending.attempts);
        }
        // A batch whose other partitions made progress is not stuck: its cut connection is no partition's fault.
        let moved = unfinished.len() < before.len() || unfinished.iter().any(|p| p.attempts == 0);
        if moved {
            for pending in &mut unfinished {
                pending.attempts = pending.attempts.min(1);
            }
            worst = 1;
        }
        let pause = job.retry.wait(worst - 1).ok_or_else(|| EngineError::Partition {
            namespace: job.request.namespace.clone(),
            partition: unfinished.iter().max_by_key(|p| p.attempts).map_or(0, |p| p.cursor.partition),
            attempts: worst,
            cause: cause.to_owned(),
        })?;
        tokio::time::sleep(pause).await;
        // While the cluster cannot be asked the old map stands: the next attempt fails and comes back here.
        if let Ok(map) = job.cluster.partition_map(&job.request.namespace).await {
            job.queue.update(map);
        }
        Ok(unfinished)
    }
}

/// How long we wait for the next bytes of a scan.
///
/// The server sends a block when a mebibyte is full. A slow rate or a filter that lets little through keeps it silent
/// for much longer than the socket timeout, in good health.
pub(crate) fn patience(socket_timeout: Duration, slow: bool) -> Duration {
    if slow { socket_timeout.max(Duration::from_mins(10)) } else { socket_timeout }
}
