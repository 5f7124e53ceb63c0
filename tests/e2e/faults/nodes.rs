//! Nodes that leave and come back.

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use abs_cluster::{Cluster, ConnectOptions};
use abs_config::Retry;
use abs_devserver::{Fault, Kind};
use abs_engine::{BackupPlan, EngineError, RestorePlan};

use super::{Data, adds_up, backup, empty, left_in, plan_backup, plan_restore, restore, until};
use crate::service::support::{Home, ROUTINE};
use crate::support::{Dump, Outcome, Server, command, outcome, same};

const DATA: Data = Data { records: 3000, partitions: 3000, size: 4000 };

/// The folder with a backup of the server as it was before any fault.
fn before(server: &Server, folder: &Path) -> Dump {
    backup(server, folder, &plan_backup(server), async |_| {}).unwrap();
    Dump::read(folder)
}

fn start(server: &Server, command_name: &str, folder: &Path, options: &[&str]) -> Child {
    let fixed = [
        command_name,
        "-h",
        &server.address,
        "-n",
        &server.namespace,
        "-d",
        folder.to_str().unwrap(),
        "--json",
    ];
    command(&[&fixed[..], options].concat()).spawn().unwrap()
}

/// Stops a node while the child works. It starts again when the others have taken over, or, node 1, when the child is done.
fn stop_and_start(server: &Server, node: usize, child: Child, took_over: impl Fn() -> bool) -> Outcome {
    let start = || server.runtime.block_on(server.dev().start_node(node)).unwrap();
    server.runtime.block_on(server.dev().stop_node(node)).unwrap();
    if node == 1 {
        let outcome = outcome(child);
        start();
        return outcome;
    }
    until("the other nodes serve", took_over);
    start();
    outcome(child)
}

/// A node that stops during a backup, and comes back: its partitions go on elsewhere, no record lost, none twice. Whichever
/// node it is, the one that was asked first included.
#[test]
fn a_node_stopped_during_a_backup_costs_no_record() {
    let server = Server::built(|builder| builder.nodes(3).replication_factor(2), None);
    DATA.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let expected = before(&server, &folder.path().join("before"));
    let knobs = server.dev().knobs();
    for node in 0..3 {
        let at = folder.path().join(node.to_string());
        knobs.inject(Fault::delay_reply(Kind::Query, Duration::from_millis(30)));
        let sent = knobs.counts_of(node).unwrap().bytes_sent;
        let child = start(&server, "backup", &at, &["--no-indexes", "--no-udfs"]);
        until("the node sends records", || knobs.counts_of(node).unwrap().bytes_sent > sent + 1_500_000);
        let scans = knobs.counts().queries;
        let summary = stop_and_start(&server, node, child, || knobs.counts().queries > scans).ok().json();
        assert!(summary["retries"].as_u64().unwrap() > 0, "{summary}");
        assert_eq!(summary["record-count"], 3000);
        same(&Dump::read(&at), &expected);
        knobs.clear();
    }
}

/// The same for a restore: every record is there, and the counters add up.
#[test]
fn a_node_stopped_during_a_restore_costs_no_record() {
    let server = Server::embedded(3);
    DATA.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("before");
    let expected = before(&server, &first);
    let knobs = server.dev().knobs();
    for node in 0..3 {
        empty(&server);
        knobs.inject(Fault::delay_reply(Kind::Batch, Duration::from_millis(10)));
        let done = knobs.counts_of(node).unwrap().batches;
        let child = start(&server, "restore", &first, &["--batch-size", "16", "--max-async-batches", "4"]);
        until("the node gets batches", || knobs.counts_of(node).unwrap().batches > done + 5);
        let batches = knobs.counts().batches;
        let summary =
            stop_and_start(&server, node, child, || knobs.counts().batches > batches + 5).ok().json();
        let count = |key: &str| summary[key].as_u64().unwrap();
        assert_eq!(count("read-records"), 3000, "{summary}");
        assert_eq!(count("inserted-records") + count("fresher-records"), 3000, "{summary}");
        assert!(count("retries") > 0, "{summary}");
        knobs.clear();
        until("all nodes are known again", || server.cluster.nodes().len() == 3);
        let after = folder.path().join(format!("after-{node}"));
        backup(&server, &after, &plan_backup(&server), async |_| {}).unwrap();
        same(&Dump::read(&after).restored(), &expected);
    }
}

