//! The answer that tells of the elements an operation means: values, numbers, or how many.

use super::elements::{Elements, Order};
use super::form::{Form, What};
use super::select::{Family, Selected};
use crate::msgpack::{KEY_VALUE_ORDERED, List, Map, Value};
use crate::ops::Answer;
use crate::result_code::{Outcome, ResultCode};

/// Numbers as runs of them are told: from the other end, a run keeps rising.
fn put_run(out: &mut Vec<usize>, (start, count): (usize, usize), len: usize, reverse: bool) {
    let start = if reverse { len - start - count } else { start };
    out.extend(start..start + count);
}

impl Selected {
    /// The answer in the form asked for.
    pub(super) fn answer(&self, elements: &impl Elements, form: Form) -> Outcome<Option<Answer>> {
        let is_map = elements.order().is_map();
        let value = match form.what {
            What::Nothing => return Ok(None),
            What::Index => self.numbers(form, self.indexes(elements, false)),
            What::ReverseIndex => self.numbers(form, self.indexes(elements, true)),
            What::Rank => self.numbers(form, self.ranks(elements, false)),
            What::ReverseRank => self.numbers(form, self.ranks(elements, true)),
            What::Count => Value::Int(self.positions.len() as i64),
            // Inverted, a run exists when nothing is in it; so the real server has it.
            What::Exists if self.inverted && matches!(self.family, Family::Rank | Family::Value) => {
                Value::Bool(self.run.1 == 0)
            }
            What::Exists => Value::Bool(!self.positions.is_empty()),
            What::IndexRange | What::ReverseIndexRange | What::RankRange | What::ReverseRankRange => {
                self.range(elements, form)?
            }
            What::Value => {
                let found = self.positions.iter().map(|at| elements.value(*at).clone()).collect();
                return Ok(shown(form, found));
            }
            What::Key | What::KeyValue(_) if !is_map => return Err(ResultCode::OP_NOT_APPLICABLE),
            What::Key => {
                let keys = self.positions.iter().filter_map(|at| elements.key(*at)).cloned();
                return Ok(shown(form, keys.collect()));
            }
            What::KeyValue(flags) => {
                let entry = |at: &usize| Some((elements.key(*at)?.clone(), elements.value(*at).clone()));
                Value::Map(Map { flags, entries: self.positions.iter().filter_map(entry).collect() })
            }
        };
        Ok(Some(value.to_answer()))
    }

    fn numbers(&self, form: Form, all: Vec<usize>) -> Value {
        match (form.multi, all.first()) {
            (true, _) => integers(all.into_iter().map(|number| number as i64)),
            (false, Some(first)) if !self.positions.is_empty() => Value::Int(*first as i64),
            (false, _) => Value::Int(-1),
        }
    }

    /// The run, or what is before and behind it.
    fn put_runs(&self, out: &mut Vec<usize>, len: usize, reverse: bool) {
        let (start, count) = (self.run.0.max(0) as usize, self.run.1);
        if self.inverted {
            put_run(out, (0, start), len, reverse);
            put_run(out, (start + count, len - start - count), len, reverse);
        } else {
            put_run(out, (start, count), len, reverse);
        }
    }

    fn indexes(&self, elements: &impl Elements, reverse: bool) -> Vec<usize> {
        let len = elements.len();
        let order = elements.order();
        let mut out = Vec::new();
        let is_indexed = order == Order::List(true) || order == Order::Map(KEY_VALUE_ORDERED);
        match self.family {
            Family::Index => self.put_runs(&mut out, len, reverse),
            // Where an index of values or keys is kept, each item is told on its own.
            Family::Items
                if !self.inverted && (is_indexed || (order.is_map() && self.is_by_key(elements))) =>
            {
                let by_rank = elements.by_rank();
                let is_direct = order == Order::List(true) || self.is_by_key(elements);
                for &run in &self.items {
                    if is_direct {
                        put_run(&mut out, run, len, reverse);
                    } else {
                        let (start, count) = run;
                        let mirror = |at: &usize| if reverse { len - 1 - at } else { *at };
                        out.extend(by_rank[start..start + count].iter().map(mirror));
                    }
                }
            }
            _ => {
                let mut positions = self.positions.clone();
                if !order.is_map() {
                    positions.sort_unstable();
                }
                out.extend(positions.into_iter().map(|at| if reverse { len - 1 - at } else { at }));
            }
        }
        out
    }

