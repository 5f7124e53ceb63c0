//! Verifies backups: are they still as they were written? Writes nothing, and brings nothing back from an archive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use abs_storage::{ErrorKind, ObjectPath, Storage, StorageError};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;

use crate::catalog::listing::AT_ONCE;
use crate::error::EngineError;
use crate::files::{Described, Found, find};
use crate::folder::place;
use crate::inspect::{difference, differences, read_files};
use crate::keys::KeyRing;
use crate::manifest::{BackupFile, MANIFEST_FILE};
use crate::metadata::{METADATA_FILE, Metadata};
use crate::progress::RestoreProgress;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// Reads metadata.yaml and the manifest only: every file is there and has its size.
    Quick,
    /// Reads everything: checksums, hashes, every record, and their number.
    Full,
}

/// What became of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing is wrong.
    Whole,
    /// Not everything could be looked at; nothing is wrong with the rest.
    NotVerifiable,
    /// Something is wrong.
    Damaged,
}

/// A backup that was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifiedBackup {
    /// Its folder in the storage.
    pub folder: String,
    /// Its namespace, as its metadata.yaml says.
    pub namespace: Option<String>,
    /// It has no manifest, because another tool or an earlier version made it: only its structure can be checked.
    pub structure_only: bool,
    /// Files that were looked at.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that were read; `None` when the files were not.
    pub records: Option<u64>,
    /// What is wrong, one line each: one for each damaged file.
    pub problems: Vec<String>,
    /// What could not be looked at and why, one line each.
    pub obstacles: Vec<String>,
}

impl VerifiedBackup {
    /// Whether it is whole.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (&self.problems[..], &self.obstacles[..]) {
            ([], []) => Verdict::Whole,
            ([], _) => Verdict::NotVerifiable,
            _ => Verdict::Damaged,
        }
    }
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// How closely it looked.
    pub depth: Depth,
    /// The backups, by folder.
    pub backups: Vec<VerifiedBackup>,
    /// Folders beside them that a backup is being written to, or that an interrupted one left: no backups.
    pub unfinished: Vec<String>,
}

impl Verification {
    /// The worst of its backups.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.backups.iter().map(VerifiedBackup::verdict).max().unwrap_or(Verdict::NotVerifiable)
    }
}

/// Verifies every backup below `folder`. What is read is counted in `progress`.
///
/// # Errors
/// When there is no backup, or the storage cannot be listed.
pub async fn verify(
    storage: &Arc<dyn Storage>,
    folder: &ObjectPath,
    keys: &KeyRing,
    depth: Depth,
    progress: &Arc<RestoreProgress>,
) -> Result<Verification, EngineError> {
    let found = find(&**storage, folder).await?;
    let mut result = Verification { depth, backups: Vec::new(), unfinished: Vec::new() };
    if depth == Depth::Full {
        progress.total_bytes.fetch_add(found.files.iter().map(|file| file.size).sum(), Relaxed);
    }
    for (folder, found) in found.divide() {
        if found.is_unfinished() {
            result.unfinished.push(folder.to_string());
            continue;
        }
        let backup = VerifiedBackup { folder: folder.to_string(), ..VerifiedBackup::default() };
        let look = Look { storage, folder, keys, depth, progress, backup };
        result.backups.push(look.verify(found).await?);
    }
    Ok(result)
}

/// A look at one backup.
struct Look<'a> {
    storage: &'a Arc<dyn Storage>,
    folder: ObjectPath,
    keys: &'a KeyRing,
    depth: Depth,
    progress: &'a Arc<RestoreProgress>,
    /// What was found so far.
    backup: VerifiedBackup,
}

