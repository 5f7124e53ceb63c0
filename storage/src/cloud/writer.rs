//! Writing an object.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::bucket::{Bucket, Class, Part};
use super::place::Place;
use crate::{ErrorKind, ObjectWriter, Result, StorageError, Verb};

/// Parts of the same size before the size doubles: 10,000 parts, the most that S3 takes, are then enough for any object.
const PARTS_OF_A_SIZE: u32 = 1000;

/// The largest part, in bytes: what Azure takes, the least of the providers.
const LARGEST_PART: usize = 4000 << 20;

/// How long an abort waits for parts on their way: one that arrives after it would stay behind.
const STRAGGLERS: Duration = Duration::from_secs(10);

/// An object being written. What fits into one part is stored at once; more goes up in parts while it is being written, a
/// few at the same time.
///
/// At the most `PARTS_IN_FLIGHT` parts and the one being filled are in memory.
#[derive(Debug)]
pub(super) struct PartWriter<B: Bucket> {
    place: Arc<Place<B>>,
    key: String,
    upload: Option<B::Upload>,
    /// The part being filled.
    part: Vec<u8>,
    /// Its number, from 1.
    number: u32,
    /// Bytes before it.
    offset: u64,
    in_flight: JoinSet<Result<Stored<B>>>,
    receipts: Vec<(u32, B::Receipt)>,
    /// The buffer of a part that was stored, for a later one: the allocator would keep what it gets back from other
    /// threads, and take more.
    spare: Option<Vec<u8>>,
    failed: bool,
}

/// A part that was stored.
#[derive(Debug)]
struct Stored<B: Bucket> {
    number: u32,
    receipt: B::Receipt,
    buffer: Option<Vec<u8>>,
}

impl<B: Bucket> PartWriter<B> {
    pub fn new(place: Arc<Place<B>>, key: String) -> Self {
        Self {
            place,
            key,
            upload: None,
            part: Vec::new(),
            number: 1,
            offset: 0,
            in_flight: JoinSet::new(),
            receipts: Vec::new(),
            spare: None,
            failed: false,
        }
    }

