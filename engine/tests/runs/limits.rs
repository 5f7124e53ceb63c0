//! Limits over several runs.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abs_devserver::{Fault, Kind};
use abs_engine::{BackupLimits, BackupPlan, NodeLoad};
use chrono::Utc;
use tokio::sync::Semaphore;

use crate::support::{Dispatched, NAMESPACES, Server, Target, dispatch, plan};

/// Backs up both namespaces under the limits given for each, and checks what is there.
async fn back_up_both(
    server: &Server,
    limits: [&Arc<BackupLimits>; 2],
    plan_of: impl Fn(&str) -> BackupPlan,
    load: NodeLoad,
) -> Dispatched {
    let target = Target::new();
    let mut runs = Vec::new();
    for (namespace, limits) in NAMESPACES.into_iter().zip(limits) {
        let plan = plan_of(namespace);
        runs.push(target.begin(server, namespace, &plan, Utc::now(), limits).await.unwrap());
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
    back_up_both(&server, [&limits, &limits], parallel, NodeLoad::new(None)).await;
    assert_eq!(server.dev.knobs().counts().most_queries, 3);
}

/// `max-parallel-scans` is of the cluster, whatever the jobs.
#[tokio::test(flavor = "multi_thread")]
async fn scans_of_a_cluster() {
    let server = loaded(1).await;
    let scans = Some(Arc::new(Semaphore::new(2)));
    let parallel = |namespace: &str| BackupPlan { parallel: 4, ..plan(namespace) };
    let limits = || BackupLimits::new(&parallel("one"), scans.clone());
    back_up_both(&server, [&limits(), &limits()], parallel, NodeLoad::new(None)).await;
    assert_eq!(server.dev.knobs().counts().most_queries, 2);
}

/// `max-concurrent-nodes` is of the whole job.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_a_job() {
    let server = loaded(4).await;
    let limits = BackupLimits::new(&plan("one"), None);
    for most in 1..=3 {
        let load = NodeLoad::new(NonZeroU32::new(most));
        let done = back_up_both(&server, [&limits, &limits], plan, load).await;
        assert_eq!(done.most_nodes, most as usize);
    }
    let done = back_up_both(&server, [&limits, &limits], plan, NodeLoad::new(None)).await;
    assert_eq!(done.most_nodes, 4);
}

/// Runs that share a rate keep it together.
#[tokio::test(flavor = "multi_thread")]
async fn records_per_second_of_a_job() {
    let server = loaded(2).await;
    let slow = |namespace: &str| BackupPlan { records_per_second: 400, ..plan(namespace) };
    let start = Instant::now();
    let limits = BackupLimits::new(&slow("one"), None);
    back_up_both(&server, [&limits, &limits], slow, NodeLoad::new(None)).await;
    // A busy machine may be slower, but never faster.
    assert!(start.elapsed() >= Duration::from_millis(1500), "600 records in {:?}", start.elapsed());
}
