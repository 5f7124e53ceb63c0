//! Work that is divided into batches, and the workers that ask for them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::AssertUnwindSafe;

use abs_engine::EngineError;
use actix::Addr;
use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::{Job, JobActor, TakeBatch};

/// Work that is divided into batches: a namespace of a backup, a link of a chain.
pub(crate) trait Stage: Debug + Send + Sized + Unpin + 'static {
    type Batch: Debug + Send + 'static;
    /// The result of a batch.
    type Done: Send + 'static;
    /// Names a batch among those of its stage.
    type BatchId: Copy + Send + 'static;
    /// What the stages of a job share to choose their batches by.
    type Load: Debug + Send + Unpin;
    type Worker: Worker<Stage = Self>;

    fn worker(&self) -> Self::Worker;

    fn id_of(batch: &Self::Batch) -> Self::BatchId;

    /// The next batch. `None` while there is none: until a batch ends, or for good.
    fn next(&mut self, load: &mut Self::Load) -> Option<Self::Batch>;

    /// Takes a batch back.
    fn ended(&mut self, load: &mut Self::Load, done: Self::Done);

    /// Takes back a batch whose worker panicked.
    fn lost(&mut self, load: &mut Self::Load, id: Self::BatchId);

    /// True when there will be no more batches, whatever becomes of those that are out.
    fn is_over(&self) -> bool;

    /// Stops the work of the stage because of an error. The first one counts.
    fn fail(&self, error: EngineError);
}

/// Does the work of a stage.
pub(crate) trait Worker: Send + 'static {
    type Stage: Stage;

    fn work(
        &mut self,
        batch: <Self::Stage as Stage>::Batch,
    ) -> impl Future<Output = <Self::Stage as Stage>::Done> + Send;

    /// Completes what is begun. There are no more batches.
    fn finish(self) -> impl Future<Output = ()> + Send;
}

/// Names a stage within its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StageId(u64);

/// A batch that a worker had.
pub(super) enum Returned<S: Stage> {
    Done(S::Done),
    /// The worker panicked.
    Lost(S::BatchId),
}

/// A worker: asks for batches until there are no more.
pub(super) async fn run_worker<J: Job>(
    job: Addr<JobActor<J>>,
    stage: StageId,
    mut worker: <J::Stage as Stage>::Worker,
) {
    let mut ended = None;
    loop {
        match job.send(TakeBatch { stage, ended: ended.take() }).await {
            Ok(Some(batch)) => {
                let id = J::Stage::id_of(&batch);
                // A worker forgets whatever it knew of the batch before when it begins another one.
                let done = AssertUnwindSafe(worker.work(batch)).catch_unwind().await;
                ended = Some(done.map_or(Returned::Lost(id), Returned::Done));
            }
            Ok(None) => return worker.finish().await,
            // An actor that crashed has canceled the job.
            Err(_) => return,
        }
    }
}

/// The stages of a job that are worked on.
#[derive(Debug)]
pub(super) struct Stages<S: Stage> {
    all: BTreeMap<StageId, InWork<S>>,
    last: StageId,
    load: S::Load,
    /// Batches that may be out at the same time, over all stages.
    most: usize,
}

#[derive(Debug)]
struct InWork<S: Stage> {
    stage: S,
    /// Batches that workers have.
    out: usize,
    /// Workers that have none.
    idle: Vec<oneshot::Sender<Option<S::Batch>>>,
}

impl<S: Stage> Stages<S> {
    pub(super) fn new(load: S::Load) -> Self {
        Self { all: BTreeMap::new(), last: StageId(0), load, most: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds a stage; its job has at least `workers` workers.
    pub(super) fn add(&mut self, stage: S, workers: usize) -> StageId {
        self.last.0 += 1;
        self.most = self.most.max(workers.max(1));
        self.all.insert(self.last, InWork { stage, out: 0, idle: Vec::new() });
        self.last
    }

    pub(super) fn remove(&mut self, id: StageId) -> Option<S> {
        self.all.remove(&id).map(|work| work.stage)
    }

    /// Takes back the batch of a worker that is idle now; it will receive another one, or that there are no more.
    pub(super) fn take_back(
        &mut self,
        id: StageId,
        ended: Option<Returned<S>>,
    ) -> oneshot::Receiver<Option<S::Batch>> {
        let (idle, answer) = oneshot::channel();
        // A stage ends after its workers.
        if let Some(work) = self.all.get_mut(&id) {
            work.out -= usize::from(ended.is_some());
            match ended {
                Some(Returned::Done(done)) => work.stage.ended(&mut self.load, done),
                Some(Returned::Lost(id)) => work.stage.lost(&mut self.load, id),
                None => {}
            }
            work.idle.push(idle);
        }
        answer
    }

    /// Gives batches to idle workers, those of the stage with the fewest batches out first; dismisses the workers of stages
    /// that are over.
    pub(super) fn dispatch(&mut self) {
        let mut out: usize = self.all.values().map(|work| work.out).sum();
        while out < self.most && self.give() {
            out += 1;
        }
        for work in self.all.values_mut().filter(|work| work.stage.is_over()) {
            for idle in work.idle.drain(..) {
                // A worker that is gone needs no answer.
                let _ = idle.send(None);
            }
        }
    }

    /// Gives one batch to a worker, if there is one.
    fn give(&mut self) -> bool {
        let mut stages: Vec<_> = self.all.values_mut().filter(|work| !work.idle.is_empty()).collect();
        stages.sort_by_key(|work| work.out);
        for work in stages {
            while let Some(idle) = work.idle.pop() {
                let Some(batch) = work.stage.next(&mut self.load) else {
                    work.idle.push(idle);
                    break;
                };
                match idle.send(Some(batch)) {
                    Ok(()) => {
                        work.out += 1;
                        return true;
                    }
                    // The worker is gone; there may be another one.
                    Err(batch) => {
                        if let Some(batch) = batch {
                            work.stage.lost(&mut self.load, S::id_of(&batch));
                        }
                    }
                }
            }
        }
        false
    }
}
