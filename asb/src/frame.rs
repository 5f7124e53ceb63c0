//! From the text to the bytes on storage and back: zstd inside, AES in counter mode or AES-GCM outside.

use std::{fmt, mem};

use aes::{
    Aes128, Aes256,
    cipher::{
        BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, InnerIvInit, KeyInit, StreamCipher,
        consts::U16,
    },
};
use ctr::{Ctr128BE, CtrCore};
use zstd::stream::raw::{CParameter, DParameter, InBuffer, Operation, OutBuffer};

use crate::gcm::{FileOrigin, GcmHead, Opener, Sealer};
use crate::{EncryptionKey, FrameError, key::Secret};

/// The bytes in front of a file that is encrypted in counter mode.
pub const ENCRYPTION_HEAD: usize = 16;

/// Turns a file's text, block by block, into the bytes to store.
pub struct FrameWriter {
    compressor: Option<Compressor>,
    encryption: Encryption,
}

enum Encryption {
    None,
    Ctr(CtrWriter),
    Gcm(Box<Sealer>),
}

impl FrameWriter {
    /// A writer for the file of this `origin`, compressing with this zstd level when there is one (0 = zstd's default,
    /// negative ones are faster than 1), encrypting with this key when there is one.
    pub fn new(
        compression: Option<i32>,
        key: Option<&EncryptionKey>,
        origin: FileOrigin<'_>,
    ) -> Result<Self, FrameError> {
        let encryption = match key {
            None => Encryption::None,
            Some(key) => match CtrWriter::new(key)? {
                Some(writer) => Encryption::Ctr(writer),
                None => Encryption::Gcm(Box::new(Sealer::new(key, origin)?)),
            },
        };
        Ok(Self { compressor: compression.map(Compressor::new).transpose()?, encryption })
    }

    /// Replaces `block`, the file's next text, by the file's next bytes; there may be none yet.
    pub fn seal(&mut self, block: &mut Vec<u8>) -> Result<(), FrameError> {
        if let Some(compressor) = &mut self.compressor {
            compressor.replace(block)?;
        }
        match &mut self.encryption {
            Encryption::None => Ok(()),
            Encryption::Ctr(writer) => {
                writer.encrypt(block, 0);
                Ok(())
            }
            Encryption::Gcm(sealer) => sealer.replace(block),
        }
    }

    /// Bytes of the file that would still come if so many bytes of text came, and then its end. What compression makes of them
    /// is not known, so they count nothing then.
    #[must_use]
    pub fn outstanding(&self, text: u64) -> u64 {
        let text = if self.compressor.is_some() { 0 } else { text };
        match &self.encryption {
            Encryption::None | Encryption::Ctr(_) => text,
            Encryption::Gcm(sealer) => sealer.outstanding(text),
        }
    }

    /// Appends the file's last bytes to `out`. The writer is used up then.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let before = out.len();
        if let Some(compressor) = &mut self.compressor {
            compressor.finish(out)?;
        }
        match &mut self.encryption {
            Encryption::None => Ok(()),
            Encryption::Ctr(writer) => {
                writer.encrypt(out, before);
                Ok(())
            }
            Encryption::Gcm(sealer) => sealer.finish(out, before),
        }
    }
}

impl fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameWriter")
            .field("compressed", &self.compressor.is_some())
            .field("encrypted", &!matches!(self.encryption, Encryption::None))
            .finish_non_exhaustive()
    }
}

/// zstd, writing into a buffer that takes turns with the caller's.
struct Compressor {
    encoder: zstd::stream::raw::Encoder<'static>,
    buffer: Vec<u8>,
}

impl Compressor {
    fn new(level: i32) -> Result<Self, FrameError> {
        if !zstd::compression_level_range().contains(&level) {
            return Err(FrameError::Level(level));
        }
        let mut encoder = zstd::stream::raw::Encoder::new(level).map_err(FrameError::Compress)?;
        encoder.set_parameter(CParameter::ChecksumFlag(true)).map_err(FrameError::Compress)?;
        Ok(Self { encoder, buffer: Vec::new() })
    }

