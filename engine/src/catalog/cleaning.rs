//! Deleting. It is not atomic, so metadata.yaml always goes first: what is left when it ends in the middle is no
//! backup, and is found and deleted later.

use std::collections::HashSet;
use std::time::Duration;

use abs_config::Retention;
use abs_storage::ObjectPath;

use super::listing::{Bare, RunFolder};
use super::pins::pinned;
use super::{Backup, BackupKind, Catalog, CatalogError, Result, expired};
use crate::METADATA_FILE;
use crate::checkpoint::CHECKPOINTS;
use crate::reading::remove_left_marks;

impl Catalog {
    /// Deletes what the policy keeps no longer (see [`expired`]), and what an earlier deletion or a failed run left
    /// behind: marks of readers that have ended, deletions that were interrupted, and what is older than the oldest full backup kept and that nobody claims. Returns the folders of the runs that are gone.
    ///
    /// What a pin keeps, or another process reads, stays. A run that holds one of the paths `in_use`, or lies in one, is left alone: name the keys of backups that are
    /// being restored and the folders of runs that go on. So is one with a backup that cannot be read, and every
    /// incremental one made since a full one that cannot be read.
    ///
    /// A backup whose time is wrong does not count; it goes when as many full backups as are kept have been written since
    /// that was noticed, by the storage's clock.
    ///
    /// When a run cannot be deleted the others are none the less, but full ones only if no incremental one is left that
    /// should be gone; the first error is returned. The next call goes on.
    pub async fn apply_retention(
        &self,
        routine: &str,
        retention: Retention,
        in_use: &[ObjectPath],
    ) -> Result<Vec<ObjectPath>> {
        if retention == Retention::default() {
            return Ok(Vec::new());
        }
        let mut fulls = self.scan(routine, BackupKind::Full).await?;
        let mut incrementals = self.scan(routine, BackupKind::Incremental).await?;
        for found in [&fulls, &incrementals] {
            remove_left_marks(&**self.storage(), &found.reading, self.owner()).await?;
        }
        let mut suspects = Vec::new();
        for found in [&mut fulls, &mut incrementals] {
            suspects.extend(found.listed.backups.extract_if(.., |backup| !backup.is_trusted()));
        }
        let unreadable: HashSet<_> = [&fulls, &incrementals]
            .into_iter()
            .flat_map(|found| &found.listed.unreadable)
            .map(|other| &other.run)
            .collect();
        let doubt = fulls.listed.unreadable.iter().filter_map(|other| other.created).min();
        let since_doubt: HashSet<_> = incrementals
            .listed
            .backups
            .iter()
            .filter(|backup| doubt.is_some_and(|doubt| backup.created >= doubt))
            .map(|backup| &backup.run)
            .collect();
        let mut runs = expired(&fulls.listed.backups, &incrementals.listed.backups, retention);
        let pins = pinned(&fulls.listed.backups, &incrementals.listed.backups);
        runs.retain(|run| {
            !unreadable.contains(run)
                && !since_doubt.contains(run)
                && !pins.contains_key(run)
                && !is_used(run, in_use)
        });

        let going: HashSet<_> = runs.iter().collect();
        let kept = fulls.listed.backups.iter().filter(|full| !going.contains(&full.run));
        let oldest = kept.map(|full| full.created).min();
        let mut leftovers = Vec::new();
        for bare in fulls.bare.iter().chain(&incrementals.bare) {
            let Bare { folder: RunFolder { path, created }, claims, is_deleted } = bare;
            let old = created.zip(oldest).is_some_and(|(created, oldest)| created < oldest);
            if (old || *is_deleted) && !is_used(path, in_use) && self.are_free(claims).await? {
                leftovers.push(path.clone());
            }
        }
        // Either their dates are wrong, or the clock was when they were marked: they go when enough others were written since.
        let kept = || fulls.listed.backups.iter().filter(|full| !going.contains(&full.run));
        let is_old = |suspect: &&Backup| {
            let noticed = suspect.suspect.map_or(suspect.written, |noticed| noticed.max(suspect.written));
            let since: HashSet<_> =
                kept().filter(|full| full.written > noticed).map(|full| &full.run).collect();
            retention.full.is_some_and(|full| since.len() >= full as usize)
        };
        for suspect in suspects.iter().filter(is_old) {
            let is_shared = fulls.listed.backups.iter().chain(&incrementals.listed.backups);
            let is_shared =
                is_shared.map(|backup| &backup.run).chain(&leftovers).any(|run| *run == suspect.run);
            if !is_shared
                && !suspect.pinned
                && !unreadable.contains(&suspect.run)
                && !is_used(&suspect.run, in_use)
            {
                leftovers.push(suspect.run.clone());
            }
        }
        let full_folder = BackupKind::Full.folder(routine)?;
        let (full_runs, incremental_runs): (Vec<_>, Vec<_>) =
            leftovers.into_iter().chain(runs).partition(|run| run.is_within(&full_folder));
        let mut deleted = Vec::new();
        self.remove_all(incremental_runs, &mut deleted).await?;
        self.remove_all(full_runs, &mut deleted).await?;
        Ok(deleted)
    }

