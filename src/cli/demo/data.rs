//! The sample data of the demo.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use abs_asb::{Digest, IndexData, IndexKind, SecondaryIndex, Udf, UdfLanguage};
use abs_cluster::{
    BatchFlags, BatchMessage, Cluster, Exists, Generation, PARTITIONS, PartitionCursor, ResultCode, RowHead,
    RowResults, Scan, ScanEvent, ScanRequest, TTL_NEVER, partition_of,
};

use super::super::Failure;

/// The namespace.
pub(super) const NAMESPACE: &str = "demo";
/// The name of its index.
const INDEX: &str = "users_age";
/// Rows per batch.
const BATCH: usize = 128;

/// Of every record by its digest: a hash of all that a backup must carry, and its void time.
pub(super) type Contents = HashMap<Digest, (u64, u32)>;

/// How much later a restored record may expire, in seconds: a write says how long from now, and the server's clock goes
/// on until it takes the write.
const LATE: u32 = 5;

/// Writes the sample data: users with strings, numbers, lists and maps; an index and a UDF module.
pub(super) async fn fill(cluster: &Cluster, records: u32) -> Result<(), Failure> {
    put_users(cluster, 0..records, 0).await?;
    let index = SecondaryIndex {
        set: "users".to_owned(),
        name: INDEX.to_owned(),
        kind: IndexKind::Bin,
        bin: Some("age".to_owned()),
        data: IndexData::Numeric,
        context: None,
        expression: None,
    };
    cluster.create_index(NAMESPACE, &index).await.map_err(Failure::job)?;
    let content = b"function add(rec, a, b)\n  return a + b\nend\n".to_vec();
    let udf = Udf { language: UdfLanguage::Lua, name: "demo.lua".to_owned(), content };
    cluster.put_udf(&udf).await.map_err(Failure::job)
}

/// Deletes all records and the index.
pub(super) async fn wipe(cluster: &Cluster) -> Result<(), Failure> {
    for command in [
        format!("truncate-namespace:namespace={NAMESPACE}"),
        format!("sindex-delete:namespace={NAMESPACE};indexname={INDEX}"),
    ] {
        cluster.info(&command).await.map_err(Failure::job)?;
    }
    match contents(cluster).await?.len() {
        0 => Ok(()),
        left => Err(Failure::Job(format!("{left} records are left after the wipe"))),
    }
}

/// Insists that the namespace is what it was, and returns how many records were compared.
pub(super) async fn compare(cluster: &Cluster, before: &Contents) -> Result<usize, Failure> {
    let after = contents(cluster).await?;
    let same = |(digest, (hash, void_time)): (&Digest, &(u64, u32))| {
        after.get(digest).is_some_and(|(now, later)| {
            now == hash && (later == void_time || (void_time + 1..=void_time + LATE).contains(later))
        })
    };
    let different = before.iter().filter(|record| !same(*record)).count();
    let indexes = cluster.indexes(NAMESPACE).await.map_err(Failure::job)?.secondary.len();
    if different > 0 || after.len() != before.len() || indexes != 1 {
        return Err(Failure::Job(format!(
            "{different} of {} records differ, {} are there, {indexes} indexes",
            before.len(),
            after.len()
        )));
    }
    Ok(after.len())
}

/// Writes the users of these numbers; `visits` is how often each was seen.
pub(super) async fn put_users(
    cluster: &Cluster,
    numbers: impl Iterator<Item = u32>,
    visits: u8,
) -> Result<(), Failure> {
    let map = cluster.partition_map(NAMESPACE).await.map_err(Failure::job)?;
    let flags = BatchFlags { inline: true, inline_ssd: false };
    let mut batches: Vec<_> = map.nodes().iter().map(|_| BatchMessage::new(NAMESPACE, flags)).collect();
    let mut results = RowResults::new();
    for number in numbers {
        let digest = digest_of(number);
        let owner = map
            .owner(partition_of(&digest))
            .ok_or_else(|| Failure::job("a partition of the embedded server has no owner"))?;
        append_user(&mut batches[owner], number, visits, digest);
        if batches[owner].len() == BATCH {
            write(cluster, &map.nodes()[owner], &mut batches[owner], &mut results).await?;
        }
    }
    for (batch, node) in batches.iter_mut().zip(map.nodes()).filter(|(batch, _)| !batch.is_empty()) {
        write(cluster, node, batch, &mut results).await?;
    }
    Ok(())
}

