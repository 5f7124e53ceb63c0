//! The claim that a run of this process makes on its folder, and renews.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use abs_storage::{InvalidPath, ObjectPath, Storage, StorageError};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::claim::{BEAT, Owner, claim_name, read_claim, uptime};
use crate::claimant::Claimant;
use crate::error::EngineError;
use crate::folder::place;

/// The numbers of this process's claims that are in use.
static IN_USE: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// Whether a claim of this process has this number.
pub(crate) fn is_in_use(number: u64) -> bool {
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner).contains(&number)
}

/// The number of a claim in use, of no other in this process.
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

/// The paths of a claim.
#[derive(Clone, Debug)]
pub(crate) struct ClaimPaths {
    pub folder: ObjectPath,
    /// 1 for the first claim of the folder.
    pub number: u32,
    pub own: ObjectPath,
    /// That of a process that takes this one for free.
    next: ObjectPath,
}

impl ClaimPaths {
    /// Those of the claim with this number.
    pub(crate) fn new(folder: &ObjectPath, number: u32) -> Result<Self, InvalidPath> {
        Self::numbered(folder, number, |number| folder.join(&claim_name(number)))
    }

    /// Those of the claim with this number, of claims with these paths.
    pub(crate) fn numbered(
        folder: &ObjectPath,
        number: u32,
        path: impl Fn(u32) -> Result<ObjectPath, InvalidPath>,
    ) -> Result<Self, InvalidPath> {
        let (own, next) = (path(number)?, path(number.saturating_add(1))?);
        Ok(Self { folder: folder.clone(), number, own, next })
    }

    /// Those of a mark that no other process takes.
    pub(crate) fn mark(folder: &ObjectPath, name: &str) -> Result<Self, InvalidPath> {
        let next = folder.join(&format!("{name}-2"))?;
        Ok(Self { folder: folder.clone(), number: 1, own: folder.join(name)?, next })
    }
}

/// A claim of this process, renewed until it is dropped or [ended](Self::end).
#[derive(Debug)]
pub(crate) struct OwnClaim {
    storage: Arc<dyn Storage>,
    pub paths: ClaimPaths,
    _number: Number,
    /// What it says before and after the counter: no other says the same.
    text: (String, String),
    lease: Duration,
    state: tokio::sync::Mutex<ClaimState>,
    /// Canceled when it is lost or ended.
    pub over: CancellationToken,
}

#[derive(Debug)]
enum ClaimState {
    /// Written at this time of [`uptime`].
    Renewed { beat: u64, at: Duration },
    /// Another process took the folder.
    Lost,
    /// It is not renewed any more.
    Ended,
}

impl OwnClaim {
    /// Makes a claim, or a mark, for a purpose; none if there is one.
    pub(crate) async fn make(
        storage: &Arc<dyn Storage>,
        paths: ClaimPaths,
        purpose: &str,
        owner: &Owner,
    ) -> Result<Option<Arc<Self>>, StorageError> {
        let number = Number::new();
        let by = Claimant::this().map(|claimant| format!(" by {claimant}")).unwrap_or_default();
        let of = owner.id().map(|id| format!(", owner {id}")).unwrap_or_default();
        let start = format!("{purpose}, number {}{of}, lease {}", number.0, owner.lease().as_millis());
        let claim = Self {
            storage: Arc::clone(storage),
            paths,
            _number: number,
            text: (start, format!("{by}\n")),
            lease: owner.lease(),
            state: tokio::sync::Mutex::new(ClaimState::Renewed { beat: 0, at: uptime() }),
            over: CancellationToken::new(),
        };
        if !storage.put_if_absent(&claim.paths.own, claim.text(0).as_bytes()).await? {
            return Ok(None);
        }
        let claim = Arc::new(claim);
        tokio::spawn({
            let (claim, pause) = (Arc::downgrade(&claim), owner.lease() / 10);
            async move {
                loop {
                    sleep(pause).await;
                    let Some(claim) = claim.upgrade() else { return };
                    if !claim.beat().await {
                        return;
                    }
                }
            }
        });
        Ok(Some(claim))
    }

    fn text(&self, beat: u64) -> String {
        format!("{}{BEAT}{beat}{}", self.text.0, self.text.1)
    }

    /// Writes the next value of the counter; false when there is to be no more.
    async fn beat(&self) -> bool {
        let mut state = self.state.lock().await;
        // A storage that fails may answer again: before the next commit that is looked at. A write is awaited to its end, because
        // one that is given up may still happen after the claim was deleted.
        let _ = match *state {
            // It is looked at each time: a write of another process that was late may have put back a claim of the same name.
            ClaimState::Renewed { .. } => self.renew(&mut state).await,
            ClaimState::Lost | ClaimState::Ended => Ok(()),
        };
        matches!(*state, ClaimState::Renewed { .. })
    }

    /// Whether no other process can have taken the claim since it was renewed.
    fn is_recent(&self, at: Duration) -> bool {
        uptime().saturating_sub(at) < self.lease / 2
    }

    async fn write(&self, state: &mut ClaimState, beat: u64) -> Result<(), EngineError> {
        let at = uptime();
        self.storage.put(&self.paths.own, self.text(beat).as_bytes()).await?;
        *state = ClaimState::Renewed { beat, at };
        Ok(())
    }

    /// Looks whether the folder is still this process's, and renews the claim.
    async fn renew(&self, state: &mut ClaimState) -> Result<(), EngineError> {
        let ClaimState::Renewed { beat, .. } = *state else { return Err(self.taken()) };
        let own = read_claim(&*self.storage, &self.paths.own).await?;
        let is_own = own.is_some_and(|text| text.starts_with(&self.text.0) && text.ends_with(&self.text.1));
        if !is_own || read_claim(&*self.storage, &self.paths.next).await?.is_some() {
            self.stop(state, ClaimState::Lost);
            return Err(self.taken());
        }
        self.write(state, beat + 1).await
    }

