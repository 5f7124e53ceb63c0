//! What Google means when it does not do what was asked.

use std::error::Error;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use crate::ErrorKind;
use crate::cloud::bucket::Failure;

/// What a request was about: that tells what is missing when Google only says that something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The bucket: to list it, or to put a new object in it.
    Bucket,
    /// An object that should be there.
    Object,
    /// An upload that was begun.
    Upload,
}

/// No answer, or only half of one.
pub(super) fn out_of_reach(error: reqwest::Error) -> Failure {
    // The addresses of uploads are secrets; that of the service is not.
    let service = error.url().map(|url| format!("{}: ", url.origin().ascii_serialization()));
    let reason = with_causes(&error.without_url());
    ErrorKind::Unavailable(format!("{}{reason}", service.unwrap_or_default())).into()
}

/// An answer that is not success.
pub(super) async fn refusal(response: Response, about: About, bucket: &str) -> Failure {
    let (status, retry_after) = (response.status(), retry_after(response.headers()));
    // Some answers are no JSON, or nothing at all; the status must do then.
    let body = response.bytes().await.unwrap_or_default();
    let kind = kind_of(status, &Complaint::read(status, &body), about, bucket);
    Failure { kind, retry_after }
}

fn kind_of(status: StatusCode, complaint: &Complaint, about: About, bucket: &str) -> ErrorKind {
    let refused = |remedy: &str| ErrorKind::Refused { reason: complaint.text(), remedy: remedy.to_owned() };
    match status {
        StatusCode::UNAUTHORIZED => {
            refused("give key or key-file-path of a service account that may use the bucket, or renew it")
        }
        StatusCode::FORBIDDEN if complaint.reason.ends_with("ateLimitExceeded") => {
            ErrorKind::Unavailable(complaint.text())
        }
        StatusCode::FORBIDDEN
            if complaint.is_about("billing") || complaint.is_about("account is disabled") =>
        {
            refused("enable the billing of the bucket's project")
        }
        StatusCode::FORBIDDEN if complaint.is_about("storage.") => refused(
            "grant that permission, for example with the role Storage Object User (roles/storage.objectUser) on the bucket",
        ),
        StatusCode::FORBIDDEN => refused("see what the bucket's permissions and policies allow"),
        StatusCode::NOT_FOUND | StatusCode::GONE if about == About::Upload => ErrorKind::NotFound,
        StatusCode::NOT_FOUND if about == About::Bucket || complaint.is_about("bucket does not exist") => {
            ErrorKind::Refused {
                reason: format!("the bucket {bucket} does not exist ({})", complaint.code()),
                remedy: "create it or correct bucket-name in the configuration".to_owned(),
            }
        }
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::PRECONDITION_FAILED => ErrorKind::Changed,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            ErrorKind::Unavailable(complaint.text())
        }
        // What arrived is not what was sent: `Provided CRC32C "…" doesn't match calculated CRC32C "…".`
        StatusCode::BAD_REQUEST if complaint.is_about("match calculated") => {
            ErrorKind::Unavailable(complaint.text())
        }
        status if status.is_server_error() => ErrorKind::Unavailable(complaint.text()),
        _ => refused("correct the configuration of the storage or the bucket"),
    }
}

/// What Google says of a request that it refuses.
#[derive(Debug)]
struct Complaint {
    status: StatusCode,
    /// One word: `forbidden`; may be empty.
    reason: String,
    /// On one line; may be empty.
    message: String,
}

impl Complaint {
    fn read(status: StatusCode, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Answer {
            error: Details,
        }
        #[derive(Deserialize)]
        struct Details {
            #[serde(default)]
            message: String,
            #[serde(default)]
            errors: Vec<Item>,
        }
        #[derive(Deserialize)]
        struct Item {
            #[serde(default)]
            reason: String,
        }
        let (reason, message) = match serde_json::from_slice::<Answer>(body) {
            Ok(Answer { error }) => {
                (error.errors.into_iter().next().map(|item| item.reason).unwrap_or_default(), error.message)
            }
            // The half of the API that takes uploads also answers in plain text; proxies answer in HTML.
            Err(_) if body.starts_with(b"<") => Default::default(),
            Err(_) => (String::new(), String::from_utf8_lossy(body).into_owned()),
        };
        Self { status, reason, message: one_line(&message) }
    }

