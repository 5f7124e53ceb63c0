//! What can go wrong between us and a cluster, and what may be tried again.

use std::fmt;
use std::time::Duration;

/// A result code of the server, as it stands in a message header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResultCode(pub u8);

impl ResultCode {
    /// Success.
    pub const OK: Self = Self(0);
    /// The record is not there (update-only and replace-only writes).
    pub const NOT_FOUND: Self = Self(2);
    /// The stored generation does not satisfy the write's generation policy.
    pub const GENERATION: Self = Self(3);
    /// A parameter of the request is wrong.
    pub const PARAMETER: Self = Self(4);
    /// The record exists (create-only writes).
    pub const EXISTS: Self = Self(5);
    /// The record is larger than the server takes.
    pub const RECORD_TOO_BIG: Self = Self(13);
    /// The server cannot know users.
    pub const SECURITY_NOT_SUPPORTED: Self = Self(51);
    /// The cluster knows users but does not ask for them: who logs in goes on without.
    pub const SECURITY_NOT_ENABLED: Self = Self(52);
    /// This node does not serve that partition now.
    pub const PARTITION_UNAVAILABLE: Self = Self(11);

    /// True when the same request may succeed a little later, perhaps on another node.
    #[must_use]
    pub fn is_transient(self) -> bool {
        // Codes of the server's proto.h: 1 unknown (a dying node), 7 cluster key mismatch (the cluster re-forms),
        // 8 stopped writes (until records expire or are evicted), 9 timeout, 11 unavailable, 14 key busy, 15 query
        // abort, 18 device overload, 28 lost conflict, 32 not yet shipped by XDR, 83 quota exceeded, 120 blocked by a
        // transaction, 152 batch queues full.
        matches!(self.0, 1 | 7 | 8 | 9 | 11 | 14 | 15 | 18 | 28 | 32 | 83 | 120 | 152)
    }

    /// True when a write with this answer may have been done.
    #[must_use]
    pub fn is_in_doubt(self) -> bool {
        // The server gave up waiting for its replicas, or for the node that it asked in our place.
        self.0 == 9
    }

    /// True when a write was refused for what the record itself is. Every other refusal is about the namespace, the set,
    /// the user or the request: it meets records that are in order.
    #[must_use]
    pub fn is_of_record(self) -> bool {
        // 12 incompatible bin type, 13 too big, 17 bin not found, 19 another key, 21 bad bin name or too many bins,
        // 26 not applicable, 160 invalid GeoJSON.
        matches!(self.0, 12 | 13 | 17 | 19 | 21 | 26 | 160)
    }

    /// What the code means.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self.0 {
            0 => "ok",
            1 => "unknown server error",
            2 => "record not found",
            3 => "generation mismatch",
            4 => "parameter error",
            5 => "record exists",
            7 => "cluster key mismatch",
            8 => "namespace is full or stopped writes",
            9 => "timeout",
            11 => "partition unavailable",
            12 => "incompatible bin type",
            13 => "record too big",
            14 => "key busy",
            15 => "query aborted",
            16 => "unsupported feature",
            17 => "bin not found",
            18 => "device overload",
            19 => "key mismatch",
            20 => "no such namespace",
            21 => "bad bin name or too many bins",
            22 => "operation forbidden",
            25 => "enterprise edition only",
            26 => "not applicable",
            27 => "filtered out",
            28 => "lost conflict",
            32 => "not yet shipped by XDR",
            51 => "security is not supported",
            52 => "security is not enabled",
            60 => "unknown user",
            62 => "bad password",
            63 => "expired password",
            65 => "bad credential",
            66 => "expired session",
            80 => "not authenticated",
            81 => "role violation",
            82 => "address is not on the allow list",
            83 => "quota exceeded",
            120 => "blocked by a transaction",
            150 => "batches are disabled",
            151 => "too many rows in a batch",
            152 => "batch queues are full",
            160 => "invalid GeoJSON",
            200 => "index exists",
            201 => "index not found",
            206 => "too many indexes",
            _ => "unknown result code",
        }
    }

    /// What to do about writes that are refused with this code, where that is known.
    #[must_use]
    pub fn remedy(self) -> Option<&'static str> {
        Some(match self.0 {
            4 => "records without a set need disallow-null-setname false; a namespace has at most 4095 sets",
            8 => "free memory or storage, or raise the limits (stop-writes-…) of the namespace",
            11 => "wait until all nodes are back and the cluster is stable",
            13 => "raise max-record-size of the namespace",
            18 => "lower the rate or the batches in flight",
            19 => "the namespace holds another record of the same digest: its key differs",
            21 => "names of bins have at most 15 bytes",
            22 => {
                "records that expire need nsup-period above 0 or allow-ttl-without-nsup true; a set may be at its \
                 stop-writes limit, or clocks of nodes too far apart"
            }
            81 => "give the user the privilege write on the namespace",
            83 => "lower the rate or raise the user's quota",
            150 => "set batch-index-threads above 0, or write record by record (disable-batch-writes)",
            151 => "lower the batch size or raise batch-max-requests",
            152 => "lower the batches in flight",
            _ => return None,
        })
    }
}

