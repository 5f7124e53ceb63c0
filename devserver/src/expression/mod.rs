//! Expressions: conditions and values computed from a record, in the msgpack form in which clients send them.
//!
//! Known are comparisons, logic, arithmetic, conditions, variables, metadata, the key, bins, constants,
//! membership in a list, and reading list and map operations. Anything else is a parameter error, said in the
//! log.

mod build;
mod eval;
mod tree;

use crate::msgpack::{List, Value};
use crate::namespace::Namespace;
use crate::ops::Answer;
use crate::particle;
use crate::record::{BinSource, Digest, Meta};
use crate::result_code::{Outcome, ResultCode};
use build::Problem;
use tree::{Kind, Node};

/// The record that an expression sees.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// Now, in ms since 2010.
    pub(crate) now_ms: u64,
    pub(crate) namespace: &'a Namespace,
    pub(crate) digest: &'a Digest,
    pub(crate) meta: Meta<'a>,
    pub(crate) bins: BinSource<'a>,
}

/// An expression and the type of its value.
#[derive(Debug)]
pub(crate) struct Expression {
    node: Node,
    kind: Kind,
}

impl Expression {
    pub(crate) fn parse(bytes: &[u8]) -> Outcome<Expression> {
        let value = Value::parse(bytes).map_err(|_| {
            log::warn!("an expression is no msgpack");
            ResultCode::PARAMETER
        })?;
        Expression::from_value(value)
    }

    fn from_value(value: Value) -> Outcome<Expression> {
        let (node, kind) = build::build(value).map_err(|problem| {
            log::warn!("an expression cannot be evaluated by the development server: {problem}");
            ResultCode::PARAMETER
        })?;
        Ok(Expression { node, kind })
    }

    /// The value, unless something that it needs is not there.
    pub(crate) fn value(&self, view: &View<'_>) -> Option<Value> {
        eval::eval(&self.node, view, &mut Vec::new())
    }
}

/// The particle type of the value that an expression gives; none if this server does not know all of its
/// operations.
pub(crate) fn type_of(bytes: &[u8]) -> Outcome<Option<u8>> {
    let value = Value::parse(bytes).map_err(|_| ResultCode::PARAMETER)?;
    match build::build(value) {
        Ok((_, kind)) => Ok(Some(kind.particle())),
        Err(Problem::Operation(_)) => Ok(None),
        Err(Problem::Form(_)) => Err(ResultCode::PARAMETER),
    }
}

/// An expression that says yes or no.
#[derive(Debug)]
pub(crate) struct Filter(Expression);

impl Filter {
    pub(crate) fn parse(bytes: &[u8]) -> Outcome<Filter> {
        let expression = Expression::parse(bytes)?;
        if expression.kind != Kind::Bool {
            log::warn!("a filter expression gives no boolean");
            return Err(ResultCode::PARAMETER);
        }
        Ok(Filter(expression))
    }

    /// Whether the record passes. What cannot be decided does not.
    pub(crate) fn matches(&self, view: &View<'_>) -> bool {
        self.0.value(view) == Some(Value::Bool(true))
    }
}

/// Flags of expression operations.
const CREATE_ONLY: i64 = 1;
const UPDATE_ONLY: i64 = 2;
const ALLOW_DELETE: i64 = 4;
const POLICY_NO_FAIL: i64 = 8;
const EVAL_NO_FAIL: i64 = 16;

/// The expression and the flags of an operation.
fn parse_operation(op: &[u8]) -> Outcome<(Expression, i64)> {
    let Ok(Value::List(List { items, .. })) = Value::parse(op) else { return Err(ResultCode::PARAMETER) };
    let mut items = items.into_iter();
    let expression = Expression::from_value(items.next().ok_or(ResultCode::PARAMETER)?)?;
    let flags = match items.next() {
        Some(Value::Int(flags)) => flags,
        _ => 0,
    };
    if items.next().is_some() { Err(ResultCode::PARAMETER) } else { Ok((expression, flags)) }
}

/// Performs an operation that reads the value of an expression.
pub(crate) fn read_op(op: &[u8], view: &View<'_>) -> Outcome<Answer> {
    let (expression, flags) = parse_operation(op)?;
    match expression.value(view) {
        Some(value) => Ok(value.to_answer()),
        None if flags & EVAL_NO_FAIL != 0 => Ok(Answer::nil()),
        None => Err(ResultCode::OP_NOT_APPLICABLE),
    }
}

