//! The files that asbackup 4.5.8 wrote, in all six forms: every record is read, and written again as it was.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "of interest here is only how it writes a record")]
mod agree;

use std::{collections::BTreeSet, fs, path::PathBuf};

use abs_asb::{
    Cipher, Decompressor, Decryptor, ENCRYPTION_HEAD, Encoder, EncryptionKey, Header, Item, Items, Position,
    Skimmer, Version,
};

const NAMESPACE: &str = "source-ns1";
const RECORDS: usize = 2064;
const INDEXES: usize = 8;

fn golden(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../tests/golden", path].iter().collect()
}

/// The texts of a form's files.
fn texts(form: &str) -> Vec<Vec<u8>> {
    let files: BTreeSet<_> =
        fs::read_dir(golden("asb").join(form)).unwrap().map(|entry| entry.unwrap().path()).collect();
    let texts: Vec<_> = files.into_iter().map(|file| open(form, &fs::read(file).unwrap())).collect();
    assert_eq!(texts.len(), 2);
    texts
}

fn open(form: &str, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let cipher = match form.rsplit('-').next() {
        Some("aes128") => Some(Cipher::Aes128),
        Some("aes256") => Some(Cipher::Aes256),
        _ => None,
    };
    if let Some(cipher) = cipher {
        let key = fs::read_to_string(golden("test-key.b64")).unwrap();
        let key = EncryptionKey::from_pem_or_base64(&key, cipher).unwrap();
        let head = *bytes.first_chunk().unwrap();
        bytes.drain(..ENCRYPTION_HEAD);
        Decryptor::ctr(&key, head).unwrap().decrypt(&mut bytes, 0, true).unwrap();
    }
    if form.starts_with("zstd") {
        let mut decompressor = Decompressor::new().unwrap();
        let mut text = Vec::new();
        let mut at = 0;
        // Odd pieces and little room, so that both ends are met in the middle of something.
        loop {
            let before = text.len();
            let end = bytes.len().min(at + 1777);
            at += decompressor.step(&bytes[at..end], &mut text, 1000).unwrap();
            if at == bytes.len() && text.len() < before + 1000 {
                break;
            }
        }
        assert!(decompressor.finished());
        return text;
    }
    bytes
}

/// What a file holds, written again: the header, the global lines, the records.
struct Rewritten {
    text: Vec<u8>,
    globals: Vec<Vec<u8>>,
    records: Vec<Vec<u8>>,
}

/// Reads a text in pieces of `piece` bytes and writes everything again.
fn rewrite(text: &[u8], compact: bool, piece: usize) -> Rewritten {
    let (header, len, lines) = Header::parse(text, false).unwrap().unwrap();
    assert_eq!((header.version, header.namespace.as_slice()), (Version::V3_1, NAMESPACE.as_bytes()));
    let encoder = Encoder::new(NAMESPACE, compact);
    let mut out = Rewritten { text: Vec::new(), globals: Vec::new(), records: Vec::new() };
    encoder.header(header.version, header.first_file, &mut out.text);
    let mut skimmer = Skimmer::new(Position { line: 1 + lines, offset: len as u64 });
    let (mut start, mut end) = (len, len);
    loop {
        let position = skimmer.position();
        let skim = skimmer.skim(&text[start..end]).unwrap();
        assert!(skim.need > end - start - skim.len);
        let mut items = Items::new(&text[start..start + skim.len], position);
        let mut count = 0;
        while let Some(item) = items.next().unwrap() {
            let mut again = Vec::new();
            count += 1;
            match item {
                Item::Record(mut record) => {
                    agree::append(&mut record, &encoder, &mut again).unwrap();
                    out.records.push(again);
                    out.text.extend_from_slice(out.records.last().unwrap());
                }
                Item::Index(index) => {
                    encoder.index(&index, &mut again);
                    out.text.extend_from_slice(&again);
                    out.globals.push(again);
                }
                Item::Udf(udf) => {
                    encoder.udf(&udf, &mut again);
                    out.text.extend_from_slice(&again);
                    out.globals.push(again);
                }
            }
        }
        assert_eq!(count, skim.items);
        start += skim.len;
        if end == text.len() {
            skimmer.finish(&text[start..]).unwrap();
            assert_eq!(skimmer.position().offset as usize, text.len());
            assert_eq!(skimmer.position().line as usize, text.split(|&byte| byte == b'\n').count());
            return out;
        }
        end = text.len().min(end + piece);
    }
}

/// Everything of a form, written plain: whatever its file and place.
fn all(form: &str) -> (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>) {
    let mut globals = BTreeSet::new();
    let mut records = BTreeSet::new();
    for text in texts(form) {
        let again = rewrite(&text, false, 64 << 10);
        globals.extend(again.globals);
        records.extend(again.records);
    }
    (globals, records)
}

#[test]
fn plain_and_compact_come_back_byte_for_byte() {
    for (form, compact) in [
        ("plain", false),
        ("compact", true),
        ("zstd", false),
        ("aes128", false),
        ("aes256", false),
        ("zstd-aes256", false),
    ] {
        for text in texts(form) {
            for piece in [4093, 1 << 20] {
                let again = rewrite(&text, compact, piece);
                assert!(again.text == text, "{form}");
            }
        }
    }
}

#[test]
fn all_forms_hold_the_same() {
    let plain = all("plain");
    assert_eq!((plain.0.len(), plain.1.len()), (INDEXES + 1, RECORDS));
    for form in ["compact", "zstd", "aes128", "aes256", "zstd-aes256"] {
        assert!(all(form) == plain, "{form}");
    }
}
