//! What the server makes of a list or map that a client writes whole: every head as short as possible, maps
//! sorted by key, order extensions without their indexes. A value that has this form already passes through
//! untouched.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::msgpack::{self, Head, Invalid, KEY_VALUE_ORDERED, ORDERED, Value, is_ext, take_head};
use crate::particle;

/// How deep lists and maps may nest.
const MAX_DEPTH: usize = 128;
/// The extension of values that exist in comparisons only.
const COMPARE: u8 = 0xff;

/// Checks `value`, and brings it into the server's form.
pub(crate) fn accept(particle: u8, value: &[u8]) -> Result<Cow<'_, [u8]>, Invalid> {
    let mut ahead = value;
    let fits = match take_head(&mut ahead)? {
        Head::List(_) => particle == particle::LIST,
        Head::Map(_) => particle == particle::MAP,
        _ => false,
    };
    if !fits {
        return Err(Invalid);
    }
    let mut rest = value;
    match walk(&mut rest, 0)? {
        Form::Server if rest.is_empty() => Ok(Cow::Borrowed(value)),
        _ => {
            let mut out = Vec::with_capacity(value.len());
            let mut rest = value;
            rewrite(&mut rest, &mut out, 0)?;
            if rest.is_empty() { Ok(Cow::Owned(out)) } else { Err(Invalid) }
        }
    }
}

/// As [`accept`], for a value of any type.
pub(crate) fn accept_any(value: &[u8]) -> Result<Vec<u8>, Invalid> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    rewrite(&mut rest, &mut out, 0)?;
    if rest.is_empty() { Ok(out) } else { Err(Invalid) }
}

/// Whether bytes have the server's form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Server,
    Other,
}

/// Skips one value as long as it has the server's form. What is wrong with other values, [`rewrite`] finds.
fn walk(data: &mut &[u8], depth: usize) -> Result<Form, Invalid> {
    if depth > MAX_DEPTH {
        return Err(Invalid);
    }
    let start = *data;
    let head = take_head(data)?;
    if !is_short(start, &head) {
        return Ok(Form::Other);
    }
    match head {
        Head::List(count) => {
            if is_ext(data) {
                return Ok(Form::Other);
            }
            for _ in 0..count {
                if walk(data, depth + 1)? == Form::Other {
                    return Ok(Form::Other);
                }
            }
        }
        Head::Map(count) => {
            if is_ext(data) {
                return Ok(Form::Other);
            }
            let mut previous: Option<&[u8]> = None;
            for _ in 0..count {
                let start = *data;
                if !is_key(start) || walk(data, depth + 1)? == Form::Other {
                    return Ok(Form::Other);
                }
                let key = &start[..start.len() - data.len()];
                if previous.is_some_and(|previous| order(previous, key) != Ordering::Less) {
                    return Ok(Form::Other);
                }
                previous = Some(key);
                if walk(data, depth + 1)? == Form::Other {
                    return Ok(Form::Other);
                }
            }
        }
        Head::Ext(..) => return Ok(Form::Other),
        _ => {}
    }
    Ok(Form::Server)
}

/// Reads one value and appends it in the server's form.
fn rewrite(data: &mut &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), Invalid> {
    if depth > MAX_DEPTH {
        return Err(Invalid);
    }
    let start = *data;
    let head = take_head(data)?;
    match head {
        Head::List(count) => rewrite_list(data, count, out, depth),
        Head::Map(count) => rewrite_map(data, count, out, depth),
        Head::Ext(COMPARE, _) => Err(Invalid),
        head => {
            let encoded = &start[..start.len() - data.len()];
            if is_short(start, &head) {
                out.extend_from_slice(encoded);
            } else {
                Value::parse(encoded)?.put(out);
            }
            Ok(())
        }
    }
}

