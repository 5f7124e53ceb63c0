//! The folder that a run writes to: claimed, filled, published or cleaned up.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use abs_asb::EncryptionKey;
use abs_storage::{Listing, ObjectInfo, ObjectPath, Storage};
use chrono::{DateTime, Utc};

use crate::checkpoint::{CHECKPOINTS, Checkpoint, RunOptions, Step, start_text};
use crate::claim::{LEFTOVER, Owner, Standing, claim_name, claim_number, is_free, latest_claim, look};
use crate::error::EngineError;
use crate::fault::done;
use crate::files::is_data;
use crate::manifest::{FileEntry, MANIFEST_FILE, Manifest, is_manifest, seal};
use crate::metadata::{METADATA_FILE, Metadata};
use crate::own_claim::{ClaimPaths, OwnClaim};
use crate::plan::BackupPlan;
use crate::sums::hex;

fn has_metadata(objects: &[ObjectInfo]) -> bool {
    objects.iter().any(|object| object.path.name() == METADATA_FILE)
}

/// The files of a run that are there for good.
#[derive(Debug, Default)]
struct Sealed {
    /// Those that a checkpoint holds.
    saved: Vec<FileEntry>,
    /// The others, with the number of checkpoints begun before them.
    fresh: Vec<(u64, FileEntry)>,
    /// The number of checkpoints that were to hold files, whether they could be written or not.
    offered: u64,
}

/// The folder of one run.
#[derive(Debug)]
pub(crate) struct RunFolder {
    pub storage: Arc<dyn Storage>,
    pub path: ObjectPath,
    claim: Arc<OwnClaim>,
    /// Files that are there, or are about to be, and their sizes; `None` when the folder is not ours any more.
    visible: Mutex<Option<Vec<(ObjectPath, u64)>>>,
    /// The id of the run.
    run: String,
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
        if !claim.is_some_and(|(_, text)| plan.owner.assess(&text).is_free(plan.continues)) {
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
        let before = before.map(|(number, text)| (number, plan.owner.assess(&text)));
        let is_ours = matches!(before, Some((_, Standing::LeftOver)));
        let not_empty = || EngineError::NotEmpty { folder: place(&**storage, path) };
        if !is_ours && has_metadata(&listing.objects) {
            // The process that claimed it has finished it.
            return Err(not_empty());
        }
        // A folder in use is not even touched.
        let generation = match before {
            Some((number, standing)) if standing.is_free(plan.continues) => number.saturating_add(1),
            Some((_, Standing::Free)) => {
                return Err(EngineError::LeftOver { folder: place(&**storage, path) });
            }
            Some(_) => return Err(EngineError::Claimed { folder: place(&**storage, path) }),
            None if listing == Listing::default() => 1,
            None => return Err(not_empty()),
        };
        let run = checkpoint.map_or_else(random_id, |saved| Ok(saved.run.clone()))?;
        let paths = claim_paths(path, generation)?;
        let purpose = format!("a backup that began at {} is being written here", created.to_rfc3339());
        let claim = OwnClaim::make(storage, paths, &purpose, &plan.owner).await?;
        let claim = claim.ok_or_else(|| EngineError::Claimed { folder: place(&**storage, path) })?;
        done("claim-put");
        let folder = Self {
            storage: Arc::clone(storage),
            path: path.clone(),
            claim,
            visible: Mutex::new(Some(Vec::new())),
            run,
            sealed: Mutex::default(),
            epoch: AtomicU64::new(0),
            next_step: AtomicU64::new(0),
            publishing: tokio::sync::Mutex::default(),
            putting: AtomicBool::new(false),
        };
        // Another process may have been here, and have ended, between the look and the claim.
        let Listing { objects, folders } = storage.list(path, false).await?;
        let is_new = generation == 1;
        let has_others =
            !folders.is_empty() || objects.iter().any(|found| found.path != folder.claim.paths.own);
        if (!is_ours && has_metadata(&objects)) || (is_new && has_others) {
            folder.release().await;
            return Err(not_empty());
        }
        match checkpoint {
            Some(saved) => folder.take_over(saved, plan, !is_ours).await?,
            None if is_new => {}
            None => wipe(&**storage, path, Some(&folder.claim.paths.own)).await?,
        }
        Ok(folder)
    }

