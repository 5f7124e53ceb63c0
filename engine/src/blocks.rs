//! The files of a backup, read in blocks of whole items that workers share.
//!
//! A file's text can only be read from its beginning, because of its framing and because raw values may look like
//! anything. So whoever needs a block reads and skims the next stretch under the file's lock, and parses it outside:
//! one big file keeps as many workers busy as many small ones.

use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use abs_asb::{
    Content, Decompressor, Decryptor, ENCRYPTION_HEAD, FrameError, GcmHead, Header, MAX_ITEM, Position,
    Skimmer, sniff,
};
use abs_storage::{ByteRange, ObjectPath, ObjectReader, Storage};

use crate::answered::{Block, FileAnswers};
use crate::cpu;
use crate::error::EngineError;
use crate::keys::KeyRing;
use crate::limiter::{Limiter, limit};
use crate::manifest::{BackupFile, BackupOrigin, FileEntry};
use crate::progress::RestoreProgress;
use crate::sums::{CHUNK, ChunkCheck, Hash};

/// Bytes of text that a worker takes at a time.
const BLOCK: usize = 512 << 10;
/// Bytes that are read from storage at a time.
const READ: usize = 256 << 10;

/// A block of whole items.
#[derive(Debug, Default)]
pub(crate) struct TextBlock {
    pub text: Vec<u8>,
    /// Where it stands in the text of its file.
    pub position: Option<Position>,
    /// Its answers.
    pub answers: Option<Arc<Block>>,
    /// The file.
    pub file: Arc<str>,
    /// What the file's header says and how it is packed.
    pub kind: Option<FileKind>,
}

/// What a file is, beside its items.
#[derive(Clone, Debug)]
pub(crate) struct FileKind {
    pub header: Arc<Header>,
    pub compressed: bool,
    pub encrypted: bool,
}

/// Where files come from, and what is common to them.
#[derive(Debug)]
pub(crate) struct BlockSource {
    pub storage: Arc<dyn Storage>,
    keys: KeyRing,
    bandwidth: Option<Arc<Limiter>>,
    progress: Arc<RestoreProgress>,
    /// Whether what is left of a file that was cut off is read, with a warning.
    reads_cut_files: bool,
    /// Whether the hashes of whole files are checked, too.
    checks_hashes: bool,
    /// Files that were read to their end.
    ended: AtomicU64,
}

impl BlockSource {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        keys: KeyRing,
        bandwidth: Option<Arc<Limiter>>,
        progress: Arc<RestoreProgress>,
    ) -> Self {
        Self {
            storage,
            keys,
            bandwidth,
            progress,
            reads_cut_files: false,
            checks_hashes: false,
            ended: AtomicU64::new(0),
        }
    }

    /// Whether to read what is left of a file that was cut off, with a warning.
    pub(crate) fn reading_cut_files(self, reads_cut_files: bool) -> Self {
        Self { reads_cut_files, ..self }
    }

    /// Check the hashes of whole files, too.
    pub(crate) fn checking_hashes(self) -> Self {
        Self { checks_hashes: true, ..self }
    }

    /// The end of a file that was cut off, unless that is an error. `lost` are the bytes behind it, as far as is known.
    fn cut_off(&self, error: EngineError, lost: Option<u64>) -> Result<(), EngineError> {
        if !self.reads_cut_files {
            return Err(error);
        }
        let lost = lost.map(|bytes| format!(", and the last {bytes} bytes are lost")).unwrap_or_default();
        self.progress.warn(format!("{error}; what is there before is restored{lost}"));
        Ok(())
    }

    /// How many files were read to their end.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Relaxed)
    }
}

/// A file that workers take turns to read.
#[derive(Debug)]
pub(crate) struct SharedFile {
    reader: tokio::sync::Mutex<Option<TextReader>>,
    answers: Arc<FileAnswers>,
}

impl SharedFile {
    pub(crate) fn new(file: BackupFile) -> Self {
        let answers = FileAnswers::new(file.info.path.as_str(), file.info.size);
        Self::with_answers(file, Arc::new(answers))
    }

