//! The wire: envelopes, message headers, fields and bin operations (`as/include/base/proto.h`).

/// Flag bits of the first info byte.
pub(crate) mod info1 {
    pub(crate) const READ: u8 = 1;
    pub(crate) const GET_ALL: u8 = 1 << 1;
    pub(crate) const SHORT_QUERY: u8 = 1 << 2;
    pub(crate) const BATCH: u8 = 1 << 3;
    pub(crate) const GET_NO_BINS: u8 = 1 << 5;
}

/// Flag bits of the second info byte.
pub(crate) mod info2 {
    pub(crate) const WRITE: u8 = 1;
    pub(crate) const DELETE: u8 = 1 << 1;
    pub(crate) const GENERATION: u8 = 1 << 2;
    pub(crate) const GENERATION_GT: u8 = 1 << 3;
    pub(crate) const DURABLE_DELETE: u8 = 1 << 4;
    pub(crate) const CREATE_ONLY: u8 = 1 << 5;
    pub(crate) const RESPOND_ALL_OPS: u8 = 1 << 7;
}

/// Flag bits of the third info byte.
pub(crate) mod info3 {
    pub(crate) const LAST: u8 = 1;
    pub(crate) const PARTITION_DONE: u8 = 1 << 2;
    pub(crate) const UPDATE_ONLY: u8 = 1 << 3;
    pub(crate) const CREATE_OR_REPLACE: u8 = 1 << 4;
    pub(crate) const REPLACE_ONLY: u8 = 1 << 5;
}

/// Field types of a message.
pub(crate) mod field {
    pub(crate) const NAMESPACE: u8 = 0;
    pub(crate) const SET: u8 = 1;
    pub(crate) const KEY: u8 = 2;
    pub(crate) const DIGEST: u8 = 4;
    pub(crate) const SOCKET_TIMEOUT: u8 = 9;
    pub(crate) const RECS_PER_SEC: u8 = 10;
    pub(crate) const PID_ARRAY: u8 = 11;
    pub(crate) const DIGEST_ARRAY: u8 = 12;
    pub(crate) const SAMPLE_MAX: u8 = 13;
    pub(crate) const BVAL_ARRAY: u8 = 15;
    pub(crate) const INDEX_NAME: u8 = 21;
    pub(crate) const INDEX_RANGE: u8 = 22;
    pub(crate) const INDEX_CONTEXT: u8 = 23;
    pub(crate) const INDEX_EXPRESSION: u8 = 24;
    pub(crate) const INDEX_TYPE: u8 = 26;
    pub(crate) const UDF_FILENAME: u8 = 30;
    pub(crate) const BATCH: u8 = 41;
    pub(crate) const BATCH_WITH_SET: u8 = 42;
    pub(crate) const FILTER_EXP: u8 = 43;
}

/// Operation codes of a bin operation.
pub(crate) mod op {
    pub(crate) const READ: u8 = 1;
    pub(crate) const WRITE: u8 = 2;
    pub(crate) const CDT_READ: u8 = 3;
    pub(crate) const CDT_MODIFY: u8 = 4;
    pub(crate) const INCR: u8 = 5;
    pub(crate) const EXP_READ: u8 = 7;
    pub(crate) const EXP_MODIFY: u8 = 8;
    pub(crate) const APPEND: u8 = 9;
    pub(crate) const PREPEND: u8 = 10;
    pub(crate) const TOUCH: u8 = 11;
    pub(crate) const BITS_READ: u8 = 12;
    pub(crate) const BITS_MODIFY: u8 = 13;
    pub(crate) const DELETE_ALL: u8 = 14;
    pub(crate) const HLL_READ: u8 = 15;
    pub(crate) const HLL_MODIFY: u8 = 16;
}

/// Length of the envelope in front of every message.
pub(crate) const ENVELOPE: usize = 8;
/// Length of a message header.
pub(crate) const HEADER: usize = 22;
/// The largest message body the server takes.
pub(crate) const MAX_BODY: usize = 128 * 1024 * 1024;
/// Envelope types.
pub(crate) const TYPE_INFO: u8 = 1;
pub(crate) const TYPE_ADMIN: u8 = 2;
pub(crate) const TYPE_MESSAGE: u8 = 3;

pub(crate) fn envelope(kind: u8, body_len: usize) -> [u8; ENVELOPE] {
    ((2u64 << 56) | (u64::from(kind) << 48) | body_len as u64).to_be_bytes()
}

