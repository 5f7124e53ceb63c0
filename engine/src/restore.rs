//! One restore of a chain of backups into one namespace.
//!
//! A chain is restored as one, the newest link first. Of each digest the newest version that any link holds decides, whole:
//! it is written by the plan's policy, or left out if it has expired or is not wanted, and every older version is
//! superseded. So the policy is applied once for each record, against what the cluster held before.
//!
//! Backups that may hold different bins of the same records cannot be restored like that: a newer one would hide the bins
//! that only an older one has. Such a chain is restored bin by bin, the oldest link first: each link adds its bins to the
//! records that an older one wrote, and the policy decides about the others.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abs_asb::{SecondaryIndex, Udf};
use abs_cluster::{Cluster, SetIndex};
use abs_storage::{ObjectPath, Storage};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::answered::{ChainPosition, FileAnswers, FilePosition, Unknown};
use crate::blocks::BlockSource;
use crate::catalog::listing::AT_ONCE;
use crate::decided::{DecidedDigests, DigestCollector, KEY};
use crate::error::EngineError;
use crate::files::{Described, FileQueue, find, read_kind};
use crate::folder::place;
use crate::limits::RestoreLimits;
use crate::manifest::BackupFile;
use crate::metadata::Metadata;
use crate::nodes::NodesBefore;
use crate::outcome::Outcome;
use crate::plan::RestorePlan;
use crate::progress::{RestoreProgress, RestoreSnapshot};
use crate::sender::{Routes, SendJob};
use crate::validation::{RowSample, Validation};

/// What a restore did.
#[derive(Clone, Debug)]
pub struct RestoreReport {
    /// The final counters.
    pub counts: RestoreSnapshot,
    /// Indexes that exist already with another definition and were left alone.
    pub conflicting_indexes: Vec<String>,
    /// Warnings for the user, one line each.
    pub warnings: Vec<String>,
    /// What a restore would do, if that was the question (`validate_only`).
    pub validation: Option<Validation>,
}

/// A link of a chain: the folders that are restored as one, as a rule that of one backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Link {
    /// Its folders; every `.asb` file below them is a part of it.
    pub folders: Vec<ObjectPath>,
    /// Whether each of them was seen to have a metadata.yaml: one that has none later was deleted, perhaps in part.
    #[serde(default)]
    pub is_described: bool,
}

impl From<ObjectPath> for Link {
    fn from(folder: ObjectPath) -> Self {
        Self { folders: vec![folder], is_described: false }
    }
}

/// One restore of a chain of backups into one namespace, shared by its workers. What was restored stays when it fails or
/// is canceled.
///
/// Its owner takes a [`FileQueue`] from [`next_link`](Self::next_link), hands its files to
/// [`RestoreWorker`](crate::RestoreWorker)s, and asks for the next one when each of them has flushed, or has failed; after
/// the last one it calls [`finish`](Self::finish).
#[derive(Debug)]
pub struct ChainRestore {
    pub(crate) plan: RestorePlan,
    pub(crate) source: BlockSource,
    pub(crate) limits: Arc<RestoreLimits>,
    /// Rows per batch: no more than the rate allows in a second, so that it is kept over short times too.
    pub(crate) batch_size: usize,
    pub(crate) send: Arc<SendJob>,
    /// Of the rows, if they are not to be written.
    pub(crate) sample: Option<RowSample>,
    pub(crate) progress: Arc<RestoreProgress>,
    pub(crate) outcome: Arc<Outcome>,
    /// Whether the links are restored bin by bin.
    pub(crate) by_bins: bool,
    cluster: Cluster,
    nodes: NodesBefore,
    /// In the order of reading: the newest first; the oldest first when they are restored bin by bin.
    links: Vec<FoundLink>,
    reading: Mutex<Reading>,
}

/// A link as it was found.
#[derive(Debug)]
struct FoundLink {
    /// As the user knows it.
    place: String,
    files: Vec<BackupFile>,
    /// Of each of its backups.
    metadata: Vec<Metadata>,
    /// False when a part of it has no metadata.yaml.
    is_described: bool,
    /// Whether it is of several folders.
    has_several: bool,
}

