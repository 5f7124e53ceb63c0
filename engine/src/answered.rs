//! How far the rows of a restore have been answered: what need not be sent again when it is resumed.
//!
//! Rows leave in batches, many of which are on their way at the same time, so answers come in any order. A file is answered
//! below an offset of its text when every row of every block before that has its final answer. All of it is counted per
//! block and per batch, nothing per record: a [`Block`] is complete when the worker has parsed it and each [`RowBatch`] that
//! holds rows of it was answered.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abs_cluster::BatchMessage;
use serde::{Deserialize, Serialize};

use crate::progress::RestoreSnapshot;

/// Bytes of text that may be read of a chain's files between two looks at its position: what is read of a file after the last
/// look may have been sent, too.
const UNKNOWN: u64 = 1 << 30;

/// How far the restore of a chain is: what a restore that is resumed begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ChainPosition {
    /// Whether its links are restored bin by bin.
    pub is_by_bins: bool,
    /// Links that have been restored whole, in the order of reading.
    pub ended: usize,
    /// Records that were read in them.
    pub read_before: u64,
    /// The files of the link under way that have been begun.
    pub files: Vec<FilePosition>,
    /// The files of the links before that hold definitions of indexes or UDF modules.
    pub defining: Vec<String>,
    /// The counters of the rows below the positions.
    pub counts: RestoreSnapshot,
}

/// How far the restore of a file is. Offsets are those of its text, decrypted and decompressed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FilePosition {
    /// Its path in the storage.
    pub path: String,
    /// Its size, in bytes.
    pub size: u64,
    /// Every row below has its final answer.
    pub answered: u64,
    /// Rows below this may have been sent.
    pub read: u64,
    /// Whether it has been read to its end and all of its rows were answered.
    pub is_done: bool,
    /// Whether definitions of indexes or UDF modules were found in it.
    pub has_definitions: bool,
}

/// How far the rows of a file have been answered.
#[derive(Debug)]
pub(crate) struct FileAnswers {
    path: String,
    size: u64,
    /// Rows below this offset were answered before the restore was resumed.
    known: u64,
    /// Rows below this offset may have been sent before the restore was resumed.
    in_doubt: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    answered: u64,
    read: u64,
    is_at_end: bool,
    has_definitions: bool,
    /// The counters of the blocks that were answered, up to `answered`, and since the restore was resumed.
    counts: RestoreSnapshot,
    /// Complete blocks behind others that are not: where each begins, where it ends, its counters.
    later: BTreeMap<u64, (u64, RestoreSnapshot)>,
}

impl FileAnswers {
    /// Those of a file that nothing is known of.
    pub(crate) fn new(path: &str, size: u64) -> Self {
        Self::from_position(&FilePosition { path: path.to_owned(), size, ..FilePosition::default() }, 0)
    }

    /// Those of a file of which an interrupted restore knew this position. `unknown` are the bytes of text behind what it
    /// had read of the file that it may have read since.
    pub(crate) fn from_position(position: &FilePosition, unknown: u64) -> Self {
        let FilePosition { path, size, answered, read, is_done, has_definitions } = position.clone();
        let in_doubt = read.saturating_add(unknown);
        let state = State { answered, read, is_at_end: is_done, has_definitions, ..State::default() };
        Self { path, size, known: answered, in_doubt, state: Mutex::new(state) }
    }

    /// Those of a file that was restored whole.
    pub(crate) fn of_ended(path: &str, size: u64, has_definitions: bool) -> Self {
        let (answered, read, is_done) = (u64::MAX, u64::MAX, true);
        let path = path.to_owned();
        Self::from_position(&FilePosition { path, size, answered, read, is_done, has_definitions }, 0)
    }

    /// Rows below this offset were answered before the restore was resumed. A block must end there.
    pub(crate) fn known(&self) -> u64 {
        self.known
    }

    /// Takes note of a block of whole items that is handed to a worker. Each begins where the one before it ends, the first
    /// at 0.
    pub(crate) fn begin(self: &Arc<Self>, range: Range<u64>) -> Arc<Block> {
        let mut state = self.state();
        state.read = state.read.max(range.end);
        Arc::new(Block {
            file: Arc::clone(self),
            range,
            holders: AtomicUsize::new(1),
            counts: Mutex::default(),
        })
    }

    /// Takes note that all blocks were handed out.
    pub(crate) fn end(&self) {
        self.state().is_at_end = true;
    }

