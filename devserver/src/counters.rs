//! Counters that tell tests what happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Defines the counters and their snapshot together, so that neither forgets one of the other.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Live counters of one node.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        /// What a node did since it was built.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl std::ops::Add for Counts {
            type Output = Counts;
            fn add(self, other: Counts) -> Counts {
                Counts { $($name: self.$name + other.$name,)* }
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections,
    /// Connections closed by either side.
    closed_connections,
    /// Logins with a password or a certificate.
    logins,
    /// Connections admitted by a session token.
    authentications,
    /// Info requests; one may carry several commands.
    infos,
    /// Reads of one record, rows of batches not counted.
    reads,
    /// Writes and deletes of one record, rows of batches not counted.
    writes,
    /// Batch requests.
    batches,
    /// Rows of batches.
    batch_rows,
    /// Queries and scans.
    queries,
    /// Queries under way.
    running_queries,
    /// The most queries that were under way at a time; over several nodes, the sum of theirs.
    most_queries,
    /// Partitions asked for by queries.
    query_partitions,
    /// Records sent by queries.
    query_records,
    /// Bytes sent.
    bytes_sent,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
    /// Counts a query as under way until the answer is dropped.
    pub(crate) fn begin_query(self: &Arc<Counters>) -> RunningQuery {
        let running = self.running_queries.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_queries.fetch_max(running, Ordering::Relaxed);
        RunningQuery(self.clone())
    }
}

/// A query under way.
#[derive(Debug)]
pub(crate) struct RunningQuery(Arc<Counters>);

impl Drop for RunningQuery {
    fn drop(&mut self) {
        self.0.running_queries.fetch_sub(1, Ordering::Relaxed);
    }
}
