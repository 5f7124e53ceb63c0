//! Resumable uploads: parts in their order, and what is known of those that arrived.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Client, StatusCode, Url};

use crate::ErrorKind;
use crate::cloud::bucket::{Answer, Failure, Part};

use super::failure::{About, out_of_reach, refusal};
use super::resource::{Resource, crc32c_text, read_json};

/// How Google says that it waits for more of an upload.
const RESUME: StatusCode = StatusCode::PERMANENT_REDIRECT;

/// How Google says that an upload was canceled.
const CANCELED: u16 = 499;

/// A resumable upload.
#[derive(Clone)]
pub(crate) struct Upload(Arc<Session>);

struct Session {
    /// Whoever knows it may write to the upload: it is a secret, and needs no credentials beside it.
    url: Url,
    progress: Mutex<Progress>,
}

/// What is known of an upload.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// How many bytes are stored for sure: those of the parts whose answers were heard.
    stored: u64,
    /// The CRC32C of these bytes.
    crc: u32,
    /// Whether a part was sent whose answer was not heard, so that more may be stored than is known.
    doubtful: bool,
    /// Whether that was the last part, so that the object may be there.
    ending: bool,
    /// Whether the object is there, as it should be.
    finished: bool,
}

/// What Google says of an upload.
#[derive(Debug)]
pub(super) enum State {
    /// It waits for more; so many bytes are stored.
    Stored(u64),
    /// The object is there.
    Finished(Resource),
}

/// An object that the last part made.
#[derive(Debug)]
pub(super) struct Finished {
    pub generation: String,
    /// Whether it is what was sent.
    pub verdict: Answer<()>,
}

impl Upload {
    pub(super) fn new(url: Url) -> Self {
        Self(Arc::new(Session { url, progress: Mutex::default() }))
    }

    fn progress(&self) -> Progress {
        *self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_progress(&self, progress: Progress) {
        *self.0.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    pub(super) fn is_finished(&self, size: u64) -> bool {
        let progress = self.progress();
        progress.finished && progress.stored == size
    }

    pub(super) fn may_be_finished(&self) -> bool {
        self.progress().ending
    }

    /// Stores a part; the last part makes the object.
    pub(super) async fn store(&self, http: &Client, part: Part, bucket: &str) -> Answer<Option<Finished>> {
        let before = self.progress();
        let end = part.offset + part.bytes.len() as u64;
        if end <= before.stored && (before.finished || !part.last) {
            return Ok(None);
        }
        if part.offset != before.stored {
            return Err(out_of_order(part.offset, before.stored));
        }
        let crc = crc32c::crc32c_append(before.crc, &part.bytes);
        self.set_progress(Progress { doubtful: true, ending: part.last, ..before });

        let mut state = State::Stored(part.offset);
        if before.doubtful {
            state = self.status(http, bucket).await?;
        }
        if let State::Stored(stored) = state
            && (stored < end || part.last)
        {
            // What was stored of this part by an earlier try is not sent again.
            let skipped = stored.checked_sub(part.offset).filter(|skipped| *skipped <= end - part.offset);
            let skipped = skipped.ok_or_else(|| out_of_order(part.offset, stored))?;
            let rest = part.bytes.slice(skipped as usize..);
            state = self.send(http, stored, rest, part.last.then_some(crc), bucket).await?;
        }
        match state {
            State::Stored(stored) if stored == end && !part.last => {
                self.set_progress(Progress { stored: end, crc, ..Progress::default() });
                Ok(None)
            }
            State::Stored(stored) => {
                Err(ErrorKind::Unavailable(format!("Google stored {stored} of {end} bytes")).into())
            }
            State::Finished(object) => {
                let right = part.last && object.size == end && object.crc32c == Some(crc32c_text(crc));
                if right {
                    self.set_progress(Progress {
                        stored: end,
                        crc,
                        doubtful: false,
                        ending: true,
                        finished: true,
                    });
                }
                let verdict = right.then_some(()).ok_or_else(|| unlike(&object, end, crc));
                Ok(Some(Finished { generation: object.generation, verdict }))
            }
        }
    }

    /// Asks how much is stored.
    pub(super) async fn status(&self, http: &Client, bucket: &str) -> Answer<State> {
        self.ask(http, "bytes */*".to_owned(), Bytes::new(), None, bucket).await
    }

    /// Sends bytes that begin at `start`; the last ones with the checksum of the whole object, which Google compares
    /// before it makes the object.
    async fn send(
        &self,
        http: &Client,
        start: u64,
        bytes: Bytes,
        crc: Option<u32>,
        bucket: &str,
    ) -> Answer<State> {
        let end = start + bytes.len() as u64;
        let total = if crc.is_some() { end.to_string() } else { "*".to_owned() };
        let range = if bytes.is_empty() {
            format!("bytes */{total}")
        } else {
            format!("bytes {start}-{}/{total}", end - 1)
        };
        self.ask(http, range, bytes, crc, bucket).await
    }

    async fn ask(
        &self,
        http: &Client,
        range: String,
        bytes: Bytes,
        crc: Option<u32>,
        bucket: &str,
    ) -> Answer<State> {
        let mut request = http
            .put(self.0.url.clone())
            .header(CONTENT_RANGE, range)
            .header(CONTENT_LENGTH, bytes.len())
            .body(bytes);
        if let Some(crc) = crc {
            request = request.header("X-Goog-Hash", format!("crc32c={}", crc32c_text(crc)));
        }
        let response = request.send().await.map_err(out_of_reach)?;
        match response.status() {
            RESUME => Ok(State::Stored(stored(response.headers())?)),
            StatusCode::OK | StatusCode::CREATED => read_json(response).await.map(State::Finished),
            _ => Err(refusal(response, About::Upload, bucket).await),
        }
    }

    /// Forgets the upload and what was stored of it.
    pub(super) async fn cancel(&self, http: &Client, bucket: &str) -> Answer<()> {
        let request = http.delete(self.0.url.clone()).header(CONTENT_LENGTH, 0);
        let response = request.send().await.map_err(out_of_reach)?;
        if response.status().is_success() || response.status().as_u16() == CANCELED {
            return Ok(());
        }
        match refusal(response, About::Upload, bucket).await {
            Failure { kind: ErrorKind::NotFound, .. } => Ok(()),
            failure => Err(failure),
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upload").field(&self.progress()).finish()
    }
}

/// How many bytes are stored: `bytes=0-LAST`, or nothing when there are none.
fn stored(headers: &HeaderMap) -> Answer<u64> {
    let Some(range) = headers.get(RANGE) else { return Ok(0) };
    let last = range.to_str().ok().and_then(|range| range.rsplit('-').next()?.parse::<u64>().ok());
    last.and_then(|last| last.checked_add(1))
        .ok_or_else(|| ErrorKind::Unavailable(format!("Google answers with the range {range:?}")).into())
}

/// The upload holds more or less than it should: only a new one can help.
fn out_of_order(offset: u64, stored: u64) -> Failure {
    let text = format!("a part begins at the byte {offset}, but {stored} bytes of the upload are stored");
    ErrorKind::Io(io::Error::other(text)).into()
}

fn unlike(object: &Resource, size: u64, crc: u32) -> Failure {
    let text = format!(
        "Google stored {} bytes with the CRC32C {:?} instead of {size} with {}",
        object.size,
        object.crc32c,
        crc32c_text(crc)
    );
    ErrorKind::Unavailable(text).into()
}
