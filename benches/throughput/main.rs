//! End-to-end throughput: the binary against a server, beside the speed at which that server sends and takes records.
//!
//!     cargo bench --bench throughput -- [--records N] [--runs N] [--json FILE] [--api | --s3]
//!
//! With `--api` it measures what reading the API of a service costs its backups, and how long answers take meanwhile; with
//! `--s3` what backups to an S3 service in this process take, beside the same on the local disk.
//!
//! The server is the one of `ABS_TEST_AEROSPIKE=HOST:PORT`, else an embedded one in a process of its own. Its namespace
//! `ABS_TEST_NAMESPACE` (else its last one) is WIPED and left empty. Prints a table of medians and the same as JSON.

#![allow(missing_docs, clippy::expect_used, reason = "a bench that cannot go on says why and stops")]

mod api;
mod data;
mod floors;
mod s3;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use abs_cluster::{Cluster, ConnectOptions};
use serde_json::{Value, json};

/// Where the embedded server listens.
const EMBEDDED: &str = "127.0.0.1:4390";

struct Options {
    records: u32,
    runs: usize,
    json: Option<String>,
    api: bool,
    s3: bool,
}

fn main() {
    let options = options();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let external = std::env::var("ABS_TEST_AEROSPIKE").ok();
    let server = external.is_none().then(embedded);
    let address = external.unwrap_or_else(|| EMBEDDED.to_owned());
    if options.api {
        let (cluster, namespace) = runtime.block_on(fill(&options, &address));
        api::measure(&options, &address, &namespace);
        runtime.block_on(wipe(&cluster, &namespace));
    } else if options.s3 {
        let (cluster, namespace) = runtime.block_on(fill(&options, &address));
        report(&options, &s3::measure(&options, &runtime, &address, &namespace));
        runtime.block_on(wipe(&cluster, &namespace));
    } else {
        report(&options, &runtime.block_on(measure(&options, &address)));
    }
    if let Some(mut server) = server {
        server.kill().expect("killing the embedded server");
        server.wait().expect("its end");
    }
}

fn options() -> Options {
    let mut options = Options { records: 1_000_000, runs: 5, json: None, api: false, s3: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--records" => options.records = value().parse().expect("a number of records"),
            "--runs" => options.runs = value().parse().expect("a number of runs"),
            "--api" => options.api = true,
            "--s3" => options.s3 = true,
            "--json" => options.json = Some(value()),
            // cargo bench says so by itself.
            "--bench" => {}
            other => panic!("unknown option {other}"),
        }
    }
    options
}

fn embedded() -> Child {
    Command::new(env!("CARGO_BIN_EXE_abs"))
        .args(["devserver", "--listen", EMBEDDED, "--namespace", "bench:4G"])
        .stdout(Stdio::null())
        .spawn()
        .expect("the embedded server")
}

