//! Requests to restore.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::check::Check;
use crate::cluster::{AerospikeCluster, ClusterSettings};
use crate::restore_policy::{RestorePolicy, RestoreSettings, TimestampRestorePolicy};
use crate::secret::{SecretText, Secrets, below};
use crate::secret_agent::SecretAgent;
use crate::settings::{Agents, Named, Settings};
use crate::storage::{Storage, StorageSettings};
use crate::{KeySecrets, Problems, Timestamp};

/// The earliest `time` of a request, in milliseconds: what is smaller is probably meant in seconds.
const EARLIEST: i64 = 1_000_000_000_000;

/// The document `dto.RestoreRequest`: restore one backup.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::RestoreRequest)]
pub struct RestoreRequest {
    /// The folder of the backup in the storage: the `key` of a listed backup.
    pub backup_data_path: String,
    /// The cluster to restore to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<AerospikeCluster>,
    /// The name of a configured cluster, instead of `destination`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_name: Option<String>,
    /// The storage to read from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Storage>,
    /// The name of a configured storage, instead of `source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_name: Option<String>,
    /// How to restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<RestorePolicy>,
    /// The Secret Agent that holds the encryption key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_agent: Option<SecretAgent>,
    /// The name of a configured Secret Agent, instead of `secret-agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_agent_name: Option<String>,
}

/// The document `dto.RestoreTimestampRequest`: restore what a routine backed up, as it was at a point in time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::RestoreTimestampRequest)]
pub struct RestoreTimestampRequest {
    /// The routine.
    #[schema(example = "daily")]
    pub routine: String,
    /// The point in time, in milliseconds since 1970 (UTC).
    #[schema(
        minimum = 1_000_000_000_000_i64,
        maximum = 9_223_372_036_854_775_807_i64,
        example = 1_739_538_000_000_i64
    )]
    pub time: i64,
    /// The cluster to restore to; the routine's by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<AerospikeCluster>,
    /// The name of a configured cluster, instead of `destination`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_name: Option<String>,
    /// The storage to read from (since 3.6); the routine's by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Storage>,
    /// The name of a configured storage (since 3.6), instead of `source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_name: Option<String>,
    /// How to restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<TimestampRestorePolicy>,
    /// The Secret Agent that holds the encryption key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_agent: Option<SecretAgent>,
    /// The name of a configured Secret Agent, instead of `secret-agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_agent_name: Option<String>,
    /// Accepted for compatibility, without effect: a chain is always restored from its newest backup to its oldest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub disable_reordering: Option<bool>,
}

/// What a [`RestoreRequest`] means.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoreRequestSettings {
    /// The cluster to restore to.
    pub cluster: Arc<ClusterSettings>,
    /// The storage to read from.
    pub storage: Arc<StorageSettings>,
    /// The folder of the backup in the storage, without slashes at its ends.
    pub path: String,
    /// How to restore.
    pub policy: RestoreSettings,
    /// The keys that the backup may be encrypted with.
    pub keys: KeySecrets,
}

/// What a [`RestoreTimestampRequest`] means.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoreTimestampSettings {
    /// The routine, which need not be configured.
    pub routine: String,
    /// The point in time.
    pub time: Timestamp,
    /// The cluster to restore to.
    pub cluster: Arc<ClusterSettings>,
    /// The storage to read from.
    pub storage: Arc<StorageSettings>,
    /// How to restore; each backup's metadata tells how it is compressed.
    pub policy: RestoreSettings,
    /// The keys that the backups may be encrypted with.
    pub keys: KeySecrets,
}

impl Secrets for RestoreRequest {
    fn each_secret(&mut self, path: &str, visit: &mut dyn FnMut(String, &mut SecretText)) {
        ends(&mut self.destination, &mut self.source, path, visit);
        if let Some(policy) = &mut self.policy {
            policy.each_secret(&below(path, "policy"), visit);
        }
    }
}

impl Secrets for RestoreTimestampRequest {
    fn each_secret(&mut self, path: &str, visit: &mut dyn FnMut(String, &mut SecretText)) {
        ends(&mut self.destination, &mut self.source, path, visit);
        if let Some(policy) = &mut self.policy {
            policy.each_secret(&below(path, "policy"), visit);
        }
    }
}

