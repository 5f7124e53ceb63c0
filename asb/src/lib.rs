//! The .asb backup file: its text and its framing, as pure functions over byte buffers. No input or output, no async.
//!
//! Writing: [`Encoder`] appends text straight from the server's bytes, [`FrameWriter`] compresses and encrypts it.
//! Reading: [`Decryptor`] and [`Decompressor`] give the text back, [`Header`] and [`Skimmer`] cut it into blocks of
//! whole items, [`Items`] reads a block in place and gives the server's bytes back.

mod base64;
mod collection;
mod cursor;
mod encode;
mod error;
mod escape;
mod float;
mod frame;
mod gcm;
mod global;
mod header;
mod items;
mod key;
mod lines;
mod particle;
mod skim;
mod value;

pub use encode::{Encoder, RecordHead, WireBin, WireKey};
pub use error::{AsbError, AsbErrorKind, EncodeError, FileError, FrameError, KeyError, Position, Shown};
pub use escape::Name;
pub use frame::{Content, Decompressor, Decryptor, ENCRYPTION_HEAD, FrameWriter, sniff};
pub use gcm::{FileOrigin, GcmHead};
pub use global::{IndexData, IndexKind, SecondaryIndex, Udf, UdfLanguage};
pub use header::{Header, Version};
pub use items::{Bin, Item, Items, Record};
pub use key::{Cipher, EncryptionKey};
pub use particle::{Digest, ParticleType};
pub use skim::{Skim, Skimmer};
pub use value::TextValue;

/// The longest item that is read, in bytes: a record of the server's 8 MiB takes 11 MiB in base64.
pub const MAX_ITEM: usize = 32 << 20;
