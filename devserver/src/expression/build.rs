//! From the msgpack of an expression to a tree whose types fit.

use super::tree::{Arithmetic, Compare, Kind, Metadata, Node};
use crate::msgpack::{List, Value};
use crate::ops;
use crate::particle;

/// Why an expression cannot be built.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("operation {0} is not known")]
    Operation(i64),
    #[error("{0}")]
    Form(&'static str),
}

type Built = (Node, Kind);

/// Builds an expression.
pub(super) fn build(value: Value) -> Result<Built, Problem> {
    Builder::default().build(value, 0)
}

/// How deep expressions may nest.
const MAX_DEPTH: usize = 64;

#[derive(Default)]
struct Builder {
    /// Names and types of the variables in scope.
    variables: Vec<(Vec<u8>, Kind)>,
}

impl Builder {
    fn build(&mut self, value: Value, depth: usize) -> Result<Built, Problem> {
        if depth > MAX_DEPTH {
            return Err(Problem::Form("it nests too deep"));
        }
        let Value::List(List { items, .. }) = value else { return constant(value) };
        let mut items = items.into_iter();
        let Some(Value::Int(code)) = items.next() else {
            return Err(Problem::Form("an operation has no number"));
        };
        let args: Vec<Value> = items.collect();
        match code {
            0 => Ok((Node::Unknown, Kind::Bool)),
            1..=6 => self.compare(code, args, depth),
            9 => {
                let [value, list] = exactly(args)?;
                let value = self.build(value, depth + 1)?.0;
                let list = self.build_as(Kind::List, list, depth)?;
                Ok((Node::InList(value.into(), list.into()), Kind::Bool))
            }
            16 | 17 | 19 => {
                if args.len() < 2 {
                    return Err(Problem::Form("a logical operation has too few arguments"));
                }
                let nodes = self.build_all_as(Kind::Bool, args, depth)?;
                let node = match code {
                    16 => Node::And(nodes),
                    17 => Node::Or(nodes),
                    _ => Node::Exclusive(nodes),
                };
                Ok((node, Kind::Bool))
            }
            18 => {
                let [value] = exactly(args)?;
                Ok((Node::Not(self.build_as(Kind::Bool, value, depth)?.into()), Kind::Bool))
            }
            20..=38 | 50 | 51 => self.arithmetic(code, args, depth),
            64 => match exactly(args)? {
                [Value::Int(modulus @ 1..)] => Ok((Node::DigestModulo(modulus), Kind::Int)),
                _ => Err(Problem::Form("a digest modulus is not positive")),
            },
            65..=74 => {
                let [] = exactly(args)?;
                metadata(code)
            }
            80 => {
                let [kind] = exactly(args)?;
                match kind_of(&kind)? {
                    kind @ (Kind::Int | Kind::Str | Kind::Blob) => Ok((Node::Key(kind), kind)),
                    _ => Err(Problem::Form("no key has that type")),
                }
            }
            81 => {
                let [kind, name] = exactly(args)?;
                let (kind, name) = (kind_of(&kind)?, bin_name(name)?);
                Ok((Node::Bin(kind, name), kind))
            }
            82 => {
                let [name] = exactly(args)?;
                Ok((Node::BinType(bin_name(name)?), Kind::Int))
            }
            101 | 102 => {
                let [map] = exactly(args)?;
                let map = self.build_as(Kind::Map, map, depth)?.into();
                Ok((if code == 101 { Node::MapKeys(map) } else { Node::MapValues(map) }, Kind::List))
            }
            123 => self.condition(args, depth),
            124 => {
                let [name] = exactly(args)?;
                let name = raw_bytes(name)?;
                let at = self.variables.iter().rposition(|(other, _)| *other == name);
                let at = at.ok_or(Problem::Form("a variable is not defined"))?;
                Ok((Node::Variable(at), self.variables[at].1))
            }
            125 => self.scope(args, depth),
            126 => match exactly(args)? {
                [list @ Value::List(_)] => Ok((Node::Constant(list), Kind::List)),
                _ => Err(Problem::Form("what is quoted is no list")),
            },
            127 => self.call(args, depth),
            code => Err(Problem::Operation(code)),
        }
    }

    fn build_as(&mut self, kind: Kind, value: Value, depth: usize) -> Result<Node, Problem> {
        match self.build(value, depth + 1)? {
            (node, built) if built == kind => Ok(node),
            _ => Err(Problem::Form("an argument has the wrong type")),
        }
    }

    fn build_all_as(&mut self, kind: Kind, values: Vec<Value>, depth: usize) -> Result<Vec<Node>, Problem> {
        values.into_iter().map(|value| self.build_as(kind, value, depth)).collect()
    }

