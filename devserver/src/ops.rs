//! Bin operations: what each does to the bins of one record, and what it answers.

use std::borrow::Cow;

use crate::cdt;
use crate::expression::{self, View};
use crate::hll;
use crate::message::{Op, op};
use crate::particle;
use crate::record::Bins;
use crate::result_code::{Outcome, ResultCode};

/// The value of a bin in a reply.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) particle: u8,
    pub(crate) value: Vec<u8>,
}

impl Answer {
    pub(crate) fn nil() -> Answer {
        Answer { particle: particle::NULL, value: Vec::new() }
    }

    pub(crate) fn integer(value: i64) -> Answer {
        Answer { particle: particle::INTEGER, value: value.to_be_bytes().to_vec() }
    }
}

pub(crate) fn is_read(code: u8) -> bool {
    matches!(code, op::READ | op::CDT_READ | op::BITS_READ | op::HLL_READ | op::EXP_READ)
}

/// The longest bin name, in bytes.
const MAX_BIN_NAME: usize = 15;

pub(crate) fn check_bin_name(name: &[u8]) -> Outcome<()> {
    if name.len() > MAX_BIN_NAME || name.contains(&0) { Err(ResultCode::BIN_NAME) } else { Ok(()) }
}

/// What a reading operation found.
pub(crate) enum Found {
    /// The bin is not there, or the expression gave nothing.
    Nothing,
    /// The operation applies and its answer is this.
    Answer(Answer),
}

/// Performs a reading operation.
pub(crate) fn read(view: &View<'_>, op: &Op<'_>) -> Outcome<Found> {
    if !is_read(op.code) {
        return Err(ResultCode::PARAMETER);
    }
    if op.code == op::EXP_READ {
        return expression::read_op(op.value, view).map(Found::Answer);
    }
    let Some((particle, value)) = view.bins.get(op.name) else { return Ok(Found::Nothing) };
    let answer = match op.code {
        op::READ => Answer { particle, value: value.to_vec() },
        op::CDT_READ => cdt::read(particle, value, op.value)?,
        op::HLL_READ => hll::read(particle, value, op.value)?,
        _ => return Err(unsupported(op.code)),
    };
    Ok(Found::Answer(answer))
}

/// Performs a changing operation on `bins`; the answer is what list, map and HLL changes return.
pub(crate) fn modify<'a>(bins: &mut Bins<'a>, op: &Op<'a>) -> Outcome<Option<Answer>> {
    match op.code {
        op::WRITE if op.particle == particle::NULL => bins.remove(op.name),
        op::WRITE => bins.set(op.name, op.particle, particle::accept(op.particle, op.value)?),
        op::INCR | op::APPEND | op::PREPEND => {
            let (particle, value) = match bins.get(op.name) {
                None => (op.particle, particle::accept(op.particle, op.value)?),
                Some(bin) => (bin.particle, Cow::Owned(combine(bin.particle, &bin.value, op)?)),
            };
            bins.set(op.name, particle, value);
        }
        op::DELETE_ALL => bins.0.clear(),
        op::CDT_MODIFY | op::HLL_MODIFY => {
            let present = bins.get(op.name).map(|bin| (bin.particle, bin.value.as_ref()));
            let changed = if op.code == op::CDT_MODIFY {
                cdt::modify(present, op.value)?
            } else {
                hll::modify(present, op.value)?
            };
            if let Some(value) = changed.value {
                bins.set(op.name, changed.particle, Cow::Owned(value));
            }
            return Ok(changed.answer);
        }
        other => return Err(unsupported(other)),
    }
    Ok(None)
}

/// What a list, map or HLL change leaves behind.
pub(crate) struct Changed {
    pub(crate) particle: u8,
    /// The new value; none = the bin stays as it is.
    pub(crate) value: Option<Vec<u8>>,
    /// What the operation returns; none = nothing.
    pub(crate) answer: Option<Answer>,
}

/// Add, append, prepend on a value that exists.
fn combine(existing: u8, value: &[u8], op: &Op<'_>) -> Outcome<Vec<u8>> {
    if op.code == op::INCR {
        return match (existing, op.particle) {
            (particle::INTEGER, particle::INTEGER) => {
                let sum = particle::integer(value)?.wrapping_add(particle::integer(op.value)?);
                Ok(sum.to_be_bytes().to_vec())
            }
            (particle::FLOAT, particle::FLOAT) => {
                Ok((particle::float(value)? + particle::float(op.value)?).to_be_bytes().to_vec())
            }
            _ => Err(ResultCode::INCOMPATIBLE_TYPE),
        };
    }
    let joins = existing == op.particle && (existing == particle::STRING || particle::is_blob(existing));
    if !joins {
        return Err(ResultCode::INCOMPATIBLE_TYPE);
    }
    Ok(if op.code == op::APPEND { [value, op.value].concat() } else { [op.value, value].concat() })
}

fn unsupported(code: u8) -> ResultCode {
    log::warn!("bin operation {code} is not known to the development server");
    ResultCode::PARAMETER
}
