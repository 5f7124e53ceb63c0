//! Routines: what is backed up, when, how and where to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::backup_policy::BackupSettings;
use crate::check::Check;
use crate::cluster::{ClusterSettings, racks};
use crate::restore_policy::{MAX_BIN, MAX_SET};
use crate::secret::{SecretText, Secrets};
use crate::service::{ServiceSettings, TimestampFormat};
use crate::settings::Entries;
use crate::storage::StorageSettings;
use crate::{KeySecrets, Namespace, PartitionFilter, Schedule};

/// The document `dto.BackupRoutine`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::BackupRoutine)]
pub struct BackupRoutine {
    /// The name of the backup policy; the defaults of one if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_policy: Option<String>,
    /// The name of the cluster to back up.
    #[schema(example = "testCluster")]
    pub source_cluster: String,
    /// The name of the storage to write to.
    pub storage: String,
    /// The name of the Secret Agent that holds the encryption key (the policy's `key-secret`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_agent: Option<String>,
    /// When full backups begin, as a cron expression of 6 or 7 fields, seconds first, or `@daily` and the like.
    #[schema(example = "0 0 * * * *")]
    pub interval_cron: String,
    /// When incremental backups begin; never if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "*/10 * * * * *")]
    pub incr_interval_cron: Option<String>,
    /// The time zone of both (since 3.7): `UTC`, `Local` or an IANA name; that of the service by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Europe/Berlin")]
    pub schedule_timezone: Option<String>,
    /// The namespaces to back up; all of the cluster if the list is empty.
    #[schema(example = json!(["source-ns1"]))]
    pub namespaces: Vec<String>,
    /// The sets to back up; all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["set1"]))]
    pub set_list: Option<Vec<String>>,
    /// The bins to back up; all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["dataBin"]))]
    pub bin_list: Option<Vec<String>>,
    /// Only the records for which this filter expression holds, in base64 (since 3.7). Not with several sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_exp: Option<String>,
    /// Only these partitions: `0,100-50` is partition 0 and the 50 from 100. Not with `node-list`, `rack-list` or the
    /// cluster's `prefer-racks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_list: Option<String>,
    /// Only these nodes, each as `HOST:PORT` or by its ID. Not with `partition-list`, `rack-list` or the cluster's
    /// `prefer-racks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_list: Option<Vec<String>>,
    /// Only the nodes of these racks. Not with `partition-list`, `node-list` or the cluster's `prefer-racks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rack_list: Option<Vec<i64>>,
    /// No backup begins by schedule; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub disabled: Option<bool>,
}

/// A routine, ready to run.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutineSettings {
    /// Its name, which is that of its folder in the storage.
    pub name: String,
    /// Nothing runs by schedule.
    pub disabled: bool,
    /// The name of the cluster.
    pub cluster_name: String,
    /// The cluster to back up.
    pub cluster: Arc<ClusterSettings>,
    /// The name of the storage.
    pub storage_name: String,
    /// The storage to write to.
    pub storage: Arc<StorageSettings>,
    /// How backups are made.
    pub policy: BackupSettings,
    /// The keys of the policy's encryption.
    pub keys: KeySecrets,
    /// When full backups begin.
    pub full: Schedule,
    /// When incremental backups begin; never if none.
    pub incremental: Option<Schedule>,
    /// The namespaces to back up; all of the cluster if empty.
    pub namespaces: Vec<Namespace>,
    /// The sets to back up; all if empty.
    pub sets: Vec<String>,
    /// The bins to back up; all if empty.
    pub bins: Vec<String>,
    /// A filter expression in base64.
    pub filter: Option<String>,
    /// Which part of the cluster is backed up.
    pub scope: Scope,
    /// How the folders of backups tell the time to people; not at all if none.
    pub timestamp_format: Option<TimestampFormat>,
}

