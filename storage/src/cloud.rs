//! What all object stores share: keys, listings, tries, uploads in parts, reads that go on where they broke.
//!
//! | module | what it holds |
//! |---|---|
//! | [`bucket`] | [`Bucket`]: what a provider must do |
//! | [`patience`] | [`Patience`]: how often and how long a request is tried |
//! | [`place`] | [`Place`]: the folder of a bucket that is the storage; keys, and how it is asked |
//! | [`writer`] | [`PartWriter`]: an object of any size, in parts |
//! | [`renewable`] | [`Renewable`](renewable::Renewable): a client whose credentials can be asked for again |
//! | [`reader`] | [`CloudReader`]: an object, from wherever it broke |

pub(crate) mod bucket;
pub(crate) mod patience;
mod place;
mod reader;
pub(crate) mod renewable;
#[cfg(test)]
pub(crate) mod testing;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use self::bucket::{Answer, Body, Bucket, Class, Entry, ListQuery};
use self::patience::Patience;
use self::place::Place;
use self::reader::CloudReader;
use self::writer::PartWriter;
use crate::{
    ByteRange, ErrorKind, Listing, ObjectInfo, ObjectPath, ObjectReader, ObjectWriter, Result, Storage, Verb,
};

/// How many deletions run at the same time.
const DELETIONS: usize = 4;

/// A storage in a folder of a bucket.
#[derive(Debug)]
pub(crate) struct Cloud<B> {
    place: Arc<Place<B>>,
}

/// What of the configuration the shared half needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape<'a> {
    /// The folder, without a `/` at its ends; empty for the whole bucket.
    pub folder: &'a str,
    /// The size of the first parts of an upload, in bytes.
    pub part_size: u64,
    /// How many requests may run at the same time.
    pub connections: Option<u32>,
}

impl<B: Bucket> Cloud<B> {
    /// The storage in a folder of `bucket`.
    pub fn new(bucket: B, shape: Shape<'_>, patience: Patience) -> Self {
        Self { place: Arc::new(Place::new(bucket, shape, patience)) }
    }
}

#[async_trait]
impl<B: Bucket> Storage for Cloud<B> {
    fn describe(&self) -> String {
        self.place.url(self.place.folder()).trim_end_matches('/').to_owned()
    }

    async fn probe(&self) -> Result<()> {
        let place = &*self.place;
        let query = ListQuery { prefix: place.folder(), folders: true, page: None, limit: Some(1) };
        place.ask_once(Verb::List, place.folder(), || place.bucket().list(query)).await.map(drop)
    }

    async fn create(&self, path: &ObjectPath) -> Result<Box<dyn ObjectWriter>> {
        let key = self.place.object_key(Verb::Write, path)?;
        Ok(Box::new(PartWriter::new(Arc::clone(&self.place), key)))
    }

    async fn open(&self, path: &ObjectPath, range: ByteRange) -> Result<Box<dyn ObjectReader>> {
        let key = self.place.object_key(Verb::Read, path)?;
        Ok(Box::new(CloudReader::open(Arc::clone(&self.place), key, range).await?))
    }

    async fn put(&self, path: &ObjectPath, content: &[u8]) -> Result<()> {
        let key = self.place.object_key(Verb::Write, path)?;
        self.place.put(&key, Bytes::copy_from_slice(content), Class::Metadata).await
    }

