//! The engine: one backup of one namespace over a set of partitions, one restore of the files of a folder, in parts.
//!
//! A run is begun, its work is handed out piece by piece, and it is finished; who hands out and who works is the caller's
//! business. Nothing here knows of actors.
//!
//! | | backup | restore |
//! |---|---|---|
//! | the run, shared by its workers | [`BackupRun`] | [`ChainRestore`], the links of a chain one after the other |
//! | the books, owned by one | [`PartitionQueue`] of [`Batch`]es, with a [`NodeLoad`] | [`FileQueue`] of [`FileTask`]s |
//! | a worker | [`Scanner`]: a batch at a time, of any run | [`RestoreWorker`]: a file at a time, of one run |
//! | what the runs of a job share | [`BackupLimits`], [divided](BackupLimits::divide) among its namespaces | [`RestoreLimits`] |
//!
//! Scanners turn the records of a batch into blocks of .asb text; the run's file writers compress, encrypt and store the
//! blocks. Restore workers read files in blocks of whole records and turn them into batches of rows per node, which are
//! sent and whose answers are counted. A scanner that panics loses its batch only: [`PartitionQueue::lost`] hands it out
//! again from where its last block ended. A restore worker that panics fails its run, for nobody knows which of its rows
//! were sent.
//!
//! Everything runs on a multi-threaded runtime. To end a run early, cancel it: a future that is dropped cannot clean up
//! behind itself.

mod answered;
mod backup;
mod blocks;
pub mod catalog;
mod checkpoint;
mod claim;
mod claimant;
mod cpu;
mod cursors;
mod decided;
mod error;
mod estimate;
mod fault;
mod files;
mod folder;
mod inspect;
mod keys;
mod limiter;
mod limits;
mod links;
mod manifest;
mod metadata;
mod nodes;
mod outcome;
mod own_claim;
mod plan;
mod progress;
mod queue;
mod reading;
mod restore;
mod restore_worker;
mod rows;
mod scanner;
mod selection;
mod sender;
mod sums;
mod validation;
mod verify;
mod writer;

pub use answered::{ChainPosition, FilePosition};
pub use backup::{BackupReport, BackupRun};
pub use claim::Owner;
pub use error::EngineError;
#[cfg(feature = "faults")]
pub use fault::Fault;
pub use files::{
    FileQueue, FileTask, FileTaskId, FoundBackup, FoundBackups, find_backups, find_metadata, namespace_of,
};
pub use folder::{discard, find_unfinished, observe_claim, random_id};
pub use inspect::{FileReport, FolderReport, inspect};
pub use keys::KeyRing;
pub use limits::{BackupLimits, NamespaceLimits, RestoreLimits};
pub use links::{Folder, LinkError, links_of};
pub use manifest::{open as unseal, seal};
pub use metadata::{METADATA_FILE, Metadata};
pub use plan::{BackupPlan, PartitionChoice, RestorePlan};
pub use progress::{BackupProgress, BackupSnapshot, RestoreProgress, RestoreSnapshot};
pub use queue::{Batch, BatchEnd, BatchId, NodeLoad, PartitionQueue};
pub use reading::ReadMarks;
pub use restore::{ChainRestore, Link, RestoreReport};
pub use restore_worker::RestoreWorker;
pub use scanner::Scanner;
pub use validation::{Conflicts, Validation};
pub use verify::{Depth, Verdict, Verification, VerifiedBackup, verify};
