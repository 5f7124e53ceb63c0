//! Time as the server counts it: milliseconds or seconds since 2010-01-01T00:00:00Z.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 2010-01-01T00:00:00Z in Unix seconds.
const EPOCH_SECS: u64 = 1_262_304_000;

/// The clocks of the nodes. Tests may move them: forward to see records expire without waiting, back, and apart.
#[derive(Debug)]
pub(crate) struct Clock {
    /// How far all nodes are ahead of the system's clock.
    ahead_ms: AtomicI64,
    /// How far each node is ahead of the others.
    skew_ms: Vec<AtomicI64>,
}

impl Clock {
    pub(crate) fn new(nodes: usize) -> Clock {
        Clock { ahead_ms: AtomicI64::default(), skew_ms: (0..nodes).map(|_| AtomicI64::default()).collect() }
    }

    /// Milliseconds since 2010-01-01, of a node that is neither ahead of the others nor behind.
    pub(crate) fn now_ms(&self) -> u64 {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = (unix.as_millis() as u64).saturating_sub(EPOCH_SECS * 1000);
        now.saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// Milliseconds since 2010-01-01, by the clock of one node.
    pub(crate) fn now_ms_of(&self, node: usize) -> u64 {
        let skew = self.skew_ms.get(node).map_or(0, |skew| skew.load(Ordering::Relaxed));
        self.now_ms().saturating_add_signed(skew)
    }

    /// Seconds since 2010-01-01, the unit of void times.
    pub(crate) fn now_secs(&self) -> u32 {
        (self.now_ms() / 1000) as u32
    }

    /// Moves the clocks of all nodes forward for good.
    pub(crate) fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(by.as_millis() as i64, Ordering::Relaxed);
    }

    /// Moves the clocks of all nodes back for good.
    pub(crate) fn set_back(&self, by: Duration) {
        self.ahead_ms.fetch_sub(by.as_millis() as i64, Ordering::Relaxed);
    }

    /// Sets how far the clock of a node is ahead of the others.
    pub(crate) fn skew(&self, node: usize, ahead_ms: i64) {
        if let Some(skew) = self.skew_ms.get(node) {
            skew.store(ahead_ms, Ordering::Relaxed);
        }
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
