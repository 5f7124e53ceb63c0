//! Time as the server counts it: milliseconds or seconds since 2010-01-01T00:00:00Z.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 2010-01-01T00:00:00Z in Unix seconds.
const EPOCH_SECS: u64 = 1_262_304_000;

/// The server's clock. Tests may move it forward to see records expire without waiting.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    ahead_ms: AtomicU64,
}

impl Clock {
    /// Milliseconds since 2010-01-01.
    pub(crate) fn now_ms(&self) -> u64 {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (unix.as_millis() as u64).saturating_sub(EPOCH_SECS * 1000) + self.ahead_ms.load(Ordering::Relaxed)
    }

    /// Seconds since 2010-01-01, the unit of void times.
    pub(crate) fn now_secs(&self) -> u32 {
        (self.now_ms() / 1000) as u32
    }

    /// Moves the clock forward for good.
    pub(crate) fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }

    /// Unix nanoseconds (as expressions and `lut=` of truncate carry them) to milliseconds since 2010-01-01.
    pub(crate) fn from_unix_nanos(nanos: u64) -> Option<u64> {
        (nanos / 1_000_000).checked_sub(EPOCH_SECS * 1000)
    }

    /// Milliseconds since 2010-01-01 to Unix nanoseconds.
    pub(crate) fn to_unix_nanos(ms: u64) -> i64 {
        ((ms + EPOCH_SECS * 1000) * 1_000_000) as i64
    }
}
