//! What a user says about a backup or a restore, as types: a value that exists is a valid one.
//!
//! The policies are the documents of the configuration file and of the REST API 3.5.0 (schemas `dto.BackupPolicy`,
//! `dto.RestorePolicy` and those they name), key by key; the command line fills the same documents. Their `check`
//! returns the settings to work with, all defaults filled in, or all [`Problems`] at once, each with its path.
//!
//! | module | what it holds |
//! |---|---|
//! | [`backup_policy`] | [`BackupPolicy`] and its [`BackupSettings`] |
//! | [`restore_policy`] | [`RestorePolicy`] and its [`RestoreSettings`] |
//! | [`compression`] [`encryption`] | how the files of a backup are packed: [`Compression`], [`Encryption`] |
//! | [`retention`] [`retry`] | how long backups are kept, and what is tried again: [`Retention`], [`Retry`] |
//! | [`namespace`] [`partitions`] | what is taken: [`Namespace`], [`NamespaceMap`], [`PartitionFilter`] |
//! | [`rate`] [`size`] [`timestamp`] | [`Bandwidth`], [`RecordRate`], [`SizeMb`], [`Timestamp`] |
//! | [`problem`] | [`Problem`], [`Problems`], [`InvalidValue`]: what is wrong, where, and what would be right |

pub mod backup_policy;
pub mod compression;
pub mod encryption;
pub mod namespace;
pub mod partitions;
pub mod problem;
pub mod rate;
pub mod restore_policy;
pub mod retention;
pub mod retry;
pub mod size;
pub mod timestamp;

mod check;
mod text;

pub use backup_policy::{BackupPolicy, BackupSettings};
pub use compression::{Compression, CompressionMode, CompressionPolicy, RestoreCompressionPolicy};
pub use encryption::{Cipher, Encryption, EncryptionMode, EncryptionPolicy, KeySource};
pub use namespace::{Namespace, NamespaceMap};
pub use partitions::PartitionFilter;
pub use problem::{InvalidValue, Problem, Problems};
pub use rate::{Bandwidth, RecordRate};
pub use restore_policy::{Existing, RestorePolicy, RestoreSettings};
pub use retention::{Retention, RetentionPolicy};
pub use retry::{Retry, RetryPolicy};
pub use size::SizeMb;
pub use timestamp::Timestamp;
