//! One attempt at a backup of one namespace.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use abs_asb::{Encoder, Udf, Version};
use abs_cluster::{
    Cluster, ClusterError, Indexes, Masking, Node, PARTITIONS, PartitionMap, ScanFilter, ScanRequest,
};
use abs_storage::{ObjectPath, Storage};
use chrono::{DateTime, SubsecRound as _, Utc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::catalog::ChainTraits;
use crate::checkpoint::{Checkpoint, Checkpointer, DefinitionCounts, RunOptions, ranges};
use crate::cursors::{Cursors, Extent};
use crate::error::EngineError;
use crate::estimate::{Selection, density, expect, keep_expected};
use crate::folder::{RunFolder, place};
use crate::limits::{BackupLimits, NamespaceLimits};
use crate::metadata::Metadata;
use crate::nodes::NodesBefore;
use crate::outcome::Outcome;
use crate::plan::{BackupPlan, PartitionChoice};
use crate::progress::BackupProgress;
use crate::queue::{PartitionQueue, QueueSetup};
use crate::scanner::BlockPipe;
use crate::writer::{WriteJob, Writers, write_all};

/// How often a run is continued without a new checkpoint.
const MOST_IDLE: u32 = 3;

/// What a backup did.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// What its metadata.yaml says, or would say.
    pub metadata: Metadata,
    /// How long it took.
    pub elapsed: Duration,
    /// Scans that had to be continued after a failure.
    pub retries: u64,
    /// True when there was no record and the plan said to leave nothing then.
    pub empty: bool,
    /// Warnings for the user, one line each.
    pub warnings: Vec<String>,
}

/// One attempt at a backup of one namespace, shared by the workers that scan for it.
///
/// Whoever owns the run hands the batches of its [`PartitionQueue`] to [`Scanner`](crate::Scanner)s and calls
/// [`finish`](Self::finish) when the queue is over. A run that is dropped without that deletes what it made in the
/// background.
#[derive(Debug)]
pub struct BackupRun {
    pub(crate) cluster: Cluster,
    pub(crate) plan: BackupPlan,
    pub(crate) request: ScanRequest,
    pub(crate) encoder: Encoder,
    pub(crate) limits: Arc<BackupLimits>,
    pub(crate) progress: Arc<BackupProgress>,
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) pipe: BlockPipe,
    pub(crate) cursors: Arc<Cursors>,
    pub(crate) files: Arc<WriteJob>,
    /// The writers and the checkpoints.
    tasks: Mutex<Option<JoinHandle<()>>>,
    /// There are to be no more checkpoints.
    scanned: CancellationToken,
    options: RunOptions,
    /// Names of indexes that were left out, and why.
    unknown: Vec<(String, String)>,
    masking: MaskingOutcome,
    nodes: NodesBefore,
}

