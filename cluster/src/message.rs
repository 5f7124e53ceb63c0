//! The message format of the wire (`as/include/base/proto.h` of the server names the fields and bits).

use abs_asb::{Digest, RecordHead, WireBin, WireKey};

use crate::ResultCode;

/// Bytes of the envelope before each message: version, type and a 48-bit length.
pub(crate) const ENVELOPE: usize = 8;
/// Bytes of a message header.
pub(crate) const HEADER: usize = 22;
/// No message of the server is larger.
const BODY_MAX: usize = 128 << 20;

const VERSION: u8 = 2;
pub(crate) const TYPE_ADMIN: u8 = 2;
pub(crate) const TYPE_MESSAGE: u8 = 3;
const TYPE_COMPRESSED: u8 = 4;

pub(crate) mod info1 {
    pub const READ: u8 = 1;
    pub const GET_ALL: u8 = 2;
    pub const BATCH: u8 = 8;
    pub const GET_NO_BINS: u8 = 32;
}

pub(crate) mod info2 {
    pub const WRITE: u8 = 1;
    pub const GENERATION: u8 = 4;
    pub const GENERATION_GT: u8 = 8;
    pub const CREATE_ONLY: u8 = 32;
}

pub(crate) mod info3 {
    pub const LAST: u8 = 1;
    pub const PARTITION_DONE: u8 = 4;
    pub const UPDATE_ONLY: u8 = 8;
    pub const CREATE_OR_REPLACE: u8 = 16;
    pub const REPLACE_ONLY: u8 = 32;
}

pub(crate) mod field {
    pub const NAMESPACE: u8 = 0;
    pub const SET: u8 = 1;
    pub const KEY: u8 = 2;
    pub const DIGEST: u8 = 4;
    pub const TRID: u8 = 7;
    pub const SOCKET_TIMEOUT: u8 = 9;
    pub const RECS_PER_SEC: u8 = 10;
    pub const PID_ARRAY: u8 = 11;
    pub const DIGEST_ARRAY: u8 = 12;
    pub const SAMPLE_MAX: u8 = 13;
    pub const BATCH: u8 = 41;
    pub const FILTER_EXP: u8 = 43;
}

pub(crate) mod op {
    pub const READ: u8 = 1;
    pub const WRITE: u8 = 2;
    pub const EXP_READ: u8 = 7;
}

/// Reads an envelope of a message of this type and returns the length of the body behind it.
pub(crate) fn parse_envelope(bytes: &[u8], expected: u8) -> Result<usize, &'static str> {
    let [version, kind, length @ ..] = bytes.first_chunk::<ENVELOPE>().ok_or("envelope cut short")?;
    let size = length.iter().fold(0_usize, |size, &byte| size << 8 | usize::from(byte));
    match (*version, *kind) {
        (VERSION, kind) if kind == expected && size <= BODY_MAX => Ok(size),
        (VERSION, kind) if kind == expected => Err("message longer than 128 MiB"),
        (VERSION, TYPE_COMPRESSED) => Err("compressed message that was not asked for"),
        _ => Err("not a message envelope"),
    }
}

/// The envelope of a message of known length.
pub(crate) fn envelope(kind: u8, size: usize) -> [u8; ENVELOPE] {
    (u64::from(VERSION) << 56 | u64::from(kind) << 48 | size as u64).to_be_bytes()
}

/// Appends an envelope whose length is still unknown; [`close_envelope`] fills it in.
pub(crate) fn open_envelope(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&envelope(TYPE_MESSAGE, 0));
    start
}

/// Fills in the length of the envelope that begins at `start`.
pub(crate) fn close_envelope(out: &mut [u8], start: usize) {
    let size = (out.len() - start - ENVELOPE) as u64;
    out[start + 2..start + ENVELOPE].copy_from_slice(&size.to_be_bytes()[2..]);
}

/// The header of a request.
#[derive(Clone, Copy, Default)]
pub(crate) struct RequestHeader {
    pub info1: u8,
    pub info2: u8,
    pub info3: u8,
    pub generation: u32,
    pub ttl: u32,
    /// Milliseconds the server may take, 0 for its default.
    pub timeout: u32,
    pub fields: u16,
    pub ops: u16,
}

impl RequestHeader {
    pub(crate) fn append_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[HEADER as u8, self.info1, self.info2, self.info3, 0, 0]);
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.ttl.to_be_bytes());
        out.extend_from_slice(&self.timeout.to_be_bytes());
        out.extend_from_slice(&self.fields.to_be_bytes());
        out.extend_from_slice(&self.ops.to_be_bytes());
    }
}

