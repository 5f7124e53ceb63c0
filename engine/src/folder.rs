//! The folder that a run writes to: claimed, filled, published or cleaned up.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use abs_asb::EncryptionKey;
use abs_storage::{Listing, ObjectInfo, ObjectPath, Storage};
use chrono::{DateTime, Utc};

use crate::checkpoint::{CHECKPOINTS, Checkpoint, RunOptions, Step, start_text};
use crate::claim::{claim_name, claim_number, latest_claim, look, read_claim};
use crate::claimant::Claimant;
use crate::error::EngineError;
use crate::fault::done;
use crate::files::is_data;
use crate::manifest::{FileEntry, MANIFEST_FILE, Manifest, is_manifest, seal};
use crate::metadata::{METADATA_FILE, Metadata};
use crate::plan::BackupPlan;
use crate::sums::hex;

/// The numbers of this process's folders that are in use.
static IN_USE: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// The number of a folder in use, of no other in this process.
#[derive(Debug)]
struct Number(u64);

impl Number {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        IN_USE.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
        Self(number)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        IN_USE.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Whether a claim is one of this process that stands for nothing any more: of an attempt that could not clean up when its
/// storage failed.
fn is_left_over(text: &str) -> bool {
    let number = text.split_once(", number ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    let this = Claimant::this().is_some_and(|this| Claimant::at_the_end_of(text) == Some(this));
    let used = |number| IN_USE.lock().unwrap_or_else(PoisonError::into_inner).contains(&number);
    this && number.is_some_and(|number| !used(number))
}

fn has_metadata(objects: &[ObjectInfo]) -> bool {
    objects.iter().any(|object| object.path.name() == METADATA_FILE)
}

/// Whether a claim stands for nothing any more; `gone` says whether those of other processes may, too.
fn is_free(text: &str, gone: bool) -> bool {
    is_left_over(text) || (gone && Claimant::at_the_end_of(text).is_some_and(|claimant| claimant.is_gone()))
}

/// The files of a run that are there for good.
#[derive(Debug, Default)]
struct Sealed {
    /// Those that a checkpoint holds.
    saved: Vec<FileEntry>,
    /// The others, with the number of checkpoints begun before them.
    fresh: Vec<(u64, FileEntry)>,
}

/// The folder of one run.
#[derive(Debug)]
pub(crate) struct RunFolder {
    pub storage: Arc<dyn Storage>,
    pub path: ObjectPath,
    claim: ObjectPath,
    /// What the claim says: no other says the same.
    text: String,
    _number: Number,
    /// Files that are there, or are about to be, and their sizes; `None` when the folder is not ours any more.
    visible: Mutex<Option<Vec<(ObjectPath, u64)>>>,
    /// The id of the run.
    run: String,
    /// 1 for the first attempt at the run, and one more for each that went on.
    pub generation: u32,
    /// The files that are there for good.
    sealed: Mutex<Sealed>,
    /// Checkpoints begun.
    epoch: AtomicU64,
    /// The number of the next checkpoint object; 0 before the run is described.
    next_step: AtomicU64,
    /// Held while a checkpoint, the manifest or metadata.yaml is written: nothing is deleted before it is known whether that
    /// was done.
    publishing: tokio::sync::Mutex<()>,
    /// Whether such an object is on its way.
    putting: AtomicBool,
}

impl RunFolder {
    /// What an earlier attempt left in a folder that another one by this plan can go on with: an attempt of this process, or, if
    /// the plan says so, of one that has ended. The files must still be there.
    pub(crate) async fn find_checkpoint(
        storage: &Arc<dyn Storage>,
        path: &ObjectPath,
        plan: &BackupPlan,
    ) -> Result<Option<Checkpoint>, EngineError> {
        let (Listing { objects, .. }, claim) = look(&**storage, path).await?;
        if !claim.is_some_and(|(_, text)| is_free(&text, plan.continues)) {
            return Ok(None);
        }
        let saved = Checkpoint::load(storage, path, plan.encryption.as_ref()).await?;
        let sizes: HashMap<_, _> = objects.iter().map(|object| (object.path.name(), object.size)).collect();
        let is_there = |file: &FileEntry| sizes.get(&*file.name) == Some(&file.size);
        Ok(saved.filter(|saved| saved.files.iter().all(is_there)))
    }

    /// Takes a folder that must be empty, or hold what an earlier attempt left that is free: that is deleted unless
    /// there is a `checkpoint` to continue from. Of several runs at the same moment, in whatever processes, one gets it.
    pub(crate) async fn claim(
        storage: &Arc<dyn Storage>,
        path: &ObjectPath,
        created: DateTime<Utc>,
        checkpoint: Option<&Checkpoint>,
        plan: &BackupPlan,
    ) -> Result<Self, EngineError> {
        let (listing, before) = look(&**storage, path).await?;
        let before = before.map(|(number, text)| (number, is_free(&text, plan.continues), text));
        let is_ours = before.as_ref().is_some_and(|(_, _, text)| is_left_over(text));
        if !is_ours && has_metadata(&listing.objects) {
            // Whoever claimed it has finished it.
            return Err(EngineError::NotEmpty { folder: place(&**storage, path) });
        }
        let generation = match (&before, checkpoint) {
            (Some((before, true, _)), Some(_)) => before + 1,
            _ => 1,
        };
        let number = Number::new();
        let by = Claimant::this().map(|claimant| format!(" by {claimant}")).unwrap_or_default();
        let began = created.to_rfc3339();
        let folder = Self {
            storage: Arc::clone(storage),
            path: path.clone(),
            claim: join(path, &claim_name(generation))?,
            text: format!("a backup that began at {began} is being written here, number {} {by}\n", number.0),
            _number: number,
            visible: Mutex::default(),
            run: checkpoint.map_or_else(run_id, |saved| Ok(saved.run.clone()))?,
            generation,
            sealed: Mutex::default(),
            epoch: AtomicU64::new(0),
            next_step: AtomicU64::new(0),
            publishing: tokio::sync::Mutex::default(),
            putting: AtomicBool::new(false),
        };
        let not_empty = || EngineError::NotEmpty { folder: place(&**storage, path) };
        // A folder in use is not even touched.
        match (before, checkpoint) {
            (Some((_, true, _)), Some(saved)) => {
                if !storage.put_if_absent(&folder.claim, folder.text.as_bytes()).await? {
                    return Err(EngineError::Claimed { folder: place(&**storage, path) });
                }
                done("claim-put");
                if !is_ours && has_metadata(&storage.list(path, false).await?.objects) {
                    // Another process has continued and finished it since it was looked at.
                    storage.delete_prefix(&folder.claim).await?;
                    return Err(not_empty());
                }
                *folder.visible() = Some(Vec::new());
                folder.take_over(saved, plan, !is_ours).await?;
                return Ok(folder);
            }
            (Some((_, true, _)), None) => wipe(&**storage, path).await?,
            (Some((_, false, text)), _) => return Err(folder.claimed(&text)),
            (None, _) if listing == Listing::default() => {}
            (None, _) => return Err(not_empty()),
        }
        if !storage.put_if_absent(&folder.claim, folder.text.as_bytes()).await? {
            return Err(not_empty());
        }
        done("claim-put");
        *folder.visible() = Some(Vec::new());
        // Somebody may have been here, and gone, between the look and the claim.
        match folder.holds_only(Some(&folder.claim)).await {
            Ok(true) => Ok(folder),
            other => {
                folder.discard().await;
                other.and(Err(not_empty()))
            }
        }
    }

    /// Goes on with what an earlier attempt left: what the checkpoints do not hold is deleted.
    async fn take_over(
        &self,
        saved: &Checkpoint,
        plan: &BackupPlan,
        continued: bool,
    ) -> Result<(), EngineError> {
        // The attempt may have failed when all but its last answer was there.
        for name in [METADATA_FILE, MANIFEST_FILE] {
            self.storage.delete_prefix(&join(&self.path, name)?).await?;
        }
        self.storage.delete_unfinished(&self.path, Duration::ZERO).await?;
        self.check_files(&saved.files).await?;
        let below = join(&self.path, CHECKPOINTS)?;
        for object in self.storage.list(&below, false).await?.objects {
            let number =
                object.path.name().strip_suffix(".json").and_then(|number| number.parse::<u64>().ok());
            if number.is_none_or(|number| number > saved.last) {
                self.storage.delete_prefix(&object.path).await?;
            }
            self.note(object.path, object.size);
        }
        for file in &saved.files {
            self.note(join(&self.path, &file.name)?, file.size);
        }
        self.sealed().saved.clone_from(&saved.files);
        self.next_step.store(saved.last + 1, Relaxed);
        self.put_step(&Step::takeover(self.generation, continued), plan.encryption.as_ref()).await
    }

    /// Writes what the run is; from then on checkpoints can be written.
    pub(crate) async fn describe(
        &self,
        options: &RunOptions,
        key: Option<&EncryptionKey>,
    ) -> Result<(), EngineError> {
        let _publishing = self.publishing.lock().await;
        let text = start_text(&self.run, options, key)?;
        self.put(&format!("{CHECKPOINTS}/0.json"), text.as_bytes()).await?;
        done("run-described");
        self.next_step.store(1, Relaxed);
        Ok(())
    }

    /// Writes the next checkpoint. One that could not be written is written again.
    pub(crate) async fn put_step(&self, step: &Step, key: Option<&EncryptionKey>) -> Result<(), EngineError> {
        let _publishing = self.publishing.lock().await;
        let number = self.next_step.load(Relaxed);
        self.put(&format!("{CHECKPOINTS}/{number}.json"), seal(step, key)?.as_bytes()).await?;
        done("checkpoint-put");
        self.next_step.store(number + 1, Relaxed);
        Ok(())
    }

    /// Whether there is a checkpoint to go on from.
    pub(crate) fn has_checkpoint(&self) -> bool {
        !self.sealed().saved.is_empty()
    }

    /// The number of checkpoints begun.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    /// Begins a checkpoint: the epoch of the files before it.
    pub(crate) fn begin_epoch(&self) -> u64 {
        self.epoch.fetch_add(1, Relaxed)
    }

    /// The files up to this epoch that no checkpoint holds.
    pub(crate) fn sealed_until(&self, epoch: u64) -> Vec<FileEntry> {
        let sealed = self.sealed();
        sealed.fresh.iter().filter(|(of, _)| *of <= epoch).map(|(_, file)| file.clone()).collect()
    }

    /// Notes files that a checkpoint holds.
    pub(crate) fn save(&self, files: Vec<FileEntry>) {
        let mut sealed = self.sealed();
        let saved: HashSet<_> = files.iter().map(|file| file.name.as_str()).collect();
        sealed.fresh.retain(|(_, file)| !saved.contains(file.name.as_str()));
        sealed.saved.extend(files);
    }

    /// Records, bytes and number of the files that are there for good.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        let sealed = self.sealed();
        let files = || sealed.saved.iter().chain(sealed.fresh.iter().map(|(_, file)| file));
        (files().map(|file| file.records).sum(), files().map(|file| file.size).sum(), files().count() as u64)
    }

    fn sealed(&self) -> MutexGuard<'_, Sealed> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn holds_only(&self, object: Option<&ObjectPath>) -> Result<bool, EngineError> {
        let listing = self.storage.list(&self.path, false).await?;
        Ok(listing.folders.is_empty() && listing.objects.iter().all(|found| Some(&found.path) == object))
    }

