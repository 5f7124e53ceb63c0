//! What all actors share: the runtime for work, the clock, the log, the metrics, the events; clusters and catalogs in use.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use abs_cluster::{Cluster, ClusterError};
use abs_config::{ClusterSettings, StorageSettings};
use abs_engine::Owner;
use abs_engine::catalog::Catalog;
use chrono::{DateTime, TimeDelta, Utc};
use slog::{Logger, warn};
use tokio::runtime::Handle;
use tokio::sync::{RwLock, Semaphore, broadcast};

use crate::clock::Clock;
use crate::journal::Journal;
use crate::messages::JobId;
use crate::messages::system::Event;
use crate::metrics::Metrics;

/// Events that a slow listener may be behind.
const EVENTS: usize = 1024;

/// A clock that moved by less than this between two looks is being adjusted, as it always is, and was not set.
pub(crate) const ADJUSTED: TimeDelta = TimeDelta::seconds(1);

/// How often the clock was set since the service was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Jumps {
    count: u64,
    /// By how much it was set back, in all.
    pub set_back: TimeDelta,
}

/// What the clock said when it was last looked at.
#[derive(Debug)]
struct Look {
    time: DateTime<Utc>,
    steady: Duration,
    jumps: Jumps,
}
/// Scans at a time on one cluster over all jobs, unless `max-parallel-scans` says otherwise: each takes a connection and a
/// mebibyte or two.
const SCANS: usize = 256;

/// What all actors share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Work runs here; actors only keep books.
    pub runtime: Handle,
    pub clock: Arc<dyn Clock>,
    pub log: Logger,
    pub metrics: Metrics,
    pub events: broadcast::Sender<Arc<Event>>,
    pub clusters: Clusters,
    pub catalogs: Catalogs,
    pub readers: Readers,
    /// Whether the system's locks keep other services from the routines in a storage.
    pub locks: fn(&StorageSettings) -> bool,
    /// What is remembered of restores over restarts, if that can be.
    pub journal: Option<Arc<Journal>>,
    last_id: AtomicU64,
    look: Mutex<Look>,
    /// Messages that are logged once only and have been logged.
    logged: Mutex<HashSet<String>>,
}

impl Shared {
    pub(crate) fn new(
        runtime: Handle,
        clock: Arc<dyn Clock>,
        log: Logger,
        owner: Owner,
        journal: Option<Journal>,
    ) -> Result<Self, prometheus::Error> {
        let look = Look { time: clock.now(), steady: clock.steady(), jumps: Jumps::default() };
        Ok(Self {
            look: Mutex::new(look),
            clusters: Clusters {
                runtime: runtime.clone(),
                entries: Mutex::default(),
                nodes: Mutex::default(),
            },
            runtime,
            clock,
            log,
            metrics: Metrics::new()?,
            events: broadcast::Sender::new(EVENTS),
            catalogs: Catalogs { owner, entries: Mutex::default() },
            readers: Readers::default(),
            locks: StorageSettings::has_locks,
            journal: journal.map(Arc::new),
            last_id: AtomicU64::default(),
            logged: Mutex::default(),
        })
    }

    /// Tells whoever listens.
    pub(crate) fn publish(&self, event: impl FnOnce(DateTime<Utc>) -> Event) {
        if self.events.receiver_count() > 0 {
            // The last listener may have gone at this moment.
            let _ = self.events.send(Arc::new(event(self.clock.now())));
        }
    }

    /// Checks whether the clock was set since the last check, and logs it.
    pub(crate) fn look_at_clock(&self) -> Jumps {
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        let (time, steady) = (self.clock.now(), self.clock.steady());
        let passed = TimeDelta::from_std(steady.saturating_sub(look.steady)).unwrap_or(TimeDelta::MAX);
        let expected = look.time.checked_add_signed(passed).unwrap_or(DateTime::<Utc>::MAX_UTC);
        (look.time, look.steady) = (time, steady);
        let jump = time - expected;
        if jump.abs() >= ADJUSTED {
            look.jumps.count += 1;
            look.jumps.set_back += (-jump).max(TimeDelta::zero());
            warn!(
                self.log, "the clock was set, or the machine was suspended: schedules are computed anew";
                "expected" => %expected, "now" => %time
            );
        }
        look.jumps
    }

    /// Whether this message has not been logged before; it counts as logged from now on.
    pub(crate) fn is_news(&self, text: String) -> bool {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner).insert(text)
    }

    /// Takes note that an id is in use.
    pub(crate) fn skip_id(&self, id: u64) {
        self.last_id.fetch_max(id, Relaxed);
    }

    /// An id of a new job: made of the time, so that a service that was started again uses no id twice.
    pub(crate) fn new_id(&self) -> JobId {
        let now = u64::try_from(self.clock.now().timestamp_millis()).unwrap_or(1) * 1000;
        let next = |last: u64| now.max(last + 1);
        let last = self.last_id.fetch_update(Relaxed, Relaxed, |last| Some(next(last)));
        JobId(next(last.unwrap_or_else(|last| last)))
    }
}

