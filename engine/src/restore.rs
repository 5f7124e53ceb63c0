//! One restore of the files of a folder into one namespace.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use abs_asb::{Item, Items, SecondaryIndex, Udf};
use abs_cluster::{BatchMessage, Cluster, Node, SetIndex, partition_of};
use abs_storage::{ObjectInfo, ObjectPath, Storage};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backup::place;
use crate::blocks::{BlockSource, Current, TextBlock};
use crate::error::EngineError;
use crate::limiter::{Limiter, limit};
use crate::metadata::{METADATA_FILE, Metadata};
use crate::plan::RestorePlan;
use crate::progress::{RestoreProgress, RestoreSnapshot};
use crate::rows::{Fate, RowMaker};
use crate::sender::{BATCH_BYTES, SendJob};

/// What a restore did.
#[derive(Clone, Debug)]
pub struct RestoreReport {
    /// The final counters.
    pub counts: RestoreSnapshot,
    /// Indexes that exist already with another definition and were left alone.
    pub conflicting_indexes: Vec<String>,
}

/// Restores every `.asb` file under `folder`. What was restored stays when the job fails or is canceled. Must run on a
/// multi-threaded runtime.
pub async fn restore(
    cluster: &Cluster,
    storage: &Arc<dyn Storage>,
    folder: &ObjectPath,
    plan: &RestorePlan,
    progress: &Arc<RestoreProgress>,
    cancel: &CancellationToken,
) -> Result<RestoreReport, EngineError> {
    let mut workers = JoinSet::new();
    // A node takes some ten thousand connections.
    let most_batches = plan.max_async_batches.clamp(1, 1 << 16);
    let slots = Arc::new(Semaphore::new(most_batches));
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(EngineError::Canceled),
        result = run(cluster, storage, folder, plan, progress, &mut workers, &slots) => result,
    };
    // Nothing goes on after the end: no worker, and no batch, for each keeps its slot until it is gone.
    workers.shutdown().await;
    let _ = slots.acquire_many(most_batches as u32).await;
    result
}

async fn run(
    cluster: &Cluster,
    storage: &Arc<dyn Storage>,
    folder: &ObjectPath,
    plan: &RestorePlan,
    progress: &Arc<RestoreProgress>,
    workers: &mut JoinSet<Result<(), EngineError>>,
    slots: &Arc<Semaphore>,
) -> Result<RestoreReport, EngineError> {
    let Found { files, metadata } = find(&**storage, folder).await?;
    // Records of several backups at once would overwrite each other in no order.
    let metadata = match &metadata[..] {
        [] => None,
        [path] => {
            let metadata = read_metadata(&**storage, path).await?;
            if metadata.namespace != plan.source {
                return Err(foreign(path.as_str(), metadata.namespace.as_bytes(), &plan.source));
            }
            Some(metadata)
        }
        [one, other, ..] => {
            let (folder, one, other) = (place(&**storage, folder), one.to_string(), other.to_string());
            return Err(EngineError::SeveralBackups { folder, one, other });
        }
    };
    let file_count = files.len() as u64;
    if let Some(metadata) = metadata.as_ref().filter(|metadata| metadata.file_count != file_count) {
        // No record need be written to know this.
        let files = |count| format!("{count} files");
        let (expected, found) = (files(metadata.file_count), files(file_count));
        return Err(EngineError::NotWhole { folder: place(&**storage, folder), expected, found });
    }
    // Fails when the namespace does not exist, before anything is read.
    cluster.statistics(&plan.destination).await?;
    let map = cluster.partition_map(&plan.destination).await?;
    let job = Arc::new(Job {
        plan: plan.clone(),
        source: BlockSource::new(
            Arc::clone(storage),
            files,
            plan.encryption.clone(),
            Limiter::new(plan.bandwidth),
            Arc::clone(progress),
        ),
        rate: Limiter::new(plan.records_per_second),
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
            retry: plan.retry,
            progress: Arc::clone(progress),
            map: RwLock::new(Arc::new(map)),
            slots: Arc::clone(slots),
            memory: SendJob::memory(),
            spare: Mutex::default(),
        }),
        progress: Arc::clone(progress),
        globals: Mutex::default(),
    });
    for _ in 0..plan.parallel.max(1) {
        workers.spawn(work(Arc::clone(&job)));
    }
    join_all(workers).await?;

    let globals = std::mem::take(&mut *job.globals.lock().unwrap_or_else(PoisonError::into_inner));
    let counts = progress.snapshot();
    if let Some(metadata) = &metadata {
        check_whole(metadata, &globals, counts.read, file_count, &place(&**storage, folder))?;
    }
    // Modules and indexes come last: building an index once is cheaper than updating it with every record.
    if !plan.no_udfs {
        for udf in &globals.udfs {
            cluster.put_udf(udf).await?;
            progress.udfs.fetch_add(1, Relaxed);
        }
    }
    let mut conflicting = Vec::new();
    if !plan.no_indexes {
        let sets = metadata.map(|m| m.set_indexes).unwrap_or_default();
        let sets = sets.into_iter().map(|(name, set)| SetIndex { name, set }).collect::<Vec<_>>();
        conflicting = restore_indexes(cluster, plan, progress, &globals.indexes, &sets).await?;
    }
    Ok(RestoreReport { counts: progress.snapshot(), conflicting_indexes: conflicting })
}

