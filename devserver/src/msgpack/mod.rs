//! `MessagePack` as Aerospike uses it: strings and blobs share one encoding and tell themselves apart by
//! their first byte, lists and maps may begin with an extension that carries their order.

mod encode;

use std::cmp::Ordering;

use crate::ops::Answer;
use crate::particle;
pub(crate) use encode::{put_list_head, put_map_head};

/// How deep lists and maps may nest.
const MAX_DEPTH: usize = 128;

/// Extension type of values that exist in comparisons only.
const EXT_COMPARE: u8 = 0xff;
const COMPARE_WILDCARD: u8 = 0;
const COMPARE_INFINITY: u8 = 1;

/// Bits of the order extension of lists and maps.
pub(crate) const ORDERED: u8 = 1;
pub(crate) const KEY_VALUE_ORDERED: u8 = 3;

/// A value, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    /// Larger than any `i64`.
    Uint(u64),
    Float(f64),
    Str(Vec<u8>),
    /// A blob and its particle type; type 0 is the empty value without a type.
    Blob(u8, Vec<u8>),
    Geo(Vec<u8>),
    List(List),
    Map(Map),
    Ext(u8, Vec<u8>),
    /// Equal to everything.
    Wildcard,
    /// Greater than everything.
    Infinity,
}

/// A list and whether it keeps itself sorted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct List {
    pub(crate) ordered: bool,
    pub(crate) items: Vec<Value>,
}

/// A map. Entries are always sorted by key; `flags` says what the map promises: 0, [`ORDERED`] or
/// [`KEY_VALUE_ORDERED`].
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Map {
    pub(crate) flags: u8,
    pub(crate) entries: Vec<(Value, Value)>,
}

/// Bytes that are no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// The head of an encoded value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Head<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    /// Bytes of a string or blob, type byte first.
    Bytes(&'a [u8]),
    List(usize),
    Map(usize),
    Ext(u8, &'a [u8]),
}

fn take<'a>(data: &mut &'a [u8], len: usize) -> Result<&'a [u8], Invalid> {
    let (head, rest) = data.split_at_checked(len).ok_or(Invalid)?;
    *data = rest;
    Ok(head)
}

fn take_number(data: &mut &[u8], len: usize) -> Result<u64, Invalid> {
    Ok(take(data, len)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Reads the head of a value: all of a scalar, only the count of a list or map.
pub(crate) fn take_head<'a>(data: &mut &'a [u8]) -> Result<Head<'a>, Invalid> {
    let (&byte, rest) = data.split_first().ok_or(Invalid)?;
    *data = rest;
    let unsigned = |number: u64| i64::try_from(number).map_or(Head::Uint(number), Head::Int);
    Ok(match byte {
        0x00..=0x7f => Head::Int(i64::from(byte)),
        0x80..=0x8f => Head::Map(usize::from(byte & 0xf)),
        0x90..=0x9f => Head::List(usize::from(byte & 0xf)),
        0xa0..=0xbf => Head::Bytes(take(data, usize::from(byte & 0x1f))?),
        0xc0 => Head::Nil,
        0xc1 => return Err(Invalid),
        0xc2 | 0xc3 => Head::Bool(byte == 0xc3),
        0xc4..=0xc6 | 0xd9..=0xdb => {
            let width = 1 << (if byte < 0xd0 { byte - 0xc4 } else { byte - 0xd9 });
            let len = take_number(data, width)?;
            Head::Bytes(take(data, len as usize)?)
        }
        0xc7..=0xc9 => {
            let len = take_number(data, 1 << (byte - 0xc7))? as usize;
            let kind = take(data, 1)?[0];
            Head::Ext(kind, take(data, len)?)
        }
        0xca => Head::Float(f64::from(f32::from_bits(take_number(data, 4)? as u32))),
        0xcb => Head::Float(f64::from_bits(take_number(data, 8)?)),
        0xcc..=0xcf => unsigned(take_number(data, 1 << (byte - 0xcc))?),
        0xd0..=0xd3 => {
            let width = 1 << (byte - 0xd0);
            let shift = 64 - 8 * width;
            Head::Int(((take_number(data, width)? << shift) as i64) >> shift)
        }
        0xd4..=0xd8 => {
            let kind = take(data, 1)?[0];
            Head::Ext(kind, take(data, 1 << (byte - 0xd4))?)
        }
        0xdc => Head::List(take_number(data, 2)? as usize),
        0xdd => Head::List(take_number(data, 4)? as usize),
        0xde => Head::Map(take_number(data, 2)? as usize),
        0xdf => Head::Map(take_number(data, 4)? as usize),
        0xe0..=0xff => Head::Int(i64::from(byte as i8)),
    })
}

/// Whether the next value is an extension.
pub(crate) fn is_ext(data: &[u8]) -> bool {
    matches!(data.first(), Some(0xc7..=0xc9 | 0xd4..=0xd8))
}

impl Value {
    /// Reads one value from the front of `data`.
    pub(crate) fn take(data: &mut &[u8]) -> Result<Value, Invalid> {
        Self::take_at(data, 0)
    }

