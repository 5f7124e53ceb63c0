//! Restores to each moment of random histories, compared with a model of what a restore to a moment is.
//!
//! `ABS_TEST_HISTORIES` sets the number of histories, `ABS_TEST_SEED` the first seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use abs_asb::Digest;
use fastrand::Rng;
use serde_json::json;

use super::restores::done;
use super::{Home, held, numbers_of, put};
use crate::raw::{self, Particle, Raw, integer};
use crate::service::support::{ROUTINE, Service};
use crate::support::Server;

/// Records of a case, each with a history of its own.
const RECORDS: u64 = 300;
/// Backups of a case: a full one and three incremental ones.
const BACKUPS: usize = 4;
/// Seconds to live of the records that have expired when they are restored.
const SHORT: u32 = 10;
const BINS: [&str; 3] = ["a", "b", "c"];

type Bins = BTreeMap<Vec<u8>, Particle>;

/// A record at the end of a stage.
#[derive(Clone, Debug, PartialEq)]
struct Version {
    generation: u32,
    expires: bool,
    bins: Bins,
}

fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Changes a record at random, and returns what to write for it, in order.
fn change(number: u64, version: &mut Option<Version>, random: &mut Rng) -> Vec<Raw> {
    let mut writes = Vec::new();
    let expires = random.u8(0..5) == 0;
    let record = || Raw::new(number).set("s").ttl(if expires { SHORT } else { abs_cluster::TTL_NEVER });
    let nothing = || Particle { kind: 0, data: Vec::new() };
    let delete = |version: &mut Option<Version>, writes: &mut Vec<Raw>| {
        // A record without bins is deleted.
        if let Some(old) = version.take() {
            writes.push(old.bins.into_keys().fold(record(), |record, bin| record.bin(bin, nothing())));
        }
    };
    let write = |version: &mut Option<Version>, random: &mut Rng, writes: &mut Vec<Raw>| {
        let new = version.get_or_insert(Version { generation: 0, expires, bins: Bins::new() });
        (new.generation, new.expires) = (new.generation + 1, expires);
        let mut raw = record();
        for bin in random.choose_multiple(BINS, random.clone().usize(1..=BINS.len())) {
            let value = integer(random.i64(0..1_000_000));
            new.bins.insert(bin.as_bytes().to_vec(), value.clone());
            raw = raw.bin(bin, value);
        }
        writes.push(raw);
    };
    match random.u8(0..10) {
        0..3 => {}
        3..6 => write(version, random, &mut writes),
        6 => delete(version, &mut writes),
        7 => {
            delete(version, &mut writes);
            write(version, random, &mut writes);
        }
        _ => {
            if let Some(old) = version {
                let names: Vec<_> = old.bins.keys().cloned().collect();
                let name = random.choice(names).unwrap();
                old.bins.remove(&name);
                (old.generation, old.expires) = (old.generation + 1, expires);
                writes.push(record().bin(name, nothing()));
                if old.bins.is_empty() {
                    *version = None;
                }
            }
        }
    }
    writes
}

/// Writes rounds of changes: the first of each record, then the second of each.
fn write_all(server: &Server, changes: Vec<Vec<Raw>>) {
    let mut rounds: Vec<Vec<Raw>> = Vec::new();
    for writes in changes {
        for (round, write) in writes.into_iter().enumerate() {
            if rounds.len() == round {
                rounds.push(Vec::new());
            }
            rounds[round].push(write);
        }
    }
    for round in rounds {
        raw::load(server, &round);
    }
    // Servers keep the times of updates in milliseconds.
    std::thread::sleep(Duration::from_millis(2));
}

/// Makes the backups of a case. Returns the time of each, and of each record the newest version that it and those before
/// have read.
fn back_up(server: &Server, service: &Service, random: &mut Rng) -> Vec<(i64, BTreeMap<Digest, Version>)> {
    let mut current: Vec<Option<Version>> = vec![None; RECORDS as usize];
    let mut newest: BTreeMap<Digest, Version> = BTreeMap::new();
    let mut moments = Vec::new();
    for stage in 0..BACKUPS {
        let mut changes = Vec::new();
        for (number, version) in current.iter_mut().enumerate() {
            let mut writes = change(number as u64, version, random);
            if stage == 0 && random.bool() {
                writes.extend(change(number as u64, version, random));
            }
            if let Some(version) = version
                && !writes.is_empty()
            {
                newest.insert(raw::digest(number as u64), version.clone());
            }
            changes.push(writes);
        }
        write_all(server, changes);
        let kind = if stage == 0 { "full" } else { "incremental" };
        let backup = service.backup(kind, "routine").remove(0);
        moments.push((backup["timestamp"].as_i64().unwrap(), newest.clone()));
    }
    moments
}

/// Puts other records in the namespace, some of those of the histories among them; returns their generations and bins.
fn put_others(server: &Server, random: &mut Rng) -> BTreeMap<Digest, Version> {
    let mut others = BTreeMap::new();
    let mut changes = Vec::new();
    let numbers: Vec<_> = (0..RECORDS + 20).filter(|_| random.u8(0..3) == 0).collect();
    for number in numbers {
        let bins = [("a", -1), ("d", -2)].map(|(name, value)| (name.as_bytes().to_vec(), integer(value)));
        let raw =
            bins.iter().fold(Raw::new(number).set("s"), |raw, (name, value)| raw.bin(name, value.clone()));
        let generation = random.u32(1..4);
        let version = Version { generation, expires: false, bins: bins.into() };
        others.insert(raw.digest, version);
        changes.push(vec![raw; generation as usize]);
    }
    write_all(server, changes);
    others
}