impl BackupRun {
    /// Begins a backup into an empty `folder`: asks the cluster what there is, writes the definitions of indexes and the
    /// UDF modules, and starts the file writers. It waits first until `limits` let it write a file. `created` is the
    /// backup's time; `progress` is of this run alone. When an earlier attempt of this process failed for a reason that may
    /// pass, and left a checkpoint in `folder`, it goes on from there. Must run on a multi-threaded runtime, to its end: to
    /// give up, cancel `cancel`.
    #[expect(clippy::too_many_arguments, reason = "each of them is another thing")]
    pub async fn begin(
        cluster: &Cluster,
        storage: &Arc<dyn Storage>,
        folder: &ObjectPath,
        plan: &BackupPlan,
        created: DateTime<Utc>,
        limits: &NamespaceLimits,
        progress: &Arc<BackupProgress>,
        cancel: &CancellationToken,
    ) -> Result<(Arc<Self>, PartitionQueue), EngineError> {
        let created = created.trunc_subsecs(3);
        let mut plan = plan.clone();
        let saved = cancel.run_until_cancelled(RunFolder::find_checkpoint(storage, folder, &plan));
        let saved = saved.await.unwrap_or(Err(EngineError::Canceled))?;
        // Before the first checkpoint there is nothing to keep, not even the definitions.
        let saved = saved.filter(|saved| !saved.files.is_empty() && saved.options.fits(&plan, created));
        if let Some(idle) = saved.as_ref().map(|saved| saved.idle).filter(|idle| *idle >= MOST_IDLE) {
            return Err(EngineError::NoProgress { folder: place(&**storage, folder), times: idle });
        }
        // Clusters may name their nodes alike.
        let name = |node: &Node| format!("{} {}:{}", node.name, node.host, node.port);
        let names: Vec<_> = cluster.nodes().iter().map(name).collect();
        if let Some(Checkpoint { options, .. }) = &saved {
            if !options.nodes.is_empty() && !options.nodes.iter().any(|node| names.contains(node)) {
                return Err(EngineError::OtherCluster { folder: place(&**storage, folder) });
            }
            (plan.from, plan.modified_after) = (options.from, options.modified_after);
            plan.modified_before = options.modified_before;
            (plan.compact, plan.compression) = (options.compact, options.compression);
            plan.file_hash = options.file_hash;
        } else if plan.sealed {
            // What was written until now is not newer than the clock that is furthest ahead.
            let now = plan.cluster_time.and_then(|time| DateTime::from_timestamp_millis(time.latest));
            let now = now.unwrap_or(created);
            plan.modified_before = Some(plan.modified_before.map_or(now, |before| before.min(now)));
        }
        let request = scan_request(&plan)?;
        // Questions may be dropped at any moment, unlike writes.
        let asked = cancel.run_until_cancelled(ask(cluster, &plan, saved.as_ref(), limits, progress)).await;
        let Answers { density, partitions, writers, map, indexes, udfs, masking, nodes } =
            asked.unwrap_or(Err(EngineError::Canceled))?;
        let limits = &limits.job;

        let encoder = Encoder::new(&plan.namespace, plan.compact);
        let outcome = Arc::new(Outcome::new(cancel));
        let files = Arc::new(WriteJob {
            folder: claim(storage, folder, created, saved.as_ref(), &plan, &outcome).await?,
            namespace: plan.namespace.clone(),
            encoder: encoder.clone(),
            compression: plan.compression,
            encryption: plan.encryption.clone(),
            file_hash: plan.file_hash,
            file_limit: plan.file_limit,
            limits: Arc::clone(limits),
            progress: Arc::clone(progress),
            outcome,
            continues: plan.continues,
            next_file: AtomicU64::new(1),
            writers: tokio::sync::Mutex::default(),
        });
        let mut masking = masking;
        let options = if let Some(saved) = &saved {
            masking.masked |= saved.options.masked;
            progress.resume(saved.records(), saved.bytes(), saved.files.len() as u64);
            saved.options.clone()
        } else {
            let options = run_options(&plan, created, &partitions, &indexes, &udfs, masking.masked, names);
            let described = async {
                let (job, options) = (Arc::clone(&files), options.clone());
                let put = async move { job.folder.describe(&options, job.encryption.as_ref()).await };
                let put = files.outcome.in_time(tokio::spawn(put)).await.ok_or(EngineError::Canceled)?;
                put.map_err(|e| EngineError::Worker(e.to_string()))??;
                write_definitions(&plan, &files, &indexes, &udfs).await
            };
            if let Err(e) = described.await {
                files.clean_up().await;
                return Err(e);
            }
            options
        };
        let all = partitions.len();
        let extents = partitions.iter().map(|&id| {
            let saved = saved.as_ref().and_then(|saved| saved.extents.get(&id));
            (id, saved.copied().unwrap_or(Extent::UpTo(None)))
        });
        let cursors = Arc::new(Cursors::new(extents));
        let left: Vec<_> = cursors.left();
        progress.partitions_done.fetch_add((all - left.len()) as u64, Relaxed);

        if Selection::of(&plan) != Selection::Unknown && !left.is_empty() {
            let (progress, outcome) = (Arc::clone(progress), Arc::clone(&files.outcome));
            tokio::spawn(keep_expected(cluster.clone(), plan.clone(), all, progress, outcome));
        }
        let queue = QueueSetup {
            namespace: plan.namespace.clone(),
            parallel: plan.parallel.max(1),
            max_retries: plan.retry.max_retries,
            density,
            estimate: Selection::of(&plan) == Selection::Unknown,
            records_per_batch: match plan.records_per_second {
                0 => u64::MAX,
                rate => u64::from(rate).div_ceil(plan.parallel.max(1) as u64),
            },
            progress: Arc::clone(progress),
            cursors: Arc::clone(&cursors),
            stop: files.outcome.stop.clone(),
        };
        let queue = PartitionQueue::new(queue, left, map);
        let (full_in, full_out) = async_channel::bounded(writers);
        let (empty_in, empty_out) = async_channel::bounded(plan.parallel.max(1) + 2 * writers);
        let writers =
            Writers { first: writers, most: plan.parallel_write.max(1), of_job: Arc::clone(&limits.writers) };
        let checkpoints = Checkpointer::new(
            Arc::clone(&files),
            Arc::clone(&cursors),
            full_in.clone(),
            plan.checkpoint_interval,
        );
        let scanned = CancellationToken::new();
        let tasks = tokio::spawn({
            let (job, scanned, suspend) = (Arc::clone(&files), scanned.clone(), plan.suspend.clone());
            async move {
                let writers = write_all(&job, writers, full_out, empty_in);
                tokio::join!(writers, checkpoints.keep(scanned, suspend));
                // Also of a run that is dropped.
                if job.outcome.stop.is_cancelled() && !job.is_resumable() {
                    job.clean_up().await;
                }
            }
        });
        let run = Self {
            cluster: cluster.clone(),
            request,
            encoder,
            limits: Arc::clone(limits),
            progress: Arc::clone(progress),
            outcome: Arc::clone(&files.outcome),
            pipe: BlockPipe { full: full_in, empty: empty_out },
            cursors,
            files,
            tasks: Mutex::new(Some(tasks)),
            scanned,
            options,
            unknown: indexes.unknown,
            masking,
            nodes,
            plan,
        };
        Ok((Arc::new(run), queue))
    }

