//! A service in a process of its own, and a client for its API.

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use ureq::Agent;

use super::place::{BUCKET, Place, Raw};
use crate::support::{HANGS, Outcome, Server, command, outcome, signal};

/// How often something is looked at that is waited for.
const LOOK: Duration = Duration::from_millis(10);

/// The storage of [`configuration`], as it is written there.
const STORAGE: &str = "{local-storage: {path: STORAGE}}";

/// A folder with a configuration and a storage, which is another place if the test wants it.
pub struct Home {
    folder: TempDir,
    place: Place,
    bucket: String,
    /// The folder in the bucket.
    prefix: String,
    raw: OnceLock<Raw>,
}

impl Home {
    /// A folder with this configuration, in which `STORAGE` stands for the path of the storage.
    pub fn new(configuration: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().file_name().unwrap().to_str().unwrap();
        let prefix = format!("e2e/{}/{}", std::process::id(), name.trim_start_matches('.'));
        let raw = OnceLock::new();
        let home = Self { folder, place: Place::Local, bucket: BUCKET.to_owned(), prefix, raw };
        home.configure(configuration);
        home
    }

    /// The same with its storage in another place, before anything is there: a folder of the common bucket.
    pub fn at(self, place: Place) -> Self {
        let (bucket, prefix) = (self.bucket.clone(), self.prefix.clone());
        self.at_folder(place, &bucket, &prefix)
    }

    /// The same with its storage in a folder of a bucket; its root if that is empty.
    pub fn at_folder(mut self, place: Place, bucket: &str, folder: &str) -> Self {
        let before = self.entry().to_string();
        (self.place, self.bucket, self.prefix) = (place, bucket.to_owned(), folder.to_owned());
        let text = self.configured().replace(&before, &self.entry().to_string());
        std::fs::write(self.config(), text).unwrap();
        self
    }

    /// A folder with a configuration of `cluster`, which is that server, of the storage `disk`, of an API on a free port,
    /// and of these routines (YAML, without indentation), for whose namespace `NAMESPACE` stands.
    pub fn of(server: &Server, routines: &str) -> Self {
        Self::new(&configuration(server, routines))
    }

    /// Writes another configuration.
    pub fn configure(&self, configuration: &str) {
        let text = configuration.replace(STORAGE, &self.entry().to_string());
        std::fs::write(self.config(), text.replace("STORAGE", self.storage().to_str().unwrap())).unwrap();
    }

    /// The entry of the configuration for the storage `disk`.
    pub fn entry(&self) -> Value {
        match self.place {
            Place::Local => self.place.entry("", self.storage().to_str().unwrap()),
            _ => self.place.entry(&self.bucket, &self.prefix),
        }
    }

    /// The bucket of the storage `disk`.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The folder of the storage `disk` in its bucket.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The objects of the storage `disk`, by their paths in it, sorted, without the service's own locks and claims on routines.
    #[track_caller]
    pub fn files(&self) -> Vec<String> {
        if self.place == Place::Local {
            return files(&self.storage());
        }
        let mut files = self.raw().files();
        files.retain(|path| !path.contains("/.abs-lease/"));
        files
    }

    /// What an object of the storage `disk` holds.
    #[track_caller]
    pub fn read(&self, path: &str) -> Vec<u8> {
        self.raw().read(path)
    }

