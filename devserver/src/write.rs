//! The write of one record: existence, generation and TTL policies, then the operations, then the store.

use std::sync::atomic::Ordering;

use crate::expression::{self, View};
use crate::message::{Head, Op, info1, info2, info3, op, put_op};
use crate::namespace::Removal;
use crate::ops::{self, Answer, Found};
use crate::particle;
use crate::record::{BinSource, Bins, Meta, Record};
use crate::result_code::{Outcome, ResultCode};
use crate::transaction::{MAX_OPS, ReplyMeta, Transaction};

/// Relative TTLs with a meaning of their own.
const TTL_NAMESPACE_DEFAULT: u32 = 0;
const TTL_NEVER: u32 = u32::MAX;
const TTL_KEEP: u32 = u32::MAX - 1;
/// Ten years in seconds, the longest TTL.
const TTL_MAX: u32 = 3600 * 24 * 365 * 10;

impl Transaction<'_> {
    /// Writes, appending the answers of the operations to `out`; returns how many.
    pub(crate) fn write(&self, meta: &mut ReplyMeta, out: &mut Vec<u8>) -> Outcome<u16> {
        if self.namespace.stop_writes() {
            return Err(ResultCode::OUT_OF_SPACE);
        }
        let settings = &self.namespace.settings;
        if settings.disallow_null_setname.load(Ordering::Relaxed) && self.set_name().is_empty() {
            return Err(ResultCode::PARAMETER);
        }
        let policy = WritePolicy::of(self)?;
        let now_secs = self.now_secs();
        let mut records = self.namespace.partition_with(&self.digest);
        // An expired record is as good as none.
        let old = records.get(&self.digest).filter(|record| !record.is_expired(now_secs));
        if let Some(old) = old {
            *meta = ReplyMeta::of(old);
            if self.head.info2 & info2::CREATE_ONLY != 0 {
                return Err(ResultCode::RECORD_EXISTS);
            }
        } else if policy.must_exist {
            return Err(ResultCode::NOT_FOUND);
        }
        self.check_generation(old.map_or(0, |record| record.generation))?;
        let set = match old {
            Some(old) if self.is_in_set(old) => old.set,
            Some(_) => return Err(ResultCode::PARAMETER),
            None => self.namespace.find_or_make_set(self.set_name())?,
        };
        if let Some(old) = old {
            self.check_filter(old)?;
            self.check_key(old)?;
        }
        let key = match old.and_then(Record::key) {
            Some(key) => key,
            None => self.fields.key.map(check_key_form).transpose()?.unwrap_or_default(),
        };
        let next = Meta {
            // It never goes back, whatever the clock does.
            last_update: old.map_or(0, |record| record.last_update).max(self.now_ms),
            void_time: self.void_time(old, now_secs)?,
            generation: next_generation(old.map_or(0, |record| record.generation)),
            set,
            size: old.map_or(0, |record| record.meta().size),
            key: Some(key).filter(|key| !key.is_empty()),
        };
        let mut bins = old.filter(|_| !policy.replace).map(Record::bins).unwrap_or_default();
        let n_ops = self.apply(&policy, &next, &mut bins, out)?;
        if bins.0.is_empty() {
            // A write that leaves no bin is a delete; one that replaces all bins by none is nothing.
            if old.is_none() || policy.replace {
                return Err(ResultCode::NOT_FOUND);
            }
            if self.head.info2 & info2::DURABLE_DELETE != 0 {
                return Err(ResultCode::ENTERPRISE_ONLY);
            }
            drop(bins);
            self.namespace.remove(&mut records, &self.digest, Removal::Deleted);
            *meta = ReplyMeta::default();
            return Ok(n_ops);
        }
        let record = Record::pack(&next, &bins)?;
        drop(bins);
        let written = ReplyMeta::of(&record);
        self.namespace.insert(&mut records, &self.digest, record)?;
        *meta = written;
        Ok(n_ops)
    }

    /// Performs the operations one after the other; returns how many answers were appended.
    fn apply<'a>(
        &'a self,
        policy: &WritePolicy,
        meta: &Meta<'_>,
        bins: &mut Bins<'a>,
        out: &mut Vec<u8>,
    ) -> Outcome<u16> {
        let mut n_ops = 0;
        for op in self.ops {
            if op.code == op::TOUCH {
                continue;
            }
            if policy.is_read_all(&op) {
                for bin in &bins.0 {
                    put_op(out, op::READ, bin.particle, bin.name, &bin.value);
                    n_ops += 1;
                }
                continue;
            }
            let answer = if ops::is_read(op.code) {
                match ops::read(&self.view(meta, bins), &op)? {
                    Found::Answer(answer) => Some(answer),
                    Found::Nothing => None,
                }
            } else if op.code == op::EXP_MODIFY {
                match expression::modify_op(op.value, op.name, &self.view(meta, bins))? {
                    Some(value) if value.particle == particle::NULL => bins.remove(op.name),
                    Some(value) => bins.set(op.name, value.particle, value.value.into()),
                    None => {}
                }
                None
            } else {
                ops::modify(bins, &op)?
            };
            if let Some(answer) = answer.or_else(|| policy.respond_all.then(Answer::nil)) {
                self.put_answer(out, &op, &answer);
                n_ops += 1;
            }
        }
        Ok(n_ops)
    }

    /// The record in the middle of the write, as expressions and reads see it.
    fn view<'v>(&'v self, meta: &Meta<'v>, bins: &'v Bins<'v>) -> View<'v> {
        View {
            now_ms: self.now_ms,
            namespace: self.namespace,
            digest: &self.digest,
            meta: *meta,
            bins: BinSource::Working(bins),
        }
    }

    /// The void time after this write.
    fn void_time(&self, old: Option<&Record>, now_secs: u32) -> Outcome<u32> {
        let ttl = match (self.head.ttl, old) {
            (TTL_KEEP, Some(old)) => return Ok(old.void_time),
            (TTL_NEVER, _) => 0,
            (TTL_NAMESPACE_DEFAULT | TTL_KEEP, _) => self.namespace.default_ttl,
            (ttl, _) if ttl <= TTL_MAX => ttl,
            _ => return Err(ResultCode::PARAMETER),
        };
        match ttl {
            0 => Ok(0),
            // Nobody would remove it.
            _ if self.namespace.settings.forbids_ttl() => Err(ResultCode::FORBIDDEN),
            ttl => Ok(now_secs + ttl),
        }
    }
}

