//! Records of every kind, there and back; and text that was damaged on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod agree;

use abs_asb::{
    AsbError, AsbErrorKind, Digest, Encoder, IndexData, IndexKind, Item, Items, Position, RecordHead,
    SecondaryIndex, Skimmer, Udf, UdfLanguage, WireBin, WireKey,
};
use proptest::{collection::vec, prelude::*};

#[derive(Clone, Debug, PartialEq)]
struct Bin {
    name: Vec<u8>,
    particle: u8,
    data: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq)]
struct Record {
    digest: Digest,
    set: Vec<u8>,
    key: Option<(u8, Vec<u8>)>,
    generation: u32,
    void_time: u32,
    bins: Vec<Bin>,
}

/// Bytes with many of those that mean something in the text.
fn bytes(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![3 => any::<u8>(), 1 => prop::sample::select(b" \n\\+-*!0".to_vec())], len)
}

fn particle() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let number = prop_oneof![any::<[u8; 8]>(), (-20i64..20).prop_map(i64::to_be_bytes)];
    let double = prop_oneof![
        any::<[u8; 8]>(),
        (any::<i32>(), -30..30).prop_map(|(m, e)| (f64::from(m) * 10f64.powi(e)).to_bits().to_be_bytes()),
        prop::sample::select(vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324])
            .prop_map(f64::to_be_bytes),
    ];
    prop_oneof![
        Just((0, Vec::new())),
        number.prop_map(|data| (1, data.to_vec())),
        double.prop_map(|data| (2, data.to_vec())),
        bytes(0..200).prop_map(|data| (3, data)),
        (0u8..2).prop_map(|data| (17, vec![data])),
        bytes(0..100).prop_map(|json| (23, [vec![0, 0, 0], json].concat())),
        (prop::sample::select(vec![4, 7, 8, 9, 10, 11, 12, 18, 19, 20]), bytes(0..200)),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let key = particle().prop_filter("a type that keys have", |(particle, _)| (1..=4).contains(particle));
    let bin = (bytes(0..16), particle()).prop_map(|(name, (particle, data))| Bin { name, particle, data });
    (any::<Digest>(), bytes(0..64), prop::option::of(key), any::<u32>(), any::<u32>(), vec(bin, 0..20))
        .prop_map(|(digest, set, key, generation, void_time, bins)| Record {
            digest,
            set,
            key,
            generation,
            void_time,
            bins,
        })
}

fn encode(records: &[Record], compact: bool) -> Vec<u8> {
    let encoder = Encoder::new("name space", compact);
    let mut text = Vec::new();
    for record in records {
        let head = RecordHead {
            digest: &record.digest,
            set: &record.set,
            key: record.key.as_ref().map(|(particle, data)| WireKey { particle: *particle, data }),
            generation: record.generation,
            void_time: record.void_time,
            bin_count: record.bins.len() as u16,
        };
        let bins = record.bins.iter().map(|bin| WireBin {
            name: &bin.name,
            particle: bin.particle,
            data: &bin.data,
        });
        encoder.record(&head, bins, &mut text).unwrap();
    }
    text
}

/// Reads all records, arriving in pieces; `bins` of each, the others are left to be skipped.
fn decode(text: &[u8], piece: usize, bins: usize) -> Result<Vec<Record>, AsbError> {
    let mut records = Vec::new();
    let mut skimmer = Skimmer::new(Position::START);
    let (mut start, mut end) = (0, 0);
    while end < text.len() {
        end = text.len().min(end + piece);
        let position = skimmer.position();
        let skim = skimmer.skim(&text[start..end])?;
        let mut items = Items::new(&text[start..start + skim.len], position);
        while let Some(item) = items.next()? {
            let Item::Record(mut record) = item else { panic!("{item:?}") };
            assert_eq!(record.namespace.to_bytes(), &b"name space"[..]);
            let key = record.key.map(|key| {
                let mut data = Vec::new();
                key.append_to(&mut data).map(|()| (key.particle() as u8, data))
            });
            let mut read = Record {
                digest: record.digest,
                set: record.set.to_bytes().into_owned(),
                key: key.transpose()?,
                generation: record.generation,
                void_time: record.expiration,
                bins: Vec::new(),
            };
            for _ in 0..bins {
                let Some(bin) = record.next_bin()? else { break };
                let mut name = Vec::new();
                bin.name.unescape_into(&mut name);
                assert!(bin.name.eq_bytes(&name) && bin.name.len() == name.len());
                let mut data = Vec::new();
                bin.value.append_to(&mut data)?;
                read.bins.push(Bin { name, particle: bin.value.particle() as u8, data });
            }
            records.push(read);
        }
        start += skim.len;
    }
    skimmer.finish(&text[start..])?;
    Ok(records)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn records_come_back(records in vec(record(), 0..6), compact: bool, piece in 1usize..2000) {
        prop_assert_eq!(decode(&encode(&records, compact), piece, usize::MAX).unwrap(), records);
    }

    #[test]
    fn unread_bins_are_skipped(mut records in vec(record(), 0..6), compact: bool, bins in 0usize..5) {
        let text = encode(&records, compact);
        for record in &mut records {
            record.bins.truncate(bins);
        }
        prop_assert_eq!(decode(&text, 1 << 20, bins).unwrap(), records);
    }

    #[test]
    fn globals_come_back(
        names in vec("[ \\\\\na-zé]{1,6}", 3),
        content in bytes(0..200),
        kind in prop::sample::select(vec![
            IndexKind::Bin, IndexKind::ListElements, IndexKind::MapKeys, IndexKind::MapValues,
        ]),
        data in prop::sample::select(vec![
            IndexData::Numeric, IndexData::String, IndexData::Geo2dSphere, IndexData::Blob, IndexData::Invalid,
        ]),
        base64 in prop::option::of("([A-Za-z0-9+/]{4}){1,9}"),
        expression: bool,
        without_set: bool,
    ) {
        let expression = expression && base64.is_some();
        let index = SecondaryIndex {
            set: if without_set { String::new() } else { names[0].clone() },
            name: names[1].clone(),
            kind,
            bin: (!expression).then(|| names[2].clone()),
            data,
            context: base64.clone().filter(|_| !expression),
            expression: base64.filter(|_| expression),
        };
        let udf = Udf { language: UdfLanguage::Lua, name: names[0].clone(), content };
        let encoder = Encoder::new("n", false);
        let mut text = Vec::new();
        encoder.index(&index, &mut text);
        encoder.udf(&udf, &mut text);
        let mut items = Items::new(&text, Position::START);
        let Some(Item::Index(read)) = items.next().unwrap() else { panic!() };
        prop_assert_eq!(read, index);
        let Some(Item::Udf(read)) = items.next().unwrap() else { panic!() };
        prop_assert_eq!(read, udf);
        prop_assert!(items.next().unwrap().is_none());
    }

    #[test]
    fn damage_is_found_alike_everywhere(
        records in vec(record(), 1..3),
        compact: bool,
        damage in vec((any::<prop::sample::Index>(), prop_oneof![
            any::<u8>(), prop::sample::select(b" \n\\+-*!0123456789kndsgtbNZIDSXGBUie".to_vec()),
        ], 0..3), 1..4),
        cuts: [u8; 2],
    ) {
        let mut text = encode(&records, compact);
        for (at, byte, how) in damage {
            let at = at.index(text.len());
            match how {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                _ => drop(text.remove(at)),
            }
        }
        agree::check(&[&cuts[..], &text].concat());
    }

    #[test]
    fn foreign_bytes_do_no_harm(bytes: Vec<u8>) {
        agree::check(&bytes);
    }
}

