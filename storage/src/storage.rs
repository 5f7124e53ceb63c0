//! What every storage can do, and what it promises.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::{ObjectPath, Result};

/// A place that keeps objects: whole files that appear at once, under a path, and never change in part.
///
/// Folders are not things of their own: they are there when something lies below them. A storage may list folders
/// that have become empty.
#[async_trait]
pub trait Storage: Debug + Send + Sync {
    /// The storage in a message: `local folder /backups`.
    fn describe(&self) -> String;

    /// Whether each object takes a request over a network, so that fewer and larger ones are better.
    fn is_remote(&self) -> bool {
        true
    }

    /// Whether backups can be written here and read, asked without a trace.
    async fn probe(&self) -> Result<()> {
        self.list(&ObjectPath::root(), false).await.map(drop)
    }

    /// Begins a new object. Nothing of it is visible under `path` before [`ObjectWriter::commit`], which replaces
    /// what is there.
    async fn create(&self, path: &ObjectPath) -> Result<Box<dyn ObjectWriter>>;

    /// Opens the bytes `range` of an object ([`ByteRange::ALL`] for all). A range that begins at or after the end of
    /// the object is empty.
    async fn open(&self, path: &ObjectPath, range: ByteRange) -> Result<Box<dyn ObjectReader>>;

    /// Writes a small object at once, in place of what is there. When it returns, the object is durable.
    async fn put(&self, path: &ObjectPath, content: &[u8]) -> Result<()>;

    /// Writes a small object unless there is one already, and says whether it did. Of several callers at the same
    /// time, exactly one gets `true`.
    async fn put_if_absent(&self, path: &ObjectPath, content: &[u8]) -> Result<bool>;

    /// Reads a small object; one larger than `limit` bytes is an error, not a large allocation.
    async fn get(&self, path: &ObjectPath, limit: usize) -> Result<Vec<u8>>;

    /// Lists what is below the folder `prefix`: everything if `recursive`, else only its own objects and the folders
    /// directly below. A folder that does not exist is empty.
    async fn list(&self, prefix: &ObjectPath, recursive: bool) -> Result<Listing>;

    /// Deletes the object `prefix` and all that is below the folder `prefix`; returns how many objects that was.
    /// What does not exist is no error.
    ///
    /// Not atomic: a caller for whom one object stands for the others deletes that one first.
    async fn delete_prefix(&self, prefix: &ObjectPath) -> Result<u64>;

    /// Deletes what writers that never ended (a crash, a power cut) left below `prefix` and nobody touched for
    /// `older_than`; returns how many unfinished objects that was. Such leftovers are never listed or read.
    async fn delete_unfinished(&self, prefix: &ObjectPath, older_than: Duration) -> Result<u64>;
}

/// An object being written. Dropping it without [`commit`](Self::commit) leaves nothing behind on a local storage; on
/// an object store call [`abort`](Self::abort), for a drop cannot wait for the network.
#[async_trait]
pub trait ObjectWriter: Debug + Send {
    /// Appends a block. It takes the bytes and leaves `block` empty, perhaps with the capacity of an earlier block, so
    /// that a caller who fills it again allocates nothing.
    ///
    /// Bytes may still be on their way when it returns; an error of theirs is returned by the next call or by
    /// `commit`. After an error the writer only returns errors.
    async fn write(&mut self, block: &mut Vec<u8>) -> Result<()>;

    /// Bytes accepted so far.
    fn written(&self) -> u64;

    /// Makes the object durable, then visible; returns its size in bytes. On an error nothing is left behind. If the
    /// returned future is dropped before its end, the object may or may not appear; it is whole if it does.
    async fn commit(self: Box<Self>) -> Result<u64>;

    /// Gives up: nothing is left behind.
    async fn abort(self: Box<Self>) -> Result<()>;
}

/// An object being read.
#[async_trait]
pub trait ObjectReader: Debug + Send {
    /// Appends the next bytes to `buffer`, at most `max`; returns how many, 0 at the end of the range only (or if
    /// `max` is 0). `buffer` grows to hold `max` more bytes. If the returned future is dropped before its end, or on
    /// an error, the content of `buffer` is not to be used and the reader neither.
    async fn read(&mut self, buffer: &mut Vec<u8>, max: usize) -> Result<usize>;

    /// The size of the whole object in bytes, whatever range is read.
    fn size(&self) -> u64;
}

/// Which bytes of an object to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// The offset of the first byte.
    pub start: u64,
    /// The offset after the last byte; the object's end if none.
    pub end: Option<u64>,
}

impl ByteRange {
    /// The whole object.
    pub const ALL: Self = Self { start: 0, end: None };

    /// From `start` to the end of the object.
    #[must_use]
    pub fn starting_at(start: u64) -> Self {
        Self { start, end: None }
    }
}

impl From<std::ops::Range<u64>> for ByteRange {
    fn from(range: std::ops::Range<u64>) -> Self {
        Self { start: range.start, end: Some(range.end) }
    }
}

/// What lies below a folder, both lists sorted by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The objects.
    pub objects: Vec<ObjectInfo>,
    /// The folders directly below, if the listing is not recursive; else none.
    pub folders: Vec<ObjectPath>,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its path from the root of the storage.
    pub path: ObjectPath,
    /// Its size in bytes.
    pub size: u64,
    /// When it was committed, as far as the storage knows.
    pub modified: SystemTime,
    /// The archive class or tier of an object store that it cannot be read from as it is.
    pub archived: Option<String>,
    /// The CRC-32C of its content, by a store that lists it (Google).
    pub crc32c: Option<u32>,
}
