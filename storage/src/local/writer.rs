//! Writing a large object.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinHandle;

use super::temporary::Temporary;
use super::{blocking, failure, stopped};
use crate::{ObjectWriter, Result, Verb};

/// How many bytes are written before the disk is told to begin with them: large enough that the telling costs nothing,
/// small enough that little is left for the sync at the end.
const EARLY_WRITE_BACK: u64 = 8 << 20;

/// A new object of a local folder. One block is on its way to the kernel while the caller fills the next.
#[derive(Debug)]
pub(super) struct LocalWriter {
    target: PathBuf,
    temporary: Temporary,
    file: Arc<File>,
    /// The block on its way; gives back its emptied buffer.
    pending: Option<JoinHandle<io::Result<Vec<u8>>>>,
    /// Bytes accepted.
    written: u64,
    /// Bytes that the disk was told to begin with.
    begun: u64,
    failed: bool,
}

impl LocalWriter {
    /// Begins the object `target`. Blocks.
    pub(super) fn create(target: &Path) -> io::Result<Self> {
        let (temporary, file) = Temporary::beside(target)?;
        Ok(Self {
            target: target.to_path_buf(),
            temporary,
            file: Arc::new(file),
            pending: None,
            written: 0,
            begun: 0,
            failed: false,
        })
    }

    /// Waits for the block on its way; returns an empty buffer.
    async fn settle(&mut self) -> Result<Vec<u8>> {
        let fail = |error| Err(failure(Verb::Write, &self.target)(error));
        if self.failed {
            return fail(io::Error::other("an earlier block could not be written"));
        }
        let Some(pending) = &mut self.pending else { return Ok(Vec::new()) };
        let result = pending.await.unwrap_or_else(|error| Err(stopped(error)));
        self.pending = None;
        result.or_else(|error| {
            self.failed = true;
            fail(error)
        })
    }
}

#[async_trait]
impl ObjectWriter for LocalWriter {
    async fn write(&mut self, block: &mut Vec<u8>) -> Result<()> {
        let spare = self.settle().await?;
        if block.is_empty() {
            return Ok(());
        }
        let mut block = std::mem::replace(block, spare);
        self.written += block.len() as u64;
        let begin = if self.written - self.begun >= EARLY_WRITE_BACK {
            let from = std::mem::replace(&mut self.begun, self.written);
            Some((from, self.written - from))
        } else {
            None
        };
        let file = Arc::clone(&self.file);
        self.pending = Some(tokio::task::spawn_blocking(move || {
            (&*file).write_all(&block)?;
            if let Some((from, length)) = begin {
                begin_write_back(&file, from, length);
            }
            block.clear();
            Ok(block)
        }));
        Ok(())
    }

    fn written(&self) -> u64 {
        self.written
    }

    async fn commit(mut self: Box<Self>) -> Result<u64> {
        self.settle().await?;
        let Self { target, temporary, file, written, .. } = *self;
        blocking(Verb::Write, target, move |target| {
            file.sync_all()?;
            temporary.replace(target)?;
            Ok(written)
        })
        .await
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        // The block on its way is given up too; whether it could be written no longer matters.
        let _ = self.settle().await;
        let Self { target, temporary, file, .. } = *self;
        blocking(Verb::Delete, target, move |_| {
            temporary.delete()?;
            // The last close frees the space, which takes its time.
            drop(file);
            Ok(())
        })
        .await
    }
}

/// Tells the disk to begin with bytes that were just written. Without it the kernel may keep them for half a minute, and
/// the sync at the end waits for all of them at once.
///
/// The advice means "not needed again", on which Linux begins to write dirty pages and drops clean ones. Right after the
/// write all of them are dirty, so they stay in the page cache.
#[cfg(target_os = "linux")]
fn begin_write_back(file: &File, from: u64, length: u64) {
    // An advice cannot fail in a way that matters: the sync at the end reports the disk's errors.
    let _ = rustix::fs::fadvise(file, from, std::num::NonZeroU64::new(length), rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn begin_write_back(_: &File, _: u64, _: u64) {}