/// The link under way.
#[derive(Debug, Default)]
struct Reading {
    /// Where the restore was resumed, if it was.
    resumed: Option<ChainPosition>,
    /// Links begun and ended; the one between is under way.
    begun: usize,
    ended: usize,
    /// The files of the one under way, and how many of them were handed out.
    files: Vec<Arc<FileAnswers>>,
    handed_out: u64,
    /// The counters of the links before.
    counts: RestoreSnapshot,
    /// The files of the links before that hold definitions.
    defining: Vec<String>,
    /// Counters when it began.
    read_before: u64,
    ended_before: u64,
    decided: Arc<DecidedDigests>,
    /// `None` when no later link asks, and when the digests come from the rows that are written.
    collector: Option<Arc<DigestCollector>>,
    /// What its files hold beside records.
    definitions: Definitions,
    /// The same of the links before.
    earlier: Vec<Definitions>,
}

/// Definitions of indexes and UDF modules in the files of a link.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    pub indexes: Vec<SecondaryIndex>,
    pub udfs: Vec<Udf>,
}

/// What to restore after the records: of each name the newest definition.
#[derive(Debug, Default)]
struct Chosen {
    indexes: Vec<SecondaryIndex>,
    set_indexes: Vec<SetIndex>,
    /// With the time of their backup.
    udfs: Vec<(Udf, DateTime<Utc>)>,
}

impl ChainRestore {
    /// Begins a restore of `links`, the newest first: lists them all, checks that each is complete and can be read, and asks
    /// the cluster for its partitions. Nothing is written before that. `progress` is of this restore alone. Must run on a
    /// multi-threaded runtime.
    pub async fn begin(
        cluster: &Cluster,
        storage: &Arc<dyn Storage>,
        links: &[Link],
        plan: &RestorePlan,
        limits: &Arc<RestoreLimits>,
        progress: &Arc<RestoreProgress>,
        cancel: &CancellationToken,
    ) -> Result<Arc<Self>, EngineError> {
        let outcome = Arc::new(Outcome::new(cancel));
        let asked = outcome.stop.run_until_cancelled(async {
            let looks: Vec<_> = links.iter().map(|link| look(storage, link, plan, progress)).collect();
            let links: Vec<_> = stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
            // Fails when the namespace does not exist, before anything is read.
            let statistics = cluster.statistics(&plan.destination).await?;
            let nodes = NodesBefore::ask(cluster, &plan.destination, statistics).await?;
            let ahead = clock_ahead(cluster, &plan.destination).await;
            Ok((links, nodes, ahead, cluster.partition_map(&plan.destination).await?))
        });
        let (mut links, nodes, ahead, map) = asked.await.unwrap_or(Err(EngineError::Canceled))?;
        let by_bins = has_other_bins(&links, plan);
        if by_bins {
            links.reverse();
            progress.warn(format!(
                "the backups of namespace {} may hold different bins of its records, so they are restored bin by bin, the \
                 oldest first: bins that were removed come back, and so do records whose newest version has expired; the policy \
                 decides about each backup of a record that none of them has written yet",
                plan.source
            ));
        }
        // Every link but the last is collected, and written once more when it is merged.
        let collected =
            links.split_last().map_or(&[][..], |(_, others)| others).iter().flat_map(|link| &link.metadata);
        let digests: u64 = collected.map(|metadata| 2 * metadata.record_count).sum();
        let bytes = links.iter().flat_map(|link| &link.files).map(|file| file.info.size).sum();
        progress.total_bytes.fetch_add(bytes, Relaxed);
        Ok(Arc::new(Self {
            plan: plan.clone(),
            source: BlockSource::new(
                Arc::clone(storage),
                plan.encryption.clone(),
                limits.bytes.clone(),
                Arc::clone(progress),
            )
            .reading_cut_files(plan.override_counts),
            limits: Arc::clone(limits),
            batch_size: match plan.records_per_second {
                0 => plan.batch_size,
                rate => plan.batch_size.min(usize::try_from(rate).unwrap_or(usize::MAX)),
            }
            .max(1),
            send: Arc::new(SendJob {
                cluster: cluster.clone(),
                namespace: plan.destination.clone(),
                ahead,
                singly: plan.disable_batch_writes,
                ignore_record_error: plan.ignore_record_error,
                socket_timeout: plan.socket_timeout,
                total_timeout: plan.total_timeout,
                resend: plan.resend,
                retry: plan.retry,
                limits: Arc::clone(limits),
                progress: Arc::clone(progress),
                outcome: Arc::clone(&outcome),
                routes: Routes::new(map),
                in_flight: Arc::default(),
                spare: Mutex::default(),
                written: Mutex::default(),
                digests_mib: (digests * KEY as u64).div_ceil(1 << 20),
            }),
            sample: plan.validate_only.then(RowSample::new),
            progress: Arc::clone(progress),
            outcome,
            by_bins,
            cluster: cluster.clone(),
            nodes,
            links,
            reading: Mutex::default(),
        }))
    }

