//! One read, write or delete of one record: alone, or as a row of a batch.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::expression::{Filter, View};
use crate::message::{Fields, HEADER, Head, Op, Ops, info1, info2, op, put_op};
use crate::namespace::{Namespace, Removal};
use crate::ops::{self, Answer, Found};
use crate::particle;
use crate::record::{BinSource, Digest, Record, partition_of};
use crate::result_code::{Outcome, ResultCode};

/// The most operations in one request.
pub(crate) const MAX_OPS: usize = 32 * 1024;

/// A request about one record.
pub(crate) struct Transaction<'a> {
    pub(crate) head: Head,
    pub(crate) namespace: &'a Arc<Namespace>,
    pub(crate) digest: Digest,
    pub(crate) fields: Fields<'a>,
    pub(crate) ops: Ops<'a>,
    /// The filter of the batch around this row.
    pub(crate) batch_filter: Option<&'a Filter>,
    /// The row's index, which the reply carries.
    pub(crate) index: u32,
    /// Whether the reply is a row of a batch.
    pub(crate) in_batch: bool,
    /// Now by the node's clock, in ms since 2010.
    pub(crate) now_ms: u64,
}

/// The metadata in the head of a reply.
#[derive(Clone, Copy, Default)]
pub(crate) struct ReplyMeta {
    pub(crate) generation: u16,
    pub(crate) void_time: u32,
}

impl ReplyMeta {
    pub(crate) fn of(record: &Record) -> ReplyMeta {
        ReplyMeta { generation: record.generation, void_time: record.void_time }
    }
}

