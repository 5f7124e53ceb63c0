//! How far the partitions of a run have been read into blocks that its file writers have.

use std::sync::{Mutex, MutexGuard, PoisonError};

use abs_asb::Digest;
use abs_cluster::{PARTITIONS, PartitionCursor};

/// How far a partition has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Up to the record of this digest; nothing yet without one.
    UpTo(Option<Digest>),
    /// To its end.
    Whole,
}

/// The cursors of a run. What is in a block that was handed over is never taken back, so going on from here loses no record
/// and writes none twice.
#[derive(Debug)]
pub(crate) struct Cursors {
    /// By partition; none for those that the run does not read.
    extents: Mutex<Vec<Option<Extent>>>,
    /// Held for reading from before a block is handed over until its cursors are noted, and for writing by a checkpoint, so
    /// that its cursors are exactly those of the blocks before its mark.
    pub gate: tokio::sync::RwLock<()>,
}

impl Cursors {
    /// The cursors of a run that reads these partitions.
    pub(crate) fn new(partitions: impl IntoIterator<Item = (u16, Extent)>) -> Self {
        let mut extents = vec![None; usize::from(PARTITIONS)];
        for (partition, extent) in partitions {
            extents[usize::from(partition)] = Some(extent);
        }
        Self { extents: Mutex::new(extents), gate: tokio::sync::RwLock::default() }
    }

    /// Notes how far these partitions have been read.
    pub(crate) fn set(&self, cursors: &[PartitionCursor]) {
        let mut extents = self.extents();
        for cursor in cursors {
            extents[usize::from(cursor.partition)] = Some(Extent::UpTo(cursor.after));
        }
    }

    /// Notes a partition that has been read to its end.
    pub(crate) fn end(&self, partition: u16) {
        self.extents()[usize::from(partition)] = Some(Extent::Whole);
    }

    /// Where to go on with a partition that has not been read to its end.
    pub(crate) fn of(&self, partition: u16) -> PartitionCursor {
        let after = match self.extents()[usize::from(partition)] {
            Some(Extent::UpTo(after)) => after,
            Some(Extent::Whole) | None => None,
        };
        PartitionCursor { partition, after }
    }

    /// The partitions that have not been read to their ends.
    pub(crate) fn left(&self) -> Vec<PartitionCursor> {
        let extents = self.extents();
        let cursor = |(partition, extent): (u16, &Option<Extent>)| match extent {
            Some(Extent::UpTo(after)) => Some(PartitionCursor { partition, after: *after }),
            Some(Extent::Whole) | None => None,
        };
        (0..).zip(extents.iter()).filter_map(cursor).collect()
    }

    /// All of them at this moment, by partition.
    pub(crate) fn all(&self) -> Vec<Option<Extent>> {
        self.extents().clone()
    }

    fn extents(&self) -> MutexGuard<'_, Vec<Option<Extent>>> {
        self.extents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
