//! Why a step of a job failed, and whether it is worth another try.

use abs_config::SecretError;
use abs_engine::EngineError;
use abs_engine::catalog::{CatalogError, FullDue};

use crate::shared::LeaseError;

/// Why a step of a job failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An incremental backup has nothing to build on.
    #[error("a full backup is due: {0}")]
    FullDue(#[from] FullDue),
}

/// Why the encryption key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("the encryption key: {0}")]
    Secret(#[from] SecretError),
    #[error("the encryption key is not usable: {0}")]
    Bad(#[from] abs_asb::KeyError),
}

impl RunError {
    /// Whether it is worth another try.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Engine(e) => e.is_transient(),
            Self::Catalog(CatalogError::Storage(e)) => e.is_transient(),
            Self::FullDue(_) | Self::Catalog(_) | Self::Key(KeyError::Bad(_)) => false,
            Self::Lease(LeaseError::Cluster(e)) => e.is_transient(),
            Self::Lease(LeaseError::Secret(e)) | Self::Key(KeyError::Secret(e)) => e.is_transient(),
        }
    }
}