    fn replace(&mut self, block: &mut Vec<u8>) -> Result<(), FrameError> {
        self.buffer.clear();
        let mut input = InBuffer::around(block);
        while input.pos() < block.len() {
            let done = self.buffer.len();
            self.buffer.reserve(zstd::zstd_safe::compress_bound(block.len() - input.pos()));
            let mut output = OutBuffer::around_pos(&mut self.buffer, done);
            self.encoder.run(&mut input, &mut output).map_err(FrameError::Compress)?;
        }
        mem::swap(&mut self.buffer, block);
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        loop {
            let done = out.len();
            out.reserve(zstd::zstd_safe::CCtx::out_size());
            let mut output = OutBuffer::around_pos(out, done);
            if self.encoder.finish(&mut output, true).map_err(FrameError::Compress)? == 0 {
                return Ok(());
            }
        }
    }
}

/// Encrypts one file in counter mode.
struct CtrWriter {
    /// What is to go in front of the first bytes.
    head: Option<[u8; ENCRYPTION_HEAD]>,
    key_stream: KeyStream,
}

impl CtrWriter {
    /// None when the key is for another mode.
    fn new(key: &EncryptionKey) -> Result<Option<Self>, FrameError> {
        let mut head = [0; ENCRYPTION_HEAD];
        getrandom::fill(&mut head).map_err(FrameError::Random)?;
        Ok(KeyStream::new(key, head).map(|key_stream| Self { head: Some(head), key_stream }))
    }

    /// Encrypts what is behind `from`, and puts the head there when it was not written yet.
    fn encrypt(&mut self, bytes: &mut Vec<u8>, from: usize) {
        self.key_stream.apply(&mut bytes[from..]);
        if let Some(head) = self.head.take() {
            bytes.splice(from..from, head);
        }
    }
}

/// Decrypts one file.
pub struct Decryptor(Decryption);

enum Decryption {
    Ctr(KeyStream),
    Gcm(Box<Opener>),
}

impl Decryptor {
    /// A decryptor for the file in counter mode that begins with `head`; none when the key is for another mode.
    #[must_use]
    pub fn ctr(key: &EncryptionKey, head: [u8; ENCRYPTION_HEAD]) -> Option<Self> {
        KeyStream::new(key, head).map(|key_stream| Self(Decryption::Ctr(key_stream)))
    }

    /// A decryptor for the file that begins with `head`, by the key of its id. Whether it is right only the first chunk
    /// tells.
    pub fn gcm(key: &EncryptionKey, head: GcmHead) -> Result<Self, FrameError> {
        Ok(Self(Decryption::Gcm(Box::new(Opener::new(key, head)?))))
    }

    /// Bytes of the file whose text was given out, and its head, where not all bytes are used at once.
    #[must_use]
    pub fn opened(&self) -> Option<u64> {
        match &self.0 {
            Decryption::Ctr(_) => None,
            Decryption::Gcm(opener) => Some(opener.opened()),
        }
    }

    /// Appends what was held back of the bytes before. The file's next bytes go behind it.
    pub fn give_back(&mut self, bytes: &mut Vec<u8>) {
        if let Decryption::Gcm(opener) = &mut self.0 {
            opener.give_back(bytes);
        }
    }

    /// Replaces what is behind `from`, the file's next bytes, by text; `ended` says that there are no more. What can't be
    /// opened before more is known is held back. After an error only the text before the damage stays.
    pub fn decrypt(&mut self, bytes: &mut Vec<u8>, from: usize, ended: bool) -> Result<(), FrameError> {
        match &mut self.0 {
            Decryption::Ctr(key_stream) => {
                key_stream.apply(&mut bytes[from..]);
                Ok(())
            }
            Decryption::Gcm(opener) => opener.replace(bytes, from, ended),
        }
    }
}

impl fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decryptor")
    }
}

/// The key stream of AES in counter mode: the same both ways.
enum KeyStream {
    Aes128(Box<Ctr128BE<Aes128>>),
    Aes256(Box<Ctr128BE<Aes256>>),
}

