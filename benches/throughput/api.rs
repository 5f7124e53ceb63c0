//! The API under load: 32 clients read it while a routine is backed up.
//!
//! Backups are made in turns: nobody reads; 32 clients read at 1,000 requests per second together; 32 clients read as fast as
//! they are answered.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Options, median};

const CLIENTS: usize = 32;
/// What the clients read, one after the other.
const PATHS: [&str; 8] = [
    "/v1/backups/currentBackup/bench",
    "/v1/backups/full",
    "/v1/config",
    "/v1/restore/jobs",
    "/health",
    "/version",
    "/metrics",
    "/v1/backups/incremental/bench",
];
/// Between two requests of a client: 32 clients make 1,000 requests per second.
const PACE: Duration = Duration::from_millis(32);

/// Measures backups of a namespace that is filled already, and prints the table.
pub fn measure(options: &Options, address: &str, namespace: &str) {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let service = Service::start(home.path(), address, namespace);
    let modes: [(&str, Option<Duration>); 3] = [
        ("nobody reads", None),
        ("32 clients, 1,000 requests/s", Some(PACE)),
        ("32 clients, as fast as they can", Some(Duration::ZERO)),
    ];
    let mut backups = [const { Vec::new() }; 3];
    let mut latencies = [const { Vec::new() }; 3];
    // The first one opens connections and does not count.
    service.backup();
    for _ in 0..options.runs {
        for (place, (_, pace)) in modes.iter().enumerate() {
            let (seconds, waits) = service.backup_under(*pace);
            backups[place].push(seconds);
            latencies[place].extend(waits);
        }
    }
    println!("{} records, medians of {} backups\n", options.records, options.runs);
    println!("| what | backup s | slower | requests | p50 ms | p99 ms |");
    println!("|---|---|---|---|---|---|");
    let quiet = median(&backups[0]).unwrap_or(f64::NAN);
    for (place, (name, _)) in modes.iter().enumerate() {
        let seconds = median(&backups[place]).unwrap_or(f64::NAN);
        let slower = (seconds / quiet - 1.0) * 100.0;
        let waits = &mut latencies[place];
        waits.sort_by(f64::total_cmp);
        let at = |share: f64| waits.get((waits.len() as f64 * share) as usize).copied().unwrap_or_default();
        let (count, p50, p99) = (waits.len(), at(0.5), at(0.99));
        println!("| {name} | {seconds:.3} | {slower:.1} % | {count} | {p50:.2} | {p99:.2} |");
    }
}

/// `abs serve` with one routine.
struct Service {
    process: Child,
    base: String,
}

impl Service {
    fn start(home: &Path, address: &str, namespace: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let (host, seed_port) = address.rsplit_once(':').expect("HOST:PORT");
        let storage = home.join("storage");
        let text = format!(
            "service:\n  http: {{address: 127.0.0.1, port: {port}, rate: {{white-list: [127.0.0.1]}}}}\n  logger: {{level: \
             INFO, stdout-writer: false}}\naerospike-clusters:\n  c: {{seed-nodes: [{{host-name: {host}, port: \
             {seed_port}}}]}}\nstorage:\n  s: {{local-storage: {{path: {}}}}}\nbackup-policies:\n  p: {{parallel: 4, \
             retention: {{full: 1}}}}\nbackup-routines:\n  bench: {{source-cluster: c, storage: s, backup-policy: p, \
             interval-cron: '@yearly', namespaces: [{namespace}]}}\n",
            storage.display()
        );
        let file = home.join("abs.yml");
        std::fs::write(&file, text).expect("the configuration");
        let process = Command::new(env!("CARGO_BIN_EXE_abs"))
            .args(["serve", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .spawn()
            .expect("the service");
        let service = Self { process, base: format!("http://127.0.0.1:{port}") };
        for _ in 0..100 {
            if ureq::get(format!("{}/health", service.base)).call().is_ok() {
                return service;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the service does not answer");
    }

    fn get(&self, path: &str) -> Value {
        let mut answer = ureq::get(format!("{}{path}", self.base)).call().expect("an answer");
        serde_json::from_str(&answer.body_mut().read_to_string().expect("a body")).expect("JSON")
    }

    /// Makes a full backup; returns its seconds, from its beginning to its end.
    fn backup(&self) -> f64 {
        let before = self.get("/v1/backups/currentBackup/bench")["last-full"].clone();
        ureq::post(format!("{}/v1/backups/full/bench", self.base)).send_empty().expect("an answer");
        while self.get("/v1/backups/currentBackup/bench")["last-full"] == before {
            std::thread::sleep(Duration::from_millis(20));
        }
        let list = self.get("/v1/backups/full/bench");
        let last = list.as_array().and_then(|list| list.last()).expect("a backup");
        let time = |key: &str| {
            last[key]
                .as_str()
                .and_then(|text| text.parse::<chrono::DateTime<chrono::Utc>>().ok())
                .expect("a time")
        };
        (time("finished") - time("created")).as_seconds_f64()
    }

    /// Makes a full backup while clients read, each waiting `pace` between two requests; returns the backup's seconds and
    /// the milliseconds that the answers took.
    fn backup_under(&self, pace: Option<Duration>) -> (f64, Vec<f64>) {
        let Some(pace) = pace else { return (self.backup(), Vec::new()) };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    scope.spawn({
                        let done = &done;
                        move || self.read(client, pace, done)
                    })
                })
                .collect();
            // Clients that are still connecting measure nothing but that.
            std::thread::sleep(Duration::from_millis(200));
            let seconds = self.backup();
            done.store(true, Ordering::Relaxed);
            (seconds, clients.into_iter().flat_map(|client| client.join().expect("a client")).collect())
        })
    }

    fn read(&self, client: usize, pace: Duration, done: &AtomicBool) -> Vec<f64> {
        let agent = ureq::agent();
        let mut waits = Vec::new();
        // Not all at the same moment.
        let mut due = Instant::now() + pace.mul_f64(client as f64 / CLIENTS as f64);
        for path in PATHS.iter().cycle().skip(client) {
            if done.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due += pace;
            let start = Instant::now();
            let mut answer = agent.get(format!("{}{path}", self.base)).call().expect("an answer");
            answer.body_mut().read_to_string().expect("a body");
            waits.push(start.elapsed().as_secs_f64() * 1e3);
        }
        waits
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It holds nothing that is worth a farewell.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
