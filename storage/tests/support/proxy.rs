//! An HTTP proxy on loopback that breaks what passes, as networks and servers do.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request, as far as a fault is chosen by it.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// The path and the query.
    pub target: String,
    /// The length of its body in bytes; none if it only shows at the end.
    pub length: Option<usize>,
}

impl Request {
    /// Whether it brings many bytes: a part of an upload, not a small object or a question.
    pub fn is_part(&self) -> bool {
        self.method == "PUT" && self.length.is_none_or(|length| length > 1 << 20)
    }

    pub fn is_read(&self) -> bool {
        self.method == "GET"
    }
}

/// What is done to a request.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Half of its body passes, then both connections are reset.
    ResetRequest,
    /// Half of its body passes, then nothing more.
    StallRequest,
    /// One byte in the middle of its body is another.
    FlipRequest,
    /// It is answered here: status, more header lines, body.
    Answer(u16, &'static str, &'static str),
    /// It passes, and the connection is reset instead of the answer.
    LoseResponse,
    /// Half of the body of the answer passes, then the connection is reset.
    ResetResponse,
    /// Half of the body of the answer passes, then nothing more.
    StallResponse,
}

/// A fault that strikes some requests some times.
#[derive(Debug, Clone)]
pub struct Fault {
    pub strikes: fn(&Request) -> bool,
    pub times: usize,
    pub kind: Kind,
}

/// The proxy. It ends with the runtime it was started on.
#[derive(Debug, Clone)]
pub struct Proxy {
    address: SocketAddr,
    fault: Arc<Mutex<Option<Fault>>>,
    struck: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Proxy {
    /// A proxy before the server at `upstream`, an `http://HOST:PORT` with anything behind it.
    pub async fn before(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            fault: Arc::default(),
            struck: Arc::default(),
            requests: Arc::default(),
        };
        let upstream = host(upstream).to_owned();
        let serving = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (proxy, upstream) = (serving.clone(), upstream.clone());
                // A connection that ends in any way is the business of those at its ends.
                tokio::spawn(async move { proxy.serve(client, &upstream).await });
            }
        });
        proxy
    }

    /// The URL with the proxy in the place of the server.
    pub fn url(&self, upstream: &str) -> String {
        upstream.replace(host(upstream), &self.address.to_string())
    }

    /// From now on this fault strikes, until it has struck often enough.
    pub fn strike(&self, times: usize, strikes: fn(&Request) -> bool, kind: Kind) {
        *self.fault.lock().unwrap() = Some(Fault { strikes, times, kind });
        self.struck.store(0, SeqCst);
    }

    /// Nothing is broken any more.
    pub fn heal(&self) {
        *self.fault.lock().unwrap() = None;
    }

    /// How often the last fault struck.
    pub fn struck(&self) -> usize {
        self.struck.load(SeqCst)
    }

    /// How many requests came in all.
    pub fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }

    fn fault(&self, request: &Request) -> Option<Kind> {
        let mut fault = self.fault.lock().unwrap();
        let found = fault.as_mut().filter(|fault| fault.times > 0 && (fault.strikes)(request))?;
        found.times -= 1;
        self.struck.fetch_add(1, SeqCst);
        Some(found.kind.clone())
    }

    async fn serve(self, client: TcpStream, upstream: &str) -> io::Result<()> {
        let mut server = BufReader::new(TcpStream::connect(upstream).await?);
        let mut client = BufReader::new(client);
        loop {
            let head = read_head(&mut client).await?;
            if head.is_empty() {
                return Ok(());
            }
            self.requests.fetch_add(1, SeqCst);
            let mut words = head.split_ascii_whitespace();
            let mut word = || words.next().unwrap_or_default().to_owned();
            let (method, target) = (word(), word());
            let body = Body::of_request(&head);
            let length = if let Body::Length(length) = body { Some(length) } else { None };
            let request = Request { method, target, length };
            let fault = self.fault(&request);
            if let Some(Kind::Answer(status, headers, text)) = fault {
                pass(&mut client, None, body, Harm::None).await?;
                let answer = format!(
                    "HTTP/1.1 {status} Fault\r\n{headers}Content-Length: {}\r\n\r\n{}",
                    text.len(),
                    if request.method == "HEAD" { "" } else { text }
                );
                client.get_mut().write_all(answer.as_bytes()).await?;
                continue;
            }
            server.get_mut().write_all(head.as_bytes()).await?;
            let harm = match fault {
                Some(Kind::ResetRequest) => Harm::Reset,
                Some(Kind::StallRequest) => Harm::Stall,
                Some(Kind::FlipRequest) => Harm::Flip,
                _ => Harm::None,
            };
            if !pass(&mut client, Some(server.get_mut()), body, harm).await? {
                reset(client.get_mut());
                reset(server.get_mut());
                return Ok(());
            }
            let (head, body) = loop {
                let head = read_head(&mut server).await?;
                if head.is_empty() {
                    return Ok(());
                }
                // What is only said on the way is passed on.
                if head.starts_with("HTTP/1.1 1") {
                    client.get_mut().write_all(head.as_bytes()).await?;
                    continue;
                }
                let body = Body::of_answer(&head, &request.method);
                break (head, body);
            };
            if matches!(fault, Some(Kind::LoseResponse)) {
                pass(&mut server, None, body, Harm::None).await?;
                reset(client.get_mut());
                return Ok(());
            }
            client.get_mut().write_all(head.as_bytes()).await?;
            let harm = match fault {
                Some(Kind::ResetResponse) => Harm::Reset,
                Some(Kind::StallResponse) => Harm::Stall,
                _ => Harm::None,
            };
            if !pass(&mut server, Some(client.get_mut()), body, harm).await? {
                reset(client.get_mut());
                return Ok(());
            }
            if matches!(body, Body::ToTheEnd) {
                return Ok(());
            }
        }
    }
}

