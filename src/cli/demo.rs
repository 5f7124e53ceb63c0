//! `abs demo`: the service beside an embedded server with data.

mod data;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use abs_actors::system::{Event, JobWork};
use abs_actors::{
    JobId, PlanWait, RestoreToTime, RunningJob, Status, Subscribe, SupervisorActor, TriggerBackup,
};
use abs_cluster::{Cluster, ConnectOptions, Seed};
use abs_config::RestoreTimestampRequest;
use abs_devserver::DevServer;
use abs_engine::catalog::BackupKind;
use actix::Addr;
use chrono::Utc;
use clap::Args;
use indicatif::HumanCount;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use self::data::NAMESPACE;
use super::Failure;
use super::view::{count, say};
use crate::service::run::{Loaded, Running};
use crate::service::signals::Signals;

const NODES: usize = 3;
/// A request to restore the present over what is there. The shell fills in the time, in milliseconds.
const RESTORE: &str = r#"{"routine": "demo", "time": '$(date +%s000)', "policy": {"no-generation": true}}"#;
/// The routine, and all else that has a name in the configuration.
const NAME: &str = "demo";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How many records the sample data has.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    records: u32,
    /// Where to leave the configuration, the log and the backups; it must be empty or not exist yet. A temporary
    /// folder, deleted at the end, when not said.
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The port of the API; a free one when not said.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// Do not stay: change some data, make an incremental backup, wipe all, restore it to now, compare every record.
    #[arg(long)]
    once: bool,
}

pub(super) async fn run(arguments: Arguments, mut signals: Signals) -> Result<(), Failure> {
    signals.listen_to_reloads().map_err(Failure::job)?;
    let folder = Folder::new(arguments.directory.clone())?;
    let mut demo = tokio::select! {
        biased;
        () = signals.stop() => return Err(Failure::job("canceled")),
        demo = Demo::start(&arguments, &folder.path) => demo?,
    };
    let worked = tokio::select! {
        biased;
        () = signals.stop() => Err(Failure::job("canceled")),
        worked = demo.work(&arguments, &folder.path) => worked,
    };
    let ended = match worked {
        Ok(()) if !arguments.once => demo.service.run(&mut signals).await.map_err(Failure::job),
        worked => {
            demo.service.stop(Duration::ZERO).await;
            worked
        }
    };
    demo.cluster.close().await;
    demo.server.shutdown().await;
    ended
}

/// All that runs.
struct Demo {
    server: DevServer,
    cluster: Cluster,
    service: Running,
    events: Receiver<Arc<Event>>,
}

impl Demo {
    async fn start(arguments: &Arguments, folder: &Path) -> Result<Self, Failure> {
        let listen = ([127, 0, 0, 1], 0).into();
        let builder = DevServer::builder().listen(listen).nodes(NODES).namespace(NAMESPACE, 8 << 30);
        let server = builder.start().await.map_err(Failure::job)?;
        let seed = *server.addresses().first().ok_or_else(|| Failure::job("the server has no address"))?;
        say(&format!("1. started an embedded Aerospike server with {NODES} nodes at {seed}"))?;

        let seeds = vec![Seed::new(seed.ip().to_string(), seed.port())];
        let options = ConnectOptions { timeout: Duration::from_secs(5), ..ConnectOptions::new(seeds) };
        let cluster = Cluster::connect(options).await.map_err(Failure::job)?;
        let start = Instant::now();
        data::fill(&cluster, arguments.records).await?;
        let records = count(u64::from(arguments.records), "record");
        let seconds = start.elapsed().as_secs_f64();
        say(&format!("2. wrote {records}, an index and a UDF module in {seconds:.2} s"))?;

        let file = folder.join("abs.yml");
        let configuration = configuration(seed.port(), folder, arguments);
        std::fs::write(&file, configuration)
            .map_err(|e| Failure::Job(format!("cannot write {}: {e}", file.display())))?;
        let loaded = Loaded::read(&file.to_string_lossy(), false).await;
        let service =
            Running::start(loaded.map_err(|e| Failure::source(e, 1))?).await.map_err(Failure::job)?;
        let address = service.addresses().first().ok_or_else(|| Failure::job("the API has no address"))?;
        say(&format!("3. started the backup service: http://{address}, configured by {}", file.display()))?;
        let events = service.supervisor().send(Subscribe).await.map_err(Failure::job)?;
        Ok(Self { server, cluster, service, events })
    }

    async fn work(&mut self, arguments: &Arguments, folder: &Path) -> Result<(), Failure> {
        let done = self.backup(BackupKind::Full).await?;
        say(&format!("4. made a full backup: {}", amounts(&done)))?;
        if arguments.once { self.there_and_back(arguments.records).await } else { self.invite(folder) }
    }

    /// Loses all data and gets it back.
    async fn there_and_back(&mut self, records: u32) -> Result<(), Failure> {
        let changed = (0..records).step_by(10);
        let number = count(changed.len() as u64, "record");
        data::put_users(&self.cluster, changed, 1).await?;
        let before = data::contents(&self.cluster).await?;
        let done = self.backup(BackupKind::Incremental).await?;
        say(&format!("5. changed {number} and made an incremental backup: {}", amounts(&done)))?;

        data::wipe(&self.cluster).await?;
        say("6. wiped the namespace: no record is left")?;

        let request = json!({"routine": NAME, "time": Utc::now().timestamp_millis()}).to_string();
        let request = abs_config::from_json::<RestoreTimestampRequest>(request.as_bytes());
        let request = request.map_err(Failure::job)?;
        let request = RestoreToTime { request, wait: PlanWait::default() };
        let job = self.supervisor().send(request).await.map_err(Failure::job)?.map_err(Failure::job)?;
        let done = self.end(|id, _| id == job).await?;
        say(&format!("7. restored it to now from both backups: {}", amounts(&done)))?;

        let compared = HumanCount(data::compare(&self.cluster, &before).await? as u64);
        say(&format!(
            "8. compared every record, bin by bin: all {compared} are the same, and the index is back"
        ))
    }