/// What is under a folder.
pub(crate) struct Found {
    /// Every `.asb` file, the largest first so that no big one is left for the end.
    pub files: Vec<ObjectInfo>,
    /// Every metadata.yaml.
    pub metadata: Vec<ObjectPath>,
}

/// Looks for a backup; fails when there is none.
pub(crate) async fn find(storage: &dyn Storage, folder: &ObjectPath) -> Result<Found, EngineError> {
    let objects = storage.list(folder, true).await?.objects;
    let name = |object: &ObjectInfo| Path::new(object.path.as_str()).file_name().map(OsStr::to_owned);
    let metadata: Vec<_> = objects
        .iter()
        .filter(|object| name(object).is_some_and(|name| name == METADATA_FILE))
        .map(|object| object.path.clone())
        .collect();
    let mut files = objects;
    files.retain(|file| Path::new(file.path.as_str()).extension() == Some(OsStr::new("asb")));
    // A backup may be of nothing: it has no files then.
    if files.is_empty() && metadata.is_empty() {
        return Err(EngineError::NoFiles { folder: place(storage, folder) });
    }
    files.sort_by_key(|file| std::cmp::Reverse(file.size));
    Ok(Found { files, metadata })
}

/// Reads a metadata.yaml.
pub(crate) async fn read_metadata(storage: &dyn Storage, path: &ObjectPath) -> Result<Metadata, EngineError> {
    let text = storage.get(path, 1 << 20).await?;
    Metadata::from_yaml(&text)
        .map_err(|e| EngineError::BadFile { file: path.to_string(), what: e.to_string() })
}

