//! List operations.

use super::form::Form;
use super::select::Selector;
use super::{Args, accept_element, increment};
use crate::msgpack::{List, ORDERED, Value};
use crate::ops::Answer;
use crate::result_code::{Outcome, ResultCode};

/// Modify flags.
const ADD_UNIQUE: i64 = 1;
const INSERT_BOUNDED: i64 = 2;
const NO_FAIL: i64 = 4;
const DO_PARTIAL: i64 = 8;
/// The order extension's bit that asks for a stored index; accepted and not kept.
const PERSIST_INDEX: i64 = 0x10;
/// Sort flags.
const DESCENDING: i64 = 1;
const DROP_DUPLICATES: i64 = 2;
/// The furthest an insert or set may reach beyond the end.
const MAX_GAP: usize = 1 << 20;

/// Operation codes.
mod code {
    pub(super) const SET_TYPE: i64 = 0;
    pub(super) const APPEND: i64 = 1;
    pub(super) const APPEND_ITEMS: i64 = 2;
    pub(super) const INSERT: i64 = 3;
    pub(super) const INSERT_ITEMS: i64 = 4;
    pub(super) const POP: i64 = 5;
    pub(super) const POP_RANGE: i64 = 6;
    pub(super) const REMOVE: i64 = 7;
    pub(super) const REMOVE_RANGE: i64 = 8;
    pub(super) const SET: i64 = 9;
    pub(super) const TRIM: i64 = 10;
    pub(super) const CLEAR: i64 = 11;
    pub(super) const INCREMENT: i64 = 12;
    pub(super) const SORT: i64 = 13;
    pub(super) const SIZE: i64 = 16;
    pub(super) const GET: i64 = 17;
    pub(super) const GET_RANGE: i64 = 18;
    pub(super) const GET_BY_INDEX: i64 = 19;
    pub(super) const GET_BY_VALUE_REL_RANK_RANGE: i64 = 27;
    pub(super) const REMOVE_BY_INDEX: i64 = 32;
    pub(super) const REMOVE_BY_VALUE_REL_RANK_RANGE: i64 = 40;
}

/// The selection of a get-by or remove-by operation, named by its distance from the first of its family.
fn selection<'a>(family: i64, args: &'a [Value]) -> Outcome<(Selector<'a>, Form)> {
    let form = |args: &Args<'_>, multi| Form::parse(args.int(0)?, multi);
    let items = |value: &'a Value| match value {
        Value::List(list) => Ok(list.items.as_slice()),
        _ => Err(ResultCode::PARAMETER),
    };
    Ok(match family {
        0 => {
            let args = Args::new(args, 2, 2)?;
            (Selector::Index(args.int(1)?, 1), form(&args, false)?)
        }
        1 => {
            let args = Args::new(args, 2, 2)?;
            (Selector::Value(args.value(1)), form(&args, false)?)
        }
        2 => {
            let args = Args::new(args, 2, 2)?;
            (Selector::Rank(args.int(1)?, 1), form(&args, false)?)
        }
        3 => {
            let args = Args::new(args, 2, 2)?;
            (Selector::Value(args.value(1)), form(&args, true)?)
        }
        4 => {
            let args = Args::new(args, 2, 2)?;
            (Selector::Values(items(args.value(1))?), form(&args, true)?)
        }
        5 => {
            let args = Args::new(args, 2, 3)?;
            (Selector::Index(args.int(1)?, args.count(2)?), form(&args, true)?)
        }
        6 => {
            let args = Args::new(args, 2, 3)?;
            (Selector::ValueInterval(args.value(1), args.optional(2)), form(&args, true)?)
        }
        7 => {
            let args = Args::new(args, 2, 3)?;
            (Selector::Rank(args.int(1)?, args.count(2)?), form(&args, true)?)
        }
        8 => {
            let args = Args::new(args, 3, 4)?;
            (Selector::RelativeRank(args.value(1), args.int(2)?, args.count(3)?), form(&args, true)?)
        }
        _ => return Err(ResultCode::PARAMETER),
    })
}