    /// Stops the run: [`finish`](Self::finish) will clean up and return the first error that was given here.
    pub fn fail(&self, error: EngineError) {
        self.outcome.fail(error);
    }

    /// What the user should know from the start; one line each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        self.masking.warning.as_slice()
    }

    /// The counters of the run.
    #[must_use]
    pub fn progress(&self) -> &BackupProgress {
        &self.progress
    }

    /// True when the run failed, was canceled, or has ended.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.outcome.stop.is_cancelled()
    }

    /// Ends the run, also a failed or canceled one: waits for the file writers and writes metadata.yaml last, which makes
    /// the backup exist. Unless the queue is done and nothing failed, the first error is returned, and everything the run
    /// wrote is deleted; but when the error may pass and there is a checkpoint, that stays for another attempt, or for
    /// [`discard`](crate::discard). Await it to its end: a future that is dropped cannot clean up behind itself.
    pub async fn finish(&self, queue: PartitionQueue) -> Result<BackupReport, EngineError> {
        if !queue.is_done() {
            self.fail(EngineError::Canceled);
        }
        self.end().await
    }

    /// Ends a run whose queue is lost, because of `error`; returns the first error. Everything the run wrote is deleted, unless
    /// it was suspended: then a last checkpoint is made, which stops the run.
    pub async fn abandon(&self, error: EngineError) -> EngineError {
        if self.plan.suspend.is_cancelled() {
            self.outcome.stop.cancelled().await;
        }
        self.fail(error);
        self.end().await.err().unwrap_or(EngineError::Canceled)
    }

    async fn end(&self) -> Result<BackupReport, EngineError> {
        self.scanned.cancel();
        self.pipe.full.close();
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tasks) = tasks
            && let Err(e) = tasks.await
        {
            self.fail(EngineError::Worker(e.to_string()));
        }
        let had_checkpoint = self.files.folder.has_checkpoint();
        let is_resumable = self.files.is_resumable();
        let mut published = self.publish().await;
        if let Some(Err(e)) = &mut published
            && !self.outcome.is_canceled()
            && let Some(taken) = self.files.folder.taken().await
        {
            // That is why, whatever failed by it first.
            *e = taken;
        }
        let result = match published {
            Some(Ok(report)) if !report.empty => {
                self.files.folder.keep();
                Ok(report)
            }
            // What is another process's is not kept for another attempt.
            Some(Err(e @ EngineError::Taken { .. })) => {
                self.files.clean_up().await;
                Err(e)
            }
            Some(Err(e))
                if is_resumable || (had_checkpoint && e.is_resumable() && !self.outcome.is_canceled()) =>
            {
                Err(e)
            }
            // There is nothing to continue from.
            Some(Err(EngineError::Suspended)) => {
                self.files.clean_up().await;
                Err(EngineError::Canceled)
            }
            Some(result) => {
                self.files.clean_up().await;
                result
            }
            None => {
                // The storage hangs, and may still make the backup exist.
                let files = Arc::clone(&self.files);
                if !self.plan.continues {
                    tokio::spawn(async move { files.folder.discard().await });
                }
                Err(EngineError::Canceled)
            }
        };
        // Whatever the run still does in the background ends with it.
        self.outcome.stop.cancel();
        result
    }

    /// Looks whether nodes were away since the beginning, and whether records may be missing by that. Returns what the user
    /// should know.
    async fn check_nodes(&self) -> Result<Option<String>, EngineError> {
        if self.plan.no_records {
            return Ok(None);
        }
        let checked = self.outcome.stop.run_until_cancelled(self.nodes.check_read(&self.cluster)).await;
        checked.unwrap_or(Err(EngineError::Canceled))
    }

    /// What to tell the user of a sealed backup that lacks records. Some may have been changed since it began, but a cluster
    /// whose clock was ahead has stamped records with times that no clock has reached.
    fn check_sealed(&self, records: u64) -> Option<String> {
        let (plan, before) = (&self.plan, self.nodes.records());
        let is_whole = plan.sealed
            && plan.bins.is_empty()
            && plan.partitions == PartitionChoice::All
            && Selection::of(plan) == Selection::All;
        let missing = before.saturating_sub(records);
        (is_whole && missing > before / 100).then(|| {
            format!(
                "namespace {}: {missing} of {before} records are not in this sealed backup, because their last updates are \
                 later than its beginning: if they were not changed meanwhile, the cluster's clock was ahead, and only a \
                 backup without sealed contains them",
                plan.namespace
            )
        })
    }

    /// Writes metadata.yaml; no result if the run was canceled meanwhile and the storage hangs.
    async fn publish(&self) -> Option<Result<BackupReport, EngineError>> {
        let plan = &self.plan;
        let progress = self.progress.snapshot();
        let (records, bytes, files) = self.files.folder.totals();
        let RunOptions { definitions, .. } = &self.options;
        let metadata = Metadata {
            created: self.options.created,
            finished: Utc::now().trunc_subsecs(3),
            from: plan.from.or(plan.modified_after).unwrap_or_else(Metadata::no_lower_bound),
            namespace: plan.namespace.clone(),
            record_count: records,
            byte_count: bytes,
            file_count: files,
            secondary_index_count: definitions.secondary_indexes,
            udf_count: definitions.udfs,
            compression: if plan.compression.is_some() { "ZSTD" } else { "NONE" }.to_owned(),
            encryption: self.options.encryption.clone(),
            set_indexes: definitions.set_indexes.clone(),
            selection: Some(self.options.selection.clone()),
            encryption_key: self.options.encryption_key.clone(),
            from_bound: plan.modified_after.filter(|_| plan.from.is_some()),
            cluster_created: self.options.cluster_created,
            masked: self.masking.masked,
            manifest_hash: None,
        };
        let empty = plan.skip_empty && metadata.record_count == 0;
        if let Err(e) = self.outcome.check() {
            return Some(Err(e));
        }
        if records != progress.records_written {
            let written = progress.records_written;
            let what = format!("{written} records were written, but the files hold {records}");
            return Some(Err(EngineError::Worker(what)));
        }
        let mut warnings = self.warnings().to_vec();
        let unknown = self.unknown.iter();
        warnings.extend(unknown.map(|(name, why)| format!("index {name} was left out: {why}")));
        warnings.extend(self.check_sealed(metadata.record_count));
        match self.check_nodes().await {
            Ok(warning) => warnings.extend(warning),
            Err(e) => return Some(Err(e)),
        }
        if !empty {
            let (files, content) = (Arc::clone(&self.files), metadata.clone());
            let published =
                tokio::spawn(async move { files.folder.publish(&content, files.encryption.as_ref()).await });
            let published = self.outcome.in_time(published).await?;
            if let Err(e) = published.unwrap_or_else(|e| Err(EngineError::Worker(e.to_string()))) {
                return Some(Err(e));
            }
        }
        let (elapsed, retries) = (progress.elapsed, progress.retries);
        Some(Ok(BackupReport { metadata, elapsed, retries, empty, warnings }))
    }
}

