//! When and how closely the backups of a routine are verified.

use std::str::FromStr;

use crate::text::words;
use crate::{InvalidValue, Schedule, Zone};

/// When the service verifies the backups of a routine by itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Verify {
    /// Never.
    #[default]
    None,
    /// Each backup when it has been made.
    AfterBackup,
    /// By a schedule: the backups that a restore to that time would read.
    Scheduled(Box<Schedule>),
}

impl Verify {
    /// The same by the clocks of a zone.
    #[must_use]
    pub(crate) fn in_zone(self, zone: Zone) -> Self {
        match self {
            Self::Scheduled(schedule) => Self::Scheduled(Box::new(schedule.in_zone(zone))),
            other => other,
        }
    }
}

impl FromStr for Verify {
    type Err = InvalidValue;

    /// Reads `none`, `after-backup` or a cron expression, in UTC.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self::None);
        }
        if text.eq_ignore_ascii_case("after-backup") {
            return Ok(Self::AfterBackup);
        }
        let schedule = Schedule::parse(text, Zone::Utc).map_err(|e| {
            InvalidValue::new(text, format!("is neither none nor after-backup, and {}", e.reason))
        })?;
        Ok(Self::Scheduled(Box::new(schedule)))
    }
}

words! {
    /// How closely backups are verified.
    #[derive(Default)]
    pub enum VerifyMode: "mode of verifications" {
        /// Everything is read.
        #[default]
        Full = "full",
        /// The manifest, and the presence and size of each file.
        Quick = "quick",
    }
}
