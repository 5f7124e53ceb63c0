//! Queries: the records of some partitions of a namespace, from the start of each or after a digest.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::counters::{Counters, RunningQuery};
use crate::expression::{Filter, View};
use crate::faults::Kind;
use crate::masking::{self, MaskingRule};
use crate::message::{HEADER, Head, Op, Request, field, info1, info2, info3, op, put_field, put_op};
use crate::namespace::{Namespace, SetId};
use crate::node::{Closed, Connection, Reply};
use crate::ops::{self, Found};
use crate::particle;
use crate::range::Range;
use crate::record::{Digest, PARTITIONS, Record, partition_of};
use crate::result_code::{Outcome, ResultCode};
use crate::security::Peer;

/// A block goes out when it is larger than this.
const BLOCK: usize = 1024 * 1024;
/// At a limited rate, how often blocks go out.
const PACE: Duration = Duration::from_millis(50);

/// Where a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Beginning,
    After(Digest),
}

/// The sets whose records a query is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sets {
    All,
    One(SetId),
    /// A set that no record was ever in.
    Unknown,
}

/// What a query asks, checked.
struct Query<'a> {
    namespace: Arc<Namespace>,
    set: Sets,
    partitions: Vec<(usize, Start)>,
    filter: Option<Filter>,
    range: Option<Range>,
    no_bins: bool,
    /// Read operations instead of all bins.
    ops: Vec<Op<'a>>,
    respond_all: bool,
    /// Records per second; 0 = no limit.
    rate: u32,
    /// Most records; 0 = no limit.
    sample_max: u64,
    /// How long a block may wait to be taken.
    socket_timeout: Option<Duration>,
    /// A short query ends in its last block.
    is_short: bool,
    /// The rules that mask values for this user.
    masking: Vec<&'a MaskingRule>,
}

/// Executes a query request and sends its reply.
pub(crate) async fn execute(
    connection: &mut Connection,
    request: &Request<'_>,
    running: RunningQuery,
) -> Result<(), Closed> {
    let cluster = connection.cluster.clone();
    let query = match Query::parse(&cluster, request, &connection.peer) {
        Ok(query) => query,
        Err(code) => {
            connection.reply.open_block();
            Head { result: code.0, ..Head::default() }.put(&mut connection.reply.out);
            return connection.send_block(Kind::Query).await;
        }
    };
    Counters::add(&connection.counters.query_partitions, query.partitions.len() as u64);
    connection.send_timeout = query.socket_timeout;
    let result = stream(connection, &cluster, &query, running).await;
    connection.send_timeout = None;
    result
}

async fn stream(
    connection: &mut Connection,
    cluster: &Cluster,
    query: &Query<'_>,
    running: RunningQuery,
) -> Result<(), Closed> {
    let began = Instant::now();
    let mut sent = 0;
    connection.reply.open_block();
    'partitions: for &(partition, mut start) in &query.partitions {
        loop {
            // Partitions without a match send nothing that would let others run.
            tokio::task::consume_budget().await;
            // Ownership may change between two blocks of a partition.
            if cluster.refuses(partition) || !cluster.holds(connection.node, partition) {
                partition_done(&mut connection.reply.out, partition, ResultCode::UNAVAILABLE);
                break;
            }
            let most = query.budget(sent, began);
            if most > 0 {
                let now_ms = cluster.clock.now_ms_of(connection.node);
                let slice = query.slice(now_ms, partition, start, most, &mut connection.reply);
                sent += slice.records;
                Counters::add(&connection.counters.query_records, slice.records);
                if query.sample_max != 0 && sent >= query.sample_max {
                    break 'partitions;
                }
                let Some(after) = slice.more else { break };
                start = Start::After(after);
                if connection.reply.block_len() <= BLOCK {
                    continue; // the budget is used up
                }
            }
            connection.send_block(Kind::Query).await?;
            connection.reply.open_block();
            if most == 0 {
                tokio::time::sleep(PACE).await;
            }
        }
    }
    if !query.is_short {
        connection.reply.close_block();
        connection.reply.open_block();
    }
    Head { info3: info3::LAST, ..Head::default() }.put(&mut connection.reply.out);
    // Who has read the last block may ask again at once.
    drop(running);
    connection.send_block(Kind::Query).await
}

/// Appends the message that says how a partition ended.
fn partition_done(out: &mut Vec<u8>, partition: usize, code: ResultCode) {
    Head { info3: info3::PARTITION_DONE, result: code.0, generation: partition as u32, ..Head::default() }
        .put(out);
}

/// What one look at a partition gave.
struct Slice {
    records: u64,
    /// The digest after which there may be more.
    more: Option<Digest>,
}

