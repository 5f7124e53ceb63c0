//! Deleting what a crash left behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use abs_storage::{ObjectInfo, ObjectPath, StorageError};
use chrono::{DateTime, Utc};

use super::listing::RunFolder;
use super::{BackupKind, Catalog, Result};
use crate::METADATA_FILE;
use crate::checkpoint::CHECKPOINTS;
use crate::claim::{LEFT, LEFTOVER, Standing, assess, claim_number, is_old, read_claim};
use crate::own_claim::{ClaimPaths, OwnClaim};
use crate::reading::remove_left_marks;

/// A run whose process ended before it was done, and that can be continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Full or incremental.
    pub kind: BackupKind,
    /// The time of the run.
    pub created: DateTime<Utc>,
    /// Its folder.
    pub run: ObjectPath,
    /// When its last checkpoint was written, by the storage's clock.
    pub checkpoint: SystemTime,
}

/// What was found of processes that have ended.
#[derive(Debug)]
pub struct Swept {
    /// Folders that were deleted.
    pub deleted: Vec<ObjectPath>,
    /// Runs to be continued, the newest first.
    pub unfinished: Vec<Unfinished>,
    /// After this time it is known of more claims whether their processes have ended.
    pub again_in: Option<Duration>,
    /// The first error: what could be done was.
    pub result: Result<()>,
}

impl Catalog {
    /// Deletes what processes left behind that ended while they backed up this routine or read its backups, and unfinished uploads of more than a
    /// week ago; but a run that has a checkpoint and that `keeps` takes stays, for the caller to continue. Of runs only those
    /// are looked at that are newer than the newest whole one: retention takes what is older.
    pub async fn sweep(&self, routine: &str, keeps: impl Fn(&Unfinished) -> bool) -> Swept {
        let mut swept = Swept { deleted: Vec::new(), unfinished: Vec::new(), again_in: None, result: Ok(()) };
        for kind in BackupKind::ALL {
            let runs = self.sweep_runs(routine, kind, &keeps, &mut swept).await;
            let old = async { Ok(self.storage().delete_unfinished(&kind.folder(routine)?, LEFT).await?) };
            let result = runs.and(old.await.map(drop));
            swept.result = swept.result.and(result);
        }
        swept
    }

    async fn sweep_runs(
        &self,
        routine: &str,
        kind: BackupKind,
        keeps: &impl Fn(&Unfinished) -> bool,
        swept: &mut Swept,
    ) -> Result<()> {
        let mut runs = self.folders(routine, kind).await?;
        runs.retain(|run| run.created.is_some());
        runs.sort_by_key(|run| run.created);
        let mut result = Ok(());
        while let Some(run) = runs.pop() {
            let objects = self.storage().list(&run.path, true).await?.objects;
            remove_left_marks(&**self.storage(), &objects, self.owner()).await?;
            let whole: Vec<_> = objects
                .iter()
                .filter(|object| object.path.name() == METADATA_FILE)
                .filter_map(|file| file.path.parent())
                .collect();
            let mut claimed = Vec::new();
            for (folder, (number, claim)) in claims_by_folder(&objects) {
                let standing = self.assess(claim).await?;
                if let Standing::Observed(left) = standing {
                    swept.again_in = swept.again_in.max(Some(left));
                }
                claimed.push(Claimed { folder, number, is_free: standing == Standing::Free });
            }
            let are_free = !claimed.is_empty() && claimed.iter().all(|claim| claim.is_free);
            if let Some(unfinished) = unfinished(kind, &run, &objects, &whole)
                && are_free
                // Of several of a kind the newest.
                && swept.unfinished.iter().all(|other| other.kind != kind)
                && keeps(&unfinished)
            {
                swept.unfinished.push(unfinished);
                continue;
            }
            if whole.is_empty() && are_free {
                // Nothing of the run is of use: its configuration files go, too.
                match self.remove_claimed(&run.path, &claimed).await {
                    Ok(true) => swept.deleted.push(run.path),
                    Ok(false) => {}
                    Err(e) => result = result.and(Err(e)),
                }
                continue;
            }
            let is_done = claimed.is_empty() && !whole.is_empty();
            for claim in claimed.into_iter().filter(|claim| claim.is_free) {
                let folder = &claim.folder;
                if whole.contains(folder) {
                    // The backup was done; only its claims were left, perhaps with its checkpoints.
                    for object in &objects {
                        let is_claim = claim_number(object.path.name()).is_some();
                        if is_claim && object.path.parent().as_ref() == Some(folder) {
                            self.storage().delete_prefix(&object.path).await?;
                        }
                    }
                    self.storage().delete_prefix(&folder.join(CHECKPOINTS)?).await?;
                    continue;
                }
                let Some(_own) = self.seize(&claim).await? else { continue };
                self.storage().delete_prefix(&folder.join(CHECKPOINTS)?).await?;
                self.storage().delete_prefix(folder).await?;
                self.storage().delete_unfinished(folder, Duration::ZERO).await?;
                swept.deleted.push(claim.folder);
            }
            if is_done {
                break;
            }
        }
        result
    }

    /// Deletes a run that was interrupted; false if another process has it now.
    pub async fn remove_unfinished(&self, run: &ObjectPath) -> Result<bool> {
        let objects = self.storage().list(run, true).await?.objects;
        let mut claimed = Vec::new();
        for (folder, (number, claim)) in claims_by_folder(&objects) {
            let is_free = self.assess(claim).await? == Standing::Free;
            claimed.push(Claimed { folder, number, is_free });
        }
        self.remove_claimed(run, &claimed).await
    }

