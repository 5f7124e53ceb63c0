//! Records as they are on the wire: written and read without a value in between.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use abs_asb::Digest;
use abs_cluster::{
    BatchFlags, BatchMessage, Exists, Generation, ResultCode, RowHead, RowResults, Scan, ScanEvent,
    ScanRequest, TTL_NEVER, partition_of,
};

use crate::support::Server;

/// Bytes after which a batch is sent.
const BATCH: usize = 1 << 20;

/// A value as the server takes and sends it.
#[derive(Clone, PartialEq, Eq)]
pub struct Particle {
    pub kind: u8,
    pub data: Vec<u8>,
}

impl fmt::Debug for Particle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.data[..self.data.len().min(200)];
        write!(f, "type {}, {} bytes: {}", self.kind, self.data.len(), shown.escape_ascii())
    }
}

fn particle(kind: u8, data: impl Into<Vec<u8>>) -> Particle {
    Particle { kind, data: data.into() }
}

pub fn integer(value: i64) -> Particle {
    particle(1, value.to_be_bytes())
}

/// A double of these bits.
pub fn float(bits: u64) -> Particle {
    particle(2, bits.to_be_bytes())
}

pub fn string(text: impl AsRef<[u8]>) -> Particle {
    particle(3, text.as_ref())
}

pub fn blob(bytes: impl Into<Vec<u8>>) -> Particle {
    particle(4, bytes)
}

pub fn boolean(value: bool) -> Particle {
    particle(17, [u8::from(value)])
}

pub fn map(packed: impl Into<Vec<u8>>) -> Particle {
    particle(19, packed)
}

pub fn list(packed: impl Into<Vec<u8>>) -> Particle {
    particle(20, packed)
}

/// GeoJSON as clients send it: flags and number of cells are for the server to fill in.
pub fn geojson(json: &str) -> Particle {
    particle(23, [&[0, 0, 0], json.as_bytes()].concat())
}

/// An empty HyperLogLog of 16 registers of 6 bits: flags, index bits, minhash bits, cached count, registers.
pub fn hll() -> Particle {
    particle(18, [&[0, 4, 0][..], &[0; 8], &[0; 12]].concat())
}

/// A record to write.
#[derive(Clone, Debug)]
pub struct Raw {
    pub digest: Digest,
    pub set: Vec<u8>,
    pub key: Option<Particle>,
    /// Seconds to live.
    pub ttl: u32,
    pub bins: Vec<(Vec<u8>, Particle)>,
}

impl Raw {
    /// The record of this number: of no set, without key and bins, never to expire.
    pub fn new(number: u64) -> Self {
        Self { digest: digest(number), set: Vec::new(), key: None, ttl: TTL_NEVER, bins: Vec::new() }
    }

    pub fn set(mut self, name: impl AsRef<[u8]>) -> Self {
        self.set = name.as_ref().to_vec();
        self
    }

    pub fn key(mut self, key: Particle) -> Self {
        self.key = Some(key);
        self
    }

    pub fn ttl(mut self, seconds: u32) -> Self {
        self.ttl = seconds;
        self
    }

    pub fn bin(mut self, name: impl AsRef<[u8]>, value: Particle) -> Self {
        self.bins.push((name.as_ref().to_vec(), value));
        self
    }

    /// The digest as the format writes it.
    pub fn name(&self) -> String {
        base64_simd::STANDARD.encode_to_string(self.digest)
    }
}

/// The digest of a number: well spread over the partitions (`SplitMix64`).
pub fn digest(number: u64) -> Digest {
    let mut digest = Digest::default();
    let mut state = number;
    for chunk in digest.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bytes = (mixed ^ (mixed >> 31)).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
    digest
}

/// A record as the server keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub set: Vec<u8>,
    pub key: Option<Particle>,
    pub generation: u32,
    pub void_time: u32,
    pub bins: BTreeMap<Vec<u8>, Particle>,
}

pub type Contents = BTreeMap<Digest, Stored>;

/// Writes the records, bin by bin into those that exist, and insists that the server takes them all.
#[track_caller]
pub fn load(server: &Server, records: &[Raw]) {
    for (record, code) in records.iter().zip(write(server, records)) {
        assert_eq!(code, ResultCode::OK, "{record:?}");
    }
}

