//! Secrets: as documents hold them, and how to get at them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::check::Check;
use crate::secret_agent::SecretAgentSettings;
use crate::{InvalidValue, Problem, Problems};

/// What stands for a secret in answers and logs.
pub const MASK: &str = "[secret]";
/// How the reference to a secret in the Secret Agent begins.
const REFERENCE: &str = "secrets:";

/// A text in a document that is a secret or refers to one (`secrets:RESOURCE:KEY`). `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The text itself, secret or not.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it only refers to a secret in the Secret Agent.
    #[must_use]
    pub fn is_reference(&self) -> bool {
        self.0.starts_with(REFERENCE)
    }

    /// The text to show: the reference, or [`MASK`].
    #[must_use]
    pub fn shown(&self) -> &str {
        if self.is_reference() { &self.0 } else { MASK }
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<SecretText> for String {
    fn from(text: SecretText) -> Self {
        text.0.to_string()
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

/// A document that may hold secrets.
pub trait Secrets: Clone + PartialEq {
    /// Shows each secret to `visit`, with its path below `path`.
    fn each_secret(&mut self, path: &str, visit: &mut dyn FnMut(String, &mut SecretText));

    /// The document to show: each secret reads [`MASK`]; references to the Secret Agent stay.
    #[must_use]
    fn masked(&self) -> Self {
        let mut masked = self.clone();
        masked.each_secret("", &mut |_, secret| *secret = secret.shown().into());
        masked
    }

    /// The document without what does not matter for where its secrets go: sizes, limits, and the secrets themselves.
    #[must_use]
    fn recipient(&self) -> Self {
        self.clone()
    }

    /// Puts the secrets of the `stored` document in the place of [`MASK`]. A mask for which nothing is stored is a problem;
    /// so is one in a document that would send the secret elsewhere than the stored one does.
    fn unmask(&mut self, stored: Option<&Self>) -> Result<(), Problems> {
        let mut known = BTreeMap::new();
        if let Some(stored) = stored {
            stored.clone().each_secret("", &mut |path, secret| {
                known.insert(path, secret.clone());
            });
        }
        let mut problems = Vec::new();
        let mut restored = Vec::new();
        self.each_secret("", &mut |path, secret| {
            if secret.expose() != MASK {
                return;
            }
            match known.get(&path) {
                Some(value) => {
                    *secret = value.clone();
                    restored.push(path);
                }
                None => problems.push(Problem {
                    path,
                    message: format!("reads {MASK}, but no secret is stored for it: give the secret"),
                }),
            }
        });
        if stored.is_some_and(|stored| stored.recipient() != self.recipient()) {
            problems.extend(restored.into_iter().map(|path| Problem {
                path,
                message: format!("reads {MASK}, but what it is sent to has changed: give the secret"),
            }));
        }
        Problems::none_in(problems)
    }
}

/// Empties a secret that is there.
pub(crate) fn blank(secret: &mut Option<SecretText>) {
    if let Some(secret) = secret {
        *secret = "".into();
    }
}

/// `path.key`, or `key` at the top.
pub(crate) fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Shows the secrets of some fields of a document.
macro_rules! visit_secrets {
    ($document:ident, $path:ident, $visit:ident, $($field:ident = $key:literal),+) => {
        $(if let Some(secret) = &mut $document.$field {
            $visit($crate::secret::below($path, $key), secret);
        })+
    };
}
pub(crate) use visit_secrets;

/// The place of a secret in the Secret Agent, written `secrets:RESOURCE:KEY`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretReference {
    /// The resource, as the agent's configuration names it.
    pub resource: String,
    /// The key in that resource.
    pub key: String,
}

impl FromStr for SecretReference {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let parts = text.strip_prefix(REFERENCE).and_then(|rest| rest.split_once(':'));
        match parts {
            Some((resource, key)) if !resource.is_empty() && !key.is_empty() => {
                Ok(Self { resource: resource.to_owned(), key: key.to_owned() })
            }
            _ => Err(InvalidValue::new(text, "is no reference to a secret: write secrets:RESOURCE:KEY")),
        }
    }
}

impl fmt::Display for SecretReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{REFERENCE}{}:{}", self.resource, self.key)
    }
}

