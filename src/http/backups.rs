//! Backups: starting, watching, canceling and listing them.

use std::collections::BTreeMap;
use std::time::Duration;

use abs_actors::messages::{
    self, CancelBackups, GetRoutineState, ListBackups, RequestError, RoutineBackups, TriggerBackup,
};
use abs_config::{Secrets, Storage};
use abs_engine::catalog::{Backup, BackupKind};
use actix_web::http::Method;
use actix_web::{HttpResponse, web};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::endpoint::{Content, Endpoint, Kind, Tag};
use super::errors::Failure;
use super::progress::{RunningJob, rfc3339};
use super::request::Query;

/// The header that names the routines whose backups cannot be listed now, percent-encoded and separated by commas.
const UNAVAILABLE: &str = "x-unavailable-routines";
/// What is escaped in names of that header.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The document `dto.BackupDetails`: a backup of a namespace.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = dto::BackupDetails)]
struct BackupDetails {
    /// When it was begun.
    #[schema(format = DateTime, example = "2023-03-20T14:50:00Z")]
    created: String,
    /// The same, in milliseconds since 1970.
    #[schema(example = 1_685_458_200_000_i64)]
    timestamp: i64,
    /// When it ended.
    #[schema(format = DateTime, example = "2023-03-20T14:50:00Z")]
    finished: String,
    /// How long it took, in seconds.
    duration: u64,
    /// The lower bound of the records' last update; 0001-01-01T00:00:00Z for a full backup.
    #[schema(format = DateTime, example = "2023-03-19T14:50:00Z")]
    from: String,
    /// The namespace.
    #[schema(example = "testNamespace")]
    namespace: String,
    /// Records in it.
    #[schema(example = 100)]
    record_count: u64,
    /// Its size in bytes.
    #[schema(example = 2000)]
    byte_count: u64,
    /// Its files.
    #[schema(example = 1)]
    file_count: u64,
    /// Definitions of secondary indexes in it.
    #[schema(example = 5)]
    secondary_index_count: u64,
    /// UDF modules in it.
    #[schema(example = 2)]
    udf_count: u64,
    /// Its folder in the storage: what `backup-data-path` of a `dto.RestoreRequest` takes.
    #[schema(example = "daily/backup/1707915600000/data/source-ns1")]
    key: String,
    /// The storage.
    storage: Storage,
    /// `NONE` or `ZSTD`.
    compression: String,
    /// `NONE`, `AES128` or `AES256`.
    encryption: String,
    /// It has a pin, so it is kept with what it builds on; absent when it has none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pinned: bool,
    /// What is wrong with it; absent when nothing is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<String>,
}

/// The warning about a backup that was dated in the future when it was found.
const SUSPECT: &str = "it was dated in the future when it was found, so a clock was wrong: restores to a point in time and later \
                       backups pass it over; it can be restored by its key, and if its time is right, delete the object \
                       clock-suspect in its folder";

impl BackupDetails {
    fn new(backup: &Backup, storage: &Storage) -> Self {
        let metadata = &backup.metadata;
        Self {
            created: rfc3339(backup.created),
            timestamp: backup.created.timestamp_millis(),
            finished: rfc3339(metadata.finished),
            duration: (metadata.finished - backup.created).num_seconds().max(0) as u64,
            from: rfc3339(metadata.from),
            namespace: metadata.namespace.clone(),
            record_count: metadata.record_count,
            byte_count: metadata.byte_count,
            file_count: metadata.file_count,
            secondary_index_count: metadata.secondary_index_count,
            udf_count: metadata.udf_count,
            key: backup.key.to_string(),
            storage: storage.clone(),
            compression: metadata.compression.clone(),
            encryption: metadata.encryption.clone(),
            pinned: backup.pinned,
            warnings: if backup.is_trusted() { Vec::new() } else { vec![SUSPECT.to_owned()] },
        }
    }
}

/// The document `dto.RoutineState`: what a routine does, did last and will do next.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = dto::RoutineState)]
struct RoutineState {
    /// The full backup that runs; absent when none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = RunningJob, required = false)]
    full: Option<RunningJob>,
    /// The incremental backup that runs; absent when none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = RunningJob, required = false)]
    incremental: Option<RunningJob>,
    /// When the last successful full backup was made; absent when there has been none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime)]
    last_full: Option<String>,
    /// When the last successful incremental backup was made; absent when there has been none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime)]
    last_incremental: Option<String>,
    /// When the next full backup is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime)]
    next_full: Option<String>,
    /// When the next incremental backup is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime)]
    next_incremental: Option<String>,
}

