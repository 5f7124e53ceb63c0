//! Racks, and replicas that are asked instead of masters.

use abs_cluster::{Cluster, ClusterError, PARTITIONS};
use abs_devserver::DevServer;

use crate::support::{NAMESPACE, RECORDS, builder, count, fill, options, scan};

/// Four nodes in the racks 1 and 2, two copies of each partition.
async fn racked() -> (DevServer, Cluster) {
    let server = builder().nodes(4).racks([1, 1, 2, 2]).start().await.unwrap();
    let cluster = Cluster::connect(options(&server)).await.unwrap();
    fill(&cluster).await;
    (server, cluster)
}

#[tokio::test]
async fn a_preferred_rack_is_asked_for_everything_it_has() {
    let (server, cluster) = racked().await;
    let racks = cluster.racks(NAMESPACE).await.unwrap();
    assert_eq!(racks.ids().into_iter().collect::<Vec<_>>(), [1, 2]);
    // A replica lies in the other rack: each rack has everything.
    for wanted in [1, 2] {
        let map = cluster.partition_map_preferring(NAMESPACE, &[wanted]).await.unwrap();
        assert!(map.is_complete());
        let asked = |partition| racks.of(&map.nodes()[map.owner(partition).unwrap()]);
        assert!((0..PARTITIONS).all(|partition| asked(partition) == Some(wanted)));
        let before: Vec<_> =
            (0..4).map(|node| server.knobs().counts_of(node).unwrap().query_records).collect();
        assert_eq!(count(&cluster, &map).await, RECORDS);
        for (node, before) in before.into_iter().enumerate() {
            let in_rack = (node / 2 + 1) as u32 == wanted;
            assert_eq!(server.knobs().counts_of(node).unwrap().query_records > before, in_rack);
        }
    }
    // A rack that is not there is no reason to fail.
    let map = cluster.partition_map_preferring(NAMESPACE, &[7]).await.unwrap();
    let masters = cluster.partition_map(NAMESPACE).await.unwrap();
    assert_eq!(map.shares(), masters.shares());
    assert_eq!(count(&cluster, &map).await, RECORDS);
}

#[tokio::test]
async fn partitions_of_racks_divide_the_namespace() {
    let (_server, cluster) = racked().await;
    let racks = cluster.racks(NAMESPACE).await.unwrap();
    let masters = cluster.partition_map(NAMESPACE).await.unwrap();
    let mut all = masters.mastered_in(&racks, &[1]).unwrap();
    assert_eq!(all.len(), 2048);
    all.extend(masters.mastered_in(&racks, &[2]).unwrap());
    all.sort_unstable();
    assert!(all.into_iter().eq(0..PARTITIONS));
    assert_eq!(masters.mastered_in(&racks, &[2, 1]).unwrap().len(), 4096);
    assert!(matches!(masters.mastered_in(&racks, &[1, 3]), Err(ClusterError::NoRack(3))));
    assert!(matches!(cluster.racks("other").await, Err(ClusterError::NoNamespace(_))));
}

#[tokio::test]
async fn a_cluster_without_racks_is_one_rack() {
    let server = builder().start().await.unwrap();
    let cluster = Cluster::connect(options(&server)).await.unwrap();
    let racks = cluster.racks(NAMESPACE).await.unwrap();
    assert_eq!(racks.ids().into_iter().collect::<Vec<_>>(), [0]);
    assert!(cluster.nodes().iter().all(|node| racks.of(node) == Some(0)));
}

/// As real nodes do: whoever has a partition whole serves it, whoever does not have it says so.
#[tokio::test]
async fn nodes_serve_what_they_have_and_no_more() {
    let (server, cluster) = racked().await;
    let all: Vec<u16> = (0..PARTITIONS).collect();
    let (mut records, mut refused) = (0, 0);
    for node in cluster.nodes() {
        let (found, denied) = scan(&cluster, &node, &all).await.unwrap();
        records += found;
        refused += denied;
    }
    assert_eq!((records, refused), (2 * RECORDS, 2 * u32::from(PARTITIONS)));
    // The rest of a rack takes over what the preferred replicas of a node had, or the other rack does.
    server.stop_node(0).await.unwrap();
    let map = cluster.partition_map_preferring(NAMESPACE, &[1]).await.unwrap();
    assert!(map.is_complete());
    assert_eq!(count(&cluster, &map).await, RECORDS);
}
