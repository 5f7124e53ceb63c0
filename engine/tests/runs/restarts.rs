//! Nodes that restart while they are read.

use std::sync::Arc;
use std::time::Duration;

use abs_devserver::DevServer;
use abs_engine::{BackupLimits, BackupPlan, BackupReport, EngineError, NodeLoad};
use chrono::Utc;

use crate::support::{HANGS, Records, Server, Target, dispatch, plan};

/// A backup of a server whose node 0 restarts as soon as a file has been written.
async fn restarted(server: &Server, target: &Target) -> Result<BackupReport, EngineError> {
    // A node that has just started is not known to have started again.
    server.dev.knobs().advance_clock(Duration::from_hours(1));
    let plan = BackupPlan { bandwidth: 4 << 20, file_limit: 500_000, ..plan("one") };
    let limits = BackupLimits::new(&plan, None).divide(1).remove(0);
    let (run, queue) = target.begin(server, "b", &plan, Utc::now(), &limits).await?;
    let restart = async {
        while !target.left().iter().any(|path| path.contains("_one_") && !path.contains(".abs-tmp-")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.dev.stop_node(0).await.unwrap();
        server.dev.start_node(0).await.unwrap();
    };
    let dispatched = dispatch(vec![(Arc::clone(&run), queue)], NodeLoad::new(None), 2);
    let (mut done, ()) =
        tokio::time::timeout(HANGS, async { tokio::join!(dispatched, restart) }).await.unwrap();
    run.finish(done.queues.pop().unwrap()).await
}

async fn full(server: &Server) -> Records {
    server.load("one", "", 0..3000, 3000).await
}

/// Protects: a cluster that loses its records while they are read is never listed as a whole backup; the run may be tried
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_a_restart_lost_fail_the_run() {
    let server = Server::build(DevServer::builder().volatile()).await;
    full(&server).await;
    let target = Target::new();
    let error = restarted(&server, &target).await.unwrap_err();
    assert!(matches!(error, EngineError::Restarted { .. }) && error.is_transient(), "{error}");
    assert_eq!(target.left(), [""; 0]);
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
        assert!(warning.contains("restarted during the backup") && warning.contains("DE0001"), "{warning}");
    }
}
