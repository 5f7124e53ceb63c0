//! What the reference can do and this version cannot yet. No key is taken and not honoured: it is refused here.

use crate::backup_policy::BackupPolicy;
use crate::check::Check;
use crate::storage::Storage;

/// Keys of the reference that no document here has, with their places (`*` for any name).
const KEYS: [(&str, &str); 5] = [
    ("service.https", "put a proxy that speaks TLS before the service"),
    ("service.http.disabled", "leave it out"),
    ("service.http.idle-timeout", "leave it out"),
    ("service.http.read-timeout", "use timeout"),
    ("service.http.write-timeout", "leave it out"),
];

/// What to say of the unknown key at `path`, if it is one of the reference's.
pub(crate) fn key(path: &str) -> Option<String> {
    let (_, advice) = KEYS.iter().find(|(key, _)| *key == path)?;
    Some(format!("is not supported by this version: {advice}"))
}

pub(crate) fn backup_policy(policy: &BackupPolicy, check: &mut Check<'_>) {
    if policy.use_scan_compression == Some(true) {
        check.problem("use-scan-compression", "is not supported by this version: leave it out");
    }
}

pub(crate) fn storage(storage: &Storage, check: &mut Check<'_>) {
    if storage.local_storage.as_ref().is_some_and(|local| local.min_part_size.is_some()) {
        check.problem(
            "local-storage.min-part-size",
            "is not supported by this version: files are written in blocks of 512 KiB: leave it out",
        );
    }
}
