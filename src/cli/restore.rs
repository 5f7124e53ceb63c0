//! `abs restore`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use abs_actors::StartRestore;
use abs_cluster::ResultCode;
use abs_config::{Bandwidth, NamespaceMap, RecordRate};
use abs_engine::{
    EngineError, Folder, FoundBackup, FoundBackups, Link, RestorePlan, RestoreReport, Validation,
    find_backups, links_of,
};
use abs_storage::{ObjectPath, Storage};
use chrono::{DateTime, Utc};
use clap::Args;
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Map, json};

use super::connect::Connect;
use super::job;
use super::options::{Decryption, MAX_BIN, MAX_SET, cancel_on, parse_name};
use super::place::OtherStorage;
use super::view::count;
use super::{Failure, resources, view};
use crate::service::signals::Signals;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    connect: Connect,
    /// The namespace that was backed up, and the one to restore to when it is another.
    #[arg(short, long, value_name = "SOURCE[,DESTINATION]")]
    namespace: NamespaceMap,
    /// The folder with the .asb files; folders inside it count too.
    #[arg(short, long, value_name = "DIR", required_unless_present_any = ["directory_list", "parent_directory"])]
    directory: Option<PathBuf>,
    /// Folders of one full backup and of incremental ones that build on it, in any order, separated by commas: they are
    /// restored as one chain.
    #[arg(long, value_name = "DIRS", value_delimiter = ',', conflicts_with = "directory")]
    directory_list: Vec<PathBuf>,
    /// The folder that the directories of the list are in; without a list, every backup below it.
    #[arg(long, value_name = "DIR", conflicts_with = "directory")]
    parent_directory: Option<PathBuf>,
    /// The moment to restore: only backups made then or before. Milliseconds since 1970, or a time like
    /// 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", conflicts_with = "directory", value_parser = parse_time)]
    time: Option<DateTime<Utc>>,
    /// Restore all folders at once, in no order: where several hold the same record, the policy decides.
    #[arg(long, conflicts_with_all = ["directory", "time"])]
    unordered: bool,
    #[command(flatten)]
    place: OtherStorage,
    /// Only records of these sets, separated by commas.
    #[arg(long, value_name = "SETS", value_delimiter = ',', alias = "set", value_parser = parse_name::<MAX_SET>)]
    set_list: Vec<String>,
    /// Only these bins, separated by commas; records left with none are skipped.
    #[arg(long, value_name = "BINS", value_delimiter = ',', value_parser = parse_name::<MAX_BIN>)]
    bin_list: Vec<String>,
    /// Leave out the records.
    #[arg(long)]
    no_records: bool,
    /// Leave out the indexes.
    #[arg(long)]
    no_indexes: bool,
    /// Leave out the UDF modules.
    #[arg(long)]
    no_udfs: bool,
    /// Overwrite records whatever their generation; without it only records of a lower generation are.
    #[arg(long, conflicts_with = "unique")]
    no_generation: bool,
    /// Leave existing records alone.
    #[arg(long, conflicts_with = "replace")]
    unique: bool,
    /// Replace existing records whole: bins that the backup lacks are dropped.
    #[arg(long)]
    replace: bool,
    /// Seconds added to the time to live of records that expire.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    extra_ttl: u32,
    /// Count records that the server refuses instead of failing.
    #[arg(long)]
    ignore_record_error: bool,
    /// Restore what is there of a backup whose files do not hold what its metadata.yaml says.
    #[arg(long = "override")]
    override_counts: bool,
    /// Write nothing: read and parse everything, and print what a restore would do.
    #[arg(long)]
    validate_only: bool,
    /// MiB of memory for the digests of the newer backups of a chain; what does not fit is kept in a temporary file.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    chain_memory: u32,
    /// Readers at a time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel: u16,
    /// Records per batch.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Batches in flight, each on a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    max_async_batches: u16,
    /// Write record by record.
    #[arg(long)]
    disable_batch_writes: bool,
    /// Records per second over the whole job.
    #[arg(long, value_name = "N")]
    tps: Option<RecordRate>,
    /// MiB per second read from the folder.
    #[arg(long, value_name = "MIB")]
    bandwidth: Option<Bandwidth>,
    /// Milliseconds that a node may be silent.
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    socket_timeout: u64,
    #[command(flatten)]
    decryption: Decryption,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// The storage and, the newest first, the links of the chain that the options name, of backups of this namespace.
    async fn links(&self, namespace: &str) -> Result<(Arc<dyn Storage>, Vec<Link>), Failure> {
        if let Some(directory) = &self.directory {
            let place = self.place.existing_folder(directory)?;
            return Ok((place.storage, vec![place.path.into()]));
        }
        let parent = self.parent_directory.as_deref();
        let (storage, folders) = self.place.folders(parent, &self.directory_list)?;
        let search = self.directory_list.is_empty();
        if self.unordered && !search {
            return Ok((storage, vec![Link { folders, is_described: false }]));
        }
        let found = find_folders(&*storage, folders, search.then_some(namespace)).await;
        let found = found.map_err(Failure::job)?;
        let links = if self.unordered {
            let is_described = found.iter().all(|folder| matches!(folder, Folder::Backup(_)));
            vec![Link { folders: found.iter().map(|folder| folder.path().clone()).collect(), is_described }]
        } else {
            let root = if self.place.is_this_machine() { "/" } else { "" };
            let usable = found.into_iter().filter(|folder| !search || is_usable(folder, root)).collect();
            links_of(usable, self.time).map_err(Failure::usage)?
        };
        Ok((storage, links))
    }
}

