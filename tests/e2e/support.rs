//! What all tests stand on: a server, the binary, and a reader of .asb text that shares no code with ours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use abs_actors::SupervisorActor;
use abs_cluster::{Cluster, ConnectOptions, Credentials};
use abs_devserver::{Builder, DevServer};
use actix::Addr;
use tokio::runtime::Runtime;

/// Memory of the embedded server's namespace.
const MEMORY: u64 = 2 << 30;

/// No run of any test takes so long unless it hangs.
pub const HANGS: Duration = Duration::from_secs(90);

/// Makes a backup look like one of an earlier version, which has no manifest: then only its text can show what is wrong.
pub fn remove_manifest(folder: &Path) {
    std::fs::remove_file(folder.join("manifest.json")).unwrap();
    let metadata = folder.join("metadata.yaml");
    let text = std::fs::read_to_string(&metadata).unwrap();
    let (before, after) = text.split_once("manifest-hash: ").unwrap();
    assert_eq!(after.lines().count(), 1, "it is the last line");
    std::fs::write(&metadata, before).unwrap();
}

/// The golden files' folder.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A server for one test.
pub struct Server {
    pub runtime: Runtime,
    /// None when it is not ours.
    pub embedded: Option<DevServer>,
    /// `HOST:PORT` of a node.
    pub address: String,
    pub namespace: String,
    pub cluster: Cluster,
    supervisor: OnceLock<Addr<SupervisorActor>>,
    _alone: Option<MutexGuard<'static, ()>>,
}

