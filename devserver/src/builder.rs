//! How a server is described and started.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};

use crate::cluster::{Cluster, Enterprise};
use crate::masking::MaskingRule;
use crate::namespace::Namespace;
use crate::security::{self, Proof, Roles, Security};
use crate::server::DevServer;
use crate::tls::{Tls, TlsFiles};

/// The most nodes; succession lists and bitmaps are made for few.
const MAX_NODES: usize = 64;
/// The longest namespace name, in bytes.
const MAX_NAMESPACE_NAME: usize = 31;

/// Why the server does not start, or does not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The description of the server makes no sense.
    #[error("cannot build the development server: {0}")]
    Build(String),
    /// There is no such node.
    #[error("the development server has no node {0}")]
    NoSuchNode(usize),
    /// There is no such partition.
    #[error("there is no partition {0}, the last is 4095")]
    NoSuchPartition(usize),
}

/// Describes a server before it starts.
#[derive(Clone, Debug)]
pub struct Builder {
    listen: SocketAddr,
    nodes: usize,
    cluster_name: String,
    replication_factor: usize,
    namespaces: Vec<(String, u64, u32)>,
    users: Vec<(String, Login)>,
    session_ttl: Duration,
    roles: Roles,
    tls: Option<TlsFiles>,
    racks: Option<Vec<u32>>,
    masking: Vec<MaskingRule>,
    is_volatile: bool,
}

/// How a user will log in.
#[derive(Clone)]
enum Login {
    Password(String),
    External(String),
    Certificate,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            nodes: 1,
            cluster_name: "devserver".into(),
            replication_factor: 2,
            namespaces: Vec::new(),
            users: Vec::new(),
            session_ttl: security::SESSION_TTL,
            roles: Roles::default(),
            tls: None,
            racks: None,
            masking: Vec::new(),
            is_volatile: false,
        }
    }
}

