//! A stored record: its metadata, and its bins in the form in which they leave in a reply.

use std::borrow::Cow;

use crate::message::{OP_HEAD, Ops, field, op, put_field, put_op};
use crate::namespace::SetId;
use crate::result_code::{Outcome, ResultCode};

/// The name of a record inside its namespace.
pub(crate) type Digest = [u8; 20];

/// How many partitions a namespace has.
pub const PARTITIONS: usize = 4096;

/// The partition of a digest: the low 12 bits of its first two bytes, read little-endian.
#[must_use]
pub fn partition_of(digest: &[u8; 20]) -> usize {
    usize::from(u16::from_le_bytes([digest[0], digest[1]])) & (PARTITIONS - 1)
}

/// The largest record the server keeps, in bytes of its bins and key.
pub(crate) const MAX_RECORD: usize = 8 * 1024 * 1024;
/// The most bins a record has.
pub(crate) const MAX_BINS: usize = 0x7fff;
/// What a record costs besides its own bytes, as the real server's index entry does.
const OVERHEAD: u64 = 64;

/// A record as it is kept. Everything a reply holds after the digest is one piece of memory.
#[derive(Debug)]
pub(crate) struct Record {
    /// Last update, in ms since 2010.
    pub(crate) last_update: u64,
    /// In s since 2010, 0 = never expires.
    pub(crate) void_time: u32,
    key_len: u32,
    pub(crate) generation: u16,
    pub(crate) set: SetId,
    n_bins: u16,
    /// The user key (particle type byte and data, may be empty), then one READ operation per bin.
    data: Box<[u8]>,
}

impl Record {
    /// Packs a record. Fails when it has more bins or bytes than the server takes.
    pub(crate) fn pack(meta: &Meta<'_>, bins: &Bins<'_>) -> Outcome<Record> {
        if bins.0.len() > MAX_BINS {
            return Err(ResultCode::PARAMETER);
        }
        let key = meta.key.unwrap_or_default();
        let len =
            key.len() + bins.0.iter().map(|bin| OP_HEAD + bin.name.len() + bin.value.len()).sum::<usize>();
        if len > MAX_RECORD {
            return Err(ResultCode::RECORD_TOO_BIG);
        }
        let mut data = Vec::with_capacity(len);
        data.extend_from_slice(key);
        for bin in &bins.0 {
            put_op(&mut data, op::READ, bin.particle, bin.name, &bin.value);
        }
        Ok(Record {
            last_update: meta.last_update,
            void_time: meta.void_time,
            key_len: key.len() as u32,
            generation: meta.generation,
            set: meta.set,
            n_bins: bins.0.len() as u16,
            data: data.into_boxed_slice(),
        })
    }

    /// The stored user key, particle type first.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        (self.key_len > 0).then(|| &self.data[..self.key_len as usize])
    }

    fn bin_bytes(&self) -> &[u8] {
        &self.data[self.key_len as usize..]
    }

    /// The bins, borrowed.
    pub(crate) fn bins(&self) -> Bins<'_> {
        let mut bytes = self.bin_bytes();
        let ops = Ops::take(&mut bytes, self.n_bins).unwrap_or_default();
        Bins(
            ops.into_iter()
                .map(|op| Bin { name: op.name, particle: op.particle, value: Cow::Borrowed(op.value) })
                .collect(),
        )
    }

    /// One bin, by name.
    pub(crate) fn bin(&self, name: &[u8]) -> Option<(u8, &[u8])> {
        let mut bytes = self.bin_bytes();
        let ops = Ops::take(&mut bytes, self.n_bins).unwrap_or_default();
        ops.into_iter().find(|op| op.name == name).map(|op| (op.particle, op.value))
    }

    /// The record without its bins.
    pub(crate) fn meta(&self) -> Meta<'_> {
        Meta {
            last_update: self.last_update,
            void_time: self.void_time,
            generation: self.generation,
            set: self.set,
            size: self.data.len(),
            key: self.key(),
        }
    }

    pub(crate) fn is_expired(&self, now_secs: u32) -> bool {
        self.void_time != 0 && self.void_time < now_secs
    }

    /// What the record counts for against the memory limit.
    pub(crate) fn footprint(&self) -> u64 {
        self.data.len() as u64 + OVERHEAD
    }

    pub(crate) fn n_bins(&self) -> u16 {
        self.n_bins
    }

    /// Appends the record's fields of a query reply, returning how many.
    pub(crate) fn put_fields(&self, out: &mut Vec<u8>, namespace: &str, set: &[u8], digest: &Digest) -> u16 {
        let mut n_fields = 2;
        put_field(out, field::NAMESPACE, &[namespace.as_bytes()]);
        put_field(out, field::DIGEST, &[digest]);
        if !set.is_empty() {
            put_field(out, field::SET, &[set]);
            n_fields += 1;
        }
        if let Some(key) = self.key() {
            put_field(out, field::KEY, &[key]);
            n_fields += 1;
        }
        n_fields
    }

    /// Appends all bins as READ operations.
    pub(crate) fn put_bins(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.bin_bytes());
    }
}

/// What is known of a record besides its bins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta<'a> {
    pub(crate) last_update: u64,
    pub(crate) void_time: u32,
    pub(crate) generation: u16,
    pub(crate) set: SetId,
    /// Bytes of bins and key.
    pub(crate) size: usize,
    pub(crate) key: Option<&'a [u8]>,
}

/// Where a reader finds bins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BinSource<'a> {
    /// As stored.
    Stored(&'a Record),
    /// In the middle of a write.
    Working(&'a Bins<'a>),
}

impl<'a> BinSource<'a> {
    pub(crate) fn get(&self, name: &[u8]) -> Option<(u8, &'a [u8])> {
        match self {
            BinSource::Stored(record) => record.bin(name),
            BinSource::Working(bins) => bins.get(name).map(|bin| (bin.particle, bin.value.as_ref())),
        }
    }
}

/// A bin of a record being read or written.
#[derive(Clone, Debug)]
pub(crate) struct Bin<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) particle: u8,
    pub(crate) value: Cow<'a, [u8]>,
}

/// The bins of a record being read or written, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bins<'a>(pub(crate) Vec<Bin<'a>>);

impl<'a> Bins<'a> {
    fn position(&self, name: &[u8]) -> Option<usize> {
        self.0.iter().position(|bin| bin.name == name)
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&Bin<'a>> {
        self.position(name).map(|at| &self.0[at])
    }

    pub(crate) fn set(&mut self, name: &'a [u8], particle: u8, value: Cow<'a, [u8]>) {
        match self.position(name) {
            Some(at) => self.0[at] = Bin { name, particle, value },
            None => self.0.push(Bin { name, particle, value }),
        }
    }

    pub(crate) fn remove(&mut self, name: &[u8]) {
        if let Some(at) = self.position(name) {
            self.0.remove(at);
        }
    }
}
