//! What is made at the first request, and made again after it was forgotten.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

/// A client with its credentials.
#[derive(Debug)]
pub(crate) struct Renewable<T>(Mutex<Arc<OnceCell<Arc<T>>>>);

impl<T> Default for Renewable<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
impl<T> From<T> for Renewable<T> {
    fn from(made: T) -> Self {
        Self(Mutex::new(Arc::new(OnceCell::from(Arc::new(made)))))
    }
}

impl<T> Renewable<T> {
    /// The present one, or a new one that `make` makes. Of callers at the same time one makes it.
    pub async fn get<E, F: Future<Output = Result<T, E>>>(
        &self,
        make: impl FnOnce() -> F,
    ) -> Result<Arc<T>, E> {
        let cell = Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let made = cell.get_or_try_init(|| async { make().await.map(Arc::new) }).await?;
        Ok(Arc::clone(made))
    }

    /// The next caller makes a new one.
    pub fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }
}
