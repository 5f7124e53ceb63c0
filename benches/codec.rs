//! The codec on the benchmark record: 15 bins, about 870 bytes in a scan reply. Time is per 1,000 records.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

#[path = "throughput/data.rs"]
mod data;

use std::hint::black_box;

use abs_asb::{
    Cipher, Decompressor, Decryptor, Encoder, EncryptionKey, FileOrigin, FrameWriter, GcmHead, Item, Items,
    Position, RecordHead, Skimmer, WireBin,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const RECORDS: usize = 1000;
const KEY: &str = include_str!("../tests/golden/test-key.b64");

struct Record {
    digest: [u8; 20],
    bins: data::Bins,
}

fn record(number: u32) -> Record {
    Record { digest: data::digest(number), bins: data::bins(number) }
}

fn encode(encoder: &Encoder, records: &[Record], out: &mut Vec<u8>) {
    for record in records {
        let head = RecordHead {
            digest: &record.digest,
            set: b"perf",
            key: None,
            generation: 1,
            void_time: 0,
            bin_count: record.bins.len() as u16,
        };
        let bins = record.bins.iter().map(|(name, particle, data)| WireBin {
            name: name.as_bytes(),
            particle: *particle,
            data,
        });
        encoder.record(&head, bins, out).unwrap();
    }
}

/// The operations of a write: names and particles.
fn decode(text: &[u8], out: &mut Vec<u8>) {
    let mut items = Items::new(text, Position::START);
    while let Some(item) = items.next().unwrap() {
        let Item::Record(mut record) = item else { continue };
        out.extend_from_slice(&record.digest);
        while let Some(bin) = record.next_bin().unwrap() {
            out.extend_from_slice(&[2, bin.value.particle() as u8, 0, bin.name.len() as u8]);
            bin.name.unescape_into(out);
            bin.value.append_to(out).unwrap();
        }
    }
}

fn text(c: &mut Criterion) {
    let records: Vec<_> = (0..RECORDS as u32).map(record).collect();
    for (form, compact) in [("plain", false), ("compact", true)] {
        let encoder = Encoder::new("source-ns1", compact);
        let mut text = Vec::new();
        encode(&encoder, &records, &mut text);
        let mut group = c.benchmark_group(form);
        group.throughput(Throughput::Elements(RECORDS as u64));
        let mut out = Vec::with_capacity(2 << 20);
        group.bench_function("encode", |b| {
            b.iter(|| {
                out.clear();
                encode(&encoder, black_box(&records), &mut out);
            });
        });
        group.bench_function("skim", |b| {
            b.iter(|| Skimmer::new(Position::START).skim(black_box(&text)).unwrap());
        });
        group.bench_function("decode", |b| {
            b.iter(|| {
                out.clear();
                decode(black_box(&text), &mut out);
            });
        });
        group.finish();
    }
}

fn frame(c: &mut Criterion) {
    let records: Vec<_> = (0..RECORDS as u32).map(record).collect();
    let mut text = Vec::new();
    encode(&Encoder::new("source-ns1", false), &records, &mut text);
    let key = |cipher| EncryptionKey::from_pem_or_base64(KEY, cipher).unwrap();
    let (ctr, gcm) = (key(Cipher::Aes256), key(Cipher::Aes256Gcm));
    let new =
        |level, key| FrameWriter::new(level, key, FileOrigin { run: "run", name: "0_n_1.asb" }).unwrap();
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Bytes(text.len() as u64));
    for (name, level, key) in [
        ("zstd-1", Some(1), None),
        ("zstd-3", Some(3), None),
        ("aes256", None, Some(&ctr)),
        ("aes256gcm", None, Some(&gcm)),
    ] {
        let mut writer = new(level, key);
        group.bench_function(format!("seal-{name}"), |b| {
            b.iter_batched_ref(|| text.clone(), |block| writer.seal(block).unwrap(), BatchSize::LargeInput);
        });
    }
    let mut file = text.clone();
    let mut writer = new(Some(1), None);
    writer.seal(&mut file).unwrap();
    writer.finish(&mut file).unwrap();
    let mut out = Vec::with_capacity(2 << 20);
    group.bench_function("open-zstd-1", |b| {
        b.iter(|| {
            out.clear();
            Decompressor::new().unwrap().step(black_box(&file), &mut out, 2 << 20).unwrap()
        });
    });
    assert!(out == text);
    let mut decryptor = Decryptor::ctr(&ctr, [0; 16]).unwrap();
    group.bench_function("open-aes256", |b| {
        b.iter(|| decryptor.decrypt(black_box(&mut text), 0, true).unwrap());
    });
    let mut file = text.clone();
    let mut writer = new(None, Some(&gcm));
    writer.seal(&mut file).unwrap();
    writer.finish(&mut file).unwrap();
    group.bench_function("open-aes256gcm", |b| {
        b.iter_batched_ref(
            || {
                let head = GcmHead::parse(&file).unwrap().unwrap();
                let body = file[head.length()..].to_vec();
                (Decryptor::gcm(&gcm, head).unwrap(), body)
            },
            |(decryptor, body)| decryptor.decrypt(body, 0, true).unwrap(),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, text, frame);
criterion_main!(benches);
