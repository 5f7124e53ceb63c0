//! Claims on routines: which process schedules the backups of one, and deletes them.
//!
//! ```text
//! {routine}/.abs-lease/lease-1     a claim as those of runs (`claim.rs`), renewed as long as the process works on the routine
//!                      lease-2     that of the process that found it free, and deletes the one before
//! ```
//!
//! A process has the routine when every other claim is free and no further one was made while it made its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use abs_storage::ObjectPath;

use super::{Catalog, CatalogError, Result};
use crate::claim::{BEAT, Claim, Standing, read_claim};
use crate::error::EngineError;
use crate::own_claim::{ClaimPaths, OwnClaim};

/// The folder of the claims on a routine, in that of the routine.
const FOLDER: &str = ".abs-lease";

/// What the names of the claims begin with.
const LEASE: &str = "lease-";

/// What became of an attempt to get a routine.
#[derive(Debug)]
pub enum Attempt {
    /// This process has it.
    Taken(RoutineClaim),
    /// Another process has it, or cannot be known to have ended.
    Held(Holder),
    /// The storage does not support conditional writes: it cannot be known who has it.
    Unsupported,
}

/// The process that has a routine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The id of the service, if it has one.
    pub owner: Option<String>,
    /// For how long it has given no sign of life, as far as this process has observed.
    pub idle: Duration,
}

/// A routine that this process has, until it is [released](Self::release) or another process takes it.
#[derive(Debug)]
pub struct RoutineClaim {
    claim: Arc<OwnClaim>,
    catalog: Catalog,
    routine: String,
}

impl Catalog {
    /// Tries to get a routine.
    pub async fn claim_routine(&self, routine: &str) -> Result<Attempt> {
        if self.conditional().get() == Some(&false) {
            return Ok(Attempt::Unsupported);
        }
        let folder = ObjectPath::new(routine)?.join(FOLDER)?;
        let before = self.routine_claims(&folder).await?;
        for path in before.values() {
            let Some(text) = read_claim(&**self.storage(), path).await? else { continue };
            let claim = Claim::parse(&text);
            let owner = claim.owner.map(str::to_owned);
            let idle = match self.owner().assess(&text) {
                Standing::Free | Standing::LeftOver => continue,
                Standing::Observed(left) => claim.lease.unwrap_or_default().saturating_sub(left),
                Standing::Held => Duration::ZERO,
            };
            return Ok(Attempt::Held(Holder { owner, idle }));
        }
        let number = before.last_key_value().map_or(0, |(number, _)| *number).saturating_add(1);
        let lease = |number: u32| folder.join(&format!("{LEASE}{number}"));
        let paths = ClaimPaths::numbered(&folder, number, lease)?;
        let purpose = "a service works on this routine";
        let unknown = Holder { owner: None, idle: Duration::ZERO };
        let Some(claim) = OwnClaim::make(self.storage(), paths, purpose, self.owner()).await? else {
            return Ok(Attempt::Held(unknown));
        };
        let own = RoutineClaim { claim, catalog: self.clone(), routine: routine.to_owned() };
        let refused = match self.settle(&own, &folder, &before).await {
            Ok(None) => {
                for path in before.into_values() {
                    // One that stays stands for nothing.
                    let _ = self.storage().delete_prefix(&path).await;
                }
                return Ok(Attempt::Taken(own));
            }
            Ok(Some(Obstacle::Other)) => Ok(Attempt::Held(unknown)),
            Ok(Some(Obstacle::Unsupported)) => Ok(Attempt::Unsupported),
            Err(e) => Err(e),
        };
        own.release().await?;
        refused
    }

    /// The claims on a routine, by their numbers.
    async fn routine_claims(&self, folder: &ObjectPath) -> Result<BTreeMap<u32, ObjectPath>> {
        let objects = self.storage().list(folder, false).await?.objects;
        let number = |path: &ObjectPath| path.name().strip_prefix(LEASE)?.parse().ok();
        Ok(objects.into_iter().filter_map(|object| Some((number(&object.path)?, object.path))).collect())
    }

