//! Requests about the configuration.

use std::sync::Arc;

use abs_config::{AerospikeCluster, BackupPolicy, BackupRoutine, Config, Settings, Storage};
use actix::Message;

use super::RequestError;

/// Asks for the configuration in force.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "ConfigSnapshot")]
pub struct GetConfig;

/// The configuration in force.
#[derive(Clone, Debug, Default)]
pub struct ConfigSnapshot {
    /// The document, with its secrets.
    pub config: Arc<Config>,
    /// What it means.
    pub settings: Arc<Settings>,
}

/// Changes the configuration: checked as a whole, written back to where it was read from, then applied. Running jobs
/// keep what they began with.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub struct ChangeConfig(pub ConfigChange);

/// A change of the configuration.
#[derive(Clone, Debug)]
pub enum ConfigChange {
    /// The whole document.
    Replace(Box<Config>),
    /// A cluster.
    Cluster(Edit<AerospikeCluster>),
    /// A backup policy.
    Policy(Edit<BackupPolicy>),
    /// A routine.
    Routine(Edit<BackupRoutine>),
    /// A storage.
    Storage(Edit<Storage>),
    /// A routine's `disabled`; disabling cancels what runs of it.
    SetDisabled {
        /// The routine.
        routine: String,
        /// Its new value.
        disabled: bool,
    },
}

/// A change of one named entry. Its errors are [`RequestError::Invalid`]: an entry that exists already on `Add`, that
/// does not on `Update` and `Delete`, that others refer to on `Delete`.
#[derive(Clone, Debug)]
pub enum Edit<T> {
    /// A new entry.
    Add(String, Box<T>),
    /// An entry in place of one that exists.
    Update(String, Box<T>),
    /// An entry to remove.
    Delete(String),
}

/// Reads the configuration from its source again and applies it.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub struct ReloadConfig;
