//! The files of a backup: how many, how large, how packed, and that they add up.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Backups, holds, load};
use crate::raw::{self, Raw, blob, digest};
use crate::support::{Dump, Server, same};

const MIB: u64 = 1 << 20;

/// Names and sizes of the .asb files of a folder.
fn asb_files(folder: &Path) -> BTreeMap<String, u64> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    files
        .filter(|file| file.path().extension().is_some_and(|e| e == "asb"))
        .map(|file| (file.file_name().into_string().unwrap(), file.metadata().unwrap().len()))
        .collect()
}

/// Those that hold records.
fn record_files(folder: &Path) -> BTreeMap<String, u64> {
    let mut files = asb_files(folder);
    files.retain(|name, _| !name.starts_with("metadata_"));
    files
}

/// Protects: any mix of scans and writers gives every record once, in no more files than writers.
#[test]
fn scans_and_writers_in_any_number() {
    let (server, backups) = (Server::start(3), Backups::new());
    let records = load(&server, 0..2000);
    for (scans, writers) in
        [(1, Some(1)), (1, Some(4)), (4, Some(1)), (3, None), (16, Some(2)), (64, Some(64))]
    {
        let name = format!("{scans}-{writers:?}");
        let mut options = vec!["--parallel".to_owned(), scans.to_string()];
        if let Some(writers) = writers {
            options.extend(["--parallel-write".to_owned(), writers.to_string()]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        // Reading it insists that no record is there twice and no file ends inside one.
        holds(&backups.dump(&server, &name, &options), &records, |_| true);
        let files = record_files(&backups.at(&name)).len();
        assert!((1..=writers.unwrap_or(scans)).contains(&files), "{files} files of {name}");
    }
}

/// 400 records of 20 KB that do not compress: 8 MB, 10 MB in base64.
fn large() -> Vec<Raw> {
    let noise = |number: u64| (0..1000).flat_map(move |n| digest(number << 20 | n)).collect::<Vec<u8>>();
    (0..400).map(|number| Raw::new(number).bin("b", blob(noise(number)))).collect()
}

/// Protects: `--file-limit` is kept with and without compression and encryption, with neither more nor fewer files than
/// that takes, none of which ends inside a record.
#[test]
fn files_are_cut_at_the_limit_between_records() {
    let (server, backups) = (Server::start(2), Backups::new());
    raw::load(&server, &large());
    server.backup(&backups.at("one"), &["--parallel-write", "1"]).ok();
    assert_eq!(record_files(&backups.at("one")).len(), 1);
    let whole = Dump::read(&backups.at("one"));
    let key = crate::support::golden().join("test-key.b64");
    let gcm = ["--file-limit", "1", "--encrypt", "aes256gcm", "--encryption-key-file", key.to_str().unwrap()];
    let cases: [(&str, &[&str], u64); 5] = [
        ("plain", &["--file-limit", "1"], MIB),
        ("one-writer", &["--file-limit", "3", "--parallel-write", "1"], 3 * MIB),
        // The size of a block is known only after it was compressed: a file may have one too many.
        ("zstd", &["--file-limit", "1", "--compress", "zstd:1"], MIB + MIB * 3 / 4),
        ("compact", &["--file-limit", "1", "--compact", "--parallel", "2"], MIB),
        ("gcm", &gcm, MIB),
    ];
    for (name, options, limit) in cases {
        let summary = server.backup(&backups.at(name), &[options, &["--json"]].concat()).ok().json();
        let files = record_files(&backups.at(name));
        for (file, size) in &files {
            assert!(*size <= limit, "{name}: {file} has {size} bytes");
        }
        // A block is half a mebibyte and a record; four writers leave a last file each.
        let total: u64 = files.values().sum();
        let most = total / (limit.min(3 * MIB) - MIB / 2 - 40_000).min(MIB / 3) + 4;
        let count = files.len() as u64;
        assert!((total.div_ceil(limit)..=most).contains(&count), "{name}: {count} files of {total} bytes");
        assert_eq!(summary["file-count"], count + 1, "{name}");
        if !["zstd", "compact", "gcm"].contains(&name) {
            same(&Dump::read(&backups.at(name)), &whole);
        }
    }
    server.wipe();
    let summary = server.restore(&server.namespace, &backups.at("zstd"), &["--json"]).ok().json();
    assert_eq!(summary["inserted-records"], 400);
    same(&backups.dump(&server, "again", &[]), &whole);
}

/// Protects: a record larger than the limit has a file to itself, whole.
#[test]
fn a_record_larger_than_the_limit_is_whole() {
    let (server, backups) = (Server::start(1), Backups::new());
    // In base64 1.2 MB.
    let records: Vec<_> = (0..3).map(|number| Raw::new(number).bin("b", blob(vec![7; 900_000]))).collect();
    raw::load(&server, &records);
    let options = ["--file-limit", "1", "--parallel", "1"];
    holds(&backups.dump(&server, "b", &options), &records, |_| true);
    let sizes: Vec<u64> = record_files(&backups.at("b")).into_values().collect();
    assert_eq!(sizes.len(), 3);
    assert!(sizes.iter().all(|size| (1_200_000..1_201_000).contains(size)), "{sizes:?}");
}

/// Protects: every level compresses, says so, and restores.
#[test]
fn compression_levels() {
    let (server, backups) = (Server::start(2), Backups::new());
    load(&server, 0..2000);
    let plain = server.backup(&backups.at("plain"), &["--json"]).ok().json();
    let whole = Dump::read(&backups.at("plain"));
    let size = |summary: &serde_json::Value| summary["byte-count"].as_u64().unwrap();
    for level in ["none", "zstd", "zstd:-1", "zstd:1", "zstd:12", "zstd:22"] {
        let folder = backups.at(level);
        // The highest levels take hundreds of megabytes for each file.
        let options = ["--compress", level, "--parallel-write", "1", "--json"];
        let summary = server.backup(&folder, &options).ok().json();
        let (name, smaller) = if level == "none" { ("NONE", 1) } else { ("ZSTD", 2) };
        assert_eq!(summary["compression"], name);
        assert!(size(&summary) * smaller <= size(&plain), "{level}: {summary}");
        if level != "none" {
            server.wipe();
            server.restore(&server.namespace, &folder, &[]).ok();
            same(&backups.dump(&server, &format!("{level}-again"), &[]), &whole);
        }
    }
}

/// Protects: the summary, metadata.yaml and the files say the same, under the names that other tools read.
#[test]
fn summary_metadata_and_files_add_up() {
    let (server, backups) = (Server::start(2), Backups::new());
    load(&server, 0..700);
    let key = crate::support::golden().join("test-key.b64");
    let encryption = ["--encrypt", "aes256", "--encryption-key-file", key.to_str().unwrap()];
    for (name, options) in
        [("plain", &[][..]), ("both", &[&["--compress", "zstd"], &encryption[..]].concat())]
    {
        let folder = backups.at(name);
        let before = chrono::Utc::now();
        let outcome = server.backup(&folder, &[options, &["--json"]].concat()).ok();
        let summary = outcome.json();
        let text = std::fs::read_to_string(folder.join("metadata.yaml")).unwrap();
        let metadata: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(": ")).collect();
        let keys = "byte-count cluster-created compression created encryption KEY file-count finished from manifest-hash namespace \
                    record-count secondary-index-count selection udf-count";
        let keys = keys.replace("KEY ", if name == "plain" { "" } else { "encryption-key " });
        assert_eq!(metadata.keys().copied().collect::<Vec<_>>().join(" "), keys);
        for (key, value) in &metadata {
            let said = &summary[*key];
            let said = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
            assert!(
                ["encryption-key", "from", "manifest-hash", "selection"].contains(key) || said == *value,
                "{key}: {said} and {value}"
            );
        }
        let files = asb_files(&folder);
        assert_eq!(summary["byte-count"], files.values().sum::<u64>());
        assert_eq!(summary["file-count"], files.len());
        assert_eq!(summary["record-count"], 700);
        assert_eq!(summary["directory"], folder.to_str().unwrap());
        assert_eq!(summary["retries"], 0);
        assert_eq!(metadata["namespace"], server.namespace);
        assert_eq!(metadata["from"], "0001-01-01T00:00:00Z");
        let time = |key: &str| chrono::DateTime::parse_from_rfc3339(metadata[key]).unwrap().to_utc();
        assert!(before - chrono::TimeDelta::milliseconds(1) <= time("created"));
        assert!(time("created") <= time("finished") && time("finished") <= chrono::Utc::now());
        assert!(metadata["created"].len() <= "2026-01-01T00:00:00.000Z".len(), "milliseconds at the most");
        let packed = (metadata["compression"], metadata["encryption"]);
        assert_eq!(packed, if name == "plain" { ("NONE", "NONE") } else { ("ZSTD", "AES256") });
    }
}
