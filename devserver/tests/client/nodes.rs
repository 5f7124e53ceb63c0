//! Several nodes: who owns what, and what happens when that changes.

use std::time::Duration;

use abs_devserver::{DevServer, PARTITIONS};
use aerospike::{BasePolicy, Bins, QueryPolicy, Statement};

use crate::raw::{self, Connection, Message};
use crate::support::{MEMORY, NAMESPACE, Setup, bin, key, numbers};

fn all() -> Statement {
    Statement::new(NAMESPACE, "s", Bins::All)
}

/// Nodes without replicas: each serves what it masters and nothing else.
async fn alone(nodes: usize) -> Setup {
    let builder = DevServer::builder().nodes(nodes).namespace(NAMESPACE, MEMORY);
    Setup::from(builder.replication_factor(1)).await
}

/// Waits until the client knows `count` nodes.
async fn until_nodes(setup: &Setup, count: usize) {
    let known = async {
        while setup.client.nodes().len() != count || !setup.client.partition_map_complete() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), known).await.unwrap();
}

#[tokio::test]
async fn clients_find_all_nodes_from_one() {
    let setup = Setup::new(3).await;
    until_nodes(&setup, 3).await;
    setup.fill("s", 300).await;
    for node in 0..3 {
        assert!(setup.server.knobs().counts_of(node).unwrap().writes > 50);
    }
}

#[tokio::test]
async fn partitions_are_shared_evenly() {
    let server = DevServer::builder().nodes(5).namespace(NAMESPACE, 1 << 20).start().await.unwrap();
    let mut owned = [0; 5];
    for partition in 0..PARTITIONS {
        owned[server.knobs().master_of(partition).unwrap()] += 1;
    }
    assert!(owned.iter().all(|count| (700..=940).contains(count)), "{owned:?}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_node_refuses_queries_of_partitions_it_does_not_have() {
    let setup = alone(3).await;
    setup.fill("s", 200).await;
    let knobs = setup.server.knobs();
    let partitions: Vec<u16> = (0..PARTITIONS as u16).collect();
    let mut found = 0;
    for (node, address) in setup.server.addresses().iter().enumerate() {
        let messages = Connection::to(*address).await.query(&raw::query(NAMESPACE, &partitions, &[])).await;
        let refused = messages.iter().filter(|message| message.result == 11).count();
        let owned = (0..PARTITIONS).filter(|partition| knobs.master_of(*partition) == Some(node)).count();
        assert_eq!(refused, PARTITIONS - owned);
        found += messages.iter().filter_map(Message::digest).count();
    }
    assert_eq!(found, 200);
}

#[tokio::test]
async fn a_node_serves_single_records_of_any_partition() {
    let setup = Setup::new(3).await;
    let key = key("s", 1);
    setup.put(&key, &[bin("n", 1)]).await.unwrap();
    let request = raw::request(
        raw::READ | raw::GET_ALL,
        0,
        &[(raw::NAMESPACE, NAMESPACE.as_bytes()), (raw::SET, b"s"), (raw::DIGEST, &key.digest())],
    );
    for address in setup.server.addresses() {
        let reply = Connection::to(*address).await.single(&request).await;
        assert_eq!((reply.result, reply.bins.len()), (0, 1));
    }
}

#[tokio::test]
async fn a_moved_partition_is_found_at_its_new_node() {
    let setup = alone(2).await;
    setup.fill("s", 100).await;
    let knobs = setup.server.knobs();
    let key = key("s", 5);
    let partition = key.partition_id();
    let from = knobs.master_of(partition).unwrap();
    let to = 1 - from;
    let mut old = Connection::to(setup.server.addresses()[from]).await;
    let generation = old.info("partition-generation").await;
    knobs.move_partition(partition, to).unwrap();
    assert_eq!(knobs.master_of(partition), Some(to));
    assert_ne!(old.info("partition-generation").await, generation);
    let query = raw::query(NAMESPACE, &[partition as u16], &[]);
    assert_eq!(old.query(&query).await[0].result, 11);
    let mut new = Connection::to(setup.server.addresses()[to]).await;
    assert!(new.query(&query).await.iter().any(|message| message.digest() == Some(key.digest())));
    // The client's query goes on at the new node once the client knows.
    let base_policy = BasePolicy { sleep_between_retries: 200, max_retries: 20, ..BasePolicy::default() };
    let policy = QueryPolicy { base_policy, ..QueryPolicy::default() };
    let found = setup.query_with(&policy, all()).await.unwrap();
    assert_eq!(numbers(&found), (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stopped_node_leaves_its_records_to_the_others() {
    let setup = Setup::new(3).await;
    until_nodes(&setup, 3).await;
    setup.fill("s", 300).await;
    let mut connection = Connection::to(setup.server.addresses()[1]).await;
    assert_eq!(connection.info("node").await, "DE0002");
    setup.server.stop_node(1).await.unwrap();
    assert_eq!(connection.bytes_to_end().await, 0);
    assert!(tokio::net::TcpStream::connect(setup.server.addresses()[1]).await.is_err());
    let knobs = setup.server.knobs();
    assert!((0..PARTITIONS).all(|partition| knobs.master_of(partition).is_some_and(|node| node != 1)));
    until_nodes(&setup, 2).await;
    assert_eq!(numbers(&setup.query(all()).await.unwrap()), (0..300).collect::<Vec<_>>());
    for n in 0..300 {
        setup.put(&key("s", n), &[bin("n", n + 1000)]).await.unwrap();
    }
    setup.server.start_node(1).await.unwrap();
    until_nodes(&setup, 3).await;
    assert_eq!(numbers(&setup.query(all()).await.unwrap()), (1000..1300).collect::<Vec<_>>());
    let before = knobs.counts_of(1).unwrap().reads;
    for n in 0..100 {
        assert!(setup.exists(&key("s", n)).await);
    }
    assert!(knobs.counts_of(1).unwrap().reads > before);
}

#[tokio::test]
async fn a_server_starts_again_on_its_ports_after_a_shutdown() {
    let server = DevServer::builder().nodes(2).namespace(NAMESPACE, 1 << 20).start().await.unwrap();
    let address = server.addresses()[0];
    let mut connection = Connection::to(address).await;
    connection.info("build").await;
    server.shutdown().await;
    assert_eq!(connection.bytes_to_end().await, 0);
    let builder = DevServer::builder().listen(address).namespace(NAMESPACE, 1 << 20);
    let server = builder.start().await.unwrap();
    assert_eq!(server.addresses(), [address]);
    assert_eq!(Connection::to(address).await.info("node").await, "DE0001");
}

#[tokio::test]
async fn senseless_servers_do_not_start() {
    let start = async |builder: abs_devserver::Builder| builder.start().await.unwrap_err().to_string();
    let builder = DevServer::builder;
    assert_eq!(start(builder()).await, "cannot build the development server: no namespace");
    assert!(start(builder().namespace("a", 1).nodes(0)).await.contains("0 nodes"));
    assert!(start(builder().namespace("a", 1).namespace("a", 1)).await.contains("twice"));
    assert!(start(builder().namespace("a;b", 1)).await.contains("no name"));
    let taken = builder().namespace("a", 1).start().await.unwrap();
    let address = taken.addresses()[0];
    assert!(start(builder().namespace("a", 1).listen(address)).await.contains("cannot listen on"));
}
