//! Restores: starting, watching and canceling them; and the saved configuration of clusters.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use abs_actors::messages::{
    CancelRestore, GetClusterConfiguration, GetConfig, GetRestore, JobId, ListRestores, PlanWait,
    RestorePath, RestoreStatus, RestoreToTime, Status,
};
use abs_config::{AerospikeCluster, Config, RestoreRequest, RestoreTimestampRequest, Secrets, Storage};
use abs_engine::catalog::BackupKind;
use actix_web::http::header::CONTENT_DISPOSITION;
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use tokio_util::sync::DropGuard;
use utoipa::ToSchema;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::Api;
use super::endpoint::{Content, Endpoint, Kind, Tag};
use super::errors::Failure;
use super::progress::RunningJob;
use super::request::{self, Query};

/// The document `dto.RestoreJobStatus`: how a restore stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = dto::RestoreJobStatus)]
struct RestoreJobStatus {
    /// Records read from the backup: when the restore is finished, the sum of inserted, fresher, existed, ignored,
    /// skipped, expired and superseded ones, and of those of a validation.
    #[schema(example = 10)]
    read_records: u64,
    /// Bytes read from the backup.
    #[schema(example = 2000)]
    total_bytes: u64,
    /// Records left out because they had expired.
    #[schema(example = 2)]
    expired_records: u64,
    /// Records left out because of their set or their bins.
    #[schema(example = 4)]
    skipped_records: u64,
    /// Records that the database refused for good.
    #[schema(example = 12)]
    ignored_records: u64,
    /// Records that the database refused for good, by its answer: those ignored, and those that made the restore fail.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    refused_records: Vec<RefusedRecords>,
    /// Records restored.
    #[schema(example = 8)]
    inserted_records: u64,
    /// Records left alone because they existed.
    #[schema(example = 15)]
    existed_records: u64,
    /// Records left alone because the database had a later generation.
    #[schema(example = 5)]
    fresher_records: u64,
    /// Older versions of records of which a newer backup of the chain holds another one.
    #[serde(skip_serializing_if = "is_zero")]
    #[schema(example = 0, required = false)]
    superseded_records: u64,
    /// Secondary indexes created.
    #[schema(example = 3)]
    index_count: u64,
    /// UDF modules stored.
    #[schema(example = 1)]
    udf_count: u64,
    /// Writes that may have been done before they were sent again: their answer was lost, the database timed out, or the
    /// restore was interrupted.
    #[schema(example = 3)]
    errors_in_doubt: u64,
    /// Its progress.
    current_job: RunningJob,
    /// Its state.
    status: JobStatus,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    error: Option<String>,
    /// Warnings for the user, one line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<String>,
    /// What a restore would do, for each namespace (`validate-only`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    validations: Vec<Validation>,
}

/// What a restore of a namespace would do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = dto::Validation)]
struct Validation {
    /// The namespace it would write to.
    #[schema(example = "users")]
    namespace: String,
    /// The folders of the backups, in the order in which they would be read.
    backups: Vec<String>,
    /// Their files.
    #[schema(example = 8)]
    files: u64,
    /// The size of those, in bytes.
    #[schema(example = 2000)]
    bytes: u64,
    /// Records that would be sent to the database: those read, less skipped, expired and superseded ones.
    #[schema(example = 10)]
    records: u64,
    /// Secondary indexes that would be created, or exist already.
    #[schema(example = 3)]
    index_count: u64,
    /// Secondary indexes that exist already with another definition, and would be left alone.
    conflicting_indexes: Vec<String>,
    /// UDF modules that would be stored.
    #[schema(example = 1)]
    udf_count: u64,
    /// What would become of a sample of the records, as things are stored now.
    sample: SampledRecords,
}

/// What would become of a sample of records.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = dto::SampledRecords)]
struct SampledRecords {
    /// Records that were looked up in the database; at most 1,000, spread over all files.
    #[schema(example = 10)]
    records: u64,
    /// Records that would be inserted.
    #[schema(example = 4)]
    inserted: u64,
    /// Records that exist and would be overwritten, as a whole or the bins of the backup.
    #[schema(example = 3)]
    overwritten: u64,
    /// Records that would be left alone because the database has a later generation, or the same.
    #[schema(example = 2)]
    fresher: u64,
    /// Records that would be left alone because they exist.
    #[schema(example = 1)]
    existed: u64,
}

impl From<&abs_engine::Validation> for Validation {
    fn from(validation: &abs_engine::Validation) -> Self {
        let abs_engine::Conflicts { records, inserted, overwritten, fresher, existed } = validation.sample;
        Self {
            namespace: validation.namespace.clone(),
            backups: validation.backups.clone(),
            files: validation.files,
            bytes: validation.bytes,
            records: validation.records,
            index_count: validation.indexes,
            conflicting_indexes: validation.conflicting_indexes.clone(),
            udf_count: validation.udfs,
            sample: SampledRecords { records, inserted, overwritten, fresher, existed },
        }
    }
}

