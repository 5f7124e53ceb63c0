//! The HTTP client.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::ring;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// How many redirects are followed. They lead to http(s) only, and from https only to https.
const REDIRECTS: u32 = 5;

/// A client for an http or https address, which trusts the authorities that the system trusts. An answer may take
/// `timeout` from the lookup of the name to its last byte. It blocks.
pub fn agent(https: bool, timeout: Duration) -> Agent {
    let roots = https.then(|| {
        let found = rustls_native_certs::load_native_certs().certs;
        found.iter().map(|root| Certificate::from_der(root.as_ref()).to_owned()).collect::<Vec<_>>()
    });
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots.unwrap_or_default())))
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .https_only(https)
        .max_redirects(REDIRECTS)
        .timeout_global(Some(timeout))
        .user_agent(concat!("abs/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}
