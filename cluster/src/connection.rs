//! One connection to one node, and the only place where one is made.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::BufMut as _;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::either::Either;

use crate::ClusterError;
use crate::message::{ENVELOPE, TYPE_ADMIN, TYPE_MESSAGE, parse_envelope};

/// Buffers grown beyond this by one huge record are given back when the connection is.
const KEEP_BUFFER: usize = 4 << 20;

/// A node that vanished without a word is noticed after a minute, also while a filtered scan has nothing to send.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A raw connection to a node: whole messages out, whole message bodies in.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    /// `HOST:PORT`, for messages.
    address: Arc<str>,
    timeout: Duration,
    buffer: Vec<u8>,
    /// How much of `buffer` was handed out already.
    consumed: usize,
    idle_since: Instant,
}

impl Connection {
    /// Connects to a node over plain TCP. `timeout` bounds the connect and each later read and write.
    pub(crate) async fn open(host: &str, port: u16, timeout: Duration) -> Result<Self, ClusterError> {
        let address: Arc<str> = format!("{host}:{port}").into();
        let connect = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            let keepalive = TcpKeepalive::new()
                .with_time(KEEPALIVE_IDLE)
                .with_interval(KEEPALIVE_INTERVAL)
                .with_retries(KEEPALIVE_PROBES);
            SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            Ok(stream)
        };
        let stream = Either::Left(within(timeout, "connecting to", &address, connect).await?);
        Ok(Self { stream, address, timeout, buffer: Vec::new(), consumed: 0, idle_since: Instant::now() })
    }

    /// Goes on over TLS with a peer whose certificate has this name.
    pub(crate) async fn encrypt(
        self,
        connector: &TlsConnector,
        name: ServerName<'static>,
    ) -> Result<Self, ClusterError> {
        let Self { stream, address, timeout, .. } = self;
        let stream = match stream {
            Either::Left(stream) => {
                let handshake = connector.connect(name, stream);
                Either::Right(Box::new(within(timeout, "TLS handshake with", &address, handshake).await?))
            }
            tls @ Either::Right(_) => tls,
        };
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
        let write = async {
            self.stream.write_all(bytes).await?;
            // Over TLS the last bytes may still be here; a plain socket has nothing to flush.
            self.stream.flush().await
        };
        within(self.timeout, "writing to", &self.address, write).await
    }

    /// Reads the next message envelope and its whole body, and returns where in the buffer the body is.
    pub(crate) async fn receive(&mut self) -> Result<Range<usize>, ClusterError> {
        self.receive_as(TYPE_MESSAGE).await
    }

    /// The same for the answer to a login.
    pub(crate) async fn receive_admin(&mut self) -> Result<Range<usize>, ClusterError> {
        self.receive_as(TYPE_ADMIN).await
    }

    async fn receive_as(&mut self, kind: u8) -> Result<Range<usize>, ClusterError> {
        // At most an envelope read ahead is left over: moving it to the front costs nothing.
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.fill(ENVELOPE, 0).await?;
        let size = parse_envelope(&self.buffer, kind).map_err(|what| self.malformed(what))?;
        // The next envelope may come along with the body, which saves its own read.
        self.fill(ENVELOPE + size, ENVELOPE).await?;
        self.consumed = ENVELOPE + size;
        Ok(ENVELOPE..ENVELOPE + size)
    }

    /// Reads until the buffer holds `want` bytes, taking `extra` more if they are there already.
    async fn fill(&mut self, want: usize, extra: usize) -> Result<(), ClusterError> {
        self.buffer.reserve((want + extra).saturating_sub(self.buffer.len()));
        while self.buffer.len() < want {
            let room = want + extra - self.buffer.len();
            let mut target = (&mut self.buffer).limit(room);
            let read = self.stream.read_buf(&mut target);
            match within(self.timeout, "reading from", &self.address, read).await {
                Ok(0) => return Err(ClusterError::Closed { node: self.address.to_string() }),
                // A peer that dies leaves TLS without a goodbye.
                Err(ClusterError::Io { source, node, .. }) if source.kind() == ErrorKind::UnexpectedEof => {
                    return Err(ClusterError::Closed { node });
                }
                read => read?,
            };
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
    pub(crate) fn is_quiet(&mut self) -> bool {
        match &mut self.stream {
            Either::Left(stream) => {
                matches!(stream.try_read(&mut [0]), Err(e) if e.kind() == ErrorKind::WouldBlock)
            }
            Either::Right(stream) => {
                let mut context = Context::from_waker(Waker::noop());
                Pin::new(stream.as_mut()).poll_read(&mut context, &mut ReadBuf::new(&mut [0])).is_pending()
            }
        }
    }

    /// How long the connection has rested.
    pub(crate) fn idle(&self) -> Duration {
        self.idle_since.elapsed()
    }
}

/// Waits for an operation on a node, and names it when it fails.
async fn within<T>(
    timeout: Duration,
    verb: &'static str,
    address: &str,
    operation: impl Future<Output = io::Result<T>>,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(timeout, operation).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(source)) => Err(ClusterError::Io { verb, node: address.to_owned(), source }),
        Err(_) => Err(ClusterError::Timeout { verb, node: address.to_owned(), after: timeout }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: a node that vanishes is noticed without a byte being sent.
    #[tokio::test]
    async fn silence_is_probed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connection = Connection::open("127.0.0.1", port, Duration::from_secs(5)).await.unwrap();
        let Either::Left(stream) = &connection.stream else { panic!("TLS that nobody asked for") };
        let socket = SockRef::from(stream);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
    }
}
