//! The actors that own what lives.
//!
//! [`SupervisorActor`] owns one routine actor per configured routine, one [`BackupJobActor`] per backup run and one
//! [`RestoreJobActor`] per restore, and is the only one that others talk to, with the typed [`messages`]. Every actor's file begins
//! with a table of what it hears.
//!
//! ```text
//!              messages                    StartRun, RunEnded
//!  HTTP, CLI ────────────→ SupervisorActor ←────────────────── RoutineActor  (schedules, admission, retention)
//!                             │      ↑ JobEnded
//!                             ↓      │
//!              BackupJobActor, RestoreJobActor  (queues, progress)
//!                   ↑ TakeBatch, TakeFile      ↑ ScanPartitions, ReadFiles
//!                workers                     driver                 tasks of the multi-threaded runtime
//! ```
//!
//! Actors only keep the books, on an arbiter of their own. The work itself runs on the multi-threaded runtime that the
//! supervisor is given: a driver per job, which does one step after the other, and workers, which ask their job's actor
//! for partition batches or files. A worker that panics loses its batch, which is read again; a job or a routine whose
//! actor or driver panics ends as failed, and nothing else does.

mod backup_job;
mod backup_run;
mod clock;
mod config;
mod job;
pub mod messages;
mod metrics;
mod restore_job;
mod restore_run;
mod routine;
mod run_error;
mod settings;
mod shared;
mod supervise;
mod supervisor;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use backup_job::BackupJobActor;
pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{ConfigSource, Configuration, Transaction};
pub use messages::*;
pub use restore_job::RestoreJobActor;
pub use supervisor::{Service, SupervisorActor, serve, supervise};
