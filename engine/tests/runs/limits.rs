//! Limits over several runs.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use abs_devserver::{Fault, Kind};
use abs_engine::{BackupLimits, BackupPlan, NamespaceLimits, NodeLoad};
use abs_storage::{ByteRange, Listing, ObjectPath, ObjectReader, ObjectWriter, Storage};
use async_trait::async_trait;
use chrono::Utc;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use crate::support::{Dispatched, HANGS, NAMESPACES, Server, Target, dispatch, plan};

/// Backs up both namespaces under the limits given for each, and checks what is there.
async fn back_up_both(
    server: &Server,
    limits: Vec<NamespaceLimits>,
    plan_of: impl Fn(&str) -> BackupPlan,
    load: NodeLoad,
) -> Dispatched {
    let target = Target::new();
    let mut runs = Vec::new();
    let mut shares = Vec::new();
    for (namespace, limits) in NAMESPACES.into_iter().zip(limits) {
        let plan = plan_of(namespace);
        runs.push(target.begin(server, namespace, &plan, Utc::now(), &limits).await.unwrap());
        shares.push(limits);
    }
    let owners: Vec<_> = runs.iter().map(|(run, _)| Arc::clone(run)).collect();
    let mut done = dispatch(runs, load, 4).await;
    for (run, queue) in owners.iter().zip(std::mem::take(&mut done.queues)) {
        let report = run.finish(queue).await.unwrap();
        let count = target.records(&report.metadata.namespace).len();
        assert_eq!(count as u64, server.dev.knobs().objects(&report.metadata.namespace).unwrap());
    }
    done
}

async fn loaded(nodes: usize) -> Server {
    let server = Server::start(nodes).await;
    for namespace in NAMESPACES {
        server.load(namespace, "", 0..300, 10).await;
    }
    // Long enough for everybody who may to scan at the same time.
    server.dev.knobs().inject(Fault::delay_request(Kind::Query, Duration::from_millis(10)));
    server
}

/// `parallel` is of the whole job, whatever its namespaces.
#[tokio::test(flavor = "multi_thread")]
async fn scans_of_a_job() {
    let server = loaded(1).await;
    let parallel = |namespace: &str| BackupPlan { parallel: 3, ..plan(namespace) };
    let limits = BackupLimits::new(&parallel("one"), None);
    back_up_both(&server, limits.divide(2), parallel, NodeLoad::new(None)).await;
    assert_eq!(server.dev.knobs().counts().most_queries, 3);
}

/// `max-parallel-scans` is of the cluster, whatever the jobs.
#[tokio::test(flavor = "multi_thread")]
async fn scans_of_a_cluster() {
    let server = loaded(1).await;
    let scans = Some(Arc::new(Semaphore::new(2)));
    let parallel = |namespace: &str| BackupPlan { parallel: 4, ..plan(namespace) };
    let limits = || BackupLimits::new(&parallel("one"), scans.clone()).divide(1).remove(0);
    back_up_both(&server, vec![limits(), limits()], parallel, NodeLoad::new(None)).await;
    assert_eq!(server.dev.knobs().counts().most_queries, 2);
}

/// `max-concurrent-nodes` is of the whole job.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_a_job() {
    let server = loaded(4).await;
    let limits = BackupLimits::new(&plan("one"), None);
    for most in 1..=3 {
        let load = NodeLoad::new(NonZeroU32::new(most));
        let done = back_up_both(&server, limits.divide(2), plan, load).await;
        assert_eq!(done.most_nodes, most as usize);
    }
    let done = back_up_both(&server, limits.divide(2), plan, NodeLoad::new(None)).await;
    assert_eq!(done.most_nodes, 4);
}

/// Runs that share a rate keep it together.
#[tokio::test(flavor = "multi_thread")]
async fn records_per_second_of_a_job() {
    let server = loaded(2).await;
    let slow = |namespace: &str| BackupPlan { records_per_second: 400, ..plan(namespace) };
    let start = Instant::now();
    let limits = BackupLimits::new(&slow("one"), None);
    back_up_both(&server, limits.divide(2), slow, NodeLoad::new(None)).await;
    // A busy machine may be slower, but never faster.
    assert!(start.elapsed() >= Duration::from_millis(1500), "600 records in {:?}", start.elapsed());
}

/// A storage that counts the objects that are being written.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn Storage>,
    open: Arc<Open>,
}

#[derive(Debug, Default)]
struct Open {
    now: AtomicUsize,
    most: AtomicUsize,
}

#[derive(Debug)]
struct CountedWriter {
    inner: Option<Box<dyn ObjectWriter>>,
    open: Arc<Open>,
}

impl Drop for CountedWriter {
    fn drop(&mut self) {
        self.open.now.fetch_sub(1, SeqCst);
    }
}

