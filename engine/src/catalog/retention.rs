//! Which runs the policy keeps no longer.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use abs_config::Retention;
use abs_storage::ObjectPath;
use chrono::{DateTime, Utc};

use super::Backup;

/// The folders of the runs that `retention` keeps no longer, in the order to delete them in: the incremental ones from
/// the newest to the oldest, then the full ones from the oldest to the newest. Should it end in the middle, what is
/// left is whole chains.
///
/// What counts:
/// - Every namespace counts for itself: it keeps its own last `full` full backups. A run goes when no namespace needs
///   it. So a namespace that failed in later runs, or is not backed up any more, keeps its last full backups, and the
///   runs they are in stay whole.
/// - An incremental backup belongs to the last full backup of its namespace that was begun before it or with it. It is
///   kept with the last `incremental` of the full backups (with all that count if none is given). Those made since the
///   last full backup are always kept, for the next ones build on them: 0 does the same as 1, and means that
///   each full backup sends those before it away.
/// - An incremental backup older than all full backups of its namespace is of no use and goes. Where a namespace has no
///   full backup at all, nothing is deleted: it rather cannot be seen.
/// - Without any limit nothing goes. The last full backup of a namespace never goes.
#[must_use]
pub fn expired(fulls: &[Backup], incrementals: &[Backup], retention: Retention) -> Vec<ObjectPath> {
    if retention == Retention::default() {
        return Vec::new();
    }
    let most = |limit: Option<u32>| limit.map_or(usize::MAX, |limit| (limit as usize).max(1));
    let keep_full = most(retention.full);
    let keep_incremental = most(retention.incremental).min(keep_full);

    let mut times: HashMap<&str, BTreeSet<DateTime<Utc>>> = HashMap::new();
    for full in fulls {
        times.entry(full.namespace()).or_default().insert(full.created);
    }
    // How many full backups of the namespace are newer than the one that the moment belongs to.
    let newer = |backup: &Backup| {
        let times = times.get(backup.namespace())?;
        let belongs_to = times.range(..=backup.created).next_back()?;
        Some(times.range(belongs_to..).count() - 1)
    };
    let is_needed = |backup: &Backup| match newer(backup) {
        Some(newer) => newer < keep_incremental,
        None => !times.contains_key(backup.namespace()),
    };
    let mut runs = runs_without(incrementals, is_needed);
    runs.reverse();
    runs.extend(runs_without(fulls, |full| newer(full).is_none_or(|newer| newer < keep_full)));
    runs
}

