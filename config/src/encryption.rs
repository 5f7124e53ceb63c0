//! How the files of a backup are encrypted.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::check::Check;
use crate::secret::{SecretReference, SecretText, Secrets, below, visit_secrets};
use crate::secret_agent::SecretAgentSettings;
use crate::text::words;
use crate::{Problems, Secret};

/// How the files of a backup are encrypted, and what older ones may be encrypted with. An [`EncryptionPolicy`] in documents.
/// It tells where the keys are; it never holds one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "EncryptionPolicy", into = "EncryptionPolicy")]
pub struct Encryption {
    /// With what files are encrypted; not at all if none.
    pub main: Option<CipherKey>,
    /// With what else those may be encrypted that are read.
    pub further: Vec<CipherKey>,
}

/// A cipher and its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CipherKey {
    /// The cipher.
    pub cipher: Cipher,
    /// Where the key is.
    pub source: KeySource,
}

/// The keys of an [`Encryption`], to be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeySecrets {
    /// The one that files are encrypted with, if they are.
    pub main: Option<(Cipher, Secret)>,
    /// Those that are only read with.
    pub further: Vec<(Cipher, Secret)>,
}

impl Encryption {
    /// Whether a backup of this mode, as metadata names it, can be read with one of the keys, or without.
    #[must_use]
    pub fn reads(&self, mode: &str) -> bool {
        let is_mode = |key: &CipherKey| key.cipher.to_string().eq_ignore_ascii_case(mode);
        self.main.iter().chain(&self.further).any(is_mode)
            || (self.main.is_none() && mode.eq_ignore_ascii_case("NONE"))
    }

    /// The modes of the keys; `NONE` without.
    #[must_use]
    pub fn modes(&self) -> String {
        let mut modes: Vec<_> =
            self.main.iter().chain(&self.further).map(|key| key.cipher.to_string()).collect();
        if self.main.is_none() {
            modes.insert(0, EncryptionMode::None.to_string());
        }
        modes.dedup();
        modes.join(" or ")
    }

    /// The texts of the keys. A key in the Secret Agent needs `agent`; without one, `key` says what to give.
    pub(crate) fn keys(
        &self,
        agent: Option<&Arc<SecretAgentSettings>>,
        key: &str,
        check: &mut Check<'_>,
    ) -> KeySecrets {
        let is_in_agent = |key: &CipherKey| matches!(key.source, KeySource::Secret(_));
        if agent.is_none() && self.main.iter().chain(&self.further).any(is_in_agent) {
            check.problem(key, "is required: the encryption key is in a secret agent");
            return KeySecrets::default();
        }
        let secret = |key: &CipherKey| {
            let secret = match &key.source {
                KeySource::File(path) => Secret::File(path.into()),
                KeySource::Env(name) => Secret::Env(name.clone()),
                KeySource::Secret(reference) => Secret::Agent(Arc::clone(agent?), reference.clone()),
            };
            Some((key.cipher, secret))
        };
        KeySecrets {
            main: self.main.as_ref().and_then(secret),
            further: self.further.iter().filter_map(secret).collect(),
        }
    }
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
    /// A cipher of backup files: a mode of encryption that encrypts.
    pub enum Cipher: "mode of a key" {
        /// AES in counter mode with a key of 128 bits.
        Aes128 = "AES128",
        /// AES in counter mode with a key of 256 bits.
        Aes256 = "AES256",
        /// AES-GCM with a key of 128 bits.
        Aes128Gcm = "AES128GCM",
        /// AES-GCM with a key of 256 bits.
        Aes256Gcm = "AES256GCM",
    }
}

words! {
    /// A mode of encryption. Written as documents and metadata write it, read in any case.
    #[derive(Default)]
    pub enum EncryptionMode: "encryption mode" {
        /// No encryption.
        #[default]
        None = "NONE",
        /// AES in counter mode with a key of 128 bits, as Aerospike Backup Service has it.
        Aes128 = "AES128",
        /// AES in counter mode with a key of 256 bits, as Aerospike Backup Service has it.
        Aes256 = "AES256",
        /// Authenticated encryption: AES-GCM with a key of 128 bits. Only this service reads it.
        Aes128Gcm = "AES128GCM",
        /// Authenticated encryption: AES-GCM with a key of 256 bits. Only this service reads it.
        Aes256Gcm = "AES256GCM",
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
            Self::Aes128Gcm => Some(Cipher::Aes128Gcm),
            Self::Aes256Gcm => Some(Cipher::Aes256Gcm),
        }
    }
}

