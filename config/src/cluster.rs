//! Clusters: where they are, and how to log in.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::check::{Check, most};
use crate::secret::{Secret, SecretText, Secrets, below, blank, visit_secrets};
use crate::secret_agent::SecretAgent;
use crate::settings::Agents;
use crate::text::words;
use crate::tls::{Tls, TlsSettings};

/// The largest number of a rack (the server's limit).
const MAX_RACK: i64 = 1_000_000;

/// The document `dto.AerospikeCluster`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::AerospikeCluster)]
pub struct AerospikeCluster {
    /// The name of the cluster in logs and messages; the name of the entry by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "testCluster")]
    pub label: Option<String>,
    /// Nodes to begin with, at least one; they name the others.
    pub seed_nodes: Vec<SeedNode>,
    /// How long a connection may take, in milliseconds; 30,000 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 30000, minimum = 1, maximum = 2_678_400_000_i64, example = 5000)]
    pub conn_timeout: Option<i64>,
    /// Nodes are reached at their alternate addresses; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub use_services_alternate: Option<bool>,
    /// How to log in; not at all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// How to talk over TLS; plain by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// How many scans may run on the cluster at the same time, over all routines; 256 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 65535, example = 100)]
    pub max_parallel_scans: Option<i64>,
    /// The racks to read from, the best first. Cannot be combined with the `rack-list`, `node-list` and `partition-list`
    /// of routines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefer_racks: Option<Vec<i64>>,
}

/// The document `dto.SeedNode`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::SeedNode)]
pub struct SeedNode {
    /// The name or address of the host.
    #[schema(example = "localhost")]
    pub host_name: String,
    /// The port.
    #[schema(minimum = 1, maximum = 65535, example = 3000)]
    pub port: i64,
    /// The name in the node's certificate, for TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "certName")]
    pub tls_name: Option<String>,
}

/// The document `dto.Credentials`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::Credentials)]
pub struct Credentials {
    /// The user; not for `PKI`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "testUser")]
    pub user: Option<String>,
    /// The password, or its place in the Secret Agent (`secrets:RESOURCE:KEY`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "testPswd")]
    pub password: Option<SecretText>,
    /// The file that holds the password, instead of `password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/path/to/pass.txt")]
    pub password_path: Option<String>,
    /// `INTERNAL` (the default), `EXTERNAL` or `PKI`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AuthMode>, inline, default = "INTERNAL")]
    pub auth_mode: Option<String>,
    /// The Secret Agent that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_agent: Option<SecretAgent>,
    /// The name of a configured Secret Agent, instead of `secret-agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_agent_name: Option<String>,
}

words! {
    /// How a user is known to the cluster.
    #[derive(Default)]
    pub enum AuthMode: "authentication mode" {
        /// By a user and a password that the cluster knows.
        #[default]
        Internal = "INTERNAL",
        /// By a user and a password that an outer service (LDAP) knows; needs TLS.
        External = "EXTERNAL",
        /// By the certificate of the TLS connection.
        Pki = "PKI",
    }
}

/// A cluster, ready to be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Its name in logs and messages.
    pub label: String,
    /// Nodes to begin with, at least one.
    pub seeds: Vec<SeedAddress>,
    /// How long a connection may take.
    pub timeout: Duration,
    /// Nodes are reached at their alternate addresses.
    pub use_services_alternate: bool,
    /// How many scans may run at the same time, over all routines; any number if none.
    pub max_parallel_scans: Option<NonZeroU32>,
    /// The racks to read from, the best first; no preference if empty.
    pub prefer_racks: Vec<u32>,
    /// How to log in; not at all if none.
    pub credentials: Option<CredentialSettings>,
    /// How to talk over TLS; plain if none.
    pub tls: Option<TlsSettings>,
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SeedAddress {
    /// The name or address of the host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The name in the node's certificate.
    pub tls_name: Option<String>,
}

