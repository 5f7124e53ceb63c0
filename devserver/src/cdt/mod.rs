//! Lists and maps: writing them whole, changing them, reading parts of them.
//!
//! An operation is a msgpack list: its code and its arguments, or 0xff, a path into nested values, and that
//! list. Values are taken apart, changed and put together again; that is slower than the real server and
//! gives the same bytes.

mod accept;
mod answer;
pub(crate) mod context;
mod elements;
mod form;
mod list;
mod map;
mod select;

use std::borrow::Cow;

use crate::msgpack::Value;
use crate::ops::{Answer, Changed};
use crate::particle;
use crate::result_code::{Outcome, ResultCode};
use context::Context;

/// The code of an operation that has a path in front.
const WITH_CONTEXT: i64 = 0xff;
/// Codes below are those of lists.
const FIRST_MAP_OP: i64 = 64;

/// Checks a list or map that is written whole, and brings it into the server's form.
pub(crate) fn accept(particle: u8, value: &[u8]) -> Outcome<Cow<'_, [u8]>> {
    accept::accept(particle, value).map_err(|_| ResultCode::UNKNOWN)
}

/// Checks a value that becomes an element, and brings it into the server's form.
fn accept_element(value: &Value) -> Outcome<Value> {
    let bytes = accept::accept_any(&value.encode()).map_err(|_| ResultCode::PARAMETER)?;
    Value::parse(&bytes).map_err(|_| ResultCode::PARAMETER)
}

/// An operation, taken apart.
struct Operation {
    context: Option<Context>,
    code: i64,
    args: Vec<Value>,
}

impl Operation {
    fn parse(bytes: &[u8]) -> Outcome<Operation> {
        let mut parts = list_of(Value::parse(bytes).map_err(|_| ResultCode::PARAMETER)?)?;
        let mut context = None;
        if parts.first() == Some(&Value::Int(WITH_CONTEXT)) {
            let [_, path, operation] = <[Value; 3]>::try_from(parts).map_err(|_| ResultCode::PARAMETER)?;
            context = Some(Context::from_value(path)?);
            parts = list_of(operation)?;
        }
        if parts.is_empty() {
            return Err(ResultCode::PARAMETER);
        }
        let Value::Int(code) = parts.remove(0) else { return Err(ResultCode::PARAMETER) };
        Ok(Operation { context, code, args: parts })
    }

    fn is_on_list(&self) -> bool {
        self.code < FIRST_MAP_OP
    }
}

fn list_of(value: Value) -> Outcome<Vec<Value>> {
    match value {
        Value::List(list) => Ok(list.items),
        _ => Err(ResultCode::PARAMETER),
    }
}

/// The arguments of an operation.
struct Args<'a>(&'a [Value]);

impl<'a> Args<'a> {
    fn new(args: &'a [Value], least: usize, most: usize) -> Outcome<Args<'a>> {
        if (least..=most).contains(&args.len()) { Ok(Args(args)) } else { Err(ResultCode::PARAMETER) }
    }

    fn value(&self, at: usize) -> &'a Value {
        &self.0[at]
    }

    fn optional(&self, at: usize) -> Option<&'a Value> {
        self.0.get(at)
    }

    fn int(&self, at: usize) -> Outcome<i64> {
        match self.0[at] {
            Value::Int(value) => Ok(value),
            _ => Err(ResultCode::PARAMETER),
        }
    }

    /// A count that may be left out, which means all.
    fn count(&self, at: usize) -> Outcome<u64> {
        match self.0.get(at) {
            None => Ok(u64::MAX),
            Some(Value::Int(value)) => Ok(*value as u64),
            Some(_) => Err(ResultCode::PARAMETER),
        }
    }

    /// Flags that may be left out, which means none.
    fn flags(&self, at: usize) -> Outcome<i64> {
        if at < self.0.len() { self.int(at) } else { Ok(0) }
    }
}

/// What an increment makes of a number.
fn increment(present: Option<&Value>, delta: Option<&Value>, negate: bool) -> Outcome<Value> {
    let sign = if negate { -1 } else { 1 };
    let (by_int, by_float, is_float) = match delta {
        None | Some(Value::Nil) => (sign, sign as f64, false),
        Some(Value::Int(by)) => (by.wrapping_mul(sign), (by.wrapping_mul(sign)) as f64, false),
        Some(Value::Float(by)) => ((by * sign as f64) as i64, by * sign as f64, true),
        Some(_) => return Err(ResultCode::PARAMETER),
    };
    Ok(match present {
        Some(Value::Int(value)) => Value::Int(value.wrapping_add(by_int)),
        Some(Value::Float(value)) => Value::Float(value + by_float),
        Some(_) => return Err(ResultCode::PARAMETER),
        None if is_float => Value::Float(by_float),
        None => Value::Int(by_int),
    })
}

fn is_collection(particle: u8) -> bool {
    matches!(particle, particle::LIST | particle::MAP)
}