/// Records that the database refused for good with one answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = dto::RefusedRecords)]
struct RefusedRecords {
    /// The result code of the database.
    #[schema(example = 13)]
    code: u8,
    /// What the code means.
    #[schema(example = "record too big")]
    meaning: &'static str,
    /// What to do about it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "raise max-record-size of the namespace")]
    remedy: Option<&'static str>,
    /// How many records.
    #[schema(example = 2)]
    count: u64,
}

/// The state of a job.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = dto::JobStatus)]
pub enum JobStatus {
    /// It goes on.
    Running,
    /// It did all it was asked.
    Done,
    /// It ended early, by itself.
    Failed,
    /// It ended early, as somebody wished.
    Canceled,
}

impl From<Status> for JobStatus {
    fn from(state: Status) -> Self {
        match state {
            Status::Running => Self::Running,
            Status::Done => Self::Done,
            Status::Failed => Self::Failed,
            Status::Canceled => Self::Canceled,
        }
    }
}

impl From<&RestoreStatus> for RestoreJobStatus {
    fn from(status: &RestoreStatus) -> Self {
        let counts = &status.counts;
        Self {
            read_records: counts.read,
            total_bytes: counts.bytes_read,
            expired_records: counts.expired,
            skipped_records: counts.skipped,
            ignored_records: counts.ignored,
            refused_records: counts
                .refused
                .iter()
                .map(|(code, &count)| RefusedRecords {
                    code: code.0,
                    meaning: code.meaning(),
                    remedy: code.remedy(),
                    count,
                })
                .collect(),
            inserted_records: counts.inserted,
            existed_records: counts.existed,
            fresher_records: counts.fresher,
            superseded_records: counts.superseded,
            index_count: counts.indexes,
            udf_count: counts.udfs,
            errors_in_doubt: counts.in_doubt,
            current_job: (&status.job).into(),
            status: status.state.into(),
            error: status.error.clone(),
            warnings: status.warnings.clone(),
            validations: status.validations.iter().map(Validation::from).collect(),
        }
    }
}

/// What the reference's answer does not have is left out where there is nothing to say.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    let new = |method, path, id, summary| Endpoint::new(method, path, Tag::Restore, id, summary);
    let start = |path, id, summary| {
        new(Method::POST, path, id, summary)
            .answers(202, "Restore operation job id", Content::number())
            .refuses(400, "Bad Request")
            .refuses(409, "A namespace to restore is being backed up, or the backup is being deleted")
            .refuses(405, "Method Not Allowed")
    };
    vec![
        start("/v1/restore/full", "restoreFull", "Trigger an asynchronous full restore operation.")
            .body::<RestoreRequest>("Restore request details")
            .by(|api, request, payload| restore_path(BackupKind::Full, api, request, payload)),
        start(
            "/v1/restore/incremental",
            "restoreIncremental",
            "Trigger an asynchronous incremental restore operation.",
        )
        .body::<RestoreRequest>("Restore request details")
        .by(|api, request, payload| restore_path(BackupKind::Incremental, api, request, payload)),
        start(
            "/v1/restore/timestamp",
            "restoreTimestamp",
            "Trigger an asynchronous restore operation to specific point in time.",
        )
        .description("Restores backup from the given point in time.")
        .body::<RestoreTimestampRequest>("Restore request details")
        .by(restore_to_time),
        new(Method::GET, "/v1/restore/jobs", "retrieveRestoreJobs", "Retrieve restore jobs.")
            .time_range()
            .query(
                "status",
                Kind::Text,
                "Comma-separated status filter (Running,Done,Failed,Canceled). Use ! prefix for exclude filter \
                 (e.g., !Failed,Canceled)",
            )
            .answers(200, "Restore jobs", Content::json::<RestoreJobStatus>().by_name())
            .refuses(400, "Bad Request")
            .by(list),
        new(Method::GET, "/v1/restore/status/{jobId}", "restoreStatus", "Retrieve status for a restore job.")
            .within("jobId", Kind::Long, "Job ID to retrieve the status")
            .answers(200, "Restore job status details", Content::json::<RestoreJobStatus>())
            .refuses(400, "Bad Request")
            .refuses(404, "The specified restore job was not found")
            .by(status),
        new(Method::POST, "/v1/restore/cancel/{jobId}", "cancelRestore", "Cancel a running restore operation.")
            .within("jobId", Kind::Long, "Restore job ID")
            .acknowledges(202, "Restore job canceled successfully")
            .refuses(400, "Invalid job ID")
            .refuses(404, "The specified restore job was not found")
            .by(cancel),
        new(
            Method::GET,
            "/v1/retrieve/configuration/{name}/{timestamp}",
            "retrieveConfiguration",
            "Retrieve Aerospike cluster configuration backup",
        )
        .within("name", Kind::Text, "Backup routine name")
        .within("timestamp", Kind::Long, "Backup timestamp")
        .answers(200, "OK", Content::file("application/zip"))
        .refuses(400, "Bad Request")
        .refuses(404, "The specified routine was not found")
        .refuses(405, "Method Not Allowed")
        .by(configuration),
    ]
}

