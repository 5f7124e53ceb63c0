//! Requests that are refused: a status and one line of plain text.

use std::fmt::{self, Display};
use std::time::Duration;

use abs_actors::messages::RequestError;
use actix_web::http::StatusCode;
use actix_web::http::header::{ContentType, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpResponse, ResponseError};

/// Why a request is not answered as asked.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    text: String,
    retry_after: Option<Duration>,
}

impl Failure {
    /// A failure with this status, and `text` made one line.
    pub fn new(status: StatusCode, text: impl Display) -> Self {
        let text = text.to_string();
        let parts = text.split(|c: char| c.is_control()).map(str::trim).filter(|part| !part.is_empty());
        Self { status, text: parts.collect::<Vec<_>>().join(" "), retry_after: None }
    }

    /// 400: the request is wrong.
    pub fn bad_request(text: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// 404: there is no such thing.
    pub fn not_found(what: &'static str, name: impl Display) -> Self {
        RequestError::not_found(what, name).into()
    }

    /// The same, and when it may be tried again.
    pub fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        let status = match &error {
            RequestError::NotFound { .. } => StatusCode::NOT_FOUND,
            RequestError::Invalid(_) => StatusCode::BAD_REQUEST,
            RequestError::Conflict(_) => StatusCode::CONFLICT,
            RequestError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            RequestError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        response.insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"));
        if let Some(time) = self.retry_after {
            // Whole seconds, rounded up: coming back too early would be refused again.
            response.insert_header((RETRY_AFTER, time.as_millis().div_ceil(1000).max(1).to_string()));
        }
        response.content_type(ContentType::plaintext()).body(format!("{}\n", self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_it_is_made_of() {
        let failure = Failure::bad_request("one\r\n\ttwo\n");
        assert_eq!(failure.to_string(), "one two");
        assert_eq!(Failure::not_found("routine", "daily\n").to_string(), "routine daily not found");
        assert_eq!(Failure::bad_request("a \"b\" ü").to_string(), "a \"b\" ü");
    }

    #[test]
    fn waiting_is_said_in_whole_seconds_and_is_never_too_short() {
        let header = |milliseconds| {
            let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "slow down");
            let response = failure.retry_after(Duration::from_millis(milliseconds)).error_response();
            response.headers().get(RETRY_AFTER).unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!([header(0), header(1000), header(1001)], ["1", "1", "2"]);
    }
}