    /// A file whose rows may have been answered in part.
    pub(crate) fn with_answers(file: BackupFile, answers: Arc<FileAnswers>) -> Self {
        let reader = TextReader::new(file, answers.known());
        Self { reader: tokio::sync::Mutex::new(Some(reader)), answers }
    }

    /// Puts the next block into `block`; false when the file is at its end, or was given up by another worker.
    pub(crate) async fn next(
        &self,
        source: &BlockSource,
        block: &mut TextBlock,
    ) -> Result<bool, EngineError> {
        let mut reader = self.reader.lock().await;
        // Only a reader that is well goes back: after an error another worker would read on from anywhere.
        let Some(mut open) = reader.take() else { return Ok(false) };
        let range = open.next(source, block).await?;
        let more = range.is_some();
        if let Some(range) = range {
            block.answers = Some(self.answers.begin(range));
            *reader = Some(open);
        } else {
            self.answers.end();
            source.ended.fetch_add(1, Relaxed);
        }
        Ok(more)
    }
}

/// Reads one file: storage, decryption, decompression, header, whole items.
#[derive(Debug)]
struct TextReader {
    path: ObjectPath,
    entry: Option<Arc<FileEntry>>,
    origin: Arc<BackupOrigin>,
    name: Arc<str>,
    stage: Stage,
    /// Text behind the last block: the beginning of an item.
    rest: Vec<u8>,
    skimmer: Skimmer,
    /// Where the last block ended; 0 before the first.
    end: u64,
    /// Where a block must end.
    known: u64,
    /// How much of the next item is needed at the least.
    need: usize,
    kind: Option<FileKind>,
    /// The file was given up at a damaged place: that it ends there is known.
    is_cut: bool,
}

#[derive(Debug)]
enum Stage {
    Unopened,
    Open(Box<Source>),
    /// Everything was read into `rest`.
    Ended,
}

/// The bytes of a file on their way to text.
#[derive(Debug)]
struct Source {
    object: Box<dyn ObjectReader>,
    /// Checks each chunk before its bytes are used.
    check: Option<ChunkCheck>,
    /// Of what was read, and what it must be at the end.
    hash: Option<(Hash, String)>,
    decryptor: Option<Decryptor>,
    inflater: Option<Inflater>,
    object_ended: bool,
}

/// Decompresses a file.
#[derive(Debug)]
struct Inflater {
    decompressor: Decompressor,
    /// Compressed bytes.
    packed: Vec<u8>,
    /// How many of them are used.
    used: usize,
    /// True while the decompressor may have more text without more input.
    more: bool,
}

impl Inflater {
    fn new(packed: Vec<u8>) -> Result<Self, FrameError> {
        Ok(Self { decompressor: Decompressor::new()?, packed, used: 0, more: true })
    }

    /// Whether there is no more text without more input.
    fn is_dry(&self) -> bool {
        self.used == self.packed.len() && !self.more
    }

    /// Appends text until there are about `target` bytes, or no more without more input.
    fn inflate(&mut self, text: &mut Vec<u8>, target: usize) -> Result<(), FrameError> {
        while text.len() < target && !self.is_dry() {
            let before = text.len();
            self.used += self.decompressor.step(&self.packed[self.used..], text, READ)?;
            self.more = text.len() - before == READ;
        }
        Ok(())
    }
}

impl TextReader {
    fn new(file: BackupFile, known: u64) -> Self {
        let path = file.info.path;
        let name = path.as_str().into();
        Self {
            path,
            entry: file.entry,
            origin: file.origin,
            name,
            stage: Stage::Unopened,
            rest: Vec::new(),
            skimmer: Skimmer::new(Position::START),
            end: 0,
            known,
            need: 0,
            kind: None,
            is_cut: false,
        }
    }

    fn bad(&self, what: impl Into<String>) -> EngineError {
        EngineError::BadFile { file: self.name.to_string(), what: what.into() }
    }

