//! Bytes of values, in the shortest form.

use super::{COMPARE_INFINITY, COMPARE_WILDCARD, EXT_COMPARE, ORDERED, Value};
use crate::particle;

impl Value {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Appends the value in the server's form: every head as short as possible.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Value::Nil => out.push(0xc0),
            Value::Bool(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
            Value::Int(value) => put_int(out, *value),
            Value::Uint(value) => put_uint(out, *value),
            Value::Float(value) => {
                out.push(0xcb);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Value::Str(text) => put_bytes(out, &[&[particle::STRING], text]),
            Value::Geo(text) => put_bytes(out, &[&[particle::GEOJSON], text]),
            Value::Blob(0, _) => put_bytes(out, &[]),
            Value::Blob(kind, data) => put_bytes(out, &[&[*kind], data]),
            Value::Ext(kind, data) => put_ext(out, *kind, data),
            Value::Wildcard => put_ext(out, EXT_COMPARE, &[COMPARE_WILDCARD]),
            Value::Infinity => put_ext(out, EXT_COMPARE, &[COMPARE_INFINITY]),
            Value::List(list) => {
                put_list_head(out, list.items.len(), if list.ordered { ORDERED } else { 0 });
                list.items.iter().for_each(|item| item.put(out));
            }
            Value::Map(map) => {
                put_map_head(out, map.entries.len(), map.flags);
                for (key, value) in &map.entries {
                    key.put(out);
                    value.put(out);
                }
            }
        }
    }
}

fn put_uint(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_be_bytes();
    match value {
        0..=0x7f => out.push(value as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, bytes[7]]),
        0x100..=0xffff => out.extend_from_slice(&[0xcd, bytes[6], bytes[7]]),
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&bytes[4..]);
        }
        _ => {
            out.push(0xcf);
            out.extend_from_slice(&bytes);
        }
    }
}

fn put_int(out: &mut Vec<u8>, value: i64) {
    let bytes = value.to_be_bytes();
    match value {
        0.. => put_uint(out, value as u64),
        -32..0 => out.push(value as u8),
        -0x80..-32 => out.extend_from_slice(&[0xd0, bytes[7]]),
        -0x8000..-0x80 => out.extend_from_slice(&[0xd1, bytes[6], bytes[7]]),
        -0x8000_0000..-0x8000 => {
            out.push(0xd2);
            out.extend_from_slice(&bytes[4..]);
        }
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&bytes);
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let bytes = (len as u32).to_be_bytes();
    match len {
        0..=0x1f => out.push(0xa0 | len as u8),
        0x20..=0xff => out.extend_from_slice(&[0xd9, len as u8]),
        0x100..=0xffff => out.extend_from_slice(&[0xda, bytes[2], bytes[3]]),
        _ => {
            out.push(0xdb);
            out.extend_from_slice(&bytes);
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn put_ext(out: &mut Vec<u8>, kind: u8, data: &[u8]) {
    match data.len() {
        1 => out.push(0xd4),
        2 => out.push(0xd5),
        4 => out.push(0xd6),
        8 => out.push(0xd7),
        16 => out.push(0xd8),
        len @ 0..=0xff => out.extend_from_slice(&[0xc7, len as u8]),
        len @ 0x100..=0xffff => {
            out.push(0xc8);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0xc9);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
    out.push(kind);
    out.extend_from_slice(data);
}

fn put_count(out: &mut Vec<u8>, count: usize, short: u8, long: u8) {
    let bytes = (count as u32).to_be_bytes();
    match count {
        0..=0xf => out.push(short | count as u8),
        0x10..=0xffff => out.extend_from_slice(&[long, bytes[2], bytes[3]]),
        _ => {
            out.push(long + 1);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Appends the head of a list, its order extension included.
pub(crate) fn put_list_head(out: &mut Vec<u8>, count: usize, flags: u8) {
    put_count(out, count + usize::from(flags != 0), 0x90, 0xdc);
    if flags != 0 {
        put_ext(out, flags, &[]);
    }
}

/// Appends the head of a map, its order extension included.
pub(crate) fn put_map_head(out: &mut Vec<u8>, count: usize, flags: u8) {
    put_count(out, count + usize::from(flags != 0), 0x80, 0xde);
    if flags != 0 {
        put_ext(out, flags, &[]);
        out.push(0xc0);
    }
}
