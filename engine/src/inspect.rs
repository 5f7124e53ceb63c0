//! Looks into the files of a backup without a cluster: reads every byte, decodes every value, counts and complains.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use abs_asb::{AsbError, Item, Items, Position, Record, Version};
use abs_storage::{ObjectInfo, ObjectPath, Storage};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::blocks::{BlockSource, SharedFile, TextBlock};
use crate::error::EngineError;
use crate::files::find;
use crate::keys::KeyRing;
use crate::manifest::BackupFile;
use crate::metadata::Metadata;
use crate::progress::RestoreProgress;

/// What one file holds.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileReport {
    /// The file.
    pub file: String,
    /// Its bytes on storage.
    pub bytes: u64,
    /// Bytes of its text.
    pub text_bytes: u64,
    /// Version of the format; empty when even the header cannot be read.
    pub version: String,
    /// `none` or `zstd`.
    pub compression: &'static str,
    /// True when it was read with a key.
    pub encrypted: bool,
    /// Records by namespace.
    pub records: BTreeMap<String, u64>,
    /// Sets that the records are in.
    pub sets: BTreeSet<String>,
    /// Names of the index definitions.
    pub indexes: Vec<String>,
    /// Names of the UDF modules.
    pub udfs: Vec<String>,
    /// What is wrong with it; the counts go as far as it could be read.
    pub problem: Option<String>,
}

/// What a folder holds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FolderReport {
    /// Its files, by name.
    pub files: Vec<FileReport>,
    /// Its metadata.yaml, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// Whether a manifest proves that the files are as they were written.
    pub has_manifest: bool,
    /// What is wrong with the folder as a whole.
    pub problems: Vec<String>,
}

impl FolderReport {
    /// Records of all files.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.files.iter().flat_map(|file| file.records.values()).sum()
    }

    /// True when nothing is wrong with any file or the whole.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty() && self.files.iter().all(|file| file.problem.is_none())
    }
}

/// Reads every `.asb` file under `path`, or the one file that `path` is. Fails only when there is nothing to read.
pub async fn inspect(
    storage: &Arc<dyn Storage>,
    path: &ObjectPath,
    keys: &KeyRing,
) -> Result<FolderReport, EngineError> {
    let mut report =
        FolderReport { files: Vec::new(), metadata: None, has_manifest: false, problems: Vec::new() };
    let files = if let Some(file) = single(&**storage, path).await? {
        vec![BackupFile::from(file)]
    } else {
        let found = find(&**storage, path).await?;
        let bare: Vec<_> = found.files.iter().cloned().map(BackupFile::from).collect();
        // Of several backups each is only compared when it is looked at alone.
        match found.metadata.first().filter(|_| found.metadata.len() == 1).cloned() {
            None => bare,
            Some(object) => match found.describe(&**storage, &object.path, keys).await {
                Ok(described) => {
                    report.metadata = Some(described.metadata);
                    report.has_manifest = described.is_proven;
                    let wrong = described.wrong.into_iter().chain(described.authentic.err());
                    report.problems.extend(wrong.map(|wrong| wrong.to_string()));
                    described.files
                }
                Err(e) => {
                    report.problems.push(e.to_string());
                    bare
                }
            },
        }
    };
    for (mut file, read) in read_files(storage, files, keys, &Arc::default()).await? {
        file.problem = read.err().map(|wrong| wrong.to_string());
        report.files.push(file);
    }
    if let Some(metadata) = &report.metadata {
        report.problems.extend(differences(metadata, &report.files));
    }
    Ok(report)
}

/// Reads files to their end, by name. Each comes with what is wrong with it; what it holds is counted as far as it could be
/// read.
pub(crate) async fn read_files(
    storage: &Arc<dyn Storage>,
    files: Vec<BackupFile>,
    keys: &KeyRing,
    progress: &Arc<RestoreProgress>,
) -> Result<Vec<(FileReport, Result<(), EngineError>)>, EngineError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let slots = Arc::new(Semaphore::new(cores));
    let mut tasks = JoinSet::new();
    for file in files {
        let (slots, progress) = (Arc::clone(&slots), Arc::clone(progress));
        let source = BlockSource::new(Arc::clone(storage), keys.clone(), None, Arc::clone(&progress));
        let source = source.checking_hashes();
        let mut report = FileReport {
            file: file.info.path.as_str().to_owned(),
            bytes: file.info.size,
            compression: "none",
            ..FileReport::default()
        };
        tasks.spawn(async move {
            let _slot = slots.acquire().await;
            let read = read_items(&source, file, &progress, &mut report).await;
            (report, read)
        });
    }
    let mut read = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        read.push(joined.map_err(|e| EngineError::Worker(e.to_string()))?);
    }
    read.sort_by(|(a, _), (b, _)| a.file.cmp(&b.file));
    Ok(read)
}