/// Performs a reading operation.
pub(super) fn read(list: &List, operation: i64, args: &[Value]) -> Outcome<Answer> {
    let (selector, form) = match operation {
        code::SIZE => return Ok(Answer::integer(list.items.len() as i64)),
        code::GET => (Selector::Index(Args::new(args, 1, 1)?.int(0)?, 1), Form::VALUE),
        code::GET_RANGE => {
            let args = Args::new(args, 1, 2)?;
            (Selector::Index(args.int(0)?, args.count(1)?), Form::VALUES)
        }
        code::GET_BY_INDEX..=code::GET_BY_VALUE_REL_RANK_RANGE => {
            selection(operation - code::GET_BY_INDEX, args)?
        }
        _ => return Err(ResultCode::PARAMETER),
    };
    Ok(selector.select(list, form)?.answer(list, form)?.unwrap_or_else(Answer::nil))
}

/// Performs a changing operation on a list that may not be there.
pub(super) fn modify(slot: &mut Option<List>, operation: i64, args: &[Value]) -> Outcome<Option<Answer>> {
    if slot.is_none() && is_removal(operation) {
        return Ok(None); // from a list that is not there, nothing is removed
    }
    let removal = match operation {
        code::POP | code::REMOVE => {
            let args = Args::new(args, 1, 1)?;
            let form = if operation == code::POP { Form::VALUE } else { Form::ONE_COUNT };
            Some((Selector::Index(args.int(0)?, 1), form))
        }
        code::POP_RANGE | code::REMOVE_RANGE => {
            let args = Args::new(args, 1, 2)?;
            let form = if operation == code::POP_RANGE { Form::VALUES } else { Form::COUNT };
            Some((Selector::Index(args.int(0)?, args.count(1)?), form))
        }
        code::TRIM => {
            let args = Args::new(args, 2, 2)?;
            Some((Selector::Index(args.int(0)?, args.count(1)?), Form::COUNT.inverted()))
        }
        code::REMOVE_BY_INDEX..=code::REMOVE_BY_VALUE_REL_RANK_RANGE => {
            Some(selection(operation - code::REMOVE_BY_INDEX, args)?)
        }
        _ => None,
    };
    if let Some((selector, form)) = removal {
        return slot.as_mut().map_or(Ok(None), |list| remove(list, &selector, form));
    }
    match operation {
        code::SET_TYPE => {
            let flags = Args::new(args, 1, 1)?.int(0)?;
            if flags & !(PERSIST_INDEX | i64::from(ORDERED)) != 0 {
                return Err(ResultCode::OP_NOT_APPLICABLE);
            }
            let list = slot.get_or_insert_default();
            list.ordered = flags & i64::from(ORDERED) != 0;
            keep_order(list);
            Ok(None)
        }
        code::APPEND | code::APPEND_ITEMS => {
            let args = Args::new(args, 1, 3)?;
            let (create, flags) = (args.flags(1)?, args.flags(2)?);
            let items = new_items(args.value(0), operation == code::APPEND_ITEMS)?;
            let list = slot
                .get_or_insert_with(|| List { ordered: create & i64::from(ORDERED) != 0, items: Vec::new() });
            insert(list, list.items.len(), items, flags)?;
            Ok(Some(Answer::integer(list.items.len() as i64)))
        }
        code::INSERT | code::INSERT_ITEMS => {
            let args = Args::new(args, 2, 3)?;
            let items = new_items(args.value(1), operation == code::INSERT_ITEMS)?;
            let list = slot.get_or_insert_default();
            if list.ordered {
                return Err(ResultCode::OP_NOT_APPLICABLE);
            }
            if !items.is_empty() {
                insert(list, gap_position(list, args.int(0)?)?, items, args.flags(2)?)?;
            }
            Ok(Some(Answer::integer(list.items.len() as i64)))
        }
        code::SET => {
            let args = Args::new(args, 2, 3)?;
            let item = accept_element(args.value(1))?;
            let list = slot.get_or_insert_default();
            if list.ordered {
                return Err(ResultCode::OP_NOT_APPLICABLE);
            }
            set(list, gap_position(list, args.int(0)?)?, item, args.flags(2)?)?;
            Ok(None)
        }
        code::CLEAR => {
            if let Some(list) = slot {
                list.items.clear();
            }
            Ok(None)
        }
        code::INCREMENT => {
            let args = Args::new(args, 1, 4)?;
            let (create, flags) = (args.flags(2)?, args.flags(3)?);
            let list = slot
                .get_or_insert_with(|| List { ordered: create & i64::from(ORDERED) != 0, items: Vec::new() });
            let at = gap_position(list, args.int(0)?)?;
            if list.ordered && at >= list.items.len() {
                return Err(ResultCode::OP_NOT_APPLICABLE);
            }
            let value = increment(list.items.get(at), args.optional(1), false)?;
            if list.ordered {
                list.items.remove(at);
                insert(list, list.items.len(), vec![value.clone()], flags)?;
            } else {
                set(list, at, value.clone(), flags)?;
            }
            Ok(Some(value.to_answer()))
        }
        code::SORT => {
            let flags = Args::new(args, 0, 1)?.flags(0)?;
            let list = slot.as_mut().ok_or(ResultCode::INCOMPATIBLE_TYPE)?;
            if !list.ordered {
                list.items.sort_by(Value::order);
                if flags & DESCENDING != 0 {
                    list.items.reverse();
                }
            }
            if flags & DROP_DUPLICATES != 0 {
                list.items.dedup_by(|a, b| a.order(b).is_eq());
            }
            Ok(None)
        }
        _ => Err(ResultCode::PARAMETER),
    }
}