    /// The storage `disk` without the service.
    pub fn raw(&self) -> &Raw {
        self.raw.get_or_init(|| Raw::open(&self.entry()))
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The file of the configuration.
    pub fn config(&self) -> PathBuf {
        self.path().join("config.yml")
    }

    /// What the file of the configuration holds now.
    pub fn configured(&self) -> String {
        std::fs::read_to_string(self.config()).unwrap()
    }

    /// The folder of the storage `disk`, unless it is in another place.
    pub fn storage(&self) -> PathBuf {
        self.path().join("storage")
    }

    /// `abs serve` of this configuration, ready to be started.
    pub fn command(&self) -> Command {
        let mut command = command(&["serve", "-c", self.config().to_str().unwrap()]);
        // Paths of configurations may be relative.
        command.current_dir(self.path());
        command
    }

    /// The service with this configuration, as soon as its API answers.
    pub fn serve(&self) -> Service {
        Service::start(self.command())
    }
}

/// The configuration of [`Home::of`]. Without an overlap, so that tests can count what incremental backups hold.
pub fn configuration(server: &Server, routines: &str) -> String {
    let (host, port) = server.address.rsplit_once(':').unwrap();
    let routines = routines.replace("NAMESPACE", &server.namespace).replace('\n', "\n  ");
    format!(
        "service:
  http: {{address: 127.0.0.1, port: 0}}
aerospike-clusters:
  cluster: {{seed-nodes: [{{host-name: {host}, port: {port}}}]}}
storage:
  disk: {STORAGE}
backup-policies:
  policy: {{retry-policy: {{base-timeout: 100, max-retries: 1}}, overlap: 0}}
backup-routines:
  {routines}
"
    )
}

/// A configuration without routines, clusters and storage.
pub const BARE: &str = "service: {http: {address: 127.0.0.1, port: 0}}\n";

/// A routine that backs up the namespace when it is asked to, and almost never by itself.
pub const ROUTINE: &str = "routine: {source-cluster: cluster, storage: disk, backup-policy: policy, \
                           interval-cron: '@yearly', incr-interval-cron: '@yearly', namespaces: [NAMESPACE]}";

/// A running service. It is killed when this is dropped.
pub struct Service {
    child: Option<Child>,
    pid: u32,
    address: String,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    agent: Agent,
}

impl Service {
    /// Starts a service whose log goes to the standard output, and waits until its API answers.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = Arc::<Mutex<String>>::default();
        let reader = follow(child.stdout.take().unwrap(), Arc::clone(&log));
        let pid = child.id();
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(HANGS))
            .build()
            .new_agent();
        let address = String::new();
        let mut service = Self { child: Some(child), pid, address, log, reader: Some(reader), agent };
        let start = Instant::now();
        let listening = loop {
            if let Some(line) =
                service.log().lines().find(|line| line.contains("listening") && line.contains("address"))
            {
                break line.to_owned();
            }
            let child = service.child.as_mut().unwrap();
            let starts = child.try_wait().unwrap().is_none() && start.elapsed() < HANGS;
            assert!(starts, "the service does not start: {:?}", service.killed());
            std::thread::sleep(LOOK);
        };
        let (_, address) = listening.split_once("address").unwrap();
        let address = address.trim_start_matches(['=', '"', ':']);
        let end = address.find(|c: char| !c.is_ascii_digit() && !".:[]".contains(c)).unwrap_or(address.len());
        service.address = format!("http://{}", &address[..end]);
        service
    }

    /// The address of the API, without a slash at its end.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What was logged until now.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the log has a line with all of `parts`, and returns it.
    #[track_caller]
    pub fn logs(&self, parts: &[&str]) -> String {
        let has = |line: &&str| parts.iter().all(|part| line.contains(part));
        let mut found = None;
        eventually(|| {
            found = self.log().lines().find(has).map(str::to_owned);
            found.is_some()
        })
        .unwrap_or_else(|()| panic!("{parts:?} is not logged:\n{}", self.log()));
        found.unwrap()
    }

    /// Asks the API with any method.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.address));
        let answer = match body {
            None => self.agent.run(request.body(()).unwrap()),
            Some(body) => {
                let json = request.header("content-type", "application/json");
                self.agent.run(json.body(body.to_owned()).unwrap())
            }
        };
        let mut answer = answer.unwrap_or_else(|e| panic!("{method} {path}: {e}\n{}", self.log()));
        let text = answer.body_mut().read_to_string().unwrap();
        Answer { what: format!("{method} {path}"), status: answer.status().as_u16(), text }
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None)
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: Option<&str>) -> Answer {
        self.ask("POST", path, body)
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: Option<&str>) -> Answer {
        self.ask("PUT", path, body)
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, None)
    }

    /// The JSON that a path answers.
    #[track_caller]
    pub fn json(&self, path: &str) -> Value {
        self.get(path).is(200).json()
    }

    /// The backups of a routine, `full` or `incremental`.
    #[track_caller]
    pub fn backups(&self, kind: &str, routine: &str) -> Vec<Value> {
        self.json(&format!("/v1/backups/{kind}/{routine}")).as_array().unwrap().clone()
    }

    /// Makes a backup of a routine, `full` or `incremental`, and returns what is listed of it then.
    #[track_caller]
    pub fn backup(&self, kind: &str, routine: &str) -> Vec<Value> {
        let time = |backup: &Value| backup["timestamp"].as_i64().unwrap();
        let last = self.backups(kind, routine).iter().map(time).max().unwrap_or(0);
        self.post(&format!("/v1/backups/{kind}/{routine}"), None).is(202);
        let mut made = Vec::new();
        eventually(|| {
            // A run of several namespaces is listed when all of it is there.
            let running = self.json(&format!("/v1/backups/currentBackup/{routine}"))[kind].is_object();
            made = self.backups(kind, routine).into_iter().filter(|backup| time(backup) > last).collect();
            !running && !made.is_empty()
        })
        .unwrap_or_else(|()| panic!("no {kind} backup of {routine} is made:\n{}", self.log()));
        made
    }

    /// Starts a restore with a request to `/v1/restore/KIND`, and returns its job.
    #[track_caller]
    pub fn start_restore(&self, kind: &str, request: &Value) -> u64 {
        self.post(&format!("/v1/restore/{kind}"), Some(&request.to_string())).is(202).text.parse().unwrap()
    }

    /// Restores, and returns the status of the job at its end.
    #[track_caller]
    pub fn restore(&self, kind: &str, request: &Value) -> Value {
        self.restored(self.start_restore(kind, request))
    }

    /// Waits for the end of a restore, and returns its status.
    #[track_caller]
    pub fn restored(&self, job: u64) -> Value {
        let mut status = Value::Null;
        eventually(|| {
            status = self.json(&format!("/v1/restore/status/{job}"));
            status["status"] != "Running"
        })
        .unwrap_or_else(|()| panic!("restore {job} does not end: {status}\n{}", self.log()));
        status
    }

    /// Sends the process a signal, such as `TERM` or `HUP`.
    pub fn signal(&self, name: &str) {
        signal(self.pid, name);
    }

    /// Waits for the end of the process; its log is the standard output.
    #[track_caller]
    pub fn ended(mut self) -> Outcome {
        let end = outcome(self.child.take().unwrap());
        self.reader.take().unwrap().join().unwrap();
        Outcome { stdout: self.log(), ..end }
    }

    /// Stops the service as a system does, and insists on a good end.
    #[track_caller]
    pub fn stop(self) -> Outcome {
        self.signal("TERM");
        self.ended().ok()
    }

    fn killed(&mut self) -> Option<(std::process::Output, String)> {
        let mut child = self.child.take()?;
        // It may have ended by itself.
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        Some((output, self.log()))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.killed();
    }
}