    /// Why a folder with another's claim cannot be taken.
    fn claimed(&self, text: &str) -> EngineError {
        let folder = place(&*self.storage, &self.path);
        if Claimant::at_the_end_of(text).is_some_and(|claimant| claimant.is_gone()) {
            EngineError::LeftOver { folder }
        } else {
            EngineError::Claimed { folder }
        }
    }

    /// Notes a file of this size that is about to appear, to be deleted if the run fails.
    pub(crate) fn note(&self, path: ObjectPath, size: u64) {
        self.visible().get_or_insert_default().push((path, size));
    }

    /// Notes a file that is there for good, begun after so many checkpoints.
    pub(crate) fn seal(&self, epoch: u64, file: FileEntry) {
        self.sealed().fresh.push((epoch, file));
    }

    fn visible(&self) -> MutexGuard<'_, Option<Vec<(ObjectPath, u64)>>> {
        self.visible.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the manifest, then metadata.yaml, from when on the backup exists, and deletes the claim. Until
    /// [`keep`](Self::keep) the backup can be discarded.
    pub(crate) async fn publish(
        &self,
        metadata: &Metadata,
        key: Option<&EncryptionKey>,
    ) -> Result<(), EngineError> {
        let _publishing = self.publishing.lock().await;
        let yaml = metadata.to_yaml().map_err(|e| EngineError::Plan(format!("{METADATA_FILE}: {e}")))?;
        let Sealed { mut saved, fresh } = std::mem::take(&mut *self.sealed());
        saved.extend(fresh.into_iter().map(|(_, file)| file));
        let (manifest, beside) = Manifest::new(self.run.clone(), yaml, saved);
        let sealed = seal(&manifest, key)?;
        // Whoever took the claim for abandoned has deleted what it stood for.
        if read_claim(&*self.storage, &self.claim).await?.as_ref() != Some(&self.text) {
            *self.visible() = None;
            return Err(EngineError::Taken { folder: place(&*self.storage, &self.path) });
        }
        self.check_files(&manifest.files).await?;
        for (name, bytes) in &beside {
            self.put(name, bytes).await?;
        }
        self.put(MANIFEST_FILE, sealed.as_bytes()).await?;
        done("manifest-put");
        let yaml = Manifest::metadata_text(&manifest.metadata, sealed.as_bytes());
        self.put(METADATA_FILE, yaml.as_bytes()).await?;
        done("metadata-put");
        // The backup is whole with them too.
        let _ = self.storage.delete_prefix(&join(&self.path, CHECKPOINTS)?).await;
        done("checkpoints-deleted");
        for number in 1..=self.generation {
            let _ = self.storage.delete_prefix(&join(&self.path, &claim_name(number))?).await;
            done("claim-deleted");
        }
        Ok(())
    }

