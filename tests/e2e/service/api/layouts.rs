//! Backups that others wrote: folders as the reference lays them out, now and in older versions, with the files of the
//! official tool.

use std::fs;

use serde_json::{Value, json};

use super::restores::{done, numbers};
use super::{Home, holds, milliseconds, put};
use crate::faults::empty;
use crate::service::place::{Place, on_every_storage};
use crate::service::support::{ROUTINE, Service, configuration};
use crate::support::{Dump, Server, golden, same};

on_every_storage!(
    folders_of_the_reference_list_and_restore,
    every_form_of_the_official_tool_restores,
    a_chain_of_several_layouts_restores_after_a_restart,
);

/// 2024-01-01T12:00:00.000Z.
const NOON: i64 = 1_704_110_400_000;

/// Puts the golden files of a form into a folder, as a backup made at `time`.
fn lay(home: &Home, folder: &str, form: &str, time: i64, more: &str) {
    let mut size = 0;
    for entry in fs::read_dir(golden().join("asb").join(form)).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        size += bytes.len();
        home.raw().write(&format!("{folder}/{}", entry.file_name().to_str().unwrap()), &bytes);
    }
    let created = chrono::DateTime::from_timestamp_millis(time).unwrap().format("%Y-%m-%dT%H:%M:%S%.3fZ");
    let metadata = format!(
        "created: {created}\nfinished: {created}\nfrom: 0001-01-01T00:00:00Z\nnamespace: source-ns1\n\
         record-count: 2064\nbyte-count: {size}\nfile-count: 2\nsecondary-index-count: 8\nudf-count: 1\n{more}"
    );
    home.raw().write(&format!("{folder}/metadata.yaml"), metadata.as_bytes());
}

/// The golden data as a backup of the restored namespace has it.
fn expected() -> Dump {
    let mut dump = Dump::read(&golden().join("asb/plain")).restored();
    dump.records.retain(|_, record| record.expiration == 0);
    dump
}

fn found(server: &Server) -> Dump {
    let folder = tempfile::tempdir().unwrap();
    server.backup(&folder.path().join("all"), &[]).ok();
    let mut dump = Dump::read(&folder.path().join("all"));
    dump.records.retain(|_, record| record.expiration == 0);
    dump
}

/// A service for the namespace of the golden data.
fn start(place: Place) -> (Server, Home) {
    let mut server = Server::embedded(2);
    "source-ns1".clone_into(&mut server.namespace);
    let home = Home::of(&server, ROUTINE).at(place);
    (server, home)
}

/// Protects: what the official tool wrote lists and restores, wherever the reference put it: with `data` in the path or
/// without, with the time for people in each of its forms; by path and by time.
fn folders_of_the_reference_list_and_restore(place: Place) {
    let (server, home) = start(place);
    let service = home.serve();
    let expected = expected();
    let none = "compression: NONE\nencryption: NONE\n";
    for (number, run) in [
        "1704110400000/data/source-ns1",
        "1704110400001/source-ns1",
        "1704110400002_2024-01-01T12-00-00/data/source-ns1",
        "1704110400003_01-Jan-2024-12-00-00/data/source-ns1",
        "1704110400004_Jan-01-2024-12-00-00/data/source-ns1",
        "1704110400005_2024-01-01T12-00-00/source-ns1",
        // Of a version that kept one backup.
        "source-ns1",
    ]
    .into_iter()
    .enumerate()
    {
        let (time, key) = (NOON + number as i64, format!("routine/backup/{run}"));
        lay(&home, &key, "plain", time, none);
        let backups = service.backups("full", "routine");
        assert_eq!(backups.len(), number + 1, "{run}: {backups:?}");
        let last = &backups[number];
        assert_eq!((&last["key"], &last["timestamp"]), (&json!(key), &json!(time)));
        assert_eq!(milliseconds(&last["created"]), time);
        numbers(
            last,
            &[("record-count", 2064), ("secondary-index-count", 8), ("udf-count", 1), ("file-count", 2)],
        );
        for (kind, request) in [
            (
                "full",
                json!({
                    "source": last["storage"], "destination-name": "cluster", "backup-data-path": key
                }),
            ),
            ("timestamp", json!({"routine": "routine", "time": time})),
        ] {
            server.wipe();
            let status = done(&service, kind, &request);
            numbers(&status, &[("read-records", 2064), ("index-count", 8), ("udf-count", 1)]);
            same(&found(&server), &expected);
        }
    }
    // The next incremental backup builds on the last of them.
    put(&server, 0..10, 1);
    let next = service.backup("incremental", "routine").remove(0);
    assert_eq!(milliseconds(&next["from"]), NOON + 6);
}

