//! The folder that a run writes to: claimed, filled, published or cleaned up.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use abs_storage::{ObjectPath, Storage};
use chrono::{DateTime, Utc};

use crate::claimant::Claimant;
use crate::error::EngineError;
use crate::metadata::{METADATA_FILE, Metadata};

/// Stands in a folder while a backup is written to it, and keeps others out. Not a part of the backup.
pub(crate) const CLAIM_FILE: &str = "in-progress";

/// The largest claim that is read, in bytes; they have some hundred.
const CLAIM_LIMIT: usize = 4096;

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

/// The folder of one run.
#[derive(Debug)]
pub(crate) struct RunFolder {
    pub storage: Arc<dyn Storage>,
    pub path: ObjectPath,
    claim: ObjectPath,
    /// What the claim says: no other says the same.
    text: String,
    _number: Number,
    /// Files that are there, or are about to be; `None` when the folder is not ours any more.
    visible: Mutex<Option<Vec<ObjectPath>>>,
}

impl RunFolder {
    /// Takes a folder that must be empty. Of several runs at the same moment, in whatever processes, one gets it.
    pub(crate) async fn claim(
        storage: &Arc<dyn Storage>,
        path: &ObjectPath,
        created: DateTime<Utc>,
    ) -> Result<Self, EngineError> {
        let number = Number::new();
        let by = Claimant::this().map(|claimant| format!(" by {claimant}")).unwrap_or_default();
        let began = created.to_rfc3339();
        let folder = Self {
            storage: Arc::clone(storage),
            path: path.clone(),
            claim: join(path, CLAIM_FILE)?,
            text: format!("a backup that began at {began} is being written here, number {} {by}\n", number.0),
            _number: number,
            visible: Mutex::default(),
        };
        let not_empty = || EngineError::NotEmpty { folder: place(&**storage, path) };
        // A folder in use is not even touched.
        if !folder.holds_only(None).await? {
            if !folder.claimed_text().await?.is_some_and(|text| is_left_over(&text)) {
                return Err(not_empty());
            }
            folder.wipe().await?;
        }
        if !storage.put_if_absent(&folder.claim, folder.text.as_bytes()).await? {
            return Err(not_empty());
        }
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

    async fn holds_only(&self, object: Option<&ObjectPath>) -> Result<bool, EngineError> {
        let listing = self.storage.list(&self.path, false).await?;
        Ok(listing.folders.is_empty() && listing.objects.iter().all(|found| Some(&found.path) == object))
    }

    /// What the claim there says, if there is one.
    async fn claimed_text(&self) -> Result<Option<String>, EngineError> {
        match self.storage.get(&self.claim, CLAIM_LIMIT).await {
            Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Notes a file that is about to appear, to be deleted if the run fails.
    pub(crate) fn note(&self, path: ObjectPath) {
        self.visible().get_or_insert_default().push(path);
    }

    fn visible(&self) -> MutexGuard<'_, Option<Vec<ObjectPath>>> {
        self.visible.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes metadata.yaml, from when on the backup exists, and gives the folder free.
    pub(crate) async fn publish(&self, metadata: &Metadata) -> Result<(), EngineError> {
        let yaml = metadata.to_yaml().map_err(|e| EngineError::Plan(format!("{METADATA_FILE}: {e}")))?;
        // Whoever took the claim for abandoned has deleted what it stood for.
        if self.claimed_text().await?.as_ref() != Some(&self.text) {
            *self.visible() = None;
            return Err(EngineError::Taken { folder: place(&*self.storage, &self.path) });
        }
        let path = join(&self.path, METADATA_FILE)?;
        self.note(path.clone());
        self.storage.put(&path, yaml.as_bytes()).await?;
        *self.visible() = None;
        // The backup is whole with it too.
        let _ = self.storage.delete_prefix(&self.claim).await;
        Ok(())
    }

    /// Deletes everything that the run made. There is nobody to tell if that fails: a leftover without metadata.yaml is
    /// no backup, its claim stays, and the run's own error is the one to report.
    pub(crate) async fn discard(&self) {
        let Some(visible) = self.visible().take() else { return };
        if !self.path.is_root() {
            let _ = self.wipe().await;
            return;
        }
        // In the root of a storage others may have put something meanwhile. The latest first: metadata.yaml, should it be
        // there, must not outlive a file it speaks of.
        for path in visible.into_iter().rev().chain([self.claim.clone()]) {
            if self.storage.delete_prefix(&path).await.is_err() {
                return;
            }
        }
    }

    /// Deletes all that is in the folder, metadata.yaml first: should it be there, it must not outlive a file it speaks of.
    async fn wipe(&self) -> Result<(), EngineError> {
        self.storage.delete_prefix(&join(&self.path, METADATA_FILE)?).await?;
        self.storage.delete_prefix(&self.path).await?;
        self.storage.delete_unfinished(&self.path, Duration::ZERO).await?;
        Ok(())
    }
}

fn join(folder: &ObjectPath, name: &str) -> Result<ObjectPath, EngineError> {
    folder.join(name).map_err(|e| EngineError::Plan(e.to_string()))
}

/// A folder as the user knows it.
pub(crate) fn place(storage: &dyn Storage, folder: &ObjectPath) -> String {
    if folder.is_root() { storage.describe() } else { format!("{}/{folder}", storage.describe()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    use abs_storage::Local;

    /// What an attempt left that could not clean up is in nobody's way; what somebody writes is.
    #[tokio::test]
    async fn a_folder_is_taken_again_from_ones_own_past_only() {
        let place = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Local::new(place.path()));
        let path = ObjectPath::new("r/backup/1/data/test").unwrap();
        let first = RunFolder::claim(&storage, &path, DateTime::UNIX_EPOCH).await.unwrap();
        let file = path.join("0.asb").unwrap();
        storage.put(&file, b"begun").await.unwrap();
        let error = RunFolder::claim(&storage, &path, DateTime::UNIX_EPOCH).await.unwrap_err();
        assert!(matches!(error, EngineError::NotEmpty { .. }), "{error}");
        drop(first);
        let again = RunFolder::claim(&storage, &path, DateTime::UNIX_EPOCH).await.unwrap();
        assert!(storage.get(&file, 10).await.unwrap_err().is_not_found(), "what was left is gone");
        drop(again);
        let foreign = "a backup that began at 1 is being written here, number 0 by other pid:[1] 1 1\n";
        storage.put(&path.join(CLAIM_FILE).unwrap(), foreign.as_bytes()).await.unwrap();
        let error = RunFolder::claim(&storage, &path, DateTime::UNIX_EPOCH).await.unwrap_err();
        assert!(matches!(error, EngineError::NotEmpty { .. }), "{error}");
    }

    /// A claim that was taken away says that the files were, too.
    #[tokio::test]
    async fn a_backup_is_not_published_without_its_claim() {
        let place = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Local::new(place.path()));
        let path = ObjectPath::new("r/backup/1/data/test").unwrap();
        let folder = RunFolder::claim(&storage, &path, DateTime::UNIX_EPOCH).await.unwrap();
        storage.delete_prefix(&path).await.unwrap();
        let metadata = crate::catalog::testing::metadata("test", DateTime::UNIX_EPOCH, None);
        let error = folder.publish(&metadata).await.unwrap_err();
        assert!(matches!(error, EngineError::Taken { .. }), "{error}");
        assert_eq!(storage.list(&path, true).await.unwrap().objects, []);
    }
}