impl KeyStream {
    /// That of the file that begins with `head`: the encrypted predecessor of its first counter block. The
    /// writer may choose the head instead of the counter: under a block cipher one is as random as the other. None when the
    /// key is for another mode.
    fn new(key: &EncryptionKey, head: [u8; ENCRYPTION_HEAD]) -> Option<Self> {
        match &key.0 {
            Secret::Aes128(key) => Some(Self::Aes128(Box::new(counter(Aes128::new(&(**key).into()), head)))),
            Secret::Aes256(key) => Some(Self::Aes256(Box::new(counter(Aes256::new(&(**key).into()), head)))),
            Secret::Aes128Gcm(_) | Secret::Aes256Gcm(_) => None,
        }
    }

    fn apply(&mut self, bytes: &mut [u8]) {
        match self {
            Self::Aes128(cipher) => cipher.apply_keystream(bytes),
            Self::Aes256(cipher) => cipher.apply_keystream(bytes),
        }
    }
}

/// The key stream whose first counter block is the decrypted `head`, plus one.
fn counter<C>(cipher: C, head: [u8; ENCRYPTION_HEAD]) -> Ctr128BE<C>
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
{
    let mut block = head.into();
    cipher.decrypt_block(&mut block);
    let first = u128::from_be_bytes(block.into()).wrapping_add(1);
    Ctr128BE::from_core(CtrCore::inner_iv_init(cipher, &first.to_be_bytes().into()))
}

/// Decompresses one file.
pub struct Decompressor {
    decoder: zstd::stream::raw::Decoder<'static>,
    /// The last call filled all the space it had, so zstd may hold back more.
    full: bool,
    finished: bool,
}

/// The largest window a stream may ask for, as a power of two: what zstd's highest levels use, 128 MiB.
const MAX_WINDOW: u32 = 27;
/// Text a step makes room for at a time: a block of zstd.
const STEP: usize = 128 << 10;

impl Decompressor {
    /// A decompressor for one file.
    pub fn new() -> Result<Self, FrameError> {
        let mut decoder = zstd::stream::raw::Decoder::new().map_err(FrameError::Decompress)?;
        decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW)).map_err(FrameError::Decompress)?;
        Ok(Self { decoder, full: false, finished: false })
    }

    /// Decompresses from `input`, appends at most `room` bytes to `out` and says how many bytes of the input it
    /// took. Call it again with the rest of the input while there is any or `out` got all it had room for.
    pub fn step(&mut self, input: &[u8], out: &mut Vec<u8>, room: usize) -> Result<usize, FrameError> {
        let mut taken = InBuffer::around(input);
        let mut room = room;
        // zstd counts calls that can do nothing, and fails after a few.
        while room > 0 && (self.full || taken.pos() < input.len()) {
            let before = out.len();
            let space = room.min(STEP);
            out.resize(before + space, 0);
            let mut output = OutBuffer::around(&mut out[before..]);
            let result = self.decoder.run(&mut taken, &mut output);
            let written = output.pos();
            out.truncate(before + written);
            self.finished = result.map_err(FrameError::Decompress)? == 0;
            // At the end of a stream nothing is held back; another call would begin the next.
            self.full = !self.finished && written == space;
            room -= written;
        }
        Ok(taken.pos())
    }

    /// Whether the input may end here: behind a whole stream.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.finished
    }
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompressor").field("finished", &self.finished).finish_non_exhaustive()
    }
}

/// What the first bytes of a file show it to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// .asb text.
    Text,
    /// A zstd stream.
    Zstd,
    /// Anything else: perhaps an encrypted file.
    Unknown,
}

