//! Batches of writes: rows are appended in place, sent in one message, answered row by row.

use std::time::{SystemTime, UNIX_EPOCH};

use abs_asb::Digest;

use crate::connection::Connection;
use crate::message::{
    HEADER, RequestHeader, be_u16, be_u32, close_envelope, field, info1, info2, info3, op, open_envelope,
    push_field, split_field,
};
use crate::{ClusterError, ResultCode};

/// The TTL of a record that never expires.
pub const TTL_NEVER: u32 = u32::MAX;
/// The longest time to live the server takes: ten years, in seconds.
const TTL_MAX: u32 = 10 * 365 * 24 * 3600;
/// Unix time of the epoch of void times, 2010-01-01T00:00:00Z.
const VOID_TIME_EPOCH: u64 = 1_262_304_000;

/// Now as a void time: seconds since 2010-01-01T00:00:00Z.
#[must_use]
pub fn void_time_now() -> u32 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    unix.saturating_sub(VOID_TIME_EPOCH) as u32
}

/// What a write does about a stored record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exists {
    /// Creates the record, or changes the bins that the row has.
    #[default]
    Update,
    /// Changes a stored record only (else code 2).
    UpdateOnly,
    /// Creates the record or replaces the stored one whole.
    Replace,
    /// Replaces a stored record only (else code 2).
    ReplaceOnly,
    /// Creates the record only (else code 5).
    CreateOnly,
}

/// What a write asks of the stored generation (else code 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// Nothing.
    #[default]
    Any,
    /// To equal this.
    Equal(u16),
    /// To be less than this.
    Less(u16),
}

/// What is said once per row.
#[derive(Clone, Copy, Debug)]
pub struct RowHead {
    /// The record's digest.
    pub digest: Digest,
    /// What to do about a stored record.
    pub exists: Exists,
    /// What to ask of the stored generation.
    pub generation: Generation,
    /// Seconds to live from now; 0 for the namespace's default, [`TTL_NEVER`].
    pub ttl: u32,
}

/// Flags of a whole batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchFlags {
    /// Write in the thread that reads the request when the namespace is in memory: about 1.5 times as fast.
    pub inline: bool,
    /// The same for namespaces on SSD.
    pub inline_ssd: bool,
}

// Layout of a row: index 4, digest 20, flags 1, info1..3 3, generation 2, ttl 4, fields 2, ops 2, then fields, ops.
const ROW_HEAD: usize = 38;
const ROW_GENERATION: usize = 28;
const ROW_TTL: usize = 30;
const ROW_FIELDS: usize = 34;
const ROW_OPS: usize = 36;
/// Row carries info bits, a generation and a TTL.
const ROW_FLAGS: u8 = 0x02 | 0x04 | 0x08;
/// Bytes of the message before its first row: envelope, header, field head, row count, batch flags.
const PREFIX: usize = 8 + HEADER + 5 + 5;

/// A batch of rows for one node.
#[derive(Debug)]
pub struct BatchMessage {
    bytes: Vec<u8>,
    /// Where each row starts.
    rows: Vec<u32>,
    /// Rows, in their order, of records that expire, and when: a write says how long from now, so their TTL is filled
    /// in when the batch is sent.
    expiring: Vec<(u32, u32)>,
    /// The namespace field that begins each row.
    namespace: Vec<u8>,
    flags: u8,
    /// Seconds by which the cluster's clock is ahead of ours.
    ahead: i32,
}

impl BatchMessage {
    /// An empty batch for `namespace`.
    #[must_use]
    pub fn new(namespace: &str, flags: BatchFlags) -> Self {
        let mut field = Vec::with_capacity(namespace.len() + 5);
        push_field(&mut field, field::NAMESPACE, namespace.as_bytes());
        let mut batch = Self {
            bytes: Vec::new(),
            rows: Vec::new(),
            expiring: Vec::new(),
            namespace: field,
            // 4: answer every row, whatever happened to the others.
            flags: 4 | u8::from(flags.inline) | u8::from(flags.inline_ssd) << 1,
            ahead: 0,
        };
        batch.clear();
        batch
    }

    /// Counts times to live by a clock that is ahead of ours by so many seconds.
    #[must_use]
    pub fn by_clock_ahead(self, seconds: i32) -> Self {
        Self { ahead: seconds, ..self }
    }

    /// Forgets all rows and keeps the buffer.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.expiring.clear();
        self.bytes.clear();
        self.bytes.resize(PREFIX, 0);
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of the message.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The digest of a row.
    #[must_use]
    pub fn digest(&self, row: usize) -> Digest {
        let start = self.rows[row] as usize;
        let mut digest = Digest::default();
        digest.copy_from_slice(&self.bytes[start + 4..start + 24]);
        digest
    }

