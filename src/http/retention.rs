//! What is kept of backups: pins, and the deletion of single runs.

use abs_actors::messages::{DeleteBackup, PinBackup};
use actix_web::http::Method;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::endpoint::{Content, Endpoint, Kind, Tag};
use super::errors::Failure;
use super::request::{self, Query};

/// The document `dto.DeletedBackups`: what was deleted, or would be.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = dto::DeletedBackups)]
struct DeletedBackups {
    /// The folders of the runs, in the order of their deletion.
    #[schema(example = json!(["daily/backup/1707915600000"]))]
    runs: Vec<String>,
    /// Nothing was deleted: `dry-run` was given.
    dry_run: bool,
}

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        of_run(
            Method::PUT,
            "/v1/backups/pin/{name}/{timestamp}",
            "pinBackup",
            "Keep the backups of a run, and what they build on, whatever the retention policy says.",
        )
        .acknowledges(200, "Pinned")
        .by(|api, path| pin(true, api, path)),
        of_run(
            Method::DELETE,
            "/v1/backups/pin/{name}/{timestamp}",
            "unpinBackup",
            "Take the pin of a run away.",
        )
        .acknowledges(200, "Not pinned")
        .by(|api, path| pin(false, api, path)),
        of_run(
            Method::DELETE,
            "/v1/backups/run/{name}/{timestamp}",
            "deleteBackup",
            "Delete the backups of a run.",
        )
        .description(
            "Refused while a later backup builds on it, a pin keeps it, a restore or a verification reads backups of the \
             routine, or the routine makes one.",
        )
        .query("cascade", Kind::Flag, "Delete the backups that build on it, too")
        .query("dry-run", Kind::Flag, "Delete nothing, and answer what would be deleted, or the refusal")
        .answers(200, "What was deleted", Content::json::<DeletedBackups>())
        .by(delete),
    ]
}

fn of_run(method: Method, path: &'static str, id: &str, summary: &str) -> Endpoint {
    Endpoint::new(method, path, Tag::Backup, id, summary)
        .within("name", Kind::Text, "Backup routine name")
        .within("timestamp", Kind::Long, "Backup timestamp")
        .refuses(400, "Bad Request")
        .refuses(404, "The specified routine or backup was not found")
        .refuses(409, "The backup is needed, pinned or in use, or another service has the routine")
}

async fn pin(
    pinned: bool,
    api: web::Data<Api>,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Failure> {
    let (routine, timestamp) = request::run(path)?;
    api.ask(PinBackup { routine, timestamp, pinned }).await??;
    Ok(HttpResponse::Ok().finish())
}

async fn delete(
    api: web::Data<Api>,
    path: web::Path<(String, String)>,
    query: Query,
) -> Result<HttpResponse, Failure> {
    let (routine, timestamp) = request::run(path)?;
    query.only(&["cascade", "dry-run"])?;
    let cascade = query.value("cascade")?.unwrap_or(false);
    let dry_run = query.value("dry-run")?.unwrap_or(false);
    let runs = api.ask(DeleteBackup { routine, timestamp, cascade, dry_run }).await??;
    let runs = runs.iter().map(ToString::to_string).collect();
    Ok(HttpResponse::Ok().json(DeletedBackups { runs, dry_run }))
}
