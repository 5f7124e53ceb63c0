//! How a run ends early: whoever fails first says why, and everybody else stops.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::error::EngineError;

/// How long a storage may take for what is under way when a run is canceled, and a node for its answers when one is stopped.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// The stop sign of a run, and why it was put up.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Cancelled when the run is to end early, and when it has ended.
    pub stop: CancellationToken,
    /// Cancelled by the user only: such a run is not retried in the same folder.
    canceled: CancellationToken,
    error: Mutex<Option<EngineError>>,
    /// When the grace of a run ends that was stopped.
    deadline: OnceLock<Instant>,
}

impl Outcome {
    /// The outcome of a run that `cancel` ends early.
    pub(crate) fn new(cancel: &CancellationToken) -> Self {
        Self {
            stop: cancel.child_token(),
            canceled: cancel.clone(),
            error: Mutex::default(),
            deadline: OnceLock::new(),
        }
    }

    /// Stops the run. The first error counts.
    pub(crate) fn fail(&self, error: EngineError) {
        let mut first = self.error();
        // Who was stopped, or found the other end of its channel gone, says no more than that.
        if matches!(*first, None | Some(EngineError::Canceled)) {
            *first = Some(error);
        }
        drop(first);
        self.stop.cancel();
    }

    /// An error if the run was stopped.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if self.stop.is_cancelled() {
            Err(self.error().take().unwrap_or(EngineError::Canceled))
        } else {
            Ok(())
        }
    }

    /// Whether the run ended for a reason after which another attempt may continue it.
    pub(crate) fn is_resumable(&self) -> bool {
        self.error().as_ref().is_some_and(EngineError::is_resumable)
    }

    /// Whether the user ended the run.
    pub(crate) fn is_canceled(&self) -> bool {
        self.canceled.is_cancelled()
    }

    /// Awaits `work` to its end; when the run is canceled, only until its grace ends, and then there is no result.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.in_grace(&self.canceled, work).await
    }

    /// Awaits the answer to what was sent to its end; when the run is stopped, only until its grace ends.
    pub(crate) async fn answer<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.in_grace(&self.stop, work).await
    }

    async fn in_grace<T>(&self, sign: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            result = &mut work => return Some(result),
            () = sign.cancelled() => {}
        }
        let deadline = *self.deadline.get_or_init(|| Instant::now() + GRACE);
        timeout_at(deadline, work).await.ok()
    }

    fn error(&self) -> MutexGuard<'_, Option<EngineError>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_counts_and_being_stopped_is_none() {
        let cancel = CancellationToken::new();
        let outcome = Outcome::new(&cancel);
        assert!(outcome.check().is_ok());
        cancel.cancel();
        assert!(matches!(outcome.check(), Err(EngineError::Canceled)));
        outcome.fail(EngineError::Canceled);
        outcome.fail(EngineError::Plan("first".to_owned()));
        outcome.fail(EngineError::Plan("second".to_owned()));
        assert_eq!(outcome.check().unwrap_err().to_string(), "first");

        let other = Outcome::new(&CancellationToken::new());
        other.fail(EngineError::Plan("alone".to_owned()));
        assert!(other.stop.is_cancelled());
    }
}
