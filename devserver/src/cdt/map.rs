//! Map operations.

use super::form::Form;
use super::select::Selector;
use super::{Args, accept_element, increment};
use crate::msgpack::{KEY_VALUE_ORDERED, Map, Value};
use crate::ops::Answer;
use crate::result_code::{Outcome, ResultCode};

/// Modify flags.
const NO_OVERWRITE: i64 = 1;
const NO_CREATE: i64 = 2;
const NO_FAIL: i64 = 4;
const DO_PARTIAL: i64 = 8;
/// The order extension's bit that asks for a stored index; accepted and not kept.
const PERSIST_INDEX: i64 = 0x10;

/// Operation codes.
mod code {
    pub(super) const SET_TYPE: i64 = 64;
    pub(super) const ADD: i64 = 65;
    pub(super) const ADD_ITEMS: i64 = 66;
    pub(super) const PUT: i64 = 67;
    pub(super) const PUT_ITEMS: i64 = 68;
    pub(super) const REPLACE: i64 = 69;
    pub(super) const REPLACE_ITEMS: i64 = 70;
    pub(super) const INCREMENT: i64 = 73;
    pub(super) const DECREMENT: i64 = 74;
    pub(super) const CLEAR: i64 = 75;
    pub(super) const SIZE: i64 = 96;
}

/// Which elements a get-by or remove-by operation means.
#[derive(Clone, Copy)]
enum Family {
    Key,
    Index,
    Value,
    Rank,
    KeyList,
    AllByValue,
    ValueList,
    KeyInterval,
    IndexRange,
    ValueInterval,
    RankRange,
    RelativeIndex,
    RelativeRank,
}

fn removal(operation: i64) -> Option<Family> {
    Some(match operation {
        76 => Family::Key,
        77 => Family::Index,
        78 => Family::Value,
        79 => Family::Rank,
        81 => Family::KeyList,
        82 => Family::AllByValue,
        83 => Family::ValueList,
        84 => Family::KeyInterval,
        85 => Family::IndexRange,
        86 => Family::ValueInterval,
        87 => Family::RankRange,
        88 => Family::RelativeIndex,
        89 => Family::RelativeRank,
        _ => return None,
    })
}

fn reading(operation: i64) -> Option<Family> {
    Some(match operation {
        97 => Family::Key,
        98 => Family::Index,
        99 => Family::Value,
        100 => Family::Rank,
        102 => Family::AllByValue,
        103 => Family::KeyInterval,
        104 => Family::IndexRange,
        105 => Family::ValueInterval,
        106 => Family::RankRange,
        107 => Family::KeyList,
        108 => Family::ValueList,
        109 => Family::RelativeIndex,
        110 => Family::RelativeRank,
        _ => return None,
    })
}

fn selection(family: Family, args: &[Value]) -> Outcome<(Selector<'_>, Form)> {
    let (least, most) = match family {
        Family::KeyInterval | Family::IndexRange | Family::ValueInterval | Family::RankRange => (2, 3),
        Family::RelativeIndex | Family::RelativeRank => (3, 4),
        _ => (2, 2),
    };
    let args = Args::new(args, least, most)?;
    let multi = !matches!(family, Family::Key | Family::Index | Family::Value | Family::Rank);
    let form = Form::parse(args.int(0)?, multi)?;
    let items = || match args.value(1) {
        Value::List(list) => Ok(list.items.as_slice()),
        _ => Err(ResultCode::PARAMETER),
    };
    let selector = match family {
        Family::Key => Selector::Key(args.value(1)),
        Family::Index => Selector::Index(args.int(1)?, 1),
        Family::Value | Family::AllByValue => Selector::Value(args.value(1)),
        Family::Rank => Selector::Rank(args.int(1)?, 1),
        Family::KeyList => Selector::Keys(items()?),
        Family::ValueList => Selector::Values(items()?),
        Family::KeyInterval => Selector::KeyInterval(args.value(1), args.optional(2)),
        Family::IndexRange => Selector::Index(args.int(1)?, args.count(2)?),
        Family::ValueInterval => Selector::ValueInterval(args.value(1), args.optional(2)),
        Family::RankRange => Selector::Rank(args.int(1)?, args.count(2)?),
        Family::RelativeIndex => Selector::RelativeIndex(args.value(1), args.int(2)?, args.count(3)?),
        Family::RelativeRank => Selector::RelativeRank(args.value(1), args.int(2)?, args.count(3)?),
    };
    Ok((selector, form))
}

/// Performs a reading operation.
pub(super) fn read(map: &Map, operation: i64, args: &[Value]) -> Outcome<Answer> {
    if operation == code::SIZE {
        return Ok(Answer::integer(map.entries.len() as i64));
    }
    let family = reading(operation).ok_or(ResultCode::PARAMETER)?;
    let (selector, form) = selection(family, args)?;
    Ok(selector.select(map, form)?.answer(map, form)?.unwrap_or_else(Answer::nil))
}

