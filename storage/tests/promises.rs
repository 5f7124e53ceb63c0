//! What [`Storage`] promises, asked of every storage there is. A new storage is a new line in [`every_storage`].

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use abs_config::StorageSettings;
use abs_storage::{ByteRange, ErrorKind, Listing, ObjectPath, Storage, open};
use support::{CLOUDS, pattern};
use tempfile::TempDir;

/// A storage of each kind, empty, and what must live as long as it.
fn every_storage() -> Vec<(Arc<dyn Storage>, Option<TempDir>)> {
    let folder = tempfile::tempdir().unwrap();
    let local = open(&StorageSettings::Local { path: folder.path().join("not/yet/there") });
    let clouds = CLOUDS.iter().map(|cloud| (open(&cloud.settings()), None));
    std::iter::once((local, Some(folder))).chain(clouds).collect()
}

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).unwrap()
}

async fn write(storage: &dyn Storage, at: &str, content: &[u8], block: usize) {
    let mut writer = storage.create(&path(at)).await.unwrap();
    let mut buffer = Vec::new();
    for chunk in content.chunks(block) {
        buffer.extend_from_slice(chunk);
        writer.write(&mut buffer).await.unwrap();
        assert!(buffer.is_empty(), "the writer takes the bytes");
    }
    assert_eq!(writer.written(), content.len() as u64);
    assert_eq!(writer.commit().await.unwrap(), content.len() as u64);
}

async fn read(storage: &dyn Storage, at: &str, range: ByteRange, max: usize) -> Vec<u8> {
    let mut reader = storage.open(&path(at), range).await.unwrap();
    let mut buffer = Vec::new();
    loop {
        let before = buffer.len();
        let count = reader.read(&mut buffer, max).await.unwrap();
        assert_eq!(buffer.len(), before + count);
        assert!(count <= max);
        if count == 0 {
            return buffer;
        }
    }
}

async fn names(storage: &dyn Storage, prefix: &str, recursive: bool) -> (Vec<String>, Vec<String>) {
    let Listing { objects, folders } = storage.list(&path(prefix), recursive).await.unwrap();
    (
        objects.iter().map(|object| object.path.to_string()).collect(),
        folders.iter().map(ToString::to_string).collect(),
    )
}

#[tokio::test]
async fn what_is_written_is_read() {
    for (storage, _folder) in every_storage() {
        // Blocks of all sizes around the boundaries of early write-back, and none at all.
        for (length, block) in
            [(0, 1), (1, 1), (100_000, 7), (20 << 20, 1 << 20), ((9 << 20) + 3, (1 << 20) + 1)]
        {
            let content = pattern(length);
            write(&*storage, "a/b/object", &content, block).await;
            assert!(
                read(&*storage, "a/b/object", ByteRange::ALL, 1 << 20).await == content,
                "{length} bytes"
            );
            let reader = storage.open(&path("a/b/object"), ByteRange::ALL).await.unwrap();
            assert_eq!(reader.size(), length as u64);
        }
    }
}

#[tokio::test]
async fn ranges_are_cut_at_the_end_of_the_object() {
    for (storage, _folder) in every_storage() {
        let content = pattern(10_000);
        storage.put(&path("o"), &content).await.unwrap();
        for (range, expected) in [
            (ByteRange::ALL, &content[..]),
            (ByteRange::from(0..1), &content[..1]),
            (ByteRange::from(10..4_000), &content[10..4_000]),
            (ByteRange::from(9_999..20_000), &content[9_999..]),
            (ByteRange::starting_at(5_000), &content[5_000..]),
            (ByteRange::starting_at(10_000), &[]),
            (ByteRange::starting_at(u64::MAX), &[]),
            (ByteRange::from(4..4), &[]),
        ] {
            assert!(read(&*storage, "o", range, 999).await == expected, "{range:?}");
        }
    }
}

