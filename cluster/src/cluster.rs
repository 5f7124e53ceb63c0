//! A cluster: its nodes, its info commands, its pooled raw connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aerospike::policy::AdminPolicy;
use aerospike::{Client, ClientPolicy};
use futures_util::future::join_all;

use crate::access::Access;
use crate::{ClusterError, Connection, Credentials, PartitionMap, Seed, TlsOptions};

/// Connections that rested longer than this are closed: servers close theirs after a minute.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Addresses to ask first; one that answers is enough.
    pub seeds: Vec<Seed>,
    /// Limit for a connect with its handshake and login, and for an info command. 30 s when not said.
    pub timeout: Duration,
    /// Use the addresses that nodes publish as alternate ones.
    pub use_services_alternate: bool,
    /// Who we are; `None` for a cluster that does not ask.
    pub credentials: Option<Credentials>,
    /// Speak TLS; `None` for plain TCP.
    pub tls: Option<TlsOptions>,
}

impl ConnectOptions {
    /// The options of a cluster without credentials and TLS.
    #[must_use]
    pub fn new(seeds: Vec<Seed>) -> Self {
        let timeout = Duration::from_secs(30);
        Self { seeds, timeout, use_services_alternate: false, credentials: None, tls: None }
    }
}

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// The node's id, as `node` tells it.
    pub name: Arc<str>,
    /// Name or address of its service.
    pub host: Arc<str>,
    /// Port of its service.
    pub port: u16,
    /// The name that its certificate has; `None` without TLS.
    pub tls_name: Option<Arc<str>>,
}

/// What the nodes of a cluster answered to an info command.
#[derive(Debug)]
pub struct InfoAnswers {
    /// The nodes that answered, and what.
    pub answers: Vec<(Node, String)>,
    /// The nodes that did not, or refused, and why.
    pub silent: Vec<(Node, ClusterError)>,
}

/// A connected cluster. Nodes that join and leave are followed in the background. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

type Resting = HashMap<(Arc<str>, u16), Vec<Connection>>;

struct Inner {
    client: Client,
    options: ConnectOptions,
    access: Access,
    /// Connections at rest, by node address.
    resting: Mutex<Resting>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("seeds", &self.inner.options.seeds).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Connects, logs in and discovers the nodes.
    pub async fn connect(options: ConnectOptions) -> Result<Self, ClusterError> {
        let access = Access::new(&options).await?;
        let timeout = u32::try_from(options.timeout.as_millis()).unwrap_or(u32::MAX);
        let mut policy = ClientPolicy {
            timeout,
            login_timeout: timeout,
            use_services_alternate: options.use_services_alternate,
            // A node that left is noticed within half a second.
            tend_interval: 500,
            ..ClientPolicy::default()
        };
        access.apply_to(&mut policy, options.credentials.as_ref());
        if !access.is_plain() {
            access.probe(&options.seeds).await?;
        }
        let hosts: Vec<_> = options.seeds.iter().map(|seed| access.host(seed)).collect();
        let client = match Client::new(&policy, &hosts).await {
            Ok(client) => client,
            Err(_) if access.is_login_missing(&options.seeds).await => {
                return Err(ClusterError::LoginRequired { seeds: list(&options.seeds) });
            }
            Err(e) => return Err(unreachable(&options.seeds, &e)),
        };
        Ok(Self { inner: Arc::new(Inner { client, options, access, resting: Mutex::default() }) })
    }