/// A message that does not hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads a big-endian number from the front of `data`.
macro_rules! reader {
    ($name:ident, $int:ty) => {
        pub(crate) fn $name(data: &mut &[u8]) -> Result<$int, Malformed> {
            let (head, rest) = data.split_first_chunk().ok_or(Malformed)?;
            *data = rest;
            Ok(<$int>::from_be_bytes(*head))
        }
    };
}
reader!(take_u8, u8);
reader!(take_u16, u16);
reader!(take_u32, u32);

pub(crate) fn take<'a>(data: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    let (head, rest) = data.split_at_checked(len).ok_or(Malformed)?;
    *data = rest;
    Ok(head)
}

/// The fixed head of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Head {
    pub(crate) info1: u8,
    pub(crate) info2: u8,
    pub(crate) info3: u8,
    pub(crate) result: u8,
    pub(crate) generation: u32,
    /// A relative TTL in requests, an absolute void time in replies.
    pub(crate) ttl: u32,
    /// Milliseconds in requests, the row's index in replies to a batch.
    pub(crate) timeout: u32,
    pub(crate) n_fields: u16,
    pub(crate) n_ops: u16,
}

impl Head {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes());
    }

    pub(crate) fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = HEADER as u8;
        bytes[1] = self.info1;
        bytes[2] = self.info2;
        bytes[3] = self.info3;
        bytes[5] = self.result;
        bytes[6..10].copy_from_slice(&self.generation.to_be_bytes());
        bytes[10..14].copy_from_slice(&self.ttl.to_be_bytes());
        bytes[14..18].copy_from_slice(&self.timeout.to_be_bytes());
        bytes[18..20].copy_from_slice(&self.n_fields.to_be_bytes());
        bytes[20..22].copy_from_slice(&self.n_ops.to_be_bytes());
        bytes
    }

    fn take(data: &mut &[u8]) -> Result<Head, Malformed> {
        let bytes: &[u8; HEADER] = data.first_chunk().ok_or(Malformed)?;
        *data = &data[HEADER..];
        let u32_at = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Ok(Head {
            info1: bytes[1],
            info2: bytes[2],
            info3: bytes[3],
            result: bytes[5],
            generation: u32_at(6),
            ttl: u32_at(10),
            timeout: u32_at(14),
            n_fields: u16::from_be_bytes([bytes[18], bytes[19]]),
            n_ops: u16::from_be_bytes([bytes[20], bytes[21]]),
        })
    }
}

/// The fields of a request the server looks at; others are skipped, as the real server does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fields<'a> {
    pub(crate) namespace: Option<&'a [u8]>,
    pub(crate) set: Option<&'a [u8]>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) digest: Option<&'a [u8]>,
    pub(crate) socket_timeout: Option<&'a [u8]>,
    pub(crate) recs_per_sec: Option<&'a [u8]>,
    pub(crate) pids: Option<&'a [u8]>,
    pub(crate) digests: Option<&'a [u8]>,
    pub(crate) sample_max: Option<&'a [u8]>,
    pub(crate) bvals: Option<&'a [u8]>,
    pub(crate) index_name: Option<&'a [u8]>,
    pub(crate) index_range: Option<&'a [u8]>,
    pub(crate) index_context: Option<&'a [u8]>,
    pub(crate) index_expression: Option<&'a [u8]>,
    pub(crate) index_type: Option<&'a [u8]>,
    pub(crate) udf: Option<&'a [u8]>,
    pub(crate) batch: Option<&'a [u8]>,
    pub(crate) filter: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    pub(crate) fn take(data: &mut &'a [u8], count: u16) -> Result<Fields<'a>, Malformed> {
        let mut fields = Fields::default();
        for _ in 0..count {
            let len = take_u32(data)? as usize;
            let kind = take_u8(data)?;
            let value = take(data, len.checked_sub(1).ok_or(Malformed)?)?;
            let slot = match kind {
                field::NAMESPACE => &mut fields.namespace,
                field::SET => &mut fields.set,
                field::KEY => &mut fields.key,
                field::DIGEST => &mut fields.digest,
                field::SOCKET_TIMEOUT => &mut fields.socket_timeout,
                field::RECS_PER_SEC => &mut fields.recs_per_sec,
                field::PID_ARRAY => &mut fields.pids,
                field::DIGEST_ARRAY => &mut fields.digests,
                field::SAMPLE_MAX => &mut fields.sample_max,
                field::BVAL_ARRAY => &mut fields.bvals,
                field::INDEX_NAME => &mut fields.index_name,
                field::INDEX_RANGE => &mut fields.index_range,
                field::INDEX_CONTEXT => &mut fields.index_context,
                field::INDEX_EXPRESSION => &mut fields.index_expression,
                field::INDEX_TYPE => &mut fields.index_type,
                field::UDF_FILENAME => &mut fields.udf,
                field::BATCH | field::BATCH_WITH_SET => &mut fields.batch,
                field::FILTER_EXP => &mut fields.filter,
                _ => continue,
            };
            // Of several fields of one type the first counts.
            slot.get_or_insert(value);
        }
        Ok(fields)
    }
}