/// The runs none of whose backups is needed, the oldest first.
fn runs_without(backups: &[Backup], is_needed: impl Fn(&Backup) -> bool) -> Vec<ObjectPath> {
    let mut runs = BTreeMap::new();
    for backup in backups {
        *runs.entry((backup.created, &backup.run)).or_insert(false) |= is_needed(backup);
    }
    runs.into_iter().filter(|(_, needed)| !needed).map(|((_, run), _)| run.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::super::BackupKind::{Full, Incremental};
    use super::super::testing::{at, backup, run};
    use super::*;

    fn keep(full: impl Into<Option<u32>>, incremental: impl Into<Option<u32>>) -> Retention {
        Retention { full: full.into(), incremental: incremental.into() }
    }

    fn fulls(all: &[(&str, i64)]) -> Vec<Backup> {
        all.iter().map(|(namespace, minute)| backup(namespace, at(*minute), None)).collect()
    }

    fn incrementals(all: &[(&str, i64)]) -> Vec<Backup> {
        all.iter().map(|(namespace, minute)| backup(namespace, at(*minute), Some(at(minute - 1)))).collect()
    }

    #[test]
    fn the_last_full_backups_and_what_belongs_to_them_are_kept() {
        let fulls = fulls(&[("a", 0), ("a", 10), ("a", 20)]);
        let incrementals = incrementals(&[("a", 5), ("a", 6), ("a", 15), ("a", 25)]);
        let expired = |retention| expired(&fulls, &incrementals, retention);
        let first = [run(Incremental, 6), run(Incremental, 5), run(Full, 0)];
        assert_eq!(expired(keep(None, None)), []);
        assert_eq!(expired(keep(3, None)), []);
        assert_eq!(expired(keep(2, None)), first);
        assert_eq!(expired(keep(2, 2)), first);
        assert_eq!(expired(keep(3, 2)), first[..2]);
        let only_last = [run(Incremental, 15), run(Incremental, 6), run(Incremental, 5)];
        for incremental in [0, 1] {
            assert_eq!(expired(keep(None, incremental)), only_last, "{incremental}");
        }
        assert_eq!(expired(keep(1, 0)), [&only_last[..], &[run(Full, 0), run(Full, 10)]].concat());
    }

    #[test]
    fn a_namespace_that_fails_keeps_its_last_full_backups() {
        // `b` failed in the last three runs; `c` is not backed up any more.
        let fulls =
            fulls(&[("a", 0), ("b", 0), ("c", 0), ("a", 10), ("b", 10), ("a", 20), ("a", 30), ("a", 40)]);
        let expired = |count| expired(&fulls, &[], keep(count, None));
        assert_eq!(expired(1), [run(Full, 20), run(Full, 30)]);
        assert_eq!(expired(2), [run(Full, 20)]);
    }

    #[test]
    fn what_has_no_full_backup_is_left_alone_or_useless() {
        let fulls = fulls(&[("a", 10)]);
        let incrementals = incrementals(&[("a", 5), ("b", 5), ("b", 6), ("a", 7)]);
        assert_eq!(expired(&fulls, &incrementals, keep(5, None)), [run(Incremental, 7)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn what_is_needed_stays_and_nothing_else(
            made in prop::collection::vec((any::<bool>(), 1..8_u8), 0..40),
            full in prop::option::of(1..5_u32),
            incremental in prop::option::of(0..5_u32),
        ) {
            let retention = keep(full, incremental.map(|incremental| incremental.min(full.unwrap_or(9))));
            let (mut fulls, mut incrementals) = (Vec::new(), Vec::new());
            for (minute, (is_full, namespaces)) in (0..).zip(made) {
                for (bit, namespace) in ["a", "b", "c"].into_iter().enumerate() {
                    if namespaces & (1 << bit) != 0 {
                        let from = (!is_full).then(|| at(minute - 1));
                        let list = if is_full { &mut fulls } else { &mut incrementals };
                        list.push(backup(namespace, at(minute), from));
                    }
                }
            }
            let runs = expired(&fulls, &incrementals, retention);
            let going: HashSet<_> = runs.iter().collect();
            prop_assert_eq!(going.len(), runs.len(), "each is named once");
            let of = |namespace: &str| -> Vec<&Backup> {
                let own = fulls.iter().filter(|full| full.namespace() == namespace);
                let mut own: Vec<_> = own.collect();
                own.reverse();
                own
            };
            let count = retention.full.map_or(usize::MAX, |count| count as usize);
            let with_incrementals = retention.incremental.map_or(count, |count| (count as usize).max(1)).min(count);
            for namespace in ["a", "b", "c"] {
                for full in of(namespace).iter().take(count) {
                    prop_assert!(!going.contains(&full.run), "one of the last {count} of {namespace} goes");
                }
            }
            for full in &fulls {
                let newer = of(full.namespace()).iter().filter(|other| other.created > full.created).count();
                if going.contains(&full.run) {
                    prop_assert!(newer >= count);
                } else if newer >= count {
                    // It stays because of another namespace of its run.
                    let stays = fulls.iter().filter(|other| other.run == full.run).any(|other| {
                        of(other.namespace()).iter().take(count).any(|kept| kept.run == full.run)
                    });
                    prop_assert!(stays, "{} is of no use", full.run);
                }
            }
            let is_limited = retention != Retention::default();
            let is_needed = |backup: &Backup| {
                let fulls = of(backup.namespace());
                match fulls.iter().position(|full| full.created <= backup.created) {
                    Some(newer) => {
                        assert!(newer >= with_incrementals || !going.contains(&fulls[newer].run), "it needs it");
                        newer < with_incrementals
                    }
                    None => fulls.is_empty(),
                }
            };
            for one in &incrementals {
                let needed = incrementals.iter().filter(|other| other.run == one.run).any(is_needed);
                prop_assert_eq!(going.contains(&one.run), is_limited && !needed, "{}", one.run);
            }
            // Deleting may end anywhere, and goes on where it ended.
            for done in 0..=runs.len() {
                let gone: HashSet<_> = runs[..done].iter().collect();
                let left = |all: &[Backup]| -> Vec<_> {
                    all.iter().filter(|backup| !gone.contains(&backup.run)).cloned().collect()
                };
                prop_assert_eq!(&expired(&left(&fulls), &left(&incrementals), retention)[..], &runs[done..]);
            }
        }
    }
}