fn rewrite_list(data: &mut &[u8], mut count: usize, out: &mut Vec<u8>, depth: usize) -> Result<(), Invalid> {
    let mut flags = 0;
    if count > 0 && is_ext(data) {
        flags = take_order(data)? & ORDERED;
        count -= 1;
    }
    msgpack::put_list_head(out, count, flags);
    let mut previous: Option<std::ops::Range<usize>> = None;
    for _ in 0..count {
        let at = out.len();
        rewrite(data, out, depth + 1)?;
        if flags & ORDERED != 0 {
            if previous.is_some_and(|previous| order(&out[previous], &out[at..]) == Ordering::Greater) {
                return Err(Invalid); // says it is sorted and is not
            }
            previous = Some(at..out.len());
        }
    }
    Ok(())
}

fn rewrite_map(data: &mut &[u8], mut count: usize, out: &mut Vec<u8>, depth: usize) -> Result<(), Invalid> {
    let mut flags = 0;
    if count > 0 && is_ext(data) {
        flags = take_order(data)? & KEY_VALUE_ORDERED;
        walk_any(data)?;
        count -= 1;
    }
    msgpack::put_map_head(out, count, flags);
    let first = out.len();
    // Where each entry lies in `out`, and how long its key is.
    let mut entries: Vec<(std::ops::Range<usize>, usize)> = Vec::with_capacity(count.min(data.len()));
    let mut is_sorted = true;
    for _ in 0..count {
        if !is_key(data) {
            return Err(Invalid);
        }
        let at = out.len();
        rewrite(data, out, depth + 1)?;
        let key_len = out.len() - at;
        if let Some((previous, previous_len)) = entries.last() {
            let previous = &out[previous.start..previous.start + previous_len];
            match order(previous, &out[at..]) {
                Ordering::Less => {}
                Ordering::Equal => return Err(Invalid), // the same key twice
                Ordering::Greater if flags & ORDERED != 0 => return Err(Invalid),
                Ordering::Greater => is_sorted = false,
            }
        }
        rewrite(data, out, depth + 1)?;
        entries.push((at..out.len(), key_len));
    }
    if !is_sorted {
        let bytes = out.split_off(first);
        let key = |(range, len): &(std::ops::Range<usize>, usize)| {
            &bytes[range.start - first..range.start - first + len]
        };
        entries.sort_by(|a, b| order(key(a), key(b)));
        if entries.windows(2).any(|pair| order(key(&pair[0]), key(&pair[1])).is_eq()) {
            return Err(Invalid);
        }
        for (range, _) in &entries {
            out.extend_from_slice(&bytes[range.start - first..range.end - first]);
        }
    }
    Ok(())
}

/// Reads an order extension.
fn take_order(data: &mut &[u8]) -> Result<u8, Invalid> {
    match msgpack::take_order(data)? {
        COMPARE => Err(Invalid),
        flags => Ok(flags),
    }
}

/// Skips one value of any form.
fn walk_any(data: &mut &[u8]) -> Result<(), Invalid> {
    Value::take(data).map(|_| ())
}

/// Whether the head at the start of `bytes` has its shortest form. Blobs with a `bin` head of more than 31
/// bytes pass, as the real server lets them.
fn is_short(bytes: &[u8], head: &Head<'_>) -> bool {
    match (bytes[0], head) {
        (0xc4 | 0xd9, Head::Bytes(data)) => data.len() > 0x1f,
        (0xc5 | 0xda, Head::Bytes(data)) => data.len() > 0xff,
        (0xc6 | 0xdb, Head::Bytes(data)) => data.len() > 0xffff,
        (0xcc, Head::Int(value)) => *value > 0x7f,
        (0xcd, Head::Int(value)) => *value > 0xff,
        (0xce, Head::Int(value)) => *value > 0xffff,
        (0xcf, Head::Int(value)) => *value > 0xffff_ffff,
        (0xd0, Head::Int(value)) => *value < -32,
        (0xd1, Head::Int(value)) => *value < -0x80,
        (0xd2, Head::Int(value)) => *value < -0x8000,
        (0xd3, Head::Int(value)) => *value < -0x8000_0000,
        (0xdc, Head::List(count)) | (0xde, Head::Map(count)) => *count > 0xf,
        (0xdd, Head::List(count)) | (0xdf, Head::Map(count)) => *count > 0xffff,
        _ => true,
    }
}

