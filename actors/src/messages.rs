//! What others may ask the [`SupervisorActor`](crate::SupervisorActor); nobody else is talked to from outside.
//!
//! | module | messages |
//! |---|---|
//! | [`backups`] | [`TriggerBackup`], [`CancelBackups`], [`PinBackup`], [`DeleteBackup`], [`GetRoutineState`], [`ListBackups`], [`GetClusterConfiguration`] |
//! | [`restores`] | [`RestorePath`], [`RestoreToTime`], [`GetRestore`], [`ListRestores`], [`CancelRestore`] |
//! | [`verifications`] | [`VerifyBackup`], [`GetVerification`], [`CancelVerification`] |
//! | [`configuration`] | [`GetConfig`], [`ChangeConfig`], [`ReloadConfig`] |
//! | [`system`] | [`CheckReadiness`], [`Subscribe`], [`RenderMetrics`], [`Shutdown`] |
//! | [`jobs`] | single jobs of the command line: [`StartBackup`], [`StartRestore`], [`GetJob`], [`WaitForBackup`], [`WaitForRestore`], [`CancelJob`], [`SuspendJob`] |

pub mod backups;
pub mod configuration;
pub mod jobs;
pub mod restores;
pub mod system;
pub mod verifications;

pub use backups::{
    BackupLists, CancelBackups, DeleteBackup, GetClusterConfiguration, GetRoutineState, ListBackups,
    PendingRetry, PinBackup, RoutineBackups, RoutineState, RunningJob, TriggerBackup,
};
pub use configuration::{ChangeConfig, ConfigChange, ConfigSnapshot, Edit, GetConfig, ReloadConfig};
pub use jobs::{
    BackupResult, CancelJob, GetJob, JobCounters, JobEnd, JobId, JobResult, JobSnapshot, RestoreResult,
    StartBackup, StartRestore, SuspendJob, WaitForBackup, WaitForRestore,
};
pub use restores::{
    CancelRestore, GetRestore, ListRestores, PlanWait, RestorePath, RestoreStatus, RestoreToTime, Status,
    StatusFilter,
};
pub use system::{CheckReadiness, Event, Readiness, RenderMetrics, Shutdown, Subscribe};
pub use verifications::{
    CancelVerification, GetVerification, VerificationStatus, VerifyBackup, VerifyResult, VerifySubject,
};

/// Why a request was not carried out; one line for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// What the request is about does not exist.
    #[error("{what} {name} not found")]
    NotFound {
        /// `routine`, `cluster`, `restore job`, …
        what: &'static str,
        /// Which.
        name: String,
    },
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// A running job conflicts with the request.
    #[error("{0}")]
    Conflict(String),
    /// The service is stopping and takes no new work.
    #[error("the service is stopping")]
    Stopping,
    /// The request is right, but the service could not do it: storage that cannot be read, a configuration that cannot
    /// be written.
    #[error("{0}")]
    Failed(String),
}

impl RequestError {
    /// That `what` named `name` does not exist.
    pub fn not_found(what: &'static str, name: impl std::fmt::Display) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }
}
