//! The info protocol: lines of text in, `command<tab>answer` lines out.

mod command;
mod service;
mod statistics;
mod truncate;

pub(crate) use command::{Command, InfoError};

use base64_simd::STANDARD as BASE64;

use crate::cluster::Cluster;
use crate::masking;
use crate::namespace::Namespace;
use crate::record::PARTITIONS;
use crate::result_code::ResultCode;
use crate::sindex;

/// The version of the server whose answers these are.
const BUILD: &str = "8.1.2.0";
const FEATURES: &str = "batch-any;batch-index;blob-bits;cdt-index;cdt-list;cdt-map;cluster-stable;float;geo;\
sindex-exists;peers;pipelining;pquery;pscans;query-show;relaxed-sc;replicas;replicas-all;replicas-master;\
replicas-max;truncate-namespace;udf";
/// Commands that answer that only the enterprise edition has them.
const ENTERPRISE: [&str; 17] = [
    "alumni-tls-alt",
    "alumni-tls-std",
    "feature-key",
    "masking",
    "masking-show",
    "peers-tls-alt",
    "peers-tls-std",
    "quiesce",
    "quiesce-undo",
    "rack-ids",
    "racks",
    "revive",
    "roster",
    "roster-set",
    "service-tls-alt",
    "service-tls-std",
    "xdr-set-filter",
];
/// What a request without commands asks for.
const SUMMARY: [&str; 8] = [
    "features",
    "node",
    "compatibility-id",
    "edition",
    "build",
    "version",
    "statistics",
    "partition-generation",
];

/// Answers an info request of `node`.
pub(crate) fn answer(cluster: &Cluster, node: usize, body: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(body);
    let mut respond = |line: &str| {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\t');
        match command_answer(cluster, node, &Command::parse(line)) {
            Ok(answer) => out.extend_from_slice(answer.as_bytes()),
            Err(error) => out.extend_from_slice(error.to_string().as_bytes()),
        }
        out.push(b'\n');
    };
    if text.is_empty() {
        SUMMARY.into_iter().for_each(respond);
    } else {
        // A command ends with a line feed; what follows the last one is no command.
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).for_each(&mut respond);
    }
}

fn command_answer(cluster: &Cluster, node: usize, command: &Command<'_>) -> Result<String, InfoError> {
    if let Some(code) = cluster.faults.refused_info(node, command.name) {
        return Err(InfoError::new(code, "refused by a fault"));
    }
    let params = command.params;
    let (tls, is_enterprise) = (cluster.enterprise.tls.as_ref(), cluster.enterprise.is_there());
    Ok(match command.name {
        "build" => BUILD.into(),
        "version" => format!("{} build {BUILD}", edition(cluster)),
        "edition" => edition(cluster).into(),
        "release" => {
            let edition = edition(cluster);
            format!("edition={edition};version={BUILD};os=devserver;arch={};sha=0", std::env::consts::ARCH)
        }
        "features" => FEATURES.into(),
        "node" | "name" => Cluster::node_name(node),
        "cluster-name" => cluster.name.clone(),
        "compatibility-id" => "15".into(),
        "digests" => "RIPEMD160".into(),
        "partitions" => PARTITIONS.to_string(),
        "connection" => "admin=false".into(),
        "namespaces" => {
            cluster.namespaces.iter().map(|namespace| namespace.name.as_str()).collect::<Vec<_>>().join(";")
        }
        "namespace" => statistics::namespace(cluster, node, params),
        "sets" => statistics::sets(cluster, node, params),
        "statistics" => statistics::node(cluster, node),
        "get-stats" => statistics::get(cluster, node, command)?,
        "objects" => statistics::objects(cluster, node).to_string(),
        "histogram" | "get-config" | "config-get" => statistics::config(cluster, node, command)?,
        "partition-generation" => cluster.partition_generation().to_string(),
        "rebalance-generation" => (cluster.partition_generation() + 1).to_string(),
        "replicas" => replicas(cluster, node, command)?,
        "replicas-all" => replicas_text(cluster, node, usize::MAX, false),
        "replicas-master" => masters(cluster, node),
        "partition-info" => statistics::partition_info(cluster, node),
        "cluster-stable" => service::cluster_stable(cluster, command)?,
        "peers-generation" => cluster.peers_generation().to_string(),
        "peers-clear-std" | "alumni-clear-std" => service::peers(cluster, node, tls.is_none(), ""),
        "peers-clear-alt" | "alumni-clear-alt" => service::peers(cluster, node, false, ""),
        "peers-tls-std" | "alumni-tls-std" if is_enterprise => {
            service::peers(cluster, node, tls.is_some(), tls.map_or("", |tls| &tls.name))
        }
        "peers-tls-alt" | "alumni-tls-alt" if is_enterprise => service::peers(cluster, node, false, ""),
        "service-clear-std" | "service" if tls.is_none() => cluster.members()[node].address.to_string(),
        "service-tls-std" if tls.is_some() => cluster.members()[node].address.to_string(),
        "service-tls-std" | "service-tls-alt" if is_enterprise => String::new(),
        "racks" if is_enterprise => service::racks(cluster, command)?,
        "masking-show" if is_enterprise => masking::show(cluster, command)?,
        "rack-ids" if is_enterprise => each_namespace(cluster, &cluster.enterprise.rack(node).to_string()),
        "services" | "services-alumni" => service::services(cluster, node),
        "user-agent-set" => {
            let value = command.required("value")?;
            BASE64.decode_to_vec(value).map_err(|_| InfoError::parameter("'value' invalid base64"))?;
            "ok".into()
        }
        "best-practices" => "failed_best_practices=none".into(),
        "latencies" => statistics::latencies(cluster, command)?,
        "udf-list" => cluster.modules.list(),
        "udf-get" => cluster.modules.get(command),
        "udf-put" => cluster.modules.put(command),
        "udf-remove" => cluster.modules.remove(command),
        "log-message" => {
            let message = command.required("message")?;
            log::info!("{}: {message}", command.get("who").unwrap_or("unknown"));
            "ok".into()
        }
        "sindex-create" => sindex::create(cluster, command)?,
        "sindex-delete" => sindex::delete(cluster, command)?,
        "sindex-exists" => sindex::exists(cluster, command)?,
        "sindex-list" => sindex::list(cluster, command)?,
        "sindex-stat" => sindex::stat(cluster, command)?,
        "sindex" => old_sindex(cluster, params)?,
        "truncate" => truncate::set(cluster, command)?,
        "truncate-namespace" => truncate::namespace(cluster, command)?,
        "service-clear-std" | "service" | "service-clear-alt" | "services-alternate" | "admin-clear-std"
        | "admin-tls-std" | "query-show" | "health-outliers" | "health-stats" | "logs" => String::new(),
        "set-config" | "config-set" if command.get("context") == Some("namespace") => {
            let name = command.get("id").map_or_else(|| command.required_namespace(), Ok)?;
            let namespace = find_namespace(cluster, name)
                .ok_or_else(|| InfoError::new(ResultCode::NAMESPACE, "namespace not found on node"))?;
            let mut pairs = params.split(';').filter_map(|pair| pair.split_once('='));
            if pairs.any(|(key, value)| !namespace.settings.set(key, value)) {
                return Err(InfoError::parameter("bad value"));
            }
            "ok".into()
        }
        "query-abort" => {
            command.required("id")?;
            return Err(InfoError::new(ResultCode::NOT_FOUND, "id not active"));
        }
        "query-abort-all" => "OK - number of queries killed: 0".into(),
        // Nothing here is there to be set or undone.
        "config-set"
        | "log-set"
        | "set-config"
        | "truncate-namespace-undo"
        | "truncate-undo"
        | "udf-clear-cache"
        | "recluster"
        | "status"
        | "tip"
        | "tip-clear"
        | "services-alumni-reset" => "ok".into(),
        name if ENTERPRISE.contains(&name) => {
            return Err(InfoError::new(ResultCode::ENTERPRISE_ONLY, "enterprise only"));
        }
        _ => return Err(InfoError::parameter("unrecognized command")),
    })
}

