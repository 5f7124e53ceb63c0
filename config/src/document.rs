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
use crate::{Problem, Problems};

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

    /// Entry by entry: each has its own recipients.
    fn unmask(&mut self, stored: Option<&Self>) -> Result<(), Problems> {
        let mut problems = Vec::new();
        unmask_all(
            "aerospike-clusters",
            &mut self.aerospike_clusters,
            stored.map(|c| &c.aerospike_clusters),
            &mut problems,
        );
        unmask_all("storage", &mut self.storage, stored.map(|c| &c.storage), &mut problems);
        unmask_all(
            "backup-policies",
            &mut self.backup_policies,
            stored.map(|c| &c.backup_policies),
            &mut problems,
        );
        Problems::none_in(problems)
    }
}

fn unmask_all<T: Secrets>(
    map: &str,
    entries: &mut BTreeMap<String, T>,
    stored: Option<&BTreeMap<String, T>>,
    problems: &mut Vec<Problem>,
) {
    for (name, entry) in entries {
        let result = entry.unmask(stored.and_then(|stored| stored.get(name)));
        let found = result.as_ref().err().map(Problems::list).unwrap_or_default().iter();
        problems.extend(found.map(|problem| Problem {
            path: below(&below(map, name), &problem.path),
            message: problem.message.clone(),
        }));
    }
}