#[tokio::test]
async fn reading_appends_and_keeps_to_the_limit() {
    for (storage, _folder) in every_storage() {
        storage.put(&path("o"), b"0123456789").await.unwrap();
        let mut reader = storage.open(&path("o"), ByteRange::ALL).await.unwrap();
        let mut buffer = Vec::with_capacity(1000);
        buffer.extend_from_slice(b"> ");
        assert_eq!(reader.read(&mut buffer, 0).await.unwrap(), 0);
        assert_eq!(reader.read(&mut buffer, 4).await.unwrap(), 4);
        assert_eq!(buffer, b"> 0123");
        assert_eq!(reader.read(&mut buffer, 100).await.unwrap(), 6);
        assert_eq!(buffer, b"> 0123456789");
        assert_eq!(reader.read(&mut buffer, 100).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn nothing_is_visible_before_commit() {
    for (storage, _folder) in every_storage() {
        storage.put(&path("a/o"), b"old").await.unwrap();
        let mut writer = storage.create(&path("a/o")).await.unwrap();
        let mut other = storage.create(&path("a/p")).await.unwrap();
        writer.write(&mut b"new".to_vec()).await.unwrap();
        other.write(&mut b"new".to_vec()).await.unwrap();
        assert_eq!(storage.get(&path("a/o"), 100).await.unwrap(), b"old");
        assert!(storage.get(&path("a/p"), 100).await.unwrap_err().is_not_found());
        assert_eq!(names(&*storage, "", true).await.0, ["a/o"]);
        writer.commit().await.unwrap();
        assert_eq!(storage.get(&path("a/o"), 100).await.unwrap(), b"new");
        other.abort().await.unwrap();
        assert_eq!(names(&*storage, "", true).await.0, ["a/o"]);
    }
}

#[tokio::test]
async fn small_objects_are_replaced_and_limited() {
    for (storage, _folder) in every_storage() {
        let o = path("conf/o");
        storage.put(&o, b"first").await.unwrap();
        storage.put(&o, b"second").await.unwrap();
        assert_eq!(storage.get(&o, 6).await.unwrap(), b"second");
        let error = storage.get(&o, 5).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::TooLarge { limit: 5 }), "{error}");
        assert!(error.to_string().ends_with("conf/o: it is larger than 5 bytes"), "{error}");
        assert!(storage.get(&path("conf"), 5).await.unwrap_err().is_not_found(), "a folder is no object");
        assert!(storage.get(&path("conf/o/p"), 5).await.unwrap_err().is_not_found());
        assert!(storage.open(&path("none"), ByteRange::ALL).await.unwrap_err().is_not_found());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_puts_what_is_absent() {
    for (storage, _folder) in every_storage() {
        for round in 0..20 {
            let lock = path(&format!("locks/{round}"));
            let tasks: Vec<_> = (0..16_u8)
                .map(|i| {
                    let (storage, lock) = (Arc::clone(&storage), lock.clone());
                    tokio::spawn(async move { (i, storage.put_if_absent(&lock, &[i]).await.unwrap()) })
                })
                .collect();
            let mut winners = Vec::new();
            for task in tasks {
                let (i, won) = task.await.unwrap();
                winners.extend(won.then_some(i));
            }
            assert_eq!(
                winners,
                storage.get(&lock, 1).await.unwrap(),
                "exactly the winner's content is there"
            );
        }
        assert_eq!(names(&*storage, "locks", true).await.0.len(), 20);
        assert_eq!(storage.delete_unfinished(&ObjectPath::root(), Duration::ZERO).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn listing_is_sorted_and_by_whole_parts() {
    for (storage, _folder) in every_storage() {
        assert_eq!(storage.list(&ObjectPath::root(), true).await.unwrap(), Listing::default());
        for at in ["b/2", "b/1", "b/x/3", "b-c/4", "a", "b/x/y/5", "b/10"] {
            storage.put(&path(at), at.as_bytes()).await.unwrap();
        }
        let all = ["a", "b-c/4", "b/1", "b/10", "b/2", "b/x/3", "b/x/y/5"];
        assert_eq!(names(&*storage, "", true).await, (all.map(String::from).to_vec(), vec![]));
        let (objects, folders) = names(&*storage, "b", false).await;
        assert_eq!(
            (objects, folders),
            (["b/1", "b/10", "b/2"].map(String::from).to_vec(), vec!["b/x".to_owned()])
        );
        assert_eq!(names(&*storage, "", false).await.1, ["b", "b-c"]);
        assert_eq!(names(&*storage, "b/x", true).await.0, ["b/x/3", "b/x/y/5"]);
        for nothing in ["none", "b/none", "a", "b/1/none"] {
            assert_eq!(storage.list(&path(nothing), true).await.unwrap(), Listing::default(), "{nothing}");
        }
        let listing = storage.list(&path("b/x"), true).await.unwrap();
        assert_eq!(listing.objects[1].size, 7);
        assert!(listing.objects[1].modified.elapsed().unwrap() < Duration::from_mins(1));
    }
}

#[tokio::test]
async fn deleting_takes_the_object_or_the_folder() {
    for (storage, _folder) in every_storage() {
        for at in ["a", "b/1", "b/x/2", "b/x/3", "b-c/4"] {
            storage.put(&path(at), b"").await.unwrap();
        }
        assert_eq!(storage.delete_prefix(&path("none")).await.unwrap(), 0);
        assert_eq!(storage.delete_prefix(&path("a")).await.unwrap(), 1);
        assert_eq!(storage.delete_prefix(&path("b")).await.unwrap(), 3);
        assert_eq!(names(&*storage, "", true).await.0, ["b-c/4"]);
        assert_eq!(storage.delete_prefix(&ObjectPath::root()).await.unwrap(), 1);
        assert_eq!(names(&*storage, "", false).await, (vec![], vec![]));
        assert_eq!(storage.delete_prefix(&ObjectPath::root()).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn buffers_are_handed_back() {
    for (storage, _folder) in every_storage() {
        let mut writer = storage.create(&path("o")).await.unwrap();
        let mut content = Vec::new();
        let mut block = Vec::with_capacity(1 << 16);
        for i in 0..10 {
            block.push(i);
            content.push(i);
            writer.write(&mut block).await.unwrap();
            assert!(block.is_empty());
            assert!(i == 0 || block.capacity() >= 1 << 16, "the buffer of an earlier block");
            block.reserve(1 << 16);
        }
        writer.commit().await.unwrap();
        assert_eq!(storage.get(&path("o"), 10).await.unwrap(), content);
    }
}