/// Reads what a process writes, so that it never waits.
fn follow(stream: impl Read + Send + 'static, log: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push_str(&line.unwrap());
            log.push('\n');
        }
    })
}

/// What the API answered.
#[derive(Debug)]
pub struct Answer {
    pub what: String,
    pub status: u16,
    pub text: String,
}

impl Answer {
    /// Insists on this status.
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.what, self.text);
        self
    }

    /// Insists on this status and on one line of plain text that contains all of `parts`.
    #[track_caller]
    pub fn refuses(self, status: u16, parts: &[&str]) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.what, self.text);
        assert_eq!(self.text.matches('\n').count(), 1, "{self:?}");
        assert!(self.text.ends_with('\n'), "{self:?}");
        for part in parts {
            assert!(self.text.contains(part), "{part:?} is missing in {self:?}");
        }
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// The files of a storage that are no locks.
pub fn stored(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        match (path.is_dir(), path.ends_with(".abs-locks")) {
            (true, true) => {}
            (true, false) => found.extend(stored(&path)),
            (false, _) => found.push(path.to_str().unwrap().to_owned()),
        }
    }
    found
}

/// The files below a folder, by their paths in it, without the service's own locks.
pub fn files(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, top: &Path, found: &mut Vec<String>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with(".abs-locks") {
                walk(&path, top, found);
            } else if path.is_file() {
                found.push(path.strip_prefix(top).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}

/// Waits until something is true; an error when it never is.
pub fn eventually(mut look: impl FnMut() -> bool) -> Result<(), ()> {
    let start = Instant::now();
    while !look() {
        if start.elapsed() > HANGS {
            return Err(());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