/// A digest for a made-up record: well spread over the partitions.
fn digest_of(number: u32) -> Digest {
    let mut digest = Digest::default();
    let mut state = u64::from(number);
    for chunk in digest.chunks_mut(8) {
        // The mixing function of SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bytes = (mixed ^ (mixed >> 31)).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
    digest
}

fn append_user(batch: &mut BatchMessage, number: u32, visits: u8, digest: Digest) {
    let expires = number.is_multiple_of(10);
    let head = RowHead {
        digest,
        exists: Exists::Update,
        generation: Generation::Any,
        ttl: if expires { 30 * 24 * 3600 } else { TTL_NEVER },
    };
    let mut row = batch.row(&head);
    let name = format!("user-{number}");
    // Particle types: 1 integer, 2 float, 3 string, 4 blob, 19 map, 20 list.
    let age = i64::from(18 + number % 70).to_be_bytes();
    let score = (f64::from(number) / 7.0).to_be_bytes();
    let map =
        [&[0x82, 0xa5, 3][..], b"city", &[0xa5, 3], b"Oslo", &[0xa4, 3], b"zip", &[0xcd, 1, 144]].concat();
    // Small positive numbers are a byte each.
    let list = [0x93, (number % 100) as u8, visits & 0x7f, 3];
    let bins: [(&str, u8, &[u8]); 6] = [
        ("name", 3, name.as_bytes()),
        ("age", 1, &age),
        ("score", 2, &score),
        ("avatar", 4, &digest),
        ("address", 19, &map),
        ("visits", 20, &list),
    ];
    let append = |bytes: &[u8], out: &mut Vec<u8>| -> Result<(), std::convert::Infallible> {
        out.extend_from_slice(bytes);
        Ok(())
    };
    let Ok(()) = row.set(|out| append(b"users", out));
    let Ok(()) = row.key(1, |out| append(&i64::from(number).to_be_bytes(), out));
    for (name, particle, value) in bins {
        let Ok(()) = row.bin(particle, |out| append(name.as_bytes(), out), |out| append(value, out));
    }
    row.finish();
}

async fn write(
    cluster: &Cluster,
    node: &abs_cluster::Node,
    batch: &mut BatchMessage,
    results: &mut RowResults,
) -> Result<(), Failure> {
    let mut connection = cluster.connection(node).await.map_err(Failure::job)?;
    connection.write_batch(batch, results).await.map_err(Failure::job)?;
    cluster.release(node, connection);
    if let Some(bad) = results.iter().find(|result| **result != Some(ResultCode::OK)) {
        return Err(Failure::Job(format!("writing the sample data: {bad:?}")));
    }
    batch.clear();
    Ok(())
}

/// Reads the whole namespace. Generations are left out: a server counts them anew.
pub(super) async fn contents(cluster: &Cluster) -> Result<Contents, Failure> {
    // One fixed state for both readings, so that their hashes can be compared.
    static STATE: std::sync::OnceLock<RandomState> = std::sync::OnceLock::new();
    let state = STATE.get_or_init(RandomState::new);
    let map = cluster.partition_map(NAMESPACE).await.map_err(Failure::job)?;
    let request = ScanRequest {
        namespace: NAMESPACE.to_owned(),
        socket_timeout: Duration::from_secs(10),
        ..ScanRequest::default()
    };
    let mut contents = Contents::new();
    for (index, node) in map.nodes().iter().enumerate() {
        let owned: Vec<PartitionCursor> =
            (0..PARTITIONS).filter(|&p| map.owner(p) == Some(index)).map(PartitionCursor::from).collect();
        let connection = cluster.connection(node).await.map_err(Failure::job)?;
        let mut scan = Scan::start(connection, &request, &owned).await.map_err(Failure::job)?;
        'stream: loop {
            for event in scan.next().await.map_err(Failure::job)? {
                match event.map_err(Failure::job)? {
                    ScanEvent::Record(record) => {
                        let mut hash = state.build_hasher();
                        hash.write(record.head.set);
                        if let Some(key) = record.head.key {
                            hash.write_u8(key.particle);
                            hash.write(key.data);
                        }
                        for bin in record.bins {
                            hash.write(bin.name);
                            hash.write_u8(bin.particle);
                            hash.write(bin.data);
                        }
                        contents.insert(*record.head.digest, (hash.finish(), record.head.void_time));
                    }
                    ScanEvent::Last(ResultCode::OK) => break 'stream,
                    ScanEvent::Last(code) => return Err(Failure::Job(format!("reading back: {code}"))),
                    ScanEvent::PartitionDone { code: ResultCode::OK, .. } => {}
                    ScanEvent::PartitionDone { partition, code } => {
                        return Err(Failure::Job(format!("reading back partition {partition}: {code}")));
                    }
                }
            }
        }
    }
    Ok(contents)
}
