//! Marks of restores and verifications in the backups that they read, so that nothing deletes those meanwhile, not even a
//! process on another machine.

use std::sync::Arc;

use abs_storage::{ObjectInfo, ObjectPath, Storage, StorageError};

use crate::claim::{Owner, Standing, assess, is_free};
use crate::error::EngineError;
use crate::folder::{join, place, random_id};
use crate::own_claim::{ClaimPaths, OwnClaim};

/// The mark of a deletion, beside metadata.yaml.
pub(crate) const DELETING_FILE: &str = "deleting";

/// What the names of readers' marks begin with.
const READING: &str = "reading-";

/// Whether an object is the mark of a reader.
pub(crate) fn is_reading_mark(name: &str) -> bool {
    name.starts_with(READING)
}

/// Deletes those of the objects that are marks of readers which ended without a word.
pub(crate) async fn remove_left_marks(
    storage: &dyn Storage,
    objects: &[ObjectInfo],
    owner: &Owner,
) -> Result<(), StorageError> {
    for mark in objects.iter().filter(|object| is_reading_mark(object.path.name())) {
        if let Standing::Free | Standing::LeftOver = assess(storage, mark, owner).await? {
            storage.delete_prefix(&mark.path).await?;
        }
    }
    Ok(())
}

/// Marks in the folders of backups that are being read.
#[derive(Debug, Default)]
pub struct ReadMarks {
    marks: Vec<Arc<OwnClaim>>,
    storage: Option<Arc<dyn Storage>>,
}

impl ReadMarks {
    /// Marks the folders of backups, and deletes the marks of readers that ended without a word: of a restore that is resumed,
    /// its own. Waits while it is not known whether the process still runs that began to delete one.
    ///
    /// # Errors
    /// One is being deleted; or the storage fails, perhaps because it cannot be written to: then nothing is marked.
    pub async fn begin(
        storage: &Arc<dyn Storage>,
        folders: &[ObjectPath],
        owner: &Owner,
    ) -> Result<Self, EngineError> {
        let name = format!("{READING}{}", random_id()?);
        let mut reading = Self { marks: Vec::new(), storage: Some(Arc::clone(storage)) };
        for folder in folders {
            if let Err(e) = reading.mark(storage, folder, &name, owner).await {
                reading.end().await;
                return Err(e);
            }
        }
        Ok(reading)
    }

    async fn mark(
        &mut self,
        storage: &Arc<dyn Storage>,
        folder: &ObjectPath,
        name: &str,
        owner: &Owner,
    ) -> Result<(), EngineError> {
        let paths = ClaimPaths::mark(folder, name).map_err(|e| EngineError::Plan(e.to_string()))?;
        let mark = OwnClaim::make(storage, paths, "this backup is being read", owner).await?;
        self.marks.extend(mark);
        let deleting = join(folder, DELETING_FILE)?;
        if !is_free(&**storage, &deleting, owner).await? {
            return Err(EngineError::Deleting { folder: place(&**storage, folder) });
        }
        if let Ok(listing) = storage.list(folder, false).await {
            // They are in nobody's way: what cannot be deleted now is later.
            let _ = remove_left_marks(&**storage, &listing.objects, owner).await;
        }
        Ok(())
    }

    /// Takes the marks away. One that stays, because the storage fails, is passed over when its lease has passed.
    pub async fn end(self) {
        let Some(storage) = self.storage else { return };
        for mark in self.marks {
            mark.end().await;
            let _: Result<u64, StorageError> = storage.delete_prefix(&mark.paths.own).await;
        }
    }
}
