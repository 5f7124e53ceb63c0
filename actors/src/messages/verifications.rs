//! Requests about verifications of backups.

use abs_engine::{Depth, RestoreSnapshot, Verification};
use actix::Message;

use super::{JobId, JobResult, JobSnapshot, PlanWait, RequestError, RunningJob, Status};

/// Which run of a routine is verified, and how closely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifySubject {
    /// The routine.
    pub routine: String,
    /// When the run began, in milliseconds since 1970.
    pub timestamp: i64,
    /// How closely to look.
    pub depth: Depth,
}

/// Starts a verification of the backups of a run.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<JobId, RequestError>")]
pub struct VerifyBackup {
    /// What is verified.
    pub subject: VerifySubject,
    /// How long the request waits.
    pub wait: PlanWait,
}

/// Asks how a verification stands.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<VerificationStatus, RequestError>")]
pub struct GetVerification(pub JobId);

/// Cancels a verification.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub struct CancelVerification(pub JobId);

/// How a verification ended: with one report, unless it found nothing out.
pub type VerifyResult = JobResult<RestoreSnapshot, Verification>;

/// A verification at one moment.
#[derive(Clone, Debug)]
pub struct VerificationStatus {
    /// What is verified.
    pub subject: VerifySubject,
    /// Its progress.
    pub job: RunningJob,
    /// Its state; one that found damage did what it was asked.
    pub state: Status,
    /// Why it failed.
    pub error: Option<String>,
    /// What it found, when it has ended.
    pub found: Option<Verification>,
}

impl VerificationStatus {
    /// One that goes on.
    #[must_use]
    pub fn running(subject: VerifySubject, snapshot: JobSnapshot<RestoreSnapshot>) -> Self {
        Self { subject, job: snapshot.progress, state: Status::Running, error: None, found: None }
    }

    /// One that has ended.
    #[must_use]
    pub fn ended(subject: VerifySubject, result: &VerifyResult) -> Self {
        Self {
            state: result.end.status(),
            error: result.end.error(),
            found: result.reports.first().cloned(),
            ..Self::running(subject, result.snapshot.clone())
        }
    }
}
