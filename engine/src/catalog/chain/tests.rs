use std::sync::Arc;

use abs_storage::ObjectPath;
use proptest::prelude::*;

use super::super::CatalogError;
use super::super::testing::{Place, at, backup, metadata, path, run, traits};
use super::*;

/// The minutes of the backups that restore `test` to a minute.
async fn chain(place: &Place, minute: i64) -> Result<Vec<i64>, ChainError> {
    match place.catalog.chain("r", "test", at(minute)).await {
        Ok(chain) => Ok(chain.backups().map(|backup| minute_of(backup.created)).collect()),
        Err(CatalogError::Chain(e)) => Err(e),
        Err(e) => panic!("{e}"),
    }
}

fn minute_of(time: DateTime<Utc>) -> i64 {
    (time - at(0)).num_minutes()
}

fn delete(place: &Place, run: &ObjectPath) {
    std::fs::remove_dir_all(place.file(run.as_str())).unwrap();
}

fn incremental(minutes: i64) -> ObjectPath {
    run(BackupKind::Incremental, minutes)
}

#[tokio::test]
async fn differential_backups_are_all_applied() {
    let place = Place::new();
    place.full("test", 0);
    place.incremental("test", 10, 0);
    place.incremental("test", 20, 10);
    place.full("test", 25);
    place.incremental("test", 30, 25);
    for (minute, expected) in [
        (0, vec![0]),
        (9, vec![0]),
        (10, vec![0, 10]),
        (24, vec![0, 10, 20]),
        (25, vec![25]),
        (99, vec![25, 30]),
    ] {
        assert_eq!(chain(&place, minute).await.unwrap(), expected, "{minute}");
    }
    assert_eq!(place.catalog.namespaces_at("r", at(99)).await.unwrap(), ["test"]);
    assert!(place.catalog.namespaces_at("r", at(-1)).await.unwrap().is_empty());
}

#[tokio::test]
async fn of_cumulative_backups_the_last_is_applied() {
    let place = Place::new();
    place.full("test", 0);
    for minute in [10, 20, 30] {
        place.incremental("test", minute, 0);
    }
    assert_eq!(chain(&place, 19).await.unwrap(), [0, 10]);
    assert_eq!(chain(&place, 30).await.unwrap(), [0, 30]);
    delete(&place, &incremental(20));
    assert_eq!(chain(&place, 40).await.unwrap(), [0, 30], "nothing builds on it");
}

#[tokio::test]
async fn the_mode_may_change_between_two_full_backups() {
    let place = Place::new();
    place.full("test", 0);
    place.incremental("test", 10, 0);
    place.incremental("test", 20, 10);
    // Cumulative now.
    place.incremental("test", 30, 0);
    place.incremental("test", 40, 0);
    // And back.
    place.incremental("test", 50, 40);
    place.incremental("test", 60, 50);
    assert_eq!(chain(&place, 20).await.unwrap(), [0, 10, 20]);
    assert_eq!(chain(&place, 35).await.unwrap(), [0, 30]);
    assert_eq!(chain(&place, 60).await.unwrap(), [0, 40, 50, 60]);
    // What a shorter way leaves out is not needed.
    place.incremental("test", 70, 20);
    assert_eq!(chain(&place, 70).await.unwrap(), [0, 30, 70]);
}

#[tokio::test]
async fn an_incremental_backup_may_run_beside_a_full_one() {
    let place = Place::new();
    place.full("test", 0);
    place.incremental("test", 10, 0);
    place.full("test", 20);
    // Begun when the full one had not ended.
    place.incremental("test", 22, 10);
    place.incremental("test", 30, 22);
    assert_eq!(chain(&place, 30).await.unwrap(), [20, 22, 30]);
}

