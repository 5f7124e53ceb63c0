//! Rates that are kept: bytes or records per second, over all workers of a job.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How much unused time is kept for later. Records come in blocks that the server gathered for a while: without this, time
/// in which every worker waits for its server would be lost, and the rate not reached. The mean since the beginning is kept
/// all the same.
const SAVED: Duration = Duration::from_secs(1);

/// A rate limit shared by workers: who has used up more than its time allows waits.
#[derive(Debug)]
pub(crate) struct Limiter {
    per_second: f64,
    /// When everything taken so far is paid for.
    free_at: Mutex<Instant>,
}

impl Limiter {
    /// `None` for no limit.
    pub(crate) fn new(per_second: u64) -> Option<Self> {
        (per_second > 0).then(|| Self { per_second: per_second as f64, free_at: Mutex::new(Instant::now()) })
    }

    /// Takes `amount` and waits until the rate allows the next one.
    pub(crate) async fn take(&self, amount: u64) {
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            *free_at = (*free_at).max(now.checked_sub(SAVED).unwrap_or(now))
                + Duration::from_secs_f64(amount as f64 / self.per_second);
            *free_at
        };
        tokio::time::sleep_until(until).await;
    }
}

/// Waits when there is a limit.
pub(crate) async fn limit(limiter: Option<&Limiter>, amount: u64) {
    if let Some(limiter) = limiter {
        limiter.take(amount).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_over_many_takers() {
        let limiter = Limiter::new(1000).unwrap();
        let start = Instant::now();
        let takers = (0..10).map(|_| async {
            for _ in 0..20 {
                limiter.take(50).await;
            }
        });
        futures_join(takers.collect()).await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    /// A second of a pause may be made up for, no more; and nothing before the beginning.
    #[tokio::test(start_paused = true)]
    async fn a_pause_is_made_up_for_in_part() {
        let limiter = Limiter::new(100).unwrap();
        let start = Instant::now();
        limiter.take(100).await;
        assert_eq!(start.elapsed().as_secs(), 1);
        tokio::time::sleep(Duration::from_secs(9)).await;
        limiter.take(200).await;
        assert_eq!(start.elapsed().as_secs(), 11, "100 of them at once");
        limiter.take(100).await;
        assert_eq!(start.elapsed().as_secs(), 12);
    }

    async fn futures_join<F: Future<Output = ()>>(futures: Vec<F>) {
        let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
        std::future::poll_fn(|context| {
            futures.retain_mut(|f| f.as_mut().poll(context).is_pending());
            if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}
