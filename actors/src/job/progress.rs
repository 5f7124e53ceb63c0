//! How far a job is, and how fast.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use crate::messages::{JobId, RunningJob};

/// What was done of a job at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Amounts {
    /// Records there will be; 0 when that is not known.
    pub expected: u64,
    pub done: u64,
    pub bytes: u64,
    pub pipeline: u64,
    /// Of all the work, 0 to 1, when records cannot tell.
    pub share: f64,
}

/// Over how long the current speed is measured.
const WINDOW: Duration = Duration::from_secs(5);

/// How long a job runs and how fast it is.
#[derive(Debug)]
pub(crate) struct Pace {
    started: DateTime<Utc>,
    began: Instant,
    samples: VecDeque<(Instant, Amounts)>,
}

impl Pace {
    /// The pace of a job that was started at a time, which may be long before `now`.
    pub(crate) fn new(started: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        let before = (now - started).to_std().unwrap_or_default();
        let began = Instant::now();
        let began = began.checked_sub(before).unwrap_or(began);
        Self { started, began, samples: VecDeque::from([(began, Amounts::default())]) }
    }

    /// Notes what is done by now; said about once a second.
    pub(crate) fn sample(&mut self, amounts: Amounts) {
        let now = Instant::now();
        self.samples.push_back((now, amounts));
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// The job's progress; `ended` when it has ended.
    pub(crate) fn progress(&self, id: JobId, amounts: Amounts, ended: Option<Duration>) -> RunningJob {
        let duration = ended.unwrap_or_else(|| self.began.elapsed());
        // The speed of the last seconds; of the whole job when it has ended.
        let (since, before) = match (ended, self.samples.front()) {
            (None, Some(&(at, before))) => (at.elapsed(), before),
            _ => (duration, Amounts::default()),
        };
        let per_second = |now: u64, before: u64| {
            (now.saturating_sub(before) as f64 / since.as_secs_f64().max(1e-3)) as u64
        };
        let share = match amounts.expected {
            0 => amounts.share,
            expected => amounts.done as f64 / expected as f64,
        };
        // An estimate is never certain: done is what has ended.
        let most = if ended.is_some() { 100.0 } else { 99.0 };
        let percentage_done = (share * 100.0).min(most) as u8;
        let estimated_end = (ended.is_none() && percentage_done >= 1)
            .then(|| TimeDelta::from_std(duration.div_f64(share.min(1.0))).ok())
            .flatten()
            .and_then(|whole| self.started.checked_add_signed(whole));
        RunningJob {
            id,
            total_records: amounts.expected.max(amounts.done),
            done_records: amounts.done,
            started: self.started,
            finished: ended
                .and_then(|after| self.started.checked_add_signed(TimeDelta::from_std(after).ok()?)),
            duration,
            percentage_done,
            estimated_end,
            records_per_second: per_second(amounts.done, before.done),
            kilobytes_per_second: per_second(amounts.bytes, before.bytes) / 1000,
            pipeline: amounts.pipeline,
            retry: None,
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}
