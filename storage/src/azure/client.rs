//! The SDK's clients of one container: addresses, credentials, the connection.

use std::sync::Arc;
use std::time::Duration;

use abs_config::secret::Secret;
use abs_config::{AzureCredentials, AzureSettings};
use async_trait::async_trait;
use azure_core::base64;
use azure_core::cloud::CloudConfiguration;
use azure_core::credentials::TokenCredential;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{
    Body, ClientOptions, Context, Request, RetryOptions, Transport, Url, UserAgentOptions,
};
use azure_identity::{ClientSecretCredential, ClientSecretCredentialOptions};
use azure_storage_blob::{
    BlobClient, BlobClientOptions, BlobContainerClient, BlobContainerClientOptions, BlockBlobClient,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::redirect;

use super::error::{self, Asker};
use super::shared_key::SharedKey;
use crate::ErrorKind;
use crate::cloud::bucket::{Answer, Failure};

/// The version of the REST API: not the newest, but all that is used here is in it.
const VERSION: &str = "2023-11-03";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the logs of Azure show, with the name of the SDK.
const USER_AGENT: &str = "abs";

/// What stands for itself in a part of a URL (RFC 3986).
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Makes the clients of one container and of its blobs; they share credentials and connections.
pub(super) struct Client {
    /// The URL of the container, with the shared access signature if there is one.
    url: Url,
    credential: Option<Arc<dyn TokenCredential>>,
    options: ClientOptions,
    asker: Asker,
}

impl Client {
    /// Gets the secrets and makes a client. Nothing is asked of the container.
    pub(super) async fn new(settings: &AzureSettings) -> Answer<Self> {
        let url = container(settings)?;
        let mut options = ClientOptions {
            transport: Some(Transport::new(Arc::new(connections()?))),
            retry: RetryOptions::none(),
            user_agent: UserAgentOptions { application_id: Some(USER_AGENT.to_owned()) },
            cloud: url.host_str().and_then(cloud).map(Arc::new),
            ..ClientOptions::default()
        };
        let mut credential: Option<Arc<dyn TokenCredential>> = None;
        let mut key = None;
        let asker = match &settings.credentials {
            AzureCredentials::Endpoint if url.query().is_some() => Asker::Signature,
            AzureCredentials::Endpoint => Asker::Nobody,
            AzureCredentials::SharedKey { account, key: secret } => {
                key = SharedKey::new(account, &resolve(secret).await?);
                if key.is_none() {
                    return Err(refused("account-key is not base64", "give the key as Azure shows it"));
                }
                Asker::Account
            }
            AzureCredentials::Client { tenant, id, secret } => {
                if url.scheme() != "https" {
                    return Err(refused(
                        "a client of Entra ID is only allowed to ask over https",
                        "give an endpoint that begins with https://, or an account-key",
                    ));
                }
                let (tenant, id, secret) =
                    (resolve(tenant).await?, resolve(id).await?, resolve(secret).await?);
                let client = ClientSecretCredential::new(
                    &tenant,
                    id.to_string(),
                    secret.to_string().into(),
                    Some(ClientSecretCredentialOptions { client_options: options.clone() }),
                );
                credential = Some(client.map_err(|error| error::identity(&error))?);
                Asker::Client
            }
        };
        options.per_try_policies = vec![Arc::new(Completion { key })];
        Ok(Self { url, credential, options, asker })
    }

    /// The container; with `folders` its listings sum up what is below folders.
    pub(super) fn container(&self, folders: bool) -> Answer<BlobContainerClient> {
        let mut url = self.url.clone();
        if folders {
            url.query_pairs_mut().append_pair("delimiter", "/");
        }
        let options =
            BlobContainerClientOptions { client_options: self.options.clone(), version: VERSION.to_owned() };
        BlobContainerClient::new(url, self.credential.clone(), Some(options)).map_err(|e| self.failure(&e))
    }

    /// The blob `key`.
    pub(super) fn blob(&self, key: &str) -> Answer<BlobClient> {
        let mut url = self.url.clone();
        // To Azure `%2F` is a `/`, and keeps `..` in a name from leading elsewhere. The SDK would lose tabs and ends of
        // lines in names.
        url.set_path(&format!("{}/{}", url.path(), utf8_percent_encode(key, &UNRESERVED)));
        let options = BlobClientOptions { client_options: self.options.clone(), version: VERSION.to_owned() };
        BlobClient::new(url, self.credential.clone(), Some(options)).map_err(|e| self.failure(&e))
    }

    /// The blob `key` as one of blocks.
    pub(super) fn block_blob(&self, key: &str) -> Answer<BlockBlobClient> {
        Ok(self.blob(key)?.block_blob_client())
    }

    /// What an error of the clients means.
    pub(super) fn failure(&self, error: &azure_core::Error) -> Failure {
        error::failure(error, self.asker, &self.url)
    }
}

/// What the SDK's requests lack.
#[derive(Debug)]
struct Completion {
    key: Option<SharedKey>,
}

#[async_trait]
#[expect(elided_lifetimes_in_paths, reason = "as the trait has it")]
impl Policy for Completion {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        // A checksum, which Azure verifies: the SDK has none for a blob that is sent at once.
        if let Body::Bytes(bytes) = request.body()
            && !bytes.is_empty()
        {
            let checksum = checksum(bytes);
            request.insert_header("x-ms-content-crc64", checksum);
        }
        // The SDK writes spaces as forms do, but Azure does not read them so; a `+` of its own is `%2B`.
        if let Some(query) = request.url().query().filter(|query| query.contains('+')) {
            let query = query.replace('+', "%20");
            request.url_mut().set_query(Some(&query));
        }
        if let Some(key) = &self.key {
            key.sign(request)?;
        }
        // The last one is the connection.
        next[0].send(ctx, request, &next[1..]).await
    }
}