/// `HOST:PORT` of a URL.
fn host(url: &str) -> &str {
    url.strip_prefix("http://").unwrap().split('/').next().unwrap()
}

fn reset(stream: &mut TcpStream) {
    let _ = stream.set_zero_linger();
}

/// The lines before a body; empty at the end of the connection.
async fn read_head(from: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if from.read_line(&mut head).await? == 0 {
            return Ok(String::new());
        }
        if &head[before..] == "\r\n" {
            return Ok(head);
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy)]
enum Body {
    Length(usize),
    Chunks,
    ToTheEnd,
}

impl Body {
    fn of(head: &str) -> Option<Self> {
        if header(head, "transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            return Some(Self::Chunks);
        }
        header(head, "content-length").map(|value| Self::Length(value.parse().unwrap()))
    }

    fn of_request(head: &str) -> Self {
        Self::of(head).unwrap_or(Self::Length(0))
    }

    fn of_answer(head: &str, method: &str) -> Self {
        let status = head.split_ascii_whitespace().nth(1).unwrap_or_default();
        if method == "HEAD" || status == "204" || status == "304" {
            return Self::Length(0);
        }
        Self::of(head).unwrap_or(Self::ToTheEnd)
    }
}

/// What is done to a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    None,
    Reset,
    Stall,
    Flip,
}

/// Passes a body on, or drops it; false if it was cut off. Of chunks the first large one is harmed.
async fn pass(
    from: &mut BufReader<TcpStream>,
    mut to: Option<&mut TcpStream>,
    body: Body,
    mut harm: Harm,
) -> io::Result<bool> {
    match body {
        Body::Length(length) => pass_bytes(from, to.as_deref_mut(), length, harm).await,
        Body::ToTheEnd => {
            let mut rest = Vec::new();
            from.read_to_end(&mut rest).await?;
            if let Some(to) = to {
                to.write_all(&rest).await?;
            }
            Ok(true)
        }
        Body::Chunks => loop {
            let mut line = String::new();
            from.read_line(&mut line).await?;
            let size = usize::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16)
                .map_err(io::Error::other)?;
            if let Some(to) = to.as_deref_mut() {
                to.write_all(line.as_bytes()).await?;
            }
            let now = if size > 1000 { std::mem::replace(&mut harm, Harm::None) } else { Harm::None };
            if !pass_bytes(from, to.as_deref_mut(), size, now).await?
                || !pass_bytes(from, to.as_deref_mut(), 2, Harm::None).await?
            {
                return Ok(false);
            }
            if size == 0 {
                return Ok(true);
            }
        },
    }
}

async fn pass_bytes(
    from: &mut BufReader<TcpStream>,
    mut to: Option<&mut TcpStream>,
    length: usize,
    harm: Harm,
) -> io::Result<bool> {
    let (mut passed, middle) = (0, length / 2);
    let mut block = vec![0; 64 << 10];
    while passed < length {
        let stop = if passed < middle && harm != Harm::None { middle } else { length };
        let count = from.read(&mut block[..(stop - passed).min(64 << 10)]).await?;
        if count == 0 {
            return Ok(false);
        }
        if harm == Harm::Flip && passed == middle {
            block[0] ^= 1;
        }
        if let Some(to) = to.as_deref_mut() {
            to.write_all(&block[..count]).await?;
        }
        passed += count;
        match harm {
            Harm::Reset if passed >= middle => return Ok(false),
            Harm::Stall if passed >= middle => tokio::time::sleep(Duration::from_hours(1)).await,
            _ => {}
        }
    }
    Ok(true)
}
