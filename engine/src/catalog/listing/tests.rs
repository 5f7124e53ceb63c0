use std::sync::atomic::Ordering::SeqCst;

use super::super::testing::{Place, at, metadata, path, run};
use super::*;

const MINUTE: i64 = 60_000;
/// 2024-01-01T12:00:00Z.
const NOON: i64 = 1_704_110_400_000;

fn keys(listed: &Listed) -> Vec<&str> {
    listed.backups.iter().map(|backup| backup.key.as_str()).collect()
}

#[tokio::test]
async fn every_layout_is_found() {
    let place = Place::new();
    let layouts = [
        // Since 3.4 with the time for people, in its three forms.
        "nightly/backup/1704110400000/data/test",
        "nightly/backup/1704110460000_2024-01-01T12-01-00/data/test",
        "nightly/backup/1704110520000_01-Jan-2024-12-02-00/data/test",
        "nightly/backup/1704110580000_Jan-01-2024-12-03-00/data/test",
        // Before 0.3, without data.
        "nightly/backup/1704110640000/test",
        // In a folder of an attempt.
        "nightly/backup/1704110700000/data/test/attempt_2",
        "nightly/backup/1704110760000/attempt_2/data/test",
        "nightly/backup/1704110820000",
    ];
    for (minute, key) in (0..).zip(layouts) {
        place.backup(key, &metadata("test", at(minute), None));
    }
    let listed = place.catalog.list("nightly", BackupKind::Full, ..).await.unwrap();
    assert_eq!(keys(&listed), layouts);
    for (minute, backup) in (0..).zip(&listed.backups) {
        assert_eq!(backup.created, at(minute));
        assert_eq!(backup.created.timestamp_millis(), NOON + minute * MINUTE);
        assert_eq!(backup.run.parts().count(), 3);
        assert!(backup.key.is_within(&backup.run));
    }
    assert_eq!(listed.unreadable, []);
    assert_eq!(place.catalog.list("nightly", BackupKind::Incremental, ..).await.unwrap(), Listed::default());
    assert_eq!(place.catalog.list("nobody", BackupKind::Full, ..).await.unwrap(), Listed::default());
}

#[tokio::test]
async fn a_backup_without_a_time_in_its_path_has_that_of_its_metadata() {
    let place = Place::new();
    let older = at(0) + chrono::TimeDelta::nanoseconds(123_456_789);
    place.backup("r/backup/data/test", &metadata("test", older, None));
    place.backup("r/backup/other", &metadata("other", at(2), None));
    place.full("test", 1);
    place.write("r/backup/1704110490000/data/test/test_0.asb", "failed");
    let listed = place.catalog.list("r", BackupKind::Full, ..).await.unwrap();
    assert_eq!(keys(&listed), ["r/backup/data/test", "r/backup/1704110460000/data/test", "r/backup/other"]);
    assert_eq!(listed.backups[0].created.timestamp_millis(), NOON + 123);
    assert_eq!(listed.backups[0].run, listed.backups[0].key, "the folder beside it is not its run's");
    let range = at(1)..=at(2);
    let listed = place.catalog.list("r", BackupKind::Full, range).await.unwrap();
    assert_eq!(listed.backups.len(), 2);
    assert_eq!(place.catalog.last("r", BackupKind::Full, ..).await.unwrap(), Some(at(2)));
    let last = place.catalog.last_run("r", BackupKind::Full, ..at(2)).await.unwrap();
    assert_eq!(last[0].created, at(1));
    let last = place.catalog.last_run("r", BackupKind::Full, ..at(1)).await.unwrap();
    assert_eq!(last[0].key, path("r/backup/data/test"));
}

#[tokio::test]
async fn what_is_nobodys_is_passed_over() {
    let place = Place::new();
    place.full("test", 0);
    place.write("r/backup/README", "hello");
    place.write("r/backup/metadata.yaml", "not of a backup");
    place.write("r/backup/lost+found/x", "");
    place.write("r/backup/old/1704110400000/data/test/metadata.yaml", "moved away by hand");
    place.write("r/backup/1704110400000/notes.txt", "");
    place.write("r/backup/1704110400001/data/test/test_0.asb", "a run that goes on");
    place.write("r/backup/1704110400002/data/test/my-metadata.yaml", "");
    std::fs::create_dir_all(place.file("r/backup/1704110400003")).unwrap();
    let listed = place.catalog.list("r", BackupKind::Full, ..).await.unwrap();
    assert_eq!(keys(&listed), ["r/backup/1704110400000/data/test"]);
    assert_eq!(listed.unreadable, []);
}

#[tokio::test]
async fn backups_are_in_order_of_time_then_namespace() {
    let place = Place::new();
    for (namespace, minute) in [("b", 1), ("a", 1), ("c", 0), ("a", 100)] {
        place.full(namespace, minute);
    }
    let listed = place.catalog.list("r", BackupKind::Full, ..).await.unwrap();
    let order: Vec<_> = listed.backups.iter().map(|backup| (backup.created, backup.namespace())).collect();
    assert_eq!(order, [(at(0), "c"), (at(1), "a"), (at(1), "b"), (at(100), "a")]);
}

