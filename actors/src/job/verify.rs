//! What a verification does, step by step. Its work has no batches: the engine reads several files at a time by itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use abs_config::KeySecrets;
use abs_engine::{
    Depth, EngineError, RestoreProgress, RestoreSnapshot, Verdict, Verification, VerifiedBackup,
};
use abs_storage::{ObjectPath, Storage};
use futures_util::future::BoxFuture;
use slog::{Logger, error, info, warn};
use tokio::sync::{OwnedRwLockReadGuard, oneshot};

use super::progress::Amounts;
use super::{Conclusion, Job, Stage, Steps, Worker};
use crate::messages::system::JobWork;
use crate::messages::{JobEnd, RequestError, VerifyResult};
use crate::settings;

/// The kind of job that verifies the backups of a run.
pub(crate) struct Verify {
    pub routine: String,
    pub depth: Depth,
    /// Finds out what there is to verify.
    pub plan: BoxFuture<'static, Result<VerifyWork, RequestError>>,
    /// Receives whether there is something, as soon as that is known.
    pub planned: oneshot::Sender<Result<(), RequestError>>,
}

impl fmt::Debug for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verify")
    }
}

/// Why nothing was verified.
enum Unverified {
    /// The request cannot be carried out.
    Refused(RequestError),
    /// Something that the request does not say failed.
    Failed(EngineError),
}

impl From<EngineError> for Unverified {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

/// The work of a verification.
#[derive(Debug)]
pub(crate) struct VerifyWork {
    pub storage: Arc<dyn Storage>,
    /// The folders of the runs; as a rule there is one of a time.
    pub runs: Vec<ObjectPath>,
    pub keys: KeySecrets,
    /// How many records the backups hold, as far as they say.
    pub records: u64,
    /// Keeps retention away from what is read.
    pub reading: OwnedRwLockReadGuard<()>,
}

impl Job for Verify {
    type Stage = Undivided;
    type Progress = RestoreProgress;
    type Counts = RestoreSnapshot;
    type Report = Verification;

    fn describe(&self) -> Option<JobWork> {
        Some(JobWork::Verify { routine: self.routine.clone() })
    }

    fn load(&self) {}

    async fn run(self, steps: &Steps<Self>) -> Conclusion<Verification> {
        let routine = self.routine.clone();
        let verified = steps.cancel.run_until_cancelled(self.verify(steps)).await;
        let result = match verified.unwrap_or(Err(Unverified::Failed(EngineError::Canceled))) {
            Ok(found) => Ok(found),
            Err(Unverified::Failed(e)) => Err(e),
            // Nothing is known of any backup: it does not count.
            Err(Unverified::Refused(e)) => return EngineError::Plan(e.to_string()).into(),
        };
        if !matches!(result, Err(EngineError::Canceled)) {
            let is_whole = result.as_ref().is_ok_and(|found| found.verdict() == Verdict::Whole);
            let time = is_whole.then(|| steps.shared.clock.now());
            steps.shared.metrics.verification_ended(&routine, time);
        }
        result.map(|found| vec![found]).into()
    }

    fn announce_end(steps: &Steps<Self>, _: &JobWork, result: &VerifyResult) {
        let log = &steps.log;
        match &result.end {
            JobEnd::Failed(e) => error!(log, "verification failed"; "error" => %e),
            JobEnd::Canceled => warn!(log, "verification canceled"),
            JobEnd::Done | JobEnd::FullDue(_) => {
                result.reports.iter().flat_map(|report| &report.backups).for_each(|backup| tell(log, backup));
            }
        }
    }

    fn counts(progress: &RestoreProgress) -> RestoreSnapshot {
        progress.snapshot()
    }

    fn warnings(progress: &RestoreProgress) -> Vec<String> {
        progress.warnings()
    }

    fn amounts(counts: &RestoreSnapshot, expected: Option<u64>) -> Amounts {
        Amounts {
            expected: expected.unwrap_or_default(),
            done: counts.read,
            bytes: counts.bytes_read,
            pipeline: 0,
            share: counts.bytes_read as f64 / counts.total_bytes.max(1) as f64,
        }
    }

    fn set_elapsed(counts: &mut RestoreSnapshot, elapsed: Duration) {
        counts.elapsed = elapsed;
    }
}

impl Verify {
    async fn verify(self, steps: &Steps<Self>) -> Result<Verification, Unverified> {
        let plan = self.plan.await;
        // A request that waits no longer needs no answer.
        let _ = self.planned.send(plan.as_ref().map(|_| ()).map_err(Clone::clone));
        let work = plan.map_err(|e| match e {
            RequestError::Failed(what) => Unverified::Failed(EngineError::Plan(what)),
            e => Unverified::Refused(e),
        })?;
        let keys = settings::key_ring(&work.keys).await;
        let keys = keys.map_err(|e| EngineError::Plan(e.to_string()))?;
        let progress = Arc::new(RestoreProgress::default());
        let records = (self.depth == Depth::Full).then_some(work.records);
        steps.begin(&self.routine, &progress, records).await?;
        let mut all = Verification { depth: self.depth, backups: Vec::new(), unfinished: Vec::new() };
        for run in &work.runs {
            let found = abs_engine::verify(&work.storage, run, &keys, self.depth, &progress).await?;
            all.backups.extend(found.backups);
            all.unfinished.extend(found.unfinished);
        }
        drop(work.reading);
        Ok(all)
    }
}

/// Logs what was found of a backup.
fn tell(log: &Logger, backup: &VerifiedBackup) {
    let VerifiedBackup { folder, files, bytes, .. } = backup;
    for problem in &backup.problems {
        error!(log, "the backup is damaged"; "backup" => folder, "problem" => problem);
    }
    for obstacle in &backup.obstacles {
        warn!(log, "the backup is not verifiable"; "backup" => folder, "why" => obstacle);
    }
    if backup.verdict() == Verdict::Whole {
        let what = if backup.structure_only { "structure only" } else { "whole" };
        info!(log, "the backup is verified"; "backup" => folder, "files" => files, "bytes" => bytes, "as" => what);
    }
}

/// The stage of a job that has none.
#[derive(Debug)]
pub(crate) enum Undivided {}

impl Stage for Undivided {
    type Batch = ();
    type Done = ();
    type BatchId = ();
    type Load = ();
    type Worker = Self;

    fn worker(&self) -> Self {
        match *self {}
    }

    fn id_of((): &()) {}

    fn next(&mut self, (): &mut ()) -> Option<()> {
        match *self {}
    }

    fn ended(&mut self, (): &mut (), (): ()) {
        match *self {}
    }

    fn lost(&mut self, (): &mut (), (): ()) {
        match *self {}
    }

    fn is_over(&self) -> bool {
        match *self {}
    }

    fn fail(&self, _: EngineError) {
        match *self {}
    }
}

impl Worker for Undivided {
    type Stage = Self;

    async fn work(&mut self, (): ()) {
        match *self {}
    }

    async fn finish(self) {
        match self {}
    }
}
