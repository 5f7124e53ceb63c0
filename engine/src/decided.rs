//! The digests that the newer backups of a chain have decided, within a bound of memory.
//!
//! While a link of a chain is read, a [`DigestCollector`] gathers its digests in sorted chunks. When the link has been
//! read, they are merged with those of the newer links into [`DecidedDigests`], which the next link asks and which never
//! change. As long as they need at most half of the bound they are one sorted array in memory; the other half is for the
//! merge. Beyond that they are one sorted array in an unlinked temporary file, with a Bloom filter in front of it.
//!
//! A key is the partition of a digest and the 12 bytes after it. Of 10^9 digests, all decided, the chance that two that
//! differ share a key is about 10^-15; with 8 bytes it would be one in 150,000.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use abs_asb::Digest;
use abs_cluster::{PARTITIONS, partition_of};
use fastbloom::BloomFilter;

/// Bytes of a key.
pub(crate) const KEY: usize = 14;

/// What is kept of a digest: its partition, big-endian, then 12 of its further bytes. Keys sort by partition.
pub(crate) type Key = [u8; KEY];

/// The most keys of a chunk: 224 KiB.
const CHUNK: usize = 16 << 10;
/// Keys that are read from a file at a time to find one among them: about 14 KiB, which holds the key at the first try
/// nearly always, since the keys of a partition are evenly spread.
const PAGE: u64 = 1024;
/// Bits of the filter for each key: about one false positive in a hundred.
const FILTER_BITS: usize = 10;
/// Bytes of the buffer of a run that is merged.
const BUFFER: usize = 64 << 10;

/// The key of a digest.
#[inline]
pub(crate) fn key_of(digest: &Digest) -> Key {
    let mut key = [0; KEY];
    key[..2].copy_from_slice(&partition_of(digest).to_be_bytes());
    key[2..].copy_from_slice(&digest[2..KEY]);
    key
}

fn partition_of_key(key: &Key) -> usize {
    usize::from(u16::from_be_bytes([key[0], key[1]]))
}

/// The digests that were decided, frozen.
#[derive(Debug)]
pub(crate) struct DecidedDigests {
    /// Where the keys of each partition begin, and where the last ones end; empty without keys.
    offsets: Vec<u64>,
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    Memory(Vec<Key>),
    File { file: File, filter: Box<BloomFilter> },
}

impl Default for DecidedDigests {
    fn default() -> Self {
        Self { offsets: Vec::new(), keys: Keys::Memory(Vec::new()) }
    }
}

impl DecidedDigests {
    /// True when nothing was decided yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Whether a digest was decided. Keys in a file are read into `page` by the calling thread, which is as short as a page
    /// fault while the file is in the page cache.
    #[inline]
    pub(crate) fn contains(&self, key: &Key, page: &mut Vec<Key>) -> io::Result<bool> {
        let partition = partition_of_key(key);
        let Some(&[from, to]) = self.offsets.get(partition..partition + 2) else { return Ok(false) };
        match &self.keys {
            Keys::Memory(keys) => Ok(keys[from as usize..to as usize].binary_search(key).is_ok()),
            Keys::File { file, filter } => Ok(filter.contains(key) && find(file, key, from..to, page)?),
        }
    }

    fn len(&self) -> u64 {
        self.offsets.last().copied().unwrap_or_default()
    }

    /// Bytes of the keys in memory.
    fn key_bytes(&self) -> usize {
        if let Keys::Memory(keys) = &self.keys { keys.len() * KEY } else { 0 }
    }

    fn into_source(self) -> io::Result<Source> {
        Ok(match self.keys {
            Keys::Memory(keys) => Source::Memory(keys.into_iter()),
            Keys::File { file, .. } => Source::file(file)?,
        })
    }
}

/// Looks for a key among the sorted ones of a file, at these places.
fn find(file: &File, key: &Key, places: Range<u64>, page: &mut Vec<Key>) -> io::Result<bool> {
    let Range { start: mut low, end: mut high } = places;
    let fraction = key[2..10].iter().fold(0_u128, |sum, &byte| sum << 8 | u128::from(byte));
    let mut guess = low + ((u128::from(high - low) * fraction) >> 64) as u64;
    let mut step = PAGE;
    page.resize(PAGE as usize, [0; KEY]);
    while low < high {
        let start = guess.saturating_sub(PAGE / 2).clamp(low, high - 1);
        let end = (start + PAGE).min(high);
        let keys = &mut page[..(end - start) as usize];
        file.read_exact_at(keys.as_flattened_mut(), start * KEY as u64)?;
        if key < &keys[0] {
            high = start;
            guess = start.saturating_sub(step);
        } else if key > &keys[keys.len() - 1] {
            low = end;
            guess = end.saturating_add(step);
        } else {
            return Ok(keys.binary_search(key).is_ok());
        }
        // Evenly spread keys are near the guess; the growing steps bound the reads for any others.
        step *= 2;
    }
    Ok(false)
}