/// Where a secret is. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The secret itself.
    Plain(Zeroizing<String>),
    /// In the file of this path; line ends at its end are not part of it.
    File(PathBuf),
    /// In the environment variable of this name.
    Env(String),
    /// In the Secret Agent.
    Agent(Arc<SecretAgentSettings>, SecretReference),
}

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read as text.
    #[error("reading the secret in the file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// There is no such variable, or its value is no text.
    #[error("reading the secret in the environment variable {name}: {source}")]
    Env {
        /// The variable.
        name: String,
        /// What went wrong.
        source: std::env::VarError,
    },
    /// The Secret Agent does not give it.
    #[error("asking the secret agent at {address} for {resource}:{key}: {reason}")]
    Agent {
        /// The agent.
        address: String,
        /// The resource asked for.
        resource: String,
        /// The key asked for.
        key: String,
        /// What went wrong.
        reason: String,
    },
}

impl SecretError {
    /// Whether the same question may be answered a while later, with nobody doing anything about it.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Agent { .. })
    }
}

impl Secret {
    /// Gets the secret.
    pub async fn resolve(&self) -> Result<Zeroizing<String>, SecretError> {
        match self {
            Self::Plain(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let read = tokio::fs::read_to_string(path).await.map(Zeroizing::new);
                let text = read.map_err(|source| SecretError::File { path: path.clone(), source })?;
                Ok(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()))
            }
            Self::Env(name) => std::env::var(name)
                .map(Zeroizing::new)
                .map_err(|source| SecretError::Env { name: name.clone(), source }),
            Self::Agent(agent, SecretReference { resource, key }) => {
                agent.ask(resource, key).await.map_err(|reason| SecretError::Agent {
                    address: agent.address.to_string(),
                    resource: resource.clone(),
                    key: key.clone(),
                    reason: reason.to_string(),
                })
            }
        }
    }

    /// The secret that `text` is or refers to; a reference is asked of `agent`.
    pub(crate) fn of(
        text: &SecretText,
        key: &str,
        agent: Option<&Arc<SecretAgentSettings>>,
        check: &mut Check<'_>,
    ) -> Self {
        let plain = Self::Plain(text.0.clone());
        if text.expose() == MASK {
            check.problem(key, format_args!("reads {MASK}: give the secret"));
            return plain;
        }
        if !text.is_reference() {
            return plain;
        }
        let reference = check.valid(key, text.expose().parse());
        if agent.is_none() {
            check.problem(key, "is in a secret agent: give secret-agent-name or secret-agent");
        }
        match (reference, agent) {
            (Some(reference), Some(agent)) => Self::Agent(Arc::clone(agent), reference),
            _ => plain,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str(MASK),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Agent(_, reference) => reference.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::check::Findings;
    use crate::{AerospikeCluster, Config, Storage, from_json};

    fn cluster(password: &str, key: &str) -> AerospikeCluster {
        let document = format!(
            r#"{{"seed-nodes":[{{"host-name":"h","port":3000}}],"credentials":{{"user":"u","password":{password:?}}},
                 "tls":{{"cert-file":"c","key-file":"k","key-file-password":{key:?}}}}}"#
        );
        from_json(document.as_bytes()).unwrap()
    }

    #[test]
    fn no_secret_is_shown() {
        let mut config = Config::default();
        config.aerospike_clusters.insert("c".into(), cluster("hunter2", "hunter3"));
        let storage = r#"{"s3-storage":{"bucket":"b","s3-region":"r","access-key-id":"hunter4","secret-access-key":"hunter5"},
            "gcp-storage":{"bucket-name":"b","key":"hunter6"},
            "azure-storage":{"endpoint":"http://e","container-name":"c","account-key":"hunter7","client-id":"hunter8",
                "tenant-id":"hunter9","client-secret":"hunter10"}}"#;
        config.storage.insert("s".into(), from_json::<Storage>(storage.as_bytes()).unwrap());
        let shown = [
            format!("{config:?}"),
            format!(
                "{:?}",
                config.aerospike_clusters["c"].settings(
                    None,
                    &crate::settings::Named::of_settings("", &BTreeMap::new()),
                    &mut Check::new("", &mut Findings::default()),
                )
            ),
            config.masked().to_yaml(),
            serde_json::to_string(&config.masked()).unwrap(),
        ];
        for text in shown {
            assert!(!text.contains("hunter"), "{text}");
            assert!(text.contains(MASK), "{text}");
        }
        assert_eq!(
            serde_json::to_string(&config).unwrap().matches("hunter").count(),
            9,
            "stored as they are"
        );
    }

    #[test]
    fn references_are_shown_and_masks_give_the_stored_secret_back() {
        let stored = cluster("hunter2", "secrets:tls:key");
        let masked = stored.masked();
        let credentials = masked.credentials.clone().unwrap();
        assert_eq!(credentials.password.unwrap().expose(), MASK);
        assert_eq!(masked.tls.clone().unwrap().key_file_password.unwrap().expose(), "secrets:tls:key");

        let mut back = masked.clone();
        back.label = Some("changed".into());
        back.unmask(Some(&stored)).unwrap();
        assert_eq!(back, AerospikeCluster { label: Some("changed".into()), ..stored.clone() });

        let mut other = cluster("new", "secrets:tls:key");
        other.unmask(Some(&stored)).unwrap();
        assert_eq!(other.credentials.unwrap().password.unwrap().expose(), "new");

        let problem = masked.clone().unmask(None).unwrap_err();
        let expected =
            "credentials.password: reads [secret], but no secret is stored for it: give the secret";
        assert_eq!(problem.to_string(), expected);
        let without = AerospikeCluster { credentials: None, ..stored };
        assert_eq!(masked.clone().unmask(Some(&without)).unwrap_err().to_string(), expected);

        let mut config = Config::default();
        config.aerospike_clusters.insert("c".into(), masked);
        let problems = config.clone().unmask(Some(&Config::default())).unwrap_err();
        assert_eq!(problems.list()[0].path, "aerospike-clusters.c.credentials.password");
        let problems = config.check().unwrap_err().to_string();
        assert_eq!(problems.matches("reads [secret]: give the secret").count(), 1, "{problems}");
    }

    /// Protects: a stored secret is sent to no host, as no user, and into no bucket that a client names without the secret.
    #[test]
    fn a_mask_stands_for_a_secret_only_where_it_goes_to_the_same() {
        let refused = |before: &str, after: &str, keys: &[&str]| {
            let stored: Config = from_json(before.as_bytes()).unwrap();
            let mut changed: Config = from_json(after.as_bytes()).unwrap();
            let found = changed.unmask(Some(&stored)).err();
            let found: Vec<_> = found.iter().flat_map(Problems::list).collect();
            let paths: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
            assert_eq!(paths, keys, "{after}");
            assert!(found.iter().all(|problem| problem.message.contains("what it is sent to has changed")));
        };
        let document = |cluster: &AerospikeCluster| {
            serde_json::json!({"aerospike-clusters": {"c": cluster}}).to_string()
        };
        let stored = AerospikeCluster { label: Some("l".into()), ..cluster("hunter2", "hunter3") };
        let masked = stored.masked();
        let both =
            ["aerospike-clusters.c.credentials.password", "aerospike-clusters.c.tls.key-file-password"];
        let with = |change: &dyn Fn(&mut AerospikeCluster)| {
            let mut changed = masked.clone();
            change(&mut changed);
            document(&changed)
        };
        let before = document(&stored);
        refused(&before, &document(&masked), &[]);
        refused(
            &before,
            &with(&|c| (c.label, c.conn_timeout, c.max_parallel_scans) = (None, Some(1), Some(2))),
            &[],
        );
        refused(&before, &with(&|c| c.seed_nodes[0].host_name = "evil".into()), &both);
        refused(&before, &with(&|c| c.seed_nodes[0].port = 1), &both);
        refused(&before, &with(&|c| c.use_services_alternate = Some(true)), &both);
        refused(&before, &with(&|c| c.tls.as_mut().unwrap().ca_file = Some("/tmp/ca".into())), &both);
        refused(&before, &with(&|c| c.credentials.as_mut().unwrap().user = Some("other".into())), &both);
        refused(
            &before,
            &with(&|c| c.credentials.as_mut().unwrap().auth_mode = Some("EXTERNAL".into())),
            &both,
        );
        // A secret that is given anew may go anywhere; the other one may not.
        let given = with(&|c| {
            c.seed_nodes[0].host_name = "new".into();
            c.credentials.as_mut().unwrap().password = Some("new".into());
        });
        refused(&before, &given, &both[1..]);
        let given = with(&|c| c.credentials.as_mut().unwrap().password = Some("new".into()));
        refused(&before, &given, &[]);

        let storage = |keys: &str| format!(r#"{{"storage":{{"s":{{{keys}}}}}}}"#);
        let s3 = |bucket: &str, endpoint: &str, id: &str, key: &str, rest: &str| {
            storage(&format!(
                r#""s3-storage":{{"bucket":{bucket:?},"s3-region":"r","s3-endpoint-override":{endpoint:?},
                    "access-key-id":{id:?},"secret-access-key":{key:?}{rest}}}"#
            ))
        };
        let before = s3("b", "http://e", "id", "key", "");
        let (id, key) = ("storage.s.s3-storage.access-key-id", "storage.s.s3-storage.secret-access-key");
        refused(&before, &s3("b", "http://e", MASK, MASK, r#","path":"p","min-part-size":6000000"#), &[]);
        refused(&before, &s3("b", "http://e", MASK, "new", ""), &[]);
        refused(&before, &s3("b", "http://e", "new", MASK, ""), &[key]);
        refused(&before, &s3("c", "http://e", MASK, MASK, ""), &[id, key]);
        refused(&before, &s3("b", "http://f", MASK, MASK, ""), &[id, key]);
        let gcp = |endpoint: &str, key: &str| {
            storage(&format!(r#""gcp-storage":{{"bucket-name":"b","endpoint":{endpoint:?},"key":{key:?}}}"#))
        };
        refused(&gcp("http://e", "k"), &gcp("http://e", MASK), &[]);
        refused(&gcp("http://e", "k"), &gcp("http://f", MASK), &["storage.s.gcp-storage.key"]);
        let azure = |account: &str, key: &str| {
            storage(&format!(
                r#""azure-storage":{{"endpoint":"http://e","container-name":"c","account-name":{account:?},"account-key":{key:?}}}"#
            ))
        };
        refused(&azure("a", "k"), &azure("a", MASK), &[]);
        refused(&azure("a", "k"), &azure("b", MASK), &["storage.s.azure-storage.account-key"]);
        let client = |tenant: &str, secret: &str| {
            storage(&format!(
                r#""azure-storage":{{"endpoint":"http://e","container-name":"c","client-id":"[secret]","tenant-id":{tenant:?},"client-secret":{secret:?}}}"#
            ))
        };
        let before = client("t", "s").replace(MASK, "i");
        refused(&before, &client(MASK, "new"), &[]);
        let moved = ["storage.s.azure-storage.client-id", "storage.s.azure-storage.client-secret"];
        refused(&before, &client("other", MASK), &moved);
    }

    #[test]
    fn a_reference_has_a_resource_and_a_key() {
        let reference: SecretReference = "secrets:production:a:b".parse().unwrap();
        assert_eq!((reference.resource.as_str(), reference.key.as_str()), ("production", "a:b"));
        assert_eq!(reference.to_string(), "secrets:production:a:b");
        for bad in ["", "secrets:", "secrets:a", "secrets::b", "secrets:a:", "a:b:c"] {
            let error = bad.parse::<SecretReference>().unwrap_err().to_string();
            assert!(error.ends_with("is no reference to a secret: write secrets:RESOURCE:KEY"), "{error}");
        }
    }

    #[tokio::test]
    async fn secrets_come_from_files_and_variables() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "hunter2\r\n").unwrap();
        assert_eq!(*Secret::File(path.clone()).resolve().await.unwrap(), "hunter2");
        assert_eq!(*Secret::Plain("a\n".to_owned().into()).resolve().await.unwrap(), "a\n");
        let name = "CARGO_MANIFEST_DIR";
        assert_eq!(*Secret::Env(name.into()).resolve().await.unwrap(), std::env::var(name).unwrap());

        std::fs::remove_file(&path).unwrap();
        let error = Secret::File(path.clone()).resolve().await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("reading the secret in the file {}: ", path.display())),
            "{error}"
        );
        let error = Secret::Env("ABS_TEST_NONE".into()).resolve().await.unwrap_err().to_string();
        assert_eq!(
            error,
            "reading the secret in the environment variable ABS_TEST_NONE: environment variable not found"
        );
    }
}