/// Performs a reading operation on the value of a bin.
pub(crate) fn read(particle: u8, value: &[u8], op: &[u8]) -> Outcome<Answer> {
    let operation = Operation::parse(op)?;
    if !is_collection(particle) {
        return Err(if operation.context.is_some() {
            ResultCode::PARAMETER
        } else {
            ResultCode::INCOMPATIBLE_TYPE
        });
    }
    let root = Value::parse(value).map_err(|_| ResultCode::UNKNOWN)?;
    let target = match &operation.context {
        Some(context) => context.find(&root).ok_or(ResultCode::OP_NOT_APPLICABLE)?,
        None => &root,
    };
    read_value(target, &operation)
}

fn read_value(target: &Value, operation: &Operation) -> Outcome<Answer> {
    match target {
        Value::List(list) if operation.is_on_list() => list::read(list, operation.code, &operation.args),
        Value::Map(map) if !operation.is_on_list() => map::read(map, operation.code, &operation.args),
        _ => Err(ResultCode::INCOMPATIBLE_TYPE),
    }
}

/// Performs a reading operation inside an expression.
pub(crate) fn read_in_expression(value: &Value, operation: &Value) -> Outcome<Answer> {
    let operation = Operation::parse(&operation.encode())?;
    let target = match &operation.context {
        Some(context) => context.find(value).ok_or(ResultCode::OP_NOT_APPLICABLE)?,
        None => value,
    };
    read_value(target, &operation)
}

/// Performs a changing operation on the value of a bin, which may not be there.
pub(crate) fn modify(present: Option<(u8, &[u8])>, op: &[u8]) -> Outcome<Changed> {
    let operation = Operation::parse(op)?;
    let mut root = None;
    if let Some((particle, value)) = present {
        if !is_collection(particle) {
            let code = if operation.context.is_some() {
                ResultCode::PARAMETER
            } else {
                ResultCode::INCOMPATIBLE_TYPE
            };
            return Err(code);
        }
        root = Some(Value::parse(value).map_err(|_| ResultCode::UNKNOWN)?);
    }
    let steps = operation.context.as_ref().map_or(&[][..], Context::steps);
    let answer = context::change_at(&mut root, steps, &mut |slot| modify_value(slot, &operation))?;
    // A nil that was taken out is no answer.
    let answer = answer.filter(|answer| answer.particle != particle::NULL);
    let particle = if matches!(root, Some(Value::List(_))) { particle::LIST } else { particle::MAP };
    Ok(Changed { particle, value: root.map(|root| root.encode()), answer })
}

fn modify_value(slot: &mut Option<Value>, operation: &Operation) -> Outcome<Option<Answer>> {
    match slot {
        None => {}
        Some(Value::List(_)) if operation.is_on_list() => {}
        Some(Value::Map(_)) if !operation.is_on_list() => {}
        Some(_) => return Err(ResultCode::INCOMPATIBLE_TYPE),
    }
    if operation.is_on_list() {
        let mut list = match slot.take() {
            Some(Value::List(list)) => Some(list),
            _ => None,
        };
        let answer = list::modify(&mut list, operation.code, &operation.args)?;
        *slot = list.map(Value::List);
        Ok(answer)
    } else {
        let mut map = match slot.take() {
            Some(Value::Map(map)) => Some(map),
            _ => None,
        };
        let answer = map::modify(&mut map, operation.code, &operation.args)?;
        *slot = map.map(Value::Map);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `TYPE:HEX`, or `-` for nothing.
    fn value(text: &str) -> Option<(u8, Vec<u8>)> {
        let (particle, hex) = text.split_once(':')?;
        Some((particle.parse().unwrap(), bytes(hex)))
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let (pairs, _) = hex.as_bytes().as_chunks::<2>();
        pairs.iter().map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn whole_values_are_taken_as_a_real_server_recorded() {
        let recorded = include_str!("../../tests/recorded/whole.txt");
        for line in recorded.lines().filter(|line| !line.starts_with('#')) {
            let [written, code, stored] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let (particle, bytes) = value(written).unwrap();
            let taken = accept(particle, &bytes);
            assert_eq!(taken.as_ref().err().map_or(0, |code| code.0).to_string(), code, "{line}");
            assert_eq!(taken.ok().map(|bytes| (particle, bytes.into_owned())), value(stored), "{line}");
        }
    }

    #[test]
    fn operations_do_what_a_real_server_recorded() {
        let recorded = include_str!("../../tests/recorded/collections.txt");
        for line in recorded.lines().filter(|line| !line.starts_with('#')) {
            let [how, before, op, code, answer, after] =
                line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let (before, op) = (value(before), bytes(op));
            let present = before.as_ref().map(|(particle, value)| (*particle, value.as_slice()));
            let (result, found) = if how == "read" {
                let (particle, value) = present.unwrap();
                (read(particle, value, &op).map(Some), before.clone())
            } else {
                match modify(present, &op) {
                    Ok(changed) => {
                        let found = changed.value.map(|value| (changed.particle, value)).or(before.clone());
                        (Ok(changed.answer), found)
                    }
                    Err(code) => (Err(code), before.clone()),
                }
            };
            assert_eq!(result.as_ref().err().map_or(0, |code| code.0).to_string(), code, "{line}");
            let given = result.ok().flatten().filter(|answer| answer.particle != particle::NULL);
            assert_eq!(given.map(|answer| (answer.particle, answer.value)), value(answer), "{line}");
            assert_eq!(found, value(after), "{line}");
        }
    }
}
