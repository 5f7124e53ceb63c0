//! Backups to S3 services in this process, and to the local disk.

use std::path::{Path, PathBuf};

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
    let names =
        FORMS.iter().flat_map(|(form, _)| places.iter().map(move |(name, _)| format!("{name}, {form}")));
    names.zip(runs).map(|(name, runs)| row(name, &runs)).collect()
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