    /// Fills parts with `bytes`, and sends those that are full as soon as more is to come.
    async fn fill(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let size = part_size(self.place.part_size(), self.number);
            if self.part.len() == size {
                self.send(false).await?;
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(size - self.part.len()));
            self.make_room(now.len(), size);
            self.part.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Grows the part by doubling, but not beyond its size: a small object takes little memory, a full part no more than
    /// it holds.
    fn make_room(&mut self, more: usize, size: usize) {
        let needed = self.part.len() + more;
        if needed > self.part.capacity() {
            let capacity = if self.upload.is_some() { size } else { needed.next_power_of_two().min(size) };
            self.part.reserve_exact(capacity - self.part.len());
        }
    }

    /// Sends the part being filled, when there is room for one more on its way.
    async fn send(&mut self, last: bool) -> Result<()> {
        let upload = if let Some(upload) = &self.upload {
            upload.clone()
        } else {
            let begin = || self.place.bucket().begin(&self.key);
            let upload = self.place.ask(Verb::Write, &self.key, self.place.patience().answer, begin).await?;
            self.upload.insert(upload).clone()
        };
        while self.in_flight.len() >= B::PARTS_IN_FLIGHT {
            self.settle_one().await?;
        }
        let filled = std::mem::replace(&mut self.part, self.spare.take().unwrap_or_default());
        let bytes = Bytes::from(filled);
        let part = Part { number: self.number, offset: self.offset, bytes, last };
        self.number += 1;
        self.offset += part.bytes.len() as u64;
        let (place, key) = (Arc::clone(&self.place), self.key.clone());
        self.in_flight.spawn(async move {
            let limit = place.patience().for_bytes(part.bytes.len());
            let store = || place.bucket().part(&key, &upload, part.clone());
            let receipt = place.ask(Verb::Write, &key, limit, store).await.map_err(forgotten)?;
            // Unless the client still holds the bytes.
            let buffer = part.bytes.try_into_mut().map(Vec::from).ok();
            Ok(Stored { number: part.number, receipt, buffer })
        });
        Ok(())
    }

    /// Waits for a part on its way; there may be none.
    async fn settle_one(&mut self) -> Result<()> {
        if let Some(joined) = self.in_flight.join_next().await {
            let lost = |e| self.failure(std::io::Error::other(e));
            let Stored { number, receipt, buffer } = joined.map_err(lost)??;
            self.receipts.push((number, receipt));
            self.spare = buffer.map(|mut buffer| {
                buffer.clear();
                buffer
            });
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<u64> {
        if self.upload.is_none() {
            let content = Bytes::from(std::mem::take(&mut self.part));
            let size = content.len() as u64;
            self.place.put(&self.key, content, Class::Data).await?;
            return Ok(size);
        }
        // There is always one: a full part is only sent when more comes.
        self.send(true).await?;
        while !self.in_flight.is_empty() {
            self.settle_one().await?;
        }
        self.receipts.sort_unstable_by_key(|(number, _)| *number);
        let receipts: Vec<_> = self.receipts.drain(..).map(|(_, receipt)| receipt).collect();
        if let Some(upload) = &self.upload {
            self.complete(upload, &receipts).await?;
        }
        self.upload = None;
        Ok(self.offset)
    }

    async fn complete(&self, upload: &B::Upload, receipts: &[B::Receipt]) -> Result<()> {
        let (place, size) = (&*self.place, self.offset);
        let mut tries = 0;
        let complete = || {
            tries += 1;
            place.bucket().complete(&self.key, upload, receipts, size)
        };
        // Putting thousands of parts together takes its time.
        let done = place.ask(Verb::Write, &self.key, place.patience().answer * 10, complete).await;
        match done {
            Err(e) if e.is_not_found() && tries > 1 => {
                // The upload is gone because an earlier try, whose answer was lost, completed it; or not.
                let head = place
                    .ask(Verb::Write, &self.key, place.patience().answer, || place.bucket().head(&self.key));
                if head.await?.size == size { Ok(()) } else { Err(e) }
            }
            other => other,
        }
    }

    /// Leaves nothing behind.
    async fn give_up(&mut self) -> Result<()> {
        let Some(upload) = self.upload.take() else { return Ok(()) };
        let arrive = async { while self.in_flight.join_next().await.is_some() {} };
        let _ = timeout(STRAGGLERS, arrive).await;
        self.in_flight.shutdown().await;
        abort(&self.place, &self.key, &upload).await
    }

    fn failure(&self, kind: impl Into<ErrorKind>) -> StorageError {
        self.place.failure(Verb::Write, &self.key, kind)
    }
}

/// An upload that the provider does not know any more is nothing to give up for: a new one will do.
fn forgotten(error: StorageError) -> StorageError {
    if !error.is_not_found() {
        return error;
    }
    StorageError { kind: ErrorKind::Io(io::Error::other("the provider has forgotten the upload")), ..error }
}

async fn abort<B: Bucket>(place: &Place<B>, key: &str, upload: &B::Upload) -> Result<()> {
    place.ask(Verb::Delete, key, place.patience().answer, || place.bucket().abort(key, upload)).await
}

#[async_trait]
impl<B: Bucket> ObjectWriter for PartWriter<B> {
    async fn write(&mut self, block: &mut Vec<u8>) -> Result<()> {
        if self.failed {
            return Err(self.failure(std::io::Error::other("an earlier part could not be stored")));
        }
        let result = self.fill(block).await;
        self.failed = result.is_err();
        block.clear();
        result
    }

    fn written(&self) -> u64 {
        self.offset + self.part.len() as u64
    }

    async fn commit(mut self: Box<Self>) -> Result<u64> {
        let result = if self.failed {
            Err(self.failure(std::io::Error::other("an earlier part could not be stored")))
        } else {
            self.finish().await
        };
        if result.is_err() {
            // The error of the commit is the one to report.
            let _ = self.give_up().await;
        }
        result
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.give_up().await
    }
}

impl<B: Bucket> Drop for PartWriter<B> {
    /// Tries to leave nothing behind where nobody called `abort`, because of a panic or at the end of the program.
    fn drop(&mut self) {
        let Some(upload) = self.upload.take() else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        let (place, key) = (Arc::clone(&self.place), std::mem::take(&mut self.key));
        runtime.spawn(async move { abort(&place, &key, &upload).await });
    }
}

/// The size of the part of this number (from 1), in bytes, if the first have the size `least`.
fn part_size(least: usize, number: u32) -> usize {
    let doubled = (number - 1) / PARTS_OF_A_SIZE;
    least.saturating_mul(1 << doubled.min(30)).min(LARGEST_PART.max(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_parts_are_enough_for_any_object() {
        let least = 5 << 20;
        assert_eq!((part_size(least, 1), part_size(least, 1000)), (least, least));
        assert_eq!(part_size(least, 1001), 2 * least);
        let all: u64 = (1..=10_000).map(|number| part_size(least, number) as u64).sum();
        // The largest object of S3 was 5 TB for many years.
        assert!(all > 5_000_000_000_000, "{all}");
        assert!((1..=10_000).all(|number| part_size(least, number).is_multiple_of(256 << 10)));
        assert_eq!(part_size(1 << 30, 10_000), LARGEST_PART);
    }
}