#[tokio::test]
async fn a_missing_backup_is_named_and_the_last_moment_before_it() {
    let place = Place::new();
    place.full("test", 0);
    for minute in [10, 20, 30, 40] {
        place.incremental("test", minute, minute - 10);
    }
    delete(&place, &incremental(20));
    let error = chain(&place, 50).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "routine r, namespace test: the backup of 2024-01-01T12:20:00Z (1704111600000) is missing, which that of \
         2024-01-01T12:30:00Z (1704112200000) builds on; the latest that can be restored before is \
         2024-01-01T12:10:00Z (1704111000000)"
    );
    assert_eq!(chain(&place, 10).await.unwrap(), [0, 10], "as the error says");
    assert_eq!(chain(&place, 19).await.unwrap(), [0, 10]);
    assert_eq!(chain(&place, 25).await.unwrap_err(), error, "there was a newer one for this moment, too");
    // A cumulative one needs nothing but the full one.
    place.incremental("test", 45, 0);
    assert_eq!(chain(&place, 50).await.unwrap(), [0, 45]);
    // What a full one that is gone held cannot be had either.
    place.full("test", 60);
    place.incremental("test", 70, 60);
    delete(&place, &run(BackupKind::Full, 60));
    let error = chain(&place, 70).await.unwrap_err();
    assert!(
        matches!(error, ChainError::Missing { moment, latest, .. } if (moment, latest) == (at(60), at(45)))
    );
}

#[tokio::test]
async fn without_a_full_backup_there_is_nothing_to_restore() {
    let place = Place::new();
    let message = |result: Result<Vec<i64>, ChainError>| result.unwrap_err().to_string();
    let start = "routine r, namespace test: there is no full backup at or before 2024-01-01T12:05:00Z (1704110700000)";
    assert_eq!(message(chain(&place, 5).await), start);
    place.incremental("test", 3, 0);
    place.full("other", 1);
    place.full("test", 6);
    place.full("test", 7);
    assert_eq!(
        message(chain(&place, 5).await),
        format!("{start}; the first is of 2024-01-01T12:06:00Z (1704110760000)")
    );
}

#[tokio::test]
async fn an_empty_incremental_backup_leaves_no_gap() {
    let place = Place::new();
    place.full("test", 0);
    place.full("other", 0);
    place.incremental("test", 10, 0);
    place.incremental("other", 10, 0);
    // Nothing of `test` had changed.
    place.incremental("other", 20, 10);
    place.incremental("test", 30, 20);
    place.incremental("other", 30, 20);
    assert_eq!(chain(&place, 30).await.unwrap(), [0, 10, 30]);
    assert_eq!(chain(&place, 20).await.unwrap(), [0, 10]);
    // But where a backup is that cannot be read, it was not empty.
    place.write("r/incremental/1704111600000/data/test/metadata.yaml", "damaged");
    let error = chain(&place, 30).await.unwrap_err();
    assert!(
        matches!(&error, ChainError::Unreadable { latest: Some(latest), .. } if *latest == at(10)),
        "{error}"
    );
    delete(&place, &incremental(20));
    assert!(matches!(chain(&place, 30).await.unwrap_err(), ChainError::Missing { .. }));
}

#[tokio::test]
async fn a_namespace_that_failed_is_not_taken_for_unchanged() {
    let place = Place::new();
    place.full("test", 0);
    place.full("other", 0);
    place.incremental("test", 5, 0);
    place.incremental("test", 10, 5);
    // Of both namespaces, but `test` failed; so the next one builds on the last that there is.
    place.incremental("other", 20, 0);
    place.incremental("test", 30, 10);
    assert_eq!(chain(&place, 30).await.unwrap(), [0, 5, 10, 30]);
}

#[tokio::test]
async fn a_backup_that_cannot_be_read_is_not_skipped_in_silence() {
    let place = Place::new();
    for namespace in ["test", "other"] {
        place.full(namespace, 0);
        place.incremental(namespace, 10, 0);
        place.full(namespace, 20);
    }
    let damage = |run: &ObjectPath| place.write(&format!("{run}/data/test/metadata.yaml"), "damaged");
    damage(&run(BackupKind::Full, 20));
    let error = chain(&place, 20).await.unwrap_err().to_string();
    assert!(
        error.starts_with(
            "routine r, namespace test: r/backup/1704111600000/data/test/metadata.yaml: the backup cannot"
        ),
        "{error}"
    );
    assert!(error.ends_with("can be restored without it is 2024-01-01T12:10:00Z (1704111000000)"), "{error}");
    assert_eq!(chain(&place, 19).await.unwrap(), [0, 10]);
    let others = place.catalog.chain("r", "other", at(20)).await.unwrap();
    assert_eq!((others.full.created, others.incrementals.len()), (at(20), 0), "it is no backup of this one");
    damage(&run(BackupKind::Incremental, 10));
    assert!(chain(&place, 10).await.is_err());
    damage(&run(BackupKind::Full, 0));
    assert!(matches!(chain(&place, 5).await.unwrap_err(), ChainError::Unreadable { latest: None, .. }));
}