impl Drop for BackupRun {
    fn drop(&mut self) {
        // The writers of a run that nobody finished find the stop sign before the end of their channel.
        self.outcome.stop.cancel();
    }
}

/// Claims the folder. When the run is canceled and the storage hangs, a claim that is still made is given up again.
async fn claim(
    storage: &Arc<dyn Storage>,
    folder: &ObjectPath,
    created: DateTime<Utc>,
    checkpoint: Option<&Checkpoint>,
    plan: &BackupPlan,
    outcome: &Outcome,
) -> Result<RunFolder, EngineError> {
    let (storage, folder) = (Arc::clone(storage), folder.clone());
    let (saved, plan) = (checkpoint.cloned(), plan.clone());
    let mut claim =
        tokio::spawn(
            async move { RunFolder::claim(&storage, &folder, created, saved.as_ref(), &plan).await },
        );
    if let Some(claimed) = outcome.in_time(&mut claim).await {
        return claimed.map_err(|e| EngineError::Worker(e.to_string()))?;
    }
    let continues = checkpoint.is_some();
    tokio::spawn(async move {
        if let Ok(Ok(folder)) = claim.await
            && !continues
        {
            folder.discard().await;
        }
    });
    Err(EngineError::Canceled)
}

/// What a backup has to know before it writes.
struct Answers {
    /// Records of a partition, on average.
    density: f64,
    /// In the order of their ids.
    partitions: Vec<u16>,
    /// Files that it may write at a time.
    writers: usize,
    map: PartitionMap,
    indexes: Indexes,
    udfs: Vec<Udf>,
    masking: MaskingOutcome,
    nodes: NodesBefore,
}

