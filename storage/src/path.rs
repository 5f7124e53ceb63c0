//! The name of an object or a folder inside a storage.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A relative path inside a storage: parts separated by `/`, such as `nightly/backup/1704110400000/data/test/0.asb`.
///
/// It never leaves the storage: no part is empty, `.` or `..`, none holds a NUL, and the path does not begin or end
/// with `/`. The empty path is the storage itself ([`ObjectPath::root`]); it names a folder, never an object.
/// Cloning shares the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectPath(Arc<str>);

/// The longest path, in bytes: the limit of S3 keys, the shortest of the storages'.
pub const MAX_PATH_BYTES: usize = 1024;

impl ObjectPath {
    /// The storage itself.
    #[must_use]
    pub fn root() -> Self {
        Self(Arc::from(""))
    }

    /// The path written as `text`.
    pub fn new(text: &str) -> Result<Self, InvalidPath> {
        let refuse = |reason| Err(InvalidPath { path: text.to_owned(), reason });
        if text.is_empty() {
            return Ok(Self::root());
        }
        if text.len() > MAX_PATH_BYTES {
            return refuse("it is longer than 1024 bytes");
        }
        if text.contains('\0') {
            return refuse("it holds a NUL");
        }
        for part in text.split('/') {
            match part {
                "" => return refuse("it begins or ends with '/' or holds '//'"),
                "." | ".." => return refuse("it holds '.' or '..' as a part"),
                _ => {}
            }
        }
        Ok(Self(Arc::from(text)))
    }

    /// The path of `more` (one part or several) below this folder.
    pub fn join(&self, more: &str) -> Result<Self, InvalidPath> {
        if self.is_root() {
            return Self::new(more);
        }
        if more.is_empty() {
            return Ok(self.clone());
        }
        Self::new(&format!("{}/{more}", self.0))
    }

    /// The text, without a leading or trailing `/`; empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the storage itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The last part; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The folder that holds this; none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        Some(self.0.rsplit_once('/').map_or_else(Self::root, |(parent, _)| Self(Arc::from(parent))))
    }

    /// The parts from the top down; none for the root.
    #[must_use]
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }

    /// Whether this is `folder` or lies below it, by whole parts: `a/b` is below `a`, `ab` is not.
    #[must_use]
    pub fn is_within(&self, folder: &Self) -> bool {
        self.below(folder).is_some()
    }

    /// What remains of this path below `folder` (empty when they are equal); none when it does not lie there.
    #[must_use]
    pub fn below(&self, folder: &Self) -> Option<&str> {
        if folder.is_root() {
            return Some(&self.0);
        }
        let rest = self.0.strip_prefix(&*folder.0)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }
}

impl TryFrom<String> for ObjectPath {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        Self::new(&text)
    }
}

impl From<ObjectPath> for String {
    fn from(path: ObjectPath) -> Self {
        path.0.as_ref().to_owned()
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ObjectPath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        Self::new(text)
    }
}

/// A text that is no path inside a storage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} is not a path inside a storage: {reason}")]
pub struct InvalidPath {
    /// The text.
    pub path: String,
    /// The rule it breaks.
    pub reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ObjectPath {
        ObjectPath::new(text).unwrap()
    }

    #[test]
    fn a_path_never_leaves_its_storage() {
        for bad in ["/", "/etc", "a/", "a//b", "..", "../a", "a/..", "a/../b", ".", "a/./b", "a\0b"] {
            assert!(ObjectPath::new(bad).is_err(), "{bad:?} was taken");
        }
        assert!(ObjectPath::new(&"a".repeat(MAX_PATH_BYTES)).is_ok());
        assert!(ObjectPath::new(&"a".repeat(MAX_PATH_BYTES + 1)).is_err());
        for good in ["", "a", "...", "..a/.b", "routine 1/backup/1700000000000/data/test/0.asb", "naïve/日本"]
        {
            assert_eq!(path(good).as_str(), good);
        }
    }

    #[test]
    fn paths_are_taken_apart_and_put_together() {
        let folder = path("a/b");
        let object = folder.join("c.asb").unwrap();
        assert_eq!(object.as_str(), "a/b/c.asb");
        assert_eq!(object.name(), "c.asb");
        assert_eq!(object.parent(), Some(folder.clone()));
        assert_eq!(path("a").parent(), Some(ObjectPath::root()));
        assert_eq!(ObjectPath::root().parent(), None);
        assert_eq!(ObjectPath::root().join("a").unwrap(), path("a"));
        assert_eq!(folder.join("").unwrap(), folder);
        assert!(folder.join("../c").is_err());
        assert_eq!(object.parts().collect::<Vec<_>>(), ["a", "b", "c.asb"]);
        assert_eq!(ObjectPath::root().parts().count(), 0);
    }

    #[test]
    fn a_folder_holds_whole_parts_only() {
        assert_eq!(path("a/b/c").below(&path("a")), Some("b/c"));
        assert_eq!(path("a").below(&path("a")), Some(""));
        assert_eq!(path("a/b").below(&ObjectPath::root()), Some("a/b"));
        assert_eq!(path("ab").below(&path("a")), None);
        assert!(!path("a").is_within(&path("a/b")));
    }
}