    /// Deletes a run, whole: of a canceled or failed one what it wrote. Nothing may be writing to it. What does not
    /// exist is no error; a folder that cannot be a run's, being too near to the root, is one.
    pub async fn remove_run(&self, run: &ObjectPath) -> Result<()> {
        if run.parts().count() < 3 {
            return Err(CatalogError::NotARun { folder: run.clone() });
        }
        let objects = self.storage().list(run, true).await?.objects;
        for file in objects.iter().filter(|object| object.path.name() == METADATA_FILE) {
            self.storage().delete_prefix(&file.path).await?;
        }
        // Without its checkpoints nothing continues the run, should the deletion end here.
        let checkpoints: HashSet<_> = objects
            .iter()
            .filter_map(|object| object.path.parent())
            .filter(|folder| folder.name() == CHECKPOINTS)
            .collect();
        for folder in checkpoints {
            self.storage().delete_prefix(&folder).await?;
        }
        self.storage().delete_prefix(run).await?;
        self.storage().delete_unfinished(run, Duration::ZERO).await?;
        Ok(())
    }

    /// Deletes all the runs it can, adds them to `deleted`, and returns the first error.
    async fn remove_all(&self, runs: Vec<ObjectPath>, deleted: &mut Vec<ObjectPath>) -> Result<()> {
        let mut result = Ok(());
        for run in runs {
            match self.delete_run(&run).await {
                Ok(()) => deleted.push(run),
                Err(e) => result = result.and(Err(e)),
            }
        }
        result
    }
}