    /// Looks whether a claim that was made counts.
    async fn settle(
        &self,
        own: &RoutineClaim,
        folder: &ObjectPath,
        before: &BTreeMap<u32, ObjectPath>,
    ) -> Result<Option<Obstacle>> {
        let path = &own.claim.paths.own;
        if self.conditional().get().is_none() {
            let text = read_claim(&**self.storage(), path).await?.unwrap_or_default();
            // The same counter, so that nothing is lost if it is written.
            let again = text.replacen(BEAT, &format!("{BEAT}0"), 1);
            let is_refused = !self.storage().put_if_absent(path, again.as_bytes()).await?;
            // Whoever asked at the same moment got the same answer.
            let _ = self.conditional().set(is_refused);
        }
        if self.conditional().get() == Some(&false) {
            return Ok(Some(Obstacle::Unsupported));
        }
        // The holder may have deleted its claim while this process looked, and another one made the first claim anew.
        let now = self.routine_claims(folder).await?;
        let is_alone = now.iter().all(|(number, other)| other == path || before.contains_key(number));
        Ok((!is_alone).then_some(Obstacle::Other))
    }
}

/// Why a claim does not count.
enum Obstacle {
    /// Another process made one, too.
    Other,
    /// So could any other process.
    Unsupported,
}

impl RoutineClaim {
    /// Makes sure that this process has the routine; asks the storage if the claim is not fresh.
    pub async fn check(&self) -> Result<()> {
        match self.claim.check().await {
            Ok(()) if self.claim.over.is_cancelled() => Err(self.lost()),
            Ok(()) => Ok(()),
            Err(EngineError::Storage(e)) => Err(e.into()),
            Err(_) => Err(self.lost()),
        }
    }

