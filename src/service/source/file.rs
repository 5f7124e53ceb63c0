//! A configuration in a file of this machine.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use abs_actors::ConfigSource;
use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{LARGEST, text};

/// A configuration in a file.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    /// One write after the other, also when one was given up and hangs.
    writing: Arc<Mutex<()>>,
}

impl ConfigFile {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), writing: Arc::default() }
    }
}

#[async_trait]
impl ConfigSource for ConfigFile {
    fn describe(&self) -> String {
        format!("file {}", self.path.display())
    }

    async fn read(&self) -> Result<String, String> {
        let origin = self.describe();
        let bytes = blocking(self.path.clone(), read).await.map_err(|e| format!("reading {origin}: {e}"))?;
        text(bytes, &origin)
    }

    async fn write(&self, text: &str) -> Result<(), String> {
        let turn = Arc::clone(&self.writing).try_lock_owned();
        let turn = turn.map_err(|_| format!("writing {}: an earlier write hangs", self.describe()))?;
        let text = text.to_owned();
        // A write whose caller has gone must not take effect later.
        let canceled = CancellationToken::new();
        let cancel = canceled.clone().drop_guard();
        let replace = move |path: &Path| {
            let replaced = replace(path, text.as_bytes(), &canceled);
            drop(turn);
            replaced
        };
        let written = blocking(self.path.clone(), replace).await;
        cancel.disarm();
        written.map_err(|e| format!("writing {}: {e}", self.describe()))
    }
}

/// Does `work` where it may block.
async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(move || work(&path)).await.map_err(io::Error::other)?
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    Ok(bytes)
}

/// Deletes what writers that were killed left beside the file at `path`. Only for one who is its only writer.
pub(super) fn delete_unfinished(path: &Path) -> io::Result<()> {
    let target = fs::canonicalize(path)?;
    let unfinished = unfinished(&target);
    for entry in fs::read_dir(target.parent().unwrap_or(Path::new("/")))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&unfinished) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// How the names of files begin that are to take the place of `target`.
fn unfinished(target: &Path) -> String {
    format!(".{}.abs-tmp-", target.file_name().unwrap_or_default().to_string_lossy())
}

/// Puts a file with this content in the place of the one at `path`, with its mode and its owner. A symbolic link stays:
/// the file that it leads to is replaced.
fn replace(path: &Path, content: &[u8], canceled: &CancellationToken) -> io::Result<()> {
    let target = fs::canonicalize(path)?;
    let folder = target.parent().unwrap_or(Path::new("/"));
    let temporary = folder.join(format!("{}{}", unfinished(&target), std::process::id()));
    // One that an earlier process with the same id left behind is in the way.
    let _ = fs::remove_file(&temporary);
    let placed = fill(&temporary, &fs::metadata(&target)?, content).and_then(|()| {
        if canceled.is_cancelled() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        fs::rename(&temporary, &target).map_err(|e| explain(e, &target))
    });
    if placed.is_err() {
        // What went wrong is told already.
        let _ = fs::remove_file(&temporary);
    }
    placed?;
    File::open(folder)?.sync_all()
}

/// Makes a file with this content and with the mode and the owner of the `old` one.
fn fill(path: &Path, old: &Metadata, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        fchown(&file, Some(old.uid()), Some(old.gid())).map_err(|e| {
            let owner = format!("{}:{}", old.uid(), old.gid());
            let why = format!("it would not belong to {owner} any more: {e}: make the service its owner");
            io::Error::other(why)
        })?;
    }
    // After the change of the owner, which may take bits away.
    file.set_permissions(Permissions::from_mode(old.mode() & 0o7777))?;
    file.sync_all()
}

fn explain(error: io::Error, target: &Path) -> io::Error {
    if error.kind() != io::ErrorKind::ResourceBusy {
        return error;
    }
    let place = target.display();
    io::Error::other(format!(
        "{place} is a mount of its own and cannot be replaced: mount its folder instead"
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[tokio::test]
    async fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yml");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let before = fs::metadata(&path).unwrap();
        let reader = File::open(&path).unwrap();
        let source = ConfigFile::new(&path);
        source.write("new").await.unwrap();
        assert_eq!(source.read().await.unwrap(), "new");
        let after = fs::metadata(&path).unwrap();
        assert_eq!(after.mode(), before.mode());
        assert_ne!(after.ino(), before.ino(), "it was written in place");
        assert_eq!(io::read_to_string(reader).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// Protects: a write that was given up changes nothing when it goes on later, and leaves no file.
    #[tokio::test]
    async fn a_canceled_write_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yml");
        fs::write(&path, "old").unwrap();
        let canceled = CancellationToken::new();
        canceled.cancel();
        replace(&path, b"new", &canceled).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let source = ConfigFile::new(&path);
        let hangs = source.writing.lock().await;
        let error = source.write("new").await.unwrap_err();
        assert!(error.ends_with("config.yml: an earlier write hangs"), "{error}");
        drop(hangs);
        source.write("new").await.unwrap();
    }

    #[tokio::test]
    async fn a_link_stays_and_what_it_leads_to_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real/config.yml"), folder.path().join("link.yml"));
        fs::create_dir(real.parent().unwrap()).unwrap();
        fs::write(&real, "old").unwrap();
        symlink("real/config.yml", &link).unwrap();
        ConfigFile::new(&link).write("new").await.unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
    }

    #[tokio::test]
    async fn what_cannot_be_is_said_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let missing = ConfigFile::new(&folder.path().join("no.yml"));
        let error = missing.read().await.unwrap_err();
        assert!(error.starts_with("reading file /") && error.contains("no.yml: No such file"), "{error}");
        let path = folder.path().join("config.yml");
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(ConfigFile::new(&path).read().await.unwrap_err().contains("not UTF-8"));
        File::create(&path).unwrap().set_len(LARGEST as u64 + 1).unwrap();
        assert!(ConfigFile::new(&path).read().await.unwrap_err().contains("larger than 16 MiB"));
    }
}
