//! What only a folder of this machine can do wrong.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use abs_storage::{ByteRange, ErrorKind, Local, ObjectPath, Storage};

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).unwrap()
}

/// Everything below a folder, as the file system sees it.
fn everything(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                names.push(entry.file_name().into_string().unwrap());
            }
        }
    }
    names
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn strangers_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = folder.path().join("root/deep");
    let storage = Local::new(&root);
    // An object that others could read is no longer so once it is replaced.
    storage.put(&path("a/put"), b"1").await.unwrap();
    fs::set_permissions(root.join("a/put"), fs::Permissions::from_mode(0o666)).unwrap();
    storage.put(&path("a/put"), b"2").await.unwrap();
    storage.put_if_absent(&path("a/once"), b"").await.unwrap();
    let mut writer = storage.create(&path("a/b/large")).await.unwrap();
    writer.write(&mut vec![1]).await.unwrap();
    for temporary in fs::read_dir(root.join("a/b")).unwrap() {
        assert_eq!(mode(temporary.unwrap().path()), 0o600);
    }
    writer.commit().await.unwrap();
    for file in ["a/put", "a/once", "a/b/large"] {
        assert_eq!(mode(root.join(file)), 0o600, "{file}");
    }
    for created in ["root", "root/deep", "root/deep/a", "root/deep/a/b"] {
        assert_eq!(mode(folder.path().join(created)), 0o700, "{created}");
    }
    assert_eq!(mode(folder.path()), 0o755, "what was there stays as it was");
}

#[tokio::test]
async fn a_dropped_writer_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Local::new(folder.path());
    for blocks in 0..4 {
        let mut writer = storage.create(&path("a/o")).await.unwrap();
        for _ in 0..blocks {
            writer.write(&mut vec![7; 1 << 20]).await.unwrap();
        }
        assert_eq!(everything(folder.path()).len(), 1);
        // With blocks, the last is still on its way.
        drop(writer);
        assert_eq!(everything(folder.path()), [""; 0]);
    }
    let mut writer = storage.create(&path("a/o")).await.unwrap();
    writer.write(&mut vec![7; 1 << 20]).await.unwrap();
    writer.abort().await.unwrap();
    assert_eq!(everything(folder.path()), [""; 0]);
}

#[tokio::test]
async fn what_a_crash_left_is_never_seen_and_can_be_swept() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Local::new(folder.path());
    storage.put(&path("r/backup/1/0.asb"), b"x").await.unwrap();
    let mut writer = storage.create(&path("r/backup/1/1.asb")).await.unwrap();
    writer.write(&mut vec![7; 100]).await.unwrap();
    // A process that dies runs no destructors.
    std::mem::forget(writer);
    assert_eq!(storage.list(&path("r"), true).await.unwrap().objects.len(), 1);
    let left = everything(folder.path()).into_iter().find(|name| name != "0.asb").unwrap();
    let hidden = path("r/backup/1").join(&left).unwrap();
    for error in [
        storage.get(&hidden, 1000).await.unwrap_err(),
        storage.open(&hidden, ByteRange::ALL).await.unwrap_err(),
        storage.put(&hidden, b"").await.unwrap_err(),
        storage.delete_prefix(&hidden).await.unwrap_err(),
    ] {
        assert!(matches!(error.kind, ErrorKind::InvalidPath(_)), "{error}");
    }
    let hour = Duration::from_hours(1);
    assert_eq!(storage.delete_unfinished(&ObjectPath::root(), hour).await.unwrap(), 0, "it may be in use");
    let file = fs::File::options().write(true).open(folder.path().join(hidden.as_str())).unwrap();
    file.set_modified(std::time::SystemTime::now() - 2 * hour).unwrap();
    assert_eq!(storage.delete_unfinished(&path("other"), hour).await.unwrap(), 0);
    assert_eq!(storage.delete_unfinished(&ObjectPath::root(), hour).await.unwrap(), 1);
    assert_eq!(everything(folder.path()), ["0.asb"]);
}

