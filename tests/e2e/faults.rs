//! Faults: connections that break, nodes that leave, partitions that move, disks that fill up, files that are damaged,
//! users who change their mind. They hurt the server, so it is always the embedded one.

mod chaos;
mod disk;
mod files;
mod kill;
mod kill_restores;
mod nodes;
mod restore;
mod scan;
mod steps;
mod stop;

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abs_actors::{
    BackupResult, CancelJob, GetJob, JobCounters, JobId, JobResult, RestoreResult, StartBackup, StartRestore,
    WaitForBackup, WaitForRestore,
};
use abs_config::Retry;
use abs_engine::{
    BackupPlan, BackupReport, BackupSnapshot, EngineError, RestorePlan, RestoreReport, RestoreSnapshot,
};
use abs_storage::{Local, ObjectPath, Storage};

use crate::raw::{self, Raw};
use crate::support::{Dump, HANGS, Server, same};

/// As often as the command line, without its waits.
const FAST: Retry = Retry { base: Duration::from_millis(1), multiplier: 1.5, max_retries: 10 };

/// A source of numbers that look random and are the same in every run (`SplitMix64`).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Records to put into a namespace.
#[derive(Clone, Copy)]
struct Data {
    records: u64,
    /// They are spread over the partitions from 0 to this, exclusively.
    partitions: u64,
    /// Bytes of their values, rounded up a little.
    size: u64,
}

impl Data {
    /// Bytes of values over all records, at the least.
    fn bytes(self) -> u64 {
        self.records * self.size
    }

    /// Writes the records: a set, an integer, a blob, of every third the key too.
    fn fill(self, server: &Server) {
        let records: Vec<Raw> = (0..self.records).map(|number| self.record(number)).collect();
        raw::load(server, &records);
    }

    fn record(self, number: u64) -> Raw {
        // Nothing that compression makes small.
        let mut numbers = Numbers(number);
        let bytes: Vec<u8> = (0..self.size.div_ceil(8)).flat_map(|_| numbers.next().to_be_bytes()).collect();
        let mut record = Raw::new(number).set("faults").bin("number", raw::integer(number as i64));
        record = record.bin("bytes", raw::blob(bytes));
        if number.is_multiple_of(3) {
            record = record.key(raw::integer(number as i64));
        }
        let [low, high] = ((number % self.partitions) as u16).to_le_bytes();
        record.digest[0] = low;
        record.digest[1] = record.digest[1] & 0xf0 | high;
        record
    }
}

/// A server with records, and what a backup of them holds.
struct Original {
    server: Server,
    backup: tempfile::TempDir,
    expected: Dump,
}

impl Original {
    fn new() -> Self {
        let server = Server::embedded(2);
        Data { records: 3000, partitions: 500, size: 2000 }.fill(&server);
        let backup = tempfile::tempdir().unwrap();
        server.backup(backup.path(), &[]).ok();
        let expected = Dump::read(backup.path());
        Self { server, backup, expected }
    }

    /// Insists that a backup holds each record once.
    #[track_caller]
    fn is_in(&self, folder: &Path) {
        same(&Dump::read(folder), &self.expected);
    }

    /// Insists that the namespace holds each record.
    #[track_caller]
    fn is_restored(&self) {
        let again = tempfile::tempdir().unwrap();
        self.server.backup(again.path(), &[]).ok();
        self.is_in(again.path());
    }
}

/// How much work processes lost that were killed.
#[derive(Default)]
struct Losses(Vec<Duration>);

impl Losses {
    /// Says what was lost, after how many kills of so many `jobs` there was something to continue.
    fn tell(&self, jobs: &str, continued: usize) {
        let (kills, all) = (self.0.len(), self.0.iter().sum::<Duration>());
        let (mean, most) = (all / kills.max(1) as u32, self.0.iter().max().copied().unwrap_or_default());
        println!(
            "{kills} kills of {jobs}, {continued} continued; work lost per kill: {:.2} s, {:.2} s at most",
            mean.as_secs_f64(),
            most.as_secs_f64()
        );
    }
}

/// How many jobs to kill: so many as `ABS_KILLS` says.
fn kills(default: u64) -> u64 {
    std::env::var("ABS_KILLS").map_or(default, |text| text.parse().unwrap())
}

/// Empties the namespace, and does nothing else.
pub fn empty(server: &Server) {
    // The server leaves alone what was written in the millisecond of the command.
    while server.dev().knobs().objects(&server.namespace) != Some(0) {
        server.info(&format!("truncate-namespace:namespace={}", server.namespace));
    }
}