/// What a file is that begins with `head`, of which 8 bytes are enough.
#[must_use]
pub fn sniff(head: &[u8]) -> Content {
    if head.starts_with(b"Version ") {
        Content::Text
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Content::Zstd
    } else {
        Content::Unknown
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Cipher;

    const KEY: &str = include_str!("../../tests/golden/test-key.b64");

    /// Of any file.
    const ORIGIN: FileOrigin<'static> = FileOrigin { run: "run", name: "0_n_1.asb" };

    fn key(cipher: Cipher) -> EncryptionKey {
        EncryptionKey::from_pem_or_base64(KEY, cipher).unwrap()
    }

    fn seal(blocks: &[&[u8]], level: Option<i32>, key: Option<&EncryptionKey>) -> Vec<u8> {
        let mut writer = FrameWriter::new(level, key, ORIGIN).unwrap();
        let mut file = Vec::new();
        for block in blocks {
            let mut block = block.to_vec();
            writer.seal(&mut block).unwrap();
            file.extend_from_slice(&block);
        }
        let mut tail = b"kept".to_vec();
        writer.finish(&mut tail).unwrap();
        assert!(tail.starts_with(b"kept"));
        file.extend_from_slice(&tail[4..]);
        file
    }

    fn decrypt(file: &[u8], key: &EncryptionKey, piece: usize) -> Vec<u8> {
        let (head, body) = file.split_first_chunk().unwrap();
        let mut key_stream = KeyStream::new(key, *head).unwrap();
        let mut body = body.to_vec();
        body.chunks_mut(piece).for_each(|piece| key_stream.apply(piece));
        body
    }

    /// The text, and whether the stream was whole.
    fn decompress(file: &[u8], piece: usize, room: usize) -> Result<(Vec<u8>, bool), FrameError> {
        let mut decompressor = Decompressor::new()?;
        let mut text = Vec::new();
        for mut input in file.chunks(piece) {
            loop {
                let before = text.len();
                let taken = decompressor.step(input, &mut text, room)?;
                assert!(text.len() - before <= room);
                input = &input[taken..];
                if input.is_empty() && text.len() - before < room {
                    break;
                }
            }
        }
        Ok((text, decompressor.finished()))
    }

    #[test]
    fn plain_text_stays_in_its_buffer() {
        let mut block = b"text".to_vec();
        let place = block.as_ptr();
        let mut writer = FrameWriter::new(None, None, ORIGIN).unwrap();
        writer.seal(&mut block).unwrap();
        assert_eq!((block.as_slice(), block.as_ptr()), (&b"text"[..], place));
        let mut tail = Vec::new();
        writer.finish(&mut tail).unwrap();
        assert!(tail.is_empty());
    }

    #[test]
    fn an_empty_file_has_its_head_and_its_frame() {
        let key = key(Cipher::Aes256);
        assert_eq!(seal(&[], None, Some(&key)).len(), ENCRYPTION_HEAD);
        assert_eq!(decompress(&seal(&[], Some(1), None), 1, 1).unwrap(), (Vec::new(), true));
        let both = seal(&[], Some(1), Some(&key));
        assert_eq!(decompress(&decrypt(&both, &key, 5), 3, 9).unwrap(), (Vec::new(), true));
    }

    #[test]
    fn two_files_of_the_same_text_differ() {
        let key = key(Cipher::Aes128);
        assert_ne!(seal(&[b"text"], None, Some(&key)), seal(&[b"text"], None, Some(&key)));
    }

    #[test]
    fn the_counter_carries_over_all_its_bytes() {
        // The head whose counter begins at 2^128 - 1: the second block is counted 0.
        let Secret::Aes128(secret) = key(Cipher::Aes128).0 else { unreachable!() };
        let cipher = Aes128::new(&(*secret).into());
        let mut head = (u128::MAX - 1).to_be_bytes().into();
        cipher.encrypt_block(&mut head);
        let mut stream = [0; 32];
        KeyStream::new(&key(Cipher::Aes128), head.into()).unwrap().apply(&mut stream);
        for (block, count) in stream.chunks(16).zip([u128::MAX, 0]) {
            let mut expected = count.to_be_bytes().into();
            cipher.encrypt_block(&mut expected);
            assert_eq!(block, expected.as_slice());
        }
    }

    #[test]
    fn a_truncated_stream_is_not_finished() {
        let file = seal(&[&b"0123456789".repeat(1000)], Some(3), None);
        for end in 0..file.len() {
            assert!(!decompress(&file[..end], 64, 4096).unwrap().1, "{end}");
        }
        assert!(decompress(&file, 64, 4096).unwrap().1);
    }

    #[test]
    fn a_stream_is_finished_in_room_of_just_its_size() {
        let file = seal(&[&vec![7; 300 << 10]], Some(1), None);
        for room in [300 << 10, STEP, 100 << 10] {
            assert!(decompress(&file, file.len(), room).unwrap().1, "{room}");
        }
    }

    #[test]
    fn streams_can_follow_one_another() {
        let mut file = seal(&[b"one"], Some(1), None);
        file.extend(seal(&[b"two"], Some(19), None));
        assert_eq!(decompress(&file, 2, 2).unwrap(), (b"onetwo".to_vec(), true));
        file.extend_from_slice(b"garbage");
        assert!(matches!(decompress(&file, 100, 100), Err(FrameError::Decompress(_))));
    }

    #[test]
    fn a_flipped_bit_is_an_error() {
        let file = seal(&[&b"0123456789 and more ".repeat(50)], Some(1), None);
        let text = decompress(&file, 1000, 1000).unwrap().0;
        for bit in 0..file.len() * 8 {
            let mut file = file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            // Either an error, or a stream that did not end, or a bit that says nothing.
            if let Ok((flipped, true)) = decompress(&file, 1000, 1000) {
                assert_eq!(flipped, text, "{bit}");
            }
        }
    }

    #[test]
    fn a_bomb_fills_only_its_room() {
        let bomb = seal(&[&vec![0; 64 << 20]], Some(19), None);
        assert!(bomb.len() < 10_000);
        let mut out = Vec::new();
        let mut decompressor = Decompressor::new().unwrap();
        let taken = decompressor.step(&bomb, &mut out, 1 << 20).unwrap();
        assert_eq!(out.len(), 1 << 20);
        assert!(out.capacity() <= 2 << 20 && taken < bomb.len() && !decompressor.finished());
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        // A frame header that asks for a window of 2^31 bytes.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0];
        assert!(matches!(decompress(&frame, 9, 1 << 20), Err(FrameError::Decompress(_))));
    }

    #[test]
    fn levels() {
        for level in [-1, 0, 1, 22] {
            assert_eq!(decompress(&seal(&[b"text"], Some(level), None), 7, 7).unwrap().0, b"text");
        }
        assert!(matches!(FrameWriter::new(Some(23), None, ORIGIN), Err(FrameError::Level(23))));
    }

    #[test]
    fn contents_are_told_apart() {
        assert_eq!(sniff(b"Version 3.1\n"), Content::Text);
        assert_eq!(sniff(&seal(&[b"Version 3.1\n"], Some(1), None)), Content::Zstd);
        assert_eq!(sniff(b""), Content::Unknown);
    }

    proptest! {
        #[test]
        fn every_text_comes_back(
            blocks in prop::collection::vec(prop::collection::vec(0u8..4, 0..5000), 0..6),
            level in prop::option::of(1i32..4),
            cipher in prop::option::of(prop::sample::select(&[Cipher::Aes128, Cipher::Aes256])),
            piece in 1usize..3000,
            room in 1usize..3000,
        ) {
            let key = cipher.map(key);
            let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
            let mut file = seal(&blocks, level, key.as_ref());
            if let Some(key) = &key {
                file = decrypt(&file, key, piece);
            }
            if level.is_some() {
                let (text, whole) = decompress(&file, piece, room).unwrap();
                prop_assert!(whole);
                file = text;
            }
            prop_assert_eq!(file, blocks.concat());
        }

        #[test]
        fn foreign_bytes_do_no_harm(mut bytes: Vec<u8>, magic: bool, piece in 1usize..300, room in 1usize..3000) {
            if magic {
                bytes.splice(0..0, [0x28, 0xb5, 0x2f, 0xfd]);
            }
            let _ = decompress(&bytes, piece, room);
        }
    }
}