fn is_used(run: &ObjectPath, in_use: &[ObjectPath]) -> bool {
    in_use.iter().any(|path| path.is_within(run) || run.is_within(path))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Place, at, path, run};
    use super::*;

    const KEEP_ONE: Retention = Retention { full: Some(1), incremental: None };

    fn runs(all: &[(BackupKind, i64)]) -> Vec<ObjectPath> {
        all.iter().map(|(kind, minutes)| run(*kind, *minutes)).collect()
    }

    async fn minutes(place: &Place, kind: BackupKind) -> Vec<i64> {
        let listed = place.catalog.list("r", kind, ..).await.unwrap();
        listed.backups.iter().map(|backup| (backup.created - at(0)).num_minutes()).collect()
    }

    use BackupKind::{Full, Incremental};

    /// Full backups at 0, 10 and 20, an incremental one after each.
    fn three_chains() -> Place {
        let place = Place::new();
        for minute in [0, 10, 20] {
            place.full("test", minute);
            place.incremental("test", minute + 5, minute);
            place.write(&format!("{}/configuration/aerospike_0.conf", run(Full, minute)), "service {}");
        }
        place
    }

    #[tokio::test]
    async fn whole_runs_go_metadata_first() {
        let place = three_chains();
        let deleted = place.catalog.apply_retention("r", KEEP_ONE, &[]).await.unwrap();
        assert_eq!(deleted, runs(&[(Incremental, 15), (Incremental, 5), (Full, 0), (Full, 10)]));
        assert_eq!((minutes(&place, Full).await, minutes(&place, Incremental).await), (vec![20], vec![25]));
        for run in &deleted {
            assert!(!place.exists(run.as_str()), "{run}");
        }
        let order = place.storage.deleted.lock().unwrap().clone();
        for run in &deleted {
            let position = |what: String| order.iter().position(|path| *path == what).unwrap();
            assert!(position(format!("{run}/data/test/metadata.yaml")) < position(run.to_string()));
        }
        assert_eq!(place.catalog.apply_retention("r", KEEP_ONE, &[]).await.unwrap(), []);
        assert_eq!(place.catalog.apply_retention("nobody", KEEP_ONE, &[]).await.unwrap(), []);
        assert!(place.exists(&format!("{}/configuration/aerospike_0.conf", run(Full, 20))));
    }

    #[tokio::test]
    async fn what_is_in_use_is_left_alone() {
        let place = three_chains();
        let in_use = [run(Full, 0).join("data/test").unwrap(), run(Incremental, 15)];
        let deleted = place.catalog.apply_retention("r", KEEP_ONE, &in_use).await.unwrap();
        assert_eq!(deleted, runs(&[(Incremental, 5), (Full, 10)]));
        let deleted = place.catalog.apply_retention("r", KEEP_ONE, &[]).await.unwrap();
        assert_eq!(deleted, runs(&[(Incremental, 15), (Full, 0)]));
    }

    #[tokio::test]
    async fn half_deleted_runs_are_no_backups_and_are_deleted_later() {
        let place = three_chains();
        place.storage.break_delete(&run(Incremental, 15));
        let error = place.catalog.apply_retention("r", KEEP_ONE, &[]).await.unwrap_err();
        assert!(
            error.to_string().contains("cannot delete r/incremental/1704111300000: the disk is on fire"),
            "{error}"
        );
        assert!(place.exists("r/incremental/1704111300000/data/test/test_0.asb"));
        assert_eq!(minutes(&place, Incremental).await, [25], "the others went");
        assert_eq!(minutes(&place, Full).await, [0, 10, 20], "no full one before its incremental ones");
        place.storage.mend();
        let deleted = place.catalog.apply_retention("r", KEEP_ONE, &[]).await.unwrap();
        assert_eq!(deleted, runs(&[(Incremental, 15), (Full, 0), (Full, 10)]));
        assert!(!place.exists("r/incremental/1704111300000"));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_not_judged() {
        let place = three_chains();
        place.write(&format!("{}/data/test/metadata.yaml", run(Full, 0)), "damaged");
        let deleted = place.catalog.apply_retention("r", KEEP_ONE, &[]).await.unwrap();
        assert_eq!(deleted, runs(&[(Full, 10)]), "the incremental ones may belong to the damaged one");
        assert_eq!(place.catalog.list("r", Full, ..).await.unwrap().unreadable.len(), 1);

        let place = three_chains();
        place.storage.break_at(&run(Incremental, 5));
        place.storage.break_at(&run(Incremental, 15).join("data/test/metadata.yaml").unwrap());
        let deleted = place.catalog.apply_retention("r", KEEP_ONE, &[]).await.unwrap();
        assert_eq!(deleted, runs(&[(Full, 0), (Full, 10)]), "what can be read is");
        place.storage.mend();
        let deleted = place.catalog.apply_retention("r", KEEP_ONE, &[]).await.unwrap();
        assert_eq!(deleted, runs(&[(Incremental, 15), (Incremental, 5)]));
    }

    #[tokio::test]
    async fn retention_takes_leftovers_older_than_all_it_keeps() {
        let place = three_chains();
        let leave = |run: &ObjectPath| place.write(&format!("{run}/data/test/.abs-tmp-1-1"), "unfinished");
        let (old, running, young) = (run(Incremental, 3), run(Full, 4), run(Incremental, 30));
        for run in [&old, &running, &young] {
            leave(run);
        }
        place.write("r/incremental/notes/x", "");
        let deleted =
            place.catalog.apply_retention("r", Retention { full: Some(2), incremental: None }, &[]).await;
        assert_eq!(deleted.unwrap(), runs(&[(Incremental, 3), (Incremental, 5), (Full, 4), (Full, 0)]));
        assert!(place.exists(young.as_str()) && place.exists("r/incremental/notes/x"));
    }

    /// Protects: a backup of a time to come neither takes the place of a true one nor stays for ever.
    #[tokio::test]
    async fn a_suspect_backup_counts_for_nothing_and_goes_when_it_is_old() {
        let place = three_chains();
        place.full("test", 1000);
        place.incremental("test", 1001, 1000);
        place.catalog.mark_suspects("r", at(30)).await.unwrap();
        let deleted = place.catalog.apply_retention("r", KEEP_ONE, &[]).await.unwrap();
        assert_eq!(deleted, runs(&[(Incremental, 15), (Incremental, 5), (Full, 0), (Full, 10)]));
        assert_eq!(minutes(&place, Full).await, [20, 1000], "it was written after the one that is kept");
        // Written now, that is, before the next one.
        let next = (chrono::Utc::now() - at(0)).num_minutes() + 1;
        place.full("test", next);
        let deleted = place.catalog.apply_retention("r", KEEP_ONE, &[]).await.unwrap();
        assert_eq!(deleted, runs(&[(Incremental, 1001), (Incremental, 25), (Full, 1000), (Full, 20)]));
    }

    #[tokio::test]
    async fn a_run_is_removed_whole_and_nothing_but_a_run() {
        let place = three_chains();
        place.catalog.remove_run(&run(Full, 0)).await.unwrap();
        place.catalog.remove_run(&run(Full, 0)).await.unwrap();
        assert_eq!(minutes(&place, Full).await, [10, 20]);
        for folder in ["", "r", "r/backup"] {
            let error = place.catalog.remove_run(&path(folder)).await.unwrap_err();
            assert!(matches!(error, CatalogError::NotARun { .. }), "{error}");
        }
        assert_eq!(minutes(&place, Full).await, [10, 20]);
    }

    #[tokio::test]
    async fn a_backup_without_a_time_in_its_path_goes_alone() {
        let place = Place::new();
        place.backup("r/backup/data/test", &super::super::testing::metadata("test", at(0), None));
        place.backup("r/backup/data/other", &super::super::testing::metadata("other", at(0), None));
        place.full("test", 10);
        let deleted = place.catalog.apply_retention("r", KEEP_ONE, &[]).await.unwrap();
        assert_eq!(deleted, [path("r/backup/data/test")]);
        assert_eq!(minutes(&place, Full).await, [0, 10]);
    }
}
