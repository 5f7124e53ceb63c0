//! What a failed request means, and what its owner can do.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use abs_config::SecretError;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStreamError;

use super::S3Bucket;
use crate::ErrorKind;
use crate::cloud::bucket::Failure;

impl S3Bucket {
    /// What a failed request means.
    pub(super) fn failure<E>(&self, error: &SdkError<E>) -> Failure
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let Some(response) = error.raw_response() else {
            return unanswered(error, self.settings.endpoint.as_deref()).into();
        };
        let header = |name: &str| response.headers().get(name);
        let answer = Said {
            status: response.status().as_u16(),
            code: error.code(),
            message: error.message(),
            region: header("x-amz-bucket-region"),
        };
        // An answer that is none of S3's, or that broke off.
        let torn = !matches!(error, SdkError::ServiceError(_)) && response.status().is_success();
        let kind = if torn { ErrorKind::Unavailable(chain(error)) } else { self.meaning(&answer) };
        let seconds = header("retry-after").and_then(|seconds| seconds.trim().parse().ok());
        Failure { kind, retry_after: seconds.map(Duration::from_secs) }
    }

    /// What a failed `HEAD` means: its answer has no text that says why.
    pub(super) fn failure_without_text<E>(&self, error: &SdkError<E>) -> Failure
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let refused = |reason: &str, remedy: &str| {
            ErrorKind::Refused { reason: reason.to_owned(), remedy: remedy.to_owned() }.into()
        };
        match status(error) {
            Some(404) => ErrorKind::NotFound.into(),
            Some(403) => refused(
                "access is denied (403)",
                "allow s3:GetObject on it, and s3:ListBucket on the bucket, for without that a missing object looks \
                 like this, too",
            ),
            Some(400) => refused(
                "the request is not accepted (400)",
                "look whether s3-region is that of the bucket, and whether the credentials have expired",
            ),
            _ => self.failure(error),
        }
    }

    /// Why an object that should be deleted was not, while others of the same request may have been.
    pub(super) fn refused_deletion(&self, error: &aws_sdk_s3::types::Error) -> Failure {
        self.meaning(&Said { status: 200, code: error.code(), message: error.message(), region: None }).into()
    }

    /// What an answer means: its code says it best.
    fn meaning(&self, said: &Said<'_>) -> ErrorKind {
        let refused = |reason: String, remedy: &str| ErrorKind::Refused { reason, remedy: remedy.to_owned() };
        let bucket = &self.settings.bucket;
        let credentials = if self.settings.key.is_some() {
            "correct access-key-id and secret-access-key in the configuration"
        } else {
            "correct the credentials of the environment or of the profile"
        };
        let code = said.code.unwrap_or_default();
        match code {
            "NoSuchKey" | "NoSuchUpload" | "NoSuchVersion" | "NotFound" => ErrorKind::NotFound,
            "NoSuchBucket" => refused(
                format!("the bucket {bucket} does not exist (NoSuchBucket)"),
                "create it or correct bucket in the configuration",
            ),
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
                self.elsewhere(said)
            }
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "NotSignedUp" => refused(
                said.text(),
                "allow these credentials to list the bucket and to read, write and delete its objects, and look \
                 whether the account is active",
            ),
            "InvalidAccessKeyId" => refused("the access key is unknown (InvalidAccessKeyId)".into(), credentials),
            "SignatureDoesNotMatch" => {
                refused("the secret key does not fit the access key (SignatureDoesNotMatch)".into(), credentials)
            }
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                refused(format!("the credentials have expired or are no longer valid ({code})"), "renew them")
            }
            // The SDK signs later requests with the time of the service.
            "RequestTimeTooSkewed" => ErrorKind::Unavailable(
                "the clocks of this machine and of the service differ too much (RequestTimeTooSkewed): set the clock"
                    .into(),
            ),
            "InvalidStorageClass" => {
                refused(said.text(), "correct storage-class in the configuration to one that this bucket has")
            }
            "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" => {
                ErrorKind::Full(io::Error::new(io::ErrorKind::QuotaExceeded, said.text()))
            }
            _ if said.may_pass() => ErrorKind::Unavailable(said.text()),
            _ if said.status == 301 => self.elsewhere(said),
            _ => refused(said.text(), "look at the settings of the storage, of the bucket and of its service"),
        }
    }

    fn elsewhere(&self, said: &Said<'_>) -> ErrorKind {
        let region = &self.settings.region;
        let remedy = match said.region {
            Some(right) if right != region => format!("set s3-region to {right}"),
            _ => "set s3-region to the region of the bucket, and look at s3-endpoint-override".to_owned(),
        };
        let bucket = &self.settings.bucket;
        ErrorKind::Refused {
            reason: format!("the bucket {bucket} is not in the region {region}: {}", said.text()),
            remedy,
        }
    }
}