    /// The nodes the cluster has now.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        self.inner.client.nodes().iter().map(|node| Node::from(&**node)).collect()
    }

    /// Asks all nodes the same info command, at the same time: one that does not answer costs its timeout once. Fails when
    /// none answers.
    pub async fn info_all(&self, command: &str) -> Result<InfoAnswers, ClusterError> {
        let nodes = self.inner.client.nodes();
        let asked = nodes.iter().map(|node| async move { self.ask(node, command).await.flatten() });
        let mut all = InfoAnswers { answers: Vec::with_capacity(nodes.len()), silent: Vec::new() };
        for (node, answer) in nodes.iter().zip(join_all(asked).await) {
            match answer {
                Ok(answer) => all.answers.push((Node::from(&**node), answer)),
                Err(e) => all.silent.push((Node::from(&**node), e)),
            }
        }
        if all.answers.is_empty() {
            return Err(all.silent.pop().map_or_else(|| self.abandoned(), |(_, e)| e));
        }
        Ok(all)
    }

    /// Asks one node, any, an info command; the next one if it does not answer, as one that has just left.
    pub async fn info(&self, command: &str) -> Result<String, ClusterError> {
        let first = self.inner.client.random_node().map_err(|_| self.abandoned())?;
        let silent = match self.ask(&first, command).await {
            Ok(answer) => return answer,
            Err(e) => e,
        };
        for node in self.inner.client.nodes().iter().filter(|node| node.name() != first.name()) {
            if let Ok(answer) = self.ask(node, command).await {
                return answer;
            }
        }
        Err(silent)
    }

    /// Asks this node an info command.
    pub(crate) async fn info_of(&self, node: &Node, command: &str) -> Result<String, ClusterError> {
        let nodes = self.inner.client.nodes();
        let found = nodes.iter().find(|other| other.name() == &*node.name);
        let found = found.ok_or_else(|| ClusterError::NoNode(node.name.to_string()))?;
        self.ask(found, command).await?
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Who we are; `None` on a cluster without login.
    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        self.inner.options.credentials.as_ref()
    }

    pub(crate) fn admin_policy(&self) -> AdminPolicy {
        let timeout = u32::try_from(self.inner.options.timeout.as_millis()).unwrap_or(u32::MAX);
        AdminPolicy { timeout }
    }

    /// The error when all nodes have left.
    pub(crate) fn abandoned(&self) -> ClusterError {
        let seeds = list(&self.inner.options.seeds);
        ClusterError::Unreachable { seeds, cause: "no node is left".to_owned() }
    }

    /// Asks a node. The outer error is that it did not answer, the inner one that it refused.
    async fn ask(
        &self,
        node: &aerospike::Node,
        command: &str,
    ) -> Result<Result<String, ClusterError>, ClusterError> {
        let node_name = node.name().to_owned();
        let short = || command.split(';').next().unwrap_or(command).to_owned();
        let silent = |cause: &str| ClusterError::NoAnswer {
            command: short(),
            node: node_name.clone(),
            cause: one_line(cause),
        };
        let answer = node
            .info(&self.admin_policy(), &[command])
            .await
            .map_err(|e| silent(&e.to_string()))?
            .swap_remove(command)
            .ok_or_else(|| silent("no answer"))?;
        // Failures look like `ERROR:4:text`, `FAIL:4:text` or `ERROR::text`.
        if answer.starts_with("ERROR") || answer.starts_with("FAIL") || answer.starts_with("error=") {
            let answer = one_line(&with_message(&answer));
            return Ok(Err(ClusterError::Info { command: short(), node: node_name, answer }));
        }
        Ok(Ok(answer))
    }

    /// Whether some node answers now: the cheap question of a health check.
    pub async fn check_reachable(&self) -> Result<(), ClusterError> {
        self.info("node").await.map(drop)
    }

    /// The server version of the oldest node, as (major, minor).
    #[must_use]
    pub fn version(&self) -> (u64, u64) {
        let nodes = self.inner.client.nodes();
        nodes.iter().map(|n| (n.version().major, n.version().minor)).min().unwrap_or((0, 0))
    }

    /// The server version of the newest node, as (major, minor, patch).
    pub(crate) fn newest_version(&self) -> (u64, u64, u64) {
        let nodes = self.inner.client.nodes();
        let version = |node: &Arc<aerospike::Node>| {
            let version = node.version();
            (version.major, version.minor, version.patch)
        };
        nodes.iter().map(version).max().unwrap_or_default()
    }

    /// Asks all nodes which partitions of `namespace` they master, now.
    pub async fn partition_map(&self, namespace: &str) -> Result<PartitionMap, ClusterError> {
        Ok(PartitionMap::from_answers(namespace, self.info_all("replicas").await?.answers, |_| None))
    }

    /// The names of the namespaces.
    pub async fn namespaces(&self) -> Result<Vec<String>, ClusterError> {
        let answer = self.info("namespaces").await?;
        Ok(answer.split(';').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// A raw connection to a node: one at rest, or a new one.
    pub async fn connection(&self, node: &Node) -> Result<Connection, ClusterError> {
        let key = (Arc::clone(&node.host), node.port);
        while let Some(mut connection) = self.resting().get_mut(&key).and_then(Vec::pop) {
            if connection.idle() < IDLE_MAX && connection.is_quiet() {
                connection.set_timeout(self.inner.options.timeout);
                return Ok(connection);
            }
        }
        self.inner.access.open(node).await
    }

    /// Gives a connection back after an exchange that ended well.
    pub fn release(&self, node: &Node, mut connection: Connection) {
        if connection.rest() {
            let mut resting = self.resting();
            let of_node = resting.entry((Arc::clone(&node.host), node.port)).or_default();
            // The one that rested longest is the first.
            let stale = of_node.iter().take_while(|other| other.idle() >= IDLE_MAX).count();
            of_node.drain(..stale);
            of_node.push(connection);
        }
    }

    /// The limit for a connect and for an info command.
    pub(crate) fn timeout(&self) -> Duration {
        self.inner.options.timeout
    }

    fn resting(&self) -> MutexGuard<'_, Resting> {
        self.inner.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes all connections. The cluster is of no use afterwards.
    pub async fn close(&self) {
        self.resting().clear();
        // The only failure is a tend task that is gone already.
        let _ = self.inner.client.close().await;
    }
}

impl Node {
    /// `HOST:PORT` of its service, as errors and node lists name it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl From<&aerospike::Node> for Node {
    fn from(node: &aerospike::Node) -> Self {
        let host = node.host();
        Self {
            name: node.name().into(),
            host: host.name.into(),
            port: host.port,
            tls_name: host.tls_name.map(Into::into),
        }
    }
}

/// A module that does not compile is refused with `error=…;file=…;line=…;message=BASE64`.
fn with_message(answer: &str) -> String {
    let decoded = answer.rsplit_once(";message=").and_then(|(front, message)| {
        let message = base64_simd::STANDARD.decode_to_vec(message.trim_end_matches(';')).ok()?;
        Some(format!("{front}: {}", String::from_utf8_lossy(&message)))
    });
    decoded.unwrap_or_else(|| answer.to_owned())
}

/// Seeds as a user writes them.
fn list(seeds: &[Seed]) -> String {
    seeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn unreachable(seeds: &[Seed], cause: &aerospike::Error) -> ClusterError {
    let seeds = list(seeds);
    let cause = bare_cause(&cause.to_string(), &seeds);
    ClusterError::Unreachable { seeds, cause }
}

/// The client wraps the cause in layers, each with a code: `Error -8: … host(s): HOST Error -1: … operation: CAUSE`.
/// What a user can act upon is the innermost, for each seed.
fn bare_cause(text: &str, seeds: &str) -> String {
    let text = one_line(text);
    let text = text.split_once("host(s): ").map_or(&*text, |(_, causes)| causes);
    let mut words = Vec::new();
    let mut rest = text.split(' ').peekable();
    while let Some(word) = rest.next() {
        let is_code = |next: &&str| next.strip_suffix(':').is_some_and(|code| code.parse::<i32>().is_ok());
        if word == "Error" && rest.next_if(is_code).is_some() {
            continue;
        }
        words.push(word);
    }
    let mut cause = words.join(" ");
    for layer in
        ["Error during an I/O operation: ", "Failed to resolve host aliases caused by: ", "Client Timeout: "]
    {
        cause = cause.replace(layer, "");
    }
    // With one seed there is no need to say which; the client writes IPv6 addresses without brackets.
    let bare = seeds.replace(['[', ']'], "");
    cause.strip_prefix(&bare).map_or(&*cause, str::trim_start).to_owned()
}

/// Multi-line causes of the client become one line.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_cause_is_left() {
        let refused = "Error -8: Unable to communicate with server cluster: Failed to connect to [1] host(s):\n  \
                       db1:3000 Error -1: Error during an I/O operation: Connection refused (os error 111)\n";
        assert_eq!(bare_cause(refused, "db1:3000"), "Connection refused (os error 111)");
        assert_eq!(bare_cause(refused, "db1:3000,db2:3000"), "db1:3000 Connection refused (os error 111)");
        assert_eq!(bare_cause("Error in the works", "db1:3000"), "Error in the works");
        let v6 =
            "Failed to connect to [1] host(s): ::1:3000 Error -1: Error during an I/O operation: refused";
        assert_eq!(bare_cause(v6, "[::1]:3000"), "refused");
    }

    #[test]
    fn the_message_of_a_refused_module_can_be_read() {
        let answer = "error=compile_error;file=a.lua;line=3;message=dW5leHBlY3RlZCBzeW1ib2wgbmVhciAnKyc=";
        let readable = "error=compile_error;file=a.lua;line=3: unexpected symbol near '+'";
        assert_eq!(with_message(answer), readable);
        assert_eq!(with_message("ERROR:4:bad"), "ERROR:4:bad");
    }
}
