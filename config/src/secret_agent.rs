//! The Secret Agent, which keeps secrets and tells them on request.
//!
//! A request and its answer are one message each: a head of 8 bytes (the magic number 0x51dec1cc and the length of what
//! follows, both big-endian) and a JSON object. The request is `{"Resource":…,"SecretKey":…}`, the answer
//! `{"SecretValue":…}` or `{"Error":…}`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use utoipa::{PartialSchema, ToSchema};
use zeroize::Zeroizing;

use crate::check::{Check, most};
use crate::secret::Secrets;
use crate::text::words;
use crate::{Problems, SecretText};

const MAGIC: u32 = 0x51de_c1cc;
/// Longer answers are refused; a secret is a key or a password.
const LONGEST_ANSWER: usize = 1 << 20;

/// The document `dto.SecretAgent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::SecretAgent)]
pub struct SecretAgent {
    /// `tcp` or `unix`.
    #[schema(schema_with = ConnectionType::schema)]
    pub connection_type: String,
    /// The host's name or address for `tcp`, the path of the socket for `unix`.
    #[schema(example = "localhost")]
    pub address: String,
    /// The port, for `tcp` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 65535, example = 8080)]
    pub port: Option<i64>,
    /// How long a request may take, in milliseconds; 1000 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 1000, minimum = 1, maximum = 2_678_400_000_i64)]
    pub timeout: Option<i64>,
    /// The certificates to trust, in a PEM file. Given, the agent is asked over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/path/to/ca.pem")]
    pub ca_file: Option<String>,
    /// The certificate to show to the agent, in a PEM file; goes with `key-file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/path/to/cert.pem")]
    pub cert_file: Option<String>,
    /// The key of that certificate, in a PEM file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/path/to/key.pem")]
    pub key_file: Option<String>,
    /// The name in the agent's certificate; `address` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "example.com")]
    pub name: Option<String>,
    /// The agent's secrets are in base64; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub is_base64: Option<bool>,
}

words! {
    /// How to reach a Secret Agent.
    pub enum ConnectionType: "connection type" {
        /// By TCP, with or without TLS.
        Tcp = "tcp",
        /// By a Unix socket.
        Unix = "unix",
    }
}

/// A Secret Agent, ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretAgentSettings {
    /// Where it is.
    pub address: AgentAddress,
    /// How long a request may take.
    pub timeout: Duration,
    /// Whether its secrets are in base64.
    pub base64: bool,
}

/// Where a Secret Agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentAddress {
    /// At a host and a port.
    Tcp {
        /// The name or address of the host.
        host: String,
        /// The port.
        port: u16,
        /// What TLS needs; plain TCP if none.
        tls: Option<AgentTls>,
    },
    /// At a Unix socket.
    Unix(PathBuf),
}

/// What TLS to a Secret Agent needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentTls {
    /// The certificates to trust.
    pub ca_file: PathBuf,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in the agent's certificate.
    pub name: String,
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Secrets for SecretAgent {
    fn each_secret(&mut self, _: &str, _: &mut dyn FnMut(String, &mut SecretText)) {}
}

impl SecretAgent {
    /// What the document means, or all that is wrong with it. `path` is its place, such as `secret-agents.agent1`.
    pub fn check(&self, path: &str) -> Result<SecretAgentSettings, Problems> {
        Check::document(path, |check| self.settings(check))
    }

    pub(crate) fn settings(&self, check: &mut Check<'_>) -> SecretAgentSettings {
        check.filled("address", &self.address);
        let address = match check.valid("connection-type", self.connection_type.parse()) {
            Some(ConnectionType::Unix) => {
                let of_tcp = [
                    ("port", self.port.is_some()),
                    ("ca-file", self.ca_file.is_some()),
                    ("cert-file", self.cert_file.is_some()),
                    ("key-file", self.key_file.is_some()),
                    ("name", self.name.is_some()),
                ];
                for (key, _) in of_tcp.into_iter().filter(|(_, given)| *given) {
                    check.problem(key, "is for connection-type tcp: leave it out");
                }
                AgentAddress::Unix(PathBuf::from(&self.address))
            }
            Some(ConnectionType::Tcp) | None => {
                if self.port.is_none() {
                    check.problem("port", "is required for connection-type tcp");
                }
                AgentAddress::Tcp {
                    host: self.address.clone(),
                    port: check.number("port", self.port, 0, 1..=i64::from(u16::MAX)),
                    tls: self.tls(check),
                }
            }
        };
        let timeout = check.milliseconds("timeout", self.timeout, 1000, 1..=most::MILLISECONDS);
        SecretAgentSettings { address, timeout, base64: self.is_base64.unwrap_or(false) }
    }

