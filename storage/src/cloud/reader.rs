//! Reading an object.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};

use super::bucket::{Answer, Body, Bucket, Failure, VersionRange};
use super::place::{Place, no_answer};
use crate::{ByteRange, ErrorKind, ObjectReader, Result, Verb};

/// An object being read. When the bytes break off, the rest is asked for, of the same version of the object.
#[derive(Debug)]
pub(super) struct CloudReader<B: Bucket> {
    place: Arc<Place<B>>,
    key: String,
    /// The version that is read.
    version: String,
    size: u64,
    /// The offset of the next byte to come.
    next: u64,
    /// The offset after the last.
    end: u64,
    body: Option<Body>,
    /// Bytes that came and were not yet taken.
    chunk: Bytes,
    /// How often in a row the bytes broke off.
    failed: u32,
}

impl<B: Bucket> CloudReader<B> {
    pub async fn open(place: Arc<Place<B>>, key: String, range: ByteRange) -> Result<Self> {
        let head = place.ask(Verb::Read, &key, place.patience().answer, || place.bucket().head(&key)).await?;
        if let Some(tier) = head.archived {
            return Err(place.failure(Verb::Read, &key, ErrorKind::Archived { tier }));
        }
        let end = range.end.unwrap_or(head.size).min(head.size);
        let next = range.start.min(end);
        Ok(Self {
            place,
            key,
            version: head.version,
            size: head.size,
            next,
            end,
            body: None,
            chunk: Bytes::new(),
            failed: 0,
        })
    }

    /// Makes sure that there are bytes to take, unless all are taken.
    async fn fill(&mut self) -> Result<()> {
        while self.chunk.is_empty() && self.next < self.end {
            if self.body.is_none() {
                let range = VersionRange { version: &self.version, start: self.next, end: self.end };
                let read = || self.place.bucket().read(&self.key, Some(range));
                let answer = self.place.patience().answer;
                self.body = Some(self.place.ask(Verb::Read, &self.key, answer, read).await?);
            }
            match self.arrive().await {
                Ok(chunk) => {
                    self.next += chunk.len() as u64;
                    self.chunk = chunk;
                    self.failed = 0;
                }
                Err(Failure { kind, retry_after }) => {
                    self.body = None;
                    self.failed += 1;
                    let patience = self.place.patience();
                    if !matches!(kind, ErrorKind::Unavailable(_)) || self.failed >= patience.tries {
                        return Err(self.place.failure(Verb::Read, &self.key, kind));
                    }
                    sleep(patience.wait(self.failed, retry_after)).await;
                }
            }
        }
        Ok(())
    }

    /// The next bytes of the body.
    async fn arrive(&mut self) -> Answer<Bytes> {
        let limit = self.place.patience().answer;
        let Some(body) = &mut self.body else { return Ok(Bytes::new()) };
        match timeout(limit, body.chunks.next()).await {
            Ok(Some(Ok(chunk))) if chunk.len() as u64 <= self.end - self.next => Ok(chunk),
            Ok(Some(Ok(_))) => {
                Err(ErrorKind::Unavailable("more bytes came than were asked for".into()).into())
            }
            Ok(Some(Err(failure))) => Err(failure),
            Ok(None) => {
                let missing = self.end - self.next;
                Err(ErrorKind::Unavailable(format!("the answer broke off {missing} bytes before its end"))
                    .into())
            }
            Err(_) => Err(no_answer(limit).into()),
        }
    }
}

#[async_trait]
impl<B: Bucket> ObjectReader for CloudReader<B> {
    async fn read(&mut self, buffer: &mut Vec<u8>, max: usize) -> Result<usize> {
        let mut read = 0;
        while read < max {
            self.fill().await?;
            let taken = self.chunk.split_to(self.chunk.len().min(max - read));
            if taken.is_empty() {
                break;
            }
            buffer.extend_from_slice(&taken);
            read += taken.len();
        }
        Ok(read)
    }

    fn size(&self) -> u64 {
        self.size
    }
}