    fn compare(&mut self, code: i64, args: Vec<Value>, depth: usize) -> Result<Built, Problem> {
        let [left, right] = exactly(args)?;
        let (left, kind) = self.build(left, depth + 1)?;
        if matches!(kind, Kind::Geo | Kind::Hll) {
            return Err(Problem::Form("values of that type cannot be compared"));
        }
        let right = self.build_as(kind, right, depth)?;
        let compare = match code {
            1 => Compare::Eq,
            2 => Compare::Ne,
            3 => Compare::Gt,
            4 => Compare::Ge,
            5 => Compare::Lt,
            _ => Compare::Le,
        };
        Ok((Node::Compare(compare, left.into(), right.into()), Kind::Bool))
    }

    fn arithmetic(&mut self, code: i64, args: Vec<Value>, depth: usize) -> Result<Built, Problem> {
        let (operation, args_allowed) = match code {
            20 => (Arithmetic::Add, 2..=usize::MAX),
            21 => (Arithmetic::Sub, 1..=usize::MAX),
            22 => (Arithmetic::Mul, 2..=usize::MAX),
            23 => (Arithmetic::Div, 1..=usize::MAX),
            24 => (Arithmetic::Pow, 2..=2),
            25 => (Arithmetic::Log, 2..=2),
            26 => (Arithmetic::Mod, 2..=2),
            27 => (Arithmetic::Abs, 1..=1),
            28 => (Arithmetic::Floor, 1..=1),
            29 => (Arithmetic::Ceil, 1..=1),
            30 => (Arithmetic::ToInt, 1..=1),
            31 => (Arithmetic::ToFloat, 1..=1),
            32 => (Arithmetic::And, 2..=usize::MAX),
            33 => (Arithmetic::Or, 2..=usize::MAX),
            34 => (Arithmetic::Xor, 2..=usize::MAX),
            35 => (Arithmetic::Not, 1..=1),
            36 => (Arithmetic::ShiftLeft, 2..=2),
            37 => (Arithmetic::ShiftRight, 2..=2),
            38 => (Arithmetic::ShiftRightSigned, 2..=2),
            50 => (Arithmetic::Min, 1..=usize::MAX),
            _ => (Arithmetic::Max, 1..=usize::MAX),
        };
        if !args_allowed.contains(&args.len()) {
            return Err(Problem::Form("an arithmetic operation has the wrong number of arguments"));
        }
        let mut nodes = Vec::new();
        let mut kind = None;
        for arg in args {
            let (node, next) = self.build(arg, depth + 1)?;
            if kind.replace(next).is_some_and(|kind| kind != next) {
                return Err(Problem::Form("numbers of different types are mixed"));
            }
            nodes.push(node);
        }
        let (needs, gives) = match operation {
            Arithmetic::Pow | Arithmetic::Log | Arithmetic::Floor | Arithmetic::Ceil | Arithmetic::ToInt => {
                (Some(Kind::Float), None)
            }
            Arithmetic::Mod
            | Arithmetic::ToFloat
            | Arithmetic::And
            | Arithmetic::Or
            | Arithmetic::Xor
            | Arithmetic::Not
            | Arithmetic::ShiftLeft
            | Arithmetic::ShiftRight
            | Arithmetic::ShiftRightSigned => (Some(Kind::Int), None),
            _ => (None, kind),
        };
        let gives = match operation {
            Arithmetic::ToInt => Some(Kind::Int),
            Arithmetic::ToFloat => Some(Kind::Float),
            _ => gives.or(needs),
        };
        match (kind, gives) {
            (Some(kind @ (Kind::Int | Kind::Float)), Some(gives))
                if needs.is_none_or(|needs| needs == kind) =>
            {
                Ok((Node::Arithmetic(operation, nodes), gives))
            }
            _ => Err(Problem::Form("an argument of an arithmetic operation is no number of the right type")),
        }
    }

    fn condition(&mut self, mut args: Vec<Value>, depth: usize) -> Result<Built, Problem> {
        if args.len() < 3 || args.len().is_multiple_of(2) {
            return Err(Problem::Form("a condition has no default"));
        }
        let mut kind = None;
        let mut agree = |(node, built): Built| {
            let fits = matches!(node, Node::Unknown) || *kind.get_or_insert(built) == built;
            if fits { Ok(node) } else { Err(Problem::Form("the cases of a condition have different types")) }
        };
        let default = args.pop().unwrap_or(Value::Nil);
        let mut cases = Vec::new();
        let mut args = args.into_iter();
        while let (Some(condition), Some(result)) = (args.next(), args.next()) {
            let condition = self.build_as(Kind::Bool, condition, depth)?;
            cases.push((condition, agree(self.build(result, depth + 1)?)?));
        }
        let default = agree(self.build(default, depth + 1)?)?;
        Ok((Node::Condition(cases, default.into()), kind.unwrap_or(Kind::Bool)))
    }