/// One bin operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op<'a> {
    pub(crate) code: u8,
    pub(crate) particle: u8,
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// Bytes in front of the name of an operation: length, op, particle, flags, name length.
pub(crate) const OP_HEAD: usize = 8;

impl<'a> Op<'a> {
    fn take(data: &mut &'a [u8]) -> Result<Op<'a>, Malformed> {
        let len = take_u32(data)? as usize;
        let mut body = take(data, len)?;
        let code = take_u8(&mut body)?;
        let particle = take_u8(&mut body)?;
        let flags = take_u8(&mut body)?;
        let name_len = take_u8(&mut body)?;
        let name = take(&mut body, usize::from(name_len))?;
        if flags & 1 != 0 {
            take(&mut body, 8)?; // a last-update time, which only replication between clusters sends
        }
        Ok(Op { code, particle, name, value: body })
    }
}

/// The bin operations of a request, checked to be whole.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ops<'a> {
    bytes: &'a [u8],
    count: u16,
}

impl<'a> Ops<'a> {
    pub(crate) fn take(data: &mut &'a [u8], count: u16) -> Result<Ops<'a>, Malformed> {
        let whole = *data;
        for _ in 0..count {
            Op::take(data)?;
        }
        Ok(Ops { bytes: &whole[..whole.len() - data.len()], count })
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.count)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> IntoIterator for Ops<'a> {
    type Item = Op<'a>;
    type IntoIter = OpIter<'a>;

    fn into_iter(self) -> OpIter<'a> {
        OpIter { bytes: self.bytes }
    }
}

pub(crate) struct OpIter<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for OpIter<'a> {
    type Item = Op<'a>;

    fn next(&mut self) -> Option<Op<'a>> {
        Op::take(&mut self.bytes).ok()
    }
}

/// A whole request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) head: Head,
    pub(crate) fields: Fields<'a>,
    pub(crate) ops: Ops<'a>,
}

impl<'a> Request<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Request<'a>, Malformed> {
        let mut data = body;
        let head = Head::take(&mut data)?;
        let fields = Fields::take(&mut data, head.n_fields)?;
        let ops = Ops::take(&mut data, head.n_ops)?;
        if data.is_empty() { Ok(Request { head, fields, ops }) } else { Err(Malformed) }
    }
}

/// Appends a field.
pub(crate) fn put_field(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&(len as u32 + 1).to_be_bytes());
    out.push(kind);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends a bin operation.
pub(crate) fn put_op(out: &mut Vec<u8>, op: u8, particle: u8, name: &[u8], value: &[u8]) {
    out.extend_from_slice(&((4 + name.len() + value.len()) as u32).to_be_bytes());
    out.extend_from_slice(&[op, particle, 0, name.len() as u8]);
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_what_was_put() {
        let mut body = Vec::new();
        Head { info1: 3, info2: 1, generation: 7, ttl: 9, n_fields: 2, n_ops: 1, ..Head::default() }
            .put(&mut body);
        put_field(&mut body, field::NAMESPACE, &[b"ns"]);
        put_field(&mut body, 99, &[b"skipped"]);
        put_op(&mut body, op::WRITE, 3, b"bin", b"value");
        let request = Request::parse(&body).unwrap();
        assert_eq!(request.fields.namespace, Some(&b"ns"[..]));
        assert_eq!((request.head.generation, request.head.ttl), (7, 9));
        let op = request.ops.into_iter().next().unwrap();
        assert_eq!((op.code, op.particle, op.name, op.value), (op::WRITE, 3, &b"bin"[..], &b"value"[..]));
        for cut in 0..body.len() {
            assert!(Request::parse(&body[..cut]).is_err(), "cut at {cut}");
        }
    }
}
