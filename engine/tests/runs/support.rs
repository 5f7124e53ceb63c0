//! A server with records, a dispatcher, and what a backup holds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use abs_asb::{Digest, Header, Item, Items, Position};
use abs_cluster::{
    BatchFlags, BatchMessage, Cluster, ConnectOptions, Exists, Generation, ResultCode, RowHead, RowResults,
    Seed, TTL_NEVER, partition_of,
};
use abs_config::Retry;
use abs_devserver::{Builder, DevServer};
use abs_engine::{
    BackupLimits, BackupPlan, BackupProgress, BackupReport, BackupRun, BatchId, EngineError, Fault,
    NamespaceLimits, NodeLoad, PartitionQueue, Scanner,
};
use abs_storage::{Local, ObjectPath, Storage};
use chrono::{DateTime, Utc};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// The namespaces of every server.
pub const NAMESPACES: [&str; 2] = ["one", "two"];

/// As often as by default, without the waits.
pub const FAST: Retry = Retry { base: Duration::from_millis(1), multiplier: 1.0, max_retries: 10 };

/// After this long something hangs.
pub const HANGS: Duration = Duration::from_mins(1);

pub struct Server {
    pub dev: DevServer,
    pub cluster: Cluster,
}

/// A record by its digest: its value.
pub type Records = BTreeMap<Digest, Vec<u8>>;

impl Server {
    pub async fn start(nodes: usize) -> Self {
        Self::build(DevServer::builder().nodes(nodes)).await
    }

    pub async fn build(builder: Builder) -> Self {
        let builder = NAMESPACES.iter().fold(builder, |builder, name| builder.namespace(*name, 1 << 30));
        let dev = builder.start().await.unwrap();
        let seed = dev.addresses()[0];
        let options = ConnectOptions::new(vec![Seed::new(seed.ip().to_string(), seed.port())]);
        Self { cluster: Cluster::connect(options).await.unwrap(), dev }
    }

    /// Writes records of these numbers with `size` bytes each, of `set`, and returns them.
    pub async fn load(&self, namespace: &str, set: &str, numbers: Range<u64>, size: usize) -> Records {
        let records: Records = numbers.map(|number| (digest(number), value(number, size.max(1)))).collect();
        let map = self.cluster.partition_map(namespace).await.unwrap();
        for (index, node) in map.nodes().iter().enumerate() {
            let owned: Vec<_> =
                records.iter().filter(|(d, _)| map.owner(partition_of(d)) == Some(index)).collect();
            for chunk in owned.chunks(200) {
                let mut batch = BatchMessage::new(namespace, BatchFlags::default());
                for (digest, value) in chunk {
                    append(&mut batch, digest, set, value);
                }
                let mut results = RowResults::new();
                let mut connection = self.cluster.connection(node).await.unwrap();
                connection.write_batch(&mut batch, &mut results).await.unwrap();
                self.cluster.release(node, connection);
                assert!(results.iter().all(|code| *code == Some(ResultCode::OK)), "{results:?}");
            }
        }
        records
    }
}

fn append(batch: &mut BatchMessage, digest: &Digest, set: &str, value: &[u8]) {
    let bytes = |bytes: &[u8], out: &mut Vec<u8>| -> Result<(), Infallible> {
        out.extend_from_slice(bytes);
        Ok(())
    };
    let head =
        RowHead { digest: *digest, exists: Exists::Update, generation: Generation::Any, ttl: TTL_NEVER };
    let mut row = batch.row(&head);
    if !set.is_empty() {
        row.set(|out| bytes(set.as_bytes(), out)).unwrap();
    }
    row.bin(4, |out| bytes(b"b", out), |out| bytes(value, out)).unwrap();
    row.finish();
}

/// Numbers that look random and are the same in every run (`SplitMix64`).
pub fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The partition of the record of a number.
pub fn partition(number: u64) -> u16 {
    partition_of(&digest(number))
}

/// A value that cannot be compressed, always the same of a number.
fn value(number: u64, size: usize) -> Vec<u8> {
    let words = (0..size.div_ceil(8) as u64).flat_map(|word| scatter(number << 20 | word).to_le_bytes());
    words.take(size).collect()
}

