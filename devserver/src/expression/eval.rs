//! Evaluation. What cannot be known (a bin that is not there or has another type) is `None` and spreads,
//! except where logic decides without it.

use std::cmp::Ordering;

use super::View;
use super::tree::{Arithmetic, Compare, Kind, Metadata, Node};
use crate::cdt;
use crate::clock::Clock;
use crate::msgpack::{List, Value};
use crate::particle;

/// The value of a node; `variables` are those in scope.
pub(super) fn eval(node: &Node, view: &View<'_>, variables: &mut Vec<Option<Value>>) -> Option<Value> {
    match node {
        Node::Unknown => None,
        Node::Constant(value) => Some(value.clone()),
        Node::Compare(compare, left, right) => {
            let (left, right) = (eval(left, view, variables)?, eval(right, view, variables)?);
            Some(Value::Bool(compares(*compare, &left, &right)))
        }
        Node::InList(value, list) => {
            let value = eval(value, view, variables)?;
            let Value::List(list) = eval(list, view, variables)? else { return None };
            Some(Value::Bool(list.items.iter().any(|item| item.order(&value).is_eq())))
        }
        Node::And(nodes) => decide(nodes, false, view, variables),
        Node::Or(nodes) => decide(nodes, true, view, variables),
        Node::Not(node) => match eval(node, view, variables)? {
            Value::Bool(value) => Some(Value::Bool(!value)),
            _ => None,
        },
        Node::Exclusive(nodes) => {
            let mut trues = 0;
            for node in nodes {
                trues += usize::from(eval(node, view, variables)? == Value::Bool(true));
            }
            Some(Value::Bool(trues == 1))
        }
        Node::Arithmetic(operation, nodes) => {
            let values: Option<Vec<Value>> = nodes.iter().map(|node| eval(node, view, variables)).collect();
            arithmetic(*operation, &values?)
        }
        Node::DigestModulo(modulus) => {
            let tail = view.digest.last_chunk::<4>()?;
            Some(Value::Int(i64::from(u32::from_le_bytes(*tail)) % modulus))
        }
        Node::Metadata(metadata) => Some(self::metadata(*metadata, view)),
        Node::Key(kind) => {
            let (particle, data) = view.meta.key?.split_first()?;
            if *particle == kind.particle() { Value::from_particle(*particle, data) } else { None }
        }
        Node::Bin(kind, name) => {
            let (particle, value) = view.bins.get(name)?;
            let fits = particle == kind.particle() || (*kind == Kind::Blob && particle::is_blob(particle));
            if fits { Value::from_particle(particle, value) } else { None }
        }
        Node::BinType(name) => {
            let particle = view.bins.get(name).map_or(particle::NULL, |(particle, _)| particle);
            Some(Value::Int(particle.into()))
        }
        Node::MapKeys(map) | Node::MapValues(map) => {
            let Value::Map(map) = eval(map, view, variables)? else { return None };
            let wants_keys = matches!(node, Node::MapKeys(_));
            let items =
                map.entries.into_iter().map(|(key, value)| if wants_keys { key } else { value }).collect();
            Some(Value::List(List { ordered: false, items }))
        }
        Node::Condition(cases, default) => {
            for (condition, result) in cases {
                if eval(condition, view, variables)? == Value::Bool(true) {
                    return eval(result, view, variables);
                }
            }
            eval(default, view, variables)
        }
        Node::Let(values, body) => {
            let outer = variables.len();
            for value in values {
                let value = eval(value, view, variables);
                variables.push(value);
            }
            let result = eval(body, view, variables);
            variables.truncate(outer);
            result
        }
        Node::Variable(at) => variables.get(*at)?.clone(),
        Node::Collection(operation, value) => {
            let value = eval(value, view, variables)?;
            let answer = cdt::read_in_expression(&value, operation).ok()?;
            Value::from_particle(answer.particle, &answer.value)
        }
    }
}

/// And (`deciding` = false) and or (true): one deciding value is enough, otherwise all must be known.
fn decide(
    nodes: &[Node],
    deciding: bool,
    view: &View<'_>,
    variables: &mut Vec<Option<Value>>,
) -> Option<Value> {
    let mut is_known = true;
    for node in nodes {
        match eval(node, view, variables) {
            Some(Value::Bool(value)) if value == deciding => return Some(Value::Bool(deciding)),
            Some(_) => {}
            None => is_known = false,
        }
    }
    is_known.then_some(Value::Bool(!deciding))
}

fn compares(compare: Compare, left: &Value, right: &Value) -> bool {
    let order = match (left, right) {
        // Unlike in the order of values, nothing compares to NaN.
        (Value::Float(left), Value::Float(right)) => left.partial_cmp(right),
        _ => Some(left.order(right)),
    };
    match (compare, order) {
        (Compare::Ne, None) => true,
        (_, None) => false,
        (Compare::Eq, Some(order)) => order == Ordering::Equal,
        (Compare::Ne, Some(order)) => order != Ordering::Equal,
        (Compare::Gt, Some(order)) => order == Ordering::Greater,
        (Compare::Ge, Some(order)) => order != Ordering::Less,
        (Compare::Lt, Some(order)) => order == Ordering::Less,
        (Compare::Le, Some(order)) => order != Ordering::Greater,
    }
}

