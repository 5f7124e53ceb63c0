//! The running server: how it is disturbed and stopped.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::builder::{Builder, ServerError, listen};
use crate::cluster::Cluster;
use crate::knobs::Knobs;
use crate::node;

/// How often expired records are removed. Until then nobody sees them.
const SWEEP: Duration = Duration::from_secs(5);

async fn sweep(cluster: Arc<Cluster>, stop: CancellationToken) {
    while tokio::time::timeout(SWEEP, stop.cancelled()).await.is_err() {
        for namespace in &cluster.namespaces {
            namespace.sweep_expired(cluster.clock.now_secs());
        }
    }
}

/// A node that accepts connections.
#[derive(Debug)]
struct Door {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Door {
    fn open(listener: TcpListener, cluster: &Arc<Cluster>, node: usize, stop: &CancellationToken) -> Door {
        let stop = stop.child_token();
        let task = tokio::spawn(node::serve(listener, cluster.clone(), node, stop.clone()));
        Door { stop, task }
    }

    async fn close(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

/// A running server. Dropping it stops it.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), abs_devserver::ServerError> {
/// let server = abs_devserver::DevServer::builder().nodes(3).namespace("test", 64 << 20).start().await?;
/// println!("connect to {}", server.addresses()[0]);
/// server.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DevServer {
    knobs: Knobs,
    addresses: Vec<SocketAddr>,
    doors: Mutex<Vec<Option<Door>>>,
    stop: CancellationToken,
    sweeper: JoinHandle<()>,
}

impl Drop for DevServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl DevServer {
    /// Begins the description of a server.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Lets clients in.
    pub(crate) fn open(
        cluster: Arc<Cluster>,
        addresses: Vec<SocketAddr>,
        listeners: Vec<TcpListener>,
    ) -> DevServer {
        let stop = CancellationToken::new();
        let sweeper = tokio::spawn(sweep(cluster.clone(), stop.clone()));
        let doors = listeners
            .into_iter()
            .enumerate()
            .map(|(node, listener)| Some(Door::open(listener, &cluster, node, &stop)))
            .collect();
        DevServer { knobs: Knobs::new(cluster), addresses, doors: Mutex::new(doors), stop, sweeper }
    }

    /// The address of each node, in the order of their numbers.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What tests turn. May be cloned and used from anywhere while the server runs.
    #[must_use]
    pub fn knobs(&self) -> &Knobs {
        &self.knobs
    }

    fn take_door(&self, node: usize) -> Result<Option<Door>, ServerError> {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(doors.get_mut(node).ok_or(ServerError::NoSuchNode(node))?.take())
    }

    /// Stops a node: its connections are cut, its peers know, its partitions are served by the next nodes in
    /// line. The last node that lives leaves partitions that nobody serves. Stopping a stopped node does
    /// nothing.
    pub async fn stop_node(&self, node: usize) -> Result<(), ServerError> {
        if let Some(door) = self.take_door(node)? {
            door.close().await;
            self.knobs.cluster().set_alive(node, false);
        }
        Ok(())
    }

    /// Starts a stopped node on the port it had: it masters again what it mastered before. Starting a running
    /// node does nothing.
    #[expect(clippy::unused_async, reason = "async says that a runtime must be there")]
    pub async fn start_node(&self, node: usize) -> Result<(), ServerError> {
        let running = self.take_door(node)?;
        let door = if let Some(door) = running {
            door
        } else {
            let door = Door::open(listen(self.addresses[node])?, self.knobs.cluster(), node, &self.stop);
            self.knobs.cluster().set_alive(node, true);
            door
        };
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        doors[node] = Some(door);
        Ok(())
    }

    /// Cuts all connections and stops; returns when nothing runs any more.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let doors = std::mem::take(&mut *self.doors.lock().unwrap_or_else(PoisonError::into_inner));
        for door in doors.into_iter().flatten() {
            door.close().await;
        }
        let _ = (&mut self.sweeper).await;
    }
}
