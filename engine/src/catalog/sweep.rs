//! Deleting what a crash left behind.

use std::time::Duration;

use abs_storage::{ObjectInfo, ObjectPath, StorageError};

use super::{BackupKind, Catalog, Result};
use crate::METADATA_FILE;
use crate::claimant::Claimant;
use crate::folder::CLAIM_FILE;

/// After which time an upload or a claim is taken for a leftover, whoever made it.
const LEFT: Duration = Duration::from_hours(7 * 24);

/// The largest claim that is read, in bytes; they have some hundred.
const CLAIM_LIMIT: usize = 4096;

impl Catalog {
    /// Deletes what processes of this system left behind when they crashed while they backed up this routine, and unfinished
    /// uploads of more than a week ago. Returns the folders, and the first of the errors: what can be done is. Of runs only
    /// those are looked at that are newer than the newest whole one: retention takes what is older.
    pub async fn sweep(&self, routine: &str) -> (Vec<ObjectPath>, Result<()>) {
        let (mut deleted, mut result) = (Vec::new(), Ok(()));
        for kind in BackupKind::ALL {
            result = result.and(self.sweep_runs(routine, kind, &mut deleted).await);
            let old = async { Ok(self.storage().delete_unfinished(&kind.folder(routine)?, LEFT).await?) };
            result = result.and(old.await.map(drop));
        }
        (deleted, result)
    }

    async fn sweep_runs(&self, routine: &str, kind: BackupKind, deleted: &mut Vec<ObjectPath>) -> Result<()> {
        let mut runs = self.folders(routine, kind).await?;
        runs.retain(|run| run.created.is_some());
        runs.sort_by_key(|run| run.created);
        let mut result = Ok(());
        while let Some(run) = runs.pop() {
            let objects = self.storage().list(&run.path, true).await?.objects;
            let named = |name| objects.iter().filter(move |object| object.path.name() == name);
            let whole: Vec<_> = named(METADATA_FILE).filter_map(|file| file.path.parent()).collect();
            let (mut claims, mut gone) = (0, Vec::new());
            for claim in named(CLAIM_FILE) {
                claims += 1;
                if self.is_abandoned(claim).await? {
                    gone.push(claim);
                }
            }
            if whole.is_empty() && claims > 0 && gone.len() == claims {
                // Nothing of the run is of use: its configuration files go, too.
                match self.remove_run(&run.path).await {
                    Ok(()) => deleted.push(run.path),
                    Err(e) => result = result.and(Err(e)),
                }
                continue;
            }
            for claim in gone {
                let Some(folder) = claim.path.parent() else { continue };
                if whole.contains(&folder) {
                    // The backup was done; only its claim was left.
                    self.storage().delete_prefix(&claim.path).await?;
                    continue;
                }
                self.storage().delete_prefix(&folder).await?;
                deleted.push(folder.clone());
                self.storage().delete_unfinished(&folder, Duration::ZERO).await?;
            }
            if claims == 0 && !whole.is_empty() {
                break;
            }
        }
        result
    }

    /// Whether nobody writes any more who made one of these claims.
    pub(super) async fn all_abandoned(&self, claims: &[ObjectInfo]) -> Result<bool> {
        for claim in claims {
            if !self.is_abandoned(claim).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the process that made a claim is gone, as far as can be known here.
    async fn is_abandoned(&self, claim: &ObjectInfo) -> Result<bool, StorageError> {
        if claim.modified.elapsed().is_ok_and(|age| age > LEFT) {
            return Ok(true);
        }
        match self.storage().get(&claim.path, CLAIM_LIMIT).await {
            Ok(text) => {
                let claimant = Claimant::at_the_end_of(&String::from_utf8_lossy(&text));
                Ok(claimant.is_some_and(|claimant| claimant.is_gone()))
            }
            // Its run ended meanwhile.
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Place, run};
    use super::*;

    use BackupKind::{Full, Incremental};

    /// A claim by a process of this system that is gone.
    fn abandoned() -> String {
        let this = Claimant::this().unwrap().to_string();
        let (process, since) = this.rsplit_once(' ').unwrap();
        format!("being written here by {process} {}\n", since.parse::<u64>().unwrap() + 1)
    }

    fn claim(place: &Place, run: &ObjectPath, namespace: &str, text: &str) {
        place.write(&format!("{run}/data/{namespace}/{CLAIM_FILE}"), text);
        place.write(&format!("{run}/data/{namespace}/0.asb"), "begun");
    }

    async fn sweep(place: &Place) -> Vec<ObjectPath> {
        let (deleted, result) = place.catalog.sweep("r").await;
        result.unwrap();
        deleted
    }

    #[tokio::test]
    async fn what_a_crash_left_is_swept_and_what_goes_on_is_not() {
        let place = Place::new();
        place.full("test", 0);
        place.incremental("test", 5, 0);
        place.full("test", 20);
        let abandoned = abandoned();
        let going = format!("being written here by {}\n", Claimant::this().unwrap());
        let (old, crashed, half, alive, foreign) =
            (run(Full, 10), run(Full, 30), run(Incremental, 30), run(Incremental, 40), run(Full, 50));
        claim(&place, &old, "test", &abandoned);
        claim(&place, &crashed, "test", &abandoned);
        place.write(&format!("{crashed}/configuration/aerospike_0.conf"), "");
        claim(&place, &half, "test", &abandoned);
        place.write(&format!("{half}/data/other/{METADATA_FILE}"), "one namespace was done");
        claim(&place, &alive, "test", &going);
        claim(&place, &foreign, "test", "being written here by elsewhere pid:[1] 1 1\n");
        let test = half.join("data/test").unwrap();
        let done = run(Incremental, 35);
        place.incremental("test", 35, 5);
        place.write(&format!("{done}/data/test/{CLAIM_FILE}"), &abandoned);
        assert_eq!(sweep(&place).await, [crashed.clone(), test.clone()]);
        assert!(place.exists(&format!("{done}/data/test/{METADATA_FILE}")), "a whole backup stays");
        assert!(!place.exists(&format!("{done}/data/test/{CLAIM_FILE}")), "without its claim");
        for (path, stays) in
            [(&old, true), (&crashed, false), (&test, false), (&half, true), (&alive, true), (&foreign, true)]
        {
            assert_eq!(place.exists(path.as_str()), stays, "{path}");
        }
        assert_eq!(sweep(&place).await, []);
        assert_eq!(place.catalog.sweep("none").await.0, []);
    }
}
