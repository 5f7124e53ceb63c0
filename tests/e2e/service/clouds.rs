//! What is particular to backups in object stores. What is the same wherever backups go is tested on every storage in
//! `api`.

mod buckets;
mod command_line;
mod elsewhere;
mod parts;
mod remote;
mod requests;
mod two_services;

use super::place::{Place, in_every_cloud};

/// A bucket of one test, empty.
fn fresh(place: Place, test: &str) -> String {
    let name = format!("{test}-{}-{}", std::process::id(), chrono::Utc::now().timestamp_micros());
    place.bucket("create", &name);
    name
}
