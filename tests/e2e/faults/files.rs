//! Files that are not what they were, or never were what they should be.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use abs_asb::{Cipher, ENCRYPTION_HEAD, EncryptionKey, FileOrigin, FrameWriter};
use abs_engine::{BackupPlan, EngineError, PartitionChoice, RestorePlan};

use super::{Numbers, RestoreFailed, adds_up, backup, empty, plan_backup, plan_restore, restore};
use crate::support::{Dump, Server, golden, remove_manifest};

/// The partitions whose golden records the backups here have.
const PARTITIONS: std::ops::Range<u16> = 0..160;

/// A way to pack the files of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Compact,
    Zstd,
    Aes128,
    ZstdAes256,
    Aes128Gcm,
    ZstdAes256Gcm,
}

const FORMS: [Form; 7] = [
    Form::Plain,
    Form::Compact,
    Form::Zstd,
    Form::Aes128,
    Form::ZstdAes256,
    Form::Aes128Gcm,
    Form::ZstdAes256Gcm,
];

impl Form {
    fn key(self) -> Option<EncryptionKey> {
        let cipher = match self {
            Self::Aes128 => Cipher::Aes128,
            Self::ZstdAes256 => Cipher::Aes256,
            Self::Aes128Gcm => Cipher::Aes128Gcm,
            Self::ZstdAes256Gcm => Cipher::Aes256Gcm,
            _ => return None,
        };
        let text = std::fs::read_to_string(golden().join("test-key.b64")).unwrap();
        Some(EncryptionKey::from_pem_or_base64(&text, cipher).unwrap())
    }

    fn is_compressed(self) -> bool {
        matches!(self, Self::Zstd | Self::ZstdAes256 | Self::ZstdAes256Gcm)
    }

    fn is_authenticated(self) -> bool {
        matches!(self, Self::Aes128Gcm | Self::ZstdAes256Gcm)
    }
}

/// A server, and a small backup of golden data (all types of bins, keys and definitions) in each form, made once.
struct Originals {
    server: Server,
    folder: tempfile::TempDir,
}

impl Originals {
    fn make() -> Self {
        let server = Server::embedded(1);
        server.restore("source-ns1", &golden().join("asb/plain"), &[]).ok();
        let folder = tempfile::tempdir().unwrap();
        for form in FORMS {
            let plan = BackupPlan {
                partitions: PartitionChoice::Partitions(PARTITIONS.collect()),
                no_indexes: false,
                no_udfs: false,
                compact: form == Form::Compact,
                compression: form.is_compressed().then_some(3),
                encryption: form.key(),
                parallel_write: 1,
                ..plan_backup(&server)
            };
            let folder = folder.path().join(format!("{form:?}"));
            backup(&server, &folder, &plan, async |_| {}).unwrap();
            // What its checksums find is another test's subject.
            remove_manifest(&folder);
        }
        Self { server, folder }
    }

    fn at(&self, form: Form) -> PathBuf {
        self.folder.path().join(format!("{form:?}"))
    }

    /// The .asb files of a form.
    fn files(&self, form: Form) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.at(form)).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "asb")).collect();
        files.sort();
        assert_eq!(files.len(), 2);
        files
    }

    /// Restores the form's backup with `damaged` in place of one of its files.
    fn restore_damaged(&self, form: Form, file: &Path, damaged: &[u8]) -> Result<(), RestoreFailed> {
        let original = std::fs::read(file).unwrap();
        std::fs::write(file, damaged).unwrap();
        let plan = RestorePlan {
            encryption: form.key().into(),
            parallel: 3,
            no_generation: true,
            ..plan_restore(&self.server)
        };
        let (result, counts) = restore(&self.server, &self.at(form), &plan);
        std::fs::write(file, original).unwrap();
        if result.is_ok() {
            adds_up(&counts);
        }
        result.map(drop)
    }

    /// Whether a damage that is no error makes no difference.
    fn restores_all_the_same(&self, form: Form, file: &Path, damaged: &[u8]) -> bool {
        empty(&self.server);
        self.restore_damaged(form, file, damaged).unwrap();
        let again = tempfile::tempdir().unwrap();
        let partitions = PartitionChoice::Partitions(PARTITIONS.collect());
        let plan = BackupPlan { partitions, ..plan_backup(&self.server) };
        backup(&self.server, again.path(), &plan, async |_| {}).unwrap();
        let original = Dump::read(&self.at(Form::Plain)).restored();
        Dump::read(again.path()).restored().records == original.records
    }
}

