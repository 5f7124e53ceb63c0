//! `abs inspect`: what it finds in files, sound and damaged.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::load;
use crate::support::{Server, abs, golden, remove_manifest};

/// Runs `abs inspect --json` and returns the exit code and the one report.
pub(super) fn inspect(path: &Path, options: &[&str]) -> (Option<i32>, Value) {
    let outcome = abs(&[&["inspect", path.to_str().unwrap(), "--json"], options].concat());
    let report = outcome.json()[0].take();
    (outcome.code, report)
}

/// Protects: inspect reads everything there is, without a cluster: every form of the golden files, whole folders and
/// single files, several at once.
#[test]
fn inspect_reads_every_form() {
    let asb = golden().join("asb");
    let key = golden().join("test-key.b64");
    let key = ["--encryption-key-file", key.to_str().unwrap()];
    let aes128 = [&["--encrypt", "aes128"], &key[..]].concat();
    let aes256 = [&["--encrypt", "aes256"], &key[..]].concat();
    let cases: [(&str, &[&str], &str, bool); 6] = [
        ("plain", &[], "none", false),
        ("compact", &[], "none", false),
        ("zstd", &[], "zstd", false),
        ("aes128", &aes128, "none", true),
        ("aes256", &aes256, "none", true),
        ("zstd-aes256", &aes256, "zstd", true),
    ];
    for (form, options, compression, encrypted) in cases {
        let (code, report) = inspect(&asb.join(form), options);
        assert_eq!(code, Some(0), "{form}: {report}");
        let files = report["files"].as_array().unwrap();
        let records: u64 = files.iter().map(|f| f["records"]["source-ns1"].as_u64().unwrap()).sum();
        let indexes: usize = files.iter().map(|f| f["indexes"].as_array().unwrap().len()).sum();
        let udfs: usize = files.iter().map(|f| f["udfs"].as_array().unwrap().len()).sum();
        assert_eq!((records, indexes, udfs), (2064, 8, 1), "{form}");
        for file in files {
            let name = file["file"].as_str().unwrap();
            assert_eq!(file["bytes"], fs::metadata(name).unwrap().len(), "{name}");
            assert_eq!((&file["compression"], &file["encrypted"]), (&compression.into(), &encrypted.into()));
            assert_eq!((&file["version"], &file["problem"]), (&"3.1".into(), &Value::Null));
            assert!(file["text-bytes"].as_u64().unwrap() > 100_000, "{name}");
        }
        // A file by itself.
        let (code, single) = inspect(Path::new(files[0]["file"].as_str().unwrap()), options);
        assert_eq!((code, &single["files"][0]), (Some(0), &files[0]));
    }
    let (plain, zstd) = (asb.join("plain"), asb.join("zstd"));
    let outcome = abs(&["inspect", plain.to_str().unwrap(), zstd.to_str().unwrap()]).ok();
    assert_eq!(
        outcome.stdout.matches("2,064 records, 8 indexes and 1 UDF module\n").count(),
        2,
        "{outcome:?}"
    );
}

/// Protects: what is wrong with a file is said with the file and the place, the other files are read all the same, and the
/// exit code is 1.
#[test]
fn inspect_finds_what_is_wrong() {
    let asb = golden().join("asb");
    let key = golden().join("test-key.b64");
    let key = ["--encryption-key-file", key.to_str().unwrap()];
    let problem = |report: &Value| report["files"][0]["problem"].as_str().unwrap_or_default().to_owned();
    // With no key, with another one, with one that is not needed.
    let aes128 = [&["--encrypt", "aes128"], &key[..]].concat();
    let cases: [(&str, &[&str], &str); 3] = [
        ("aes256", &[], "no key was given"),
        ("aes256", &aes128, "another key"),
        ("plain", &aes128, "not at all"),
    ];
    for (form, options, what) in cases {
        let (code, report) = inspect(&asb.join(form), options);
        assert_eq!(code, Some(1));
        assert!(problem(&report).contains(what), "{report}");
    }

    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        fs::write(folder.path().join(name), bytes).unwrap();
        folder.path().join(name)
    };
    let original = fs::read(asb.join("plain/source-ns1_00000.asb")).unwrap();
    // Compressed files of ours carry a checksum; those of the official tool do not.
    let server = Server::start(1);
    load(&server, 1000);
    let options = ["--compress", "zstd", "--no-indexes", "--no-udfs", "--parallel-write", "1"];
    server.backup(&folder.path().join("zstd"), &options).ok();
    let packed =
        fs::read(folder.path().join("zstd/0_source-ns2_1.asb".replace("source-ns2", &server.namespace)));
    let packed = packed.unwrap();
    fs::remove_dir_all(folder.path().join("zstd")).unwrap();
    let mut flipped = packed.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let text = String::from_utf8_lossy(&original[..2000]).into_owned();
    let line = format!("line {}, ", 1 + text.split("\n+ d ").next().unwrap().lines().count());
    let cases: [(&str, Vec<u8>, &[&str]); 7] = [
        ("cut.asb", original[..original.len() - 5].to_vec(), &["line ", "byte "]),
        ("packed-cut.asb", packed[..packed.len() - 5].to_vec(), &["compressed"]),
        ("flipped.asb", flipped, &["flipped.asb"]),
        ("empty.asb", Vec::new(), &["empty"]),
        ("version.asb", text.replace("Version 3.1", "Version 4.0").into_bytes(), &["line 1", "4.0"]),
        ("letter.asb", text.replacen("\n+ d ", "\n+ q ", 1).into_bytes(), &[&line, "column 3"]),
        ("photo.asb", b"\x89PNG\r\n\x1a\n photo".to_vec(), &["not an .asb file"]),
    ];
    for (name, bytes, parts) in cases {
        let (code, report) = inspect(&put(name, &bytes), &[]);
        assert_eq!(code, Some(1), "{name}");
        for part in [&[name], parts].concat() {
            assert!(problem(&report).contains(part), "{part:?} is missing in {report}");
        }
    }
    // All of them together, with a good one in between.
    put("good.asb", &original);
    let outcome = abs(&["inspect", folder.path().to_str().unwrap()]).fails(1, &["7 problems found"]);
    assert_eq!(outcome.stdout.matches("  problem: ").count(), 7, "{outcome:?}");
    assert!(outcome.stdout.contains("good.asb: "), "{outcome:?}");

    let nothing = tempfile::tempdir().unwrap();
    abs(&["inspect", nothing.path().to_str().unwrap()]).fails(1, &["holds no backup"]);
}