fn ends(
    destination: &mut Option<AerospikeCluster>,
    source: &mut Option<Storage>,
    path: &str,
    visit: &mut dyn FnMut(String, &mut SecretText),
) {
    if let Some(cluster) = destination {
        cluster.each_secret(&below(path, "destination"), visit);
    }
    if let Some(storage) = source {
        storage.each_secret(&below(path, "source"), visit);
    }
}

impl RestoreRequest {
    /// What the request means, or all that is wrong with it. Names are those of `settings`.
    pub fn check(&self, settings: &Settings) -> Result<RestoreRequestSettings, Problems> {
        required(|check| {
            let names = Names::of(settings);
            let cluster = names.cluster(self.destination.as_ref(), self.destination_name.as_deref(), check);
            let storage = names.storage(self.source.as_ref(), self.source_name.as_deref(), check);
            if cluster == Given::No {
                check.problem("destination", "is required: give it or destination-name");
            }
            if storage == Given::No {
                check.problem("source", "is required: give it or source-name");
            }
            let path = self.backup_data_path.trim_matches('/');
            check.filled("backup-data-path", path);
            if !path.is_empty() {
                check.clean_path("backup-data-path", path);
            }
            let agent = names.agents.of(self.secret_agent.as_ref(), self.secret_agent_name.as_deref(), check);
            let policy = self.policy.clone().unwrap_or_default().settings(&mut check.inside("policy"));
            let keys = policy.encryption.keys(agent.as_ref(), "secret-agent-name", check);
            Some(RestoreRequestSettings {
                cluster: cluster.usable()?,
                storage: storage.usable()?,
                path: path.to_owned(),
                policy,
                keys,
            })
        })
    }
}

impl RestoreTimestampRequest {
    /// What the request means, or all that is wrong with it. Names are those of `settings`; without a destination or a
    /// source the routine must be one of them, and its own is taken.
    pub fn check(&self, settings: &Settings) -> Result<RestoreTimestampSettings, Problems> {
        required(|check| {
            let names = Names::of(settings);
            let mut cluster =
                names.cluster(self.destination.as_ref(), self.destination_name.as_deref(), check);
            let mut storage = names.storage(self.source.as_ref(), self.source_name.as_deref(), check);
            check.inside("routine").folder_name(&self.routine);
            let routine = settings.routines.get(&self.routine);
            if let Some(routine) = routine {
                cluster = cluster.or(&routine.cluster);
                storage = storage.or(&routine.storage);
            } else if cluster == Given::No || storage == Given::No {
                let names = Named::of_settings("backup-routines", &settings.routines);
                names.find("routine", &self.routine, check);
            }
            let time = check.number("time", Some(self.time), EARLIEST as u64, EARLIEST..=i64::MAX);
            let time = Timestamp::from_epoch_ms(time);
            if time.is_none() {
                check.problem("time", format_args!("must be before the year 10000, not {}", self.time));
            }
            let agent = names.agents.of(self.secret_agent.as_ref(), self.secret_agent_name.as_deref(), check);
            let policy = self.policy.clone().unwrap_or_default().settings(&mut check.inside("policy"));
            let keys = policy.encryption.keys(agent.as_ref(), "secret-agent-name", check);
            Some(RestoreTimestampSettings {
                routine: self.routine.clone(),
                time: time?,
                cluster: cluster.usable()?,
                storage: storage.usable()?,
                policy,
                keys,
            })
        })
    }
}

