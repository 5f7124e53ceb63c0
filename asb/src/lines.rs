//! The grammar: one function for every kind of line. Both the skimmer and the reader of items stand on it, so that
//! they cannot disagree on where an item ends.

use crate::{
    AsbErrorKind, Digest, IndexData, IndexKind, MAX_ITEM, Name, ParticleType,
    cursor::{Cursor, Span, Stop, bad},
};

/// The server's limits for names, in bytes.
pub(crate) const MAX_NAMESPACE: usize = 31;
pub(crate) const MAX_SET: usize = 63;
pub(crate) const MAX_BIN: usize = 15;
pub(crate) const MAX_INDEX: usize = 255;
pub(crate) const MAX_MODULE: usize = 255;
/// Longest text of a number that has no length in front: a double written with `%f` has up to 327 bytes.
const MAX_TOKEN: usize = 400;
/// Longest base64 of an index's context or expression.
const MAX_EXPRESSION: usize = 1 << 20;

/// Bytes of a digest's base64.
const DIGEST_TEXT: usize = size_of::<Digest>().div_ceil(3) * 4;
const NOT_A_DIGEST: AsbErrorKind = AsbErrorKind::Expected("a digest: 28 bytes of base64 and a line feed");

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// No text.
    Nil,
    /// `T` or `F`.
    Bool,
    /// A decimal integer.
    Integer,
    /// A decimal double.
    Double,
    /// The bytes themselves.
    Raw,
    /// The JSON text of a GeoJSON particle.
    GeoJson,
    /// Base64 of the bytes.
    Base64,
}

/// Where a value is in the text, and how to read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueAt {
    pub particle: ParticleType,
    pub form: Form,
    pub text: Span,
}

/// The lines of a record before its bins.
pub(crate) struct HeadLines<'b> {
    pub key: Option<ValueAt>,
    pub namespace: Name<'b>,
    pub digest: Span,
    pub set: Name<'b>,
    pub generation: u32,
    pub expiration: u32,
    pub bin_count: u16,
}

/// A line (or more, for a module) that belongs to the namespace.
pub(crate) enum GlobalLine<'b> {
    /// `* i` or `* e`.
    Index {
        names: IndexNames<'b>,
        kind: IndexKind,
        data: IndexData,
        context: Option<Span>,
        expression: Option<Span>,
    },
    /// `* u`; its name is at `at`.
    Udf { at: usize, name: Name<'b>, content: Span },
}

/// The names on an index's line.
pub(crate) struct IndexNames<'b> {
    /// Where they begin.
    pub at: usize,
    pub set: Name<'b>,
    pub index: Name<'b>,
    pub bin: Name<'b>,
}

/// The item that begins where the cursor is.
pub(crate) enum ItemKind {
    Record,
    Global,
}

impl<'b> Cursor<'b> {
    /// What begins here.
    pub(crate) fn item(&self) -> Result<ItemKind, Stop> {
        match self.peek(0)? {
            b'+' => Ok(ItemKind::Record),
            b'*' => Ok(ItemKind::Global),
            _ => bad(self.at, AsbErrorKind::Expected("a record, an index or a UDF module")),
        }
    }

