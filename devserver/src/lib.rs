//! An in-memory server that speaks enough of the Aerospike protocol for the official clients.
//!
//! **This is a development server**: for tests, for demonstrations, for a first look. It keeps everything in
//! the memory of one process and nothing on disk; it replicates nothing, although its nodes divide the
//! partitions among themselves and answer for each other as nodes with two copies would. Never keep data in it that you want to have tomorrow, and never let strangers reach its
//! ports.
//!
//! It answers as Aerospike Community Edition 8.1.2 does, or, when it was given users, TLS or racks, as the Enterprise
//! Edition does: reads, writes, batches, list, map and HLL
//! operations, queries by partition, expressions, secondary index definitions, UDF registration, expiry,
//! truncation, and the info commands that clients ask. What it does not have it refuses: roles, durable
//! deletes, transactions of several records, running UDFs, background queries, geographic queries, bitwise
//! operations on blobs.
//!
//! ```no_run
//! # async fn example() -> Result<(), abs_devserver::ServerError> {
//! use abs_devserver::{DevServer, Fault, Kind};
//!
//! let server = DevServer::builder().nodes(3).namespace("source-ns1", 1 << 30).start().await?;
//! // The next scan loses its connection after a million bytes.
//! server.knobs().inject(Fault::cut_reply(Kind::Query, 1_000_000).once());
//! server.stop_node(2).await?;
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod batch;
mod builder;
mod cdt;
mod clock;
mod cluster;
mod counters;
mod expression;
mod faults;
mod geojson;
mod hll;
mod info;
mod knobs;
mod masking;
mod message;
mod msgpack;
mod namespace;
mod node;
mod ops;
mod particle;
mod query;
mod range;
mod record;
mod result_code;
mod s2;
mod security;
mod server;
mod sha1;
mod sindex;
mod tls;
mod transaction;
mod udf;
mod write;

pub use builder::{Builder, ServerError};
pub use counters::Counts;
pub use faults::{Fault, FaultId, Kind};
pub use knobs::Knobs;
pub use record::{PARTITIONS, partition_of};
pub use result_code::ResultCode;
pub use server::DevServer;
