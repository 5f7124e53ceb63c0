//! A disk without room: a small memory file system that only this test sees.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use abs_storage::{Local, ObjectPath, Storage};

const NAME: &str = "a_full_disk_is_a_clean_error";
/// Set in the process that sees the small disk: its mount point.
const DISK: &str = "ABS_TEST_SMALL_DISK";

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).unwrap()
}

/// Runs this test again in a mount namespace of its own, where it may mount. Root has that right anyway; others get it
/// as the root of a user namespace. Where neither is allowed the test fails: it does not skip.
#[test]
fn a_full_disk_is_a_clean_error() {
    if let Some(disk) = std::env::var_os(DISK) {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        runtime.block_on(on_the_small_disk(Path::new(&disk)));
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let mount = r#"mount -t tmpfs -o size=4m,nr_inodes=20 tmpfs "$ABS_TEST_SMALL_DISK" && exec "$0" --exact "$1" --nocapture"#;
    let shell = |unshare: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(unshare).args(["sh", "-c", mount]).arg(std::env::current_exe().unwrap()).arg(NAME);
        command.env(DISK, disk.path()).output().unwrap()
    };
    let mut output = shell(&["--mount"]);
    if String::from_utf8_lossy(&output.stderr).starts_with("unshare:") {
        output = shell(&["--mount", "--map-root-user"]);
    }
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "on the small disk:\n{text}");
}

async fn on_the_small_disk(disk: &Path) {
    let storage = Local::new(disk);
    let full = |error: abs_storage::StorageError, name: &str| {
        assert!(error.is_full(), "{error}");
        let expected =
            format!("cannot write {}: No space left on device (os error 28)", disk.join(name).display());
        assert_eq!(error.to_string(), expected);
    };
    let left = || std::fs::read_dir(disk.join("d")).unwrap().count();
    storage.put(&path("d/small"), b"as it was").await.unwrap();

    // The error of a block is that of a later call; from then on there are only errors, and nothing is left.
    let mut writer = storage.create(&path("d/large")).await.unwrap();
    let mut block = Vec::new();
    let error = loop {
        block.resize(1 << 20, 1);
        if let Err(error) = writer.write(&mut block).await {
            break error;
        }
        assert!(writer.written() < 16 << 20, "the disk is larger than it should be");
    };
    full(error, "d/large");
    assert!(writer.write(&mut block).await.is_err());
    assert!(writer.commit().await.is_err());
    assert_eq!(left(), 1);

    // The error of the last block is that of commit.
    let mut writer = storage.create(&path("d/large")).await.unwrap();
    writer.write(&mut vec![1; 5 << 20]).await.unwrap();
    full(writer.commit().await.unwrap_err(), "d/large");
    assert_eq!(left(), 1);

    // A replaced object stays as it was.
    full(storage.put(&path("d/small"), &vec![1; 5 << 20]).await.unwrap_err(), "d/small");
    assert_eq!(storage.get(&path("d/small"), 100).await.unwrap(), b"as it was");
    full(storage.put_if_absent(&path("d/new"), &vec![1; 5 << 20]).await.unwrap_err(), "d/new");
    assert_eq!(left(), 1);

    // The space has come back.
    let mut writer = storage.create(&path("d/large")).await.unwrap();
    writer.write(&mut vec![1; 3 << 20]).await.unwrap();
    assert_eq!(writer.commit().await.unwrap(), 3 << 20);

    // No room for another name.
    let mut count = 0;
    let error = loop {
        if let Err(error) = storage.put(&path(&format!("d/{count}")), b"").await {
            break error;
        }
        count += 1;
        assert!(count < 100, "the disk holds more files than it should");
    };
    full(error, &format!("d/{count}"));
}
