//! Which elements an operation means.

use super::elements::{Elements, Order};
use super::form::{Form, What};
use crate::msgpack::{KEY_VALUE_ORDERED, Value};
use crate::result_code::{Outcome, ResultCode};

/// Which elements.
pub(super) enum Selector<'a> {
    Index(i64, u64),
    Rank(i64, u64),
    /// Values from the first up to but not including the second.
    ValueInterval(&'a Value, Option<&'a Value>),
    Value(&'a Value),
    Values(&'a [Value]),
    RelativeRank(&'a Value, i64, u64),
    Key(&'a Value),
    Keys(&'a [Value]),
    KeyInterval(&'a Value, Option<&'a Value>),
    RelativeIndex(&'a Value, i64, u64),
}

/// How elements were named, which decides in what order their indexes and ranks are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// A run of positions.
    Index,
    /// A run of ranks.
    Rank,
    /// A range of values, which is a run of ranks.
    Value,
    /// Each of several values, or keys.
    Items,
}

/// The elements that a selector means.
pub(super) struct Selected {
    /// In the order in which they are shown.
    pub(super) positions: Vec<usize>,
    pub(super) family: Family,
    /// Start and length of the run of positions or ranks. A start of -1 says that there is no such place.
    pub(super) run: (i64, usize),
    /// For several values or keys: the run of each.
    pub(super) items: Vec<(usize, usize)>,
    /// Whether the elements are all those outside of the run.
    pub(super) inverted: bool,
}

/// Start and length of a run of `len` elements, clipped; of a single element, which must be there.
fn run(index: i64, count: u64, len: usize, multi: bool) -> Outcome<(usize, usize)> {
    let n = len as i64;
    if !multi {
        let index = if index < 0 { index.saturating_add(n) } else { index };
        return if (0..n).contains(&index) {
            Ok((index as usize, 1))
        } else {
            Err(ResultCode::OP_NOT_APPLICABLE)
        };
    }
    if index >= n {
        return Ok((len, 0));
    }
    let mut count = count;
    let mut start = if index < 0 { index.saturating_add(n) } else { index };
    if start < 0 {
        count = count.saturating_sub(start.unsigned_abs());
        start = 0;
    }
    Ok((start as usize, count.min((n - start) as u64) as usize))
}

/// A run given relative to a position.
fn relative(base: usize, index: i64, count: u64, len: usize) -> Outcome<(usize, usize)> {
    let index = index.saturating_add(base as i64);
    let (index, count) =
        if index < 0 { (0, count.saturating_sub(index.unsigned_abs())) } else { (index, count) };
    run(index, count, len, true)
}

impl Selector<'_> {
    /// The elements that the selector means; with inversion, all others.
    pub(super) fn select(&self, elements: &impl Elements, form: Form) -> Outcome<Selected> {
        let len = elements.len();
        let below = |value: &Value| (0..len).filter(|at| elements.value(*at).order(value).is_lt()).count();
        let keys_below = |key: &Value| {
            (0..len).filter(|at| elements.key(*at).is_some_and(|k| k.order(key).is_lt())).count()
        };
        let within = |value: &Value, from: &Value, to: Option<&Value>| {
            value.order(from).is_ge() && to.is_none_or(|to| value.order(to).is_lt())
        };
        let is_value = |at: usize, value: &Value| elements.value(at).order(value).is_eq();
        let is_key = |at: usize, key: &Value| elements.key(at).is_some_and(|k| k.order(key).is_eq());
        let run = |index, count| run(index, count, len, form.multi);
        Ok(match *self {
            Selector::Index(index, count) => by_index(elements, form, run(index, count)?),
            Selector::RelativeIndex(key, index, count) => {
                by_index(elements, form, relative(keys_below(key), index, count, len)?)
            }
            Selector::Rank(rank, count) => by_rank(elements, form, run(rank, count)?),
            Selector::RelativeRank(value, rank, count) => {
                by_rank(elements, form, relative(below(value), rank, count, len)?)
            }
            Selector::ValueInterval(from, to) => {
                let found = (0..len).filter(|at| within(elements.value(*at), from, to)).collect();
                by_value(elements, form, below(from), found)
            }
            Selector::Value(value) => {
                let mut found: Vec<usize> = (0..len).filter(|at| is_value(*at, value)).collect();
                if !form.multi {
                    found.truncate(1);
                }
                by_value(elements, form, below(value), found)
            }
            Selector::KeyInterval(from, to) => {
                let is_found = |at: &usize| elements.key(*at).is_some_and(|key| within(key, from, to));
                by_index(elements, form, (keys_below(from), (0..len).filter(is_found).count()))
            }
            Selector::Key(key) => {
                let mut selected = match (0..len).find(|at| is_key(*at, key)) {
                    Some(at) => by_index(elements, form, (at, 1)),
                    None => by_index(elements, form, (0, 0)),
                };
                if selected.positions.is_empty() {
                    selected.run.0 = -1;
                }
                selected
            }
            Selector::Values(values) => {
                let counts = values
                    .iter()
                    .map(|value| (below(value), (0..len).filter(|at| is_value(*at, value)).count()));
                let items = counts.collect();
                by_items(len, form, items, |at| values.iter().any(|value| is_value(at, value)))
            }
            Selector::Keys(_) if matches!(form.what, What::Rank | What::ReverseRank) => {
                return Err(ResultCode::OP_NOT_APPLICABLE);
            }
            Selector::Keys(keys) => {
                let counts =
                    keys.iter().map(|key| (keys_below(key), (0..len).filter(|at| is_key(*at, key)).count()));
                let items = counts.collect();
                by_items(len, form, items, |at| keys.iter().any(|key| is_key(at, key)))
            }
        })
    }
}

fn complement(positions: &[usize], len: usize) -> Vec<usize> {
    let mut keep = vec![true; len];
    for at in positions {
        keep[*at] = false;
    }
    (0..len).filter(|at| keep[*at]).collect()
}

/// Everything outside of a run, as a run, where that is one.
fn outside((start, count): (usize, usize), len: usize) -> Option<(usize, usize)> {
    if count == 0 {
        Some((0, len))
    } else if start == 0 {
        Some((count, len - count))
    } else if start + count >= len {
        Some((0, start))
    } else {
        None
    }
}

fn by_index(elements: &impl Elements, form: Form, run: (usize, usize)) -> Selected {
    let len = elements.len();
    let (run, inverted) = match (form.inverted, outside(run, len)) {
        (true, Some(outside)) => (outside, false),
        (inverted, _) => (run, inverted),
    };
    let (start, count) = run;
    let inside: Vec<usize> = (start..start + count).collect();
    let positions = if inverted { complement(&inside, len) } else { inside };
    Selected { positions, family: Family::Index, run: (start as i64, count), items: Vec::new(), inverted }
}

fn by_rank(elements: &impl Elements, form: Form, run: (usize, usize)) -> Selected {
    let len = elements.len();
    if elements.order() == Order::List(true) {
        return by_index(elements, form, run); // the rank of an item is its position
    }
    let (run, inverted) = match (form.inverted && elements.order().is_map(), outside(run, len)) {
        (true, Some(outside)) => (outside, false),
        _ => (run, form.inverted),
    };
    let (start, count) = run;
    let mut positions = elements.by_rank()[start..start + count].to_vec();
    if inverted {
        positions = complement(&positions, len);
    } else if form.is_sorted_map() {
        positions.sort_unstable();
    }
    Selected { positions, family: Family::Rank, run: (start as i64, count), items: Vec::new(), inverted }
}

fn by_value(elements: &impl Elements, form: Form, below: usize, mut found: Vec<usize>) -> Selected {
    let len = elements.len();
    let run = (below, found.len());
    if elements.order() == Order::List(true) && (form.multi || !found.is_empty()) {
        return by_index(elements, form, run);
    }
    if form.inverted {
        found = complement(&found, len);
    } else if elements.order() == Order::Map(KEY_VALUE_ORDERED) && !form.is_sorted_map() {
        found.sort_by(|a, b| elements.value(*a).order(elements.value(*b)));
    }
    let start = if elements.order().is_map() && len == 0 { -1 } else { run.0 as i64 };
    Selected {
        positions: found,
        family: Family::Value,
        run: (start, run.1),
        items: Vec::new(),
        inverted: form.inverted,
    }
}

fn by_items(
    len: usize,
    form: Form,
    items: Vec<(usize, usize)>,
    is_found: impl Fn(usize) -> bool,
) -> Selected {
    let positions = (0..len).filter(|at| is_found(*at) != form.inverted).collect();
    Selected { positions, family: Family::Items, run: (0, 0), items, inverted: form.inverted }
}
