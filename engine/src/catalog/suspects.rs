//! Backups that a wrong clock dated too late.
//!
//! A backup dated later than now was made by a clock that was ahead. Its place among the others is unknown, and it stays so
//! when its time has come: by then, newer backups have earlier times. So it gets a lasting mark, an object beside its
//! metadata.yaml, as soon as it is noticed. From then on it is listed, and can be restored by its folder, but no chain and no
//! retention count contains it. A backup that is dated later than its metadata.yaml was written, by the storage's own clock, is
//! suspect even without a mark.

use std::time::{Duration, SystemTime};

use abs_storage::ObjectPath;
use chrono::{DateTime, Utc};

use super::layout::is_absurd;
use super::{Backup, BackupKind, Catalog, Moment, Result};

/// The name of the mark.
pub const MARK_FILE: &str = "clock-suspect";

/// How far the storage's clock may be behind that of the service.
const STORAGE_BEHIND: Duration = Duration::from_mins(1);

/// Whether a backup is dated later than it can have been, by the storage's clock.
pub(crate) fn is_dated_later(created: DateTime<Utc>, written: SystemTime) -> bool {
    SystemTime::from(created).duration_since(written).is_ok_and(|later| later > STORAGE_BEHIND)
}

/// What of a routine is dated later than now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misdated {
    /// The backups that were marked now.
    pub marked: Vec<Backup>,
    /// Those that had a mark.
    pub known: Vec<Backup>,
    /// Folders that are named as those of runs but hold none, of a time to come or of no time at all.
    pub strays: Vec<ObjectPath>,
}

impl Misdated {
    /// All backups.
    pub fn backups(&self) -> impl Iterator<Item = &Backup> {
        self.marked.iter().chain(&self.known)
    }
}

