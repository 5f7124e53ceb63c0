//! What a routine and its policy take of a namespace: sets, bins, partitions, nodes, racks, a moment; into which files.

use abs_asb::Digest;
use abs_cluster::partition_of;
use abs_devserver::DevServer;
use serde_json::{Value, json};

use super::restores::done;
use super::{Home, files, held, is_data, put, request_of, with_policy};
use crate::faults::empty;
use crate::raw::{self, Raw, blob, integer};
use crate::service::support::{ROUTINE, Service, configuration, eventually};
use crate::support::Server;

/// Gives the routine these keys, and backs up.
#[track_caller]
fn with(service: &Service, keys: &Value) -> Value {
    let mut routine = service.json("/v1/config/routines/routine");
    let all = routine.as_object_mut().unwrap();
    for key in ["set-list", "bin-list", "partition-list", "node-list", "rack-list", "filter-exp"] {
        all.remove(key);
    }
    all.extend(keys.as_object().unwrap().clone());
    service.put("/v1/config/routines/routine", Some(&routine.to_string())).is(200);
    service.backup("full", "routine").remove(0)
}

/// Protects: a routine's lists and its filter take what they name, and nothing else.
#[test]
fn a_routine_takes_what_it_names() {
    let server = Server::embedded(3);
    let records = |numbers: std::ops::Range<u64>, set: &str| {
        let record = |n| Raw::new(n).set(set).bin("one", integer(1)).bin("two", integer(2));
        raw::load(&server, &numbers.map(record).collect::<Vec<_>>());
    };
    records(0..100, "a");
    records(100..160, "b");
    records(160..190, "c");
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    let within = |wanted: &dyn Fn(u16) -> bool| {
        let digests: Vec<Digest> = (0..190).map(raw::digest).collect();
        digests.iter().filter(|digest| wanted(partition_of(digest))).count()
    };
    for (keys, expected) in [
        (json!({}), 190),
        (json!({"set-list": ["a"]}), 100),
        (json!({"set-list": ["a", "c"]}), 130),
        (json!({"partition-list": "0,100-2000"}), within(&|p| p == 0 || (100..2100).contains(&p))),
        (json!({"partition-list": "2048-2048", "set-list": ["b"]}), {
            let digests = (100..160).map(raw::digest);
            digests.filter(|digest| partition_of(digest) >= 2048).count()
        }),
    ] {
        assert_eq!(with(&service, &keys)["record-count"], expected, "{keys}");
    }
    let nodes = server.dev().addresses().iter().map(|node| {
        let backup = with(&service, &json!({"node-list": [node.to_string()]}));
        backup["record-count"].as_u64().unwrap()
    });
    let counts: Vec<u64> = nodes.collect();
    assert!(counts.iter().all(|&count| count > 0) && counts.iter().sum::<u64>() == 190, "{counts:?}");

    let bins = with(&service, &json!({"bin-list": ["two"], "set-list": ["c"]}));
    empty(&server);
    done(&service, "full", &request_of(&bins, &json!({})));
    let held = held(&server);
    assert_eq!(held.len(), 30);
    assert!(held.values().all(|bins| bins.keys().eq([&b"two".to_vec()])), "{held:?}");
}

/// Protects: the nodes of the racks that are named are read, and no others.
#[test]
fn racks_are_read_alone() {
    let server = Server::embedded(1);
    put(&server, 0..200, 1);
    let builder = DevServer::builder().listen(([127, 0, 0, 1], 0).into()).nodes(3).racks([1, 2, 2]);
    let builder = builder.replication_factor(1).namespace(&server.namespace, 1 << 28);
    let racked = server.runtime.block_on(builder.start()).unwrap();
    let text = configuration(&server, ROUTINE).replace(
        "storage:\n",
        &format!(
            "  racked: {{seed-nodes: [{{host-name: 127.0.0.1, port: {}}}]}}\nstorage:\n",
            racked.addresses()[0].port()
        ),
    );
    let home = Home::new(&text);
    let service = home.serve();
    let mut request = request_of(&service.backup("full", "routine")[0], &json!({}));
    request["destination-name"] = json!("racked");
    done(&service, "full", &request);
    let count = |racks: Value| {
        let backup = with(&service, &json!({"source-cluster": "racked", "rack-list": racks}));
        backup["record-count"].as_u64().unwrap()
    };
    let (one, two) = (count(json!([1])), count(json!([2])));
    assert!(one > 0 && two > 0 && one + two == 200, "{one} and {two}");
    assert_eq!(count(json!([1, 2])), 200);
}

/// Protects: a sealed backup is of the moment in which it began, in files of the size that is wanted; the next incremental
/// one takes what changed since.
#[test]
fn a_sealed_backup_is_of_its_beginning() {
    let server = Server::embedded(2);
    let records: Vec<_> = (0..30).map(|n| Raw::new(n).bin("bin", blob(vec![7; 100_000]))).collect();
    raw::load(&server, &records);
    // Slow, so that records can be written before most partitions are read.
    let home = with_policy(&server, "{sealed: true, file-limit: 1, records-per-second: 10}");
    let service = home.serve();
    service.post("/v1/backups/full/routine", None).is(202);
    let has_begun =
        || service.json("/v1/backups/currentBackup/routine")["full"]["done-records"].as_u64() > Some(0);
    eventually(has_begun).unwrap_or_else(|()| panic!("it does not begin:\n{}", service.log()));
    put(&server, 1000..1100, 1);
    eventually(|| service.json("/v1/backups/currentBackup/routine")["full"].is_null())
        .unwrap_or_else(|()| panic!("it does not end:\n{}", service.log()));
    let full = service.backups("full", "routine").remove(0);
    assert_eq!(full["record-count"], 30);
    // Three megabytes, in files of one.
    let data = files(&home.storage()).iter().filter(|name| is_data(name)).count();
    assert!(data >= 3, "{data}");
    let next = service.backup("incremental", "routine").remove(0);
    assert_eq!((&next["record-count"], &next["from"]), (&json!(100), &full["created"]));
}
