//! Checkpoints: what of a run is durable while it goes on, so that another attempt can go on from there.
//!
//! A checkpoint is a barrier. Under the gate of the [`Cursors`] it takes them all and sends each file writer a [`Mark`], behind
//! the blocks that the cursors stand for. At its mark a writer ends its file and begins another one when every writer has
//! had its mark. When the ended files are durable, the checkpoint is written: the new files and the cursors that moved.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use abs_asb::{Digest, EncryptionKey};
use abs_cluster::PARTITIONS;
use abs_config::FileHash;
use abs_storage::{ObjectPath, Storage};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::listing::AT_ONCE;
use crate::cursors::{Cursors, Extent};
use crate::error::EngineError;
use crate::folder::join;
use crate::manifest::{FORMAT, FileEntry, open, seal};
use crate::outcome::Outcome;
use crate::plan::BackupPlan;
use crate::scanner::ToWriter;
use crate::writer::{AsbFile, WriteJob};

/// The folder of the checkpoints of a run that goes on, in the folder of its backup.
pub(crate) const CHECKPOINTS: &str = "manifest";

/// The largest checkpoint that is read, in bytes.
const LIMIT: usize = 64 << 20;

/// On an object store a checkpoint waits for so many bytes, or for [`MOST_REMOTE_WAIT`]: each ends all files.
const LEAST_REMOTE: u64 = 8 << 20;
const MOST_REMOTE_WAIT: Duration = Duration::from_mins(10);

/// What decides what is in the files of a run. An attempt that goes on has the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct RunOptions {
    pub namespace: String,
    pub created: DateTime<Utc>,
    pub from: Option<DateTime<Utc>>,
    pub modified_after: Option<DateTime<Utc>>,
    pub modified_before: Option<DateTime<Utc>>,
    pub cluster_created: Option<DateTime<Utc>>,
    pub selection: String,
    /// The first and the last of each range.
    pub partitions: Vec<(u16, u16)>,
    pub compact: bool,
    pub compression: Option<i32>,
    pub encryption: String,
    pub encryption_key: Option<String>,
    pub file_hash: FileHash,
    pub definitions: DefinitionCounts,
    pub masked: bool,
    /// The nodes of the cluster, with their addresses: another one has none of them.
    pub nodes: Vec<String>,
}

/// What the definitions in the first file are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct DefinitionCounts {
    pub secondary_indexes: u64,
    pub udfs: u64,
    pub set_indexes: BTreeMap<String, String>,
}

impl RunOptions {
    /// Whether an attempt with this plan may go on with that run: all else is taken from here.
    pub(crate) fn fits(&self, plan: &BackupPlan, created: DateTime<Utc>) -> bool {
        let traits = plan.chain_traits();
        self.namespace == plan.namespace
            && self.created == created
            && self.selection == traits.selection
            && self.encryption == traits.encryption
            && self.encryption_key == traits.encryption_key
    }
}

/// The first checkpoint object: what the run is.
#[derive(Debug, Serialize, Deserialize)]
struct Start {
    format: u32,
    run: String,
    options: RunOptions,
}

/// The others: what came since.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Step {
    /// The generation of an attempt that goes on from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<u32>,
    /// Whether the attempt before was of another process.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    continued: bool,
    /// Files that became durable. Always written, so that no checkpoint is an empty document.
    files: Vec<FileEntry>,
    /// Partitions that have been read to their end, the first and the last of each range.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    done: Vec<(u16, u16)>,
    /// The digests, in base64, of the last records in these files of other partitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cursors: Vec<(u16, String)>,
}

/// What the checkpoints of a run say.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub run: String,
    pub options: RunOptions,
    /// How often it was continued by another process since there was progress.
    pub idle: u32,
    pub files: Vec<FileEntry>,
    /// Of all partitions of the run.
    pub extents: BTreeMap<u16, Extent>,
    /// The number of the last object.
    pub last: u64,
}

