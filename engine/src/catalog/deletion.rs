//! Deleting runs that may be read at the same time, and one run with what builds on it.
//!
//! Whatever deletes a run first puts a mark beside each metadata.yaml, then looks for the marks of readers and for a pin;
//! finding one, it takes its own marks back. A reader puts its mark first, then looks for that of a deletion. So of two that
//! meet at least one gives way.

use std::collections::BTreeSet;
use std::sync::Arc;

use abs_storage::ObjectPath;
use chrono::{DateTime, Utc};

use super::chain::chain_to;
use super::pins::{PIN_FILE, pinned};
use super::{Backup, BackupKind, Catalog, CatalogError, Moment, Result};
use crate::METADATA_FILE;
use crate::claim::{Standing, assess, is_free};
use crate::own_claim::{ClaimPaths, OwnClaim};
use crate::reading::{DELETING_FILE, is_reading_mark};

impl Catalog {
    /// The folders of the runs of `routine` that were begun at `created`, and, with `cascade`, of those that build on them, in
    /// the order to delete them in; none if there is no such run.
    ///
    /// # Errors
    /// Others build on it, and there is no `cascade`; or a pin holds one of them.
    pub async fn plan_deletion(
        &self,
        routine: &str,
        created: DateTime<Utc>,
        cascade: bool,
    ) -> Result<Vec<ObjectPath>> {
        let mut fulls = self.list(routine, BackupKind::Full, ..).await?;
        let mut incrementals = self.list(routine, BackupKind::Incremental, ..).await?;
        let mut suspects = Vec::new();
        for listed in [&mut fulls, &mut incrementals] {
            suspects.extend(listed.backups.extract_if(.., |backup| !backup.is_trusted()));
        }
        let at_time = |backup: &&Backup| backup.created == created;
        let mut going: Vec<&Backup> =
            fulls.backups.iter().chain(&incrementals.backups).chain(&suspects).filter(at_time).collect();
        // Also one that cannot be read, or whose deletion was interrupted.
        let unreadable = fulls.unreadable.iter().chain(&incrementals.unreadable);
        let mut runs: BTreeSet<_> = unreadable
            .filter(|other| other.created == Some(created))
            .map(|other| (created, other.run.clone()))
            .collect();
        for kind in BackupKind::ALL {
            let mut folders = self.folders(routine, kind).await?;
            folders.retain(|folder| folder.created == Some(created));
            let bare = self.read(routine, kind, folders).await.bare;
            runs.extend(
                bare.into_iter().filter(|bare| bare.is_deleted).map(|bare| (created, bare.folder.path)),
            );
        }
        let mut dependents = Vec::new();
        // By time, so what builds on one that builds on the first is found, too.
        for backup in &incrementals.backups {
            if going.iter().any(|base| base.key == backup.key) {
                continue;
            }
            // One that cannot be restored as it is needs none.
            let chain = chain_to(routine, backup, &fulls, &incrementals);
            if chain
                .is_ok_and(|chain| chain.backups().any(|link| going.iter().any(|base| base.key == link.key)))
            {
                going.push(backup);
                dependents.push(backup);
            }
        }
        runs.extend(going.iter().map(|backup| (backup.created, backup.run.clone())));
        // First, because no cascade helps against it.
        let pins = pinned(&fulls.backups, &incrementals.backups);
        if let Some((run, pin)) = runs.iter().find_map(|(_, run)| pins.get_key_value(run)) {
            return Err(CatalogError::Pinned { run: (*run).clone(), pin: (*pin).clone() });
        }
        if let Some(first) = dependents.first()
            && !cascade
        {
            return Err(CatalogError::BuiltOn {
                routine: routine.to_owned(),
                time: Moment(created),
                by: Moment(first.created),
                count: dependents.len(),
            });
        }
        Ok(runs.into_iter().rev().map(|(_, run)| run).collect())
    }

