//! What a whole configuration means: every name resolved, every default filled in.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::check::{Check, Findings, shown};
use crate::cluster::ClusterSettings;
use crate::document::Config;
use crate::routine::RoutineSettings;
use crate::secret_agent::{SecretAgent, SecretAgentSettings};
use crate::service::ServiceSettings;
use crate::storage::StorageSettings;
use crate::text::nearest;
use crate::{BackupSettings, Problems, Warning};

/// What a [`Config`] means.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// The routines by their names.
    pub routines: BTreeMap<String, Arc<RoutineSettings>>,
    /// The clusters by their names.
    pub clusters: BTreeMap<String, Arc<ClusterSettings>>,
    /// The storages by their names.
    pub storage: BTreeMap<String, Arc<StorageSettings>>,
    /// The Secret Agents by their names.
    pub agents: BTreeMap<String, Arc<SecretAgentSettings>>,
    /// The service itself.
    pub service: ServiceSettings,
    /// What is not used as it is written.
    pub warnings: Vec<Warning>,
}

/// The entries of one map of the configuration by their names; none for those that have problems of their own.
pub(crate) struct Named<T> {
    /// The key of the map.
    map: &'static str,
    entries: BTreeMap<String, Option<T>>,
}

pub(crate) type Agents = Named<Arc<SecretAgentSettings>>;

/// What routines may name.
pub(crate) struct Entries {
    pub(crate) clusters: Named<Arc<ClusterSettings>>,
    pub(crate) storage: Named<Arc<StorageSettings>>,
    pub(crate) policies: Named<BackupSettings>,
    pub(crate) agents: Agents,
}

impl<T: Clone> Named<T> {
    /// The entries of `documents`, each checked by `settings`, which notes its problems and tells whether it is usable.
    fn checked<D>(
        map: &'static str,
        documents: &BTreeMap<String, D>,
        check: &mut Check<'_>,
        mut settings: impl FnMut(&str, &D, &mut Check<'_>) -> Option<T>,
    ) -> Self {
        let mut check = check.inside(map);
        let entries = documents.iter().map(|(name, document)| {
            let mut check = check.inside(&shown(name));
            check.folder_name(name);
            check.visible_name("", name);
            (name.clone(), settings(name, document, &mut check))
        });
        Self { map, entries: entries.collect() }
    }

    /// Entries without problems.
    pub(crate) fn of_settings(map: &'static str, entries: &BTreeMap<String, T>) -> Self {
        let entries = entries.iter().map(|(name, entry)| (name.clone(), Some(entry.clone())));
        Self { map, entries: entries.collect() }
    }

    /// The entry `name`, that `key` names. None if there is none, which is a problem, or if it has problems of its own.
    pub(crate) fn find(&self, key: &str, name: &str, check: &mut Check<'_>) -> Option<T> {
        if let Some(entry) = self.entries.get(name) {
            return entry.clone();
        }
        let known = || self.entries.keys().map(String::as_str);
        let hint = match nearest(name, known()) {
            Some(near) => format!("did you mean {near:?}?"),
            None if self.entries.is_empty() => "there is none".to_owned(),
            None => format!("there is {}", known().take(10).collect::<Vec<_>>().join(", ")),
        };
        check.problem(key, format_args!("names {name:?}, which is not in {}: {hint}", self.map));
        None
    }

    fn usable(self) -> BTreeMap<String, T> {
        self.entries.into_iter().filter_map(|(name, entry)| Some((name, entry?))).collect()
    }
}

impl Agents {
    /// The agent of a document with `secret-agent` and `secret-agent-name`, if it has one.
    pub(crate) fn of(
        &self,
        inline: Option<&SecretAgent>,
        name: Option<&str>,
        check: &mut Check<'_>,
    ) -> Option<Arc<SecretAgentSettings>> {
        match (inline, name) {
            (None, None) => None,
            (Some(agent), None) => Some(Arc::new(agent.settings(&mut check.inside("secret-agent")))),
            (None, Some(name)) => self.find("secret-agent-name", name, check),
            (Some(_), Some(_)) => {
                check.problem("secret-agent", "contradicts secret-agent-name: give one of them");
                None
            }
        }
    }
}

impl Config {
    /// What the stored configuration means, or all that is wrong with it.
    pub fn check(&self) -> Result<Settings, Problems> {
        let mut findings = Findings::default();
        let settings = self.settings(&mut Check::new("", &mut findings));
        Ok(Settings { warnings: findings.of_stored()?, ..settings })
    }

