//! The protocol without a client: requests made by hand, replies taken apart.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const READ: u8 = 1;
pub const GET_ALL: u8 = 2;
pub const BATCH: u8 = 8;
/// Third info byte.
pub const LAST: u8 = 1;
pub const PARTITION_DONE: u8 = 4;

pub const NAMESPACE: u8 = 0;
pub const SET: u8 = 1;
pub const DIGEST: u8 = 4;
pub const RECS_PER_SEC: u8 = 10;
pub const PID_ARRAY: u8 = 11;
pub const DIGEST_ARRAY: u8 = 12;
pub const SAMPLE_MAX: u8 = 13;

/// One message of a reply.
#[derive(Debug)]
pub struct Message {
    pub info3: u8,
    pub result: u8,
    pub generation: u32,
    pub fields: Vec<(u8, Vec<u8>)>,
    /// Particle type, bin name, value.
    pub bins: Vec<(u8, Vec<u8>, Vec<u8>)>,
}

impl Message {
    pub fn is_last(&self) -> bool {
        self.info3 & LAST != 0
    }

    pub fn digest(&self) -> Option<[u8; 20]> {
        let (_, digest) = self.fields.iter().find(|(kind, _)| *kind == DIGEST)?;
        digest.as_slice().try_into().ok()
    }
}

/// A request without operations, complete with its envelope.
pub fn request(info1: u8, info3: u8, fields: &[(u8, &[u8])]) -> Vec<u8> {
    enveloped(3, &body([info1, 0, info3], fields, 0))
}

/// A write of the number 0 to one bin.
pub fn write(namespace: &str, digest: &[u8; 20], bin: &str) -> Vec<u8> {
    let mut body = body([0, 1, 0], &[(NAMESPACE, namespace.as_bytes()), (DIGEST, digest)], 1);
    body.extend_from_slice(&(4 + bin.len() as u32 + 8).to_be_bytes());
    body.extend_from_slice(&[2, 1, 0, bin.len() as u8]);
    body.extend_from_slice(bin.as_bytes());
    body.extend_from_slice(&[0; 8]);
    enveloped(3, &body)
}

/// A message of the admin protocol.
pub fn admin(command: u8, fields: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = vec![0, 0, command, fields.len() as u8];
    body.extend_from_slice(&[0; 12]);
    for (kind, data) in fields {
        body.extend_from_slice(&(data.len() as u32 + 1).to_be_bytes());
        body.push(*kind);
        body.extend_from_slice(data);
    }
    enveloped(2, &body)
}

fn body([info1, info2, info3]: [u8; 3], fields: &[(u8, &[u8])], n_ops: u16) -> Vec<u8> {
    let mut body = vec![22, info1, info2, info3, 0, 0];
    body.extend_from_slice(&[0; 12]);
    body.extend_from_slice(&(fields.len() as u16).to_be_bytes());
    body.extend_from_slice(&n_ops.to_be_bytes());
    for (kind, data) in fields {
        body.extend_from_slice(&(data.len() as u32 + 1).to_be_bytes());
        body.push(*kind);
        body.extend_from_slice(data);
    }
    body
}

fn enveloped(kind: u64, body: &[u8]) -> Vec<u8> {
    let mut request = ((2 << 56) | (kind << 48) | body.len() as u64).to_be_bytes().to_vec();
    request.extend_from_slice(body);
    request
}

/// A query for partitions, with more fields.
pub fn query(namespace: &str, partitions: &[u16], more: &[(u8, &[u8])]) -> Vec<u8> {
    let pids: Vec<u8> = partitions.iter().flat_map(|pid| pid.to_le_bytes()).collect();
    let mut fields = vec![(NAMESPACE, namespace.as_bytes())];
    if !pids.is_empty() {
        fields.push((PID_ARRAY, &pids));
    }
    fields.extend_from_slice(more);
    request(READ | GET_ALL, PARTITION_DONE, &fields)
}

/// A connection to a node.
pub struct Connection(TcpStream);

impl Connection {
    pub async fn to(address: SocketAddr) -> Connection {
        Connection(TcpStream::connect(address).await.unwrap())
    }

    pub async fn send(&mut self, request: &[u8]) {
        self.0.write_all(request).await.unwrap();
    }

    /// The body of the next block, none if the connection ends.
    pub async fn block(&mut self) -> Option<Vec<u8>> {
        let head = self.0.read_u64().await.ok()?;
        let mut body = vec![0; (head & 0xffff_ffff_ffff) as usize];
        self.0.read_exact(&mut body).await.ok()?;
        Some(body)
    }

    /// All messages of the reply to a query, up to the last or to the end of the connection.
    pub async fn query(&mut self, request: &[u8]) -> Vec<Message> {
        self.send(request).await;
        let mut messages: Vec<Message> = Vec::new();
        while !messages.last().is_some_and(Message::is_last) {
            let Some(block) = self.block().await else { break };
            messages.extend(parse(&block));
        }
        messages
    }

    /// The reply to a request about one record.
    pub async fn single(&mut self, request: &[u8]) -> Message {
        self.send(request).await;
        let block = self.block().await.unwrap();
        parse(&block).pop().unwrap()
    }

    /// The result code of an admin message and the first field of its answer.
    pub async fn admin(&mut self, request: &[u8]) -> (u8, Option<Vec<u8>>) {
        self.send(request).await;
        let block = self.block().await.unwrap();
        let mut fields = &block[16..];
        let field = (block[3] > 0).then(|| sized(&mut fields)[1..].to_vec());
        (block[1], field)
    }

    /// The answer to one info command, or to a request that is no info command for this server.
    pub async fn info_text(&mut self, command: &str) -> String {
        self.send(&enveloped(1, format!("{command}\n").as_bytes())).await;
        String::from_utf8(self.block().await.unwrap()).unwrap()
    }

    /// The answer to one info command.
    pub async fn info(&mut self, command: &str) -> String {
        let text = self.info_text(command).await;
        text.trim_end_matches('\n').split_once('\t').unwrap().1.to_owned()
    }

    /// How many bytes come before the connection ends.
    pub async fn bytes_to_end(&mut self) -> usize {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).await.unwrap();
        bytes.len()
    }
}

fn parse(mut block: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while !block.is_empty() {
        let head = take(&mut block, 22);
        let number = |at: usize, len: usize| head[at..at + len].iter().fold(0, |n, b| n << 8 | u32::from(*b));
        let mut message = Message {
            info3: head[3],
            result: head[5],
            generation: number(6, 4),
            fields: Vec::new(),
            bins: Vec::new(),
        };
        for _ in 0..number(18, 2) {
            let field = sized(&mut block);
            message.fields.push((field[0], field[1..].to_vec()));
        }
        for _ in 0..number(20, 2) {
            let op = sized(&mut block);
            let (name, value) = op[4..].split_at(usize::from(op[3]));
            message.bins.push((op[1], name.to_vec(), value.to_vec()));
        }
        messages.push(message);
    }
    messages
}

fn take<'a>(block: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (head, rest) = block.split_at(len);
    *block = rest;
    head
}

fn sized<'a>(block: &mut &'a [u8]) -> &'a [u8] {
    let len = take(block, 4);
    take(block, u32::from_be_bytes(len.try_into().unwrap()) as usize)
}