    fn taken(&self) -> EngineError {
        EngineError::Taken { folder: place(&*self.storage, &self.paths.folder) }
    }

    /// Makes sure that the folder is this process's, before it writes what counts.
    pub(crate) async fn check(&self) -> Result<(), EngineError> {
        let mut state = self.state.lock().await;
        match *state {
            ClaimState::Renewed { at, .. } if self.is_recent(at) => Ok(()),
            // Then no other process has taken it before, and this one may do with it as it likes.
            ClaimState::Ended => Ok(()),
            ClaimState::Renewed { .. } | ClaimState::Lost => self.renew(&mut state).await,
        }
    }

    /// Makes sure of it by asking the storage.
    pub(crate) async fn confirm(&self) -> Result<(), EngineError> {
        self.renew(&mut *self.state.lock().await).await
    }

    /// Another process has the folder.
    pub(crate) async fn lose(&self) -> EngineError {
        self.stop(&mut *self.state.lock().await, ClaimState::Lost);
        self.taken()
    }

    /// Ends its renewal, before it is deleted.
    pub(crate) async fn end(&self) {
        let mut state = self.state.lock().await;
        if !matches!(*state, ClaimState::Lost) {
            self.stop(&mut state, ClaimState::Ended);
        }
    }

    fn stop(&self, state: &mut ClaimState, end: ClaimState) {
        *state = end;
        self.over.cancel();
    }

    /// Renews nothing as long as the result lives, as if the process was stopped.
    #[cfg(test)]
    pub(crate) async fn pause(&self) -> impl Sized + '_ {
        self.state.lock().await
    }
}

#[cfg(test)]
mod tests {
    use abs_storage::Local;

    use super::*;
    use crate::claim::Standing;

    struct Place {
        folder: tempfile::TempDir,
        storage: Arc<dyn Storage>,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let storage = Arc::new(Local::new(folder.path()));
            Self { folder, storage }
        }

        async fn make(&self, number: u32, owner: &Owner) -> Option<Arc<OwnClaim>> {
            let paths = ClaimPaths::new(&ObjectPath::root(), number).unwrap();
            OwnClaim::make(&self.storage, paths, "being written", owner).await.unwrap()
        }

        fn read(&self) -> String {
            std::fs::read_to_string(self.folder.path().join("in-progress")).unwrap()
        }

        async fn changes(&self, from: &str) {
            while self.read() == from {
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Protects: a claim is renewed as long as it is held, and not after it was ended; another process does not get it.
    #[tokio::test]
    async fn a_claim_is_renewed() {
        let place = Place::new();
        let owner = Owner::new(Some("me".to_owned()), Duration::from_millis(500));
        let claim = place.make(1, &owner).await.unwrap();
        let text = place.read();
        assert!(text.contains(", owner me, lease 500, beat 0 by "), "{text}");
        assert!(place.make(1, &owner).await.is_none());
        place.changes(&text).await;
        assert_eq!(owner.assess(&place.read()), Standing::Held);
        claim.check().await.unwrap();
        claim.confirm().await.unwrap();
        claim.end().await;
        let text = place.read();
        sleep(Duration::from_millis(200)).await;
        assert_eq!(place.read(), text);
        drop(claim);
        assert_eq!(owner.assess(&text), Standing::LeftOver);
    }

    /// Protects: a process whose claim was taken, overwritten or deleted while it was stopped writes nothing that counts.
    #[tokio::test]
    async fn a_lost_claim_stays_lost() {
        for case in ["taken", "overwritten", "deleted"] {
            let place = Place::new();
            // It is not renewed meanwhile.
            let claim = place.make(1, &Owner::new(None, Duration::from_hours(1))).await.unwrap();
            let own = place.folder.path().join("in-progress");
            match case {
                "taken" => std::fs::write(place.folder.path().join("in-progress-2"), "other").unwrap(),
                "overwritten" => std::fs::write(own, "other").unwrap(),
                _ => std::fs::remove_file(own).unwrap(),
            }
            claim.check().await.unwrap();
            for _ in 0..2 {
                let error = claim.confirm().await.unwrap_err();
                assert!(matches!(error, EngineError::Taken { .. }), "{case}: {error}");
            }
            assert!(claim.check().await.is_err() && !claim.beat().await, "{case}");
            claim.end().await;
            claim.check().await.unwrap_err();
        }
    }

    /// Protects: a holder whose claim was overwritten by a late write of another process notices it, although it renews in time.
    #[tokio::test]
    async fn a_claim_that_was_overwritten_is_lost() {
        let place = Place::new();
        let claim = place.make(1, &Owner::new(None, Duration::from_hours(1))).await.unwrap();
        std::fs::write(place.folder.path().join("in-progress"), "other").unwrap();
        assert!(!claim.beat().await);
        assert_eq!(place.read(), "other");
        claim.check().await.unwrap_err();
    }

    /// Protects: a process that could not renew its claim for half a lease asks the storage before its next commit.
    #[tokio::test]
    async fn a_claim_that_is_old_is_looked_at() {
        let place = Place::new();
        let claim = place.make(1, &Owner::new(None, Duration::from_millis(400))).await.unwrap();
        std::fs::write(place.folder.path().join("in-progress-2"), "other").unwrap();
        // As if it was stopped.
        let state = claim.pause().await;
        sleep(Duration::from_millis(250)).await;
        drop(state);
        claim.check().await.unwrap_err();
    }
}
