//! manifest.json: what a run wrote, and the proof that it is still there as it was written.
//!
//! It stands beside metadata.yaml, which names its hash. It ends with a checksum of its own text, and before that with a
//! message authentication code where the backup is encrypted; so neither needs a canonical form of JSON.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use abs_asb::EncryptionKey;
use abs_storage::{ByteRange, ObjectInfo, ObjectPath, Storage};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::folder::{join, place};
use crate::keys::KeyRing;
use crate::metadata::{METADATA_FILE, Metadata};
use crate::sums::{ChunkCheck, FileSums, hex};

/// The name of the file.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";

/// The version of the format that is written. Readers refuse a later one.
pub(crate) const FORMAT: u32 = 1;

/// The largest manifest that is read, in bytes: 10,000 files take 3 MB at most.
const LIMIT: usize = 256 << 20;

/// With more checksums than this (of 16 GiB) they go into objects beside the manifest.
const MOST_INLINE: usize = 16 << 10;
/// Checksums in one of those objects, at most, unless one file has more: those of 1 TiB.
const PER_OBJECT: usize = 1 << 20;

/// The label from which the key of the authentication code is derived.
const MAC_LABEL: &str = "abs manifest";

/// What a run wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Manifest {
    pub format: u32,
    /// The id of the run, 32 hexadecimal digits, of no other.
    pub run: String,
    /// What made it.
    pub service: String,
    /// The metadata.yaml beside it, but for its last line, which names the manifest.
    pub metadata: String,
    /// The `.asb` files, by name.
    pub files: Vec<FileEntry>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    /// Its name in the folder of the backup.
    pub name: String,
    /// Its bytes on storage.
    pub size: u64,
    /// Its records.
    pub records: u64,
    pub sums: Sums,
    /// The hash of its bytes as `algorithm:hex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// The CRC-32C of each chunk of a file, 4 bytes each, little-endian.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Sums {
    /// In base64.
    Inline(String),
    /// In an object beside the manifest.
    Beside {
        /// The number of the object.
        object: u32,
        /// Where they begin in it, in bytes.
        offset: u64,
        /// Their number.
        count: u32,
        /// The CRC-32C of their bytes.
        crc: u32,
    },
}

impl FileEntry {
    pub(crate) fn new(name: String, size: u64, records: u64, sums: FileSums) -> Self {
        let FileSums { chunks, hash } = sums;
        Self { name, size, records, sums: Sums::Inline(encode(&chunks)), hash }
    }

    /// The check of the chunks of this file, which lies in `folder`.
    pub(crate) async fn check(
        &self,
        storage: &dyn Storage,
        folder: &ObjectPath,
    ) -> Result<ChunkCheck, EngineError> {
        let manifest = || place(storage, &folder.join(MANIFEST_FILE).unwrap_or_else(|_| folder.clone()));
        let damaged = |file, what: &str| EngineError::Damaged { file, what: what.to_owned() };
        let chunks = match &self.sums {
            Sums::Inline(text) => {
                decode(text).ok_or_else(|| damaged(manifest(), "a checksum cannot be read"))
            }
            &Sums::Beside { object, offset, count, crc } => {
                let path = join(folder, &side_object(object))?;
                let length = u64::from(count) * 4;
                let mut reader = storage.open(&path, ByteRange::from(offset..offset + length)).await?;
                let mut bytes = Vec::with_capacity(length as usize);
                while (bytes.len() as u64) < length {
                    let missing = length as usize - bytes.len();
                    if reader.read(&mut bytes, missing).await? == 0 {
                        break;
                    }
                }
                let is_whole = bytes.len() as u64 == length && crc32c::crc32c(&bytes) == crc;
                words(&bytes).filter(|_| is_whole).ok_or_else(|| {
                    damaged(place(storage, &path), "its checksums are not those that were written")
                })
            }
        }?;
        Ok(ChunkCheck::new(chunks, self.size))
    }
}

impl Manifest {
    /// The manifest of a run that is done. More checksums than it should hold are taken out, and returned as objects to be
    /// stored beside it.
    pub(crate) fn new(
        run: String,
        metadata: String,
        mut files: Vec<FileEntry>,
    ) -> (Self, Vec<(String, Vec<u8>)>) {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let beside = move_sums(&mut files);
        let service = concat!("abs ", env!("CARGO_PKG_VERSION")).to_owned();
        (Self { format: FORMAT, run, service, metadata, files }, beside)
    }

    /// Reads the text of a file; says what is wrong with it.
    pub(crate) fn open(text: &[u8]) -> Result<Self, String> {
        let manifest: Self = open(text, None)?;
        if manifest.format > FORMAT {
            return Err(format!("it has format {}, and this version reads up to {FORMAT}", manifest.format));
        }
        Ok(manifest)
    }