/// Connections at rest when a node restarts are dead. Protects: a job must not spend its retries on them one by one.
#[test]
fn connections_of_a_restarted_node_are_not_used_again() {
    let server = Server::embedded(1);
    let data = Data { records: 3000, partitions: 1000, size: 100 };
    data.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let knobs = server.dev().knobs();
    let restart = || {
        server.runtime.block_on(async {
            server.dev().stop_node(0).await.unwrap();
            server.dev().start_node(0).await.unwrap();
        });
    };
    // Many scans at a time leave many connections at rest.
    knobs.inject(Fault::delay_reply(Kind::Query, Duration::from_millis(50)));
    let wide = BackupPlan { parallel: 24, ..plan_backup(&server) };
    backup(&server, &folder.path().join("wide"), &wide, async |_| {}).unwrap();
    knobs.clear();
    restart();
    let narrow = BackupPlan { parallel: 1, ..plan_backup(&server) };
    let report = backup(&server, &folder.path().join("narrow"), &narrow, async |_| {}).unwrap();
    assert!(report.retries <= 1, "{} retries", report.retries);

    // The same for batches.
    empty(&server);
    knobs.inject(Fault::delay_reply(Kind::Batch, Duration::from_millis(50)));
    let wide = RestorePlan { batch_size: 50, max_async_batches: 24, ..plan_restore(&server) };
    let (result, c) = restore(&server, &folder.path().join("narrow"), &wide);
    result.unwrap();
    adds_up(&c);
    knobs.clear();
    restart();
    let narrow = RestorePlan { max_async_batches: 1, ..plan_restore(&server) };
    let (result, c) = restore(&server, &folder.path().join("narrow"), &narrow);
    result.unwrap();
    adds_up(&c);
    assert!(c.retries <= 1, "{c:?}");
}

/// The last node stops for a moment while a backup and a restore run: they wait for it.
#[test]
fn a_cluster_that_is_gone_for_a_moment_is_waited_for() {
    let server = Server::embedded(1);
    DATA.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("before");
    let expected = before(&server, &first);
    let knobs = server.dev().knobs();
    let gone = || {
        server.runtime.block_on(async {
            server.dev().stop_node(0).await.unwrap();
            tokio::time::sleep(Duration::from_millis(700)).await;
            server.dev().start_node(0).await.unwrap();
        });
    };
    knobs.inject(Fault::delay_reply(Kind::Query, Duration::from_millis(30)));
    let sent = knobs.counts().bytes_sent;
    let at = folder.path().join("at");
    let child = start(&server, "backup", &at, &["--no-indexes", "--no-udfs"]);
    until("the node sends records", || knobs.counts().bytes_sent > sent + 1_500_000);
    gone();
    outcome(child).ok();
    same(&Dump::read(&at), &expected);

    empty(&server);
    knobs.inject(Fault::delay_reply(Kind::Batch, Duration::from_millis(10)));
    let done = knobs.counts().batches;
    let child = start(&server, "restore", &first, &["--batch-size", "16", "--max-async-batches", "4"]);
    until("the node gets batches", || knobs.counts().batches > done + 5);
    gone();
    outcome(child).ok();
    assert_eq!(server.objects(), 3000);
}

/// A node that has left a moment ago, unknown to us, is not the only one to be asked. Protects: what a job asks before and
/// after its records, such as creating the indexes at the end of a long restore.
#[test]
fn a_node_that_has_just_left_does_not_fail_the_questions() {
    let server = Server::embedded(3);
    Data { records: 300, partitions: 300, size: 100 }.fill(&server);
    server.info(&format!(
        "sindex-create:namespace={};set=faults;indexname=numbers;bin=number;type=numeric",
        server.namespace
    ));
    let folder = tempfile::tempdir().unwrap();
    for round in 0..4 {
        until("all nodes are known", || server.cluster.nodes().len() == 3);
        server.runtime.block_on(server.dev().stop_node(2)).unwrap();
        let at = folder.path().join(round.to_string());
        let plan = BackupPlan { no_indexes: false, no_udfs: false, ..plan_backup(&server) };
        let report = backup(&server, &at, &plan, async |_| {}).unwrap();
        assert_eq!((report.metadata.record_count, report.metadata.secondary_index_count), (300, 1));
        let (result, c) = restore(&server, &at, &plan_restore(&server));
        result.unwrap();
        assert_eq!((c.read, c.indexes), (300, 1), "{c:?}");
        server.runtime.block_on(server.dev().start_node(2)).unwrap();
    }
}