    /// Reads the one value that `data` is.
    pub(crate) fn parse(mut data: &[u8]) -> Result<Value, Invalid> {
        let value = Self::take(&mut data)?;
        if data.is_empty() { Ok(value) } else { Err(Invalid) }
    }

    fn take_at(data: &mut &[u8], depth: usize) -> Result<Value, Invalid> {
        if depth > MAX_DEPTH {
            return Err(Invalid);
        }
        Ok(match take_head(data)? {
            Head::Nil => Value::Nil,
            Head::Bool(value) => Value::Bool(value),
            Head::Int(value) => Value::Int(value),
            Head::Uint(value) => Value::Uint(value),
            Head::Float(value) => Value::Float(value),
            Head::Bytes(bytes) => Value::from_bytes(bytes),
            Head::Ext(EXT_COMPARE, [COMPARE_WILDCARD]) => Value::Wildcard,
            Head::Ext(EXT_COMPARE, [COMPARE_INFINITY]) => Value::Infinity,
            Head::Ext(kind, bytes) => Value::Ext(kind, bytes.to_vec()),
            Head::List(mut count) => {
                let mut list = List::default();
                if count > 0 && is_order(data) {
                    list.ordered = take_order(data)? & ORDERED != 0;
                    count -= 1;
                }
                // Capacity grows with what is there, not with what was announced.
                list.items.reserve(count.min(data.len()));
                for _ in 0..count {
                    list.items.push(Value::take_at(data, depth + 1)?);
                }
                Value::List(list)
            }
            Head::Map(mut count) => {
                let mut map = Map::default();
                if count > 0 && is_order(data) {
                    map.flags = take_order(data)? & KEY_VALUE_ORDERED;
                    take_head(data)?; // the value beside the extension, nil
                    count -= 1;
                }
                map.entries.reserve(count.min(data.len()));
                for _ in 0..count {
                    let key = Value::take_at(data, depth + 1)?;
                    map.entries.push((key, Value::take_at(data, depth + 1)?));
                }
                Value::Map(map)
            }
        })
    }

    fn from_bytes(bytes: &[u8]) -> Value {
        match bytes {
            [] => Value::Blob(0, Vec::new()),
            [particle::STRING, text @ ..] => Value::Str(text.to_vec()),
            [particle::GEOJSON, text @ ..] => Value::Geo(text.to_vec()),
            [kind, data @ ..] => Value::Blob(*kind, data.to_vec()),
        }
    }

    /// The value of a bin.
    pub(crate) fn from_particle(particle: u8, value: &[u8]) -> Option<Value> {
        Some(match particle {
            particle::NULL => Value::Nil,
            particle::INTEGER => Value::Int(particle::integer(value).ok()?),
            particle::FLOAT => Value::Float(particle::float(value).ok()?),
            particle::BOOL => Value::Bool(value == [1]),
            particle::STRING => Value::Str(value.to_vec()),
            particle::GEOJSON => Value::Geo(crate::geojson::text(value)?.to_vec()),
            particle::LIST | particle::MAP => Value::parse(value).ok()?,
            kind => Value::Blob(kind, value.to_vec()),
        })
    }

    /// The value as that of a bin in a reply.
    pub(crate) fn to_answer(&self) -> Answer {
        let (particle, value) = match self {
            Value::Nil | Value::Ext(..) | Value::Wildcard | Value::Infinity => return Answer::nil(),
            Value::Bool(value) => (particle::BOOL, vec![u8::from(*value)]),
            Value::Int(value) => (particle::INTEGER, value.to_be_bytes().to_vec()),
            Value::Uint(value) => (particle::INTEGER, value.to_be_bytes().to_vec()),
            Value::Float(value) => (particle::FLOAT, value.to_be_bytes().to_vec()),
            Value::Str(text) => (particle::STRING, text.clone()),
            // HLL values inside of lists and maps are blobs to the server.
            Value::Blob(particle::HLL, data) => (particle::HLL, data.clone()),
            Value::Blob(_, data) => (particle::BLOB, data.clone()),
            Value::Geo(text) => (particle::GEOJSON, [&[0; 3], text.as_slice()].concat()),
            Value::List(_) => (particle::LIST, self.encode()),
            Value::Map(_) => (particle::MAP, self.encode()),
        };
        Answer { particle, value }
    }

    /// Types in their order: every value of a lower rank is less than every value of a higher one.
    fn rank(&self) -> u8 {
        match self {
            Value::Nil => 0,
            Value::Bool(false) => 1,
            Value::Bool(true) => 2,
            Value::Int(..0) => 3,
            Value::Int(_) | Value::Uint(_) => 4,
            Value::Str(_) => 5,
            Value::List(_) => 6,
            Value::Map(_) => 7,
            Value::Blob(..) => 8,
            Value::Float(_) => 9,
            Value::Geo(_) => 10,
            Value::Ext(..) => 11,
            Value::Wildcard => 12,
            Value::Infinity => 13,
        }
    }