/// How to log in to a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSettings {
    /// With a user and a password that the cluster knows.
    Internal {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// With a user and a password that an outer service knows; sent in clear inside of TLS.
    External {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// With the certificate of the TLS connection.
    Pki,
}

impl Secrets for AerospikeCluster {
    fn each_secret(&mut self, path: &str, visit: &mut dyn FnMut(String, &mut SecretText)) {
        if let Some(credentials) = &mut self.credentials {
            let path = &below(path, "credentials");
            visit_secrets!(credentials, path, visit, password = "password");
        }
        if let Some(tls) = &mut self.tls {
            let path = &below(path, "tls");
            visit_secrets!(tls, path, visit, key_file_password = "key-file-password");
        }
    }

    fn recipient(&self) -> Self {
        let mut recipient = self.clone();
        recipient.label = None;
        recipient.conn_timeout = None;
        recipient.max_parallel_scans = None;
        recipient.prefer_racks = None;
        if let Some(credentials) = &mut recipient.credentials {
            blank(&mut credentials.password);
        }
        if let Some(tls) = &mut recipient.tls {
            blank(&mut tls.key_file_password);
        }
        recipient
    }
}

impl AerospikeCluster {
    /// `name` is that of the entry, if it has one.
    pub(crate) fn settings(
        &self,
        name: Option<&str>,
        agents: &Agents,
        check: &mut Check<'_>,
    ) -> ClusterSettings {
        let seeds: Vec<SeedAddress> = (self.seed_nodes.iter().enumerate())
            .map(|(i, seed)| seed.settings(&mut check.inside(&format!("seed-nodes[{i}]"))))
            .collect();
        if seeds.is_empty() {
            check.problem("seed-nodes", "must name at least one node");
        }
        let first = seeds.first().map(|seed| format!("{}:{}", seed.host, seed.port));
        let label = self.label.clone().filter(|label| !label.is_empty());
        if let Some(label) = &label {
            check.visible_name("label", label);
        }
        let label = label.or_else(|| name.map(str::to_owned)).or(first).unwrap_or_default();
        let timeout = check.milliseconds("conn-timeout", self.conn_timeout, 30_000, 1..=most::MILLISECONDS);
        let tls = self.tls.as_ref().map(|tls| tls.settings(&mut check.inside("tls")));
        let credentials = self
            .credentials
            .as_ref()
            .map(|credentials| credentials.settings(tls.as_ref(), agents, &mut check.inside("credentials")));
        ClusterSettings {
            label,
            seeds,
            timeout,
            use_services_alternate: self.use_services_alternate.unwrap_or(false),
            max_parallel_scans: self.max_parallel_scans.map(|_| {
                check.count(
                    "max-parallel-scans",
                    self.max_parallel_scans,
                    NonZeroU32::MIN,
                    most::CLUSTER_SCANS,
                )
            }),
            prefer_racks: racks("prefer-racks", self.prefer_racks.as_deref(), check),
            credentials,
            tls,
        }
    }
}

/// The numbers of racks, each once.
pub(crate) fn racks(key: &str, racks: Option<&[i64]>, check: &mut Check<'_>) -> Vec<u32> {
    let racks = racks.unwrap_or_default();
    for (i, rack) in racks.iter().enumerate().filter(|(i, rack)| racks[..*i].contains(rack)) {
        check.problem(&format!("{key}[{i}]"), format_args!("names rack {rack} again: name it once"));
    }
    let numbers = racks.iter().enumerate();
    numbers.map(|(i, rack)| check.number(&format!("{key}[{i}]"), Some(*rack), 0, 0..=MAX_RACK)).collect()
}

impl SeedNode {
    fn settings(&self, check: &mut Check<'_>) -> SeedAddress {
        check.filled("host-name", &self.host_name);
        if let Some(name) = &self.tls_name {
            check.filled("tls-name", name);
        }
        SeedAddress {
            host: self.host_name.clone(),
            port: check.number("port", Some(self.port), 0, 1..=i64::from(u16::MAX)),
            tls_name: self.tls_name.clone(),
        }
    }
}

impl Credentials {
    fn settings(
        &self,
        tls: Option<&TlsSettings>,
        agents: &Agents,
        check: &mut Check<'_>,
    ) -> CredentialSettings {
        let agent = agents.of(self.secret_agent.as_ref(), self.secret_agent_name.as_deref(), check);
        let mode: AuthMode = check.word("auth-mode", self.auth_mode.as_deref());
        if mode == AuthMode::Pki {
            let unused = [
                ("user", self.user.is_some()),
                ("password", self.password.is_some()),
                ("password-path", self.password_path.is_some()),
            ];
            for (key, _) in unused.into_iter().filter(|(_, given)| *given) {
                check.problem(key, "is not used by auth-mode PKI: leave it out");
            }
            if tls.is_none_or(|tls| tls.identity.is_none()) {
                check.problem("auth-mode", "PKI needs the cluster's tls with cert-file and key-file");
            }
            return CredentialSettings::Pki;
        }
        let user = self.user.clone().unwrap_or_default();
        if user.is_empty() {
            check.problem("user", format_args!("is required for auth-mode {mode}"));
        }
        let password = match (&self.password, &self.password_path) {
            (Some(password), None) => Secret::of(password, "password", agent.as_ref(), check),
            (None, Some(path)) => {
                check.filled("password-path", path);
                Secret::File(PathBuf::from(path))
            }
            (given, _) => {
                let problem = if given.is_some() { "contradicts password-path" } else { "is required" };
                check.problem("password", format_args!("{problem}: give one of password and password-path"));
                Secret::Plain(String::new().into())
            }
        };
        if mode == AuthMode::External {
            if tls.is_none() {
                check.problem(
                    "auth-mode",
                    "EXTERNAL sends the password in clear: configure the cluster's tls",
                );
            }
            return CredentialSettings::External { user, password };
        }
        CredentialSettings::Internal { user, password }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    use crate::{Problems, from_json};

    fn settings(keys: &str) -> Result<ClusterSettings, Problems> {
        let document = format!(r#"{{"seed-nodes":[{{"host-name":"h","port":3000}}]{keys}}}"#);
        let cluster: AerospikeCluster = from_json(document.as_bytes())?;
        let agents = Agents::of_settings("secret-agents", &BTreeMap::new());
        Check::document("", |check| cluster.settings(None, &agents, check))
    }

    #[test]
    fn the_least_cluster_has_the_defaults_of_the_api() {
        let cluster = settings("").unwrap();
        let seed = SeedAddress { host: "h".into(), port: 3000, tls_name: None };
        assert_eq!((cluster.label.as_str(), cluster.seeds), ("h:3000", vec![seed]));
        assert_eq!((cluster.timeout, cluster.max_parallel_scans), (Duration::from_secs(30), None));
        assert!(cluster.credentials.is_none() && cluster.tls.is_none() && cluster.prefer_racks.is_empty());
    }

    #[test]
    fn each_way_to_log_in_asks_for_what_it_needs() {
        let user = "u".to_owned();
        let password = Secret::Plain("p".to_owned().into());
        let tls = r#","tls":{"cert-file":"c","key-file":"k"}"#;
        let ways = [
            (
                r#"{"user":"u","password":"p"}"#,
                CredentialSettings::Internal { user: user.clone(), password: password.clone() },
            ),
            (
                r#"{"user":"u","password":"p","auth-mode":"external"}"#,
                CredentialSettings::External { user: user.clone(), password },
            ),
            (
                r#"{"user":"u","password-path":"/p"}"#,
                CredentialSettings::Internal { user, password: Secret::File("/p".into()) },
            ),
            (r#"{"auth-mode":"PKI"}"#, CredentialSettings::Pki),
        ];
        for (keys, expected) in ways {
            let cluster = settings(&format!(r#","credentials":{keys}{tls}"#)).unwrap();
            assert_eq!(cluster.credentials, Some(expected));
        }
        for (keys, message) in [
            (
                "{}",
                "credentials.user: is required for auth-mode INTERNAL; credentials.password: is required: give one of password and password-path",
            ),
            (
                r#"{"user":"u","password":"p","password-path":"/p"}"#,
                "credentials.password: contradicts password-path: give one of password and password-path",
            ),
            (
                r#"{"user":"u","password":"p","auth-mode":"EXTERNAL"}"#,
                "credentials.auth-mode: EXTERNAL sends the password in clear: configure the cluster's tls",
            ),
            (
                r#"{"user":"u","auth-mode":"PKI"}"#,
                "credentials.user: is not used by auth-mode PKI: leave it out; credentials.auth-mode: PKI needs the cluster's tls with cert-file and key-file",
            ),
            (
                r#"{"user":"u","password":"p","auth-mode":"LDAP"}"#,
                "credentials.auth-mode: \"LDAP\" is no authentication mode: it can be INTERNAL, EXTERNAL or PKI",
            ),
            (
                r#"{"user":"u","password":"secrets:r:k"}"#,
                "credentials.password: is in a secret agent: give secret-agent-name or secret-agent",
            ),
            (
                r#"{"user":"u","password":"secrets:r:k","secret-agent-name":"a"}"#,
                "credentials.secret-agent-name: names \"a\", which is not in secret-agents: there is none; credentials.password: is in a secret agent: give secret-agent-name or secret-agent",
            ),
        ] {
            assert_eq!(settings(&format!(r#","credentials":{keys}"#)).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn racks_scans_and_ports_are_numbers_that_can_be() {
        let cluster = settings(r#","prefer-racks":[2,1],"max-parallel-scans":5,"label":"prod""#).unwrap();
        assert_eq!((cluster.prefer_racks, cluster.label.as_str()), (vec![2, 1], "prod"));
        assert_eq!(cluster.max_parallel_scans.map(NonZeroU32::get), Some(5));
        let error =
            settings(r#","prefer-racks":[1,-1,1],"max-parallel-scans":0,"conn-timeout":0"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "conn-timeout: must be at least 1, not 0; max-parallel-scans: must be at least 1, not 0; \
             prefer-racks[2]: names rack 1 again: name it once; prefer-racks[1]: must be at least 0, not -1"
        );
        let cluster: AerospikeCluster =
            from_json(br#"{"seed-nodes":[{"host-name":"","port":0},{"host-name":"h","port":65536}]}"#)
                .unwrap();
        let agents = Agents::of_settings("secret-agents", &BTreeMap::new());
        let error =
            Check::document("c", |check| cluster.settings(None, &agents, check)).unwrap_err().to_string();
        assert_eq!(
            error,
            "c.seed-nodes[0].host-name: must not be empty; c.seed-nodes[0].port: must be at least 1, not 0; \
             c.seed-nodes[1].port: must be at most 65535, not 65536"
        );
    }
}
