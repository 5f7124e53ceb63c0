//! The server over real connections, in front of a real supervisor.

mod round_trip;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use abs_actors::{ConfigSource, Configuration, Service, SystemClock};
use abs_engine::Owner;
use async_trait::async_trait;
use serde_json::{Value, json};
use slog::o;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::*;

/// A configuration that is kept in memory.
#[derive(Debug)]
struct Memory(Mutex<String>);

#[async_trait]
impl ConfigSource for Memory {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn read(&self) -> Result<String, String> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn write(&self, text: &str) -> Result<(), String> {
        text.clone_into(&mut self.0.lock().unwrap());
        Ok(())
    }
}

/// A service with this configuration.
struct Server {
    http: Http,
    source: Arc<Memory>,
}

/// An answer that came over a connection.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The text of a refusal, which is one line.
    fn refusal(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), Some("text/plain; charset=utf-8"));
        let line = self.body.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n') && !line.is_empty(), "{line:?}");
        line
    }
}

impl Server {
    /// To be called inside a runtime.
    fn start(config: &str) -> Self {
        let configuration = Configuration::load(config, &std::collections::BTreeMap::new()).unwrap();
        let source = Arc::new(Memory(Mutex::new(config.to_owned())));
        let settings = configuration.settings().service.http.clone();
        let owner = Owner::default();
        let service = Service { configuration, source: Arc::clone(&source) as Arc<dyn ConfigSource>, owner };
        let log = Logger::root(slog::Discard, o!());
        let supervisor =
            abs_actors::serve(Handle::current(), Arc::new(SystemClock), log.clone(), service, None).unwrap();
        Self { http: serve(supervisor, &settings, log, BuildInfo::CURRENT).unwrap(), source }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.http.addresses()[0]).await.unwrap()
    }

    /// Sends a request and reads the answer to the end of the connection.
    async fn send(&self, request: &[u8]) -> Answer {
        let mut connection = self.connect().await;
        // The server may refuse before it has read everything.
        let _ = connection.write_all(request).await;
        let mut bytes = Vec::new();
        let _ = connection.read_to_end(&mut bytes).await;
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let answer = Answer { status, head: head.to_owned(), body: body.to_owned() };
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{head}");
        assert_eq!(answer.header("server"), None);
        answer
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: abs\r\nConnection: close\r\n");
        self.send(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }
}

/// Any free port, with what else `service.http` says.
fn listening(more: &str) -> String {
    format!("service:\n  http:\n    address: 127.0.0.1\n    port: 0\n{more}")
}

