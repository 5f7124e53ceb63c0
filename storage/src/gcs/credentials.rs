//! Who asks: the sign-in at Google.

use std::io;
use std::sync::Arc;

use abs_config::{GcpSettings, Secret};
use gcloud_auth::credentials::CredentialsFile;
use gcloud_auth::error::Error;
use gcloud_auth::project::{
    Config, Project, ProjectInfo, create_token_source_from_credentials, create_token_source_from_project,
};
use gcloud_auth::token_source::TokenSource;
use gcloud_auth::token_source::external_account_source::error::Error as ExternalError;
use tokio::sync::Mutex;

use crate::ErrorKind;
use crate::cloud::bucket::Answer;

use super::failure::{one_line, with_causes};

/// What the tokens are for: objects, and acting as another account where a workload's identity says so.
const SCOPES: [&str; 2] = [
    "https://www.googleapis.com/auth/devstorage.read_write",
    "https://www.googleapis.com/auth/cloud-platform",
];

/// Names the file of credentials, as in all of Google's clients.
const FILE_VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// The credentials of a bucket, and the token that they gave.
pub(super) struct Credentials {
    origin: Origin,
    /// Keeps a token until shortly before it expires. Empty until the first request, and when it was forgotten.
    source: Mutex<Option<Arc<dyn TokenSource>>>,
}

/// Where credentials come from.
#[derive(Debug)]
enum Origin {
    /// The configuration: a JSON key.
    Key(Secret),
    /// The machine: a file of credentials, or the metadata server of Google's cloud.
    Environment,
    /// From nowhere: another service that speaks the protocol and asks nobody who they are.
    Nobody,
}

impl Credentials {
    pub(super) fn new(settings: &GcpSettings) -> Self {
        let origin = match (&settings.key, &settings.endpoint) {
            (Some(key), _) => Origin::Key(key.clone()),
            (None, None) => Origin::Environment,
            (None, Some(_)) => Origin::Nobody,
        };
        Self { origin, source: Mutex::default() }
    }

    /// A token that is valid now; none if nobody asks for one.
    pub(super) async fn token(&self) -> Answer<Option<String>> {
        if matches!(self.origin, Origin::Nobody) {
            return Ok(None);
        }
        let source = self.source().await?;
        let token = source.token().await.map_err(|error| match error {
            // The metadata server hides that it is busy behind an answer that is no token; it has given one before.
            Error::HttpError(error) if error.is_decode() => ErrorKind::Unavailable(format!(
                "Google gives no token ({})",
                with_causes(&error.without_url())
            )),
            error => self.refusal(error),
        })?;
        Ok(Some(token.access_token))
    }

    /// The next request reads the key and signs in again.
    pub(super) async fn forget(&self) {
        *self.source.lock().await = None;
    }

    async fn source(&self) -> Answer<Arc<dyn TokenSource>> {
        let mut kept = self.source.lock().await;
        if let Some(source) = &*kept {
            return Ok(Arc::clone(source));
        }
        let source = Arc::from(match &self.origin {
            Origin::Key(secret) => self.sign_in(&key(secret).await?).await?,
            Origin::Environment | Origin::Nobody => self.environment().await?,
        });
        *kept = Some(Arc::clone(&source));
        Ok(source)
    }

    async fn sign_in(&self, file: &CredentialsFile) -> Answer<Box<dyn TokenSource>> {
        let source =
            create_token_source_from_credentials(file, &Config::default().with_scopes(&SCOPES)).await;
        source.map_err(|error| self.refusal(error).into())
    }

    async fn environment(&self) -> Answer<Box<dyn TokenSource>> {
        match CredentialsFile::new().await {
            Ok(file) => self.sign_in(&file).await,
            Err(error) if is_absent(&error) => {
                // Asked by its number, and given up after three seconds: looking up its name can take minutes elsewhere.
                let server = Project::FromMetadataServer(ProjectInfo { project_id: None });
                let source =
                    create_token_source_from_project(&server, Config::default().with_scopes(&SCOPES)).await;
                source.map_err(|error| no_credentials(&error).into())
            }
            Err(error) => Err(self.refusal(error).into()),
        }
    }

    /// Why there is no token.
    fn refusal(&self, error: Error) -> ErrorKind {
        let passes = may_pass(&error);
        let reason = match error {
            Error::JsonError(error) => not_json(&error),
            // What these say could hold a piece of the key.
            Error::JwtError(_) => "private_key is no RSA key in PEM".to_owned(),
            Error::TokenErrorResponse { error, error_description, .. } => {
                one_line(&format!("{error}: {error_description}"))
            }
            Error::HttpError(error) => with_causes(&error.without_url()),
            error => with_causes(&error),
        };
        if passes {
            return ErrorKind::Unavailable(format!("Google gives no token ({reason})"));
        }
        let remedy = match self.origin {
            Origin::Key(_) => {
                "check key or key-file-path in the configuration: the key may be damaged, deleted or disabled; and check \
                 this machine's clock"
            }
            _ => {
                "renew the file of credentials (GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default \
                 login), and check this machine's clock"
            }
        };
        ErrorKind::Refused { reason: format!("Google's sign-in fails ({reason})"), remedy: remedy.to_owned() }
    }
}

/// Whether the same sign-in may go well a while later.
fn may_pass(error: &Error) -> bool {
    let busy = |status: u16| matches!(status, 408 | 429 | 500..);
    match error {
        Error::HttpError(error) | Error::ExternalAccountSource(ExternalError::HttpError(error)) => {
            // An answer that is no token says no.
            !error.is_decode() && error.status().is_none_or(|status| busy(status.as_u16()))
        }
        Error::TokenErrorResponse { status, .. }
        | Error::UnexpectedImpersonateTokenResponse(status, _)
        | Error::ExternalAccountSource(
            ExternalError::UnexpectedStatusOnGetSessionToken(status)
            | ExternalError::UnexpectedStatusOnGetSubjectToken(status, _),
        ) => busy(*status),
        _ => false,
    }
}

/// Gets the key of the configuration.
async fn key(secret: &Secret) -> Answer<CredentialsFile> {
    let text = secret.resolve().await.map_err(|error| {
        if error.is_transient() {
            return ErrorKind::Unavailable(with_causes(&error));
        }
        ErrorKind::Refused {
            reason: with_causes(&error),
            remedy: "correct key or key-file-path in the configuration".to_owned(),
        }
    })?;
    serde_json::from_str(&text).map_err(|error| {
        let remedy = "give the JSON key of a service account as key or key-file-path in the configuration";
        ErrorKind::Refused { reason: not_json(&error), remedy: remedy.to_owned() }.into()
    })
}

/// Where credentials are broken, without a word of them.
fn not_json(error: &serde_json::Error) -> String {
    format!("the credentials are not Google's JSON (line {}, column {})", error.line(), error.column())
}

/// Whether the machine has no file of credentials, and none is asked for.
fn is_absent(error: &Error) -> bool {
    match error {
        Error::CredentialsIOError(error) => {
            error.kind() == io::ErrorKind::NotFound && std::env::var_os(FILE_VARIABLE).is_none()
        }
        Error::NoHomeDirectoryFound | Error::VarError(_) => true,
        _ => false,
    }
}

/// A metadata server that does not answer may still be starting, as on a machine that has just been started.
fn no_credentials(error: &Error) -> ErrorKind {
    ErrorKind::Unavailable(format!(
        "there are no Google credentials: no file of them, and no metadata server ({}): unless it is still starting, give key \
         or key-file-path in the configuration, or set {FILE_VARIABLE}",
        with_causes(error)
    ))
}
