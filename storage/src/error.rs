//! What was done to what, and why it failed.

use std::fmt;
use std::io;

use crate::path::InvalidPath;

/// A failed call on a storage. One line: `cannot write /backups/a/b.asb: No space left on device (os error 28)`.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {place}: {kind}")]
pub struct StorageError {
    /// What was being done.
    pub verb: Verb,
    /// To what: the full name as its owner knows it (a file path, a bucket and a key), not only the path inside
    /// the storage.
    pub place: String,
    /// Why it failed.
    pub kind: ErrorKind,
}

impl StorageError {
    /// A failure of `verb` on `place`.
    pub fn new(verb: Verb, place: impl Into<String>, kind: impl Into<ErrorKind>) -> Self {
        Self { verb, place: place.into(), kind: kind.into() }
    }

    /// Whether the same call may succeed a while later, with nobody doing anything about it.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Io(_) | ErrorKind::Unavailable(_))
    }

    /// Whether the object does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self.kind, ErrorKind::NotFound)
    }

    /// Whether the storage has no room left: a full disk or an exhausted quota.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.kind, ErrorKind::Full(_))
    }
}

/// Why a call on a storage failed.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// There is no such object.
    #[error("it does not exist")]
    NotFound,
    /// A folder stands where the object should be, or a file where its folder should be.
    #[error("a file or a folder of that name stands in the way")]
    AlreadyExists,
    /// The disk is full or a quota is used up.
    #[error(transparent)]
    Full(io::Error),
    /// The process may not do this here, or the file system is read-only.
    #[error(transparent)]
    Permission(io::Error),
    /// The path cannot name an object of this storage.
    #[error(transparent)]
    InvalidPath(#[from] InvalidPath),
    /// A small object was asked for, and the object is larger than the caller's limit.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// The caller's limit, in bytes.
        limit: usize,
    },
    /// An object store refuses what was asked whoever asks again: the reason, and what to do about it, on one line.
    #[error("{reason}: {remedy}")]
    Refused {
        /// What the provider says.
        reason: String,
        /// What its owner can do.
        remedy: String,
    },
    /// An object store cannot do it now: it is busy or out of reach, and stayed so as long as it was tried.
    #[error("{0}")]
    Unavailable(String),
    /// The object lies in an archive: it must be brought back before it can be read.
    #[error(
        "it is archived ({tier}): bring it back to a class or tier that can be read at once, then try again"
    )]
    Archived {
        /// The class or tier it lies in.
        tier: String,
    },
    /// The object was replaced while it was read.
    #[error("it was replaced while it was read")]
    Changed,
    /// Anything else.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for ErrorKind {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
                Self::AlreadyExists
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(error),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Permission(error),
            _ => Self::Io(error),
        }
    }
}

/// What was being done to an object or a folder when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Beginning, filling or committing a new object.
    Write,
    /// Opening or reading an object.
    Read,
    /// Listing a folder.
    List,
    /// Deleting an object or a folder.
    Delete,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::List => "list",
            Self::Delete => "delete",
        })
    }
}
