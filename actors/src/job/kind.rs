//! What the kinds of jobs have in common.

use std::fmt::Debug;
use std::ops::AddAssign;
use std::time::Duration;

use abs_engine::EngineError;
use chrono::{DateTime, Utc};

use super::progress::Amounts;
use super::{Stage, Steps};
use crate::messages::system::JobWork;
use crate::messages::{JobEnd, JobId, JobResult};

/// A kind of job: what it does, one step after the other, and how it counts.
pub(crate) trait Job: Debug + Sized + Send + Unpin + 'static {
    /// What workers do.
    type Stage: Stage;
    /// The counters of a part of the job: a namespace of a backup, a chain of a restore.
    type Progress: Debug + Default + Send + Sync + 'static;
    /// The values of such counters, and their sum.
    type Counts: AddAssign + Clone + Debug + Default + Send + Sync + 'static;
    /// What a part is reported with.
    type Report: Debug + Send + Sync + 'static;

    /// What events say of the job; `None` of one that has none, because the command line asked for it.
    fn describe(&self) -> Option<JobWork>;

    /// When the job began, if an earlier process began it.
    fn began(&self) -> Option<DateTime<Utc>> {
        None
    }

    /// What limits the batches that are handed out at the same time.
    fn load(&self) -> <Self::Stage as Stage>::Load;

    /// 1, and one more for each crash of the job's actor.
    fn generation(&self) -> u32 {
        1
    }

    /// The job that continues this one when its actor crashes, if one does: then its steps are suspended.
    fn successor(&self) -> Option<Self> {
        None
    }

    /// Starts this job in place of the one whose actor crashed, with the same id; false if that cannot be.
    fn succeed(self, _: JobId) -> impl Future<Output = bool> + Send {
        async { false }
    }

    /// Does everything, and cleans up.
    fn run(self, steps: &Steps<Self>) -> impl Future<Output = Conclusion<Self::Report>> + Send;

    /// Counts and logs the end of a job that has such a description.
    fn announce_end(steps: &Steps<Self>, work: &JobWork, result: &ResultOf<Self>);

    /// The values of a part's counters at this moment.
    fn counts(progress: &Self::Progress) -> Self::Counts;

    /// The warnings of a part so far.
    fn warnings(progress: &Self::Progress) -> Vec<String>;

    /// How much of the job these counts are, when its parts hold `expected` records, as far as that is known.
    fn amounts(counts: &Self::Counts, expected: Option<u64>) -> Amounts;

    /// Notes how long the job takes in its counts.
    fn set_elapsed(counts: &mut Self::Counts, elapsed: Duration);
}

/// How a kind of job ends.
pub(crate) type ResultOf<J> = JobResult<<J as Job>::Counts, <J as Job>::Report>;

/// How the steps of a job ended, and what they made.
#[derive(Debug)]
pub(crate) struct Conclusion<R> {
    pub end: JobEnd,
    pub reports: Vec<R>,
}

impl<R> From<EngineError> for Conclusion<R> {
    fn from(error: EngineError) -> Self {
        Self { end: error.into(), reports: Vec::new() }
    }
}

impl<R> From<Result<Vec<R>, EngineError>> for Conclusion<R> {
    fn from(result: Result<Vec<R>, EngineError>) -> Self {
        result.map_or_else(Self::from, |reports| Self { end: JobEnd::Done, reports })
    }
}
