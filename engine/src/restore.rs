//! One restore of the files of a folder into one namespace.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use abs_asb::{SecondaryIndex, Udf};
use abs_cluster::{Cluster, SetIndex};
use abs_storage::{ObjectPath, Storage};
use tokio_util::sync::CancellationToken;

use crate::blocks::BlockSource;
use crate::error::EngineError;
use crate::files::{FileQueue, Found, find, read_metadata};
use crate::folder::place;
use crate::limits::RestoreLimits;
use crate::metadata::Metadata;
use crate::outcome::Outcome;
use crate::plan::RestorePlan;
use crate::progress::{RestoreProgress, RestoreSnapshot};
use crate::sender::SendJob;

/// What a restore did.
#[derive(Clone, Debug)]
pub struct RestoreReport {
    /// The final counters.
    pub counts: RestoreSnapshot,
    /// Indexes that exist already with another definition and were left alone.
    pub conflicting_indexes: Vec<String>,
}

/// One restore of the files of a folder into one namespace, shared by its workers. What was restored stays when it fails or
/// is canceled.
///
/// Whoever owns the run hands the files of its [`FileQueue`] to [`RestoreWorker`](crate::RestoreWorker)s and calls
/// [`finish`](Self::finish) when each of them has flushed, or has failed.
#[derive(Debug)]
pub struct RestoreRun {
    pub(crate) plan: RestorePlan,
    pub(crate) source: BlockSource,
    pub(crate) limits: Arc<RestoreLimits>,
    /// Rows per batch: no more than the rate allows in a second, so that it is kept over short times too.
    pub(crate) batch_size: usize,
    pub(crate) send: Arc<SendJob>,
    pub(crate) progress: Arc<RestoreProgress>,
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) globals: Mutex<Globals>,
    cluster: Cluster,
    /// The folder as the user knows it.
    place: String,
    file_count: u64,
    metadata: Option<Metadata>,
}

/// What is restored behind the records.
#[derive(Debug, Default)]
pub(crate) struct Globals {
    pub indexes: Vec<SecondaryIndex>,
    pub udfs: Vec<Udf>,
}

impl RestoreRun {
    /// Begins a restore of every `.asb` file under `folder`: finds the files and asks the cluster for its partitions.
    /// `progress` is of this run alone. Must run on a multi-threaded runtime.
    pub async fn begin(
        cluster: &Cluster,
        storage: &Arc<dyn Storage>,
        folder: &ObjectPath,
        plan: &RestorePlan,
        limits: &Arc<RestoreLimits>,
        progress: &Arc<RestoreProgress>,
        cancel: &CancellationToken,
    ) -> Result<(Arc<Self>, FileQueue), EngineError> {
        let outcome = Arc::new(Outcome::new(cancel));
        let asked = outcome.stop.run_until_cancelled(async {
            let (found, metadata) = look(&**storage, folder, plan).await?;
            // Fails when the namespace does not exist, before anything is read.
            cluster.statistics(&plan.destination).await?;
            Ok((found, metadata, cluster.partition_map(&plan.destination).await?))
        });
        let (found, metadata, map) = asked.await.unwrap_or(Err(EngineError::Canceled))?;
        progress.total_bytes.fetch_add(found.files.iter().map(|file| file.size).sum(), Relaxed);
        let run = Self {
            plan: plan.clone(),
            source: BlockSource::new(
                Arc::clone(storage),
                plan.encryption.clone(),
                limits.bytes.clone(),
                Arc::clone(progress),
            ),
            limits: Arc::clone(limits),
            batch_size: match plan.records_per_second {
                0 => plan.batch_size,
                rate => plan.batch_size.min(usize::try_from(rate).unwrap_or(usize::MAX)),
            }
            .max(1),
            send: Arc::new(SendJob {
                cluster: cluster.clone(),
                namespace: plan.destination.clone(),
                singly: plan.disable_batch_writes,
                ignore_record_error: plan.ignore_record_error,
                socket_timeout: plan.socket_timeout,
                total_timeout: plan.total_timeout,
                retry: plan.retry,
                limits: Arc::clone(limits),
                progress: Arc::clone(progress),
                outcome: Arc::clone(&outcome),
                map: RwLock::new(Arc::new(map)),
                in_flight: Arc::default(),
                spare: Mutex::default(),
            }),
            progress: Arc::clone(progress),
            outcome,
            globals: Mutex::default(),
            cluster: cluster.clone(),
            place: place(&**storage, folder),
            file_count: found.files.len() as u64,
            metadata,
        };
        Ok((Arc::new(run), FileQueue::new(found.files)))
    }

    /// Stops the run: [`finish`](Self::finish) will return the first error that was given here.
    pub fn fail(&self, error: EngineError) {
        self.outcome.fail(error);
    }

