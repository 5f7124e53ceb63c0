//! A folder of this machine.

mod folder;
mod reader;
mod temporary;
mod writer;

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::reader::LocalReader;
use self::temporary::Temporary;
use self::writer::LocalWriter;
use crate::{
    ByteRange, ErrorKind, InvalidPath, Listing, ObjectPath, ObjectReader, ObjectWriter, Result, Storage,
    StorageError, Verb,
};

/// With less free space than this, in bytes, a storage cannot take a backup: one block of a file.
const LEAST_SPACE: u64 = 512 << 10;

/// A storage in a folder of this machine: an object is a file, a folder is a folder.
///
/// An object is written to a temporary file beside its place, synced, renamed to its name, and the folder is synced:
/// after a crash or a power cut it is there whole or not at all. Files are created with mode 0600, folders with 0700.
/// Symbolic links are followed, but never deleted through. Files whose name is not UTF-8 are not listed.
///
/// Must be used inside a tokio runtime: what the kernel may block on runs on its blocking threads.
#[derive(Debug, Clone)]
pub struct Local {
    root: Arc<Path>,
}

impl Local {
    /// The storage in the folder `root`. It need not exist: the first write creates it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: Arc::from(root.into()) }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file or folder of `path`.
    fn place(&self, verb: Verb, path: &ObjectPath) -> Result<PathBuf> {
        if path.parts().any(temporary::is_temporary) {
            let reason = "names that begin with .abs-tmp- are those of unfinished objects";
            return Err(failure(verb, &self.root)(InvalidPath { path: path.to_string(), reason }));
        }
        if path.is_root() {
            return Ok(self.root.to_path_buf());
        }
        Ok(self.root.join(path.as_str()))
    }

    /// The file of `path`, which must name an object.
    fn file(&self, verb: Verb, path: &ObjectPath) -> Result<PathBuf> {
        if path.is_root() {
            let reason = "it names the storage itself, not an object";
            return Err(failure(verb, &self.root)(InvalidPath { path: String::new(), reason }));
        }
        self.place(verb, path)
    }
}

#[async_trait]
impl Storage for Local {
    fn describe(&self) -> String {
        format!("local folder {}", self.root.display())
    }

    fn is_remote(&self) -> bool {
        false
    }

    async fn probe(&self) -> Result<()> {
        blocking(Verb::Write, self.root.to_path_buf(), |root| {
            // The first write creates the folder.
            let exists = |folder: &&Path| folder.symlink_metadata().is_ok();
            let nearest = std::path::absolute(root)?;
            let nearest = nearest.ancestors().find(exists).unwrap_or(Path::new("/"));
            if !nearest.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            let all =
                rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
            rustix::fs::access(nearest, all)?;
            let space = rustix::fs::statvfs(nearest)?;
            if space.f_bavail.saturating_mul(space.f_frsize) < LEAST_SPACE {
                let full = format!("less than {} KiB of its disk are free", LEAST_SPACE >> 10);
                return Err(io::Error::new(io::ErrorKind::StorageFull, full));
            }
            // Some file systems do not count their files.
            if space.f_files > 0 && space.f_favail == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    "its file system can hold no more files",
                ));
            }
            Ok(())
        })
        .await
    }

    async fn create(&self, path: &ObjectPath) -> Result<Box<dyn ObjectWriter>> {
        let target = self.file(Verb::Write, path)?;
        let writer = blocking(Verb::Write, target, LocalWriter::create).await?;
        Ok(Box::new(writer))
    }

    async fn open(&self, path: &ObjectPath, range: ByteRange) -> Result<Box<dyn ObjectReader>> {
        let file = self.file(Verb::Read, path)?;
        let reader = blocking(Verb::Read, file, move |file| LocalReader::open(file, range)).await?;
        Ok(Box::new(reader))
    }

    async fn put(&self, path: &ObjectPath, content: &[u8]) -> Result<()> {
        let content = content.to_vec();
        blocking(Verb::Write, self.file(Verb::Write, path)?, move |target| {
            write_small(target, &content)?.replace(target)
        })
        .await
    }

    async fn put_if_absent(&self, path: &ObjectPath, content: &[u8]) -> Result<bool> {
        let content = content.to_vec();
        blocking(Verb::Write, self.file(Verb::Write, path)?, move |target| {
            if fs::symlink_metadata(target).is_ok() {
                return Ok(false);
            }
            write_small(target, &content)?.place_if_absent(target)
        })
        .await
    }

    async fn get(&self, path: &ObjectPath, limit: usize) -> Result<Vec<u8>> {
        let file = self.file(Verb::Read, path)?;
        let place = file.clone();
        let content = blocking(Verb::Read, file, move |file| {
            let mut content = Vec::new();
            reader::open_file(file)?.0.take(limit as u64 + 1).read_to_end(&mut content)?;
            Ok(content)
        })
        .await?;
        if content.len() > limit {
            return Err(failure(Verb::Read, &place)(ErrorKind::TooLarge { limit }));
        }
        Ok(content)
    }

    async fn list(&self, prefix: &ObjectPath, recursive: bool) -> Result<Listing> {
        let prefix = prefix.clone();
        on_blocking_thread(Verb::List, self.place(Verb::List, &prefix)?, move |place| {
            let mut listing = Listing::default();
            folder::list(place, &prefix, recursive, &mut listing)?;
            listing.objects.sort_unstable_by(|a, b| a.path.cmp(&b.path));
            listing.folders.sort_unstable();
            Ok(listing)
        })
        .await
    }

    async fn delete_prefix(&self, prefix: &ObjectPath) -> Result<u64> {
        let keep_folder = prefix.is_root();
        on_blocking_thread(Verb::Delete, self.place(Verb::Delete, prefix)?, move |place| {
            folder::delete(place, keep_folder)
        })
        .await
    }

    async fn delete_unfinished(&self, prefix: &ObjectPath, older_than: Duration) -> Result<u64> {
        on_blocking_thread(Verb::Delete, self.place(Verb::Delete, prefix)?, move |place| {
            folder::delete_unfinished(place, older_than)
        })
        .await
    }
}

/// A temporary file beside `target` that holds `content`, synced.
fn write_small(target: &Path, content: &[u8]) -> io::Result<Temporary> {
    let (temporary, mut file) = Temporary::beside(target)?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(temporary)
}

/// Turns a cause into the error of doing `verb` to `place`.
fn failure<E: Into<ErrorKind>>(verb: Verb, place: &Path) -> impl FnOnce(E) -> StorageError {
    move |cause| StorageError::new(verb, place.display().to_string(), cause)
}

/// Runs `work` on `place` where it may block, and names both if it fails.
async fn blocking<T: Send + 'static>(
    verb: Verb,
    place: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    on_blocking_thread(verb, place, move |place| work(place).map_err(failure(verb, place))).await
}

/// Runs `work` on `place` where it may block.
async fn on_blocking_thread<T: Send + 'static>(
    verb: Verb,
    place: PathBuf,
    work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    let work_place = place.clone();
    match tokio::task::spawn_blocking(move || work(&work_place)).await {
        Ok(result) => result,
        Err(error) => Err(failure(verb, &place)(stopped(error))),
    }
}

/// The error of blocking work that did not end: it was never begun because the runtime shuts down. A panic of the work
/// goes on in the caller.
fn stopped(error: tokio::task::JoinError) -> io::Error {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => io::Error::other("the program is shutting down"),
    }
}