/// Whether the value at the start of `bytes` can be the key of a map.
fn is_key(bytes: &[u8]) -> bool {
    let mut ahead = bytes;
    match take_head(&mut ahead) {
        Ok(Head::Int(_) | Head::Uint(_)) => true,
        Ok(Head::Bytes(data)) => matches!(data.first(), Some(&(particle::STRING | particle::BLOB))),
        _ => false,
    }
}

/// The order of two encoded values.
fn order(a: &[u8], b: &[u8]) -> Ordering {
    let (mut ahead_a, mut ahead_b) = (a, b);
    match (take_head(&mut ahead_a), take_head(&mut ahead_b)) {
        (Ok(Head::Int(a)), Ok(Head::Int(b))) => a.cmp(&b),
        (Ok(Head::Bytes(a @ [kind_a, ..])), Ok(Head::Bytes(b @ [kind_b, ..]))) if kind_a == kind_b => {
            a.cmp(b)
        }
        _ => match (Value::parse(a), Value::parse(b)) {
            (Ok(a), Ok(b)) => a.order(&b),
            _ => Ordering::Equal,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(bytes: &[u8]) -> Result<Vec<u8>, Invalid> {
        accept(particle::LIST, bytes).map(Cow::into_owned)
    }

    fn map(bytes: &[u8]) -> Result<Vec<u8>, Invalid> {
        accept(particle::MAP, bytes).map(Cow::into_owned)
    }

    #[test]
    fn the_servers_form_passes_untouched() {
        for bytes in [&[0x90][..], &[0x92, 1, 0xa2, 3, b'x'], &[0x95, 0xc7, 0, 1, 1, 3, 5, 9]] {
            assert_eq!(list(bytes).unwrap(), bytes);
        }
        for bytes in [&[0x80][..], &[0x82, 1, 2, 0xa2, 3, b'x', 0x90], &[0x82, 0xc7, 0, 3, 0xc0, 1, 2]] {
            assert_eq!(map(bytes).unwrap(), bytes);
        }
    }

    #[test]
    fn unordered_maps_are_sorted_by_key() {
        assert_eq!(
            map(&[0x83, 0xa2, 3, b'z', 1, 0xa2, 3, b'a', 2, 0xfd, 0xc0]).unwrap(),
            [0x83, 0xfd, 0xc0, 0xa2, 3, b'a', 2, 0xa2, 3, b'z', 1]
        );
        assert_eq!(list(&[0x91, 0x82, 2, 0, 1, 0]).unwrap(), [0x91, 0x82, 1, 0, 2, 0]);
        assert_eq!(map(&[0x82, 1, 0, 1, 0]), Err(Invalid));
        assert_eq!(map(&[0x83, 2, 0, 1, 0, 2, 0]), Err(Invalid));
    }

    #[test]
    fn long_heads_become_short() {
        assert_eq!(
            list(&[0xdc, 0, 2, 0xcc, 5, 0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap(),
            [0x92, 5, 0xff]
        );
        assert_eq!(list(&[0x91, 0xd9, 2, 3, b'x']).unwrap(), [0x91, 0xa2, 3, b'x']);
    }

    #[test]
    fn a_stored_index_is_left_out() {
        assert_eq!(list(&[0x93, 0xc7, 2, 0x11, 9, 9, 1, 3]).unwrap(), [0x93, 0xc7, 0, 1, 1, 3]);
        assert_eq!(list(&[0x92, 0xc7, 0, 0, 1]).unwrap(), [0x91, 1]);
    }

    #[test]
    fn false_promises_are_refused() {
        assert_eq!(list(&[0x93, 0xc7, 0, 1, 3, 1]), Err(Invalid));
        assert_eq!(map(&[0x83, 0xc7, 0, 1, 0xc0, 2, 0, 1, 0]), Err(Invalid));
        assert_eq!(map(&[0x81, 0xc0, 0]), Err(Invalid));
        assert_eq!(list(&[0x90, 0]), Err(Invalid));
        assert_eq!(list(&[0x80]), Err(Invalid));
        assert_eq!(list(&[0x91, 0xd4, 0xff, 1]), Err(Invalid));
    }
}
