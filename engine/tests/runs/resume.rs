//! Restores that are interrupted and resumed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use abs_devserver::{Fault, Kind};
use abs_engine::{
    BackupPlan, ChainPosition, ChainRestore, EngineError, Link, RestoreLimits, RestorePlan, RestoreProgress,
    RestoreReport, RestoreWorker,
};
use abs_storage::ObjectPath;
use chrono::{DateTime, Utc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::restore::into_two;
use crate::support::{HANGS, Records, Server, Target, plan, scatter};

const RECORDS: u64 = 3000;

struct Stage {
    server: Server,
    target: Target,
    links: Vec<Link>,
    /// What the chain restores, and how many records its files hold.
    records: Records,
    stored: u64,
}

impl Stage {
    /// A backup of several files, and, in a chain, an incremental one before it.
    async fn new(is_chain: bool) -> Self {
        let server = Server::start(2).await;
        let target = Target::new();
        let path = |name: &str| Link::from(ObjectPath::new(name).unwrap());
        let mut records = server.load("one", "", 0..RECORDS, 1500).await;
        let full = BackupPlan { file_limit: 500_000, ..plan("one") };
        let report = target.backup(&server, "full", &full, Utc::now()).await.unwrap();
        assert!(report.metadata.file_count > 4);
        let (mut links, mut stored) = (vec![path("full")], RECORDS);
        if is_chain {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let bound: DateTime<Utc> = Utc::now();
            tokio::time::sleep(Duration::from_millis(20)).await;
            let changed = server.load("one", "", RECORDS - 500..RECORDS + 1000, 1400).await;
            stored += changed.len() as u64;
            records.extend(changed);
            let incremental = BackupPlan { modified_after: Some(bound), ..full };
            let report = target.backup(&server, "incremental", &incremental, Utc::now()).await.unwrap();
            assert_eq!(report.metadata.record_count, 1500);
            links.insert(0, path("incremental"));
        }
        Self { server, target, links, records, stored }
    }

    async fn begin(
        &self,
        plan: &RestorePlan,
        cancel: &CancellationToken,
    ) -> (Arc<ChainRestore>, Arc<RestoreProgress>) {
        let (limits, progress) = (RestoreLimits::new(plan, 1), Arc::new(RestoreProgress::default()));
        let Self { server, target, links, .. } = self;
        let run =
            ChainRestore::begin(&server.cluster, &target.storage, links, plan, &limits, &progress, cancel);
        (run.await.unwrap(), progress)
    }

    async fn empty(&self) {
        // The server leaves alone what was written in the millisecond of the command.
        while self.objects() > 0 {
            self.server.cluster.info("truncate-namespace:namespace=two").await.unwrap();
        }
    }

    fn objects(&self) -> u64 {
        self.server.dev.knobs().objects("two").unwrap()
    }

    /// Restores until so many records are settled, and returns the position at that moment, as a journal holds it. More are
    /// sent after that.
    async fn interrupt(&self, plan: &RestorePlan, after: u64, from: Option<&ChainPosition>) -> ChainPosition {
        let cancel = CancellationToken::new();
        let (run, progress) = self.begin(plan, &cancel).await;
        if let Some(from) = from {
            run.resume(from.clone()).unwrap();
            assert_eq!(&run.position(), from);
        }
        let worked = tokio::spawn({
            let run = Arc::clone(&run);
            async move { work(&run).await }
        });
        while progress.snapshot().settled() < after && !worked.is_finished() {
            tokio::task::yield_now().await;
        }
        let position = run.position();
        tokio::time::sleep(Duration::from_millis(scatter(after) % 15)).await;
        cancel.cancel();
        // It may have been done by then.
        let _ = worked.await.unwrap();
        // The server does what it has received.
        tokio::time::sleep(Duration::from_millis(50)).await;
        serde_json::from_str(&serde_json::to_string(&position).unwrap()).unwrap()
    }

    async fn finish(&self, plan: &RestorePlan, from: ChainPosition) -> RestoreReport {
        let (run, _) = self.begin(plan, &CancellationToken::new()).await;
        run.resume(from).unwrap();
        let report = tokio::time::timeout(HANGS, work(&run)).await.expect("it hangs").unwrap();
        assert_eq!(report.counts.read, self.stored);
        assert_eq!(report.counts.settled(), self.stored, "{:?}", report.counts);
        report
    }

    /// Insists that the namespace holds all records, each once.
    async fn holds_all(&self, number: u64) {
        let folder = format!("again{number}");
        let again = BackupPlan { compact: true, ..plan("two") };
        self.target.backup(&self.server, &folder, &again, Utc::now()).await.unwrap();
        assert!(self.target.records(&folder) == self.records);
    }
}

/// Reads all links with three workers.
async fn work(run: &Arc<ChainRestore>) -> Result<RestoreReport, EngineError> {
    while let Some(queue) = run.next_link().await {
        let queue = Arc::new(Mutex::new(queue));
        let mut workers = JoinSet::new();
        for _ in 0..3 {
            let (run, queue) = (Arc::clone(run), Arc::clone(&queue));
            workers.spawn(async move {
                let mut worker = RestoreWorker::new(Arc::clone(&run));
                let next = || queue.lock().unwrap().next_task();
                while !run.is_stopped()
                    && let Some(task) = next()
                {
                    if let Err(e) = worker.work(&task).await {
                        run.fail(e);
                    }
                    queue.lock().unwrap().ended(task.id());
                }
                if let Err(e) = worker.flush().await {
                    run.fail(e);
                }
            });
        }
        workers.join_all().await;
    }
    run.finish().await
}

fn slow() -> RestorePlan {
    RestorePlan { records_per_second: 20_000, batch_size: 37, ..into_two() }
}

/// Protects: after an interruption at any moment, with answers lost and rows sent again, what is below the position is in the
/// cluster, nothing of it is sent again, all else is, and the counters are as if nothing had happened, but for the rows that had
/// been written behind the position: these are in doubt.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_is_resumed_behind_its_last_answers() {
    let stage = Stage::new(false).await;
    for number in 0..8 {
        stage.empty().await;
        for node in 0..2 {
            let fault = Fault::cut_reply(Kind::Batch, scatter(number) % 400).on_node(node);
            stage.server.dev.knobs().inject(fault.times(2));
        }
        let position = stage.interrupt(&slow(), scatter(number) % RECORDS, None).await;
        let counts = &position.counts;
        assert_eq!(counts.read, counts.settled());
        let before = stage.objects();
        assert!(counts.inserted + counts.fresher <= before, "{counts:?} of {before}");
        let report = stage.finish(&into_two(), position.clone()).await;
        let RestoreReport { counts: after, .. } = report;
        // The rows that are found stored are those that had been written and were sent again.
        let sent_again = before - counts.inserted - counts.fresher;
        assert_eq!(after.fresher - counts.fresher, sent_again, "{position:?} then {after:?}");
        assert!(after.fresher <= after.in_doubt, "{after:?}");
        stage.holds_all(number).await;
    }
}

