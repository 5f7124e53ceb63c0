//! File writers: from blocks of text to the files of a backup.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use abs_asb::{Encoder, EncryptionKey, FileOrigin, FrameError, FrameWriter, Version};
use abs_config::FileHash;
use abs_storage::{ObjectPath, ObjectWriter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cpu;
use crate::error::EngineError;
use crate::fault::done;
use crate::folder::RunFolder;
use crate::limiter::limit;
use crate::limits::BackupLimits;
use crate::manifest::FileEntry;
use crate::outcome::{GRACE, Outcome};
use crate::progress::BackupProgress;
use crate::scanner::{ToWriter, recycle};
use crate::sums::Summer;

/// What the writers of a backup share.
#[derive(Debug)]
pub(crate) struct WriteJob {
    pub folder: RunFolder,
    pub namespace: String,
    pub encoder: Encoder,
    pub compression: Option<i32>,
    pub encryption: Option<EncryptionKey>,
    pub file_hash: FileHash,
    /// Bytes after which a new file begins; 0 for no limit.
    pub file_limit: u64,
    pub limits: Arc<BackupLimits>,
    pub progress: Arc<BackupProgress>,
    /// When the run is canceled, what the storage does not do within the grace goes on in the background: dropped, a file
    /// might appear that nothing deletes.
    pub outcome: Arc<Outcome>,
    /// A backup that was continued is not lost when it is canceled.
    pub continues: bool,
    /// Number of the next file.
    pub next_file: AtomicU64,
    /// How many writers there are; held while that changes, and by a checkpoint until each of them has its mark.
    pub writers: tokio::sync::Mutex<usize>,
}

impl WriteJob {
    /// Begins a file named `{prefix}_{namespace}_{n}.asb` whose text starts with the header.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        prefix: &str,
        version: Version,
        first: bool,
        epoch: u64,
    ) -> Result<AsbFile, EngineError> {
        let number = self.next_file.fetch_add(1, Relaxed);
        // What an earlier generation still writes must not replace a file of this one.
        let name = match self.folder.generation() {
            1 => format!("{prefix}_{}_{number}.asb", self.namespace),
            generation => format!("{prefix}_{}_{generation}-{number}.asb", self.namespace),
        };
        let path = self
            .folder
            .path
            .join(&name)
            .map_err(|e| EngineError::Plan(format!("the namespace makes no file name: {e}")))?;
        let origin = FileOrigin { run: self.folder.run(), name: &name };
        let is_plain = self.compression.is_none() && self.encryption.is_none();
        let frame = (!is_plain).then(|| FrameWriter::new(self.compression, self.encryption.as_ref(), origin));
        let frame =
            frame.transpose().map_err(|cause| EngineError::Frame { file: path.to_string(), cause })?;
        let mut header = Vec::with_capacity(64);
        self.encoder.header(version, first, &mut header);
        let created = self.outcome.in_time(self.folder.storage.create(&path)).await;
        let object = created.ok_or(EngineError::Canceled)??;
        self.progress.files.fetch_add(1, Relaxed);
        let sums = Summer::new(self.file_hash);
        let job = Arc::clone(self);
        Ok(AsbFile { job, epoch, path, object, frame, header: Some(header), written: 0, records: 0, sums })
    }

    /// Whether what the run has written so far is worth keeping when it fails: another attempt goes on from the last
    /// checkpoint.
    pub(crate) fn is_resumable(&self) -> bool {
        let stays = if self.outcome.is_canceled() { self.continues } else { self.outcome.is_resumable() };
        self.folder.has_checkpoint() && stays
    }

    /// Deletes everything that the run made, and waits for that. A storage that hangs does not hold up the end of a run that
    /// is canceled: the deletion goes on in the background.
    pub(crate) async fn clean_up(self: &Arc<Self>) {
        if !self.folder.is_ours() {
            return;
        }
        let job = Arc::clone(self);
        let mut discarded = tokio::spawn(async move { job.folder.discard().await });
        // A panic in it has been logged.
        while timeout(GRACE, &mut discarded).await.is_err() {
            if !self.outcome.is_canceled() {
                continue;
            }
            let answer = self.folder.storage.list(&self.folder.path, false);
            if self.folder.is_putting() || timeout(GRACE, answer).await.is_err() {
                return;
            }
        }
    }
}

