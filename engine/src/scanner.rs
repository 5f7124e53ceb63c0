//! Scan workers: from the records of a batch of partitions to blocks of .asb text.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use abs_cluster::{
    ClusterError, PARTITIONS, PartitionCursor, ResultCode, Scan, ScanEvent, ScanRecord, ScanRequest,
    partition_of,
};

use crate::backup::BackupRun;
use crate::checkpoint::Mark;
use crate::error::EngineError;
use crate::limiter::limit;
use crate::queue::{Batch, BatchEnd, Pending, Scanned, count_attempt, given_up};

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

/// What a file writer is sent.
#[derive(Debug)]
pub(crate) enum ToWriter {
    Block(Block),
    /// A checkpoint: the file ends here.
    Mark(Arc<Mark>),
}

/// The way of blocks to the writers, and of their emptied buffers back.
#[derive(Clone, Debug)]
pub(crate) struct BlockPipe {
    pub full: async_channel::Sender<ToWriter>,
    pub empty: async_channel::Receiver<Vec<u8>>,
}

impl BlockPipe {
    /// A block with the buffer of an earlier one. A new buffer grows as it is filled, so that a small backup takes little.
    fn empty_block(&self) -> Block {
        Block { text: self.empty.try_recv().unwrap_or_default(), records: 0 }
    }

    /// A block for a scan that has filled one already, with room for the record that fills it beyond its mark.
    fn next_block(&self) -> Block {
        let mut block = self.empty_block();
        if block.text.capacity() < BLOCK {
            block.text = Vec::with_capacity(BLOCK + BLOCK / 8);
        }
        block
    }
}

/// Gives an emptied buffer back for the next block.
pub(crate) fn recycle(empty: &async_channel::Sender<Vec<u8>>, mut buffer: Vec<u8>) {
    buffer.clear();
    if (BLOCK..=KEEP_BLOCK).contains(&buffer.capacity()) {
        // A full or closed channel means that nobody needs it.
        let _ = empty.try_send(buffer);
    }
}

/// Where a partition stands in the batch under way.
const NOT_IN_BATCH: u16 = u16::MAX;

