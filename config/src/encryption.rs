//! How the files of a backup are encrypted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::text::string_in_documents;
use crate::{InvalidValue, Problems};

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
    /// Under this keyword in the Secret Agent.
    Secret(String),
}

/// A mode of encryption. Written as documents and metadata write it, `NONE`, `AES128` or `AES256`; read in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum EncryptionMode {
    /// No encryption.
    #[default]
    None,
    /// AES with a key of 128 bits.
    Aes128,
    /// AES with a key of 256 bits.
    Aes256,
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

impl FromStr for EncryptionMode {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.to_ascii_uppercase().as_str() {
            "NONE" => Ok(Self::None),
            "AES128" => Ok(Self::Aes128),
            "AES256" => Ok(Self::Aes256),
            _ => Err(InvalidValue::new(text, "is no encryption mode: it can be NONE, AES128 or AES256")),
        }
    }
}

impl fmt::Display for EncryptionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "NONE",
            Self::Aes128 => "AES128",
            Self::Aes256 => "AES256",
        })
    }
}

string_in_documents!(EncryptionMode);

/// The document `dto.EncryptionPolicy`. Unless its mode is `NONE`, exactly one of the three keys is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EncryptionPolicy {
    /// `NONE` (the default), `AES128` or `AES256`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The path of the file that holds the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// The name of the environment variable that holds the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// The keyword of the key in the Secret Agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_secret: Option<String>,
}

impl EncryptionPolicy {
    pub(crate) fn settings(&self, check: &mut Check<'_>) -> Encryption {
        let mode = self.mode.as_deref().and_then(|mode| check.valid("mode", mode.parse::<EncryptionMode>()));
        let mut keys: Vec<KeySource> = Vec::new();
        let given = [
            ("key-file", &self.key_file, KeySource::File as fn(String) -> KeySource),
            ("key-env", &self.key_env, KeySource::Env),
            ("key-secret", &self.key_secret, KeySource::Secret),
        ];
        for (name, value, source) in given {
            let Some(value) = value else { continue };
            if value.is_empty() {
                check.problem(name, "must not be empty");
            }
            keys.push(source(value.clone()));
        }
        let key = keys.pop();
        if !keys.is_empty() {
            check.problem("", "has several keys: give one of key-file, key-env and key-secret");
        }
        match (mode.unwrap_or_default().cipher(), key) {
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
            Encryption::On(_, KeySource::Secret(keyword)) => policy.key_secret = Some(keyword),
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
                Encryption::On(Cipher::Aes256, KeySource::Secret("secrets:r:k".into())),
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
