//! Restores that an end of the service interrupted wait for what cannot be reached.

use std::fmt::Display;

use chrono::{DateTime, TimeDelta, Utc};
use slog::warn;
use tokio_util::sync::CancellationToken;

use super::Restore;
use crate::job::Steps;
use crate::messages::PendingRetry;
use crate::supervise::Backoff;

/// Does `work`, and again after growing waits while it fails for reasons that may pass, until the next attempt would be later
/// than `until`; once if there is none.
pub(super) async fn patiently<T, E: Display, F: Future<Output = Result<T, E>>>(
    steps: &Steps<Restore>,
    cancel: &CancellationToken,
    until: Option<DateTime<Utc>>,
    what: &str,
    may_pass: fn(&E) -> bool,
    work: impl Fn() -> F,
) -> Result<T, E> {
    let mut backoff = Backoff::default();
    loop {
        let error = match work().await {
            Err(e) if may_pass(&e) => e,
            result => return result,
        };
        let wait = backoff.next_wait();
        let at =
            TimeDelta::from_std(wait).ok().and_then(|wait| steps.shared.clock.now().checked_add_signed(wait));
        let Some(at) = at.filter(|at| until.is_some_and(|until| *at <= until)) else { return Err(error) };
        warn!(steps.log, "trying again"; "what" => what, "wait" => ?wait, "error" => %error);
        let retry = PendingRetry { at, error: error.to_string() };
        steps.await_retry(what.to_owned(), None, retry).await;
        // A job that was canceled says so itself.
        cancel.run_until_cancelled(tokio::time::sleep(wait)).await;
        steps.begin_retry(what.to_owned()).await;
    }
}
