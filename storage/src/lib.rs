//! Where backups live: objects (whole files) in folders, behind one trait.
//!
//! | module | what it holds |
//! |---|---|
//! | [`storage`] | [`Storage`], [`ObjectWriter`], [`ObjectReader`]: what every storage can do, and what it promises |
//! | [`path`] | [`ObjectPath`]: the name of an object or a folder inside a storage |
//! | [`error`] | [`StorageError`]: what was done to what, and why it failed |
//! | [`local`] | [`Local`]: a folder of this machine |
//! | [`open`](mod@open) | [`open()`]: the storage that a configuration describes |

mod azure;
mod cloud;
pub mod error;
mod gcs;
pub mod local;
pub mod open;
pub mod path;
pub mod s3;
pub mod storage;

pub use cloud::patience::Patience;
pub use error::{ErrorKind, StorageError, Verb};
pub use local::Local;
pub use open::{open, open_with};
pub use path::{InvalidPath, ObjectPath};
pub use storage::{ByteRange, Listing, ObjectInfo, ObjectReader, ObjectWriter, Storage};

/// The result of every call of this crate.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;
