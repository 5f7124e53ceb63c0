//! How the files of a backup are encrypted.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::check::Check;
use crate::secret::{SecretReference, SecretText, Secrets, visit_secrets};
use crate::secret_agent::SecretAgentSettings;
use crate::text::words;
use crate::{Problems, Secret};

/// How the files of a backup are encrypted: not at all, or with a cipher and one key. An [`EncryptionPolicy`] in
/// documents. It tells where the key is; it never holds the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "EncryptionPolicy", into = "EncryptionPolicy")]
pub enum Encryption {
    /// Not at all.
    #[default]
    None,
    /// With this cipher and this key.
    On(Cipher, KeySource),
}

impl Encryption {
    /// The mode, as metadata names it.
    #[must_use]
    pub fn mode(&self) -> EncryptionMode {
        match self {
            Self::None => EncryptionMode::None,
            Self::On(Cipher::Aes128, _) => EncryptionMode::Aes128,
            Self::On(Cipher::Aes256, _) => EncryptionMode::Aes256,
        }
    }

    /// The text of the key; none if there is no encryption. A key in the Secret Agent needs `agent`; without one, `key`
    /// says what to give.
    pub(crate) fn key(
        &self,
        agent: Option<&Arc<SecretAgentSettings>>,
        key: &str,
        check: &mut Check<'_>,
    ) -> Option<Secret> {
        match self {
            Self::None => None,
            Self::On(_, KeySource::File(path)) => Some(Secret::File(path.into())),
            Self::On(_, KeySource::Env(name)) => Some(Secret::Env(name.clone())),
            Self::On(_, KeySource::Secret(reference)) => {
                let Some(agent) = agent else {
                    check.problem(key, "is required: the encryption key is in a secret agent");
                    return None;
                };
                Some(Secret::Agent(Arc::clone(agent), reference.clone()))
            }
        }
    }
}

/// A cipher of backup files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES with a key of 128 bits.
    Aes128,
    /// AES with a key of 256 bits.
    Aes256,
}

/// Where the key is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// In the file of this path: a PEM private key.
    File(String),
    /// In the environment variable of this name: the base64 text of a PEM private key.
    Env(String),
    /// At this place in the Secret Agent.
    Secret(SecretReference),
}

words! {
    /// A mode of encryption. Written as documents and metadata write it, `NONE`, `AES128` or `AES256`; read in any case.
    #[derive(Default)]
    pub enum EncryptionMode: "encryption mode" {
        /// No encryption.
        #[default]
        None = "NONE",
        /// AES with a key of 128 bits.
        Aes128 = "AES128",
        /// AES with a key of 256 bits.
        Aes256 = "AES256",
    }
}

impl EncryptionMode {
    /// The cipher; none for `NONE`.
    #[must_use]
    pub fn cipher(self) -> Option<Cipher> {
        match self {
            Self::None => None,
            Self::Aes128 => Some(Cipher::Aes128),
            Self::Aes256 => Some(Cipher::Aes256),
        }
    }
}

/// The document `dto.EncryptionPolicy`. Unless its mode is `NONE`, exactly one of the three keys is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::EncryptionPolicy)]
pub struct EncryptionPolicy {
    /// `NONE` (the default), `AES128` or `AES256`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<EncryptionMode>, inline, default = "NONE")]
    pub mode: Option<String>,
    /// The path of the file that holds the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// The name of the environment variable that holds the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// The place of the key in the Secret Agent (`secrets:RESOURCE:KEY`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key_secret: Option<SecretText>,
}

impl Secrets for EncryptionPolicy {
    fn each_secret(&mut self, path: &str, visit: &mut dyn FnMut(String, &mut SecretText)) {
        visit_secrets!(self, path, visit, key_secret = "key-secret");
    }
}

