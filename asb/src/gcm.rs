//! Authenticated encryption of a file: AES-GCM by chunks, in the STREAM construction.
//!
//! A file is its head and its chunks. Each chunk is sealed with the key of the file, its number, whether it is the last one,
//! and the head; so none can be changed, moved, left out or put into another file. docs/FORMAT.md has the bytes.

use std::mem;

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::key::id_text;
use crate::{Cipher, EncryptionKey, FrameError};

/// How a file begins that is encrypted with AES-GCM.
const MAGIC: &[u8; 8] = b"ABS-GCM1";
/// Bytes of text in a chunk; the last one may have fewer, and none in a file without text.
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;
/// Bytes of a whole chunk in the file.
const SEALED: usize = CHUNK + TAG;
const SALT: usize = 32;
/// Bytes of the head before the run's id.
const FIXED: usize = MAGIC.len() + 1 + 8 + SALT;

/// What a file is a part of: its contents cannot be passed off as those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileOrigin<'a> {
    /// The id of the run that writes it.
    pub run: &'a str,
    /// Its name in the folder of the backup.
    pub name: &'a str,
}

/// The head of a file, as it says of itself: it is only true when the first chunk can be opened.
#[derive(Debug)]
pub struct GcmHead {
    /// The id of the key that the file is encrypted with.
    pub key_id: String,
    /// The id of the run that wrote it.
    pub run: String,
    /// Its name in the folder of the backup.
    pub name: String,
    bytes: Vec<u8>,
}

impl GcmHead {
    /// Whether a file that begins with these bytes, of which 8 are enough, has such a head.
    #[must_use]
    pub fn begins(file: &[u8]) -> bool {
        file.starts_with(MAGIC)
    }

    /// Reads the head of a file that begins with these bytes; none when it goes on behind them.
    pub fn parse(file: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some((fixed, _)) = file.split_at_checked(FIXED) else { return Ok(None) };
        if ![16, 32].contains(&fixed[MAGIC.len()]) {
            return Err(FrameError::Head);
        }
        let key_id = fixed[MAGIC.len() + 1..].first_chunk().copied().map(id_text).ok_or(FrameError::Head)?;
        let Some((run, end)) = text_at(file, FIXED)? else { return Ok(None) };
        let Some((name, end)) = text_at(file, end)? else { return Ok(None) };
        Ok(Some(Self { key_id, run, name, bytes: file[..end].to_vec() }))
    }

    /// Its length in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.bytes.len()
    }
}

/// The head of a new file.
fn head(key: &EncryptionKey, salt: &[u8; SALT], origin: FileOrigin<'_>) -> Result<Vec<u8>, FrameError> {
    let mut head = [MAGIC, &[algorithm(key)?.key_len() as u8][..], &key.id_bytes(), salt].concat();
    for text in [origin.run, origin.name] {
        let length = u16::try_from(text.len()).map_err(|_| FrameError::Head)?;
        head.extend_from_slice(&length.to_be_bytes());
        head.extend_from_slice(text.as_bytes());
    }
    Ok(head)
}

/// The text behind its length at `start` in the head of a file, and where it ends.
fn text_at(file: &[u8], start: usize) -> Result<Option<(String, usize)>, FrameError> {
    let length = file.get(start..).and_then(|rest| rest.first_chunk()).copied().map(u16::from_be_bytes);
    let Some(length) = length else { return Ok(None) };
    let end = start + 2 + usize::from(length);
    let Some(text) = file.get(start + 2..end) else { return Ok(None) };
    let text = str::from_utf8(text).map_err(|_| FrameError::Head)?;
    Ok(Some((text.to_owned(), end)))
}

fn algorithm(key: &EncryptionKey) -> Result<&'static Algorithm, FrameError> {
    match key.cipher() {
        Cipher::Aes128Gcm => Ok(&AES_128_GCM),
        Cipher::Aes256Gcm => Ok(&AES_256_GCM),
        Cipher::Aes128 | Cipher::Aes256 => Err(FrameError::Gcm),
    }
}

/// The key of the file with this head. ring does not wipe what it keeps of it.
fn file_key(key: &EncryptionKey, head: &[u8]) -> Result<LessSafeKey, FrameError> {
    let algorithm = algorithm(key)?;
    let key = key.file_key(&head[FIXED - SALT..FIXED]);
    let key = UnboundKey::new(algorithm, &key[..algorithm.key_len()]).map_err(|_| FrameError::Gcm)?;
    Ok(LessSafeKey::new(key))
}

/// The nonce of the chunk with this number. A file has a key of its own and each of its chunks another number.
fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[3..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(nonce)
}

/// Encrypts one file.
pub(crate) struct Sealer {
    key: LessSafeKey,
    head: Vec<u8>,
    /// The number of the chunk under way.
    number: u64,
    /// Bytes of the file, and from `open` on the text of the chunk under way. It takes turns with the caller's buffer.
    buffer: Vec<u8>,
    open: usize,
}

