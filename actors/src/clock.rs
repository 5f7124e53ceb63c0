//! What time it is, and waiting for a time: replaceable, so that schedules of years are tested in milliseconds.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::oneshot;

/// The longest nap of the system's clock: when somebody sets it forward, a wait ends at most this much late.
const NAP: Duration = Duration::from_secs(5);

/// A clock that schedules go by.
#[async_trait]
pub trait Clock: Debug + Send + Sync {
    /// The time now. It jumps when the clock is set.
    fn now(&self) -> DateTime<Utc>;

    /// The time since some moment of the past. It never jumps.
    fn steady(&self) -> Duration;

    /// Waits until it is `time` or later.
    async fn sleep_until(&self, time: DateTime<Utc>);

    /// Waits for as long as `time`, whatever happens to the clock meanwhile.
    async fn sleep(&self, time: Duration);
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn steady(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
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
    steady: Duration,
    /// Sleepers that wait for a time, and those that wait for how long it takes.
    sleepers: BTreeMap<(DateTime<Utc>, u64), oneshot::Sender<()>>,
    steady_sleepers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
    next: u64,
}

impl State {
    /// Wakes whose time has come.
    fn wake(&mut self) {
        // A sleeper that is gone needs no waking.
        while let Some(entry) = self.sleepers.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let _ = entry.remove().send(());
        }
        while let Some(entry) =
            self.steady_sleepers.first_entry().filter(|entry| entry.key().0 <= self.steady)
        {
            let _ = entry.remove().send(());
        }
    }
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: DateTime<Utc>) -> Arc<Self> {
        let state = State {
            now,
            steady: Duration::ZERO,
            sleepers: BTreeMap::new(),
            steady_sleepers: BTreeMap::new(),
            next: 0,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// When the next sleeper wants to be woken.
    #[must_use]
    pub fn next_waking(&self) -> Option<DateTime<Utc>> {
        let mut state = self.state();
        state.sleepers.retain(|_, sleeper| !sleeper.is_closed());
        state.steady_sleepers.retain(|_, sleeper| !sleeper.is_closed());
        let time = state.sleepers.keys().next().map(|(time, _)| *time);
        let steady = state.steady_sleepers.keys().next();
        let steady = steady.map(|(until, _)| state.now + until.saturating_sub(state.steady));
        time.into_iter().chain(steady).min()
    }

    /// Lets the time pass until it is `now`, and wakes whose time has come. A time before the present one is a
    /// [`jump`](Self::jump).
    pub fn set(&self, now: DateTime<Utc>) {
        let mut state = self.state();
        let passed = (now - state.now).to_std().unwrap_or_default();
        state.steady += passed;
        state.now = now;
        state.wake();
    }

    /// Sets the clock without any time passing.
    pub fn jump(&self, now: DateTime<Utc>) {
        let mut state = self.state();
        state.now = now;
        state.wake();
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

    fn steady(&self) -> Duration {
        self.state().steady
    }

    async fn sleep(&self, time: Duration) {
        let woken = {
            let mut state = self.state();
            let (sender, woken) = oneshot::channel();
            state.next += 1;
            let key = (state.steady + time, state.next);
            state.steady_sleepers.insert(key, sender);
            state.wake();
            woken
        };
        // The clock drops a sleeper only by waking it.
        let _ = woken.await;
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
