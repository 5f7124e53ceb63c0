//! `HyperLogLog` values: registers of six bits and, when asked for, of `MinHash` bits.
//!
//! A value is a head of 11 bytes (flags, index bits, min-hash bits, cached count little-endian) and the
//! registers, packed from the most significant bit on. Elements are hashed in their msgpack form with
//! `MurmurHash3` (x64, 128 bits). Estimates follow Ertl, "New cardinality estimation algorithms for
//! HyperLogLog sketches" (algorithm 6).

mod murmur;
mod sketch;

use crate::msgpack::{List, Value};
use crate::ops::{Answer, Changed};
use crate::particle;
use crate::result_code::{Outcome, ResultCode};
use sketch::{Hll, Shape};

/// Operation codes.
const INIT: i64 = 0;
const ADD: i64 = 1;
const UNION: i64 = 2;
const REFRESH_COUNT: i64 = 3;
const FOLD: i64 = 4;
const COUNT: i64 = 50;
const GET_UNION: i64 = 51;
const UNION_COUNT: i64 = 52;
const DESCRIBE: i64 = 55;
const MAY_CONTAIN: i64 = 56;

/// Operation flags.
const CREATE_ONLY: i64 = 1;
const UPDATE_ONLY: i64 = 2;
const NO_FAIL: i64 = 4;
const ALLOW_FOLD: i64 = 8;

/// The shape that the union of several values has.
fn common_shape(values: &[Hll]) -> Outcome<Shape> {
    let first = values.first().ok_or(ResultCode::PARAMETER)?.shape;
    Ok(values.iter().fold(first, |shape, value| Shape {
        index_bits: shape.index_bits.min(value.shape.index_bits),
        minhash_bits: if shape.minhash_bits == value.shape.minhash_bits { shape.minhash_bits } else { 0 },
    }))
}

fn union(values: &[Hll]) -> Outcome<Hll> {
    let mut all = Hll::empty(common_shape(values)?);
    for value in values {
        all.unite(value);
    }
    Ok(all)
}

/// Checks a value that is written whole.
pub(crate) fn accept(value: &[u8]) -> Outcome<()> {
    Hll::parse(value).map(|_| ()).ok_or(ResultCode::PARAMETER)
}

/// The code and arguments of an operation.
fn parse_operation(op: &[u8]) -> Outcome<(i64, Vec<Value>)> {
    let Ok(Value::List(List { mut items, .. })) = Value::parse(op) else { return Err(ResultCode::PARAMETER) };
    if items.is_empty() {
        return Err(ResultCode::PARAMETER);
    }
    let Value::Int(code) = items.remove(0) else { return Err(ResultCode::PARAMETER) };
    Ok((code, items))
}

fn int(args: &[Value], at: usize) -> Outcome<Option<i64>> {
    match args.get(at) {
        None => Ok(None),
        Some(Value::Int(value)) => Ok(Some(*value)),
        Some(_) => Err(ResultCode::PARAMETER),
    }
}

/// A number of bits; -1 and nothing both mean unset.
fn bits(args: &[Value], at: usize) -> Outcome<Option<u32>> {
    match int(args, at)? {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value).map(Some).map_err(|_| ResultCode::PARAMETER),
    }
}

/// Elements to add or look for; lists and maps cannot be elements.
fn elements(args: &[Value]) -> Outcome<&[Value]> {
    match args.first() {
        Some(Value::List(list)) if !list.items.is_empty() => {
            let nested = |item: &Value| matches!(item, Value::List(_) | Value::Map(_));
            if list.items.iter().any(nested) { Err(ResultCode::PARAMETER) } else { Ok(&list.items) }
        }
        _ => Err(ResultCode::PARAMETER),
    }
}

/// Other values, which come as blobs.
fn others(args: &[Value]) -> Outcome<Vec<Hll>> {
    let parse = |value: &Value| match value {
        Value::Blob(_, data) => Hll::parse(data).ok_or(ResultCode::PARAMETER),
        _ => Err(ResultCode::PARAMETER),
    };
    match args.first() {
        Some(Value::List(list)) if !list.items.is_empty() => list.items.iter().map(parse).collect(),
        Some(value @ Value::Blob(..)) => Ok(vec![parse(value)?]),
        _ => Err(ResultCode::PARAMETER),
    }
}

fn load(particle: u8, value: &[u8]) -> Outcome<Hll> {
    if particle != particle::HLL {
        return Err(ResultCode::INCOMPATIBLE_TYPE);
    }
    Hll::parse(value).ok_or(ResultCode::UNKNOWN)
}

