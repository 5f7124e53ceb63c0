//! TLS on the ports of the nodes.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::builder::ServerError;

/// The bytes of a connection, in the clear or not.
pub(crate) type Socket = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// What a server that speaks TLS is told.
#[derive(Clone)]
pub(crate) struct TlsFiles {
    pub(crate) name: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
    /// The authorities of clients, which then must have a certificate.
    pub(crate) client_ca: Option<String>,
}

impl std::fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsFiles").field("name", &self.name).finish_non_exhaustive()
    }
}

/// TLS as the nodes speak it.
#[derive(Clone)]
pub(crate) struct Tls {
    /// The name that clients find in the certificate.
    pub(crate) name: String,
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Tls {
    pub(crate) fn new(files: TlsFiles) -> Result<Tls, ServerError> {
        let wrong = |what: &str, e: &dyn std::fmt::Display| ServerError::Build(format!("{what}: {e}"));
        let certificates = |what: &str, pem: &str| {
            let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
            all.map_err(|e| wrong(what, &e))
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong("TLS", &e))?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                const WHAT: &str = "the authorities of clients";
                let mut roots = RootCertStore::empty();
                for one in certificates(WHAT, pem)? {
                    roots.add(one).map_err(|e| wrong(WHAT, &e))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().map_err(|e| wrong(WHAT, &e))?)
            }
        };
        let key =
            PrivateKeyDer::from_pem_slice(files.key.as_bytes()).map_err(|e| wrong("the TLS key", &e))?;
        let config = builder
            .with_single_cert(certificates("the TLS certificate", &files.certificate)?, key)
            .map_err(|e| wrong("the TLS certificate and its key", &e))?;
        Ok(Tls { name: files.name, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Speaks TLS with a client; says which user its certificate names, if it has one.
    pub(crate) async fn accept(&self, socket: TcpStream) -> std::io::Result<(Socket, Option<String>)> {
        let stream = self.acceptor.accept(socket).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let user = certificate.and_then(|certificate| common_name(certificate));
        Ok((Either::Right(Box::new(stream)), user))
    }
}

/// The common name in the subject of an X.509 certificate: the real server takes the user from it.
fn common_name(certificate: &[u8]) -> Option<String> {
    const SEQUENCE: u8 = 0x30;
    const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
    let (SEQUENCE, mut rest, _) = element(certificate)? else { return None };
    // Version (when it is not 1), serial number, signature algorithm, issuer, validity, subject.
    let before = if rest.first() == Some(&0xa0) { 5 } else { 4 };
    for _ in 0..before {
        rest = element(rest)?.2;
    }
    let (SEQUENCE, mut names, _) = element(rest)? else { return None };
    while !names.is_empty() {
        let (_, set, after) = element(names)?;
        names = after;
        let (_, pair, _) = element(set)?;
        if let Some(value) = pair.strip_prefix(&COMMON_NAME) {
            return String::from_utf8(element(value)?.1.to_vec()).ok();
        }
    }
    None
}

/// Splits the first element off DER: its tag, its content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut len = usize::from(first);
    if first >= 0x80 {
        let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
        len = bytes.iter().try_fold(0_usize, |len, byte| Some(len.checked_mul(256)? + usize::from(*byte)))?;
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}
