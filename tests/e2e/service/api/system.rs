//! The service itself: whether it lives and is ready, its version, its metrics, and the limits of its server.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::json;

use super::restores::done;
use super::{Home, counts, is_time, metric, open, put, request_of};
use crate::faults::empty;
use crate::service::support::{ROUTINE, Service, configuration};
use crate::support::Server;

/// Every metric of the reference and of ours.
const METRICS: [&str; 25] = [
    "backup_duration_seconds",
    "backup_events_total",
    "backup_in_progress",
    "backup_progress_pct",
    "last_successful_backup_timestamp",
    "restore_events_total",
    "restore_in_progress",
    "runs_total",
    "incremental_runs_total",
    "failure_total",
    "incremental_failure_total",
    "skip_total",
    "incremental_skip_total",
    "duration_millis",
    "incremental_duration_millis",
    "backup_bytes_total",
    "backup_records_total",
    "backup_estimated_completion_timestamp",
    "last_backup_size_bytes",
    "last_backup_size_records",
    "restore_bytes_total",
    "restore_records_total",
    "routine_held",
    "routine_restarts_total",
    "job_restarts_total",
];

/// Protects: the shapes of what says who answers, and whether it does.
#[test]
fn it_says_that_it_lives_and_who_it_is() {
    let home = Home::new("service: {http: {address: 127.0.0.1, port: 0}}\n");
    let service = home.serve();
    for path in ["/health", "/ready"] {
        assert_eq!(service.get(path).is(200).text, "Ok", "{path}");
    }
    assert_eq!(service.get("/").is(200).text, "");
    let version = service.json("/version");
    let keys: Vec<_> = version.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["build-time", "commit", "version"]);
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(is_time(version["build-time"].as_str().unwrap()), "{version}");
    assert!(version["commit"].is_string(), "{version}");
    for path in ["/nothing", "/v1", "/v1/backups", "/v1/config/", "/v1/config/routines/a/b", "/v2/config"] {
        service.get(path).refuses(404, &[path]);
    }
    for (method, path) in [
        ("DELETE", "/v1/config"),
        ("POST", "/health"),
        ("GET", "/v1/config/apply"),
        ("PUT", "/v1/backups/full"),
    ] {
        service.ask(method, path, None).refuses(405, &[method]);
    }
    let answer = open(&service, "/v1/restore/full");
    assert_eq!((answer.status().as_u16(), &answer.headers()["allow"]), (405, &"POST".parse().unwrap()));
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    assert!(service.get("/api-docs/").is(200).text.contains("<html"));
}

/// Protects: what cannot be reached is named, each by its name, and only that; it is ready again without being told.
#[test]
fn readiness_names_what_cannot_be_reached() {
    let server = Server::embedded(1);
    let text = configuration(&server, ROUTINE)
        .replace("storage:\n", "  gone: {seed-nodes: [{host-name: 127.0.0.1, port: 1}], conn-timeout: 500}\nstorage:\n  blocked: {local-storage: {path: STORAGE/file/inside}}\n");
    let home = Home::new(&text);
    fs::create_dir_all(home.storage()).unwrap();
    fs::write(home.storage().join("file"), "").unwrap();
    let service = home.serve();
    let refusal = service.get("/ready").refuses(503, &["storage blocked: ", "cluster gone: "]);
    assert!(
        !refusal.text.contains("storage disk") && !refusal.text.contains("cluster cluster"),
        "{refusal:?}"
    );
    assert_eq!(service.get("/health").is(200).text, "Ok");
    fs::remove_file(home.storage().join("file")).unwrap();
    service.delete("/v1/config/clusters/gone").is(204);
    assert_eq!(service.get("/ready").is(200).text, "Ok");
}

/// Protects: a storage whose disk is full is not ready, and is ready again when there is room. Needs root.
#[test]
fn readiness_knows_a_full_disk() {
    for (size, ready) in [("4k", false), ("8m", true)] {
        let server = Server::embedded(1);
        let home = Home::of(&server, ROUTINE);
        fs::create_dir(home.storage()).unwrap();
        let script = r#"mount -t tmpfs -o "size=$1" none "$2" || exit 99; shift 2; exec "$@""#;
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh", size]).arg(home.storage());
        command.args([env!("CARGO_BIN_EXE_abs"), "serve", "-c"]).arg(home.config());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let service = Service::start(command);
        if ready {
            assert_eq!(service.get("/ready").is(200).text, "Ok");
        } else {
            service.get("/ready").refuses(503, &["storage disk: ", "less than 512 KiB of its disk are free"]);
        }
    }
}

