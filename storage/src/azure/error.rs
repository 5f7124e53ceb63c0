//! What refusals of Azure and broken connections mean.

use std::error::Error;
use std::io;
use std::time::Duration;

use azure_core::error::ErrorKind as AzureErrorKind;
use azure_core::http::headers::{ERROR_CODE, Headers, RETRY_AFTER};
use azure_core::http::{RawResponse, StatusCode, Url};

use crate::ErrorKind;
use crate::cloud::bucket::Failure;

/// The longest message of the service that is passed on, in characters.
const LONGEST_MESSAGE: usize = 300;

/// Who asks: that decides how a refusal is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// Anybody.
    Nobody,
    /// Who has the shared access signature of the endpoint.
    Signature,
    /// The account, with its shared key.
    Account,
    /// A client of Entra ID.
    Client,
}

impl Asker {
    /// What to do when Azure does not believe who asks.
    fn prove(self) -> &'static str {
        match self {
            Self::Nobody => {
                "give account-name and account-key, a client, or an endpoint with a shared access signature"
            }
            Self::Signature => {
                "give an endpoint with a valid shared access signature, and check the clock of this machine"
            }
            Self::Account => "correct account-name and account-key, and check the clock of this machine",
            Self::Client => {
                "correct tenant-id, client-id and client-secret, and check the clock of this machine"
            }
        }
    }

    /// What to do when the asker may not do this.
    fn permit(self) -> &'static str {
        match self {
            Self::Nobody => {
                "give account-name and account-key, a client, or an endpoint with a shared access signature"
            }
            Self::Signature => {
                "give a shared access signature that is valid and permits to read, add, create, write, delete and list, and let \
                 this machine through the firewall of the account"
            }
            Self::Account => "let this machine through the firewall of the account, and check account-key",
            Self::Client => {
                "give the client the role Storage Blob Data Contributor on the container, and let this machine \
                 through the firewall of the account"
            }
        }
    }
}

/// What an error of the SDK means. `container` is the URL of the container that was asked.
pub(super) fn failure(error: &azure_core::Error, asker: Asker, container: &Url) -> Failure {
    match error.kind() {
        AzureErrorKind::HttpResponse { status, raw_response, .. } => {
            let answer = raw_response.as_deref();
            // Answers to HEAD have no body, and what stands in it only makes the message better.
            let body = answer.map_or("", |answer| str::from_utf8(answer.body()).unwrap_or_default());
            let headers = answer.map(RawResponse::headers);
            let named = headers.and_then(|headers| headers.get_optional_string(&ERROR_CODE));
            let code = named.or_else(|| element(body, "Code"));
            let message = one_line(element(body, "Message").as_deref().unwrap_or_default());
            // Behind the `?` there may be a signature.
            let container = container.as_str().split('?').next().unwrap_or_default();
            let kind = kind(*status, code.as_deref(), &message, asker, container);
            Failure { kind, retry_after: headers.and_then(retry_after) }
        }
        AzureErrorKind::Connection | AzureErrorKind::Io => transport(error),
        AzureErrorKind::Credential => identity(error),
        AzureErrorKind::DataConversion => unexpected(&chain(error)),
        AzureErrorKind::Other => {
            let reason = format!("the request cannot be made: {}", chain(error));
            let remedy = "correct endpoint, container-name and account-name in the configuration".to_owned();
            ErrorKind::Refused { reason, remedy }.into()
        }
    }
}