    fn complete(&self, range: Range<u64>, counts: RestoreSnapshot) {
        let mut state = self.state();
        state.later.insert(range.start, (range.end, counts));
        let mut answered = state.answered;
        while let Some((end, counts)) = state.later.remove(&answered) {
            state.counts += counts;
            answered = end;
        }
        state.answered = answered;
    }

    /// Its position, and the counters of what was answered below it since the restore was resumed.
    pub(crate) fn position(&self) -> (FilePosition, RestoreSnapshot) {
        let state = self.state();
        let position = FilePosition {
            path: self.path.clone(),
            size: self.size,
            answered: state.answered,
            read: state.read,
            is_done: state.is_at_end && state.answered == state.read,
            has_definitions: state.has_definitions,
        };
        (position, state.counts.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Divides among files that are not begun yet, in the order of reading, what may have been read of them since the last look
/// at the position of an interrupted restore.
#[derive(Debug)]
pub(crate) struct Unknown(u64);

impl Unknown {
    pub(crate) fn new() -> Self {
        Self(UNKNOWN)
    }

    /// The share of a file with this position.
    pub(crate) fn share(&mut self, position: &FilePosition) -> u64 {
        if position.read > 0 {
            return UNKNOWN;
        }
        let share = self.0;
        self.0 = self.0.saturating_sub(position.size);
        share
    }
}

/// A block of whole items on its way.
#[derive(Debug)]
pub(crate) struct Block {
    file: Arc<FileAnswers>,
    range: Range<u64>,
    /// The batches with rows of it that have no final answer yet, and the worker while it parses it. A batch that is dropped
    /// without answers never lets go of it, so the block is never complete.
    holders: AtomicUsize,
    counts: Mutex<RestoreSnapshot>,
}

impl Block {
    /// Whether all of its rows were answered before the restore was resumed.
    pub(crate) fn is_known(&self) -> bool {
        self.range.end <= self.file.known
    }

    /// Whether its rows may have been sent before the restore was resumed.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.range.start < self.file.in_doubt
    }

    /// Takes note that it holds the definition of an index or a UDF module.
    pub(crate) fn note_definition(&self) {
        self.file.state().has_definitions = true;
    }

    /// Counts what became of some of its records.
    pub(crate) fn count(&self, counts: RestoreSnapshot) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) += counts;
    }

    fn hold(&self) {
        // Another hold, the worker's or a batch's, keeps it from being complete meanwhile.
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets go of it: of the worker's hold when it is parsed, of a batch's when its rows have their final answers.
    pub(crate) fn release(&self) {
        if self.holders.fetch_sub(1, Ordering::AcqRel) == 1 {
            let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
            self.file.complete(self.range.clone(), counts);
        }
    }
}

/// Rows for one node, and the blocks that they are of.
#[derive(Debug)]
pub(crate) struct RowBatch {
    pub rows: BatchMessage,
    /// The blocks in the order of the rows, each with the number of the row behind its last.
    blocks: Vec<(usize, Arc<Block>)>,
}

impl RowBatch {
    pub(crate) fn new(rows: BatchMessage) -> Self {
        Self { rows, blocks: Vec::new() }
    }

    /// Takes note that all rows which were appended since the last call are of this block, which its worker still holds.
    pub(crate) fn mark(&mut self, block: &Arc<Block>) {
        let marked = self.blocks.last().map_or(0, |(end, _)| *end);
        if marked < self.rows.len() {
            block.hold();
            self.blocks.push((self.rows.len(), Arc::clone(block)));
        }
    }

    /// The rows of each block.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (Range<usize>, &Block)> {
        let starts = std::iter::once(0).chain(self.blocks.iter().map(|(end, _)| *end));
        starts.zip(&self.blocks).map(|(start, (end, block))| (start..*end, &**block))
    }

    /// Appends a row of another batch.
    pub(crate) fn append_row_of(&mut self, other: &Self, row: usize) {
        self.rows.append_row_of(&other.rows, row);
        let index = other.blocks.partition_point(|(end, _)| *end <= row);
        if let Some((_, block)) = other.blocks.get(index) {
            match self.blocks.last_mut() {
                Some((end, last)) if Arc::ptr_eq(last, block) => *end += 1,
                _ => self.mark(block),
            }
        }
    }

    /// Lets go of its blocks and its rows, each of which has its final answer or is in another batch now.
    pub(crate) fn release(&mut self) {
        for (_, block) in self.blocks.drain(..) {
            block.release();
        }
        self.rows.clear();
    }
}

#[cfg(test)]
mod tests {
    use abs_cluster::BatchFlags;
    use proptest::prelude::*;

    use super::*;