    /// The next block of whole items, as a range of the text that begins at the end of the last one; none at the end of the
    /// file.
    async fn next(
        &mut self,
        job: &BlockSource,
        block: &mut TextBlock,
    ) -> Result<Option<Range<u64>>, EngineError> {
        block.text.clear();
        block.text.append(&mut self.rest);
        if matches!(self.stage, Stage::Unopened) {
            match self.open(job, &mut block.text).await {
                Err(e @ EngineError::Damaged { .. }) => {
                    job.cut_off(e, self.entry.as_ref().map(|entry| entry.size))?;
                    return Ok(None);
                }
                opened => opened?,
            }
        }
        block.kind.clone_from(&self.kind);
        loop {
            let target = BLOCK.max(self.need);
            while block.text.len() < target && !matches!(self.stage, Stage::Ended) {
                self.fill(job, &mut block.text, target).await?;
            }
            let ended = matches!(self.stage, Stage::Ended);
            if block.text.is_empty() {
                return Ok(None);
            }
            let position = self.skimmer.position();
            let visible = match self.known.checked_sub(position.offset) {
                Some(left @ 1..) => block.text.len().min(usize::try_from(left).unwrap_or(usize::MAX)),
                _ => block.text.len(),
            };
            let skim = self.skimmer.skim(&block.text[..visible]).map_err(|e| e.in_file(&*self.name))?;
            self.need = skim.need;
            if visible < block.text.len() && skim.len < visible {
                return Err(
                    self.bad("is not the file that was being restored when the restore was interrupted")
                );
            }
            if ended && skim.len == 0 {
                let finished = self.skimmer.finish(&block.text).map_err(|e| e.in_file(&*self.name));
                finished.or_else(|e| if self.is_cut { Ok(()) } else { job.cut_off(e.into(), None) })?;
                block.text.clear();
                return Ok(None);
            }
            if skim.len > 0 {
                self.rest.extend_from_slice(&block.text[skim.len..]);
                block.text.truncate(skim.len);
                block.position = Some(position);
                block.file = Arc::clone(&self.name);
                let start = std::mem::replace(&mut self.end, self.skimmer.position().offset);
                return Ok(Some(start..self.end));
            }
        }
    }

    /// Opens the file and reads until its header is parsed; text behind the header is left in `text`.
    async fn open(&mut self, job: &BlockSource, text: &mut Vec<u8>) -> Result<(), EngineError> {
        let check = match &self.entry {
            None => None,
            Some(entry) => {
                let folder = self.path.parent().unwrap_or_else(ObjectPath::root);
                Some(entry.check(&*job.storage, &folder).await?)
            }
        };
        let mut source = Source {
            object: job.storage.open(&self.path, ByteRange::ALL).await?,
            check,
            hash: self.entry.as_ref().filter(|_| job.checks_hashes).and_then(|entry| {
                let expected = entry.hash.clone()?;
                Some((Hash::like(&expected)?, expected))
            }),
            decryptor: None,
            inflater: None,
            object_ended: false,
        };
        // The first bytes tell what the file is.
        let mut first = Vec::new();
        while first.len() < ENCRYPTION_HEAD + 8 && !source.object_ended {
            source.read(job, &mut first, &self.name).await?;
        }
        self.find_decryptor(job, &mut source, &mut first).await?;
        while first.len() < 8 && !source.object_ended {
            source.read(job, &mut first, &self.name).await?;
        }
        match sniff(&first) {
            Content::Text => *text = first,
            Content::Zstd => {
                let inflater = Inflater::new(first).map_err(|cause| unframed(&self.name, cause))?;
                source.inflater = Some(inflater);
            }
            Content::Unknown if first.is_empty() => return Err(self.bad("the file is empty")),
            Content::Unknown if source.decryptor.is_some() => {
                let other = self.origin.key_id.as_ref().filter(|id| job.keys.find(id).is_none());
                return Err(self.bad(match other {
                    Some(id) => job.keys.lack_of(id),
                    None => "not an .asb file, or encrypted with another key or not at all".to_owned(),
                }));
            }
            Content::Unknown => {
                return Err(self.bad("not an .asb file, or an encrypted one: no key was given"));
            }
        }
        let (compressed, encrypted) = (source.inflater.is_some(), source.decryptor.is_some());
        self.stage =
            if source.object_ended && !compressed { Stage::Ended } else { Stage::Open(Box::new(source)) };
        loop {
            let ended = matches!(self.stage, Stage::Ended);
            let header = Header::parse(text, ended).map_err(|e| e.in_file(&*self.name))?;
            if let Some((header, length, lines)) = header {
                text.drain(..length);
                let position = Position { line: 1 + lines, offset: length as u64 };
                self.skimmer = Skimmer::new(position);
                self.kind = Some(FileKind { header: Arc::new(header), compressed, encrypted });
                return Ok(());
            }
            if text.len() > MAX_ITEM {
                return Err(self.bad("the header does not end"));
            }
            let more = text.len() + 1;
            self.fill(job, text, more).await?;
        }
    }

