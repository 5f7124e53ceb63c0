//! The service itself: its health, its version, its metrics.

use abs_actors::messages::{CheckReadiness, Readiness, RenderMetrics};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::endpoint::{Content, Endpoint, Tag};
use super::errors::Failure;

/// The document `dto.VersionResponse`: what runs here.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = dto::VersionResponse)]
struct VersionResponse {
    /// The version.
    version: &'static str,
    /// When it was built (UTC).
    build_time: String,
    /// The commit it was built from.
    commit: &'static str,
}

/// The endpoints.
pub fn endpoints() -> Vec<Endpoint> {
    let get = |path, id, summary| Endpoint::new(Method::GET, path, Tag::System, id, summary);
    vec![
        get("/", "root", "Root endpoint.").acknowledges(200, "OK").by(HttpResponse::Ok),
        get("/health", "health", "Health endpoint.")
            .description("Answers as long as the service is alive; never limited in rate.")
            .answers(200, "OK", Content::text("text/plain"))
            .by(|| async { ok() }),
        get("/ready", "ready", "Readiness endpoint.")
            .description("Whether every storage and cluster of the configuration can be reached.")
            .answers(200, "OK", Content::text("text/plain"))
            .refuses(503, "What cannot be reached, each by its name")
            .by(ready),
        get("/version", "version", "Returns application version.")
            .answers(200, "OK", Content::json::<VersionResponse>())
            .by(version),
        get("/metrics", "metrics", "Prometheus metrics endpoint.")
            .answers(200, "OK", Content::text("text/plain"))
            .by(metrics),
    ]
}

fn ok() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("Ok")
}

async fn ready(api: web::Data<Api>) -> Result<HttpResponse, Failure> {
    let readiness = api.ask(CheckReadiness).await?;
    if readiness.is_ready() {
        return Ok(ok());
    }
    Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, unready(&readiness)))
}

/// Everything that is in the way, in one line.
fn unready(readiness: &Readiness) -> String {
    let stopping = readiness.stopping.then(|| "the service is stopping".to_owned());
    let storage = readiness.storage.iter().map(|(name, result)| ("storage", name, result));
    let clusters = readiness.clusters.iter().map(|(name, result)| ("cluster", name, result));
    let reasons = storage.chain(clusters).filter_map(|(what, name, result)| {
        let reason = result.as_ref().err()?;
        Some(format!("{what} {name}: {reason}"))
    });
    stopping.into_iter().chain(reasons).collect::<Vec<_>>().join("; ")
}

async fn version(api: web::Data<Api>) -> HttpResponse {
    let build = api.build;
    HttpResponse::Ok().json(VersionResponse {
        version: build.version,
        build_time: build.build_time(),
        commit: build.commit,
    })
}

async fn metrics(api: web::Data<Api>) -> Result<HttpResponse, Failure> {
    let text = api.ask(RenderMetrics).await?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ready_is_named() {
        let mut readiness = Readiness {
            storage: vec![("disk".to_owned(), Ok(())), ("s3".to_owned(), Err("no such bucket".to_owned()))],
            clusters: vec![("prod".to_owned(), Err("connection refused".to_owned()))],
            stopping: false,
        };
        assert_eq!(unready(&readiness), "storage s3: no such bucket; cluster prod: connection refused");
        readiness = Readiness { stopping: true, ..Readiness::default() };
        assert_eq!(unready(&readiness), "the service is stopping");
    }
}
