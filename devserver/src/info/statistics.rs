//! Numbers: of the node, of a namespace, of its sets.
//!
//! The names are those of the real server; what it counts and this one does not is left out.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use crate::cluster::Cluster;
use crate::info::{Command, InfoError, find_namespace};
use crate::namespace::{Namespace, SetId};
use crate::record::PARTITIONS;
use crate::result_code::ResultCode;
use crate::sindex::Definition;

/// What the node holds of a namespace.
#[derive(Default)]
struct Held {
    master: u64,
    prole: u64,
}

impl Held {
    fn of(cluster: &Cluster, node: usize, namespace: &Namespace) -> Held {
        let mut held = Held::default();
        for partition in 0..PARTITIONS {
            if cluster.master(partition) == Some(node) {
                held.master += namespace.partition(partition).len() as u64;
            } else if cluster.holds(node, partition) {
                held.prole += namespace.partition(partition).len() as u64;
            }
        }
        held
    }
}

fn join(pairs: &[(&str, String)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(";")
}

/// `namespace/NAME`: the state and configuration of a namespace as this node sees it.
pub(super) fn namespace(cluster: &Cluster, node: usize, name: &str) -> String {
    let Some(namespace) = find_namespace(cluster, name) else { return "type=unknown".into() };
    let held = Held::of(cluster, node, namespace);
    let used = namespace.used.load(Ordering::Relaxed);
    let percent = |part: u64| part.saturating_mul(100) / namespace.limit.max(1);
    let state = [
        ("ns_cluster_size", cluster.alive().to_string()),
        ("effective_replication_factor", cluster.effective_replication_factor().to_string()),
        ("objects", (held.master + held.prole).to_string()),
        ("tombstones", "0".into()),
        ("master_objects", held.master.to_string()),
        ("master_tombstones", "0".into()),
        ("prole_objects", held.prole.to_string()),
        ("prole_tombstones", "0".into()),
        ("non_replica_objects", "0".into()),
        ("non_replica_tombstones", "0".into()),
        ("unreplicated_records", "0".into()),
        ("dead_partitions", "0".into()),
        ("unavailable_partitions", "0".into()),
        ("clock_skew_stop_writes", "false".into()),
        ("stop_writes", namespace.stop_writes().to_string()),
        ("hwm_breached", "false".into()),
        ("current_time", (cluster.clock.now_ms_of(node) / 1000).to_string()),
        ("expired_objects", namespace.expired.load(Ordering::Relaxed).to_string()),
        ("evicted_objects", "0".into()),
        ("truncate_lut", namespace.truncate_lut.load(Ordering::Relaxed).to_string()),
        ("truncating", "false".into()),
        ("index_used_bytes", (64 * namespace.objects.load(Ordering::Relaxed)).to_string()),
        ("set_index_used_bytes", "0".into()),
        ("sindex_used_bytes", "0".into()),
        ("data_total_bytes", namespace.limit.to_string()),
        ("data_used_bytes", used.to_string()),
        ("data_used_pct", percent(used).to_string()),
        ("data_avail_pct", percent(namespace.limit.saturating_sub(used)).to_string()),
        ("data_compression_ratio", "1.000".into()),
        ("pending_quiesce", "false".into()),
        ("effective_is_quiesced", "false".into()),
        ("nodes_quiesced", "0".into()),
        ("migrate_tx_partitions_remaining", "0".into()),
        ("migrate_rx_partitions_remaining", "0".into()),
    ];
    format!("{};{}", join(&state), namespace_config(cluster, node, namespace))
}

fn namespace_config(cluster: &Cluster, node: usize, namespace: &Namespace) -> String {
    let settings = &namespace.settings;
    let mut config = vec![
        ("allow-ttl-without-nsup", settings.allow_ttl_without_nsup.load(Ordering::Relaxed).to_string()),
        ("conflict-resolution-policy", "generation".into()),
        ("default-ttl", namespace.default_ttl.to_string()),
        ("disallow-null-setname", settings.disallow_null_setname.load(Ordering::Relaxed).to_string()),
        ("max-record-size", crate::record::MAX_RECORD.to_string()),
        ("nsup-period", settings.nsup_period.load(Ordering::Relaxed).to_string()),
        ("partition-tree-sprigs", "256".into()),
        ("rack-id", cluster.enterprise.rack(node).to_string()),
        ("replication-factor", cluster.replication_factor.to_string()),
        ("strong-consistency", "false".into()),
        ("index-type", "mem".into()),
        ("sindex-type", "mem".into()),
        ("storage-engine", "memory".into()),
        ("storage-engine.compression", "none".into()),
        ("storage-engine.data-size", namespace.limit.to_string()),
    ];
    if !cluster.is_volatile {
        // Records outlive their nodes, as those of a namespace do that has a file behind its memory.
        config.push(("storage-engine.file[0]", format!("{}.dat", namespace.name)));
    }
    join(&config)
}

/// `sets`, `sets/NAMESPACE`, `sets/NAMESPACE/SET`.
pub(super) fn sets(cluster: &Cluster, node: usize, params: &str) -> String {
    let (name, only) = match params.split_once('/') {
        Some((name, set)) => (name, Some(set)),
        None => (params, None),
    };
    let namespaces: Vec<&Namespace> = if name.is_empty() {
        cluster.namespaces.iter().map(AsRef::as_ref).collect()
    } else {
        match find_namespace(cluster, name) {
            Some(namespace) => vec![namespace],
            None => return "ns_type=unknown".into(),
        }
    };
    let mut out = String::new();
    for namespace in namespaces {
        let indexes = namespace.indexes.all();
        let objects = objects_of_sets(cluster, node, namespace);
        for set in namespace.sets() {
            let name = String::from_utf8_lossy(&set.name);
            if only.is_some_and(|only| only != name) {
                continue;
            }
            if only.is_none() {
                let _ = write!(out, "ns={}:set={name}:", namespace.name);
            }
            let of_set = |index: &&crate::sindex::Index| index.set == name;
            let value_indexes =
                indexes.iter().filter(of_set).filter(|index| index.definition != Definition::Set).count();
            let has_set_index =
                indexes.iter().filter(of_set).any(|index| index.definition == Definition::Set);
            let _ = write!(
                out,
                "objects={}:tombstones=0:data_used_bytes={}:truncate_lut={}:sindexes={value_indexes}:\
                 index_populating=false:truncating=false:default-read-touch-ttl-pct=0:default-ttl=0:\
                 disable-eviction=false:enable-index={has_set_index}:stop-writes-count=0:stop-writes-size=0;",
                namespace.find_set(&set.name).and_then(|id| objects.get(&id)).copied().unwrap_or(0),
                set.bytes.load(Ordering::Relaxed),
                set.truncate_lut.load(Ordering::Relaxed),
            );
        }
    }
    out
}

/// The records of each set that the node holds.
fn objects_of_sets(cluster: &Cluster, node: usize, namespace: &Namespace) -> HashMap<SetId, u64> {
    let mut objects = HashMap::new();
    for partition in (0..PARTITIONS).filter(|&partition| cluster.holds(node, partition)) {
        for record in namespace.partition(partition).values() {
            *objects.entry(record.set).or_default() += 1;
        }
    }
    objects
}

/// `objects`: how many records the node holds, of all namespaces.
pub(super) fn objects(cluster: &Cluster, node: usize) -> u64 {
    cluster
        .namespaces
        .iter()
        .map(|namespace| Held::of(cluster, node, namespace))
        .map(|held| held.master + held.prole)
        .sum()
}

/// `statistics`: the node's numbers.
pub(super) fn node(cluster: &Cluster, node: usize) -> String {
    let counts = cluster.counters[node].snapshot();
    join(&[
        ("failed_best_practices", "false".into()),
        ("cluster_size", cluster.alive().to_string()),
        ("cluster_key", format!("{:X}", cluster.key())),
        ("cluster_generation", (cluster.peers_generation() + 1).to_string()),
        ("cluster_principal", Cluster::node_name(0)),
        ("cluster_integrity", "true".into()),
        ("cluster_is_member", "true".into()),
        ("cluster_clock_skew_ms", "0".into()),
        ("uptime", cluster.clock.now_secs().saturating_sub(cluster.members()[node].started).to_string()),
        ("system_free_mem_pct", "50".into()),
        ("process_cpu_pct", "0".into()),
        ("objects", objects(cluster, node).to_string()),
        ("tombstones", "0".into()),
        ("client_connections", (counts.connections - counts.closed_connections).to_string()),
        ("client_connections_opened", counts.connections.to_string()),
        ("client_connections_closed", counts.closed_connections.to_string()),
        ("info_complete", counts.infos.to_string()),
        ("batch_index_initiate", counts.batches.to_string()),
        ("batch_index_complete", counts.batches.to_string()),
        ("long_queries_active", "0".into()),
        ("paxos_principal", Cluster::node_name(0)),
        ("migrate_allowed", "true".into()),
        ("migrate_partitions_remaining", "0".into()),
    ])
}

/// `get-stats`: a newer name for some of the same.
pub(super) fn get(cluster: &Cluster, node: usize, command: &Command<'_>) -> Result<String, InfoError> {
    match command.required("context")? {
        "xdr" => Err(InfoError::new(ResultCode::ENTERPRISE_ONLY, "enterprise only")),
        "namespace" => Ok(namespace(cluster, node, command.required_namespace()?)),
        _ => Err(InfoError::parameter("unknown context")),
    }
}

/// `get-config`: of the service, or of a namespace.
pub(super) fn config(cluster: &Cluster, node: usize, command: &Command<'_>) -> Result<String, InfoError> {
    if command.name == "histogram" {
        command.required_namespace()?;
        return Ok(String::new());
    }
    match command.get("context") {
        Some("namespace") => {
            // Until 8.1 it was called `id`.
            let name = command.get("id").map_or_else(|| command.required_namespace(), Ok)?;
            match find_namespace(cluster, name) {
                Some(namespace) => Ok(namespace_config(cluster, node, namespace)),
                None => Err(InfoError::new(ResultCode::NAMESPACE, "namespace not found on node")),
            }
        }
        Some("security" | "xdr") => Ok(String::new()),
        Some("network") => {
            let address = cluster.members()[node].address;
            let port = if cluster.enterprise.tls.is_some() { "tls-port" } else { "port" };
            Ok(format!(
                "service.{port}={};service.address={};heartbeat.mode=mesh",
                address.port(),
                address.ip()
            ))
        }
        _ => Ok(join(&[
            ("batch-max-requests", "0".into()),
            ("cluster-name", cluster.name.clone()),
            ("proto-fd-idle-ms", "0".into()),
            ("proto-fd-max", "15000".into()),
            ("query-threads-limit", "128".into()),
            ("transaction-max-ms", "1000".into()),
        ])),
    }
}

/// `partition-info`: one line per namespace and partition.
pub(super) fn partition_info(cluster: &Cluster, node: usize) -> String {
    let mut out = String::from(
        "namespace:partition:state:n_replicas:replica:succession:n_dupl:working_master:proxy_dst:emigrates:\
         lead_emigrates:immigrates:records:tombstones:regime:tree_id:version:final_version",
    );
    let replicas = cluster.effective_replication_factor();
    for namespace in &cluster.namespaces {
        for partition in 0..PARTITIONS {
            let master = cluster.master(partition);
            let held = cluster.holds(node, partition);
            let replica = if master == Some(node) { 0 } else { i32::from(held) * 2 - 1 };
            let master = master.map_or_else(|| "0".into(), Cluster::node_name);
            let records = if held { namespace.partition(partition).len() } else { 0 };
            let state = if held { 'S' } else { 'A' };
            let _ = write!(
                out,
                ";{}:{partition}:{state}:{replicas}:{replica}:{replica}:0:{master}:{master}:0:0:0:{records}:0:0:1:\
                 {:x}.0.mp-:{:x}.0.mp-",
                namespace.name,
                cluster.key(),
                cluster.key(),
            );
        }
    }
    out
}

/// `latencies`: nothing is measured, which is how histograms look that nothing was added to.
pub(super) fn latencies(cluster: &Cluster, command: &Command<'_>) -> Result<String, InfoError> {
    const HISTOGRAMS: [&str; 8] = [
        "read",
        "write",
        "udf",
        "batch-sub-read",
        "batch-sub-write",
        "batch-sub-udf",
        "pi-query",
        "si-query",
    ];
    let mut names = vec!["batch-index".to_owned()];
    for namespace in &cluster.namespaces {
        names.extend(HISTOGRAMS.map(|histogram| format!("{{{}}}-{histogram}", namespace.name)));
    }
    if let Some(only) = command.optional("hist")? {
        names.retain(|name| name == only);
        if names.is_empty() {
            return Err(InfoError::parameter("bad hist name"));
        }
    }
    Ok(names.iter().map(|name| format!("{name}:")).collect::<Vec<_>>().join(";"))
}
