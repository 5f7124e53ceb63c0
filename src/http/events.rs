//! `GET /v1/events`: what happens, as it happens, as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use abs_actors::messages::system::{JobLabel, JobWork, RoutineChange};
use abs_actors::messages::{Event, Subscribe};
use abs_engine::catalog::BackupKind;
use actix_web::http::Method;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::Bytes;
use actix_web::{Error, HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use futures_util::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::Api;
use super::endpoint::{Content, Endpoint, Tag};
use super::errors::Failure;
use super::progress::{RunningJob, rfc3339};
use super::restores::JobStatus;

/// How often a quiet stream says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The data of an event; what does not apply is absent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = dto::Event)]
struct EventData {
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// The job, of the events of jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<u64>,
    /// What was, or was to be, done.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Work>,
    /// The routine; a restore by path has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    routine: Option<String>,
    /// How far a job is, of `job-progress` and `job-finished`.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<RunningJob>,
    /// How a job ended, of `job-finished`.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<JobStatus>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Why a backup was not made, of `backup-skipped`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// How a routine changed, of `routine-changed`: added, changed, enabled, disabled or removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    change: Option<RoutineChange>,
}

/// What a job does.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = dto::Work)]
enum Work {
    /// A full backup.
    Full,
    /// An incremental backup.
    Incremental,
    /// A restore.
    Restore,
    /// A verification of backups.
    Verify,
}

impl From<BackupKind> for Work {
    fn from(kind: BackupKind) -> Self {
        match kind {
            BackupKind::Full => Self::Full,
            BackupKind::Incremental => Self::Incremental,
        }
    }
}

impl EventData {
    fn at(time: DateTime<Utc>) -> Self {
        Self {
            at: rfc3339(time),
            job_id: None,
            kind: None,
            routine: None,
            progress: None,
            status: None,
            error: None,
            reason: None,
            change: None,
        }
    }

    fn of(time: DateTime<Utc>, job: &JobLabel) -> Self {
        let (kind, routine) = match &job.work {
            JobWork::Backup { routine, kind, .. } => ((*kind).into(), Some(routine)),
            JobWork::Restore { routine } => (Work::Restore, routine.as_ref()),
            JobWork::Verify { routine } => (Work::Verify, Some(routine)),
        };
        Self { job_id: Some(job.id.0), kind: Some(kind), routine: routine.cloned(), ..Self::at(time) }
    }
}

/// An event's name and data.
fn told(event: &Event) -> (&'static str, EventData) {
    match event {
        Event::JobStarted { at, job } => ("job-started", EventData::of(*at, job)),
        Event::JobProgress { at, job, progress } => {
            ("job-progress", EventData { progress: Some(progress.into()), ..EventData::of(*at, job) })
        }
        Event::JobFinished { at, job, state, error, progress } => {
            let data = EventData {
                progress: Some(progress.into()),
                status: Some((*state).into()),
                error: error.clone(),
                ..EventData::of(*at, job)
            };
            ("job-finished", data)
        }
        Event::BackupSkipped { at, routine, kind, reason } => {
            let data = EventData {
                kind: Some((*kind).into()),
                routine: Some(routine.clone()),
                reason: Some(reason.clone()),
                ..EventData::at(*at)
            };
            ("backup-skipped", data)
        }
        Event::RoutineChanged { at, routine, change } => {
            let data =
                EventData { routine: Some(routine.clone()), change: Some(*change), ..EventData::at(*at) };
            ("routine-changed", data)
        }
    }
}

/// The endpoint.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::GET, "/v1/events", Tag::System, "events", "Streams what happens, as it happens.")
            .description(
                "Server-sent events `job-started`, `job-progress`, `job-finished`, `backup-skipped` and \
                 `routine-changed`, each with a `dto.Event` as its data. A client that is too slow gets `lagged` with \
                 the number of events that it lost.",
            )
            .answers(200, "A stream of events", Content::events::<EventData>())
            .by(events),
    ]
}