/// Gathers the digests of the link that is being read.
#[derive(Debug)]
pub(crate) struct DigestCollector {
    /// Bytes that the digests of this chain may take.
    limit: usize,
    /// Bytes of the keys in memory that newer links decided.
    decided: usize,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    /// Sorted.
    chunks: Vec<Vec<Key>>,
    /// Keys in them.
    keys: usize,
    /// Sorted runs in files of their own.
    runs: Vec<(File, u64)>,
}

impl DigestCollector {
    /// A collector whose digests go on top of `decided`; together they take at most `limit` bytes of memory.
    pub(crate) fn new(limit: usize, decided: &DecidedDigests) -> Self {
        Self { limit, decided: decided.key_bytes(), pending: Mutex::default() }
    }

    /// How many keys a chunk has.
    pub(crate) fn chunk(&self) -> usize {
        (self.limit / KEY / 16).clamp(1, CHUNK)
    }

    /// Takes a chunk of keys, in any order. May write to a file: to be called where it may block.
    pub(crate) fn add(&self, mut chunk: Vec<Key>) -> io::Result<()> {
        chunk.sort_unstable();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.keys += chunk.len();
        pending.chunks.push(chunk);
        let bytes = pending.keys * KEY;
        // Newer links may fill the bound alone: runs must not become tiny for that.
        if bytes >= self.limit / 4 && bytes + self.decided > self.limit / 2 {
            pending.keys = 0;
            let chunks = std::mem::take(&mut pending.chunks);
            let sources = chunks.into_iter().map(|chunk| Source::Memory(chunk.into_iter())).collect();
            let mut file = BufWriter::with_capacity(BUFFER, tempfile::tempfile()?);
            let count = merge(sources, |key| file.write_all(&key))?;
            pending.runs.push((file.into_inner().map_err(io::IntoInnerError::into_error)?, count));
        }
        Ok(())
    }

    /// Merges what was gathered with what newer links decided. Blocks.
    pub(crate) fn freeze(self, decided: DecidedDigests) -> io::Result<DecidedDigests> {
        let Pending { chunks, keys, runs } =
            self.pending.into_inner().unwrap_or_else(PoisonError::into_inner);
        let count = keys as u64 + runs.iter().map(|(_, count)| count).sum::<u64>() + decided.len();
        if count == 0 {
            return Ok(decided);
        }
        let in_memory = runs.is_empty()
            && matches!(decided.keys, Keys::Memory(_))
            && count as usize * KEY <= self.limit / 2;
        let mut sources = vec![decided.into_source()?];
        sources.extend(chunks.into_iter().map(|chunk| Source::Memory(chunk.into_iter())));
        for (run, _) in runs {
            sources.push(Source::file(run)?);
        }
        let mut offsets = Offsets::default();
        if in_memory {
            let mut keys = Vec::with_capacity(count as usize);
            merge(sources, |key| {
                offsets.count(&key);
                keys.push(key);
                Ok(())
            })?;
            return Ok(DecidedDigests { offsets: offsets.finish(), keys: Keys::Memory(keys) });
        }
        let bits = (count as usize).saturating_mul(FILTER_BITS).min(self.limit / 4 * 8).max(64);
        let mut filter = BloomFilter::with_num_bits(bits).expected_items(count as usize);
        let mut file = BufWriter::with_capacity(BUFFER, tempfile::tempfile()?);
        merge(sources, |key| {
            offsets.count(&key);
            filter.insert(&key);
            file.write_all(&key)
        })?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(DecidedDigests { offsets: offsets.finish(), keys: Keys::File { file, filter: Box::new(filter) } })
    }
}

/// Notes where the keys of each partition begin.
#[derive(Default)]
struct Offsets {
    offsets: Vec<u64>,
    keys: u64,
}

impl Offsets {
    /// Counts the next key, in order.
    fn count(&mut self, key: &Key) {
        self.offsets.resize((partition_of_key(key) + 1).max(self.offsets.len()), self.keys);
        self.keys += 1;
    }