    /// Fails as [`delete_runs`](Self::delete_runs) would now.
    ///
    /// # Errors
    /// One is being read, or is pinned.
    pub async fn check_deletion(&self, runs: &[ObjectPath]) -> Result<()> {
        for run in runs {
            self.check_unused(run).await?;
        }
        Ok(())
    }

    /// Deletes runs in this order; returns the folders of those that are gone.
    ///
    /// # Errors
    /// One is being read, or is pinned: it and those after it stay.
    pub async fn delete_runs(&self, runs: Vec<ObjectPath>) -> (Vec<ObjectPath>, Result<()>) {
        let mut deleted = Vec::new();
        for run in runs {
            match self.delete_run(&run).await {
                Ok(()) => deleted.push(run),
                Err(e) => return (deleted, Err(e)),
            }
        }
        (deleted, Ok(()))
    }

    /// Deletes a run, unless it is being read, or is pinned.
    pub(super) async fn delete_run(&self, run: &ObjectPath) -> Result<()> {
        let marks = self.mark_deleting(run).await?;
        match self.check_unused(run).await {
            Ok(()) => {
                // The mark is the sign of life of a deletion that takes long.
                let removed = self.remove_run(run).await;
                drop(marks);
                removed
            }
            Err(e) => {
                for mark in marks {
                    mark.end().await;
                    self.storage().delete_prefix(&mark.paths.own).await?;
                }
                Err(e)
            }
        }
    }

    /// Puts the mark of a deletion beside each metadata.yaml of a run.
    async fn mark_deleting(&self, run: &ObjectPath) -> Result<Vec<Arc<OwnClaim>>> {
        let objects = self.storage().list(run, true).await?.objects;
        let mut marks = Vec::new();
        for file in objects.iter().filter(|object| object.path.name() == METADATA_FILE) {
            let Some(folder) = file.path.parent() else { continue };
            // One that was left when a deletion was interrupted stands for nothing: this process alone deletes.
            self.storage().delete_prefix(&folder.join(DELETING_FILE)?).await?;
            let paths = ClaimPaths::mark(&folder, DELETING_FILE)?;
            let mark = OwnClaim::make(self.storage(), paths, "this backup is being deleted", self.owner());
            marks.extend(mark.await?);
        }
        Ok(marks)
    }

