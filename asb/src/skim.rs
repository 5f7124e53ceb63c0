//! Finds where items end, without reading their values.

use crate::{
    AsbError, Position,
    cursor::{Cursor, Stop},
    lines::ItemKind,
};

/// Walks over whole items of a file's text that arrives in pieces. A piece costs time for its own length only, however
/// long the item it is part of.
#[derive(Clone, Debug)]
pub struct Skimmer {
    position: Position,
    /// Where in a record that is not whole yet to go on: bytes behind its beginning, bins still to come.
    inside: Option<(usize, u16)>,
}

/// How far [`Skimmer::skim`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skim {
    /// Bytes at the beginning of the text that are whole items.
    pub len: usize,
    /// How many items those are.
    pub items: usize,
    /// How many bytes behind those are needed at the least to make the next item whole, those at hand included. More
    /// than are at hand; just as many when the next item is damaged, as the next call will say.
    pub need: usize,
}

impl Skimmer {
    /// A skimmer for the text behind the header, which begins at `position`.
    #[must_use]
    pub fn new(position: Position) -> Self {
        Self { position, inside: None }
    }

    /// Where the next call's text begins.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Finds the whole items at the beginning of `text`, up to the first that is damaged: an error when that is the
    /// first of all. The next call's text must begin with what this call left (`text[len..]`).
    pub fn skim(&mut self, text: &[u8]) -> Result<Skim, AsbError> {
        let (mut len, mut items) = (0, 0);
        let need = loop {
            match self.item(text, len) {
                Ok(end) => {
                    len = end;
                    items += 1;
                }
                Err(Stop::More(end)) => break end - len,
                Err(_) if items > 0 => break text.len() - len,
                Err(bad) => return Err(bad.into_error(text, self.position)),
            }
        };
        self.position.line += memchr::memchr_iter(b'\n', &text[..len]).count() as u64;
        self.position.offset += len as u64;
        Ok(Skim { len, items, need })
    }

    /// To be asked at the end of the file, with what the last call left: an error unless that is nothing.
    pub fn finish(&self, rest: &[u8]) -> Result<(), AsbError> {
        if rest.is_empty() {
            return Ok(());
        }
        self.clone().skim(rest)?;
        Err(Stop::More(0).into_error(rest, self.position))
    }

    /// Where the item that begins at `start` ends.
    fn item(&mut self, text: &[u8], start: usize) -> Result<usize, Stop> {
        let mut cursor = Cursor::new(text, start, start);
        let mut bins = 0;
        if let Some((at, left)) = self.inside
            && at <= text.len() - start
        {
            (cursor.at, bins) = (start + at, left);
        } else {
            match cursor.item()? {
                ItemKind::Record => bins = cursor.record_head()?.bin_count,
                ItemKind::Global => {
                    cursor.global()?;
                }
            }
        }
        while bins > 0 {
            let at = cursor.at - start;
            if let Err(stop) = cursor.bin() {
                self.inside = Some((at, bins));
                return Err(stop);
            }
            bins -= 1;
        }
        self.inside = None;
        Ok(cursor.at)
    }
}