    /// Continues an interrupted restore of the same links from its position: rows below it are not sent again. To be called
    /// before the first link.
    ///
    /// # Errors
    /// When the position is not one of these links, or the chain cannot be continued.
    pub fn resume(&self, position: ChainPosition) -> Result<(), EngineError> {
        let cannot = |why: String| Err(EngineError::Plan(format!("the restore cannot be continued: {why}")));
        if (self.by_bins || position.is_by_bins) && self.links.len() > 1 {
            // Which of the rows that were answered were written is not known.
            return cannot("its backups are restored bin by bin".to_owned());
        }
        let link = self.links.get(position.ended);
        let files = || link.into_iter().flat_map(|link| &link.files);
        let all = || self.links.iter().flat_map(|link| &link.files);
        let gone = position.defining.iter().find(|path| !all().any(|file| file.info.path.as_str() == **path));
        if let Some(path) = gone {
            return cannot(format!("{path} is gone"));
        }
        for known in &position.files {
            if !files().any(|file| file.info.path.as_str() == known.path && file.info.size == known.size) {
                return cannot(format!("{} has changed or is gone", known.path));
            }
        }
        self.progress.add(&position.counts);
        let mut reading = self.reading();
        reading.counts = position.counts.clone();
        reading.defining.clone_from(&position.defining);
        reading.resumed = Some(position);
        Ok(())
    }

    /// How far the restore is: what is below was answered, and need not be sent again.
    #[must_use]
    pub fn position(&self) -> ChainPosition {
        let reading = self.reading();
        if let Some(resumed) = reading.resumed.as_ref().filter(|resumed| reading.begun <= resumed.ended) {
            return resumed.clone();
        }
        let mut position = ChainPosition {
            is_by_bins: self.by_bins,
            ended: reading.ended,
            read_before: reading.read_before,
            files: Vec::new(),
            defining: reading.defining.clone(),
            counts: reading.counts.clone(),
        };
        for file in &reading.files {
            let (file, counts) = file.position();
            position.counts += counts;
            if file.read > 0 || file.is_done {
                position.files.push(file);
            }
        }
        position.counts.retries = self.progress.snapshot().retries;
        position
    }

    /// Ends the link under way, whose files must have been read to their end by workers that have flushed, and begins the
    /// next one. `None` when all were read, or the restore has failed or was canceled.
    pub async fn next_link(&self) -> Option<FileQueue> {
        let ended = self.outcome.stop.run_until_cancelled(self.end_link()).await;
        ended.unwrap_or(Err(EngineError::Canceled)).map_err(|e| self.fail(e)).ok()?;
        let mut reading = self.reading();
        let link = self.links.get(reading.begun)?;
        reading.begun += 1;
        // After the last link nothing is asked, nor when all of them had been restored.
        let asks = reading.begun.max(reading.restored()) < self.links.len();
        let collects = asks && !self.plan.no_records;
        let collector =
            collects.then(|| Arc::new(DigestCollector::new(self.limits.chain_memory, &reading.decided)));
        if self.by_bins {
            *self.send.written() = collector;
        } else {
            reading.collector = collector;
        }
        reading.ended_before = self.source.ended();
        Some(reading.queue(link, collects, &self.progress))
    }