#[tokio::test]
async fn backups_of_older_versions_follow_each_other() {
    let place = Place::new();
    place.full("test", 0);
    for (minute, from) in [(10, None), (20, None), (30, Some(25)), (40, Some(30))] {
        let mut old = metadata("test", at(minute) + chrono::TimeDelta::nanoseconds(999), from.map(at));
        old.compression.clear();
        place.backup(&format!("{}/data/test", incremental(minute)), &old);
    }
    assert_eq!(chain(&place, 40).await.unwrap(), [0, 10, 20, 30, 40]);
}

#[tokio::test]
async fn the_next_backup_builds_on_the_last_that_leaves_no_gap() {
    let place = Place::new();
    let foundations = |namespaces: &'static [&'static str], minute| {
        let names: Vec<_> = namespaces.iter().map(ToString::to_string).collect();
        let catalog = place.catalog.clone();
        let later = Misdated::default();
        async move { catalog.foundations("r", &names, at(minute), &traits("s"), &later).await.unwrap().of }
    };
    let foundation = |full, last| {
        let base = |minute| Base { created: at(minute), cluster_created: None };
        Foundation { full: base(full), last: base(last) }
    };
    assert!(foundations(&["test"], 99).await.is_empty());
    place.full("test", 0);
    place.full("other", 5);
    for minute in [10, 20, 30] {
        place.incremental("test", minute, minute - 10);
    }
    let found = foundations(&["test", "other", "new"], 99).await;
    assert_eq!(found["test"], foundation(0, 30));
    assert_eq!(found["other"], foundation(5, 5));
    assert_eq!(found.len(), 2);
    assert_eq!(foundations(&["test"], 20).await["test"].last.created, at(20));
    delete(&place, &incremental(20));
    let found = foundations(&["test"], 99).await["test"];
    assert_eq!(found, foundation(0, 10));
    place.incremental("test", 40, minute_of(found.last.created));
    assert_eq!(chain(&place, 40).await.unwrap(), [0, 10, 40], "the gap is closed");
}

/// Protects: an incremental backup never builds on one of another part of the namespace; one that does not say its part is
/// taken to be of the same.
#[tokio::test]
async fn another_selection_makes_a_full_backup_due() {
    let place = Place::new();
    let make = |minute, from: Option<i64>, selection: Option<&str>| {
        let mut backup = backup("test", at(minute), from.map(at));
        Arc::make_mut(&mut backup.metadata).selection = selection.map(str::to_owned);
        place.backup(backup.key.as_str(), &backup.metadata);
    };
    let names = ["test".to_owned(), "other".to_owned()];
    let due = async |minute: i64, selection: &str| {
        let later = Misdated::default();
        let found =
            place.catalog.foundations("r", &names, at(minute), &traits(selection), &later).await.unwrap();
        found.full_due.map(|due| due.to_string())
    };
    place.full("other", 0);
    make(0, None, None);
    assert_eq!(due(1, "a").await, None);
    make(5, Some(0), Some("a"));
    assert_eq!(due(6, "a").await, None);
    let changed = "the selection of the routine has changed since ";
    assert_eq!(due(6, "b").await, Some(format!("{changed}{}/data/test", incremental(5))));
    make(10, None, Some("b"));
    assert_eq!(due(11, "b").await, None);
    assert_eq!(due(11, "a").await, Some(format!("{changed}{}/data/test", run(BackupKind::Full, 10))));
}

