//! The access key of the configuration.

use std::sync::{Mutex, PoisonError};

use abs_config::{S3Key, SecretError};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, Result, future};

/// The access key of the configuration, as the SDK asks for it: at the first request, and again every 15 minutes, so that
/// a key that was renewed in its secret agent is soon in use.
#[derive(Debug)]
pub(super) struct ConfiguredKey {
    key: S3Key,
    /// The last that was had: good enough while the secret agent is out of reach.
    last: Mutex<Option<Credentials>>,
}

impl ConfiguredKey {
    pub fn new(key: &S3Key) -> Self {
        Self { key: key.clone(), last: Mutex::new(None) }
    }

    async fn load(&self) -> Result {
        let key = self.resolve().await;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match key {
            Ok(key) => Ok(last.insert(key).clone()),
            Err(e) => {
                let good = last.clone().filter(|_| e.is_transient());
                good.ok_or_else(|| CredentialsError::provider_error(e))
            }
        }
    }

    async fn resolve(&self) -> std::result::Result<Credentials, SecretError> {
        let id = self.key.id.resolve().await?;
        let secret = self.key.secret.resolve().await?;
        Ok(Credentials::new(id.as_str(), secret.as_str(), None, None, "configuration"))
    }
}

impl ProvideCredentials for ConfiguredKey {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.load())
    }
}
