//! Restores to a point in time: over one full backup and several incremental ones, to each moment of the chain, compared
//! with what the namespace held then.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::restores::{done, numbers};
use super::{Home, destination, files, held, holds, put, routine};
use crate::faults::empty;
use crate::raw::{self, Raw, integer};
use crate::service::place::{Place, on_every_storage};
use crate::service::support::{ROUTINE, Service, configuration};
use crate::support::{Server, remove_manifest};

on_every_storage!(
    every_moment_of_a_differential_chain_comes_back,
    several_namespaces_come_back_together,
    a_routine_that_is_gone_restores_from_its_storage,
);

type Held = BTreeMap<abs_asb::Digest, BTreeMap<Vec<u8>, crate::raw::Particle>>;

/// Makes a full backup and three incremental ones of a namespace that changes; returns the time of each and what the
/// namespace held then.
fn chain(server: &Server, service: &Service, routine: &str) -> Vec<(i64, Held)> {
    let step = |kind: &str, change: &dyn Fn()| {
        change();
        let backup = service.backup(kind, routine).remove(0);
        (backup["timestamp"].as_i64().unwrap(), held(server))
    };
    vec![
        step("full", &|| put(server, 0..60, 1)),
        // Some change, some are new.
        step("incremental", &|| put(server, 40..80, 2)),
        // Some change a second time, and twice.
        step("incremental", &|| {
            put(server, 0..10, 3);
            put(server, 70..90, 3);
            put(server, 75..80, 4);
        }),
        step("incremental", &|| {
            put(server, 5..15, 5);
            put(server, 100..101, 5);
        }),
    ]
}

fn to(time: i64) -> Value {
    json!({"routine": "routine", "time": time})
}

/// Restores to each moment of a chain and to those between, from an empty namespace and from a used one.
fn every_moment(server: &Server, service: &Service, chain: &[(i64, Held)]) {
    let last = chain.len() - 1;
    for (number, (time, expected)) in chain.iter().enumerate() {
        let between = chain.get(number + 1).map_or(time + 1_000_000, |(next, _)| next - 1);
        for moment in [*time, between] {
            for in_order in [false, true] {
                empty(server);
                let mut request = to(moment);
                request["disable-reordering"] = json!(in_order);
                let status = done(service, "timestamp", &request);
                holds(server, expected);
                // Each record is written once, whatever the request says of the order.
                numbers(&status, &[("inserted-records", expected.len() as u64)]);
            }
        }
        // What is there is newer: it stays, or is overwritten, as the policy says; what no backup knows stays.
        empty(server);
        done(service, "timestamp", &to(chain[last].0));
        let own = Raw::new(1_000_000).bin("value", integer(9));
        raw::load(server, std::slice::from_ref(&own));
        let mut request = to(*time);
        request["policy"] = json!({"no-generation": true});
        done(service, "timestamp", &request);
        let mut found = held(server);
        assert!(found.remove(&own.digest).is_some());
        for (digest, bins) in expected {
            assert_eq!(found.get(digest), Some(bins));
        }
        assert_eq!(found.len(), chain[last].1.len());
    }
}

