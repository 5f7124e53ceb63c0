//! The files of a backup: found in a folder, handed out to workers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use abs_storage::{ErrorKind, ObjectInfo, ObjectPath, Storage, StorageError, Verb};

use crate::answered::FileAnswers;
use crate::blocks::{BlockSource, FileKind, SharedFile, TextBlock};
use crate::catalog::MARK_FILE;
use crate::catalog::suspects::is_dated_later;
use crate::claim::claim_number;
use crate::error::EngineError;
use crate::folder::{join, place};
use crate::keys::KeyRing;
use crate::manifest::{BackupFile, BackupOrigin, MANIFEST_FILE, Manifest, Proof};
use crate::metadata::{METADATA_FILE, Metadata};
use crate::reading::DELETING_FILE;

/// What is under a folder.
#[derive(Default)]
pub(crate) struct Found {
    /// Every `.asb` file, the largest first so that no big one is left for the end.
    pub files: Vec<ObjectInfo>,
    /// Every metadata.yaml.
    pub metadata: Vec<ObjectInfo>,
    /// The folder of every manifest.json.
    manifests: Vec<ObjectPath>,
    /// Every mark of a wrong clock.
    marks: Vec<ObjectPath>,
    /// The folder of every claim.
    claims: Vec<ObjectPath>,
}

impl Found {
    /// Fails when a file lies in an archive: no record need be written to know this.
    pub(crate) fn check_readable(&self, storage: &dyn Storage) -> Result<(), EngineError> {
        let archived = self.files.iter().find_map(|file| Some((file, file.archived.clone()?)));
        archived.map_or(Ok(()), |(file, tier)| {
            let kind = ErrorKind::Archived { tier };
            Err(StorageError::new(Verb::Read, place(storage, &file.path), kind).into())
        })
    }
}

/// A backup that was found below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBackup {
    /// The folder of its metadata.yaml.
    pub folder: ObjectPath,
    /// What its metadata.yaml says.
    pub metadata: Metadata,
    /// Whether its time is wrong ([`catalog`](crate::catalog)): it cannot be part of a chain.
    pub is_suspect: bool,
}

/// What is below a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundBackups {
    /// The backups, one for each metadata.yaml.
    pub backups: Vec<FoundBackup>,
    /// Folders with files that belong to none of them.
    pub bare: Vec<ObjectPath>,
}

/// The backups below a folder. Fails when there are no files.
pub async fn find_backups(storage: &dyn Storage, folder: &ObjectPath) -> Result<FoundBackups, EngineError> {
    let mut found = FoundBackups::default();
    let Found { files, metadata, marks, .. } = find(storage, folder).await?;
    let described: HashSet<_> = metadata.iter().filter_map(|object| object.path.parent()).collect();
    let folders: BTreeSet<_> = files.iter().filter_map(|file| file.path.parent()).collect();
    let is_bare = |folder: &ObjectPath| {
        std::iter::successors(Some(folder.clone()), ObjectPath::parent)
            .all(|above| !described.contains(&above))
    };
    found.bare = folders.into_iter().filter(is_bare).collect();
    for object in metadata {
        let folder = object.path.parent().unwrap_or_else(ObjectPath::root);
        let (metadata, _) = read_metadata(storage, &object.path).await?;
        let is_marked = marks.iter().any(|mark| mark.parent().as_ref() == Some(&folder));
        let is_suspect = is_marked || is_dated_later(metadata.created, object.modified);
        found.backups.push(FoundBackup { folder, metadata, is_suspect });
    }
    Ok(found)
}

/// The namespace that the files below a folder were made from, as the first of them says.
pub async fn namespace_of(
    storage: &Arc<dyn Storage>,
    folder: &ObjectPath,
    keys: &KeyRing,
) -> Result<String, EngineError> {
    let found = find(&**storage, folder).await?;
    found.check_readable(&**storage)?;
    let file =
        found.files.first().ok_or_else(|| EngineError::NoFiles { folder: place(&**storage, folder) })?;
    let kind = read_kind(storage, &file.clone().into(), keys, true).await?;
    Ok(String::from_utf8_lossy(&kind.header.namespace).into_owned())
}

/// What a file is, by its header: fails when it cannot be read with these keys. With `reads_cut_files` it may be damaged behind.
pub(crate) async fn read_kind(
    storage: &Arc<dyn Storage>,
    file: &BackupFile,
    keys: &KeyRing,
    reads_cut_files: bool,
) -> Result<FileKind, EngineError> {
    let source = BlockSource::new(Arc::clone(storage), keys.clone(), None, Arc::default());
    let source = source.reading_cut_files(reads_cut_files);
    let mut block = TextBlock::default();
    SharedFile::new(file.clone()).next(&source, &mut block).await?;
    block.kind.ok_or_else(|| EngineError::BadFile {
        file: file.info.path.to_string(),
        what: "has no header that names its namespace".to_owned(),
    })
}