/// The error of a file that was made from another namespace than the plan says.
fn foreign(file: &str, namespace: &[u8], source: &str) -> EngineError {
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

#[derive(Debug)]
struct Job {
    plan: RestorePlan,
    source: BlockSource,
    rate: Option<Limiter>,
    /// Rows per batch: no more than the rate allows in a second, so that it is kept over short times too.
    batch_size: usize,
    send: Arc<SendJob>,
    progress: Arc<RestoreProgress>,
    globals: Mutex<Globals>,
}

impl Job {
    /// Sends a batch when the rate allows it.
    async fn launch(
        &self,
        node: Option<Node>,
        batch: BatchMessage,
        tasks: &mut JoinSet<Result<(), EngineError>>,
    ) -> Result<(), EngineError> {
        limit(self.rate.as_ref(), batch.len() as u64).await;
        self.send.launch(node, batch, tasks).await
    }
}

#[derive(Debug, Default)]
struct Globals {
    indexes: Vec<SecondaryIndex>,
    udfs: Vec<Udf>,
}

/// One of the workers of a restore: reads blocks, makes batches, launches them.
async fn work(job: Arc<Job>) -> Result<(), EngineError> {
    let mut rows = RowMaker::new(&job.plan);
    let mut block = TextBlock::default();
    let mut current = Current::default();
    // A batch under construction per node of the map, and one for partitions that no node owns.
    let mut map = job.send.map();
    let mut batches: Vec<Option<BatchMessage>> = Vec::new();
    let mut tasks = JoinSet::new();
    while job.source.next(&mut current, &mut block).await? {
        rows.tick();
        if !Arc::ptr_eq(&map, &job.send.map()) {
            // Nodes came or went: what was gathered by the old map goes out by it, and is sent again if need be.
            launch_all(&job, &map, &mut batches, &mut tasks).await?;
            map = job.send.map();
        }
        batches.resize_with(map.nodes().len() + 1, || None);
        if let Some(kind) = &block.kind
            && kind.header.namespace != job.plan.source.as_bytes()
        {
            return Err(foreign(&block.file, &kind.header.namespace, &job.plan.source));
        }
        let position = block.position.unwrap_or(abs_asb::Position::START);
        let mut items = Items::new(&block.text, position);
        let mut counts = Counts::default();
        loop {
            let item = items.next().map_err(|e| e.in_file(&*block.file))?;
            let mut record = match item {
                None => break,
                Some(Item::Index(index)) => {
                    job.globals.lock().unwrap_or_else(PoisonError::into_inner).indexes.push(index);
                    continue;
                }
                Some(Item::Udf(udf)) => {
                    job.globals.lock().unwrap_or_else(PoisonError::into_inner).udfs.push(udf);
                    continue;
                }
                Some(Item::Record(record)) => record,
            };
            if !record.namespace.eq_bytes(job.plan.source.as_bytes()) {
                return Err(foreign(&block.file, &record.namespace.to_bytes(), &job.plan.source));
            }
            counts.read += 1;
            let owner = map.owner(partition_of(&record.digest)).unwrap_or(map.nodes().len());
            let batch = batches[owner].get_or_insert_with(|| job.send.batch());
            match rows.append(&mut record, batch).map_err(|e| e.in_file(&*block.file))? {
                Fate::Row => {
                    let full = batch.len() >= job.batch_size || batch.bytes() >= BATCH_BYTES;
                    if let Some(batch) = batches[owner].take_if(|_| full) {
                        let node = map.nodes().get(owner).cloned();
                        job.launch(node, batch, &mut tasks).await?;
                    }
                }
                Fate::Expired => counts.expired += 1,
                Fate::Skipped => counts.skipped += 1,
            }
        }
        job.progress.read.fetch_add(counts.read, Relaxed);
        job.progress.expired.fetch_add(counts.expired, Relaxed);
        job.progress.skipped.fetch_add(counts.skipped, Relaxed);
    }
    launch_all(&job, &map, &mut batches, &mut tasks).await?;
    join_all(&mut tasks).await
}

/// Waits for all tasks, or for the first that fails.
async fn join_all(tasks: &mut JoinSet<Result<(), EngineError>>) -> Result<(), EngineError> {
    while let Some(joined) = tasks.join_next().await {
        joined.unwrap_or_else(|e| Err(EngineError::Worker(e.to_string())))?;
    }
    Ok(())
}

#[derive(Default)]
struct Counts {
    read: u64,
    expired: u64,
    skipped: u64,
}

async fn launch_all(
    job: &Job,
    map: &abs_cluster::PartitionMap,
    batches: &mut Vec<Option<BatchMessage>>,
    tasks: &mut JoinSet<Result<(), EngineError>>,
) -> Result<(), EngineError> {
    for (owner, batch) in batches.drain(..).enumerate() {
        if let Some(batch) = batch.filter(|batch| !batch.is_empty()) {
            job.launch(map.nodes().get(owner).cloned(), batch, tasks).await?;
        }
    }
    Ok(())
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
