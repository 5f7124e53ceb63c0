//! Masking rules: bins whose strings a query redacts for users without the privilege to read them.

use std::borrow::Cow;

use crate::cluster::Cluster;
use crate::info::{Command, InfoError};
use crate::particle;
use crate::security::Peer;

/// A rule with the function `redact`.
#[derive(Clone, Debug)]
pub(crate) struct MaskingRule {
    pub(crate) namespace: String,
    pub(crate) set: String,
    pub(crate) bin: String,
}

/// The rules of a namespace that apply to a user.
pub(crate) fn applied<'a>(cluster: &'a Cluster, namespace: &str, peer: &Peer) -> Vec<&'a MaskingRule> {
    let enterprise = &cluster.enterprise;
    // A server without users refuses nothing.
    let is_permitted = match (&enterprise.security, &peer.user) {
        (Some(security), Some(user)) => security.may_read_masked(user, namespace),
        _ => true,
    };
    let rules = enterprise.masking.iter();
    rules.filter(|rule| !is_permitted && rule.namespace == namespace).collect()
}

/// The value of a bin as these rules show it.
pub(crate) fn shown<'a>(
    rules: &[&MaskingRule],
    set: &[u8],
    bin: &[u8],
    particle: u8,
    value: &'a [u8],
) -> Cow<'a, [u8]> {
    let is_masked = |rule: &&MaskingRule| rule.set.as_bytes() == set && rule.bin.as_bytes() == bin;
    if particle == particle::STRING && rules.iter().any(is_masked) {
        return Cow::Owned(vec![b'*'; String::from_utf8_lossy(value).chars().count()]);
    }
    Cow::Borrowed(value)
}

/// `masking-show`: the rules, of all namespaces or of one.
pub(crate) fn show(cluster: &Cluster, command: &Command<'_>) -> Result<String, InfoError> {
    let namespace = command.namespace()?;
    let set = command.optional("set")?;
    let rules = cluster.enterprise.masking.iter().filter(|rule| {
        namespace.is_none_or(|name| name == rule.namespace) && set.is_none_or(|name| name == rule.set)
    });
    let line = |rule: &MaskingRule| {
        let MaskingRule { namespace, set, bin } = rule;
        format!("ns={namespace};set={set};bin={bin};type=string;function=redact;position=0;value=*")
    };
    Ok(rules.map(line).collect::<Vec<_>>().join(":"))
}
