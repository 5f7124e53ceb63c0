//! The catalog of the backups in a storage: what there is, what a restore to a point in time needs, and what is to be
//! deleted. The storage alone knows; nothing else is kept but a cache.
//!
//! ```text
//! {storage}/{routine}/backup/1704110400000/                       a run: all namespaces at one time, in ms since 1970
//!                     │      │             data/test/0.asb …
//!                     │      │             data/test/metadata.yaml       written last: now the backup of `test` exists
//!                     │      │             data/other/…
//!                     │      │             configuration/aerospike_0.conf …   of the nodes of the cluster
//!                     │      1704196800000_2024-01-02T12-00-00/          timestamp-format: the time for people, too
//!                     incremental/1704114000000/data/test/…
//!                     .abs-lease/lease-1                          the claim of the process that works on the routine
//! ```
//!
//! Other versions of Aerospike Backup Service lay runs out in other ways, and they are found as well, because a backup
//! is looked for by its metadata.yaml, wherever below the folder of its run that is: without `data/` (before 0.3), with
//! a folder per attempt (3.7). Before 3.0 a routine that kept only its last full backup wrote it without a time
//! (`{routine}/backup/data/test`, before that `{routine}/backup/test`); the time is then the one in metadata.yaml, and
//! the folder of the namespace counts as the run. Files that are nobody's are left alone.
//!
//! | module | what it holds |
//! |---|---|
//! | [`layout`] | [`BackupKind`], [`run_folder`], [`namespace_folder`]: the names above |
//! | [`backup`] | [`Backup`], [`Unreadable`], [`CatalogError`]: what is found, or not |
//! | [`listing`] | [`Catalog::list`], [`Catalog::last`], and how few requests they take |
//! | [`chain`] | [`Catalog::chain`], [`Catalog::foundations`]: what builds on what |
//! | [`suspects`] | [`Catalog::mark_suspects`]: backups that a wrong clock dated too late |
//! | [`retention`] | [`expired`]: which runs the policy keeps no longer |
//! | [`cleaning`] | [`Catalog::apply_retention`], [`Catalog::remove_run`] |
//! | [`deletion`] | [`Catalog::plan_deletion`], [`Catalog::delete_runs`]: never what is read or pinned |
//! | [`pins`] | [`Catalog::pin`], [`Catalog::unpin`] |
//! | [`sweep`] | [`Catalog::sweep`]: what crashed processes left, deleted or to be continued |
//! | [`holding`] | [`Catalog::claim_routine`]: which process works on a routine |
//! | [`configuration`] | [`Catalog::write_configuration`], [`Catalog::configurations`] |

pub mod backup;
pub mod chain;
pub mod cleaning;
pub mod configuration;
pub mod deletion;
pub mod holding;
pub mod layout;
pub mod listing;
pub mod pins;
pub mod retention;
pub mod suspects;
pub mod sweep;

#[cfg(test)]
pub(crate) mod testing;

pub use backup::{Backup, CatalogError, Listed, Moment, Unreadable};
pub use chain::{Base, Chain, ChainError, ChainTraits, Foundation, Foundations, FullDue};
pub use holding::{Attempt, Holder, RoutineClaim};
pub use layout::{BackupKind, namespace_folder, run_folder};
pub use listing::Catalog;
pub use pins::PIN_FILE;
pub use retention::expired;
pub use suspects::{MARK_FILE, Misdated};
pub use sweep::{Swept, Unfinished};

/// The result of what the catalog is asked.
pub type Result<T, E = CatalogError> = std::result::Result<T, E>;