/// Runs `work`, which notes a problem if it has no result.
fn required<T>(work: impl FnOnce(&mut Check<'_>) -> Option<T>) -> Result<T, Problems> {
    let result = Check::document("", work)?;
    result.ok_or_else(|| Problems::one("", "cannot be restored as asked"))
}

/// Whether a document gives one end of a restore.
#[derive(Debug, Clone, PartialEq)]
enum Given<T> {
    /// It does.
    Yes(Arc<T>),
    /// It does, but not in a way that can be used; the problem is noted.
    Wrong,
    /// It does not.
    No,
}

impl<T> Given<T> {
    fn or(self, other: &Arc<T>) -> Self {
        if matches!(self, Self::No) { Self::Yes(Arc::clone(other)) } else { self }
    }

    fn usable(self) -> Option<Arc<T>> {
        if let Self::Yes(settings) = self { Some(settings) } else { None }
    }

    fn from(settings: Option<Arc<T>>) -> Self {
        settings.map_or(Self::Wrong, Self::Yes)
    }
}

/// What a request may name.
struct Names {
    clusters: Named<Arc<ClusterSettings>>,
    storage: Named<Arc<StorageSettings>>,
    agents: Agents,
}

impl Names {
    fn of(settings: &Settings) -> Self {
        Self {
            clusters: Named::of_settings("aerospike-clusters", &settings.clusters),
            storage: Named::of_settings("storage", &settings.storage),
            agents: Named::of_settings("secret-agents", &settings.agents),
        }
    }

    fn cluster(
        &self,
        inline: Option<&AerospikeCluster>,
        name: Option<&str>,
        check: &mut Check<'_>,
    ) -> Given<ClusterSettings> {
        match (inline, name) {
            (None, None) => Given::No,
            (None, Some(name)) => Given::from(self.clusters.find("destination-name", name, check)),
            (Some(cluster), None) => {
                let settings = cluster.settings(None, &self.agents, &mut check.inside("destination"));
                Given::Yes(Arc::new(settings))
            }
            (Some(_), Some(_)) => {
                check.problem("destination", "contradicts destination-name: give one of them");
                Given::Wrong
            }
        }
    }

    fn storage(
        &self,
        inline: Option<&Storage>,
        name: Option<&str>,
        check: &mut Check<'_>,
    ) -> Given<StorageSettings> {
        match (inline, name) {
            (None, None) => Given::No,
            (None, Some(name)) => Given::from(self.storage.find("source-name", name, check)),
            (Some(storage), None) => {
                Given::from(storage.settings(&self.agents, &mut check.inside("source")).map(Arc::new))
            }
            (Some(_), Some(_)) => {
                check.problem("source", "contradicts source-name: give one of them");
                Given::Wrong
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::{Cipher, Config, Existing, Secret, from_json};

    fn settings() -> Settings {
        let text = "
aerospike-clusters:
  c: { seed-nodes: [{ host-name: h, port: 3000 }] }
  d: { seed-nodes: [{ host-name: i, port: 3000 }] }
storage:
  s: { local-storage: { path: /s } }
  t: { local-storage: { path: /t } }
secret-agents:
  a: { connection-type: unix, address: /a }
backup-routines:
  daily: { source-cluster: c, storage: s, interval-cron: \"@daily\", namespaces: [] }
";
        Config::from_yaml(text).unwrap().check().unwrap()
    }

    fn restore(document: &str) -> Result<RestoreRequestSettings, String> {
        let request: RestoreRequest = from_json(document.as_bytes()).unwrap();
        request.check(&settings()).map_err(|problems| problems.to_string())
    }

    fn restore_to(document: &str) -> Result<RestoreTimestampSettings, String> {
        let request: RestoreTimestampRequest = from_json(document.as_bytes()).unwrap();
        request.check(&settings()).map_err(|problems| problems.to_string())
    }

    fn host(cluster: &ClusterSettings) -> &str {
        &cluster.seeds[0].host
    }

    fn folder(storage: &StorageSettings) -> &str {
        let StorageSettings::Local { path } = storage else { panic!("{storage:?}") };
        path.to_str().unwrap()
    }

    #[test]
    fn both_ends_are_named_or_given() {
        let named =
            restore(r#"{"backup-data-path":"/r/backup/1/ns/","destination-name":"d","source-name":"t"}"#)
                .unwrap();
        assert_eq!(
            (host(&named.cluster), folder(&named.storage), named.path.as_str()),
            ("i", "/t", "r/backup/1/ns")
        );
        assert_eq!((named.policy, named.keys), (RestoreSettings::default(), KeySecrets::default()));
        let given = restore(
            r#"{"backup-data-path":"p","destination":{"seed-nodes":[{"host-name":"x","port":1}]},
                "source":{"local-storage":{"path":"/x"}},"policy":{"no-generation":true,
                "encryption":{"mode":"AES128","key-secret":"secrets:r:k"}},"secret-agent-name":"a"}"#,
        )
        .unwrap();
        assert_eq!((host(&given.cluster), folder(&given.storage)), ("x", "/x"));
        assert_eq!(given.policy.existing, Existing::TakesBins { if_older: false });
        assert!(matches!(given.keys.main, Some((Cipher::Aes128, Secret::Agent(..)))));
    }

    #[test]
    fn what_is_missing_or_said_twice_is_told() {
        for (document, message) in [
            (
                r#"{"backup-data-path":""}"#,
                "destination: is required: give it or destination-name; source: is required: give it or source-name; \
                 backup-data-path: must not be empty",
            ),
            (
                r#"{"backup-data-path":"a/../b","destination-name":"x","source-name":"S"}"#,
                "destination-name: names \"x\", which is not in aerospike-clusters: did you mean \"c\"?; \
                 source-name: names \"S\", which is not in storage: did you mean \"s\"?; \
                 backup-data-path: must be a clean path without .., ., // or a / at its end, not \"a/../b\"",
            ),
            (
                r#"{"backup-data-path":"p","destination-name":"c","destination":{"seed-nodes":[]},
                    "source-name":"s","source":{},"secret-agent-name":"a",
                    "secret-agent":{"connection-type":"unix","address":"/"},"policy":{"parallel":0}}"#,
                "destination: contradicts destination-name: give one of them; source: contradicts source-name: give one \
                 of them; secret-agent: contradicts secret-agent-name: give one of them; policy.parallel: must be at \
                 least 1, not 0",
            ),
            (
                r#"{"backup-data-path":"p","destination":{"seed-nodes":[]},"source":{"s3-storage":{"bucket":"","s3-region":"r"}}}"#,
                "destination.seed-nodes: must name at least one node; source.s3-storage.bucket: must not be empty",
            ),
            (
                r#"{"backup-data-path":"p","destination-name":"c","source-name":"s",
                    "policy":{"encryption":{"mode":"AES128","key-secret":"secrets:r:k"}}}"#,
                "secret-agent-name: is required: the encryption key is in a secret agent",
            ),
        ] {
            assert_eq!(restore(document).unwrap_err(), message);
        }
    }

    #[test]
    fn a_point_in_time_is_restored_by_the_routine() {
        let own = restore_to(r#"{"routine":"daily","time":1710671632452}"#).unwrap();
        assert_eq!((host(&own.cluster), folder(&own.storage)), ("h", "/s"));
        assert_eq!(own.time.epoch_ms(), 1_710_671_632_452);
        let other = restore_to(
            r#"{"routine":"daily","time":1710671632452,"destination-name":"d","disable-reordering":true}"#,
        )
        .unwrap();
        assert_eq!((host(&other.cluster), folder(&other.storage)), ("i", "/s"));
        let gone = r#"{"routine":"gone","time":1710671632452,"destination-name":"d","source-name":"t"}"#;
        assert_eq!(
            restore_to(gone).unwrap().routine,
            "gone",
            "with both ends the routine need not be configured"
        );
        for (document, message) in [
            (
                r#"{"routine":"daly","time":1710671632452,"destination-name":"d"}"#,
                "routine: names \"daly\", which is not in backup-routines: did you mean \"daily\"?",
            ),
            (
                r#"{"routine":"daily","time":1710671632}"#,
                "time: must be at least 1000000000000, not 1710671632",
            ),
            (
                r#"{"routine":"daily","time":253402300800000}"#,
                "time: must be before the year 10000, not 253402300800000",
            ),
            (
                r#"{"routine":"a/b","time":1710671632452,"destination-name":"d","source-name":"t"}"#,
                "routine: \"a/b\" must be a name that a folder can have, without slashes, 1 to 255 bytes",
            ),
        ] {
            assert_eq!(restore_to(document).unwrap_err(), message);
        }
    }

    #[test]
    fn requests_hide_their_secrets() {
        let document = r#"{"backup-data-path":"p","destination":{"seed-nodes":[],"credentials":{"user":"u","password":"hunter2"}}}"#;
        let request: RestoreRequest = from_json(document.as_bytes()).unwrap();
        assert!(!format!("{request:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&request.masked()).unwrap().contains("hunter2"));
    }
}