    fn is_about(&self, words: &str) -> bool {
        self.message.to_ascii_lowercase().contains(words)
    }

    /// `403 forbidden`.
    fn code(&self) -> String {
        let reason = match self.reason.as_str() {
            "" => self.status.canonical_reason().unwrap_or_default(),
            reason => reason,
        };
        format!("{} {reason}", self.status.as_u16()).trim_end().to_owned()
    }

    fn text(&self) -> String {
        match self.message.trim_end_matches('.') {
            "" => format!("Google answers {}", self.code()),
            message => format!("Google answers {}: {message}", self.code()),
        }
    }
}

/// How long to wait, if it is told in seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// An error and what caused it, on one line.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    // Some errors repeat their cause.
    texts.dedup();
    one_line(&texts.join(": "))
}

/// A text of somebody else, short and on one line.
pub(super) fn one_line(text: &str) -> String {
    const LONGEST: usize = 500;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, body: &str, about: About) -> ErrorKind {
        let status = StatusCode::from_u16(status).unwrap();
        kind_of(status, &Complaint::read(status, body.as_bytes()), about, "b")
    }

    fn complaint(reason: &str, message: &str) -> String {
        serde_json::json!({"error": {
            "code": 1, "message": message, "errors": [{"domain": "global", "reason": reason, "message": message}],
        }})
        .to_string()
    }

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        let limited = complaint("rateLimitExceeded", "Too many.");
        for (status, body) in [
            (408, ""),
            (429, limited.as_str()),
            (403, limited.as_str()),
            (403, complaint("userRateLimitExceeded", "Too many.").as_str()),
            (500, "Internal Error"),
            (503, "<html>\nservice unavailable</html>"),
            (
                400,
                complaint("invalid", "Provided CRC32C \"a\" doesn't match calculated CRC32C \"b\".").as_str(),
            ),
        ] {
            for about in [About::Bucket, About::Object, About::Upload] {
                assert!(matches!(failure(status, body, about), ErrorKind::Unavailable(_)), "{status} {body}");
            }
        }
        assert_eq!(
            failure(503, "<html>", About::Bucket).to_string(),
            "Google answers 503 Service Unavailable"
        );
        assert_eq!(
            failure(429, &limited, About::Bucket).to_string(),
            "Google answers 429 rateLimitExceeded: Too many"
        );
    }

    #[test]
    fn refusals_name_what_is_wrong_and_the_remedy() {
        let denied = complaint(
            "forbidden",
            "a@b.iam.gserviceaccount.com does not have storage.objects.create access to the\nobject.",
        );
        let text = failure(403, &denied, About::Bucket).to_string();
        assert_eq!(
            text,
            "Google answers 403 forbidden: a@b.iam.gserviceaccount.com does not have storage.objects.create access to \
             the object: grant that permission, for example with the role Storage Object User \
             (roles/storage.objectUser) on the bucket"
        );
        let unpaid = complaint(
            "accountDisabled",
            "The billing account for the owning project is disabled in state absent",
        );
        assert!(
            failure(403, &unpaid, About::Object)
                .to_string()
                .ends_with("enable the billing of the bucket's project")
        );
        let gone = complaint("notFound", "The specified bucket does not exist.");
        for (about, body) in
            [(About::Bucket, ""), (About::Bucket, gone.as_str()), (About::Object, gone.as_str())]
        {
            let text = failure(404, body, about).to_string();
            assert!(text.starts_with("the bucket b does not exist (404 "), "{text}");
        }
        assert!(matches!(failure(401, "", About::Object), ErrorKind::Refused { .. }));
        assert!(matches!(failure(400, "Bad", About::Object), ErrorKind::Refused { .. }));
    }

    #[test]
    fn a_missing_object_is_not_a_missing_bucket() {
        let none = complaint("notFound", "No such object: b/k");
        for (body, about) in [(none.as_str(), About::Object), ("", About::Object), ("", About::Upload)] {
            assert!(matches!(failure(404, body, about), ErrorKind::NotFound), "{body}");
        }
        assert!(matches!(failure(410, "", About::Upload), ErrorKind::NotFound));
        assert!(matches!(failure(412, "", About::Object), ErrorKind::Changed));
    }

    #[test]
    fn the_time_to_wait_is_taken_over() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
    }
}