fn is_removal(operation: i64) -> bool {
    matches!(operation, code::POP..=code::REMOVE_RANGE | code::TRIM | code::CLEAR)
        || (code::REMOVE_BY_INDEX..=code::REMOVE_BY_VALUE_REL_RANK_RANGE).contains(&operation)
}

fn remove(list: &mut List, selector: &Selector<'_>, form: Form) -> Outcome<Option<Answer>> {
    let selected = selector.select(list, form)?;
    let answer = selected.answer(list, form)?;
    let mut keep = vec![true; list.items.len()];
    for at in &selected.positions {
        keep[*at] = false;
    }
    let mut keep = keep.into_iter();
    list.items.retain(|_| keep.next().unwrap_or(true));
    Ok(answer)
}

fn keep_order(list: &mut List) {
    if list.ordered {
        list.items.sort_by(Value::order);
    }
}

/// The items that an append or insert brings, in the server's form.
fn new_items(value: &Value, several: bool) -> Outcome<Vec<Value>> {
    match (accept_element(value)?, several) {
        (Value::List(list), true) => Ok(list.items),
        (_, true) => Err(ResultCode::PARAMETER),
        (value, false) => Ok(vec![value]),
    }
}

/// A position that may be beyond the end, or negative from the end.
fn gap_position(list: &List, index: i64) -> Outcome<usize> {
    let len = list.items.len();
    let index = if index < 0 { index.saturating_add(len as i64) } else { index };
    match usize::try_from(index) {
        Ok(at) if at <= len + MAX_GAP => Ok(at),
        _ => Err(ResultCode::OP_NOT_APPLICABLE),
    }
}

/// Inserts at `at`, with nils in the gap when it is beyond the end; an ordered list puts items where they
/// belong.
fn insert(list: &mut List, at: usize, items: Vec<Value>, flags: i64) -> Outcome<()> {
    if flags & INSERT_BOUNDED != 0 && at > list.items.len() {
        return if flags & NO_FAIL != 0 { Ok(()) } else { Err(ResultCode::OP_NOT_APPLICABLE) };
    }
    let mut fresh: Vec<Value> = Vec::with_capacity(items.len());
    if flags & ADD_UNIQUE == 0 {
        fresh = items;
    } else {
        let had = items.len();
        for item in items {
            let is_there = |other: &Value| other.order(&item).is_eq();
            if list.items.iter().any(is_there) || fresh.iter().any(is_there) {
                if flags & NO_FAIL == 0 {
                    return Err(ResultCode::ELEMENT_EXISTS);
                }
                if flags & DO_PARTIAL == 0 {
                    return Ok(());
                }
            } else {
                fresh.push(item);
            }
        }
        if fresh.is_empty() && had > 0 {
            return Ok(());
        }
    }
    if at > list.items.len() {
        list.items.resize(at, Value::Nil);
    }
    list.items.splice(at..at, fresh);
    keep_order(list);
    Ok(())
}

fn set(list: &mut List, at: usize, item: Value, flags: i64) -> Outcome<()> {
    if at >= list.items.len() {
        return insert(list, at, vec![item], flags);
    }
    let is_twin = |(other, value): (usize, &Value)| other != at && value.order(&item).is_eq();
    if flags & ADD_UNIQUE != 0 && list.items.iter().enumerate().any(is_twin) {
        return if flags & NO_FAIL != 0 { Ok(()) } else { Err(ResultCode::ELEMENT_EXISTS) };
    }
    list.items[at] = item;
    Ok(())
}