    /// The number of its claim: 1 for the first one.
    pub(crate) fn generation(&self) -> u32 {
        self.claim.paths.number
    }

    /// Gives up the claim, and nothing else.
    async fn release(&self) {
        *self.visible() = None;
        self.claim.end().await;
        let _ = self.storage.delete_prefix(&self.claim.paths.own).await;
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
        self.put_step(&Step::takeover(self.generation(), continued), plan.encryption.as_ref()).await
    }

    /// Writes what the run is; from then on checkpoints can be written.
    pub(crate) async fn describe(
        &self,
        options: &RunOptions,
        key: Option<&EncryptionKey>,
    ) -> Result<(), EngineError> {
        let _publishing = self.publishing.lock().await;
        let text = start_text(&self.run, options, key)?;
        self.put_new(&format!("{CHECKPOINTS}/0.json"), text.as_bytes()).await?;
        done("run-described");
        self.next_step.store(1, Relaxed);
        Ok(())
    }

    /// Writes the next checkpoint. One that could not be written is written again.
    pub(crate) async fn put_step(&self, step: &Step, key: Option<&EncryptionKey>) -> Result<(), EngineError> {
        let _publishing = self.publishing.lock().await;
        let number = self.next_step.load(Relaxed);
        self.claim.check().await?;
        self.put_new(&format!("{CHECKPOINTS}/{number}.json"), seal(step, key)?.as_bytes()).await?;
        done("checkpoint-put");
        self.next_step.store(number + 1, Relaxed);
        Ok(())
    }

    /// The id of the run.
    pub(crate) fn run(&self) -> &str {
        &self.run
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
        let mut sealed = self.sealed();
        sealed.offered = sealed.offered.max(epoch + 1);
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

    /// The files that are there for good.
    fn files(&self) -> Vec<FileEntry> {
        let sealed = self.sealed();
        sealed.saved.iter().chain(sealed.fresh.iter().map(|(_, file)| file)).cloned().collect()
    }

    fn sealed(&self) -> MutexGuard<'_, Sealed> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner)
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
        let (manifest, beside) = Manifest::new(self.run.clone(), yaml, self.files());
        let sealed = seal(&manifest, key)?;
        self.claim.confirm().await?;
        self.check_files(&manifest.files).await?;
        for (name, bytes) in &beside {
            self.put_new(name, bytes).await?;
        }
        self.put_new(MANIFEST_FILE, sealed.as_bytes()).await?;
        done("manifest-put");
        let yaml = Manifest::metadata_text(&manifest.metadata, sealed.as_bytes());
        self.put_new(METADATA_FILE, yaml.as_bytes()).await?;
        done("metadata-put");
        self.claim.end().await;
        // The backup is whole with them too.
        let _ = self.storage.delete_prefix(&join(&self.path, CHECKPOINTS)?).await;
        done("checkpoints-deleted");
        for number in 1..=self.generation() {
            let _ = self.storage.delete_prefix(&join(&self.path, &claim_name(number))?).await;
            done("claim-deleted");
        }
        Ok(())
    }

    /// Why the folder is not this process's any more, if another one is known to have it.
    pub(crate) async fn taken(&self) -> Option<EngineError> {
        self.claim.check().await.err().filter(|e| matches!(e, EngineError::Taken { .. }))
    }

    /// Whether it holds what the run made and has not given up.
    pub(crate) fn is_ours(&self) -> bool {
        self.visible().is_some()
    }

