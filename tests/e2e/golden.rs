//! The golden files: backups that the official tool made of a real server.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{Dump, Outcome, Server, golden, python, same};

/// Unix time of the epoch of void times.
const EPOCH: u64 = 1_262_304_000;

fn now() -> u32 {
    (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - EPOCH) as u32
}

/// The golden data as a restore leaves it now: records that have expired since are gone.
fn restored_golden(form: &str) -> (Dump, u64) {
    let mut dump = Dump::read(&golden().join("asb").join(form)).restored();
    let all = dump.records.len();
    dump.records.retain(|_, record| record.expiration == 0 || record.expiration > now() + 60);
    let expired = (all - dump.records.len()) as u64;
    (dump, expired)
}

fn restore(server: &Server, form: &str) -> Outcome {
    let key = golden().join("test-key.b64");
    let key = key.to_str().unwrap();
    let options: &[&str] = match form {
        "aes128" => &["--json", "--encrypt", "aes128", "--encryption-key-file", key],
        "aes256" | "zstd-aes256" => &["--json", "--encrypt", "aes256", "--encryption-key-file", key],
        _ => &["--json"],
    };
    server.restore("source-ns1", &golden().join("asb").join(form), options)
}

/// Every golden form restores, and a backup of what was restored is the golden data again, in both spellings. Protects:
/// every particle type, name and key of the format, both ways, against what the official tool and a real server do.
#[test]
fn every_golden_form_restores_and_backs_up_again_as_it_was() {
    let server = Server::start(3);
    let (plain, expired) = restored_golden("plain");
    let (compact, _) = restored_golden("compact");
    for form in ["plain", "compact", "zstd", "aes128", "aes256", "zstd-aes256"] {
        server.wipe();
        let summary = restore(&server, form).ok().json();
        assert_eq!(summary["read-records"], 2064, "{form}");
        assert_eq!(summary["inserted-records"], 2064 - expired, "{form}");
        assert_eq!(summary["expired-records"], expired, "{form}");
        assert_eq!((&summary["index-count"], &summary["udf-count"]), (&8.into(), &1.into()), "{form}");
        let folder = tempfile::tempdir().unwrap();
        server.backup(&folder.path().join("plain"), &[]).ok();
        same(&Dump::read(&folder.path().join("plain")), &plain);
        server.backup(&folder.path().join("compact"), &["--compact"]).ok();
        same(&Dump::read(&folder.path().join("compact")), &compact);
    }
}

/// Our own backups restore in all forms to what they were made from.
#[test]
fn every_form_of_ours_restores_to_what_it_was_made_from() {
    let server = Server::start(2);
    restore(&server, "plain").ok();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    server.backup(&at("first"), &[]).ok();
    let first = Dump::read(&at("first"));
    let key = golden().join("test-key.b64");
    let key = key.to_str().unwrap();
    let encrypted = |cipher| ["--encrypt", cipher, "--encryption-key-file", key];
    let forms: [(&str, Vec<&str>); 6] = [
        ("compact", vec!["--compact"]),
        ("zstd", vec!["--compress", "zstd"]),
        ("zstd19", vec!["--compress", "zstd:19", "--compact"]),
        ("aes128", encrypted("aes128").to_vec()),
        ("aes256", encrypted("aes256").to_vec()),
        ("both", [&["--compress", "zstd:1"], &encrypted("aes256")[..]].concat()),
    ];
    for (form, options) in forms {
        server.backup(&at(form), &options).ok();
        server.wipe();
        let keys: Vec<&str> = options.iter().copied().skip_while(|o| *o != "--encrypt").collect();
        server.restore(&server.namespace, &at(form), &keys).ok();
        let again = at(&format!("{form}-again"));
        server.backup(&again, &[]).ok();
        same(&Dump::read(&again), &first);
    }
}

/// The official Python client loads the server, and our backup of it has the official tool's lines. Protects: what clients
/// see of the embedded server, and the encoder against the official one, generations included.
#[test]
fn what_the_official_client_loads_backs_up_as_the_official_tool_does() {
    let server = Server::start(3);
    load(&server);
    let folder = tempfile::tempdir().unwrap();
    for (form, option) in [("plain", &[][..]), ("compact", &["--compact"][..])] {
        server.backup(&folder.path().join(form), option).ok();
        let mut found = Dump::read(&folder.path().join(form));
        let mut expected = Dump::read(&golden().join("asb").join(form));
        // The one record that expires was loaded at another time: its void time is checked against the clock.
        for (digest, record) in &mut expected.records {
            if record.expiration > 0 {
                let loaded = found.records.get_mut(digest).expect("the record that expires");
                let lives = loaded.expiration - now();
                assert!((30 * 86_400 - 600..=30 * 86_400).contains(&lives), "lives {lives} s");
                loaded.expiration = record.expiration;
            }
        }
        same(&found, &expected);
    }
}

/// Runs the loader of the golden data.
fn load(server: &Server) {
    let python = python();
    let (host, port) = server.address.rsplit_once(':').unwrap();
    let output = std::process::Command::new(&python)
        .arg(golden().join("load.py"))
        .args([host, port, &server.namespace])
        .output()
        .unwrap_or_else(|e| panic!("{python}: {e}; scripts/test sets up the Python client"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