/// Generations wrap from 65535 to 1; 0 is no generation.
fn next_generation(generation: u16) -> u16 {
    generation.checked_add(1).unwrap_or(1)
}

/// A stored key is a particle type byte and its data; an integer has eight bytes.
fn check_key_form(key: &[u8]) -> Outcome<&[u8]> {
    match key {
        [] => Err(ResultCode::UNSUPPORTED_FEATURE),
        [particle::INTEGER, data @ ..] if data.len() != 8 => Err(ResultCode::UNSUPPORTED_FEATURE),
        key => Ok(key),
    }
}

/// What the flags and operations of a write ask together.
struct WritePolicy {
    must_exist: bool,
    replace: bool,
    respond_all: bool,
    get_all: bool,
}

impl WritePolicy {
    /// Checks the operations of a write against its flags and against each other.
    fn of(request: &Transaction<'_>) -> Outcome<WritePolicy> {
        let Head { info1, info2, info3, .. } = request.head;
        if request.ops.is_empty() || request.ops.len() > MAX_OPS {
            return Err(ResultCode::PARAMETER);
        }
        let mut policy = WritePolicy {
            must_exist: info3 & (info3::UPDATE_ONLY | info3::REPLACE_ONLY) != 0,
            replace: info3 & (info3::CREATE_OR_REPLACE | info3::REPLACE_ONLY) != 0,
            respond_all: info2 & info2::RESPOND_ALL_OPS != 0,
            get_all: info1 & info1::GET_ALL != 0,
        };
        let (mut reads, mut read_alls, mut answers) = (false, 0, false);
        for op in request.ops {
            let refused = match op.code {
                op::TOUCH => {
                    policy.must_exist = true;
                    policy.replace
                }
                op::WRITE => policy.replace && op.particle == particle::NULL,
                op::INCR | op::APPEND | op::PREPEND | op::DELETE_ALL | op::BITS_MODIFY => policy.replace,
                op::HLL_MODIFY | op::CDT_MODIFY => {
                    answers = true;
                    policy.replace
                }
                _ if policy.is_read_all(&op) => {
                    reads = true;
                    read_alls += 1;
                    policy.respond_all
                }
                code if ops::is_read(code) => {
                    reads = true;
                    answers = true;
                    false
                }
                _ => false,
            };
            if op.code != op::TOUCH {
                ops::check_bin_name(op.name)?;
            }
            if refused {
                return Err(ResultCode::PARAMETER);
            }
        }
        let contradicts = (reads && info1 & info1::READ == 0)
            || read_alls > 1
            || (read_alls == 1 && answers)
            || (policy.get_all && read_alls == 0);
        if contradicts { Err(ResultCode::PARAMETER) } else { Ok(policy) }
    }

    fn is_read_all(&self, op: &Op<'_>) -> bool {
        op.code == op::READ && op.name.is_empty() && self.get_all
    }
}