/// A worker of backups: scans a batch at a time, of any run.
#[derive(Debug)]
pub struct Scanner {
    block: Block,
    /// How far each partition of the batch was read.
    cursors: Vec<PartitionCursor>,
    /// Place in the batch of each partition.
    places: Vec<u16>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// A worker that has nothing to do yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            block: Block::default(),
            cursors: Vec::new(),
            places: vec![NOT_IN_BATCH; usize::from(PARTITIONS)],
        }
    }

    /// Scans a batch of `run`: waits until the limits allow it, reads, hands everything read to the writers. When that
    /// fails for the moment it waits as the retry policy says and looks up who owns the partitions now; the rest of them
    /// is for a later batch.
    pub async fn scan(&mut self, run: &BackupRun, batch: Batch) -> BatchEnd {
        let work = self.work(run, &batch);
        let result = run.outcome.stop.run_until_cancelled(work).await;
        BatchEnd { id: batch.id, result: result.unwrap_or(Err(EngineError::Canceled)) }
    }

    async fn work(&mut self, run: &BackupRun, batch: &Batch) -> Result<Scanned, EngineError> {
        self.begin(run, batch);
        let mut records = 0;
        let mut refused = Vec::new();
        let streamed = {
            let _permit = run.limits.scan().await?;
            run.begin_batch(batch);
            self.stream(run, batch, &mut records, &mut refused).await
        };
        let (unfinished, cause) = match streamed {
            Ok(()) => {
                let cause = refused.last().map(|(_, code)| code.to_string()).unwrap_or_default();
                (refused.into_iter().map(|(place, _)| place).collect(), cause)
            }
            Err(EngineError::Cluster(e)) if e.is_transient() => {
                ((0..self.cursors.len()).collect::<Vec<_>>(), e.to_string())
            }
            Err(e) => return Err(e),
        };
        if self.block.records > 0 {
            run.strike();
            self.hand_over(run, Block::default()).await?;
        }
        if unfinished.is_empty() {
            let is_cut = batch.most_records > 0 && records >= batch.most_records;
            let more = self.cursors.first().filter(|_| is_cut).map(|&cursor| {
                let read = batch.partitions[0].read.map(|read| read + records);
                Pending { cursor, attempts: 0, read }
            });
            return Ok(Scanned { records, more, ..Scanned::default() });
        }
        let pending = |place: usize| Pending {
            cursor: self.cursors[place],
            attempts: batch.partitions[place].attempts,
            read: None,
        };
        let unfinished = unfinished.into_iter().map(pending).collect();
        retry_later(run, batch, Scanned { records, unfinished, ..Scanned::default() }, &cause).await
    }

    /// Forgets the batch before, whatever became of it.
    fn begin(&mut self, run: &BackupRun, batch: &Batch) {
        self.cursors.clear();
        self.cursors.extend(batch.partitions.iter().map(|pending| pending.cursor));
        self.places.fill(NOT_IN_BATCH);
        for (place, cursor) in self.cursors.iter().enumerate() {
            self.places[usize::from(cursor.partition)] = place as u16;
        }
        self.block.text.clear();
        self.block.records = 0;
        if self.block.text.capacity() < BLOCK {
            self.block = run.pipe.empty_block();
        }
    }

    /// Reads the stream of one scan to its end. Partitions that the server refused are added to `refused`.
    async fn stream(
        &mut self,
        run: &BackupRun,
        batch: &Batch,
        sum: &mut u64,
        refused: &mut Vec<(usize, ResultCode)>,
    ) -> Result<(), EngineError> {
        let Some(node) = &batch.node else {
            refused.extend((0..self.cursors.len()).map(|place| (place, ResultCode::PARTITION_UNAVAILABLE)));
            return Ok(());
        };
        let connection = run.cluster.connection(node).await?;
        let mut scan = match batch.most_records {
            0 => Scan::start(connection, &run.request, &self.cursors).await?,
            most => {
                let request = ScanRequest { sample_max: most, ..run.request.clone() };
                Scan::start(connection, &request, &self.cursors).await?
            }
        };
        let malformed = |what| ClusterError::Malformed { node: node.address(), what };
        loop {
            let mut records = 0;
            let mut last = None;
            for event in scan.next().await? {
                match event? {
                    ScanEvent::Record(record) => {
                        let place = self.places[usize::from(partition_of(record.head.digest))];
                        let cursor = self.cursors.get_mut(usize::from(place));
                        let cursor = cursor.ok_or_else(|| malformed("a record of another partition"))?;
                        append(run, &record, &mut self.block)?;
                        cursor.after = Some(*record.head.digest);
                        records += 1;
                        if self.block.text.len() >= BLOCK {
                            self.hand_over(run, run.pipe.next_block()).await?;
                        }
                    }
                    ScanEvent::PartitionDone { code: ResultCode::OK, .. } => {}
                    ScanEvent::PartitionDone { partition, code } => {
                        let place = self.places.get(usize::from(partition)).copied().unwrap_or(NOT_IN_BATCH);
                        if usize::from(place) >= self.cursors.len() {
                            return Err(malformed("the end of another partition").into());
                        }
                        refused.push((usize::from(place), code));
                    }
                    ScanEvent::Last(code) => {
                        last = Some(code);
                        break;
                    }
                }
            }
            run.progress.records_read.fetch_add(records, Relaxed);
            *sum += records;
            run.strike();
            if let Some(code) = last {
                if code == ResultCode::OK {
                    run.cluster.release(node, scan.into_connection());
                    limit(run.limits.records.as_ref(), records).await;
                    return Ok(());
                }
                let filtered = if run.request.filter.is_some() { " with a filter expression" } else { "" };
                let what = format!("scanning namespace {}{filtered}", run.request.namespace);
                return Err(ClusterError::Server { what, node: node.address(), code }.into());
            }
            limit(run.limits.records.as_ref(), records).await;
        }
    }

    /// Hands the block to a file writer, notes how far the partitions were read, and goes on with the `next` block.
    async fn hand_over(&mut self, run: &BackupRun, next: Block) -> Result<(), EngineError> {
        let block = std::mem::replace(&mut self.block, next);
        // No checkpoint comes between the block and its cursors.
        let _gate = run.cursors.gate.read().await;
        // The channel closes when a writer failed; its error is the one to report.
        run.pipe.full.send(ToWriter::Block(block)).await.map_err(|_| EngineError::Canceled)?;
        run.cursors.set(&self.cursors);
        Ok(())
    }
}

#[inline]
fn append(run: &BackupRun, record: &ScanRecord<'_>, block: &mut Block) -> Result<(), EngineError> {
    block.records += 1;
    run.encoder.record(&record.head, record.bins.clone(), &mut block.text).map_err(|cause| {
        EngineError::Record {
            namespace: run.request.namespace.clone(),
            digest: crate::rows::digest_text(record.head.digest),
            cause,
        }
    })
}

/// Counts the attempt, waits, and looks up who owns the partitions now.
async fn retry_later(
    run: &BackupRun,
    batch: &Batch,
    mut scanned: Scanned,
    cause: &str,
) -> Result<Scanned, EngineError> {
    run.progress.retries.fetch_add(1, Relaxed);
    let worst = count_attempt(&batch.partitions, &mut scanned.unfinished);
    let pause = run
        .plan
        .retry
        .wait(worst - 1)
        .ok_or_else(|| given_up(&run.plan.namespace, &scanned.unfinished, worst, cause))?;
    tokio::time::sleep(pause).await;
    // While the cluster cannot be asked the old map stands: the next attempt fails and comes back here.
    let plan = &run.plan;
    scanned.map = run.cluster.partition_map_preferring(&plan.namespace, &plan.prefer_racks).await.ok();
    Ok(scanned)
}
