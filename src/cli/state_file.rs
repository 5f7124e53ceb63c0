//! State files: what `abs backup --state-file-dst` leaves of a backup that a signal suspended, for `--continue`.
//!
//! The state itself is in the folder of the backup; the file names that folder.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Failure;

/// The largest file that is read, in bytes.
const LIMIT: u64 = 64 << 10;

/// The version of the format.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct StateFile {
    /// The version of the format; no other tool writes this key.
    abs_backup_state: u32,
    namespace: String,
    directory: PathBuf,
}

/// The file to write: `path`, or a file in it when it is a folder.
///
/// # Errors
/// Its folder does not exist, or it is there already and is no state file.
pub(super) fn destination(path: PathBuf, namespace: &str) -> Result<PathBuf, Failure> {
    let refuse = |what: String| Err(Failure::Usage(format!("--state-file-dst: {what}")));
    let file = if path.is_dir() { path.join(format!("{namespace}.abs.state")) } else { path };
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
        return refuse(format!("the folder {} does not exist", parent.display()));
    }
    match std::fs::symlink_metadata(&file) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(file),
        Err(e) => refuse(format!("cannot look at {}: {e}", file.display())),
        // Anything else, as a device, is not to be read.
        Ok(found) if found.is_file() && read(&file)?.is_some() => Ok(file),
        Ok(_) => {
            refuse(format!("{} exists and is no state file of abs backup: name another file", file.display()))
        }
    }
}

/// What a state file says; none of another file.
fn read(path: &Path) -> Result<Option<StateFile>, Failure> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LIMIT).read_to_end(&mut text));
    read.map_err(|e| Failure::usage(format!("cannot read {}: {e}", path.display())))?;
    Ok(serde_json::from_slice(&text).ok().filter(|state: &StateFile| state.abs_backup_state == FORMAT))
}

/// Writes the state file of the backup in `directory`.
///
/// # Errors
/// It cannot be written.
pub(super) fn write(file: &Path, namespace: &str, directory: &Path) -> Result<(), Failure> {
    // It may be continued from another working directory.
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let state = StateFile { abs_backup_state: FORMAT, namespace: namespace.to_owned(), directory };
    let written = serde_json::to_vec(&state).map_err(std::io::Error::other).and_then(|text| {
        let mut file = File::create(file)?;
        file.write_all(&text)?;
        file.sync_all()
    });
    written.map_err(|e| Failure::job(format!("cannot write the state file {}: {e}", file.display())))
}

/// The folder that `--continue` names: the folder itself, or that in a state file.
///
/// # Errors
/// The file is no state file of this command.
pub(super) fn folder(path: PathBuf) -> Result<PathBuf, Failure> {
    if !path.is_file() {
        return Ok(path);
    }
    match read(&path)? {
        Some(state) => Ok(state.directory),
        None => Err(Failure::usage(format!(
            "{} is no state file of abs backup; a backup of asbackup cannot be continued: start a new one",
            path.display()
        ))),
    }
}