/// The digest of a number, well spread over the partitions.
fn digest(number: u64) -> Digest {
    let mut digest = Digest::default();
    for (part, chunk) in digest.chunks_mut(8).enumerate() {
        let bytes = scatter(number ^ ((part as u64) << 32)).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
    digest
}

/// Where backups go, and what they are told.
pub struct Target {
    pub folder: tempfile::TempDir,
    pub storage: Arc<dyn Storage>,
    pub cancel: CancellationToken,
}

impl Target {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = Arc::new(Local::new(folder.path()));
        Self { folder, storage, cancel: CancellationToken::new() }
    }

    pub async fn begin(
        &self,
        server: &Server,
        folder: &str,
        plan: &BackupPlan,
        created: DateTime<Utc>,
        limits: &NamespaceLimits,
    ) -> Result<(Arc<BackupRun>, PartitionQueue), EngineError> {
        let (folder, progress) = (ObjectPath::new(folder).unwrap(), Arc::new(BackupProgress::default()));
        BackupRun::begin(
            &server.cluster,
            &self.storage,
            &folder,
            plan,
            created,
            limits,
            &progress,
            &self.cancel,
        )
        .await
    }

    /// Makes a worker of a backup of namespace `one` panic, the one that reaches the fail point with this number, from 0.
    pub fn strike_backup(&self, number: u64) -> Fault {
        let reached = AtomicU64::new(0);
        Fault::in_backup("one", &self.storage.describe(), move || {
            if reached.fetch_add(1, Relaxed) == number {
                strike();
            }
        })
    }

    /// Makes one backup into `folder`.
    pub async fn backup(
        &self,
        server: &Server,
        folder: &str,
        plan: &BackupPlan,
        created: DateTime<Utc>,
    ) -> Result<BackupReport, EngineError> {
        let limits = alone(plan);
        let (run, queue) = self.begin(server, folder, plan, created, &limits).await?;
        let mut dispatched =
            dispatch(vec![(Arc::clone(&run), queue)], NodeLoad::new(None), plan.parallel).await;
        run.finish(dispatched.queues.pop().unwrap()).await
    }

    /// The records of the files of a folder; every one once.
    #[track_caller]
    pub fn records(&self, folder: &str) -> Records {
        let mut records = Records::new();
        for entry in std::fs::read_dir(self.folder.path().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "asb") {
                continue;
            }
            let text = std::fs::read(&path).unwrap();
            let (_, length, _) = Header::parse(&text, true).unwrap().unwrap();
            let mut items = Items::new(&text[length..], Position::START);
            while let Some(item) = items.next().unwrap() {
                let Item::Record(mut record) = item else { continue };
                let (digest, mut value) = (record.digest, Vec::new());
                while let Some(bin) = record.next_bin().unwrap() {
                    bin.value.append_to(&mut value).unwrap();
                }
                assert_eq!(records.insert(digest, value), None, "a record is there twice");
            }
        }
        records
    }

    /// Everything below the storage, folders and hidden files too.
    pub fn left(&self) -> Vec<String> {
        fn walk(folder: &Path, names: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                names.push(path.to_string_lossy().into_owned());
                walk(&path, names);
            }
        }
        let mut names = Vec::new();
        walk(self.folder.path(), &mut names);
        names
    }
}

/// The limits of a job with a single namespace.
pub fn alone(plan: &BackupPlan) -> NamespaceLimits {
    BackupLimits::new(plan, None).divide(1).remove(0)
}

/// A backup of records alone that tries again at once.
pub fn plan(namespace: &str) -> BackupPlan {
    BackupPlan { no_indexes: true, no_udfs: true, retry: FAST, ..BackupPlan::new(namespace) }
}

/// Panics, without a word on standard error.
pub fn strike() {
    std::panic::resume_unwind(Box::new("injected"));
}

/// What became of some queues.
pub struct Dispatched {
    pub queues: Vec<PartitionQueue>,
    /// The most nodes that were scanned at a time.
    pub most_nodes: usize,
    /// Workers that panicked.
    pub fallen: usize,
}

/// Hands the batches of all runs to workers, `workers` for each run, until every queue is over.
pub async fn dispatch(
    runs: Vec<(Arc<BackupRun>, PartitionQueue)>,
    load: NodeLoad,
    workers: usize,
) -> Dispatched {
    tokio::time::timeout(HANGS, hand_out(runs, load, workers)).await.expect("the runs hang")
}

async fn hand_out(
    runs: Vec<(Arc<BackupRun>, PartitionQueue)>,
    mut load: NodeLoad,
    workers: usize,
) -> Dispatched {
    let (runs, mut queues): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
    let mut idle: Vec<Vec<Scanner>> =
        runs.iter().map(|_| (0..workers).map(|_| Scanner::new()).collect()).collect();
    let mut tasks = JoinSet::new();
    let mut out: HashMap<Id, (usize, BatchId, Option<Arc<str>>)> = HashMap::new();
    let (mut most_nodes, mut fallen) = (0, 0);
    loop {
        loop {
            let before = tasks.len();
            for (index, queue) in queues.iter_mut().enumerate() {
                if let Some(mut scanner) = idle[index].pop() {
                    let Some(batch) = queue.next(&mut load) else {
                        idle[index].push(scanner);
                        continue;
                    };
                    let (id, node) = (batch.id(), batch.node().map(|node| Arc::clone(&node.name)));
                    let run = Arc::clone(&runs[index]);
                    let task = tasks.spawn(async move {
                        let end = scanner.scan(&run, batch).await;
                        (scanner, end)
                    });
                    out.insert(task.id(), (index, id, node));
                }
            }
            if tasks.len() == before {
                break;
            }
        }
        let nodes: HashSet<_> = out.values().filter_map(|(_, _, node)| node.as_deref()).collect();
        most_nodes = most_nodes.max(nodes.len());
        let Some(joined) = tasks.join_next_with_id().await else { break };
        let (index, result) = match joined {
            Ok((task, (scanner, end))) => {
                let (index, batch, _) = out.remove(&task).unwrap();
                assert_eq!(end.id(), batch);
                idle[index].push(scanner);
                (index, queues[index].ended(&mut load, end))
            }
            Err(e) => {
                assert!(e.is_panic());
                fallen += 1;
                let (index, batch, _) = out.remove(&e.id()).unwrap();
                idle[index].push(Scanner::new());
                (index, queues[index].lost(&mut load, batch))
            }
        };
        if let Err(e) = result {
            runs[index].fail(e);
        }
    }
    assert!(queues.iter().all(PartitionQueue::is_over), "nothing is out and nothing is handed out");
    Dispatched { queues, most_nodes, fallen }
}
