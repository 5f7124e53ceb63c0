//! `truncate` and `truncate-namespace`: records last written before a time are gone.

use std::num::IntErrorKind;
use std::sync::atomic::Ordering;

use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::info::{Command, InfoError, find_namespace};
use crate::namespace::Removal;
use crate::record::Record;

/// Empties a set.
pub(super) fn set(cluster: &Cluster, command: &Command<'_>) -> Result<String, InfoError> {
    let namespace = command.required("namespace")?;
    let name = command.required("set")?;
    let before = before(cluster, command)?;
    if let Some(namespace) = find_namespace(cluster, namespace)
        && let Some(id) = namespace.find_set(name.as_bytes())
        && let Some(set) = namespace.set(id)
    {
        set.truncate_lut.fetch_max(before, Ordering::Relaxed);
        namespace.sweep(Removal::Deleted, |record: &Record| record.set == id && record.last_update < before);
    }
    Ok("ok".into())
}

/// Empties a namespace.
pub(super) fn namespace(cluster: &Cluster, command: &Command<'_>) -> Result<String, InfoError> {
    let name = command.required("namespace")?;
    if command.get("set").is_some() {
        return Err(InfoError::parameter("unexpected set name"));
    }
    let before = before(cluster, command)?;
    if let Some(namespace) = find_namespace(cluster, name) {
        namespace.truncate_lut.fetch_max(before, Ordering::Relaxed);
        namespace.sweep(Removal::Deleted, |record: &Record| record.last_update < before);
    }
    Ok("ok".into())
}

/// The threshold in ms since 2010: now, or what the command says in Unix nanoseconds.
fn before(cluster: &Cluster, command: &Command<'_>) -> Result<u64, InfoError> {
    let now = cluster.clock.now_ms();
    let Some(text) = command.optional("lut")? else { return Ok(now) };
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
    let nanos = u64::from_str_radix(digits, radix).unwrap_or_else(|error| match error.kind() {
        IntErrorKind::PosOverflow => u64::MAX,
        _ => 0,
    });
    let before = Clock::from_unix_nanos(nanos).unwrap_or_default();
    match before {
        0 => Err(InfoError::parameter("would truncate to 0")),
        before if before > now => Err(InfoError::parameter("would truncate in the future")),
        before => Ok(before),
    }
}
