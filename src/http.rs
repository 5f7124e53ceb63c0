//! The REST API: Aerospike Backup Service 3.5's, field by field, and what goes beyond it.
//!
//! A handler parses a request, sends the supervisor a message and writes down its answer; nothing here touches a job, a
//! file or a cluster.
//!
//! | module | what it holds |
//! |---|---|
//! | [`backups`] [`restores`] [`configuration`] [`system`] [`events`] | the endpoints, group by group |
//! | [`endpoint`] | what an endpoint is: its route and its description, in one place |
//! | [`openapi`] | the OpenAPI document made of the endpoints, and Swagger UI |
//! | [`progress`] | `dto.RunningJob`, and times as the reference writes them |
//! | [`request`] | parameters and bodies |
//! | [`attend`] | what happens to every request: rate limit, headers, log, panics |
//! | [`limits`] | the rate limiter |
//! | [`errors`] | one line of plain text |

mod attend;
mod backups;
mod configuration;
mod endpoint;
mod errors;
mod events;
mod limits;
mod openapi;
mod progress;
mod request;
mod restores;
mod retention;
mod system;
mod verifications;

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use abs_actors::SupervisorActor;
use abs_config::HttpSettings;
use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::middleware::{NormalizePath, TrailingSlash, from_fn};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, ResponseError, web};
use slog::Logger;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::attend::attend;
use self::errors::Failure;
use self::limits::RateLimiter;
use crate::build_info::BuildInfo;

/// How long a connection may be idle between two requests.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Connections of one worker at a time; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 1024;
/// How coarse the clock is by which the server waits for the head of a request.
const HEAD_CLOCK: Duration = Duration::from_millis(500);
/// Threads that serve requests: answers are small, and the cores belong to the backups.
const WORKERS: usize = 2;
/// How long requests may go on when the server stops, in seconds.
const STOP_SECONDS: u64 = 5;

/// A server that runs.
#[derive(Debug)]
pub struct Http {
    addresses: Vec<SocketAddr>,
    handle: ServerHandle,
    closing: CancellationToken,
    server: JoinHandle<io::Result<()>>,
}

impl Http {
    /// Where it listens; with port 0 in the settings, the ports it got.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes no more requests, ends the streams of events, and gives other requests a few seconds.
    pub async fn stop(self) -> io::Result<()> {
        self.closing.cancel();
        self.handle.stop(true).await;
        self.server.await?
    }
}

/// Starts to serve on the address of `settings`, in threads of its own; to be called inside a runtime.
///
/// # Errors
/// When the address cannot be listened on.
pub fn serve(
    supervisor: Addr<SupervisorActor>,
    settings: &HttpSettings,
    log: Logger,
    build: BuildInfo,
) -> io::Result<Http> {
    let closing = CancellationToken::new();
    // What goes before the path of every endpoint: nothing for `/`, or `/abs`.
    let prefix = settings.context_path.trim_end_matches('/').to_owned();
    let api = web::Data::new(Api {
        supervisor,
        time_limit: settings.timeout,
        show_secrets: settings.show_secrets,
        build,
        closing: closing.clone(),
        rates: RateLimiter::new(&settings.rate),
        health: format!("{prefix}/health"),
        openapi: openapi::document(&prefix, build.version).to_json().map_err(io::Error::other)?.into(),
        log,
    });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(api.clone())
            .wrap(from_fn(attend))
            .wrap(NormalizePath::new(TrailingSlash::MergeOnly))
            .configure(|app| openapi::routes(&prefix, app))
            .default_service(web::to(unknown_path))
    })
    .workers(WORKERS)
    .max_connections(MAX_CONNECTIONS)
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(settings.timeout + HEAD_CLOCK)
    .shutdown_timeout(STOP_SECONDS)
    // A client that is gone gives up its request.
    .h1_allow_half_closed(false)
    .disable_signals()
    .bind((settings.address.as_str(), settings.port))?;
    let addresses = server.addrs();
    let server = server.run();
    let handle = server.handle();
    Ok(Http { addresses, handle, closing, server: tokio::spawn(server) })
}

async fn unknown_path(request: HttpRequest) -> HttpResponse {
    Failure::not_found("path", request.path()).error_response()
}

/// What the handlers share.
struct Api {
    supervisor: Addr<SupervisorActor>,
    /// How long the body of a request may take to arrive, and its work to be done.
    time_limit: Duration,
    /// As it was when the service started, so that no request can switch it on for the next one.
    show_secrets: bool,
    build: BuildInfo,
    closing: CancellationToken,
    rates: RateLimiter,
    /// The path of the health check.
    health: String,
    /// Our OpenAPI document, as JSON.
    openapi: web::Bytes,
    log: Logger,
}

impl Api {
    /// Sends the supervisor a message and waits for the answer, as long as a request may take.
    async fn ask<M>(&self, message: M) -> Result<M::Result, Failure>
    where
        M: Message + Debug + Send + 'static,
        M::Result: Send,
        SupervisorActor: Handler<M>,
        <SupervisorActor as Actor>::Context: ToEnvelope<SupervisorActor, M>,
    {
        let answer = self.within_time(self.supervisor.send(message)).await.map_err(|limit| {
            let text = format!(
                "the request took longer than {} ms (service.http.timeout); what it began goes on",
                limit.as_millis()
            );
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, text)
        })?;
        answer.map_err(|_| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the service is stopping"))
    }

    /// Waits for `work` as long as a request may take; the time limit when that was not enough.
    async fn within_time<F: Future>(&self, work: F) -> Result<F::Output, Duration> {
        timeout(self.time_limit, work).await.map_err(|_| self.time_limit)
    }
}

#[cfg(test)]
mod tests;