impl Checkpoint {
    /// Reads the checkpoints in the folder of a backup; none if there are none that can be used.
    pub(crate) async fn load(
        storage: &Arc<dyn Storage>,
        folder: &ObjectPath,
        key: Option<&EncryptionKey>,
    ) -> Result<Option<Self>, EngineError> {
        let below = join(folder, CHECKPOINTS)?;
        let objects = storage.list(&below, false).await?.objects;
        let count = objects.len() as u64;
        let texts = (0..count).map(|number| {
            let path = below.join(&format!("{number}.json"));
            async move {
                let path = path.map_err(|e| EngineError::Plan(e.to_string()))?;
                match storage.get(&path, LIMIT).await {
                    Ok(text) => Ok(Some(text)),
                    Err(e) if e.is_not_found() => Ok(None),
                    Err(e) => Err(EngineError::from(e)),
                }
            }
        });
        let texts: Vec<_> = stream::iter(texts).buffered(AT_ONCE).try_collect().await?;
        // What follows a gap, or damage, cannot be used; what comes before can.
        let mut texts = texts.into_iter().map_while(|text| text);
        let start = texts.next().and_then(|text| open::<Start>(&text, key).ok());
        let Some(Start { run, options, .. }) = start.filter(|start| start.format == FORMAT) else {
            return Ok(None);
        };
        let all = options.partitions.iter().flat_map(|&(first, last)| first..=last);
        let extents = all.filter(|id| *id < PARTITIONS).map(|id| (id, Extent::UpTo(None))).collect();
        let mut saved = Self { run, options, idle: 0, files: Vec::new(), extents, last: 0 };
        for text in texts {
            let Some(step) = open::<Step>(&text, key).ok().filter(|step| step.is_sound(&saved)) else {
                break;
            };
            saved.add(step);
        }
        Ok(Some(saved))
    }

    fn add(&mut self, step: Step) {
        self.idle = if step.files.is_empty() { self.idle + u32::from(step.continued) } else { 0 };
        self.files.extend(step.files);
        for id in step.done.into_iter().flat_map(|(first, last)| first..=last) {
            self.extents.insert(id, Extent::Whole);
        }
        for (id, digest) in step.cursors {
            self.extents.insert(id, Extent::UpTo(decode(&digest)));
        }
        self.last += 1;
    }

    /// Records in the durable files.
    pub(crate) fn records(&self) -> u64 {
        self.files.iter().map(|file| file.records).sum()
    }

    /// Bytes of the durable files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

impl Step {
    /// The first of an attempt that goes on.
    pub(crate) fn takeover(generation: u32, continued: bool) -> Self {
        Self { generation: Some(generation), continued, ..Self::default() }
    }

    /// Whether it speaks of partitions of the run only.
    fn is_sound(&self, saved: &Checkpoint) -> bool {
        let has = |id: u16| saved.extents.contains_key(&id);
        self.done.iter().all(|&(first, last)| (first..=last).all(has))
            && self.cursors.iter().all(|(id, digest)| has(*id) && decode(digest).is_some())
    }

    /// What changed from `before` to `now`.
    fn changes(before: &[Option<Extent>], now: &[Option<Extent>], files: Vec<FileEntry>) -> Self {
        let mut step = Self { files, ..Self::default() };
        let mut done = Vec::new();
        for (id, (before, now)) in (0..).zip(before.iter().zip(now)) {
            match now {
                Some(_) if now == before => {}
                Some(Extent::Whole) => done.push(id),
                Some(Extent::UpTo(Some(digest))) => {
                    step.cursors.push((id, base64_simd::STANDARD.encode_to_string(digest)));
                }
                Some(Extent::UpTo(None)) | None => {}
            }
        }
        step.done = ranges(&done);
        step
    }
}

fn decode(digest: &str) -> Option<Digest> {
    base64_simd::STANDARD.decode_to_vec(digest).ok()?.try_into().ok()
}

/// Ascending numbers as the first and the last of each range.
pub(crate) fn ranges(ids: &[u16]) -> Vec<(u16, u16)> {
    let runs = ids.chunk_by(|a, b| a + 1 == *b);
    runs.filter_map(|run| Some((*run.first()?, *run.last()?))).collect()
}

/// Where the files before a checkpoint end.
#[derive(Debug)]
pub(crate) struct Mark {
    /// That of the files that are begun behind it.
    epoch: u64,
    /// All writers, and the checkpoint.
    barrier: Barrier,
    /// Not all writers will have their mark.
    given_up: CancellationToken,
    closing: Mutex<JoinSet<Result<(), EngineError>>>,
}

impl Mark {
    fn new(epoch: u64, writers: usize) -> Self {
        Self {
            epoch,
            barrier: Barrier::new(writers + 1),
            given_up: CancellationToken::new(),
            closing: Mutex::default(),
        }
    }

    /// Ends a writer's file in the background, and waits until every writer has its mark. Returns the epoch of the files that
    /// it begins then.
    pub(crate) async fn pass(&self, file: Option<AsbFile>, outcome: &Outcome) -> Result<u64, EngineError> {
        if let Some(file) = file {
            self.closing.lock().unwrap_or_else(PoisonError::into_inner).spawn(file.end(Ok(())));
        }
        if !self.wait(outcome).await {
            // Nobody else may be left to wait for it, and dropped it would be given up. All may have had their marks
            // nevertheless: then the checkpoint must not be written without these files.
            self.given_up.cancel();
            self.await_files().await?;
        }
        Ok(self.epoch)
    }

    /// Waits until every writer has its mark; false when that will not be.
    async fn wait(&self, outcome: &Outcome) -> bool {
        tokio::select! {
            _ = self.barrier.wait() => true,
            () = self.given_up.cancelled() => false,
            () = outcome.stop.cancelled() => false,
        }
    }