fn edition(cluster: &Cluster) -> &'static str {
    if cluster.enterprise.is_there() { "Aerospike Enterprise Edition" } else { "Aerospike Community Edition" }
}

/// The namespace of a slash argument; the inner text is the answer that says there is none.
fn find_namespace<'a>(cluster: &'a Cluster, name: &str) -> Option<&'a Namespace> {
    cluster.namespace(name.as_bytes()).map(AsRef::as_ref)
}

fn old_sindex(cluster: &Cluster, params: &str) -> Result<String, InfoError> {
    let (namespace, index) = match params.split_once('/') {
        Some((namespace, index)) => (namespace, Some(index)),
        None => (params, None),
    };
    if namespace.is_empty() {
        return Ok(sindex::values_list(cluster, None, false).join(";"));
    }
    let Some(namespace) = find_namespace(cluster, namespace) else { return Ok("ns_type=unknown".into()) };
    match index {
        None => Ok(sindex::values_list(cluster, Some(namespace), false).join(";")),
        Some(index) => sindex::stat_of(namespace, index),
    }
}

/// `replicas`: per namespace the regime, the replication factor and a bitmap per replica.
fn replicas(cluster: &Cluster, node: usize, command: &Command<'_>) -> Result<String, InfoError> {
    let max = match command.optional("max")? {
        None => usize::MAX,
        Some(max) => match max.parse() {
            Ok(0) => usize::MAX,
            Ok(max) => max,
            Err(_) => return Err(InfoError::parameter("bad max")),
        },
    };
    Ok(replicas_text(cluster, node, max, true))
}

fn replicas_text(cluster: &Cluster, node: usize, max: usize, with_regime: bool) -> String {
    let replicas = cluster.effective_replication_factor().min(max);
    let mut body = format!("{}{replicas}", if with_regime { "0," } else { "" });
    for replica in 0..replicas {
        body.push(',');
        body.push_str(&BASE64.encode_to_string(cluster.replica_bitmap(node, replica)));
    }
    each_namespace(cluster, &body)
}

fn masters(cluster: &Cluster, node: usize) -> String {
    each_namespace(cluster, &BASE64.encode_to_string(cluster.replica_bitmap(node, 0)))
}

fn each_namespace(cluster: &Cluster, body: &str) -> String {
    cluster
        .namespaces
        .iter()
        .map(|namespace| format!("{}:{body}", namespace.name))
        .collect::<Vec<_>>()
        .join(";")
}
