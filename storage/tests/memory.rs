//! How much memory large uploads take, whatever their size.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use abs_storage::{ObjectPath, open};
use support::CLOUDS;
use support::sink::Sink;

/// Uploads at the same time.
const UPLOADS: usize = 8;
/// A part, in bytes.
const PART: u64 = 5 << 20;

/// MiB of each upload: `ABS_TEST_UPLOAD_MIB`, or enough to see.
fn size() -> u64 {
    std::env::var("ABS_TEST_UPLOAD_MIB").map_or(256, |text| text.parse().unwrap())
}

/// The uploads run in a process of their own, which tells the most memory that it had.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_take_the_memory_of_their_parts_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let url = support::s3s::serve_with(Sink(s3s_fs::FileSystem::new(folder.path()).unwrap())).await;
    let child = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "uploading", "--ignored", "--nocapture"]).env("ABS_TEST_SINK", url);
        child.output().unwrap()
    });
    let output = child.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let (_, most) = text.split_once("VmHWM:").unwrap();
    let most = most.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10;
    println!("{UPLOADS} uploads of {} MiB: {} MiB at the most", size(), most >> 20);
    assert!(most < UPLOADS as u64 * 4 * PART + (100 << 20), "{} MiB", most >> 20);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other half of the test above"]
async fn uploading() {
    let storage = open(&CLOUDS[0].settings_at(&std::env::var("ABS_TEST_SINK").unwrap()));
    let uploads: Vec<_> = (0..UPLOADS)
        .map(|i| {
            let storage = storage.clone();
            tokio::spawn(async move {
                let path = ObjectPath::new(&format!("{i}")).unwrap();
                let mut writer = storage.create(&path).await.unwrap();
                let mut block = Vec::new();
                for _ in 0..size() {
                    block.resize(1 << 20, 7);
                    writer.write(&mut block).await.unwrap();
                }
                assert_eq!(writer.commit().await.unwrap(), size() << 20);
            })
        })
        .collect();
    for upload in uploads {
        upload.await.unwrap();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
}
