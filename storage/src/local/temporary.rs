//! Files that are not yet objects.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::folder;

/// What the names of temporary files begin with; no object and no folder may have such a name.
const PREFIX: &str = ".abs-tmp-";

/// Makes the names of this process differ.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// Whether a file of this name is a temporary one.
pub(super) fn is_temporary(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// A file beside the object it will become. Dropping it deletes it.
#[derive(Debug)]
pub(super) struct Temporary {
    /// None once the file has become an object.
    path: Option<PathBuf>,
}

impl Temporary {
    /// A new, empty file in the folder of `target`, which is created if it does not exist.
    pub(super) fn beside(target: &Path) -> io::Result<(Self, File)> {
        let folder = folder::of(target);
        folder::create(folder)?;
        // Processes of several containers may share the folder and the process id: whoever finds a name taken
        // tries the next.
        loop {
            let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{PREFIX}{:x}-{number:x}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok((Self { path: Some(path) }, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes it the object `target`, in place of what is there. The file must be synced.
    pub(super) fn replace(mut self, target: &Path) -> io::Result<()> {
        if let Some(path) = &self.path {
            fs::rename(path, target)?;
        }
        self.path = None;
        folder::sync(folder::of(target))
    }

    /// Makes it the object `target` unless there is something already; says whether it did. The file must be synced.
    pub(super) fn place_if_absent(mut self, target: &Path) -> io::Result<bool> {
        if let Some(path) = &self.path {
            match renameat_with(CWD, path, CWD, target, RenameFlags::NOREPLACE) {
                Ok(()) => self.path = None,
                Err(Errno::EXIST) => return Ok(false),
                // NFS has no such rename, but hard links; for SMB and exFAT it is the other way round.
                Err(Errno::INVAL | Errno::NOSYS) => match fs::hard_link(path, target) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error.into()),
            }
        }
        // A hard link leaves the temporary name to be deleted.
        drop(self);
        folder::sync(folder::of(target))?;
        Ok(true)
    }

    /// Deletes it.
    pub(super) fn delete(mut self) -> io::Result<()> {
        self.path.take().map_or(Ok(()), fs::remove_file)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nobody is left to hear of a failure; `delete_unfinished` finds the file later.
            let _ = fs::remove_file(path);
        }
    }
}