/// Which part of a cluster is backed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    All,
    /// These partitions of each namespace.
    Partitions(PartitionFilter),
    /// What these nodes are masters of, each named `HOST:PORT` or by its ID; at least one.
    Nodes(Vec<String>),
    /// What the nodes of these racks are masters of; at least one.
    Racks(Vec<u32>),
}

impl Secrets for BackupRoutine {
    fn each_secret(&mut self, _: &str, _: &mut dyn FnMut(String, &mut SecretText)) {}
}

impl BackupRoutine {
    /// None if what the routine names is not there or not usable, with the problems noted.
    pub(crate) fn settings(
        &self,
        name: &str,
        entries: &Entries,
        service: &ServiceSettings,
        check: &mut Check<'_>,
    ) -> Option<RoutineSettings> {
        let cluster = entries.clusters.find("source-cluster", &self.source_cluster, check);
        let storage = entries.storage.find("storage", &self.storage, check);
        let agent = self.secret_agent.as_ref().map(|name| entries.agents.find("secret-agent", name, check));
        let mut policy = match &self.backup_policy {
            Some(name) => entries.policies.find("backup-policy", name, check),
            None => Some(BackupSettings::default()),
        };
        let keys = match (&agent, &policy) {
            // The agent has problems of its own.
            (Some(None), _) | (_, None) => KeySecrets::default(),
            (agent, Some(policy)) => {
                policy.encryption.keys(agent.as_ref().and_then(Option::as_ref), "secret-agent", check)
            }
        };
        let zone = check.zone("schedule-timezone", self.schedule_timezone.as_deref());
        let zone = zone.unwrap_or(service.schedule_timezone);
        if let Some(policy) = &mut policy {
            policy.verify = std::mem::take(&mut policy.verify).in_zone(zone);
        }
        let full = check.valid("interval-cron", Schedule::parse(&self.interval_cron, zone));
        let incremental = self.incr_interval_cron.as_ref();
        let incremental =
            incremental.and_then(|text| check.valid("incr-interval-cron", Schedule::parse(text, zone)));
        let namespaces = self.namespaces(check);
        let sets = check.names("set-list", self.set_list.as_deref(), MAX_SET);
        let bins = check.names("bin-list", self.bin_list.as_deref(), MAX_BIN);
        let filter = self.filter(check);
        let scope = self.scope(cluster.as_deref(), check);
        Some(RoutineSettings {
            name: name.to_owned(),
            disabled: self.disabled.unwrap_or(false),
            cluster_name: self.source_cluster.clone(),
            cluster: cluster?,
            storage_name: self.storage.clone(),
            storage: storage?,
            policy: policy?,
            keys,
            full: full?,
            incremental,
            namespaces,
            sets,
            bins,
            filter,
            scope,
            timestamp_format: service.timestamp_format,
        })
    }

    fn namespaces(&self, check: &mut Check<'_>) -> Vec<Namespace> {
        let names = self.namespaces.iter().enumerate();
        let namespaces = names.filter_map(|(i, name)| {
            let key = format!("namespaces[{i}]");
            if self.namespaces[..i].contains(name) {
                check.problem(&key, format_args!("names {name:?} again: name it once"));
            }
            check.valid(&key, name.parse())
        });
        namespaces.collect()
    }

    fn filter(&self, check: &mut Check<'_>) -> Option<String> {
        let filter = self.filter_exp.as_ref().filter(|filter| !filter.is_empty())?;
        if base64_simd::STANDARD.decode_to_vec(filter.as_bytes()).is_err() {
            check.problem("filter-exp", "must be a filter expression in base64");
        }
        if self.set_list.as_ref().is_some_and(|sets| sets.len() > 1) {
            check
                .problem("filter-exp", "cannot be combined with several sets: name one in set-list, or none");
        }
        Some(filter.clone())
    }

