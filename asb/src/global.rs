//! What belongs to a namespace rather than to a record: secondary indexes and UDF modules.

/// A secondary index, as its `* i` or `* e` line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondaryIndex {
    /// The set it covers; empty when it covers the records without one.
    pub set: String,
    /// Its name.
    pub name: String,
    /// What of the bin it indexes.
    pub kind: IndexKind,
    /// The bin; none on an expression index.
    pub bin: Option<String>,
    /// The type of the values it indexes.
    pub data: IndexData,
    /// Where in the bin's collection the values are: base64 of the server's msgpack form.
    pub context: Option<String>,
    /// The expression that gives the values: base64 of the server's msgpack form.
    pub expression: Option<String>,
}

/// What of a bin an index covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IndexKind {
    /// `N`: the bin's value itself.
    Bin,
    /// `L`: the elements of a list.
    ListElements,
    /// `K`: the keys of a map.
    MapKeys,
    /// `V`: the values of a map.
    MapValues,
    /// Another letter: a kind that servers may have and we do not know.
    Unknown(u8),
}

impl SecondaryIndex {
    /// Why no server can have this index as it stands; `None` when it is in order.
    #[must_use]
    pub fn defect(&self) -> Option<String> {
        match (self.kind, self.data) {
            (IndexKind::Unknown(letter), _) => Some(format!("its kind {} is unknown", letter.escape_ascii())),
            (_, IndexData::Unknown(letter)) => Some(format!("its type {} is unknown", letter.escape_ascii())),
            (_, IndexData::Invalid) => Some("its type is I, invalid".to_owned()),
            _ if self.bin.is_none() && self.expression.is_none() => {
                Some("it has neither a bin nor an expression: its backup lost the expression".to_owned())
            }
            _ => None,
        }
    }
}

impl IndexKind {
    pub(crate) const fn letter(self) -> u8 {
        match self {
            Self::Bin => b'N',
            Self::ListElements => b'L',
            Self::MapKeys => b'K',
            Self::MapValues => b'V',
            Self::Unknown(letter) => letter,
        }
    }

    pub(crate) const fn from_letter(letter: u8) -> Option<Self> {
        Some(match letter {
            b'N' => Self::Bin,
            b'L' => Self::ListElements,
            b'K' => Self::MapKeys,
            b'V' => Self::MapValues,
            b'A'..=b'Z' => Self::Unknown(letter),
            _ => return None,
        })
    }
}

/// The type of the values an index covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IndexData {
    /// `N`
    Numeric,
    /// `S`
    String,
    /// `G`
    Geo2dSphere,
    /// `B`
    Blob,
    /// `I`: a type this index never had a name for.
    Invalid,
    /// Another letter: a type that servers may have and we do not know.
    Unknown(u8),
}

impl IndexData {
    pub(crate) const fn letter(self) -> u8 {
        match self {
            Self::Numeric => b'N',
            Self::String => b'S',
            Self::Geo2dSphere => b'G',
            Self::Blob => b'B',
            Self::Invalid => b'I',
            Self::Unknown(letter) => letter,
        }
    }

    pub(crate) const fn from_letter(letter: u8) -> Option<Self> {
        Some(match letter {
            b'N' => Self::Numeric,
            b'S' => Self::String,
            b'G' => Self::Geo2dSphere,
            b'B' => Self::Blob,
            b'I' => Self::Invalid,
            b'A'..=b'Z' => Self::Unknown(letter),
            _ => return None,
        })
    }
}

/// The languages a UDF module can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UdfLanguage {
    /// `L`
    Lua,
}

/// A UDF module, as its `* u` line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udf {
    /// What it is written in.
    pub language: UdfLanguage,
    /// The module's name, with its suffix.
    pub name: String,
    /// Its source, byte for byte.
    pub content: Vec<u8>,
}
