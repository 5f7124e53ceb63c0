//! The way to an Aerospike cluster.
//!
//! Discovery and info commands go through the `aerospike` crate ([`Cluster`]). Records travel beside it, raw, on
//! pooled connections of our own ([`Connection`]): [`Scan`] streams the records of a set of partitions exactly as
//! the server sends them, [`BatchMessage`] carries rows back byte for byte.

mod batch;
mod cluster;
mod connection;
mod error;
mod filter;
mod index;
mod message;
mod partition;
mod scan;
mod seed;
mod statistics;
mod udf;

pub use batch::{
    BatchFlags, BatchMessage, Exists, Generation, RowHead, RowResults, TTL_NEVER, void_time_now,
};
pub use cluster::{Cluster, ConnectOptions, Node};
pub use connection::Connection;
pub use error::{ClusterError, ResultCode};
pub use filter::ScanFilter;
pub use index::{Indexes, SetIndex};
pub use message::{Bins, ScanEvent, ScanRecord};
pub use partition::{PARTITIONS, PartitionCursor, PartitionMap, partition_of};
pub use scan::{Scan, ScanBlock, ScanRequest};
pub use seed::Seed;
pub use statistics::NamespaceStatistics;