/// A routine on a cluster that cannot be reached.
fn routine(folder: &std::path::Path) -> String {
    let folder = folder.display();
    let config = format!(
        "aerospike-clusters:\n  c:\n    seed-nodes: [{{host-name: 127.0.0.1, port: 1}}]\n    \
         credentials: {{user: u, password: hidden}}\n\
         storage:\n  disk:\n    local-storage: {{path: {folder}}}\n\
         backup-routines:\n  daily:\n    source-cluster: c\n    storage: disk\n    namespaces: [test]\n    \
         interval-cron: \"@yearly\"\n"
    );
    listening("") + &config
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_tells_of_itself_below_its_context_path() {
    let server = Server::start(&listening("    context-path: /abs/\n"));
    for root in ["/abs", "/abs/", "//abs//"] {
        let answer = server.get(root).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{root}");
    }
    for path in ["/abs/health", "/abs/ready"] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "Ok"), "{path}");
    }
    assert_eq!(server.get("/health").await.refusal(404), "path /health not found");
    assert_eq!(server.get("/abs/health/").await.refusal(404), "path /abs/health/ not found");
    let head = server.ask("HEAD", "/abs/health", "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.as_str()), (200, Some("2"), ""));
    let refused = server.ask("POST", "/abs/health", "").await;
    assert!(refused.refusal(405).ends_with("use GET, HEAD"));
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    let version = server.get("/abs/version").await.json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let keys: Vec<_> = version.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["build-time", "commit", "version"]);
    let metrics = server.get("/abs/metrics").await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_is_served_whole() {
    let server = Server::start(&listening(""));
    let redirect = server.get("/api-docs").await;
    assert_eq!((redirect.status, redirect.header("location")), (301, Some("api-docs/")));
    assert!(server.get("/api-docs/").await.body.contains("swagger-ui"));
    assert!(server.get("/api-docs/swagger-initializer.js").await.body.contains("openapi.json"));
    assert_eq!(server.get("/api-docs/swagger-ui.css").await.header("content-type"), Some("text/css"));
    assert_eq!(server.get("/api-docs/nothing.js").await.refusal(404), "file nothing.js not found");
    let document = server.get("/api-docs/openapi.json").await.json();
    assert_eq!(document["paths"]["/v1/events"]["get"]["operationId"], "events");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&routine(folder.path()));
    let answer = server.get("/ready").await;
    let line = answer.refusal(503);
    assert!(line.contains("cluster c: ") && !line.contains("disk"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_changed_entry_by_entry() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&routine(folder.path()));
    let policy = "/v1/config/policies/fast";
    assert_eq!(server.get("/v1/config/policies").await.json(), json!({}));
    assert_eq!(server.get(policy).await.refusal(404), "policy fast not found");
    assert!(server.ask("PUT", policy, "{}").await.refusal(400).contains("fast"));
    assert_eq!(server.ask("POST", policy, "{\"parallel\": 4}").await.status, 201);
    assert_eq!(server.get(policy).await.json(), json!({"parallel": 4}));
    assert!(server.ask("POST", policy, "{}").await.refusal(400).contains("fast"));
    assert_eq!(server.ask("PUT", policy, "{\"parallel\": 5}").await.status, 200);
    assert!(server.source.read().await.unwrap().contains("parallel: 5"));
    let refused = server.ask("PUT", policy, "{\"paralel\": 5, \"sealed\": 1}").await;
    assert!(refused.refusal(400).contains("paralel") && refused.body.contains("sealed"), "{}", refused.body);
    assert!(server.ask("PUT", policy, "{").await.refusal(400).contains("JSON"));
    assert!(server.ask("PUT", policy, " ").await.refusal(400).contains("empty"));
    let deleted = server.ask("DELETE", policy, "").await;
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    assert!(server.ask("DELETE", policy, "").await.refusal(400).contains("fast"));
    assert!(server.ask("DELETE", "/v1/config/storage/disk", "").await.refusal(400).contains("daily"));
    assert_eq!(server.ask("PUT", "/v1/config/routines/daily/disable", "").await.status, 204);
    assert_eq!(server.get("/v1/config/routines").await.json()["daily"]["disabled"], true);
    assert_eq!(server.ask("PUT", "/v1/config/routines/daily/enable", "").await.status, 204);
    assert_eq!(
        server.ask("PUT", "/v1/config/routines/x%20y/enable", "").await.refusal(404),
        "routine x y not found"
    );
    let mut config = server.get("/v1/config").await.json();
    config["backup-policies"] = json!({"slow": {"parallel": 1}});
    assert_eq!(server.ask("PUT", "/v1/config", &config.to_string()).await.status, 200);
    assert_eq!(server.get("/v1/config/policies").await.json(), json!({"slow": {"parallel": 1}}));
    assert_eq!(server.ask("POST", "/v1/config/apply", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_masked_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&routine(folder.path()));
    for path in ["/v1/config", "/v1/config/clusters", "/v1/config/clusters/c"] {
        let answer = server.get(path).await;
        assert!(answer.body.contains("\"[secret]\"") && !answer.body.contains("hidden"), "{path}");
    }
    let mut cluster = server.get("/v1/config/clusters/c").await.json();
    cluster["label"] = "new".into();
    assert_eq!(server.ask("PUT", "/v1/config/clusters/c", &cluster.to_string()).await.status, 200);
    let stored = server.source.read().await.unwrap();
    assert!(stored.contains("hidden") && stored.contains("label: new"), "{stored}");
    let refused = server.ask("POST", "/v1/config/clusters/d", &cluster.to_string()).await;
    assert!(refused.refusal(400).contains("credentials.password"), "{}", refused.body);
    let restore = json!({"backup-data-path": "x", "source-name": "disk", "destination": {
        "seed-nodes": [{"host-name": "elsewhere", "port": 3000}],
        "credentials": {"user": "u", "password": "[secret]"}}});
    let refused = server.ask("POST", "/v1/restore/full", &restore.to_string()).await;
    assert!(refused.refusal(400).contains("destination.credentials.password"), "{}", refused.body);

    let shown = routine(folder.path()).replace("    port: 0\n", "    port: 0\n    show-secrets: true\n");
    let server = Server::start(&shown);
    assert!(server.get("/v1/config/clusters").await.body.contains("\"hidden\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&routine(folder.path()));
    for (method, path, status, line) in [
        ("GET", "/v1/backups/full?from=2&to=1", 400, "from: 2 is later than to: 1"),
        (
            "POST",
            "/v1/backups/full/daily?delay=-1",
            400,
            "delay: \"-1\" is not a time in milliseconds, 0 or more",
        ),
        ("POST", "/v1/backups/incremental/none", 404, "routine none not found"),
        ("POST", "/v1/backups/schedule/none", 404, "routine none not found"),
        ("POST", "/v1/backups/cancel/none", 404, "routine none not found"),
        ("GET", "/v1/backups/currentBackup/none", 404, "routine none not found"),
        ("GET", "/v1/backups/full/none", 404, "routine none not found"),
        ("GET", "/v1/restore/status/x", 400, "jobId: \"x\" is not a job id: job ids are whole numbers"),
        ("GET", "/v1/restore/status/1", 404, "restore job 1 not found"),
        ("POST", "/v1/restore/cancel/1", 404, "restore job 1 not found"),
        (
            "GET",
            "/v1/restore/jobs?status=Gone",
            400,
            "status: \"Gone\" is not a status: use Running, Done, Failed or Canceled",
        ),
    ] {
        assert_eq!(server.ask(method, path, "").await.refusal(status), line, "{method} {path}");
    }
    assert_eq!(server.get("/v1/backups/full").await.json(), json!({"daily": []}));
    assert_eq!(server.get("/v1/backups/incremental/daily?to=1").await.json(), json!([]));
    assert_eq!(server.get("/v1/restore/jobs?status=!Failed,Canceled").await.json(), json!({}));
    let state = server.get("/v1/backups/currentBackup/daily").await.json();
    assert!(state["next-full"].as_str().unwrap().ends_with("-01-01T00:00:00Z"), "{state}");
    let archive = server.get("/v1/retrieve/configuration/daily/x").await;
    assert!(archive.refusal(400).starts_with("timestamp: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large_are_refused() {
    let server = Server::start(&listening(""));
    let large = " ".repeat((1 << 20) + 1);
    let refused = server.ask("POST", "/v1/config/policies/p", &large).await;
    assert_eq!(refused.refusal(413), "the body of the request is larger than 1048576 bytes");
    // Without its length, it is refused when there is too much of it.
    let head = "PUT /v1/config/policies/p HTTP/1.1\r\nHost: abs\r\nConnection: close\r\n";
    let chunk = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let request = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}");
    assert!(server.send(request.as_bytes()).await.refusal(413).contains("1048576"));
    // A whole configuration may be larger.
    assert!(server.ask("PUT", "/v1/config", &large).await.refusal(400).contains("empty"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Server::start(&listening("    timeout: 300\n"));
    let head = "POST /v1/config/policies/p HTTP/1.1\r\nHost: abs\r\nConnection: close\r\n";
    let slow = format!("{head}Content-Length: 9\r\n\r\n{{");
    assert!(server.send(slow.as_bytes()).await.refusal(408).contains("300 ms"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_too_much_has_to_wait() {
    let server = Server::start(&listening("    rate: {tps: 1, size: 2}\n"));
    let mut answers = Vec::new();
    while answers.last().is_none_or(|answer: &Answer| answer.status == 200) {
        answers.push(server.get("/version").await);
    }
    assert!(answers.len() > 2);
    let refused = answers.pop().unwrap();
    assert_eq!((refused.refusal(429), refused.header("retry-after")), ("too many requests", Some("1")));
    for _ in 0..5 {
        assert_eq!(server.get("/health").await.status, 200);
    }
    let white = Server::start(&listening("    rate: {tps: 1, size: 1, white-list: [127.0.0.0/8]}\n"));
    for _ in 0..5 {
        assert_eq!(white.get("/version").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_streamed_until_the_server_stops() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&routine(folder.path()));
    let mut stream = server.connect().await;
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: abs\r\n\r\n").await.unwrap();
    let mut text = String::new();
    while !text.contains(": alive") {
        read_some(&mut stream, &mut text).await;
    }
    assert!(text.to_lowercase().contains("content-type: text/event-stream"), "{text}");
    assert_eq!(server.ask("PUT", "/v1/config/routines/daily/disable", "").await.status, 204);
    while !text.contains("event: routine-changed") || !text.contains("\"change\":\"disabled\"") {
        read_some(&mut stream, &mut text).await;
    }
    assert!(text.contains("id: 1\n") && text.contains("\"routine\":\"daily\""), "{text}");
    server.http.stop().await.unwrap();
    stream.read_to_string(&mut text).await.unwrap();
}

async fn read_some(stream: &mut TcpStream, text: &mut String) {
    let mut buffer = [0; 1024];
    let length = stream.read(&mut buffer).await.unwrap();
    assert!(length > 0, "the stream ended: {text}");
    text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
}

#[tokio::test]
async fn a_panic_is_the_failure_of_its_request_alone() {
    async fn fall() -> HttpResponse {
        panic!("a fault in a handler")
    }
    let supervisor = abs_actors::supervise(Handle::current()).unwrap();
    let settings = abs_config::ServiceSettings::default().http;
    let api = web::Data::new(Api {
        supervisor,
        time_limit: Duration::from_secs(5),
        show_secrets: false,
        build: BuildInfo::CURRENT,
        closing: CancellationToken::new(),
        rates: RateLimiter::new(&settings.rate),
        health: "/health".to_owned(),
        openapi: web::Bytes::new(),
        log: Logger::root(slog::Discard, o!()),
    });
    let app = App::new().app_data(api).wrap(from_fn(attend)).route("/", web::get().to(fall));
    let app = actix_web::test::init_service(app).await;
    let request = actix_web::test::TestRequest::get().uri("/").to_request();
    let error = actix_web::test::try_call_service(&app, request).await.unwrap_err();
    let response = error.error_response();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(error.to_string(), "internal error");
}