    /// Reads and checks the manifest of the backup whose metadata.yaml, `text`, lies in `folder`. None for a backup without:
    /// of an older version, or of another tool. `is_there` says whether there is one in the folder.
    pub(crate) async fn read(
        storage: &dyn Storage,
        folder: &ObjectPath,
        text: &[u8],
        metadata: &Metadata,
        is_there: bool,
        keys: &KeyRing,
    ) -> Result<Option<Proof>, EngineError> {
        let path = join(folder, MANIFEST_FILE)?;
        let damaged =
            |path, what: &str| EngineError::Damaged { file: place(storage, path), what: what.to_owned() };
        let yaml = join(folder, METADATA_FILE)?;
        let Some(named) = &metadata.manifest_hash else {
            return if is_there {
                Err(damaged(
                    &yaml,
                    "it does not name the manifest.json beside it: it was replaced or changed",
                ))
            } else {
                Ok(None)
            };
        };
        if !is_there {
            return Err(damaged(&path, "it is gone, although metadata.yaml names it"));
        }
        let sealed = storage.get(&path, LIMIT).await?;
        let manifest = Self::open(&sealed).map_err(|what| damaged(&path, &what))?;
        if text != Self::metadata_text(&manifest.metadata, &sealed).as_bytes() {
            return Err(if *named == hash(&sealed) {
                damaged(&yaml, "it differs from what manifest.json says of it")
            } else {
                damaged(
                    &path,
                    "it is not the one that metadata.yaml names: one of the two was replaced or changed",
                )
            });
        }
        let key = keys.of(metadata.encryption_key.as_deref());
        let authentic = key.map_or(Ok(()), |key| authenticate(&sealed, key));
        Ok(Some(Proof { manifest, authentic: authentic.map_err(|what| damaged(&path, &what)) }))
    }

    /// The metadata.yaml that belongs to this text of a manifest.
    pub(crate) fn metadata_text(metadata: &str, sealed: &[u8]) -> String {
        format!("{metadata}manifest-hash: {}\n", hash(sealed))
    }

    /// Compares the `.asb` files of `folder` with the manifest. Returns them with their entries, and what is wrong: files
    /// that are missing, have another size, or do not belong to the backup. A file that is not in the manifest is left out.
    /// `key_id` is that of the backup.
    pub(crate) fn compare(
        self,
        storage: &dyn Storage,
        folder: &ObjectPath,
        found: Vec<ObjectInfo>,
        key_id: Option<String>,
    ) -> (Vec<BackupFile>, Vec<EngineError>) {
        let origin = Arc::new(BackupOrigin { run: Some(self.run), key_id });
        let mut entries: HashMap<_, _> =
            self.files.into_iter().map(|entry| (entry.name.clone(), Arc::new(entry))).collect();
        let (mut files, mut wrong) = (Vec::new(), Vec::new());
        let mut complain = |path: &ObjectPath, what| {
            wrong.push(EngineError::Damaged { file: place(storage, path), what });
        };
        for info in found {
            match info.path.below(folder).and_then(|name| entries.remove(name)) {
                None => complain(
                    &info.path,
                    "it does not belong to the backup: manifest.json has no such file".to_owned(),
                ),
                Some(entry) => {
                    if entry.size != info.size {
                        complain(&info.path, format!("it has {} bytes instead of {}", info.size, entry.size));
                    }
                    files.push(BackupFile { info, entry: Some(entry), origin: Arc::clone(&origin) });
                }
            }
        }
        let mut gone: Vec<_> = entries.into_values().map(|entry| entry.name.clone()).collect();
        gone.sort_unstable();
        for name in gone {
            let path = folder.join(&name).unwrap_or_else(|_| folder.clone());
            complain(&path, "it is gone".to_owned());
        }
        (files, wrong)
    }
}

/// A manifest that was read and agrees with its metadata.yaml.
pub(crate) struct Proof {
    pub manifest: Manifest,
    /// Whether its authentication code is right. What a wrong key is told in the files says more, so they are read first.
    pub authentic: Result<(), EngineError>,
}

/// A file of a backup: what the storage says, and what the manifest does, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct BackupFile {
    pub info: ObjectInfo,
    pub entry: Option<Arc<FileEntry>>,
    pub origin: Arc<BackupOrigin>,
}

/// What a backup says of how its files came about.
#[derive(Debug, Default)]
pub(crate) struct BackupOrigin {
    /// The id of the run, which only a manifest says.
    pub run: Option<String>,
    /// The id of the key, if metadata.yaml says it.
    pub key_id: Option<String>,
}

