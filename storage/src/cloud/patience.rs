//! How often and how long a request is tried.

use std::time::Duration;

/// How long an object store may take, and what is done when it cannot do what it was asked. A try that fails in a way that
/// may pass (busy, out of reach, broken off) is made again after a wait that grows from try to try, and of which a
/// random part is taken, so that many who failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How often a request is tried.
    pub tries: u32,
    /// After this time no new try is begun.
    pub give_up: Duration,
    /// The longest wait before the second try; it doubles from try to try.
    pub first_wait: Duration,
    /// The longest wait of all.
    pub longest_wait: Duration,
    /// How long an answer, or the next bytes of one, may take.
    pub answer: Duration,
    /// The slowest that bytes may go up, in bytes per second, beside that.
    pub pace: u64,
}

impl Default for Patience {
    /// About a minute at the most; then it is for the retry policy of the job to decide.
    fn default() -> Self {
        Self {
            tries: 8,
            give_up: Duration::from_secs(45),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(8),
            answer: Duration::from_secs(15),
            pace: 128 << 10,
        }
    }
}

impl Patience {
    /// How long a request with so many bytes may take.
    pub(crate) fn for_bytes(&self, bytes: usize) -> Duration {
        self.answer + Duration::from_secs(bytes as u64 / self.pace.max(1))
    }

    /// How long to wait after `failed` tries (at least one), if the provider asks for `asked`.
    pub(crate) fn wait(&self, failed: u32, asked: Option<Duration>) -> Duration {
        let longest = self.first_wait.saturating_mul(1 << (failed - 1).min(20)).min(self.longest_wait);
        longest.mul_f64(fastrand::f64()).max(asked.unwrap_or_default().min(self.answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_differ() {
        let patience = Patience::default();
        for failed in 1..100 {
            let waits: Vec<_> = (0..50).map(|_| patience.wait(failed, None)).collect();
            let most = Duration::from_millis(500 << (failed - 1).min(10)).min(patience.longest_wait);
            assert!(waits.iter().all(|wait| *wait <= most), "{failed}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "{failed}: {waits:?}");
        }
        let asked = Duration::from_secs(3);
        assert!(patience.wait(1, Some(asked)) >= asked, "the provider knows best");
        assert_eq!(patience.wait(1, Some(Duration::from_secs(9_999))), patience.answer, "within reason");
    }

    #[test]
    fn large_parts_may_take_longer() {
        let patience = Patience::default();
        assert_eq!(patience.for_bytes(0), patience.answer);
        assert_eq!(patience.for_bytes(5 << 20), patience.answer + Duration::from_secs(40));
    }
}
