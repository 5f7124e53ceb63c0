//! Verifications of backups: starting, watching and canceling them.

use abs_actors::messages::{
    CancelVerification, GetVerification, VerificationStatus, VerifyBackup, VerifySubject,
};
use abs_engine::{Depth, Verdict, VerifiedBackup};
use actix_web::http::Method;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::endpoint::{Content, Endpoint, Kind, Tag};
use super::errors::Failure;
use super::progress::RunningJob;
use super::request::{self, Query};
use super::restores::{JobStatus, job_id, plan_wait};

/// The document `dto.VerificationStatus`: how a verification stands, and what it found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = dto::VerificationStatus)]
struct VerificationDocument {
    /// The routine.
    #[schema(example = "daily")]
    routine: String,
    /// When the run began, in milliseconds since 1970.
    #[schema(example = 1_685_458_200_000_i64)]
    timestamp: i64,
    /// `quick` or `full`.
    #[schema(value_type = String, example = "full")]
    depth: Depth,
    /// Its state. One that found damage is done, too.
    status: JobStatus,
    /// `whole`, `damaged`, or `not-verifiable` when not everything could be looked at; absent until it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "whole")]
    verdict: Option<Verdict>,
    /// Why it failed: then nothing is known of the backups.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    error: Option<String>,
    /// The backups of the run, when it is done.
    backups: Vec<VerifiedBackupDocument>,
    /// Folders of the run that a backup is being written to, or that an interrupted one left: no backups.
    unfinished: Vec<String>,
    /// Its progress.
    current_job: RunningJob,
}

/// A backup that was verified.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = dto::VerifiedBackup)]
struct VerifiedBackupDocument {
    /// Its folder in the storage.
    #[schema(example = "daily/backup/1707915600000/data/source-ns1")]
    key: String,
    /// Its namespace; absent when its metadata.yaml cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "source-ns1")]
    namespace: Option<String>,
    /// `whole`, `damaged` or `not-verifiable`.
    #[schema(value_type = String, example = "whole")]
    verdict: Verdict,
    /// It has no manifest, so only its structure was checked.
    structure_only: bool,
    /// Files that were looked at.
    #[schema(example = 1)]
    files: u64,
    /// Their bytes.
    #[schema(example = 2000)]
    bytes: u64,
    /// Records that were read; absent when the files were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64, required = false, example = 100)]
    records: Option<u64>,
    /// What is wrong, one line each: one for each damaged file.
    problems: Vec<String>,
    /// What could not be looked at and why, one line each.
    not_verifiable: Vec<String>,
}

impl From<VerifiedBackup> for VerifiedBackupDocument {
    fn from(backup: VerifiedBackup) -> Self {
        Self {
            verdict: backup.verdict(),
            key: backup.folder,
            namespace: backup.namespace,
            structure_only: backup.structure_only,
            files: backup.files,
            bytes: backup.bytes,
            records: backup.records,
            problems: backup.problems,
            not_verifiable: backup.obstacles,
        }
    }
}

impl From<VerificationStatus> for VerificationDocument {
    fn from(status: VerificationStatus) -> Self {
        let VerifySubject { routine, timestamp, depth } = status.subject;
        let verdict = status.found.as_ref().map(abs_engine::Verification::verdict);
        let (backups, unfinished) =
            status.found.map(|found| (found.backups, found.unfinished)).unwrap_or_default();
        Self {
            routine,
            timestamp,
            depth,
            status: status.state.into(),
            verdict,
            error: status.error,
            backups: backups.into_iter().map(Into::into).collect(),
            unfinished,
            current_job: (&status.job).into(),
        }
    }
}

/// The endpoints. That of a run matches the paths of the others, too: it comes last.
pub fn endpoints() -> Vec<Endpoint> {
    let new = |method, path, id, summary| Endpoint::new(method, path, Tag::Backup, id, summary);
    vec![
        new(
            Method::GET,
            "/v1/backups/verify/status/{jobId}",
            "verificationStatus",
            "Retrieve status and result of a verification job.",
        )
        .within("jobId", Kind::Long, "Job ID to retrieve the status")
        .answers(200, "Verification job status details", Content::json::<VerificationDocument>())
        .refuses(400, "Bad Request")
        .refuses(404, "The specified verification job was not found")
        .by(status),
        new(
            Method::POST,
            "/v1/backups/verify/cancel/{jobId}",
            "cancelVerification",
            "Cancel a running verification.",
        )
        .within("jobId", Kind::Long, "Verification job ID")
        .acknowledges(202, "Verification canceled successfully")
        .refuses(400, "Invalid job ID, or the job has ended")
        .refuses(404, "The specified verification job was not found")
        .by(cancel),
        new(
            Method::POST,
            "/v1/backups/verify/{name}/{timestamp}",
            "verifyBackup",
            "Trigger an asynchronous verification of the backups of a run.",
        )
        .description("Are they whole, and as they were written? Nothing is written, and nothing brought back from an archive.")
        .within("name", Kind::Text, "Backup routine name")
        .within("timestamp", Kind::Long, "Backup timestamp")
        .query("quick", Kind::Flag, "Only look whether the manifest is right and every file is there and has its size")
        .answers(202, "Verification job id", Content::number())
        .refuses(400, "Bad Request")
        .refuses(404, "The specified routine or backup was not found")
        .by(verify),
    ]
}

async fn verify(
    api: web::Data<Api>,
    path: web::Path<(String, String)>,
    query: Query,
) -> Result<HttpResponse, Failure> {
    let (routine, timestamp) = request::run(path)?;
    let depth = if query.value("quick")?.unwrap_or(false) { Depth::Quick } else { Depth::Full };
    let (wait, _given_up) = plan_wait(&api);
    let subject = VerifySubject { routine, timestamp, depth };
    let id = api.ask(VerifyBackup { subject, wait }).await??;
    Ok(HttpResponse::Accepted().json(id.0))
}

async fn status(api: web::Data<Api>, id: web::Path<String>) -> Result<HttpResponse, Failure> {
    let status = api.ask(GetVerification(job_id(&id)?)).await??;
    Ok(HttpResponse::Ok().json(VerificationDocument::from(status)))
}

async fn cancel(api: web::Data<Api>, id: web::Path<String>) -> Result<HttpResponse, Failure> {
    api.ask(CancelVerification(job_id(&id)?)).await??;
    Ok(HttpResponse::Accepted().finish())
}