    /// Waits until the ended files are durable.
    async fn await_files(&self) -> Result<(), EngineError> {
        let mut closing = std::mem::take(&mut *self.closing.lock().unwrap_or_else(PoisonError::into_inner));
        let mut result = Ok(());
        while let Some(joined) = closing.join_next().await {
            let closed = joined.unwrap_or_else(|e| Err(EngineError::Worker(e.to_string())));
            result = result.and(closed);
        }
        result
    }
}

/// Makes the checkpoints of a run.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    job: Arc<WriteJob>,
    cursors: Arc<Cursors>,
    full: async_channel::Sender<ToWriter>,
    interval: Duration,
    /// The cursors of the last one.
    before: Vec<Option<Extent>>,
}

impl Checkpointer {
    pub(crate) fn new(
        job: Arc<WriteJob>,
        cursors: Arc<Cursors>,
        full: async_channel::Sender<ToWriter>,
        interval: Duration,
    ) -> Self {
        let before = cursors.all();
        Self { job, cursors, full, interval, before }
    }

    /// Makes them, until `done`, or until the run is stopped; on `suspend` a last one, which ends the run. An error that makes
    /// the run fail is given to it.
    pub(crate) async fn keep(mut self, done: CancellationToken, suspend: CancellationToken) {
        let is_remote = self.job.folder.storage.is_remote();
        let (mut written, mut since) = (self.amounts(), Instant::now());
        let job = Arc::clone(&self.job);
        // After a panic in here, too, nothing waits for a checkpoint any more.
        let stop = job.outcome.stop.clone().drop_guard();
        let over = || async {
            tokio::select! {
                () = done.cancelled() => {}
                () = job.outcome.stop.cancelled() => {}
            }
        };
        loop {
            tokio::select! {
                () = over() => {
                    stop.disarm();
                    return;
                }
                () = suspend.cancelled() => {
                    let made = self.make().await;
                    job.outcome.fail(made.err().unwrap_or(EngineError::Suspended));
                    return;
                }
                () = tokio::time::sleep(self.interval), if !self.interval.is_zero() => {}
            }
            let (records, bytes) = self.amounts();
            let is_small = bytes - written.1 < LEAST_REMOTE && since.elapsed() < MOST_REMOTE_WAIT;
            if records == written.0 || (is_remote && is_small) {
                continue;
            }
            (written, since) = (self.amounts(), Instant::now());
            if let Err(e) = self.make().await {
                job.outcome.fail(e);
                return;
            }
        }
    }

    /// Records and bytes.
    fn amounts(&self) -> (u64, u64) {
        let progress = &self.job.progress;
        (progress.records_written.load(Relaxed), progress.bytes_written.load(Relaxed))
    }

    /// Makes one. Not an error that it cannot be written: then the next one holds its files, too.
    async fn make(&mut self) -> Result<(), EngineError> {
        let job = Arc::clone(&self.job);
        let (mark, epoch, now) = {
            let writers = job.writers.lock().await;
            let gated = job.outcome.stop.run_until_cancelled(self.cursors.gate.write()).await;
            let Some(gate) = gated else { return Ok(()) };
            let now = self.cursors.all();
            let epoch = job.folder.begin_epoch();
            let mark = Arc::new(Mark::new(epoch + 1, *writers));
            for _ in 0..*writers {
                let sent = self.full.send(ToWriter::Mark(Arc::clone(&mark)));
                if !matches!(job.outcome.stop.run_until_cancelled(sent).await, Some(Ok(()))) {
                    // The run ends. Files that were ended stay.
                    mark.given_up.cancel();
                    return mark.await_files().await;
                }
            }
            drop(gate);
            let arrived = mark.wait(&job.outcome).await;
            drop(writers);
            if !arrived {
                return mark.await_files().await;
            }
            (mark, epoch, now)
        };
        mark.await_files().await?;
        if mark.given_up.is_cancelled() {
            return Ok(());
        }
        let step = Step::changes(&self.before, &now, job.folder.sealed_until(epoch));
        let (writing, files) = (Arc::clone(&job), step.files.clone());
        // A storage that hangs may write it after all, so the folder is not wiped before that is known.
        let put = async move { writing.folder.put_step(&step, writing.encryption.as_ref()).await };
        // A storage that fails for the moment is no reason to fail; if it goes on, the files fail, too.
        if let Some(Ok(Ok(()))) = job.outcome.in_time(tokio::spawn(put)).await {
            job.folder.save(files);
            self.before = now;
        }
        Ok(())
    }
}

/// The text of the first checkpoint object.
pub(crate) fn start_text(
    run: &str,
    options: &RunOptions,
    key: Option<&EncryptionKey>,
) -> Result<String, EngineError> {
    seal(&Start { format: FORMAT, run: run.to_owned(), options: options.clone() }, key)
}