    /// Finds out how the file that begins with `first` is encrypted, and decrypts that.
    async fn find_decryptor(
        &mut self,
        job: &BlockSource,
        source: &mut Source,
        first: &mut Vec<u8>,
    ) -> Result<(), EngineError> {
        let (decryptor, head) = if GcmHead::begins(first) {
            let head = loop {
                match GcmHead::parse(first).map_err(|cause| unframed(&self.name, cause))? {
                    Some(head) => break head,
                    None if source.object_ended => return Err(self.bad("the file ends inside its head")),
                    None => source.read(job, first, &self.name).await?,
                }
            };
            let key = job.keys.find(&head.key_id);
            let key = key.ok_or_else(|| self.bad(job.keys.lack_of(&head.key_id)))?;
            self.check_origin(&head)?;
            let length = head.length();
            (Decryptor::gcm(key, head).map_err(|cause| unframed(&self.name, cause))?, length)
        } else if let Some(key) = job.keys.of(self.origin.key_id.as_deref()) {
            let head = first.first_chunk().ok_or_else(|| self.bad("too short for an encrypted file"))?;
            let decryptor = Decryptor::ctr(key, *head);
            let other = || self.bad(format!("not encrypted as {}, or its head is damaged", key.cipher()));
            (decryptor.ok_or_else(other)?, ENCRYPTION_HEAD)
        } else {
            return Ok(());
        };
        first.drain(..head);
        source.decryptor = Some(decryptor);
        source.decrypt(first, 0, &self.name).await
    }

    /// Checks that a file is the one of its backup that it says it is.
    fn check_origin(&self, head: &GcmHead) -> Result<(), EngineError> {
        let damaged = |what| EngineError::Damaged { file: self.name.to_string(), what };
        if head.name != self.path.name() {
            return Err(damaged(format!("it is {:?}, renamed or in the place of another file", head.name)));
        }
        match &self.origin.run {
            Some(run) if *run != head.run => {
                Err(damaged(format!("it is of another backup, that of run {:?}", head.run)))
            }
            _ => Ok(()),
        }
    }

    /// Appends more text, as far as is at hand up to about `target` bytes, or ends the stage.
    async fn fill(
        &mut self,
        job: &BlockSource,
        text: &mut Vec<u8>,
        target: usize,
    ) -> Result<(), EngineError> {
        let Stage::Open(source) = &mut self.stage else { return Ok(()) };
        let ended = match source.inflater {
            None => source.read(job, text, &self.name).await.map(|()| source.object_ended),
            Some(_) => source.inflate(job, text, target, &self.name).await,
        };
        let ended = ended.or_else(|e| match e {
            // Nothing behind the damage can be used: where the next item begins is not known.
            EngineError::Damaged { .. } => {
                self.is_cut = true;
                let opened = source.decryptor.as_ref().and_then(Decryptor::opened);
                let packed = source.inflater.as_ref().map_or(0, |inflater| inflater.packed.len() as u64);
                let lost = source.check.as_ref().map(|check| check.unused(opened) + packed);
                job.cut_off(e, lost).map(|()| true)
            }
            e => Err(e),
        })?;
        if ended {
            self.stage = Stage::Ended;
        }
        Ok(())
    }
}