    /// Fails when a run has a pin or a reader.
    async fn check_unused(&self, run: &ObjectPath) -> Result<()> {
        for object in self.storage().list(run, true).await?.objects {
            let name = object.path.name();
            if name == PIN_FILE {
                return Err(CatalogError::Pinned { run: run.clone(), pin: run.clone() });
            }
            if is_reading_mark(name) {
                // A mark of which nothing is known yet counts, too: nobody waits here for a lease.
                match assess(&**self.storage(), &object, self.owner()).await? {
                    Standing::Free | Standing::LeftOver => {}
                    Standing::Observed(_) | Standing::Held => {
                        return Err(CatalogError::InUse { run: run.clone() });
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a run is being deleted, or was.
    pub(super) async fn is_being_deleted(&self, run: &ObjectPath) -> Result<bool> {
        let objects = self.storage().list(run, true).await?.objects;
        if objects.iter().all(|object| object.path.name() != METADATA_FILE) {
            return Ok(true);
        }
        for object in objects {
            if object.path.name() == DELETING_FILE
                && !is_free(&**self.storage(), &object.path, self.owner()).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Place, at, run};
    use super::*;
    use crate::claim::Owner;
    use crate::error::EngineError;
    use crate::find_backups;
    use crate::reading::ReadMarks;

    use BackupKind::{Full, Incremental};

    fn place() -> Place {
        let place = Place::new();
        place.full("test", 0);
        place.incremental("test", 5, 0);
        place.incremental("test", 6, 5);
        // A cumulative one, which builds on the full one alone.
        place.incremental("test", 7, 0);
        place.full("test", 10);
        place.incremental("test", 15, 10);
        place
    }

    async fn plan(place: &Place, minute: i64, cascade: bool) -> Result<Vec<ObjectPath>> {
        place.catalog.plan_deletion("r", at(minute), cascade).await
    }

    async fn delete(place: &Place, minute: i64) -> Result<()> {
        let runs = plan(place, minute, true).await?;
        place.catalog.delete_runs(runs).await.1
    }

    /// Protects: a backup that others need to be restored goes with them only, and those go first.
    #[tokio::test]
    async fn what_is_built_on_goes_with_what_builds_on_it() {
        let place = place();
        let refused = plan(&place, 5, false).await.unwrap_err().to_string();
        assert!(refused.contains("1 later backup builds on"), "{refused}");
        let refused = plan(&place, 0, false).await.unwrap_err().to_string();
        assert!(refused.contains("3 later backups build on") && refused.contains("cascade"), "{refused}");
        assert_eq!(plan(&place, 5, true).await.unwrap(), [run(Incremental, 6), run(Incremental, 5)]);
        let all = [run(Incremental, 7), run(Incremental, 6), run(Incremental, 5), run(Full, 0)];
        assert_eq!(plan(&place, 0, true).await.unwrap(), all);
        for last in [6, 7, 15] {
            assert_eq!(plan(&place, last, false).await.unwrap(), [run(Incremental, last)]);
        }
        assert_eq!(plan(&place, 3, true).await.unwrap(), [] as [ObjectPath; 0]);
        delete(&place, 5).await.unwrap();
        let chain = place.catalog.chain("r", "test", at(9)).await.unwrap();
        assert_eq!(chain.backups().map(|backup| backup.created).collect::<Vec<_>>(), [at(0), at(7)]);
        assert!(!place.exists(run(Incremental, 5).as_str()) && !place.exists(run(Incremental, 6).as_str()));
    }

    /// Protects: what has a pin stays with all that it builds on, whatever deletes, until the pin is taken away.
    #[tokio::test]
    async fn a_pin_keeps_a_chain() {
        use abs_config::Retention;
        let place = place();
        assert_eq!(place.catalog.pin("r", at(6)).await.unwrap(), [run(Incremental, 6)]);
        assert_eq!(place.catalog.pin("r", at(3)).await.unwrap(), [] as [ObjectPath; 0]);
        for (minute, cascade) in [(0, true), (0, false), (5, true), (6, true)] {
            let error = plan(&place, minute, cascade).await.unwrap_err();
            let CatalogError::Pinned { pin, .. } = &error else { panic!("{minute}: {error}") };
            assert_eq!(pin, &run(Incremental, 6));
            assert!(error.to_string().contains(pin.as_str()), "{error}");
        }
        let listed = place.catalog.list("r", Incremental, ..).await.unwrap().backups;
        assert_eq!(
            listed.iter().map(|backup| backup.pinned).collect::<Vec<_>>(),
            [false, true, false, false]
        );
        let retention = Retention { full: Some(1), incremental: Some(1) };
        let deleted = place.catalog.apply_retention("r", retention, &[]).await.unwrap();
        assert_eq!(deleted, [run(Incremental, 7)]);
        assert_eq!(place.catalog.unpin("r", at(6)).await.unwrap(), [run(Incremental, 6)]);
        let deleted = place.catalog.apply_retention("r", retention, &[]).await.unwrap();
        assert_eq!(deleted, [run(Incremental, 6), run(Incremental, 5), run(Full, 0)]);
    }

    /// Protects: of a reader and a deletion that meet one gives way, also when they are in different processes, and marks that
    /// processes left which have ended are in no way.
    #[tokio::test]
    async fn what_is_read_is_not_deleted() {
        let place = place();
        let storage = Arc::clone(place.catalog.storage());
        let folder = run(Incremental, 15).join("data/test").unwrap();
        let folders = [folder.clone()];
        let reading = ReadMarks::begin(&storage, &folders, &Owner::default()).await.unwrap();
        let error = delete(&place, 15).await.unwrap_err();
        assert!(matches!(error, CatalogError::InUse { .. }), "{error}");
        let same = place.catalog.check_deletion(&[run(Incremental, 15)]).await.unwrap_err();
        assert_eq!(same.to_string(), error.to_string(), "a dry run says the same");
        assert!(!place.exists(&format!("{folder}/{DELETING_FILE}")), "the mark is taken back");
        reading.end().await;

        let paths = ClaimPaths::mark(&folder, DELETING_FILE).unwrap();
        let deletion = OwnClaim::make(&storage, paths, "deleted", &Owner::default()).await.unwrap().unwrap();
        let refused = ReadMarks::begin(&storage, &folders, &Owner::default()).await.unwrap_err();
        assert!(matches!(refused, EngineError::Deleting { .. }), "{refused}");
        let error = place.catalog.pin("r", at(15)).await.unwrap_err();
        assert!(matches!(error, CatalogError::Deleting { .. }), "{error}");
        let names = || std::fs::read_dir(place.file(folder.as_str())).unwrap().count();
        assert_eq!(names(), 3, "readers left nothing");
        drop(deletion);
        let left = || async {
            // Its process ended without a word.
            drop(ReadMarks::begin(&storage, &folders, &Owner::default()).await.unwrap());
            assert_eq!(names(), 4, "with the mark of the deletion, which stands for nothing");
        };
        left().await;
        let retention = abs_config::Retention { full: Some(2), incremental: None };
        place.catalog.apply_retention("r", retention, &[]).await.unwrap();
        assert_eq!(names(), 3, "retention deletes its mark");
        left().await;
        left().await;
        delete(&place, 15).await.unwrap();
        assert!(!place.exists(run(Incremental, 15).as_str()));
    }

    /// Protects: a deletion, and its dry run, do not wait for a lease until it is known whether a reader on another machine has ended.
    #[tokio::test]
    async fn a_reader_of_which_nothing_is_known_counts_as_one() {
        let place = place();
        let folder = run(Incremental, 15).join("data/test").unwrap();
        let text = "this backup is being read, number 3, lease 3600000, beat 1 by boot pid:[1] 1 1\n";
        place.write(&format!("{folder}/reading-x"), text);
        let error = delete(&place, 15).await.unwrap_err();
        assert!(matches!(error, CatalogError::InUse { .. }), "{error}");
        place.catalog.check_deletion(&[run(Incremental, 15)]).await.unwrap_err();
        assert!(place.exists(run(Incremental, 15).as_str()));
    }

    /// Protects: a deletion that was interrupted is finished, by the next retention or when it is asked for again.
    #[tokio::test]
    async fn an_interrupted_deletion_is_finished() {
        use abs_config::Retention;
        let place = place();
        for minute in [10, 15] {
            let kind = if minute == 10 { Full } else { Incremental };
            let folder = run(kind, minute).join("data/test").unwrap();
            place.write(&format!("{folder}/{DELETING_FILE}"), "this backup is being deleted");
            std::fs::remove_file(place.file(&format!("{folder}/{METADATA_FILE}"))).unwrap();
        }
        let folder = run(Incremental, 15).join("data/test").unwrap();
        let error = find_backups(&**place.catalog.storage(), &folder).await.unwrap_err();
        assert!(matches!(error, EngineError::Deleting { .. }), "{error}");
        assert_eq!(plan(&place, 15, false).await.unwrap(), [run(Incremental, 15)]);
        delete(&place, 15).await.unwrap();
        assert!(!place.exists(run(Incremental, 15).as_str()));
        let retention = Retention { full: Some(1), incremental: None };
        let deleted = place.catalog.apply_retention("r", retention, &[]).await.unwrap();
        assert_eq!(deleted, [run(Full, 10)]);
        assert!(place.exists(run(Full, 0).as_str()));
    }
}