    /// The generation that the row's head gives; 0 if it asks nothing of the stored one.
    #[must_use]
    pub fn generation(&self, row: usize) -> u16 {
        let at = self.rows[row] as usize + ROW_GENERATION;
        u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    /// Starts a row. It becomes part of the batch by [`Row::finish`] and leaves no trace otherwise.
    #[inline]
    pub fn row(&mut self, head: &RowHead) -> Row<'_> {
        let start = self.bytes.len();
        let (mut write, replace) = match head.exists {
            Exists::Update => (info2::WRITE, 0),
            Exists::UpdateOnly => (info2::WRITE, info3::UPDATE_ONLY),
            Exists::Replace => (info2::WRITE, info3::CREATE_OR_REPLACE),
            Exists::ReplaceOnly => (info2::WRITE, info3::REPLACE_ONLY),
            Exists::CreateOnly => (info2::WRITE | info2::CREATE_ONLY, 0),
        };
        let generation = match head.generation {
            Generation::Any => 0,
            Generation::Equal(generation) => {
                write |= info2::GENERATION;
                generation
            }
            Generation::Less(generation) => {
                write |= info2::GENERATION_GT;
                generation
            }
        };
        let mut fixed = [0; ROW_HEAD];
        fixed[..4].copy_from_slice(&(self.rows.len() as u32).to_be_bytes());
        fixed[4..24].copy_from_slice(&head.digest);
        fixed[24..28].copy_from_slice(&[ROW_FLAGS, 0, write, replace]);
        fixed[28..30].copy_from_slice(&generation.to_be_bytes());
        fixed[30..34].copy_from_slice(&head.ttl.to_be_bytes());
        self.bytes.extend_from_slice(&fixed);
        self.bytes.extend_from_slice(&self.namespace);
        Row { batch: self, start, until: None, fields: 1, ops: 0 }
    }

    /// Appends a row of another batch of the same namespace.
    pub fn append_row_of(&mut self, other: &Self, row: usize) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(other.row_bytes(row));
        self.bytes[start..start + 4].copy_from_slice(&(self.rows.len() as u32).to_be_bytes());
        if let Ok(found) = other.expiring.binary_search_by_key(&(row as u32), |&(row, _)| row) {
            self.expiring.push((self.rows.len() as u32, other.expiring[found].1));
        }
        self.rows.push(start as u32);
    }

    /// Fills in how long from `now` the records live that expire. One whose time has come meanwhile gets a second.
    fn fill_ttls(&mut self, now: u32) {
        for &(row, void_time) in &self.expiring {
            let ttl = void_time.saturating_sub(now).clamp(1, TTL_MAX);
            let at = self.rows[row as usize] as usize + ROW_TTL;
            self.bytes[at..at + 4].copy_from_slice(&ttl.to_be_bytes());
        }
    }

    fn row_bytes(&self, row: usize) -> &[u8] {
        let end = self.rows.get(row + 1).map_or(self.bytes.len(), |&next| next as usize);
        &self.bytes[self.rows[row] as usize..end]
    }

    /// Completes the message's lengths and counts and returns its bytes.
    fn message(&mut self) -> &[u8] {
        self.fill_ttls(void_time_now().saturating_add_signed(self.ahead));
        let field_length = (self.bytes.len() - 8 - HEADER - 4) as u32;
        let mut prefix = Vec::with_capacity(PREFIX);
        open_envelope(&mut prefix);
        RequestHeader { info1: info1::BATCH, fields: 1, ..RequestHeader::default() }.append_to(&mut prefix);
        prefix.extend_from_slice(&field_length.to_be_bytes());
        prefix.push(field::BATCH);
        prefix.extend_from_slice(&(self.rows.len() as u32).to_be_bytes());
        prefix.push(self.flags);
        self.bytes[..PREFIX].copy_from_slice(&prefix);
        close_envelope(&mut self.bytes, 0);
        &self.bytes
    }

    /// The same rows as single writes, one message each.
    fn singles(&mut self) -> Vec<u8> {
        self.fill_ttls(void_time_now().saturating_add_signed(self.ahead));
        let mut out = Vec::with_capacity(self.bytes.len() + self.len() * 24);
        for row in 0..self.len() {
            let row = self.row_bytes(row);
            let short = |at: usize| u16::from_be_bytes([row[at], row[at + 1]]);
            let start = open_envelope(&mut out);
            RequestHeader {
                info2: row[26],
                info3: row[27],
                generation: u32::from(short(28)),
                ttl: u32::from(short(ROW_TTL)) << 16 | u32::from(short(ROW_TTL + 2)),
                fields: short(ROW_FIELDS) + 1,
                ops: short(ROW_OPS),
                ..RequestHeader::default()
            }
            .append_to(&mut out);
            push_field(&mut out, field::DIGEST, &row[4..24]);
            out.extend_from_slice(&row[ROW_HEAD..]);
            let end = out.len();
            close_envelope(&mut out[..end], start);
        }
        out
    }
}

