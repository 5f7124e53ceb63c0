//! Backups to S3 services in this process, and to the local disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use abs_config::StorageSettings;
use abs_storage::{ObjectPath, Storage};
use tokio::runtime::Runtime;

use super::{Options, Row, Run, abs, row};

#[path = "../../storage/tests/support/s3s.rs"]
#[allow(clippy::unwrap_used)]
mod s3s;
#[path = "../../storage/tests/support/sink.rs"]
#[allow(clippy::unwrap_used)]
mod sink;

const FORMS: [(&str, &[&str]); 2] = [("plain", &[]), ("zstd 1", &["--compress", "zstd:1"])];

/// Backups to a folder, to a service that keeps objects in a folder of the same disk, and to one that keeps no data: that
/// shows what of the second time was the service's.
pub fn measure(options: &Options, runtime: &Runtime, address: &str, namespace: &str) -> Vec<Row> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let root = |name: &str| {
        let root = folder.path().join(name);
        std::fs::create_dir(&root).expect("a folder");
        root
    };
    let keeps = runtime.block_on(s3s::serve(&root("kept")));
    let files = s3s_fs::FileSystem::new(root("dropped")).expect("a file system");
    let drops = runtime.block_on(s3s::serve_with(sink::Sink(files)));
    std::fs::create_dir(folder.path().join("dropped/abs-test")).expect("a bucket");
    let places = [
        ("disk", None),
        ("S3 on disk", Some(storage(folder.path(), "keeps", &keeps))),
        ("S3 that keeps no data", Some(storage(folder.path(), "drops", &drops))),
    ];
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); FORMS.len() * places.len()];
    // In turns, so that a slow moment of the machine meets them all.
    for turn in 0..options.runs {
        let mut rows = runs.iter_mut();
        for (form, flags) in FORMS {
            for (name, storage) in &places {
                let (target, flags) = match storage {
                    None => (folder.path().join(format!("disk {form}")), flags.to_vec()),
                    Some(file) => {
                        let file = file.to_str().expect("UTF-8");
                        (
                            PathBuf::from(format!("{name} {form} {turn}")),
                            [flags, &["--storage", file]].concat(),
                        )
                    }
                };
                rows.next().expect("a row").push(abs("backup", address, namespace, &target, &flags));
                for gone in [folder.path().join(format!("disk {form}")), folder.path().join("kept/abs-test")]
                {
                    let _ = std::fs::remove_dir_all(gone);
                }
                let _ = std::fs::create_dir(folder.path().join("kept/abs-test"));
            }
        }
    }
    let mut table: Vec<Row> = Vec::new();
    for (name, file) in &places {
        let settings = match file {
            None => StorageSettings::Local { path: folder.path().join("objects") },
            Some(file) => {
                let text = std::fs::read_to_string(file).expect("the file");
                let document = abs_config::from_yaml::<abs_config::Storage>(&text).expect("a storage");
                document.check().expect("a storage")
            }
        };
        let storage = abs_storage::open(&settings);
        let runs: Vec<Run> = (0..options.runs).map(|_| runtime.block_on(write(&storage))).collect();
        table.push(row(format!("{WRITERS} objects of {} MiB to {name}", OBJECT >> 20), &runs));
    }
    let names =
        FORMS.iter().flat_map(|(form, _)| places.iter().map(move |(name, _)| format!("{name}, {form}")));
    table.extend(names.zip(runs).map(|(name, runs)| row(name, &runs)));
    table
}

/// Objects that are written at the same time, and the size of each in bytes.
const WRITERS: usize = 8;
const OBJECT: usize = 256 << 20;

/// Writes objects and nothing else.
async fn write(storage: &Arc<dyn Storage>) -> Run {
    let start = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|i| {
            let storage = Arc::clone(storage);
            tokio::spawn(async move {
                let path = ObjectPath::new(&format!("{i}")).expect("a path");
                let mut object = storage.create(&path).await.expect("an object");
                let mut block = Vec::new();
                for _ in 0..OBJECT >> 19 {
                    block.resize(512 << 10, 7);
                    object.write(&mut block).await.expect("a write");
                }
                object.commit().await.expect("a commit");
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    Run { seconds: start.elapsed().as_secs_f64(), bytes: (WRITERS * OBJECT) as f64, cpu: None, memory: None }
}

/// The file that names a service as a storage.
fn storage(folder: &Path, name: &str, url: &str) -> PathBuf {
    let file = folder.join(format!("{name}.yml"));
    let text = format!(
        "s3-storage: {{bucket: abs-test, s3-region: us-east-1, s3-endpoint-override: '{url}', access-key-id: test, \
         secret-access-key: test-secret}}"
    );
    std::fs::write(&file, text).expect("a file");
    file
}
