//! The engine: one backup of one namespace over a set of partitions, one restore of the files of a folder.
//!
//! Backup: [`backup()`] cuts the partitions into batches; scan workers turn the records of a batch into blocks of
//! .asb text; file writers compress, encrypt and store the blocks. Restore: [`restore()`] reads files in blocks of
//! whole records; workers turn them into batches of rows per node; senders write those and count the answers.
//! Everything runs on the caller's multi-threaded runtime and has ended when they return. To end them early, cancel
//! them: a future that is dropped cannot clean up behind itself.

mod backup;
mod blocks;
mod error;
mod inspect;

mod limiter;
mod metadata;
mod plan;
mod progress;
mod queue;
mod restore;
mod rows;
mod scanner;
mod sender;
mod writer;

pub use backup::{BackupReport, backup};
pub use error::EngineError;
pub use inspect::{FileReport, FolderReport, inspect};

pub use metadata::{METADATA_FILE, Metadata};
pub use plan::{BackupPlan, PartitionChoice, RestorePlan};
pub use progress::{BackupProgress, BackupSnapshot, RestoreProgress, RestoreSnapshot};
pub use restore::{RestoreReport, restore};
