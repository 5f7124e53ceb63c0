//! The folder of a bucket that is the storage.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::Shape;
use super::bucket::{Answer, Bucket, Class, Failure, ListQuery, Page};
use super::patience::Patience;
use crate::{ErrorKind, InvalidPath, ObjectPath, Result, StorageError, Verb};

/// Requests at the same time, if the configuration does not say.
const CONNECTIONS: u32 = 100;

/// Parts of resumable uploads to Google are multiples of this, in bytes; for the others any size will do.
const PART_UNIT: u64 = 256 << 10;

/// A folder of a bucket, and how it is asked.
#[derive(Debug)]
pub(super) struct Place<B> {
    bucket: B,
    /// The beginning of all keys: empty, or with a `/` at its end.
    folder: String,
    part_size: usize,
    requests: Semaphore,
    patience: Patience,
}

impl<B: Bucket> Place<B> {
    pub fn new(bucket: B, shape: Shape<'_>, patience: Patience) -> Self {
        Self {
            bucket,
            folder: if shape.folder.is_empty() { String::new() } else { format!("{}/", shape.folder) },
            part_size: shape.part_size.next_multiple_of(PART_UNIT) as usize,
            requests: Semaphore::new(shape.connections.unwrap_or(CONNECTIONS) as usize),
            patience,
        }
    }

    pub fn bucket(&self) -> &B {
        &self.bucket
    }

    /// The beginning of all keys.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    pub fn patience(&self) -> &Patience {
        &self.patience
    }

    /// The size of the first parts of an upload, in bytes.
    pub fn part_size(&self) -> usize {
        self.part_size
    }

    /// A key as its owner writes it.
    pub fn url(&self, key: &str) -> String {
        self.bucket.place(key)
    }

    pub fn key(&self, path: &ObjectPath) -> String {
        format!("{}{path}", self.folder)
    }

    /// How the keys of all that is below a folder begin.
    pub fn folder_key(&self, path: &ObjectPath) -> String {
        if path.is_root() { self.folder.clone() } else { format!("{}{path}/", self.folder) }
    }

    /// The key of an object, which the storage itself is not.
    pub fn object_key(&self, verb: Verb, path: &ObjectPath) -> Result<String> {
        if path.is_root() {
            let reason = "it names the storage itself, not an object";
            return Err(self.failure(verb, &self.folder, InvalidPath { path: String::new(), reason }));
        }
        Ok(self.key(path))
    }

    /// The path of a key, if it can be one.
    pub fn path(&self, key: &str) -> Option<ObjectPath> {
        ObjectPath::new(key.strip_prefix(&self.folder)?).ok().filter(|path| !path.is_root())
    }

    pub fn failure(&self, verb: Verb, key: &str, kind: impl Into<ErrorKind>) -> StorageError {
        StorageError::new(verb, self.url(key), kind)
    }

    /// Stores an object at once.
    pub async fn put(&self, key: &str, content: Bytes, class: Class) -> Result<()> {
        let limit = self.patience.for_bytes(content.len());
        let put = || self.bucket.put(key, content.clone(), class, false);
        self.ask(Verb::Write, key, limit, put).await.map(drop)
    }

    /// Lists all keys that begin with `prefix` and shows them to `visit`, page by page, until it returns false. With
    /// `folders` what is below the folders there is summed up; a page has at most `limit` entries.
    pub async fn each_page(
        &self,
        verb: Verb,
        prefix: &str,
        folders: bool,
        limit: Option<i32>,
        mut visit: impl FnMut(Page) -> bool,
    ) -> Result<()> {
        let mut next: Option<String> = None;
        loop {
            let query = ListQuery { prefix, folders, page: next.as_deref(), limit };
            let mut page = self.ask(verb, prefix, self.patience.answer, || self.bucket.list(query)).await?;
            next = page.next.take();
            if !visit(page) || next.is_none() {
                return Ok(());
            }
        }
    }

    /// Makes a request until it is answered, or its failure will not pass, or patience ends. A try takes `limit` at most.
    /// What is refused is asked once more with credentials that are asked for again.
    pub async fn ask<T, F: Future<Output = Answer<T>>>(
        &self,
        verb: Verb,
        key: &str,
        limit: Duration,
        mut request: impl FnMut() -> F,
    ) -> Result<T> {
        let start = Instant::now();
        let (mut failed, mut signed_in_again) = (0, false);
        loop {
            let Failure { kind, retry_after } = match self.attempt(limit, &mut request).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if matches!(kind, ErrorKind::Refused { .. }) && !signed_in_again {
                signed_in_again = true;
                self.bucket.sign_in_again().await;
                continue;
            }
            failed += 1;
            let ends = failed >= self.patience.tries || start.elapsed() >= self.patience.give_up;
            if ends || !matches!(kind, ErrorKind::Unavailable(_)) {
                return Err(self.failure(verb, key, kind));
            }
            if failed == 2 {
                log::warn!("cannot {verb} {}: {kind}; trying again", self.url(key));
            }
            sleep(self.patience.wait(failed, retry_after)).await;
        }
    }

    /// Makes a request once; twice if it is refused, as in [`ask`](Self::ask).
    pub async fn ask_once<T, F: Future<Output = Answer<T>>>(
        &self,
        verb: Verb,
        key: &str,
        mut request: impl FnMut() -> F,
    ) -> Result<T> {
        let mut answer = self.attempt(self.patience.answer, &mut request).await;
        if matches!(&answer, Err(Failure { kind: ErrorKind::Refused { .. }, .. })) {
            self.bucket.sign_in_again().await;
            answer = self.attempt(self.patience.answer, &mut request).await;
        }
        answer.map_err(|failure| self.failure(verb, key, failure.kind))
    }

    async fn attempt<T, F: Future<Output = Answer<T>>>(
        &self,
        limit: Duration,
        request: &mut impl FnMut() -> F,
    ) -> Answer<T> {
        // It is never closed.
        let _permit = self.requests.acquire().await;
        timeout(limit, request()).await.unwrap_or_else(|_| Err(no_answer(limit).into()))
    }
}

/// That nothing came for so long.
pub(super) fn no_answer(limit: Duration) -> ErrorKind {
    ErrorKind::Unavailable(format!("no answer within {} s", limit.as_secs_f64().round()))
}