/// Looks for a backup; fails when there is none.
pub(crate) async fn find(storage: &dyn Storage, folder: &ObjectPath) -> Result<Found, EngineError> {
    let objects = storage.list(folder, true).await?.objects;
    let named = |name: &'static str| objects.iter().filter(move |object| object.path.name() == name);
    let metadata: Vec<_> = named(METADATA_FILE).cloned().collect();
    let marks = named(MARK_FILE).map(|object| object.path.clone()).collect();
    let manifests = named(MANIFEST_FILE).filter_map(|object| object.path.parent()).collect();
    let claims = objects.iter().filter(|object| claim_number(object.path.name()).is_some());
    let claims: Vec<_> = claims.filter_map(|object| object.path.parent()).collect();
    // A deletion deletes metadata.yaml first.
    let mut deleting = named(DELETING_FILE).filter_map(|object| object.path.parent());
    let is_described =
        |folder: &ObjectPath| metadata.iter().any(|object| object.path.parent().as_ref() == Some(folder));
    if let Some(folder) = deleting.find(|folder| !is_described(folder)) {
        return Err(EngineError::Deleting { folder: place(storage, &folder) });
    }
    if metadata.is_empty() && !claims.is_empty() {
        return Err(EngineError::Unfinished { folder: place(storage, folder) });
    }
    let mut files = objects;
    files.retain(|file| is_data(&file.path));
    // A backup may be of nothing: it has no files then.
    if files.is_empty() && metadata.is_empty() {
        return Err(EngineError::NoFiles { folder: place(storage, folder) });
    }
    files.sort_by_key(|file| std::cmp::Reverse(file.size));
    Ok(Found { files, metadata, manifests, marks, claims })
}

/// Whether an object holds records or definitions of a backup.
pub(crate) fn is_data(path: &ObjectPath) -> bool {
    Path::new(path.as_str()).extension() == Some(OsStr::new("asb"))
}

/// Reads a metadata.yaml: what it says, and its text.
pub(crate) async fn read_metadata(
    storage: &dyn Storage,
    path: &ObjectPath,
) -> Result<(Metadata, Vec<u8>), EngineError> {
    let text = storage.get(path, 1 << 20).await?;
    let metadata = Metadata::from_yaml(&text)
        .map_err(|e| EngineError::BadFile { file: path.to_string(), what: e.to_string() })?;
    Ok((metadata, text))
}

impl Found {
    /// Divides what was found among its backups, by their folders. A backup has all that is below the folder of its
    /// metadata.yaml; files that belong to none are those of their folder.
    pub(crate) fn divide(self) -> BTreeMap<ObjectPath, Self> {
        let described: HashSet<_> = self.metadata.iter().filter_map(|object| object.path.parent()).collect();
        let owner = |folder: Option<ObjectPath>| {
            let folder = folder.unwrap_or_else(ObjectPath::root);
            let mut above = std::iter::successors(Some(folder.clone()), ObjectPath::parent);
            above.find(|above| described.contains(above)).unwrap_or(folder)
        };
        let mut parts: BTreeMap<ObjectPath, Self> = BTreeMap::new();
        for file in self.files {
            parts.entry(owner(file.path.parent())).or_default().files.push(file);
        }
        for object in self.metadata {
            parts.entry(owner(object.path.parent())).or_default().metadata.push(object);
        }
        for folder in self.manifests {
            parts.entry(owner(Some(folder.clone()))).or_default().manifests.push(folder);
        }
        for folder in self.claims {
            parts.entry(owner(Some(folder.clone()))).or_default().claims.push(folder);
        }
        parts
    }

    /// Whether it is what a run writes, or left.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.metadata.is_empty() && !self.claims.is_empty()
    }

    /// Whether there is a manifest, but no metadata.yaml any more.
    pub(crate) fn has_lost_metadata(&self) -> bool {
        self.metadata.is_empty() && !self.manifests.is_empty()
    }
}