async fn connect(address: &str) -> Cluster {
    let seeds = vec![address.parse().expect("an address")];
    let options = ConnectOptions { timeout: Duration::from_secs(5), ..ConnectOptions::new(seeds) };
    for _ in 0..50 {
        if let Ok(cluster) = Cluster::connect(options.clone()).await {
            return cluster;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no server at {address}");
}

/// The runs of one row of the table.
struct Row {
    name: String,
    seconds: Vec<f64>,
    cpu: Vec<f64>,
    memory: Vec<f64>,
    bytes: f64,
}

async fn namespace(cluster: &Cluster) -> String {
    match std::env::var("ABS_TEST_NAMESPACE") {
        Ok(name) => name,
        Err(_) => cluster.namespaces().await.expect("namespaces").pop().expect("a namespace"),
    }
}

/// Fills the namespace and leaves it so.
async fn fill(options: &Options, address: &str) -> (Cluster, String) {
    let cluster = connect(address).await;
    let namespace = namespace(&cluster).await;
    wipe(&cluster, &namespace).await;
    floors::write(&cluster, &namespace, &floors::prepare(), options.records).await;
    (cluster, namespace)
}

async fn measure(options: &Options, address: &str) -> Vec<Row> {
    let cluster = connect(address).await;
    let namespace = namespace(&cluster).await;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let rows = floors::prepare();
    let mut table = Vec::new();
    let mut add = |name: &str, runs: Vec<Run>| table.push(row(name, &runs));

    let mut writes = Vec::new();
    // The first fill touches the server's memory for the first time and does not count.
    for run in 0..=options.runs {
        wipe(&cluster, &namespace).await;
        let write = floors::write(&cluster, &namespace, &rows, options.records).await;
        writes.extend((run > 0).then_some(write));
    }
    let (mut scans, mut copies) = (Vec::new(), Vec::new());
    let mut backups: Vec<Vec<Run>> = vec![Vec::new(); BACKUPS.len()];
    // In turns, so that a slow moment of the machine meets them all.
    for _ in 0..options.runs {
        scans.push(floors::scan(&cluster, &namespace, None).await);
        copies.push(floors::scan(&cluster, &namespace, Some(folder.path())).await);
        for ((name, flags), runs) in BACKUPS.iter().zip(&mut backups) {
            let target = folder.path().join(name);
            let _ = std::fs::remove_dir_all(&target);
            runs.push(abs("backup", address, &namespace, &target, flags));
        }
    }
    let mut restores: Vec<Vec<Run>> = vec![Vec::new(); RESTORES.len()];
    for _ in 0..options.runs {
        for ((_, source), runs) in RESTORES.iter().zip(&mut restores) {
            wipe(&cluster, &namespace).await;
            runs.push(abs("restore", address, &namespace, &folder.path().join(source), &[]));
        }
    }
    wipe(&cluster, &namespace).await;
    add("floor: scan, read and drop", scans);
    add("floor: scan to disk", copies);
    for ((name, _), runs) in BACKUPS.iter().zip(backups) {
        add(name, runs);
    }
    add("floor: write prepared batches", writes);
    for ((name, _), runs) in RESTORES.iter().zip(restores) {
        add(name, runs);
    }
    cluster.close().await;
    table
}

const BACKUPS: [(&str, &[&str]); 4] = [
    ("backup plain", &[]),
    ("backup compact", &["--compact"]),
    ("backup zstd 1", &["--compress", "zstd:1"]),
    ("backup plain parallel 8", &["--parallel", "8"]),
];
const RESTORES: [(&str, &str); 2] = [("restore plain", "backup plain"), ("restore zstd 1", "backup zstd 1")];

#[derive(Clone, Copy)]
pub struct Run {
    seconds: f64,
    bytes: f64,
    cpu: Option<f64>,
    memory: Option<f64>,
}

/// Runs the binary and takes the numbers of its summary; the time is that of the whole process.
fn abs(verb: &str, address: &str, namespace: &str, folder: &Path, flags: &[&str]) -> Run {
    let start = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_abs"))
        .args([verb, "-h", address, "-n", namespace, "-d"])
        .arg(folder)
        .arg("--json")
        .args(flags)
        .output()
        .expect("the binary");
    let seconds = start.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("a summary");
    let number = |key: &str| summary[key].as_f64();
    Run {
        seconds,
        bytes: number("byte-count").or(number("total-bytes")).unwrap_or_default(),
        cpu: number("cpu-seconds"),
        memory: number("peak-memory-bytes"),
    }
}

async fn wipe(cluster: &Cluster, namespace: &str) {
    for _ in 0..20 {
        cluster.info(&format!("truncate-namespace:namespace={namespace}")).await.expect("a truncate");
        for _ in 0..20 {
            if cluster.statistics(namespace).await.expect("statistics").master_objects == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    panic!("namespace {namespace} does not become empty: does somebody else write to it?");
}

fn row(name: impl Into<String>, runs: &[Run]) -> Row {
    Row {
        name: name.into(),
        seconds: runs.iter().map(|run| run.seconds).collect(),
        cpu: runs.iter().filter_map(|run| run.cpu).collect(),
        memory: runs.iter().filter_map(|run| run.memory).collect(),
        bytes: runs.last().map_or(0.0, |run| run.bytes),
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn report(options: &Options, table: &[Row]) {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    println!("{} records, medians of {} runs, {cores} cores\n", options.records, options.runs);
    println!("| what | seconds | × floor | records/s | MB/s | CPU s | peak MB |");
    println!("|---|---|---|---|---|---|---|");
    let mut floor = None;
    let mut rows = Vec::new();
    let number = |value: Option<f64>, digits: usize| value.map_or(String::new(), |v| format!("{v:.digits$}"));
    for row in table {
        let seconds = median(&row.seconds).unwrap_or(f64::NAN);
        if row.name.starts_with("floor") {
            floor = Some(seconds);
        }
        let ratio = floor.map(|floor| seconds / floor);
        let (cpu, memory) = (median(&row.cpu), median(&row.memory).map(|bytes| bytes / 1e6));
        println!(
            "| {} | {seconds:.2} | {} | {:.0} | {:.0} | {} | {} |",
            row.name,
            number(ratio, 2),
            f64::from(options.records) / seconds,
            row.bytes / 1e6 / seconds,
            number(cpu, 2),
            number(memory, 0),
        );
        rows.push(json!({
            "what": row.name, "seconds": seconds, "all-seconds": row.seconds, "floor-ratio": ratio,
            "records-per-second": f64::from(options.records) / seconds, "bytes": row.bytes,
            "cpu-seconds": cpu, "peak-memory-mb": memory,
        }));
    }
    let json = json!({ "records": options.records, "runs": options.runs, "cores": cores, "rows": rows });
    match &options.json {
        Some(file) => std::fs::write(file, format!("{json:#}\n")).expect("writing the JSON"),
        None => println!("\n{json}"),
    }
}