/// One record of every kind of line.
fn sample() -> Vec<u8> {
    let bin = |name: &str, particle, data: &[u8]| Bin { name: name.into(), particle, data: data.into() };
    let record = Record {
        digest: [7; 20],
        set: b"a set".to_vec(),
        key: Some((4, b"key".to_vec())),
        generation: 3,
        void_time: 500_000_000,
        bins: vec![
            bin("nil", 0, b""),
            bin("int", 1, &(-12i64).to_be_bytes()),
            bin("dou\\ble", 2, &0.1f64.to_be_bytes()),
            bin("string", 3, b"two\nlines"),
            bin("blob", 4, b"blob"),
            bin("bool", 17, &[1]),
            bin("map", 19, &[0x81, 1, 2]),
            bin("geo", 23, b"\0\0\0{}"),
        ],
    };
    let mut text = encode(std::slice::from_ref(&record), false);
    text.extend(encode(&[record], true));
    text.extend_from_slice(
        b"* i n set index K 1 bin S kiKiA2E=\n* e n set index N 1  N kiKiA2E=\n* u L a.lua 5 a\nb\n\n\n",
    );
    text
}

#[test]
fn every_flipped_bit_is_judged_alike() {
    let text = sample();
    agree::check(&[b"ab", &text[..]].concat());
    for bit in 0..text.len() * 8 {
        let mut bytes = vec![bit as u8, (bit >> 8) as u8];
        bytes.extend_from_slice(&text);
        bytes[2 + bit / 8] ^= 1 << (bit % 8);
        agree::check(&bytes);
    }
}

#[test]
fn every_truncation_is_an_error_at_its_end() {
    let text = sample();
    let mut whole = 0;
    for end in 1..text.len() {
        agree::check(&[b"ab", &text[..end]].concat());
        let mut skimmer = Skimmer::new(Position::START);
        let skim = skimmer.skim(&text[..end]).unwrap();
        match skimmer.finish(&text[skim.len..end]) {
            Ok(()) => whole += 1,
            Err(error) => {
                assert_eq!((error.offset, error.kind), (end as u64, AsbErrorKind::Truncated("an item")));
                assert_eq!(error.line, text[..end].split(|&byte| byte == b'\n').count() as u64);
            }
        }
    }
    assert_eq!(whole, 4);
}

/// A record of the server's largest size that comes byte by byte (of a network packet) costs its own length, not its
/// square: this takes milliseconds, or hours.
#[test]
fn a_large_record_in_small_pieces_is_quick() {
    let record = Record {
        digest: [7; 20],
        set: Vec::new(),
        key: None,
        generation: 1,
        void_time: 0,
        bins: (0..2000u32)
            .map(|i| Bin { name: i.to_string().into(), particle: 3 + (i % 2) as u8, data: vec![b'\n'; 4000] })
            .collect(),
    };
    let text = encode(std::slice::from_ref(&record), false);
    let mut skimmer = Skimmer::new(Position::START);
    for end in (0..text.len()).step_by(100) {
        assert_eq!(skimmer.skim(&text[..end]).unwrap().len, 0);
    }
    let skim = skimmer.skim(&text).unwrap();
    assert_eq!((skim.len, skim.items), (text.len(), 1));
    assert_eq!(decode(&text, 1 << 20, usize::MAX).unwrap(), [record]);
}
