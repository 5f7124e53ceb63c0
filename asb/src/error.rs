//! What can go wrong, in one line each.

use std::fmt;

/// A place in a file's text: after decompression and decryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line, counted from 1; every line feed byte ends one, those inside values too.
    pub line: u64,
    /// Bytes before this place.
    pub offset: u64,
}

impl Position {
    /// The first byte of a file.
    pub const START: Self = Self { line: 1, offset: 0 };
}

/// Text that is not the .asb format, and where it stops being it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column} (byte {offset}): {kind}")]
pub struct AsbError {
    /// Line, counted from 1.
    pub line: u64,
    /// Byte within the line, counted from 1.
    pub column: u64,
    /// Bytes of text before the error.
    pub offset: u64,
    /// What is wrong there.
    pub kind: AsbErrorKind,
}

impl AsbError {
    /// The error at `block[at]`, `block` being text that begins a line at `start`.
    #[cold]
    pub(crate) fn at(block: &[u8], start: Position, at: usize, kind: AsbErrorKind) -> Self {
        let before = &block[..at.min(block.len())];
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |feed| feed + 1);
        Self {
            line: start.line + memchr::memchr_iter(b'\n', before).count() as u64,
            column: (before.len() - line_start) as u64 + 1,
            offset: start.offset + before.len() as u64,
            kind,
        }
    }

    /// The same error, to be shown with the name of its file in front.
    #[must_use]
    pub fn in_file(self, file: impl Into<String>) -> FileError {
        FileError { file: file.into(), error: self }
    }
}

/// An [`AsbError`] and the file it is in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {error}")]
pub struct FileError {
    /// The file, as the user knows it.
    pub file: String,
    /// Place and kind.
    pub error: AsbError,
}

/// What is wrong at a place of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AsbErrorKind {
    /// Another byte stands where only this may.
    #[error("expected {0}")]
    Expected(&'static str),
    /// The text ends before the header or item does.
    #[error("the text ends inside {0}")]
    Truncated(&'static str),
    /// A version this crate does not know.
    #[error("backup version {0} is not supported, only 3.1 and 3.2 are")]
    Version(Shown),
    /// A `-` line of no known type.
    #[error("unknown bin type {0}")]
    BinType(Shown),
    /// A `+ k` line of no known type.
    #[error("unknown key type {0}")]
    KeyType(Shown),
    /// A large data type: no server since 3.15 has them.
    #[error("large data types are not supported: record {0}")]
    LargeDataType(String),
    /// A backslash before a byte that needs none.
    #[error("a backslash must be followed by a space, a line feed or a backslash")]
    Escape,
    /// A name longer than the server allows.
    #[error("{what} is longer than {limit} bytes")]
    NameTooLong {
        /// Which name.
        what: &'static str,
        /// Its limit in unescaped bytes.
        limit: usize,
    },
    /// A number that is not one, is not in its shortest form or is out of its range.
    #[error("{0} is not a number in its range")]
    Number(&'static str),
    /// An item longer than [`MAX_ITEM`](crate::MAX_ITEM).
    #[error("the item is longer than {} bytes", crate::MAX_ITEM)]
    ItemTooLong,
    /// A bin value or key that is not a double.
    #[error("not a double")]
    Double,
    /// Text that is not padded, canonical base64.
    #[error("not base64")]
    Base64,
    /// A list or map whose bytes are not one.
    #[error("{0}")]
    Collection(&'static str),
    /// A name of an index or UDF that is not UTF-8.
    #[error("{0} is not UTF-8")]
    Utf8(&'static str),
}

/// Bytes of a file, shown so that they cannot hurt a terminal.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown(pub(crate) Box<[u8]>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<&[u8]> for Shown {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

/// A record as the server sent it that the format cannot carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A particle type this crate does not know.
    #[error("{place}: unknown particle type {particle}")]
    ParticleType {
        /// `bin "name"` or `the user key`.
        place: String,
        /// The type byte.
        particle: u8,
    },
    /// A particle whose bytes are not of its type.
    #[error("{place}: {len} bytes are no particle of type {particle}")]
    Particle {
        /// `bin "name"` or `the user key`.
        place: String,
        /// The type byte.
        particle: u8,
        /// How many bytes the value has.
        len: usize,
    },
    /// A name longer than the server allows.
    #[error("{place}: the name is longer than {limit} bytes")]
    NameTooLong {
        /// Whose name.
        place: String,
        /// Its limit in bytes.
        limit: usize,
    },
    /// More or fewer bins than the record's head says.
    #[error("the record does not have the {0} bins its head says")]
    BinCount(u16),
}

/// A failure below the text: compression, encryption or the source of random bytes.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A level that zstd does not have.
    #[error("zstd has no compression level {0}")]
    Level(i32),
    /// zstd refused to compress.
    #[error("cannot compress: {0}")]
    Compress(#[source] std::io::Error),
    /// The bytes are not zstd's, or damaged.
    #[error("cannot decompress: {0}")]
    Decompress(#[source] std::io::Error),
    /// AES-GCM does not take the key or the chunk.
    #[error("AES-GCM does not take the key or the text")]
    Gcm,
    /// The head of a file is not one of AES-GCM.
    #[error("the head of the file is damaged")]
    Head,
    /// A chunk is not what was written at this place of this file.
    #[error("its bytes {start} to {end} are not those that were written: the file was cut or changed")]
    Forged {
        /// The place of its first byte.
        start: u64,
        /// The place of its last byte.
        end: u64,
    },
    /// The system gave no random bytes for an initialisation vector or a salt.
    #[error("cannot get random bytes: {0}")]
    Random(getrandom::Error),
}

/// Why a text is no encryption key. Never shows any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither PEM nor base64.
    #[error("the encryption key is neither PEM nor base64")]
    Encoding,
    /// A PEM of something else.
    #[error("the encryption key's PEM holds no private key")]
    NoPrivateKey,
    /// A key that needs a password.
    #[error("the encryption key is protected by a password")]
    Protected,
    /// A private key, but not of RSA, or a damaged one.
    #[error("the encryption key is not an RSA private key in PKCS#8 or PKCS#1 form")]
    NotRsa,
}