/// A cluster that leaves for good in the middle of a backup and a restore fails both, with the reason, and the backup leaves
/// nothing behind.
#[test]
fn a_cluster_that_stays_away_fails_the_jobs() {
    let server = Server::embedded(2);
    DATA.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("before");
    before(&server, &first);
    let knobs = server.dev().knobs();
    knobs.inject(Fault::delay_reply(Kind::Query, Duration::from_millis(50)));
    knobs.inject(Fault::delay_reply(Kind::Batch, Duration::from_millis(20)));
    let at = folder.path().join("at");
    let (sent, done) = (knobs.counts().bytes_sent, knobs.counts().batches);
    let backup = start(&server, "backup", &at, &[]);
    let restore = start(&server, "restore", &first, &["--batch-size", "8", "--max-async-batches", "2"]);
    until("both are at work", || {
        knobs.counts().bytes_sent > sent + 1_500_000 && knobs.counts().batches > done + 10
    });
    server.runtime.block_on(async {
        server.dev().stop_node(0).await.unwrap();
        server.dev().stop_node(1).await.unwrap();
    });
    outcome(backup).fails(1, &["namespace source-ns2, partition ", "11 attempts", "refused"]);
    assert_eq!(left_in(&at), [""; 0]);
    // The node refuses, or no node is left that has the partition.
    outcome(restore).fails(1, &["namespace source-ns2", "given up after 12 attempts"]);
}

/// Protects: a routine whose cluster leaves in the middle of a run tries as often as its retry policy says, logs why, and
/// lists nothing.
#[test]
fn a_cluster_that_stays_away_fails_the_run_of_a_routine() {
    let server = Server::embedded(1);
    DATA.fill(&server);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    let knobs = server.dev().knobs();
    knobs.inject(Fault::delay_reply(Kind::Query, Duration::from_millis(50)));
    let sent = knobs.counts().bytes_sent;
    service.post("/v1/backups/full/routine", None).is(202);
    until("it is at work", || knobs.counts().bytes_sent > sent + 1_500_000);
    server.runtime.block_on(server.dev().stop_node(0)).unwrap();
    service.logs(&["trying again", "attempt", "namespace source-ns2"]);
    service.logs(&["backup failed", "no node is left"]);
    assert_eq!(service.log().matches("trying again").count(), 1, "{}", service.log());
    assert_eq!(service.backups("full", "routine"), [] as [serde_json::Value; 0]);
    let running = service.json("/v1/backups/currentBackup/routine");
    assert!(!running["full"].is_object(), "{running}");
}

/// A cluster that says nothing any more, not even to info commands, fails the jobs too.
#[test]
fn a_cluster_that_falls_silent_fails_the_jobs() {
    let mut server = Server::embedded(2);
    DATA.fill(&server);
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("before");
    before(&server, &first);
    let seeds = vec![server.address.parse().unwrap()];
    let options = ConnectOptions { timeout: Duration::from_millis(200), ..ConnectOptions::new(seeds) };
    server.cluster = server.runtime.block_on(Cluster::connect(options)).unwrap();
    let knobs = server.dev().knobs();
    let socket_timeout = Duration::from_millis(100);
    let retry = Retry { max_retries: 3, ..super::FAST };
    let slow = knobs.inject(Fault::delay_reply(Kind::Query, Duration::from_millis(20)));
    let plan = BackupPlan { socket_timeout, retry, ..plan_backup(&server) };
    let at = folder.path().join("at");
    let failed = backup(&server, &at, &plan, async |job| {
        while job.backup().await.records_read == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        knobs.lift(slow);
        knobs.inject(Fault::delay_request(Kind::Any, Duration::from_hours(1)));
    });
    assert!(failed.as_ref().is_err_and(|e| matches!(**e, EngineError::Partition { .. })), "{failed:?}");
    assert_eq!(left_in(&at), [""; 0]);
    knobs.clear();
    until("the nodes are back", || server.cluster.nodes().len() == 2);
    knobs.inject(Fault::delay_request(Kind::Batch, Duration::from_hours(1)));
    let plan = RestorePlan { socket_timeout, retry, ..plan_restore(&server) };
    let (failed, c) = restore(&server, &first, &plan);
    assert!(failed.as_ref().is_err_and(|e| matches!(**e, EngineError::Batch { .. })), "{failed:?}");
    assert!(c.in_doubt > 0, "{c:?}");
}