/// The kind of an error that Azure calls `code`.
fn kind(status: StatusCode, code: Option<&str>, message: &str, asker: Asker, container: &str) -> ErrorKind {
    let refused = |reason: String, remedy: &str| ErrorKind::Refused { reason, remedy: remedy.to_owned() };
    let said = || match (code, message) {
        (None, _) => format!("the endpoint answers {status} {}", status.canonical_reason()),
        (Some(code), "") => format!("Azure says {code} ({status} {})", status.canonical_reason()),
        (Some(code), message) => format!("{} ({code})", message.trim_end_matches('.')),
    };
    let Some(code) = code else {
        return if is_transient(status) {
            ErrorKind::Unavailable(said())
        } else {
            refused(said(), "correct endpoint in the configuration: this is no answer of Azure Blob Storage")
        };
    };
    match code {
        "BlobNotFound" | "InvalidBlockList" => ErrorKind::NotFound,
        "BlobAlreadyExists" | "PathAlreadyExists" => ErrorKind::AlreadyExists,
        "ConditionNotMet" | "TargetConditionNotMet" => ErrorKind::Changed,
        "BlobArchived" => ErrorKind::Archived { tier: super::ARCHIVE.to_owned() },
        "BlobBeingRehydrated" => {
            ErrorKind::Archived { tier: format!("{}, being rehydrated, which takes hours", super::ARCHIVE) }
        }
        "ServerBusy"
        | "OperationTimedOut"
        | "InternalError"
        | "Md5Mismatch"
        | "Crc64Mismatch"
        | "AccountBeingCreated" => ErrorKind::Unavailable(said()),
        "ContainerNotFound" => refused(
            format!("the container {container} does not exist ({code})"),
            "create it, or correct container-name in the configuration",
        ),
        "ContainerBeingDeleted" | "ContainerDisabled" => refused(
            format!("the container {container} is deleted or disabled ({code})"),
            "create it anew when it is gone, or change container-name in the configuration",
        ),
        "InvalidResourceName" | "InvalidUri" | "OutOfRangeInput" => refused(
            format!("{container} is no name of a container, or the object's name is none of a blob ({code})"),
            "correct endpoint, container-name or path in the configuration",
        ),
        "AuthenticationFailed" | "NoAuthenticationInformation" | "InvalidAuthenticationInfo" => {
            refused(format!("Azure does not believe who asks ({code})"), asker.prove())
        }
        "AccountIsDisabled" => {
            refused(format!("the storage account is disabled ({code})"), "enable the account, or pay for it")
        }
        "KeyBasedAuthenticationNotPermitted" => refused(
            format!("the account permits no shared keys ({code})"),
            "give tenant-id, client-id and client-secret, or permit shared keys",
        ),
        "PublicAccessNotPermitted" | "ResourceNotFound" if asker == Asker::Nobody => {
            refused(format!("the container {container} is not public ({code})"), asker.prove())
        }
        "BlobImmutableDueToPolicy" | "BlobImmutableDueToLegalHold" => refused(
            format!("the blob is immutable ({code})"),
            "wait until its policy of immutability ends, or remove it",
        ),
        "LeaseIdMissing" => refused(format!("somebody holds a lease on it ({code})"), "break the lease"),
        "InvalidBlobOrBlock" => refused(
            format!("another program began to upload a blob of that name ({code})"),
            "delete that blob, or wait until Azure forgets its blocks after a week",
        ),
        "BlockCountExceedsLimit" | "BlockListTooLong" => {
            refused(format!("it has more blocks than Azure allows ({code})"), "increase min-part-size")
        }
        _ if is_transient(status) => ErrorKind::Unavailable(said()),
        _ if matches!(status, StatusCode::Forbidden | StatusCode::Unauthorized) => {
            refused(said(), asker.permit())
        }
        _ => refused(said(), "see what Azure's documentation says of this error"),
    }
}

/// Whether a status says that the same request may succeed later.
fn is_transient(status: StatusCode) -> bool {
    matches!(u16::from(status), 408 | 429 | 500 | 502 | 503 | 504)
}

/// A broken connection, or one that never came to be.
pub(super) fn transport(error: &azure_core::Error) -> Failure {
    ErrorKind::Unavailable(chain(error)).into()
}

/// An answer that says success but not what it must.
pub(super) fn unexpected(what: &str) -> Failure {
    ErrorKind::Io(io::Error::other(format!("the answer of the endpoint is not Azure's: {what}"))).into()
}