    async fn put_if_absent(&self, path: &ObjectPath, content: &[u8]) -> Result<bool> {
        let place = &*self.place;
        let key = place.object_key(Verb::Write, path)?;
        let bytes = Bytes::copy_from_slice(content);
        let mut tries = 0;
        let put = || {
            tries += 1;
            place.bucket().put(&key, bytes.clone(), Class::Metadata, true)
        };
        let done = place.ask(Verb::Write, &key, place.patience().for_bytes(content.len()), put).await?;
        if done || tries == 1 {
            return Ok(done);
        }
        // The object that stands in the way may be ours: the answer to an earlier try was lost.
        match self.get(path, content.len()).await {
            Ok(found) => Ok(found == content),
            Err(e) if e.is_not_found() || matches!(e.kind, ErrorKind::TooLarge { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn get(&self, path: &ObjectPath, limit: usize) -> Result<Vec<u8>> {
        let place = &*self.place;
        let key = place.object_key(Verb::Read, path)?;
        let read = || async {
            let body = place.bucket().read(&key, None).await?;
            collect(body, limit).await
        };
        place.ask(Verb::Read, &key, place.patience().for_bytes(limit), read).await
    }

    async fn list(&self, prefix: &ObjectPath, recursive: bool) -> Result<Listing> {
        let place = &*self.place;
        let below = place.folder_key(prefix);
        let mut listing = Listing::default();
        place
            .each_page(Verb::List, &below, !recursive, None, |page| {
                // Keys that are no paths, such as those that end with a slash for consoles to show a folder, are nobody's.
                listing.objects.extend(page.objects.into_iter().filter_map(|entry| {
                    let Entry { key, size, modified, archived, crc32c } = entry;
                    Some(ObjectInfo { path: place.path(&key)?, size, modified, archived, crc32c })
                }));
                let folders = page.folders.iter().filter_map(|folder| place.path(folder.strip_suffix('/')?));
                listing.folders.extend(folders);
                true
            })
            .await?;
        listing.objects.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        listing.folders.sort_unstable();
        listing.folders.dedup();
        Ok(listing)
    }

    async fn delete_prefix(&self, prefix: &ObjectPath) -> Result<u64> {
        let place = &*self.place;
        let below = place.folder_key(prefix);
        let mut keys = Vec::new();
        if !prefix.is_root() {
            // Of all keys that begin so, the object's own comes first.
            let key = place.key(prefix);
            place
                .each_page(Verb::Delete, &key, true, Some(1), |page| {
                    keys.extend(
                        page.objects.iter().map(|entry| &entry.key).find(|found| **found == key).cloned(),
                    );
                    page.objects.is_empty() && page.folders.is_empty()
                })
                .await?;
        }
        place
            .each_page(Verb::Delete, &below, false, None, |page| {
                keys.extend(page.objects.into_iter().map(|entry| entry.key));
                true
            })
            .await?;
        let deletions = keys.chunks(B::DELETE_BATCH).map(|batch| {
            place.ask(Verb::Delete, &below, place.patience().answer, || place.bucket().delete(batch))
        });
        let deletions: Vec<_> = deletions.collect();
        stream::iter(deletions).buffer_unordered(DELETIONS).try_collect::<()>().await?;
        Ok(keys.len() as u64)
    }

    async fn delete_unfinished(&self, prefix: &ObjectPath, older_than: Duration) -> Result<u64> {
        let place = &*self.place;
        let below = place.folder_key(prefix);
        let answer = place.patience().answer;
        let mut deleted = 0;
        let mut next: Option<String> = None;
        loop {
            let list = || place.bucket().uploads(&below, next.as_deref());
            let page = place.ask(Verb::Delete, &below, answer, list).await?;
            for unfinished in page.uploads {
                // One that began in the future, by the provider's clock, began just now.
                if unfinished.since.elapsed().unwrap_or_default() >= older_than {
                    let abort = || place.bucket().abort(&unfinished.key, &unfinished.upload);
                    place.ask(Verb::Delete, &unfinished.key, answer, abort).await?;
                    deleted += 1;
                }
            }
            match page.next {
                Some(page) => next = Some(page),
                None => return Ok(deleted),
            }
        }
    }
}

/// All bytes of a body, at most `limit`.
async fn collect(mut body: Body, limit: usize) -> Answer<Vec<u8>> {
    let too_large = || Err(ErrorKind::TooLarge { limit }.into());
    if body.length.is_some_and(|length| length > limit as u64) {
        return too_large();
    }
    let mut content = Vec::new();
    while let Some(chunk) = body.chunks.next().await {
        let chunk = chunk?;
        if content.len() + chunk.len() > limit {
            return too_large();
        }
        content.extend_from_slice(&chunk);
    }
    match body.length {
        Some(length) if length != content.len() as u64 => Err(ErrorKind::Unavailable(format!(
            "the answer broke off after {} of {length} bytes",
            content.len()
        ))
        .into()),
        _ => Ok(content),
    }
}
