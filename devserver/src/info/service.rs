//! Who is in the cluster and where.

use crate::cluster::Cluster;
use crate::info::{Command, InfoError};
use crate::result_code::ResultCode;

/// `peers-clear-std`, `peers-tls-std`: generation, default port, and the other live nodes with the name in their
/// certificates and their addresses.
pub(super) fn peers(cluster: &Cluster, node: usize, with_addresses: bool, tls_name: &str) -> String {
    let peers: Vec<String> = cluster
        .members()
        .iter()
        .enumerate()
        .filter(|(other, member)| with_addresses && *other != node && member.alive)
        .map(|(other, member)| format!("[{},{tls_name},[{}]]", Cluster::node_name(other), member.address))
        .collect();
    format!("{},3000,[{}]", cluster.peers_generation(), peers.join(","))
}

/// `services`: the addresses of the other live nodes.
pub(super) fn services(cluster: &Cluster, node: usize) -> String {
    cluster
        .members()
        .iter()
        .enumerate()
        .filter(|(other, member)| *other != node && member.alive)
        .map(|(_, member)| member.address.to_string())
        .collect::<Vec<_>>()
        .join(";")
}

/// `racks`: the live nodes by rack, of one namespace or of each.
pub(super) fn racks(cluster: &Cluster, command: &Command<'_>) -> Result<String, InfoError> {
    let mut racks = std::collections::BTreeMap::<u32, Vec<String>>::new();
    // The real server begins with the highest node id.
    for (node, _) in cluster.members().iter().enumerate().rev().filter(|(_, member)| member.alive) {
        racks.entry(cluster.enterprise.rack(node)).or_default().push(Cluster::node_name(node));
    }
    let racks: Vec<_> =
        racks.iter().map(|(rack, nodes)| format!("rack_{rack}={}", nodes.join(","))).collect();
    let racks = racks.join(":");
    match command.namespace()? {
        Some(name) if cluster.namespace(name.as_bytes()).is_none() => {
            Err(InfoError::new(ResultCode::NAMESPACE, "namespace not found on node"))
        }
        Some(_) => Ok(racks),
        None => {
            let each = cluster.namespaces.iter().map(|namespace| format!("ns={}:{racks}", namespace.name));
            Ok(each.collect::<Vec<_>>().join(";"))
        }
    }
}

/// `cluster-stable`: the cluster key, or an error when the cluster has not the size asked for.
pub(super) fn cluster_stable(cluster: &Cluster, command: &Command<'_>) -> Result<String, InfoError> {
    if let Some(size) = command.optional("size")? {
        let size: usize = size.parse().map_err(|_| InfoError::parameter("bad size"))?;
        if size != cluster.alive() {
            return Err(InfoError::new(ResultCode::CLUSTER_KEY_MISMATCH, "cluster not specified size"));
        }
    }
    let ignore = command.optional("ignore-migrations")?.unwrap_or("false");
    if !matches!(ignore, "true" | "false") {
        return Err(InfoError::parameter("bad ignore migrations"));
    }
    if let Some(name) = command.namespace()?
        && cluster.namespace(name.as_bytes()).is_none()
    {
        return Err(InfoError::new(ResultCode::NAMESPACE, "namespace not found on node"));
    }
    Ok(format!("{:X}", cluster.key()))
}
