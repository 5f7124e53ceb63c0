//! The actors that own what lives.
//!
//! [`SupervisorActor`] owns one [`BackupJobActor`] per backup and one [`RestoreJobActor`] per restore, and is the only
//! one that others talk to:
//!
//! | message | answer |
//! |---|---|
//! | [`StartBackup`], [`StartRestore`] | the new job's [`JobId`] |
//! | [`GetJob`] | a [`JobStatus`]: its counters, and how it ended |
//! | [`WaitForJob`] | how it ended, when it has |
//! | [`CancelJob`] | whether there was something to cancel |
//!
//! Actors only keep the books, on an arbiter of their own. The work itself runs on the multi-threaded runtime that the
//! supervisor is given.

mod backup_job;
mod job;
mod restore_job;
mod supervisor;

pub use backup_job::{BackupJobActor, StartBackup};
pub use job::{CancelJob, GetJob, JobActor, JobCounters, JobEnd, JobId, JobStatus, Progress, WaitForJob};
pub use restore_job::{RestoreJobActor, StartRestore};
pub use supervisor::{SupervisorActor, supervise};