    fn supervisor(&self) -> &Addr<SupervisorActor> {
        self.service.supervisor()
    }

    /// Makes a backup as a client of the service does.
    async fn backup(&mut self, kind: BackupKind) -> Result<RunningJob, Failure> {
        let trigger = TriggerBackup { routine: NAME.to_owned(), kind, delay: Duration::ZERO };
        self.supervisor().send(trigger).await.map_err(Failure::job)?.map_err(Failure::job)?;
        self.end(|_, work| matches!(work, JobWork::Backup { kind: of, .. } if *of == kind)).await
    }

    /// Waits for the end of a job.
    async fn end(&mut self, is_it: impl Fn(JobId, &JobWork) -> bool) -> Result<RunningJob, Failure> {
        loop {
            let event = match self.events.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return Err(Failure::job("the service is gone")),
            };
            match &*event {
                Event::JobFinished { job, state, error, progress, .. } if is_it(job.id, &job.work) => {
                    return match (state, error) {
                        (Status::Done, _) => Ok(progress.clone()),
                        (_, Some(e)) => Err(Failure::job(e)),
                        (_, None) => Err(Failure::job("the job was canceled")),
                    };
                }
                Event::BackupSkipped { reason, .. } => return Err(Failure::job(reason)),
                _ => {}
            }
        }
    }

    /// Says what can be done now.
    fn invite(&self, folder: &Path) -> Result<(), Failure> {
        let address =
            self.service.addresses().first().ok_or_else(|| Failure::job("the API has no address"))?;
        let api = format!("http://{address}");
        let seed = self.server.addresses().first().copied().unwrap_or(*address);
        let tries = [
            (format!("curl {api}/v1/backups/full"), "the backups there are"),
            (format!("curl -X POST {api}/v1/backups/full/{NAME}"), "make one more"),
            (format!("curl {api}/v1/backups/currentBackup/{NAME}"), "what runs, what ran, what comes"),
            (format!("curl {api}/v1/restore/timestamp -d '{RESTORE}'"), "restore to now"),
            (format!("curl {api}/v1/restore/jobs"), "how that went"),
            (format!("curl -N {api}/v1/events"), "hear of all that happens"),
            (format!("{api}/api-docs/"), "all of the API, in a browser"),
        ];
        say(
            "\nThe service goes on until Ctrl-C; it makes an incremental backup each minute when data has changed. Try\n",
        )?;
        for (line, meaning) in tries {
            say(&format!("  # {meaning}\n  {line}"))?;
        }
        let place = folder.display();
        say(&format!("\nThe cluster is at {seed}. All files are in {place}: abs.yml, abs.log, backups."))
    }
}

fn configuration(cluster: u16, folder: &Path, Arguments { port, once, .. }: &Arguments) -> String {
    // A text of JSON is one of YAML, whatever is in it.
    let [log, backups] = ["abs.log", "backups"].map(|name| json!(folder.join(name).to_string_lossy()));
    // The way there and back makes its own incremental backup, and no other shall come between.
    let incremental = if *once { "@yearly" } else { "0 * * * * ?" };
    format!(
        "# The configuration of the demo; the service writes it anew when it is changed through the API.
service:
  shutdown-grace: 1000
  http: {{address: 127.0.0.1, port: {port}}}
  logger:
    level: INFO
    stdout-writer: false
    file-writer: {{filename: {log}}}
aerospike-clusters:
  {NAME}:
    seed-nodes:
      - {{host-name: 127.0.0.1, port: {cluster}}}
storage:
  {NAME}:
    local-storage: {{path: {backups}}}
backup-policies:
  {NAME}:
    compression: {{mode: ZSTD, level: 1}}
    retention: {{full: 7, incremental: 2}}
    overlap: 0 # the server has the clock of the service
backup-routines:
  {NAME}:
    source-cluster: {NAME}
    storage: {NAME}
    backup-policy: {NAME}
    namespaces: [{NAMESPACE}]
    interval-cron: \"@daily\"
    incr-interval-cron: \"{incremental}\"
"
    )
}

fn amounts(done: &RunningJob) -> String {
    format!("{} in {:.2} s", count(done.done_records, "record"), done.duration.as_secs_f64())
}

/// The folder of a demo.
struct Folder {
    path: PathBuf,
    is_temporary: bool,
}

impl Folder {
    fn new(chosen: Option<PathBuf>) -> Result<Self, Failure> {
        let is_temporary = chosen.is_none();
        let named = || std::env::temp_dir().join(format!("abs-demo-{}", std::process::id()));
        let path = chosen.unwrap_or_else(named);
        let cannot = |e| Failure::Job(format!("cannot use {}: {e}", path.display()));
        std::fs::create_dir_all(&path).map_err(cannot)?;
        if std::fs::read_dir(&path).map_err(cannot)?.next().is_some() {
            return Err(Failure::Job(format!("{} is not empty: choose a new folder", path.display())));
        }
        // Paths in the configuration are those of the service, wherever it is started again.
        let path = path.canonicalize().map_err(cannot)?;
        Ok(Self { path, is_temporary })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_temporary {
            // It lies where the system cleans up.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
