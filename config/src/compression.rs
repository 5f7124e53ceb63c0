//! How the files of a backup are compressed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::check::Check;
use crate::text::words;
use crate::{InvalidValue, Problems};

/// How the files of a backup are compressed. Written as `none`, `zstd` or `zstd:LEVEL` on the command line, and as a
/// [`CompressionPolicy`] in documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "CompressionPolicy", into = "CompressionPolicy")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// With Zstandard.
    Zstd(ZstdLevel),
}

impl Compression {
    /// The kind of compression, without its level.
    #[must_use]
    pub fn mode(self) -> CompressionMode {
        match self {
            Self::None => CompressionMode::None,
            Self::Zstd(_) => CompressionMode::Zstd,
        }
    }
}

impl FromStr for Compression {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let refuse =
            || InvalidValue::new(text, "is no compression: write none, zstd or zstd:LEVEL (-1 to 22)");
        let (mode, level) = match text.split_once(':') {
            Some((mode, level)) => (mode, Some(level.parse::<i64>().map_err(|_| refuse())?)),
            None => (text, None),
        };
        match (mode.parse::<CompressionMode>().map_err(|_| refuse())?, level) {
            (CompressionMode::None, None) => Ok(Self::None),
            (CompressionMode::None, Some(_)) => Err(refuse()),
            (CompressionMode::Zstd, level) => {
                let level = level.unwrap_or(i64::from(ZstdLevel::DEFAULT.get()));
                i32::try_from(level).ok().and_then(ZstdLevel::new).map(Self::Zstd).ok_or_else(refuse)
            }
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Zstd(level) if *level == ZstdLevel::DEFAULT => f.write_str("zstd"),
            Self::Zstd(level) => write!(f, "zstd:{}", level.get()),
        }
    }
}

impl TryFrom<CompressionPolicy> for Compression {
    type Error = Problems;

    fn try_from(policy: CompressionPolicy) -> Result<Self, Problems> {
        Check::document("", |check| policy.settings(check))
    }
}

impl From<Compression> for CompressionPolicy {
    fn from(compression: Compression) -> Self {
        let level = match compression {
            Compression::None => None,
            Compression::Zstd(level) => Some(i64::from(level.get())),
        };
        Self { mode: Some(compression.mode().to_string()), level }
    }
}

/// A level of Zstandard: -1 (fastest) to 22 (smallest); 0 is the library's default, 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZstdLevel(i32);

impl ZstdLevel {
    /// The level if none is given (`dto.CompressionPolicy`).
    pub const DEFAULT: Self = Self(0);

    /// `level`, if it is one.
    #[must_use]
    pub fn new(level: i32) -> Option<Self> {
        (-1..=22).contains(&level).then_some(Self(level))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> i32 {
        self.0
    }
}

words! {
    /// A kind of compression. Written as documents and metadata write it, `NONE` or `ZSTD`; read in any case.
    #[derive(Default)]
    pub enum CompressionMode: "compression mode" {
        /// No compression.
        #[default]
        None = "NONE",
        /// Zstandard.
        Zstd = "ZSTD",
    }
}

/// The document `dto.CompressionPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::CompressionPolicy)]
pub struct CompressionPolicy {
    /// `NONE` (the default) or `ZSTD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<CompressionMode>, inline, default = "NONE")]
    pub mode: Option<String>,
    /// The level for `ZSTD`, -1 to 22; 0 by default. Ignored for `NONE`, but it must be a level.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 0, minimum = -1, maximum = 22)]
    pub level: Option<i64>,
}

impl CompressionPolicy {
    pub(crate) fn settings(&self, check: &mut Check<'_>) -> Compression {
        let mode = check.word("mode", self.mode.as_deref());
        let level = check.number("level", self.level, ZstdLevel::DEFAULT.0, -1..=22);
        match mode {
            CompressionMode::None => Compression::None,
            CompressionMode::Zstd => Compression::Zstd(ZstdLevel(level)),
        }
    }
}

/// The document `dto.RestoreCompressionPolicy`: how the files of the backup were compressed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::RestoreCompressionPolicy)]
pub struct RestoreCompressionPolicy {
    /// `NONE` (the default) or `ZSTD`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<CompressionMode>, inline, default = "NONE")]
    pub mode: Option<String>,
}

impl RestoreCompressionPolicy {
    pub(crate) fn settings(&self, check: &mut Check<'_>) -> CompressionMode {
        check.word("mode", self.mode.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_mode_and_level() {
        for (text, mode, canonical) in [
            ("none", CompressionMode::None, "none"),
            ("zstd", CompressionMode::Zstd, "zstd"),
            ("ZSTD:0", CompressionMode::Zstd, "zstd"),
            ("zstd:-1", CompressionMode::Zstd, "zstd:-1"),
            ("zstd:22", CompressionMode::Zstd, "zstd:22"),
        ] {
            let compression: Compression = text.parse().unwrap();
            assert_eq!((compression.mode(), compression.to_string().as_str()), (mode, canonical));
        }
        for bad in
            ["", "gzip", "zstd:", "zstd:23", "zstd:-2", "zstd:x", "none:1", "zstd:1:2", "zstd:99999999999"]
        {
            let error = bad.parse::<Compression>().unwrap_err().to_string();
            assert_eq!(
                error,
                format!("{bad:?} is no compression: write none, zstd or zstd:LEVEL (-1 to 22)")
            );
        }
    }

    #[test]
    fn documents_name_mode_and_level_apart() {
        let read = |text: &str| serde_json::from_str::<Compression>(text);
        let level = |level| Compression::Zstd(ZstdLevel::new(level).unwrap());
        assert_eq!(read("{}").unwrap(), Compression::None);
        assert_eq!(read(r#"{"mode":"NONE","level":5}"#).unwrap(), Compression::None);
        assert_eq!(read(r#"{"mode":"ZSTD"}"#).unwrap(), level(0));
        assert_eq!(read(r#"{"mode":"zstd","level":-1}"#).unwrap(), level(-1));
        assert_eq!(serde_json::to_string(&level(3)).unwrap(), r#"{"mode":"ZSTD","level":3}"#);
        let error = read(r#"{"mode":"LZ4","level":23}"#).unwrap_err().to_string();
        assert_eq!(
            error,
            "mode: \"LZ4\" is no compression mode: it can be NONE or ZSTD; level: must be at most 22, not 23"
        );
        assert!(read(r#"{"modus":"ZSTD"}"#).is_err());
    }
}
