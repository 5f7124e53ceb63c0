//! A namespace: 4096 partitions of records, its sets, its memory limit, its secondary indexes.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::record::{Digest, PARTITIONS, Record, partition_of};
use crate::result_code::{Outcome, ResultCode};
use crate::sindex::Indexes;

/// The longest set name, in bytes.
const MAX_SET_NAME: usize = 63;
/// The most sets a namespace has (the real server's limit).
const MAX_SETS: usize = 4095;

/// A set's number inside its namespace; 0 stands for records outside of any set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SetId(u16);

impl SetId {
    pub(crate) const NONE: SetId = SetId(0);
}

/// What is known of a set.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) name: Box<[u8]>,
    pub(crate) objects: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Records of the set last written before this (ms since 2010) are gone.
    pub(crate) truncate_lut: AtomicU64,
}

#[derive(Debug, Default)]
struct Sets {
    by_name: HashMap<Box<[u8]>, SetId>,
    all: Vec<Arc<Set>>,
}

/// The records of one partition, in the order of their digests.
pub(crate) type Records = BTreeMap<Digest, Record>;

/// A namespace and everything in it.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: String,
    /// Bytes of records and their overhead; writes beyond answer [`ResultCode::OUT_OF_SPACE`].
    pub(crate) limit: u64,
    /// Seconds; 0 = records never expire unless they say so.
    pub(crate) default_ttl: u32,
    pub(crate) settings: Settings,
    partitions: Box<[Mutex<Records>]>,
    sets: RwLock<Sets>,
    pub(crate) used: AtomicU64,
    pub(crate) objects: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) truncate_lut: AtomicU64,
    pub(crate) indexes: Indexes,
}

/// What `set-config` changes.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Seconds between two sweeps of expired records; 0 = none, and no record may expire.
    pub(crate) nsup_period: AtomicU64,
    pub(crate) allow_ttl_without_nsup: AtomicBool,
    pub(crate) disallow_null_setname: AtomicBool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            nsup_period: AtomicU64::new(120),
            allow_ttl_without_nsup: AtomicBool::new(false),
            disallow_null_setname: AtomicBool::new(false),
        }
    }
}

impl Settings {
    /// Sets what is there to be set; true when the value is a value of it.
    pub(crate) fn set(&self, name: &str, value: &str) -> bool {
        let switch =
            |setting: &AtomicBool| value.parse().map(|value| setting.store(value, Ordering::Relaxed)).is_ok();
        match name {
            "nsup-period" => {
                value.parse().map(|value| self.nsup_period.store(value, Ordering::Relaxed)).is_ok()
            }
            "allow-ttl-without-nsup" => switch(&self.allow_ttl_without_nsup),
            "disallow-null-setname" => switch(&self.disallow_null_setname),
            // Nothing else here is there to be set.
            _ => true,
        }
    }

    pub(crate) fn forbids_ttl(&self) -> bool {
        self.nsup_period.load(Ordering::Relaxed) == 0 && !self.allow_ttl_without_nsup.load(Ordering::Relaxed)
    }
}

/// Why a record leaves the store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    Deleted,
    Expired,
}

impl Namespace {
    pub(crate) fn new(name: String, limit: u64, default_ttl: u32) -> Namespace {
        Namespace {
            name,
            limit,
            default_ttl,
            settings: Settings::default(),
            partitions: (0..PARTITIONS).map(|_| Mutex::default()).collect(),
            sets: RwLock::default(),
            used: AtomicU64::new(0),
            objects: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            truncate_lut: AtomicU64::new(0),
            indexes: Indexes::default(),
        }
    }

    /// The records of partition `id`, locked.
    pub(crate) fn partition(&self, id: usize) -> MutexGuard<'_, Records> {
        // A panic under the lock cannot leave a BTreeMap half changed by us: every change is one insert or
        // remove.
        self.partitions[id].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The records of the digest's partition, locked.
    pub(crate) fn partition_with(&self, digest: &Digest) -> MutexGuard<'_, Records> {
        self.partition(partition_of(digest))
    }

    pub(crate) fn stop_writes(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.limit
    }

    /// Stores `record`, replacing what was there. The limit holds for what the write adds.
    pub(crate) fn insert(&self, records: &mut Records, digest: &Digest, record: Record) -> Outcome<()> {
        let new = record.footprint();
        let set = self.set(record.set);
        let old = records.get(digest).map_or(0, Record::footprint);
        if new > old && self.used.load(Ordering::Relaxed) + new - old > self.limit {
            return Err(ResultCode::OUT_OF_SPACE);
        }
        if let Some(previous) = records.insert(*digest, record) {
            self.count_removal(&previous);
        }
        self.used.fetch_add(new, Ordering::Relaxed);
        self.objects.fetch_add(1, Ordering::Relaxed);
        if let Some(set) = set {
            set.objects.fetch_add(1, Ordering::Relaxed);
            set.bytes.fetch_add(new, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(crate) fn remove(&self, records: &mut Records, digest: &Digest, why: Removal) {
        if let Some(record) = records.remove(digest) {
            self.count_removal(&record);
            if why == Removal::Expired {
                self.expired.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn count_removal(&self, record: &Record) {
        let bytes = record.footprint();
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.objects.fetch_sub(1, Ordering::Relaxed);
        if let Some(set) = self.set(record.set) {
            set.objects.fetch_sub(1, Ordering::Relaxed);
            set.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Removes what `doomed` says of every partition, one partition at a time.
    pub(crate) fn sweep(&self, why: Removal, doomed: impl Fn(&Record) -> bool) -> u64 {
        let mut gone = 0;
        for id in 0..PARTITIONS {
            let mut records = self.partition(id);
            let digests: Vec<Digest> =
                records.iter().filter(|(_, record)| doomed(record)).map(|(digest, _)| *digest).collect();
            gone += digests.len() as u64;
            for digest in digests {
                self.remove(&mut records, &digest, why);
            }
        }
        gone
    }

    pub(crate) fn sweep_expired(&self, now_secs: u32) {
        self.sweep(Removal::Expired, |record| record.is_expired(now_secs));
    }

    fn read_sets(&self) -> std::sync::RwLockReadGuard<'_, Sets> {
        self.sets.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The set of this name, if any record or index ever named it.
    pub(crate) fn find_set(&self, name: &[u8]) -> Option<SetId> {
        if name.is_empty() { Some(SetId::NONE) } else { self.read_sets().by_name.get(name).copied() }
    }

    /// The set of this name, made when new.
    pub(crate) fn find_or_make_set(&self, name: &[u8]) -> Outcome<SetId> {
        if let Some(id) = self.find_set(name) {
            return Ok(id);
        }
        if name.len() > MAX_SET_NAME {
            return Err(ResultCode::PARAMETER);
        }
        let mut sets = self.sets.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = sets.by_name.get(name) {
            return Ok(*id);
        }
        if sets.all.len() >= MAX_SETS {
            return Err(ResultCode::PARAMETER);
        }
        sets.all.push(Arc::new(Set {
            name: name.into(),
            objects: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            truncate_lut: AtomicU64::new(0),
        }));
        let id = SetId(sets.all.len() as u16);
        sets.by_name.insert(name.into(), id);
        Ok(id)
    }

    pub(crate) fn set(&self, id: SetId) -> Option<Arc<Set>> {
        let at = usize::from(id.0).checked_sub(1)?;
        self.read_sets().all.get(at).cloned()
    }

    /// All sets in the order in which they appeared.
    pub(crate) fn sets(&self) -> Vec<Arc<Set>> {
        self.read_sets().all.clone()
    }
}