impl From<ObjectInfo> for BackupFile {
    fn from(info: ObjectInfo) -> Self {
        Self { info, entry: None, origin: Arc::default() }
    }
}

/// A document, which must have a member, as the text of an object that ends with its checksum, and before that with its
/// authentication code if there is a key.
///
/// # Errors
/// It cannot be written as JSON.
pub fn seal<T: Serialize>(document: &T, key: Option<&EncryptionKey>) -> Result<String, EngineError> {
    let text = serde_json::to_string(document);
    let mut text = text.map_err(|e| EngineError::Plan(format!("{MANIFEST_FILE}: {e}")))?;
    text.pop();
    if let Some(key) = key {
        let mac = key.mac(MAC_LABEL, text.as_bytes());
        let _ = write!(text, "{MAC}{}\"", hex(&mac));
    }
    let checksum = hash(text.as_bytes());
    let _ = writeln!(text, "{CHECKSUM}{checksum}\"}}");
    Ok(text)
}

/// Reads the text of an object that [`seal`] made. With a key its authentication code is checked, too.
///
/// # Errors
/// What is wrong with it.
pub fn open<T: DeserializeOwned>(text: &[u8], key: Option<&EncryptionKey>) -> Result<T, String> {
    let (body, checksum) = split(text).ok_or("it is not whole")?;
    if checksum.strip_suffix("\"}\n") != Some(&hash(body.as_bytes())) {
        return Err("its checksum differs".to_owned());
    }
    if let Some(key) = key {
        authenticate(text, key)?;
    }
    serde_json::from_slice(text).map_err(|e| e.to_string())
}

/// Says what is wrong with the authentication code of a text, by the key of the backup.
fn authenticate(text: &[u8], key: &EncryptionKey) -> Result<(), String> {
    let parts = split(text).and_then(|(body, _)| body.rsplit_once(MAC));
    let parts = parts.and_then(|(body, mac)| Some((body, mac.strip_suffix('"')?)));
    let (body, mac) = parts.ok_or("it has no authentication code, although a key is given")?;
    if key.verifies(MAC_LABEL, body.as_bytes(), mac) {
        Ok(())
    } else {
        Err("it was changed, or made with another key".to_owned())
    }
}

/// What the checksum covers, and the rest.
fn split(text: &[u8]) -> Option<(&str, &str)> {
    str::from_utf8(text).ok()?.rsplit_once(CHECKSUM)
}

const CHECKSUM: &str = ",\"checksum\":\"";
const MAC: &str = ",\"mac\":\"";

/// The BLAKE3 hash of a small text, in hexadecimal digits.
fn hash(text: &[u8]) -> String {
    blake3::hash(text).to_hex().to_string()
}

/// The name of an object of checksums.
fn side_object(number: u32) -> String {
    format!("manifest-{number}.sums")
}

/// Whether an object of this name is the manifest of a backup, or holds its checksums.
pub(crate) fn is_manifest(name: &str) -> bool {
    let side_object = || name.strip_prefix("manifest-")?.strip_suffix(".sums");
    name == MANIFEST_FILE || side_object().is_some()
}

/// Takes the checksums out of the entries when they are many: the objects that hold them, with their names.
fn move_sums(files: &mut [FileEntry]) -> Vec<(String, Vec<u8>)> {
    let chunks = files.iter().map(|file| file.size.div_ceil(crate::sums::CHUNK as u64)).sum::<u64>();
    let mut objects: Vec<(String, Vec<u8>)> = Vec::new();
    if chunks <= MOST_INLINE as u64 {
        return objects;
    }
    for file in files {
        let Sums::Inline(text) = &file.sums else { continue };
        let Some(sums) = decode(text) else { continue };
        let is_full = |bytes: &Vec<u8>| bytes.len() / 4 + sums.len() > PER_OBJECT;
        if objects.last().is_none_or(|(_, bytes)| is_full(bytes)) {
            objects.push((side_object(objects.len() as u32 + 1), Vec::new()));
        }
        let object = objects.len() as u32;
        let Some((_, bytes)) = objects.last_mut() else { continue };
        let offset = bytes.len();
        bytes.extend(sums.iter().flat_map(|sum| sum.to_le_bytes()));
        file.sums = Sums::Beside {
            object,
            offset: offset as u64,
            count: sums.len() as u32,
            crc: crc32c::crc32c(&bytes[offset..]),
        };
    }
    objects
}

fn encode(sums: &[u32]) -> String {
    let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
    base64_simd::STANDARD.encode_to_string(bytes)
}

fn decode(text: &str) -> Option<Vec<u32>> {
    words(&base64_simd::STANDARD.decode_to_vec(text).ok()?)
}