#[async_trait]
impl ObjectWriter for CountedWriter {
    async fn write(&mut self, block: &mut Vec<u8>) -> abs_storage::Result<()> {
        self.inner.as_mut().unwrap().write(block).await
    }

    fn written(&self) -> u64 {
        self.inner.as_ref().unwrap().written()
    }

    async fn commit(mut self: Box<Self>) -> abs_storage::Result<u64> {
        self.inner.take().unwrap().commit().await
    }

    async fn abort(mut self: Box<Self>) -> abs_storage::Result<()> {
        self.inner.take().unwrap().abort().await
    }
}

#[async_trait]
impl Storage for Counting {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn create(&self, path: &ObjectPath) -> abs_storage::Result<Box<dyn ObjectWriter>> {
        let inner = Some(self.inner.create(path).await?);
        self.open.most.fetch_max(self.open.now.fetch_add(1, SeqCst) + 1, SeqCst);
        Ok(Box::new(CountedWriter { inner, open: Arc::clone(&self.open) }))
    }

    async fn open(&self, path: &ObjectPath, range: ByteRange) -> abs_storage::Result<Box<dyn ObjectReader>> {
        self.inner.open(path, range).await
    }

    async fn put(&self, path: &ObjectPath, content: &[u8]) -> abs_storage::Result<()> {
        self.inner.put(path, content).await
    }

    async fn put_if_absent(&self, path: &ObjectPath, content: &[u8]) -> abs_storage::Result<bool> {
        self.inner.put_if_absent(path, content).await
    }

    async fn get(&self, path: &ObjectPath, limit: usize) -> abs_storage::Result<Vec<u8>> {
        self.inner.get(path, limit).await
    }

    async fn list(&self, prefix: &ObjectPath, recursive: bool) -> abs_storage::Result<Listing> {
        self.inner.list(prefix, recursive).await
    }

    async fn delete_prefix(&self, prefix: &ObjectPath) -> abs_storage::Result<u64> {
        self.inner.delete_prefix(prefix).await
    }

    async fn delete_unfinished(&self, prefix: &ObjectPath, older_than: Duration) -> abs_storage::Result<u64> {
        self.inner.delete_unfinished(prefix, older_than).await
    }
}

/// Protects: `parallel-write` is of the whole job, whatever its namespaces: with fewer files than namespaces they take
/// turns, and a namespace that ends leaves its files to the others.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_job() {
    const RUNS: usize = 5;
    let server = Server::start(1).await;
    let mut records = Vec::new();
    for namespace in NAMESPACES {
        records.push(server.load(namespace, "", 0..2000, 4000).await);
    }
    for parallel_write in [1, 3, 12] {
        let (open, mut target) = (Arc::new(Open::default()), Target::new());
        target.storage = Arc::new(Counting { inner: Arc::clone(&target.storage), open: Arc::clone(&open) });
        // Five runs, as of five namespaces, of a job that begins them all at once.
        let plan_of =
            |run: usize| BackupPlan { parallel_write, no_indexes: false, ..plan(NAMESPACES[run % 2]) };
        let shares = BackupLimits::new(&plan_of(0), None).divide(RUNS);
        let backups = shares.into_iter().enumerate().map(|(run, share)| {
            let (server, target, plan) = (&server, &target, plan_of(run));
            async move {
                let begun = target.begin(server, &run.to_string(), &plan, Utc::now(), &share).await;
                let (begun, queue) = begun.unwrap();
                let mut done = dispatch(vec![(Arc::clone(&begun), queue)], NodeLoad::new(None), 4).await;
                begun.finish(done.queues.pop().unwrap()).await.unwrap();
                drop(share);
            }
        });
        tokio::time::timeout(HANGS, join_all(backups)).await.expect("a namespace never gets its turn");
        let most = open.most.load(SeqCst);
        assert!((1..=parallel_write).contains(&most), "{most} files at a time, {parallel_write} allowed");
        for run in 0..RUNS {
            assert!(target.records(&run.to_string()) == records[run % 2]);
        }
    }
}

/// Protects: a namespace uses all files of the job when the others have ended, not only its share.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_others_left() {
    let server = Server::start(1).await;
    server.load("one", "", 0..4000, 4000).await;
    let (open, mut target) = (Arc::new(Open::default()), Target::new());
    target.storage = Arc::new(Counting { inner: Arc::clone(&target.storage), open: Arc::clone(&open) });
    let plan = BackupPlan { parallel_write: 4, parallel: 4, ..plan("one") };
    let mut shares = BackupLimits::new(&plan, None).divide(4);
    let share = shares.pop().unwrap();
    let (run, queue) = target.begin(&server, "b", &plan, Utc::now(), &share).await.unwrap();
    drop(shares);
    let mut done = dispatch(vec![(Arc::clone(&run), queue)], NodeLoad::new(None), 4).await;
    run.finish(done.queues.pop().unwrap()).await.unwrap();
    assert!(open.most.load(SeqCst) > 1);
}