impl<'a> Query<'a> {
    fn parse(cluster: &'a Cluster, request: &Request<'a>, peer: &Peer) -> Outcome<Query<'a>> {
        let Request { head, fields, ops } = *request;
        let namespace =
            fields.namespace.and_then(|name| cluster.namespace(name)).ok_or(ResultCode::NAMESPACE)?;
        if head.info2 & info2::WRITE != 0 || fields.udf.is_some() {
            log::warn!("background and aggregation queries are not part of the development server");
            return Err(ResultCode::UNSUPPORTED_FEATURE);
        }
        if head.info3 & info3::PARTITION_DONE == 0 {
            return Err(ResultCode::UNSUPPORTED_FEATURE);
        }
        let set = match fields.set {
            None | Some([]) => Sets::All,
            Some(name) if name.len() > 63 => return Err(ResultCode::PARAMETER),
            Some(name) => namespace.find_set(name).map_or(Sets::Unknown, Sets::One),
        };
        let partitions = parse_partitions(fields.pids, fields.digests)?;
        let range = fields.index_range.map(|field| Range::parse(field, &fields, namespace)).transpose()?;
        let has_bvals = fields.bvals.is_some();
        if has_bvals != (range.is_some() && fields.digests.is_some()) {
            return Err(ResultCode::PARAMETER);
        }
        let no_bins = head.info1 & info1::GET_NO_BINS != 0;
        let ops: Vec<Op<'_>> = if no_bins { Vec::new() } else { ops.into_iter().collect() };
        for op in &ops {
            ops::check_bin_name(op.name).map_err(|_| ResultCode::PARAMETER)?;
            if !ops::is_read(op.code) {
                return Err(ResultCode::PARAMETER);
            }
        }
        let is_short = head.info1 & info1::SHORT_QUERY != 0;
        let rate = fields.recs_per_sec.map(number).transpose()?.unwrap_or(0);
        if is_short && fields.recs_per_sec.is_some() {
            return Err(ResultCode::PARAMETER);
        }
        Ok(Query {
            namespace: namespace.clone(),
            set,
            partitions,
            filter: fields.filter.map(Filter::parse).transpose()?,
            range,
            no_bins,
            ops,
            respond_all: head.info2 & info2::RESPOND_ALL_OPS != 0,
            rate,
            sample_max: match fields.sample_max {
                None => 0,
                Some(bytes) => u64::from_be_bytes(bytes.try_into().map_err(|_| ResultCode::PARAMETER)?),
            },
            socket_timeout: fields
                .socket_timeout
                .map(number)
                .transpose()?
                .filter(|ms| *ms > 0)
                .map(|ms| Duration::from_millis(ms.into())),
            is_short,
            masking: masking::applied(cluster, &namespace.name, peer),
        })
    }

    fn covers(&self, set: SetId) -> bool {
        match self.set {
            Sets::All => true,
            Sets::One(only) => only == set,
            Sets::Unknown => false,
        }
    }

    /// How many records may go out now.
    fn budget(&self, sent: u64, began: Instant) -> u64 {
        let by_rate = match self.rate {
            0 => u64::MAX,
            rate => {
                let due = f64::from(rate) * (began.elapsed() + PACE).as_secs_f64();
                (due as u64 + 1).saturating_sub(sent)
            }
        };
        let by_sample = if self.sample_max == 0 { u64::MAX } else { self.sample_max.saturating_sub(sent) };
        by_rate.min(by_sample)
    }

    /// Appends records of a partition until `most` are found, the block is full, or the partition ends.
    fn slice(&self, now_ms: u64, partition: usize, start: Start, most: u64, reply: &mut Reply) -> Slice {
        let mut slice = Slice { records: 0, more: None };
        if self.set == Sets::Unknown {
            return slice;
        }
        let now_secs = (now_ms / 1000) as u32;
        let records = self.namespace.partition(partition);
        let from = match start {
            Start::Beginning => Bound::Unbounded,
            Start::After(digest) => Bound::Excluded(digest),
        };
        let (mut name_of, mut name) = (SetId::NONE, None);
        for (digest, record) in records.range((from, Bound::Unbounded)) {
            if !self.covers(record.set) || record.is_expired(now_secs) {
                continue;
            }
            let view = View::of(now_ms, &self.namespace, digest, record);
            if self.filter.as_ref().is_some_and(|filter| !filter.matches(&view)) {
                continue;
            }
            let bval = match &self.range {
                None => None,
                Some(range) => match range.find(&view) {
                    None => continue,
                    found => found,
                },
            };
            if record.set != name_of {
                (name_of, name) = (record.set, self.namespace.set(record.set));
            }
            let set = name.as_ref().map_or(&[][..], |set| &set.name);
            self.put_record(&view, record, set, bval, &mut reply.out);
            slice.records += 1;
            if slice.records >= most || reply.block_len() > BLOCK {
                slice.more = Some(*digest);
                break;
            }
        }
        slice
    }

    /// Appends one record; of one that has none of the bins asked for, nothing.
    fn put_record(&self, view: &View<'_>, record: &Record, set: &[u8], bval: Option<i64>, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        let mut n_fields = record.put_fields(out, &self.namespace.name, set, view.digest);
        if let Some(bval) = bval {
            put_field(out, field::BVAL_ARRAY, &[&bval.to_le_bytes()]);
            n_fields += 1;
        }
        let mut n_ops = 0;
        if self.no_bins {
        } else if self.ops.is_empty() {
            if self.masking.is_empty() {
                record.put_bins(out);
            } else {
                for bin in record.bins().0 {
                    let value = masking::shown(&self.masking, set, bin.name, bin.particle, &bin.value);
                    put_op(out, op::READ, bin.particle, bin.name, &value);
                }
            }
            n_ops = record.n_bins();
        } else {
            for op in &self.ops {
                let (particle, value) = match ops::read(view, op) {
                    Ok(Found::Answer(answer)) if answer.particle != particle::NULL => {
                        (answer.particle, answer.value)
                    }
                    Ok(_) if self.respond_all => (particle::NULL, Vec::new()),
                    Ok(_) => continue,
                    Err(_) => {
                        out.truncate(start);
                        return;
                    }
                };
                let value = masking::shown(&self.masking, set, op.name, particle, &value);
                put_op(out, op.code, particle, op.name, &value);
                n_ops += 1;
            }
            if n_ops == 0 {
                out.truncate(start);
                return;
            }
        }
        let head = Head {
            info1: if self.no_bins { info1::GET_NO_BINS } else { 0 },
            generation: u32::from(record.generation),
            ttl: record.void_time,
            n_fields,
            n_ops,
            ..Head::default()
        };
        out[start..start + HEADER].copy_from_slice(&head.bytes());
    }
}