    /// True when the run failed, was canceled, or has ended.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.outcome.stop.is_cancelled()
    }

    /// Ends the run, also a failed or canceled one: nothing is in flight when it returns. Compares what was read with what
    /// metadata.yaml says, then restores the UDF modules and indexes.
    pub async fn finish(&self) -> Result<RestoreReport, EngineError> {
        let conclusion = self.outcome.stop.run_until_cancelled(self.conclude()).await;
        let conclusion = conclusion.unwrap_or(Err(EngineError::Canceled)).map_err(|e| self.fail(e));
        // Who sends holds the other side of this lock.
        drop(self.send.in_flight.write().await);
        // Whoever cancels later than the conclusion cancels a restore that is done.
        let Ok(conflicting_indexes) = conclusion else {
            return Err(self.outcome.check().err().unwrap_or(EngineError::Canceled));
        };
        self.outcome.stop.cancel();
        Ok(RestoreReport { counts: self.progress.snapshot(), conflicting_indexes })
    }

    async fn conclude(&self) -> Result<Vec<String>, EngineError> {
        let globals = std::mem::take(&mut *self.globals.lock().unwrap_or_else(PoisonError::into_inner));
        let c = self.progress.snapshot();
        let fates = c.inserted + c.fresher + c.existed + c.ignored + c.skipped + c.expired;
        if self.source.ended() != self.file_count || c.read != fates {
            // Not every file was handed out, or not every worker has flushed.
            return Err(EngineError::Canceled);
        }
        if let Some(metadata) = &self.metadata {
            check_whole(metadata, &globals, c.read, self.file_count, &self.place)?;
        }
        // Modules and indexes come last: building an index once is cheaper than updating it with every record.
        if !self.plan.no_udfs {
            for udf in &globals.udfs {
                self.cluster.put_udf(udf).await?;
                self.progress.udfs.fetch_add(1, Relaxed);
            }
        }
        if self.plan.no_indexes {
            return Ok(Vec::new());
        }
        let sets = self.metadata.iter().flat_map(|metadata| &metadata.set_indexes);
        let sets: Vec<_> =
            sets.map(|(name, set)| SetIndex { name: name.clone(), set: set.clone() }).collect();
        restore_indexes(&self.cluster, &self.plan, &self.progress, &globals.indexes, &sets).await
    }
}

impl Drop for RestoreRun {
    fn drop(&mut self) {
        // Nothing is sent for a run that nobody knows any more.
        self.outcome.stop.cancel();
    }
}

/// Looks for the backup that the plan means.
async fn look(
    storage: &dyn Storage,
    folder: &ObjectPath,
    plan: &RestorePlan,
) -> Result<(Found, Option<Metadata>), EngineError> {
    let found = find(storage, folder).await?;
    found.check_readable(storage)?;
    // Records of several backups at once would overwrite each other in no order.
    let metadata = match &found.metadata[..] {
        [] => None,
        [path] => {
            let metadata = read_metadata(storage, path).await?;
            if metadata.namespace != plan.source {
                return Err(foreign(path.as_str(), metadata.namespace.as_bytes(), &plan.source));
            }
            Some(metadata)
        }
        [one, other, ..] => {
            let (folder, one, other) = (place(storage, folder), one.to_string(), other.to_string());
            return Err(EngineError::SeveralBackups { folder, one, other });
        }
    };
    let file_count = found.files.len() as u64;
    if let Some(metadata) = metadata.as_ref().filter(|metadata| metadata.file_count != file_count) {
        // No record need be written to know this.
        let files = |count| format!("{count} files");
        let (expected, found) = (files(metadata.file_count), files(file_count));
        return Err(EngineError::NotWhole { folder: place(storage, folder), expected, found });
    }
    Ok((found, metadata))
}

/// The error of a file that was made from another namespace than the plan says.
pub(crate) fn foreign(file: &str, namespace: &[u8], source: &str) -> EngineError {
    let namespace = String::from_utf8_lossy(namespace);
    let what = format!("is of a backup of namespace {namespace:?}, not of {source:?} as the restore says");
    EngineError::BadFile { file: file.to_owned(), what }
}

fn check_whole(
    metadata: &Metadata,
    globals: &Globals,
    records: u64,
    files: u64,
    folder: &str,
) -> Result<(), EngineError> {
    let line = |records, files, indexes, udfs| {
        format!("{records} records, {files} files, {indexes} indexes, {udfs} UDF modules")
    };
    let m = metadata;
    let expected = line(m.record_count, m.file_count, m.secondary_index_count, m.udf_count);
    let found = line(records, files, globals.indexes.len() as u64, globals.udfs.len() as u64);
    if expected == found {
        return Ok(());
    }
    Err(EngineError::NotWhole { folder: folder.to_owned(), expected, found })
}

/// Creates the indexes that do not exist; returns the names of those that exist with another definition.
async fn restore_indexes(
    cluster: &Cluster,
    plan: &RestorePlan,
    progress: &RestoreProgress,
    indexes: &[SecondaryIndex],
    sets: &[SetIndex],
) -> Result<Vec<String>, EngineError> {
    if indexes.is_empty() && sets.is_empty() {
        return Ok(Vec::new());
    }
    let existing = cluster.indexes(&plan.destination).await?;
    let mut conflicting = Vec::new();
    for index in indexes {
        match existing.secondary.iter().find(|other| other.name == index.name) {
            Some(other) if other != index => {
                conflicting.push(index.name.clone());
                continue;
            }
            Some(_) => {}
            None => cluster.create_index(&plan.destination, index).await?,
        }
        progress.indexes.fetch_add(1, Relaxed);
    }
    for index in sets {
        match existing.sets.iter().find(|other| other.name == index.name) {
            Some(other) if other != index => {
                conflicting.push(index.name.clone());
                continue;
            }
            Some(_) => {}
            None => cluster.create_set_index(&plan.destination, index).await?,
        }
        progress.indexes.fetch_add(1, Relaxed);
    }
    Ok(conflicting)
}