#[cfg(test)]
mod tests {
    use abs_storage::Local;
    use proptest::prelude::*;

    use super::*;
    use crate::sums::FileSums;

    fn options(partitions: Vec<(u16, u16)>) -> RunOptions {
        RunOptions {
            namespace: "n".to_owned(),
            created: DateTime::UNIX_EPOCH,
            from: None,
            modified_after: None,
            modified_before: None,
            cluster_created: None,
            selection: BackupPlan::new("n").selection(),
            partitions,
            compact: false,
            compression: None,
            encryption: "NONE".to_owned(),
            encryption_key: None,
            file_hash: FileHash::default(),
            definitions: DefinitionCounts::default(),
            masked: false,
            nodes: Vec::new(),
        }
    }

    fn file(name: &str) -> FileEntry {
        FileEntry::new(name.to_owned(), 10, 2, FileSums::default())
    }

    fn arb_extents() -> impl Strategy<Value = Vec<Option<Extent>>> {
        let extent = prop_oneof![
            Just(Extent::UpTo(None)),
            any::<[u8; 20]>().prop_map(|digest| Extent::UpTo(Some(digest))),
            Just(Extent::Whole),
        ];
        prop::collection::vec(extent.prop_map(Some), 30)
    }

    #[test]
    fn numbers_are_kept_as_ranges() {
        assert_eq!(ranges(&[]), []);
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), [(0, 2), (5, 5), (7, 8)]);
    }

    proptest! {
        /// Protects: what one checkpoint after the other says is what the last one was made of.
        #[test]
        fn changes_add_up(states in prop::collection::vec(arb_extents(), 1..5)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let place = tempfile::tempdir().unwrap();
                let storage: Arc<dyn Storage> = Arc::new(Local::new(place.path()));
                let put = |number: usize, text: String| {
                    std::fs::create_dir_all(place.path().join(CHECKPOINTS)).unwrap();
                    std::fs::write(place.path().join(CHECKPOINTS).join(format!("{number}.json")), text).unwrap();
                };
                put(0, start_text("r", &options(vec![(0, 29)]), None).unwrap());
                let mut before = vec![Some(Extent::UpTo(None)); 30];
                for (number, state) in (1..).zip(&states) {
                    // A partition that was read to its end, or begun, stays so.
                    let state: Vec<_> = before.iter().zip(state).map(|(before, now)| match (before, now) {
                        (Some(Extent::Whole), _) => Some(Extent::Whole),
                        (before, Some(Extent::UpTo(None))) => *before,
                        (_, now) => *now,
                    }).collect();
                    let step = Step::changes(&before, &state, vec![file(&number.to_string())]);
                    put(number, seal(&step, None).unwrap());
                    before = state;
                }
                let saved = Checkpoint::load(&storage, &ObjectPath::root(), None).await.unwrap().unwrap();
                assert_eq!((saved.files.len(), saved.last), (states.len(), states.len() as u64));
                for (id, extent) in (0..).zip(&before) {
                    assert_eq!(saved.extents.get(&id), extent.as_ref());
                }
                assert_eq!((saved.records(), saved.bytes()), (2 * states.len() as u64, 10 * states.len() as u64));
            });
        }
    }

    /// Protects: behind a damaged or missing checkpoint nothing is used, and one of partitions that the run does not have is
    /// damaged, too.
    #[tokio::test]
    async fn what_follows_damage_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Local::new(place.path()));
        let folder = place.path().join(CHECKPOINTS);
        let root = ObjectPath::root();
        let load = || Checkpoint::load(&storage, &root, None);
        assert!(load().await.unwrap().is_none());
        std::fs::create_dir(&folder).unwrap();
        let step = |name: &str| seal(&Step { files: vec![file(name)], ..Step::default() }, None).unwrap();
        let put =
            |number: u64, text: &str| std::fs::write(folder.join(format!("{number}.json")), text).unwrap();
        put(0, &start_text("r", &options(vec![(0, 4095)]), None).unwrap());
        put(1, &step("a"));
        put(2, &step("b"));
        put(3, &step("c"));
        assert_eq!(load().await.unwrap().unwrap().files.len(), 3);
        put(2, &step("b").replace('b', "d"));
        assert_eq!(load().await.unwrap().unwrap().files, [file("a")]);
        std::fs::remove_file(folder.join("2.json")).unwrap();
        assert_eq!(load().await.unwrap().unwrap().files, [file("a")]);
        put(1, &seal(&Step { done: vec![(4000, 4096)], ..Step::default() }, None).unwrap());
        assert_eq!(load().await.unwrap().unwrap().files, []);
        put(0, "{}");
        assert!(load().await.unwrap().is_none());
    }
}
