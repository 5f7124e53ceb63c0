//! The folder that a run writes to: claimed, filled, published or cleaned up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abs_storage::{ObjectPath, Storage};
use chrono::{DateTime, Utc};

use crate::error::EngineError;
use crate::metadata::{METADATA_FILE, Metadata};

/// Stands in a folder while a backup is written to it, and keeps others out. Not a part of the backup.
const CLAIM_FILE: &str = "in-progress";

/// The folder of one run.
#[derive(Debug)]
pub(crate) struct RunFolder {
    pub storage: Arc<dyn Storage>,
    pub path: ObjectPath,
    claim: ObjectPath,
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
        let not_empty = || EngineError::NotEmpty { folder: place(&**storage, path) };
        let claim = join(path, CLAIM_FILE)?;
        let folder =
            Self { storage: Arc::clone(storage), path: path.clone(), claim, visible: Mutex::default() };
        // A folder in use is not even touched.
        if !folder.holds_only(None).await? {
            return Err(not_empty());
        }
        let text = format!("a backup that began at {} is being written here\n", created.to_rfc3339());
        if !storage.put_if_absent(&folder.claim, text.as_bytes()).await? {
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
        let path = join(&self.path, METADATA_FILE)?;
        self.note(path.clone());
        self.storage.put(&path, yaml.as_bytes()).await?;
        *self.visible() = None;
        // The backup is whole with it too.
        let _ = self.storage.delete_prefix(&self.claim).await;
        Ok(())
    }

    /// Deletes everything that the run made. There is nobody to tell if that fails: a leftover without metadata.yaml is
    /// no backup, and the run's own error is the one to report.
    pub(crate) async fn discard(&self) {
        let Some(visible) = self.visible().take() else { return };
        // The latest first: metadata.yaml, should it be there, must not outlive a file it speaks of.
        for path in visible.into_iter().rev() {
            let _ = self.storage.delete_prefix(&path).await;
        }
        // Storages of folders keep empty ones; while the claim stands nobody else makes this his.
        let alone = !self.path.is_root() && matches!(self.holds_only(Some(&self.claim)).await, Ok(true));
        let _ = self.storage.delete_prefix(if alone { &self.path } else { &self.claim }).await;
    }
}

fn join(folder: &ObjectPath, name: &str) -> Result<ObjectPath, EngineError> {
    folder.join(name).map_err(|e| EngineError::Plan(e.to_string()))
}

/// A folder as the user knows it.
pub(crate) fn place(storage: &dyn Storage, folder: &ObjectPath) -> String {
    if folder.is_root() { storage.describe() } else { format!("{}/{folder}", storage.describe()) }
}