/// What the namespace's masking rules mean for a backup that goes on.
#[derive(Debug, Default)]
struct MaskingOutcome {
    /// Whether it may hold redacted values.
    masked: bool,
    warning: Option<String>,
}

async fn ask(
    cluster: &Cluster,
    plan: &BackupPlan,
    saved: Option<&Checkpoint>,
    limits: &NamespaceLimits,
    progress: &BackupProgress,
) -> Result<Answers, EngineError> {
    // Fails when the namespace does not exist.
    let statistics = cluster.statistics(&plan.namespace).await?;
    let density = density(cluster, plan, &statistics).await?;
    let before = || NodesBefore::ask(cluster, &plan.namespace, statistics);
    let nodes = limits.nodes.get_or_try_init(before).await?.clone();
    let masking = check_masking(cluster, plan).await?;
    let partitions = match saved {
        // Nodes may have other partitions by now.
        Some(saved) => saved.extents.keys().copied().collect(),
        None if plan.no_records => Vec::new(),
        None => choose(cluster, plan).await?,
    };
    if Selection::of(plan) != Selection::Unknown {
        expect(density, partitions.len(), progress);
    }
    // The job knows of all its records while the namespace waits for its turn. What follows is as of its beginning.
    let writers = limits.writers().await?;
    let map = cluster.partition_map_preferring(&plan.namespace, &plan.prefer_racks).await?;
    let indexes = if plan.no_indexes { Indexes::default() } else { cluster.indexes(&plan.namespace).await? };
    let udfs = if plan.no_udfs { Vec::new() } else { cluster.udfs().await? };
    Ok(Answers { density, partitions, writers, map, indexes, udfs, masking, nodes })
}