    /// Whether it holds what the run made and has not given up.
    pub(crate) fn is_ours(&self) -> bool {
        self.visible().is_some()
    }

    /// The backup was published and stays.
    pub(crate) fn keep(&self) {
        *self.visible() = None;
    }

    async fn put(&self, name: &str, content: &[u8]) -> Result<(), EngineError> {
        let path = join(&self.path, name)?;
        self.note(path.clone(), content.len() as u64);
        self.putting.store(true, Relaxed);
        let put = self.storage.put(&path, content).await;
        self.putting.store(false, Relaxed);
        Ok(put?)
    }

    /// Whether a small object is on its way; it is waited for before anything is deleted.
    pub(crate) fn is_putting(&self) -> bool {
        self.putting.load(Relaxed)
    }

    /// Looks whether every one of these files is there as it was written, and deletes the others: a restore of the folder
    /// by a tool that knows no manifest would take them for a part of the backup.
    async fn check_files(&self, files: &[FileEntry]) -> Result<(), EngineError> {
        let objects = self.storage.list(&self.path, false).await?.objects;
        if latest_claim(&objects).is_some_and(|(number, _)| number > self.generation) {
            *self.visible() = None;
            return Err(EngineError::Taken { folder: place(&*self.storage, &self.path) });
        }
        let mut sizes: HashMap<_, _> = objects.into_iter().map(|object| (object.path, object.size)).collect();
        for file in files {
            let path = join(&self.path, &file.name)?;
            let what = match sizes.remove(&path) {
                None => "is gone".to_owned(),
                Some(found) if found != file.size => format!("has {found} bytes instead of {}", file.size),
                Some(_) => continue,
            };
            return Err(EngineError::Changed { file: place(&*self.storage, &path), what });
        }
        for path in sizes.into_keys().filter(is_data) {
            self.storage.delete_prefix(&path).await?;
        }
        Ok(())
    }