impl Sealer {
    pub(crate) fn new(key: &EncryptionKey, origin: FileOrigin<'_>) -> Result<Self, FrameError> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(FrameError::Random)?;
        Self::with_salt(key, &salt, origin)
    }

    fn with_salt(key: &EncryptionKey, salt: &[u8; SALT], origin: FileOrigin<'_>) -> Result<Self, FrameError> {
        let head = head(key, salt, origin)?;
        let key = file_key(key, &head)?;
        Ok(Self { key, number: 0, buffer: head.clone(), open: head.len(), head })
    }

    /// Bytes of the file that would still come if so many bytes of text came, and then its end.
    pub(crate) fn outstanding(&self, text: u64) -> u64 {
        let chunks = ((self.buffer.len() - self.open) as u64 + text).div_ceil(CHUNK as u64).max(1);
        self.buffer.len() as u64 + text + chunks * TAG as u64
    }

    /// Replaces the file's next text by the file's next bytes.
    pub(crate) fn replace(&mut self, text: &mut Vec<u8>) -> Result<(), FrameError> {
        self.push(text)?;
        mem::swap(&mut self.buffer, text);
        self.buffer.clear();
        self.buffer.extend_from_slice(&text[self.open..]);
        text.truncate(self.open);
        self.open = 0;
        Ok(())
    }

    /// Replaces the file's last text, which is behind `from`, by the file's last bytes.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>, from: usize) -> Result<(), FrameError> {
        self.push(&out[from..])?;
        self.close(true)?;
        out.truncate(from);
        out.append(&mut self.buffer);
        Ok(())
    }

    /// A chunk stays open until there is text behind it: it may be the last one.
    fn push(&mut self, mut text: &[u8]) -> Result<(), FrameError> {
        self.buffer.reserve(text.len() + (text.len() / CHUNK + 1) * TAG);
        while !text.is_empty() {
            if self.buffer.len() - self.open == CHUNK {
                self.close(false)?;
            }
            let room = CHUNK - (self.buffer.len() - self.open);
            let (now, rest) = text.split_at(room.min(text.len()));
            self.buffer.extend_from_slice(now);
            text = rest;
        }
        Ok(())
    }

    fn close(&mut self, is_last: bool) -> Result<(), FrameError> {
        let (nonce, head) = (nonce(self.number, is_last), Aad::from(&self.head));
        let tag = self.key.seal_in_place_separate_tag(nonce, head, &mut self.buffer[self.open..]);
        self.buffer.extend_from_slice(tag.map_err(|_| FrameError::Gcm)?.as_ref());
        self.open = self.buffer.len();
        self.number += 1;
        Ok(())
    }
}

/// Decrypts one file.
pub(crate) struct Opener {
    key: LessSafeKey,
    head: Vec<u8>,
    /// The number of the next chunk.
    number: u64,
    /// Bytes that may be a chunk when more is known.
    rest: Vec<u8>,
}

impl Opener {
    pub(crate) fn new(key: &EncryptionKey, head: GcmHead) -> Result<Self, FrameError> {
        Ok(Self { key: file_key(key, &head.bytes)?, head: head.bytes, number: 0, rest: Vec::new() })
    }

    /// Appends the bytes that were held back. The next bytes of the file belong behind them.
    pub(crate) fn give_back(&mut self, bytes: &mut Vec<u8>) {
        bytes.append(&mut self.rest);
    }

    /// Bytes of the file whose text was given out, and its head.
    pub(crate) fn opened(&self) -> u64 {
        self.head.len() as u64 + self.number * SEALED as u64
    }