pub(super) async fn run(arguments: Arguments, signals: Signals) -> Result<(), Failure> {
    if arguments.no_records && arguments.no_indexes && arguments.no_udfs {
        return Err(Failure::usage(
            "--no-records, --no-indexes and --no-udfs together leave nothing to restore",
        ));
    }
    let cancel = cancel_on(signals);
    let found = cancel.run_until_cancelled(arguments.links(arguments.namespace.source.as_str())).await;
    let (storage, links) = found.unwrap_or_else(|| Err(Failure::job(EngineError::Canceled)))?;
    let plan = RestorePlan {
        sets: arguments.set_list,
        bins: arguments.bin_list,
        no_records: arguments.no_records,
        no_indexes: arguments.no_indexes,
        no_udfs: arguments.no_udfs,
        no_generation: arguments.no_generation,
        unique: arguments.unique,
        replace: arguments.replace,
        extra_ttl: arguments.extra_ttl,
        ignore_record_error: arguments.ignore_record_error,
        override_counts: arguments.override_counts,
        validate_only: arguments.validate_only,
        chain_memory: (arguments.chain_memory as usize) << 20,
        parallel: usize::from(arguments.parallel),
        batch_size: usize::from(arguments.batch_size),
        max_async_batches: usize::from(arguments.max_async_batches),
        disable_batch_writes: arguments.disable_batch_writes,
        records_per_second: arguments.tps.map_or(0, |rate| u64::from(rate.get())),
        bandwidth: arguments.bandwidth.map_or(0, Bandwidth::bytes_per_second),
        socket_timeout: Duration::from_millis(arguments.socket_timeout),
        encryption: arguments.decryption.keys()?,
        ..RestorePlan::new(arguments.namespace.source.as_str(), arguments.namespace.destination.as_str())
    };
    let cluster = arguments.connect.connect(&cancel).await?;
    let destination = plan.destination.clone();
    let start = StartRestore { cluster: cluster.clone(), storage, links, plan };
    let result = job::restore(start, cancel).await?;
    cluster.close().await;
    let reports = result.done().map_err(|e| {
        let counts = &result.snapshot.counts;
        let written = count(counts.inserted, "record");
        // What was restored stays.
        Failure::Job(match (counts.inserted, counts.in_doubt) {
            (0, 0) => e.to_string(),
            (_, 0) => format!("{e} (until then {written} were written)"),
            (_, in_doubt) => format!(
                "{e} (until then {written} were written; {} may have been: no answer came)",
                count(in_doubt, "record")
            ),
        })
    })?;
    // One namespace was named.
    let report = reports.first().ok_or_else(|| Failure::job("the job was no restore"))?;
    for warning in &report.warnings {
        view::complain(&view::shown(&format!("warning: {warning}")));
    }
    view::say(&summary(report, arguments.json, &destination))?;
    if report.conflicting_indexes.is_empty() || report.validation.is_some() {
        return Ok(());
    }
    Err(Failure::Job(format!(
        "records are restored, but these indexes exist already with another definition: {}",
        report.conflicting_indexes.join(", ")
    )))
}

/// The backups in folders. With a namespace, all those of it at any depth.
async fn find_folders(
    storage: &dyn Storage,
    folders: Vec<ObjectPath>,
    namespace: Option<&str>,
) -> Result<Vec<Folder>, EngineError> {
    let mut all = Vec::new();
    for folder in folders {
        let FoundBackups { mut backups, bare } = find_backups(storage, &folder).await?;
        match (namespace, backups.len()) {
            (_, 0) => all.push(Folder::Bare(folder)),
            (Some(namespace), _) => {
                backups.retain(|backup| backup.metadata.namespace == namespace);
                all.extend(backups.into_iter().map(Folder::Backup));
                all.extend(bare.into_iter().map(Folder::Bare));
            }
            // Several backups in one folder of the list are refused when it is read.
            (None, _) => {
                all.extend(backups.pop().map(|found| Folder::Backup(FoundBackup { folder, ..found })));
            }
        }
    }
    Ok(all)
}

