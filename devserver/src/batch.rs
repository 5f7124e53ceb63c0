//! A batch: many reads and writes in one request, answered in blocks that hold a message per row.

use crate::cluster::Cluster;
use crate::counters::Counters;
use crate::expression::Filter;
use crate::faults::Kind;
use crate::message::{
    Fields, Head, Malformed, Ops, Request, info2, info3, take, take_u8, take_u16, take_u32,
};
use crate::node::{Closed, Connection};
use crate::record::Digest;
use crate::result_code::ResultCode;
use crate::transaction::Transaction;

/// Flags of the batch.
const ANSWER_EVERY_ROW: u8 = 4;
const ANSWER_FAILED_ROW: u8 = 8;

/// Flags of a row.
const REPEAT: u8 = 1;
const HAS_INFO: u8 = 2;
const HAS_GENERATION: u8 = 4;
const HAS_TTL: u8 = 8;
const HAS_INFO4: u8 = 16;

/// Replies leave in blocks of about this size.
const BLOCK: usize = 128 * 1024;

/// Everything of a row but its index and digest: what REPEAT repeats.
#[derive(Clone, Copy)]
struct RowHead<'a> {
    head: Head,
    fields: Fields<'a>,
    ops: Ops<'a>,
}

impl<'a> RowHead<'a> {
    fn take(data: &mut &'a [u8], flags: u8) -> Result<RowHead<'a>, Malformed> {
        let mut head = Head { info1: take_u8(data)?, ..Head::default() };
        if flags & HAS_INFO != 0 {
            head.info2 = take_u8(data)?;
            head.info3 = take_u8(data)?;
        }
        if flags & HAS_INFO4 != 0 {
            take_u8(data)?; // transactions of several records, which only the enterprise edition has
        }
        if flags & HAS_GENERATION != 0 {
            head.generation = u32::from(take_u16(data)?);
        }
        if flags & HAS_TTL != 0 {
            head.ttl = take_u32(data)?;
        }
        // Old clients say 0 fields and send the namespace all the same.
        head.n_fields = take_u16(data)?.max(1);
        head.n_ops = take_u16(data)?;
        let fields = Fields::take(data, head.n_fields)?;
        let ops = Ops::take(data, head.n_ops)?;
        Ok(RowHead { head, fields, ops })
    }
}

/// The rows of a batch, read one after the other.
struct Rows<'a> {
    data: &'a [u8],
    previous: Option<RowHead<'a>>,
}

impl<'a> Rows<'a> {
    fn next(&mut self) -> Result<(u32, Digest, RowHead<'a>), Malformed> {
        let index = take_u32(&mut self.data)?;
        let digest: Digest = take(&mut self.data, 20)?.try_into().map_err(|_| Malformed)?;
        let flags = take_u8(&mut self.data)?;
        let row = if flags & REPEAT != 0 {
            let row = self.previous.ok_or(Malformed)?;
            if row.fields.key.is_some() {
                return Err(Malformed); // a key cannot be that of another record too
            }
            row
        } else {
            RowHead::take(&mut self.data, flags)?
        };
        self.previous = Some(row);
        Ok((index, digest, row))
    }
}

/// Executes a batch request and sends its reply.
pub(crate) async fn execute(connection: &mut Connection, request: &Request<'_>) -> Result<(), Closed> {
    let cluster = connection.cluster.clone();
    connection.reply.open_block();
    let (count, flags, mut rows, filter) = match open(request) {
        Ok(opened) => opened,
        Err(code) => return finish(connection, code).await,
    };
    Counters::add(&connection.counters.batch_rows, u64::from(count));
    // Unless every row is to be answered, a failed row ends the reply: at once, or with the block that it is
    // in. The rows behind it are executed all the same, and the last failure is the code of the whole.
    let mut result = ResultCode::OK;
    let (mut is_last_block, mut is_over, mut is_gone) = (false, false, false);
    for position in 0..count as usize {
        let row = rows.next().map_err(|_| "does not hold together").and_then(|(index, digest, row)| {
            let namespace = row.fields.namespace.and_then(|name| cluster.namespace(name));
            Ok((index, digest, row, namespace.ok_or("names no namespace of this server")?))
        });
        let (index, digest, row, namespace) = match row {
            Ok(row) => row,
            Err(problem) => {
                log::warn!("row {position} of a batch {problem}");
                (result, is_over) = (ResultCode::PARAMETER, true);
                break;
            }
        };
        let out = &mut connection.reply.out;
        let code = if let Some(code) = injected(&cluster, connection.node, position, &row.head) {
            Head { result: code.0, timeout: index, ..Head::default() }.put(out);
            code
        } else {
            let batch_filter = filter.as_ref();
            let RowHead { head, fields, ops } = row;
            let now_ms = cluster.clock.now_ms_of(connection.node);
            let start = out.len();
            let code = Transaction {
                head,
                namespace,
                digest,
                fields,
                ops,
                batch_filter,
                index,
                in_batch: true,
                now_ms,
            }
            .execute(&cluster, out);
            if cluster.faults.times_out_row(connection.node, position) {
                out.truncate(start);
                Head { result: ResultCode::TIMEOUT.0, timeout: index, ..Head::default() }.put(out);
                ResultCode::TIMEOUT
            } else {
                code
            }
        };
        let is_failure = !matches!(code, ResultCode::OK | ResultCode::NOT_FOUND | ResultCode::FILTERED_OUT);
        if is_failure && flags & ANSWER_EVERY_ROW == 0 {
            result = code;
            is_last_block = true;
            is_over |= flags & ANSWER_FAILED_ROW == 0;
        }
        if is_over {
            connection.reply.empty_block();
        } else if connection.reply.block_len() > BLOCK {
            // A client that is gone changes nothing for the rows that are left.
            is_gone |= connection.send_block(Kind::Batch).await.is_err();
            connection.reply.open_block();
            is_over = is_last_block || is_gone;
        }
    }
    if is_gone {
        return Err(Closed);
    }
    if is_over {
        connection.reply.empty_block();
    }
    finish(connection, result).await
}

fn injected(cluster: &Cluster, node: usize, position: usize, head: &Head) -> Option<ResultCode> {
    let faults = &cluster.faults;
    faults
        .failed_row(node, position)
        .or_else(|| if head.info2 & info2::WRITE != 0 { faults.refused_write(node) } else { None })
}

type Opened<'a> = (u32, u8, Rows<'a>, Option<Filter>);

fn open<'a>(request: &Request<'a>) -> Result<Opened<'a>, ResultCode> {
    let mut data = request.fields.batch.ok_or(ResultCode::PARAMETER)?;
    let count = take_u32(&mut data).map_err(|_| ResultCode::PARAMETER)?;
    let flags = take_u8(&mut data).map_err(|_| ResultCode::PARAMETER)?;
    if count == 0 {
        return Err(ResultCode::PARAMETER);
    }
    let filter = request.fields.filter.map(Filter::parse).transpose()?;
    Ok((count, flags, Rows { data, previous: None }, filter))
}

/// Sends the last block, and in an envelope of its own the message that ends the reply.
async fn finish(connection: &mut Connection, code: ResultCode) -> Result<(), Closed> {
    connection.reply.close_block();
    connection.reply.open_block();
    Head { info3: info3::LAST, result: code.0, ..Head::default() }.put(&mut connection.reply.out);
    connection.send_block(Kind::Batch).await
}