    fn scope(&self, cluster: Option<&ClusterSettings>, check: &mut Check<'_>) -> Scope {
        let mut scopes = Vec::new();
        if let Some(text) = self.partition_list.as_ref().filter(|text| !text.is_empty()) {
            let partitions = check.valid("partition-list", text.parse::<PartitionFilter>());
            scopes.push(("partition-list", partitions.map_or(Scope::All, Scope::Partitions)));
        }
        if let Some(nodes) = self.node_list.as_ref().filter(|nodes| !nodes.is_empty()) {
            for (i, node) in nodes.iter().enumerate() {
                check.filled(&format!("node-list[{i}]"), node);
            }
            scopes.push(("node-list", Scope::Nodes(nodes.clone())));
        }
        if let Some(list) = self.rack_list.as_ref().filter(|racks| !racks.is_empty()) {
            scopes.push(("rack-list", Scope::Racks(racks("rack-list", Some(list), check))));
        }
        if cluster.is_some_and(|cluster| !cluster.prefer_racks.is_empty()) {
            for (key, _) in &scopes {
                check.problem(key, "contradicts prefer-racks of the cluster: give one of them");
            }
        }
        let (_, scope) = scopes.first().cloned().unwrap_or(("", Scope::All));
        for (key, _) in scopes.iter().skip(1) {
            check.problem(key, format_args!("contradicts {}: give one of them", scopes[0].0));
        }
        scope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::{Cipher, Config, IncrementalMode, Secret, SecretReference, Settings, Verify};

    /// A configuration whose routine has these keys, too.
    fn settings(keys: &str) -> Result<Settings, Vec<String>> {
        let text = format!(
            "
aerospike-clusters:
  c: {{ seed-nodes: [{{ host-name: h, port: 3000 }}] }}
  racks: {{ seed-nodes: [{{ host-name: h, port: 3000 }}], prefer-racks: [1] }}
storage:
  s: {{ local-storage: {{ path: /b }} }}
secret-agents:
  agent: {{ connection-type: unix, address: /a }}
backup-policies:
  p: {{ encryption: {{ mode: AES256, key-secret: \"secrets:r:k\" }}, incr-mode: cumulative, verify: \"@daily\" }}
backup-routines:
  r: {{ {keys} }}
"
        );
        Config::from_yaml(&text).unwrap().check().map_err(|problems| {
            let place = "backup-routines.r.";
            problems.list().iter().map(|problem| problem.to_string().replacen(place, "", 1)).collect()
        })
    }

    /// Keys that must be there.
    const LEAST: &str = "source-cluster: c, storage: s, interval-cron: \"@daily\", namespaces: [ns]";

    fn routine(keys: &str) -> Result<Arc<RoutineSettings>, Vec<String>> {
        settings(&format!("{LEAST}, {keys}")).map(|settings| Arc::clone(&settings.routines["r"]))
    }

    #[test]
    fn names_are_resolved() {
        let settings = settings(&format!("{LEAST}, backup-policy: p, secret-agent: agent")).unwrap();
        let routine = &settings.routines["r"];
        assert!(Arc::ptr_eq(&routine.cluster, &settings.clusters["c"]));
        assert!(Arc::ptr_eq(&routine.storage, &settings.storage["s"]));
        assert_eq!((routine.cluster_name.as_str(), routine.storage_name.as_str()), ("c", "s"));
        assert_eq!(routine.policy.incremental_mode, IncrementalMode::Cumulative);
        let reference: SecretReference = "secrets:r:k".parse().unwrap();
        let key = Secret::Agent(Arc::clone(&settings.agents["agent"]), reference);
        assert_eq!(routine.keys.main, Some((Cipher::Aes256, key)));
    }

    /// Protects: policies know no time zone; verifications go by the clocks that the backups go by.
    #[test]
    fn verifications_go_by_the_clocks_of_the_routine() {
        let routine =
            routine("backup-policy: p, secret-agent: agent, schedule-timezone: Asia/Tokyo").unwrap();
        assert_eq!(routine.policy.verify, Verify::Scheduled(Box::new(routine.full.clone())));
    }

    #[test]
    fn names_that_are_nowhere_are_told_with_the_nearest() {
        let keys = "source-cluster: rack, storage: disk, backup-policy: policy, secret-agent: agnt, \
                    interval-cron: \"@daily\", namespaces: []";
        assert_eq!(
            settings(keys).unwrap_err(),
            [
                "source-cluster: names \"rack\", which is not in aerospike-clusters: did you mean \"racks\"?",
                "storage: names \"disk\", which is not in storage: there is s",
                "secret-agent: names \"agnt\", which is not in secret-agents: did you mean \"agent\"?",
                "backup-policy: names \"policy\", which is not in backup-policies: there is p",
            ]
        );
        let error = routine("backup-policy: p").unwrap_err();
        assert_eq!(error, ["secret-agent: is required: the encryption key is in a secret agent"]);
    }

    #[test]
    fn one_part_of_a_cluster_is_chosen_in_one_way() {
        let scope = |keys: &str| routine(keys).map(|routine| routine.scope.clone());
        assert_eq!(scope("disabled: true"), Ok(Scope::All));
        assert_eq!(scope("partition-list: \"\", node-list: [], rack-list: []"), Ok(Scope::All));
        assert_eq!(scope("partition-list: \"0,100-50\""), Ok(Scope::Partitions("0,100-50".parse().unwrap())));
        assert_eq!(scope("node-list: [BB9]"), Ok(Scope::Nodes(vec!["BB9".into()])));
        assert_eq!(scope("rack-list: [2, 1]"), Ok(Scope::Racks(vec![2, 1])));
        assert_eq!(
            scope("partition-list: \"0\", node-list: [BB9], rack-list: [1]").unwrap_err(),
            [
                "node-list: contradicts partition-list: give one of them",
                "rack-list: contradicts partition-list: give one of them",
            ]
        );
        let on_racks = LEAST.replace("source-cluster: c", "source-cluster: racks");
        for keys in ["partition-list: \"0\"", "node-list: [BB9]", "rack-list: [1]"] {
            let key = keys.split(':').next().unwrap();
            let expected = format!("{key}: contradicts prefer-racks of the cluster: give one of them");
            assert_eq!(settings(&format!("{on_racks}, {keys}")).unwrap_err(), [expected]);
        }
        assert!(settings(&on_racks).is_ok());
        assert_eq!(scope("node-list: [\"\"]").unwrap_err(), ["node-list[0]: must not be empty"]);
    }

    #[test]
    fn a_filter_is_base64_and_not_for_several_sets() {
        assert_eq!(routine("filter-exp: kwGT, set-list: [a]").unwrap().filter.as_deref(), Some("kwGT"));
        assert_eq!(routine("filter-exp: \"\"").unwrap().filter, None);
        assert_eq!(
            routine("filter-exp: \"k w\", set-list: [a, b]").unwrap_err(),
            [
                "filter-exp: must be a filter expression in base64",
                "filter-exp: cannot be combined with several sets: name one in set-list, or none",
            ]
        );
    }

    #[test]
    fn schedules_names_and_lists_are_checked_at_once() {
        let keys = "source-cluster: c, storage: s, interval-cron: \"* * * *\", incr-interval-cron: often, \
                    schedule-timezone: Mars, namespaces: [\"\", a, a], set-list: [\"\"], \
                    bin-list: [a-bin-with-16-by], rack-list: [-1]";
        let problems = settings(keys).unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.split(": ").next().unwrap()).collect();
        let expected = [
            "schedule-timezone",
            "interval-cron",
            "incr-interval-cron",
            "namespaces[0]",
            "namespaces[2]",
            "set-list[0]",
            "bin-list[0]",
            "rack-list[0]",
        ];
        assert_eq!(paths, expected, "{problems:?}");
    }
}