/// Clusters in use: jobs on the same cluster share its connections and its limit of scans.
#[derive(Debug)]
pub(crate) struct Clusters {
    runtime: Handle,
    entries: Mutex<Vec<Arc<ClusterEntry>>>,
    /// The nodes that clusters had when they were last connected, by their seeds.
    nodes: Mutex<HashMap<Addresses, Addresses>>,
}

/// Hosts and ports.
type Addresses = BTreeSet<(Arc<str>, u16)>;

fn seeds(settings: &ClusterSettings) -> Addresses {
    settings.seeds.iter().map(|seed| (seed.host.as_str().into(), seed.port)).collect()
}

#[derive(Debug)]
struct ClusterEntry {
    settings: Arc<ClusterSettings>,
    scans: Arc<Semaphore>,
    lease: tokio::sync::Mutex<Weak<Lease>>,
}

/// A connected cluster, closed when nobody uses it any more.
#[derive(Debug)]
pub(crate) struct Lease {
    pub cluster: Cluster,
    /// `max-parallel-scans`.
    pub scans: Arc<Semaphore>,
    runtime: Handle,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let cluster = self.cluster.clone();
        self.runtime.spawn(async move { cluster.close().await });
    }
}

/// Why a cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Secret(#[from] abs_config::SecretError),
}

impl Clusters {
    /// The cluster of these settings, connected.
    pub(crate) async fn lease(&self, settings: &Arc<ClusterSettings>) -> Result<Arc<Lease>, LeaseError> {
        let entry = self.entry(settings);
        // Whoever comes while another connects waits for that.
        let mut held = entry.lease.lock().await;
        if let Some(lease) = held.upgrade() {
            return Ok(lease);
        }
        let cluster = Cluster::connect(crate::settings::connect_options(settings).await?).await?;
        let nodes = cluster.nodes().into_iter().map(|node| (node.host, node.port)).collect();
        self.nodes_by_seeds().insert(seeds(settings), nodes);
        let lease =
            Arc::new(Lease { cluster, scans: Arc::clone(&entry.scans), runtime: self.runtime.clone() });
        *held = Arc::downgrade(&lease);
        Ok(lease)
    }

    /// Whether two entries mean the same cluster: they have a seed or, as far as they were ever connected, a node in common.
    pub(crate) fn are_same(&self, one: &ClusterSettings, other: &ClusterSettings) -> bool {
        let nodes = self.nodes_by_seeds();
        let all = |settings| {
            let mut all = seeds(settings);
            all.extend(nodes.get(&all).into_iter().flatten().cloned().collect::<Vec<_>>());
            all
        };
        !all(one).is_disjoint(&all(other))
    }

    fn nodes_by_seeds(&self) -> MutexGuard<'_, HashMap<Addresses, Addresses>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, settings: &Arc<ClusterSettings>) -> Arc<ClusterEntry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // Entries that nobody holds and whose cluster is closed have served.
        entries.retain(|entry| {
            Arc::strong_count(entry) > 1
                || entry.lease.try_lock().map_or(true, |lease| lease.strong_count() > 0)
        });
        if let Some(entry) = entries.iter().find(|entry| entry.settings == *settings) {
            return Arc::clone(entry);
        }
        let most = settings.max_parallel_scans.map_or(SCANS, |most| most.get() as usize);
        let entry = Arc::new(ClusterEntry {
            settings: Arc::clone(settings),
            scans: Arc::new(Semaphore::new(most)),
            lease: tokio::sync::Mutex::default(),
        });
        entries.push(Arc::clone(&entry));
        entry
    }
}

/// Catalogs by storage: what was read of one is remembered.
#[derive(Debug)]
pub(crate) struct Catalogs {
    owner: Owner,
    entries: Mutex<Vec<(Arc<StorageSettings>, Catalog)>>,
}

impl Catalogs {
    /// The catalog of a storage.
    pub(crate) fn of(&self, settings: &Arc<StorageSettings>) -> Catalog {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, catalog)) = entries.iter().find(|(known, _)| known == settings) {
            return catalog.clone();
        }
        let catalog = Catalog::with_owner(abs_storage::open(settings), self.owner.clone());
        entries.push((Arc::clone(settings), catalog.clone()));
        catalog
    }

    /// What the claims of this process say.
    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Forgets the storages that are not `used`.
    pub(crate) fn retain(&self, used: impl Fn(&StorageSettings) -> bool) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).retain(|(settings, _)| used(settings));
    }
}

/// Who reads the backups of a routine: retention waits for them.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    locks: Mutex<HashMap<String, Arc<RwLock<()>>>>,
}

impl Readers {
    /// The lock of a routine: restores hold it for reading, retention for writing.
    pub(crate) fn of(&self, routine: &str) -> Arc<RwLock<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(routine.to_owned()).or_default())
    }
}

/// How long a storage or a cluster may take to answer whether it is there: less than who asks waits by default, so that
/// the one that does not is named.
pub(crate) const PROBE: Duration = Duration::from_secs(4);
