//! Random records, there and back.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Backups;
use crate::raw::{
    self, Particle, Raw, blob, boolean, float, geojson, hll, integer, list, map, read, same, string,
};
use crate::support::Server;

/// A value inside a list or a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Text(Vec<u8>),
    List(Order, Vec<Value>),
    Map(Order, Vec<(Value, Value)>),
    Blob(Vec<u8>),
    Double(u64),
}

/// Ordered collections begin with a marker; the number is the marker's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    None = 0,
    Key = 1,
    KeyValue = 3,
}

impl Value {
    /// Appends the value in msgpack, as the server packs it: in the shortest form, texts and blobs behind their type.
    fn pack(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nil => out.push(0xc0),
            Self::Bool(value) => out.push(0xc2 | u8::from(*value)),
            Self::Int(value) => pack_int(*value, out),
            Self::Double(bits) => {
                out.push(0xcb);
                out.extend_from_slice(&bits.to_be_bytes());
            }
            Self::Text(bytes) => pack_text(3, bytes, out),
            Self::Blob(bytes) => pack_text(4, bytes, out),
            Self::List(order, items) => {
                let marker = usize::from(*order != Order::None);
                pack_head(0x90, 0xdc, items.len() + marker, out);
                if marker > 0 {
                    out.extend_from_slice(&[0xc7, 0, Order::Key as u8]);
                }
                for item in items {
                    item.pack(out);
                }
            }
            Self::Map(order, entries) => {
                let marker = usize::from(*order != Order::None);
                pack_head(0x80, 0xde, entries.len() + marker, out);
                if marker > 0 {
                    out.extend_from_slice(&[0xc7, 0, *order as u8, 0xc0]);
                }
                for (key, value) in entries {
                    key.pack(out);
                    value.pack(out);
                }
            }
        }
    }

    fn packed(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.pack(&mut out);
        out
    }
}

fn pack_int(value: i64, out: &mut Vec<u8>) {
    match value {
        0..=0x7f => out.push(value as u8),
        -32..=-1 => out.push(value as i8 as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, value as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend_from_slice(&value.to_be_bytes());
        }
        -0x80..=-33 => out.extend_from_slice(&[0xd0, value as u8]),
        -0x8000..=-0x81 => {
            out.push(0xd1);
            out.extend_from_slice(&(value as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xd2);
            out.extend_from_slice(&(value as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

fn pack_text(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    match bytes.len() + 1 {
        length @ ..=31 => out.push(0xa0 | length as u8),
        length @ ..=255 => out.extend_from_slice(&[0xd9, length as u8]),
        length => {
            out.push(0xda);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    out.push(kind);
    out.extend_from_slice(bytes);
}

fn pack_head(short: u8, long: u8, length: usize, out: &mut Vec<u8>) {
    if length < 16 {
        out.push(short | length as u8);
    } else {
        out.push(long);
        out.extend_from_slice(&(length as u16).to_be_bytes());
    }
}

/// Bytes, with those that a text format stumbles over more often than by chance.
fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(&b" \n\\\0-+*!"[..])];
    vec(byte, 0..most)
}

/// Values that have a place in the server's order and may be keys.
fn plain() -> impl Strategy<Value = Value> {
    let ints = prop_oneof![any::<i64>(), any::<i16>().prop_map(i64::from), any::<i8>().prop_map(i64::from)];
    prop_oneof![ints.prop_map(Value::Int), bytes(40).prop_map(Value::Text), bytes(300).prop_map(Value::Blob),]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => plain(),
        1 => Just(Value::Nil),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => any::<u64>().prop_map(Value::Double),
    ];
    leaf.prop_recursive(3, 40, 6, |inner| prop_oneof![lists(inner.clone()), maps(inner)])
}

fn lists(inner: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    prop_oneof![
        vec(inner, 0..20).prop_map(|items| Value::List(Order::None, items)),
        // The order of the enum's cases is the server's order of types.
        btree_set(plain(), 0..20).prop_map(|items| Value::List(Order::Key, items.into_iter().collect())),
    ]
}

fn maps(inner: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    let order = prop::sample::select(&[Order::Key, Order::KeyValue][..]);
    let unordered = prop::sample::select(&[true, false][..]);
    (btree_map(plain(), inner, 0..20), order, unordered).prop_map(|(entries, order, unordered)| {
        let mut entries: Vec<_> = entries.into_iter().collect();
        if unordered {
            entries.reverse();
        }
        Value::Map(if unordered { Order::None } else { order }, entries)
    })
}

fn bin_value() -> impl Strategy<Value = Particle> {
    let point = (-180.0..180.0_f64, -90.0..90.0_f64);
    prop_oneof![
        any::<i64>().prop_map(integer),
        any::<u64>().prop_map(float),
        bytes(200).prop_map(string),
        bytes(200).prop_map(blob),
        any::<bool>().prop_map(boolean),
        point.prop_map(|(x, y)| geojson(&format!(r#"{{"type":"Point","coordinates":[{x},{y}]}}"#))),
        Just(hll()),
        lists(value()).prop_map(|value| list(value.packed())),
        maps(value()).prop_map(|value| map(value.packed())),
    ]
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9 \\n\\\\é+*-]{1,7}"
}

fn key() -> impl Strategy<Value = Option<Particle>> {
    prop::option::of(prop_oneof![
        any::<i64>().prop_map(integer),
        any::<u64>().prop_map(float),
        bytes(60).prop_map(string),
        bytes(60).prop_map(blob),
    ])
}

prop_compose! {
    fn record()(
        // A server never forgets a set: they are few.
        set in prop::sample::select(&["", "a", "b c", "d\\", "e\nf"][..]),
        key in key(),
        ttl in prop_oneof![Just(u32::MAX), 3600..300_000_000_u32],
        bins in btree_map(name(), bin_value(), 1..8),
    ) -> Raw {
        let record = Raw { key, ..Raw::new(0).set(set).ttl(ttl) };
        bins.into_iter().fold(record, |record, (name, value)| record.bin(name, value))
    }
}

/// Protects: whatever valid record a server holds, its backup restores it byte for byte, in either spelling.
#[test]
fn any_record_comes_back_as_it_was() {
    let (server, backups) = (Server::start(2), Backups::new());
    // A failure is told with its records, made small in a bounded number of steps.
    let cases = std::env::var("PROPTEST_CASES").map_or(8, |cases| cases.parse().unwrap());
    let config = Config { cases, max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    let run = std::cell::Cell::new(0);
    let many = (vec(record(), 1..80), any::<bool>());
    let result = TestRunner::new(config).run(&many, |(mut records, compact)| {
        for (number, record) in (0..).zip(&mut records) {
            record.digest = raw::digest(number);
        }
        server.wipe();
        raw::load(&server, &records);
        let before = read(&server);
        run.set(run.get() + 1);
        let folder = backups.at(&run.get().to_string());
        server.backup(&folder, if compact { &["--compact"] } else { &[] }).ok();
        server.wipe();
        server.restore(&server.namespace, &folder, &["--batch-size", "7"]).ok();
        same(&read(&server), &before);
        Ok(())
    });
    if let Err(e) = result {
        panic!("{e}");
    }
}