impl Look<'_> {
    async fn verify(mut self, found: Found) -> Result<VerifiedBackup, EngineError> {
        let has_metadata = !found.metadata.is_empty();
        let (metadata, mut files) = self.describe(found).await;
        self.set_archived_aside(&mut files);
        // That a file has another size has been said.
        files.retain(|file| file.entry.as_ref().is_none_or(|entry| entry.size == file.info.size));
        let differences = match self.depth {
            Depth::Quick => self.look_over(&files, metadata.as_ref()).await,
            Depth::Full => self.read(files, metadata.as_ref()).await?,
        };
        // A file that is damaged or was not read explains any difference.
        if self.backup.verdict() == Verdict::Whole {
            self.backup.problems = differences;
        }
        if has_metadata && self.backup.verdict() == Verdict::Damaged && self.is_deleted().await {
            self.backup.problems.clear();
            self.backup.obstacles = vec!["it was deleted while it was verified".to_owned()];
        }
        Ok(self.backup)
    }

    /// Notes an error: what it says is wrong, or what could not be looked at.
    fn note(&mut self, error: &EngineError) {
        let text = error.to_string();
        // Files are named by their paths in the storage.
        let root = place(&**self.storage, &ObjectPath::root());
        let line = text.strip_prefix(&root).map_or(&*text, |rest| rest.trim_start_matches('/')).to_owned();
        match error {
            EngineError::Storage(StorageError { kind: ErrorKind::Archived { tier }, place, .. }) => {
                self.backup.obstacles.push(format!("archived ({tier}): {place}"));
            }
            EngineError::Storage(e)
                if !matches!(
                    e.kind,
                    ErrorKind::NotFound | ErrorKind::Changed | ErrorKind::TooLarge { .. }
                ) =>
            {
                self.backup.obstacles.push(line);
            }
            _ => self.backup.problems.push(line),
        }
    }

    /// Reads the metadata.yaml and the manifest of the backup. Returns the files that are to be looked at.
    async fn describe(&mut self, found: Found) -> (Option<Metadata>, Vec<BackupFile>) {
        let bare = || found.files.iter().cloned().map(BackupFile::from).collect();
        let Some(object) = found.metadata.first() else {
            if found.has_lost_metadata() {
                let what = format!("it is gone, although there is a {MANIFEST_FILE}");
                let file = self.folder.join(METADATA_FILE).unwrap_or_else(|_| self.folder.clone());
                self.note(&EngineError::Damaged { file: file.to_string(), what });
            } else {
                self.backup.structure_only = true;
            }
            return (None, bare());
        };
        let described = match found.describe(&**self.storage, &object.path, self.keys).await {
            Ok(described) => described,
            Err(e) => {
                self.note(&e);
                return (None, bare());
            }
        };
        let Described { metadata, files, wrong, authentic, is_proven } = described;
        self.backup.namespace = Some(metadata.namespace.clone());
        self.backup.structure_only = !is_proven;
        for wrong in &wrong {
            self.note(wrong);
        }
        match self.check_key(&metadata) {
            None => {
                if let Err(e) = authentic {
                    self.note(&e);
                }
                (Some(metadata), files)
            }
            Some(why) => {
                self.backup.obstacles.push(why);
                (Some(metadata), Vec::new())
            }
        }
    }

    /// Why the backup cannot be read with the keys, as far as its metadata.yaml tells.
    fn check_key(&self, metadata: &Metadata) -> Option<String> {
        let is_plain = metadata.encryption.eq_ignore_ascii_case("NONE");
        let id = metadata.encryption_key.as_deref();
        match (self.keys.of(id), id) {
            (None, _) if is_plain || metadata.encryption.is_empty() || self.depth == Depth::Quick => None,
            (Some(_), _) if is_plain => Some("it is not encrypted, but a key was given".to_owned()),
            (_, Some(id)) if self.keys.find(id).is_none() => Some(format!("it is {}", self.keys.lack_of(id))),
            (None, _) => Some("it is encrypted, and no key was given".to_owned()),
            (Some(_), _) => None,
        }
    }

    /// Leaves out the files that lie in an archive.
    fn set_archived_aside(&mut self, files: &mut Vec<BackupFile>) {
        let mut archived: BTreeMap<String, u64> = BTreeMap::new();
        files.retain(|file| match &file.info.archived {
            None => true,
            Some(tier) => {
                *archived.entry(tier.clone()).or_default() += 1;
                false
            }
        });
        for (tier, count) in archived {
            self.backup.obstacles.push(format!("archived ({tier}): {count} of its .asb files"));
        }
    }

    /// Looks whether the checksums of the files are there, beside their sizes, and are those that the storage lists, if it does.
    /// Returns how the backup differs from its metadata.yaml.
    async fn look_over(&mut self, files: &[BackupFile], metadata: Option<&Metadata>) -> Vec<String> {
        let (storage, folder) = (&**self.storage, &self.folder);
        let check = async |file: &BackupFile| {
            let Some(entry) = &file.entry else { return Ok(()) };
            let check = entry.check(storage, folder).await?;
            match file.info.crc32c {
                Some(crc) if crc != check.of_file() => Err(EngineError::Damaged {
                    file: place(storage, &file.info.path),
                    what: "the storage has another checksum of it than the manifest".to_owned(),
                }),
                _ => Ok(()),
            }
        };
        let checks: Vec<_> = files.iter().map(check).collect();
        let checks: Vec<_> = stream::iter(checks).buffered(AT_ONCE).collect().await;
        let wrong: Vec<_> = checks.into_iter().filter_map(Result::err).collect();
        for e in &wrong {
            self.note(e);
        }
        self.backup.files = files.len() as u64;
        self.backup.bytes = files.iter().map(|file| file.info.size).sum();
        let Some(metadata) = metadata else { return Vec::new() };
        let differences = [
            difference("files", metadata.file_count, self.backup.files),
            difference("bytes", metadata.byte_count, self.backup.bytes),
        ];
        differences.into_iter().flatten().collect()
    }

    /// Reads the files. Returns how they differ from metadata.yaml.
    async fn read(
        &mut self,
        files: Vec<BackupFile>,
        metadata: Option<&Metadata>,
    ) -> Result<Vec<String>, EngineError> {
        let mut reports = Vec::new();
        for (report, read) in read_files(self.storage, files, self.keys, self.progress).await? {
            if let Err(e) = read {
                self.note(&e);
            }
            self.backup.files += 1;
            self.backup.bytes += report.bytes;
            reports.push(report);
        }
        self.backup.records = Some(reports.iter().flat_map(|report| report.records.values()).sum());
        Ok(metadata.map_or_else(Vec::new, |metadata| differences(metadata, &reports)))
    }

    /// Whether somebody has deleted the backup since it was found, metadata.yaml first.
    async fn is_deleted(&self) -> bool {
        let listing = self.storage.list(&self.folder, false).await;
        listing.is_ok_and(|found| found.objects.iter().all(|object| object.path.name() != METADATA_FILE))
    }
}