/// Protects: a chain is restored with one key, so a change of the key or of the kind of encryption begins a new one; what does
/// not say its key is taken to have the same.
#[tokio::test]
async fn another_encryption_makes_a_full_backup_due() {
    let place = Place::new();
    let make = |minute, from: Option<i64>, mode: &str, key: Option<&str>| {
        let mut backup = backup("test", at(minute), from.map(at));
        let metadata = Arc::make_mut(&mut backup.metadata);
        (metadata.encryption, metadata.encryption_key) = (mode.to_owned(), key.map(str::to_owned));
        place.backup(backup.key.as_str(), &backup.metadata);
    };
    let names = ["test".to_owned()];
    let due = async |minute: i64, mode: &str, key: Option<&str>| {
        let (later, encryption_key) = (Misdated::default(), key.map(str::to_owned));
        let traits = ChainTraits { encryption: mode.to_owned(), encryption_key, ..traits("s") };
        place.catalog.foundations("r", &names, at(minute), &traits, &later).await.unwrap().full_due
    };
    make(0, None, "", None);
    assert_eq!(due(1, "AES128", Some("k")).await, None);
    make(5, Some(0), "AES128", None);
    assert_eq!(due(6, "AES128", Some("k")).await, None);
    let changed = Some(FullDue::Encryption { backup: path(&format!("{}/data/test", incremental(5))) });
    assert_eq!(due(6, "NONE", None).await, changed);
    make(5, Some(0), "AES128", Some("k"));
    assert_eq!(due(6, "AES128", Some("k")).await, None);
    assert_eq!(due(6, "AES128", Some("l")).await, changed);
}

#[tokio::test]
async fn the_storage_is_read_once_for_all_namespaces() {
    let place = Place::new();
    let namespaces: Vec<_> = (0..10).map(|i| format!("ns{i}")).collect();
    for namespace in &namespaces {
        place.full(namespace, 0);
        place.full(namespace, 1);
        for minute in 2..7 {
            place.incremental(namespace, minute, minute - 1);
        }
    }
    let chains = place.catalog.chains("r", &namespaces, at(6)).await.unwrap();
    assert_eq!(chains.len(), 10);
    assert!(chains.values().all(|chain| chain.as_ref().is_ok_and(|chain| chain.incrementals.len() == 5)));
    // The folder of runs, twice, and the newest run of the full ones; the folder of runs and five runs.
    assert_eq!(place.storage.requests(), (3 + 6, 10 + 50));
}

/// What happens in a minute of a routine with two namespaces.
#[derive(Clone, Debug)]
enum Event {
    /// A backup of a mode, in which a namespace may fail.
    Backup { mode: Mode, failed: Option<usize> },
    /// A record of a namespace changes.
    Write { namespace: usize, key: usize },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Full,
    Differential,
    Cumulative,
}

fn event() -> impl Strategy<Value = Event> {
    let mode = prop_oneof![1 => Just(Mode::Full), 3 => Just(Mode::Differential), 2 => Just(Mode::Cumulative)];
    let failed = prop_oneof![4 => Just(None), 1 => (0..2_usize).prop_map(Some)];
    prop_oneof![
        6 => (mode, failed).prop_map(|(mode, failed)| Event::Backup { mode, failed }),
        5 => (0..2_usize, 0..4_usize).prop_map(|(namespace, key)| Event::Write { namespace, key }),
    ]
}

const NAMESPACES: [&str; 2] = ["test", "other"];

/// When each record of a namespace was changed last.
type Records = BTreeMap<usize, i64>;

