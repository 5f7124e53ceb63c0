//! `abs backup`

use std::path::PathBuf;
use std::time::Duration;

use abs_actors::{JobEnd, StartBackup};
use abs_cluster::ScanFilter;
use abs_config::{
    Bandwidth, Compression, FileHash, Namespace, PartitionFilter, RecordRate, SizeMb, Timestamp,
};
use abs_engine::{BackupPlan, BackupReport, EngineError, Owner, PartitionChoice, observe_claim};
use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::json;

use super::connect::Connect;
use super::job;
use super::options::{Encryption, MAX_BIN, MAX_SET, cancel_on, check_folder, parse_name};
use super::place::{OtherStorage, Place};
use super::state_file;
use super::view::{self, count};
use super::{Failure, resources};
use crate::service::signals::Signals;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    connect: Connect,
    /// The namespace.
    #[arg(short, long)]
    namespace: Namespace,
    /// The folder to write to; it must be empty or not exist yet.
    #[arg(short, long, value_name = "DIR", required_unless_present = "continue_")]
    directory: Option<PathBuf>,
    /// Continue the backup in this folder, whose process has ended, from its last checkpoint; or that of a state file. Selection,
    /// encryption and key must be those that it was begun with; its format stays.
    #[arg(long = "continue", id = "continue_", value_name = "PATH", conflicts_with = "directory")]
    continue_: Option<PathBuf>,
    /// Suspend the backup at SIGINT and SIGTERM instead of deleting it, and write this file, or one in this folder, for
    /// --continue. Of files that exist only a state file is replaced.
    #[arg(long, value_name = "PATH")]
    state_file_dst: Option<PathBuf>,
    /// Milliseconds between checkpoints; 0 for none.
    #[arg(long, value_name = "MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(..=86_400_000))]
    checkpoint_interval: u64,
    /// Milliseconds for which the claim on the folder holds; it is renewed ten times in this time. Then another process may
    /// continue the backup.
    #[arg(long, value_name = "MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1000..=86_400_000))]
    lease: u64,
    #[command(flatten)]
    place: OtherStorage,
    /// Only records of these sets, separated by commas.
    #[arg(long, value_name = "SETS", value_delimiter = ',', alias = "set-list", value_parser = parse_name::<MAX_SET>)]
    set: Vec<String>,
    /// Only these bins, separated by commas; records that have none of them are left out.
    #[arg(long, value_name = "BINS", value_delimiter = ',', value_parser = parse_name::<MAX_BIN>)]
    bin_list: Vec<String>,
    /// Scans at a time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel: u16,
    /// Files written at a time; as many as scans when not said.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel_write: Option<u16>,
    /// MiB after which a new file begins.
    #[arg(long, value_name = "MIB")]
    file_limit: Option<SizeMb>,
    /// Compress the files.
    #[arg(long, value_name = "none|zstd[:LEVEL]", default_value = "none")]
    compress: Compression,
    #[command(flatten)]
    encryption: Encryption,
    /// The hash of each whole file in the manifest; checksums of each MiB are always there.
    #[arg(long, value_name = "none|blake3|sha256", default_value_t)]
    file_hash: FileHash,
    /// Write blobs, maps, lists and HLLs raw instead of in base64.
    #[arg(long)]
    compact: bool,
    /// Leave out the records.
    #[arg(long)]
    no_records: bool,
    /// Leave out the index definitions.
    #[arg(long)]
    no_indexes: bool,
    /// Leave out the UDF modules.
    #[arg(long)]
    no_udfs: bool,
    /// Take redacted values where masking rules hide the real ones from the user (Enterprise Edition).
    #[arg(long)]
    allow_masked: bool,
    /// Only records last updated at this time or later: RFC 3339, `YYYY-MM-DD_HH:MM:SS` (local time), or milliseconds
    /// since 1970.
    #[arg(long, value_name = "TIME")]
    modified_after: Option<Timestamp>,
    /// Only records last updated before this time.
    #[arg(long, value_name = "TIME")]
    modified_before: Option<Timestamp>,
    /// Only these partitions: `0,100-50` is partition 0 and the 50 partitions from 100 on.
    #[arg(long, value_name = "LIST", conflicts_with_all = ["node_list", "rack_list"])]
    partition_list: Option<PartitionFilter>,
    /// Only the partitions that these nodes master, by node id or HOST:PORT, separated by commas.
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    node_list: Vec<String>,
    /// Only the partitions that the nodes of these racks master, separated by commas.
    #[arg(long, value_name = "RACKS", value_delimiter = ',', conflicts_with = "node_list")]
    rack_list: Vec<u32>,
    /// Read each partition from the first of these racks that has it, separated by commas; from its master when none has.
    #[arg(long, value_name = "RACKS", value_delimiter = ',', conflicts_with_all = ["partition_list", "node_list", "rack_list"])]
    prefer_racks: Vec<u32>,
    /// Only records that this filter expression (base64) lets through.
    #[arg(long, value_name = "BASE64")]
    filter_exp: Option<String>,
    /// Records per second over the whole job.
    #[arg(long, value_name = "N")]
    records_per_second: Option<RecordRate>,
    /// MiB per second written to the folder.
    #[arg(long, value_name = "MIB")]
    bandwidth: Option<Bandwidth>,
    /// Milliseconds that a node may be silent.
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    socket_timeout: u64,
    /// Milliseconds that the scan of a batch of partitions may take; 0 for no limit.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    total_timeout: u64,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn plan(&mut self) -> Result<BackupPlan, Failure> {
        let time = |t: Timestamp| DateTime::<Utc>::from(t.to_system_time());
        let parallel = usize::from(self.parallel);
        let (after, before) = (self.modified_after.map(time), self.modified_before.map(time));
        if after.zip(before).is_some_and(|(after, before)| after >= before) {
            return Err(Failure::usage("--modified-after must be earlier than --modified-before"));
        }
        if self.no_records && self.no_indexes && self.no_udfs {
            return Err(Failure::usage(
                "--no-records, --no-indexes and --no-udfs together leave nothing to back up",
            ));
        }
        // The same is done with all the conditions of the scan; here it finds bad usage before a cluster is asked.
        ScanFilter::build(self.filter_exp.as_deref(), &[], None, None).map_err(Failure::usage)?;
        // One of them at most, as clap sees to.
        let partitions = match self.partition_list.take().filter(|filter| !filter.is_all()) {
            Some(filter) => PartitionChoice::Partitions(filter.iter().collect()),
            None if !self.node_list.is_empty() => PartitionChoice::Nodes(std::mem::take(&mut self.node_list)),
            None if !self.rack_list.is_empty() => PartitionChoice::Racks(std::mem::take(&mut self.rack_list)),
            None => PartitionChoice::All,
        };
        Ok(BackupPlan {
            sets: std::mem::take(&mut self.set),
            bins: std::mem::take(&mut self.bin_list),
            partitions,
            prefer_racks: std::mem::take(&mut self.prefer_racks),
            modified_after: after,
            modified_before: before,
            filter: self.filter_exp.take(),
            no_records: self.no_records,
            no_indexes: self.no_indexes,
            no_udfs: self.no_udfs,
            allow_masked: self.allow_masked,
            parallel,
            parallel_write: self.parallel_write.map_or(parallel, usize::from),
            file_limit: self.file_limit.map_or(0, SizeMb::bytes),
            compact: self.compact,
            compression: match self.compress {
                Compression::None => None,
                Compression::Zstd(level) => Some(level.get()),
            },
            file_hash: self.file_hash,
            checkpoint_interval: Duration::from_millis(self.checkpoint_interval),
            continues: self.continue_.is_some(),
            owner: Owner::new(None, Duration::from_millis(self.lease)),
            records_per_second: self.records_per_second.map_or(0, RecordRate::get),
            bandwidth: self.bandwidth.map_or(0, Bandwidth::bytes_per_second),
            socket_timeout: Duration::from_millis(self.socket_timeout),
            total_timeout: Duration::from_millis(self.total_timeout),
            ..BackupPlan::new(self.namespace.as_str())
        })
    }
}

