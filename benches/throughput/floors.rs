//! How fast the server itself can send and take records.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abs_cluster::{
    BatchFlags, BatchMessage, Cluster, Exists, Generation, Node, PARTITIONS, PartitionCursor, ResultCode,
    RowHead, RowResults, Scan, ScanEvent, ScanRequest, TTL_NEVER, partition_of,
};

use crate::Run;
use crate::data::{self, Bins};

const SCANS: u16 = 4;
const WRITERS: u32 = 8;
const BATCH: usize = 128;
/// How many different records there are; more records than that repeat them under other digests.
const DIFFERENT: u32 = 65_536;

/// Scans all partitions over four connections per node, a thread for each, and drops what comes, or writes it to files in
/// a folder as it is, and syncs them.
pub async fn scan(cluster: &Cluster, namespace: &str, folder: Option<&Path>) -> Run {
    let map = cluster.partition_map(namespace).await.expect("a partition map");
    let start = Instant::now();
    let mut threads = Vec::new();
    for (index, node) in map.nodes().iter().enumerate() {
        for part in 0..SCANS {
            let range = PARTITIONS / SCANS * part..PARTITIONS / SCANS * (part + 1);
            let partitions: Vec<PartitionCursor> =
                range.filter(|&p| map.owner(p) == Some(index)).map(PartitionCursor::from).collect();
            let (cluster, node) = (cluster.clone(), node.clone());
            let request = ScanRequest {
                namespace: namespace.to_owned(),
                socket_timeout: Duration::from_secs(30),
                ..ScanRequest::default()
            };
            let file = folder.map(|folder| folder.join(format!("{index}-{part}")));
            threads.push(std::thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(scan_part(&cluster, &node, &request, &partitions, file.as_deref()))
            }));
        }
    }
    let bytes: usize = threads.into_iter().map(|thread| thread.join().expect("a scan")).sum();
    Run { seconds: start.elapsed().as_secs_f64(), bytes: bytes as f64, cpu: None, memory: None }
}

async fn scan_part(
    cluster: &Cluster,
    node: &Node,
    request: &ScanRequest,
    partitions: &[PartitionCursor],
    file: Option<&Path>,
) -> usize {
    let mut file = file.map(|path| File::create(path).expect("a file"));
    let connection = cluster.connection(node).await.expect("a connection");
    let mut scan = Scan::start(connection, request, partitions).await.expect("a scan");
    let mut bytes = 0;
    loop {
        let block = scan.next().await.expect("a block");
        bytes += block.len();
        if let Some(file) = &mut file {
            file.write_all(block.bytes()).expect("a write");
        }
        // The message that ends a scan is a header of its own.
        if block.len() == 22 && matches!(block.last(), Some(Ok(ScanEvent::Last(ResultCode::OK)))) {
            break;
        }
    }
    if let Some(file) = file {
        file.sync_all().expect("a sync");
    }
    bytes
}

/// Writes prepared batches over eight connections, each waiting for its answer before it sends the next.
pub async fn write(cluster: &Cluster, namespace: &str, rows: &[Bins], records: u32) -> Run {
    let map = Arc::new(cluster.partition_map(namespace).await.expect("a partition map"));
    // All messages are ready before the clock starts.
    let mut prepared: Vec<Vec<(usize, BatchMessage)>> = Vec::new();
    for writer in 0..WRITERS {
        let range = writer * (records / WRITERS)..if writer + 1 == WRITERS {
            records
        } else {
            (writer + 1) * (records / WRITERS)
        };
        let mut open: Vec<BatchMessage> = map.nodes().iter().map(|_| batch(namespace)).collect();
        let mut done = Vec::new();
        for number in range {
            let owner = map.owner(partition_of(&data::digest(number))).expect("an owner");
            append(&mut open[owner], &rows[(number % DIFFERENT) as usize], number);
            if open[owner].len() == BATCH {
                done.push((owner, std::mem::replace(&mut open[owner], batch(namespace))));
            }
        }
        done.extend(open.into_iter().enumerate().filter(|(_, batch)| !batch.is_empty()));
        prepared.push(done);
    }
    let bytes: usize = prepared.iter().flatten().map(|(_, batch)| batch.bytes()).sum();
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for batches in prepared {
        let (cluster, map) = (cluster.clone(), Arc::clone(&map));
        tasks.spawn(async move {
            let mut results = RowResults::new();
            for (owner, mut batch) in batches {
                let node = &map.nodes()[owner];
                let mut connection = cluster.connection(node).await.expect("a connection");
                connection.write_batch(&mut batch, &mut results).await.expect("a batch");
                assert!(results.iter().all(|result| *result == Some(ResultCode::OK)));
                cluster.release(node, connection);
            }
        });
    }
    tasks.join_all().await;
    Run { seconds: start.elapsed().as_secs_f64(), bytes: bytes as f64, cpu: None, memory: None }
}

/// Appends record `number` to a batch.
fn append(batch: &mut BatchMessage, bins: &Bins, number: u32) {
    let head = RowHead {
        digest: data::digest(number),
        exists: Exists::Update,
        generation: Generation::Any,
        ttl: TTL_NEVER,
    };
    let mut row = batch.row(&head);
    let put = |bytes: &[u8], out: &mut Vec<u8>| -> Result<(), Infallible> {
        out.extend_from_slice(bytes);
        Ok(())
    };
    let Ok(()) = row.set(|out| put(b"perf", out));
    for (name, particle, value) in bins {
        let Ok(()) = row.bin(*particle, |out| put(name.as_bytes(), out), |out| put(value, out));
    }
    row.finish();
}

fn batch(namespace: &str) -> BatchMessage {
    BatchMessage::new(namespace, BatchFlags { inline: true, inline_ssd: false })
}

/// The bins of every different record.
pub fn prepare() -> Vec<Bins> {
    (0..DIFFERENT).map(data::bins).collect()
}
