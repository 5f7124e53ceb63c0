//! Claims: which process writes to the folder of a backup.
//!
//! A claim is an object that is put only where there is none. The first one is `in-progress`; whatever takes a folder that has
//! one puts `in-progress-2`, then `-3` and so on, so of several that do so at the same moment one succeeds. The claim with
//! the highest number counts.
//!
//! The process that made a claim, and no other, overwrites it with a counter every tenth of its lease. A claim is free when its
//! process is known to have ended, or when its counter did not change for a whole lease while this process observed it.
//! Clocks of two machines are never compared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use abs_storage::{Listing, ObjectInfo, ObjectPath, Storage, StorageError};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::sleep;

use crate::claimant::{Claimant, Life};
use crate::own_claim::is_in_use;

/// The first claim. Not a part of the backup.
pub(crate) const CLAIM_FILE: &str = "in-progress";

/// What a claim says of a folder that is about to be deleted.
pub(crate) const LEFTOVER: &str = "a backup that was interrupted is being deleted here";

/// The largest claim that is read, in bytes; they have some hundred.
const LIMIT: usize = 4096;

/// The lease unless another one is configured.
const LEASE: Duration = Duration::from_mins(1);

/// After which time an upload, a claim or a mark is taken for a leftover, whoever made it.
pub(crate) const LEFT: Duration = Duration::from_hours(7 * 24);

/// How long a claim of another process is remembered.
const MEMORY: Duration = Duration::from_hours(24);

/// Time since the system was started, including the time that it was suspended.
pub(crate) fn uptime() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// What claims say of the process that makes them, and what it has observed of the claims of others.
#[derive(Clone, Debug)]
pub struct Owner(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Of one process at a time.
    id: Option<String>,
    lease: Duration,
    /// Claims of others: how each begins, how it ends, and since when.
    observed: Mutex<HashMap<String, (String, Duration)>>,
}

impl Default for Owner {
    fn default() -> Self {
        Self::new(None, LEASE)
    }
}

impl Owner {
    /// The owner of claims with this lease. The caller guarantees that no other process has the same `id` at the same time:
    /// claims with it that this process did not make are free at once.
    #[must_use]
    pub fn new(id: Option<String>, lease: Duration) -> Self {
        Self(Arc::new(Inner { id, lease, observed: Mutex::default() }))
    }

    /// The id that no other process has.
    pub(crate) fn id(&self) -> Option<&str> {
        self.0.id.as_deref()
    }

    /// How long a claim of it counts without being renewed.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.0.lease
    }

    /// Whether a claim has the id of this owner.
    pub(crate) fn made(&self, text: &str) -> bool {
        let owner = Claim::parse(text).owner;
        owner.is_some() && owner == self.id()
    }

    /// What is known of a claim.
    pub(crate) fn assess(&self, text: &str) -> Standing {
        let claim = Claim::parse(text);
        let (process, this) = (claim.process, Claimant::this());
        if this.is_some() && process == this {
            return if claim.number.is_some_and(is_in_use) { Standing::Held } else { Standing::LeftOver };
        }
        match process.map(|process| process.life()) {
            _ if self.made(text) => return Standing::Free,
            Some(Life::Ended) => return Standing::Free,
            Some(Life::Running) => return Standing::Held,
            Some(Life::Unknown) | None => {}
        }
        let Some((lease, (start, end))) = claim.lease.zip(text.split_once(BEAT)) else {
            return Standing::Held;
        };
        let now = uptime();
        let mut observed = self.0.observed.lock().unwrap_or_else(PoisonError::into_inner);
        observed.retain(|_, (_, since)| now.saturating_sub(*since) < MEMORY);
        let entry = observed.entry(start.to_owned()).or_insert_with(|| (end.to_owned(), now));
        if entry.0 != end {
            *entry = (end.to_owned(), now);
        }
        match lease.checked_sub(now.saturating_sub(entry.1)) {
            Some(left) if !left.is_zero() => Standing::Observed(left),
            _ => Standing::Free,
        }
    }
}

/// What is known of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Of an attempt of this process that could not clean up when its storage failed.
    LeftOver,
    /// Its process has ended, or has not renewed it for a lease.
    Free,
    /// Free if it has not changed after this time.
    Observed(Duration),
    /// Its process runs, or it cannot be known whether it does.
    Held,
}

impl Standing {
    /// Whether it stands for nothing; `gone` says whether claims of other processes may be taken, too.
    pub(crate) fn is_free(self, gone: bool) -> bool {
        self == Self::LeftOver || (gone && self == Self::Free)
    }
}

/// What precedes the counter.
pub(crate) const BEAT: &str = ", beat ";

/// What the text of a claim says.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    number: Option<u64>,
    pub owner: Option<&'a str>,
    /// Those of version 0.1 have none.
    pub lease: Option<Duration>,
    process: Option<Claimant>,
}

impl<'a> Claim<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let field = |name| text.split(", ").find_map(|part: &str| part.strip_prefix(name)?.split(' ').next());
        Self {
            number: field("number ").and_then(|number| number.parse().ok()),
            owner: field("owner "),
            lease: field("lease ").and_then(|lease| lease.parse().ok()).map(Duration::from_millis),
            process: Claimant::at_the_end_of(text),
        }
    }
}

