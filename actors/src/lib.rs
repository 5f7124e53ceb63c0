//! The actors that own what lives.
//!
//! [`SupervisorActor`] owns one routine actor per configured routine and one job actor per backup or restore, and is the only
//! one that others talk to, with the typed [`messages`]. Every actor's file begins with a table of its messages.
//!
//! ```text
//!              messages                    StartRun, RunEnded
//!  HTTP, CLI ────────────→ SupervisorActor ←────────────────── RoutineActor  (schedules, admission, retention)
//!                             │      ↑ JobEnded
//!                             ↓      │
//!       BackupJobActor, RestoreJobActor, VerifyJobActor = JobActor<…>  (state, batches, progress)
//!                   ↑ TakeBatch      ↑ BeginStage, EndStage
//!                workers           steps                tasks of the multi-threaded runtime
//! ```
//!
//! Actors only keep state, on an arbiter of their own. The work itself runs on the multi-threaded runtime that the
//! supervisor is given: the steps of a job, one after the other, and workers, which ask their job's actor for partition
//! batches or files. A worker that panics loses its batch, which is read again; a job or a routine whose actor or steps
//! panic ends as failed, and nothing else does.

mod clock;
mod config;
mod job;
mod journal;
pub mod messages;
mod metrics;
mod routine;
mod run_error;
mod settings;
mod shared;
mod supervise;
mod supervisor;
mod suspects;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use clock::{Clock, ManualClock, SystemClock};
pub use config::{ConfigSource, Configuration, Transaction};
pub use journal::Journal;
pub use messages::*;
pub use supervisor::{Service, SupervisorActor, serve, supervise};