/// Protects: names in files are of foreign origin: they cannot break the lines of the output or command the terminal.
#[test]
fn inspect_shows_control_characters() {
    let folder = tempfile::tempdir().unwrap();
    let head = "Version 3.1\n# namespace n\n";
    let record = "+ n n\n+ d AAAAAAAAAAAAAAAAAAAAAAAAAAA=\n+ s a\\\n\x1b[2J\n+ g 1\n+ t 0\n+ b 1\n- I v 1\n";
    fs::write(folder.path().join("a.asb"), format!("{head}{record}")).unwrap();
    let outcome = abs(&["inspect", folder.path().to_str().unwrap()]).ok();
    assert!(outcome.stdout.contains("sets a\\n\\u{1b}[2J\n"), "{outcome:?}");
    assert_eq!(outcome.stdout.lines().count(), 2);
}

/// Protects: metadata.yaml that does not match the files is a problem of the folder.
#[test]
fn inspect_compares_with_the_metadata() {
    let server = Server::start(1);
    load(&server, 100);
    let folder = tempfile::tempdir().unwrap();
    server.backup(folder.path(), &[]).ok();
    let (code, report) = inspect(folder.path(), &[]);
    assert_eq!((code, &report["problems"]), (Some(0), &serde_json::json!([])));
    assert_eq!(report["metadata"]["record-count"], 100);
    let metadata = folder.path().join("metadata.yaml");
    let text = fs::read_to_string(&metadata).unwrap();
    fs::write(&metadata, text.replace("record-count: 100", "record-count: 99")).unwrap();
    let (code, report) = inspect(folder.path(), &[]);
    assert_eq!(code, Some(1));
    let problems = report["problems"].to_string();
    assert!(
        problems.contains("metadata.yaml: damaged: it differs from what manifest.json says"),
        "{problems}"
    );
    fs::write(&metadata, &text).unwrap();
    remove_manifest(folder.path());
    let text = fs::read_to_string(&metadata).unwrap();
    fs::write(
        &metadata,
        text.replace("record-count: 100", "record-count: 99").replace("udf-count: 0", "udf-count: 2"),
    )
    .unwrap();
    let (code, report) = inspect(folder.path(), &[]);
    assert_eq!(code, Some(1));
    let problems = report["problems"].to_string();
    assert!(problems.contains("says 99 records, the files hold 100"), "{problems}");
    assert!(problems.contains("says 2 UDF modules, the files hold 0"), "{problems}");
    fs::write(&metadata, "nonsense").unwrap();
    assert_eq!(inspect(folder.path(), &[]).0, Some(1));
}

/// Protects: lists and maps are looked into: one that claims more than it has, or is something else, is a problem with its
/// place; restores take the bytes as they are.
#[test]
fn lists_and_maps_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let whole: &[u8] = &[0x92, 0x01, 0x81, 0xa2, 0x03, b'k', 0x93, 0xc0, 0xc3, 0xcb, 0, 0, 0, 0, 0, 0, 0, 0];
    let cases: [(&str, &[u8], Option<&str>); 6] = [
        ("L", whole, None),
        ("M", &[0x81, 0x01, 0x90], None),
        ("L", &[0xdd, 0xff, 0xff, 0xff, 0xff, 0x01], Some("claims more elements")),
        ("M", &[0xdf, 0xff, 0xff, 0xff, 0xff, 0x01], Some("claims more elements")),
        ("L", &[0x91, 0x01, 0x02], Some("bytes behind its last element")),
        ("M", whole, Some("the value of a map is not one")),
    ];
    for (number, (letter, bytes, problem)) in cases.into_iter().enumerate() {
        let head =
            b"Version 3.1\n# namespace n\n+ n n\n+ d AAAAAAAAAAAAAAAAAAAAAAAAAAA=\n+ g 1\n+ t 0\n+ b 1\n";
        let bin = format!("- {letter}! v {} ", bytes.len());
        let path = folder.path().join(format!("{number}.asb"));
        fs::write(&path, [&head[..], bin.as_bytes(), bytes, b"\n"].concat()).unwrap();
        let (code, report) = inspect(&path, &[]);
        let found = &report["files"][0]["problem"];
        match problem {
            None => assert_eq!((code, found), (Some(0), &Value::Null)),
            Some(problem) => {
                let found = found.as_str().unwrap_or_else(|| panic!("{number} passes"));
                assert!(code == Some(1) && found.contains(problem) && found.contains("line 8"), "{found}");
            }
        }
    }
}
