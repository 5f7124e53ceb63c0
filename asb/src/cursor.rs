//! A place in a text, and the few kinds of things that stand there.

use crate::{AsbError, AsbErrorKind, MAX_ITEM, Name, Position};

/// Why the cursor cannot go on.
pub(crate) enum Stop {
    /// The text ends here; it must have this many bytes at the least.
    More(usize),
    /// The text is wrong.
    Bad(Box<Wrong>),
}

/// What is wrong, and where in the text.
pub(crate) struct Wrong {
    pub at: usize,
    pub kind: AsbErrorKind,
}

impl Stop {
    /// The error to show when no more text can come. `text` begins a line at `start`.
    pub(crate) fn into_error(self, text: &[u8], start: Position) -> AsbError {
        match self {
            Self::More(_) => AsbError::at(text, start, text.len(), AsbErrorKind::Truncated("an item")),
            Self::Bad(wrong) => AsbError::at(text, start, wrong.at, wrong.kind),
        }
    }
}

#[cold]
pub(crate) fn bad<T>(at: usize, kind: AsbErrorKind) -> Result<T, Stop> {
    Err(Stop::Bad(Box::new(Wrong { at, kind })))
}

/// Some bytes of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Bytes before them.
    pub at: usize,
    pub len: usize,
}

impl Span {
    #[inline]
    pub(crate) fn of<'b>(&self, text: &'b [u8]) -> &'b [u8] {
        &text[self.at..][..self.len]
    }
}

/// A place in a text.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'b> {
    pub text: &'b [u8],
    /// Bytes before the place.
    pub at: usize,
    /// Where the item began: nothing may reach further than [`MAX_ITEM`] from there.
    pub item: usize,
}

impl<'b> Cursor<'b> {
    pub(crate) fn new(text: &'b [u8], item: usize, at: usize) -> Self {
        Self { text, at, item }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    /// The byte `ahead` of the place.
    #[inline]
    pub(crate) fn peek(&self, ahead: usize) -> Result<u8, Stop> {
        match self.text.get(self.at + ahead) {
            Some(&byte) => Ok(byte),
            None => Err(Stop::More(self.at + ahead + 1)),
        }
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Stop> {
        let byte = self.peek(0)?;
        self.at += 1;
        Ok(byte)
    }

    /// Exactly these bytes; `shown` is how to call them.
    #[inline]
    pub(crate) fn literal<const N: usize>(
        &mut self,
        bytes: &[u8; N],
        shown: &'static str,
    ) -> Result<(), Stop> {
        if self.text.get(self.at..).and_then(|rest| rest.first_chunk::<N>()) == Some(bytes) {
            self.at += N;
            return Ok(());
        }
        self.not_literal(bytes, shown)
    }

    #[cold]
    fn not_literal<T>(&self, bytes: &[u8], shown: &'static str) -> Result<T, Stop> {
        let rest = &self.text[self.at.min(self.text.len())..];
        match rest.iter().zip(bytes).position(|(is, should)| is != should) {
            Some(differs) => bad(self.at + differs, AsbErrorKind::Expected(shown)),
            None => Err(Stop::More(self.at + bytes.len())),
        }
    }

    #[inline]
    pub(crate) fn space(&mut self) -> Result<(), Stop> {
        self.literal(b" ", "a space")
    }

    #[inline]
    pub(crate) fn line_feed(&mut self) -> Result<(), Stop> {
        self.literal(b"\n", "a line feed")
    }

    /// An escaped name of at most `limit` bytes, up to the space or line feed that ends it.
    #[inline]
    pub(crate) fn name(&mut self, what: &'static str, limit: usize) -> Result<Name<'b>, Stop> {
        let start = self.at;
        let rest = &self.text[start..];
        let (mut len, mut escapes) = (0, 0);
        while let Some(&byte) = rest.get(len) {
            match byte {
                b' ' | b'\n' => {
                    self.at = start + len;
                    return Ok(Name::new(&rest[..len], escapes));
                }
                b'\\' => match rest.get(len + 1) {
                    Some(b' ' | b'\n' | b'\\') => {
                        len += 2;
                        escapes += 1;
                    }
                    Some(_) => return bad(start + len + 1, AsbErrorKind::Escape),
                    None => break,
                },
                _ => len += 1,
            }
            if len - escapes > limit {
                return bad(start, AsbErrorKind::NameTooLong { what, limit });
            }
        }
        Err(Stop::More(self.text.len() + 1))
    }

    /// A decimal number of at most `max`, in its shortest form. `max` must have ten digits at the most.
    #[inline]
    pub(crate) fn number(&mut self, what: &'static str, max: u64) -> Result<u64, Stop> {
        let start = self.at;
        let rest = &self.text[start..];
        let (mut len, mut value) = (0, 0);
        while let Some(digit) = rest.get(len).map(|byte| byte.wrapping_sub(b'0')) {
            if digit <= 9 && len <= 10 {
                value = value * 10 + u64::from(digit);
                len += 1;
                continue;
            }
            if len == 0 || value > max || (len > 1 && rest[0] == b'0') {
                return bad(start, AsbErrorKind::Number(what));
            }
            self.at = start + len;
            return Ok(value);
        }
        Err(Stop::More(self.text.len() + 1))
    }

    /// `LEN SP` and LEN bytes: those.
    #[inline]
    pub(crate) fn counted(&mut self) -> Result<Span, Stop> {
        let start = self.at;
        let len = self.number("the length", u64::from(u32::MAX))? as usize;
        self.space()?;
        let at = self.at;
        if len > MAX_ITEM.saturating_sub(at - self.item) {
            return bad(start, AsbErrorKind::ItemTooLong);
        }
        if self.text.len() - at < len {
            // The line feed behind it is part of the item.
            return Err(Stop::More(at + len + 1));
        }
        self.at += len;
        Ok(Span { at, len })
    }

    /// Everything up to a line feed, at most `limit` bytes.
    #[inline]
    pub(crate) fn token(&mut self, limit: usize, too_long: &AsbErrorKind) -> Result<Span, Stop> {
        let start = self.at;
        let rest = &self.text[start..];
        match rest.iter().position(|&byte| byte == b'\n') {
            Some(len) if len <= limit => {
                self.at += len;
                Ok(Span { at: start, len })
            }
            None if rest.len() <= limit => Err(Stop::More(self.text.len() + 1)),
            _ => bad(start, too_long.clone()),
        }
    }
}