    /// The server's order of values.
    pub(crate) fn order(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Wildcard, _) | (_, Value::Wildcard) => Ordering::Equal,
            (Value::Int(a), Value::Int(b)) => a.cmp(b),
            (Value::Uint(a), Value::Uint(b)) => a.cmp(b),
            (Value::Int(0..), Value::Uint(_)) => Ordering::Less,
            (Value::Uint(_), Value::Int(0..)) => Ordering::Greater,
            (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Value::Str(a), Value::Str(b))
            | (Value::Geo(a), Value::Geo(b))
            | (Value::Ext(_, a), Value::Ext(_, b)) => a.cmp(b),
            (Value::Blob(kind_a, a), Value::Blob(kind_b, b)) => kind_a.cmp(kind_b).then_with(|| a.cmp(b)),
            (Value::List(a), Value::List(b)) => {
                order_all(a.items.iter().zip(&b.items)).then_with(|| a.items.len().cmp(&b.items.len()))
            }
            (Value::Map(a), Value::Map(b)) => a.entries.len().cmp(&b.entries.len()).then_with(|| {
                let flat = |map: &'_ Map| map.entries.len();
                debug_assert_eq!(flat(a), flat(b));
                order_all(
                    a.entries.iter().zip(&b.entries).flat_map(|((ka, va), (kb, vb))| [(ka, kb), (va, vb)]),
                )
            }),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    /// Whether the value can be the key of a map.
    pub(crate) fn is_key(&self) -> bool {
        matches!(self, Value::Int(_) | Value::Uint(_) | Value::Str(_) | Value::Blob(particle::BLOB, _))
    }
}

fn order_all<'a>(mut pairs: impl Iterator<Item = (&'a Value, &'a Value)>) -> Ordering {
    pairs.find_map(|(a, b)| Some(a.order(b)).filter(|order| order.is_ne())).unwrap_or(Ordering::Equal)
}

/// Whether an order extension follows, and not a value of comparisons.
fn is_order(data: &[u8]) -> bool {
    let mut ahead = data;
    is_ext(data) && matches!(take_head(&mut ahead), Ok(Head::Ext(kind, _)) if kind != EXT_COMPARE)
}

/// Reads an order extension; what it holds besides its type is an index, which nobody needs.
pub(crate) fn take_order(data: &mut &[u8]) -> Result<u8, Invalid> {
    match take_head(data)? {
        Head::Ext(flags, _) => Ok(flags),
        _ => Err(Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_take_their_shortest_form() {
        for (value, len) in [
            (0, 1),
            (127, 1),
            (128, 2),
            (255, 2),
            (256, 3),
            (65535, 3),
            (65536, 5),
            (i64::from(u32::MAX), 5),
            (1 << 32, 9),
            (i64::MAX, 9),
            (-1, 1),
            (-32, 1),
            (-33, 2),
            (-128, 2),
            (-129, 3),
            (-32768, 3),
            (-32769, 5),
            (-2_147_483_648, 5),
            (-2_147_483_649, 9),
            (i64::MIN, 9),
        ] {
            let bytes = Value::Int(value).encode();
            assert_eq!(bytes.len(), len, "{value}");
            assert_eq!(Value::parse(&bytes), Ok(Value::Int(value)));
        }
    }

    #[test]
    fn order_extensions_survive() {
        for bytes in
            [&[0x95, 0xc7, 0, 1, 1, 3, 5, 9][..], &[0x82, 0xc7, 0, 3, 0xc0, 1, 2], &[0x91, 0xc7, 0, 1]]
        {
            assert_eq!(Value::parse(bytes).unwrap().encode(), bytes);
        }
    }

    #[test]
    fn values_of_different_types_have_an_order() {
        let rising = [
            Value::Nil,
            Value::Bool(false),
            Value::Bool(true),
            Value::Int(i64::MIN),
            Value::Int(-1),
            Value::Int(0),
            Value::Uint(u64::MAX),
            Value::Str(b"a".to_vec()),
            Value::Str(b"aa".to_vec()),
            Value::List(List::default()),
            Value::Map(Map::default()),
            Value::Blob(4, vec![0]),
            Value::Float(-1.0),
            Value::Geo(b"{}".to_vec()),
            Value::Infinity,
        ];
        for (at, value) in rising.iter().enumerate() {
            for (other_at, other) in rising.iter().enumerate() {
                assert_eq!(value.order(other), at.cmp(&other_at), "{value:?} {other:?}");
            }
        }
    }

    #[test]
    fn broken_bytes_are_invalid() {
        let bytes =
            Value::List(List { ordered: true, items: vec![Value::Str(b"x".to_vec()), Value::Int(300)] })
                .encode();
        for cut in 0..bytes.len() {
            assert_eq!(Value::parse(&bytes[..cut]), Err(Invalid), "cut at {cut}");
        }
        assert_eq!(Value::parse(&[0x91; 1000]), Err(Invalid));
        assert_eq!(Value::parse(&[0xdd, 0xff, 0xff, 0xff, 0xff]), Err(Invalid));
    }
}