impl From<&messages::RoutineState> for RoutineState {
    fn from(state: &messages::RoutineState) -> Self {
        Self {
            full: state.full.as_ref().map(Into::into),
            incremental: state.incremental.as_ref().map(Into::into),
            last_full: state.last_full.map(rfc3339),
            last_incremental: state.last_incremental.map(rfc3339),
            next_full: state.next_full.map(rfc3339),
            next_incremental: state.next_incremental.map(rfc3339),
        }
    }
}

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    use BackupKind::{Full, Incremental};
    vec![
        list_all("/v1/backups/full", Full, "getFullBackups", "Get available full backups."),
        list_one(
            "/v1/backups/full/{name}",
            Full,
            "getFullBackupsForRoutine",
            "Get available full backups for routine.",
        ),
        trigger(
            "/v1/backups/full/{name}",
            Full,
            "triggerFullBackup",
            "Trigger a full backup once per routine name.",
        ),
        list_all(
            "/v1/backups/incremental",
            Incremental,
            "getIncrementalBackups",
            "Get available incremental backups.",
        ),
        list_one(
            "/v1/backups/incremental/{name}",
            Incremental,
            "getIncrementalBackupsForRoutine",
            "Get incremental backups for routine.",
        ),
        trigger(
            "/v1/backups/incremental/{name}",
            Incremental,
            "triggerIncrementalBackup",
            "Trigger an incremental backup once per routine name.",
        ),
        trigger(
            "/v1/backups/schedule/{name}",
            Full,
            "scheduleFullBackup",
            "Schedule a full backup once per routine name.",
        )
        .description("Deprecated: use POST /v1/backups/full/{name} instead.")
        .deprecated(),
        named(
            Method::GET,
            "/v1/backups/currentBackup/{name}",
            "getCurrentBackup",
            "Get current backup statistics.",
        )
        .answers(200, "Current backup statistics", Content::json::<RoutineState>())
        .refuses(400, "Bad Request")
        .by(current),
        named(Method::POST, "/v1/backups/cancel/{name}", "cancelCurrentBackup", "Cancel current backup.")
            .acknowledges(202, "Accepted")
            .by(cancel),
    ]
}

/// An endpoint about one routine.
fn named(method: Method, path: &'static str, id: &str, summary: &str) -> Endpoint {
    Endpoint::new(method, path, Tag::Backup, id, summary)
        .within("name", Kind::Text, "Backup routine name")
        .refuses(404, "The specified routine was not found")
}

fn list_all(path: &'static str, kind: BackupKind, id: &str, summary: &str) -> Endpoint {
    Endpoint::new(Method::GET, path, Tag::Backup, id, summary)
        .description(
            "Routines whose backups cannot be listed now are left out and named in the header `X-Unavailable-Routines`.",
        )
        .time_range()
        .answers(
            200,
            &format!("The {kind} backups by routine"),
            Content::json::<BackupDetails>().in_a_list().by_name(),
        )
        .refuses(400, "Bad Request")
        .by(move |api, query| all(kind, api, query))
}

fn list_one(path: &'static str, kind: BackupKind, id: &str, summary: &str) -> Endpoint {
    named(Method::GET, path, id, summary)
        .time_range()
        .answers(
            200,
            &format!("The {kind} backups for routine"),
            Content::json::<BackupDetails>().in_a_list(),
        )
        .refuses(400, "Bad Request")
        .by(move |api, name, query| of_routine(kind, api, name, query))
}

fn trigger(path: &'static str, kind: BackupKind, id: &str, summary: &str) -> Endpoint {
    named(Method::POST, path, id, summary)
        .query("delay", Kind::Count, "Delay interval in milliseconds")
        .acknowledges(202, "Accepted")
        .refuses(400, "Bad Request")
        .refuses(409, "Another service has the routine")
        .by(move |api, name, query| start(kind, api, name, query))
}

async fn all(kind: BackupKind, api: web::Data<Api>, query: Query) -> Result<HttpResponse, Failure> {
    let (from, to) = query.time_range()?;
    let lists = api.ask(ListBackups { routine: None, kind, from, to, limit: list_limit(&api) }).await??;
    let details: BTreeMap<_, _> =
        lists.routines.iter().map(|(name, backups)| (name, details(&api, backups))).collect();
    let mut answer = HttpResponse::Ok();
    if !lists.unavailable.is_empty() {
        let names = lists.unavailable.keys().map(|name| utf8_percent_encode(name, ESCAPED).to_string());
        answer.insert_header((UNAVAILABLE, names.collect::<Vec<_>>().join(", ")));
    }
    Ok(answer.json(details))
}