/// What the metadata.yaml in the folder of a backup says; none if there is none.
pub async fn find_metadata(
    storage: &dyn Storage,
    folder: &ObjectPath,
) -> Result<Option<Metadata>, EngineError> {
    match read_metadata(storage, &join(folder, METADATA_FILE)?).await {
        Ok((metadata, _)) => Ok(Some(metadata)),
        Err(EngineError::Storage(e)) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

/// What a folder with one metadata.yaml holds.
pub(crate) struct Described {
    pub metadata: Metadata,
    /// The files of the backup; of one with a manifest only those that it names.
    pub files: Vec<BackupFile>,
    /// How the files that are there differ from the manifest.
    pub wrong: Vec<EngineError>,
    /// Whether the manifest was made with the key of the backup.
    pub authentic: Result<(), EngineError>,
    /// Whether there is a manifest.
    pub is_proven: bool,
}

impl Found {
    /// Reads the metadata.yaml `object`, the only one, and the manifest if the backup has one.
    pub(crate) async fn describe(
        &self,
        storage: &dyn Storage,
        object: &ObjectPath,
        keys: &KeyRing,
    ) -> Result<Described, EngineError> {
        let folder = object.parent().unwrap_or_else(ObjectPath::root);
        let (metadata, text) = read_metadata(storage, object).await?;
        let is_there = self.manifests.contains(&folder);
        match Manifest::read(storage, &folder, &text, &metadata, is_there, keys).await? {
            None => Ok(self.without_manifest(metadata)),
            Some(Proof { manifest, authentic }) => {
                let (files, wrong) =
                    manifest.compare(storage, &folder, self.files.clone(), metadata.encryption_key.clone());
                Ok(Described { metadata, files, wrong, authentic, is_proven: true })
            }
        }
    }

    /// Reads the metadata.yaml `object`, the only one, and passes over a manifest.
    pub(crate) async fn describe_alone(
        &self,
        storage: &dyn Storage,
        object: &ObjectPath,
    ) -> Result<Described, EngineError> {
        Ok(self.without_manifest(read_metadata(storage, object).await?.0))
    }

    fn without_manifest(&self, metadata: Metadata) -> Described {
        let origin = Arc::new(BackupOrigin { run: None, key_id: metadata.encryption_key.clone() });
        let file = |info| BackupFile { info, entry: None, origin: Arc::clone(&origin) };
        let files = self.files.iter().cloned().map(file).collect();
        Described { metadata, files, wrong: Vec::new(), authentic: Ok(()), is_proven: false }
    }
}

/// Names a task among those of its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileTaskId(u64);

/// A file for a worker to read to its end, perhaps together with others.
#[derive(Debug)]
pub struct FileTask {
    id: FileTaskId,
    path: ObjectPath,
    pub(crate) file: Arc<SharedFile>,
}

impl FileTask {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> FileTaskId {
        self.id
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &ObjectPath {
        &self.path
    }
}

/// Hands out the files of a run until all are read. Pure books: it never waits.
#[derive(Debug)]
pub struct FileQueue {
    unopened: VecDeque<(BackupFile, Arc<FileAnswers>)>,
    open: Vec<OpenFile>,
    /// Tasks handed out and not ended.
    out: HashMap<FileTaskId, Arc<SharedFile>>,
    last: FileTaskId,
}

#[derive(Debug)]
struct OpenFile {
    path: ObjectPath,
    file: Arc<SharedFile>,
    workers: usize,
}

impl FileQueue {
    /// A queue of `files`, in this order.
    pub(crate) fn new(files: Vec<(BackupFile, Arc<FileAnswers>)>) -> Self {
        Self { unopened: files.into(), open: Vec::new(), out: HashMap::new(), last: FileTaskId(0) }
    }

    /// The next task: the largest file that nobody reads yet, else a share of the one with the fewest workers. `None` when
    /// every file has been read to its end.
    pub fn next_task(&mut self) -> Option<FileTask> {
        if let Some((file, answers)) = self.unopened.pop_front() {
            let path = file.info.path.clone();
            let file = Arc::new(SharedFile::with_answers(file, answers));
            // It has no worker, and every other has one.
            self.open.push(OpenFile { path, file, workers: 0 });
        }
        let open = self.open.iter_mut().min_by_key(|open| open.workers)?;
        open.workers += 1;
        self.last.0 += 1;
        self.out.insert(self.last, Arc::clone(&open.file));
        Some(FileTask { id: self.last, path: open.path.clone(), file: Arc::clone(&open.file) })
    }

    /// Ends a task: its file has been read to the end, or its run has failed.
    pub fn ended(&mut self, id: FileTaskId) {
        let Some(file) = self.out.remove(&id) else { return };
        self.open.retain(|open| !Arc::ptr_eq(&open.file, &file));
    }

    /// False when every file has been read to its end.
    #[must_use]
    pub fn has_tasks(&self) -> bool {
        !self.unopened.is_empty() || !self.open.is_empty()
    }

    /// True when no task is out and none will be.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.unopened.is_empty() && self.out.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each file once, in order; then shares of the file with the fewest workers, until it has been read.
    #[test]
    fn files_are_opened_first_and_shared_then() {
        let file = |name: &str| ObjectInfo {
            path: ObjectPath::new(name).unwrap(),
            size: 1,
            modified: std::time::SystemTime::UNIX_EPOCH,
            archived: None,
            crc32c: None,
        };
        let files = ["a", "b", "c"].map(|name| (file(name).into(), Arc::new(FileAnswers::new(name, 1))));
        let mut queue = FileQueue::new(files.into());
        let tasks: Vec<_> = (0..5).map(|_| queue.next_task().unwrap()).collect();
        let names: Vec<_> = tasks.iter().map(|task| task.path().as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "a", "b"]);
        queue.ended(tasks[2].id());
        let more: Vec<_> = (0..2).map(|_| queue.next_task().unwrap()).collect();
        assert_eq!([more[0].path().as_str(), more[1].path().as_str()], ["a", "b"]);
        queue.ended(tasks[0].id());
        queue.ended(tasks[1].id());
        assert!(queue.next_task().is_none());
        for task in tasks[3..].iter().chain(&more) {
            assert!(!queue.is_over());
            queue.ended(task.id());
        }
        assert!(queue.is_over());
    }
}
