//! Restore workers: from the text of files to batches of rows by node.

use std::sync::Arc;

use abs_asb::{Item, Items, Position};
use abs_cluster::{Node, PartitionMap, partition_of};
use tokio::task::JoinSet;

use crate::answered::RowBatch;
use crate::blocks::TextBlock;
use crate::decided::{DecidedDigests, DigestCollector, Key, key_of};
use crate::error::EngineError;
use crate::files::FileTask;
use crate::limiter::limit;
use crate::progress::RestoreSnapshot;
use crate::restore::{ChainRestore, foreign};
use crate::rows::{Fate, RowMaker};
use crate::sender::BATCH_BYTES;

/// A worker of one link of a restore: reads files, makes batches, sends them.
#[derive(Debug)]
pub struct RestoreWorker {
    run: Arc<ChainRestore>,
    rows: RowMaker,
    /// What the links before have decided, or written when they are restored bin by bin.
    decided: Arc<DecidedDigests>,
    /// Where the digests of this link go, unless it is the last one.
    collector: Option<Arc<DigestCollector>>,
    /// Those that were not handed over yet.
    digests: Vec<Key>,
    /// Room for a look at a file of decided digests.
    page: Vec<Key>,
    block: TextBlock,
    map: Arc<PartitionMap>,
    /// A batch under construction per node of the map, and one for partitions that no node owns.
    batches: Vec<Option<RowBatch>>,
    tasks: JoinSet<Result<(), EngineError>>,
}

impl RestoreWorker {
    /// A worker of the link of `run` that is under way.
    #[must_use]
    pub fn new(run: Arc<ChainRestore>) -> Self {
        let (decided, collector) = run.digests();
        Self {
            rows: RowMaker::new(&run.plan, run.send.ahead),
            digests: Vec::with_capacity(collector.as_ref().map_or(0, |collector| collector.chunk())),
            decided,
            collector,
            page: Vec::new(),
            block: TextBlock::default(),
            map: run.send.map(),
            batches: Vec::new(),
            tasks: JoinSet::new(),
            run,
        }
    }

    /// Reads a file to its end, together with whoever else reads it. Rows stay behind until their batch is full or
    /// [`flush`](Self::flush)ed. After an error the worker is of no use.
    pub async fn work(&mut self, task: &FileTask) -> Result<(), EngineError> {
        let run = Arc::clone(&self.run);
        run.outcome.stop.run_until_cancelled(self.read(task)).await.unwrap_or(Err(EngineError::Canceled))
    }

    /// Sends the batches that are not full, and waits until all that this worker sent is written.
    pub async fn flush(&mut self) -> Result<(), EngineError> {
        let run = Arc::clone(&self.run);
        let work = async {
            self.hand_over_digests().await?;
            self.launch_all().await?;
            while let Some(joined) = self.tasks.join_next().await {
                joined.unwrap_or_else(|e| Err(EngineError::Worker(e.to_string())))?;
            }
            Ok(())
        };
        run.outcome.stop.run_until_cancelled(work).await.unwrap_or(Err(EngineError::Canceled))
    }

    async fn read(&mut self, task: &FileTask) -> Result<(), EngineError> {
        let run = Arc::clone(&self.run);
        let _permit = run.limits.readers.acquire().await.map_err(|_| EngineError::Canceled)?;
        run.strike();
        while task.file.next(&run.source, &mut self.block).await? {
            run.strike();
            self.rows.tick();
            if !Arc::ptr_eq(&self.map, &run.send.map()) {
                // Nodes came or went: what was gathered by the old map goes out by it, and is sent again if need be.
                self.launch_all().await?;
                self.map = run.send.map();
            }
            self.batches.resize_with(self.map.nodes().len() + 1, || None);
            self.read_block(&run).await?;
            // A block has a few thousand records at the most: the rest of it goes with the next chunk.
            if self.collector.as_ref().is_some_and(|collector| self.digests.len() >= collector.chunk()) {
                self.hand_over_digests().await?;
            }
        }
        Ok(())
    }

    /// Gives the digests to the collector, which may write them to a file.
    async fn hand_over_digests(&mut self) -> Result<(), EngineError> {
        let Some(collector) = self.collector.clone().filter(|_| !self.digests.is_empty()) else {
            return Ok(());
        };
        let room = Vec::with_capacity(self.digests.capacity());
        let digests = std::mem::replace(&mut self.digests, room);
        let added = tokio::task::spawn_blocking(move || collector.add(digests)).await;
        added.map_err(|e| EngineError::Worker(e.to_string()))?.map_err(|e| self.run.send.no_room(&e))
    }