    fn scope(&mut self, mut args: Vec<Value>, depth: usize) -> Result<Built, Problem> {
        if args.len().is_multiple_of(2) {
            return Err(Problem::Form("a scope has no body"));
        }
        let body = args.pop().unwrap_or(Value::Nil);
        let outer = self.variables.len();
        let mut values = Vec::new();
        let mut args = args.into_iter();
        while let (Some(name), Some(value)) = (args.next(), args.next()) {
            let (node, kind) = self.build(value, depth + 1)?;
            values.push(node);
            self.variables.push((raw_bytes(name)?, kind));
        }
        let (body, kind) = self.build(body, depth + 1)?;
        self.variables.truncate(outer);
        Ok((Node::Let(values, body.into()), kind))
    }

    /// A call into another module: `[127, type, module, operation, value]`.
    fn call(&mut self, args: Vec<Value>, depth: usize) -> Result<Built, Problem> {
        const COLLECTIONS: i64 = 0;
        let [kind, module, operation, value] = exactly(args)?;
        if module != Value::Int(COLLECTIONS) {
            return Err(Problem::Form("of all modules only reading list and map operations are known"));
        }
        let kind = kind_of(&kind)?;
        // Arguments may be expressions themselves; only constants are known here.
        let operation = match operation {
            Value::List(list) => Value::List(List { items: constants(list.items)?, ..list }),
            _ => return Err(Problem::Form("a call names no operation")),
        };
        let (value, _) = self.build(value, depth + 1)?;
        Ok((Node::Collection(operation, value.into()), kind))
    }
}

/// The arguments of an operation with quoted lists unquoted.
fn constants(args: Vec<Value>) -> Result<Vec<Value>, Problem> {
    const PATH: Value = Value::Int(0xff);
    if args.first() == Some(&PATH) {
        let [path, context, operation] = exactly(args)?;
        let Value::List(List { items, ordered }) = operation else {
            return Err(Problem::Form("a path leads to no operation"));
        };
        return Ok(vec![path, context, Value::List(List { items: constants(items)?, ordered })]);
    }
    let unquote = |arg: Value| match arg {
        Value::List(List { mut items, .. }) => match (items.first(), items.len()) {
            (Some(Value::Int(126)), 2) => items.pop().ok_or(Problem::Form("nothing is quoted")),
            _ => Err(Problem::Form("an argument of a list or map operation is no constant")),
        },
        other => Ok(other),
    };
    args.into_iter().map(unquote).collect()
}

fn exactly<const N: usize>(args: Vec<Value>) -> Result<[Value; N], Problem> {
    args.try_into().map_err(|_| Problem::Form("an operation has the wrong number of arguments"))
}

fn constant(value: Value) -> Result<Built, Problem> {
    let kind = match &value {
        Value::Nil => Kind::Nil,
        Value::Bool(_) => Kind::Bool,
        Value::Int(_) | Value::Uint(_) => Kind::Int,
        Value::Float(_) => Kind::Float,
        Value::Str(_) => Kind::Str,
        Value::Blob(..) => Kind::Blob,
        Value::Geo(_) => Kind::Geo,
        Value::Map(_) => Kind::Map,
        Value::List(_) => Kind::List,
        Value::Ext(..) | Value::Wildcard | Value::Infinity => {
            return Err(Problem::Form("a constant is of no type that can be stored"));
        }
    };
    Ok((Node::Constant(value), kind))
}

fn metadata(code: i64) -> Result<Built, Problem> {
    let (metadata, kind) = match code {
        65 => (Metadata::DeviceSize, Kind::Int),
        66 => (Metadata::LastUpdate, Kind::Int),
        67 => (Metadata::SinceUpdate, Kind::Int),
        68 => (Metadata::VoidTime, Kind::Int),
        69 => (Metadata::Ttl, Kind::Int),
        70 => (Metadata::SetName, Kind::Str),
        71 => (Metadata::KeyExists, Kind::Bool),
        72 => (Metadata::IsTombstone, Kind::Bool),
        73 => (Metadata::MemorySize, Kind::Int),
        74 => (Metadata::RecordSize, Kind::Int),
        code => return Err(Problem::Operation(code)),
    };
    Ok((Node::Metadata(metadata), kind))
}

fn kind_of(value: &Value) -> Result<Kind, Problem> {
    match value {
        Value::Int(number) => Kind::from_wire(*number).ok_or(Problem::Form("a type is not known")),
        _ => Err(Problem::Form("a type is no number")),
    }
}

/// A name, which is sent without the type byte that strings have elsewhere.
fn raw_bytes(value: Value) -> Result<Vec<u8>, Problem> {
    match value {
        Value::Str(text) => Ok([&[particle::STRING], text.as_slice()].concat()),
        Value::Geo(text) => Ok([&[particle::GEOJSON], text.as_slice()].concat()),
        Value::Blob(0, _) => Ok(Vec::new()),
        Value::Blob(first, rest) => Ok([&[first], rest.as_slice()].concat()),
        _ => Err(Problem::Form("a name is no string")),
    }
}

fn bin_name(value: Value) -> Result<Vec<u8>, Problem> {
    let name = raw_bytes(value)?;
    ops::check_bin_name(&name).map_err(|_| Problem::Form("a bin name is too long"))?;
    Ok(name)
}