/// A file being written.
pub(crate) struct AsbFile {
    job: Arc<WriteJob>,
    /// The number of checkpoints before it.
    epoch: u64,
    path: ObjectPath,
    object: Box<dyn ObjectWriter>,
    /// Compresses and encrypts; none of a plain file, and after a panic in it, which ends the file.
    frame: Option<FrameWriter>,
    /// The first lines, until the first block goes out behind them.
    header: Option<Vec<u8>>,
    written: u64,
    records: u64,
    sums: Summer,
}

impl AsbFile {
    /// Appends text of whole items and takes the buffer's contents.
    pub(crate) async fn append(&mut self, text: &mut Vec<u8>) -> Result<(), EngineError> {
        if let Some(header) = self.header.take() {
            text.splice(..0, header);
        }
        self.pack(text, FrameWriter::seal).await?;
        self.store(text).await
    }

    /// Compresses and encrypts on the pool, unless the file is plain.
    async fn pack(
        &mut self,
        text: &mut Vec<u8>,
        work: impl FnOnce(&mut FrameWriter, &mut Vec<u8>) -> Result<(), FrameError> + Send + 'static,
    ) -> Result<(), EngineError> {
        let Some(mut frame) = self.frame.take() else { return Ok(()) };
        let mut block = mem::take(text);
        let packed = cpu::run(move || {
            let result = work(&mut frame, &mut block);
            (frame, block, result)
        });
        let (frame, block, result) = packed.await?;
        (self.frame, *text) = (Some(frame), block);
        result.map_err(|cause| EngineError::Frame { file: self.path.to_string(), cause })
    }

    async fn store(&mut self, bytes: &mut Vec<u8>) -> Result<(), EngineError> {
        let length = bytes.len() as u64;
        if length > 0 {
            let paced = limit(self.job.limits.bytes.as_ref(), length);
            self.job.outcome.stop.run_until_cancelled(paced).await.ok_or(EngineError::Canceled)?;
            self.sums.update(bytes);
            self.job.outcome.in_time(self.object.write(bytes)).await.ok_or(EngineError::Canceled)??;
            self.written += length;
            self.job.progress.bytes_written.fetch_add(length, Relaxed);
        }
        Ok(())
    }

    /// Completes the file, or gives it up if that or what came before failed.
    pub(crate) async fn end(mut self, before: Result<(), EngineError>) -> Result<(), EngineError> {
        let result = match before {
            Ok(()) => self.complete().await,
            failed => failed,
        };
        let Self { job, epoch, path, object, written, records, sums, .. } = self;
        if let Err(e) = result {
            // The job's own error is the one to report.
            let _ = job.outcome.in_time(tokio::spawn(object.abort())).await;
            return Err(e);
        }
        job.folder.note(path.clone(), written);
        let mut commit = tokio::spawn(object.commit());
        if let Some(committed) = job.outcome.in_time(&mut commit).await {
            committed.map_err(|e| EngineError::Worker(e.to_string()))??;
            done("file-sealed");
            let entry = FileEntry::new(path.name().to_owned(), written, records, sums.finish());
            job.folder.seal(epoch, entry);
            return Ok(());
        }
        let storage = Arc::clone(&job.folder.storage);
        tokio::spawn(async move {
            // Only then it is known whether the file is there.
            let _ = commit.await;
            let _ = storage.delete_prefix(&path).await;
        });
        Err(EngineError::Canceled)
    }

    /// Stores what is still missing.
    async fn complete(&mut self) -> Result<(), EngineError> {
        let mut text = Vec::new();
        if self.header.is_some() {
            self.append(&mut text).await?;
            text.clear();
        }
        self.pack(&mut text, FrameWriter::finish).await?;
        self.store(&mut text).await
    }

    /// True when `more` bytes would take the file beyond the limit. A file has at least one block.
    fn is_full(&self, more: usize) -> bool {
        let limit = self.job.file_limit;
        let more = self.frame.as_ref().map_or(more as u64, |frame| frame.outstanding(more as u64));
        limit > 0 && self.header.is_none() && self.written + more > limit
    }
}