/// Protects: a chain that is interrupted again and again, in any link, is restored as a whole: what a newer link has decided is
/// known again, and the policy is applied once.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_resumed_in_any_link() {
    let stage = Stage::new(true).await;
    for number in 0..6 {
        stage.empty().await;
        let first = stage.interrupt(&slow(), scatter(number) % 1500, None).await;
        let second = stage.interrupt(&slow(), 1500 + scatter(number) % RECORDS, Some(&first)).await;
        assert!(second.counts.settled() >= first.counts.settled());
        let report = stage.finish(&into_two(), second).await;
        assert_eq!(report.counts.superseded, 500, "{:?}", report.counts);
        stage.holds_all(number).await;
    }
    // All links had been restored: nothing is sent.
    let (run, _) = stage.begin(&into_two(), &CancellationToken::new()).await;
    work(&run).await.unwrap();
    let position = run.position();
    assert_eq!((position.ended, position.files.len()), (2, 0));
    stage.empty().await;
    stage.finish(&into_two(), position).await;
    assert_eq!(stage.objects(), 0);
}

/// Protects: a position of other files is refused before anything is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_of_changed_files_is_refused() {
    let stage = Stage::new(false).await;
    let mut position = stage.interrupt(&slow(), RECORDS / 2, None).await;
    position.files[0].size += 1;
    let (run, _) = stage.begin(&into_two(), &CancellationToken::new()).await;
    let error = run.resume(position).unwrap_err().to_string();
    assert!(error.contains("cannot be continued") && error.contains("has changed"), "{error}");
}
