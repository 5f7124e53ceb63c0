//! Runs that end well, that are given up, and that nobody ends.

use std::sync::Arc;
use std::time::Duration;

use abs_devserver::{DevServer, Fault, Kind};
use abs_engine::{BackupPlan, EngineError, NodeLoad, PartitionChoice, Scanner};
use chrono::Utc;

use crate::support::{HANGS, Server, Target, alone, dispatch, plan};

/// A run that is canceled in the middle says so, and leaves nothing when it has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_run_leaves_nothing() {
    let server = Server::start(2).await;
    server.load("one", "", 0..3000, 3000).await;
    let target = Target::new();
    let plan = BackupPlan { bandwidth: 2 << 20, file_limit: 500_000, ..plan("one") };
    let limits = alone(&plan);
    let (run, queue) = target.begin(&server, "b", &plan, Utc::now(), &limits).await.unwrap();
    let canceler = async {
        while !target.left().iter().any(|path| path.contains("_one_") && !path.contains(".abs-tmp-")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        target.cancel.cancel();
    };
    let dispatched = dispatch(vec![(Arc::clone(&run), queue)], NodeLoad::new(None), 4);
    let (mut done, ()) = tokio::join!(dispatched, canceler);
    assert!(run.is_stopped());
    let error = run.finish(done.queues.pop().unwrap()).await.unwrap_err();
    assert!(matches!(error, EngineError::Canceled), "{error}");
    assert_eq!(target.left(), [""; 0]);
}

/// A run that is dropped, as when its owner panicked, cleans up behind itself; one that is abandoned has when that returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_finishes_leaves_nothing() {
    let server = Server::start(1).await;
    server.load("one", "", 0..3000, 3000).await;
    let target = Target::new();
    let plan = BackupPlan { file_limit: 500_000, no_udfs: false, ..plan("one") };
    let limits = alone(&plan);
    let (run, queue) = target.begin(&server, "b", &plan, Utc::now(), &limits).await.unwrap();
    let dispatched = dispatch(vec![(Arc::clone(&run), queue)], NodeLoad::new(None), 4).await;
    assert!(target.left().len() > 3);
    let error = run.abandon(EngineError::Worker("its actor fell".to_owned())).await;
    assert!(matches!(error, EngineError::Worker(_)), "{error}");
    assert_eq!(target.left(), [""; 0]);
    drop(dispatched);

    let (run, queue) = target.begin(&server, "b", &plan, Utc::now(), &limits).await.unwrap();
    drop((run, queue));
    let gone = async {
        while !target.left().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(HANGS, gone).await.expect("it is never cleaned up");
}

/// A queue whose run was stopped hands out nothing, and is over as soon as nothing is out.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_run_has_no_more_batches() {
    let server = Server::start(1).await;
    let target = Target::new();
    let plan = plan("one");
    let limits = alone(&plan);
    let (run, mut queue) = target.begin(&server, "b", &plan, Utc::now(), &limits).await.unwrap();
    let mut load = NodeLoad::new(None);
    let batch = queue.next(&mut load).unwrap();
    run.fail(EngineError::Worker("its worker fell".to_owned()));
    assert!(queue.next(&mut load).is_none());
    assert!(!queue.is_over());
    let end = Scanner::new().scan(&run, batch).await;
    assert!(matches!(queue.ended(&mut load, end), Err(EngineError::Canceled)));
    assert!(queue.is_over() && !queue.is_done());
    assert!(matches!(run.finish(queue).await, Err(EngineError::Worker(_))));
}

/// A queue that is not done makes no backup, even though nothing failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_not_finished_before_its_queue() {
    let server = Server::start(1).await;
    server.load("one", "", 0..10, 10).await;
    let target = Target::new();
    let plan = plan("one");
    let limits = alone(&plan);
    let (run, queue) = target.begin(&server, "b", &plan, Utc::now(), &limits).await.unwrap();
    assert!(matches!(run.finish(queue).await, Err(EngineError::Canceled)));
    assert_eq!(target.left(), [""; 0]);
}

/// Of several runs that begin in one folder at the same moment one gets it, and is not disturbed by the others.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_gets_a_folder() {
    let server = Server::start(1).await;
    let records = server.load("one", "", 0..500, 100).await;
    let target = Target::new();
    for round in 0..10 {
        let (plan, folder) = (plan("one"), format!("round-{round}"));
        let limits = alone(&plan);
        let begin = || target.begin(&server, &folder, &plan, Utc::now(), &limits);
        let all = tokio::join!(begin(), begin(), begin(), begin());
        let mut winner = None;
        for begun in [all.0, all.1, all.2, all.3] {
            match begun {
                Ok(begun) => assert!(winner.replace(begun).is_none(), "two got the folder"),
                Err(e) => {
                    assert!(matches!(e, EngineError::NotEmpty { .. } | EngineError::Claimed { .. }), "{e}");
                }
            }
        }
        let (run, queue) = winner.expect("nobody got the folder");
        let mut done = dispatch(vec![(Arc::clone(&run), queue)], NodeLoad::new(None), 2).await;
        run.finish(done.queues.pop().unwrap()).await.unwrap();
        assert!(target.records(&folder) == records);
        assert!(!target.left().iter().any(|path| path.ends_with("in-progress")), "{:?}", target.left());
        assert!(matches!(begin().await, Err(EngineError::NotEmpty { .. })));
    }
}

/// A node that is silent in the middle of a scan is given up when the scan's own time is over, however patient its socket.
#[tokio::test(flavor = "multi_thread")]
async fn the_total_timeout_ends_a_silent_scan() {
    let hour = Duration::from_hours(1);
    let server = Server::start(1).await;
    let records = server.load("one", "", 0..1000, 3000).await;
    let target = Target::new();
    server.dev.knobs().inject(Fault::delay_reply(Kind::Query, hour).times(2));
    let plan = BackupPlan { socket_timeout: hour, total_timeout: Duration::from_millis(300), ..plan("one") };
    let report = target.backup(&server, "b", &plan, Utc::now()).await.unwrap();
    assert!(report.retries >= 2);
    assert!(target.records("b") == records);
}

/// A rack is what its nodes master; together the racks are everything, whichever rack is read from.
#[tokio::test(flavor = "multi_thread")]
async fn racks_divide_a_namespace() {
    let server = Server::build(DevServer::builder().nodes(4).racks(vec![1, 1, 2, 2])).await;
    let records = server.load("one", "", 0..1000, 10).await;
    let target = Target::new();
    let racks = |racks: &[u32], prefer_racks: &[u32]| BackupPlan {
        partitions: PartitionChoice::Racks(racks.to_vec()),
        prefer_racks: prefer_racks.to_vec(),
        ..plan("one")
    };
    target.backup(&server, "first", &racks(&[1], &[]), Utc::now()).await.unwrap();
    target.backup(&server, "second", &racks(&[2], &[]), Utc::now()).await.unwrap();
    let mut both = target.records("first");
    assert!((1..1000).contains(&both.len()));
    both.extend(target.records("second"));
    assert!(both == records);

    let scanned = || [2, 3].map(|node| server.dev.knobs().counts_of(node).unwrap().query_records);
    let before = scanned();
    target.backup(&server, "near", &racks(&[1, 2], &[1]), Utc::now()).await.unwrap();
    assert!(target.records("near") == records);
    assert_eq!(scanned(), before, "rack 1 has a copy of everything");

    let error = target.backup(&server, "none", &racks(&[1, 9], &[]), Utc::now()).await.unwrap_err();
    assert_eq!(error.to_string(), "the cluster has no node in rack 9");
}
