//! The reading of a link, handed out file by file.

use std::sync::Arc;

use abs_engine::{ChainRestore, EngineError, FileQueue, FileTask, FileTaskId, RestoreWorker};

use crate::job::{Stage, Worker};

/// The reading of a link.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(super) run: Arc<ChainRestore>,
    pub(super) queue: FileQueue,
}

impl Stage for Reading {
    type Batch = FileTask;
    type Done = FileTaskId;
    type BatchId = FileTaskId;
    type Load = ();
    type Worker = ReadWorker;

    fn worker(&self) -> ReadWorker {
        ReadWorker { worker: RestoreWorker::new(Arc::clone(&self.run)), run: Arc::clone(&self.run) }
    }

    fn id_of(batch: &FileTask) -> FileTaskId {
        batch.id()
    }

    fn next(&mut self, (): &mut ()) -> Option<FileTask> {
        if self.run.is_stopped() { None } else { self.queue.next_task() }
    }

    fn ended(&mut self, (): &mut (), done: FileTaskId) {
        self.queue.ended(done);
    }

    fn lost(&mut self, (): &mut (), id: FileTaskId) {
        self.queue.ended(id);
        // It is not known which of its rows were sent.
        self.run.fail(EngineError::Worker("the worker that read a file panicked".to_owned()));
    }

    fn is_over(&self) -> bool {
        self.run.is_stopped() || !self.queue.has_tasks()
    }

    fn fail(&self, error: EngineError) {
        self.run.fail(error);
    }
}

/// Reads files of one link, and sends their rows.
pub(crate) struct ReadWorker {
    run: Arc<ChainRestore>,
    worker: RestoreWorker,
}

impl Worker for ReadWorker {
    type Stage = Reading;

    async fn work(&mut self, task: FileTask) -> FileTaskId {
        if let Err(e) = self.worker.work(&task).await {
            self.run.fail(e);
        }
        task.id()
    }

    async fn finish(mut self) {
        if let Err(e) = self.worker.flush().await {
            self.run.fail(e);
        }
    }
}
