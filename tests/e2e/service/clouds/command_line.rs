//! `abs backup`, `abs inspect`, `abs verify` and `abs restore` without a service.

use std::fs;

use serde_json::json;

use super::{Place, in_every_cloud};
use crate::faults::empty;
use crate::service::api::{held, holds, put};
use crate::service::support::{Home, ROUTINE};
use crate::support::{Server, abs};

in_every_cloud!(the_command_line_works_on_an_object_store);

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
