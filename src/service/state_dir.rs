//! The directory of what the service remembers over restarts, `service.state-dir`.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use slog::{Logger, info, warn};

/// Its name where the configuration names none.
const NAME: &str = "abs-state";
/// Where it is when it cannot be beside the configuration.
const SYSTEM: &str = "/var/lib/abs";
/// The file whose lock keeps other services out.
const LOCK: &str = "lock";

/// A state directory that this process alone uses, as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// The directory that is `configured`, else the first usable one of `abs-state` beside the file of the
    /// configuration and in `/var/lib/abs`. It is created with mode 0700 where its parent exists. `None`, with a
    /// warning in the log, when it cannot be used.
    pub fn open(configured: Option<&Path>, configuration: Option<&Path>, log: &Logger) -> Option<Self> {
        let candidates = if let Some(path) = configured {
            vec![path.to_owned()]
        } else {
            let beside = configuration.map(|file| file.with_file_name(NAME));
            beside.into_iter().chain([Path::new(SYSTEM).join(NAME)]).collect()
        };
        let mut errors = Vec::new();
        for path in candidates {
            match Self::claim(path.clone()) {
                Ok(state) => {
                    info!(log, "state is kept"; "directory" => %state.path.display());
                    return Some(state);
                }
                Err(e) => errors.push(format!("{}: {e}", path.display())),
            }
        }
        warn!(log, "no state directory can be used, so no state is kept for the next start: set service.state-dir";
            "error" => errors.join("; "));
        None
    }

    /// Creates the directory if need be, checks that files can be created in it, and locks it.
    fn claim(path: PathBuf) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(path.join(LOCK))?;
        lock.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => io::Error::other("another service uses it"),
            TryLockError::Error(e) => e,
        })?;
        // The lock file may be there already in a directory that takes no new files.
        let probe = path.join("probe");
        options.open(&probe)?;
        std::fs::remove_file(&probe)?;
        Ok(Self { path, _lock: lock })
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn open(configured: Option<&Path>, configuration: Option<&Path>) -> Option<StateDir> {
        StateDir::open(configured, configuration, &Logger::root(slog::Discard, slog::o!()))
    }

    /// Protects: nobody else can read what is there, and the key wins over the place beside the configuration.
    #[test]
    fn the_directory_is_the_configured_one_else_beside_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let configuration = folder.path().join("abs.yml");
        let beside = folder.path().join(NAME);
        let state = open(None, Some(&configuration)).unwrap();
        assert_eq!(state.file("name"), beside.join("name"));
        assert_eq!(beside.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let configured = folder.path().join("state");
        let state = open(Some(&configured), Some(&configuration)).unwrap();
        assert_eq!(state.file("name"), configured.join("name"));
    }

    /// Protects: two services never share what only one may own, and a directory is free again after its service.
    #[test]
    fn a_directory_has_one_service() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let state = open(Some(&path), None).unwrap();
        assert!(open(Some(&path), None).is_none());
        drop(state);
        open(Some(&path), None).unwrap();
    }

    /// Protects: a service without a usable directory starts all the same.
    #[test]
    fn a_directory_that_cannot_be_used_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        for path in [file.join("state"), file.clone(), folder.path().join("no/parent")] {
            assert!(open(Some(&path), None).is_none(), "{}", path.display());
        }
    }
}
