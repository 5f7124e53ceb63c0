//! What time it is, and waiting for a time: replaceable, so that schedules of years are tested in milliseconds.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::oneshot;

/// The longest nap of the system's clock: when somebody sets it forward, a wait ends at most this much late.
const NAP: Duration = Duration::from_secs(5);

/// A clock that schedules go by.
#[async_trait]
pub trait Clock: Debug + Send + Sync {
    /// The time now.
    fn now(&self) -> DateTime<Utc>;

    /// Waits until it is `time` or later.
    async fn sleep_until(&self, time: DateTime<Utc>);
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    async fn sleep_until(&self, time: DateTime<Utc>) {
        while let Ok(left) = (time - Utc::now()).to_std() {
            if left.is_zero() {
                break;
            }
            // The wall clock may be set while we wait, the timer of a sleep knows nothing of it.
            tokio::time::sleep(left.min(NAP)).await;
        }
    }
}

/// A clock that stands still until it is moved by hand.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    now: DateTime<Utc>,
    sleepers: BTreeMap<(DateTime<Utc>, u64), oneshot::Sender<()>>,
    next: u64,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: DateTime<Utc>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { now, sleepers: BTreeMap::new(), next: 0 }) })
    }

    /// When the next sleeper wants to be woken.
    #[must_use]
    pub fn next_waking(&self) -> Option<DateTime<Utc>> {
        let mut state = self.state();
        state.sleepers.retain(|_, sleeper| !sleeper.is_closed());
        state.sleepers.keys().next().map(|(time, _)| *time)
    }

    /// Moves the clock and wakes whose time has come.
    pub fn set(&self, now: DateTime<Utc>) {
        let mut state = self.state();
        state.now = now;
        while let Some(entry) = state.sleepers.first_entry().filter(|entry| entry.key().0 <= now) {
            // A sleeper that is gone needs no waking.
            let _ = entry.remove().send(());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        self.state().now
    }

    async fn sleep_until(&self, time: DateTime<Utc>) {
        let woken = {
            let mut state = self.state();
            if state.now >= time {
                return;
            }
            let (sender, woken) = oneshot::channel();
            state.next += 1;
            let key = (time, state.next);
            state.sleepers.insert(key, sender);
            woken
        };
        // The clock drops a sleeper only by waking it.
        let _ = woken.await;
    }
}
