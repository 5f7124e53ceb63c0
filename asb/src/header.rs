//! The first lines of a file.

use crate::{
    AsbError, AsbErrorKind, Position,
    cursor::{Cursor, Stop, bad},
};

/// Longest text that is shown as a version.
const MAX_VERSION: usize = 16;

/// The version of the format a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// 3.1: what asbackup writes.
    V3_1,
    /// 3.2: 3.1 with expression indexes.
    V3_2,
}

impl Version {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::V3_1 => "3.1",
            Self::V3_2 => "3.2",
        }
    }
}

/// What the first lines of a file say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The format's version.
    pub version: Version,
    /// The namespace the file was made from.
    pub namespace: Vec<u8>,
    /// Whether this is the file of its backup that says so; at most one is.
    pub first_file: bool,
}

impl Header {
    /// Reads the header at the beginning of `text`: the header, its bytes, its lines; none when more bytes are
    /// needed. `at_end` says that no more will come: then a header without an item behind it is whole, and a part
    /// of one is an error.
    pub fn parse(text: &[u8], at_end: bool) -> Result<Option<(Self, usize, u64)>, AsbError> {
        let mut cursor = Cursor::new(text, 0, 0);
        match cursor.header(at_end) {
            Ok(header) => {
                let lines = memchr::memchr_iter(b'\n', &text[..cursor.at]).count() as u64;
                Ok(Some((header, cursor.at, lines)))
            }
            Err(Stop::More(_)) if !at_end => Ok(None),
            Err(Stop::More(_)) => {
                Err(AsbError::at(text, Position::START, text.len(), AsbErrorKind::Truncated("the header")))
            }
            Err(bad) => Err(bad.into_error(text, Position::START)),
        }
    }
}

impl Cursor<'_> {
    fn header(&mut self, at_end: bool) -> Result<Header, Stop> {
        self.literal(b"Version ", "\"Version \"")?;
        let version = self.version()?;
        self.literal(b"\n# namespace ", "a line feed and \"# namespace \"")?;
        let namespace = self.namespace()?.to_bytes().into_owned();
        self.line_feed()?;
        let first_file = !(at_end && self.is_at_end()) && self.peek(0)? == b'#';
        if first_file {
            self.literal(b"# first-file\n", "\"# first-file\" and a line feed")?;
        }
        Ok(Header { version, namespace, first_file })
    }

    fn version(&mut self) -> Result<Version, Stop> {
        let version = self.token(MAX_VERSION, &AsbErrorKind::Expected("a version"))?;
        match version.of(self.text) {
            b"3.1" => Ok(Version::V3_1),
            b"3.2" => Ok(Version::V3_2),
            other => bad(version.at, AsbErrorKind::Version(other.into())),
        }
    }
}