/// How what the files of a backup hold differs from what its metadata.yaml says.
pub(crate) fn differences(metadata: &Metadata, files: &[FileReport]) -> Vec<String> {
    let sum = |count: fn(&FileReport) -> usize| files.iter().map(count).sum::<usize>() as u64;
    let found = [
        difference("files", metadata.file_count, files.len() as u64),
        difference("bytes", metadata.byte_count, files.iter().map(|file| file.bytes).sum()),
        difference("records", metadata.record_count, files.iter().flat_map(|f| f.records.values()).sum()),
        difference("indexes", metadata.secondary_index_count, sum(|file| file.indexes.len())),
        difference("UDF modules", metadata.udf_count, sum(|file| file.udfs.len())),
    ];
    found.into_iter().flatten().collect()
}

/// That the files of a backup hold another number of something than its metadata.yaml says.
pub(crate) fn difference(what: &str, expected: u64, found: u64) -> Option<String> {
    (expected != found).then(|| format!("metadata.yaml says {expected} {what}, the files hold {found}"))
}

/// The object at `path` itself.
async fn single(storage: &dyn Storage, path: &ObjectPath) -> Result<Option<ObjectInfo>, EngineError> {
    let Some(parent) = path.parent() else { return Ok(None) };
    let listing = storage.list(&parent, false).await?;
    Ok(listing.objects.into_iter().find(|object| object.path == *path))
}

async fn read_items(
    source: &BlockSource,
    file: BackupFile,
    progress: &RestoreProgress,
    report: &mut FileReport,
) -> Result<(), EngineError> {
    let expected = file.entry.as_ref().map(|entry| entry.records);
    let file = SharedFile::new(file);
    let mut block = TextBlock::default();
    let mut value = Vec::new();
    loop {
        let more = file.next(source, &mut block).await?;
        if let Some(kind) = &block.kind {
            report.version = match kind.header.version {
                Version::V3_1 => "3.1".to_owned(),
                Version::V3_2 => "3.2".to_owned(),
            };
            report.encrypted = kind.encrypted;
            report.compression = if kind.compressed { "zstd" } else { "none" };
        }
        if !more {
            let (found, name) = (report.records.values().sum::<u64>(), report.file.clone());
            return match expected.filter(|expected| *expected != found) {
                None => Ok(()),
                Some(expected) => {
                    let what = format!("manifest.json says {expected} records, it holds {found}");
                    Err(EngineError::Damaged { file: name, what })
                }
            };
        }
        report.text_bytes += block.text.len() as u64;
        let mut records = 0;
        let mut items = Items::new(&block.text, block.position.unwrap_or(Position::START));
        loop {
            match items.next().map_err(|e| e.in_file(&*block.file))? {
                None => break,
                Some(Item::Index(index)) => report.indexes.push(index.name),
                Some(Item::Udf(udf)) => report.udfs.push(udf.name),
                Some(Item::Record(mut record)) => {
                    decode(&mut record, &mut value).map_err(|e| e.in_file(&*block.file))?;
                    count(&mut report.records, &record.namespace.to_bytes());
                    records += 1;
                    let set = record.set.to_bytes();
                    if !set.is_empty() && !report.sets.contains(&*String::from_utf8_lossy(&set)) {
                        report.sets.insert(String::from_utf8_lossy(&set).into_owned());
                    }
                }
            }
        }
        progress.read.fetch_add(records, Relaxed);
    }
}

fn decode(record: &mut Record<'_>, value: &mut Vec<u8>) -> Result<(), AsbError> {
    value.clear();
    if let Some(key) = &record.key {
        key.append_to(value)?;
    }
    while let Some(bin) = record.next_bin()? {
        value.clear();
        bin.value.append_to(value)?;
        bin.value.check(value)?;
    }
    Ok(())
}

fn count(records: &mut BTreeMap<String, u64>, namespace: &[u8]) {
    let name = String::from_utf8_lossy(namespace);
    match records.get_mut(&*name) {
        Some(count) => *count += 1,
        None => {
            records.insert(name.into_owned(), 1);
        }
    }
}