    /// Deletes everything that the run made. There is nobody to tell if that fails: a leftover without metadata.yaml is
    /// no backup, its claim stays, and the run's own error is the one to report.
    pub(crate) async fn discard(&self) {
        let _publishing = self.publishing.lock().await;
        let Some(visible) = self.visible().take() else { return };
        if !self.path.is_root() {
            let _ = wipe(&*self.storage, &self.path).await;
            return;
        }
        // In the root of a storage others may have put something meanwhile. metadata.yaml, should it be there, must not outlive
        // a file it speaks of.
        let files = visible.into_iter().rev().map(|(path, _)| path);
        let named = |name: String| self.path.join(&name).ok();
        // Without its checkpoints nothing continues the rest, should the deletion end in between.
        let first = [METADATA_FILE, CHECKPOINTS].map(str::to_owned).into_iter().filter_map(named);
        let claims = (1..=self.generation).map(claim_name).filter_map(named);
        for path in first.chain(files).chain(claims) {
            if self.storage.delete_prefix(&path).await.is_err() {
                return;
            }
        }
    }
}

/// Deletes what a failed attempt of this process left in the folder of a backup for another one, if there is anything; with
/// `continues` also what a process left that has ended.
pub async fn discard(
    storage: &Arc<dyn Storage>,
    folder: &ObjectPath,
    continues: bool,
) -> Result<(), EngineError> {
    let (Listing { objects, .. }, claim) = look(&**storage, folder).await?;
    match claim {
        Some((_, text)) if is_left_over(&text) || (is_free(&text, continues) && !has_metadata(&objects)) => {
            wipe(&**storage, folder).await
        }
        Some(_) | None => Ok(()),
    }
}