/// Writes the records and returns the answer to each.
pub fn write(server: &Server, records: &[Raw]) -> Vec<ResultCode> {
    server.runtime.block_on(async {
        let map = server.cluster.partition_map(&server.namespace).await.unwrap();
        let mut codes = vec![ResultCode(255); records.len()];
        for (index, node) in map.nodes().iter().enumerate() {
            let owned =
                (0..records.len()).filter(|&n| map.owner(partition_of(&records[n].digest)) == Some(index));
            let owned: Vec<usize> = owned.collect();
            let mut rest = &owned[..];
            while !rest.is_empty() {
                let mut batch = BatchMessage::new(&server.namespace, BatchFlags::default());
                while batch.len() < rest.len() && batch.bytes() < BATCH {
                    let next = rest[batch.len()];
                    append(&mut batch, &records[next]);
                }
                let mut results = RowResults::new();
                let mut connection = server.cluster.connection(node).await.unwrap();
                connection.set_timeout(Duration::from_secs(20));
                connection.write_batch(&mut batch, &mut results).await.unwrap();
                server.cluster.release(node, connection);
                for (&record, result) in rest.iter().zip(&results) {
                    codes[record] = result.unwrap();
                }
                rest = &rest[batch.len()..];
            }
        }
        codes
    })
}

fn append(batch: &mut BatchMessage, record: &Raw) {
    let bytes = |bytes: &[u8], out: &mut Vec<u8>| -> Result<(), Infallible> {
        out.extend_from_slice(bytes);
        Ok(())
    };
    let (digest, ttl) = (record.digest, record.ttl);
    let mut row = batch.row(&RowHead { digest, exists: Exists::Update, generation: Generation::Any, ttl });
    if !record.set.is_empty() {
        row.set(|out| bytes(&record.set, out)).unwrap();
    }
    if let Some(key) = &record.key {
        row.key(key.kind, |out| bytes(&key.data, out)).unwrap();
    }
    for (name, value) in &record.bins {
        row.bin(value.kind, |out| bytes(name, out), |out| bytes(&value.data, out)).unwrap();
    }
    row.finish();
}

/// Reads the whole namespace.
pub fn read(server: &Server) -> Contents {
    let request = ScanRequest {
        namespace: server.namespace.clone(),
        socket_timeout: Duration::from_secs(20),
        ..ScanRequest::default()
    };
    let mut contents = Contents::new();
    server.runtime.block_on(async {
        let map = server.cluster.partition_map(&server.namespace).await.unwrap();
        for node in map.nodes() {
            let owned: Vec<_> = map.mastered_by(&node.name).into_iter().map(Into::into).collect();
            let connection = server.cluster.connection(node).await.unwrap();
            let mut scan = Scan::start(connection, &request, &owned).await.unwrap();
            'stream: loop {
                for event in scan.next().await.unwrap() {
                    match event.unwrap() {
                        ScanEvent::Record(record) => {
                            let particle = |kind, data: &[u8]| Particle { kind, data: data.to_vec() };
                            let stored = Stored {
                                set: record.head.set.to_vec(),
                                key: record.head.key.map(|key| particle(key.particle, key.data)),
                                generation: record.head.generation,
                                void_time: record.head.void_time,
                                bins: record
                                    .bins
                                    .map(|bin| (bin.name.to_vec(), particle(bin.particle, bin.data)))
                                    .collect(),
                            };
                            assert!(contents.insert(*record.head.digest, stored).is_none(), "read twice");
                        }
                        ScanEvent::Last(code) => {
                            assert_eq!(code, ResultCode::OK);
                            break 'stream;
                        }
                        ScanEvent::PartitionDone { code, .. } => assert_eq!(code, ResultCode::OK),
                    }
                }
            }
            server.cluster.release(node, scan.into_connection());
        }
    });
    contents
}

/// Insists that the namespace holds what it held before a backup, a wipe and a restore: the same bytes throughout,
/// generations counted anew, and void times at most some seconds late, since a write can only say how long from now.
#[track_caller]
pub fn same(found: &Contents, expected: &Contents) {
    let missing = expected.keys().filter(|digest| !found.contains_key(*digest)).count();
    assert_eq!((missing, found.len()), (0, expected.len()), "records missing, records found");
    for (digest, before) in expected {
        let after = &found[digest];
        assert_eq!((&after.set, &after.key), (&before.set, &before.key));
        for (name, value) in &before.bins {
            assert_eq!(after.bins.get(name), Some(value), "bin {:?}", name.escape_ascii().to_string());
        }
        assert_eq!(after.bins.len(), before.bins.len(), "bins of {after:?}");
        assert_eq!(after.generation, 1);
        match before.void_time {
            0 => assert_eq!(after.void_time, 0),
            time => assert!((time..=time + 5).contains(&after.void_time), "{} for {time}", after.void_time),
        }
    }
}
