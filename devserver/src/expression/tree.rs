//! What an expression is made of.

use crate::msgpack::Value;
use crate::particle;

/// The type of a value, numbered as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Nil,
    Bool,
    Int,
    Str,
    List,
    Map,
    Blob,
    Float,
    Geo,
    Hll,
}

impl Kind {
    pub(super) fn from_wire(number: i64) -> Option<Kind> {
        let all = [
            Kind::Nil,
            Kind::Bool,
            Kind::Int,
            Kind::Str,
            Kind::List,
            Kind::Map,
            Kind::Blob,
            Kind::Float,
            Kind::Geo,
            Kind::Hll,
        ];
        usize::try_from(number).ok().and_then(|at| all.get(at)).copied()
    }

    /// The particle type of a bin of this type.
    pub(super) fn particle(self) -> u8 {
        match self {
            Kind::Nil => particle::NULL,
            Kind::Bool => particle::BOOL,
            Kind::Int => particle::INTEGER,
            Kind::Str => particle::STRING,
            Kind::List => particle::LIST,
            Kind::Map => particle::MAP,
            Kind::Blob => particle::BLOB,
            Kind::Float => particle::FLOAT,
            Kind::Geo => particle::GEOJSON,
            Kind::Hll => particle::HLL,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

/// Arithmetic on several numbers of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Log,
    Mod,
    Abs,
    Floor,
    Ceil,
    ToInt,
    ToFloat,
    And,
    Or,
    Xor,
    Not,
    ShiftLeft,
    ShiftRight,
    ShiftRightSigned,
    Min,
    Max,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metadata {
    DeviceSize,
    LastUpdate,
    SinceUpdate,
    VoidTime,
    Ttl,
    SetName,
    KeyExists,
    IsTombstone,
    MemorySize,
    RecordSize,
}

/// A part of an expression.
#[derive(Debug)]
pub(super) enum Node {
    Unknown,
    Constant(Value),
    Compare(Compare, Box<Node>, Box<Node>),
    InList(Box<Node>, Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Exclusive(Vec<Node>),
    Arithmetic(Arithmetic, Vec<Node>),
    DigestModulo(i64),
    Metadata(Metadata),
    Key(Kind),
    Bin(Kind, Vec<u8>),
    BinType(Vec<u8>),
    MapKeys(Box<Node>),
    MapValues(Box<Node>),
    Condition(Vec<(Node, Node)>, Box<Node>),
    Let(Vec<Node>, Box<Node>),
    /// A variable, by its place among those in scope.
    Variable(usize),
    /// A reading list or map operation: its arguments, those that are expressions apart, and the value it
    /// works on.
    Collection(Value, Box<Node>),
}