/// A row being written; dropped without [`finish`](Self::finish) it leaves no trace.
#[derive(Debug)]
pub struct Row<'a> {
    batch: &'a mut BatchMessage,
    start: usize,
    until: Option<u32>,
    fields: u16,
    ops: u16,
}

impl Row<'_> {
    /// The record expires at this void time (seconds since 2010-01-01T00:00:00Z), whenever the batch is sent. Takes
    /// the place of the TTL in the head.
    #[inline]
    pub fn until(&mut self, void_time: u32) {
        self.until = Some(void_time);
    }

    /// The record's set; `name` appends its bytes.
    #[inline]
    pub fn set<E>(&mut self, name: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.field(field::SET, name)
    }

    /// The record's key, to be stored; `value` appends the bytes of the particle.
    #[inline]
    pub fn key<E>(
        &mut self,
        particle: u8,
        value: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.field(field::KEY, |out| {
            out.push(particle);
            value(out)
        })
    }

    #[inline]
    fn field<E>(&mut self, kind: u8, data: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let out = &mut self.batch.bytes;
        let start = out.len();
        out.extend_from_slice(&[0, 0, 0, 0, kind]);
        data(out)?;
        fill_length(out, start);
        self.fields += 1;
        Ok(())
    }

    /// One bin; `name` and `value` append their bytes.
    #[inline]
    pub fn bin<E>(
        &mut self,
        particle: u8,
        name: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        value: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let out = &mut self.batch.bytes;
        let start = out.len();
        out.extend_from_slice(&[0, 0, 0, 0, op::WRITE, particle, 0, 0]);
        name(out)?;
        out[start + 7] = (out.len() - start - 8) as u8;
        value(out)?;
        fill_length(out, start);
        self.ops += 1;
        Ok(())
    }

    /// Number of bins so far.
    #[must_use]
    pub fn bins(&self) -> u16 {
        self.ops
    }

    /// Makes the row part of the batch.
    #[inline]
    pub fn finish(self) {
        let (start, fields, ops) = (self.start, self.fields, self.ops);
        self.batch.bytes[start + ROW_FIELDS..start + ROW_OPS].copy_from_slice(&fields.to_be_bytes());
        self.batch.bytes[start + ROW_OPS..start + ROW_HEAD].copy_from_slice(&ops.to_be_bytes());
        if let Some(void_time) = self.until {
            self.batch.expiring.push((self.batch.rows.len() as u32, void_time));
        }
        self.batch.rows.push(start as u32);
    }
}

impl Drop for Row<'_> {
    #[inline]
    fn drop(&mut self) {
        // Rows and bytes disagree exactly when this row was not finished.
        if self.batch.rows.last().is_none_or(|&last| (last as usize) < self.start) {
            self.batch.bytes.truncate(self.start);
        }
    }
}