    /// Does what only the process may do that has the routine, and gives it up when this one has it no more.
    pub async fn guard<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.check().await?;
        tokio::select! {
            biased;
            () = self.over() => Err(self.lost()),
            done = work => done,
        }
    }

    /// Waits until this process has the routine no more.
    pub async fn over(&self) {
        self.claim.over.cancelled().await;
    }

    /// Gives the routine up: another process may have it at once.
    pub async fn release(&self) -> Result<()> {
        let is_own = self.check().await.is_ok();
        self.claim.end().await;
        if is_own {
            self.catalog.storage().delete_prefix(&self.claim.paths.own).await?;
        }
        Ok(())
    }

    fn lost(&self) -> CatalogError {
        CatalogError::NotHeld { routine: self.routine.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Place, at, run};
    use super::super::{BackupKind, Unfinished};
    use super::*;
    use crate::claim::{CLAIM_FILE, Owner};

    const LEASE_MS: u64 = 300;

    /// A claim of a process of another system.
    fn foreign(owner: &str) -> String {
        format!("x, number 3, owner {owner}, lease {LEASE_MS}{BEAT}1 by boot pid:[1] 1 1\n")
    }

    fn lease(number: u32) -> String {
        format!("r/{FOLDER}/{LEASE}{number}")
    }

    async fn taken(catalog: &Catalog) -> RoutineClaim {
        match catalog.claim_routine("r").await.unwrap() {
            Attempt::Taken(claim) => claim,
            other => panic!("{other:?}"),
        }
    }

    async fn holder(catalog: &Catalog) -> Holder {
        match catalog.claim_routine("r").await.unwrap() {
            Attempt::Held(holder) => holder,
            other => panic!("{other:?}"),
        }
    }

    /// Protects: one process has a routine; a second one does when it is given up, or left, and nothing stays of it.
    #[tokio::test]
    async fn a_routine_is_held_once() {
        let place = Place::new();
        let claim = taken(&place.catalog).await;
        assert_eq!(holder(&place.catalog).await, Holder { owner: None, idle: Duration::ZERO });
        claim.check().await.unwrap();
        assert_eq!(claim.guard(async { Ok(7) }).await.unwrap(), 7);
        claim.release().await.unwrap();
        assert!(!place.exists(&lease(1)));
        let error = claim.guard(async { Ok(7) }).await.unwrap_err();
        assert!(matches!(error, CatalogError::NotHeld { .. }), "{error}");
        drop(taken(&place.catalog).await);
        let claim = taken(&place.catalog).await;
        assert!(!place.exists(&lease(1)) && place.exists(&lease(2)));
        claim.release().await.unwrap();
        assert!(!place.exists(&lease(2)));
    }

    /// Protects: the routine of a process of another system is taken over when its claim was not renewed for a lease; the claim
    /// of the own service at once. Each claim counts, whatever its number.
    #[tokio::test]
    async fn a_routine_is_taken_over_from_the_silent() {
        let place = Place::new();
        let lease_time = Duration::from_millis(LEASE_MS);
        place.write(&lease(1), &foreign("other"));
        let found = holder(&place.catalog).await;
        assert_eq!((found.owner.as_deref(), found.idle), (Some("other"), Duration::ZERO));
        tokio::time::sleep(lease_time / 2).await;
        assert!(holder(&place.catalog).await.idle >= lease_time / 2);
        tokio::time::sleep(lease_time).await;
        let claim = taken(&place.catalog).await;
        assert!(!place.exists(&lease(1)) && place.exists(&lease(2)));
        claim.release().await.unwrap();

        let own = Owner::new(Some("me".to_owned()), lease_time);
        let catalog = Catalog::with_owner(Arc::clone(place.catalog.storage()), own);
        place.write(&lease(1), &foreign("me"));
        place.write(&lease(4), &foreign("other"));
        assert_eq!(holder(&catalog).await.owner.as_deref(), Some("other"));
        place.write(&lease(4), &foreign("me"));
        taken(&catalog).await;
    }

    /// Protects: work that only the holder may do ends when another process has taken the routine, whose claim stays.
    #[tokio::test]
    async fn work_ends_when_the_routine_is_lost() {
        let place = Place::new();
        let owner = Owner::new(None, Duration::from_millis(LEASE_MS));
        let catalog = Catalog::with_owner(Arc::clone(place.catalog.storage()), owner);
        let claim = taken(&catalog).await;
        // Its counter is written until it looks whether the claim is its own.
        place.write(&lease(2), &foreign("other"));
        let state = claim.claim.pause().await;
        let work = claim.guard(std::future::pending::<Result<()>>());
        let resume = async {
            tokio::time::sleep(Duration::from_millis(LEASE_MS)).await;
            drop(state);
        };
        // The check waits for the state, too.
        let (error, ()) = tokio::join!(work, resume);
        assert!(matches!(error.unwrap_err(), CatalogError::NotHeld { .. }));
        claim.over().await;
        claim.release().await.unwrap();
        assert!(place.exists(&lease(1)) && place.exists(&lease(2)));
    }

    /// Protects: of two that find a routine free at the same moment one gets it, however often that happens.
    #[tokio::test]
    async fn of_two_at_the_same_moment_one_has_the_routine() {
        let place = Place::new();
        for _ in 0..20 {
            let (one, two) = tokio::join!(place.catalog.claim_routine("r"), place.catalog.claim_routine("r"));
            let claims: Vec<_> = [one.unwrap(), two.unwrap()]
                .into_iter()
                .filter_map(|attempt| if let Attempt::Taken(claim) = attempt { Some(claim) } else { None })
                .collect();
            assert!(claims.len() <= 1, "{claims:?}");
        }
    }

    /// Protects: a storage that takes conditional writes for others is noticed; nothing is left there, and of the runs that are
    /// interrupted only those of the same service are continued.
    #[tokio::test]
    async fn a_storage_without_conditional_writes_is_noticed() {
        let place = Place::new();
        place.storage.ignore_conditions();
        let own = Owner::new(Some("me".to_owned()), Duration::from_millis(LEASE_MS));
        let catalog = Catalog::with_owner(Arc::clone(place.catalog.storage()), own);
        for _ in 0..2 {
            assert!(matches!(catalog.claim_routine("r").await.unwrap(), Attempt::Unsupported));
            assert!(!place.exists(&lease(1)));
        }
        let folder = run(BackupKind::Full, 60);
        let keeps = |found: &Unfinished| found.created == at(60);
        for (owner, found) in [("other", 0), ("me", 1)] {
            place.write(&format!("{folder}/data/test/{CLAIM_FILE}"), &foreign(owner));
            place.write(&format!("{folder}/data/test/manifest/0.json"), "");
            // It would be free after this.
            catalog.sweep("r", keeps).await.result.unwrap();
            tokio::time::sleep(Duration::from_millis(LEASE_MS)).await;
            assert_eq!(catalog.sweep("r", keeps).await.unfinished.len(), found, "{owner}");
        }
    }

    /// Protects: the claim on a routine is no backup and no part of one.
    #[tokio::test]
    async fn a_claim_is_no_backup() {
        let place = Place::new();
        place.full("test", 0);
        let _claim = taken(&place.catalog).await;
        let listed = place.catalog.list("r", BackupKind::Full, ..).await.unwrap();
        assert_eq!((listed.backups.len(), listed.unreadable.len()), (1, 0));
        let swept = place.catalog.sweep("r", |_| false).await;
        assert_eq!((swept.deleted.len(), swept.unfinished.len()), (0, 0));
        assert!(place.exists(&lease(1)));
    }
}
