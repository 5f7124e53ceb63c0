//! Questions to all nodes, of which some say nothing.

use std::time::Duration;

use abs_cluster::{Cluster, ConnectOptions};
use abs_devserver::{Fault, Kind};

use crate::support::{NAMESPACE, RECORDS, builder, fill, options};

/// Protects: nodes that do not answer are named, and a sum without theirs says so: it must not be taken for the whole.
#[tokio::test(flavor = "multi_thread")]
async fn silent_nodes_are_counted() {
    let server = builder().nodes(4).replication_factor(1).start().await.unwrap();
    let options = ConnectOptions { timeout: Duration::from_millis(500), ..options(&server) };
    let cluster = Cluster::connect(options).await.unwrap();
    fill(&cluster).await;
    let whole = cluster.statistics(NAMESPACE).await.unwrap();
    assert_eq!((whole.silent_nodes, whole.master_objects), (0, u64::from(RECORDS)));

    for node in [2, 3] {
        server.knobs().inject(Fault::delay_request(Kind::Info, Duration::from_hours(1)).on_node(node));
    }
    let all = cluster.info_all("node").await.unwrap();
    assert_eq!((all.answers.len(), all.silent.len()), (2, 2));
    // Whether or not the client has given the silent nodes up by now: the others know of them.
    for _ in 0..3 {
        let sum = cluster.statistics(NAMESPACE).await.unwrap();
        assert_eq!(sum.silent_nodes, 2);
        assert!(sum.master_objects < whole.master_objects);
    }

    for node in [0, 1] {
        server.knobs().inject(Fault::delay_request(Kind::Info, Duration::from_hours(1)).on_node(node));
    }
    let error = cluster.info_all("node").await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    server.knobs().clear();
}