/// Protects: compressed and encrypted files of the official tool restore as their policy says; metadata of older versions,
/// which says less, is read.
fn every_form_of_the_official_tool_restores(place: Place) {
    let (server, home) = start(place);
    let key = home.path().join("key.pem");
    let text = fs::read_to_string(golden().join("test-key.b64")).unwrap();
    fs::write(&key, format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", text.trim()))
        .unwrap();
    let service = home.serve();
    let expected = expected();
    for (number, (form, compression, encryption)) in [
        ("plain", "NONE", "NONE"),
        ("compact", "NONE", "NONE"),
        ("zstd", "ZSTD", "NONE"),
        ("aes128", "NONE", "AES128"),
        ("zstd-aes256", "ZSTD", "AES256"),
    ]
    .into_iter()
    .enumerate()
    {
        let time = NOON + number as i64;
        let path = format!("routine/backup/{time}/data/source-ns1");
        let more = format!("compression: {compression}\nencryption: {encryption}\n");
        lay(&home, &path, form, time, if form == "plain" { "" } else { &more });
        let encrypted = match encryption {
            "NONE" => json!({"mode": "NONE"}),
            mode => json!({"mode": mode, "key-file": key}),
        };
        server.wipe();
        let status = done(
            &service,
            "full",
            &json!({
                "source-name": "disk", "destination-name": "cluster", "backup-data-path": path,
                "policy": {"compression": {"mode": compression}, "encryption": encrypted}
            }),
        );
        numbers(&status, &[("read-records", 2064)]);
        same(&found(&server), &expected);
        let listed = service.backups("full", "routine").pop().unwrap();
        if form != "plain" {
            assert_eq!(
                (&listed["compression"], &listed["encryption"]),
                (&json!(compression), &json!(encryption))
            );
        }
    }
}

/// The newest backup of a list.
fn newest(service: &Service, kind: &str) -> Value {
    service.backups(kind, "routine").pop().unwrap()
}

/// Protects: each form of folder is written as asked, and a chain over several of them, of which some were moved to where
/// older versions put them, restores after a restart of the service.
fn a_chain_of_several_layouts_restores_after_a_restart(place: Place) {
    let server = Server::embedded(2);
    let plain = configuration(&server, ROUTINE);
    let formats = [("", ""), ("ISO", "T"), ("EU", "-"), ("US", "-")];
    let home = Home::new(&plain).at(place);
    let mut moments = Vec::new();
    let mut last = None;
    for (number, (format, mark)) in formats.into_iter().enumerate() {
        if !format.is_empty() {
            home.configure(
                &plain
                    .replace("service:\n", &format!("service:\n  backup: {{timestamp-format: {format}}}\n")),
            );
        }
        let service = home.serve();
        // What was there before the restart is there as it was.
        assert_eq!(
            last,
            (number > 0).then(|| newest(&service, if number == 1 { "full" } else { "incremental" }))
        );
        put(&server, number as u64 * 10..number as u64 * 10 + 30, number as i64);
        let kind = if number == 0 { "full" } else { "incremental" };
        let backup = service.backup(kind, "routine").remove(0);
        let run = backup["key"].as_str().unwrap().split('/').nth(2).unwrap().to_owned();
        let time = backup["timestamp"].as_i64().unwrap();
        let name = chrono::DateTime::from_timestamp_millis(time).unwrap();
        let pattern = match format {
            "ISO" => "_%Y-%m-%dT%H-%M-%S",
            "EU" => "_%d-%b-%Y-%H-%M-%S",
            "US" => "_%b-%d-%Y-%H-%M-%S",
            _ => "",
        };
        assert_eq!(run, format!("{time}{}", name.format(pattern)));
        assert!(run.contains(mark));
        moments.push((time, super::held(&server)));
        last = Some(backup);
        service.stop();
    }
    // The second one as versions without `data` in the path wrote it.
    let raw = home.raw();
    let new =
        home.files().into_iter().filter(|name| name.starts_with("routine/incremental/")).collect::<Vec<_>>();
    let run = new[0].split_inclusive('/').take(3).collect::<String>();
    for name in new.iter().filter(|name| name.starts_with(&run)) {
        raw.write(&name.replace("/data/", "/"), &home.read(name));
    }
    raw.delete(&format!("{run}data"));

    let service = home.serve();
    assert_eq!(service.backups("incremental", "routine").len(), 3);
    for (time, expected) in &moments {
        empty(&server);
        done(&service, "timestamp", &json!({"routine": "routine", "time": time}));
        holds(&server, expected);
    }
    service.stop();
}
