//! Authenticated encryption as an independent implementation has it: Python's `cryptography`, by `python/gcm.py`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use abs_asb::{Cipher, Decryptor, EncryptionKey, FileOrigin, FrameWriter, GcmHead};

/// The AES key of `test-key.b64`, as docs/FORMAT.md has it.
const KEY: &str = "f7d7f98079cf84cea99a3b49c977f7c6fb9bd211e5ae87e0fb857a2ce3b31493";
const SALT: &str = "ff102030405060708090a0b0c0d0e0f000112233445566778899aabbccddeeff";
const ORIGIN: FileOrigin<'static> =
    FileOrigin { run: "e4c83a2b0f0b5c5f3d0a7c1e9b7d6f42", name: "7_ü_1.asb" };

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// What `gcm.py` makes of these bytes.
fn python(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let python = std::env::var("ABS_TEST_PYTHON")
        .unwrap_or_else(|_| workspace(".venv/bin/python").to_string_lossy().into_owned());
    let mut command = Command::new(&python);
    command.arg(workspace("asb/tests/python/gcm.py")).args(arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{python}: {e}; scripts/test sets up Python"));
    // It reads all of it before it writes.
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    output.stdout
}

fn key(cipher: Cipher) -> EncryptionKey {
    let text = std::fs::read_to_string(workspace("tests/golden/test-key.b64")).unwrap();
    EncryptionKey::from_pem_or_base64(&text, cipher).unwrap()
}

/// Protects: the test vector of docs/FORMAT.md. `asb/src/gcm.rs` compares it with what we write.
#[test]
fn the_documentation_is_right() {
    python(&["check", workspace("docs/FORMAT.md").to_str().unwrap()], &[]);
}

/// Protects: what one implementation writes the other reads, for texts that end before, at and behind the end of a chunk.
#[test]
fn another_implementation_reads_and_writes_the_same() {
    for (cipher, digits) in [(Cipher::Aes128Gcm, 32), (Cipher::Aes256Gcm, 64)] {
        let (key, digits) = (key(cipher), &KEY[..digits]);
        for length in [0, 65_535, 65_536, 65_537, 200_000] {
            let text: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut writer = FrameWriter::new(None, Some(&key), ORIGIN).unwrap();
            let mut ours = text.clone();
            writer.seal(&mut ours).unwrap();
            writer.finish(&mut ours).unwrap();
            assert!(python(&["open", digits], &ours) == text, "{cipher}, {length}");

            let mut theirs = python(&["seal", digits, SALT, ORIGIN.run, ORIGIN.name], &text);
            let head = GcmHead::parse(&theirs).unwrap().unwrap();
            assert_eq!((&*head.run, &*head.name, &head.key_id), (ORIGIN.run, ORIGIN.name, &key.id()));
            theirs.drain(..head.length());
            Decryptor::gcm(&key, head).unwrap().decrypt(&mut theirs, 0, true).unwrap();
            assert!(theirs == text, "{cipher}, {length}");
        }
    }
}
