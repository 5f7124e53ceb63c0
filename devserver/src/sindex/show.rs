//! What indexes there are: `sindex-list`, `sindex-stat`, `sindex-exists`.

use std::fmt::Write as _;

use base64_simd::STANDARD as BASE64;

use super::{Definition, Index};
use crate::cdt::context;
use crate::cluster::Cluster;
use crate::info::{Command, InfoError};
use crate::namespace::Namespace;
use crate::result_code::ResultCode;

fn local_namespace<'a>(
    cluster: &'a Cluster,
    command: &Command<'_>,
) -> Result<Option<&'a Namespace>, InfoError> {
    let Some(name) = command.namespace()? else { return Ok(None) };
    match cluster.namespace(name.as_bytes()) {
        Some(namespace) => Ok(Some(namespace)),
        None => Err(InfoError::new(ResultCode::NAMESPACE, "namespace not found on node")),
    }
}

fn required_namespace<'a>(cluster: &'a Cluster, command: &Command<'_>) -> Result<&'a Namespace, InfoError> {
    local_namespace(cluster, command)?
        .ok_or_else(|| InfoError::new(ResultCode::NAMESPACE, "missing 'namespace'"))
}

/// `sindex-exists`: true or false.
pub(crate) fn exists(cluster: &Cluster, command: &Command<'_>) -> Result<String, InfoError> {
    let name = command.required("indexname")?;
    let namespace = required_namespace(cluster, command)?;
    Ok(namespace.indexes.get(name).is_some().to_string())
}

/// `sindex-stat`: an index here is complete as soon as it is defined.
pub(crate) fn stat(cluster: &Cluster, command: &Command<'_>) -> Result<String, InfoError> {
    let name = command.required("indexname")?;
    let namespace = required_namespace(cluster, command)?;
    stat_of(namespace, name)
}

pub(crate) fn stat_of(namespace: &Namespace, name: &str) -> Result<String, InfoError> {
    match namespace.indexes.get(name) {
        None => Err(InfoError::new(ResultCode::SINDEX_NOT_FOUND, "no index")),
        Some(Index { definition: Definition::Set, set, .. }) => {
            let entries = namespace
                .find_set(set.as_bytes())
                .and_then(|id| namespace.set(id))
                .map_or(0, |set| set.objects.load(std::sync::atomic::Ordering::Relaxed));
            Ok(format!("entries={entries};used_bytes=0;load_pct=100"))
        }
        Some(_) => Ok("entries=0;used_bytes=16777216;entries_per_bval=0;entries_per_rec=0;load_pct=100;\
                       load_time=0;stat_gc_recs=0"
            .into()),
    }
}

/// `sindex-list`: value indexes, then set indexes.
pub(crate) fn list(cluster: &Cluster, command: &Command<'_>) -> Result<String, InfoError> {
    let only = local_namespace(cluster, command)?;
    let base64 = match command.optional("b64")? {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(InfoError::parameter("bad b64")),
    };
    let mut lines = values_list(cluster, only, base64);
    for namespace in namespaces(cluster, only) {
        for index in namespace.indexes.all() {
            if index.definition == Definition::Set {
                lines.push(format!(
                    "ns={}:indexname={}:set={}:indextype=set",
                    namespace.name, index.name, index.set
                ));
            }
        }
    }
    Ok(lines.join(";"))
}

fn namespaces<'a>(cluster: &'a Cluster, only: Option<&'a Namespace>) -> impl Iterator<Item = &'a Namespace> {
    cluster
        .namespaces
        .iter()
        .map(AsRef::as_ref)
        .filter(move |namespace| only.is_none_or(|only| only.name == namespace.name))
}

/// The value indexes, as `sindex-list` and the older `sindex` show them.
pub(crate) fn values_list(cluster: &Cluster, only: Option<&Namespace>, base64: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for namespace in namespaces(cluster, only) {
        for index in namespace.indexes.all() {
            let Definition::Values { bin, context, expression, source, key } = &index.definition else {
                continue;
            };
            let or_null = |text: &str| if text.is_empty() { "null".to_owned() } else { text.to_owned() };
            let context =
                context.as_deref().map_or("null".to_owned(), |text| match BASE64.decode_to_vec(text) {
                    Ok(bytes) if !base64 => context::display(&bytes),
                    _ => text.to_owned(),
                });
            let mut line = String::new();
            let _ = write!(
                line,
                "ns={}:indexname={}:set={}:bin={}:type={}:indextype={}:context={}:exp={}:state=RW",
                namespace.name,
                index.name,
                or_null(&index.set),
                bin.as_deref().unwrap_or("null"),
                key.name(),
                source.name(),
                context,
                // The real server has a display form of its own when base64 is not asked for; this one has
                // not.
                expression.as_deref().unwrap_or("null"),
            );
            lines.push(line);
        }
    }
    lines
}