/// Why Entra ID gave no token.
pub(super) fn identity(error: &azure_core::Error) -> Failure {
    // The error that says most is at the end of the chain.
    let mut cause: &(dyn Error + 'static) = error;
    let mut answer = None;
    loop {
        if let Some(azure) = cause.downcast_ref::<azure_core::Error>()
            && let AzureErrorKind::HttpResponse { status, .. } = azure.kind()
        {
            answer = Some((*status, azure.to_string()));
        }
        match cause.source() {
            Some(source) => cause = source,
            None => break,
        }
    }
    match answer {
        Some((status, text)) if !is_transient(status) => ErrorKind::Refused {
            reason: format!(
                "Entra ID gives no token: {}",
                one_line(text.split(" Trace ID").next().unwrap_or_default())
            ),
            remedy: "correct tenant-id, client-id and client-secret".to_owned(),
        },
        Some((_, text)) => ErrorKind::Unavailable(format!("Entra ID gives no token: {}", one_line(&text))),
        None if error.source().is_none() => ErrorKind::Refused {
            reason: format!("the client of Entra ID is not valid: {}", one_line(&error.to_string())),
            remedy: "correct tenant-id, client-id and client-secret".to_owned(),
        },
        None => ErrorKind::Unavailable(format!("Entra ID is not reached: {}", chain(error))),
    }
    .into()
}

/// An error with all its causes on one line. URLs, which may hold a signature, are not in it.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    for error in std::iter::successors(Some(error), |error| (*error).source()) {
        // Of their own, reqwest tells the URL, and the SDK what the next one tells better.
        if error.is::<reqwest::Error>() || error.is::<azure_core::Error>() {
            continue;
        }
        let text = one_line(&error.to_string());
        if !texts.iter().any(|earlier| earlier.contains(&text)) {
            texts.push(text);
        }
    }
    if texts.is_empty() { "the connection broke".to_owned() } else { texts.join(": ") }
}

/// How long the service asks to wait.
fn retry_after(headers: &Headers) -> Option<Duration> {
    headers.get_optional_str(&RETRY_AFTER)?.trim().parse().ok().map(Duration::from_secs)
}

/// The text of the first element of that name in a small XML document.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.to_owned())
}

