//! A value in the text, and its way to the wire.

use crate::{
    AsbError, AsbErrorKind, ParticleType, base64, collection, float,
    items::Source,
    lines::{Form, ValueAt},
};

/// A bin's value or a user key, still in its text form.
#[derive(Clone, Copy, Debug)]
pub struct TextValue<'i> {
    source: &'i Source<'i>,
    value: ValueAt,
}

impl<'i> TextValue<'i> {
    pub(crate) fn new(source: &'i Source<'i>, value: ValueAt) -> Self {
        Self { source, value }
    }

    /// The value's type.
    #[must_use]
    pub const fn particle(&self) -> ParticleType {
        self.value.particle
    }

    /// Appends the value to `out`: the particle's bytes exactly as the server sent them. (GeoJSON comes without
    /// cells: the server makes its own.) After an error `out` is as it was.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>) -> Result<(), AsbError> {
        let text = self.value.text.of(self.source.block);
        match self.value.form {
            Form::Base64 => {
                if !base64::decode_append(text, out) {
                    return self.wrong(AsbErrorKind::Base64);
                }
            }
            Form::Raw => out.extend_from_slice(text),
            Form::Integer => match integer(text) {
                Some(value) => out.extend_from_slice(&value.to_be_bytes()),
                None => return self.wrong(AsbErrorKind::Number("the integer")),
            },
            Form::Double => match float::parse(text) {
                Some(value) => out.extend_from_slice(&value.to_bits().to_be_bytes()),
                None => return self.wrong(AsbErrorKind::Double),
            },
            Form::GeoJson => {
                // No flags, no cells, and the text.
                out.extend_from_slice(&[0, 0, 0]);
                out.extend_from_slice(text);
            }
            Form::Bool => match text {
                b"T" => out.push(1),
                b"F" => out.push(0),
                _ => return self.wrong(AsbErrorKind::Expected("\"T\" or \"F\"")),
            },
            Form::Nil => {}
        }
        Ok(())
    }

    /// Checks that the bytes which [`append_to`](Self::append_to) gave are whole, as far as the type can say: the elements
    /// of lists and maps are counted.
    pub fn check(&self, bytes: &[u8]) -> Result<(), AsbError> {
        collection::check(self.value.particle, bytes)
            .or_else(|what| self.wrong(AsbErrorKind::Collection(what)))
    }

    #[cold]
    fn wrong(&self, kind: AsbErrorKind) -> Result<(), AsbError> {
        Err(self.source.error(self.value.text.at, kind))
    }
}

/// A signed decimal number in its shortest form.
#[inline]
fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let shortest = match digits {
        [] => false,
        [b'0'] => !negative,
        [first, ..] => *first != b'0',
    };
    if !shortest || digits.len() > 19 {
        return None;
    }
    let mut value = 0u64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}