impl Server {
    /// The server that the environment names, or else an embedded one of `nodes` nodes; its namespace is empty.
    pub fn start(nodes: usize) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let Ok(address) = std::env::var("ABS_TEST_AEROSPIKE") else { return Self::embedded(nodes) };
        // Tests share its one namespace, so they take turns.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = runtime();
        let cluster = runtime.block_on(connect(&address, None));
        let namespace = std::env::var("ABS_TEST_NAMESPACE").unwrap_or_else(|_| {
            let names = runtime.block_on(cluster.namespaces()).unwrap();
            names.last().expect("a server with a namespace").clone()
        });
        let server = Self {
            runtime,
            embedded: None,
            address,
            namespace,
            cluster,
            supervisor: OnceLock::new(),
            _alone: Some(alone),
        };
        server.wipe();
        server
    }

    /// An embedded server of `nodes` nodes.
    pub fn embedded(nodes: usize) -> Self {
        Self::built(|builder| builder.nodes(nodes), None)
    }

    /// An embedded server as `build` describes it, to which the tests connect with these credentials.
    pub fn built(build: impl FnOnce(Builder) -> Builder, credentials: Option<Credentials>) -> Self {
        let runtime = runtime();
        let namespace = "source-ns2".to_owned();
        let builder = DevServer::builder()
            .listen(([127, 0, 0, 1], 0).into())
            // A node that lost a partition has no replica of it to serve.
            .replication_factor(1)
            .namespace("source-ns1", MEMORY)
            .namespace(&namespace, MEMORY);
        let embedded = runtime.block_on(build(builder).start()).unwrap();
        let address = embedded.addresses()[0].to_string();
        let cluster = runtime.block_on(connect(&address, credentials));
        Self {
            runtime,
            embedded: Some(embedded),
            address,
            namespace,
            cluster,
            supervisor: OnceLock::new(),
            _alone: None,
        }
    }

    /// The embedded server; only for tests that started one.
    pub fn dev(&self) -> &DevServer {
        self.embedded.as_ref().expect("an embedded server")
    }

    /// A supervisor whose jobs run in this process.
    pub fn supervisor(&self) -> &Addr<SupervisorActor> {
        self.supervisor.get_or_init(|| abs_actors::supervise(self.runtime.handle().clone()).unwrap())
    }

    /// Empties the namespace and drops its indexes and all UDF modules.
    pub fn wipe(&self) {
        let namespace = &self.namespace;
        self.info(&format!("truncate-namespace:namespace={namespace}"));
        let indexes = self.runtime.block_on(self.cluster.indexes(namespace)).unwrap();
        let names = indexes.secondary.into_iter().map(|index| index.name);
        for name in names.chain(indexes.sets.into_iter().map(|index| index.name)) {
            self.info(&format!("sindex-delete:namespace={namespace};indexname={name}"));
        }
        for udf in self.runtime.block_on(self.cluster.udfs()).unwrap() {
            self.info(&format!("udf-remove:filename={}", udf.name));
        }
        for _ in 0..100 {
            let indexes = self.runtime.block_on(self.cluster.indexes(namespace)).unwrap();
            if self.objects() == 0 && indexes.secondary.is_empty() && indexes.sets.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("namespace {namespace} does not become empty");
    }

    /// Records of the namespace.
    #[expect(clippy::misnamed_getters, reason = "replicas do not count")]
    pub fn objects(&self) -> u64 {
        self.runtime.block_on(self.cluster.statistics(&self.namespace)).unwrap().master_objects
    }

    pub fn info(&self, command: &str) -> String {
        self.runtime.block_on(self.cluster.info(command)).unwrap()
    }

    /// Runs `abs backup` of the namespace to `folder`.
    pub fn backup(&self, folder: &Path, options: &[&str]) -> Outcome {
        let folder = folder.to_str().unwrap();
        let fixed = ["backup", "-h", &self.address, "-n", &self.namespace, "-d", folder];
        abs(&[&fixed[..], options].concat())
    }

    /// Runs `abs restore` of a backup of namespace `source` in `folder`.
    pub fn restore(&self, source: &str, folder: &Path, options: &[&str]) -> Outcome {
        let (folder, namespaces) = (folder.to_str().unwrap(), format!("{source},{}", self.namespace));
        let fixed = ["restore", "-h", &self.address, "-n", &namespaces, "-d", folder];
        abs(&[&fixed[..], options].concat())
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn connect(address: &str, credentials: Option<Credentials>) -> Cluster {
    let seeds = vec![address.parse().unwrap()];
    let timeout = Duration::from_secs(5);
    Cluster::connect(ConnectOptions { timeout, credentials, ..ConnectOptions::new(seeds) }).await.unwrap()
}

/// What a run of the binary left behind.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The end of a process; that it did not panic is checked here, for all.
    #[track_caller]
    pub fn of(output: std::process::Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let outcome =
            Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
        outcome
    }

    /// Insists on success.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Insists on this exit code and on one line of error that contains all of `parts`.
    #[track_caller]
    pub fn fails(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let errors: Vec<_> = self.stderr.lines().filter(|line| line.starts_with("abs: ")).collect();
        assert_eq!(errors.len(), 1, "{self:?}");
        for part in parts {
            assert!(errors[0].contains(part), "{part:?} is missing in {:?}", errors[0]);
        }
        self
    }

    /// The JSON summary on standard output.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Runs the binary to its end.
pub fn abs(arguments: &[&str]) -> Outcome {
    outcome(command(arguments).spawn().unwrap())
}

/// The Python that has what the tests need of it: `scripts/test` sets it up.
pub fn python() -> String {
    std::env::var("ABS_TEST_PYTHON").unwrap_or_else(|_| {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python").to_string_lossy().into_owned()
    })
}

/// Sends a signal, such as `INT` or `TERM`, to a process.
pub fn signal(pid: u32, name: &str) {
    // The shell's own command: not every system has a program for it.
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(sent.success());
}

/// The end of a run of the binary, which is killed if it hangs.
#[track_caller]
pub fn outcome(child: Child) -> Outcome {
    let (pid, (ended, hears)) = (child.id(), mpsc::channel::<()>());
    let watch = std::thread::spawn(move || {
        if hears.recv_timeout(HANGS) == Err(mpsc::RecvTimeoutError::Timeout) {
            signal(pid, "KILL");
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    watch.join().unwrap();
    Outcome::of(output)
}

/// The binary, ready to be started.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_abs"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The text of a folder of plain .asb files: global lines, and the lines of each record by its digest. The namespace reads
/// `NS` throughout.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dump {
    pub globals: BTreeSet<Vec<u8>>,
    pub records: BTreeMap<String, Record>,
}

/// The lines of a record. Its bins' lines are sorted: their order is free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub set: Option<Vec<u8>>,
    pub generation: u32,
    pub expiration: u32,
    pub bins: BTreeSet<Vec<u8>>,
}

impl Dump {
    /// Reads every .asb file of a folder.
    pub fn read(folder: &Path) -> Self {
        let mut dump = Self::default();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "asb") {
                dump.add(&std::fs::read(path).unwrap());
            }
        }
        dump
    }

    /// The same with every generation 1, as a restore leaves them.
    pub fn restored(mut self) -> Self {
        self.records.values_mut().for_each(|record| record.generation = 1);
        self
    }

    fn add(&mut self, text: &[u8]) {
        let mut at = 0;
        let mut record = Record::default();
        let mut digest = String::new();
        let mut bins_left = 0;
        while at < text.len() {
            let start = at;
            let word = |n: usize| {
                let end = text[start..].iter().position(|&b| b == b'\n').unwrap() + start;
                String::from_utf8_lossy(&text[start..end]).split(' ').nth(n).unwrap_or_default().to_owned()
            };
            match &text[at..at + 2] {
                b"* " if text[at + 2] == b'u' => {
                    at = raw_end(text, at, 4);
                    self.globals.insert(text[start..at].to_vec());
                }
                b"* " => {
                    at = line_end(text, at);
                    let line = String::from_utf8(text[start..at].to_vec()).unwrap();
                    let mut words: Vec<&str> = line.split(' ').collect();
                    words[2] = "NS";
                    self.globals.insert(words.join(" ").into_bytes());
                }
                b"+ " => match text[at + 2] {
                    b'k' => {
                        at = if text[at + 4] == b'S' || text[at + 4] == b'B' {
                            raw_end(text, at, 3)
                        } else {
                            line_end(text, at)
                        };
                        record.key = Some(text[start..at].to_vec());
                    }
                    kind => {
                        at = escaped_line_end(text, at);
                        match kind {
                            b'd' => digest = word(2),
                            b's' => record.set = Some(text[start..at].to_vec()),
                            b'g' => record.generation = word(2).parse().unwrap(),
                            b't' => record.expiration = word(2).parse().unwrap(),
                            b'b' => bins_left = word(2).parse().unwrap(),
                            _ => {}
                        }
                    }
                },
                b"- " => {
                    at = match text[at + 2] {
                        b'S' | b'G' | b'B' | b'Y' | b'M' | b'L' => raw_end(text, at, 3),
                        _ => escaped_line_end(text, at),
                    };
                    record.bins.insert(text[start..at].to_vec());
                    bins_left -= 1;
                }
                _ => at = escaped_line_end(text, at),
            }
            if bins_left == 0 && !record.bins.is_empty() {
                let twice = self.records.insert(digest.clone(), std::mem::take(&mut record));
                assert!(twice.is_none(), "record {digest} is there twice");
            }
        }
        assert_eq!(bins_left, 0, "the file ends inside a record");
    }
}

/// Insists that two dumps are the same, naming the first difference only. A record may expire some seconds later than
/// expected: a write says how long from now, and the clock goes on until the server takes it.
#[track_caller]
pub fn same(found: &Dump, expected: &Dump) {
    assert_eq!(found.globals, expected.globals);
    let missing: Vec<_> = expected.records.keys().filter(|d| !found.records.contains_key(*d)).collect();
    let extra: Vec<_> = found.records.keys().filter(|d| !expected.records.contains_key(*d)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, extra {extra:?}");
    for (digest, record) in &expected.records {
        let mut found = found.records[digest].clone();
        if record.expiration > 0 && (record.expiration..=record.expiration + 5).contains(&found.expiration) {
            found.expiration = record.expiration;
        }
        assert!(found == *record, "{found:?}\nshould be\n{record:?}");
    }
}

fn line_end(text: &[u8], at: usize) -> usize {
    text[at..].iter().position(|&b| b == b'\n').unwrap() + at + 1
}

/// The end of a line in which a line feed may be escaped.
fn escaped_line_end(text: &[u8], mut at: usize) -> usize {
    while text[at] != b'\n' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// The end of a line whose word `n` (escaped words count as one) is a length, and that many bytes follow.
fn raw_end(text: &[u8], mut at: usize, n: usize) -> usize {
    let mut words = 0;
    while words < n {
        match text[at] {
            b'\\' => at += 1,
            b' ' => words += 1,
            _ => {}
        }
        at += 1;
    }
    let digits = text[at..].iter().position(|b| !b.is_ascii_digit()).unwrap();
    let length: usize = std::str::from_utf8(&text[at..at + digits]).unwrap().parse().unwrap();
    let end = at + digits + 1 + length;
    assert_eq!(text[end], b'\n');
    end + 1
}
