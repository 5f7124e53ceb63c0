//! What the shared half of the object stores asks of a provider: single requests.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::ErrorKind;

/// A bucket of a provider. Each call is one try of one request (the few that need more say so): what is shared tries again,
/// waits, bounds the time and the number of requests, cuts objects into parts and puts them together, and names the
/// place of a failure. Keys are whole keys: the folder of the storage is already part of them.
///
/// Clients of SDKs are built at the first request, not before, and with their own retries switched off.
#[async_trait]
pub(crate) trait Bucket: Debug + Send + Sync + 'static {
    /// A begun upload, as the provider names it.
    type Upload: Debug + Clone + Send + Sync;

    /// What [`complete`](Self::complete) must know of a part that was stored.
    type Receipt: Debug + Send + Sync;

    /// How many parts of one upload may be on their way at the same time. With 1 they arrive in their order.
    const PARTS_IN_FLIGHT: usize;

    /// How many keys one call of [`delete`](Self::delete) takes.
    const DELETE_BATCH: usize;

    /// The bucket and a key in it as its owner writes them: `s3://bucket/key`. The bucket itself has an empty key.
    fn place(&self, key: &str) -> String;

    /// One page of the keys that begin with `prefix`; with `folders` those with a `/` behind the prefix are summed up.
    async fn list(&self, query: ListQuery<'_>) -> Answer<Page>;

    /// Stores a small object at once. With `if_absent` an object of that key stays as it is, and the answer is `false`.
    /// The provider verifies a checksum.
    async fn put(&self, key: &str, content: Bytes, class: Class, if_absent: bool) -> Answer<bool>;

    /// What is known of an object: [`ErrorKind::NotFound`] if there is none.
    async fn head(&self, key: &str) -> Answer<Head>;

    /// Reads an object: all of it, or the bytes `range` (never empty, and within the object) of one `version`.
    /// [`ErrorKind::NotFound`] if there is none, [`ErrorKind::Changed`] if that version is gone.
    async fn read(&self, key: &str, range: Option<VersionRange<'_>>) -> Answer<Body>;

    /// Begins an upload of an object of many parts. Nothing is visible before it is complete.
    async fn begin(&self, key: &str) -> Answer<Self::Upload>;

    /// Stores a part. The provider verifies a checksum of it where it can.
    async fn part(&self, key: &str, upload: &Self::Upload, part: Part) -> Answer<Self::Receipt>;

    /// Makes the object of all these parts, in their order, `size` bytes in sum. [`ErrorKind::NotFound`] if there is no
    /// such upload (any more).
    async fn complete(
        &self,
        key: &str,
        upload: &Self::Upload,
        receipts: &[Self::Receipt],
        size: u64,
    ) -> Answer<()>;

    /// Forgets an upload and its parts. One that does not exist is no error.
    async fn abort(&self, key: &str, upload: &Self::Upload) -> Answer<()>;

    /// One page of the uploads whose keys begin with `prefix` and that were never completed; always none where the
    /// provider forgets them by itself and does not tell.
    async fn uploads(&self, prefix: &str, page: Option<&str>) -> Answer<UploadPage<Self::Upload>>;

    /// Forgets the credentials, so that the next request asks for them again: they may have been replaced.
    async fn sign_in_again(&self);

    /// Deletes objects, at most [`DELETE_BATCH`](Self::DELETE_BATCH). Those that do not exist are no error.
    async fn delete(&self, keys: &[String]) -> Answer<()>;
}

/// The answer to one try of a request.
pub(crate) type Answer<T> = std::result::Result<T, Failure>;

/// Why one try of a request failed. It is tried again when its kind is [`ErrorKind::Unavailable`].
#[derive(Debug)]
pub(crate) struct Failure {
    pub kind: ErrorKind,
    /// How long the provider asks to wait before the next try.
    pub retry_after: Option<Duration>,
}

impl<K: Into<ErrorKind>> From<K> for Failure {
    fn from(kind: K) -> Self {
        Self { kind: kind.into(), retry_after: None }
    }
}

/// Of what an object is part: that decides the storage class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Backups' data.
    Data,
    /// Their metadata, claims, configurations: small, and read often.
    Metadata,
}

/// What to list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListQuery<'a> {
    /// How keys begin; a folder ends with `/`.
    pub prefix: &'a str,
    /// Whether to sum up what is below the folders below `prefix`.
    pub folders: bool,
    /// The page after this one.
    pub page: Option<&'a str>,
    /// At most so many keys; the provider's most if none.
    pub limit: Option<i32>,
}

/// A page of a listing.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub objects: Vec<Entry>,
    /// Folders, with the `/` at their ends.
    pub folders: Vec<String>,
    /// How to ask for the next page, if there is one.
    pub next: Option<String>,
}

/// An object in a listing.
#[derive(Debug)]
pub(crate) struct Entry {
    pub key: String,
    /// In bytes.
    pub size: u64,
    pub modified: SystemTime,
    /// The archive class or tier from which it cannot be read as it is.
    pub archived: Option<String>,
    /// The CRC-32C of its content, if the listing says it.
    pub crc32c: Option<u32>,
}

/// What is known of an object without reading it.
#[derive(Debug)]
pub(crate) struct Head {
    /// In bytes.
    pub size: u64,
    /// What changes when the object is replaced: an etag or a generation.
    pub version: String,
    /// The archive class or tier from which it cannot be read as it is.
    pub archived: Option<String>,
}

/// Bytes of one version of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VersionRange<'a> {
    pub version: &'a str,
    /// The offset of the first byte.
    pub start: u64,
    /// The offset after the last byte.
    pub end: u64,
}

/// The bytes that a read answers, as they arrive.
pub(crate) struct Body {
    /// How many they will be, if the provider says so.
    pub length: Option<u64>,
    pub chunks: BoxStream<'static, Answer<Bytes>>,
}

impl Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("length", &self.length).finish_non_exhaustive()
    }
}

/// A part of an upload.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Its place among the parts, from 1.
    pub number: u32,
    /// Where it begins in the object, in bytes.
    pub offset: u64,
    pub bytes: Bytes,
    /// Whether it is the last: only the last may be smaller than a part must be.
    pub last: bool,
}

/// A page of uploads that were never completed.
#[derive(Debug)]
pub(crate) struct UploadPage<U> {
    pub uploads: Vec<Unfinished<U>>,
    /// How to ask for the next page, if there is one.
    pub next: Option<String>,
}

/// An upload that was never completed.
#[derive(Debug)]
pub(crate) struct Unfinished<U> {
    pub key: String,
    pub upload: U,
    /// When it was begun, or last touched.
    pub since: SystemTime,
}