/// The document `dto.EncryptionPolicy`. Unless its mode is `NONE`, exactly one of the three keys is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::EncryptionPolicy)]
pub struct EncryptionPolicy {
    /// `NONE` (the default), `AES128`, `AES256`, or, with authentication, `AES128GCM` or `AES256GCM`.
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
    /// Further keys to read backups with that were made with another key or mode: those from before it was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_keys: Option<Vec<ReadKey>>,
}

/// A key to read backups with. Exactly one of the three keys is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::ReadKey)]
pub struct ReadKey {
    /// The mode of the backups: `AES128`, `AES256`, `AES128GCM` or `AES256GCM`.
    #[schema(value_type = Option<Cipher>, inline, required)]
    pub mode: String,
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
        for (i, key) in self.read_keys.iter_mut().flatten().enumerate() {
            let path = &*below(path, &format!("read-keys[{i}]"));
            visit_secrets!(key, path, visit, key_secret = "key-secret");
        }
    }
}

/// What is wrong with a key has been noted.
struct BadKey;

impl EncryptionPolicy {
    pub(crate) fn settings(&self, check: &mut Check<'_>) -> Encryption {
        let mode: EncryptionMode = check.word("mode", self.mode.as_deref());
        let Self { key_file, key_env, key_secret, .. } = self.clone();
        let key = ReadKey { mode: mode.to_string(), key_file, key_env, key_secret };
        let main = match (mode.cipher(), key.source(check)) {
            (Some(cipher), Ok(source)) => cipher_key(cipher, source, check),
            // Whoever gives a key and no mode believes that the backup is encrypted.
            (None, Ok(Some(_))) if self.mode.is_none() => {
                check.problem("", "has a key but no mode: give a mode of encryption, or NONE");
                None
            }
            (None, Ok(_)) | (_, Err(BadKey)) => None,
        };
        let further = self.read_keys.iter().flatten().enumerate();
        let further =
            further.filter_map(|(i, key)| key.settings(&mut check.inside(&format!("read-keys[{i}]"))));
        Encryption { main, further: further.collect() }
    }
}

impl ReadKey {
    fn settings(&self, check: &mut Check<'_>) -> Option<CipherKey> {
        let cipher = check.valid("mode", self.mode.parse());
        let source = self.source(check).ok()?;
        cipher_key(cipher?, source, check)
    }

    fn source(&self, check: &mut Check<'_>) -> Result<Option<KeySource>, BadKey> {
        if let Some(path) = &self.key_file {
            check.filled("key-file", path);
        }
        if let Some(name) = &self.key_env {
            check.filled("key-env", name);
        }
        match (&self.key_file, &self.key_env, &self.key_secret) {
            (None, None, None) => Ok(None),
            (Some(path), None, None) => Ok(Some(KeySource::File(path.clone()))),
            (None, Some(name), None) => Ok(Some(KeySource::Env(name.clone()))),
            (None, None, Some(text)) if text.is_reference() => {
                let reference = check.valid("key-secret", text.expose().parse());
                reference.map(|reference| Some(KeySource::Secret(reference))).ok_or(BadKey)
            }
            (None, None, Some(_)) => {
                // It may be the key itself: it is not repeated.
                check.problem(
                    "key-secret",
                    "must be the key's place in the secret agent: secrets:RESOURCE:KEY",
                );
                Err(BadKey)
            }
            _ => {
                check.problem("", "has several keys: give one of key-file, key-env and key-secret");
                Err(BadKey)
            }
        }
    }
}

fn cipher_key(cipher: Cipher, source: Option<KeySource>, check: &mut Check<'_>) -> Option<CipherKey> {
    if source.is_none() {
        check.problem("", "needs the key: give one of key-file, key-env and key-secret");
    }
    source.map(|source| CipherKey { cipher, source })
}

impl TryFrom<EncryptionPolicy> for Encryption {
    type Error = Problems;

    fn try_from(policy: EncryptionPolicy) -> Result<Self, Problems> {
        Check::document("encryption", |check| policy.settings(check))
    }
}

impl From<CipherKey> for ReadKey {
    fn from(CipherKey { cipher, source }: CipherKey) -> Self {
        let mut key = Self { mode: cipher.to_string(), ..Self::default() };
        match source {
            KeySource::File(path) => key.key_file = Some(path),
            KeySource::Env(name) => key.key_env = Some(name),
            KeySource::Secret(reference) => key.key_secret = Some(reference.to_string().into()),
        }
        key
    }
}