/// The name of the claim of this number, from 1.
pub(crate) fn claim_name(number: u32) -> String {
    if number == 1 { CLAIM_FILE.to_owned() } else { format!("{CLAIM_FILE}-{number}") }
}

/// The number of the claim of this name; none for other objects.
pub(crate) fn claim_number(name: &str) -> Option<u32> {
    match name.strip_prefix(CLAIM_FILE)? {
        "" => Some(1),
        rest => rest.strip_prefix('-')?.parse().ok().filter(|number| claim_name(*number) == name),
    }
}

/// The claim that counts, of the objects in a folder.
pub(crate) fn latest_claim(objects: &[ObjectInfo]) -> Option<(u32, &ObjectInfo)> {
    let numbered = objects.iter().filter_map(|object| Some((claim_number(object.path.name())?, object)));
    numbered.max_by_key(|(number, _)| *number)
}

/// What is in a folder, and the claim that counts: its number and what it says.
pub(crate) async fn look(
    storage: &dyn Storage,
    folder: &ObjectPath,
) -> Result<(Listing, Option<(u32, String)>), StorageError> {
    let listing = storage.list(folder, false).await?;
    let claim = match latest_claim(&listing.objects) {
        None => None,
        Some((number, claim)) => read_claim(storage, &claim.path).await?.map(|text| (number, text)),
    };
    Ok((listing, claim))
}

/// Whether nothing stands for a claim, or a mark, any more. Waits while that is not known.
pub(crate) async fn is_free(
    storage: &dyn Storage,
    path: &ObjectPath,
    owner: &Owner,
) -> Result<bool, StorageError> {
    let mut before = None;
    while let Some(text) = read_claim(storage, path).await? {
        match owner.assess(&text) {
            Standing::Free | Standing::LeftOver => break,
            Standing::Observed(left) if before.as_ref().is_none_or(|before| *before == text) => {
                before = Some(text);
                sleep(left).await;
            }
            Standing::Observed(_) | Standing::Held => return Ok(false),
        }
    }
    Ok(true)
}

/// Whether a claim, or a mark, is taken for a leftover, whatever it says.
pub(crate) fn is_old(claim: &ObjectInfo) -> bool {
    claim.modified.elapsed().is_ok_and(|age| age > LEFT)
}

/// What is known of a claim, or a mark.
pub(crate) async fn assess(
    storage: &dyn Storage,
    claim: &ObjectInfo,
    owner: &Owner,
) -> Result<Standing, StorageError> {
    if is_old(claim) {
        return Ok(Standing::Free);
    }
    // Without a text its run ended meanwhile.
    let text = read_claim(storage, &claim.path).await?;
    Ok(text.map_or(Standing::Held, |text| owner.assess(&text)))
}

/// What a claim says; none when it is gone.
pub(crate) async fn read_claim(
    storage: &dyn Storage,
    path: &ObjectPath,
) -> Result<Option<String>, StorageError> {
    match storage.get(path, LIMIT).await {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE_MS: u64 = 300;

    /// A claim by a process of another system.
    fn foreign(beat: u64) -> String {
        format!(
            "a backup is being written here, number 3, owner a, lease {LEASE_MS}{BEAT}{beat} by boot pid:[1] 1 1\n"
        )
    }

    /// Protects: a claim of another system is free only when its counter did not change for a whole lease; one with this
    /// owner's id at once, one without a lease never.
    #[test]
    fn a_claim_that_is_not_renewed_becomes_free() {
        let owner = Owner::default();
        let observed = |text: &str| match owner.assess(text) {
            Standing::Observed(left) => left,
            standing => panic!("{standing:?}"),
        };
        let lease = Duration::from_millis(LEASE_MS);
        assert_eq!(observed(&foreign(1)), lease);
        let left = observed(&foreign(1));
        assert!(left < lease, "its time passes");
        assert_eq!(observed(&foreign(2)), lease, "it was renewed");
        std::thread::sleep(lease);
        assert_eq!(owner.assess(&foreign(2)), Standing::Free);
        assert_eq!(observed(&foreign(3)), lease, "it was renewed after all");
        let same = Owner::new(Some("a".to_owned()), lease);
        assert_eq!(same.assess(&foreign(1)), Standing::Free);
        let other = Owner::new(Some("b".to_owned()), lease);
        assert_eq!(other.assess(&foreign(1)), Standing::Observed(lease));
        let old = "a backup that began at 1 is being written here, number 3  by boot pid:[1] 1 1\n";
        assert_eq!(same.assess(old), Standing::Held);
        assert_eq!(same.assess(""), Standing::Held);
    }

    #[test]
    fn claims_are_numbered() {
        for number in [1, 2, 10, u32::MAX] {
            assert_eq!(claim_number(&claim_name(number)), Some(number));
        }
        for name in
            ["", "in-progres", "in-progress-", "in-progress-1", "in-progress-02", "in-progress-x", "0.asb"]
        {
            assert_eq!(claim_number(name), None, "{name}");
        }
    }
}