impl Transaction<'_> {
    /// Executes the request and appends its reply to `out`. Returns the result code, which the reply holds
    /// too.
    pub(crate) fn execute(&self, cluster: &Cluster, out: &mut Vec<u8>) -> ResultCode {
        let start = out.len();
        let mut meta = ReplyMeta::default();
        out.extend_from_slice(&[0; HEADER]); // known only at the end
        let (code, n_ops) = match self.dispatch(cluster, &mut meta, out) {
            Ok(n_ops) => (ResultCode::OK, n_ops),
            Err(code) => {
                out.truncate(start + HEADER);
                (code, 0)
            }
        };
        let head = Head {
            result: code.0,
            generation: u32::from(meta.generation),
            ttl: meta.void_time,
            timeout: self.index,
            n_ops,
            ..Head::default()
        };
        out[start..start + HEADER].copy_from_slice(&head.bytes());
        code
    }

    fn dispatch(&self, cluster: &Cluster, meta: &mut ReplyMeta, out: &mut Vec<u8>) -> Outcome<u16> {
        let Head { info1, info2, .. } = self.head;
        if cluster.refuses(partition_of(&self.digest)) {
            return Err(ResultCode::UNAVAILABLE);
        }
        if info2 & info2::WRITE != 0 {
            if info2 & info2::DELETE != 0 {
                return self.delete().map(|()| 0);
            }
            if self.fields.udf.is_some() {
                log::warn!("UDFs are stored, not run, by the development server");
                return Err(ResultCode::UDF_EXECUTION);
            }
            return self.write(meta, out);
        }
        if info1 & info1::READ != 0 {
            return self.read(meta, out);
        }
        Err(ResultCode::PARAMETER)
    }

    pub(crate) fn set_name(&self) -> &[u8] {
        self.fields.set.unwrap_or_default()
    }

    /// Whether the record's set is the request's.
    pub(crate) fn is_in_set(&self, record: &Record) -> bool {
        self.namespace.find_set(self.set_name()) == Some(record.set)
    }

    /// Now by the node's clock, in s since 2010.
    pub(crate) fn now_secs(&self) -> u32 {
        (self.now_ms / 1000) as u32
    }

    pub(crate) fn check_filter(&self, record: &Record) -> Outcome<()> {
        let own = self.fields.filter.map(Filter::parse).transpose()?;
        let Some(filter) = own.as_ref().or(self.batch_filter) else { return Ok(()) };
        let view = View::of(self.now_ms, self.namespace, &self.digest, record);
        if filter.matches(&view) { Ok(()) } else { Err(ResultCode::FILTERED_OUT) }
    }

    pub(crate) fn check_key(&self, record: &Record) -> Outcome<()> {
        match (self.fields.key, record.key()) {
            (Some(sent), Some(stored)) if sent != stored => Err(ResultCode::KEY_MISMATCH),
            _ => Ok(()),
        }
    }

    /// The generation policy; a record that is not there has generation 0.
    pub(crate) fn check_generation(&self, present: u16) -> Outcome<()> {
        let holds = if self.head.info2 & info2::GENERATION != 0 {
            self.head.generation == u32::from(present)
        } else if self.head.info2 & info2::GENERATION_GT != 0 {
            self.head.generation > u32::from(present)
        } else {
            true
        };
        if holds { Ok(()) } else { Err(ResultCode::GENERATION) }
    }

    fn delete(&self) -> Outcome<()> {
        if self.head.info2 & info2::DURABLE_DELETE != 0 {
            return Err(ResultCode::ENTERPRISE_ONLY);
        }
        let mut records = self.namespace.partition_with(&self.digest);
        let record = records.get(&self.digest).ok_or(ResultCode::NOT_FOUND)?;
        if !self.set_name().is_empty() && !self.is_in_set(record) {
            return Err(ResultCode::PARAMETER);
        }
        if record.is_expired(self.now_secs()) {
            return Err(ResultCode::NOT_FOUND);
        }
        self.check_generation(record.generation)?;
        self.check_filter(record)?;
        self.check_key(record)?;
        self.namespace.remove(&mut records, &self.digest, Removal::Deleted);
        Ok(())
    }

    fn read(&self, meta: &mut ReplyMeta, out: &mut Vec<u8>) -> Outcome<u16> {
        let records = self.namespace.partition_with(&self.digest);
        let record = records.get(&self.digest).ok_or(ResultCode::NOT_FOUND)?;
        *meta = ReplyMeta::of(record);
        if !self.set_name().is_empty() && !self.is_in_set(record) {
            return Err(ResultCode::PARAMETER);
        }
        if record.is_expired(self.now_secs()) {
            return Err(ResultCode::NOT_FOUND);
        }
        self.check_filter(record)?;
        self.check_key(record)?;
        if self.head.info1 & info1::GET_NO_BINS != 0 {
            return Ok(0);
        }
        if self.head.info1 & info1::GET_ALL != 0 {
            record.put_bins(out);
            return Ok(record.n_bins());
        }
        if self.ops.is_empty() || self.ops.len() > MAX_OPS {
            return Err(ResultCode::PARAMETER);
        }
        let view = View::of(self.now_ms, self.namespace, &self.digest, record);
        let respond_all = self.head.info2 & info2::RESPOND_ALL_OPS != 0;
        let mut n_ops = 0;
        for op in self.ops {
            ops::check_bin_name(op.name)?;
            let answer = match ops::read(&view, &op)? {
                Found::Answer(answer) if answer.particle != particle::NULL || respond_all => answer,
                Found::Nothing if respond_all => Answer::nil(),
                _ => continue,
            };
            self.put_answer(out, &op, &answer);
            n_ops += 1;
        }
        Ok(n_ops)
    }

    /// Appends the answer to one operation. Rows of a batch that only read name every operation READ.
    pub(crate) fn put_answer(&self, out: &mut Vec<u8>, op: &Op<'_>, answer: &Answer) {
        let reads_in_batch = self.in_batch && self.head.info2 & info2::WRITE == 0;
        let code = if reads_in_batch { op::READ } else { op.code };
        put_op(out, code, answer.particle, op.name, &answer.value);
    }
}

impl<'a> View<'a> {
    /// A stored record as expressions see it.
    pub(crate) fn of(
        now_ms: u64,
        namespace: &'a Namespace,
        digest: &'a Digest,
        record: &'a Record,
    ) -> View<'a> {
        View { now_ms, namespace, digest, meta: record.meta(), bins: BinSource::Stored(record) }
    }
}