    fn tls(&self, check: &mut Check<'_>) -> Option<AgentTls> {
        let file = |key: &str, file: &Option<String>, check: &mut Check<'_>| {
            file.as_ref().inspect(|file| check.filled(key, file)).map(PathBuf::from)
        };
        let ca_file = file("ca-file", &self.ca_file, check);
        let cert_file = file("cert-file", &self.cert_file, check);
        let key_file = file("key-file", &self.key_file, check);
        let name = self.name.clone().unwrap_or_else(|| self.address.clone());
        if self.name.is_some() || ca_file.is_some() {
            check.valid("name", server_name(&name));
        }
        if ca_file.is_none() && (cert_file.is_some() || key_file.is_some() || self.name.is_some()) {
            check.problem("ca-file", "is required for TLS: give the certificates to trust");
        }
        let identity = match (cert_file, key_file) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => {
                check.problem("key-file", "is required with cert-file");
                None
            }
            (None, Some(_)) => {
                check.problem("cert-file", "is required with key-file");
                None
            }
        };
        Some(AgentTls { ca_file: ca_file?, identity, name })
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, crate::InvalidValue> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| crate::InvalidValue::new(name, "is neither the name of a host nor an IP address"))
}

/// Why an agent does not tell a secret.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It was not reached or did not answer in the protocol.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A file that TLS needs is not usable.
    #[error("reading {}: {reason}", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS cannot be set up as configured.
    #[error("setting up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// No answer in time.
    #[error("no answer in {} ms", .0.as_millis())]
    Timeout(Duration),
    /// It says why not.
    #[error("it answers: {0}")]
    Refused(String),
    /// The answer is not what the protocol says, or not text.
    #[error("its answer is {0}")]
    Answer(&'static str),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    resource: &'a str,
    secret_key: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    secret_value: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

impl SecretAgentSettings {
    /// Asks for the secret `key` of `resource`.
    pub async fn ask(&self, resource: &str, key: &str) -> Result<Zeroizing<String>, AgentError> {
        let request = Request { resource, secret_key: key };
        let answer = tokio::time::timeout(self.timeout, self.exchange(&request))
            .await
            .map_err(|_| AgentError::Timeout(self.timeout))??;
        let secret = match answer {
            Answer { error: Some(error), .. } if !error.is_empty() => return Err(AgentError::Refused(error)),
            Answer { secret_value: Some(secret), .. } => Zeroizing::new(secret),
            Answer { .. } => return Err(AgentError::Answer("without SecretValue")),
        };
        if !self.base64 {
            return Ok(secret);
        }
        let bytes = base64_simd::STANDARD
            .decode_to_vec(secret.trim().as_bytes())
            .map_err(|_| AgentError::Answer("not base64, though is-base64 says so"))?;
        let text = String::from_utf8(bytes).map_err(|_| AgentError::Answer("not text"))?;
        Ok(Zeroizing::new(text))
    }

    async fn exchange(&self, request: &Request<'_>) -> Result<Answer, AgentError> {
        match &self.address {
            AgentAddress::Unix(path) => talk(UnixStream::connect(path).await?, request).await,
            AgentAddress::Tcp { host, port, tls: None } => {
                talk(TcpStream::connect((host.as_str(), *port)).await?, request).await
            }
            AgentAddress::Tcp { host, port, tls: Some(tls) } => {
                let connector = tokio_rustls::TlsConnector::from(Arc::new(tls.client()?));
                let name = server_name(&tls.name).map_err(|error| io::Error::other(error.to_string()))?;
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                talk(connector.connect(name, stream).await?, request).await
            }
        }
    }
}

impl AgentTls {
    fn client(&self) -> Result<rustls::ClientConfig, AgentError> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(&self.ca_file)? {
            roots.add(certificate)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        Ok(match &self.identity {
            None => client.with_no_client_auth(),
            Some((certificate, key)) => {
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?;
                client.with_client_auth_cert(certificates(certificate)?, private)?
            }
        })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, AgentError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unusable(path, error))?;
    if certificates.is_empty() {
        return Err(unusable(path, "it holds no certificate"));
    }
    Ok(certificates)
}

fn unusable(path: &Path, reason: impl fmt::Display) -> AgentError {
    AgentError::TlsFile { path: path.to_owned(), reason: reason.to_string() }
}

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &Request<'_>,
) -> Result<Answer, AgentError> {
    let body = serde_json::to_vec(request).map_err(io::Error::from)?;
    let mut message = MAGIC.to_be_bytes().to_vec();
    message.extend_from_slice(&(body.len() as u32).to_be_bytes());
    message.extend_from_slice(&body);
    stream.write_all(&message).await?;
    stream.flush().await?;
    if stream.read_u32().await? != MAGIC {
        return Err(AgentError::Answer("not that of a secret agent: its magic number is wrong"));
    }
    let length = stream.read_u32().await? as usize;
    if length > LONGEST_ANSWER {
        return Err(AgentError::Answer("longer than a mebibyte"));
    }
    let mut answer = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut answer).await?;
    serde_json::from_slice(&answer).map_err(|_| AgentError::Answer("no JSON object of an answer"))
}