impl Source {
    /// Reads from storage, a whole chunk if there are checksums, and decrypts.
    async fn read(&mut self, job: &BlockSource, out: &mut Vec<u8>, name: &str) -> Result<(), EngineError> {
        let begin = out.len();
        if let Some(decryptor) = &mut self.decryptor {
            decryptor.give_back(out);
        }
        let start = out.len();
        let most = if self.check.is_some() { CHUNK } else { READ };
        loop {
            let count = self.object.read(out, READ.min(start + most - out.len())).await?;
            self.object_ended = count == 0;
            job.progress.bytes_read.fetch_add(count as u64, Relaxed);
            limit(job.bandwidth.as_deref(), count as u64).await;
            if count == 0 || self.check.is_none() || out.len() == start + most {
                break;
            }
        }
        let checked = self.check(&out[start..], name);
        if checked.is_err() {
            out.truncate(begin);
        }
        checked?;
        self.decrypt(out, begin, name).await
    }

    /// Checks the next bytes as they are stored.
    fn check(&mut self, bytes: &[u8], name: &str) -> Result<(), EngineError> {
        if let Some(check) = &mut self.check {
            check.check(bytes, name)?;
        }
        if let Some((hash, _)) = &mut self.hash {
            hash.update(bytes);
        }
        if let Some((hash, expected)) = self.hash.take_if(|_| self.object_ended)
            && hash.finish() != Some(expected)
        {
            let what = "its hash is not that of what was written".to_owned();
            return Err(EngineError::Damaged { file: name.to_owned(), what });
        }
        Ok(())
    }

    /// Decrypts what is behind `from`, on the pool.
    async fn decrypt(&mut self, out: &mut Vec<u8>, from: usize, name: &str) -> Result<(), EngineError> {
        let Some(mut decryptor) = self.decryptor.take() else { return Ok(()) };
        let (mut taken, ended) = (mem::take(out), self.object_ended);
        let decrypted = cpu::run(move || {
            let result = decryptor.decrypt(&mut taken, from, ended);
            (decryptor, taken, result)
        });
        let (decryptor, taken, result) = decrypted.await?;
        (self.decryptor, *out) = (Some(decryptor), taken);
        result.map_err(|cause| unframed(name, cause))
    }

    /// Decompresses some text on the pool; true at the end.
    async fn inflate(
        &mut self,
        job: &BlockSource,
        text: &mut Vec<u8>,
        target: usize,
        name: &str,
    ) -> Result<bool, EngineError> {
        let Some(mut inflater) = self.inflater.take() else { return Ok(true) };
        if inflater.is_dry() && !self.object_ended {
            inflater.packed.clear();
            inflater.used = 0;
            if let Err(e) = self.read(job, &mut inflater.packed, name).await {
                // What was not used of it is lost.
                self.inflater = Some(inflater);
                return Err(e);
            }
        }
        if self.object_ended && inflater.is_dry() {
            if inflater.decompressor.finished() {
                return Ok(true);
            }
            let what = "the file ends inside its compressed data".to_owned();
            job.cut_off(EngineError::BadFile { file: name.to_owned(), what }, None)?;
            return Ok(true);
        }
        let mut taken = mem::take(text);
        let inflated = cpu::run(move || {
            let result = inflater.inflate(&mut taken, target);
            (inflater, taken, result)
        });
        let (inflater, taken, result) = inflated.await?;
        (self.inflater, *text) = (Some(inflater), taken);
        result.map_err(|cause| unframed(name, cause))?;
        Ok(false)
    }
}

/// The error of a file whose bytes do not become text.
fn unframed(file: &str, cause: FrameError) -> EngineError {
    let file = file.to_owned();
    match cause {
        FrameError::Forged { .. } => EngineError::Damaged { file, what: cause.to_string() },
        cause => EngineError::Frame { file, cause },
    }
}
