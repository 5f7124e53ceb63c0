//! The way to an Aerospike cluster.
//!
//! Discovery and info commands go through the `aerospike` crate ([`Cluster`]). Records travel beside it, raw, on
//! pooled connections of our own ([`Connection`]): [`Scan`] streams the records of a set of partitions exactly as
//! the server sends them, [`BatchMessage`] carries rows back byte for byte.

mod access;
mod batch;
mod clock;
mod cluster;
mod configuration;
mod connection;
mod credentials;
mod error;
mod filter;
mod generation;
mod index;
mod login;
mod masking;
mod message;
mod partition;
mod racks;
mod scan;
mod seed;
mod statistics;
mod tls;
mod udf;

pub use batch::{
    BatchFlags, BatchMessage, Exists, Generation, Row, RowHead, RowResults, TTL_NEVER, void_time_now,
};
pub use clock::ClusterTime;
pub use cluster::{Cluster, ConnectOptions, InfoAnswers, Node};
pub use connection::Connection;
pub use credentials::Credentials;
pub use error::{ClusterError, ResultCode};
pub use filter::ScanFilter;
pub use index::{Indexes, SetIndex};
pub use masking::{Masking, MaskingRule};
pub use message::{Bins, ScanEvent, ScanRecord};
pub use partition::{PARTITIONS, PartitionCursor, PartitionMap, partition_of};
pub use racks::Racks;
pub use scan::{Scan, ScanBlock, ScanRequest};
pub use seed::Seed;
pub use statistics::{NamespaceStatistics, NodeUptimes};
pub use tls::{TlsIdentity, TlsOptions};
pub use tokio_rustls::rustls::{CipherSuite, ProtocolVersion};
