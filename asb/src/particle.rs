//! The server's particle types: the type byte in front of every bin value and stored key on the wire.

/// A record's digest: RIPEMD-160 of set and key, as the server computes it.
pub type Digest = [u8; 20];

/// The types a value can have, numbered as on the wire (`AS_PARTICLE_TYPE_*` of the server's `proto.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ParticleType {
    /// No value.
    Null = 0,
    /// A signed 64-bit integer, big-endian.
    Integer = 1,
    /// An IEEE 754 double, big-endian.
    Float = 2,
    /// UTF-8 text by convention; the server does not check it.
    String = 3,
    /// Bytes.
    Blob = 4,
    /// A serialised Java object.
    Java = 7,
    /// A serialised C# object.
    CSharp = 8,
    /// A serialised Python object.
    Python = 9,
    /// A serialised Ruby object.
    Ruby = 10,
    /// A serialised PHP value.
    Php = 11,
    /// A serialised Erlang term.
    Erlang = 12,
    /// One byte, 0 or 1.
    Bool = 17,
    /// A `HyperLogLog` sketch.
    Hll = 18,
    /// A map, msgpack with the server's extensions.
    Map = 19,
    /// A list, msgpack with the server's extensions.
    List = 20,
    /// GeoJSON text behind a flag byte, a 16-bit cell count and the cells.
    GeoJson = 23,
}

impl ParticleType {
    /// The type of this wire byte; none when no server up to 8.1 has such a type.
    #[must_use]
    pub const fn from_wire(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Null,
            1 => Self::Integer,
            2 => Self::Float,
            3 => Self::String,
            4 => Self::Blob,
            7 => Self::Java,
            8 => Self::CSharp,
            9 => Self::Python,
            10 => Self::Ruby,
            11 => Self::Php,
            12 => Self::Erlang,
            17 => Self::Bool,
            18 => Self::Hll,
            19 => Self::Map,
            20 => Self::List,
            23 => Self::GeoJson,
            _ => return None,
        })
    }

    /// The letter of the type in the text.
    pub(crate) const fn letter(self) -> u8 {
        match self {
            Self::Null => b'N',
            Self::Integer => b'I',
            Self::Float => b'D',
            Self::String => b'S',
            Self::Blob => b'B',
            Self::Java => b'J',
            Self::CSharp => b'C',
            Self::Python => b'P',
            Self::Ruby => b'R',
            Self::Php => b'H',
            Self::Erlang => b'E',
            Self::Bool => b'Z',
            Self::Hll => b'Y',
            Self::Map => b'M',
            Self::List => b'L',
            Self::GeoJson => b'G',
        }
    }

    /// Whether values of the type are in base64, or raw with a `!` behind the letter.
    pub(crate) const fn is_base64(self) -> bool {
        use ParticleType::{Blob, CSharp, Erlang, Hll, Java, List, Map, Php, Python, Ruby};
        matches!(self, Blob | Java | CSharp | Python | Ruby | Php | Erlang | Hll | Map | List)
    }
}
