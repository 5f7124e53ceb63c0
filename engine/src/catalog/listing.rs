//! Finding the backups, with as few requests as can be.
//!
//! A listing takes one request for the folder of the routine's runs, one for each run whose time is wanted, and one for
//! each metadata.yaml that was not read before, [`AT_ONCE`] of them at a time. A metadata.yaml is never changed, so it
//! is read again only when its size or its time differ from those of the last listing.

use std::collections::{HashMap, HashSet};
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use abs_storage::{ObjectInfo, ObjectPath, Storage};
use chrono::{DateTime, SubsecRound as _, Utc};
use futures_util::{StreamExt as _, stream};

use super::layout::{DATA, time_in};
use super::pins::PIN_FILE;
use super::suspects::{MARK_FILE, is_dated_later};
use super::{Backup, BackupKind, Listed, Result, Unreadable};
use crate::claim::{Owner, claim_number};
use crate::reading::{DELETING_FILE, is_reading_mark};
use crate::{METADATA_FILE, Metadata};

/// How many requests are under way at once.
pub const AT_ONCE: usize = 64;

/// The largest metadata.yaml that is read, in bytes; they have some hundred.
const METADATA_LIMIT: usize = 1 << 20;

/// The backups in a storage. Cloning shares what was read before.
#[derive(Clone, Debug)]
pub struct Catalog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage: Arc<dyn Storage>,
    owner: Owner,
    /// Whether the storage supports conditional writes, once that is known.
    conditional: OnceLock<bool>,
    /// What was read before, by the folder of the run.
    known: Mutex<HashMap<ObjectPath, Vec<Known>>>,
}

/// A metadata.yaml that was read.
#[derive(Clone, Debug)]
struct Known {
    file: ObjectInfo,
    metadata: Arc<Metadata>,
}

/// A folder beside those of other runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunFolder {
    pub path: ObjectPath,
    /// The time in its name. Without one it is no run's, but it may be of a backup that was made without a time in
    /// its path.
    pub created: Option<DateTime<Utc>>,
}

impl RunFolder {
    /// Whether this object is the metadata.yaml of a backup.
    fn may_hold(&self, file: &ObjectPath) -> bool {
        file.name() == METADATA_FILE
            && match (self.created, file.below(&self.path)) {
                (Some(_), _) => true,
                // Only where backups were ever written; the rest is somebody else's.
                (None, Some(below)) => {
                    below.split('/').count() == if self.path.name() == DATA { 2 } else { 1 }
                }
                (None, None) => false,
            }
    }

    /// The folder that counts as the run of a backup in here.
    fn run_of(&self, metadata: &ObjectPath) -> ObjectPath {
        match (self.created, metadata.parent()) {
            (None, Some(key)) => key,
            _ => self.path.clone(),
        }
    }
}

/// What a listing found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub listed: Listed,
    /// Folders without any metadata.yaml: of runs that go on, failed or were deleted in part, or of others.
    pub bare: Vec<Bare>,
    /// The marks of readers beside backups.
    pub reading: Vec<ObjectInfo>,
}

/// A folder without any metadata.yaml.
#[derive(Debug)]
pub(super) struct Bare {
    pub folder: RunFolder,
    /// The claims of those who write there, or did.
    pub claims: Vec<ObjectInfo>,
    /// Whether its deletion was begun.
    pub is_deleted: bool,
}

/// What stands in the folder of a run beside its backups.
#[derive(Debug, Default)]
struct Marks {
    /// The folders of backups whose time is wrong, and when that was noticed.
    suspect: Vec<(ObjectPath, SystemTime)>,
    /// The folders with a pin.
    pinned: Vec<ObjectPath>,
}

impl Marks {
    fn of(objects: &[ObjectInfo]) -> Arc<Self> {
        let mut marks = Self::default();
        for object in objects {
            match (object.path.name(), object.path.parent()) {
                (MARK_FILE, Some(folder)) => marks.suspect.push((folder, object.modified)),
                (PIN_FILE, Some(folder)) => marks.pinned.push(folder),
                _ => {}
            }
        }
        Arc::new(marks)
    }
}

/// The backup that a metadata.yaml in `folder` speaks of.
fn backup(routine: &str, kind: BackupKind, folder: &RunFolder, marks: &Marks, known: Known) -> Backup {
    let Known { file, metadata } = known;
    let created = folder.created.unwrap_or_else(|| metadata.created.trunc_subsecs(3));
    let key = file.path.parent().unwrap_or_else(ObjectPath::root);
    let mark = marks.suspect.iter().find(|(marked, _)| *marked == key).map(|(_, set)| *set);
    let run = folder.run_of(&file.path);
    Backup {
        routine: routine.to_owned(),
        kind,
        created,
        pinned: marks.pinned.contains(&run),
        run,
        key,
        metadata,
        written: file.modified,
        suspect: mark.or_else(|| is_dated_later(created, file.modified).then_some(file.modified)),
    }
}