    fn settings(&self, check: &mut Check<'_>) -> Settings {
        let agents = Named::checked("secret-agents", &self.secret_agents, check, |_, agent, check| {
            Some(Arc::new(agent.settings(check)))
        });
        let clusters =
            Named::checked("aerospike-clusters", &self.aerospike_clusters, check, |name, cluster, check| {
                Some(Arc::new(cluster.settings(Some(name), &agents, check)))
            });
        let storage = Named::checked("storage", &self.storage, check, |_, storage, check| {
            storage.settings(&agents, check).map(Arc::new)
        });
        let policies = Named::checked("backup-policies", &self.backup_policies, check, |_, policy, check| {
            Some(policy.settings(check))
        });
        let service = self.service.clone().unwrap_or_default().settings(&mut check.inside("service"));
        let entries = Entries { clusters, storage, policies, agents };
        let routines =
            Named::checked("backup-routines", &self.backup_routines, check, |name, routine, check| {
                routine.settings(name, &entries, &service, check).map(Arc::new)
            });
        Settings {
            routines: routines.usable(),
            clusters: entries.clusters.usable(),
            storage: entries.storage.usable(),
            agents: entries.agents.usable(),
            service,
            warnings: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn problems(yaml: &str) -> Vec<String> {
        let problems = Config::from_yaml(yaml).unwrap().check().unwrap_err();
        problems.list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_is_a_configuration() {
        for text in ["", "# nothing yet", "{}", "aerospike-clusters:", "backup-routines: {}"] {
            assert_eq!(Config::from_yaml(text).unwrap().check().unwrap(), Settings::default());
        }
    }

    #[test]
    fn problems_of_all_parts_are_told_at_once() {
        let text = "
service: { http: { port: -1 } }
aerospike-clusters: { c: { seed-nodes: [] } }
storage: { s: { s3-storage: { bucket: '', s3-region: r } }, t: {} }
backup-policies: { p: { parallel: 0, retention: { full: 1, incremental: 2 } } }
secret-agents: { a: { connection-type: tcp, address: h } }
backup-routines:
  r: { source-cluster: c, storage: s, backup-policy: p, interval-cron: x, namespaces: [] }
";
        let found = problems(text);
        let paths: Vec<&str> = found.iter().map(|problem| problem.split(": ").next().unwrap()).collect();
        let expected = [
            "secret-agents.a.port",
            "aerospike-clusters.c.seed-nodes",
            "storage.s.s3-storage.bucket",
            "storage.t",
            "backup-policies.p.parallel",
            "backup-policies.p.retention.incremental",
            "service.http.port",
            "backup-routines.r.interval-cron",
        ];
        assert_eq!(paths, expected, "what is broken elsewhere is not told again at the routine: {found:?}");
    }

    #[test]
    fn names_make_folders() {
        let policies = |name: &str| problems(&format!("backup-policies: {{ {name:?}: {{}} }}"));
        for name in ["", "a/b", "a\\b", ".", "..", "a\tb", &"a".repeat(256)] {
            let expected =
                format!("{name:?} must be a name that a folder can have, without slashes, 1 to 255 bytes");
            assert_eq!(policies(name).len(), 1);
            assert!(policies(name)[0].ends_with(&expected), "{:?}", policies(name));
        }
        for name in [" ", "a ", ".abs-locks"] {
            assert!(policies(name)[0].contains("must not begin with .abs-"), "{:?}", policies(name));
        }
        for name in ["daily", "a b", "ä", "..a", &"a".repeat(255), "日本", "e\u{301}", "a'b\"c", "😀"] {
            let text = serde_json::json!({"backup-policies": {name: {}}}).to_string();
            let config = Config::from_json(text.as_bytes()).unwrap();
            assert_eq!(config.check().unwrap().warnings, [], "{name}");
        }
        for (name, code) in [
            ("a\u{202e}b", "\\u{202e}"),
            ("a\u{200b}", "\\u{200b}"),
            ("\u{feff}a", "\\u{feff}"),
            ("a\u{2066}b", "\\u{2066}"),
            ("a\u{ad}b", "\\u{ad}"),
            ("a\u{2028}b", "\\u{2028}"),
        ] {
            let text = serde_json::json!({"backup-policies": {name: {}}}).to_string();
            let warnings = Config::from_json(text.as_bytes()).unwrap().check().unwrap().warnings;
            assert_eq!(warnings.len(), 1, "{name:?}");
            assert!(warnings[0].problem.message.contains(&format!("without {code},")), "{warnings:?}");
        }
    }

    /// Protects: a stored number that is too large is used as the largest one that may be, with a warning.
    #[test]
    fn stored_numbers_that_are_too_large_are_clamped() {
        let text = "
backup-policies: { p: { parallel: 2_147_483_647, parallel-write: 1_000_000, retry-policy: { multiplier: 1000 } } }
aerospike-clusters: { c: { seed-nodes: [{ host-name: h, port: 1 }], max-parallel-scans: 9_223_372_036_854_775_807 } }
storage: { s: { local-storage: { path: /s } } }
backup-routines: { r: { source-cluster: c, storage: s, backup-policy: p, interval-cron: '@daily', namespaces: [] } }
";
        let settings = Config::from_yaml(text).unwrap().check().unwrap();
        let routine = &settings.routines["r"];
        assert_eq!((routine.policy.parallel.get(), routine.policy.parallel_write.get()), (4096, 1024));
        assert!((routine.policy.retry.multiplier - 100.0).abs() < f64::EPSILON);
        assert_eq!(routine.cluster.max_parallel_scans.map(NonZeroU32::get), Some(65_535));
        let warnings: Vec<_> = settings.warnings.iter().map(ToString::to_string).collect();
        let expected = [
            "aerospike-clusters.c.max-parallel-scans: must be at most 65535, not 9223372036854775807: 65535 is used",
            "backup-policies.p.parallel: must be at most 4096, not 2147483647: 4096 is used",
            "backup-policies.p.parallel-write: must be at most 1024, not 1000000: 1024 is used",
            "backup-policies.p.retry-policy.multiplier: must be at most 100, not 1000: 100 is used",
        ];
        assert_eq!(warnings, expected);
    }
}
