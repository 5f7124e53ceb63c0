//! What time it is in a cluster: the clocks by which the nodes stamp records and compare last-update times.

use abs_asb::Digest;
use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::message::{
    HEADER, RequestHeader, be_u16, close_envelope, field, info1, op, open_envelope, push_field, split_field,
    split_op,
};
use crate::{Cluster, ClusterError, Node, PartitionCursor, ResultCode, Scan, ScanEvent, ScanRequest};

/// Records of a node that are tried until one of them tells the time.
const SAMPLES: u64 = 8;

/// 2010-01-01T00:00:00Z, from when on nodes count time, in milliseconds since 1970.
const EPOCH_MS: i64 = 1_262_304_000_000;

/// The operand of the read: `[expression, flags]` in msgpack. The expression is
/// `since_update > 0 ? last_update / 1,000,000 + since_update : 0`, the node's time in milliseconds since 1970. A record
/// whose last update lies in the future of the node has a `since_update` of 0 and tells nothing.
const NOW: &[u8] = &[
    0x92, // [
    0x94, 123, // [condition,
    0x93, 3, 0x91, 67, 0, // [>, [since_update], 0],
    0x93, 20, 0x93, 23, 0x91, 66, 0xce, 0x00, 0x0f, 0x42, 0x40, 0x91,
    67, // [+, [/, [last_update], 1000000], [since_update]],
    0,  // 0],
    0,  // no flags]
];

/// The time by the clocks of the nodes that master the records of a namespace, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterTime {
    /// By the clock that is furthest behind: what is written from now on is not older.
    pub earliest: i64,
    /// By the clock that is furthest ahead: what has been written is not newer.
    pub latest: i64,
}

impl ClusterTime {
    fn including(self, other: Self) -> Self {
        Self { earliest: self.earliest.min(other.earliest), latest: self.latest.max(other.latest) }
    }
}

impl Cluster {
    /// Reads the clock of each node that masters records of `namespace`, without writing anything: through a record, to
    /// the millisecond, or from the node's statistics, to the second, where no record tells it. `None` when a node
    /// tells its time in neither way.
    pub async fn time(&self, namespace: &str) -> Result<Option<ClusterTime>, ClusterError> {
        let map = self.partition_map(namespace).await?;
        let mut readings = JoinSet::new();
        for node in map.nodes() {
            let partitions = map.mastered_by(&node.name);
            if !partitions.is_empty() {
                let (cluster, node, namespace) = (self.clone(), node.clone(), namespace.to_owned());
                readings.spawn(async move { cluster.time_of(&node, &namespace, &partitions).await });
            }
        }
        let (mut all, mut is_known) = (None::<ClusterTime>, true);
        while let Some(reading) = readings.join_next().await {
            // A task that was neither aborted nor panicked has a result.
            let Ok(reading) = reading else { return Ok(None) };
            match reading? {
                Some(time) => all = Some(all.map_or(time, |all| all.including(time))),
                None => is_known = false,
            }
        }
        Ok(all.filter(|_| is_known))
    }

    async fn time_of(
        &self,
        node: &Node,
        namespace: &str,
        partitions: &[u16],
    ) -> Result<Option<ClusterTime>, ClusterError> {
        let (digests, mut connection) = self.sample(node, namespace, partitions).await?;
        for digest in digests {
            if let Some(now) = connection.read_time(namespace, &digest).await? {
                self.release(node, connection);
                return Ok(Some(ClusterTime { earliest: now, latest: now }));
            }
        }
        self.release(node, connection);
        let statistics = self.info_of(node, &format!("namespace/{namespace}")).await?;
        let seconds = statistics.split(';').find_map(|pair| pair.strip_prefix("current_time=")?.parse().ok());
        Ok(seconds.and_then(|seconds: i64| {
            let earliest = seconds.checked_mul(1000)?.checked_add(EPOCH_MS)?;
            Some(ClusterTime { earliest, latest: earliest.checked_add(999)? })
        }))
    }

    /// The digests of a few records of a node; none when there are none, or none that may be read.
    async fn sample(
        &self,
        node: &Node,
        namespace: &str,
        partitions: &[u16],
    ) -> Result<(Vec<Digest>, Connection), ClusterError> {
        let request = ScanRequest {
            namespace: namespace.to_owned(),
            no_bins: true,
            sample_max: SAMPLES,
            socket_timeout: self.timeout(),
            ..ScanRequest::default()
        };
        let partitions: Vec<_> = partitions.iter().copied().map(PartitionCursor::from).collect();
        let mut scan = Scan::start(self.connection(node).await?, &request, &partitions).await?;
        let (mut digests, mut is_over) = (Vec::new(), false);
        while !is_over {
            for event in scan.next().await? {
                match event? {
                    ScanEvent::Record(record) => digests.push(*record.head.digest),
                    ScanEvent::PartitionDone { .. } => {}
                    ScanEvent::Last(_) => is_over = true,
                }
            }
        }
        Ok((digests, scan.into_connection()))
    }
}

impl Connection {
    /// The node's time, if this record tells it.
    async fn read_time(&mut self, namespace: &str, digest: &Digest) -> Result<Option<i64>, ClusterError> {
        self.send(&time_request(namespace, digest)).await?;
        let body = self.receive().await?;
        split_time(self.body(body)).map_err(|what| self.malformed(what))
    }
}

fn time_request(namespace: &str, digest: &Digest) -> Vec<u8> {
    const NAME: u8 = b't';
    const BLOB: u8 = 4;
    let mut out = Vec::with_capacity(128);
    let start = open_envelope(&mut out);
    RequestHeader { info1: info1::READ, fields: 2, ops: 1, ..RequestHeader::default() }.append_to(&mut out);
    push_field(&mut out, field::NAMESPACE, namespace.as_bytes());
    push_field(&mut out, field::DIGEST, digest);
    out.extend_from_slice(&(4 + 1 + NOW.len() as u32).to_be_bytes());
    out.extend_from_slice(&[op::EXP_READ, BLOB, 0, 1, NAME]);
    out.extend_from_slice(NOW);
    close_envelope(&mut out, start);
    out
}

/// The time in an answer; none in that about a record that is gone or may not be read.
fn split_time(body: &[u8]) -> Result<Option<i64>, &'static str> {
    let (header, mut rest) = body.split_first_chunk::<HEADER>().ok_or("message header cut short")?;
    if ResultCode(header[5]) != ResultCode::OK {
        return Ok(None);
    }
    for _ in 0..be_u16(header, 18) {
        rest = split_field(rest).ok_or("field cut short")?.2;
    }
    let value = match be_u16(header, 20) {
        0 => return Ok(None),
        _ => split_op(rest).ok_or("bin cut short")?.0.data,
    };
    let value = value.try_into().map(i64::from_be_bytes).map_err(|_| "a time that is no integer")?;
    Ok(Some(value).filter(|value| *value > 0))
}