    /// Deletes a run all of whose claims are free; false if another process has one now.
    async fn remove_claimed(&self, run: &ObjectPath, claimed: &[Claimed]) -> Result<bool> {
        let mut own = Vec::new();
        for claim in claimed {
            match if claim.is_free { self.seize(claim).await? } else { None } {
                Some(claim) => own.push(claim),
                None => return Ok(false),
            }
        }
        for claim in &own {
            claim.end().await;
        }
        self.remove_run(run).await?;
        Ok(true)
    }

    /// Makes the claim after a free one, so that no other process does; none if one has.
    async fn seize(&self, claim: &Claimed) -> Result<Option<Arc<OwnClaim>>> {
        let paths = ClaimPaths::new(&claim.folder, claim.number.saturating_add(1))?;
        Ok(OwnClaim::make(self.storage(), paths, LEFTOVER, self.owner()).await?)
    }

    /// Whether the claims that count of these stand for nothing any more.
    pub(super) async fn are_free(&self, claims: &[ObjectInfo]) -> Result<bool> {
        for (_, claim) in claims_by_folder(claims).into_values() {
            if self.assess(claim).await? != Standing::Free {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is known of a claim.
    async fn assess(&self, claim: &ObjectInfo) -> Result<Standing, StorageError> {
        let standing = assess(&**self.storage(), claim, self.owner()).await?;
        if standing == Standing::Free && self.conditional().get() == Some(&false) && !is_old(claim) {
            // Without conditional writes several processes could take it.
            let text = read_claim(&**self.storage(), &claim.path).await?;
            return Ok(if text.is_some_and(|text| self.owner().made(&text)) {
                standing
            } else {
                Standing::Held
            });
        }
        Ok(standing)
    }
}

/// The claim that counts of a folder.
#[derive(Debug)]
struct Claimed {
    folder: ObjectPath,
    number: u32,
    is_free: bool,
}

/// The claims that count, by their folders.
fn claims_by_folder(objects: &[ObjectInfo]) -> BTreeMap<ObjectPath, (u32, &ObjectInfo)> {
    let mut claims: BTreeMap<_, (u32, &ObjectInfo)> = BTreeMap::new();
    for object in objects {
        if let Some((number, folder)) = claim_number(object.path.name()).zip(object.path.parent())
            && claims.get(&folder).is_none_or(|(other, _)| *other < number)
        {
            claims.insert(folder, (number, object));
        }
    }
    claims
}

/// The run in a folder, if one of its backups has a checkpoint and is not whole.
fn unfinished(
    kind: BackupKind,
    run: &RunFolder,
    objects: &[ObjectInfo],
    whole: &[ObjectPath],
) -> Option<Unfinished> {
    let of_checkpoint = |object: &&ObjectInfo| {
        let folder = object.path.parent().filter(|folder| folder.name() == CHECKPOINTS);
        folder.and_then(|folder| folder.parent()).is_some_and(|backup| !whole.contains(&backup))
    };
    let checkpoint = objects.iter().filter(of_checkpoint).map(|object| object.modified).max()?;
    Some(Unfinished { kind, created: run.created?, run: run.path.clone(), checkpoint })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Place, at, run};
    use super::*;
    use crate::claim::CLAIM_FILE;
    use crate::claimant::Claimant;

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
        let swept = place.catalog.sweep("r", |_| false).await;
        swept.result.unwrap();
        swept.deleted
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
        place.write(&format!("{done}/data/test/reading-1"), &abandoned);
        place.write(&format!("{done}/data/test/reading-2"), "being read by elsewhere pid:[1] 1 1\n");
        assert_eq!(sweep(&place).await, [crashed.clone(), test.clone()]);
        assert!(place.exists(&format!("{done}/data/test/{METADATA_FILE}")), "a whole backup stays");
        assert!(!place.exists(&format!("{done}/data/test/{CLAIM_FILE}")), "without its claim");
        assert!(
            !place.exists(&format!("{done}/data/test/reading-1")),
            "without the mark of a reader that ended"
        );
        assert!(place.exists(&format!("{done}/data/test/reading-2")), "the mark of one that reads stays");
        for (path, stays) in
            [(&old, true), (&crashed, false), (&test, false), (&half, true), (&alive, true), (&foreign, true)]
        {
            assert_eq!(place.exists(path.as_str()), stays, "{path}");
        }
        assert_eq!(sweep(&place).await, []);

        // A run that can be continued, whose first backup is whole.
        let going_on = run(Full, 60);
        claim(&place, &going_on, "test", &abandoned);
        place.write(&format!("{going_on}/data/test/in-progress-2"), &abandoned);
        place.write(&format!("{going_on}/data/test/manifest/0.json"), "");
        place.write(&format!("{going_on}/data/other/{METADATA_FILE}"), "done");
        let swept = place.catalog.sweep("r", |_| true).await;
        assert_eq!((swept.deleted, swept.unfinished.len()), (Vec::new(), 1));
        assert_eq!((swept.unfinished[0].kind, swept.unfinished[0].created), (Full, at(60)));
        place.write(&format!("{going_on}/data/test/in-progress-2"), &going);
        let swept = place.catalog.sweep("r", |_| true).await;
        assert_eq!(
            (swept.deleted, swept.unfinished),
            (Vec::new(), Vec::new()),
            "another process continues it"
        );
        place.write(&format!("{going_on}/data/test/in-progress-2"), &abandoned);
        assert_eq!(sweep(&place).await, [going_on.join("data/test").unwrap()]);
        assert_eq!(place.catalog.sweep("none", |_| true).await.deleted, []);
    }
}
