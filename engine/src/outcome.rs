//! How a run ends early: whoever fails first says why, and everybody else stops.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::error::EngineError;

/// The stop sign of a run, and why it was put up.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Cancelled when the run is to end early, and when it has ended.
    pub stop: CancellationToken,
    error: Mutex<Option<EngineError>>,
}

impl Outcome {
    /// The outcome of a run that `cancel` ends early.
    pub(crate) fn new(cancel: &CancellationToken) -> Self {
        Self { stop: cancel.child_token(), error: Mutex::default() }
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