#[inline]
fn fill_length(out: &mut [u8], start: usize) {
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// The answers to the rows of a batch, in the order of the rows; `None` where no answer came.
pub type RowResults = Vec<Option<ResultCode>>;

impl Connection {
    /// Sends a batch and reads the answer to each row into `results`.
    ///
    /// After an error `results` holds what was answered until then; the other rows may have been written.
    pub async fn write_batch(
        &mut self,
        batch: &mut BatchMessage,
        results: &mut RowResults,
    ) -> Result<(), ClusterError> {
        results.clear();
        results.resize(batch.len(), None);
        self.send(batch.message()).await?;
        loop {
            let body = self.receive().await?;
            let mut rest = self.body(body);
            while !rest.is_empty() {
                let (header, after) = split_reply(rest).map_err(|what| self.malformed(what))?;
                rest = after;
                let code = ResultCode(header[5]);
                if header[3] & info3::LAST != 0 {
                    if code != ResultCode::OK {
                        // The batch as a whole was refused: so was every row that has no answer of its own.
                        for result in results.iter_mut() {
                            *result = result.or(Some(code));
                        }
                    }
                    return Ok(());
                }
                match results.get_mut(be_u32(header, 14) as usize) {
                    Some(result) => *result = Some(code),
                    None => return Err(self.malformed("answer to a row that was not sent")),
                }
            }
        }
    }

    /// The same as [`write_batch`](Self::write_batch) with a message for each row, pipelined; for servers and
    /// namespaces where batch writes are not allowed.
    pub async fn write_singly(
        &mut self,
        batch: &mut BatchMessage,
        results: &mut RowResults,
    ) -> Result<(), ClusterError> {
        results.clear();
        results.resize(batch.len(), None);
        self.send(&batch.singles()).await?;
        for result in results.iter_mut() {
            let body = self.receive().await?;
            let (header, _) = split_reply(self.body(body)).map_err(|what| self.malformed(what))?;
            *result = Some(ResultCode(header[5]));
        }
        Ok(())
    }
}

/// Splits a reply without ops off the body of an envelope.
fn split_reply(body: &[u8]) -> Result<(&[u8; HEADER], &[u8]), &'static str> {
    let (header, mut rest) = body.split_first_chunk::<HEADER>().ok_or("message header cut short")?;
    if usize::from(header[0]) != HEADER {
        return Err("message header of another size");
    }
    for _ in 0..be_u16(header, 18) {
        rest = split_field(rest).ok_or("field cut short")?.2;
    }
    for _ in 0..be_u16(header, 20) {
        let (length, after) = rest.split_first_chunk::<4>().ok_or("op cut short")?;
        rest = after.get(u32::from_be_bytes(*length) as usize..).ok_or("op cut short")?;
    }
    Ok((header, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(first: u8) -> RowHead {
        RowHead {
            digest: [first; 20],
            exists: Exists::CreateOnly,
            generation: Generation::Less(3),
            ttl: TTL_NEVER,
        }
    }

    fn fill(batch: &mut BatchMessage, first: u8) {
        let mut row = batch.row(&head(first));
        row.set::<()>(|out| {
            out.extend_from_slice(b"s");
            Ok(())
        })
        .unwrap();
        row.bin::<()>(
            1,
            |out| {
                out.push(b'a');
                Ok(())
            },
            |out| {
                out.extend_from_slice(&[0; 8]);
                Ok(())
            },
        )
        .unwrap();
        row.finish();
    }

    #[test]
    fn an_unfinished_row_leaves_no_trace() {
        let mut batch = BatchMessage::new("test", BatchFlags::default());
        fill(&mut batch, 1);
        let before = batch.bytes.clone();
        let mut row = batch.row(&head(2));
        assert_eq!(
            row.bin::<()>(
                1,
                |out| {
                    out.push(b'a');
                    Ok(())
                },
                |_| Err(())
            ),
            Err(())
        );
        drop(row);
        assert_eq!(batch.bytes, before);
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn rows_lie_as_the_server_reads_them() {
        let mut batch = BatchMessage::new("test", BatchFlags { inline: true, inline_ssd: false });
        fill(&mut batch, 1);
        fill(&mut batch, 2);
        let mut other = BatchMessage::new("test", BatchFlags::default());
        other.append_row_of(&batch, 1);
        assert_eq!(other.digest(0), [2; 20]);
        assert_eq!(other.row_bytes(0)[4..], batch.row_bytes(1)[4..]);
        assert_eq!(other.row_bytes(0)[..4], [0; 4]);
        let bytes = batch.message().to_vec();
        assert_eq!(bytes[..2], [2, 3]);
        assert_eq!(
            crate::message::parse_envelope(&bytes, crate::message::TYPE_MESSAGE).unwrap(),
            bytes.len() - 8
        );
        let (kind, data, rest) = split_field(&bytes[8 + HEADER..]).unwrap();
        assert_eq!((kind, rest.len()), (field::BATCH, 0));
        assert_eq!(data[..5], [0, 0, 0, 2, 5]);
        let row = &data[5..];
        // 0x29: write, create only, generation greater; fields and ops counted behind the TTL.
        assert_eq!(row[24..38], [0x0e, 0, 0x29, 0, 0, 3, 0xff, 0xff, 0xff, 0xff, 0, 2, 0, 1]);
    }

    /// Protects: the time to live is counted from when a batch is sent, also of rows that are sent again.
    #[test]
    fn expiring_rows_get_their_ttl_when_they_are_sent() {
        let mut batch = BatchMessage::new("test", BatchFlags::default());
        for (number, void_time) in [(1, None), (2, Some(5000)), (3, Some(10)), (4, Some(u32::MAX))] {
            let mut row = batch.row(&RowHead { ttl: 7, ..head(number) });
            if let Some(void_time) = void_time {
                row.until(void_time);
            }
            row.finish();
        }
        let ttls = |batch: &BatchMessage| {
            (0..batch.len()).map(|row| batch.row_bytes(row)[30..34].to_vec()).collect::<Vec<_>>()
        };
        let bytes = |ttl: u32| ttl.to_be_bytes().to_vec();
        batch.fill_ttls(1000);
        assert_eq!(ttls(&batch), [bytes(7), bytes(4000), bytes(1), bytes(TTL_MAX)]);
        let mut again = BatchMessage::new("test", BatchFlags::default());
        for row in [3, 0, 1] {
            again.append_row_of(&batch, row);
        }
        again.fill_ttls(2000);
        assert_eq!(ttls(&again), [bytes(TTL_MAX), bytes(7), bytes(3000)]);
        again.clear();
        again.append_row_of(&batch, 0);
        again.fill_ttls(3000);
        assert_eq!(ttls(&again), [bytes(7)]);
    }
}
