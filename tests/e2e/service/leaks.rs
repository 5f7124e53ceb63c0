//! What the service holds: threads, files, connections and memory come back when the work is done; secrets do not come out.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use super::support::{Home, ROUTINE, Service, configuration, eventually};
use crate::raw::{self, Raw, integer};
use crate::support::Server;

/// By how much memory may differ that the allocator keeps, in kB.
const SLACK: u64 = 32 << 10;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    threads: u64,
    files: usize,
    /// Resident memory, in kB.
    memory: u64,
}

impl Held {
    fn by(service: &Service) -> Self {
        let folder = format!("/proc/{}", service.pid());
        let status = fs::read_to_string(format!("{folder}/status")).unwrap();
        let number = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let files = fs::read_dir(format!("{folder}/fd")).unwrap().count();
        Self { threads: number("Threads:"), files, memory: number("VmRSS:") }
    }
}

/// Connections to the server that are open.
fn connections(server: &Server) -> u64 {
    let counts = server.dev().knobs().counts();
    counts.connections - counts.closed_connections
}

/// Insists that a service comes back to what it held before, with as many connections to the server.
#[track_caller]
fn back_to(before: Held, open: u64, service: &Service, server: &Server) {
    let mut now = before;
    eventually(|| {
        now = Held::by(service);
        now.threads <= before.threads
            && now.files <= before.files
            && now.memory <= before.memory + SLACK
            && connections(server) <= open
    })
    .unwrap_or_else(|()| {
        panic!("{now:?}, {before:?} before; {} and {open} connections", connections(server))
    });
}

/// A server with 100 records, and a service.
fn start(routines: &str) -> (Server, Home, Service) {
    let server = Server::embedded(1);
    raw::load(&server, &(0..100).map(|n| Raw::new(n).bin("bin", integer(1))).collect::<Vec<_>>());
    let home = Home::of(&server, routines);
    let service = home.serve();
    (server, home, service)
}

fn busy(server: &Server) -> String {
    json!({"source-cluster": "cluster", "storage": "disk", "backup-policy": "policy", "interval-cron": "*/2 * * * * *",
        "incr-interval-cron": "* * * * * *", "namespaces": [server.namespace]})
    .to_string()
}

/// Protects: 50 routines that back up all the time leave nothing behind in the process once they are gone, and as many
/// again take no more than the first.
#[test]
fn fifty_routines_come_and_go() {
    let (server, _home, service) = start("{}");
    let open = connections(&server);
    let routine = busy(&server);
    let names: Vec<_> = (0..50).map(|n| format!("/v1/config/routines/routine-{n}")).collect();
    let round = |names: &[String], made: usize| {
        for name in names {
            service.post(name, Some(&routine)).is(201);
        }
        eventually(|| {
            let backups = service.json("/v1/backups/full");
            let enough = |list: &&Value| list.as_array().unwrap().len() >= made;
            backups.as_object().unwrap().values().filter(enough).count() == names.len()
        })
        .unwrap_or_else(|()| panic!("{}", service.log()));
        for name in names {
            service.delete(name).is(204);
        }
        eventually(|| connections(&server) <= open).unwrap();
    };
    // What is made once and stays is there after the first backups, and what the allocator keeps after the first round.
    round(&names[..2], 1);
    let before = Held::by(&service);
    round(&names, 2);
    let before = Held { memory: Held::by(&service).memory, ..before };
    round(&names, 4);
    back_to(before, open, &service, &server);
    assert_eq!(service.json("/v1/config/routines"), json!({}));
    let metrics = service.get("/metrics").is(200).text;
    assert!(!metrics.contains("routine-"), "{metrics}");
    service.stop();
}

/// Protects: routines that are added and deleted again and again, some in the middle of their first backup, take no more
/// memory, threads and files from time to time.
#[test]
fn routines_that_come_and_go_leave_nothing() {
    let (server, _home, service) = start("{}");
    let open = connections(&server);
    let routine = busy(&server);
    let cycle = |numbers: std::ops::Range<u32>| {
        for n in numbers {
            let name = format!("routine-{n}");
            service.post(&format!("/v1/config/routines/{name}"), Some(&routine)).is(201);
            service.post(&format!("/v1/backups/full/{name}"), None).is(202);
            service.delete(&format!("/v1/config/routines/{name}")).is(204);
        }
    };
    cycle(0..50);
    eventually(|| connections(&server) <= open).unwrap();
    let before = Held::by(&service);
    cycle(50..250);
    back_to(before, open, &service, &server);
    let metrics = service.get("/metrics").is(200).text;
    assert!(!metrics.contains("routine-"), "{metrics}");
    service.stop();
}