/// The first line of a text, not longer than a message may be.
fn one_line(text: &str) -> String {
    text.trim().lines().next().unwrap_or_default().trim().chars().take(LONGEST_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
    use azure_core::http::headers::Headers;
    use azure_core::http::{AsyncRawResponse, ClientOptions, HttpClient, Request, RetryOptions, Transport};
    use azure_identity::{ClientSecretCredential, ClientSecretCredentialOptions};
    use azure_storage_blob::{BlobClient, BlobClientOptions};

    use super::*;

    fn of(status: u16, code: &str, asker: Asker) -> ErrorKind {
        kind(status.into(), Some(code), "It is so.", asker, "https://a/c")
    }

    #[test]
    fn codes_decide_before_the_status() {
        for (status, code, message) in [
            (
                403,
                "AuthorizationPermissionMismatch",
                "It is so (AuthorizationPermissionMismatch): give the client the role",
            ),
            (403, "AccountIsDisabled", "the storage account is disabled (AccountIsDisabled): enable"),
            (
                409,
                "ContainerBeingDeleted",
                "the container https://a/c is deleted or disabled (ContainerBeingDeleted): ",
            ),
            (409, "BlobImmutableDueToPolicy", "the blob is immutable (BlobImmutableDueToPolicy): "),
            (412, "LeaseIdMissing", "somebody holds a lease on it (LeaseIdMissing): "),
            (400, "InvalidResourceName", "https://a/c is no name of a container, or"),
            (409, "PublicAccessNotPermitted", "It is so (PublicAccessNotPermitted): see what"),
            (400, "Nonsense", "It is so (Nonsense): see what"),
        ] {
            let kind = of(status, code, Asker::Client);
            assert!(matches!(kind, ErrorKind::Refused { .. }), "{kind:?}");
            assert!(kind.to_string().starts_with(message), "{kind}");
        }
        for (status, code) in [
            (400, "Md5Mismatch"),
            (400, "Crc64Mismatch"),
            (500, "OperationTimedOut"),
            (503, "Whatever"),
            (409, "AccountBeingCreated"),
        ] {
            assert!(matches!(of(status, code, Asker::Account), ErrorKind::Unavailable(_)), "{code}");
        }
        assert!(matches!(of(409, "BlobBeingRehydrated", Asker::Account), ErrorKind::Archived { .. }));
    }

    #[test]
    fn remedies_are_for_who_asks() {
        for (asker, remedy) in [
            (Asker::Nobody, ": give account-name and account-key"),
            (
                Asker::Signature,
                ": give an endpoint with a valid shared access signature, and check the clock",
            ),
            (Asker::Account, ": correct account-name and account-key, and check the clock"),
            (Asker::Client, ": correct tenant-id, client-id and client-secret, and check the clock"),
        ] {
            let message = of(403, "AuthenticationFailed", asker).to_string();
            assert!(message.contains(remedy), "{message}");
        }
        let message = of(404, "ResourceNotFound", Asker::Nobody).to_string();
        assert!(
            message.starts_with("the container https://a/c is not public (ResourceNotFound): give"),
            "{message}"
        );
    }

    /// Entra ID as it answers.
    #[derive(Debug)]
    struct Entra(u16, &'static str);

    #[async_trait]
    impl HttpClient for Entra {
        async fn execute_request(&self, _: &Request) -> azure_core::Result<AsyncRawResponse> {
            Ok(AsyncRawResponse::from_bytes(self.0.into(), Headers::new(), self.1.as_bytes()))
        }
    }

    /// Why a client of Entra ID cannot ask.
    async fn token(transport: Transport, authority: &str) -> ErrorKind {
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host = authority.to_owned();
        let client_options = ClientOptions {
            transport: Some(transport),
            retry: RetryOptions::none(),
            cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
            ..ClientOptions::default()
        };
        let options = ClientSecretCredentialOptions { client_options: client_options.clone() };
        let credential =
            ClientSecretCredential::new("tenant", "id".into(), "hunter2".into(), Some(options)).unwrap();
        let url = Url::parse("https://a.invalid/c").unwrap();
        let options = BlobClientOptions { client_options, ..BlobClientOptions::default() };
        let blob = BlobClient::new(url.clone(), Some(credential), Some(options)).unwrap();
        failure(&blob.get_properties(None).await.unwrap_err(), Asker::Client, &url).kind
    }

    #[tokio::test]
    async fn entra_says_what_is_wrong() {
        let wrong = Entra(
            401,
            r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Trace ID: 1 Correlation ID: 2","error_codes":[7000215]}"#,
        );
        let kind = token(Transport::new(Arc::new(wrong)), "https://login.invalid").await;
        assert_eq!(
            kind.to_string(),
            "Entra ID gives no token: AADSTS7000215: Invalid client secret provided.: correct tenant-id, client-id and \
             client-secret"
        );
        let busy = Entra(
            503,
            r#"{"error":"temporarily_unavailable","error_description":"AADSTS90033","error_codes":[90033]}"#,
        );
        let kind = token(Transport::new(Arc::new(busy)), "https://login.invalid").await;
        assert!(matches!(&kind, ErrorKind::Unavailable(text) if text.contains("AADSTS90033")), "{kind:?}");
        let proxy = Entra(502, "<html>");
        let kind = token(Transport::new(Arc::new(proxy)), "https://login.invalid").await;
        assert!(matches!(&kind, ErrorKind::Unavailable(_)), "{kind:?}");
    }

    #[tokio::test]
    async fn entra_may_be_out_of_reach() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let kind = token(Transport::new(Arc::new(http)), "https://127.0.0.1:1").await;
        let ErrorKind::Unavailable(text) = &kind else { panic!("{kind:?}") };
        assert!(
            text.starts_with("Entra ID is not reached: ") && text.contains("Connection refused"),
            "{text}"
        );
    }
}
