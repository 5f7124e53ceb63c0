//! One backup of one namespace.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use abs_asb::{Encoder, KeySize, Udf, Version};
use abs_cluster::{
    Cluster, ClusterError, Indexes, PARTITIONS, PartitionCursor, PartitionMap, ScanFilter, ScanRequest,
};
use abs_storage::{ObjectPath, Storage};
use chrono::{SubsecRound as _, Utc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::EngineError;
use crate::limiter::Limiter;
use crate::metadata::{METADATA_FILE, Metadata};
use crate::plan::{BackupPlan, PartitionChoice};
use crate::progress::BackupProgress;
use crate::queue::Queue;
use crate::scanner::{BlockPipe, ScanJob, Scanner, patience};
use crate::writer::{WriteJob, write_files};

/// What a backup did.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// What its metadata.yaml says.
    pub metadata: Metadata,
    /// How long it took.
    pub elapsed: Duration,
    /// Scans that had to be continued after a failure.
    pub retries: u64,
}

/// Backs up a namespace into an empty `folder`; metadata.yaml is written last and makes the backup exist.
///
/// A backup that fails or is canceled deletes what it wrote before this returns; one whose future is dropped may leave
/// files without metadata.yaml. Must run on a multi-threaded runtime.
pub async fn backup(
    cluster: &Cluster,
    storage: &Arc<dyn Storage>,
    folder: &ObjectPath,
    plan: &BackupPlan,
    progress: &Arc<BackupProgress>,
    cancel: &CancellationToken,
) -> Result<BackupReport, EngineError> {
    let job = Arc::new(WriteJob {
        storage: Arc::clone(storage),
        folder: folder.clone(),
        namespace: plan.namespace.clone(),
        encoder: Encoder::new(&plan.namespace, plan.compact),
        compression: plan.compression,
        encryption: plan.encryption.clone(),
        file_limit: plan.file_limit,
        bandwidth: Limiter::new(plan.bandwidth),
        progress: Arc::clone(progress),
        stop: cancel.child_token(),
        next_file: AtomicU64::new(1),
        visible: Mutex::default(),
    });
    let result = run(cluster, plan, &job).await;
    if result.is_err() {
        let visible = std::mem::take(&mut *job.visible.lock().unwrap_or_else(PoisonError::into_inner));
        // The latest first: metadata.yaml, should it be there, must not outlive a file it speaks of.
        for path in visible.into_iter().rev() {
            // The job's own error is the one to report; a leftover without metadata.yaml is no backup.
            let _ = storage.delete_prefix(&path).await;
        }
    }
    result
}

async fn run(cluster: &Cluster, plan: &BackupPlan, job: &Arc<WriteJob>) -> Result<BackupReport, EngineError> {
    let created = Utc::now().trunc_subsecs(3);
    // Questions may be dropped at any moment, unlike writes.
    let asked = job.stop.run_until_cancelled(ask(cluster, plan, job)).await;
    let Answers { partitions, map, indexes, udfs } = asked.unwrap_or(Err(EngineError::Canceled))?;
    if !plan.no_indexes || !plan.no_udfs {
        let expressions = indexes.secondary.iter().any(|index| index.expression.is_some());
        let version = if expressions { Version::V3_2 } else { Version::V3_1 };
        let mut file = job.begin("metadata", version, true).await?;
        let mut text = Vec::new();
        for index in &indexes.secondary {
            job.encoder.index(index, &mut text);
        }
        for udf in &udfs {
            job.encoder.udf(udf, &mut text);
        }
        let appended = file.append(&mut text).await;
        file.end(appended).await?;
    }
    if !plan.no_records {
        records(cluster, plan, job, partitions, map).await?;
    }

    let progress = job.progress.snapshot();
    let metadata = Metadata {
        created,
        finished: Utc::now().trunc_subsecs(3),
        from: plan.modified_after.unwrap_or_else(Metadata::no_lower_bound),
        namespace: plan.namespace.clone(),
        record_count: progress.records_written,
        byte_count: progress.bytes_written,
        file_count: progress.files,
        secondary_index_count: indexes.secondary.len() as u64,
        udf_count: udfs.len() as u64,
        compression: if plan.compression.is_some() { "ZSTD" } else { "NONE" }.to_owned(),
        encryption: match plan.encryption.as_ref().map(abs_asb::EncryptionKey::size) {
            None => "NONE",
            Some(KeySize::Aes128) => "AES128",
            Some(KeySize::Aes256) => "AES256",
        }
        .to_owned(),
        set_indexes: indexes.sets.into_iter().map(|index| (index.name, index.set)).collect(),
    };
    let path = job.folder.join(METADATA_FILE).map_err(|e| EngineError::Plan(e.to_string()))?;
    let yaml = metadata.to_yaml().map_err(|e| EngineError::Plan(format!("{METADATA_FILE}: {e}")))?;
    // Whoever cancels later than this cancels a backup that is done.
    if job.stop.is_cancelled() {
        return Err(EngineError::Canceled);
    }
    job.note(path.clone());
    job.storage.put(&path, yaml.as_bytes()).await?;
    Ok(BackupReport { metadata, elapsed: progress.elapsed, retries: progress.retries })
}

/// What a backup has to know before it writes.
struct Answers {
    partitions: Vec<PartitionCursor>,
    map: PartitionMap,
    indexes: Indexes,
    udfs: Vec<Udf>,
}