/// The backups that were made, each with the records that are in it, and every namespace at every minute.
///
/// Ours build on the last backup of their namespace, and what succeeds is kept. Aerospike Backup Service builds on the
/// last run of which anything is left, and of a failed run it leaves nothing.
fn history(events: &[Event], is_ours: bool) -> (Vec<(Backup, Records)>, Vec<[Records; 2]>) {
    let mut records = <[Records; 2]>::default();
    let (mut backups, mut states) = (Vec::new(), Vec::new());
    // The last full backup of a namespace, and the last.
    let mut lasts = [None::<(i64, i64)>; 2];
    for (minute, event) in (0..).zip(events) {
        if let Event::Write { namespace, key } = event {
            records[*namespace].insert(*key, minute);
        }
        states.push(records.clone());
        let Event::Backup { mode, failed } = event else { continue };
        if failed.is_some() && !is_ours {
            continue;
        }
        let mut made = [false; 2];
        for (index, namespace) in
            NAMESPACES.into_iter().enumerate().filter(|(index, _)| *failed != Some(*index))
        {
            let from = match (mode, lasts[index]) {
                (Mode::Full, _) => None,
                (_, None) => continue,
                (Mode::Differential, Some((_, last))) => Some(last),
                (Mode::Cumulative, Some((full, _))) => Some(full),
            };
            let mut taken = records[index].clone();
            taken.retain(|_, changed| from.is_none_or(|from| *changed > from));
            // An empty incremental backup leaves nothing behind.
            made[index] = from.is_none() || !taken.is_empty();
            if made[index] {
                backups.push((backup(namespace, at(minute), from.map(at)), taken));
            }
        }
        for (index, last) in lasts.iter_mut().enumerate() {
            if made[index] || (!is_ours && made.contains(&true)) {
                let full = if *mode == Mode::Full { minute } else { last.map_or(minute, |(full, _)| full) };
                *last = Some((full, minute));
            }
        }
    }
    (backups, states)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever the modes, and whatever runs somebody deleted: a chain restores what the namespace held when its last
    /// backup was made, or an error says that it cannot be done, and what can.
    #[test]
    fn a_chain_restores_what_was_there(
        events in prop::collection::vec(event(), 1..40),
        gone in prop::collection::hash_set(0..40_i64, 0..4),
        minute in 0..45_i64,
        is_ours: bool,
    ) {
        let (backups, states) = history(&events, is_ours);
        let (gone, left): (Vec<_>, Vec<_>) =
            backups.into_iter().partition(|(backup, _)| gone.contains(&minute_of(backup.created)));
        let was_made = |time| gone.iter().any(|(backup, _)| backup.created == time);
        for (index, namespace) in NAMESPACES.into_iter().enumerate() {
            let ask = |time: DateTime<Utc>| {
                let of = |kind| {
                    left.iter().map(|(backup, _)| backup).filter(move |backup| backup.kind == kind).cloned()
                };
                let full = of(BackupKind::Full)
                    .rfind(|full| full.namespace() == namespace && full.created <= time);
                let fulls = Listed { backups: full.into_iter().collect(), unreadable: Vec::new() };
                let incrementals =
                    Listed { backups: of(BackupKind::Incremental).collect(), unreadable: Vec::new() };
                let (fulls, incrementals) = (&fulls, &incrementals);
                History { routine: "r", namespace, fulls, incrementals, suspects: &[] }.chain(time)
            };
            let newest = |time| {
                let own = left.iter().map(|(backup, _)| backup).filter(|backup| backup.namespace() == namespace);
                own.map(|backup| backup.created).filter(|created| *created <= time).max()
            };
            let check = |chain: &Chain, time| {
                let mut records = Records::new();
                let mut end = chain.full.created;
                for part in chain.backups() {
                    let (_, taken) = left.iter().find(|(backup, _)| backup == part).unwrap();
                    records.extend(taken);
                    end = part.created;
                }
                prop_assert_eq!(Some(end), newest(time));
                prop_assert_eq!(&records, &states[minute_of(end) as usize][index]);
                Ok(())
            };
            match ask(at(minute)) {
                Ok(chain) => check(&chain, at(minute))?,
                Err(ChainError::NoFull { .. }) => {
                    let fulls = left.iter().map(|(backup, _)| backup).filter(|backup| backup.kind == BackupKind::Full);
                    prop_assert!(fulls.clone().all(|full| full.namespace() != namespace || full.created > at(minute)));
                }
                Err(ChainError::Missing { moment, latest, .. }) => {
                    prop_assert!(was_made(moment), "{moment} is not missing");
                    prop_assert!(latest < moment && moment <= at(minute));
                    let chain = ask(latest);
                    prop_assert!(chain.is_ok(), "{latest}: {chain:?}");
                    let chain = chain.unwrap();
                    prop_assert_eq!(chain.backups().last().unwrap().created, latest);
                    check(&chain, latest)?;
                }
                Err(e) => prop_assert!(false, "{e}"),
            }
        }
    }
}
