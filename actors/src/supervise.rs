//! Restarting actors that fail: after growing waits, counting generations.

use std::time::{Duration, Instant};

/// The first wait.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_mins(1);
/// What has run this long has recovered: the next failure is a new one.
const HEALTHY: Duration = Duration::from_mins(10);

/// Waits that double from a second to a minute.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// How long to wait before the next attempt.
    pub(crate) fn next_wait(&mut self) -> Duration {
        self.attempts += 1;
        wait_after(self.attempts)
    }

    /// Begins again with the shortest wait.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// How long to wait after this many failures, from 1.
pub(crate) fn wait_after(failures: u32) -> Duration {
    SHORTEST.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST)
}

/// The supervision of one actor.
#[derive(Debug)]
pub(crate) struct Supervision {
    /// 1 for the first actor, one more for each restart.
    pub generation: u64,
    started: Instant,
    backoff: Backoff,
    /// It was seen alive since it was restarted.
    lived: bool,
    restart: Option<Instant>,
}

/// What is to be done about an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: it lives, or it is not yet time to restart it.
    Nothing,
    /// It has failed and is to be restarted after this wait.
    Failed(Duration),
    /// It is to be restarted now.
    Restart {
        /// It had lived for a while; else it failed again at once.
        had_lived: bool,
    },
}

impl Supervision {
    /// Of an actor that starts now.
    pub(crate) fn new(now: Instant) -> Self {
        Self { generation: 1, started: now, backoff: Backoff::default(), lived: true, restart: None }
    }

    /// Takes note of whether the actor lives.
    pub(crate) fn look(&mut self, alive: bool, now: Instant) -> Step {
        match self.restart {
            _ if alive => {
                self.lived = true;
                Step::Nothing
            }
            None => {
                if now - self.started >= HEALTHY {
                    self.backoff.reset();
                }
                let wait = self.backoff.next_wait();
                self.restart = Some(now + wait);
                Step::Failed(wait)
            }
            Some(restart) if now < restart => Step::Nothing,
            Some(_) => {
                self.restart = None;
                self.started = now;
                self.generation += 1;
                Step::Restart { had_lived: std::mem::take(&mut self.lived) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: an actor that fails again and again is restarted ever less often, and at once again after it was healthy.
    #[test]
    fn restarts_get_rarer_until_the_actor_is_healthy() {
        let mut now = Instant::now();
        let mut supervision = Supervision::new(now);
        assert_eq!(supervision.look(true, now), Step::Nothing);
        let mut waits = Vec::new();
        for restart in 1..=9 {
            let Step::Failed(wait) = supervision.look(false, now) else { panic!("it has failed") };
            assert_eq!(
                supervision.look(false, now + wait.saturating_sub(Duration::from_millis(1))),
                Step::Nothing
            );
            now += wait;
            assert_eq!(supervision.look(false, now), Step::Restart { had_lived: restart % 2 == 1 });
            if restart % 2 == 0 {
                assert_eq!(supervision.look(true, now), Step::Nothing);
            }
            assert_eq!(supervision.generation, restart + 1);
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        now += HEALTHY;
        assert_eq!(supervision.look(false, now), Step::Failed(SHORTEST));
    }
}