/// How many masking rules an error or a warning names.
const NAMED_RULES: usize = 3;

/// Refuses a backup of values that the server would redact, unless the plan takes them.
async fn check_masking(cluster: &Cluster, plan: &BackupPlan) -> Result<MaskingOutcome, EngineError> {
    if plan.no_records {
        return Ok(MaskingOutcome::default());
    }
    let namespace = &plan.namespace;
    let (mut rules, cause) = match cluster.masking(namespace).await? {
        Masking::None => return Ok(MaskingOutcome::default()),
        Masking::Unknown(cause) => {
            let warning = format!(
                "namespace {namespace}: the masking rules cannot be read, the backup may hold redacted values: {cause}"
            );
            return Ok(MaskingOutcome { masked: false, warning: Some(warning) });
        }
        Masking::Rules { rules, cause } => (rules, cause),
    };
    rules.retain(|rule| {
        let set = rule.set.as_ref();
        (plan.bins.is_empty() || plan.bins.contains(&rule.bin))
            && (plan.sets.is_empty() || set.is_none_or(|set| plan.sets.contains(set)))
    });
    if rules.is_empty() {
        return Ok(MaskingOutcome::default());
    }
    let mut named = rules.iter().take(NAMED_RULES).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if rules.len() > NAMED_RULES {
        named = format!("{named} and {} more", rules.len() - NAMED_RULES);
    }
    if !plan.allow_masked {
        return Err(EngineError::Masked { namespace: namespace.clone(), rules: named, cause });
    }
    let warning = format!(
        "namespace {namespace}: the backup holds redacted values, and a restore of it writes them over the real ones: \
         {named}; {cause}"
    );
    Ok(MaskingOutcome { masked: true, warning: Some(warning) })
}

/// The partitions that a plan asks for, in the order of their ids.
async fn choose(cluster: &Cluster, plan: &BackupPlan) -> Result<Vec<u16>, EngineError> {
    let namespace = &plan.namespace;
    let mut ids: Vec<u16> = match &plan.partitions {
        PartitionChoice::All => (0..PARTITIONS).collect(),
        PartitionChoice::Partitions(ids) => ids.clone(),
        PartitionChoice::Nodes(names) => {
            let map = cluster.partition_map(namespace).await?;
            let mut ids = Vec::new();
            for name in names {
                let is_named = |node: &&Node| *node.name == **name || node.address() == *name;
                let node = map.nodes().iter().find(is_named);
                let node = node.ok_or_else(|| ClusterError::NoNode(name.clone()))?;
                ids.extend(map.mastered_by(&node.name));
            }
            ids
        }
        PartitionChoice::Racks(racks) => {
            let (of_nodes, map) = (cluster.racks(namespace).await?, cluster.partition_map(namespace).await?);
            if let Some(&unknown) = racks.iter().find(|rack| !of_nodes.ids().contains(rack)) {
                return Err(ClusterError::NoRack(unknown).into());
            }
            let is_chosen = |node: &&Node| of_nodes.of(node).is_some_and(|rack| racks.contains(&rack));
            map.nodes().iter().filter(is_chosen).flat_map(|node| map.mastered_by(&node.name)).collect()
        }
    };
    ids.sort_unstable();
    ids.dedup();
    match ids.last() {
        Some(&last) if last >= PARTITIONS => {
            Err(EngineError::Plan(format!("partition {last} does not exist: the last one is 4095")))
        }
        _ => Ok(ids),
    }
}

