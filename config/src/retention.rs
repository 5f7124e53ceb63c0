//! How long backups are kept.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::check::Check;

/// How many backups are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// How many full backups, at least 1; all if none.
    pub full: Option<u32>,
    /// Of how many full backups the incremental ones; of all that are kept if none.
    pub incremental: Option<u32>,
}

/// The document `dto.RetentionPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::RetentionPolicy)]
pub struct RetentionPolicy {
    /// How many full backups to keep, at least 1; all if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 4_294_967_295_i64)]
    pub full: Option<i64>,
    /// For how many full backups to keep the incremental ones, at most `full`, 0 for none; for all if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 4_294_967_295_i64)]
    pub incremental: Option<i64>,
}

impl RetentionPolicy {
    pub(crate) fn settings(&self, check: &mut Check<'_>) -> Retention {
        let most = i64::from(u32::MAX);
        let full = self.full.map(|_| check.number("full", self.full, 1, 1..=most));
        let incremental =
            self.incremental.map(|_| check.number("incremental", self.incremental, 0, 0..=most));
        if let (Some(full), Some(incremental)) = (full, incremental)
            && incremental > full
            && self.full == Some(i64::from(full))
        {
            check.problem("incremental", format_args!("must be at most full ({full}), not {incremental}"));
        }
        Retention { full, incremental }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(document: &str) -> Result<Retention, String> {
        let policy: RetentionPolicy = serde_json::from_str(document).unwrap();
        Check::document("retention", |check| policy.settings(check)).map_err(|problems| problems.to_string())
    }

    #[test]
    fn incremental_backups_need_their_full_one() {
        assert_eq!(settings("{}").unwrap(), Retention::default());
        assert_eq!(settings(r#"{"full":2,"incremental":2}"#).unwrap().incremental, Some(2));
        assert_eq!(settings(r#"{"incremental":7}"#).unwrap().full, None);
        for (document, message) in [
            (r#"{"full":0}"#, "retention.full: must be at least 1, not 0"),
            (r#"{"full":0,"incremental":3}"#, "retention.full: must be at least 1, not 0"),
            (r#"{"full":1,"incremental":2}"#, "retention.incremental: must be at most full (1), not 2"),
            (r#"{"incremental":-1}"#, "retention.incremental: must be at least 0, not -1"),
        ] {
            assert_eq!(settings(document).unwrap_err(), message);
        }
    }
}
