//! Secondary index definitions: created, listed and deleted through info commands.
//!
//! No index is kept: a query with an index range reads every record of its partitions and keeps those that
//! match (see `query.rs`). For the clients nothing but the speed differs.

mod create;
mod show;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::info::InfoError;
use crate::particle;
use crate::result_code::ResultCode;
pub(crate) use create::{create, delete};
pub(crate) use show::{exists, list, stat, stat_of, values_list};

/// The most secondary indexes of a namespace.
const MAX_INDEXES: usize = 256;

/// What of a bin is indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The value itself.
    Default,
    List,
    MapKeys,
    MapValues,
}

impl Source {
    fn parse(text: &str) -> Option<Source> {
        [Source::Default, Source::List, Source::MapKeys, Source::MapValues]
            .into_iter()
            .find(|source| text.eq_ignore_ascii_case(source.name()))
    }

    fn name(self) -> &'static str {
        match self {
            Source::Default => "default",
            Source::List => "list",
            Source::MapKeys => "mapkeys",
            Source::MapValues => "mapvalues",
        }
    }

    /// The byte of the `INDEX_TYPE` field of a query.
    pub(crate) fn from_wire(byte: u8) -> Option<Source> {
        [Source::Default, Source::List, Source::MapKeys, Source::MapValues].get(usize::from(byte)).copied()
    }
}

/// The type of indexed values: name in commands, particle in queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyType(pub(crate) u8);

impl KeyType {
    const ALL: [(&'static str, u8); 4] = [
        ("numeric", particle::INTEGER),
        ("string", particle::STRING),
        ("blob", particle::BLOB),
        ("geo2dsphere", particle::GEOJSON),
    ];

    fn parse(text: &str) -> Option<KeyType> {
        Self::ALL.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, key)| KeyType(*key))
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, key)| *key == self.0).map_or("default", |(name, _)| name)
    }
}

/// What an index is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Definition {
    /// The records of a set.
    Set,
    /// Values of a bin, or of an expression.
    Values {
        bin: Option<String>,
        /// Path into the bin, base64 of its msgpack.
        context: Option<String>,
        /// Base64 of the expression.
        expression: Option<String>,
        source: Source,
        key: KeyType,
    },
}

/// One index.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    pub(crate) name: String,
    /// Empty = all sets.
    pub(crate) set: String,
    pub(crate) definition: Definition,
}

/// The indexes of a namespace, in the order of their creation.
#[derive(Debug, Default)]
pub(crate) struct Indexes(Mutex<Vec<Index>>);

impl Indexes {
    fn lock(&self) -> MutexGuard<'_, Vec<Index>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, name: &str) -> Option<Index> {
        self.lock().iter().find(|index| index.name == name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Index> {
        self.lock().clone()
    }

    fn create(&self, index: Index) -> Result<(), InfoError> {
        let mut all = self.lock();
        let is_same = |other: &Index| other.set == index.set && other.definition == index.definition;
        if let Some(named) = all.iter().find(|other| other.name == index.name) {
            return if is_same(named) {
                Ok(())
            } else {
                Err(InfoError::new(
                    ResultCode::SINDEX_FOUND,
                    "'indexname' already exists with different definition",
                ))
            };
        }
        // The same definition under another name renames the index.
        if let Some(twin) = all.iter_mut().find(|other| is_same(other)) {
            twin.name = index.name;
            return Ok(());
        }
        if index.definition != Definition::Set
            && all.iter().filter(|index| index.definition != Definition::Set).count() >= MAX_INDEXES
        {
            return Err(InfoError::new(ResultCode(206), "already at sindex definition limit"));
        }
        all.push(index);
        Ok(())
    }
}