    /// Checks that the link under way, if there is one, was read whole, and freezes what it decided.
    async fn end_link(&self) -> Result<(), EngineError> {
        let (decided, collector) = {
            let mut reading = self.reading();
            let Some(link) = self.links.get(reading.ended..reading.begun).and_then(<[_]>::first) else {
                return Ok(());
            };
            let c = self.progress.snapshot();
            if self.source.ended() - reading.ended_before != reading.handed_out || c.read != c.settled() {
                // Not every file was handed out, or not every worker has flushed.
                return Err(EngineError::Canceled);
            }
            let definitions = &reading.definitions;
            // A link that had been restored was compared then.
            let difference = (reading.ended >= reading.restored())
                .then(|| link.difference(definitions, c.read - reading.read_before))
                .flatten();
            if let Some(difference) = difference {
                if !self.plan.override_counts {
                    return Err(difference);
                }
                self.progress.warn(difference.to_string());
            }
            let definitions = std::mem::take(&mut reading.definitions);
            reading.earlier.push(definitions);
            reading.end_files();
            (reading.ended, reading.read_before) = (reading.begun, c.read);
            let written = self.send.written().take();
            match reading.collector.take().or(written) {
                Some(collector) => (std::mem::take(&mut reading.decided), collector),
                None => return Ok(()),
            }
        };
        // Its workers have ended, and nothing else asks or collects.
        let owned = (Arc::into_inner(decided), Arc::into_inner(collector));
        let (Some(decided), Some(collector)) = owned else {
            return Err(EngineError::Worker("a worker still reads an earlier link".to_owned()));
        };
        let frozen = tokio::task::spawn_blocking(move || collector.freeze(decided)).await;
        let frozen = frozen.map_err(|e| EngineError::Worker(e.to_string()))?;
        self.reading().decided = Arc::new(frozen.map_err(|e| self.send.no_room(&e))?);
        Ok(())
    }

    /// What the links before have decided, and what collects the digests of the link under way, unless it is the last.
    pub(crate) fn digests(&self) -> (Arc<DecidedDigests>, Option<Arc<DigestCollector>>) {
        let reading = self.reading();
        (Arc::clone(&reading.decided), reading.collector.clone())
    }

    /// Takes the definition of an index.
    pub(crate) fn take_index(&self, index: SecondaryIndex) {
        self.reading().definitions.indexes.push(index);
    }

    /// Takes a UDF module.
    pub(crate) fn take_udf(&self, udf: Udf) {
        self.reading().definitions.udfs.push(udf);
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the restore: [`finish`](Self::finish) will return the first error that was given here.
    pub fn fail(&self, error: EngineError) {
        self.outcome.fail(error);
    }

    /// True when the restore failed, was canceled, or has ended.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.outcome.stop.is_cancelled()
    }

    /// Ends the restore, also a failed or canceled one: nothing is in flight when it returns, and every row that was sent is
    /// counted, those whose answers did not come in time as in doubt. Restores the UDF modules and
    /// indexes of a restore whose links were all read.
    pub async fn finish(&self) -> Result<RestoreReport, EngineError> {
        let conclusion = self.outcome.stop.run_until_cancelled(self.conclude()).await;
        let conclusion = conclusion.unwrap_or(Err(EngineError::Canceled)).map_err(|e| self.fail(e));
        // Every batch in flight holds the other side of this lock.
        drop(self.send.in_flight.write().await);
        // To cancel later than the conclusion is to cancel a restore that is done.
        let Ok((conflicting_indexes, validation)) = conclusion else {
            return Err(self.outcome.check().err().unwrap_or(EngineError::Canceled));
        };
        self.outcome.stop.cancel();
        let counts = self.progress.snapshot();
        if counts.fresher > 0 {
            let (fresher, all) = (counts.fresher, counts.read - counts.superseded);
            let namespace = &self.plan.destination;
            // Folders that are restored together, and backups restored bin by bin, may hold a record more than once.
            let repeats = self.by_bins || self.links.iter().any(|link| link.has_several);
            self.progress.warn(if repeats {
                format!(
                    "{fresher} of {all} versions of records of namespace {namespace} were left alone because the cluster, or \
                     another of the backups restored together, holds the same or a later generation"
                )
            } else {
                format!(
                    "{fresher} of {all} records of namespace {namespace} were left alone because the cluster holds the same or a \
                     later generation of them: to overwrite these, restore with no-generation"
                )
            });
        }
        let warnings = self.progress.warnings();
        Ok(RestoreReport { counts, conflicting_indexes, warnings, validation })
    }

