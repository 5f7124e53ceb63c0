//! The names of blocks. Azure knows nothing of uploads but these names, so they tell whose a block is and how old.

use std::time::{Duration, SystemTime};

/// How the names of our blocks begin.
const MARK: &str = "abs";

/// An upload: what the names of its blocks have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upload {
    id: u64,
    /// Other uploads to the same blob: one that is found after a crash may be mixed up with them.
    others: Vec<u64>,
}

impl Upload {
    /// A new upload.
    pub(super) fn begin() -> Self {
        Self { id: fastrand::u64(..), others: Vec::new() }
    }

    /// The upload that wrote these blocks; all of them, if they are of several. None if there are no blocks.
    pub(super) fn of(blocks: &[BlockName]) -> Option<Self> {
        let mut others: Vec<u64> = blocks.iter().map(|block| block.upload).collect();
        others.sort_unstable();
        others.dedup();
        Some(Self { id: others.pop()?, others })
    }

    /// The name of the block with a part of this upload that is written now.
    pub(super) fn block(&self, part: u32) -> BlockName {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Whole milliseconds: the name has no room for more.
        let written = SystemTime::UNIX_EPOCH + Duration::from_millis(since.as_millis() as u64);
        BlockName { upload: self.id, part, written }
    }

    /// Whether this upload wrote the block.
    pub(super) fn wrote(&self, block: &BlockName) -> bool {
        block.upload == self.id || self.others.contains(&block.upload)
    }
}

/// The name of a block: `abs`, and in hexadecimal digits when it was written (in milliseconds), its upload and its part.
/// All names of blocks of one blob must have the same length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockName {
    upload: u64,
    part: u32,
    /// When it was sent.
    pub(super) written: SystemTime,
}

impl BlockName {
    /// The name as Azure knows it.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let written = self.written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        format!("{MARK}{written:012x}{:016x}{:08x}", self.upload, self.part).into_bytes()
    }

    /// None if this program did not write the block of that name.
    pub(super) fn parse(name: &[u8]) -> Option<Self> {
        let digits = str::from_utf8(name).ok()?.strip_prefix(MARK).filter(|digits| digits.len() == 36)?;
        let number = |range| u64::from_str_radix(digits.get(range)?, 16).ok();
        Some(Self {
            written: SystemTime::UNIX_EPOCH + Duration::from_millis(number(0..12)?),
            upload: number(12..28)?,
            part: u32::try_from(number(28..36)?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_it_was_made_of() {
        let upload = Upload::begin();
        let now = SystemTime::now();
        for part in [1, 50_000, u32::MAX] {
            let block = upload.block(part);
            assert_eq!(BlockName::parse(&block.to_bytes()), Some(block.clone()));
            assert_eq!(
                block.to_bytes().len(),
                39,
                "blocks of one blob have names of one length, at most 64 bytes"
            );
            assert!(upload.wrote(&block));
            assert!(!Upload::begin().wrote(&block));
            assert!(block.written + Duration::from_millis(1) > now);
        }
    }

    #[test]
    fn names_of_strangers_are_told_apart() {
        for text in [
            "",
            "abs",
            "block-000001",
            "abs00000000000000000000000000000000000g",
            "abs+00000000000000000000000000000000000x",
        ] {
            assert_eq!(BlockName::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(BlockName::parse(b"abs\xff"), None);
    }

    #[test]
    fn uploads_that_are_mixed_up_are_one() {
        let (one, two) = (Upload::begin(), Upload::begin());
        let both = Upload::of(&[one.block(1), two.block(1), one.block(2)]).unwrap();
        assert!(both.wrote(&one.block(3)) && both.wrote(&two.block(3)));
        assert!(!one.wrote(&two.block(1)));
        assert_eq!(Upload::of(&[]), None);
    }
}