async fn restore_path(
    kind: BackupKind,
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Failure> {
    let mut request: RestoreRequest = request::document(&api, &request, payload).await?;
    let config = api.ask(GetConfig).await?.config;
    unmask(&config, request.source.as_mut(), request.destination.as_mut());
    request.unmask(None).map_err(Failure::bad_request)?;
    let (wait, _given_up) = plan_wait(&api);
    let id = api.ask(RestorePath { kind, request, wait }).await??;
    Ok(HttpResponse::Accepted().json(id.0))
}

async fn restore_to_time(
    api: web::Data<Api>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Failure> {
    let mut request: RestoreTimestampRequest = request::document(&api, &request, payload).await?;
    let config = api.ask(GetConfig).await?.config;
    unmask(&config, request.source.as_mut(), request.destination.as_mut());
    request.unmask(None).map_err(Failure::bad_request)?;
    let (wait, _given_up) = plan_wait(&api);
    let id = api.ask(RestoreToTime { request, wait }).await??;
    Ok(HttpResponse::Accepted().json(id.0))
}

/// How long the answer waits for the plan of a job: less long than the request may take. A request that ends before
/// the answer drops the guard.
pub fn plan_wait(api: &Api) -> (PlanWait, DropGuard) {
    let mut wait = PlanWait::default();
    wait.limit = wait.limit.min(api.time_limit / 2);
    let guard = wait.given_up.clone().drop_guard();
    (wait, guard)
}

/// Puts the secrets back into a storage and a cluster that were copied from our answers, where secrets are masked: the
/// `storage` of a backup in a list is what `source` takes.
fn unmask(config: &Config, source: Option<&mut Storage>, destination: Option<&mut AerospikeCluster>) {
    fn configured<T: Secrets + PartialEq>(document: Option<&mut T>, entries: &BTreeMap<String, T>) {
        let Some(document) = document else { return };
        if let Some(entry) = entries.values().find(|entry| entry.masked() == *document) {
            *document = entry.clone();
        }
    }
    configured(source, &config.storage);
    configured(destination, &config.aerospike_clusters);
}

async fn list(api: web::Data<Api>, query: Query) -> Result<HttpResponse, Failure> {
    let (from, to) = query.time_range()?;
    let status = query.value("status")?.unwrap_or_default();
    let jobs = api.ask(ListRestores { from, to, status }).await?;
    let jobs: BTreeMap<String, RestoreJobStatus> =
        jobs.iter().map(|(id, status)| (id.to_string(), status.into())).collect();
    Ok(HttpResponse::Ok().json(jobs))
}

async fn status(api: web::Data<Api>, id: web::Path<String>) -> Result<HttpResponse, Failure> {
    let status = api.ask(GetRestore(job_id(&id)?)).await??;
    Ok(HttpResponse::Ok().json(RestoreJobStatus::from(&status)))
}

async fn cancel(api: web::Data<Api>, id: web::Path<String>) -> Result<HttpResponse, Failure> {
    api.ask(CancelRestore(job_id(&id)?)).await??;
    Ok(HttpResponse::Accepted().finish())
}

/// The id of a job in a path.
pub fn job_id(text: &str) -> Result<JobId, Failure> {
    let id = text.parse::<i64>().ok().and_then(|id| u64::try_from(id).ok());
    id.map(JobId).ok_or_else(|| {
        Failure::bad_request(format_args!("jobId: {text:?} is not a job id: job ids are whole numbers"))
    })
}

async fn configuration(
    api: web::Data<Api>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Failure> {
    let (routine, timestamp) = request::run(path)?;
    let files = api.ask(GetClusterConfiguration { routine: routine.clone(), timestamp }).await??;
    let archive = zip(&files).map_err(|error| {
        Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format_args!("packing the configuration files of {routine} at {timestamp}: {error}"),
        )
    })?;
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
    let name: String = routine.chars().map(plain).collect();
    Ok(HttpResponse::Ok()
        .content_type("application/zip")
        .insert_header((
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}-{timestamp}-configuration.zip\""),
        ))
        .body(archive))
}

/// A ZIP archive of files with these names and contents.
fn zip(files: &[(String, Vec<u8>)]) -> zip::result::ZipResult<Vec<u8>> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, contents) in files {
        archive.start_file(name.as_str(), options)?;
        archive.write_all(contents)?;
    }
    Ok(archive.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn an_archive_holds_the_files() {
        let files = [
            ("aerospike_0.conf".to_owned(), b"service {}\n".repeat(100)),
            ("aerospike_1.conf".to_owned(), Vec::new()),
        ];
        let archive = zip(&files).unwrap();
        assert!(archive.len() < 600, "it is compressed");
        let mut archive = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
        assert_eq!(archive.len(), 2);
        for (name, contents) in files {
            let mut read = Vec::new();
            archive.by_name(&name).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, contents);
        }
    }

    #[test]
    fn a_job_id_is_a_whole_number_of_63_bits() {
        assert_eq!(job_id("123456789").unwrap(), JobId(123_456_789));
        for bad in ["", "x", "-1", "1.0", "9223372036854775808"] {
            assert!(job_id(bad).unwrap_err().to_string().starts_with("jobId: "), "{bad}");
        }
    }
}