/// Insists on an error that says where: in a file, with line and column if it is about the text; or that the folder as a
/// whole is not.
#[track_caller]
fn names_the_place(error: &EngineError, file: &Path, what: &str) {
    let (text, name) = (error.to_string(), file.file_name().unwrap().to_str().unwrap());
    let placed = match error {
        EngineError::File(_) => text.starts_with(&format!("{name}: line ")) && text.contains(", column "),
        EngineError::Frame { .. } | EngineError::BadFile { .. } | EngineError::Damaged { .. } => {
            text.starts_with(&format!("{name}: "))
        }
        EngineError::NotWhole { .. } => true,
        _ => false,
    };
    assert!(placed && !text.contains('\n'), "{what}: {text}");
}

fn truncations(form: Form) {
    let originals = Originals::make();
    let mut numbers = Numbers(5);
    for file in originals.files(form) {
        let whole = std::fs::read(&file).unwrap();
        let len = whole.len() as u64;
        let places =
            (0..90.min(len)).chain((0..50).map(|_| numbers.below(len))).chain(len.saturating_sub(20)..len);
        for at in places {
            let what = format!("{form:?} {}: {at} of {len} bytes", file.display());
            match originals.restore_damaged(form, &file, &whole[..at as usize]) {
                Ok(()) => panic!("{what}: restored as if it were whole"),
                Err(failed) => {
                    if let EngineError::File(error) = &*failed
                        && !form.is_compressed()
                    {
                        let head = if form == Form::Aes128 { ENCRYPTION_HEAD as u64 } else { 0 };
                        assert_eq!(error.error.offset, at - head, "{what}: {error}");
                    }
                    names_the_place(&failed, &file, &what);
                }
            }
        }
        originals.restore_damaged(form, &file, &whole).unwrap();
    }
}

/// A file that ends early is an error that says where, wherever it ends: at the end of a record too.
#[test]
fn a_truncated_plain_file_is_an_error_with_its_place() {
    truncations(Form::Plain);
    truncations(Form::Compact);
}

/// The same below a compression.
#[test]
fn a_truncated_compressed_file_is_an_error_with_its_place() {
    truncations(Form::Zstd);
}

/// The same below an encryption.
#[test]
fn a_truncated_encrypted_file_is_an_error_with_its_place() {
    truncations(Form::Aes128);
    truncations(Form::ZstdAes256);
    truncations(Form::Aes128Gcm);
    truncations(Form::ZstdAes256Gcm);
}

fn flips(form: Form, count: u64) {
    let originals = Originals::make();
    let mut numbers = Numbers(6);
    let mut errors = 0;
    for file in originals.files(form) {
        let whole = std::fs::read(&file).unwrap();
        let len = whole.len() as u64;
        let mut places: Vec<_> = (0..60.min(len)).collect();
        places.extend((0..count).map(|_| numbers.below(len)));
        for at in places {
            let mut damaged = whole.clone();
            damaged[at as usize] ^= 1 << numbers.below(8);
            let what = format!("{form:?} {}: byte {at} of {len} flipped", file.display());
            match originals.restore_damaged(form, &file, &damaged) {
                // The text cannot show that a value is another one; the checksum of a compressed file can. A few of
                // zstd's own bits do not matter.
                Ok(()) => assert!(
                    !form.is_authenticated()
                        && (!form.is_compressed() || originals.restores_all_the_same(form, &file, &damaged)),
                    "{what}: restored"
                ),
                // Some values can be written, but not stored: the server says so of the record. Or of the definition.
                Err(failed) if matches!(*failed, EngineError::Row { .. } | EngineError::Cluster(_)) => {
                    assert!(!form.is_authenticated(), "{what}: used");
                    errors += 1;
                }
                Err(error) => {
                    names_the_place(&error, &file, &what);
                    errors += 1;
                }
            }
        }
    }
    assert!(errors > 60, "{errors} errors");
}

