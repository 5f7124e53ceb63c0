//! A folder of documents by number, on the disk of this machine: each a file of one line of JSON that ends with its checksum,
//! and is replaced as a whole.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::SystemTime;

use abs_engine::{seal, unseal};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How the names of documents end.
const EXTENSION: &str = "json";
/// How the names of those end that were not written to their end.
const UNFINISHED: &str = "tmp";
/// How the names of those end that could not be read.
const DAMAGED: &str = "json.damaged";

/// A folder of documents. It has one writer for each document at a time.
#[derive(Debug)]
pub(super) struct Documents {
    folder: PathBuf,
}

impl Documents {
    /// The documents in a folder, which is created with mode 0700 if need be; its parent must exist.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(Self { folder }),
        }
    }

    /// All documents by their numbers, each with what is wrong with it if it cannot be read. What was not written to its end is
    /// deleted.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn all<T: DeserializeOwned>(&self) -> io::Result<Vec<(u64, Result<T, String>)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            match (extension, number) {
                (Some(EXTENSION), Some(number)) => {
                    let text = fs::read(&path).map_err(|e| e.to_string());
                    let document = text.and_then(|text| unseal(&text, None));
                    all.push((number, document.map_err(|e| format!("{number}.{EXTENSION}: {e}"))));
                }
                (Some(UNFINISHED), Some(_)) => fs::remove_file(&path)?,
                _ => {}
            }
        }
        Ok(all)
    }

    /// Puts a document in the place of the one of this number; only its owner can read the file. It is on the disk when this
    /// returns. Blocks.
    ///
    /// # Errors
    /// When it cannot be written; then the one before is still there.
    pub(super) fn put<T: Serialize>(&self, number: u64, document: &T) -> io::Result<()> {
        let text = seal(document, None).map_err(io::Error::other)?;
        let unfinished = self.path(number, UNFINISHED);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, self.path(number, EXTENSION))?;
        File::open(&self.folder)?.sync_all()
    }

    /// Puts a document in the place of one that cannot be read, which is kept beside it. Blocks.
    ///
    /// # Errors
    /// When either cannot be written; then the one before is still there.
    pub(super) fn set_aside<T: Serialize>(&self, number: u64, document: &T) -> io::Result<()> {
        // A copy, so that a crash here leaves the number known.
        fs::copy(self.path(number, EXTENSION), self.path(number, DAMAGED))?;
        self.put(number, document)
    }

    /// When the document of this number was written. Blocks.
    ///
    /// # Errors
    /// When that is not known.
    pub(super) fn written(&self, number: u64) -> io::Result<SystemTime> {
        fs::metadata(self.path(number, EXTENSION))?.modified()
    }

    /// Deletes the document of this number, if there is one, and what was set aside for it. Blocks.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub(super) fn delete(&self, number: u64) -> io::Result<()> {
        for extension in [DAMAGED, EXTENSION] {
            match fs::remove_file(self.path(number, extension)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.folder.join(format!("{number}.{extension}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    /// Protects: a document is there whole or as it was before, only its owner can read it, and one that was damaged is told.
    #[test]
    fn documents_are_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("documents");
        let documents = Documents::open(place.clone()).unwrap();
        documents.put(7, &json!({"name": "seven"})).unwrap();
        documents.put(7, &json!({"name": "more"})).unwrap();
        documents.put(8, &json!({"name": "eight"})).unwrap();
        let file = place.join("7.json");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(place.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(place.join("9.tmp"), "{").unwrap();
        let read: Vec<_> = documents.all::<serde_json::Value>().unwrap();
        let name = |wanted| {
            let found = read.iter().find(|(number, _)| *number == wanted);
            found.map(|(_, document)| document.as_ref().unwrap()["name"].clone())
        };
        assert_eq!((read.len(), name(7), name(8)), (2, Some("more".into()), Some("eight".into())));
        assert!(!place.join("9.tmp").exists());
        documents.delete(8).unwrap();
        documents.delete(8).unwrap();
        fs::write(&file, fs::read_to_string(&file).unwrap().replace("more", "less")).unwrap();
        let all = documents.all::<serde_json::Value>().unwrap();
        let [(7, Err(error))] = &all[..] else { panic!("{all:?}") };
        assert_eq!(error, "7.json: its checksum differs");
    }
}