impl Catalog {
    /// Marks the backups of `routine` that are dated later than `latest`.
    pub async fn mark_suspects(&self, routine: &str, latest: DateTime<Utc>) -> Result<Misdated> {
        let mut all = Misdated::default();
        for kind in BackupKind::ALL {
            let mut folders = self.folders(routine, kind).await?;
            let strays = folders.iter().filter(|folder| is_absurd(folder.path.name()));
            all.strays.extend(strays.map(|folder| folder.path.clone()));
            folders.retain(|folder| folder.created.is_none_or(|created| created > latest));
            let found = self.read(routine, kind, folders).await;
            // A run that goes on has no metadata.yaml yet, but a claim.
            let bare = found.bare.into_iter().filter(|bare| bare.claims.is_empty());
            let strays = bare.filter(|bare| bare.folder.created.is_some()).map(|bare| bare.folder.path);
            all.strays.extend(strays);
            for mut backup in found.listed.backups {
                if backup.created <= latest {
                    continue;
                }
                let mark = backup.key.join(MARK_FILE)?;
                let text = format!(
                    "dated {}, when it was at most {}: the clock was wrong\n",
                    Moment(backup.created),
                    Moment(latest)
                );
                if self.storage().put_if_absent(&mark, text.as_bytes()).await? {
                    backup.suspect.get_or_insert(backup.written);
                    all.marked.push(backup);
                } else {
                    all.known.push(backup);
                }
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Place, at, path, run, traits};
    use super::super::{ChainError, FullDue};
    use super::*;

    use BackupKind::Full;

    fn minutes<'a>(backups: impl IntoIterator<Item = &'a Backup>) -> Vec<i64> {
        backups.into_iter().map(|backup| (backup.created - at(0)).num_minutes()).collect()
    }

    async fn mark(place: &Place, minute: i64) -> Misdated {
        place.catalog.mark_suspects("r", at(minute)).await.unwrap()
    }

    /// Protects: what was once found dated in the future belongs to no chain for ever, is listed all the same, and makes the
    /// next backup a full one, until there is one.
    #[tokio::test]
    async fn a_backup_of_a_time_to_come_is_marked_for_ever() {
        let place = Place::new();
        place.full("test", 0);
        place.incremental("test", 5, 0);
        place.full("test", 100);
        place.incremental("test", 110, 100);
        let found = mark(&place, 10).await;
        assert_eq!((minutes(&found.marked), minutes(&found.known)), (vec![100, 110], vec![]));
        assert!(place.exists(&format!("{}/data/test/{MARK_FILE}", run(Full, 100))));
        let again = mark(&place, 10).await;
        assert_eq!((minutes(&again.marked), minutes(&again.known)), (vec![], vec![100, 110]));

        let names = ["test".to_owned()];
        let due = async |minute: i64| {
            let ahead = mark(&place, minute).await;
            place.catalog.foundations("r", &names, at(minute), &traits("s"), &ahead).await.unwrap().full_due
        };
        assert!(matches!(due(10).await, Some(FullDue::Suspect { .. })));
        // Also when its time has come.
        assert!(matches!(due(120).await, Some(FullDue::Suspect { .. })));
        for minute in [10, 120] {
            let chain = place.catalog.chain("r", "test", at(minute)).await.unwrap();
            assert_eq!(minutes(chain.backups()), [0, 5]);
            assert_eq!(place.catalog.last("r", Full, ..=at(minute)).await.unwrap(), Some(at(0)));
        }
        let listed = place.catalog.list("r", Full, ..).await.unwrap().backups;
        assert_eq!(listed.iter().map(Backup::is_trusted).collect::<Vec<_>>(), [true, false]);

        place.full("test", 12);
        assert_eq!(due(13).await, None);
        assert_eq!(due(120).await, None);
        place.incremental("test", 14, 12);
        let chain = place.catalog.chain("r", "test", at(120)).await.unwrap();
        assert_eq!(minutes(chain.backups()), [12, 14]);
    }

    /// Protects: a chain names what was written later but is left out for its wrong time.
    #[tokio::test]
    async fn a_chain_says_what_it_leaves_out() {
        let place = Place::new();
        place.full("test", 0);
        place.full("test", 100);
        mark(&place, 10).await;
        let chain = place.catalog.chain("r", "test", at(10)).await.unwrap();
        assert_eq!(chain.passed_over, [path(&format!("{}/data/test", run(Full, 100)))]);
        place.full("test", 5);
        let chain = place.catalog.chain("r", "test", at(10)).await.unwrap();
        assert_eq!((minutes(chain.backups()), chain.passed_over), (vec![5], vec![]));
        let error = place.catalog.chain("r", "test", at(-1)).await.unwrap_err().to_string();
        assert!(error.contains("/backup/") && error.contains(MARK_FILE), "{error}");
    }

    /// Protects: a first full backup of a time to come is no foundation, and no reason to wait for its time.
    #[tokio::test]
    async fn an_only_backup_of_a_time_to_come_is_none() {
        let place = Place::new();
        place.full("test", 100);
        let ahead = mark(&place, 10).await;
        let names = ["test".to_owned()];
        let foundations = place.catalog.foundations("r", &names, at(10), &traits("s"), &ahead).await.unwrap();
        assert!(foundations.of.is_empty());
        assert!(matches!(foundations.full_due, Some(FullDue::Suspect { .. })));
        let error = place.catalog.chain("r", "test", at(200)).await.unwrap_err();
        let super::super::CatalogError::Chain(ChainError::NoFull { first, .. }) = error else {
            panic!("{error}")
        };
        assert_eq!(first, None);
        assert_eq!(place.catalog.namespaces_at("r", at(200)).await.unwrap(), [""; 0]);
    }

    /// Protects: a chain that needs a backup of a wrong time fails, and says why.
    #[tokio::test]
    async fn a_chain_does_not_lead_over_a_backup_of_a_wrong_time() {
        let place = Place::new();
        place.full("test", 0);
        place.incremental("test", 5, 0);
        place.incremental("test", 10, 5);
        place.write(&format!("{}/data/test/{MARK_FILE}", run(BackupKind::Incremental, 5)), "");
        let error = place.catalog.chain("r", "test", at(20)).await.unwrap_err();
        let super::super::CatalogError::Chain(ChainError::Missing { moment, is_suspect, .. }) = &error else {
            panic!("{error}")
        };
        assert_eq!((*moment, *is_suspect), (at(5), true));
        assert!(error.to_string().contains("because its time is wrong"), "{error}");
    }

    /// Protects: the storage's clock tells of a wrong one, without any mark.
    #[tokio::test]
    async fn a_backup_dated_later_than_it_was_written_is_suspect() {
        let place = Place::new();
        let soon = (Utc::now() - at(0)).num_minutes() + 10;
        place.full("test", 0);
        place.full("test", soon);
        let chain = place.catalog.chain("r", "test", at(soon + 1)).await.unwrap();
        assert_eq!(minutes(chain.backups()), [0]);
        assert!(!place.exists(&format!("{}/data/test/{MARK_FILE}", run(Full, soon))));
    }

    /// Protects: folders that are named like runs but are none stop nothing and are reported; a run in progress is not.
    #[tokio::test]
    async fn folders_of_no_run_are_told() {
        let place = Place::new();
        place.full("test", 0);
        let absurd =
            ["r/backup/1704110400000000", "r/backup/8210266876799999", "r/incremental/99999999999999999999"];
        for folder in absurd {
            place.write(&format!("{folder}/data/test/metadata.yaml"), "created: x\n");
        }
        place.write(&format!("{}/data/test/x", run(Full, 50)), "");
        place.write(&format!("{}/data/test/in-progress", run(Full, 60)), "");
        place.write("r/backup/notes/x", "");
        let found = mark(&place, 10).await;
        let [microseconds, last, beyond] = absurd.map(path);
        assert_eq!(found.strays, [microseconds, last, run(Full, 50), beyond]);
        assert_eq!(found.backups().count(), 0);
        assert_eq!(place.catalog.last("r", Full, ..=at(10)).await.unwrap(), Some(at(0)));
        assert_eq!(place.catalog.list("r", Full, ..).await.unwrap().unreadable, []);
    }
}