/// Protects: the names of all metrics, and that they say what happened.
#[test]
fn metrics_tell_what_happened() {
    let server = Server::embedded(1);
    put(&server, 0..100, 1);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    let full = service.backup("full", "routine").remove(0);
    put(&server, 0..10, 2);
    let incremental = service.backup("incremental", "routine").remove(0);
    empty(&server);
    done(&service, "full", &request_of(&full, &json!({})));
    counts(&service, "restore_events_total{outcome=\"success\"}", 1);
    for (kind, backup) in [("full", &full), ("incremental", &incremental)] {
        let labels = format!("{{routine=\"routine\",type=\"{kind}\"}}");
        let number = |key: &str| backup[key].as_u64().unwrap();
        for (name, value) in [
            ("backup_duration_seconds_count", 1),
            ("backup_in_progress", 0),
            ("backup_progress_pct", 0),
            ("last_successful_backup_timestamp", number("timestamp") / 1000),
            ("backup_bytes_total", number("byte-count")),
            ("backup_records_total", number("record-count")),
            ("last_backup_size_bytes", number("byte-count")),
            ("last_backup_size_records", number("record-count")),
        ] {
            assert_eq!(metric(&service, &format!("{name}{labels}")), value, "{name}{labels}");
        }
        let success =
            format!("backup_events_total{{outcome=\"success\",routine=\"routine\",type=\"{kind}\"}}");
        assert_eq!(metric(&service, &success), 1);
    }
    for (name, value) in [
        ("runs_total", 1),
        ("incremental_runs_total", 1),
        ("failure_total", 0),
        ("skip_total", 0),
        ("restore_in_progress", 0),
        ("restore_records_total", 100),
        ("restore_duration_seconds_count", 1),
    ] {
        assert_eq!(metric(&service, name), value, "{name}");
    }
    let text = service.get("/metrics").is(200).text;
    let names: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in METRICS {
        assert!(
            names.contains(format!("aerospike_backup_service_{name}").as_str()),
            "{name} is not in\n{text}"
        );
    }
    let answer = open(&service, "/metrics");
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
}

/// Protects: all paths are below the context path, and nowhere else.
#[test]
fn everything_is_below_the_context_path() {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let text = configuration(&server, ROUTINE).replace("port: 0}", "port: 0, context-path: /abs}");
    let home = Home::new(&text);
    let service = home.serve();
    for path in ["/health", "/ready", "/version", "/metrics", "/v1/config", "/v1/backups/full", "/api-docs/"]
    {
        service.get(&format!("/abs{path}")).is(200);
        service.get(path).refuses(404, &[path]);
    }
    service.post("/abs/v1/backups/full/routine", None).is(202);
    counts_below(&service);
}

fn counts_below(service: &crate::service::support::Service) {
    crate::service::support::eventually(|| {
        service.json("/abs/v1/backups/full/routine").as_array().is_some_and(|backups| backups.len() == 1)
    })
    .unwrap_or_else(|()| panic!("no backup:\n{}", service.log()));
}

/// Protects: a client that asks too often is told to wait; the health check and the white-list are not limited.
#[test]
fn the_rate_is_limited() {
    let rate = |white_list: &str| {
        format!(
            "service: {{http: {{address: 127.0.0.1, port: 0, rate: {{tps: 1, size: 5, white-list: {white_list}}}}}}}\n"
        )
    };
    let home = Home::new(&rate("[10.0.0.0/8]"));
    let service = home.serve();
    let answers: Vec<u16> = (0..20).map(|_| service.get("/version").status).collect();
    assert_eq!(answers[..5], [200; 5]);
    assert!(answers.contains(&429), "{answers:?}");
    service.get("/health").is(200);
    let limited = (0..100).map(|_| open(&service, "/version")).find(|answer| answer.status() == 429).unwrap();
    assert!(limited.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
    assert_eq!(limited.into_body().read_to_string().unwrap(), "too many requests\n");
    service.stop();
    for exempt in ["[127.0.0.0/8]", "[127.0.0.1]", "[0.0.0.0/0]"] {
        home.configure(&rate(exempt));
        let service = home.serve();
        for _ in 0..50 {
            service.get("/version").is(200);
        }
        service.stop();
    }
}

/// Protects: a body that is too large, or too slow, ends its request and nothing else.
#[test]
fn bodies_are_limited() {
    let home = Home::new("service: {http: {address: 127.0.0.1, port: 0, timeout: 300}}\n");
    let service = home.serve();
    let policy = format!(r#"{{"parallel": 1{}}}"#, " ".repeat(2 << 20));
    // The server may hang up while the body is still on its way.
    let mut stream = TcpStream::connect(service.address().trim_start_matches("http://")).unwrap();
    let head = |path: &str, length: usize| {
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n")
    };
    stream.write_all(head("/v1/config/policies/large", policy.len()).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("larger than 1048576 bytes"), "{answer}");

    let mut stream = TcpStream::connect(service.address().trim_start_matches("http://")).unwrap();
    stream.write_all(head("/v1/config/policies/slow", 20).as_bytes()).unwrap();
    stream.write_all(b"{").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    for name in ["large", "slow"] {
        service.get(&format!("/v1/config/policies/{name}")).is(404);
    }
}
