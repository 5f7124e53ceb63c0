//! What is tried again, and when.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::check::{Check, most};

/// How often something that failed is tried again, and how long to wait before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// The wait before the first new attempt.
    pub base: Duration,
    /// By what each further wait is longer than the one before; at least 1.
    pub multiplier: f64,
    /// How many new attempts there are; 0 for none.
    pub max_retries: u32,
}

impl Default for Retry {
    /// Five new attempts, a minute apart.
    fn default() -> Self {
        Self { base: Duration::from_mins(1), multiplier: 1.0, max_retries: 5 }
    }
}

impl Retry {
    /// No new attempt at all.
    pub const NEVER: Self = Self { base: Duration::ZERO, multiplier: 1.0, max_retries: 0 };

    /// The wait before new attempt number `retry`, counted from 0, at most a day; none when there are no more.
    #[must_use]
    pub fn wait(&self, retry: u32) -> Option<Duration> {
        if retry >= self.max_retries {
            return None;
        }
        let factor = self.multiplier.powi(i32::try_from(retry).unwrap_or(i32::MAX));
        let longest = Duration::from_hours(24);
        let wait = Duration::try_from_secs_f64(self.base.as_secs_f64() * factor);
        Some(wait.map_or(longest, |wait| wait.min(longest)))
    }
}

/// The document `dto.RetryPolicy`. What is not given is as in [`Retry::default`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::RetryPolicy)]
pub struct RetryPolicy {
    /// The wait before the first new attempt, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub base_timeout: Option<i64>,
    /// By what each further wait is longer than the one before: `base-timeout` × `multiplier` ^ attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub multiplier: Option<f64>,
    /// How many new attempts there are; 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 10_000)]
    pub max_retries: Option<i64>,
}

impl RetryPolicy {
    pub(crate) fn settings(&self, check: &mut Check<'_>) -> Retry {
        let default = Retry::default();
        let base = check.milliseconds(
            "base-timeout",
            self.base_timeout,
            default.base.as_millis() as u32,
            1..=most::WAIT,
        );
        let mut multiplier = self.multiplier.unwrap_or(default.multiplier);
        if !(multiplier >= 1.0 && multiplier.is_finite()) {
            check.problem("multiplier", format_args!("must be at least 1, not {multiplier}"));
        } else if multiplier > most::MULTIPLIER {
            let message = format_args!("must be at most {}, not {multiplier}", most::MULTIPLIER);
            check.warning("multiplier", message, format_args!("{} is used", most::MULTIPLIER));
            multiplier = most::MULTIPLIER;
        }
        let max_retries =
            check.clamped("max-retries", self.max_retries, default.max_retries, 0..=most::RETRIES);
        Retry { base, multiplier, max_retries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(document: &str) -> Result<Retry, crate::Problems> {
        let policy: RetryPolicy = serde_json::from_str(document).unwrap();
        Check::document("retry-policy", |check| policy.settings(check))
    }

    #[test]
    fn waits_grow_by_the_multiplier() {
        let retry = settings(r#"{"base-timeout":100,"multiplier":2,"max-retries":4}"#).unwrap();
        let waits: Vec<_> = (0..5).map(|i| retry.wait(i).map(|wait| wait.as_millis())).collect();
        assert_eq!(waits, [Some(100), Some(200), Some(400), Some(800), None]);
        assert_eq!(settings("{}").unwrap(), Retry::default());
        assert_eq!(Retry::default().wait(4), Some(Duration::from_mins(1)));
        assert_eq!(Retry::NEVER.wait(0), None);
        let huge = Retry { base: Duration::from_secs(1), multiplier: f64::MAX, max_retries: u32::MAX };
        assert_eq!(huge.wait(u32::MAX - 1), Some(Duration::from_hours(24)));
    }

    #[test]
    fn all_problems_are_found() {
        let error =
            settings(r#"{"base-timeout":0,"multiplier":0.5,"max-retries":-1}"#).unwrap_err().to_string();
        assert_eq!(
            error,
            "retry-policy.base-timeout: must be at least 1, not 0; retry-policy.multiplier: must be at least 1, not 0.5; \
             retry-policy.max-retries: must be at least 0, not -1"
        );
    }
}
