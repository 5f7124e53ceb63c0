//! One connection to one node, and the only place where one is made.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BufMut as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::ClusterError;
use crate::message::{ENVELOPE, parse_envelope};

/// Buffers grown beyond this by one huge record are given back when the connection is.
const KEEP_BUFFER: usize = 4 << 20;

/// A raw connection to a node: whole messages out, whole message bodies in.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// `HOST:PORT`, for messages.
    address: Arc<str>,
    timeout: Duration,
    buffer: Vec<u8>,
    /// How much of `buffer` was handed out already.
    consumed: usize,
    idle_since: Instant,
}

impl Connection {
    /// Connects to a node; TLS and logins will be added here. `timeout` bounds the connect and each later read
    /// and write.
    pub async fn open(host: &str, port: u16, timeout: Duration) -> Result<Self, ClusterError> {
        let address: Arc<str> = format!("{host}:{port}").into();
        let verb = "connecting to";
        let connect = TcpStream::connect((host, port));
        let stream = tokio::time::timeout(timeout, connect)
            .await
            .map_err(|_| ClusterError::Timeout { verb, node: address.to_string(), after: timeout })?
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| ClusterError::Io { verb, node: address.to_string(), source })?;
        Ok(Self { stream, address, timeout, buffer: Vec::new(), consumed: 0, idle_since: Instant::now() })
    }

    /// `HOST:PORT` of the node.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sets the limit for each later read and write.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    pub(crate) fn malformed(&self, what: &'static str) -> ClusterError {
        ClusterError::Malformed { node: self.address.to_string(), what }
    }

    /// Sends whole messages.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), ClusterError> {
        let verb = "writing to";
        match tokio::time::timeout(self.timeout, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(ClusterError::Io { verb, node: self.address.to_string(), source }),
            Err(_) => {
                Err(ClusterError::Timeout { verb, node: self.address.to_string(), after: self.timeout })
            }
        }
    }

    /// Reads the next message envelope and its whole body, and returns where in the buffer the body is.
    pub(crate) async fn receive(&mut self) -> Result<Range<usize>, ClusterError> {
        // At most an envelope read ahead is left over: moving it to the front costs nothing.
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.fill(ENVELOPE, 0).await?;
        let size = parse_envelope(&self.buffer).map_err(|what| self.malformed(what))?;
        // The next envelope may come along with the body, which saves its own read.
        self.fill(ENVELOPE + size, ENVELOPE).await?;
        self.consumed = ENVELOPE + size;
        Ok(ENVELOPE..ENVELOPE + size)
    }

    /// Reads until the buffer holds `want` bytes, taking `extra` more if they are there already.
    async fn fill(&mut self, want: usize, extra: usize) -> Result<(), ClusterError> {
        let verb = "reading from";
        self.buffer.reserve((want + extra).saturating_sub(self.buffer.len()));
        while self.buffer.len() < want {
            let room = want + extra - self.buffer.len();
            let mut target = (&mut self.buffer).limit(room);
            let read = self.stream.read_buf(&mut target);
            match tokio::time::timeout(self.timeout, read).await {
                Ok(Ok(0)) => return Err(ClusterError::Closed { node: self.address.to_string() }),
                Ok(Ok(_)) => {}
                Ok(Err(source)) => {
                    return Err(ClusterError::Io { verb, node: self.address.to_string(), source });
                }
                Err(_) => {
                    let node = self.address.to_string();
                    return Err(ClusterError::Timeout { verb, node, after: self.timeout });
                }
            }
        }
        Ok(())
    }

    /// The bytes of a body that [`receive`](Self::receive) returned.
    pub(crate) fn body(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// Prepares the connection for its rest in a pool; false when unread bytes make it useless.
    pub(crate) fn rest(&mut self) -> bool {
        if self.buffer.len() != self.consumed {
            return false;
        }
        self.buffer.clear();
        self.consumed = 0;
        if self.buffer.capacity() > KEEP_BUFFER {
            self.buffer = Vec::new();
        }
        self.idle_since = Instant::now();
        true
    }

    /// Whether a connection at rest can be used: a node that was restarted has closed it, and nothing may have come
    /// that nobody asked for.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// How long the connection has rested.
    pub(crate) fn idle(&self) -> Duration {
        self.idle_since.elapsed()
    }
}