pub(super) async fn run(mut arguments: Arguments, signals: Signals) -> Result<(), Failure> {
    let mut plan = arguments.plan()?;
    plan.encryption = arguments.encryption.key()?;
    // One of them, as clap sees to.
    let directory = match (arguments.directory, arguments.continue_) {
        (Some(directory), _) => directory,
        (None, path) => state_file::folder(path.unwrap_or_default())?,
    };
    let namespace = plan.namespace.clone();
    let state_file = arguments.state_file_dst.map(|path| state_file::destination(path, &namespace));
    let state_file = state_file.transpose()?;
    let Place { storage, path: folder, name } = arguments.place.folder(&directory, check_folder)?;
    let cancel = cancel_on(signals);
    let cluster = arguments.connect.connect(&cancel).await?;
    if plan.continues
        && let Ok(Some(left)) = observe_claim(&*storage, &folder, &plan.owner).await
    {
        let seconds = left.as_secs().max(1);
        view::complain(&format!(
            "{name} may still be written by another process: looking again in {seconds} s"
        ));
    }
    let start = StartBackup { cluster: cluster.clone(), storage, folder, plan };
    let result = job::back_up(start, cancel, state_file.is_some()).await?;
    cluster.close().await;
    if let (JobEnd::Failed(EngineError::Suspended), Some(file)) = (&result.end, state_file) {
        state_file::write(&file, &namespace, &directory)?;
        let file = view::shown(&file.display().to_string());
        return Err(Failure::job(format!("the backup was suspended: continue it with --continue {file}")));
    }
    let reports = result.done().map_err(Failure::job)?;
    // One namespace was asked for.
    let report = reports.first().ok_or_else(|| Failure::job("the job was no backup"))?;
    for warning in &report.warnings {
        view::complain(&view::shown(&format!("warning: {warning}")));
    }
    view::say(&summary(report, arguments.json, &name))
}

fn summary(report: &BackupReport, as_json: bool, folder: &str) -> String {
    let m = &report.metadata;
    let seconds = report.elapsed.as_secs_f64();
    if as_json {
        let mut summary = json!({
            "namespace": m.namespace,
            "directory": folder,
            "created": m.created,
            "cluster-created": m.cluster_created,
            "finished": m.finished,
            "record-count": m.record_count,
            "byte-count": m.byte_count,
            "file-count": m.file_count,
            "secondary-index-count": m.secondary_index_count,
            "set-index-count": m.set_indexes.len(),
            "udf-count": m.udf_count,
            "compression": m.compression,
            "encryption": m.encryption,
            "masked": m.masked,
            "retries": report.retries,
            "seconds": seconds,
            "records-per-second": m.record_count as f64 / seconds.max(1e-3),
            "bytes-per-second": m.byte_count as f64 / seconds.max(1e-3),
        });
        resources::add_to(&mut summary);
        return summary.to_string();
    }
    let contents = view::contents(
        &count(m.record_count, "record"),
        m.secondary_index_count + m.set_indexes.len() as u64,
        m.udf_count,
    );
    let files = count(m.file_count, "file");
    let amounts = view::amounts(m.record_count, m.byte_count, report.elapsed);
    format!("backed up {contents} of namespace {} to {folder}\n{files}, {amounts}", m.namespace)
}