async fn ask(cluster: &Cluster, plan: &BackupPlan, job: &WriteJob) -> Result<Answers, EngineError> {
    let statistics = cluster.statistics(&plan.namespace).await?;
    let listing = job.storage.list(&job.folder, false).await?;
    if !listing.objects.is_empty() || !listing.folders.is_empty() {
        return Err(EngineError::NotEmpty { folder: place(&*job.storage, &job.folder) });
    }
    let map = cluster.partition_map(&plan.namespace).await?;
    let partitions = choose(&plan.partitions, &map)?;
    let share = partitions.len() as f64 / f64::from(PARTITIONS);
    let expected = if plan.no_records { 0.0 } else { statistics.master_objects as f64 * share };
    job.progress.expected_records.store(expected as u64, Relaxed);

    let indexes = if plan.no_indexes { Indexes::default() } else { cluster.indexes(&plan.namespace).await? };
    let udfs = if plan.no_udfs { Vec::new() } else { cluster.udfs().await? };
    Ok(Answers { partitions, map, indexes, udfs })
}

/// Scans the partitions with `parallel` workers into `parallel_write` files at a time.
async fn records(
    cluster: &Cluster,
    plan: &BackupPlan,
    job: &Arc<WriteJob>,
    partitions: Vec<PartitionCursor>,
    map: PartitionMap,
) -> Result<(), EngineError> {
    let parallel = plan.parallel.max(1);
    let writers = plan.parallel_write.max(1);
    let unique =
        |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    let sets = unique(&plan.sets);
    // A single set goes into the request's own field, which lets the server use a set index.
    let (set, several) = match &sets[..] {
        [set] => (Some(set.clone()), &[][..]),
        several => (None, several),
    };
    let nanos = |time: chrono::DateTime<Utc>| time.timestamp_nanos_opt().unwrap_or(i64::MAX);
    let filter = ScanFilter::build(
        plan.filter.as_deref(),
        several,
        plan.modified_after.map(nanos),
        plan.modified_before.map(nanos),
    )?;
    let slow = filter.is_some() || set.is_some() || plan.records_per_second > 0 || plan.bandwidth > 0;
    let scan = Arc::new(ScanJob {
        cluster: cluster.clone(),
        request: ScanRequest {
            namespace: plan.namespace.clone(),
            set,
            // A bin that is asked for twice is sent twice.
            bins: unique(&plan.bins),
            filter,
            // Scans are never equally busy, so each may have twice its share; the limiter keeps the sum.
            records_per_second: plan.records_per_second.saturating_mul(2).div_ceil(parallel as u32),
            socket_timeout: patience(plan.socket_timeout, slow),
            total_timeout: plan.total_timeout,
            ..ScanRequest::default()
        },
        encoder: job.encoder.clone(),
        queue: Queue::new(partitions, map, parallel),
        records_per_second: Limiter::new(u64::from(plan.records_per_second)),
        retry: plan.retry,
        progress: Arc::clone(&job.progress),
    });
    let (full_in, full_out) = async_channel::bounded(writers);
    let (empty_in, empty_out) = async_channel::bounded(parallel + 2 * writers);
    let mut tasks = JoinSet::new();
    for _ in 0..parallel {
        let pipe = BlockPipe { full: full_in.clone(), empty: empty_out.clone() };
        let scanner = Scanner::new(Arc::clone(&scan), pipe).run();
        let stop = job.stop.clone();
        tasks.spawn(
            async move { stop.run_until_cancelled(scanner).await.unwrap_or(Err(EngineError::Canceled)) },
        );
    }
    for writer in 0..writers {
        tasks.spawn(write_files(Arc::clone(job), writer, full_out.clone(), empty_in.clone()));
    }
    // From here on only the tasks hold the channel: writers end when the last scanner did, and the other way round.
    drop((full_in, full_out, empty_in, empty_out));
    join_all(tasks, &job.stop).await
}

/// Waits for all tasks; the first that fails stops the others.
async fn join_all(
    mut tasks: JoinSet<Result<(), EngineError>>,
    stop: &CancellationToken,
) -> Result<(), EngineError> {
    let mut outcome = Ok(());
    while let Some(joined) = tasks.join_next().await {
        let result = joined.unwrap_or_else(|e| Err(EngineError::Worker(e.to_string())));
        if result.is_err() {
            stop.cancel();
            // Who was stopped, or found the other end of its channel gone, says no more than that.
            if matches!(outcome, Ok(()) | Err(EngineError::Canceled)) {
                outcome = result;
            }
        }
    }
    outcome
}

/// The partitions of a choice, in the order of their ids.
fn choose(choice: &PartitionChoice, map: &PartitionMap) -> Result<Vec<PartitionCursor>, EngineError> {
    let mut ids: Vec<u16> = match choice {
        PartitionChoice::All => (0..PARTITIONS).collect(),
        PartitionChoice::Partitions(ids) => ids.clone(),
        PartitionChoice::Nodes(names) => {
            let mut ids = Vec::new();
            for name in names {
                let node = map
                    .nodes()
                    .iter()
                    .find(|node| *node.name == **name || node.address() == *name)
                    .ok_or_else(|| ClusterError::NoNode(name.clone()))?;
                ids.extend(map.mastered_by(&node.name));
            }
            ids
        }
    };
    ids.sort_unstable();
    ids.dedup();
    match ids.last() {
        Some(&last) if last >= PARTITIONS => {
            Err(EngineError::Plan(format!("partition {last} does not exist: the last one is 4095")))
        }
        _ => Ok(ids.into_iter().map(PartitionCursor::from).collect()),
    }
}

/// A folder as the user knows it.
pub(crate) fn place(storage: &dyn Storage, folder: &ObjectPath) -> String {
    if folder.is_root() { storage.describe() } else { format!("{}/{folder}", storage.describe()) }
}