/// A byte that has changed is an error with its place or changes a value. It never stops the program or hangs it.
#[test]
fn a_flipped_byte_of_a_plain_file_is_an_error_or_another_value() {
    flips(Form::Plain, 150);
    flips(Form::Compact, 60);
}

/// Under a compression it is always an error: its checksum is looked at.
#[test]
fn a_flipped_byte_of_a_compressed_file_is_an_error() {
    flips(Form::Zstd, 150);
}

/// Under an encryption it is what it is without.
#[test]
fn a_flipped_byte_of_an_encrypted_file_is_an_error_or_another_value() {
    flips(Form::Aes128, 60);
    flips(Form::ZstdAes256, 80);
}

/// Under an authenticated encryption it is an error before anything is used.
#[test]
fn a_flipped_byte_of_an_authenticated_file_is_an_error() {
    flips(Form::Aes128Gcm, 60);
    flips(Form::ZstdAes256Gcm, 60);
}

/// Files that are something else are refused in one line that says which file and why, by the binary.
#[test]
fn foreign_files_are_refused_by_name() {
    let server = Server::embedded(1);
    let source = &server.namespace;
    let zstd = |text: &[u8]| {
        let origin = FileOrigin { run: "", name: "foreign.asb" };
        let mut writer = FrameWriter::new(Some(1), None, origin).unwrap();
        let mut bytes = text.to_vec();
        writer.seal(&mut bytes).unwrap();
        writer.finish(&mut bytes).unwrap();
        bytes
    };
    let header = format!("Version 3.1\n# namespace {source}\n");
    let record = |namespace: &str| {
        format!("{header}+ n {namespace}\n+ d AAAAAAAAAAAAAAAAAAAAAAAAAAA=\n+ g 1\n+ t 0\n+ b 1\n- I a 1\n")
    };
    let cases: [(&str, Vec<u8>, &[&str]); 13] = [
        ("empty", Vec::new(), &["the file is empty"]),
        ("json", br#"{"records": []}"#.to_vec(), &["not an .asb file"]),
        ("one letter", b"V".to_vec(), &["not an .asb file"]),
        ("noise", (0..=255).rev().collect(), &["not an .asb file"]),
        ("version", header.replace("3.1", "9.7").into_bytes(), &["line 1, column 9", "9.7", "3.1 and 3.2"]),
        ("no namespace", b"Version 3.1\n# nothing\n".to_vec(), &["line 2, column 4"]),
        ("half a header", b"Version 3.1\n# namespace".to_vec(), &["line 2, column 12"]),
        ("another line", format!("{header}hello\n").into_bytes(), &["line 3, column 1"]),
        ("crlf", record(source).replace('\n', "\r\n").into_bytes(), &["line 1, column 9", "3.1\\r"]),
        ("other namespace", record("other").into_bytes(), &["namespace \"other\"", "source-ns2"]),
        ("packed json", zstd(br#"{"records": []}"#), &["line 1, column 1"]),
        ("packed nothing", zstd(b""), &["line 1, column 1"]),
        ("half a record", record(source).as_bytes()[..90].to_vec(), &["line 6, column 2", "ends inside"]),
    ];
    for (name, content, parts) in cases {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("foreign.asb"), content).unwrap();
        let outcome = server.restore(source, folder.path(), &[]);
        let parts = [&["foreign.asb: "], parts].concat();
        println!("{name}: {}", outcome.stderr.trim());
        outcome.fails(1, &parts);
        assert_eq!(server.objects(), 0, "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.asb"), record(source)).unwrap();
    server.restore(source, folder.path(), &[]).ok();
    assert_eq!(server.objects(), 1);
}

/// A wrong key, no key, a key too many: one line that names the file and says so.
#[test]
fn a_wrong_or_missing_key_is_refused() {
    let server = Server::embedded(1);
    let key = golden().join("test-key.b64");
    let other = tempfile::NamedTempFile::new().unwrap();
    // Another key: the same modulus with a digit changed is a key as good as any.
    std::fs::write(other.path(), another_key(&key)).unwrap();
    let (key, other) = (key.to_str().unwrap(), other.path().to_str().unwrap());
    let with = |cipher, key| vec!["--encrypt", cipher, "--encryption-key-file", key];
    for (form, options, part) in [
        ("aes128", with("aes256gcm", key), "not encrypted as AES256GCM"),
        ("plain", with("aes128gcm", key), "not encrypted as AES128GCM"),
        ("aes128", with("aes128", other), "another key"),
        ("aes256", with("aes128", key), "another key"),
        ("zstd-aes256", with("aes256", other), "another key"),
        ("aes128", Vec::new(), "no key was given"),
        ("zstd-aes256", Vec::new(), "no key was given"),
        ("plain", with("aes128", key), "not at all"),
        ("zstd", with("aes256", key), "not at all"),
    ] {
        server
            .restore("source-ns1", &golden().join("asb").join(form), &options)
            .fails(1, &["source-ns1_0000", ".asb: ", part]);
    }
    assert_eq!(server.objects(), 0);
    for (options, part) in
        [(with("aes128", "/nowhere/key"), "/nowhere/key"), (with("aes128", file!()), "key")]
    {
        server.restore("source-ns1", &golden().join("asb/aes128"), &options).fails(2, &[part]);
    }
}

/// A base64 PKCS#8 key that differs from the one in the file in one byte of its numbers.
fn another_key(file: &Path) -> String {
    static CHANGED: OnceLock<String> = OnceLock::new();
    let change = || {
        let text = std::fs::read_to_string(file).unwrap();
        let at = text.len() / 2;
        let other = if &text[at..=at] == "A" { "B" } else { "A" };
        format!("{}{other}{}", &text[..at], &text[at + 1..])
    };
    CHANGED.get_or_init(change).clone()
}

/// A backup that lacks a file, has one too many, or whose metadata.yaml is damaged is not restored as if it were whole.
#[test]
fn a_backup_that_is_not_whole_is_an_error() {
    let originals = Originals::make();
    let (server, folder) = (&originals.server, originals.at(Form::Plain));
    let metadata = folder.join("metadata.yaml");
    let run = || server.restore(&server.namespace, &folder, &[]);
    run().ok();
    for file in originals.files(Form::Plain) {
        let away = folder.join("away");
        std::fs::rename(&file, &away).unwrap();
        run().fails(1, &["is not whole", "2 files"]);
        std::fs::rename(&away, &file).unwrap();
    }
    let extra = folder.join("extra.asb");
    std::fs::copy(&originals.files(Form::Plain)[0], &extra).unwrap();
    run().fails(1, &["is not whole", "3 files"]);
    std::fs::remove_file(&extra).unwrap();
    let text = std::fs::read_to_string(&metadata).unwrap();
    for bad in ["", "{", &text[..text.len() / 2], &text.replace("record-count", "records")] {
        std::fs::write(&metadata, bad).unwrap();
        run().fails(1, &["metadata.yaml"]);
    }
    std::fs::write(&metadata, text).unwrap();
    run().ok();
}

/// Damage in one of several files: the error names that one, and what the others held is restored.
#[test]
fn the_good_files_beside_a_damaged_one_are_restored() {
    let server = Server::embedded(1);
    super::Data { records: 2000, partitions: 500, size: 2000 }.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let plan = BackupPlan { parallel: 1, parallel_write: 1, file_limit: 1 << 20, ..plan_backup(&server) };
    backup(&server, folder.path(), &plan, async |_| {}).unwrap();
    assert_eq!(Dump::read(folder.path()).records.len(), 2000);
    remove_manifest(folder.path());
    let damaged = folder.path().join("0_source-ns2_2.asb");
    let mut text = std::fs::read(&damaged).unwrap();
    let end = text.len();
    text.truncate(end - 10);
    std::fs::write(&damaged, text).unwrap();
    empty(&server);
    let outcome = server.restore(&server.namespace, folder.path(), &["--parallel", "1"]);
    outcome.fails(1, &["0_source-ns2_2.asb: line ", ", column ", "until then"]);
    assert!((1..2000).contains(&server.objects()), "{}", server.objects());
}
