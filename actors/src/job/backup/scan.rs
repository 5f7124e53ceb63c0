//! The scan of a namespace, in batches of partitions.

use std::sync::Arc;

use abs_engine::{BackupRun, Batch, BatchEnd, BatchId, EngineError, NodeLoad, PartitionQueue, Scanner};

use crate::job::{Stage, Worker};

/// The scan of a namespace.
#[derive(Debug)]
pub(crate) struct Scan {
    pub run: Arc<BackupRun>,
    pub queue: PartitionQueue,
}

impl Stage for Scan {
    type Batch = Batch;
    type Done = BatchEnd;
    type BatchId = BatchId;
    type Load = NodeLoad;
    type Worker = ScanWorker;

    fn worker(&self) -> ScanWorker {
        ScanWorker { run: Arc::clone(&self.run), scanner: Scanner::new() }
    }

    fn id_of(batch: &Batch) -> BatchId {
        batch.id()
    }

    fn next(&mut self, load: &mut NodeLoad) -> Option<Batch> {
        self.queue.next(load)
    }

    fn ended(&mut self, load: &mut NodeLoad, done: BatchEnd) {
        if let Err(e) = self.queue.ended(load, done) {
            self.run.fail(e);
        }
    }

    fn lost(&mut self, load: &mut NodeLoad, id: BatchId) {
        if let Err(e) = self.queue.lost(load, id) {
            self.run.fail(e);
        }
    }

    fn is_over(&self) -> bool {
        self.queue.is_over()
    }

    fn fail(&self, error: EngineError) {
        self.run.fail(error);
    }
}

/// Scans batches of one namespace.
pub(crate) struct ScanWorker {
    run: Arc<BackupRun>,
    scanner: Scanner,
}

impl Worker for ScanWorker {
    type Stage = Scan;

    async fn work(&mut self, batch: Batch) -> BatchEnd {
        self.scanner.scan(&self.run, batch).await
    }

    async fn finish(self) {}
}