fn local(folder: &Path) -> Arc<dyn Storage> {
    Arc::new(Local::new(folder))
}

/// A backup of records alone that tries again at once.
fn plan_backup(server: &Server) -> BackupPlan {
    // The clock of the cluster is read by a query, which is not what the faults are for.
    let cluster_time = server.runtime.block_on(server.cluster.time(&server.namespace)).unwrap();
    BackupPlan {
        cluster_time,
        no_indexes: true,
        no_udfs: true,
        retry: FAST,
        ..BackupPlan::new(&server.namespace)
    }
}

fn plan_restore(server: &Server) -> RestorePlan {
    RestorePlan { resend: FAST, ..RestorePlan::new(&server.namespace, &server.namespace) }
}

/// A job that runs in this process: hundreds of them would take minutes by the binary.
struct Running<'a> {
    server: &'a Server,
    id: JobId,
}

impl Running<'_> {
    async fn counters(&self) -> JobCounters {
        self.server.supervisor().send(GetJob(self.id)).await.unwrap().expect("a job")
    }

    async fn backup(&self) -> BackupSnapshot {
        match self.counters().await {
            JobCounters::Backup(counters) => counters,
            JobCounters::Restore(_) => panic!("a restore"),
        }
    }

    async fn cancel(&self) {
        self.server.supervisor().send(CancelJob(self.id)).await.unwrap();
    }

    async fn wait_for_backup(&self) -> Arc<BackupResult> {
        let end = self.server.supervisor().send(WaitForBackup(self.id));
        tokio::time::timeout(HANGS, end).await.expect("the job hangs").unwrap().expect("a job")
    }

    async fn wait_for_restore(&self) -> Arc<RestoreResult> {
        let end = self.server.supervisor().send(WaitForRestore(self.id));
        tokio::time::timeout(HANGS, end).await.expect("the job hangs").unwrap().expect("a job")
    }
}

/// The result of a job that was not done.
struct Failed<C, R>(Arc<JobResult<C, R>>);

type BackupFailed = Failed<BackupSnapshot, BackupReport>;
type RestoreFailed = Failed<RestoreSnapshot, RestoreReport>;

impl<C, R> Deref for Failed<C, R> {
    type Target = EngineError;

    fn deref(&self) -> &EngineError {
        self.0.done().err().expect("it was done")
    }
}

impl<C, R> fmt::Debug for Failed<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Runs a backup; `meanwhile` watches it.
fn backup(
    server: &Server,
    folder: &Path,
    plan: &BackupPlan,
    meanwhile: impl AsyncFnOnce(&Running<'_>),
) -> Result<BackupReport, BackupFailed> {
    let (cluster, plan) = (server.cluster.clone(), plan.clone());
    let start = StartBackup { cluster, storage: local(folder), folder: ObjectPath::root(), plan };
    let result = server.runtime.block_on(async {
        let job = Running { server, id: server.supervisor().send(start).await.unwrap() };
        tokio::join!(job.wait_for_backup(), meanwhile(&job)).0
    });
    let report = result.done().ok().map(|reports| reports[0].clone());
    report.ok_or(Failed(result))
}

/// Runs a restore; returns its counters even if it failed.
fn restore(
    server: &Server,
    folder: &Path,
    plan: &RestorePlan,
) -> (Result<RestoreReport, RestoreFailed>, RestoreSnapshot) {
    let (cluster, plan) = (server.cluster.clone(), plan.clone());
    let links = vec![ObjectPath::root().into()];
    let start = StartRestore { cluster, storage: local(folder), links, plan };
    let result = server.runtime.block_on(async {
        let job = Running { server, id: server.supervisor().send(start).await.unwrap() };
        job.wait_for_restore().await
    });
    let counts = result.snapshot.counts.clone();
    let report = result.done().ok().map(|reports| reports[0].clone());
    (report.ok_or(Failed(result)), counts)
}

/// What the counters of a finished restore must do.
#[track_caller]
fn adds_up(c: &RestoreSnapshot) {
    let fates = c.inserted + c.fresher + c.existed + c.ignored + c.skipped + c.expired;
    assert_eq!(c.read, fates, "{c:?}");
}

/// Names of everything in a folder, hidden files too; none when it does not exist.
fn left_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < HANGS, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
