//! Namespaces, and restoring from one into another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidValue;
use crate::text::string_in_documents;

/// The longest name of a namespace, in bytes (the server's limit).
pub const MAX_NAMESPACE: usize = 31;

/// The name of a namespace: 1 to 31 bytes without the characters that separate things where names are used (spaces and
/// control characters, `,` `;` `:` `/` `\`), and neither `.` nor `..`, because it is a folder's name in a backup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Namespace(String);

impl Namespace {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let refuse = |reason: String| {
            Err(InvalidValue::new(text, format!("is not the name of a namespace: {reason}")))
        };
        if text.is_empty() || text.len() > MAX_NAMESPACE {
            return refuse(format!("it has {} bytes, not 1 to {MAX_NAMESPACE}", text.len()));
        }
        let separates = |c: char| c.is_whitespace() || c.is_control() || ",;:/\\".contains(c);
        if let Some(c) = text.chars().find(|c| separates(*c)) {
            return refuse(format!("it holds {c:?}"));
        }
        if text == "." || text == ".." {
            return refuse("no folder can have that name".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

string_in_documents!(Namespace);

/// From which namespace a restore reads, and into which it writes. Written as `SOURCE` or `SOURCE,DESTINATION`; an
/// object with `source` and `destination` in documents (`dto.RestoreNamespace`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceMap {
    /// The namespace in the backup.
    pub source: Namespace,
    /// The namespace in the cluster.
    pub destination: Namespace,
}

impl NamespaceMap {
    /// Whether the records return to the namespace they came from.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.source == self.destination
    }
}

impl FromStr for NamespaceMap {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let (source, destination) = text.split_once(',').unwrap_or((text, text));
        if destination.contains(',') {
            return Err(InvalidValue::new(text, "is neither SOURCE nor SOURCE,DESTINATION"));
        }
        Ok(Self { source: source.parse()?, destination: destination.parse()? })
    }
}

impl fmt::Display for NamespaceMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_same() {
            return self.source.fmt(f);
        }
        write!(f, "{},{}", self.source, self.destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_a_plain_short_name() {
        for good in ["test", "a", "ns-1_x.y", "..a", "0123456789012345678901234567890"] {
            assert_eq!(good.parse::<Namespace>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "a b",
            "a/b",
            "a\\b",
            "a,b",
            "a;b",
            "a:b",
            "a\n",
            "\0",
            ".",
            "..",
            "01234567890123456789012345678901",
        ] {
            assert!(bad.parse::<Namespace>().is_err(), "{bad:?} was taken");
        }
        let error = "a/b".parse::<Namespace>().unwrap_err().to_string();
        assert_eq!(error, "\"a/b\" is not the name of a namespace: it holds '/'");
    }

    #[test]
    fn a_map_has_one_name_or_two() {
        let same: NamespaceMap = "test".parse().unwrap();
        assert!(same.is_same());
        assert_eq!(same.to_string(), "test");
        let other: NamespaceMap = "test,copy".parse().unwrap();
        assert_eq!((other.source.as_str(), other.destination.as_str()), ("test", "copy"));
        assert_eq!(other.to_string(), "test,copy");
        for bad in ["", ",", "a,", ",b", "a,b,c", "a, b"] {
            assert!(bad.parse::<NamespaceMap>().is_err(), "{bad:?} was taken");
        }
        let document = r#"{"source":"test","destination":"copy"}"#;
        assert_eq!(serde_json::from_str::<NamespaceMap>(document).unwrap(), other);
        assert_eq!(serde_json::to_string(&other).unwrap(), document);
        assert!(serde_json::from_str::<NamespaceMap>(r#"{"source":"test"}"#).is_err());
    }
}
