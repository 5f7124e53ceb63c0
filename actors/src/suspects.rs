//! Backups whose time cannot be right.

use abs_config::RoutineSettings;
use abs_engine::catalog::{Catalog, CatalogError, Misdated};
use chrono::{DateTime, TimeDelta, Utc};
use slog::{Logger, warn};

use crate::shared::ADJUSTED;

/// By how much the service's clock may be wrong before it matters: the overlap, but never for long, because the next run
/// waits for the time of the one before.
pub(crate) fn tolerance(settings: &RoutineSettings) -> TimeDelta {
    TimeDelta::from_std(settings.policy.overlap)
        .unwrap_or(TimeDelta::MAX)
        .clamp(ADJUSTED, TimeDelta::minutes(1))
}

/// The latest time that a backup can truly have when the clock says `now`.
pub(crate) fn latest_true(settings: &RoutineSettings, now: DateTime<Utc>) -> DateTime<Utc> {
    now.checked_add_signed(tolerance(settings)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Marks the backups of a routine that are dated later than `latest`, and tells of them.
pub(crate) async fn mark_suspects(
    catalog: &Catalog,
    routine: &str,
    latest: DateTime<Utc>,
    log: &Logger,
) -> Result<Misdated, CatalogError> {
    let found = catalog.mark_suspects(routine, latest).await;
    match &found {
        Ok(found) => {
            for backup in &found.marked {
                warn!(
                    log, "a backup is dated in the future: the clock was ahead when it was made, or is behind now. It is left \
                          out from now on, and the next backup is a full one; if its time is right, delete the object \
                          clock-suspect in its folder";
                    "backup" => %backup.key, "dated" => %backup.created
                );
            }
        }
        Err(e) => warn!(log, "backups that are dated in the future cannot be looked for"; "error" => %e),
    }
    found
}