impl From<Encryption> for EncryptionPolicy {
    fn from(Encryption { main, further }: Encryption) -> Self {
        let read_keys: Vec<_> = further.into_iter().map(ReadKey::from).collect();
        let read_keys = Some(read_keys).filter(|keys| !keys.is_empty());
        let Some(main) = main else {
            let mode = Some(EncryptionMode::None.to_string());
            return Self { mode, read_keys, ..Self::default() };
        };
        let ReadKey { mode, key_file, key_env, key_secret } = main.into();
        Self { mode: Some(mode), key_file, key_env, key_secret, read_keys }
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
        let key = |cipher, source| CipherKey { cipher, source };
        let file = key(Cipher::Aes128, KeySource::File("/etc/key.pem".to_owned()));
        let env = key(Cipher::Aes256Gcm, KeySource::Env("KEY".to_owned()));
        let secret = key(Cipher::Aes256, KeySource::Secret("secrets:r:k".parse().unwrap()));
        for (document, main, further) in [
            (r#"{"mode":"NONE"}"#, None, vec![]),
            (r#"{"mode":"AES128","key-file":"/etc/key.pem"}"#, Some(file.clone()), vec![]),
            (r#"{"mode":"AES256GCM","key-env":"KEY"}"#, Some(env.clone()), vec![]),
            (r#"{"mode":"AES256","key-secret":"secrets:r:k"}"#, Some(secret.clone()), vec![]),
            (
                r#"{"mode":"NONE","read-keys":[{"mode":"AES256GCM","key-env":"KEY"}]}"#,
                None,
                vec![env.clone()],
            ),
            (
                r#"{"mode":"AES256GCM","key-env":"KEY","read-keys":[{"mode":"AES128","key-file":"/etc/key.pem"},{"mode":"AES256","key-secret":"secrets:r:k"}]}"#,
                Some(env),
                vec![file, secret],
            ),
        ] {
            let encryption = Encryption { main, further };
            assert_eq!(read(document).unwrap(), encryption);
            assert_eq!(serde_json::to_string(&encryption).unwrap(), document);
        }
        assert_eq!(read("{}").unwrap(), Encryption::default());
        assert_eq!(read(r#"{"mode":"NONE","key-env":"A"}"#).unwrap(), Encryption::default());
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
                "encryption: has a key but no mode: give a mode of encryption, or NONE",
            ),
            (
                r#"{"mode":"AES512","key-env":"A"}"#.to_owned(),
                "encryption.mode: \"AES512\" is no encryption mode: it can be NONE, AES128, AES256, AES128GCM or AES256GCM",
            ),
            (
                r#"{"read-keys":[{"mode":"AES256","key-env":"A"},{"mode":"NONE","key-env":"A"}]}"#.to_owned(),
                "encryption.read-keys[1].mode: \"NONE\" is no mode of a key: it can be AES128, AES256, AES128GCM or AES256GCM",
            ),
            (
                r#"{"read-keys":[{"mode":"AES256"}]}"#.to_owned(),
                "encryption.read-keys[0]: needs the key: give one of key-file, key-env and key-secret",
            ),
        ] {
            assert_eq!(read(&document).unwrap_err().to_string(), message);
        }
        assert!(read(r#"{"key":"x"}"#).is_err());
    }

    /// Protects: a backup in the mode of any key can be read, and one that is not encrypted only where none is expected to
    /// be: it may stand in the place of one that was.
    #[test]
    fn modes_that_can_be_read() {
        let read_key = r#""read-keys":[{"mode":"AES256","key-env":"A"}]"#;
        for (document, modes, readable) in [
            (format!("{{{read_key}}}"), "NONE or AES256", ["NONE", "aes256"]),
            (
                format!(r#"{{"mode":"AES256GCM","key-env":"B",{read_key}}}"#),
                "AES256GCM or AES256",
                ["AES256GCM", "AES256"],
            ),
        ] {
            let encryption = read(&document).unwrap();
            assert_eq!(encryption.modes(), modes);
            for mode in ["NONE", "AES128", "AES256", "aes256", "AES128GCM", "AES256GCM"] {
                let is_readable = readable.iter().any(|other| mode.eq_ignore_ascii_case(other));
                assert_eq!(encryption.reads(mode), is_readable, "{document} {mode}");
            }
        }
    }

    /// Protects: references to keys in the Secret Agent are found wherever they are, so that what is shown holds no key.
    #[test]
    fn every_secret_is_masked() {
        let document =
            r#"{"mode":"NONE","key-secret":"k1","read-keys":[{"mode":"AES128","key-secret":"k2"}]}"#;
        let policy: EncryptionPolicy = serde_json::from_str(document).unwrap();
        let masked = serde_json::to_string(&policy.masked()).unwrap();
        assert_eq!(masked, document.replace("k1", "[secret]").replace("k2", "[secret]"));
    }
}