#[derive(Clone, Copy, Debug)]
struct Policy {
    unique: bool,
    replace: bool,
    no_generation: bool,
}

const POLICIES: [Policy; 5] = [
    Policy { unique: false, replace: false, no_generation: false },
    Policy { unique: false, replace: false, no_generation: true },
    Policy { unique: true, replace: false, no_generation: false },
    Policy { unique: false, replace: true, no_generation: false },
    Policy { unique: false, replace: true, no_generation: true },
];

/// What becomes of records, by their number.
#[derive(Debug, Default, PartialEq)]
struct Fates {
    inserted: u64,
    fresher: u64,
    existed: u64,
    expired: u64,
}

/// The model: each record's newest version, unless it has expired, by the policy, once, against what was there.
fn restore_model(
    newest: &BTreeMap<Digest, Version>,
    before: &BTreeMap<Digest, Version>,
    policy: Policy,
) -> (BTreeMap<Digest, Bins>, Fates) {
    let mut held: BTreeMap<_, _> =
        before.iter().map(|(digest, other)| (*digest, other.bins.clone())).collect();
    let mut fates = Fates::default();
    for (digest, version) in newest {
        let there = before.get(digest);
        if version.expires {
            fates.expired += 1;
        } else if policy.unique && there.is_some() {
            fates.existed += 1;
        } else if !policy.unique
            && !policy.no_generation
            && there.is_some_and(|there| there.generation >= version.generation)
        {
            fates.fresher += 1;
        } else {
            fates.inserted += 1;
            let bins = held.entry(*digest).or_default();
            if policy.replace {
                bins.clear();
            }
            bins.extend(version.bins.clone());
        }
    }
    (held, fates)
}

/// Protects: a restore to a moment is exactly that moment, whatever the histories of records, what the namespace held
/// before, and the policy: removed bins stay removed, records that were deleted and created again have their last value,
/// an expired newest version hides the older ones. A record that was deleted and not created again comes back.
#[test]
fn a_restore_to_a_moment_is_that_moment() {
    let server = Server::start(2);
    let seed = environment("ABS_TEST_SEED", 1);
    for case in 0..environment("ABS_TEST_HISTORIES", 1200).div_ceil(RECORDS) {
        let mut random = Rng::with_seed(seed + case);
        server.wipe();
        let service = Home::of(&server, ROUTINE).serve();
        let began = Instant::now();
        let moments = back_up(&server, &service, &mut random);
        // A version that expired before its backup was never read. The machine was too busy: nothing can be said.
        let life = Duration::from_secs(u64::from(SHORT));
        if began.elapsed() + Duration::from_secs(2) > life {
            continue;
        }
        std::thread::sleep((life + Duration::from_secs(2)).saturating_sub(began.elapsed()));
        for (number, (time, newest)) in moments.iter().enumerate() {
            server.wipe();
            let before =
                if random.u8(0..4) == 0 { BTreeMap::new() } else { put_others(&server, &mut random) };
            let policy = *random.choice(&POLICIES).unwrap();
            let request = json!({
                "routine": "routine", "time": time,
                "policy": {"unique": policy.unique, "replace": policy.replace, "no-generation": policy.no_generation},
            });
            let status = done(&service, "timestamp", &request);
            let (expected, fates) = restore_model(newest, &before, policy);
            let found = held(&server);
            let digests: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
            let wrong: Vec<_> =
                digests.into_iter().filter(|digest| expected.get(*digest) != found.get(*digest)).collect();
            let what = format!("seed {}, moment {number}, {policy:?}", seed + case);
            if let Some(digest) = wrong.first() {
                let (right, left) = (expected.get(*digest), found.get(*digest));
                panic!("{what}: {} records are wrong; one is {left:?} instead of {right:?}", wrong.len());
            }
            let [inserted, fresher, existed, expired] = numbers_of(
                &status,
                ["inserted-records", "fresher-records", "existed-records", "expired-records"],
            );
            assert_eq!(Fates { inserted, fresher, existed, expired }, fates, "{what}: {status}");
        }
    }
}

/// Protects: while records change, a restore to a moment gives each of them in a version that it had between the beginning
/// and the end of the last run.
#[test]
fn a_restore_of_changing_records_is_within_the_run() {
    const CHANGING: u64 = 100;
    let server = Server::start(2);
    let service = Home::of(&server, ROUTINE).serve();
    put(&server, 0..CHANGING, 0);
    let stop = AtomicBool::new(false);
    let (moments, rounds) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut rounds = vec![(Instant::now(), Instant::now())];
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                put(&server, 0..CHANGING, rounds.len() as i64);
                rounds.push((began, Instant::now()));
            }
            rounds
        });
        let moments: Vec<_> = (0..BACKUPS)
            .map(|number| {
                std::thread::sleep(Duration::from_millis(50));
                let began = Instant::now();
                let kind = if number == 0 { "full" } else { "incremental" };
                let backup = service.backup(kind, "routine").remove(0);
                (backup["timestamp"].as_i64().unwrap(), began, Instant::now())
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        (moments, writer.join().unwrap())
    });
    for (time, began, ended) in moments {
        server.wipe();
        done(&service, "timestamp", &json!({"routine": "routine", "time": time}));
        let first = rounds.iter().rposition(|(_, written)| *written <= began).unwrap() as i64;
        let last = rounds.iter().rposition(|(writing, _)| *writing <= ended).unwrap() as i64;
        let found = held(&server);
        assert_eq!(found.len() as u64, CHANGING);
        for bins in found.values() {
            let value = &bins[&b"value"[..]];
            assert!(
                (first..=last).any(|round| integer(round) == *value),
                "{value:?} is not of {first}..={last}"
            );
        }
    }
}