/// Protects: restores leave nothing behind but their status, whether their storage and cluster are configured or come with
/// the request.
#[test]
fn restores_leave_nothing() {
    let (server, home, service) = start(ROUTINE);
    let open = connections(&server);
    let key = service.backup("full", "routine").remove(0)["key"].take();
    let (host, port) = server.address.rsplit_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    let inline = json!({"backup-data-path": key, "source": {"local-storage": {"path": home.storage()}},
        "destination": {"seed-nodes": [{"host-name": host, "port": port}]}});
    let named = json!({"backup-data-path": key, "source-name": "disk", "destination-name": "cluster"});
    let restore = |times: usize| {
        for _ in 0..times {
            // Many at a time.
            let jobs: Vec<_> = (0..10)
                .map(|n| service.start_restore("full", if n % 2 == 0 { &inline } else { &named }))
                .collect();
            for job in jobs {
                assert_eq!(service.restored(job)["status"], "Done");
            }
        }
    };
    restore(5);
    eventually(|| connections(&server) <= open).unwrap();
    let before = Held::by(&service);
    restore(30);
    back_to(before, open, &service, &server);
    service.stop();
}

/// A Secret Agent that answers every request with the same value; returns its port.
fn secret_agent(value: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = json!({"SecretValue": value}).to_string();
    let mut answer = vec![0x51, 0xde, 0xc1, 0xcc];
    answer.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    answer.extend(text.as_bytes());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The client may be gone.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(&answer);
        }
    });
    port
}

/// Protects: no secret is in any answer, in the log of any kind, in a metric or in an event: not those of the
/// configuration, not those that the Secret Agent told, not those of requests, good or wrong in form.
#[test]
fn secrets_do_not_come_out() {
    let server = Server::embedded(1);
    let (host, port) = server.address.rsplit_once(':').unwrap();
    let agent = secret_agent("hunter2-told");
    let seeds = format!("seed-nodes: [{{host-name: {host}, port: {port}}}]");
    // The server knows no users: whoever logs in is refused.
    let text = configuration(&server, ROUTINE)
        .replace(
            "\nstorage:",
            &format!(
                "
  known: {{{seeds}, credentials: {{user: u, password: hunter2-written}}}}
  told: {{{seeds}, credentials: {{user: u, password: 'secrets:a:b', secret-agent-name: agent}}}}
  locked: {{{seeds}, tls: {{name: n, cert-file: /no/cert, key-file: /no/key, key-file-password: hunter2-key}}}}
secret-agents:
  agent: {{connection-type: tcp, address: 127.0.0.1, port: {agent}}}
storage:"
            ),
        )
        .replace("port: 0}", "port: 0}\n  logger: {level: TRACE, format: FORMAT}");
    let mut routines = String::new();
    for cluster in ["known", "told", "locked"] {
        let routine = ROUTINE.replacen("routine", cluster, 1);
        let routine = routine.replace("source-cluster: cluster", &format!("source-cluster: {cluster}"));
        routines.extend(["  ", &routine.replace("NAMESPACE", &server.namespace), "\n"]);
    }
    for format in ["PLAIN", "JSON"] {
        let home = Home::new(&(text.replace("FORMAT", format) + &routines));
        let service = home.serve();
        let mut shown = String::new();
        let events = listen(&service);
        let key = service.backup("full", "routine").remove(0)["key"].take();

        // What the configuration holds is used, and fails.
        for (routine, why) in [("known", "log in"), ("told", "log in"), ("locked", "/no/cert")] {
            service.post(&format!("/v1/backups/full/{routine}"), None).is(202);
            service.logs(&["backup failed", routine, why]);
        }
        shown += &service.get("/ready").refuses(503, &["known", "told", "locked"]).text;

        // What requests bring.
        let destination = |credentials: Value| {
            json!({"seed-nodes": [{"host-name": host, "port": port.parse::<u16>().unwrap()}],
                "credentials": credentials})
        };
        let good = destination(json!({"user": "u", "password": "hunter2-asked"}));
        let restore = |destination: &Value| json!({"backup-data-path": key, "source-name": "disk", "destination": destination});
        let job = service.start_restore("full", &restore(&good));
        let end = service.restored(job);
        assert_eq!(end["status"], "Failed");
        shown += &end.to_string();
        let wrong = [
            destination(json!("hunter2")),
            destination(json!(["hunter2"])),
            destination(json!({"user": "u", "password": {"hunter2": "hunter2"}})),
            destination(json!({"user": "u", "password": "hunter2", "auth-mode": "NONE"})),
            destination(json!({"user": "u", "pasword": "hunter2"})),
            destination(json!({"user": "u", "password": "hunter2", "password-path": "/no/path"})),
            json!("hunter2"),
        ];
        for document in &wrong {
            for (method, path, body) in [
                ("POST", "/v1/restore/full", restore(document).to_string()),
                ("POST", "/v1/config/clusters/new", document.to_string()),
                ("PUT", "/v1/config/clusters/known", document.to_string()),
                ("PUT", "/v1/config", json!({"aerospike-clusters": {"known": document}}).to_string()),
                ("POST", "/v1/config/clusters/new", document.to_string().replace('}', "")),
            ] {
                shown += &service.ask(method, path, Some(&body)).is(400).text;
            }
        }
        // Nobody listens there.
        let storage = json!({"s3-storage": {"bucket": "b", "path": "p", "s3-region": "r", "s3-log-level": "TRACE", "access-key-id": "hunter2",
            "secret-access-key": "hunter2", "s3-endpoint-override": "http://127.0.0.1:1"}});
        shown += &service.post("/v1/config/storage/s3", Some(&storage.to_string())).is(201).text;
        shown += &service.get("/v1/config/storage/s3").is(200).text;
        let signed = json!({"azure-storage": {"container-name": "c", "endpoint": "http://127.0.0.1:1/?sv=1&sig=hunter2-sas"}});
        shown += &service.post("/v1/config/storage/azure", Some(&signed.to_string())).is(201).text;
        shown += &service.get("/v1/config/storage/azure").is(200).text;
        shown += &service.get("/v1/config").is(200).text;
        service.post("/v1/config/clusters/new", Some(&good.to_string())).is(201);
        service.signal("HUP");
        service.logs(&["configuration loaded again"]);

        let paths = service.json("/api-docs/openapi.json")["paths"].take();
        for (path, operations) in paths.as_object().unwrap() {
            if operations.get("get").is_some() && path != "/v1/events" {
                for name in ["known", "disk", "policy"] {
                    shown +=
                        &service.get(&path.replace("{name}", name).replace("{jobId}", &job.to_string())).text;
                }
            }
        }
        assert!(shown.contains("[secret]") && shown.contains("secrets:a:b"), "{shown}");
        shown += &service.stop().stdout;
        let told = events.join().unwrap();
        assert!(told.contains("event: job-finished") && told.contains("error"), "{told}");
        shown += &told;
        let leaks = shown.lines().filter(|line| line.contains("hunter2"));
        let leaks: Vec<_> = leaks.map(|line| line.chars().take(1000).collect::<String>()).collect();
        assert_eq!(leaks, [] as [String; 0]);
    }
}

