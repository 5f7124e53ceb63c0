//! The services that the tests use.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use abs_config::{S3LogLevel, S3Settings};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rcgen::CertifiedKey;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::s3::S3Bucket;

pub(super) const ID: &str = "test";
pub(super) const SECRET: &str = "test-secret";

/// A bucket on a service, and a folder in it that nobody else uses.
pub(super) struct Service {
    pub name: &'static str,
    pub settings: S3Settings,
    pub bucket: S3Bucket,
    folder: String,
    _files: Option<tempfile::TempDir>,
}

impl Service {
    pub async fn every() -> [Self; 2] {
        [Self::moto().await, Self::s3s().await]
    }

    /// The emulator of AWS.
    pub async fn moto() -> Self {
        let url = std::env::var("ABS_TEST_S3").unwrap_or_else(|_| "http://127.0.0.1:15101".into());
        let address = url.trim_start_matches("http://");
        if let Err(e) = TcpStream::connect(address).await {
            panic!("{url} is not reachable ({e}): start the emulators with scripts/emulators up");
        }
        Self::new("moto", settings(&url), None)
    }

    /// A server of this process, which checks signatures.
    pub async fn s3s() -> Self {
        let files = tempfile::tempdir().unwrap();
        let url = serve_s3s(files.path()).await;
        Self::new("s3s", settings(&url), Some(files))
    }

    fn new(name: &'static str, settings: S3Settings, files: Option<tempfile::TempDir>) -> Self {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        Self {
            name,
            bucket: S3Bucket::new(&settings),
            settings,
            folder: format!("test-{now}-{}", FOLDERS.fetch_add(1, Ordering::Relaxed)),
            _files: files,
        }
    }

    /// A key in the folder.
    pub fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }
}

/// Starts a server whose buckets are in a folder; its URL.
async fn serve_s3s(root: &Path) -> String {
    let service = s3s(root);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, service.clone()));
        }
    });
    url
}

/// The same over TLS; its URL, and the certificate of its authority.
pub(super) async fn serve_s3s_over_tls(root: &Path) -> (String, String) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let service = s3s(root);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (tls, service) = (tls.clone(), service.clone());
            tokio::spawn(async move {
                // Not everyone trusts the certificate.
                if let Ok(socket) = tls.accept(socket).await {
                    serve(socket, service).await;
                }
            });
        }
    });
    (url, cert.pem())
}

/// A service whose buckets are in a folder. It checks signatures.
fn s3s(root: &Path) -> S3Service {
    std::fs::create_dir(root.join("abs-test")).unwrap();
    let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    service.set_auth(SimpleAuth::from_single(ID, SECRET));
    service.build()
}

async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, service: S3Service) {
    // A client may go whenever it likes.
    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
}

/// A bucket on the service at `endpoint`.
pub(super) fn settings(endpoint: &str) -> S3Settings {
    S3Settings {
        bucket: "abs-test".into(),
        region: "us-east-1".into(),
        folder: String::new(),
        endpoint: Some(endpoint.to_owned()),
        profile: None,
        key: Some(super::key(ID, SECRET)),
        part_size: 5 << 20,
        connections: None,
        data_class: None,
        metadata_class: None,
        log_level: S3LogLevel::Fatal,
    }
}

pub(super) fn bucket(settings: &S3Settings) -> S3Bucket {
    S3Bucket::new(settings)
}