fn words(bytes: &[u8]) -> Option<Vec<u32>> {
    let (words, rest) = bytes.as_chunks();
    rest.is_empty().then(|| words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

#[cfg(test)]
mod tests {
    use abs_asb::Cipher;
    use abs_storage::Local;

    use super::*;
    use crate::sums::{CHUNK, Summer};

    fn key(cipher: Cipher) -> EncryptionKey {
        EncryptionKey::from_pem_or_base64(include_str!("../../tests/golden/test-key.b64"), cipher).unwrap()
    }

    fn entry(number: usize, chunks: usize) -> FileEntry {
        let chunks: Vec<_> = (0..chunks as u32).map(|chunk| chunk.wrapping_mul(0x9e37_79b9)).collect();
        let size = (chunks.len() * CHUNK) as u64;
        let hash = Some(format!("blake3:{}", blake3::hash(&number.to_le_bytes()).to_hex()));
        FileEntry::new(format!("7_namespace_{number}.asb"), size, 1_000_000, FileSums { chunks, hash })
    }

    /// Protects: the text is found to be another one, whatever of it was changed, with a key also by those who know how the
    /// checksum is made.
    #[test]
    fn a_changed_text_is_found() {
        let (manifest, beside) = Manifest::new("00".repeat(16), "a: b\n".to_owned(), vec![entry(1, 3)]);
        assert!(beside.is_empty());
        for key in [None, Some(key(Cipher::Aes128))] {
            let text = seal(&manifest, key.as_ref()).unwrap();
            assert_eq!(open::<Manifest>(text.as_bytes(), key.as_ref()).unwrap(), manifest);
            for bit in 0..text.len() * 8 {
                let mut changed = text.clone().into_bytes();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(open::<Manifest>(&changed, None).is_err(), "bit {bit}");
            }
            for end in 0..text.len() {
                assert!(open::<Manifest>(&text.as_bytes()[..end], None).is_err(), "{end}");
            }
        }
        let (right, wrong) = (key(Cipher::Aes128), key(Cipher::Aes256));
        let text = seal(&manifest, Some(&right)).unwrap();
        assert_eq!(authenticate(text.as_bytes(), &right), Ok(()));
        assert!(authenticate(text.as_bytes(), &wrong).unwrap_err().contains("another key"));
        let forged = seal(&Manifest { run: "11".repeat(16), ..manifest.clone() }, Some(&wrong)).unwrap();
        assert!(open::<Manifest>(forged.as_bytes(), Some(&right)).is_err());
        let stripped = seal(&manifest, None).unwrap();
        assert!(authenticate(stripped.as_bytes(), &right).unwrap_err().contains("no authentication code"));
        let later = seal(&Manifest { format: FORMAT + 1, ..manifest }, None).unwrap();
        assert!(Manifest::open(later.as_bytes()).unwrap_err().contains("has format 2"));
    }

    /// Protects: the manifest of many files stays small, and the checksums beside it are those of each file.
    #[tokio::test]
    async fn the_checksums_of_many_files_are_beside_the_manifest() {
        let files: Vec<_> = (0..10_000).map(|number| entry(number, 250)).collect();
        let (manifest, beside) = Manifest::new("00".repeat(16), String::new(), files);
        assert!(seal(&manifest, Some(&key(Cipher::Aes256))).unwrap().len() <= 3_000_000);
        assert_eq!(beside.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), 10_000 * 250 * 4);
        assert!(beside.len() > 1 && beside.iter().all(|(_, bytes)| bytes.len() <= PER_OBJECT * 4));
        let place = tempfile::tempdir().unwrap();
        let storage = Local::new(place.path());
        for (name, bytes) in &beside {
            std::fs::write(place.path().join(name), bytes).unwrap();
        }
        let zeros = vec![0; CHUNK];
        for file in [&manifest.files[0], &manifest.files[9_999]] {
            let mut check = file.check(&storage, &ObjectPath::root()).await.unwrap();
            let error = check.check(&zeros, "f").unwrap_err();
            assert!(error.to_string().contains("bytes 0 to 1048575"), "{error}");
        }
        let (name, bytes) = &beside[0];
        let mut bytes = bytes.clone();
        bytes[3] ^= 1;
        std::fs::write(place.path().join(name), bytes).unwrap();
        let error = manifest.files[0].check(&storage, &ObjectPath::root()).await.unwrap_err();
        assert!(error.to_string().contains("manifest-1.sums: damaged"), "{error}");

        let mut summer = Summer::new(abs_config::FileHash::None);
        summer.update(&zeros);
        let small = FileEntry::new("f".to_owned(), CHUNK as u64, 1, summer.finish());
        let mut check = small.check(&storage, &ObjectPath::root()).await.unwrap();
        check.check(&zeros, "f").unwrap();
    }
}
