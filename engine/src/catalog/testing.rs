//! A local folder with backups in it, and a storage that counts what is asked of it.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use abs_storage::{
    ByteRange, ErrorKind, Listing, Local, ObjectPath, ObjectReader, ObjectWriter, Result, Storage,
    StorageError, Verb,
};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tempfile::TempDir;

use super::{Backup, BackupKind, Catalog, ChainTraits};
use crate::{METADATA_FILE, Metadata};

/// A moment `minutes` after noon of the first day of 2024.
pub fn at(minutes: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_704_110_400_000).unwrap() + TimeDelta::minutes(minutes)
}

pub fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).unwrap()
}

/// The metadata of a backup; `from` is none for a full one.
pub fn metadata(namespace: &str, created: DateTime<Utc>, from: Option<DateTime<Utc>>) -> Metadata {
    Metadata {
        created,
        finished: created + TimeDelta::seconds(1),
        from: from.unwrap_or_else(Metadata::no_lower_bound),
        namespace: namespace.to_owned(),
        record_count: 1,
        byte_count: 10,
        file_count: 1,
        secondary_index_count: 0,
        udf_count: 0,
        compression: "NONE".to_owned(),
        encryption: "NONE".to_owned(),
        set_indexes: BTreeMap::new(),
        selection: None,
        from_bound: None,
        cluster_created: None,
        encryption_key: None,
        masked: false,
        manifest_hash: None,
    }
}

/// A backup as the catalog would find it, without any storage.
pub fn backup(namespace: &str, created: DateTime<Utc>, from: Option<DateTime<Utc>>) -> Backup {
    let kind = if from.is_some() { BackupKind::Incremental } else { BackupKind::Full };
    let run = super::run_folder("r", kind, created, None).unwrap();
    Backup {
        routine: "r".to_owned(),
        kind,
        created,
        metadata: Arc::new(metadata(namespace, created, from)),
        key: super::namespace_folder(&run, namespace).unwrap(),
        run,
        written: SystemTime::from(created),
        suspect: None,
        pinned: false,
    }
}

