//! The threads that compress and encrypt. A block takes them up to a fifth of a second; the threads of the runtime would leave
//! sockets, files and requests alone for so long.

use std::sync::LazyLock;

use rayon_core::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use tokio::sync::oneshot;

use crate::error::EngineError;

/// One thread for each core.
static POOL: LazyLock<Result<ThreadPool, ThreadPoolBuildError>> = LazyLock::new(|| {
    let pool = ThreadPoolBuilder::new().thread_name(|number| format!("cpu-{number}"));
    // The panic hook has logged it, and whoever waits for the result is told that there is none.
    pool.panic_handler(|_| {}).build()
});

/// Does `work` on the pool.
///
/// # Errors
/// The work panicked, or the system refused the threads.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    let pool = POOL.as_ref().map_err(|e| EngineError::Worker(e.to_string()))?;
    let (sender, result) = oneshot::channel();
    // Nobody waits for the result of a job that was canceled.
    pool.spawn(move || drop(sender.send(work())));
    result.await.map_err(|_| EngineError::Worker("compression or encryption panicked".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: a panic is an error of the one whose work it was; the pool goes on.
    #[tokio::test]
    async fn a_panic_is_an_error() {
        let error = run(|| panic!("as the test wishes")).await.unwrap_err();
        assert!(matches!(error, EngineError::Worker(_)), "{error}");
        assert_eq!(run(|| 7).await.unwrap(), 7);
    }
}