/// Performs a changing operation on a map that may not be there.
pub(super) fn modify(slot: &mut Option<Map>, operation: i64, args: &[Value]) -> Outcome<Option<Answer>> {
    if slot.is_none() && (removal(operation).is_some() || operation == code::CLEAR) {
        return Ok(None); // from a map that is not there, nothing is removed
    }
    if let Some(family) = removal(operation) {
        let (selector, form) = selection(family, args)?;
        return slot.as_mut().map_or(Ok(None), |map| remove(map, &selector, form));
    }
    let new_map = |flags: i64| Map { flags: flags as u8 & KEY_VALUE_ORDERED, entries: Vec::new() };
    match operation {
        code::SET_TYPE => {
            let flags = Args::new(args, 1, 1)?.int(0)?;
            if flags & !(PERSIST_INDEX | i64::from(KEY_VALUE_ORDERED)) != 0 {
                return Err(ResultCode::OP_NOT_APPLICABLE);
            }
            slot.get_or_insert_default().flags = flags as u8 & KEY_VALUE_ORDERED;
            Ok(None)
        }
        code::ADD | code::PUT | code::REPLACE => {
            let args = Args::new(args, 2, if operation == code::PUT { 4 } else { 3 })?;
            let flags = modify_flags(operation, &args, 3)?;
            let key = accept_key(args.value(0))?;
            let value = accept_element(args.value(1))?;
            let map = slot.get_or_insert_with(|| new_map(args.flags(2).unwrap_or(0)));
            put(map, vec![(key, value)], flags)?;
            Ok(Some(Answer::integer(map.entries.len() as i64)))
        }
        code::ADD_ITEMS | code::PUT_ITEMS | code::REPLACE_ITEMS => {
            let args = Args::new(args, 1, if operation == code::PUT_ITEMS { 3 } else { 2 })?;
            if operation == code::REPLACE_ITEMS && slot.is_none() {
                return Err(ResultCode::ELEMENT_NOT_FOUND);
            }
            let flags = modify_flags(operation, &args, 2)?;
            let Value::Map(items) = accept_element(args.value(0))? else { return Err(ResultCode::PARAMETER) };
            let map = slot.get_or_insert_with(|| new_map(args.flags(1).unwrap_or(0)));
            put(map, items.entries, flags)?;
            Ok(Some(Answer::integer(map.entries.len() as i64)))
        }
        code::INCREMENT | code::DECREMENT => {
            let args = Args::new(args, 1, 3)?;
            let key = accept_key(args.value(0))?;
            let map = slot.get_or_insert_with(|| new_map(args.flags(2).unwrap_or(0)));
            let present =
                map.entries.iter().find(|(other, _)| other.order(&key).is_eq()).map(|(_, value)| value);
            let value = increment(present, args.optional(1), operation == code::DECREMENT)?;
            put(map, vec![(key, value.clone())], 0)?;
            Ok(Some(value.to_answer()))
        }
        code::CLEAR => {
            if let Some(map) = slot {
                map.entries.clear();
            }
            Ok(None)
        }
        _ => Err(ResultCode::PARAMETER),
    }
}

fn modify_flags(operation: i64, args: &Args<'_>, at: usize) -> Outcome<i64> {
    match operation {
        code::ADD | code::ADD_ITEMS => Ok(NO_OVERWRITE),
        code::REPLACE | code::REPLACE_ITEMS => Ok(NO_CREATE),
        _ => args.flags(at),
    }
}

fn accept_key(value: &Value) -> Outcome<Value> {
    if value.is_key() { accept_element(value) } else { Err(ResultCode::PARAMETER) }
}

/// Puts entries, in the order of their keys. Nothing changes when one of them is refused.
fn put(map: &mut Map, entries: Vec<(Value, Value)>, flags: i64) -> Outcome<()> {
    let mut entries_after = map.entries.clone();
    for (key, value) in entries {
        let at = entries_after.partition_point(|(other, _)| other.order(&key).is_lt());
        let exists = entries_after.get(at).is_some_and(|(other, _)| other.order(&key).is_eq());
        let refusal = if exists && flags & NO_OVERWRITE != 0 {
            Some(ResultCode::ELEMENT_EXISTS)
        } else if !exists && flags & NO_CREATE != 0 {
            Some(ResultCode::ELEMENT_NOT_FOUND)
        } else {
            None
        };
        match refusal {
            None if exists => entries_after[at].1 = value,
            None => entries_after.insert(at, (key, value)),
            Some(code) if flags & NO_FAIL == 0 => return Err(code),
            Some(_) if flags & DO_PARTIAL == 0 => return Ok(()),
            Some(_) => {}
        }
    }
    map.entries = entries_after;
    Ok(())
}

fn remove(map: &mut Map, selector: &Selector<'_>, form: Form) -> Outcome<Option<Answer>> {
    let selected = selector.select(map, form)?;
    let answer = selected.answer(map, form)?;
    let mut keep = vec![true; map.entries.len()];
    for at in &selected.positions {
        keep[*at] = false;
    }
    let mut keep = keep.into_iter();
    map.entries.retain(|_| keep.next().unwrap_or(true));
    Ok(answer)
}
