//! A node: it accepts connections, reads requests one after the other, and sends replies.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::counters::Counters;
use crate::faults::Kind;
use crate::info;
use crate::message::{
    ENVELOPE, HEADER, Head, MAX_BODY, Request, TYPE_ADMIN, TYPE_INFO, TYPE_MESSAGE, envelope, info1, info2,
    info3,
};
use crate::record::Digest;
use crate::result_code::ResultCode;
use crate::security::Peer;
use crate::tls::Socket;
use crate::transaction::Transaction;
use crate::{batch, query};

/// How long a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The connection is at its end: closed by the peer, cut by a fault, or unusable.
#[derive(Debug)]
pub(crate) struct Closed;

impl From<io::Error> for Closed {
    fn from(error: io::Error) -> Closed {
        log::debug!("connection closed: {error}");
        Closed
    }
}

/// Accepts connections until `stop` is cancelled, then cuts them all.
pub(crate) async fn serve(
    listener: TcpListener,
    cluster: Arc<Cluster>,
    node: usize,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    connections.spawn(serve_client(socket, peer, cluster.clone(), node));
                }
                // Out of file descriptors, most likely: wait for some to come back.
                Err(error) => {
                    log::warn!("node {node} cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn serve_client(socket: TcpStream, address: SocketAddr, cluster: Arc<Cluster>, node: usize) {
    log::debug!("node {node} serves {address}");
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let counters = cluster.counters[node].clone();
    Counters::add(&counters.connections, 1);
    let accepted = match &cluster.enterprise.tls {
        None => Ok((Either::Left(socket), None)),
        Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(socket)).await {
            Ok(accepted) => accepted,
            Err(elapsed) => Err(elapsed.into()),
        },
    };
    match accepted {
        Ok((socket, certified)) => {
            let peer = Peer { certified, user: None };
            let reply = Reply::default();
            Connection { socket, cluster, node, counters, peer, reply, sent: 0, send_timeout: None }
                .run()
                .await;
        }
        Err(error) => {
            log::warn!("node {node} has no TLS with {address}: {error}");
            Counters::add(&counters.closed_connections, 1);
        }
    }
}

/// The bytes of a reply that are not yet sent: whole blocks, and the one being filled.
#[derive(Default)]
pub(crate) struct Reply {
    pub(crate) out: Vec<u8>,
    block: usize,
}

impl Reply {
    /// Begins a block; its envelope is written when it is closed.
    pub(crate) fn open_block(&mut self) {
        self.block = self.out.len();
        self.out.extend_from_slice(&[0; ENVELOPE]);
    }

    pub(crate) fn block_len(&self) -> usize {
        self.out.len() - self.block - ENVELOPE
    }

    /// Takes back what the open block holds.
    pub(crate) fn empty_block(&mut self) {
        self.out.truncate(self.block + ENVELOPE);
    }

    /// Ends the open block. An empty one leaves no trace.
    pub(crate) fn close_block(&mut self) {
        self.close_block_as(TYPE_MESSAGE);
    }

    fn close_block_as(&mut self, kind: u8) {
        match self.block_len() {
            0 => self.out.truncate(self.block),
            len => self.out[self.block..self.block + ENVELOPE].copy_from_slice(&envelope(kind, len)),
        }
    }
}

/// One client connection.
pub(crate) struct Connection {
    socket: Socket,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) node: usize,
    pub(crate) counters: Arc<Counters>,
    /// Who is at the other end, when the server has users.
    pub(crate) peer: Peer,
    pub(crate) reply: Reply,
    /// Bytes sent of the present reply.
    sent: u64,
    /// How long a block may wait to be taken by the peer.
    pub(crate) send_timeout: Option<Duration>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        Counters::add(&self.counters.closed_connections, 1);
    }
}

impl Connection {
    async fn run(mut self) {
        let mut body = Vec::new();
        while self.serve_one(&mut body).await.is_ok() {
            // A big request or reply is not remembered for the rest of the connection's life.
            const KEEP: usize = 4 * 1024 * 1024;
            if body.capacity() > KEEP {
                body = Vec::new();
            }
            if self.reply.out.capacity() > KEEP {
                self.reply = Reply::default();
            }
        }
        // What was sent arrives; then the connection ends.
        let _ = self.socket.shutdown().await;
    }

    /// Reads one request and answers it.
    async fn serve_one(&mut self, body: &mut Vec<u8>) -> Result<(), Closed> {
        let mut head = [0; ENVELOPE];
        self.socket.read_exact(&mut head).await?;
        let [version, kind, ..] = head;
        let len = (u64::from_be_bytes(head) & 0xffff_ffff_ffff) as usize;
        if version != 2 || len > MAX_BODY {
            log::warn!("a request of version {version} and {len} bytes is none of this protocol");
            return Err(Closed);
        }
        body.clear();
        // Grows with what arrives, not with what was announced.
        (&mut self.socket).take(len as u64).read_to_end(body).await?;
        if body.len() < len {
            return Err(Closed);
        }
        self.sent = 0;
        match kind {
            TYPE_INFO => {
                self.begin(Kind::Info).await?;
                Counters::add(&self.counters.infos, 1);
                self.reply.open_block();
                if self.is_stranger() {
                    self.reply.out.extend_from_slice(b"ERROR:80:not authenticated\n");
                } else {
                    info::answer(&self.cluster, self.node, body, &mut self.reply.out);
                }
                self.reply.close_block_as(TYPE_INFO);
                if self.reply.out.is_empty() {
                    self.reply.out.extend_from_slice(&envelope(TYPE_INFO, 0));
                }
                self.flush(Kind::Info).await
            }
            TYPE_MESSAGE => self.serve_message(body).await,
            TYPE_ADMIN => self.serve_admin(body).await,
            kind => {
                log::warn!("requests of type {kind} are not part of the development server");
                Err(Closed)
            }
        }
    }

