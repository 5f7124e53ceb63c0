//! Pins: runs that are kept, whatever the policy says, until the pin is taken away.
//!
//! A pin is an object in the folder of a run. It holds all that a restore of the run's backups needs.

use std::collections::HashMap;

use abs_storage::ObjectPath;
use chrono::{DateTime, Utc};

use super::{Backup, BackupKind, Catalog, CatalogError, Result};

/// The name of a pin.
pub const PIN_FILE: &str = "pinned";

impl Catalog {
    /// Pins the runs of `routine` that were begun at `created`; returns their folders, none if there is no such run.
    pub async fn pin(&self, routine: &str, created: DateTime<Utc>) -> Result<Vec<ObjectPath>> {
        let runs = self.runs_at(routine, created).await?;
        let text =
            format!("pinned at {}: delete this object to let the backup go\n", Utc::now().to_rfc3339());
        for run in &runs {
            self.storage().put(&run.join(PIN_FILE)?, text.as_bytes()).await?;
            // Whichever comes second sees the other; a deletion that has ended has left nothing to pin.
            if self.is_being_deleted(run).await? {
                self.storage().delete_prefix(&run.join(PIN_FILE)?).await?;
                return Err(CatalogError::Deleting { run: run.clone() });
            }
        }
        Ok(runs)
    }

    /// Takes the pins of these runs away; returns the folders of the runs, none if there is no such run.
    pub async fn unpin(&self, routine: &str, created: DateTime<Utc>) -> Result<Vec<ObjectPath>> {
        let runs = self.runs_at(routine, created).await?;
        for run in &runs {
            self.storage().delete_prefix(&run.join(PIN_FILE)?).await?;
        }
        Ok(runs)
    }

    /// The folders of the runs of a time that have a backup.
    async fn runs_at(&self, routine: &str, created: DateTime<Utc>) -> Result<Vec<ObjectPath>> {
        let mut runs = Vec::new();
        for kind in BackupKind::ALL {
            let listed = self.list(routine, kind, created..=created).await?;
            runs.extend(listed.backups.into_iter().map(|backup| backup.run));
        }
        runs.sort_unstable();
        runs.dedup();
        Ok(runs)
    }
}

/// The folders of the runs that pins hold, each with that of a run which has the pin: each pinned one, and what it builds on.
pub(super) fn pinned<'a>(
    fulls: &'a [Backup],
    incrementals: &'a [Backup],
) -> HashMap<&'a ObjectPath, &'a ObjectPath> {
    let mut held = HashMap::new();
    for pin in fulls.iter().chain(incrementals).filter(|backup| backup.pinned) {
        held.insert(&pin.run, &pin.run);
        let own = |backup: &&Backup| backup.namespace() == pin.namespace() && backup.created <= pin.created;
        if pin.kind == BackupKind::Incremental
            && let Some(full) = fulls.iter().filter(own).max_by_key(|full| full.created)
        {
            let between = incrementals.iter().filter(own).filter(|backup| backup.created >= full.created);
            for base in between.chain([full]) {
                held.entry(&base.run).or_insert(&pin.run);
            }
        }
    }
    held
}
