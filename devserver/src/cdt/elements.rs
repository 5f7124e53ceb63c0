//! Lists and maps as something to select from.

use crate::msgpack::{List, Map, Value};

/// What a list or map promises about the order of its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Whether the list is ordered.
    List(bool),
    /// The flags of the map.
    Map(u8),
}

impl Order {
    pub(super) fn is_map(self) -> bool {
        matches!(self, Order::Map(_))
    }
}

/// A list or map as something to select from.
pub(super) trait Elements {
    fn len(&self) -> usize;
    fn key(&self, at: usize) -> Option<&Value>;
    fn value(&self, at: usize) -> &Value;
    fn order(&self) -> Order;

    /// Positions in the order of values, equal ones in the order of positions.
    fn by_rank(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by(|a, b| self.value(*a).order(self.value(*b)));
        order
    }
}

impl Elements for List {
    fn len(&self) -> usize {
        self.items.len()
    }
    fn key(&self, _: usize) -> Option<&Value> {
        None
    }
    fn value(&self, at: usize) -> &Value {
        &self.items[at]
    }
    fn order(&self) -> Order {
        Order::List(self.ordered)
    }
}

impl Elements for Map {
    fn len(&self) -> usize {
        self.entries.len()
    }
    fn key(&self, at: usize) -> Option<&Value> {
        Some(&self.entries[at].0)
    }
    fn value(&self, at: usize) -> &Value {
        &self.entries[at].1
    }
    fn order(&self) -> Order {
        Order::Map(self.flags)
    }
}
