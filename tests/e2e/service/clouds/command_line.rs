//! `abs backup`, `abs inspect`, `abs verify` and `abs restore` without a service.

use std::fs;

use serde_json::json;

use super::{Place, in_every_cloud};
use crate::faults::empty;
use crate::service::api::{held, holds, put};
use crate::service::support::{Home, ROUTINE};
use crate::support::{Server, abs};

/// The checksum of each object is in the listings of this store.
fn lists_checksums(place: Place) -> bool {
    place == Place::Gcs
}

in_every_cloud!(the_command_line_works_on_an_object_store, a_changed_object_is_found);

/// Protects: with `--storage` the folders of the command line are those of a bucket: what `abs backup` writes there, `abs
/// inspect` and `abs verify` find whole and `abs restore` brings back; a bucket that is not there is told in a line.
fn the_command_line_works_on_an_object_store(place: Place) {
    let server = Server::embedded(1);
    put(&server, 0..500, 1);
    let expected = held(&server);
    let home = Home::of(&server, ROUTINE).at(place);
    let file = home.path().join("storage.yml");
    fs::write(&file, home.entry().to_string()).unwrap();
    let storage = ["--storage", file.to_str().unwrap()];
    let made = server.backup("nightly/one".as_ref(), &[&storage[..], &["--json"]].concat()).ok().json();
    assert_eq!(made["record-count"], json!(500), "{made}");
    let files = home.files();
    assert!(!files.is_empty() && files.iter().all(|name| name.starts_with("nightly/one/")), "{files:?}");
    abs(&[&["inspect", "nightly/one"][..], &storage].concat()).ok();
    abs(&[&["inspect", &files[0]][..], &storage].concat()).ok();
    let whole = abs(&[&["verify", "-d", "nightly"][..], &storage].concat()).ok();
    assert!(whole.stdout.contains("/nightly/one: whole: "), "{whole:?}");
    empty(&server);
    server.restore(&server.namespace, "nightly/one".as_ref(), &storage).ok();
    holds(&server, &expected);

    server.restore(&server.namespace, "nightly/two".as_ref(), &storage).fails(1, &["nightly/two"]);
    fs::write(&file, place.entry("abs-gone", "").to_string()).unwrap();
    abs(&[&["verify", "-d", "nightly"][..], &storage].concat()).fails(2, &["abs-gone"]);
    server.backup("nightly/one".as_ref(), &storage).fails(1, &["abs-gone", "does not exist"]);
}

/// Protects: an object that was changed and kept its size is found by a full verification, and by a quick one where the store lists
/// checksums, which are those of the manifest as long as nothing was changed.
fn a_changed_object_is_found(place: Place) {
    let server = Server::embedded(1);
    put(&server, 0..500, 1);
    let home = Home::of(&server, ROUTINE).at(place);
    let file = home.path().join("storage.yml");
    fs::write(&file, home.entry().to_string()).unwrap();
    let storage = ["--storage", file.to_str().unwrap()];
    server.backup("one".as_ref(), &storage).ok();
    let verify = |options: &[&str]| abs(&[&["verify", "-d", "one"][..], options, &storage].concat());
    verify(&["--quick"]).ok();
    let name = home.files().into_iter().find(|name| name.contains(".asb")).unwrap();
    let mut bytes = home.read(&name);
    let last = bytes.len() - 100;
    bytes[last] ^= 1;
    home.raw().write(&name, &bytes);
    if lists_checksums(place) {
        let found = verify(&["--quick"]).fails(1, &["damaged"]);
        assert!(found.stdout.contains("has another checksum"), "{found:?}");
    } else {
        verify(&["--quick"]).ok();
    }
    let found = verify(&[]).fails(1, &["damaged"]);
    assert!(found.stdout.contains("differ from those that were written"), "{found:?}");
}