/// When the unfinished backup in a folder began that can be continued by this plan.
///
/// # Errors
/// There is none, its process still writes it or cannot be known to have ended, or the plan is for something else. Or it is
/// whole: then what its process had no time to delete is deleted.
pub async fn find_unfinished(
    storage: &Arc<dyn Storage>,
    folder: &ObjectPath,
    plan: &BackupPlan,
) -> Result<DateTime<Utc>, EngineError> {
    let place = || place(&**storage, folder);
    let (Listing { objects, .. }, claim) = look(&**storage, folder).await?;
    let (_, text) = claim.ok_or_else(|| EngineError::NothingToContinue { folder: place() })?;
    if !is_free(&text, true) {
        return Err(EngineError::Claimed { folder: place() });
    }
    if has_metadata(&objects) {
        // Its process ended when only these were left to delete.
        storage.delete_prefix(&join(folder, CHECKPOINTS)?).await?;
        for claim in objects.iter().filter(|object| claim_number(object.path.name()).is_some()) {
            storage.delete_prefix(&claim.path).await?;
        }
        return Err(EngineError::AlreadyDone { folder: place() });
    }
    let plan = BackupPlan { continues: true, ..plan.clone() };
    let saved = match RunFolder::find_checkpoint(storage, folder, &plan).await? {
        // Perhaps its checkpoints were made with another key.
        None => Checkpoint::load(storage, folder, None)
            .await?
            .filter(|saved| !saved.options.fits(&plan, saved.options.created)),
        saved => saved,
    };
    let Checkpoint { options, .. } =
        saved.ok_or_else(|| EngineError::NothingToContinue { folder: place() })?;
    if options.fits(&plan, options.created) {
        Ok(options.created)
    } else {
        Err(EngineError::OtherOptions { folder: place(), namespace: options.namespace })
    }
}

/// Deletes all that is in a folder, metadata.yaml first: should it be there, it must not outlive a file it speaks of.
/// Of the root of a storage, where others may have put something, only what belongs to a backup.
async fn wipe(storage: &dyn Storage, folder: &ObjectPath) -> Result<(), EngineError> {
    storage.delete_prefix(&join(folder, METADATA_FILE)?).await?;
    // Without its checkpoints nothing continues the rest, should the deletion end here.
    storage.delete_prefix(&join(folder, CHECKPOINTS)?).await?;
    if folder.is_root() {
        for object in storage.list(folder, false).await?.objects {
            let name = object.path.name();
            let is_ours = is_data(&object.path) || is_manifest(name) || claim_number(name).is_some();
            if is_ours {
                storage.delete_prefix(&object.path).await?;
            }
        }
    } else {
        storage.delete_prefix(folder).await?;
    }
    storage.delete_unfinished(folder, Duration::ZERO).await?;
    Ok(())
}

/// The id of a run, of no other.
fn run_id() -> Result<String, EngineError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| EngineError::Plan(format!("no random numbers: {e}")))?;
    Ok(hex(&id))
}

pub(crate) fn join(folder: &ObjectPath, name: &str) -> Result<ObjectPath, EngineError> {
    folder.join(name).map_err(|e| EngineError::Plan(e.to_string()))
}

/// A folder as the user knows it.
pub(crate) fn place(storage: &dyn Storage, folder: &ObjectPath) -> String {
    let place = storage.describe();
    if folder.is_root() { place } else { format!("{}/{folder}", place.trim_end_matches('/')) }
}

#[cfg(test)]
mod tests {
    use super::*;

    use abs_storage::Local;

    use crate::sums::FileSums;