/// How long a listing may take, so that there is an answer before the request times out.
fn list_limit(api: &Api) -> Duration {
    api.time_limit.saturating_sub((api.time_limit / 5).min(Duration::from_secs(1)))
}

async fn of_routine(
    kind: BackupKind,
    api: web::Data<Api>,
    name: web::Path<String>,
    query: Query,
) -> Result<HttpResponse, Failure> {
    let (from, to) = query.time_range()?;
    let routine = name.into_inner();
    let lists = api
        .ask(ListBackups { routine: Some(routine.clone()), kind, from, to, limit: list_limit(&api) })
        .await??;
    let backups = lists.routines.get(&routine).ok_or_else(|| RequestError::not_found("routine", &routine))?;
    Ok(HttpResponse::Ok().json(details(&api, backups)))
}

fn details(api: &Api, backups: &RoutineBackups) -> Vec<BackupDetails> {
    let storage = if api.show_secrets { backups.storage.clone() } else { backups.storage.masked() };
    backups.backups.iter().map(|backup| BackupDetails::new(backup, &storage)).collect()
}

async fn start(
    kind: BackupKind,
    api: web::Data<Api>,
    name: web::Path<String>,
    query: Query,
) -> Result<HttpResponse, Failure> {
    let delay = query.delay()?;
    api.ask(TriggerBackup { routine: name.into_inner(), kind, delay }).await??;
    Ok(HttpResponse::Accepted().finish())
}

async fn current(api: web::Data<Api>, name: web::Path<String>) -> Result<HttpResponse, Failure> {
    let state = api.ask(GetRoutineState { routine: name.into_inner() }).await??;
    Ok(HttpResponse::Ok().json(RoutineState::from(&state)))
}

async fn cancel(api: web::Data<Api>, name: web::Path<String>) -> Result<HttpResponse, Failure> {
    api.ask(CancelBackups { routine: name.into_inner() }).await??;
    Ok(HttpResponse::Accepted().finish())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use abs_config::LocalStorage;
    use abs_engine::Metadata;
    use abs_storage::ObjectPath;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_details_of_a_backup_have_the_shape_of_the_reference() {
        let metadata = Metadata::from_yaml(
            b"created: 2024-01-01T12:00:00.120Z\nfinished: 2024-01-01T12:05:00Z\nfrom: 0001-01-01T00:00:00Z\n\
              namespace: source-ns1\nrecord-count: 42\nbyte-count: 480000\nfile-count: 1\nsecondary-index-count: 5\n\
              udf-count: 1\ncompression: ZSTD\nencryption: NONE\n",
        )
        .unwrap();
        let run = ObjectPath::new("routine1/backup/1704110400120").unwrap();
        let backup = Backup {
            routine: "routine1".to_owned(),
            kind: BackupKind::Full,
            created: metadata.created,
            metadata: Arc::new(metadata),
            key: run.join("source-ns1").unwrap(),
            run,
            written: std::time::SystemTime::UNIX_EPOCH,
            suspect: None,
            pinned: false,
        };
        let local = LocalStorage { path: "backups".to_owned(), min_part_size: None };
        let storage = Storage { local_storage: Some(local), ..Storage::default() };
        assert_eq!(
            serde_json::to_value(BackupDetails::new(&backup, &storage)).unwrap(),
            json!({
                "created": "2024-01-01T12:00:00.12Z", "timestamp": 1_704_110_400_120_i64,
                "finished": "2024-01-01T12:05:00Z", "duration": 299, "from": "0001-01-01T00:00:00Z",
                "namespace": "source-ns1", "record-count": 42, "byte-count": 480_000, "file-count": 1,
                "secondary-index-count": 5, "udf-count": 1, "key": "routine1/backup/1704110400120/source-ns1",
                "storage": {"local-storage": {"path": "backups"}}, "compression": "ZSTD", "encryption": "NONE"
            })
        );
    }

    #[test]
    fn a_quiet_routine_says_nothing_of_what_there_is_not() {
        let state = messages::RoutineState {
            next_full: Some("2024-01-02T00:00:00Z".parse().unwrap()),
            ..messages::RoutineState::default()
        };
        assert_eq!(
            serde_json::to_value(RoutineState::from(&state)).unwrap(),
            json!({"next-full": "2024-01-02T00:00:00Z"})
        );
    }
}