    /// The backup was published and stays.
    pub(crate) fn keep(&self) {
        *self.visible() = None;
    }

    /// Writes an object that no other process can have written while this one has the folder.
    async fn put_new(&self, name: &str, content: &[u8]) -> Result<(), EngineError> {
        let path = join(&self.path, name)?;
        self.note(path.clone(), content.len() as u64);
        self.putting.store(true, Relaxed);
        let put = async {
            if !self.storage.put_if_absent(&path, content).await? {
                // Either this process wrote it and did not learn of it, or it does not have the folder any more.
                self.claim.confirm().await?;
                self.storage.put(&path, content).await?;
            }
            Ok(())
        };
        let put = put.await;
        self.putting.store(false, Relaxed);
        put
    }

    /// Whether a small object is on its way; it is waited for before anything is deleted.
    pub(crate) fn is_putting(&self) -> bool {
        self.putting.load(Relaxed)
    }

    /// Looks whether every one of these files is there as it was written, and deletes the others: a restore of the folder
    /// by a tool that knows no manifest would take them for a part of the backup.
    async fn check_files(&self, files: &[FileEntry]) -> Result<(), EngineError> {
        let objects = self.storage.list(&self.path, false).await?.objects;
        if latest_claim(&objects).is_some_and(|(number, _)| number > self.generation()) {
            return Err(self.claim.lose().await);
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
        match self.claim.check().await {
            Ok(()) => self.claim.end().await,
            Err(EngineError::Taken { .. }) => {
                // The rest is the other process's: it may continue from the checkpoints.
                for path in self.uncommitted(visible) {
                    let _ = self.storage.delete_prefix(&path).await;
                }
                return;
            }
            // It is not known whose the folder is.
            Err(_) => return,
        }
        if !self.path.is_root() {
            let _ = wipe(&*self.storage, &self.path, None).await;
            return;
        }
        // In the root of a storage others may have put something meanwhile. metadata.yaml, should it be there, must not outlive
        // a file it speaks of.
        let files = visible.into_iter().rev().map(|(path, _)| path);
        let named = |name: String| self.path.join(&name).ok();
        // Without its checkpoints nothing continues the rest, should the deletion end in between.
        let first = [METADATA_FILE, CHECKPOINTS].map(str::to_owned).into_iter().filter_map(named);
        let claims = (1..=self.generation()).map(claim_name).filter_map(named);
        for path in first.chain(files).chain(claims) {
            if self.storage.delete_prefix(&path).await.is_err() {
                return;
            }
        }
    }

    /// Of these objects the files of this attempt that no checkpoint can hold.
    fn uncommitted(&self, visible: Vec<(ObjectPath, u64)>) -> Vec<ObjectPath> {
        let sealed = self.sealed();
        let offered = sealed.fresh.iter().filter(|(epoch, _)| *epoch < sealed.offered).map(|(_, file)| file);
        let committed: HashSet<_> = sealed.saved.iter().chain(offered).map(|file| &*file.name).collect();
        let files = visible.into_iter().map(|(path, _)| path).filter(is_data);
        files.filter(|path| !committed.contains(path.name())).collect()
    }
}

/// Deletes what a failed attempt of this process left in the folder of a backup for another one, if there is anything; for a
/// plan that `continues` also what a process left that has ended.
pub async fn discard(
    storage: &Arc<dyn Storage>,
    folder: &ObjectPath,
    plan: &BackupPlan,
) -> Result<(), EngineError> {
    let (Listing { objects, .. }, claim) = look(&**storage, folder).await?;
    let Some((number, text)) = claim else { return Ok(()) };
    let standing = plan.owner.assess(&text);
    let is_whole = has_metadata(&objects) && standing != Standing::LeftOver;
    if is_whole || !standing.is_free(plan.continues) {
        return Ok(());
    }
    // Another process may take it at the same moment.
    let next = number.saturating_add(1);
    match OwnClaim::make(storage, claim_paths(folder, next)?, LEFTOVER, &plan.owner).await? {
        None => Ok(()),
        Some(claim) => {
            claim.end().await;
            wipe(&**storage, folder, None).await
        }
    }
}

/// How long the claim on a folder has to be observed before it is known whether its process still writes to it; none when
/// that is known.
pub async fn observe_claim(
    storage: &dyn Storage,
    folder: &ObjectPath,
    owner: &Owner,
) -> Result<Option<Duration>, EngineError> {
    let (_, claim) = look(storage, folder).await?;
    Ok(claim.and_then(|(_, text)| match owner.assess(&text) {
        Standing::Observed(left) => Some(left),
        Standing::LeftOver | Standing::Free | Standing::Held => None,
    }))
}

/// When the unfinished backup in a folder began that can be continued by this plan.
///
/// # Errors
/// There is none, its process still writes it or cannot be known to have ended (which may take a lease), or the plan is for
/// something else. Or it is whole: then what its process had no time to delete is deleted.
pub async fn find_unfinished(
    storage: &Arc<dyn Storage>,
    folder: &ObjectPath,
    plan: &BackupPlan,
) -> Result<DateTime<Utc>, EngineError> {
    let place = || place(&**storage, folder);
    let nothing = || EngineError::NothingToContinue { folder: place() };
    let (number, _) = look(&**storage, folder).await?.1.ok_or_else(nothing)?;
    let path = join(folder, &claim_name(number))?;
    if !is_free(&**storage, &path, &plan.owner).await? {
        return Err(EngineError::Claimed { folder: place() });
    }
    let (Listing { objects, .. }, claim) = look(&**storage, folder).await?;
    if claim.is_some_and(|(other, _)| other != number) {
        // Another process took it meanwhile.
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
    let Checkpoint { options, .. } = saved.ok_or_else(nothing)?;
    if options.fits(&plan, options.created) {
        Ok(options.created)
    } else {
        Err(EngineError::OtherOptions { folder: place(), namespace: options.namespace })
    }
}

/// Deletes all that is in a folder `except` one object, metadata.yaml first: should it be there, it must not outlive a file it
/// speaks of. Of the root of a storage, where others may have put something, only what belongs to a backup.
async fn wipe(
    storage: &dyn Storage,
    folder: &ObjectPath,
    except: Option<&ObjectPath>,
) -> Result<(), EngineError> {
    storage.delete_prefix(&join(folder, METADATA_FILE)?).await?;
    // Without its checkpoints nothing continues the rest, should the deletion end here.
    storage.delete_prefix(&join(folder, CHECKPOINTS)?).await?;
    if folder.is_root() || except.is_some() {
        let Listing { objects, folders } = storage.list(folder, false).await?;
        let belongs = |path: &ObjectPath| {
            let name = path.name();
            !folder.is_root() || is_data(path) || is_manifest(name) || claim_number(name).is_some()
        };
        let paths = objects.into_iter().map(|object| object.path).chain(folders);
        for path in paths.filter(|path| belongs(path) && Some(path) != except) {
            storage.delete_prefix(&path).await?;
        }
    } else {
        storage.delete_prefix(folder).await?;
    }
    storage.delete_unfinished(folder, Duration::ZERO).await?;
    Ok(())
}

/// An id that no other is equal to, in 32 hexadecimal digits.
///
/// # Errors
/// The system gives no random numbers.
pub fn random_id() -> Result<String, EngineError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| EngineError::Plan(format!("no random numbers: {e}")))?;
    Ok(hex(&id))
}

fn claim_paths(folder: &ObjectPath, number: u32) -> Result<ClaimPaths, EngineError> {
    ClaimPaths::new(folder, number).map_err(|e| EngineError::Plan(e.to_string()))
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
        storage.put(&path.join(&claim_name(9)).unwrap(), foreign.as_bytes()).await.unwrap();
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
