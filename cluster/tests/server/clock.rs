//! The clocks of the nodes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use abs_cluster::{Cluster, ClusterTime};
use abs_devserver::DevServer;

use crate::support::{NAMESPACE, builder, fill, options};

const HOUR: Duration = Duration::from_hours(1);

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

async fn connected() -> (DevServer, Cluster) {
    let server = builder().start().await.unwrap();
    let cluster = Cluster::connect(options(&server)).await.unwrap();
    (server, cluster)
}

/// Reads the clocks, and checks that the earliest is `behind` and the latest `ahead` of now, to within `precision`; all
/// in milliseconds.
async fn check(cluster: &Cluster, behind: i64, ahead: i64, precision: i64) {
    let before = now();
    let ClusterTime { earliest, latest } = cluster.time(NAMESPACE).await.unwrap().unwrap();
    let after = now();
    let earliest_range = before - behind - precision..=after - behind;
    assert!(earliest_range.contains(&earliest), "{earliest} is not in {earliest_range:?}");
    let latest_range = before + ahead..=after + ahead + precision;
    assert!(latest_range.contains(&latest), "{latest} is not in {latest_range:?}");
}

/// Protects: the clock of every node counts, to the millisecond, and reading it writes nothing.
#[tokio::test]
async fn every_node_tells_its_time() {
    let (server, cluster) = connected().await;
    fill(&cluster).await;
    // A record that was written in this millisecond does not tell the time yet.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let written = server.knobs().counts().batch_rows;
    check(&cluster, 0, 0, 0).await;
    server.knobs().skew_clock(0, 5000).unwrap();
    server.knobs().skew_clock(1, -3000).unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    // The records of the node behind are younger than its clock says.
    check(&cluster, 3000, 5000, 1000).await;
    server.knobs().advance_clock(HOUR);
    check(&cluster, 3000 - HOUR.as_millis() as i64, 5000 + HOUR.as_millis() as i64, 0).await;
    let counts = server.knobs().counts();
    assert_eq!((counts.batch_rows, counts.writes), (written, 0));
}

/// Protects: a node without a record that tells its time has one all the same, to the second.
#[tokio::test]
async fn a_node_without_a_telling_record_tells_its_time() {
    let (server, cluster) = connected().await;
    check(&cluster, 0, 0, 1000).await;
    server.knobs().advance_clock(HOUR);
    fill(&cluster).await;
    server.knobs().set_clock_back(2 * HOUR);
    let behind = HOUR.as_millis() as i64;
    check(&cluster, behind, -behind, 1000).await;
}