/// The CRC-64 that is known as NVME, as requests have it.
pub(super) fn checksum(bytes: &[u8]) -> String {
    base64::encode(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes).to_le_bytes())
}

/// The URL of the container.
fn container(settings: &AzureSettings) -> Answer<Url> {
    let wrong = |why: &str| {
        refused(format!("the endpoint is not valid: {why}"), "correct endpoint in the configuration")
    };
    let mut url = Url::parse(settings.endpoint.expose()).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("it begins neither with https:// nor with http://"));
    }
    if url.query() == Some("") {
        url.set_query(None);
    }
    let container = utf8_percent_encode(&settings.container, &UNRESERVED);
    url.set_path(&format!("{}/{container}", url.path().trim_end_matches('/')));
    Ok(url)
}

/// The connections to Azure and to Entra ID.
fn connections() -> Answer<reqwest::Client> {
    // It is an error that there is one already: then that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirect::Policy::none())
        .build();
    client.map_err(|error| {
        let reason = format!("no connection can be prepared: {}", error::chain(&error));
        refused(reason, "install the certificates of certificate authorities (ca-certificates)")
    })
}

/// The cloud whose Entra ID knows the clients of that host; else that of the environment (`AZURE_AUTHORITY_HOST`) or the
/// public one.
fn cloud(host: &str) -> Option<CloudConfiguration> {
    if host.ends_with(".chinacloudapi.cn") {
        Some(CloudConfiguration::AzureChina)
    } else if host.ends_with(".usgovcloudapi.net") {
        Some(CloudConfiguration::AzureGovernment)
    } else {
        None
    }
}

/// Gets a secret.
async fn resolve(secret: &Secret) -> Answer<impl std::ops::Deref<Target = String> + use<>> {
    secret.resolve().await.map_err(|error| {
        if error.is_transient() {
            return ErrorKind::Unavailable(error.to_string()).into();
        }
        refused(error.to_string(), "correct it in the configuration of the storage")
    })
}

fn refused(reason: impl Into<String>, remedy: impl Into<String>) -> Failure {
    ErrorKind::Refused { reason: reason.into(), remedy: remedy.into() }.into()
}