    /// Whether the items are keys: their runs are of positions then.
    fn is_by_key(&self, elements: &impl Elements) -> bool {
        elements.order().is_map()
            && self.items.iter().all(|(_, count)| *count <= 1)
            && self
                .items
                .iter()
                .filter(|(_, count)| *count == 1)
                .all(|(at, _)| self.inverted != self.positions.contains(at))
    }

    fn ranks(&self, elements: &impl Elements, reverse: bool) -> Vec<usize> {
        let len = elements.len();
        let mut out = Vec::new();
        match self.family {
            Family::Rank | Family::Value => self.put_runs(&mut out, len, reverse),
            Family::Index if elements.order() == Order::List(true) || self.positions.len() == len => {
                self.put_runs(&mut out, len, reverse);
            }
            Family::Index => {
                let less = |at: &usize| {
                    let value = elements.value(*at);
                    (0..len)
                        .filter(|other| match elements.value(*other).order(value) {
                            std::cmp::Ordering::Less => true,
                            // Of equal values in a map, the one with the lesser key ranks first.
                            std::cmp::Ordering::Equal => elements.order().is_map() && other < at,
                            std::cmp::Ordering::Greater => false,
                        })
                        .count()
                };
                let ranks = self.positions.iter().map(less);
                out.extend(ranks.map(|rank| if reverse { len - 1 - rank } else { rank }));
            }
            Family::Items if self.inverted && elements.order() == Order::List(true) => {
                out.extend(self.positions.iter().map(|at| if reverse { len - 1 - at } else { *at }));
            }
            Family::Items if self.inverted => {
                let mut items = self.items.clone();
                items.sort_unstable();
                items.dedup();
                let mut from = 0;
                for (start, count) in items.into_iter().filter(|(_, count)| *count > 0) {
                    put_run(&mut out, (from, start - from), len, reverse);
                    from = start + count;
                }
                put_run(&mut out, (from, len - from), len, reverse);
            }
            Family::Items => {
                for (start, count) in &self.items {
                    for rank in *start..start + count {
                        out.push(if reverse { len - 1 - rank } else { rank });
                    }
                }
            }
        }
        out
    }

    /// A run as its start and length.
    fn range(&self, elements: &impl Elements, form: Form) -> Outcome<Value> {
        let by_index = matches!(form.what, What::IndexRange | What::ReverseIndexRange);
        let fits = match self.family {
            Family::Index => by_index || elements.order() == Order::List(true),
            Family::Rank | Family::Value => !by_index,
            Family::Items => false,
        };
        let is_empty_run =
            self.positions.is_empty() && self.family == Family::Rank && !elements.order().is_map();
        if self.inverted || (form.inverted && !elements.order().is_map()) || !(fits || is_empty_run) {
            return Err(ResultCode::OP_NOT_APPLICABLE);
        }
        let (start, count) = self.run;
        let reverse = matches!(form.what, What::ReverseIndexRange | What::ReverseRankRange);
        let start = if reverse && count > 0 { elements.len() as i64 - start - count as i64 } else { start };
        Ok(integers([start, count as i64].into_iter()))
    }
}

fn integers(numbers: impl Iterator<Item = i64>) -> Value {
    Value::List(List { ordered: false, items: numbers.map(Value::Int).collect() })
}

/// Values as they are: the list of them, or the one.
fn shown(form: Form, found: Vec<Value>) -> Option<Answer> {
    if form.multi {
        Some(Value::List(List { ordered: false, items: found }).to_answer())
    } else {
        found.first().map(Value::to_answer)
    }
}