fn run_options(
    plan: &BackupPlan,
    created: DateTime<Utc>,
    partitions: &[u16],
    indexes: &Indexes,
    udfs: &[Udf],
    masked: bool,
    nodes: Vec<String>,
) -> RunOptions {
    let ChainTraits { selection, encryption, encryption_key } = plan.chain_traits();
    RunOptions {
        namespace: plan.namespace.clone(),
        created,
        from: plan.from,
        modified_after: plan.modified_after,
        modified_before: plan.modified_before,
        cluster_created: plan.cluster_time.and_then(|time| DateTime::from_timestamp_millis(time.earliest)),
        selection,
        partitions: ranges(partitions),
        compact: plan.compact,
        compression: plan.compression,
        encryption,
        encryption_key,
        file_hash: plan.file_hash,
        definitions: DefinitionCounts {
            secondary_indexes: indexes.secondary.len() as u64,
            udfs: udfs.len() as u64,
            set_indexes: indexes.sets.iter().map(|index| (index.name.clone(), index.set.clone())).collect(),
        },
        masked,
        nodes,
    }
}

async fn write_definitions(
    plan: &BackupPlan,
    files: &Arc<WriteJob>,
    indexes: &Indexes,
    udfs: &[Udf],
) -> Result<(), EngineError> {
    if plan.no_indexes && plan.no_udfs {
        return Ok(());
    }
    let expressions = indexes.secondary.iter().any(|index| index.expression.is_some());
    let version = if expressions { Version::V3_2 } else { Version::V3_1 };
    let mut file = files.begin("metadata", version, true, 0).await?;
    let mut text = Vec::new();
    for index in &indexes.secondary {
        files.encoder.index(index, &mut text);
    }
    for udf in udfs {
        files.encoder.udf(udf, &mut text);
    }
    let appended = file.append(&mut text).await;
    file.end(appended).await
}

/// What is asked of every node.
fn scan_request(plan: &BackupPlan) -> Result<ScanRequest, EngineError> {
    let unique =
        |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
    let sets = unique(&plan.sets);
    // A single set goes into the request's own field, which lets the server use a set index.
    let (set, several) = match &sets[..] {
        [set] => (Some(set.clone()), &[][..]),
        several => (None, several),
    };
    let nanos = |time: DateTime<Utc>| time.timestamp_nanos_opt().unwrap_or(i64::MAX);
    let filter = ScanFilter::build(
        plan.filter.as_deref(),
        several,
        plan.modified_after.map(nanos),
        plan.modified_before.map(nanos),
    )?;
    let slow = filter.is_some() || set.is_some() || plan.records_per_second > 0 || plan.bandwidth > 0;
    Ok(ScanRequest {
        namespace: plan.namespace.clone(),
        set,
        // A bin that is asked for twice is sent twice.
        bins: unique(&plan.bins),
        filter,
        // Scans are never equally busy, so each may have twice its share; the limiter keeps the sum.
        records_per_second: plan.records_per_second.saturating_mul(2).div_ceil(plan.parallel.max(1) as u32),
        socket_timeout: patience(plan.socket_timeout, slow),
        total_timeout: plan.total_timeout,
        ..ScanRequest::default()
    })
}

/// How long we wait for the next bytes of a scan.
///
/// The server sends a block when a mebibyte is full. A slow rate or a filter that lets little through keeps it silent
/// for much longer than the socket timeout, in good health.
fn patience(socket_timeout: Duration, slow: bool) -> Duration {
    if slow { socket_timeout.max(Duration::from_mins(10)) } else { socket_timeout }
}