    /// Whether the server has users and this is none of them.
    fn is_stranger(&self) -> bool {
        self.cluster.enterprise.security.is_some() && self.peer.user.is_none()
    }

    /// Answers a login; without users as the community edition does.
    async fn serve_admin(&mut self, body: &[u8]) -> Result<(), Closed> {
        self.reply.open_block();
        match &self.cluster.enterprise.security {
            None => {
                let mut message = [0; 16];
                message[1] = ResultCode::SECURITY_NOT_SUPPORTED.0;
                self.reply.out.extend_from_slice(&message);
            }
            Some(security) => {
                let (clock, out) = (&self.cluster.clock, &mut self.reply.out);
                security.answer(self.node, clock, body, &mut self.peer, &self.counters, out);
            }
        }
        self.reply.close_block_as(TYPE_ADMIN);
        self.flush(Kind::Any).await
    }

    async fn serve_message(&mut self, body: &[u8]) -> Result<(), Closed> {
        let Ok(request) = Request::parse(body) else {
            log::warn!("a request does not hold together");
            return self.answer_code(Kind::Any, ResultCode::PARAMETER).await;
        };
        let Request { head, fields, ops } = request;
        if self.is_stranger() {
            let info3 = if head.info1 & info1::BATCH != 0 { info3::LAST } else { 0 };
            self.reply.open_block();
            Head { info3, result: ResultCode::NOT_AUTHENTICATED.0, ..Head::default() }
                .put(&mut self.reply.out);
            return self.send_block(Kind::Any).await;
        }
        if head.info1 & info1::BATCH != 0 {
            self.begin(Kind::Batch).await?;
            Counters::add(&self.counters.batches, 1);
            return batch::execute(self, &request).await;
        }
        let Some(digest) = fields.digest else {
            let running = self.counters.begin_query();
            self.begin(Kind::Query).await?;
            Counters::add(&self.counters.queries, 1);
            return query::execute(self, &request, running).await;
        };
        let is_write = head.info2 & info2::WRITE != 0;
        let (kind, counter) =
            if is_write { (Kind::Write, &self.counters.writes) } else { (Kind::Read, &self.counters.reads) };
        Counters::add(counter, 1);
        self.begin(kind).await?;
        let cluster = self.cluster.clone();
        let refused = if is_write { cluster.faults.refused_write(self.node) } else { None };
        if let Some(code) = refused {
            return self.answer_code(kind, code).await;
        }
        let Some(namespace) = fields.namespace.and_then(|name| cluster.namespace(name)) else {
            return self.answer_code(kind, ResultCode::NAMESPACE).await;
        };
        let Ok(digest) = Digest::try_from(digest) else {
            return self.answer_code(kind, ResultCode::PARAMETER).await;
        };
        self.reply.open_block();
        let now_ms = cluster.clock.now_ms_of(self.node);
        let (batch_filter, index, in_batch) = (None, 0, false);
        Transaction { head, namespace, digest, fields, ops, batch_filter, index, in_batch, now_ms }
            .execute(&cluster, &mut self.reply.out);
        self.send_block(kind).await
    }

    async fn answer_code(&mut self, kind: Kind, code: ResultCode) -> Result<(), Closed> {
        self.reply.open_block();
        self.reply.out.reserve(HEADER);
        Head { result: code.0, ..Head::default() }.put(&mut self.reply.out);
        self.send_block(kind).await
    }

    /// The faults that strike before a request is served.
    async fn begin(&self, kind: Kind) -> Result<(), Closed> {
        let faults = &self.cluster.faults;
        if faults.cuts_request(self.node, kind) {
            return Err(Closed);
        }
        if let Some(delay) = faults.request_delay(self.node, kind) {
            tokio::time::sleep(delay).await;
        }
        Ok(())
    }

    /// Closes the open block and sends all that is closed.
    pub(crate) async fn send_block(&mut self, kind: Kind) -> Result<(), Closed> {
        self.reply.close_block();
        self.flush(kind).await
    }

    async fn flush(&mut self, kind: Kind) -> Result<(), Closed> {
        if self.reply.out.is_empty() {
            return Ok(());
        }
        let faults = &self.cluster.faults;
        if let Some(delay) = faults.reply_delay(self.node, kind) {
            tokio::time::sleep(delay).await;
        }
        let len = self.reply.out.len() as u64;
        let cut = faults.cuts_reply(self.node, kind, self.sent, self.sent + len);
        let end = cut.map_or(len, |at| at - self.sent) as usize;
        let write = self.socket.write_all(&self.reply.out[..end]);
        match self.send_timeout {
            None => write.await?,
            Some(limit) => match tokio::time::timeout(limit, write).await {
                Ok(written) => written?,
                Err(_elapsed) => {
                    log::warn!("a client took no data for {limit:?}; its connection is closed");
                    return Err(Closed);
                }
            },
        }
        self.sent += end as u64;
        Counters::add(&self.counters.bytes_sent, end as u64);
        self.reply.out.clear();
        if cut.is_some() { Err(Closed) } else { Ok(()) }
    }
}