    /// Restores definitions, or finds out what a restore would do; returns the names of the indexes that conflict, and that.
    async fn conclude(&self) -> Result<(Vec<String>, Option<Validation>), EngineError> {
        if self.reading().ended != self.links.len() {
            // Not every link was read.
            return Err(EngineError::Canceled);
        }
        if self.sample.is_none()
            && let Some(warning) = self.nodes.check_written(&self.cluster).await?
        {
            self.progress.warn(warning);
        }
        let definitions = std::mem::take(&mut self.reading().earlier);
        let mut links: Vec<_> = self.links.iter().zip(definitions).collect();
        if self.by_bins {
            links.reverse();
        }
        let mut chosen = Chosen::default();
        for (link, definitions) in links {
            chosen.add(link, definitions);
        }
        if let Some(sample) = &self.sample {
            let validation = self.validation(&chosen, sample).await?;
            return Ok((validation.conflicting_indexes.clone(), Some(validation)));
        }
        // Modules and indexes come last: building an index once is cheaper than updating it with every record.
        if !self.plan.no_udfs && !chosen.udfs.is_empty() {
            // Modules belong to the cluster: of several namespaces that bring one, the newest counts, once.
            let mut restored = self.limits.modules.lock().await;
            for (udf, created) in &chosen.udfs {
                if restored.get(&udf.name).is_none_or(|other| other < created) {
                    self.cluster.put_udf(udf).await?;
                    restored.insert(udf.name.clone(), *created);
                    self.progress.udfs.fetch_add(1, Relaxed);
                }
            }
        }
        if self.plan.no_indexes {
            return Ok((Vec::new(), None));
        }
        let Chosen { indexes, set_indexes, .. } = &chosen;
        let restored =
            restore_indexes(&self.cluster, &self.plan, &self.progress, indexes, set_indexes).await?;
        Ok((restored, None))
    }

    /// What a restore would do.
    async fn validation(&self, chosen: &Chosen, sample: &RowSample) -> Result<Validation, EngineError> {
        let plan = &self.plan;
        let files = || self.links.iter().flat_map(|link| &link.files);
        let mut validation = Validation {
            namespace: plan.destination.clone(),
            backups: self.links.iter().map(|link| link.place.clone()).collect(),
            files: files().count() as u64,
            bytes: files().map(|file| file.info.size).sum(),
            records: self.progress.snapshot().unsent,
            udfs: if plan.no_udfs { 0 } else { chosen.udfs.len() as u64 },
            sample: sample.compare(&self.cluster, plan).await?,
            ..Validation::default()
        };
        if !plan.no_indexes {
            let existing = self.cluster.indexes(&plan.destination).await?;
            for index in chosen.indexes.iter().filter(|index| index.defect().is_none()) {
                let other = existing.secondary.iter().find(|other| other.name == index.name);
                validation.count_index(&index.name, other.is_none_or(|other| other == index));
            }
            for index in &chosen.set_indexes {
                let other = existing.sets.iter().find(|other| other.name == index.name);
                validation.count_index(&index.name, other.is_none_or(|other| other == index));
            }
        }
        Ok(validation)
    }
}

impl Reading {
    /// How many links had been restored when the restore was resumed.
    fn restored(&self) -> usize {
        self.resumed.as_ref().map_or(0, |resumed| resumed.ended)
    }

    /// The files of the link that begins, without those that had been restored and hold nothing that is needed again.
    fn queue(&mut self, link: &FoundLink, collects: bool, progress: &RestoreProgress) -> FileQueue {
        let index = self.begun - 1;
        let restored = index < self.restored();
        let resumed = self.resumed.as_ref().filter(|resumed| resumed.ended == index);
        let files = resumed.into_iter().flat_map(|resumed| &resumed.files);
        let known: HashMap<_, _> = files.map(|file| (file.path.as_str(), file)).collect();
        let mut unknown = resumed.map(|resumed| {
            self.read_before = resumed.read_before;
            Unknown::new()
        });
        let mut queue = Vec::new();
        for file in &link.files {
            let (path, size) = (file.info.path.as_str(), file.info.size);
            let answers = if restored {
                FileAnswers::of_ended(path, size, self.defining.iter().any(|name| name == path))
            } else {
                let new = FilePosition { path: path.to_owned(), size, ..FilePosition::default() };
                let position = known.get(path).copied().unwrap_or(&new);
                FileAnswers::from_position(
                    position,
                    unknown.as_mut().map_or(0, |unknown| unknown.share(position)),
                )
            };
            let answers = Arc::new(answers);
            let (position, _) = answers.position();
            if position.is_done && !position.has_definitions && !collects {
                progress.bytes_read.fetch_add(size, Relaxed);
            } else {
                queue.push((file.clone(), Arc::clone(&answers)));
            }
            self.files.push(answers);
        }
        self.handed_out = queue.len() as u64;
        FileQueue::new(queue)
    }

