//! What all runs of a job share: its rates, its slots, its memory.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::{Mutex, OnceCell, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::error::EngineError;
use crate::limiter::Limiter;
use crate::nodes::NodesBefore;
use crate::plan::{BackupPlan, RestorePlan};
use crate::sender::IN_FLIGHT;

/// The limits of a backup job, over all its namespaces and all attempts at them.
#[derive(Debug)]
pub struct BackupLimits {
    pub(crate) records: Option<Limiter>,
    pub(crate) bytes: Option<Limiter>,
    scans: Semaphore,
    cluster_scans: Option<Arc<Semaphore>>,
    /// Files that may be written at a time.
    pub(crate) writers: Arc<Semaphore>,
}

/// The limits of one namespace of a backup job: those of the job, and what it keeps over all attempts at it, such as its share
/// of the files that may be written at a time.
#[derive(Debug)]
pub struct NamespaceLimits {
    pub(crate) job: Arc<BackupLimits>,
    writers: OnceCell<OwnedSemaphorePermit>,
    /// The nodes at the beginning of the first attempt: a later attempt would not see a restart that came before it.
    pub(crate) nodes: OnceCell<NodesBefore>,
}

impl NamespaceLimits {
    /// Waits until the namespace may write a file; returns how many it may write at a time until others end.
    pub(crate) async fn writers(&self) -> Result<usize, EngineError> {
        let acquire = || Arc::clone(&self.job.writers).acquire_owned();
        let writers = self.writers.get_or_try_init(acquire).await.map_err(|_| EngineError::Canceled)?;
        Ok(writers.num_permits())
    }
}

/// Leave for one scan.
#[derive(Debug)]
pub(crate) struct ScanPermit<'a> {
    _job: SemaphorePermit<'a>,
    _cluster: Option<SemaphorePermit<'a>>,
}

impl BackupLimits {
    /// The limits that a plan asks for: `records_per_second`, `bandwidth`, `parallel`, `parallel_write`. `cluster_scans` are the scans that
    /// the cluster allows over all jobs, if it has such a limit.
    #[must_use]
    pub fn new(plan: &BackupPlan, cluster_scans: Option<Arc<Semaphore>>) -> Arc<Self> {
        Arc::new(Self {
            records: Limiter::new(u64::from(plan.records_per_second)),
            bytes: Limiter::new(plan.bandwidth),
            scans: Semaphore::new(plan.parallel.clamp(1, Semaphore::MAX_PERMITS)),
            cluster_scans,
            writers: Arc::new(Semaphore::new(plan.parallel_write.clamp(1, Semaphore::MAX_PERMITS))),
        })
    }

    /// Divides the files that may be written at a time among the namespaces of the job. When there are more namespaces than
    /// files, those that get none wait to begin until another one has ended.
    #[must_use]
    pub fn divide(self: &Arc<Self>, namespaces: usize) -> Vec<NamespaceLimits> {
        let share = self.writers.available_permits() / namespaces.max(1);
        let share = u32::try_from(share.max(1)).unwrap_or(u32::MAX);
        let limits = |_| NamespaceLimits {
            job: Arc::clone(self),
            writers: OnceCell::new_with(Arc::clone(&self.writers).try_acquire_many_owned(share).ok()),
            nodes: OnceCell::new(),
        };
        (0..namespaces).map(limits).collect()
    }

    /// Waits until one more scan is allowed. Everybody asks the job first and the cluster then, so nobody waits for a
    /// permit of one who waits.
    pub(crate) async fn scan(&self) -> Result<ScanPermit<'_>, EngineError> {
        let closed = |_| EngineError::Canceled;
        let job = self.scans.acquire().await.map_err(closed)?;
        let cluster = match &self.cluster_scans {
            Some(scans) => Some(scans.acquire().await.map_err(closed)?),
            None => None,
        };
        Ok(ScanPermit { _job: job, _cluster: cluster })
    }
}

/// The limits of a restore job, over all its namespaces and all backups of a chain.
#[derive(Debug)]
pub struct RestoreLimits {
    pub(crate) records: Option<Limiter>,
    pub(crate) bytes: Option<Arc<Limiter>>,
    pub(crate) readers: Semaphore,
    pub(crate) batches: Arc<Semaphore>,
    /// Bytes of batches in flight.
    pub(crate) memory: Arc<Semaphore>,
    /// Bytes of memory for the decided digests of a chain.
    pub(crate) chain_memory: usize,
    /// UDF modules that were restored, with the times of their backups; locked while one is.
    pub(crate) modules: Mutex<HashMap<String, DateTime<Utc>>>,
}

impl RestoreLimits {
    /// The limits that a plan asks for: `records_per_second`, `bandwidth`, `parallel`, `max_async_batches`, and `chain_memory`,
    /// of which each of the job's `chains` gets an equal share.
    #[must_use]
    pub fn new(plan: &RestorePlan, chains: usize) -> Arc<Self> {
        Arc::new(Self {
            chain_memory: plan.chain_memory / chains.max(1),
            records: Limiter::new(plan.records_per_second),
            bytes: Limiter::new(plan.bandwidth).map(Arc::new),
            readers: Semaphore::new(plan.parallel.clamp(1, Semaphore::MAX_PERMITS)),
            // A node takes some ten thousand connections.
            batches: Arc::new(Semaphore::new(plan.max_async_batches.clamp(1, 1 << 16))),
            memory: Arc::new(Semaphore::new(IN_FLIGHT)),
            modules: Mutex::default(),
        })
    }
}
