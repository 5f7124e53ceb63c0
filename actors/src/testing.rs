//! A service on an embedded server, with a clock that tests move.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use abs_cluster::{
    BatchFlags, BatchMessage, Cluster, ConnectOptions, Exists, Generation, ResultCode, RowHead, RowResults,
    Seed, TTL_NEVER, partition_of,
};
use abs_config::StorageSettings;
use abs_devserver::DevServer;
use abs_engine::catalog::BackupKind;
use abs_engine::{Fault, Owner};
use actix::dev::ToEnvelope;
use actix::{Addr, Handler, Message};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use slog::{KV as _, Logger, o};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::broadcast;

use crate::clock::{Clock as _, ManualClock};
use crate::messages::system::{Event, JobWork};
use crate::messages::*;
use crate::shared::Shared;
use crate::{ConfigSource, Configuration, Service, SupervisorActor, supervisor};

/// After this long something hangs.
pub(crate) const HANGS: Duration = Duration::from_mins(1);

/// A configuration in memory, which can be broken or hang.
#[derive(Debug)]
pub(crate) struct Text(pub Mutex<Result<String, String>>, pub AtomicBool);

#[async_trait]
impl ConfigSource for Text {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn read(&self) -> Result<String, String> {
        self.0.lock().unwrap().clone()
    }

    async fn write(&self, text: &str) -> Result<(), String> {
        if self.1.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let mut stored = self.0.lock().unwrap();
        stored.as_ref().map_err(Clone::clone)?;
        *stored = Ok(text.to_owned());
        Ok(())
    }
}

/// A log in memory, a line for each record: level, message, keys and values.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl slog::Drain for Lines {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
        let mut line = Line(format!("{} {}", record.level(), record.msg()));
        let _ = record.kv().serialize(record, &mut line);
        self.0.lock().unwrap().push(line.0);
        Ok(())
    }
}

struct Line(String);

impl slog::Serializer for Line {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}")?;
        Ok(())
    }
}

/// A service and what it works on.
pub(crate) struct World {
    pub dev: DevServer,
    pub cluster: Cluster,
    pub folder: TempDir,
    pub clock: Arc<ManualClock>,
    pub source: Arc<Text>,
    pub shared: Arc<Shared>,
    pub supervisor: Addr<SupervisorActor>,
    log: Lines,
    events: broadcast::Receiver<Arc<Event>>,
}

/// What a service of a test has, and where it is.
pub(crate) struct Setup {
    pub environment: BTreeMap<String, String>,
    pub owner: Owner,
    /// Whether locks keep other services from the routines of a storage; the tests take none.
    pub locks: fn(&StorageSettings) -> bool,
    /// The folder of the storage.
    pub folder: TempDir,
}

impl Default for Setup {
    fn default() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let locks = StorageSettings::has_locks;
        Self { environment: BTreeMap::new(), owner: Owner::default(), locks, folder }
    }
}

impl World {
    /// A service with these routines (the YAML below `backup-routines`) and policies, at a time.
    pub(crate) async fn start(now: &str, policies: &str, routines: &str) -> Self {
        Self::start_with(Setup::default(), now, policies, routines).await
    }

    /// The same in an environment.
    pub(crate) async fn start_in(
        environment: &BTreeMap<String, String>,
        now: &str,
        policies: &str,
        routines: &str,
    ) -> Self {
        let setup = Setup { environment: environment.clone(), ..Setup::default() };
        Self::start_with(setup, now, policies, routines).await
    }

    /// The same with all that can be chosen.
    pub(crate) async fn start_with(setup: Setup, now: &str, policies: &str, routines: &str) -> Self {
        let Setup { environment, owner, locks, folder } = setup;
        let builder = DevServer::builder().nodes(2).namespace("test", 64 << 20).namespace("other", 64 << 20);
        let dev = builder.start().await.unwrap();
        let seed = dev.addresses()[0];
        let options = ConnectOptions::new(vec![Seed::new(seed.ip().to_string(), seed.port())]);
        let cluster = Cluster::connect(options).await.unwrap();
        let text = format!(
            "aerospike-clusters:\n  dev:\n    seed-nodes: [{{host-name: {}, port: {}}}]\nstorage:\n  here:\n    \
             local-storage: {{path: {}}}\nbackup-policies:\n{policies}\nbackup-routines:\n{routines}\n",
            seed.ip(),
            seed.port(),
            folder.path().display()
        );
        let configuration = Configuration::load(&text, &environment).unwrap();
        let clock = ManualClock::at(time(now));
        let log = Lines::default();
        let logger = Logger::root(log.clone(), o!());
        let shared = Shared::new(Handle::current(), clock.clone(), logger, owner.clone(), None);
        let mut shared = shared.unwrap();
        shared.locks = locks;
        let shared = Arc::new(shared);
        let source = Arc::new(Text(Mutex::new(Ok(text)), AtomicBool::new(false)));
        let service = Service { configuration, source: Arc::clone(&source) as _, owner };
        let events = shared.events.subscribe();
        let supervisor = supervisor::start(Arc::clone(&shared), Some(service)).unwrap();
        Self { dev, cluster, folder, clock, source, shared, supervisor, log, events }
    }

    /// The storage of the routines, as it describes itself.
    pub(crate) fn storage(&self) -> String {
        format!("local folder {}", self.folder.path().display())
    }

    /// Calls a function in the workers of backups, until the fault is dropped.
    pub(crate) fn strike_backups(&self, strike: impl Fn() + Send + Sync + 'static) -> Fault {
        Fault::in_backup("test", &self.storage(), strike)
    }

