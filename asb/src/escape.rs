//! Names in the text: a backslash stands before every space, line feed and backslash byte.

use std::borrow::Cow;

/// A name as it stands in the text, known to be escaped rightly and within its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    escaped: &'a [u8],
    escapes: usize,
}

impl<'a> Name<'a> {
    /// `escaped` must hold `escapes` escape sequences, all right.
    pub(crate) const fn new(escaped: &'a [u8], escapes: usize) -> Self {
        Self { escaped, escapes }
    }

    /// The name that has no bytes.
    pub const EMPTY: Name<'static> = Name::new(&[], 0);

    /// Bytes of the name without its escapes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.escaped.len() - self.escapes
    }

    /// Whether the name has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.escaped.is_empty()
    }

    /// The name as the text has it.
    #[must_use]
    pub const fn escaped(&self) -> &'a [u8] {
        self.escaped
    }

    /// Whether this is the name `other` (which has no escapes).
    #[must_use]
    pub fn eq_bytes(&self, other: &[u8]) -> bool {
        if self.escapes == 0 {
            return self.escaped == other;
        }
        self.len() == other.len() && self.unescaped().eq(other.iter().copied())
    }

    /// Appends the name to `out`.
    pub fn unescape_into(&self, out: &mut Vec<u8>) {
        if self.escapes == 0 {
            out.extend_from_slice(self.escaped);
        } else {
            out.extend(self.unescaped());
        }
    }

    /// The name; a copy only when it has escapes.
    #[must_use]
    pub fn to_bytes(&self) -> Cow<'a, [u8]> {
        if self.escapes == 0 { Cow::Borrowed(self.escaped) } else { Cow::Owned(self.unescaped().collect()) }
    }

    fn unescaped(self) -> impl Iterator<Item = u8> {
        let mut bytes = self.escaped.iter().copied();
        std::iter::from_fn(move || {
            bytes.next().and_then(|byte| if byte == b'\\' { bytes.next() } else { Some(byte) })
        })
    }
}

/// Appends `name` to `out` with its escapes.
#[inline]
pub(crate) fn escape_into(name: &[u8], out: &mut Vec<u8>) {
    if !name.iter().any(|&byte| is_special(byte)) {
        out.extend_from_slice(name);
        return;
    }
    for &byte in name {
        if is_special(byte) {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

/// Whether a byte of a name needs a backslash.
#[inline]
pub(crate) const fn is_special(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\\')
}
