//! The document of a whole configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::backup_policy::BackupPolicy;
use crate::cluster::AerospikeCluster;
use crate::routine::BackupRoutine;
use crate::secret::{SecretText, Secrets, below};
use crate::secret_agent::SecretAgent;
use crate::service::ServiceConfig;
use crate::storage::Storage;

/// The document `dto.Config`: the configuration file, and what the API shows of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::Config)]
pub struct Config {
    /// The service itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceConfig>,
    /// The clusters to back up and to restore to, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(nullable)]
    pub aerospike_clusters: BTreeMap<String, AerospikeCluster>,
    /// The storages, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(nullable)]
    pub storage: BTreeMap<String, Storage>,
    /// The ways to make backups, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(nullable)]
    pub backup_policies: BTreeMap<String, BackupPolicy>,
    /// The routines, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(nullable)]
    pub backup_routines: BTreeMap<String, BackupRoutine>,
    /// The Secret Agents, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(nullable)]
    pub secret_agents: BTreeMap<String, SecretAgent>,
}

impl Secrets for Config {
    fn each_secret(&mut self, path: &str, visit: &mut dyn FnMut(String, &mut SecretText)) {
        for (name, cluster) in &mut self.aerospike_clusters {
            cluster.each_secret(&below(&below(path, "aerospike-clusters"), name), visit);
        }
        for (name, storage) in &mut self.storage {
            storage.each_secret(&below(&below(path, "storage"), name), visit);
        }
        for (name, policy) in &mut self.backup_policies {
            policy.each_secret(&below(&below(path, "backup-policies"), name), visit);
        }
    }
}
