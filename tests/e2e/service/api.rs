//! The API as clients of the reference use it: every request, and every answer field by field.

mod backups;
mod chains;
mod configuration;
mod contract;
mod histories;
mod journal;
mod layouts;
mod policies;
mod progress;
pub mod restores;
mod retention;
mod selection;
mod system;
mod validations;
mod verifications;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use abs_asb::Digest;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use ureq::http::Response;
use ureq::{Agent, Body};

use super::support::{Home, Service, configuration, eventually, files};
use crate::raw::{self, Particle, Raw, integer};
use crate::support::{HANGS, Server};

/// A routine of another name, for the one namespace, that backs up when it is asked to.
fn routine(name: &str) -> String {
    super::support::ROUTINE.replacen("routine", name, 1)
}

/// The configuration of `Home::of` with another policy.
pub fn with_policy(server: &Server, policy: &str) -> Home {
    let text = configuration(server, &routine("routine"));
    let own = "policy: {retry-policy: {base-timeout: 100, max-retries: 1}, overlap: 0}";
    assert!(text.contains(own));
    let policy = policy.replacen('{', "{overlap: 0, ", 1);
    Home::new(&text.replace(own, &format!("policy: {policy}")))
}

/// Writes the records of these numbers, each with this value, and with its number.
pub fn put(server: &Server, numbers: Range<u64>, value: i64) {
    let record = |n| Raw::new(n).set("s").bin("number", integer(n as i64)).bin("value", integer(value));
    raw::load(server, &numbers.map(record).collect::<Vec<_>>());
    // Servers keep the times of updates in milliseconds: a backup begun in that of an update leaves it to the next one.
    std::thread::sleep(Duration::from_millis(2));
}

/// What the namespace holds: the bins of each record.
pub fn held(server: &Server) -> BTreeMap<Digest, BTreeMap<Vec<u8>, Particle>> {
    raw::read(server).into_iter().map(|(digest, record)| (digest, record.bins)).collect()
}

/// These numbers of an answer.
#[track_caller]
fn numbers_of<const N: usize>(answer: &Value, keys: [&str; N]) -> [u64; N] {
    keys.map(|key| answer[key].as_u64().unwrap_or_else(|| panic!("{key} of {answer}")))
}

/// Insists that the namespace holds just this.
#[track_caller]
pub fn holds(server: &Server, expected: &BTreeMap<Digest, BTreeMap<Vec<u8>, Particle>>) {
    let found = held(server);
    let other = found.iter().find(|(digest, bins)| expected.get(*digest) != Some(bins));
    assert_eq!((found.len(), other), (expected.len(), None));
}

/// Whether a path is that of a file with data.
pub fn is_data(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "asb")
}

/// Whether a text is a time as the reference writes it: RFC 3339, UTC, to the millisecond, no zeros at its end.
fn is_time(text: &str) -> bool {
    let Some(bare) = text.strip_suffix('Z') else { return false };
    let fraction = bare.split_once('.').map(|(_, fraction)| fraction);
    DateTime::parse_from_rfc3339(text).is_ok()
        && fraction.is_none_or(|digits| (1..=3).contains(&digits.len()) && !digits.ends_with('0'))
}

/// The milliseconds of a time in an answer.
#[track_caller]
fn milliseconds(time: &Value) -> i64 {
    time.as_str().unwrap().parse::<DateTime<Utc>>().unwrap().timestamp_millis()
}

/// Insists that an answer looks like the example: exactly its keys at every place, of each list element too, and values
/// of the same type: whole numbers, times, texts. Examples of times are times.
#[track_caller]
fn looks_like(found: &Value, example: &Value) {
    if let Err((place, what)) = same_look(found, example) {
        panic!("{place:?} {what} in {found:#}");
    }
}

fn same_look(found: &Value, example: &Value) -> Result<(), (String, String)> {
    let wrong = |what: &str| Err((String::new(), what.to_owned()));
    let within = |place: &str, (inner, what): (String, String)| (format!("{place}.{inner}"), what);
    match (found, example) {
        (Value::Object(found), Value::Object(example)) => {
            if let Some(key) = example.keys().find(|key| !found.contains_key(*key)) {
                return Err((key.clone(), "is missing".to_owned()));
            }
            if let Some(key) = found.keys().find(|key| !example.contains_key(*key)) {
                return Err((key.clone(), "is not in the example".to_owned()));
            }
            found.iter().try_for_each(|(key, value)| {
                same_look(value, &example[key]).map_err(|wrong| within(key, wrong))
            })
        }
        (Value::Array(found), Value::Array(example)) => {
            found.iter().try_for_each(|value| same_look(value, &example[0]))
        }
        (Value::String(found), Value::String(example)) if is_time(example) && !is_time(found) => {
            wrong(&format!("is {found:?} and no time"))
        }
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) => Ok(()),
        (Value::Number(found), Value::Number(_)) if found.is_u64() => Ok(()),
        _ => wrong(&format!("is {found} where the example has {example}")),
    }
}

/// An answer as it comes, to be read piece by piece.
#[track_caller]
fn open(service: &Service, path: &str) -> Response<Body> {
    let agent = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(HANGS))
        .build()
        .new_agent();
    agent.get(format!("{}{path}", service.address())).call().unwrap()
}

/// What the service counts under this name and these labels (as `{a="b"}`, sorted); 0 before the first time.
#[track_caller]
fn metric(service: &Service, name: &str) -> u64 {
    let text = service.get("/metrics").is(200).text;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("aerospike_backup_service_{name} ")));
    line.map_or(0, |value| value.parse().unwrap())
}

/// Waits until the service counts this much.
#[track_caller]
fn counts(service: &Service, name: &str, value: u64) {
    let mut found = 0;
    eventually(|| {
        found = metric(service, name);
        found >= value
    })
    .unwrap_or_else(|()| panic!("{name} stays {found}, not {value}:\n{}", service.log()));
    assert!(found <= value, "{name} is {found}, not {value}");
}

/// A destination for a restore: the server, inline.
pub fn destination(server: &Server) -> Value {
    let (host, port) = server.address.rsplit_once(':').unwrap();
    json!({"seed-nodes": [{"host-name": host, "port": port.parse::<u16>().unwrap()}]})
}

/// A restore of a listed backup into the cluster of the configuration.
pub fn request_of(backup: &Value, policy: &Value) -> Value {
    json!({
        "destination-name": "cluster", "policy": policy,
        "source-name": "disk", "backup-data-path": backup["key"]
    })
}
