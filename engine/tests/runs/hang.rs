//! A storage that hangs must not hold up the end of a run that is canceled.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use abs_engine::{BackupLimits, EngineError, NodeLoad};
use abs_storage::{ByteRange, Listing, Local, ObjectPath, ObjectReader, ObjectWriter, Result, Storage};
use async_trait::async_trait;
use chrono::Utc;
use tokio_util::sync::CancellationToken;

use crate::support::{HANGS, Server, Target, dispatch, plan};

/// What does not come to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Claim,
    Write,
    Commit,
    Publish,
    /// The deletion of what was written, and whatever is asked from then on.
    Delete,
}

/// A folder whose calls hang from a certain one on, until it is healed.
#[derive(Debug)]
struct Hanging {
    inner: Local,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Gate {
    at: Call,
    reached: CancellationToken,
    healed: CancellationToken,
    all: Mutex<bool>,
}

impl Gate {
    async fn pass(&self, call: Option<Call>) {
        let hangs = {
            let mut all = self.all.lock().unwrap();
            *all |= self.at == Call::Delete && call == Some(Call::Delete);
            *all || call == Some(self.at)
        };
        if hangs {
            self.reached.cancel();
            self.healed.cancelled().await;
        }
    }
}

#[async_trait]
impl Storage for Hanging {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn create(&self, path: &ObjectPath) -> Result<Box<dyn ObjectWriter>> {
        let inner = self.inner.create(path).await?;
        Ok(Box::new(HangingWriter { inner, gate: Arc::clone(&self.gate) }))
    }

    async fn open(&self, path: &ObjectPath, range: ByteRange) -> Result<Box<dyn ObjectReader>> {
        self.inner.open(path, range).await
    }

    async fn put(&self, path: &ObjectPath, content: &[u8]) -> Result<()> {
        self.gate.pass(Some(Call::Publish)).await;
        self.inner.put(path, content).await
    }

    async fn put_if_absent(&self, path: &ObjectPath, content: &[u8]) -> Result<bool> {
        self.gate.pass(Some(Call::Claim)).await;
        self.inner.put_if_absent(path, content).await
    }

    async fn get(&self, path: &ObjectPath, limit: usize) -> Result<Vec<u8>> {
        self.gate.pass(None).await;
        self.inner.get(path, limit).await
    }

    async fn list(&self, prefix: &ObjectPath, recursive: bool) -> Result<Listing> {
        self.gate.pass(None).await;
        self.inner.list(prefix, recursive).await
    }

    async fn delete_prefix(&self, prefix: &ObjectPath) -> Result<u64> {
        self.gate.pass(Some(Call::Delete)).await;
        self.inner.delete_prefix(prefix).await
    }

    async fn delete_unfinished(&self, prefix: &ObjectPath, older_than: Duration) -> Result<u64> {
        self.inner.delete_unfinished(prefix, older_than).await
    }
}

#[derive(Debug)]
struct HangingWriter {
    inner: Box<dyn ObjectWriter>,
    gate: Arc<Gate>,
}

#[async_trait]
impl ObjectWriter for HangingWriter {
    async fn write(&mut self, block: &mut Vec<u8>) -> Result<()> {
        self.gate.pass(Some(Call::Write)).await;
        self.inner.write(block).await
    }

    fn written(&self) -> u64 {
        self.inner.written()
    }

    async fn commit(self: Box<Self>) -> Result<u64> {
        self.gate.pass(Some(Call::Commit)).await;
        self.inner.commit().await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}

/// Protects: wherever the storage hangs, a canceled run ends; when the storage answers again, nothing of the run is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_run_does_not_wait_for_a_storage_that_hangs() {
    let server = Server::start(1).await;
    server.load("one", "", 0..300, 3000).await;
    let calls = [Call::Claim, Call::Write, Call::Commit, Call::Publish, Call::Delete];
    let runs = calls.map(|call| canceled_at(&server, call));
    futures_util::future::join_all(runs).await;
}

async fn canceled_at(server: &Server, at: Call) {
    let mut target = Target::new();
    let (reached, healed) = (CancellationToken::new(), CancellationToken::new());
    let gate = Gate { at, reached: reached.clone(), healed: healed.clone(), all: Mutex::new(false) };
    let inner = Local::new(target.folder.path());
    target.storage = Arc::new(Hanging { inner, gate: Arc::new(gate) });
    let plan = plan("one");
    let limits = BackupLimits::new(&plan, None).divide(1).remove(0);
    let backup = async {
        let (run, queue) = target.begin(server, "b", &plan, Utc::now(), &limits).await?;
        if at == Call::Delete {
            target.cancel.cancel();
        }
        let mut done = dispatch(vec![(Arc::clone(&run), queue)], NodeLoad::new(None), 2).await;
        run.finish(done.queues.pop().unwrap()).await
    };
    let canceler = async {
        reached.cancelled().await;
        target.cancel.cancel();
    };
    let ended = async { tokio::join!(backup, canceler).0 };
    let ended = tokio::time::timeout(HANGS, Box::pin(ended)).await;
    let error = ended.unwrap_or_else(|_| panic!("{at:?}: the run does not end")).unwrap_err();
    assert!(matches!(error, EngineError::Canceled), "{at:?}: {error}");
    healed.cancel();
    let gone = async {
        while !target.left().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let gone = tokio::time::timeout(HANGS, gone).await;
    assert!(gone.is_ok(), "{at:?} leaves {:?}", target.left());
}