    /// The warnings that were logged with this text.
    pub(crate) fn warnings(&self, text: &str) -> Vec<String> {
        let lines = self.log.0.lock().unwrap();
        lines.iter().filter(|line| line.starts_with("WARN ") && line.contains(text)).cloned().collect()
    }

    pub(crate) async fn send<M>(&self, message: M) -> M::Result
    where
        M: Message + Send + 'static,
        M::Result: Send,
        SupervisorActor: Handler<M>,
        <SupervisorActor as actix::Actor>::Context: ToEnvelope<SupervisorActor, M>,
    {
        tokio::time::timeout(HANGS, self.supervisor.send(message)).await.unwrap().unwrap()
    }

    /// Writes records of these numbers.
    pub(crate) async fn write(&self, namespace: &str, numbers: std::ops::Range<u64>) {
        self.put(namespace, numbers.map(|number| (number, number))).await;
    }

    /// Writes records of these numbers with these values.
    pub(crate) async fn put(&self, namespace: &str, records: impl IntoIterator<Item = (u64, u64)>) {
        let map = self.cluster.partition_map(namespace).await.unwrap();
        for (number, value) in records {
            let digest = digest(number);
            let node = &map.nodes()[map.owner(partition_of(&digest)).unwrap()];
            let mut batch = BatchMessage::new(namespace, BatchFlags::default());
            let head =
                RowHead { digest, exists: Exists::Update, generation: Generation::Any, ttl: TTL_NEVER };
            let mut row = batch.row(&head);
            let append = |bytes: &[u8], out: &mut Vec<u8>| -> Result<(), Infallible> {
                out.extend_from_slice(bytes);
                Ok(())
            };
            row.bin(1, |out| append(b"n", out), |out| append(&value.to_be_bytes(), out)).unwrap();
            row.finish();
            let mut results = RowResults::new();
            let mut connection = self.cluster.connection(node).await.unwrap();
            connection.write_batch(&mut batch, &mut results).await.unwrap();
            self.cluster.release(node, connection);
            assert_eq!(results.first(), Some(&Some(ResultCode::OK)));
        }
    }

    /// Waits for the next event that `wanted` takes.
    pub(crate) async fn event<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let next = async {
            loop {
                match self.events.recv().await {
                    Ok(event) => {
                        if let Some(found) = wanted(&event) {
                            return found;
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(e) => panic!("{e}"),
                }
            }
        };
        tokio::time::timeout(HANGS, next).await.expect("no such event came")
    }

    /// Waits for the end of the next backup.
    pub(crate) async fn finished(&mut self) -> (BackupKind, Status, Option<String>) {
        self.event(|event| match event {
            Event::JobFinished { job, state, error, .. } => match &job.work {
                JobWork::Backup { kind, .. } => Some((*kind, *state, error.clone())),
                JobWork::Restore { .. } | JobWork::Verify { .. } => None,
            },
            _ => None,
        })
        .await
    }

    /// Waits for the start of the next verification.
    pub(crate) async fn verification(&mut self) -> JobId {
        self.event(|event| match event {
            Event::JobStarted { job, .. } if matches!(job.work, JobWork::Verify { .. }) => Some(job.id),
            _ => None,
        })
        .await
    }

    /// Waits for the next backup that is not made; returns why.
    pub(crate) async fn skipped(&mut self) -> (BackupKind, String) {
        self.event(|event| match event {
            Event::BackupSkipped { kind, reason, .. } => Some((*kind, reason.clone())),
            _ => None,
        })
        .await
    }

    /// Moves the clock to when the next sleeper wakes; waits until there is one.
    pub(crate) async fn next_waking(&self) -> DateTime<Utc> {
        let wait = async {
            loop {
                if let Some(time) = self.clock.next_waking() {
                    return time;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let time = tokio::time::timeout(HANGS, wait).await.expect("nobody sleeps");
        self.clock.set(time);
        time
    }

    /// Waits until a routine that failed answers again.
    pub(crate) async fn up_again(&self, routine: &str) -> RoutineState {
        let up = async {
            loop {
                match self.send(GetRoutineState { routine: routine.to_owned() }).await {
                    Ok(state) => return state,
                    Err(e) => assert!(e.to_string().contains("does not answer"), "{e}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(HANGS, up).await.expect("it is not restarted")
    }

    /// The times and namespaces of the backups of a routine.
    pub(crate) async fn backups(&self, routine: &str, kind: BackupKind) -> Vec<(String, String, u64)> {
        let list =
            ListBackups { routine: Some(routine.to_owned()), kind, from: None, to: None, limit: HANGS };
        let lists = self.send(list).await.unwrap();
        let entry = |backup: &abs_engine::catalog::Backup| {
            (backup.created.to_rfc3339(), backup.namespace().to_owned(), backup.metadata.record_count)
        };
        lists.routines[routine].backups.iter().map(entry).collect()
    }

    /// Asks for a backup, a millisecond later than whatever was before: runs have times of their own.
    pub(crate) async fn trigger(&self, kind: BackupKind) {
        self.clock.set(self.clock.now() + TimeDelta::milliseconds(1));
        let routine = "daily".to_owned();
        self.send(TriggerBackup { routine, kind, delay: Duration::ZERO }).await.unwrap();
    }
}

pub(crate) fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The digest of a number, well spread over the partitions.
pub(crate) fn digest(number: u64) -> [u8; 20] {
    let mut digest = [0; 20];
    for (part, chunk) in digest.chunks_mut(8).enumerate() {
        let mut mixed = (number ^ ((part as u64) << 32)).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
    }
    digest
}
