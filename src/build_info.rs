//! What this build is of.

use chrono::{DateTime, SecondsFormat};

/// The version, the commit and the time of a build.
#[derive(Clone, Copy, Debug)]
pub struct BuildInfo {
    /// The version of the package.
    pub version: &'static str,
    /// The commit; empty when the sources did not come with one.
    pub commit: &'static str,
    /// When it was built; seconds since 1970.
    pub built: &'static str,
}

impl BuildInfo {
    /// This build's, as `build.rs` found them.
    pub const CURRENT: Self = Self {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("ABS_COMMIT"),
        built: env!("ABS_BUILD_EPOCH"),
    };

    /// When it was built, as RFC 3339.
    #[must_use]
    pub fn build_time(self) -> String {
        let seconds = self.built.parse().unwrap_or_default();
        DateTime::from_timestamp(seconds, 0).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Secs, true)
    }
}