impl EncryptionPolicy {
    pub(crate) fn settings(&self, check: &mut Check<'_>) -> Encryption {
        let mode: EncryptionMode = check.word("mode", self.mode.as_deref());
        if let Some(path) = &self.key_file {
            check.filled("key-file", path);
        }
        if let Some(name) = &self.key_env {
            check.filled("key-env", name);
        }
        let key = match (&self.key_file, &self.key_env, &self.key_secret) {
            (None, None, None) => None,
            (Some(path), None, None) => Some(KeySource::File(path.clone())),
            (None, Some(name), None) => Some(KeySource::Env(name.clone())),
            (None, None, Some(text)) if text.is_reference() => {
                match check.valid("key-secret", text.expose().parse()) {
                    Some(reference) => Some(KeySource::Secret(reference)),
                    None => return Encryption::None,
                }
            }
            (None, None, Some(_)) => {
                // It may be the key itself: it is not repeated.
                check.problem(
                    "key-secret",
                    "must be the key's place in the secret agent: secrets:RESOURCE:KEY",
                );
                return Encryption::None;
            }
            _ => {
                check.problem("", "has several keys: give one of key-file, key-env and key-secret");
                return Encryption::None;
            }
        };
        match (mode.cipher(), key) {
            (Some(cipher), Some(key)) => return Encryption::On(cipher, key),
            (Some(_), None) => {
                check.problem("", "needs the key: give one of key-file, key-env and key-secret");
            }
            // Whoever gives a key and no mode believes that the backup is encrypted.
            (None, Some(_)) if self.mode.is_none() => {
                check.problem("", "has a key but no mode: give mode AES128 or AES256, or NONE");
            }
            (None, _) => {}
        }
        Encryption::None
    }
}

impl TryFrom<EncryptionPolicy> for Encryption {
    type Error = Problems;

    fn try_from(policy: EncryptionPolicy) -> Result<Self, Problems> {
        Check::document("encryption", |check| policy.settings(check))
    }
}

impl From<Encryption> for EncryptionPolicy {
    fn from(encryption: Encryption) -> Self {
        let mut policy = Self { mode: Some(encryption.mode().to_string()), ..Self::default() };
        match encryption {
            Encryption::None => {}
            Encryption::On(_, KeySource::File(path)) => policy.key_file = Some(path),
            Encryption::On(_, KeySource::Env(name)) => policy.key_env = Some(name),
            Encryption::On(_, KeySource::Secret(reference)) => {
                policy.key_secret = Some(reference.to_string().into());
            }
        }
        policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Encryption, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_cipher_has_exactly_one_key() {
        let file = KeySource::File("/etc/key.pem".to_owned());
        for (document, encryption) in [
            (r#"{"mode":"NONE"}"#, Encryption::None),
            (r#"{"mode":"AES128","key-file":"/etc/key.pem"}"#, Encryption::On(Cipher::Aes128, file)),
            (
                r#"{"mode":"AES256","key-env":"KEY"}"#,
                Encryption::On(Cipher::Aes256, KeySource::Env("KEY".into())),
            ),
            (
                r#"{"mode":"AES256","key-secret":"secrets:r:k"}"#,
                Encryption::On(Cipher::Aes256, KeySource::Secret("secrets:r:k".parse().unwrap())),
            ),
        ] {
            assert_eq!(read(document).unwrap(), encryption);
            assert_eq!(serde_json::to_string(&encryption).unwrap(), document);
        }
        assert_eq!(read("{}").unwrap(), Encryption::None);
        assert_eq!(read(r#"{"mode":"NONE","key-env":"A"}"#).unwrap(), Encryption::None);
        let aes = r#""mode":"aes128""#;
        for (document, message) in [
            (format!("{{{aes}}}"), "encryption: needs the key: give one of key-file, key-env and key-secret"),
            (
                format!(r#"{{{aes},"key-env":"A","key-file":"b"}}"#),
                "encryption: has several keys: give one of key-file, key-env and key-secret",
            ),
            (format!(r#"{{{aes},"key-env":""}}"#), "encryption.key-env: must not be empty"),
            (
                r#"{"key-env":"A"}"#.to_owned(),
                "encryption: has a key but no mode: give mode AES128 or AES256, or NONE",
            ),
            (
                r#"{"mode":"AES512","key-env":"A"}"#.to_owned(),
                "encryption.mode: \"AES512\" is no encryption mode: it can be NONE, AES128 or AES256",
            ),
        ] {
            assert_eq!(read(&document).unwrap_err().to_string(), message);
        }
        assert!(read(r#"{"key":"x"}"#).is_err());
    }
}