/// Performs an operation that writes the value of an expression into the bin: a value, a nil that deletes the
/// bin, or nothing when the bin stays as it is.
pub(crate) fn modify_op(op: &[u8], bin: &[u8], view: &View<'_>) -> Outcome<Option<Answer>> {
    let (expression, flags) = parse_operation(op)?;
    let exists = view.bins.get(bin).is_some();
    let refusal = match exists {
        true if flags & CREATE_ONLY != 0 => Some(ResultCode::BIN_EXISTS),
        false if flags & UPDATE_ONLY != 0 => Some(ResultCode::BIN_NOT_FOUND),
        _ => None,
    };
    match refusal {
        Some(_) if flags & POLICY_NO_FAIL != 0 => return Ok(None),
        Some(code) => return Err(code),
        None => {}
    }
    match expression.value(view).map(|value| value.to_answer()) {
        Some(answer) if answer.particle == particle::NULL => match exists {
            false => Ok(None),
            true if flags & ALLOW_DELETE != 0 => Ok(Some(answer)),
            true if flags & POLICY_NO_FAIL != 0 => Ok(None),
            true => Err(ResultCode::OP_NOT_APPLICABLE),
        },
        Some(answer) => Ok(Some(answer)),
        None if flags & EVAL_NO_FAIL != 0 => Ok(None),
        None => Err(ResultCode::OP_NOT_APPLICABLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::SetId;
    use crate::record::{Bin, Bins};

    /// The value of an expression over a record with the bin "n" = 5.
    fn value(expression: &Value) -> Outcome<Option<Value>> {
        let namespace = Namespace::new("n".into(), 0, 0);
        let number = 5_i64.to_be_bytes();
        let bins = Bins(vec![Bin { name: b"n", particle: particle::INTEGER, value: number[..].into() }]);
        let meta = Meta {
            last_update: 1000,
            void_time: 90,
            generation: 1,
            set: SetId::NONE,
            size: 10,
            key: Some(&[particle::STRING, b'k']),
        };
        let bins = BinSource::Working(&bins);
        let view = View { now_ms: 61_500, namespace: &namespace, digest: &[7; 20], meta, bins };
        Ok(Expression::parse(&expression.encode())?.value(&view))
    }

    fn list(items: impl IntoIterator<Item = Value>) -> Value {
        Value::List(List { ordered: false, items: items.into_iter().collect() })
    }

    fn call(code: i64, args: impl IntoIterator<Item = Value>) -> Value {
        list([Value::Int(code)].into_iter().chain(args))
    }

    const fn int(value: i64) -> Value {
        Value::Int(value)
    }

    /// A name goes without the type byte of strings, which makes it a blob whose first byte is its type.
    fn bin(kind: i64, name: &str) -> Value {
        let (first, rest) = name.as_bytes().split_first().unwrap();
        call(81, [int(kind), Value::Blob(*first, rest.to_vec())])
    }

    fn n() -> Value {
        bin(2, "n")
    }

    /// A condition on a bin that is not there.
    fn unknown() -> Value {
        call(1, [bin(2, "x"), int(1)])
    }

    fn yes() -> Value {
        call(1, [n(), int(5)])
    }

    fn no() -> Value {
        call(18, [yes()])
    }

    #[test]
    fn logic_decides_without_what_is_unknown_where_it_can() {
        let (truth, lie) = (Ok(Some(Value::Bool(true))), Ok(Some(Value::Bool(false))));
        assert_eq!(value(&call(16, [unknown(), no()])), lie);
        assert_eq!(value(&call(16, [unknown(), yes()])), Ok(None));
        assert_eq!(value(&call(17, [unknown(), yes()])), truth);
        assert_eq!(value(&call(17, [unknown(), no()])), Ok(None));
        assert_eq!(value(&call(18, [unknown()])), Ok(None));
        assert_eq!(value(&call(19, [yes(), no(), no()])), truth);
        assert_eq!(value(&call(19, [yes(), yes()])), lie);
        assert_eq!(value(&call(123, [no(), int(1), yes(), int(2), int(3)])), Ok(Some(int(2))));
    }

    #[test]
    fn numbers_are_computed_and_impossible_ones_are_unknown() {
        assert_eq!(value(&call(20, [n(), int(1), int(2)])), Ok(Some(int(8))));
        assert_eq!(value(&call(21, [n()])), Ok(Some(int(-5))));
        assert_eq!(value(&call(23, [n(), int(0)])), Ok(None));
        assert_eq!(value(&call(36, [n(), int(64)])), Ok(None));
        assert_eq!(value(&call(51, [n(), int(9), int(-1)])), Ok(Some(int(9))));
        assert_eq!(value(&call(64, [int(10)])), Ok(Some(int(i64::from(0x0707_0707 % 10)))));
    }

    #[test]
    fn metadata_has_the_units_of_the_real_server() {
        let nanos = |secs: i64| (1_262_304_000 + secs) * 1_000_000_000;
        for (code, expected) in
            [(66, nanos(1)), (67, 60_500), (68, nanos(90)), (69, 29), (73, 10), (74, 10), (65, 0)]
        {
            assert_eq!(value(&call(code, [])), Ok(Some(int(expected))), "{code}");
        }
        assert_eq!(value(&call(71, [])), Ok(Some(Value::Bool(true))));
        assert_eq!(value(&call(80, [int(3)])), Ok(Some(Value::Str(b"k".to_vec()))));
        assert_eq!(value(&call(80, [int(2)])), Ok(None));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let float = Value::Float(1.0);
        for expression in [
            call(1, [n(), float.clone()]),
            call(16, [yes()]),
            call(20, [n(), float]),
            call(7, [n(), n()]),
            call(124, [Value::Str(b"v".to_vec())]),
            call(64, [int(0)]),
            call(126, [int(1)]),
            list([]),
            bin(2, "a-name-of-17-byte"),
        ] {
            assert_eq!(value(&expression), Err(ResultCode::PARAMETER), "{expression:?}");
        }
    }
}