fn arithmetic(operation: Arithmetic, values: &[Value]) -> Option<Value> {
    let ints: Option<Vec<i64>> =
        values.iter().map(|value| if let Value::Int(value) = value { Some(*value) } else { None }).collect();
    if let Some(ints) = ints {
        return on_ints(operation, &ints);
    }
    let floats: Option<Vec<f64>> = values
        .iter()
        .map(|value| if let Value::Float(value) = value { Some(*value) } else { None })
        .collect();
    on_floats(operation, &floats?)
}

fn on_ints(operation: Arithmetic, values: &[i64]) -> Option<Value> {
    let (first, rest) = values.split_first()?;
    let fold = |by: fn(i64, i64) -> i64| rest.iter().fold(*first, |sum, value| by(sum, *value));
    let shift = || u32::try_from(*rest.first()?).ok().filter(|by| *by < 64);
    Some(Value::Int(match operation {
        Arithmetic::Add => fold(i64::wrapping_add),
        Arithmetic::Sub if rest.is_empty() => first.wrapping_neg(),
        Arithmetic::Sub => fold(i64::wrapping_sub),
        Arithmetic::Mul => fold(i64::wrapping_mul),
        Arithmetic::Div => {
            let (first, rest) = if rest.is_empty() { (1, values) } else { (*first, rest) };
            rest.iter().try_fold(first, |value, by| value.checked_div(*by))?
        }
        Arithmetic::Mod => first.checked_rem(*rest.first()?)?,
        Arithmetic::Abs => first.wrapping_abs(),
        Arithmetic::ToFloat => return Some(Value::Float(*first as f64)),
        Arithmetic::And => fold(|a, b| a & b),
        Arithmetic::Or => fold(|a, b| a | b),
        Arithmetic::Xor => fold(|a, b| a ^ b),
        Arithmetic::Not => !first,
        Arithmetic::ShiftLeft => first.wrapping_shl(shift()?),
        Arithmetic::ShiftRight => ((*first as u64) >> shift()?) as i64,
        Arithmetic::ShiftRightSigned => first >> shift()?,
        Arithmetic::Min => fold(i64::min),
        Arithmetic::Max => fold(i64::max),
        _ => return None,
    }))
}

fn on_floats(operation: Arithmetic, values: &[f64]) -> Option<Value> {
    let (first, rest) = values.split_first()?;
    let fold = |by: fn(f64, f64) -> f64| rest.iter().fold(*first, |sum, value| by(sum, *value));
    Some(Value::Float(match operation {
        Arithmetic::Add => fold(|a, b| a + b),
        Arithmetic::Sub if rest.is_empty() => -first,
        Arithmetic::Sub => fold(|a, b| a - b),
        Arithmetic::Mul => fold(|a, b| a * b),
        Arithmetic::Div if rest.is_empty() => 1.0 / first,
        Arithmetic::Div => fold(|a, b| a / b),
        Arithmetic::Pow => first.powf(*rest.first()?),
        Arithmetic::Log => first.ln() / rest.first()?.ln(),
        Arithmetic::Abs => first.abs(),
        Arithmetic::Floor => first.floor(),
        Arithmetic::Ceil => first.ceil(),
        Arithmetic::ToInt => return Some(Value::Int(*first as i64)),
        Arithmetic::Min => fold(f64::min),
        Arithmetic::Max => fold(f64::max),
        _ => return None,
    }))
}

fn metadata(metadata: Metadata, view: &View<'_>) -> Value {
    let meta = &view.meta;
    Value::Int(match metadata {
        // A namespace in memory has nothing on a device.
        Metadata::DeviceSize => 0,
        Metadata::LastUpdate => Clock::to_unix_nanos(meta.last_update),
        Metadata::SinceUpdate => view.now_ms.saturating_sub(meta.last_update) as i64,
        Metadata::VoidTime | Metadata::Ttl if meta.void_time == 0 => -1,
        Metadata::VoidTime => Clock::to_unix_nanos(u64::from(meta.void_time) * 1000),
        Metadata::Ttl => i64::from(meta.void_time) - (view.now_ms / 1000) as i64,
        Metadata::SetName => {
            let set = view.namespace.set(meta.set);
            return Value::Str(set.map_or_else(Vec::new, |set| set.name.to_vec()));
        }
        Metadata::KeyExists => return Value::Bool(meta.key.is_some()),
        Metadata::IsTombstone => return Value::Bool(false),
        Metadata::MemorySize | Metadata::RecordSize => meta.size as i64,
    })
}
