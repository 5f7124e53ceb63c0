//! Marks in the backups that a restore reads.

use std::sync::Arc;
use std::time::Duration;

use abs_engine::{EngineError, ReadMarks};
use abs_storage::Storage;
use slog::warn;
use tokio::time::timeout;

use super::Restore;
use crate::job::Steps;
use crate::journal::Chain;

/// How long a storage may take to delete the marks of a restore.
const UNMARKING: Duration = Duration::from_secs(2);

/// Marks the backups of a chain, so that nothing deletes them meanwhile.
pub(super) async fn begin(
    steps: &Steps<Restore>,
    storage: &Arc<dyn Storage>,
    chain: &Chain,
) -> Result<ReadMarks, EngineError> {
    let folders: Vec<_> = chain.links.iter().flat_map(|link| &link.folders).cloned().collect();
    match ReadMarks::begin(storage, &folders, steps.shared.catalogs.owner()).await {
        Err(e @ EngineError::Deleting { .. }) => Err(e),
        Err(e) => {
            warn!(steps.log, "nothing keeps other processes from deleting the backups while they are read"; "error" => %e);
            Ok(ReadMarks::default())
        }
        marks => marks,
    }
}

/// Takes the marks away. A storage that hangs does not hold up the end of the restore: a mark that stays holds for a lease.
pub(super) async fn end(marks: ReadMarks) {
    let _ = timeout(UNMARKING, tokio::spawn(marks.end())).await;
}