/// Why there is no answer: it could not be asked, or nobody answered.
fn unanswered<E: StdError + 'static>(error: &SdkError<E>, endpoint: Option<&str>) -> ErrorKind {
    let reason = chain(error);
    let refused = |remedy: &str| ErrorKind::Refused { reason: reason.clone(), remedy: remedy.to_owned() };
    if let Some(secret) = cause::<SecretError>(error) {
        return if secret.is_transient() {
            ErrorKind::Unavailable(secret.to_string())
        } else {
            ErrorKind::Refused { reason: secret.to_string(), remedy: "make it readable".into() }
        };
    }
    match cause::<CredentialsError>(error) {
        Some(CredentialsError::CredentialsNotLoaded(_)) if asks_metadata_service() => {
            // It may still be starting, as on a machine that has just been started.
            let advice = "unless a metadata service is still starting, give access-key-id and secret-access-key, a profile, \
                          or credentials in the environment";
            return ErrorKind::Unavailable(format!("{reason}: {advice}"));
        }
        Some(CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_)) => {
            return refused(
                "give access-key-id and secret-access-key, a profile, or credentials in the environment",
            );
        }
        // A source of credentials may be out of reach for a while.
        Some(_) => {
            let advice = "if nothing should give credentials here, give access-key-id and secret-access-key";
            return ErrorKind::Unavailable(format!("{reason}: {advice}"));
        }
        None => {}
    }
    if let Some(rustls::Error::InvalidCertificate(_)) = cause::<rustls::Error>(error) {
        return refused("install the certificate of its authority on this machine, or correct the endpoint");
    }
    match error {
        SdkError::ConstructionFailure(_) => refused("look at the settings of the storage"),
        SdkError::DispatchFailure(failure) if failure.is_user() => {
            refused("correct s3-endpoint-override and s3-region in the configuration")
        }
        _ => match endpoint {
            Some(endpoint) => ErrorKind::Unavailable(format!("{endpoint}: {reason}")),
            None => ErrorKind::Unavailable(reason),
        },
    }
}

/// Whether the metadata service of the machine is asked when nothing else has credentials.
fn asks_metadata_service() -> bool {
    !std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"))
}

/// What a service says about a request that it did not do.
struct Said<'a> {
    status: u16,
    code: Option<&'a str>,
    message: Option<&'a str>,
    /// The region of the bucket.
    region: Option<&'a str>,
}

impl Said<'_> {
    /// Whether the same request may succeed a while later.
    fn may_pass(&self) -> bool {
        let code = self.code.unwrap_or_default();
        match code {
            // What came was not what was sent, or did not come in time; or somebody is busy.
            "BadDigest"
            | "XAmzContentSHA256Mismatch"
            | "XAmzContentChecksumMismatch"
            | "IncompleteBody"
            | "RequestTimeout"
            | "RequestTimeoutException"
            | "InternalError"
            | "InternalFailure"
            | "ServiceUnavailable"
            | "ServerBusy"
            | "TemporaryRedirect"
            | "ConditionalRequestConflict"
            | "OperationAborted"
            | "TooManyRequests"
            | "RequestLimitExceeded"
            | "BandwidthLimitExceeded" => true,
            _ if code.contains("SlowDown") || code.contains("Throttl") => true,
            _ => matches!(self.status, 408 | 429 | 500 | 502..=504),
        }
    }

    /// One line: `Please reduce your request rate. (SlowDown)`.
    fn text(&self) -> String {
        let message = self.message.map(one_line).unwrap_or_default();
        match self.code {
            Some(code) if message.is_empty() => code.to_owned(),
            Some(code) => format!("{} ({code})", message.trim_end_matches('.')),
            None => format!("the service answers with status {}", self.status),
        }
    }
}

/// The status of the answer, if there is one.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    Some(error.raw_response()?.status().as_u16())
}

/// Why the bytes of an answer ended early, or are not those that were stored.
pub(super) fn torn(error: &ByteStreamError) -> Failure {
    ErrorKind::Unavailable(chain(error)).into()
}

/// The first cause of a kind.
fn cause<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        // What an I/O error wraps is no source of it.
        Some(error) => error.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
        None => error.source(),
    })
}

/// An error and its causes on one line, without those that say the same again.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut line = String::new();
    for cause in causes(error) {
        let text = one_line(&cause.to_string());
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
    }
    line
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