/// Appends one field of a message.
pub(crate) fn push_field(out: &mut Vec<u8>, kind: u8, data: &[u8]) {
    out.extend_from_slice(&(data.len() as u32 + 1).to_be_bytes());
    out.push(kind);
    out.extend_from_slice(data);
}

/// A record as a scan sent it. All slices point into the receive buffer.
#[derive(Clone, Debug)]
pub struct ScanRecord<'a> {
    /// Its digest, set, key, generation, void time and number of bins.
    pub head: RecordHead<'a>,
    /// Its bins.
    pub bins: Bins<'a>,
    /// Bytes of the whole message on the wire.
    pub wire_bytes: usize,
}

/// The bins of a record, in the server's order.
#[derive(Clone, Debug)]
pub struct Bins<'a> {
    /// Whole ops, checked when the message was read.
    ops: &'a [u8],
}

impl<'a> Iterator for Bins<'a> {
    type Item = WireBin<'a>;

    #[inline]
    fn next(&mut self) -> Option<WireBin<'a>> {
        let (bin, rest) = split_op(self.ops)?;
        self.ops = rest;
        Some(bin)
    }
}

/// What a scan says: records, the end of each partition, the end of the stream.
#[derive(Clone, Debug)]
pub enum ScanEvent<'a> {
    /// A record.
    Record(ScanRecord<'a>),
    /// A partition has ended; with any code but OK it has not been read to its end.
    PartitionDone {
        /// 0 to 4095.
        partition: u16,
        /// OK or why it ended early.
        code: ResultCode,
    },
    /// The stream has ended.
    Last(ResultCode),
}

/// Splits the first message off the body of an envelope.
#[inline]
pub(crate) fn split_scan_message(body: &[u8]) -> Result<(ScanEvent<'_>, &[u8]), &'static str> {
    let (header, mut rest) = body.split_first_chunk::<HEADER>().ok_or("message header cut short")?;
    if usize::from(header[0]) != HEADER {
        return Err("message header of another size");
    }
    let code = ResultCode(header[5]);
    let generation = be_u32(header, 6);
    if header[3] & info3::LAST != 0 {
        return Ok((ScanEvent::Last(code), rest));
    }
    if header[3] & info3::PARTITION_DONE != 0 {
        let partition = u16::try_from(generation).map_err(|_| "partition id out of range")?;
        return Ok((ScanEvent::PartitionDone { partition, code }, rest));
    }
    if code != ResultCode::OK {
        // A scan that the server refuses as a whole, for example because of its filter, has this one message.
        return Ok((ScanEvent::Last(code), rest));
    }
    let mut digest: Option<&Digest> = None;
    let mut set: &[u8] = &[];
    let mut key = None;
    for _ in 0..be_u16(header, 18) {
        let (kind, data, after) = split_field(rest).ok_or("field cut short")?;
        rest = after;
        match kind {
            field::DIGEST => digest = data.try_into().ok(),
            field::SET => set = data,
            field::KEY => {
                let (&particle, data) = data.split_first().ok_or("empty key field")?;
                key = Some(WireKey { particle, data });
            }
            _ => {}
        }
    }
    let bin_count = be_u16(header, 20);
    let ops_start = rest;
    for _ in 0..bin_count {
        rest = split_op(rest).ok_or("bin cut short")?.1;
    }
    let record = ScanRecord {
        head: RecordHead {
            digest: digest.ok_or("record without a digest")?,
            set,
            key,
            generation,
            void_time: be_u32(header, 10),
            bin_count,
        },
        bins: Bins { ops: &ops_start[..ops_start.len() - rest.len()] },
        wire_bytes: body.len() - rest.len(),
    };
    Ok((ScanEvent::Record(record), rest))
}

/// Splits the first field off: its type, its data and the rest.
#[inline]
pub(crate) fn split_field(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (field, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let (&kind, data) = field.split_first()?;
    Some((kind, data, rest))
}

/// Splits the first op off: length, op, particle type, a zero, name length, name, data.
#[inline]
pub(crate) fn split_op(bytes: &[u8]) -> Option<(WireBin<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (op, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let ([_, particle, _, name_length], op) = op.split_first_chunk::<4>()?;
    let (name, data) = op.split_at_checked(usize::from(*name_length))?;
    Some((WireBin { name, particle: *particle, data }, rest))
}

#[inline]
pub(crate) fn be_u16(bytes: &[u8; HEADER], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub(crate) fn be_u32(bytes: &[u8; HEADER], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