    /// Adds the files of the link that has ended to what is known of those before.
    fn end_files(&mut self) {
        for file in std::mem::take(&mut self.files) {
            let (position, counts) = file.position();
            self.counts += counts;
            if position.has_definitions && !self.defining.contains(&position.path) {
                self.defining.push(position.path);
            }
        }
    }
}

impl Drop for ChainRestore {
    fn drop(&mut self) {
        // Nothing is sent for a restore without an owner.
        self.outcome.stop.cancel();
    }
}

impl Chosen {
    /// Adds what a link holds that no newer one has defined.
    fn add(&mut self, link: &FoundLink, definitions: Definitions) {
        let created = link.metadata.iter().map(|metadata| metadata.created).max().unwrap_or_default();
        let mut known: HashSet<_> = self.udfs.iter().map(|(udf, _)| udf.name.clone()).collect();
        let new = definitions.udfs.into_iter().filter(|udf| known.insert(udf.name.clone()));
        self.udfs.extend(new.map(|udf| (udf, created)));
        let mut known: HashSet<_> = self.indexes.iter().map(|index| index.name.clone()).collect();
        self.indexes.extend(definitions.indexes.into_iter().filter(|index| known.insert(index.name.clone())));
        for (name, set) in link.metadata.iter().flat_map(|metadata| &metadata.set_indexes) {
            if self.set_indexes.iter().all(|index| index.name != *name) {
                self.set_indexes.push(SetIndex { name: name.clone(), set: set.clone() });
            }
        }
    }
}

impl FoundLink {
    /// How what was read of it differs from what its metadata says.
    fn difference(&self, definitions: &Definitions, records: u64) -> Option<EngineError> {
        if !self.is_described {
            return None;
        }
        let line = |records, files, indexes, udfs| {
            format!("{records} records, {files} files, {indexes} indexes, {udfs} UDF modules")
        };
        let sum = |count: fn(&Metadata) -> u64| self.metadata.iter().map(count).sum::<u64>();
        let expected = line(
            sum(|metadata| metadata.record_count),
            sum(|metadata| metadata.file_count),
            sum(|metadata| metadata.secondary_index_count),
            sum(|metadata| metadata.udf_count),
        );
        let (indexes, udfs) = (definitions.indexes.len() as u64, definitions.udfs.len() as u64);
        let found = line(records, self.files.len() as u64, indexes, udfs);
        (expected != found).then(|| EngineError::NotWhole { folder: self.place.clone(), expected, found })
    }
}

/// Whether the links of a chain may hold different bins of the same records. The `selection` of a backup does not say which
/// bins it holds, only whether they are those of another one; without it the routine's bin list is the only hint.
fn has_other_bins(links: &[FoundLink], plan: &RestorePlan) -> bool {
    let all = || links.iter().flat_map(|link| &link.metadata).map(|metadata| metadata.selection.as_ref());
    let known: HashSet<_> = all().flatten().collect();
    links.len() > 1 && (known.len() > 1 || (plan.may_lack_bins && all().any(|selection| selection.is_none())))
}

/// Seconds by which the cluster's clock is ahead of ours: that of the node that is furthest behind, so that no record is
/// left out that has not expired on its node. 0 when the clock cannot be read.
async fn clock_ahead(cluster: &Cluster, namespace: &str) -> i32 {
    let before = Utc::now().timestamp_millis();
    let time = cluster.time(namespace).await.ok().flatten();
    let ours = i64::midpoint(before, Utc::now().timestamp_millis());
    let ahead = time.map_or(0, |time| (time.earliest - ours) / 1000);
    // The time of an empty namespace is read to the second.
    i32::try_from(ahead).ok().filter(|seconds| seconds.abs() > 1).unwrap_or_default()
}

