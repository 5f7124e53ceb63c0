//! Where the files of a backup are: on this machine, or in another storage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use abs_storage::{Local, ObjectPath, Storage};
use clap::Args;

use super::Failure;
use super::options::check_folder;

#[derive(Debug, Args)]
pub(super) struct OtherStorage {
    /// A storage other than this machine: a YAML file like one entry of `storage` in the configuration of the service.
    /// Folders and files are then those in it.
    #[arg(long, value_name = "FILE")]
    storage: Option<PathBuf>,
}

/// A folder or a file in a storage.
pub(super) struct Place {
    pub storage: Arc<dyn Storage>,
    pub path: ObjectPath,
    /// As the user knows it.
    pub name: String,
}

impl OtherStorage {
    /// The storage, if one was given.
    pub(super) fn open(&self) -> Result<Option<Arc<dyn Storage>>, Failure> {
        let Some(file) = &self.storage else { return Ok(None) };
        let wrong = |what: String| Failure::Usage(format!("--storage {}: {what}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
        let document = abs_config::from_yaml::<abs_config::Storage>(&text);
        let settings = document.and_then(|document| document.check()).map_err(|e| wrong(e.to_string()))?;
        Ok(Some(abs_storage::open(&settings)))
    }

    /// True without another storage.
    pub(super) fn is_this_machine(&self) -> bool {
        self.storage.is_none()
    }

    /// A folder in that storage, or of this machine; there `check` has a look at it first.
    pub(super) fn folder(
        &self,
        folder: &Path,
        check: impl FnOnce(&Path) -> Result<(), Failure>,
    ) -> Result<Place, Failure> {
        if let Some(storage) = self.open()? {
            return within(storage, folder);
        }
        check(folder)?;
        let storage = Arc::new(Local::new(folder));
        Ok(Place { storage, path: ObjectPath::root(), name: folder.display().to_string() })
    }

    /// A folder in that storage, or one that exists on this machine.
    pub(super) fn existing_folder(&self, folder: &Path) -> Result<Place, Failure> {
        self.folder(folder, |folder| {
            check_folder(folder)?;
            if folder.exists() {
                return Ok(());
            }
            Err(Failure::Usage(format!("{} does not exist", folder.display())))
        })
    }
}

impl OtherStorage {
    /// Several folders in that storage, or of this machine, each below `parent` if there is one.
    pub(super) fn folders(
        &self,
        parent: Option<&Path>,
        folders: &[PathBuf],
    ) -> Result<(Arc<dyn Storage>, Vec<ObjectPath>), Failure> {
        let below = |folder: &PathBuf| parent.map_or_else(|| folder.clone(), |parent| parent.join(folder));
        let folders = match folders {
            [] => parent.map(Path::to_owned).into_iter().collect(),
            folders => folders.iter().map(below).collect::<Vec<_>>(),
        };
        let other = self.open()?;
        let mut paths = Vec::new();
        for folder in folders {
            let folder = match &other {
                Some(_) => folder,
                // A storage takes paths without links and dots.
                None => folder
                    .canonicalize()
                    .map_err(|e| Failure::Usage(format!("cannot read {}: {e}", folder.display())))?,
            };
            let storage = other.clone().unwrap_or_else(|| Arc::new(Local::new("/")));
            let path = within(storage, &folder)?.path;
            // A folder that is named twice is one.
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        Ok((other.unwrap_or_else(|| Arc::new(Local::new("/"))), paths))
    }
}

/// A folder or a file in a storage.
pub(super) fn within(storage: Arc<dyn Storage>, path: &Path) -> Result<Place, Failure> {
    let text = path.to_str().ok_or_else(|| Failure::Usage(format!("{} is not UTF-8", path.display())))?;
    let path = match text {
        "." | "/" => ObjectPath::root(),
        text => ObjectPath::new(text.trim_matches('/')).map_err(Failure::usage)?,
    };
    let name = if path.is_root() { storage.describe() } else { format!("{}/{path}", storage.describe()) };
    Ok(Place { storage, path, name })
}