impl fmt::Display for ResultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.meaning(), self.0)
    }
}

impl fmt::Debug for ResultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An error of the cluster layer; one line to the user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No seed could be reached or none belongs to a usable cluster.
    #[error("cannot reach the cluster at {seeds}: {cause}")]
    Unreachable {
        /// The seeds, comma separated.
        seeds: String,
        /// What the client said.
        cause: String,
    },
    /// A seed address that cannot be read.
    #[error("bad address {0:?}: expected HOST[:[TLS-NAME:]PORT]")]
    BadSeed(String),
    /// The socket failed.
    #[error("{verb} node {node}: {source}")]
    Io {
        /// What was being done, for example "reading from".
        verb: &'static str,
        /// The node's address.
        node: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The node did not answer in time.
    #[error("{verb} node {node}: nothing for {after:?}")]
    Timeout {
        /// What was being done.
        verb: &'static str,
        /// The node's address.
        node: String,
        /// The limit that ran out.
        after: Duration,
    },
    /// The node closed the connection in mid-stream.
    #[error("node {node} closed the connection")]
    Closed {
        /// The node's address.
        node: String,
    },
    /// TLS options that cannot be used.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// Credentials that cannot be used.
    #[error("cannot use the credentials: {0}")]
    Credentials(String),
    /// Nobody is served who has not logged in, and there are no credentials.
    #[error("the cluster at {seeds} serves only users that log in: give credentials")]
    LoginRequired {
        /// The seeds, comma separated.
        seeds: String,
    },
    /// The node does not let us in.
    #[error("cannot log in to node {node} as {}: {code}{}", user.as_deref().unwrap_or("the user of our certificate"), advice(*code))]
    Login {
        /// The node's address.
        node: String,
        /// Who we said we are; `None` when the certificate says it.
        user: Option<String>,
        /// Its answer.
        code: ResultCode,
    },
    /// The server refused the request.
    #[error("{what}: node {node} answered {code}")]
    Server {
        /// What was asked.
        what: String,
        /// The node's address.
        node: String,
        /// Its answer.
        code: ResultCode,
    },
    /// The bytes do not follow the protocol.
    #[error("node {node} sent a malformed answer: {what}")]
    Malformed {
        /// The node's address.
        node: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An info command was refused, or its answer cannot be used.
    #[error("info command {command:?} on node {node}: {answer}")]
    Info {
        /// The command.
        command: String,
        /// The node's name.
        node: String,
        /// The server's answer.
        answer: String,
    },
    /// An info command was not answered.
    #[error("info command {command:?} on node {node}: {cause}")]
    NoAnswer {
        /// The command.
        command: String,
        /// The node's name.
        node: String,
        /// What the client for discovery and info says.
        cause: String,
    },
    /// The cluster has no such namespace.
    #[error("the cluster has no namespace {0:?}")]
    NoNamespace(String),
    /// The cluster has no such node.
    #[error("the cluster has no node {0:?}")]
    NoNode(String),
    /// The cluster has no such rack.
    #[error("the cluster has no node in rack {0}")]
    NoRack(u32),
    /// A filter expression that cannot be read.
    #[error("the filter expression is not usable: {0}")]
    Filter(String),
}

/// What to do about a refused login that is not the user's fault.
fn advice(code: ResultCode) -> &'static str {
    if code == ResultCode::SECURITY_NOT_SUPPORTED {
        ", a community server has no users: leave out the credentials"
    } else {
        ""
    }
}

impl ClusterError {
    /// True when the same request may succeed a little later, perhaps on another node.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            // What TLS refuses once it refuses again: a certificate, a protocol version.
            Self::Io { source, .. } => {
                source.get_ref().is_none_or(|e| !e.is::<tokio_rustls::rustls::Error>())
            }
            Self::NoAnswer { .. } | Self::Timeout { .. } | Self::Closed { .. } | Self::Unreachable { .. } => {
                true
            }
            Self::Server { code, .. } => code.is_transient(),
            _ => false,
        }
    }
}
