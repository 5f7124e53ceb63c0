//! Folders: creating, syncing, listing and deleting them.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::failure;
use super::temporary::is_temporary;
use crate::{Listing, ObjectInfo, ObjectPath, Result, Verb};

/// The folder that holds `file`.
pub(super) fn of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Creates a folder and those above it, where missing, so that they survive a power cut.
pub(super) fn create(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = of(folder);
    if above != folder {
        create(above)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => sync(above),
        // Another writer was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the names in a folder survive a power cut.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // File systems that cannot sync a folder (SMB, some of FUSE) say so.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

/// Adds to `listing` what is in the folder `place`, whose path in the storage is `path`.
pub(super) fn list(place: &Path, path: &ObjectPath, recursive: bool, listing: &mut Listing) -> Result<()> {
    for entry in entries(place, Verb::List)? {
        // A name that is not UTF-8 is no part of an object's path.
        let Some(name) = entry.name.to_str() else { continue };
        // Symbolic links are followed; what has vanished since, or leads nowhere, is not there.
        let Some(metadata) = found(fs::metadata(&entry.place)).map_err(failure(Verb::List, &entry.place))?
        else {
            continue;
        };
        let path = path.join(name).map_err(failure(Verb::List, &entry.place))?;
        if metadata.is_file() {
            let modified = metadata.modified().map_err(failure(Verb::List, &entry.place))?;
            listing.objects.push(ObjectInfo {
                path,
                size: metadata.len(),
                modified,
                archived: None,
                crc32c: None,
            });
        } else if metadata.is_dir() {
            if recursive {
                list(&entry.place, &path, true, listing)?;
            } else {
                listing.folders.push(path);
            }
        }
    }
    Ok(())
}

/// Deletes the file or folder `place` with all that is in it; returns how many objects that was. `keep_folder` leaves
/// the emptied folder.
pub(super) fn delete(place: &Path, keep_folder: bool) -> Result<u64> {
    let failed = |error: io::Error| failure(Verb::Delete, place)(error);
    let count = match found(fs::symlink_metadata(place)).map_err(failed)? {
        None => return Ok(0),
        Some(_) if keep_folder => delete_content(place)?,
        Some(metadata) => delete_entry(place, metadata.is_dir())?,
    };
    sync(if keep_folder { place } else { of(place) }).map_err(failed)?;
    Ok(count)
}

fn delete_content(folder: &Path) -> Result<u64> {
    let mut count = 0;
    for entry in all_entries(folder, Verb::Delete)? {
        let objects = delete_entry(&entry.place, entry.is_folder)?;
        if !entry.is_temporary() {
            count += objects;
        }
    }
    Ok(count)
}

fn delete_entry(place: &Path, is_folder: bool) -> Result<u64> {
    let (count, deleted) =
        if is_folder { (delete_content(place)?, fs::remove_dir(place)) } else { (1, fs::remove_file(place)) };
    let deleted = found(deleted).map_err(failure(Verb::Delete, place))?;
    Ok(if deleted.is_some() || is_folder { count } else { 0 })
}

/// Deletes the temporary files in the folder `place` and below that nobody wrote to for `older_than`; returns how many.
pub(super) fn delete_unfinished(place: &Path, older_than: Duration) -> Result<u64> {
    let mut count = 0;
    for entry in all_entries(place, Verb::Delete)? {
        if entry.is_folder {
            count += delete_unfinished(&entry.place, older_than)?;
        } else if entry.is_temporary() {
            let failed = |error: io::Error| failure(Verb::Delete, &entry.place)(error);
            let Some(metadata) = found(fs::symlink_metadata(&entry.place)).map_err(failed)? else { continue };
            let modified = metadata.modified().map_err(failed)?;
            let age = SystemTime::now().duration_since(modified).unwrap_or_default();
            if age >= older_than && found(fs::remove_file(&entry.place)).map_err(failed)?.is_some() {
                count += 1;
            }
        }
    }
    Ok(count)
}

/// Something in a folder.
struct Entry {
    name: OsString,
    place: PathBuf,
    /// Whether it is a folder itself, not a symbolic link to one.
    is_folder: bool,
}

impl Entry {
    fn is_temporary(&self) -> bool {
        self.name.to_str().is_some_and(is_temporary)
    }
}

/// What is in a folder but for temporary files; nothing if there is no such folder.
fn entries(folder: &Path, verb: Verb) -> Result<Vec<Entry>> {
    let mut entries = all_entries(folder, verb)?;
    entries.retain(|entry| !entry.is_temporary());
    Ok(entries)
}

/// What is in a folder; nothing if there is no such folder.
fn all_entries(folder: &Path, verb: Verb) -> Result<Vec<Entry>> {
    let read = || -> io::Result<Vec<Entry>> {
        let Some(entries) = found(fs::read_dir(folder))? else { return Ok(Vec::new()) };
        entries
            .map(|entry| {
                let entry = entry?;
                let is_folder = entry.file_type()?.is_dir();
                Ok(Entry { name: entry.file_name(), place: entry.path(), is_folder })
            })
            .collect()
    };
    read().map_err(failure(verb, folder))
}

/// None for what does not exist.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        // A file where a folder should be: nothing is below it.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