/// What a service tells as it happens, until it ends.
fn listen(service: &Service) -> JoinHandle<String> {
    let mut stream = TcpStream::connect(service.address().trim_start_matches("http://")).unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: abs\r\n\r\n").unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    std::thread::spawn(move || {
        let mut told = Vec::new();
        // It ends when the service does.
        let _ = stream.read_to_end(&mut told);
        String::from_utf8(told).unwrap()
    })
}

/// Protects: whatever comes over a connection, such as half a request, garbage, or thousands of headers, the service
/// answers others, ends that connection, and keeps nothing of it; so it does with clients that never read.
#[test]
fn strangers_do_no_harm() {
    let (server, _home, service) = start(ROUTINE);
    let open = connections(&server);
    service.get("/health").is(200);
    let before = Held::by(&service);
    let connect = || TcpStream::connect(service.address().trim_start_matches("http://")).unwrap();
    let endless = [b"GET /health HTTP/1.1\r\nX: ".as_slice(), &b"a".repeat(1 << 20)].concat();
    let many = [b"GET /health HTTP/1.1\r\n".as_slice(), &b"A: b\r\n".repeat(10_000)].concat();
    let deep = "[".repeat(200_000);
    let deep =
        format!("PUT /v1/config HTTP/1.1\r\nHost: abs\r\nContent-Length: {}\r\n\r\n{deep}", deep.len());
    let garbage: Vec<u8> = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let halves: [&[u8]; 8] = [
        b"",
        b"GET /health HTT",
        b"PUT /v1/config HTTP/1.1\r\nHost: abs\r\nContent-Length: 100\r\n\r\n{",
        b"POST /v1/restore/full HTTP/1.1\r\nHost: abs\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        &endless,
        &many,
        deep.as_bytes(),
        &garbage,
    ];
    let mut strangers = Vec::new();
    for _ in 0..25 {
        for half in halves {
            let mut stranger = connect();
            // It may be shut out before it said all.
            let _ = stranger.write_all(half);
            strangers.push(stranger);
        }
        let mut deaf = connect();
        deaf.write_all(b"GET /v1/events HTTP/1.1\r\nHost: abs\r\n\r\n").unwrap();
        strangers.push(deaf);
        service.get("/health").is(200);
    }
    for _ in 0..200 {
        for what in ["disable", "enable"] {
            service.put(&format!("/v1/config/routines/routine/{what}"), None).is(204);
        }
    }
    // All but those that listen to events are shut out by the service itself.
    eventually(|| Held::by(&service).files <= before.files + 25).unwrap();
    drop(strangers);
    back_to(before, open, &service, &server);
    let log = service.stop().stdout;
    assert!(!log.contains("panicked"), "{log}");
}