    /// A record up to its bins.
    pub(crate) fn record_head(&mut self) -> Result<HeadLines<'b>, Stop> {
        let mut key = None;
        if self.peek(2)? == b'k' {
            self.literal(b"+ k ", "\"+ k \"")?;
            key = Some(self.key()?);
        }
        self.literal(b"+ n ", "\"+ n \"")?;
        let namespace = self.namespace()?;
        self.line_feed()?;
        self.literal(b"+ d ", "\"+ d \"")?;
        let digest = self.token(DIGEST_TEXT, &NOT_A_DIGEST)?;
        if digest.len != DIGEST_TEXT {
            return bad(digest.at, NOT_A_DIGEST);
        }
        self.line_feed()?;
        let mut set = Name::EMPTY;
        if self.peek(2)? == b's' {
            self.literal(b"+ s ", "\"+ s \"")?;
            set = self.name("the set's name", MAX_SET)?;
            self.line_feed()?;
        }
        self.literal(b"+ g ", "\"+ g \"")?;
        let generation = self.number("the generation", u64::from(u32::MAX))? as u32;
        self.literal(b"\n+ t ", "a line feed and \"+ t \"")?;
        let expiration = self.number("the expiration", u64::from(u32::MAX))? as u32;
        self.literal(b"\n+ b ", "a line feed and \"+ b \"")?;
        let bin_count = self.number("the bin count", u64::from(u16::MAX))? as u16;
        self.line_feed()?;
        Ok(HeadLines { key, namespace, digest, set, generation, expiration, bin_count })
    }

    pub(crate) fn namespace(&mut self) -> Result<Name<'b>, Stop> {
        let name = self.name("the namespace's name", MAX_NAMESPACE)?;
        if name.is_empty() { bad(self.at, AsbErrorKind::Expected("the namespace's name")) } else { Ok(name) }
    }

    /// What follows `+ k `.
    fn key(&mut self) -> Result<ValueAt, Stop> {
        let letter_at = self.at;
        let letter = self.byte()?;
        let Some((particle, form)) = kind(letter).filter(|_| b"IDSXB".contains(&letter)) else {
            return bad(letter_at, AsbErrorKind::KeyType([letter][..].into()));
        };
        let form = self.bang(letter, form)?;
        self.space()?;
        let text = self.value(form)?;
        self.line_feed()?;
        Ok(ValueAt { particle, form, text })
    }

    /// A `-` line.
    #[inline]
    pub(crate) fn bin(&mut self) -> Result<(Name<'b>, ValueAt), Stop> {
        if self.at - self.item > MAX_ITEM {
            return bad(self.at, AsbErrorKind::ItemTooLong);
        }
        self.literal(b"- ", "\"- \"")?;
        let letter_at = self.at;
        let letter = self.byte()?;
        let Some((particle, form)) = kind(letter) else { return self.not_a_bin(letter_at, letter) };
        let form = self.bang(letter, form)?;
        self.space()?;
        let name = self.name("the bin's name", MAX_BIN)?;
        let mut text = Span { at: self.at, len: 0 };
        if form != Form::Nil {
            self.space()?;
            text = self.value(form)?;
        }
        self.line_feed()?;
        Ok((name, ValueAt { particle, form, text }))
    }

    #[cold]
    fn not_a_bin<T>(&self, at: usize, letter: u8) -> Result<T, Stop> {
        if letter == b'U' {
            bad(at, AsbErrorKind::LargeDataType(self.record_shown()))
        } else {
            bad(at, AsbErrorKind::BinType([letter][..].into()))
        }
    }

    /// The `!` behind the letters that can have one: the value is raw then.
    #[inline]
    fn bang(&mut self, letter: u8, form: Form) -> Result<Form, Stop> {
        if form == Form::Base64 && letter != b'X' && self.peek(0)? == b'!' {
            self.at += 1;
            return Ok(Form::Raw);
        }
        Ok(form)
    }

    #[inline]
    fn value(&mut self, form: Form) -> Result<Span, Stop> {
        match form {
            Form::Nil | Form::Bool | Form::Integer | Form::Double => {
                self.token(MAX_TOKEN, &AsbErrorKind::Number("the value"))
            }
            Form::Raw | Form::GeoJson | Form::Base64 => self.counted(),
        }
    }

    /// A `*` line.
    pub(crate) fn global(&mut self) -> Result<GlobalLine<'b>, Stop> {
        self.literal(b"* ", "\"* \"")?;
        let line = match self.byte()? {
            letter @ (b'i' | b'e') => {
                self.space()?;
                self.index(letter == b'e')?
            }
            b'u' => {
                self.literal(b" L ", "\" L \": the only language of UDF modules is Lua")?;
                let at = self.at;
                let name = self.name("the module's name", MAX_MODULE)?;
                self.space()?;
                let content = self.counted()?;
                GlobalLine::Udf { at, name, content }
            }
            _ => return bad(self.at - 1, AsbErrorKind::Expected("\"i\", \"e\" or \"u\"")),
        };
        self.line_feed()?;
        Ok(line)
    }

    /// What follows `* i ` or `* e `.
    fn index(&mut self, expression: bool) -> Result<GlobalLine<'b>, Stop> {
        let at = self.at;
        self.namespace()?;
        self.space()?;
        let set = self.name("the set's name", MAX_SET)?;
        self.space()?;
        let index = self.name("the index's name", MAX_INDEX)?;
        self.space()?;
        let Some(kind) = IndexKind::from_letter(self.byte()?) else {
            return bad(self.at - 1, AsbErrorKind::Expected("the letter of an index kind"));
        };
        self.literal(b" 1 ", "\" 1 \": an index has one path")?;
        let bin = self.name("the bin's name", MAX_BIN)?;
        self.space()?;
        let Some(data) = IndexData::from_letter(self.byte()?) else {
            return bad(self.at - 1, AsbErrorKind::Expected("the letter of an index type"));
        };
        let mut base64 = None;
        if expression || self.peek(0)? != b'\n' {
            self.space()?;
            base64 = Some(self.token(MAX_EXPRESSION, &AsbErrorKind::ItemTooLong)?);
        }
        let (context, expression) = if expression { (None, base64) } else { (base64, None) };
        Ok(GlobalLine::Index { names: IndexNames { at, set, index, bin }, kind, data, context, expression })
    }

    /// The record the cursor is in, for a message.
    #[cold]
    fn record_shown(&self) -> String {
        let Ok(head) = Cursor::new(self.text, self.item, self.item).record_head() else {
            return String::new();
        };
        let digest = head.digest.of(self.text).escape_ascii();
        let set = head.set.to_bytes();
        format!("{digest} of set \"{}\"", set.escape_ascii())
    }
}

/// The type of a letter, and how its values are written without a `!`.
#[inline]
fn kind(letter: u8) -> Option<(ParticleType, Form)> {
    Some(match letter {
        b'N' => (ParticleType::Null, Form::Nil),
        b'Z' => (ParticleType::Bool, Form::Bool),
        b'I' => (ParticleType::Integer, Form::Integer),
        b'D' => (ParticleType::Float, Form::Double),
        b'S' => (ParticleType::String, Form::Raw),
        b'X' => (ParticleType::String, Form::Base64),
        b'G' => (ParticleType::GeoJson, Form::GeoJson),
        b'B' => (ParticleType::Blob, Form::Base64),
        b'J' => (ParticleType::Java, Form::Base64),
        b'C' => (ParticleType::CSharp, Form::Base64),
        b'P' => (ParticleType::Python, Form::Base64),
        b'R' => (ParticleType::Ruby, Form::Base64),
        b'H' => (ParticleType::Php, Form::Base64),
        b'E' => (ParticleType::Erlang, Form::Base64),
        b'Y' => (ParticleType::Hll, Form::Base64),
        b'M' => (ParticleType::Map, Form::Base64),
        b'L' => (ParticleType::List, Form::Base64),
        _ => return None,
    })
}