/// A storage in a temporary folder, and a catalog of it.
#[derive(Debug)]
pub struct Place {
    pub folder: TempDir,
    pub storage: Arc<Counting>,
    pub catalog: Catalog,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = Arc::new(Counting::new(Local::new(folder.path())));
        let catalog = Catalog::new(Arc::clone(&storage) as Arc<dyn Storage>);
        Self { folder, storage, catalog }
    }

    pub fn file(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file; without syncing it, for there are many.
    pub fn write(&self, path: &str, text: &str) {
        let file = self.file(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// Makes a backup of one file in the folder `key`.
    pub fn backup(&self, key: &str, metadata: &Metadata) {
        self.write(&format!("{key}/{}_0.asb", metadata.namespace), "Version 3.1\n");
        self.write(&format!("{key}/{METADATA_FILE}"), &metadata.to_yaml().unwrap());
    }

    /// Makes a full backup of routine `r`, begun `minutes` after noon.
    pub fn full(&self, namespace: &str, minutes: i64) {
        let backup = backup(namespace, at(minutes), None);
        self.backup(backup.key.as_str(), &backup.metadata);
    }

    /// Makes an incremental backup of what changed after `from`.
    pub fn incremental(&self, namespace: &str, minutes: i64, from: i64) {
        let backup = backup(namespace, at(minutes), Some(at(from)));
        self.backup(backup.key.as_str(), &backup.metadata);
    }

    pub fn exists(&self, path: &str) -> bool {
        self.file(path).exists()
    }
}

/// The folder of a run of routine `r`.
pub fn run(kind: BackupKind, minutes: i64) -> ObjectPath {
    super::run_folder("r", kind, at(minutes), None).unwrap()
}

/// A local storage that counts requests, and fails where it is told to.
#[derive(Debug)]
pub struct Counting {
    local: Local,
    pub lists: AtomicUsize,
    pub gets: AtomicUsize,
    under_way: AtomicUsize,
    /// The most requests that were under way at once.
    pub most: AtomicUsize,
    /// What was deleted, in order.
    pub deleted: Mutex<Vec<String>>,
    /// Where every request fails.
    broken: Mutex<HashSet<ObjectPath>>,
    /// Where deleting fails.
    lasting: Mutex<HashSet<ObjectPath>>,
    /// Whether conditional writes are written whatever is there.
    unconditional: AtomicBool,
}

impl Counting {
    fn new(local: Local) -> Self {
        Self {
            local,
            lists: AtomicUsize::new(0),
            gets: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            deleted: Mutex::default(),
            broken: Mutex::default(),
            lasting: Mutex::default(),
            unconditional: AtomicBool::new(false),
        }
    }

    /// Lists and gets since it was asked last.
    pub fn requests(&self) -> (usize, usize) {
        (self.lists.swap(0, SeqCst), self.gets.swap(0, SeqCst))
    }

    pub fn break_at(&self, place: &ObjectPath) {
        self.broken.lock().unwrap().insert(place.clone());
    }

    pub fn break_delete(&self, place: &ObjectPath) {
        self.lasting.lock().unwrap().insert(place.clone());
    }

    /// Writes whatever is there, as stores do that do not know the condition.
    pub fn ignore_conditions(&self) {
        self.unconditional.store(true, SeqCst);
    }

    pub fn mend(&self) {
        self.broken.lock().unwrap().clear();
        self.lasting.lock().unwrap().clear();
    }

    fn check(&self, verb: Verb, place: &ObjectPath) -> Result<()> {
        let is_lasting = verb == Verb::Delete && self.lasting.lock().unwrap().contains(place);
        if is_lasting || self.broken.lock().unwrap().contains(place) {
            let cause = std::io::Error::other("the disk is on fire");
            return Err(StorageError::new(verb, place.as_str(), ErrorKind::Io(cause)));
        }
        Ok(())
    }

    async fn count<T>(&self, work: impl Future<Output = T>) -> T {
        self.most.fetch_max(self.under_way.fetch_add(1, SeqCst) + 1, SeqCst);
        let result = work.await;
        self.under_way.fetch_sub(1, SeqCst);
        result
    }
}

#[async_trait]
impl Storage for Counting {
    fn describe(&self) -> String {
        self.local.describe()
    }

    async fn create(&self, path: &ObjectPath) -> Result<Box<dyn ObjectWriter>> {
        self.local.create(path).await
    }

    async fn open(&self, path: &ObjectPath, range: ByteRange) -> Result<Box<dyn ObjectReader>> {
        self.local.open(path, range).await
    }

    async fn put(&self, path: &ObjectPath, content: &[u8]) -> Result<()> {
        self.local.put(path, content).await
    }

    async fn put_if_absent(&self, path: &ObjectPath, content: &[u8]) -> Result<bool> {
        if self.unconditional.load(SeqCst) {
            return self.local.put(path, content).await.map(|()| true);
        }
        self.local.put_if_absent(path, content).await
    }

    async fn get(&self, path: &ObjectPath, limit: usize) -> Result<Vec<u8>> {
        self.gets.fetch_add(1, SeqCst);
        self.check(Verb::Read, path)?;
        self.count(self.local.get(path, limit)).await
    }

    async fn list(&self, prefix: &ObjectPath, recursive: bool) -> Result<Listing> {
        self.lists.fetch_add(1, SeqCst);
        self.check(Verb::List, prefix)?;
        self.count(self.local.list(prefix, recursive)).await
    }

    async fn delete_prefix(&self, prefix: &ObjectPath) -> Result<u64> {
        self.check(Verb::Delete, prefix)?;
        self.deleted.lock().unwrap().push(prefix.to_string());
        self.local.delete_prefix(prefix).await
    }

    async fn delete_unfinished(&self, prefix: &ObjectPath, older_than: Duration) -> Result<u64> {
        self.local.delete_unfinished(prefix, older_than).await
    }
}

/// Those of a backup of this selection.
pub fn traits(selection: &str) -> ChainTraits {
    ChainTraits { selection: selection.to_owned(), encryption: "NONE".to_owned(), encryption_key: None }
}
