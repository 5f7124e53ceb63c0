//! Paths into nested lists and maps.

use std::fmt::Write as _;

use crate::msgpack::{KEY_VALUE_ORDERED, List, Map, ORDERED, Value};
use crate::result_code::{Outcome, ResultCode};

/// How a step names an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Index,
    Rank,
    Key,
    Value,
}

/// Bits of a step's number besides the four values of [`By`].
const IN_LIST: i64 = 0x10;
const IN_MAP: i64 = 0x20;
const CREATE: i64 = 0xc0;
const CREATE_UNORDERED: i64 = 0x40;
const CREATE_KEY_ORDERED: i64 = 0x80;
const BASE: i64 = 0x0f;

/// One step of a path.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    by: By,
    kind: i64,
    value: Value,
}

/// A path.
#[derive(Clone, Debug)]
pub(crate) struct Context(Vec<Step>);

impl Context {
    pub(crate) fn parse(bytes: &[u8]) -> Outcome<Context> {
        Context::from_value(Value::parse(bytes).map_err(|_| ResultCode::PARAMETER)?)
    }

    /// Reads a path: a list of step numbers and step values in turn.
    pub(crate) fn from_value(value: Value) -> Outcome<Context> {
        let Value::List(List { items, .. }) = value else { return Err(ResultCode::PARAMETER) };
        if items.is_empty() || items.len() % 2 != 0 {
            return Err(ResultCode::PARAMETER);
        }
        let mut steps = Vec::new();
        let mut items = items.into_iter();
        while let (Some(kind), Some(value)) = (items.next(), items.next()) {
            let Value::Int(kind) = kind else { return Err(ResultCode::PARAMETER) };
            let by = match kind & BASE {
                0 => By::Index,
                1 => By::Rank,
                2 => By::Key,
                3 => By::Value,
                _ => return Err(ResultCode::OP_NOT_APPLICABLE),
            };
            if matches!(by, By::Index | By::Rank) && !matches!(value, Value::Int(_)) {
                return Err(ResultCode::OP_NOT_APPLICABLE);
            }
            steps.push(Step { by, kind, value });
        }
        Ok(Context(steps))
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The element at the end of the path.
    pub(crate) fn find<'v>(&self, root: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(root, |value, step| match value {
            Value::List(list) => step.find_in_list(list).and_then(|at| list.items.get(at)),
            Value::Map(map) => {
                step.find_in_map(map).and_then(|at| map.entries.get(at)).map(|(_, value)| value)
            }
            _ => None,
        })
    }
}

/// The position that an index counts from the front or, negative, from the back.
fn position(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(len as i64)? } else { index };
    usize::try_from(index).ok().filter(|index| *index < len)
}

impl Step {
    fn number(&self) -> i64 {
        match self.value {
            Value::Int(number) => number,
            _ => 0,
        }
    }

    fn find_in_list(&self, list: &List) -> Option<usize> {
        if self.kind & IN_MAP != 0 {
            return None;
        }
        match self.by {
            By::Index => position(self.number(), list.items.len()),
            By::Rank => {
                let mut order: Vec<usize> = (0..list.items.len()).collect();
                order.sort_by(|a, b| list.items[*a].order(&list.items[*b]));
                position(self.number(), order.len()).map(|rank| order[rank])
            }
            By::Value => list.items.iter().position(|item| item.order(&self.value).is_eq()),
            By::Key => None,
        }
    }

    fn find_in_map(&self, map: &Map) -> Option<usize> {
        if self.kind & IN_LIST != 0 {
            return None;
        }
        match self.by {
            By::Index => position(self.number(), map.entries.len()),
            By::Rank => {
                let mut order: Vec<usize> = (0..map.entries.len()).collect();
                order.sort_by(|a, b| map.entries[*a].1.order(&map.entries[*b].1));
                position(self.number(), order.len()).map(|rank| order[rank])
            }
            By::Key => map.entries.iter().position(|(key, _)| key.order(&self.value).is_eq()),
            By::Value => map.entries.iter().position(|(_, value)| value.order(&self.value).is_eq()),
        }
    }

    fn creates(&self) -> bool {
        self.kind & CREATE != 0
    }

    /// The list or map that this step makes where there is none.
    fn container(&self) -> Outcome<Value> {
        if !self.creates() {
            return Err(ResultCode::OP_NOT_APPLICABLE);
        }
        match (self.kind & (IN_LIST | IN_MAP), self.kind & CREATE) {
            (IN_LIST, create) => Ok(Value::List(List { ordered: create == CREATE, items: Vec::new() })),
            (IN_MAP, create) => {
                let flags = match create {
                    CREATE_UNORDERED => 0,
                    CREATE_KEY_ORDERED => ORDERED,
                    _ => KEY_VALUE_ORDERED,
                };
                Ok(Value::Map(Map { flags, entries: Vec::new() }))
            }
            _ => Err(ResultCode::OP_NOT_APPLICABLE),
        }
    }
}

