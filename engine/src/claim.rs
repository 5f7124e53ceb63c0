//! Claims: which process writes to the folder of a backup.
//!
//! A claim is an object that is put only where there is none. The first one is `in-progress`; an attempt that continues in
//! another process puts `in-progress-2`, then `-3` and so on, so of several that continue at the same moment one does. The
//! claim with the highest number counts.

use abs_storage::{Listing, ObjectInfo, ObjectPath, Storage, StorageError};

/// The first claim. Not a part of the backup.
pub(crate) const CLAIM_FILE: &str = "in-progress";

/// The largest claim that is read, in bytes; they have some hundred.
const LIMIT: usize = 4096;

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
pub(crate) fn latest_claim(objects: &[ObjectInfo]) -> Option<(u32, &ObjectPath)> {
    let numbered =
        objects.iter().filter_map(|object| Some((claim_number(object.path.name())?, &object.path)));
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
        Some((number, path)) => read_claim(storage, path).await?.map(|text| (number, text)),
    };
    Ok((listing, claim))
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
