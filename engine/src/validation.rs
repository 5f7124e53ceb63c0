//! What a restore would do, found out without writing anything.

use std::sync::{Mutex, PoisonError};

use abs_asb::Digest;
use abs_cluster::{BatchMessage, Cluster, ClusterError};
use serde::{Deserialize, Serialize};

use crate::plan::RestorePlan;

/// Records of which it is looked up what is stored, at the most.
const SAMPLE: usize = 1000;

/// What a restore would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Validation {
    /// The namespace it would write to.
    pub namespace: String,
    /// The folders of the backups, in the order in which they would be read.
    pub backups: Vec<String>,
    /// Their files.
    pub files: u64,
    /// The size of those, in bytes.
    pub bytes: u64,
    /// Records that would be sent to the cluster.
    pub records: u64,
    /// Indexes that would be created, or exist already.
    pub indexes: u64,
    /// Those that exist already with another definition, and would be left alone.
    pub conflicting_indexes: Vec<String>,
    /// UDF modules that would be registered.
    pub udfs: u64,
    /// What would become of a sample of the records.
    pub sample: Conflicts,
}

/// What would become of records, as things are stored now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Conflicts {
    /// Records that were looked up.
    pub records: u64,
    /// Not stored: they would be inserted.
    pub inserted: u64,
    /// Stored: they would be overwritten, whole or the bins of the backup.
    pub overwritten: u64,
    /// Left alone because the stored generation is not lower.
    pub fresher: u64,
    /// Left alone because they exist (`unique`).
    pub existed: u64,
}

impl Validation {
    /// Counts an index that a restore would create, or that it would leave alone.
    pub(crate) fn count_index(&mut self, name: &str, fits: bool) {
        if fits {
            self.indexes += 1;
        } else {
            self.conflicting_indexes.push(name.to_owned());
        }
    }
}

impl Conflicts {
    fn count(&mut self, plan: &RestorePlan, generation: u16, stored: Option<u32>) {
        self.records += 1;
        match stored {
            None => self.inserted += 1,
            Some(_) if plan.unique => self.existed += 1,
            Some(stored) if !plan.no_generation && stored >= u32::from(generation) => self.fresher += 1,
            Some(_) => self.overwritten += 1,
        }
    }
}

/// An evenly spread sample of rows that are not sent.
#[derive(Debug)]
pub(crate) struct RowSample(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Digests and generations.
    rows: Vec<(Digest, u16)>,
    /// Rows seen, and the number of the next one to take.
    seen: usize,
    next: usize,
    /// Every how many rows one is taken.
    stride: usize,
}

impl RowSample {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State { rows: Vec::new(), seen: 0, next: 0, stride: 1 }))
    }

    /// Takes some rows of a batch.
    pub(crate) fn take(&self, batch: &BatchMessage) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = state.seen + batch.len();
        while state.next < end {
            let row = state.next - state.seen;
            state.rows.push((batch.digest(row), batch.generation(row)));
            if state.rows.len() > SAMPLE {
                let mut is_kept = false;
                state.rows.retain(|_| {
                    is_kept = !is_kept;
                    is_kept
                });
                state.stride *= 2;
            }
            state.next += state.stride;
        }
        state.seen = end;
    }

    /// Looks up what is stored of the sample.
    pub(crate) async fn compare(
        &self,
        cluster: &Cluster,
        plan: &RestorePlan,
    ) -> Result<Conflicts, ClusterError> {
        let rows = std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).rows);
        let digests: Vec<_> = rows.iter().map(|(digest, _)| *digest).collect();
        let stored = cluster.generations(&plan.destination, &digests).await?;
        let mut conflicts = Conflicts::default();
        for ((_, generation), stored) in rows.into_iter().zip(stored) {
            conflicts.count(plan, generation, stored);
        }
        Ok(conflicts)
    }
}

#[cfg(test)]
mod tests {
    use abs_cluster::{BatchFlags, Exists, Generation, RowHead, TTL_NEVER};

    use super::*;

    /// Protects: the sample is bounded, and spread over all rows, whatever the sizes of the batches.
    #[test]
    fn a_sample_is_spread_over_all_rows() {
        for (batches, size) in [(3, 5), (40, 100), (7, 3001)] {
            let sample = RowSample::new();
            let mut number = 0_u32;
            for _ in 0..batches {
                let mut batch = BatchMessage::new("n", BatchFlags::default());
                for _ in 0..size {
                    let mut digest = Digest::default();
                    digest[..4].copy_from_slice(&number.to_le_bytes());
                    let (exists, generation) = (Exists::Update, Generation::Less(number as u16));
                    batch.row(&RowHead { digest, exists, generation, ttl: TTL_NEVER }).finish();
                    number += 1;
                }
                sample.take(&batch);
            }
            let State { rows, stride, .. } = sample.0.into_inner().unwrap();
            let numbers: Vec<_> = rows
                .iter()
                .map(|(digest, generation)| {
                    let number = u32::from_le_bytes(*digest.first_chunk().unwrap());
                    assert_eq!(*generation, number as u16);
                    number
                })
                .collect();
            let expected: Vec<_> = (0..number).step_by(stride).collect();
            assert_eq!(numbers, expected);
            assert!(numbers.len() <= SAMPLE && (number as usize <= SAMPLE || numbers.len() > SAMPLE / 2 - 1));
        }
    }

    /// Protects: what a validation says is what the policy does.
    #[test]
    fn conflicts_go_by_the_policy() {
        let plan = RestorePlan::new("n", "n");
        let unique = RestorePlan { unique: true, ..plan.clone() };
        let any = RestorePlan { no_generation: true, ..plan.clone() };
        for (plan, stored, expected) in [
            (&plan, None, [1, 0, 0, 0]),
            (&plan, Some(4), [0, 1, 0, 0]),
            (&plan, Some(5), [0, 0, 1, 0]),
            (&unique, Some(4), [0, 0, 0, 1]),
            (&unique, None, [1, 0, 0, 0]),
            (&any, Some(9), [0, 1, 0, 0]),
        ] {
            let mut found = Conflicts::default();
            found.count(plan, 5, stored);
            let Conflicts { records, inserted, overwritten, fresher, existed } = found;
            assert_eq!((records, [inserted, overwritten, fresher, existed]), (1, expected));
        }
    }
}