/// Performs a reading operation.
pub(crate) fn read(particle: u8, value: &[u8], op: &[u8]) -> Outcome<Answer> {
    let (code, args) = parse_operation(op)?;
    let hll = load(particle, value)?;
    let united = |mut values: Vec<Hll>| {
        values.push(hll.clone());
        union(&values)
    };
    match code {
        COUNT => Ok(Answer::integer(hll.count() as i64)),
        GET_UNION => Ok(Answer { particle: particle::HLL, value: united(others(&args)?)?.encode() }),
        UNION_COUNT => Ok(Answer::integer(united(others(&args)?)?.count() as i64)),
        DESCRIBE => {
            let items = [hll.shape.index_bits, hll.shape.minhash_bits].map(|bits| Value::Int(bits.into()));
            Ok(Value::List(List { ordered: false, items: items.into() }).to_answer())
        }
        MAY_CONTAIN => {
            Ok(Answer::integer(i64::from(elements(&args)?.iter().all(|element| hll.may_contain(element)))))
        }
        code => {
            log::warn!("HLL operation {code} is not part of the development server");
            Err(ResultCode::PARAMETER)
        }
    }
}

/// Performs a changing operation on a value that may not be there.
pub(crate) fn modify(present: Option<(u8, &[u8])>, op: &[u8]) -> Outcome<Changed> {
    let (code, args) = parse_operation(op)?;
    let old = present.map(|(particle, value)| load(particle, value)).transpose()?;
    let flags_at = match code {
        INIT => 2,
        ADD => 3,
        UNION => 1,
        _ => usize::MAX,
    };
    let flags = int(&args, flags_at)?.unwrap_or(0);
    let unchanged = Changed { particle: particle::HLL, value: None, answer: None };
    let refusal = match &old {
        Some(_) if flags & CREATE_ONLY != 0 => Some(ResultCode::BIN_EXISTS),
        None if flags & UPDATE_ONLY != 0 => Some(ResultCode::BIN_NOT_FOUND),
        _ => None,
    };
    match refusal {
        Some(_) if flags & NO_FAIL != 0 => return Ok(unchanged),
        Some(code) => return Err(code),
        None => {}
    }
    let mut answer = None;
    let new = match code {
        INIT => {
            let old = old.as_ref().map(|old| old.shape);
            Hll::empty(shape(&args, 0, old, ResultCode::OP_NOT_APPLICABLE)?)
        }
        ADD => {
            let mut hll = match old {
                Some(old) => old,
                None => Hll::empty(shape(&args, 1, None, ResultCode::PARAMETER)?),
            };
            let added = elements(&args)?.iter().filter(|element| hll.add(element)).count();
            answer = Some(Answer::integer(added as i64));
            hll
        }
        UNION => {
            let mut values = others(&args)?;
            if let Some(old) = &old {
                let shape = common_shape(&values)?;
                let folds = old.shape.index_bits > shape.index_bits
                    || (old.shape.minhash_bits != 0 && old.shape.minhash_bits != shape.minhash_bits);
                if folds && flags & ALLOW_FOLD == 0 {
                    return Err(ResultCode::OP_NOT_APPLICABLE);
                }
            }
            values.extend(old);
            union(&values)?
        }
        REFRESH_COUNT => {
            let mut hll = old.ok_or(ResultCode::BIN_NOT_FOUND)?;
            hll.cached = hll.count();
            answer = Some(Answer::integer(hll.cached as i64));
            hll
        }
        FOLD => {
            let old = old.ok_or(ResultCode::BIN_NOT_FOUND)?;
            let to = bits(&args, 0)?.and_then(|bits| Shape::new(bits, 0)).ok_or(ResultCode::PARAMETER)?;
            if old.shape.minhash_bits > 0 || old.shape.index_bits < to.index_bits {
                return Err(ResultCode::OP_NOT_APPLICABLE);
            }
            if to == old.shape {
                old
            } else {
                let mut folded = Hll::empty(to);
                folded.unite(&old);
                folded
            }
        }
        code => {
            log::warn!("HLL operation {code} is not known to the development server");
            return Err(ResultCode::PARAMETER);
        }
    };
    Ok(Changed { particle: particle::HLL, value: Some(new.encode()), answer })
}

/// The shape that arguments from `at` on ask for; what they leave out is as it was.
fn shape(args: &[Value], at: usize, old: Option<Shape>, invalid: ResultCode) -> Outcome<Shape> {
    let index_bits =
        bits(args, at)?.or(old.map(|old| old.index_bits)).ok_or(ResultCode::OP_NOT_APPLICABLE)?;
    let minhash_bits = bits(args, at + 1)?.or(old.map(|old| old.minhash_bits)).unwrap_or(0);
    Shape::new(index_bits, minhash_bits).ok_or(if old.is_some() { invalid } else { ResultCode::PARAMETER })
}
