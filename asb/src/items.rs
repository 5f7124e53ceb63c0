//! Reads whole items in place.

use std::fmt;

use crate::{
    AsbError, AsbErrorKind, Digest, Name, Position, SecondaryIndex, TextValue, Udf, UdfLanguage, base64,
    cursor::{Cursor, Span, Stop, bad},
    lines::{GlobalLine, ItemKind},
};

/// The items of a block of text, one after another.
#[derive(Debug)]
pub struct Items<'b> {
    source: Source<'b>,
    progress: Progress,
}

/// The text, and where in its file it begins: at the beginning of a line.
#[derive(Clone, Copy)]
pub(crate) struct Source<'b> {
    pub block: &'b [u8],
    pub start: Position,
}

impl Source<'_> {
    #[cold]
    pub(crate) fn error(&self, at: usize, kind: AsbErrorKind) -> AsbError {
        AsbError::at(self.block, self.start, at, kind)
    }

    #[cold]
    fn stop(&self, stop: Stop) -> AsbError {
        stop.into_error(self.block, self.start)
    }
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:?}", self.block.len(), self.start)
    }
}

#[derive(Debug)]
struct Progress {
    /// Where the item began.
    item: usize,
    /// What of the block is read.
    at: usize,
    /// Bins of the item that are not read yet.
    bins_left: u16,
}

impl Progress {
    #[inline]
    fn next_bin<'s>(&mut self, source: &'s Source<'_>) -> Result<Option<Bin<'s>>, AsbError> {
        if self.bins_left == 0 {
            return Ok(None);
        }
        let mut cursor = Cursor::new(source.block, self.item, self.at);
        let (name, value) = cursor.bin().map_err(|stop| source.stop(stop))?;
        self.at = cursor.at;
        self.bins_left -= 1;
        Ok(Some(Bin { name, value: TextValue::new(source, value) }))
    }
}

/// An item of a file.
#[derive(Debug)]
pub enum Item<'i> {
    /// A record; its bins are read from it.
    Record(Record<'i>),
    /// A secondary index.
    Index(SecondaryIndex),
    /// A UDF module.
    Udf(Udf),
}

/// A record, whose bins are still to be read.
#[derive(Debug)]
pub struct Record<'i> {
    /// The namespace it was read from.
    pub namespace: Name<'i>,
    /// Its digest.
    pub digest: Digest,
    /// Its set; empty when it has none.
    pub set: Name<'i>,
    /// Its user key, when it was stored.
    pub key: Option<TextValue<'i>>,
    /// How often it was written, as the server counted.
    pub generation: u32,
    /// When it expires, in seconds since 2010-01-01T00:00:00Z; 0 = never.
    pub expiration: u32,
    /// How many bins it has.
    pub bin_count: u16,
    source: &'i Source<'i>,
    progress: &'i mut Progress,
}

/// A bin of a record.
#[derive(Clone, Copy, Debug)]
pub struct Bin<'i> {
    /// Its name.
    pub name: Name<'i>,
    /// Its value.
    pub value: TextValue<'i>,
}

impl<'b> Items<'b> {
    /// The items of `block`: whole ones, as a [`Skimmer`](crate::Skimmer) finds them, the first at `start`.
    #[must_use]
    pub fn new(block: &'b [u8], start: Position) -> Self {
        Self { source: Source { block, start }, progress: Progress { item: 0, at: 0, bins_left: 0 } }
    }

    /// The next item; none at the end of the block. What was not read of the record before is skipped.
    #[allow(
        clippy::should_implement_trait,
        reason = "an item borrows from the reader, which no Iterator can give"
    )]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, AsbError> {
        let (source, progress) = (&self.source, &mut self.progress);
        while progress.next_bin(source)?.is_some() {}
        progress.item = progress.at;
        let mut cursor = Cursor::new(source.block, progress.item, progress.at);
        if cursor.is_at_end() {
            return Ok(None);
        }
        let item = match cursor.item().map_err(|stop| source.stop(stop))? {
            ItemKind::Record => {
                let head = cursor.record_head().map_err(|stop| source.stop(stop))?;
                let digest = base64::decode_digest(head.digest.of(source.block))
                    .ok_or_else(|| source.error(head.digest.at, AsbErrorKind::Base64))?;
                (progress.at, progress.bins_left) = (cursor.at, head.bin_count);
                Item::Record(Record {
                    namespace: head.namespace,
                    digest,
                    set: head.set,
                    key: head.key.map(|key| TextValue::new(source, key)),
                    generation: head.generation,
                    expiration: head.expiration,
                    bin_count: head.bin_count,
                    source,
                    progress,
                })
            }
            ItemKind::Global => {
                let item = cursor
                    .global()
                    .and_then(|line| global(source, line))
                    .map_err(|stop| source.stop(stop))?;
                progress.at = cursor.at;
                item
            }
        };
        Ok(Some(item))
    }
}

impl<'i> Record<'i> {
    /// The next bin; none behind the last. The bin may outlive the record, not the items.
    #[inline]
    pub fn next_bin(&mut self) -> Result<Option<Bin<'i>>, AsbError> {
        self.progress.next_bin(self.source)
    }
}

fn global<'i>(source: &Source<'_>, line: GlobalLine<'_>) -> Result<Item<'i>, Stop> {
    Ok(match line {
        GlobalLine::Index { names, kind, data, context, expression } => Item::Index(SecondaryIndex {
            set: optional(names.set, "the set's name", names.at)?.unwrap_or_default(),
            name: string(names.index, "the index's name", names.at)?,
            kind,
            bin: optional(names.bin, "the bin's name", names.at)?,
            data,
            context: context.map(|text| base64_text(source, text)).transpose()?,
            expression: expression.map(|text| base64_text(source, text)).transpose()?,
        }),
        GlobalLine::Udf { at, name, content } => Item::Udf(Udf {
            language: UdfLanguage::Lua,
            name: string(name, "the module's name", at)?,
            content: content.of(source.block).to_vec(),
        }),
    })
}

fn string(name: Name<'_>, what: &'static str, at: usize) -> Result<String, Stop> {
    String::from_utf8(name.to_bytes().into_owned()).or_else(|_| bad(at, AsbErrorKind::Utf8(what)))
}

/// A name that an index may lack. Servers list it as the word `null`, which some writers took over; no server can list an
/// index whose set or bin has that name.
fn optional(name: Name<'_>, what: &'static str, at: usize) -> Result<Option<String>, Stop> {
    let name = string(name, what, at)?;
    Ok(Some(name).filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("null")))
}

/// Base64 as it stands, known to be right.
fn base64_text(source: &Source<'_>, text: Span) -> Result<String, Stop> {
    let base64 = text.of(source.block);
    if !base64.is_empty() && base64::is_valid(base64) {
        Ok(base64.escape_ascii().to_string())
    } else {
        bad(text.at, AsbErrorKind::Base64)
    }
}