async fn events(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, Failure> {
    let mut response = HttpResponse::Ok();
    response
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-store"))
        // Proxies would keep events back to send them in larger pieces.
        .insert_header(("X-Accel-Buffering", "no"));
    if request.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let events = api.ask(Subscribe).await?;
    Ok(response.streaming(messages(events, api.closing.clone())))
}

struct Listener {
    events: Receiver<Arc<Event>>,
    closing: CancellationToken,
    heartbeat: Interval,
    /// The number of the last event, in this stream.
    last: u64,
}

/// Events as they are sent; ends when the service does.
fn messages(
    events: Receiver<Arc<Event>>,
    closing: CancellationToken,
) -> impl Stream<Item = Result<Bytes, Error>> {
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listener = Listener { events, closing, heartbeat, last: 0 };
    stream::unfold(listener, |mut listener| async {
        let message = listener.next().await?;
        Some((Ok(message.into()), listener))
    })
}

impl Listener {
    async fn next(&mut self) -> Option<String> {
        let event = tokio::select! {
            biased;
            () = self.closing.cancelled() => return None,
            event = self.events.recv() => event,
            // The first tick comes at once: the client sees that it is connected.
            _ = self.heartbeat.tick() => return Some(": alive\n\n".to_owned()),
        };
        self.heartbeat.reset();
        self.last += 1;
        let (name, data) = match event {
            Ok(event) => {
                let (name, data) = told(&event);
                (name, serde_json::to_string(&data).ok()?)
            }
            Err(RecvError::Lagged(lost)) => ("lagged", format!("{{\"lost\":{lost}}}")),
            Err(RecvError::Closed) => return None,
        };
        Some(format!("id: {}\nevent: {name}\ndata: {data}\n\n", self.last))
    }
}

#[cfg(test)]
mod tests {
    use abs_actors::messages::JobId;
    use futures_util::StreamExt;
    use serde_json::json;
    use tokio::sync::broadcast;

    use super::*;

    fn skipped(reason: &str) -> Arc<Event> {
        Arc::new(Event::BackupSkipped {
            at: "2024-01-01T12:00:00Z".parse().unwrap(),
            routine: "daily".to_owned(),
            kind: BackupKind::Incremental,
            reason: reason.to_owned(),
        })
    }

    #[test]
    fn the_events_of_a_job_name_it() {
        let at = "2024-01-01T12:00:00.5Z".parse().unwrap();
        let work = JobWork::Restore { routine: None };
        let event = Event::JobStarted { at, job: JobLabel { id: JobId(7), work } };
        let (name, data) = told(&event);
        assert_eq!(name, "job-started");
        assert_eq!(
            serde_json::to_value(data).unwrap(),
            json!({"at": "2024-01-01T12:00:00.5Z", "job-id": 7, "kind": "restore"})
        );
    }

    #[tokio::test]
    async fn a_stream_numbers_events_tells_of_lost_ones_and_ends() {
        let (sender, receiver) = broadcast::channel(2);
        let closing = CancellationToken::new();
        let mut stream = Box::pin(messages(receiver, closing.clone()));
        let mut next = async || String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap();
        assert_eq!(next().await, ": alive\n\n");
        sender.send(skipped("a\nb")).unwrap();
        assert_eq!(
            next().await,
            "id: 1\nevent: backup-skipped\ndata: {\"at\":\"2024-01-01T12:00:00Z\",\"kind\":\"incremental\",\
             \"routine\":\"daily\",\"reason\":\"a\\nb\"}\n\n"
        );
        for reason in ["lost", "kept", "kept"] {
            sender.send(skipped(reason)).unwrap();
        }
        assert_eq!(next().await, "id: 2\nevent: lagged\ndata: {\"lost\":1}\n\n");
        assert!(next().await.contains("kept"));
        closing.cancel();
        assert!(stream.next().await.is_none());
    }
}
