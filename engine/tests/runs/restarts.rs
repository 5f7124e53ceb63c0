//! Nodes that restart while they are read.

use std::sync::Arc;
use std::time::Duration;

use abs_devserver::DevServer;
use abs_engine::{BackupPlan, BackupReport, EngineError, NamespaceLimits, NodeLoad};
use chrono::Utc;

use crate::support::{HANGS, Records, Server, Target, alone, dispatch, plan};

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disturbance {
    Restart,
    RestartEmpty,
    Leave,
}

/// A backup of a server whose node 0 does this as soon as a file has been written.
async fn disturbed(
    server: &Server,
    target: &Target,
    limits: &NamespaceLimits,
    disturbance: Disturbance,
) -> Result<BackupReport, EngineError> {
    let plan = BackupPlan { bandwidth: 4 << 20, file_limit: 500_000, ..plan("one") };
    let (run, queue) = target.begin(server, "b", &plan, Utc::now(), limits).await?;
    let restart = async {
        while !target.left().iter().any(|path| path.contains("_one_") && !path.contains(".abs-tmp-")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if disturbance == Disturbance::RestartEmpty {
            server.cluster.info("truncate-namespace:namespace=one").await.unwrap();
        }
        server.dev.stop_node(0).await.unwrap();
        if disturbance != Disturbance::Leave {
            server.dev.start_node(0).await.unwrap();
        }
    };
    let dispatched = dispatch(vec![(Arc::clone(&run), queue)], NodeLoad::new(None), 2);
    let (mut done, ()) =
        tokio::time::timeout(HANGS, async { tokio::join!(dispatched, restart) }).await.unwrap();
    run.finish(done.queues.pop().unwrap()).await
}

/// The same of a server that has been up for a while: a node that has just started is not known to have started again.
async fn restarted(server: &Server, target: &Target) -> Result<BackupReport, EngineError> {
    server.dev.knobs().advance_clock(Duration::from_hours(1));
    disturbed(server, target, &alone(&plan("one")), Disturbance::Restart).await
}

async fn full(server: &Server) -> Records {
    server.load("one", "", 0..3000, 3000).await
}

/// Protects: a cluster that loses its records while they are read is never listed as a whole backup, also not by a second
/// attempt, which finds the nodes as they are by then.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_restart_lost_fail_the_run() {
    let server = Server::build(DevServer::builder().volatile()).await;
    full(&server).await;
    server.dev.knobs().advance_clock(Duration::from_hours(1));
    let (target, plan) = (Target::new(), plan("one"));
    let limits = alone(&plan);
    let error = disturbed(&server, &target, &limits, Disturbance::Restart).await.unwrap_err();
    assert!(matches!(error, EngineError::Restarted { .. }) && !error.is_transient(), "{error}");
    assert_eq!(target.left(), [""; 0]);
    let (run, queue) = target.begin(&server, "b", &plan, Utc::now(), &limits).await.unwrap();
    let mut done = dispatch(vec![(Arc::clone(&run), queue)], NodeLoad::new(None), 2).await;
    let error = run.finish(done.queues.pop().unwrap()).await.unwrap_err();
    assert!(matches!(error, EngineError::Restarted { .. }), "{error}");
    assert_eq!(target.left(), [""; 0]);
}

/// Protects: when a node leaves of whose records there is no other copy, the others answer for its partitions, with nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_with_the_only_copy_fails_the_run() {
    for (copies, is_lost) in [(1, true), (2, false)] {
        let server = Server::build(DevServer::builder().nodes(2).replication_factor(copies)).await;
        let records = full(&server).await;
        let target = Target::new();
        let report = disturbed(&server, &target, &alone(&plan("one")), Disturbance::Leave).await;
        if is_lost {
            let error = report.unwrap_err();
            assert!(
                matches!(&error, EngineError::Restarted { nodes, .. } if nodes == "DE0001 left"),
                "{error}"
            );
        } else {
            assert_eq!(report.unwrap().warnings.len(), 1);
            assert_eq!(target.records("b"), records);
        }
    }
}

/// Protects: a single node that comes back from its disk with much less than it had is not backed up as whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_empty_from_its_disk_fails_the_run() {
    let server = Server::start(1).await;
    full(&server).await;
    server.dev.knobs().advance_clock(Duration::from_hours(1));
    let target = Target::new();
    let limits = alone(&plan("one"));
    let report = disturbed(&server, &target, &limits, Disturbance::RestartEmpty).await;
    let error = report.unwrap_err();
    assert!(matches!(error, EngineError::Restarted { .. }), "{error}");
}

/// Protects: a restart that costs no record, because it is on disk or another node has it, is told and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_costs_no_record_is_told() {
    let on_disk = Server::start(1).await;
    let replicated = Server::build(DevServer::builder().nodes(2).volatile()).await;
    for server in [on_disk, replicated] {
        let records = full(&server).await;
        let target = Target::new();
        let report = restarted(&server, &target).await.unwrap();
        assert_eq!(target.records("b"), records);
        let [warning] = &report.warnings[..] else { panic!("{:?}", report.warnings) };
        assert!(warning.contains("during the backup") && warning.contains("DE0001 restarted"), "{warning}");
    }
}