/// Whether a chain can use a folder; warns if not.
fn is_usable(folder: &Folder, root: &str) -> bool {
    let Folder::Backup(FoundBackup { folder, is_suspect: true, .. }) = folder else { return true };
    view::complain(&view::shown(&format!(
        "warning: {root}{folder} is left out because its time is wrong (clock-suspect): restore it alone with --directory"
    )));
    false
}

/// A moment, as milliseconds since 1970 or as RFC 3339 writes it.
fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    let time = match text.parse() {
        Ok(milliseconds) => DateTime::from_timestamp_millis(milliseconds),
        Err(_) => DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc()),
    };
    time.ok_or_else(|| {
        format!("{text:?} is not a time: write milliseconds since 1970, or 2026-01-31T12:00:00Z")
    })
}

/// What a restore would do.
fn validated(validation: &Validation, read: u64) -> Vec<String> {
    let Validation { namespace, backups, files, bytes, records, indexes, conflicting_indexes, udfs, sample } =
        validation;
    let records = format!("{} of {}", HumanCount(*records), count(read, "record"));
    let contents = view::contents(&records, *indexes, *udfs);
    let size = HumanBytes(*bytes);
    let mut lines = vec![
        format!("nothing was written; a restore would send {contents} to namespace {namespace}"),
        format!("from {} of {size}, in this order: {}", count(*files, "file"), backups.join(", ")),
        format!("of {} that were looked up there:", count(sample.records, "record")),
    ];
    for (number, what) in [
        (sample.inserted, "would be inserted"),
        (sample.overwritten, "would be overwritten"),
        (sample.fresher, "would be left alone: the stored generation is not lower"),
        (sample.existed, "would be left alone: they exist already"),
    ] {
        if number > 0 {
            lines.push(format!("{} {what}", count(number, "record")));
        }
    }
    if !conflicting_indexes.is_empty() {
        let names = conflicting_indexes.join(", ");
        lines.push(format!("these indexes exist already with another definition: {names}"));
    }
    lines
}

fn summary(report: &RestoreReport, as_json: bool, namespace: &str) -> String {
    let c = &report.counts;
    let seconds = c.elapsed.as_secs_f64();
    if as_json {
        let of_code = |(code, count): (&ResultCode, &u64)| {
            let refused = json!({"count": count, "meaning": code.meaning(), "remedy": code.remedy()});
            (code.0.to_string(), refused)
        };
        let refused: Map<_, _> = c.refused.iter().map(of_code).collect();
        let mut summary = json!({
            "namespace": namespace,
            "read-records": c.read,
            "inserted-records": c.inserted,
            "fresher-records": c.fresher,
            "existed-records": c.existed,
            "ignored-records": c.ignored,
            "refused-records": refused,
            "skipped-records": c.skipped,
            "expired-records": c.expired,
            "superseded-records": c.superseded,
            "errors-in-doubt": c.in_doubt,
            "retries": c.retries,
            "index-count": c.indexes,
            "conflicting-indexes": report.conflicting_indexes,
            "udf-count": c.udfs,
            "warnings": report.warnings,
            "total-bytes": c.bytes_read,
            "seconds": seconds,
            "records-per-second": c.read as f64 / seconds.max(1e-3),
            "bytes-per-second": c.bytes_read as f64 / seconds.max(1e-3),
        });
        if let Some(validation) = &report.validation {
            summary["validation"] = json!(validation);
        }
        resources::add_to(&mut summary);
        return summary.to_string();
    }
    let mut lines = match &report.validation {
        None => {
            let records = format!("{} of {}", HumanCount(c.inserted), count(c.read, "record"));
            let contents = view::contents(&records, c.indexes, c.udfs);
            vec![format!("restored {contents} to namespace {namespace}")]
        }
        Some(validation) => validated(validation, c.read),
    };
    for (code, refused) in &c.refused {
        let remedy = code.remedy().map_or_else(String::new, |remedy| format!("; {remedy}"));
        lines.push(format!("{} refused by the server: {code}{remedy}", count(*refused, "record")));
    }
    for (number, why) in [
        (c.fresher, "left alone: the stored generation is not lower"),
        (c.existed, "left alone: they exist already"),
        (c.skipped, "skipped, as asked"),
        (c.expired, "expired"),
        (c.superseded, "superseded by a newer backup of the chain"),
        (c.in_doubt, "sent again that may have been written before"),
    ] {
        if number > 0 {
            lines.push(format!("{} {why}", count(number, "record")));
        }
    }
    lines.push(view::amounts(c.read, c.bytes_read, c.elapsed));
    lines.join("\n")
}
