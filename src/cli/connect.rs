//! The options of the way to a cluster: its address, who we are, TLS.

use std::path::PathBuf;
use std::time::Duration;

use abs_cluster::{Cluster, ConnectOptions, Credentials, ProtocolVersion, Seed, TlsIdentity, TlsOptions};
use abs_config::TlsProtocols;
use abs_engine::EngineError;
use clap::Args;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::Failure;

/// How to reach the cluster.
#[allow(clippy::struct_field_names, reason = "fields are named as their options")]
#[derive(Debug, Args)]
pub(super) struct Connect {
    /// Nodes to ask first; one that answers is enough. The port is 3000 when not said.
    #[arg(short = 'h', long, value_name = "HOST[:PORT]", required = true, value_delimiter = ',')]
    host: Vec<Seed>,
    /// Use the addresses that nodes publish as alternate ones.
    #[arg(long)]
    use_services_alternate: bool,
    /// Milliseconds that a connect or an info command may take.
    #[arg(long, value_name = "MS", default_value_t = 3000, value_parser = clap::value_parser!(u64).range(1..))]
    connect_timeout: u64,
    #[command(flatten)]
    login: Login,
    #[command(flatten)]
    tls: Tls,
}

impl Connect {
    /// Connects, unless a signal comes first.
    pub(super) async fn connect(self, cancel: &CancellationToken) -> Result<Cluster, Failure> {
        let connect = Cluster::connect(ConnectOptions {
            timeout: Duration::from_millis(self.connect_timeout),
            use_services_alternate: self.use_services_alternate,
            credentials: self.login.credentials()?,
            tls: self.tls.options()?,
            ..ConnectOptions::new(self.host)
        });
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Failure::job(EngineError::Canceled)),
            cluster = connect => cluster.map_err(Failure::job),
        }
    }
}

/// Who we are to the cluster.
#[derive(Debug, Args)]
struct Login {
    /// The user to log in as.
    #[arg(short = 'U', long)]
    user: Option<String>,
    /// Environment variable with the user's password.
    #[arg(long, value_name = "NAME", group = "secret", requires = "user")]
    password_env: Option<String>,
    /// File with the user's password.
    #[arg(long, value_name = "FILE", group = "secret", requires = "user")]
    password_file: Option<PathBuf>,
    /// The user's password. Others can see it in the list of processes: prefer --password-file or --password-env.
    #[arg(short = 'P', long, group = "secret", requires = "user")]
    password: Option<Password>,
    /// How to log in: as a user of the cluster, of an external service (needs TLS), or with our certificate.
    #[arg(
        short = 'A',
        long,
        value_name = "internal|external|pki",
        ignore_case = true,
        hide_possible_values = true
    )]
    auth: Option<Auth>,
}

/// A password that `Debug` does not show.
#[derive(Clone)]
struct Password(Zeroizing<String>);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Auth {
    Internal,
    External,
    Pki,
}

impl Login {
    fn credentials(self) -> Result<Option<Credentials>, Failure> {
        let password = Secret { env: self.password_env, file: self.password_file, plain: self.password };
        match (self.user, self.auth) {
            (None, None) => Ok(None),
            (user, Some(Auth::Pki)) => {
                if user.is_some() {
                    return Err(Failure::usage(
                        "--auth pki takes the user from the certificate: leave out --user",
                    ));
                }
                Ok(Some(Credentials::Pki))
            }
            (Some(user), auth) => {
                let password = password.read("the password")?.ok_or_else(|| {
                    Failure::usage("--user needs --password-file, --password-env or --password")
                })?;
                Ok(Some(match auth {
                    Some(Auth::External) => Credentials::External { user, password },
                    _ => Credentials::Internal { user, password },
                }))
            }
            (None, Some(_)) => Err(Failure::usage("--auth needs --user")),
        }
    }
}

/// A secret as options give it.
struct Secret {
    env: Option<String>,
    file: Option<PathBuf>,
    plain: Option<Password>,
}

impl Secret {
    /// The secret, which messages call `what`.
    fn read(self, what: &str) -> Result<Option<Zeroizing<String>>, Failure> {
        if let Some(name) = self.env {
            let value = std::env::var(&name)
                .map_err(|_| Failure::Usage(format!("the environment variable {name} is not set")))?;
            return Ok(Some(value.into()));
        }
        if let Some(file) = self.file {
            let text = std::fs::read_to_string(&file).map(Zeroizing::new);
            let text =
                text.map_err(|e| Failure::Usage(format!("cannot read {what} in {}: {e}", file.display())))?;
            return Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned().into()));
        }
        Ok(self.plain.map(|password| password.0))
    }
}

/// How to speak TLS to the cluster.
#[allow(clippy::struct_field_names, reason = "fields are named as their options")]
#[derive(Debug, Args)]
struct Tls {
    /// Speak TLS.
    #[arg(long)]
    tls_enable: bool,
    /// The name in the nodes' certificates; their host's when not said, or `HOST:NAME:PORT` for one node.
    #[arg(long, value_name = "NAME", requires = "tls_enable")]
    tls_name: Option<String>,
    /// Certificates to trust, in PEM; the system's when neither this nor --tls-capath is said.
    #[arg(long, value_name = "FILE", requires = "tls_enable")]
    tls_cafile: Option<PathBuf>,
    /// Folder of such files.
    #[arg(long, value_name = "DIR", requires = "tls_enable")]
    tls_capath: Option<PathBuf>,
    /// Our certificate, in PEM.
    #[arg(long, value_name = "FILE", requires_all = ["tls_enable", "tls_keyfile"])]
    tls_certfile: Option<PathBuf>,
    /// The key of our certificate, in PEM.
    #[arg(long, value_name = "FILE", requires_all = ["tls_enable", "tls_certfile"])]
    tls_keyfile: Option<PathBuf>,
    /// What the key is encrypted with: `env:NAME`, `file:PATH`, or the password itself.
    #[arg(long, value_name = "PASSWORD", requires = "tls_keyfile")]
    tls_keyfile_password: Option<Password>,
    /// The versions of TLS: `TLSv1.2`, `TLSv1.3` or `all`, also with `+` and `-`.
    #[arg(long, value_name = "LIST", default_value = "all", requires = "tls_enable")]
    tls_protocols: TlsProtocols,
}

impl Tls {
    fn options(self) -> Result<Option<TlsOptions>, Failure> {
        if !self.tls_enable {
            return Ok(None);
        }
        let key_password = match self.tls_keyfile_password {
            None => None,
            Some(password) => {
                let text = &*password.0;
                let (env, file) = (text.strip_prefix("env:"), text.strip_prefix("file:"));
                let env = env.map(str::to_owned);
                let secret = Secret { env, file: file.map(PathBuf::from), plain: Some(password.clone()) };
                secret.read("the password of the key")?
            }
        };
        let identity = self.tls_certfile.zip(self.tls_keyfile).map(|(cert_file, key_file)| TlsIdentity {
            cert_file,
            key_file,
            key_password,
        });
        let TlsProtocols { v1_2, v1_3 } = self.tls_protocols;
        let versions = [(v1_2, ProtocolVersion::TLSv1_2), (v1_3, ProtocolVersion::TLSv1_3)];
        Ok(Some(TlsOptions {
            name: self.tls_name,
            ca_file: self.tls_cafile,
            ca_path: self.tls_capath,
            identity,
            protocols: versions.into_iter().filter(|(on, _)| *on).map(|(_, version)| version).collect(),
            cipher_suites: Vec::new(),
        }))
    }
}