/// How many files a run writes at a time.
#[derive(Debug)]
pub(crate) struct Writers {
    /// So many from the beginning.
    pub first: usize,
    /// More when other runs of the job leave theirs, up to so many.
    pub most: usize,
    pub of_job: Arc<Semaphore>,
}

/// Writes blocks to files until there are no more blocks, or the run is stopped; then no file is left open.
pub(crate) async fn write_all(
    job: &Arc<WriteJob>,
    writers: Writers,
    full: async_channel::Receiver<ToWriter>,
    empty: async_channel::Sender<Vec<u8>>,
) {
    let Writers { first, most, of_job } = writers;
    let mut tasks = JoinSet::new();
    let mut begun = 0..most;
    *job.writers.lock().await = first.min(most);
    let epoch = job.folder.epoch();
    for writer in begun.by_ref().take(first) {
        let (job, full, empty) = (Arc::clone(job), full.clone(), empty.clone());
        tasks.spawn(write_files(job, writer, epoch, full, empty, None));
    }
    // Scanners find the channel closed when the last writer is gone, so the ends that further writers would need go with
    // the first one.
    let mut ends = Some((full, empty));
    loop {
        tokio::select! {
            joined = tasks.join_next() => {
                let Some(joined) = joined else { break };
                ends = None;
                if let Err(e) = joined.unwrap_or_else(|e| Err(EngineError::Worker(e.to_string()))) {
                    job.outcome.fail(e);
                }
            }
            // The lock, because it must not take the mark of another one; awaited here, because the checkpoint that holds it may
            // wait for a writer that has failed.
            (permit, mut count) = async {
                let permit = Arc::clone(&of_job).acquire_owned().await;
                (permit, job.writers.lock().await)
            }, if ends.is_some() && !begun.is_empty() => {
                if let (Ok(permit), Some((full, empty)), Some(writer)) = (permit, &ends, begun.next()) {
                    *count += 1;
                    let (job, full, empty) = (Arc::clone(job), full.clone(), empty.clone());
                    let epoch = job.folder.epoch();
                    tasks.spawn(write_files(job, writer, epoch, full, empty, Some(permit)));
                }
            }
        }
    }
}

/// One of the writers: writes blocks to files of its own until there are no more.
async fn write_files(
    job: Arc<WriteJob>,
    writer: usize,
    epoch: u64,
    full: async_channel::Receiver<ToWriter>,
    empty: async_channel::Sender<Vec<u8>>,
    _permit: Option<OwnedSemaphorePermit>,
) -> Result<(), EngineError> {
    let mut file = None;
    let result = write_blocks(&job, &writer.to_string(), epoch, &full, &empty, &mut file).await;
    match file {
        Some(file) => file.end(result).await,
        None => result,
    }
}

async fn write_blocks(
    job: &Arc<WriteJob>,
    prefix: &str,
    mut epoch: u64,
    full: &async_channel::Receiver<ToWriter>,
    empty: &async_channel::Sender<Vec<u8>>,
    file: &mut Option<AsbFile>,
) -> Result<(), EngineError> {
    // The scanners end when the job is stopped, and the channel with them.
    while let Ok(message) = full.recv().await {
        if job.outcome.stop.is_cancelled() {
            return Err(EngineError::Canceled);
        }
        let mut block = match message {
            ToWriter::Block(block) => block,
            ToWriter::Mark(mark) => {
                epoch = mark.pass(file.take(), &job.outcome).await?;
                continue;
            }
        };
        if block.records == 0 {
            continue;
        }
        if let Some(finished) = file.take_if(|file| file.is_full(block.text.len())) {
            finished.end(Ok(())).await?;
        }
        let open = match file {
            Some(open) => open,
            None => file.insert(job.begin(prefix, Version::V3_1, false, epoch).await?),
        };
        open.append(&mut block.text).await?;
        open.records += block.records;
        job.progress.records_written.fetch_add(block.records, Relaxed);
        recycle(empty, block.text);
    }
    if job.outcome.stop.is_cancelled() { Err(EngineError::Canceled) } else { Ok(()) }
}
