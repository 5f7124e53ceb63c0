//! What happens to every request.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use actix_web::middleware::Next;
use actix_web::{Error, web};
use futures_util::FutureExt;
use slog::{debug, error};

use super::Api;
use super::errors::Failure;

/// Applies the rate limit, logs, and makes a panic that request's failure. The health check is not limited: who asks
/// it would restart a service for being busy.
pub async fn attend(
    api: web::Data<Api>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.path().to_owned();
    let peer = request.peer_addr();
    let admitted = match peer {
        Some(peer) if path != api.health => api.rates.admit(peer.ip(), started),
        _ => Ok(()),
    };
    let result = match admitted {
        Ok(()) => match AssertUnwindSafe(next.call(request)).catch_unwind().await {
            Ok(result) => result.map(ServiceResponse::map_into_boxed_body),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                error!(api.log, "a request panicked"; "method" => %method, "path" => &path, "panic" => text);
                Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error").into())
            }
        },
        Err(wait) => {
            let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "too many requests");
            Ok(request.error_response(failure.retry_after(wait)))
        }
    };
    let status = match &result {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    debug!(api.log, "request";
        "method" => %method,
        "path" => path,
        "status" => status.as_u16(),
        "ms" => started.elapsed().as_millis() as u64,
        "peer" => peer.map(|peer| peer.to_string()));
    result.map(|mut response| {
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    })
}