    fn one(count: u64) -> RestoreSnapshot {
        RestoreSnapshot { inserted: count, ..RestoreSnapshot::default() }
    }

    proptest! {
        /// Protects: whatever the order of the answers, the offset is the end of the longest run of complete blocks, and the
        /// counters are those of exactly these blocks, so a restore that is resumed there loses no row and counts none twice.
        #[test]
        fn the_offset_is_behind_complete_blocks_only(
            lengths in prop::collection::vec(1_u64..50, 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let file = Arc::new(FileAnswers::new("f", 1));
            let mut start = 0;
            let mut open = Vec::new();
            let mut all = Vec::new();
            for (number, length) in lengths.iter().enumerate() {
                let block = file.begin(start..start + length);
                // The worker, and two batches.
                block.hold();
                block.hold();
                open.extend([number; 3]);
                all.push((block, 3));
                start += length;
            }
            file.end();
            for index in order {
                if open.is_empty() {
                    break;
                }
                let number = open.swap_remove(index.index(open.len()));
                let (block, left) = &mut all[number];
                block.count(one(1));
                block.release();
                *left -= 1;
                let complete = all.iter().take_while(|(_, left)| *left == 0);
                let expected = complete.fold((0, 0), |(_, count), (block, _)| (block.range.end, count + 3));
                let (position, counts) = file.position();
                prop_assert_eq!((position.answered, counts.inserted), expected);
                prop_assert_eq!((position.read, position.is_done), (start, open.is_empty()));
            }
        }
    }

    fn batch(rows: u32) -> RowBatch {
        let mut batch = RowBatch::new(BatchMessage::new("n", BatchFlags::default()));
        append(&mut batch, rows);
        batch
    }

    fn append(batch: &mut RowBatch, rows: u32) {
        use abs_cluster::{Exists, Generation, RowHead, TTL_NEVER};
        for _ in 0..rows {
            let (digest, exists, generation) = (Default::default(), Exists::Update, Generation::Any);
            batch.rows.row(&RowHead { digest, exists, generation, ttl: TTL_NEVER }).finish();
        }
    }

    /// Protects: rows that are sent again in other batches keep their block incomplete until the last of them is answered,
    /// and a batch that is dropped without answers keeps it so for good.
    #[test]
    fn rows_that_are_regrouped_hold_their_blocks() {
        let file = Arc::new(FileAnswers::new("f", 1));
        let (one, two) = (file.begin(0..10), file.begin(10..20));
        let mut whole = batch(3);
        whole.mark(&one);
        one.release();
        append(&mut whole, 2);
        whole.mark(&two);
        whole.mark(&two);
        two.release();
        let ranges: Vec<_> = whole.blocks().map(|(rows, _)| rows).collect();
        assert_eq!(ranges, [0..3, 3..5]);
        let mut parts = [batch(0), batch(0)];
        for row in 0..5 {
            parts[row % 2].append_row_of(&whole, row);
        }
        whole.release();
        let ranges = parts.each_ref().map(|part| part.blocks().map(|(rows, _)| rows).collect::<Vec<_>>());
        assert_eq!(ranges, [[0..2, 2..3], [0..1, 1..2]]);
        let answered = || file.position().0.answered;
        assert_eq!(answered(), 0);
        parts[1].release();
        assert_eq!(answered(), 0);
        let [mut first, _] = parts;
        first.release();
        assert_eq!(answered(), 20);

        let lost = file.begin(20..30);
        let mut dropped = batch(1);
        dropped.mark(&lost);
        drop(dropped);
        lost.release();
        assert_eq!((answered(), file.position().0.is_done), (20, false));
    }

    /// Protects: rows below the known offset are not sent, those that may have been sent are in doubt, no others.
    #[test]
    fn a_position_divides_a_file() {
        let position = FilePosition {
            answered: 20,
            read: 30,
            size: 100,
            path: "f".to_owned(),
            ..FilePosition::default()
        };
        let file = Arc::new(FileAnswers::from_position(&position, 10));
        let of = |range| {
            let block = file.begin(range);
            (block.is_known(), block.is_in_doubt())
        };
        assert_eq!([of(0..20), of(20..40), of(40..50)], [(true, true), (false, true), (false, false)]);
        let mut unknown = Unknown::new();
        let unbegun = FilePosition { size: UNKNOWN - 5, ..FilePosition::default() };
        assert_eq!([unknown.share(&position), unknown.share(&unbegun)], [UNKNOWN, UNKNOWN]);
        assert_eq!([unknown.share(&unbegun), unknown.share(&unbegun)], [5, 0]);
    }
}