#[tokio::test]
async fn deleting_a_folder_takes_leftovers_uncounted() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Local::new(folder.path());
    storage.put(&path("r/1/0.asb"), b"x").await.unwrap();
    std::mem::forget(storage.create(&path("r/1/1.asb")).await.unwrap());
    assert_eq!(storage.delete_prefix(&path("r/1")).await.unwrap(), 1);
    assert!(!folder.path().join("r/1").exists());
    assert!(folder.path().join("r").exists());
}

#[tokio::test]
async fn links_are_followed_but_not_deleted_through() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("o"), "there").unwrap();
    fs::create_dir(folder.path().join("r")).unwrap();
    symlink(elsewhere.path(), folder.path().join("r/link")).unwrap();
    symlink("nowhere", folder.path().join("r/broken")).unwrap();
    let storage = Local::new(folder.path());
    let listing = storage.list(&ObjectPath::root(), true).await.unwrap();
    assert_eq!(listing.objects.iter().map(|o| o.path.as_str()).collect::<Vec<_>>(), ["r/link/o"]);
    assert_eq!(storage.get(&path("r/link/o"), 100).await.unwrap(), b"there");
    storage.delete_prefix(&path("r")).await.unwrap();
    assert!(!folder.path().join("r").exists());
    assert_eq!(fs::read(elsewhere.path().join("o")).unwrap(), b"there");
    // A link in a circle is an error that names it, not an endless walk.
    symlink(".", folder.path().join("circle")).unwrap();
    let error = storage.list(&ObjectPath::root(), true).await.unwrap_err();
    assert!(error.to_string().contains("circle"), "{error}");
}

#[tokio::test]
async fn errors_name_the_deed_and_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display();
    let storage = Local::new(folder.path());
    storage.put(&path("a/o"), b"x").await.unwrap();
    let message = |error: abs_storage::StorageError| error.to_string();
    assert_eq!(
        message(storage.open(&path("a/none"), ByteRange::ALL).await.unwrap_err()),
        format!("cannot read {root}/a/none: it does not exist")
    );
    // A folder in the place of an object, and an object in the place of a folder.
    let in_the_way =
        |at: &str| format!("cannot write {root}/{at}: a file or a folder of that name stands in the way");
    assert_eq!(message(storage.put(&path("a"), b"x").await.unwrap_err()), in_the_way("a"));
    assert_eq!(message(storage.create(&path("a/o/p")).await.unwrap_err()), in_the_way("a/o/p"));
    let mut writer = storage.create(&path("a")).await.unwrap();
    writer.write(&mut b"x".to_vec()).await.unwrap();
    assert_eq!(message(writer.commit().await.unwrap_err()), in_the_way("a"));
    assert_eq!(everything(folder.path()), ["o"]);
    let error = storage.create(&ObjectPath::root()).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::InvalidPath(_)), "{error}");
    // /proc is a folder in which nobody, root neither, can create anything.
    let error = Local::new("/proc/abs").put(&path("o"), b"x").await.unwrap_err();
    assert!(error.to_string().starts_with("cannot write /proc/abs/o: "), "{error}");
    assert_eq!(Local::new("/backups").describe(), "local folder /backups");
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Local::new(folder.path());
    storage.put(&path("o"), &[1; 1000]).await.unwrap();
    let mut reader = storage.open(&path("o"), ByteRange::ALL).await.unwrap();
    let mut buffer = Vec::new();
    reader.read(&mut buffer, 100).await.unwrap();
    fs::File::options().write(true).open(folder.path().join("o")).unwrap().set_len(500).unwrap();
    let error = reader.read(&mut buffer, 1000).await.unwrap_err();
    assert!(error.to_string().ends_with("/o: the file became shorter while it was read"), "{error}");
}

#[tokio::test]
async fn foreign_things_in_the_folder_do_no_harm() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let storage = Local::new(folder.path());
    fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "not UTF-8").unwrap();
    std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    fs::write(folder.path().join(".hidden"), "a name like any other").unwrap();
    let listing = storage.list(&ObjectPath::root(), true).await.unwrap();
    assert_eq!(listing.objects.iter().map(|o| o.path.as_str()).collect::<Vec<_>>(), [".hidden"]);
    assert!(storage.get(&path("socket"), 10).await.unwrap_err().is_not_found());
}