    fn finish(mut self) -> Vec<u64> {
        self.offsets.resize(usize::from(PARTITIONS) + 1, self.keys);
        self.offsets
    }
}

/// Sorted keys to merge.
enum Source {
    Memory(std::vec::IntoIter<Key>),
    File(BufReader<File>),
}

impl Source {
    /// The keys of a file, from its start.
    fn file(mut file: File) -> io::Result<Self> {
        file.rewind()?;
        Ok(Self::File(BufReader::with_capacity(BUFFER, file)))
    }

    fn next(&mut self) -> io::Result<Option<Key>> {
        match self {
            Self::Memory(keys) => Ok(keys.next()),
            Self::File(reader) => {
                let mut key = [0; KEY];
                match reader.read_exact(&mut key) {
                    Ok(()) => Ok(Some(key)),
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
                    Err(e) => Err(e),
                }
            }
        }
    }
}

/// Gives each key of the sorted `sources` to `sink` once, in order; returns how many there were.
fn merge(mut sources: Vec<Source>, mut sink: impl FnMut(Key) -> io::Result<()>) -> io::Result<u64> {
    let mut heads = BinaryHeap::with_capacity(sources.len());
    for (index, source) in sources.iter_mut().enumerate() {
        heads.extend(source.next()?.map(|key| Reverse((key, index))));
    }
    let (mut last, mut count) = (None, 0);
    while let Some(mut head) = heads.peek_mut() {
        let Reverse((key, index)) = *head;
        match sources[index].next()? {
            Some(next) => *head = Reverse((next, index)),
            None => _ = std::collections::binary_heap::PeekMut::pop(head),
        }
        if last != Some(key) {
            sink(key)?;
            last = Some(key);
            count += 1;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// A digest of few possible values, so that sets overlap, spread over the partitions.
    fn digest(number: u16) -> Digest {
        let mut digest = Digest::default();
        let mixed = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        digest[..8].copy_from_slice(&mixed.to_le_bytes());
        digest[8..16].copy_from_slice(&mixed.rotate_left(17).to_le_bytes());
        digest
    }

    /// Collects links one after the other, each by two workers, and compares each frozen set with a plain one.
    fn check(links: &[Vec<u16>], limit: usize) -> bool {
        let (mut decided, mut model) = (DecidedDigests::default(), BTreeSet::<u16>::new());
        for link in links {
            let collector = DigestCollector::new(limit, &decided);
            for half in link.chunks(link.len().div_ceil(2).max(1)) {
                for chunk in half.chunks(collector.chunk()) {
                    collector.add(chunk.iter().map(|number| key_of(&digest(*number))).collect()).unwrap();
                }
            }
            decided = collector.freeze(decided).unwrap();
            model.extend(link);
            assert_eq!(decided.len(), model.len() as u64);
            for number in 0..3000 {
                assert_eq!(
                    decided.contains(&key_of(&digest(number)), &mut Vec::new()).unwrap(),
                    model.contains(&number)
                );
            }
        }
        matches!(decided.keys, Keys::File { .. })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Protects: within 4 KiB, of which the rest is in files, as in memory, a frozen set holds what was collected, no
        /// more and no less.
        #[test]
        fn a_frozen_set_holds_what_was_collected(
            links in prop::collection::vec(prop::collection::vec(0_u16..3000, 0..700), 1..5),
        ) {
            check(&links, 4096);
            prop_assert!(!check(&links, 1 << 20), "a megabyte is enough");
        }
    }

    /// Protects: the test above meets both kinds of sets.
    #[test]
    fn sets_beyond_the_bound_are_in_a_file() {
        assert!(check(&[(0..1000).collect(), (500..1500).collect()], 4096));
    }

    /// Protects: keys that are not evenly spread are found, too.
    #[test]
    fn crowded_keys_are_found() {
        let key = |number: u32| {
            let mut key = [0; KEY];
            key[..2].copy_from_slice(&7_u16.to_be_bytes());
            key[10..].copy_from_slice(&number.to_be_bytes());
            key
        };
        let collector = DigestCollector::new(4096, &DecidedDigests::default());
        for number in (0..20_000).step_by(2) {
            collector.add(vec![key(number)]).unwrap();
        }
        let decided = collector.freeze(DecidedDigests::default()).unwrap();
        assert!(matches!(decided.keys, Keys::File { .. }));
        for number in 0..20_000 {
            assert_eq!(decided.contains(&key(number), &mut Vec::new()).unwrap(), number % 2 == 0, "{number}");
        }
    }
}
