//! HTTP by hand, for what no emulator does.

use std::future::Future;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Bytes of a request or an answer.
pub(super) struct Message {
    pub head: String,
    pub body: Vec<u8>,
}

impl Message {
    /// Reads one; none at the end of the connection.
    pub(super) async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head
            .to_lowercase()
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.split_once("\r\n").unwrap().0.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        Some(Self { head, body })
    }

    pub(super) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

/// Listens on a port of its own and serves each request by itself; returns its URL.
pub(super) async fn serve<F, Served>(serve: F) -> String
where
    F: Fn(Message, TcpStream) -> Served + Send + Sync + 'static,
    Served: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let serve = Arc::clone(&serve);
            tokio::spawn(async move {
                if let Some(request) = Message::read(&mut stream).await {
                    serve(request, stream).await;
                }
            });
        }
    });
    url
}

/// Answers and ends the connection.
pub(super) async fn answer(stream: &mut TcpStream, status: u16, body: &str) {
    let text =
        format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // Who asked may have gone.
    let _ = stream.write_all(text.as_bytes()).await;
}