    async fn read_block(&mut self, run: &ChainRestore) -> Result<(), EngineError> {
        let Self { rows, decided, collector, digests, page, block, map, batches, tasks, .. } = self;
        let source = run.plan.source.as_bytes();
        if let Some(kind) = &block.kind
            && kind.header.namespace != source
        {
            return Err(foreign(&block.file, &kind.header.namespace, &run.plan.source));
        }
        let Some(answers) = block.answers.take() else { return Ok(()) };
        let is_known = answers.is_known();
        let mut items = Items::new(&block.text, block.position.unwrap_or(Position::START));
        let mut counts = RestoreSnapshot::default();
        loop {
            let item = items.next().map_err(|e| e.in_file(&*block.file))?;
            let mut record = match item {
                None => break,
                Some(Item::Index(index)) => {
                    answers.note_definition();
                    run.take_index(index);
                    continue;
                }
                Some(Item::Udf(udf)) => {
                    answers.note_definition();
                    run.take_udf(udf);
                    continue;
                }
                Some(Item::Record(record)) => record,
            };
            if !record.namespace.eq_bytes(source) {
                return Err(foreign(&block.file, &record.namespace.to_bytes(), &run.plan.source));
            }
            if is_known {
                if collector.is_some() {
                    digests.push(key_of(&record.digest));
                }
                continue;
            }
            counts.read += 1;
            let mut adds_bins = false;
            if !decided.is_empty() || collector.is_some() {
                let key = key_of(&record.digest);
                if decided.contains(&key, page).map_err(|e| run.send.no_room(&e))? {
                    adds_bins = run.by_bins;
                    if !adds_bins {
                        counts.superseded += 1;
                        continue;
                    }
                }
                if collector.is_some() {
                    digests.push(key);
                }
            }
            let owner = map.owner(partition_of(&record.digest)).unwrap_or(map.nodes().len());
            let batch = batches[owner].get_or_insert_with(|| run.send.batch());
            match rows.append(&mut record, &mut batch.rows, adds_bins).map_err(|e| e.in_file(&*block.file))? {
                Fate::Row => {
                    let full = batch.rows.len() >= run.batch_size || batch.rows.bytes() >= BATCH_BYTES;
                    if let Some(mut batch) = batches[owner].take_if(|_| full) {
                        batch.mark(&answers);
                        let node = map.nodes().get(owner).cloned();
                        launch(run, node, batch, tasks).await?;
                    }
                }
                Fate::Expired => counts.expired += 1,
                Fate::Skipped => counts.skipped += 1,
            }
        }
        if is_known {
            return Ok(());
        }
        batches.iter_mut().flatten().for_each(|batch| batch.mark(&answers));
        if answers.is_in_doubt() {
            counts.in_doubt = counts.read - counts.superseded - counts.expired - counts.skipped;
        }
        run.progress.add(&counts);
        answers.count(counts);
        answers.release();
        Ok(())
    }

    async fn launch_all(&mut self) -> Result<(), EngineError> {
        let Self { run, map, batches, tasks, .. } = self;
        for (owner, batch) in batches.drain(..).enumerate() {
            if let Some(batch) = batch.filter(|batch| !batch.rows.is_empty()) {
                launch(run, map.nodes().get(owner).cloned(), batch, tasks).await?;
            }
        }
        Ok(())
    }
}

impl Drop for RestoreWorker {
    fn drop(&mut self) {
        // Of a run that was stopped: what is in flight is still counted, and the end of the run waits for that.
        self.tasks.detach_all();
    }
}

/// Sends a batch when the rate allows it, or takes a sample of it if nothing is to be written.
async fn launch(
    run: &ChainRestore,
    node: Option<Node>,
    batch: RowBatch,
    tasks: &mut JoinSet<Result<(), EngineError>>,
) -> Result<(), EngineError> {
    if let Some(sample) = &run.sample {
        sample.take(&batch.rows);
        run.send.discard(batch);
        return Ok(());
    }
    limit(run.limits.records.as_ref(), batch.rows.len() as u64).await;
    run.send.launch(node, batch, tasks).await
}
