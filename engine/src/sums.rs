//! Checksums of a file's stored bytes: one for each chunk, one hash for the whole.

use abs_config::FileHash;
use sha2::{Digest as _, Sha256};

use crate::error::EngineError;

/// The bytes that one checksum covers; the last chunk of a file may be shorter.
pub(crate) const CHUNK: usize = 1 << 20;

/// The checksums of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileSums {
    /// The CRC-32C of each chunk.
    pub chunks: Vec<u32>,
    /// The hash of the whole file as `algorithm:hex`, if one was asked for.
    pub hash: Option<String>,
}

/// Computes the checksums of a file while it is written.
#[derive(Debug)]
pub(crate) struct Summer {
    chunks: Vec<u32>,
    /// The checksum of the chunk under way, and its bytes.
    open: u32,
    filled: usize,
    hash: Hash,
}

#[derive(Debug)]
pub(crate) enum Hash {
    None,
    Blake3(Box<blake3::Hasher>),
    Sha256(Sha256),
}

impl Hash {
    pub(crate) fn new(kind: FileHash) -> Self {
        match kind {
            FileHash::None => Self::None,
            FileHash::Blake3 => Self::Blake3(Box::default()),
            FileHash::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    /// One that computes what `text`, an `algorithm:hex`, can be compared with; none when the algorithm is not known.
    pub(crate) fn like(text: &str) -> Option<Self> {
        Some(Self::new(text.split_once(':')?.0.parse().ok()?))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Blake3(hash) => {
                hash.update(bytes);
            }
            Self::Sha256(hash) => hash.update(bytes),
        }
    }

    /// The hash as `algorithm:hex`.
    pub(crate) fn finish(self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Blake3(hash) => Some(format!("{}:{}", FileHash::Blake3, hash.finalize().to_hex())),
            Self::Sha256(hash) => Some(format!("{}:{}", FileHash::Sha256, hex(&hash.finalize()))),
        }
    }
}

impl Summer {
    /// A summer for a file that begins.
    pub(crate) fn new(hash: FileHash) -> Self {
        Self { chunks: Vec::new(), open: 0, filled: 0, hash: Hash::new(hash) }
    }

    /// Takes the file's next bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        self.hash.update(bytes);
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(CHUNK - self.filled));
            self.open = crc32c::crc32c_append(self.open, now);
            self.filled += now.len();
            if self.filled == CHUNK {
                self.end_chunk();
            }
            bytes = rest;
        }
    }

    /// The checksums of all that was taken.
    pub(crate) fn finish(mut self) -> FileSums {
        if self.filled > 0 {
            self.end_chunk();
        }
        FileSums { chunks: self.chunks, hash: self.hash.finish() }
    }

    fn end_chunk(&mut self) {
        self.chunks.push(std::mem::take(&mut self.open));
        self.filled = 0;
    }
}

/// Compares a file that is read chunk by chunk with its checksums.
#[derive(Debug)]
pub(crate) struct ChunkCheck {
    chunks: Vec<u32>,
    next: usize,
    size: u64,
}

impl ChunkCheck {
    /// The check of a file that has `size` bytes and these checksums.
    pub(crate) fn new(chunks: Vec<u32>, size: u64) -> Self {
        Self { chunks, next: 0, size }
    }

    /// The CRC-32C of the whole file.
    pub(crate) fn of_file(&self) -> u32 {
        let chunks = self.chunks.iter().enumerate();
        chunks.fold(0, |crc, (index, chunk)| {
            let length = self.size.saturating_sub((index * CHUNK) as u64).min(CHUNK as u64);
            crc32c::crc32c_combine(crc, *chunk, length as usize)
        })
    }

    /// Bytes of the file that are not used when it is given up here; those that were checked are, unless only so many were
    /// `opened`.
    pub(crate) fn unused(&self, opened: Option<u64>) -> u64 {
        self.size.saturating_sub(opened.unwrap_or(self.next as u64 * CHUNK as u64))
    }