impl Listed {
    fn sort(&mut self) {
        self.backups
            .sort_by(|a, b| (a.created, a.namespace(), &a.key).cmp(&(b.created, b.namespace(), &b.key)));
        self.unreadable.sort_by(|a, b| a.place.cmp(&b.place));
    }
}

impl Catalog {
    /// The backups in `storage`.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self::with_owner(storage, Owner::default())
    }

    /// The backups in `storage`, for a process whose claims say `owner`.
    #[must_use]
    pub fn with_owner(storage: Arc<dyn Storage>, owner: Owner) -> Self {
        let conditional = OnceLock::new();
        Self(Arc::new(Inner { storage, owner, conditional, known: Mutex::default() }))
    }

    /// What the claims of this process say.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.0.owner
    }

    /// Whether the storage supports conditional writes, once that is known.
    pub(super) fn conditional(&self) -> &OnceLock<bool> {
        &self.0.conditional
    }

    /// The storage.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.0.storage
    }

    /// The backups of `routine` made in a range of times (in the API both ends count: `from..=to`), by time, then by
    /// namespace. What is there but cannot be read is returned beside them and hides no other; only when the routine's
    /// folder cannot be listed it is an error. A routine that is not there has no backups. Backups whose time is wrong
    /// are listed, too.
    pub async fn list(
        &self,
        routine: &str,
        kind: BackupKind,
        range: impl RangeBounds<DateTime<Utc>>,
    ) -> Result<Listed> {
        let mut folders = self.folders(routine, kind).await?;
        folders.retain(|folder| folder.created.is_none_or(|created| range.contains(&created)));
        let mut listed = self.read(routine, kind, folders).await.listed;
        listed.backups.retain(|backup| range.contains(&backup.created));
        Ok(listed)
    }

    /// When the newest backup of `routine` was made, of those begun in a range of times; none if there is none. Only the
    /// newest runs are read. One whose metadata.yaml cannot be read was made, too; one whose time is wrong does not count.
    pub async fn last(
        &self,
        routine: &str,
        kind: BackupKind,
        range: impl RangeBounds<DateTime<Utc>>,
    ) -> Result<Option<DateTime<Utc>>> {
        let mut last = None;
        self.walk(routine, kind, range, |listed| {
            let trusted = listed.backups.iter().filter(|backup| backup.is_trusted());
            let readable = trusted.map(|backup| backup.created);
            let others = listed.unreadable.iter().filter(|other| other.place.name() == METADATA_FILE);
            last = readable.chain(others.filter_map(|other| other.created)).max();
            last.is_some()
        })
        .await?;
        Ok(last)
    }

    /// The backups of the newest run that has any, of those begun in a range of times. Only the newest runs are read;
    /// what of them cannot be read or has a wrong time is passed over.
    pub async fn last_run(
        &self,
        routine: &str,
        kind: BackupKind,
        range: impl RangeBounds<DateTime<Utc>>,
    ) -> Result<Vec<Backup>> {
        let mut newest: Vec<Backup> = Vec::new();
        self.walk(routine, kind, range, |listed| {
            for backup in listed.backups.into_iter().filter(Backup::is_trusted) {
                if newest.first().is_none_or(|first| first.created < backup.created) {
                    newest.clear();
                }
                if newest.first().is_none_or(|first| first.run == backup.run) {
                    newest.push(backup);
                }
            }
            !newest.is_empty()
        })
        .await?;
        Ok(newest)
    }

    /// Shows the backups begun in a range of times to `visit` in portions, the newer ones first, until it returns true.
    pub(super) async fn walk(
        &self,
        routine: &str,
        kind: BackupKind,
        range: impl RangeBounds<DateTime<Utc>>,
        mut visit: impl FnMut(Listed) -> bool,
    ) -> Result<()> {
        let folders = self.folders(routine, kind).await?;
        let (mut timed, timeless): (Vec<_>, Vec<_>) =
            folders.into_iter().partition(|folder| folder.created.is_some());
        timed.retain(|folder| folder.created.is_some_and(|created| range.contains(&created)));
        timed.sort_by_key(|folder| folder.created);
        let mut without_time = self.read(routine, kind, timeless).await.listed;
        without_time.backups.retain(|backup| range.contains(&backup.created));
        // The newest run usually is enough, so it is asked for alone, then ever more at once.
        let mut count = 1;
        loop {
            let portion = timed.split_off(timed.len().saturating_sub(count));
            let oldest = portion.first().and_then(|folder| folder.created);
            let mut listed = self.read(routine, kind, portion).await.listed;
            let newer = |backup: &mut Backup| oldest.is_none_or(|oldest| backup.created >= oldest);
            listed.backups.extend(without_time.backups.extract_if(.., newer));
            listed.unreadable.append(&mut without_time.unreadable);
            listed.sort();
            if visit(listed) || oldest.is_none() {
                return Ok(());
            }
            count = (count * 2).min(AT_ONCE);
        }
    }

    /// All backups of `routine`, and the folders of runs without.
    pub(super) async fn scan(&self, routine: &str, kind: BackupKind) -> Result<Found> {
        let folders = self.folders(routine, kind).await?;
        Ok(self.read(routine, kind, folders).await)
    }

    /// The folders below that of a routine's runs. Forgets what was read from those that are gone.
    pub(super) async fn folders(&self, routine: &str, kind: BackupKind) -> Result<Vec<RunFolder>> {
        let root = kind.folder(routine)?;
        let paths = self.0.storage.list(&root, false).await?.folders;
        let present: HashSet<_> = paths.iter().collect();
        self.known().retain(|folder, _| !folder.is_within(&root) || present.contains(folder));
        Ok(paths.into_iter().map(|path| RunFolder { created: time_in(path.name()), path }).collect())
    }

    /// Reads what is in the folders.
    pub(super) async fn read(&self, routine: &str, kind: BackupKind, folders: Vec<RunFolder>) -> Found {
        let listings = self.side_by_side(folders, |folder| async move {
            let listing = self.0.storage.list(&folder.path, true).await;
            (folder, listing)
        });
        let mut found = Found::default();
        let Listed { backups, unreadable } = &mut found.listed;
        let mut unread = Vec::new();
        for (folder, listing) in listings.await {
            match listing {
                Ok(listing) => {
                    let (files, others): (Vec<_>, Vec<_>) =
                        listing.objects.into_iter().partition(|file| folder.may_hold(&file.path));
                    let (known, new) = self.recall(&folder.path, files);
                    let marks = Marks::of(&others);
                    if known.is_empty() && new.is_empty() {
                        let is_deleted = others.iter().any(|file| file.path.name() == DELETING_FILE);
                        let claims =
                            others.into_iter().filter(|file| claim_number(file.path.name()).is_some());
                        found.bare.push(Bare { claims: claims.collect(), folder, is_deleted });
                        continue;
                    }
                    found
                        .reading
                        .extend(others.into_iter().filter(|object| is_reading_mark(object.path.name())));
                    backups
                        .extend(known.into_iter().map(|known| backup(routine, kind, &folder, &marks, known)));
                    unread.extend(new.into_iter().map(|file| (folder.clone(), Arc::clone(&marks), file)));
                }
                Err(e) => unreadable.push(Unreadable {
                    kind,
                    created: folder.created,
                    place: folder.path.clone(),
                    run: folder.path,
                    cause: e.to_string(),
                }),
            }
        }
        let texts = self.side_by_side(unread, |(folder, marks, file)| async move {
            let text = self.0.storage.get(&file.path, METADATA_LIMIT).await;
            (folder, marks, file, text)
        });
        for (folder, marks, file, text) in texts.await {
            let metadata = match text {
                Ok(text) => Metadata::from_yaml(&text).map_err(|e| e.to_string()),
                // Deleted since it was listed.
                Err(e) if e.is_not_found() => continue,
                Err(e) => Err(e.to_string()),
            };
            match metadata {
                Ok(metadata) => {
                    let read = Known { file, metadata: Arc::new(metadata) };
                    self.remember(&folder.path, &read);
                    backups.push(backup(routine, kind, &folder, &marks, read));
                }
                Err(cause) => unreadable.push(Unreadable {
                    kind,
                    created: folder.created,
                    run: folder.run_of(&file.path),
                    place: file.path,
                    cause,
                }),
            }
        }
        found.listed.sort();
        found
    }

    /// Tells the metadata files in a folder that were read before from those that were not, and forgets those that are
    /// gone.
    fn recall(&self, folder: &ObjectPath, files: Vec<ObjectInfo>) -> (Vec<Known>, Vec<ObjectInfo>) {
        let mut all = self.known();
        let mut known = all.remove(folder).unwrap_or_default();
        known.retain(|known| files.contains(&known.file));
        if !known.is_empty() {
            all.insert(folder.clone(), known.clone());
        }
        drop(all);
        let new = files.into_iter().filter(|file| !known.iter().any(|known| known.file == *file)).collect();
        (known, new)
    }

    fn remember(&self, folder: &ObjectPath, read: &Known) {
        let mut known = self.known();
        let known = known.entry(folder.clone()).or_default();
        // Another listing at the same time may have read it too.
        known.retain(|known| known.file.path != read.file.path);
        known.push(read.clone());
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ObjectPath, Vec<Known>>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` for all items, [`AT_ONCE`] at a time.
    pub(super) async fn side_by_side<T, R, F: Future<Output = R>>(
        &self,
        items: Vec<T>,
        work: impl FnMut(T) -> F,
    ) -> Vec<R> {
        stream::iter(items.into_iter().map(work)).buffer_unordered(AT_ONCE).collect().await
    }
}

#[cfg(test)]
mod tests;