fn number(bytes: &[u8]) -> Outcome<u32> {
    bytes.try_into().map(u32::from_be_bytes).map_err(|_| ResultCode::PARAMETER)
}

/// The partitions asked for, in the order of their numbers; none may be named twice.
fn parse_partitions(pids: Option<&[u8]>, digests: Option<&[u8]>) -> Outcome<Vec<(usize, Start)>> {
    if pids.is_none() && digests.is_none() {
        return Err(ResultCode::UNSUPPORTED_FEATURE);
    }
    let mut starts = vec![None; PARTITIONS];
    let mut ask = |partition: usize, start| match starts.get_mut(partition) {
        Some(slot @ None) => {
            *slot = Some(start);
            Ok(())
        }
        _ => Err(ResultCode::PARAMETER),
    };
    let is_usable = |field: Option<&[u8]>, size: usize| {
        field.is_none_or(|bytes| (1..=PARTITIONS).contains(&(bytes.len() / size)))
    };
    if !is_usable(pids, 2) || !is_usable(digests, 20) {
        return Err(ResultCode::PARAMETER);
    }
    let (pids, _) = pids.unwrap_or_default().as_chunks::<2>();
    for pid in pids {
        ask(usize::from(u16::from_le_bytes(*pid)), Start::Beginning)?;
    }
    let (digests, _) = digests.unwrap_or_default().as_chunks::<20>();
    for digest in digests {
        ask(partition_of(digest), Start::After(*digest))?;
    }
    Ok(starts.into_iter().enumerate().filter_map(|(partition, start)| Some((partition, start?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_once_and_in_range() {
        let digest = [5u8; 20];
        let partition = partition_of(&digest);
        let asked = parse_partitions(Some(&[3, 0, 1, 0]), Some(&digest)).unwrap();
        assert_eq!(asked, [(1, Start::Beginning), (3, Start::Beginning), (partition, Start::After(digest))]);
        assert_eq!(parse_partitions(None, None), Err(ResultCode::UNSUPPORTED_FEATURE));
        assert_eq!(parse_partitions(Some(&[3, 0, 3, 0]), None), Err(ResultCode::PARAMETER));
        assert_eq!(parse_partitions(Some(&[0, 16]), None), Err(ResultCode::PARAMETER));
        assert_eq!(parse_partitions(Some(&[]), None), Err(ResultCode::PARAMETER));
    }
}