#[tokio::test]
async fn one_damaged_backup_hides_no_other() {
    let place = Place::new();
    for minute in 0..4 {
        place.full("test", minute);
    }
    place.write("r/backup/1704110460000/data/test/metadata.yaml", "created: yesterday\n");
    place.storage.break_at(&path("r/backup/1704110520000/data/test/metadata.yaml"));
    place.storage.break_at(&path("r/backup/1704110580000"));
    let listed = place.catalog.list("r", BackupKind::Full, ..).await.unwrap();
    assert_eq!(keys(&listed), ["r/backup/1704110400000/data/test"]);
    let messages: Vec<_> = listed.unreadable.iter().map(ToString::to_string).collect();
    assert!(
        messages[0]
            .starts_with("r/backup/1704110460000/data/test/metadata.yaml: the backup cannot be read: ")
    );
    assert!(messages[1].ends_with("the disk is on fire"), "{messages:?}");
    assert_eq!(listed.unreadable[2].place, path("r/backup/1704110580000"));
    assert_eq!(
        listed.unreadable.iter().filter_map(|other| other.created).collect::<Vec<_>>(),
        [at(1), at(2), at(3)]
    );
    place.storage.mend();
    assert_eq!(place.catalog.list("r", BackupKind::Full, ..).await.unwrap().backups.len(), 3);
    place.storage.break_at(&path("r/backup"));
    assert!(place.catalog.list("r", BackupKind::Full, ..).await.is_err(), "nothing at all is known then");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_few_and_not_too_many_at_once() {
    let place = Place::new();
    for minute in 0..500 {
        place.full("test", minute);
        place.full("other", minute);
    }
    let list = || place.catalog.list("r", BackupKind::Full, ..);
    assert_eq!(list().await.unwrap().backups.len(), 1000);
    assert_eq!(place.storage.requests(), (501, 1000));
    assert!((2..=AT_ONCE).contains(&place.storage.most.load(SeqCst)));
    assert_eq!(list().await.unwrap().backups.len(), 1000);
    assert_eq!(place.storage.requests(), (501, 0), "nothing is read twice");
    let listed = place.catalog.list("r", BackupKind::Full, at(100)..=at(109)).await.unwrap();
    assert_eq!(listed.backups.len(), 20);
    assert_eq!(place.storage.requests(), (11, 0), "what is out of range is not asked for");
    let catalog = place.catalog.clone();
    // It can be asked from any thread.
    let last = tokio::spawn(async move { catalog.last("r", BackupKind::Full, ..).await });
    assert_eq!(last.await.unwrap().unwrap(), Some(at(499)));
    assert_eq!(place.storage.requests(), (2, 0));
}

#[tokio::test]
async fn what_changes_is_read_again_and_what_is_gone_is_forgotten() {
    let place = Place::new();
    for minute in 0..3 {
        place.full("test", minute);
        place.full("other", minute);
    }
    let list = || place.catalog.list("r", BackupKind::Full, ..);
    list().await.unwrap();
    place.storage.requests();
    place.backup("r/backup/1704110400000/data/test", &metadata("renamed", at(0), None));
    assert_eq!(list().await.unwrap().backups[1].namespace(), "renamed");
    assert_eq!(place.storage.requests(), (4, 1));

    let known = || place.catalog.known().values().map(Vec::len).sum::<usize>();
    assert_eq!(known(), 6);
    std::fs::remove_dir_all(place.file("r/backup/1704110460000")).unwrap();
    std::fs::remove_file(place.file("r/backup/1704110520000/data/test/metadata.yaml")).unwrap();
    assert_eq!(list().await.unwrap().backups.len(), 3);
    assert_eq!(known(), 3);
    std::fs::remove_dir_all(place.file("r")).unwrap();
    assert_eq!(list().await.unwrap(), Listed::default());
    assert_eq!(place.catalog.known().len(), 0);
}

#[tokio::test]
async fn the_last_run_is_the_newest_with_a_backup() {
    let place = Place::new();
    for minute in 0..40 {
        place.incremental("test", minute, 0);
    }
    for minute in 40..60 {
        place.write(&format!("{}/data/test/test_0.asb", run(BackupKind::Incremental, minute)), "failed");
    }
    place.incremental("other", 39, 0);
    let last = place.catalog.last_run("r", BackupKind::Incremental, ..).await.unwrap();
    assert_eq!(last.iter().map(Backup::namespace).collect::<Vec<_>>(), ["other", "test"]);
    assert_eq!(last[0].created, at(39));
    let before = place.catalog.last_run("r", BackupKind::Incremental, ..at(39)).await.unwrap();
    assert_eq!(before[0].created, at(38));
    assert_eq!(place.catalog.last("r", BackupKind::Full, ..).await.unwrap(), None);
    place.write(&format!("{}/data/test/metadata.yaml", run(BackupKind::Incremental, 50)), "damaged");
    assert_eq!(place.catalog.last("r", BackupKind::Incremental, ..).await.unwrap(), Some(at(50)));
}