/// Follows the path from `slot`, making what steps say is to be made, and has `change` change what is at its
/// end.
pub(crate) fn change_at<T>(
    slot: &mut Option<Value>,
    steps: &[Step],
    change: &mut dyn FnMut(&mut Option<Value>) -> Outcome<T>,
) -> Outcome<T> {
    let Some((step, rest)) = steps.split_first() else { return change(slot) };
    if slot.is_none() {
        *slot = Some(step.container()?);
    }
    match slot {
        Some(Value::List(list)) => {
            let at = match step.find_in_list(list) {
                Some(at) => at,
                None if step.creates() && step.kind & IN_MAP == 0 => make_item(list, step)?,
                None => return Err(ResultCode::OP_NOT_APPLICABLE),
            };
            let mut inner =
                Some(std::mem::replace(&mut list.items[at], Value::Nil)).filter(|value| *value != Value::Nil);
            let result = change_at(&mut inner, rest, change)?;
            list.items[at] = inner.unwrap_or(Value::Nil);
            if list.ordered {
                list.items.sort_by(Value::order);
            }
            Ok(result)
        }
        Some(Value::Map(map)) => {
            let (mut inner, at) = match step.find_in_map(map) {
                Some(at) => (Some(std::mem::replace(&mut map.entries[at].1, Value::Nil)), at),
                None if step.creates() && step.by == By::Key && step.kind & IN_LIST == 0 => {
                    if !step.value.is_key() {
                        return Err(ResultCode::OP_NOT_APPLICABLE);
                    }
                    let at = map.entries.partition_point(|(key, _)| key.order(&step.value).is_lt());
                    map.entries.insert(at, (step.value.clone(), Value::Nil));
                    (None, at)
                }
                None => return Err(ResultCode::OP_NOT_APPLICABLE),
            };
            let result = change_at(&mut inner, rest, change)?;
            map.entries[at].1 = inner.unwrap_or(Value::Nil);
            Ok(result)
        }
        _ => Err(ResultCode::OP_NOT_APPLICABLE),
    }
}

/// Makes room for a new item at the end of a list; beyond it only where the step allows gaps.
fn make_item(list: &mut List, step: &Step) -> Outcome<usize> {
    const UNBOUNDED: i64 = 0x80;
    let index = usize::try_from(step.number()).map_err(|_| ResultCode::OP_NOT_APPLICABLE)?;
    let fits = index == list.items.len() || (step.kind & CREATE == UNBOUNDED && index < 1 << 20);
    if step.by != By::Index || !fits {
        return Err(ResultCode::OP_NOT_APPLICABLE);
    }
    list.items.resize(index + 1, Value::Nil);
    Ok(index)
}

/// Whether the bytes are a path that reads.
pub(crate) fn check(bytes: &[u8]) -> Outcome<()> {
    let context = Context::parse(bytes)?;
    if context.0.iter().any(Step::creates) { Err(ResultCode::PARAMETER) } else { Ok(()) }
}

/// The path as index listings show it.
pub(crate) fn display(bytes: &[u8]) -> String {
    let Ok(context) = Context::parse(bytes) else { return "[(ctx-error)]".into() };
    let mut out = String::from("[");
    for (at, step) in context.0.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        out.push_str(match step.kind & (IN_LIST | IN_MAP) {
            IN_LIST => "list_",
            IN_MAP => "map_",
            _ => "",
        });
        out.push_str(match step.by {
            By::Index => "index",
            By::Rank => "rank",
            By::Key => "key",
            By::Value => "value",
        });
        let _ = write!(out, "({})", display_value(&step.value));
    }
    out.push(']');
    out
}

/// A value as listings show it: strings and blobs only by their length.
fn display_value(value: &Value) -> String {
    match value {
        Value::Nil => "nil".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Str(text) => format!("<string#{}>", text.len()),
        Value::Blob(_, data) => format!("<blob#{}>", data.len()),
        Value::Geo(text) => format!("<geojson#{}>", text.len()),
        Value::List(list) => format!("<list#{}>", list.items.len()),
        Value::Map(map) => format!("<map#{}>", map.entries.len()),
        Value::Ext(..) => "<ext>".into(),
        Value::Wildcard => "*".into(),
        Value::Infinity => "INF".into(),
    }
}