impl Builder {
    /// Where the first node listens; the others take the ports after it. With port 0 (the default, on
    /// 127.0.0.1) the system chooses every port.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Builder {
        self.listen = address;
        self
    }

    /// How many nodes, 1 when not said. Each has its own port and masters its share of the partitions.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Builder {
        self.nodes = nodes;
        self
    }

    /// Adds a namespace that holds at most `bytes` of records.
    #[must_use]
    pub fn namespace(self, name: impl Into<String>, bytes: u64) -> Builder {
        self.namespace_with_ttl(name, bytes, 0)
    }

    /// Adds a namespace whose records expire after `default_ttl` seconds unless a write says otherwise.
    #[must_use]
    pub fn namespace_with_ttl(mut self, name: impl Into<String>, bytes: u64, default_ttl: u32) -> Builder {
        self.namespaces.push((name.into(), bytes, default_ttl));
        self
    }

    /// The name of the cluster, `devserver` when not said.
    #[must_use]
    pub fn cluster_name(mut self, name: impl Into<String>) -> Builder {
        self.cluster_name = name.into();
        self
    }

    /// How many nodes hold each partition in the eyes of the clients, 2 when not said; never more than live.
    #[must_use]
    pub fn replication_factor(mut self, replicas: usize) -> Builder {
        self.replication_factor = replicas;
        self
    }

    /// Adds a user, who logs in with this password (`INTERNAL`). With the first user the server serves nobody who has
    /// not logged in. A user may do everything unless [`user_roles`](Self::user_roles) says otherwise.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Builder {
        self.users.push((name.into(), Login::Password(password.into())));
        self
    }

    /// Adds a user whose password some other service would know (`EXTERNAL`).
    #[must_use]
    pub fn external_user(mut self, name: impl Into<String>, password: impl Into<String>) -> Builder {
        self.users.push((name.into(), Login::External(password.into())));
        self
    }

    /// Adds a user who logs in with a TLS certificate that has this common name (`PKI`).
    #[must_use]
    pub fn certified_user(mut self, name: impl Into<String>) -> Builder {
        self.users.push((name.into(), Login::Certificate));
        self
    }

    /// Restricts a user to these roles. Only `read-masked`, `user-admin` and the roles of
    /// [`masked_reader_role`](Self::masked_reader_role) make a difference.
    #[must_use]
    pub fn user_roles(mut self, user: impl Into<String>, roles: &[&str]) -> Builder {
        self.roles.of_users.insert(user.into(), roles.iter().map(ToString::to_string).collect());
        self
    }

    /// Adds a user-defined role with the privilege `read-masked` on one namespace.
    #[must_use]
    pub fn masked_reader_role(mut self, name: impl Into<String>, namespace: impl Into<String>) -> Builder {
        self.roles.masked_readers.insert(name.into(), namespace.into());
        self
    }

    /// Adds a masking rule with the function `redact`: a query answers a string of this bin as asterisks unless the user
    /// has the privilege `read-masked`. Records read by key and writes are not masked or refused here.
    #[must_use]
    pub fn masked_bin(
        mut self,
        namespace: impl Into<String>,
        set: impl Into<String>,
        bin: impl Into<String>,
    ) -> Builder {
        self.masking.push(MaskingRule { namespace: namespace.into(), set: set.into(), bin: bin.into() });
        self
    }

    /// Records are in memory only: they are lost when the last node that lives is stopped.
    #[must_use]
    pub fn volatile(mut self) -> Builder {
        self.is_volatile = true;
        self
    }

    /// How long the token of a login is good for further connections, a day when not said; counted in seconds.
    #[must_use]
    pub fn session_ttl(mut self, ttl: Duration) -> Builder {
        self.session_ttl = ttl;
        self
    }

    /// All nodes speak TLS only, with this certificate and key in PEM. `name` is what clients find in the certificate.
    #[must_use]
    pub fn tls(
        mut self,
        name: impl Into<String>,
        certificate: impl Into<String>,
        key: impl Into<String>,
    ) -> Builder {
        let (name, certificate, key) = (name.into(), certificate.into(), key.into());
        self.tls = Some(TlsFiles { name, certificate, key, client_ca: None });
        self
    }

    /// Like [`tls`](Self::tls), and clients must have a certificate of these authorities (PEM).
    #[must_use]
    pub fn mutual_tls(
        self,
        name: impl Into<String>,
        certificate: impl Into<String>,
        key: impl Into<String>,
        authorities: impl Into<String>,
    ) -> Builder {
        let mut builder = self.tls(name, certificate, key);
        if let Some(tls) = &mut builder.tls {
            tls.client_ca = Some(authorities.into());
        }
        builder
    }

    /// The rack of each node, in the order of their numbers; the same for every namespace. Replicas lie in other racks
    /// than their masters as long as there are any.
    #[must_use]
    pub fn racks(mut self, racks: impl Into<Vec<u32>>) -> Builder {
        self.racks = Some(racks.into());
        self
    }

    fn check(&self) -> Result<(), ServerError> {
        let wrong = |text: String| Err(ServerError::Build(text));
        if !(1..=MAX_NODES).contains(&self.nodes) {
            return wrong(format!("{} nodes, between 1 and {MAX_NODES} are possible", self.nodes));
        }
        if self.namespaces.is_empty() {
            return wrong("no namespace".into());
        }
        if self.replication_factor == 0 {
            return wrong("a replication factor of 0".into());
        }
        if let Some(racks) = &self.racks
            && racks.len() != self.nodes
        {
            return wrong(format!("{} racks for {} nodes, each has one", racks.len(), self.nodes));
        }
        for (at, (name, ..)) in self.namespaces.iter().enumerate() {
            if name.is_empty()
                || name.len() > MAX_NAMESPACE_NAME
                || name.contains([':', ';', ',', '/', '\n', '\t'])
            {
                return wrong(format!("'{name}' is no name for a namespace"));
            }
            if self.namespaces[..at].iter().any(|(other, ..)| other == name) {
                return wrong(format!("namespace '{name}' is named twice"));
            }
        }
        Ok(())
    }

    /// Starts all nodes on the present tokio runtime. They listen when this returns.
    #[expect(clippy::unused_async, reason = "async says that a runtime must be there")]
    pub async fn start(mut self) -> Result<DevServer, ServerError> {
        self.check()?;
        let enterprise = self.enterprise()?;
        let mut listeners = Vec::new();
        for node in 0..self.nodes {
            let mut address = self.listen;
            if address.port() != 0 {
                let port = usize::from(address.port()) + node;
                address
                    .set_port(u16::try_from(port).map_err(|_| ServerError::Build(format!("port {port}")))?);
            }
            listeners.push(listen(address)?);
        }
        let mut addresses = Vec::new();
        for listener in &listeners {
            let address = listener.local_addr();
            addresses.push(address.map_err(|source| ServerError::Listen { address: self.listen, source })?);
        }
        let namespaces = self
            .namespaces
            .into_iter()
            .map(|(name, limit, default_ttl)| Arc::new(Namespace::new(name, limit, default_ttl)))
            .collect();
        let cluster = Cluster::new(
            self.cluster_name,
            namespaces,
            self.replication_factor,
            &addresses,
            enterprise,
            self.is_volatile,
        );
        Ok(DevServer::open(Arc::new(cluster), addresses, listeners))
    }

    /// What only the enterprise edition has.
    fn enterprise(&mut self) -> Result<Enterprise, ServerError> {
        let proof = |login| match login {
            Login::Password(password) => Ok(Proof::Password(security::hash(&password)?)),
            Login::External(password) => Ok(Proof::External(password)),
            Login::Certificate => Ok(Proof::Certificate),
        };
        let users = std::mem::take(&mut self.users).into_iter();
        let users: HashMap<_, _> =
            users.map(|(name, login)| Ok((name, proof(login)?))).collect::<Result<_, ServerError>>()?;
        let security = (!users.is_empty())
            .then(|| Security::new(users, std::mem::take(&mut self.roles), self.session_ttl));
        let tls = self.tls.take().map(Tls::new).transpose()?;
        let masking = std::mem::take(&mut self.masking);
        Ok(Enterprise { security, tls, racks: self.racks.take(), masking })
    }
}

pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let open = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A node that starts again takes the port it had.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(1024)
    };
    open().map_err(|source| ServerError::Listen { address, source })
}