/// Protects: each moment of a differential chain comes back.
fn every_moment_of_a_differential_chain_comes_back(place: Place) {
    let server = Server::embedded(2);
    let service = Home::of(&server, ROUTINE).at(place).serve();
    let chain = chain(&server, &service, "routine");
    let counts: Vec<_> = service.backups("incremental", "routine");
    let counts: Vec<_> = counts.iter().map(|backup| backup["record-count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [40, 30, 11]);
    every_moment(&server, &service, &chain);
}

/// Protects: each moment of a cumulative chain comes back, from the full backup and one incremental one alone.
#[test]
fn every_moment_of_a_cumulative_chain_comes_back() {
    let server = Server::embedded(2);
    let text =
        configuration(&server, ROUTINE).replace("policy: {retry", "policy: {incr-mode: cumulative, retry");
    let service = Home::new(&text).serve();
    let chain = chain(&server, &service, "routine");
    let backups = service.backups("incremental", "routine");
    let counts: Vec<_> = backups.iter().map(|backup| backup["record-count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [40, 60, 66]);
    let full = &service.backups("full", "routine")[0];
    assert!(backups.iter().all(|backup| backup["from"] == full["created"]), "{backups:?}");
    every_moment(&server, &service, &chain);
    empty(&server);
    let mut request = to(chain[3].0);
    request["disable-reordering"] = json!(true);
    numbers(&done(&service, "timestamp", &request), &[("read-records", 60 + 66)]);
}

/// Protects: with the default overlap, incremental backups hold what changed just before the backup they build on once more,
/// also when nothing else has changed; each moment comes back all the same.
#[test]
fn an_overlap_repeats_recent_changes() {
    let server = Server::embedded(2);
    let service = Home::new(&configuration(&server, ROUTINE).replace(", overlap: 0", "")).serve();
    let chain = chain(&server, &service, "routine");
    service.backup("incremental", "routine");
    let backups = service.backups("incremental", "routine");
    assert_eq!((&backups[0]["record-count"], backups.len()), (&json!(80), 4));
    every_moment(&server, &service, &chain);
}

/// Protects: without `no-generation`, newer records that are there stay.
#[test]
fn newer_records_stay_unless_told_otherwise() {
    let server = Server::embedded(1);
    let service = Home::of(&server, ROUTINE).serve();
    let chain = chain(&server, &service, "routine");
    put(&server, 0..101, 6);
    let newest = held(&server);
    let status = done(&service, "timestamp", &to(chain[3].0));
    numbers(&status, &[("inserted-records", 0), ("fresher-records", 91), ("superseded-records", 141 - 91)]);
    let warning = status["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("91 of 91 records") && warning.ends_with("no-generation"), "{warning}");
    holds(&server, &newest);
}

/// Protects: the backups of several namespaces are of one moment, and restore together or, mapped, alone.
fn several_namespaces_come_back_together(place: Place) {
    let mut server = Server::embedded(2);
    let names = ["source-ns1", "source-ns2"];
    // No names: all of the cluster.
    let text = configuration(&server, ROUTINE).replace("namespaces: [source-ns2]", "namespaces: []");
    let service = Home::new(&text).at(place).serve();
    let mut moments = Vec::new();
    for (kind, first, value, changing) in [
        ("full", 0, 1, &names[..]),
        ("incremental", 50, 2, &names[..]),
        // Of the other one there is nothing to back up.
        ("incremental", 70, 3, &names[1..]),
        ("incremental", 20, 4, &names[..]),
    ] {
        let mut all = Vec::new();
        for (number, name) in names.iter().enumerate() {
            (*name).clone_into(&mut server.namespace);
            let from = first + 1000 * number as u64;
            if changing.contains(name) {
                put(&server, from..from + 50 + 10 * number as u64, value);
            }
            all.push(held(&server));
        }
        let backups = service.backup(kind, "routine");
        assert_eq!(backups.iter().map(|backup| &backup["namespace"]).collect::<Vec<_>>(), changing);
        assert!(backups.iter().all(|backup| backup["timestamp"] == backups[0]["timestamp"]), "{backups:?}");
        moments.push((backups[0]["timestamp"].as_i64().unwrap(), all));
    }
    for (time, expected) in &moments {
        for name in names {
            (*name).clone_into(&mut server.namespace);
            empty(&server);
        }
        done(&service, "timestamp", &to(*time));
        for (name, expected) in names.iter().zip(expected) {
            (*name).clone_into(&mut server.namespace);
            holds(&server, expected);
        }
    }
    // One of them, to another cluster.
    let mut other = Server::embedded(1);
    names[1].clone_into(&mut other.namespace);
    let mut request = to(moments[1].0);
    request["destination"] = destination(&other);
    request["policy"] = json!({"namespace": {"source": names[0], "destination": names[1]}});
    done(&service, "timestamp", &request);
    holds(&other, &moments[1].1[0]);
    names[0].clone_into(&mut other.namespace);
    assert_eq!(other.objects(), 0);
}

/// Protects: with a source and a destination the routine need not be configured (any more); a destination by name.
fn a_routine_that_is_gone_restores_from_its_storage(place: Place) {
    let server = Server::embedded(1);
    let home = Home::of(&server, &format!("{ROUTINE}\n{}", routine("stays"))).at(place);
    let service = home.serve();
    let chain = chain(&server, &service, "routine");
    let storage = service.backups("full", "routine")[0]["storage"].clone();
    service.delete("/v1/config/routines/routine").is(204);
    empty(&server);
    let mut request = to(chain[2].0);
    service.post("/v1/restore/timestamp", Some(&request.to_string())).refuses(400, &["routine"]);
    request["source"] = storage;
    request["destination"] = destination(&server);
    done(&service, "timestamp", &request);
    holds(&server, &chain[2].1);
    empty(&server);
    let names = json!({"routine": "routine", "time": chain[3].0, "source-name": "disk", "destination-name": "cluster"});
    done(&service, "timestamp", &names);
    holds(&server, &chain[3].1);
}

/// Protects: when it is unknown whether the backups of a routine with a list of bins have the same ones, as with those of
/// other tools, they are put together bin by bin, with a warning.
#[test]
fn backups_of_unknown_bins_are_put_together() {
    let server = Server::embedded(2);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    let write = |numbers: std::ops::Range<u64>, value: i64| {
        let record = |n| Raw::new(n).set("s").bin("one", integer(value)).bin("two", integer(value));
        raw::load(&server, &numbers.map(record).collect::<Vec<_>>());
    };
    write(0..30, 1);
    service.backup("full", "routine");
    for name in files(&home.storage()).iter().filter(|name| name.ends_with("metadata.yaml")) {
        let path = home.storage().join(name);
        remove_manifest(path.parent().unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("selection: ")).collect();
        assert!(lines.len() + 1 == text.lines().count(), "{text}");
        std::fs::write(path, lines.join("\n")).unwrap();
    }
    let mut routine = service.json("/v1/config/routines/routine");
    routine["bin-list"] = json!(["one"]);
    service.put("/v1/config/routines/routine", Some(&routine.to_string())).is(200);
    write(20..40, 2);
    let time = service.backup("incremental", "routine").remove(0)["timestamp"].as_i64().unwrap();
    empty(&server);
    let status = done(&service, "timestamp", &to(time));
    numbers(&status, &[("inserted-records", 50)]);
    let warning = status["warnings"][0].as_str().unwrap();
    assert!(warning.contains("bin by bin"), "{warning}");
    let bins = |n: i64| match n {
        0..20 => (Some(1), Some(1)),
        20..30 => (Some(2), Some(1)),
        _ => (Some(2), None),
    };
    let held = held(&server);
    assert_eq!(held.len(), 40);
    for number in 0..40 {
        let record = &held[&raw::digest(number)];
        let value = |bin: &str| record.get(bin.as_bytes()).cloned();
        let (one, two) = bins(number as i64);
        assert_eq!((value("one"), value("two")), (one.map(integer), two.map(integer)), "{number}");
    }
}
