//! The client of the SDK.

use std::time::Duration;

use abs_config::S3Settings;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, IdentityCache, ResponseChecksumValidation, RuntimeComponents, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder as HttpBuilder, Connector};
use aws_smithy_types::base64;
use md5::{Digest as _, Md5};

use super::key::ConfiguredKey;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept. Services close theirs after a while, and one that is closed while a request goes
/// out costs a try.
const IDLE: Duration = Duration::from_secs(20);
/// How long getting credentials may take: a chain asks several sources, some more than once.
const CREDENTIALS: Duration = Duration::from_secs(30);

/// The client of the SDK, made for one bucket.
#[derive(Debug)]
pub(super) struct Connection {
    pub client: Client,
    /// Whether this is a general purpose bucket of AWS. Others, be it a directory bucket or a service that speaks the
    /// protocol, are asked for nothing that they may not know.
    pub is_aws: bool,
    /// Whether the SHA-256 of each body is part of the signature. It costs more CPU time than all else in an upload; over
    /// TLS it proves nothing that TLS and the CRC do not, and the official SDKs leave it out there, too. Over plain
    /// HTTP nothing else proves that nobody changed the bytes on their way.
    pub signs_bodies: bool,
}

impl Connection {
    /// Asks nobody yet; only AWS's configuration files are read.
    pub async fn new(settings: &S3Settings) -> Self {
        // The bounds in time are set outside, around each request and each chunk of an answer.
        let mut shared = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(settings.region.clone()))
            .http_client(http_client())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(IdentityCache::lazy().load_timeout(CREDENTIALS).build());
        if let Some(profile) = &settings.profile {
            shared = shared.profile_name(profile);
        }
        if let Some(key) = &settings.key {
            shared = shared.credentials_provider(ConfiguredKey::new(key));
        }
        let shared = shared.load().await;
        let mut config = Builder::from(&shared)
            .retry_config(RetryConfig::disabled())
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(endpoint) = &settings.endpoint {
            config = config.endpoint_url(endpoint).force_path_style(true);
        }
        let variable = std::env::var("AWS_ENDPOINT_URL_S3").ok();
        let endpoint = settings.endpoint.as_deref().or(variable.as_deref()).or(shared.endpoint_url());
        Self {
            client: Client::from_conf(config.build()),
            is_aws: endpoint.is_none() && !settings.bucket.ends_with("--x-s3"),
            signs_bodies: endpoint.is_some_and(|endpoint| !endpoint.starts_with("https:")),
        }
    }
}

/// Over TLS by ring, and the proxies of the environment.
fn http_client() -> SharedHttpClient {
    HttpBuilder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .proxy_config(ProxyConfig::from_env())
            .pool_idle_timeout(IDLE);
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.build()
    })
}

/// Adds the MD5 of the body to a request.
pub(super) fn add_content_md5(request: &mut HttpRequest) {
    if let Some(body) = request.body().bytes() {
        let digest = base64::encode(Md5::digest(body));
        request.headers_mut().insert("content-md5", digest);
    }
}