    /// Replaces what is behind `from` by the text of its chunks, and holds back what may be another one, unless the file is
    /// `ended`. After an error only the text of the chunks before stays.
    pub(crate) fn replace(
        &mut self,
        bytes: &mut Vec<u8>,
        from: usize,
        ended: bool,
    ) -> Result<(), FrameError> {
        let (mut to, mut at) = (from, from);
        let mut is_last = false;
        // What is behind a chunk tells whether it is the last one.
        while !is_last && (ended || bytes.len() - at > SEALED) {
            let length = SEALED.min(bytes.len() - at);
            is_last = ended && at + length == bytes.len();
            let (nonce, head) = (nonce(self.number, is_last), Aad::from(&self.head));
            let chunk = &mut bytes[to..at + length];
            let Ok(text) = self.key.open_within(nonce, head, chunk, at - to..) else {
                bytes.truncate(to);
                let start = self.opened();
                return Err(FrameError::Forged { start, end: start + length.max(1) as u64 - 1 });
            };
            to += text.len();
            at += length;
            self.number += 1;
        }
        self.rest.extend_from_slice(&bytes[at..]);
        bytes.truncate(to);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = include_str!("../../tests/golden/test-key.b64");
    const ORIGIN: FileOrigin<'static> =
        FileOrigin { run: "e4c83a2b0f0b5c5f3d0a7c1e9b7d6f42", name: "0_users_1.asb" };

    fn key(cipher: Cipher) -> EncryptionKey {
        EncryptionKey::from_pem_or_base64(KEY, cipher).unwrap()
    }

    /// The file of a text that is sealed in these blocks.
    fn seal(mut sealer: Sealer, blocks: &[&[u8]]) -> Vec<u8> {
        let mut file = Vec::new();
        let length = sealer.outstanding(blocks.concat().len() as u64);
        for (number, block) in blocks.iter().enumerate() {
            let rest = blocks[number..].concat().len() as u64;
            assert_eq!(file.len() as u64 + sealer.outstanding(rest), length);
            let mut block = block.to_vec();
            sealer.replace(&mut block).unwrap();
            file.extend_from_slice(&block);
        }
        let end = file.len();
        sealer.finish(&mut file, end).unwrap();
        assert_eq!(file.len() as u64, length);
        file
    }

    /// The text of a file that comes in pieces; what was opened before an error.
    fn open(file: &[u8], key: &EncryptionKey, piece: usize) -> Result<Vec<u8>, (Vec<u8>, FrameError)> {
        let none = |e| (Vec::new(), e);
        let head = GcmHead::parse(file).map_err(none)?.ok_or((Vec::new(), FrameError::Head))?;
        let mut body = file[head.length()..].chunks(piece);
        let mut opener = Opener::new(key, head).map_err(none)?;
        let mut text = Vec::new();
        loop {
            let start = text.len();
            opener.give_back(&mut text);
            let more = body.next();
            text.extend_from_slice(more.unwrap_or_default());
            if let Err(e) = opener.replace(&mut text, start, more.is_none()) {
                return Err((text, e));
            }
            if more.is_none() {
                return Ok(text);
            }
        }
    }

    /// Bytes that differ from each other within a chunk and between chunks.
    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8 ^ (i >> 16) as u8).collect()
    }

    /// Protects: files stay readable: what a key, a salt and a text make is what docs/FORMAT.md says, which
    /// `tests/python/gcm.py` checks, too.
    #[test]
    fn a_file_is_what_the_documentation_says() {
        let documentation = include_str!("../../docs/FORMAT.md");
        let (_, vector) = documentation.split_once("```text\nkey ").unwrap();
        let (vector, _) = vector.split_once("```").unwrap();
        let (_, expected) = vector.split_once("\nfile ").unwrap();
        let salt: [u8; SALT] = std::array::from_fn(|i| i as u8);
        let sealer = Sealer::with_salt(&key(Cipher::Aes256Gcm), &salt, ORIGIN).unwrap();
        let digits: String = expected.split_whitespace().collect();
        let byte = |pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        let expected: Vec<u8> = digits.as_bytes().chunks(2).map(byte).collect();
        assert_eq!(seal(sealer, &[b"Version 3.1\n"]), expected);
    }

    /// Protects: one chunk ends where the next one begins, and the last one is marked, wherever blocks and pieces end.
    #[test]
    fn texts_of_whole_chunks_come_back() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5] {
            let (key, text) = (key(Cipher::Aes128Gcm), text(length));
            for block in [CHUNK, CHUNK + 1, 7 * CHUNK] {
                let blocks: Vec<_> = text.chunks(block).collect();
                let file = seal(Sealer::new(&key, ORIGIN).unwrap(), &blocks);
                let head = GcmHead::parse(&file).unwrap().unwrap();
                assert_eq!((&*head.run, &*head.name, &head.key_id), (ORIGIN.run, ORIGIN.name, &key.id()));
                let chunks = length.div_ceil(CHUNK).max(1);
                assert_eq!(file.len(), head.length() + length + chunks * TAG);
                for piece in [1000, SEALED, SEALED + 1, file.len()] {
                    assert!(open(&file, &key, piece).unwrap() == text, "{length}, {block}, {piece}");
                }
            }
        }
    }

    /// Protects: a file cannot be read with another key, and not as one of another cipher.
    #[test]
    fn another_key_opens_nothing() {
        let file = seal(Sealer::new(&key(Cipher::Aes256Gcm), ORIGIN).unwrap(), &[b"text"]);
        let (opened, error) = open(&file, &key(Cipher::Aes128Gcm), 100).unwrap_err();
        assert!(opened.is_empty() && matches!(error, FrameError::Forged { .. }));
        // The same bytes.
        assert!(matches!(open(&file, &key(Cipher::Aes256), 100), Err((_, FrameError::Gcm))));
    }

    /// Protects: a head that is cut is not yet one, and one that cannot be is an error.
    #[test]
    fn heads_are_read_as_far_as_they_are_there() {
        let file = seal(Sealer::new(&key(Cipher::Aes256Gcm), ORIGIN).unwrap(), &[]);
        let length = GcmHead::parse(&file).unwrap().unwrap().length();
        for end in 0..length {
            assert!(GcmHead::parse(&file[..end]).unwrap().is_none(), "{end}");
        }
        for (place, byte) in [(MAGIC.len(), 17), (length - 1, 0xff)] {
            let mut file = file.clone();
            file[place] = byte;
            assert!(matches!(GcmHead::parse(&file), Err(FrameError::Head)));
        }
    }

    /// What somebody does to a file who can write it but does not have its key.
    #[derive(Clone, Debug)]
    enum Change {
        Flip(prop::sample::Index),
        Cut(prop::sample::Index),
        Extend(Vec<u8>),
        /// Leaves out the chunk.
        Remove(prop::sample::Index),
        Repeat(prop::sample::Index),
        Swap(prop::sample::Index, prop::sample::Index),
        /// Puts the chunk of another file in its place.
        Splice(prop::sample::Index),
        /// Puts the head of another file in front.
        Behead,
    }

    fn changes() -> impl Strategy<Value = Change> {
        let index = any::<prop::sample::Index>;
        prop_oneof![
            index().prop_map(Change::Flip),
            index().prop_map(Change::Cut),
            prop::collection::vec(any::<u8>(), 1..100).prop_map(Change::Extend),
            index().prop_map(Change::Remove),
            index().prop_map(Change::Repeat),
            (index(), index()).prop_map(|(a, b)| Change::Swap(a, b)),
            index().prop_map(Change::Splice),
            Just(Change::Behead),
        ]
    }

    impl Change {
        fn apply(&self, file: &[u8], other: &[u8], head: usize) -> Vec<u8> {
            let mut chunks: Vec<&[u8]> = file[head..].chunks(SEALED).collect();
            let others: Vec<&[u8]> = other[head..].chunks(SEALED).collect();
            let number = |index: &prop::sample::Index| index.index(chunks.len());
            match self {
                Self::Flip(index) => {
                    let (mut file, bit) = (file.to_vec(), index.index(file.len() * 8));
                    file[bit / 8] ^= 1 << (bit % 8);
                    return file;
                }
                Self::Cut(index) => return file[..index.index(file.len())].to_vec(),
                Self::Extend(more) => return [file, more].concat(),
                Self::Remove(index) => {
                    chunks.remove(number(index));
                }
                Self::Repeat(index) => {
                    let number = number(index);
                    chunks.insert(number, chunks[number]);
                }
                Self::Swap(a, b) => {
                    let (a, b) = (number(a), number(b));
                    chunks.swap(a, b);
                }
                Self::Splice(index) => {
                    let number = number(index);
                    chunks[number] = others[number];
                }
                Self::Behead => return [&other[..head], &file[head..]].concat(),
            }
            [&file[..head], &chunks.concat()].concat()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Protects: every text comes back, in whatever blocks it was sealed and in whatever pieces it is read.
        #[test]
        fn every_text_comes_back(
            lengths in prop::collection::vec(0usize..3 * CHUNK, 0..4),
            cipher in prop::sample::select(&[Cipher::Aes128Gcm, Cipher::Aes256Gcm]),
            piece in 1usize..4 * CHUNK,
        ) {
            let text = text(lengths.iter().sum());
            let mut rest = &text[..];
            let blocks: Vec<_> = lengths.iter().map(|length| rest.split_off(..*length).unwrap()).collect();
            let file = seal(Sealer::new(&key(cipher), ORIGIN).unwrap(), &blocks);
            prop_assert!(open(&file, &key(cipher), piece.max(file.len() / 50)).unwrap() == text);
        }

        /// Protects: whatever is changed without the key is found, and only what was written is ever given out.
        #[test]
        fn no_change_stays_unnoticed(
            length in 0usize..4 * CHUNK,
            whole in any::<bool>(),
            change in changes(),
            piece in 1000usize..4 * CHUNK,
        ) {
            let length = if whole { length.next_multiple_of(CHUNK) } else { length };
            let (key, text) = (key(Cipher::Aes256Gcm), text(length));
            let file = seal(Sealer::new(&key, ORIGIN).unwrap(), &[&text]);
            let other = seal(Sealer::new(&key, ORIGIN).unwrap(), &[&text]);
            let head = GcmHead::parse(&file).unwrap().unwrap().length();
            let changed = change.apply(&file, &other, head);
            prop_assume!(changed != file);
            let (opened, _) = open(&changed, &key, piece).unwrap_err();
            prop_assert!(text.starts_with(&opened));
            prop_assert_eq!(opened.len() % CHUNK, 0);
        }
    }
}
