//! How connections to the nodes of a cluster are made: over TLS or not, logged in or not.

use std::sync::Arc;
use std::time::Duration;

use aerospike::{AuthMode, ClientPolicy, Host, TlsPolicy};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::login::{self, Login};
use crate::{ClusterError, ConnectOptions, Connection, Credentials, Node, Seed};

/// How long a cluster that could not be connected to may take to say whether a login was missing.
const SECOND_QUESTION: Duration = Duration::from_secs(1);

/// What every connection to a cluster needs.
pub(crate) struct Access {
    timeout: Duration,
    tls: Option<Tls>,
    login: Option<Login>,
}

struct Tls {
    config: Arc<ClientConfig>,
    /// The name of certificates unless another is said.
    name: Option<String>,
}

impl Access {
    /// Reads the files of the TLS options and hashes the password, on a thread that may block.
    pub(crate) async fn new(options: &ConnectOptions) -> Result<Self, ClusterError> {
        let (credentials, tls, timeout) = (options.credentials.clone(), options.tls.clone(), options.timeout);
        check(credentials.as_ref(), options)?;
        let work = move || {
            let login = credentials.map(Login::new).transpose()?;
            let tls = tls.map(|tls| Ok(Tls { config: Arc::new(tls.client_config()?), name: tls.name }));
            Ok(Self { timeout, tls: tls.transpose()?, login })
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|e| ClusterError::Credentials(format!("the options could not be read: {e}")))?
    }

    /// Whether there is more to a connection than TCP.
    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none() && self.login.is_none()
    }

    /// The certificate name of a host that has none of its own.
    fn tls_name<'a>(&'a self, own: Option<&'a str>, host: &'a str) -> &'a str {
        own.or(self.tls.as_ref().and_then(|tls| tls.name.as_deref())).unwrap_or(host)
    }

    /// Sets what the client for discovery and info needs of this.
    pub(crate) fn apply_to(&self, policy: &mut ClientPolicy, credentials: Option<&Credentials>) {
        policy.tls_policy = self.tls.as_ref().map(|tls| TlsPolicy::new(Arc::clone(&tls.config)));
        policy.auth_mode = match credentials {
            None => AuthMode::None,
            Some(Credentials::Internal { user, password }) => {
                AuthMode::Internal(user.clone(), password.to_string())
            }
            Some(Credentials::External { user, password }) => {
                AuthMode::External(user.clone(), password.to_string())
            }
            Some(Credentials::Pki) => AuthMode::Pki,
        };
    }

    /// A seed as the client for discovery and info takes it.
    pub(crate) fn host(&self, seed: &Seed) -> Host {
        match &self.tls {
            None => Host::new(&seed.host, seed.port),
            Some(_) => {
                Host::new_tls(&seed.host, self.tls_name(seed.tls_name.as_deref(), &seed.host), seed.port)
            }
        }
    }

    /// Opens a connection to a node.
    pub(crate) async fn open(&self, node: &Node) -> Result<Connection, ClusterError> {
        self.open_to(&node.host, node.port, node.tls_name.as_deref()).await
    }

    /// Finds out whether the nodes let us in: what they say against it is lost inside the client for discovery. One seed
    /// that lets us in is enough.
    pub(crate) async fn probe(&self, seeds: &[Seed]) -> Result<(), ClusterError> {
        let mut refusal = None;
        for seed in seeds {
            match self.open_to(&seed.host, seed.port, seed.tls_name.as_deref()).await {
                Ok(_) => return Ok(()),
                Err(e) if e.is_transient() => {}
                Err(e) => refusal = Some(e),
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Whether a seed serves only users that log in, which the client for discovery does not say.
    pub(crate) async fn is_login_missing(&self, seeds: &[Seed]) -> bool {
        let ask = async {
            for seed in seeds {
                if let Ok(mut connection) =
                    self.open_to(&seed.host, seed.port, seed.tls_name.as_deref()).await
                {
                    return login::is_asked(&mut connection).await;
                }
            }
            false
        };
        self.login.is_none() && tokio::time::timeout(SECOND_QUESTION, ask).await.unwrap_or(false)
    }

    async fn open_to(
        &self,
        host: &str,
        port: u16,
        tls_name: Option<&str>,
    ) -> Result<Connection, ClusterError> {
        let mut connection = Connection::open(host, port, self.timeout).await?;
        if let Some(tls) = &self.tls {
            let name = self.tls_name(tls_name, host);
            let name = ServerName::try_from(name.to_owned())
                .map_err(|_| ClusterError::Tls(format!("{name:?} is no name that a certificate can have")))?;
            connection = connection.encrypt(&TlsConnector::from(Arc::clone(&tls.config)), name).await?;
        }
        if let Some(login) = &self.login {
            login.admit(&mut connection).await?;
        }
        Ok(connection)
    }
}

/// What credentials ask of the rest of the options.
fn check(credentials: Option<&Credentials>, options: &ConnectOptions) -> Result<(), ClusterError> {
    let tls = options.tls.as_ref();
    let wrong = |what: &str| Err(ClusterError::Credentials(what.to_owned()));
    match credentials {
        Some(Credentials::External { .. }) if tls.is_none() => {
            wrong("EXTERNAL sends the password itself: set up TLS")
        }
        Some(Credentials::Pki) if tls.is_none_or(|tls| tls.identity.is_none()) => {
            wrong("PKI takes the user from our certificate: set up TLS with cert-file and key-file")
        }
        Some(credentials) if credentials.user() == Some("") => wrong("the name of the user is empty"),
        _ => Ok(()),
    }
}
