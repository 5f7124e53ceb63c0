//! Which part of a namespace a backup holds, as a short hash.

use std::collections::BTreeSet;

use abs_cluster::PARTITIONS;
use sha2::{Digest as _, Sha256};

use crate::plan::{BackupPlan, PartitionChoice};

impl BackupPlan {
    /// The `selection` of a backup's metadata.yaml: a hash of the sets, bins, filter, partitions, nodes and racks that were
    /// asked for, and of whether records were. Neither their order nor repetitions count. Backups can build on each other
    /// only if they have the same one.
    #[must_use]
    pub fn selection(&self) -> String {
        let mut hash = Sha256::new();
        add(&mut hash, "sets", self.sets.iter().collect::<BTreeSet<_>>());
        add(&mut hash, "bins", self.bins.iter().collect::<BTreeSet<_>>());
        add(&mut hash, "filter", self.filter.iter());
        let all: BTreeSet<_> = (0..PARTITIONS).collect();
        match &self.partitions {
            PartitionChoice::All => {}
            PartitionChoice::Partitions(ids) => {
                let ids: BTreeSet<_> = ids.iter().copied().collect();
                if ids != all {
                    add(&mut hash, "partitions", ids);
                }
            }
            PartitionChoice::Nodes(names) => add(&mut hash, "nodes", names.iter().collect::<BTreeSet<_>>()),
            PartitionChoice::Racks(ids) => add(&mut hash, "racks", ids.iter().collect::<BTreeSet<_>>()),
        }
        add(&mut hash, "no-records", self.no_records.then_some(true));
        let hash = hash.finalize()[..8].iter().fold(0_u64, |hash, byte| hash << 8 | u64::from(*byte));
        format!("{hash:016x}")
    }
}

/// Adds a list to a hash; an empty one leaves no trace, so that a new key does not change what was hashed before.
fn add<T: ToString>(hash: &mut Sha256, key: &str, values: impl IntoIterator<Item = T>) {
    let values: Vec<_> = values.into_iter().map(|value| value.to_string()).collect();
    if values.is_empty() {
        return;
    }
    hash.update(format!("{key} {}\n", values.len()));
    for value in values {
        hash.update(format!("{} {value}\n", value.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    /// Protects: backups of the same part of a namespace have the same selection for ever, however it was asked for, and
    /// nothing else counts.
    #[test]
    fn the_same_part_has_the_same_selection() {
        let whole = BackupPlan::new("n");
        assert_eq!(whole.selection(), "e3b0c44298fc1c14");
        let all = PartitionChoice::Partitions((0..4096).rev().collect());
        assert_eq!(BackupPlan { partitions: all, ..whole.clone() }.selection(), whole.selection());
        let other = BackupPlan {
            compact: true,
            sealed: true,
            prefer_racks: vec![1],
            no_indexes: true,
            ..BackupPlan::new("other")
        };
        assert_eq!(other.selection(), whole.selection());
        let sets = |sets: &[&str]| BackupPlan { sets: strings(sets), ..whole.clone() }.selection();
        assert_eq!(sets(&["a", "b"]), sets(&["b", "a", "b"]));
        assert_eq!(sets(&["a", "b"]), "afe32470287d57e2");
    }

    /// Protects: no two parts are taken for the same.
    #[test]
    fn different_parts_have_different_selections() {
        let whole = BackupPlan::new("n");
        let part = |change: &dyn Fn(&mut BackupPlan)| {
            let mut plan = whole.clone();
            change(&mut plan);
            plan.selection()
        };
        let parts = [
            whole.selection(),
            part(&|plan| plan.sets = strings(&["a"])),
            part(&|plan| plan.sets = strings(&["a", "b"])),
            part(&|plan| plan.sets = strings(&["a\n1 b"])),
            part(&|plan| plan.bins = strings(&["a"])),
            part(&|plan| plan.filter = Some("a".to_owned())),
            part(&|plan| plan.partitions = PartitionChoice::Partitions(vec![1])),
            part(&|plan| plan.partitions = PartitionChoice::Racks(vec![1])),
            part(&|plan| plan.partitions = PartitionChoice::Nodes(strings(&["1"]))),
            part(&|plan| plan.no_records = true),
        ];
        let different: BTreeSet<_> = parts.iter().collect();
        assert_eq!(different.len(), parts.len(), "{parts:?}");
    }
}