/// Looks for the backups of a link.
async fn look(
    storage: &Arc<dyn Storage>,
    link: &Link,
    plan: &RestorePlan,
    progress: &RestoreProgress,
) -> Result<FoundLink, EngineError> {
    let files = Arc::clone(storage);
    let storage = &**storage;
    let places: Vec<_> = link.folders.iter().map(|folder| place(storage, folder)).collect();
    let mut all = FoundLink {
        place: places.join(", "),
        files: Vec::new(),
        metadata: Vec::new(),
        is_described: true,
        has_several: places.len() > 1,
    };
    for (folder, place) in link.folders.iter().zip(places) {
        let found = match find(storage, folder).await {
            Err(EngineError::NoFiles { folder }) if link.is_described => {
                return Err(EngineError::Deleted { folder });
            }
            found => found?,
        };
        found.check_readable(storage)?;
        // Records of several backups at once would overwrite each other in no order.
        match &found.metadata[..] {
            [] if link.is_described => return Err(EngineError::Deleted { folder: place }),
            [] => {
                all.is_described = false;
                progress.warn(format!(
                    "{place} has no metadata.yaml: whether the backup is whole cannot be checked"
                ));
                let found: Vec<_> = found.files.into_iter().map(BackupFile::from).collect();
                try_key(&files, &found, plan).await?;
                all.files.extend(found);
            }
            [object] => {
                let object = object.clone();
                let described = match found.describe(storage, &object.path, &plan.encryption).await {
                    Err(e @ EngineError::Damaged { .. }) if plan.override_counts => {
                        progress.warn(format!("{e}; the files are restored without its checksums"));
                        found.describe_alone(storage, &object.path).await?
                    }
                    described => described?,
                };
                let Described { metadata, files: found, wrong, authentic, .. } = described;
                for wrong in wrong {
                    if !plan.override_counts {
                        return Err(wrong);
                    }
                    progress.warn(format!("{wrong}; what is there is restored"));
                }
                try_key(&files, &found, plan).await?;
                authentic?;
                if metadata.namespace != plan.source {
                    return Err(foreign(object.path.as_str(), metadata.namespace.as_bytes(), &plan.source));
                }
                let file_count = found.len() as u64;
                if metadata.file_count != file_count && !plan.override_counts {
                    // No record need be written to know this.
                    let files = |count| format!("{count} files");
                    let (expected, found) = (files(metadata.file_count), files(file_count));
                    return Err(EngineError::NotWhole { folder: place, expected, found });
                }
                if metadata.masked {
                    progress.warn(format!(
                        "{place} was made by a user who may not read masked values (allow-masked): redacted values in it are \
                         written over the real ones"
                    ));
                }
                all.metadata.push(metadata);
                all.files.extend(found);
            }
            [one, other, ..] => {
                let (one, other) = (one.path.to_string(), other.path.to_string());
                return Err(EngineError::SeveralBackups { folder: place, one, other });
            }
        }
    }
    all.files.sort_by_key(|file| std::cmp::Reverse(file.info.size));
    Ok(all)
}

/// Finds out whether the plan has the right key: one file of a backup tells, and the smallest is read in one request.
async fn try_key(
    storage: &Arc<dyn Storage>,
    files: &[BackupFile],
    plan: &RestorePlan,
) -> Result<(), EngineError> {
    let mut result = Ok(());
    for file in files.iter().rev() {
        let kind = read_kind(storage, file, &plan.encryption, plan.override_counts).await;
        result = kind.map(drop);
        // Of a damaged backup another file may tell.
        if result.is_ok() || !plan.override_counts {
            break;
        }
    }
    result
}

/// The error of a file that was made from another namespace than the plan says.
pub(crate) fn foreign(file: &str, namespace: &[u8], source: &str) -> EngineError {
    let namespace = String::from_utf8_lossy(namespace);
    let what = format!("is of a backup of namespace {namespace:?}, not of {source:?} as the restore says");
    EngineError::BadFile { file: file.to_owned(), what }
}

/// Creates the indexes that do not exist; returns the names of those that exist with another definition.
async fn restore_indexes(
    cluster: &Cluster,
    plan: &RestorePlan,
    progress: &RestoreProgress,
    indexes: &[SecondaryIndex],
    sets: &[SetIndex],
) -> Result<Vec<String>, EngineError> {
    let mut conflicting = Vec::new();
    if indexes.is_empty() && sets.is_empty() {
        return Ok(conflicting);
    }
    let existing = cluster.indexes(&plan.destination).await?;
    for index in indexes {
        if let Some(why) = index.defect() {
            progress.warn(format!("index {} was left out: {why}", index.name));
            continue;
        }
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