    /// Checks the next chunk of `file`: a whole one, or what is left at its end, perhaps nothing.
    pub(crate) fn check(&mut self, chunk: &[u8], file: &str) -> Result<(), EngineError> {
        let damaged = |what| Err(EngineError::Damaged { file: file.to_owned(), what });
        let start = self.next as u64 * CHUNK as u64;
        let expected = self.size.saturating_sub(start).min(CHUNK as u64);
        if chunk.len() as u64 != expected {
            let end = start + chunk.len() as u64;
            return damaged(if end > self.size {
                format!("it goes on behind its {} bytes", self.size)
            } else {
                format!("it ends after {end} of {} bytes", self.size)
            });
        }
        if expected == 0 {
            return Ok(());
        }
        if self.chunks.get(self.next) != Some(&crc32c::crc32c(chunk)) {
            let last = start + expected - 1;
            return damaged(format!("its bytes {start} to {last} differ from those that were written"));
        }
        self.next += 1;
        Ok(())
    }
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn sums(pieces: &[&[u8]], hash: FileHash) -> FileSums {
        let mut summer = Summer::new(hash);
        for piece in pieces {
            summer.update(piece);
        }
        summer.finish()
    }

    /// Protects: the checksums are those that anybody computes from the stored bytes.
    #[test]
    fn the_values_are_the_standard_ones() {
        assert_eq!(sums(&[b"1234", b"56789"], FileHash::None).chunks, [0xe306_9283]);
        assert_eq!(sums(&[], FileHash::None), FileSums::default());
        let empty = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(sums(&[], FileHash::Blake3).hash.as_deref(), Some(empty));
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sums(&[b"a", b"bc"], FileHash::Sha256).hash.as_deref(), Some(abc));
        let mut again = Hash::like(abc).unwrap();
        again.update(b"abc");
        assert_eq!(again.finish().as_deref(), Some(abc));
        assert!(Hash::like("md5:00").is_none() && Hash::like("abc").is_none());
    }

    /// Protects: the checksum of a file is that of its bytes, also when the last chunk is not full; checksums of more chunks than
    /// the file has are passed over.
    #[test]
    fn the_checksum_of_a_file_follows_from_those_of_its_chunks() {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 12345] {
            let bytes: Vec<_> = (0..size).map(|at| (at * at % 251) as u8).collect();
            let check = ChunkCheck::new(sums(&[&bytes], FileHash::None).chunks, size as u64);
            assert_eq!(check.of_file(), crc32c::crc32c(&bytes), "{size}");
        }
        assert_eq!(ChunkCheck::new(vec![1, 2, 3], 5).of_file(), 1);
    }

    #[test]
    fn a_file_of_another_size_is_damaged() {
        let bytes = vec![7; CHUNK + 3];
        let chunks = sums(&[&bytes], FileHash::None).chunks;
        assert_eq!(chunks.len(), 2);
        let check = |parts: &[&[u8]]| {
            let mut check = ChunkCheck::new(chunks.clone(), bytes.len() as u64);
            parts.iter().try_for_each(|part| check.check(part, "f")).map_err(|e| e.to_string())
        };
        let (first, rest) = bytes.split_at(CHUNK);
        assert_eq!(check(&[first, rest, &[]]), Ok(()));
        let ends = |at: usize| Err(format!("f: damaged: it ends after {at} of 1048579 bytes"));
        assert_eq!(check(&[first, &rest[1..]]), ends(CHUNK + 2));
        assert_eq!(check(&[first, &[]]), ends(CHUNK));
        assert_eq!(check(&[&first[1..]]), ends(CHUNK - 1));
        let behind = Err("f: damaged: it goes on behind its 1048579 bytes".to_owned());
        assert_eq!(check(&[first, &[7; 4]]), behind);
        assert_eq!(check(&[first, rest, &[0]]), behind);
        let differs = "f: damaged: its bytes 1048576 to 1048578 differ from those that were written";
        assert_eq!(check(&[first, &[7, 7, 6]]), Err(differs.to_owned()));
    }

    proptest! {
        /// Protects: how the bytes arrive does not matter.
        #[test]
        fn the_sums_do_not_depend_on_the_pieces(
            cuts in prop::collection::vec(0..3 * CHUNK, 0..6),
            size in 0..3 * CHUNK,
        ) {
            let bytes: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(size)).chain([0, size]).collect();
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            let sums = sums(&pieces, FileHash::None);
            prop_assert_eq!(sums.chunks, bytes.chunks(CHUNK).map(crc32c::crc32c).collect::<Vec<_>>());
        }
    }
}
