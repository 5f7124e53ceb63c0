//! The scan: a stream of the records of a set of partitions, from one node.

use std::time::Duration;

use tokio::time::Instant;

use crate::connection::Connection;
use crate::filter::ScanFilter;
use crate::message::{
    RequestHeader, ScanEvent, close_envelope, field, info1, info3, op, open_envelope, push_field,
    split_scan_message,
};
use crate::{ClusterError, PartitionCursor};

/// What a scan asks for; the same for every node.
#[derive(Clone, Debug, Default)]
pub struct ScanRequest {
    /// The namespace.
    pub namespace: String,
    /// Only records of this set; `None` for all records.
    pub set: Option<String>,
    /// Only these bins; empty for all bins.
    pub bins: Vec<String>,
    /// Digests and metadata only.
    pub no_bins: bool,
    /// Only records that this expression lets through.
    pub filter: Option<ScanFilter>,
    /// Records per second of this one scan; 0 for no limit.
    pub records_per_second: u32,
    /// At most this many records; 0 for all.
    pub sample_max: u64,
    /// How long the server may wait for us to read, and we for it to send.
    pub socket_timeout: Duration,
    /// How long the whole scan may take; zero for no limit.
    pub total_timeout: Duration,
}

impl ScanRequest {
    fn encode(&self, partitions: &[PartitionCursor], trid: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + partitions.len() * 22);
        let start = open_envelope(&mut out);
        let mut fields = 0;
        let mut body = Vec::with_capacity(out.capacity());
        let mut push = |kind, data: &[u8]| {
            push_field(&mut body, kind, data);
            fields += 1;
        };
        push(field::NAMESPACE, self.namespace.as_bytes());
        if let Some(set) = &self.set {
            push(field::SET, set.as_bytes());
        }
        let fresh: Vec<u8> =
            partitions.iter().filter(|c| c.after.is_none()).flat_map(|c| c.partition.to_le_bytes()).collect();
        if !fresh.is_empty() {
            push(field::PID_ARRAY, &fresh);
        }
        let resumed: Vec<u8> = partitions.iter().filter_map(|c| c.after).flatten().collect();
        if !resumed.is_empty() {
            push(field::DIGEST_ARRAY, &resumed);
        }
        if self.sample_max > 0 {
            push(field::SAMPLE_MAX, &self.sample_max.to_be_bytes());
        }
        let socket_timeout = u32::try_from(self.socket_timeout.as_millis()).unwrap_or(u32::MAX);
        push(field::SOCKET_TIMEOUT, &socket_timeout.to_be_bytes());
        if self.records_per_second > 0 {
            push(field::RECS_PER_SEC, &self.records_per_second.to_be_bytes());
        }
        push(field::TRID, &trid.to_be_bytes());
        if let Some(filter) = &self.filter {
            push(field::FILTER_EXP, filter.as_bytes());
        }
        let bins: &[String] = if self.no_bins { &[] } else { &self.bins };
        for bin in bins {
            body.extend_from_slice(&(4 + bin.len() as u32).to_be_bytes());
            body.extend_from_slice(&[op::READ, 0, 0, bin.len() as u8]);
            body.extend_from_slice(bin.as_bytes());
        }
        let selection = match (self.no_bins, bins.is_empty()) {
            (true, _) => info1::GET_NO_BINS,
            (false, true) => info1::GET_ALL,
            (false, false) => 0,
        };
        RequestHeader {
            info1: info1::READ | selection,
            // Without it the server answers 16, unsupported feature.
            info3: info3::PARTITION_DONE,
            timeout: u32::try_from(self.total_timeout.as_millis()).unwrap_or(u32::MAX),
            fields,
            ops: bins.len() as u16,
            ..RequestHeader::default()
        }
        .append_to(&mut out);
        out.append(&mut body);
        close_envelope(&mut out, start);
        out
    }
}

/// A scan under way.
#[derive(Debug)]
pub struct Scan {
    connection: Connection,
    deadline: Option<Instant>,
    total_timeout: Duration,
}

impl Scan {
    /// Asks the node behind `connection` for `partitions`: whole ones, or the rest after a digest.
    pub async fn start(
        mut connection: Connection,
        request: &ScanRequest,
        partitions: &[PartitionCursor],
    ) -> Result<Self, ClusterError> {
        let message = request.encode(partitions, trid());
        connection.set_timeout(request.socket_timeout);
        connection.send(&message).await?;
        let total_timeout = request.total_timeout;
        let deadline = (!total_timeout.is_zero()).then(|| Instant::now() + total_timeout);
        Ok(Self { connection, deadline, total_timeout })
    }

    /// The next block of the stream; the last one ends with [`ScanEvent::Last`], after which there is no more.
    pub async fn next(&mut self) -> Result<ScanBlock<'_>, ClusterError> {
        let body = match self.deadline {
            None => self.connection.receive().await?,
            // A read whose bytes are there already would not notice that the time is up.
            Some(deadline) if Instant::now() >= deadline => return Err(self.too_long()),
            Some(deadline) => match tokio::time::timeout_at(deadline, self.connection.receive()).await {
                Ok(body) => body?,
                Err(_) => return Err(self.too_long()),
            },
        };
        Ok(ScanBlock { rest: self.connection.body(body), address: self.connection.address() })
    }

    fn too_long(&self) -> ClusterError {
        let node = self.connection.address().to_owned();
        ClusterError::Timeout { verb: "scanning", node, after: self.total_timeout }
    }

    /// The connection, to be used again; only after [`ScanEvent::Last`].
    #[must_use]
    pub fn into_connection(self) -> Connection {
        self.connection
    }
}

/// A block of whole messages of a scan.
#[derive(Debug)]
pub struct ScanBlock<'a> {
    rest: &'a [u8],
    address: &'a str,
}

impl ScanBlock<'_> {
    /// What was not yet read of the block, as it came.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.rest
    }

    /// Bytes of the block on the wire that were not yet read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    /// True when every message of the block has been read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

impl<'a> Iterator for ScanBlock<'a> {
    type Item = Result<ScanEvent<'a>, ClusterError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match split_scan_message(self.rest) {
            Ok((event, rest)) => {
                self.rest = rest;
                Some(Ok(event))
            }
            Err(what) => {
                self.rest = &[];
                Some(Err(ClusterError::Malformed { node: self.address.to_owned(), what }))
            }
        }
    }
}

/// An id that no other query of the cluster uses at the same time: the server refuses a second one.
fn trid() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // RandomState is seeded by the system; hashing a counter gives ids that do not collide across processes.
    RandomState::new().hash_one(NEXT.fetch_add(1, Ordering::Relaxed))
}