    /// What an attempt left that could not clean up is in nobody's way; what somebody writes is.
    #[tokio::test]
    async fn a_folder_is_taken_again_from_ones_own_past_only() {
        let place = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Local::new(place.path()));
        let path = ObjectPath::new("r/backup/1/data/test").unwrap();
        let first = RunFolder::claim(&storage, &path, DateTime::UNIX_EPOCH, None, &BackupPlan::new("test"))
            .await
            .unwrap();
        let file = path.join("0.asb").unwrap();
        storage.put(&file, b"begun").await.unwrap();
        let error = RunFolder::claim(&storage, &path, DateTime::UNIX_EPOCH, None, &BackupPlan::new("test"))
            .await
            .unwrap_err();
        assert!(matches!(error, EngineError::Claimed { .. }), "{error}");
        drop(first);
        let again = RunFolder::claim(&storage, &path, DateTime::UNIX_EPOCH, None, &BackupPlan::new("test"))
            .await
            .unwrap();
        assert!(storage.get(&file, 10).await.unwrap_err().is_not_found(), "what was left is gone");
        drop(again);
        let foreign = "a backup that began at 1 is being written here, number 0 by other pid:[1] 1 1\n";
        storage.put(&path.join(&claim_name(1)).unwrap(), foreign.as_bytes()).await.unwrap();
        let error = RunFolder::claim(&storage, &path, DateTime::UNIX_EPOCH, None, &BackupPlan::new("test"))
            .await
            .unwrap_err();
        assert!(matches!(error, EngineError::Claimed { .. }), "{error}");
    }

    /// Protects: a backup whose files were deleted or cut while it was written is never listed as whole.
    #[tokio::test]
    async fn a_backup_is_not_published_without_its_files() {
        let place = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Local::new(place.path()));
        let path = ObjectPath::new("r/backup/1/data/test").unwrap();
        let metadata = crate::catalog::testing::metadata("test", DateTime::UNIX_EPOCH, None);
        let cases: [(Option<&[u8]>, &str); 3] =
            [(None, "0_test_1.asb is gone"), (Some(b"cu"), "2 bytes instead of 3"), (Some(b"cut"), "")];
        for (left, part) in cases {
            let folder =
                RunFolder::claim(&storage, &path, DateTime::UNIX_EPOCH, None, &BackupPlan::new("test"))
                    .await
                    .unwrap();
            for name in ["0_test_1.asb", "1_test_2.asb"] {
                folder.note(path.join(name).unwrap(), 3);
                storage.put(&path.join(name).unwrap(), b"cut").await.unwrap();
                folder.seal(0, FileEntry::new(name.to_owned(), 3, 1, FileSums::default()));
            }
            storage.put(&path.join("0_test_3.asb").unwrap(), b"of nobody").await.unwrap();
            storage.delete_prefix(&path.join("0_test_1.asb").unwrap()).await.unwrap();
            if let Some(left) = left {
                storage.put(&path.join("0_test_1.asb").unwrap(), left).await.unwrap();
            }
            let published = folder.publish(&metadata, None).await;
            if part.is_empty() {
                published.unwrap();
                let left = storage.list(&path, true).await.unwrap().objects;
                let left: Vec<_> = left.iter().map(|object| object.path.name()).collect();
                assert_eq!(left, ["0_test_1.asb", "1_test_2.asb", "manifest.json", "metadata.yaml"]);
                continue;
            }
            let error = published.unwrap_err();
            assert!(error.is_transient() && error.to_string().contains(part), "{error}");
            folder.discard().await;
            assert_eq!(storage.list(&path, true).await.unwrap().objects, []);
        }
    }

    /// A claim that was taken away says that the files were, too.
    #[tokio::test]
    async fn a_backup_is_not_published_without_its_claim() {
        let place = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Local::new(place.path()));
        let path = ObjectPath::new("r/backup/1/data/test").unwrap();
        let folder = RunFolder::claim(&storage, &path, DateTime::UNIX_EPOCH, None, &BackupPlan::new("test"))
            .await
            .unwrap();
        storage.delete_prefix(&path).await.unwrap();
        let metadata = crate::catalog::testing::metadata("test", DateTime::UNIX_EPOCH, None);
        let error = folder.publish(&metadata, None).await.unwrap_err();
        assert!(matches!(error, EngineError::Taken { .. }), "{error}");
        assert_eq!(storage.list(&path, true).await.unwrap().objects, []);
    }
}
