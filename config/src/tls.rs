//! TLS to a cluster.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::crypto::ring::ALL_CIPHER_SUITES;
use tokio_rustls::rustls::{CipherSuite, SupportedCipherSuite};
use utoipa::ToSchema;

use crate::check::Check;
use crate::secret::MASK;
use crate::{InvalidValue, Secret, SecretText};

/// The document `dto.TLS`. Which keys are given does not matter: if it is there, the cluster is talked to over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::TLS)]
pub struct Tls {
    /// The name in the nodes' certificates, for nodes without a `tls-name`; their host's name by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "example.com")]
    pub name: Option<String>,
    /// The certificates to trust, in a PEM file; those of the system if there is neither `ca-file` nor `ca-path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/path/to/ca.pem")]
    pub ca_file: Option<String>,
    /// The certificates to trust, as the PEM files of a folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/path/to/ca")]
    pub ca_path: Option<String>,
    /// The certificate to show to the cluster, in a PEM file; goes with `key-file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/path/to/cert.pem")]
    pub cert_file: Option<String>,
    /// The key of that certificate, in a PEM file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/path/to/key.pem")]
    pub key_file: Option<String>,
    /// The password of an encrypted `key-file`: `env:VARIABLE`, `file:PATH` or the password itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "file:/path/to/password")]
    pub key_file_password: Option<SecretText>,
    /// The protocols to use, as Apache's `SSLProtocol` writes them: `TLSv1.2`, `TLSv1.3` or `all`, also with `+` and `-`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = "TLSv1.2")]
    pub protocols: Option<String>,
    /// The cipher suites to use, by their OpenSSL or IANA names, separated by colons; all secure ones by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "ECDHE-ECDSA-AES256-GCM-SHA384")]
    pub cipher_suite: Option<String>,
}

/// How to talk to a cluster over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The name in the nodes' certificates; their host's name if none.
    pub name: Option<String>,
    /// A PEM file of certificates to trust.
    pub ca_file: Option<PathBuf>,
    /// A folder of PEM files of certificates to trust. The system's are trusted if there is neither.
    pub ca_path: Option<PathBuf>,
    /// Who we are to the cluster.
    pub identity: Option<TlsIdentity>,
    /// The versions of TLS to use.
    pub protocols: TlsProtocols,
    /// The cipher suites to use; all that are secure if empty.
    pub cipher_suites: Vec<CipherSuite>,
}

/// A certificate and its key, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsIdentity {
    /// The file of the certificate.
    pub cert_file: PathBuf,
    /// The file of the key.
    pub key_file: PathBuf,
    /// The password of the key, if it is encrypted.
    pub key_password: Option<Secret>,
}

/// Versions of TLS, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsProtocols {
    /// TLS 1.2.
    pub v1_2: bool,
    /// TLS 1.3.
    pub v1_3: bool,
}

impl Default for TlsProtocols {
    /// TLS 1.2 only, as the API has it.
    fn default() -> Self {
        Self { v1_2: true, v1_3: false }
    }
}

impl TlsProtocols {
    /// Whether one of them has the suite.
    fn have(self, suite: CipherSuite) -> bool {
        let of_1_3 = suite.as_str().is_some_and(|name| name.starts_with("TLS13_"));
        if of_1_3 { self.v1_3 } else { self.v1_2 }
    }
}

impl std::str::FromStr for TlsProtocols {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let mut protocols = Self { v1_2: false, v1_3: false };
        for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
            let (name, on) = match word.strip_prefix('-') {
                Some(name) => (name, false),
                None => (word.strip_prefix('+').unwrap_or(word), true),
            };
            match name.to_ascii_lowercase().as_str() {
                "all" => protocols = Self { v1_2: on, v1_3: on },
                "tlsv1.2" => protocols.v1_2 = on,
                "tlsv1.3" => protocols.v1_3 = on,
                // To leave out what is never used is no wish that fails.
                "sslv3" | "tlsv1" | "tlsv1.1" if !on => {}
                _ => {
                    return Err(InvalidValue::new(
                        word,
                        "is no protocol that is used: it can be TLSv1.2, TLSv1.3 or all",
                    ));
                }
            }
        }
        if protocols == (Self { v1_2: false, v1_3: false }) {
            return Err(InvalidValue::new(text, "leaves no protocol: name TLSv1.2, TLSv1.3 or all"));
        }
        Ok(protocols)
    }
}

impl Tls {
    pub(crate) fn settings(&self, check: &mut Check<'_>) -> TlsSettings {
        let file = |key: &str, file: &Option<String>, check: &mut Check<'_>| {
            file.as_ref().inspect(|file| check.filled(key, file)).map(PathBuf::from)
        };
        if let Some(name) = &self.name {
            check.filled("name", name);
        }
        let protocols = self.protocols.as_deref().and_then(|text| check.valid("protocols", text.parse()));
        let protocols: TlsProtocols = protocols.unwrap_or_default();
        let suites = self.cipher_suite.as_deref();
        let suites =
            suites.and_then(|text| check.valid("cipher-suite", cipher_suites(text))).unwrap_or_default();
        if !suites.is_empty() && !suites.iter().any(|suite| protocols.have(*suite)) {
            check.problem(
                "cipher-suite",
                "names none for the protocols used: name others, or other protocols",
            );
        }
        TlsSettings {
            name: self.name.clone(),
            ca_file: file("ca-file", &self.ca_file, check),
            ca_path: file("ca-path", &self.ca_path, check),
            identity: self.identity(check),
            protocols,
            cipher_suites: suites,
        }
    }

    fn identity(&self, check: &mut Check<'_>) -> Option<TlsIdentity> {
        match (&self.cert_file, &self.key_file) {
            (Some(cert_file), Some(key_file)) => {
                check.filled("cert-file", cert_file);
                check.filled("key-file", key_file);
                Some(TlsIdentity {
                    cert_file: cert_file.into(),
                    key_file: key_file.into(),
                    key_password: self.key_file_password.as_ref().map(|text| key_password(text, check)),
                })
            }
            (cert_file, key_file) => {
                if cert_file.is_some() {
                    check.problem("key-file", "is required with cert-file");
                }
                if key_file.is_some() {
                    check.problem("cert-file", "is required with key-file");
                }
                if key_file.is_none() && self.key_file_password.is_some() {
                    check.problem("key-file-password", "is given without key-file");
                }
                None
            }
        }
    }
}

fn key_password(text: &SecretText, check: &mut Check<'_>) -> Secret {
    let key = "key-file-password";
    if text.expose() == MASK {
        check.problem(key, format_args!("reads {MASK}: give the secret"));
    }
    if let Some(name) = text.expose().strip_prefix("env:") {
        check.filled(key, name);
        return Secret::Env(name.to_owned());
    }
    if let Some(path) = text.expose().strip_prefix("file:") {
        check.filled(key, path);
        return Secret::File(path.into());
    }
    Secret::Plain(text.expose().to_owned().into())
}

/// The suites that `text` names.
fn cipher_suites(text: &str) -> Result<Vec<CipherSuite>, InvalidValue> {
    let known: Vec<CipherSuite> = ALL_CIPHER_SUITES.iter().map(SupportedCipherSuite::suite).collect();
    let mut suites = Vec::new();
    for word in text.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
        let Some(suite) = known.iter().find(|suite| same_suite(word, **suite)) else {
            let names: Vec<String> = known.iter().map(|suite| iana_name(*suite)).collect();
            let reason = format!("is no cipher suite that is used: it can be {}", names.join(", "));
            return Err(InvalidValue::new(word, reason));
        };
        suites.push(*suite);
    }
    if suites.is_empty() {
        return Err(InvalidValue::new(text, "names no cipher suite"));
    }
    Ok(suites)
}

/// The name in the registry of IANA: `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`.
fn iana_name(suite: CipherSuite) -> String {
    suite.as_str().map_or_else(String::new, |name| name.replace("TLS13_", "TLS_"))
}

/// Whether `word` names `suite` as IANA or as OpenSSL (`ECDHE-RSA-AES128-GCM-SHA256`) does.
fn same_suite(word: &str, suite: CipherSuite) -> bool {
    let bare = |name: &str| {
        let name = name.to_ascii_uppercase().replace(['_', '-'], "");
        name.trim_start_matches("TLS").replace("WITH", "").replace("POLY1305SHA256", "POLY1305")
    };
    bare(word) == bare(&iana_name(suite))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::Problems;

    fn settings(document: &str) -> Result<TlsSettings, Problems> {
        let tls: Tls = serde_json::from_str(document).unwrap();
        Check::document("tls", |check| tls.settings(check))
    }

    #[test]
    fn protocols_are_added_and_taken_away() {
        for (text, v1_2, v1_3) in [
            ("TLSv1.2", true, false),
            ("tlsv1.3", false, true),
            ("all", true, true),
            ("-all +TLSv1.3", false, true),
            ("all,-TLSv1.2,-SSLv3", false, true),
            ("TLSv1.2 TLSv1.3", true, true),
        ] {
            assert_eq!(text.parse::<TlsProtocols>().unwrap(), TlsProtocols { v1_2, v1_3 }, "{text}");
        }
        for (text, message) in [
            ("TLSv1.1", "\"TLSv1.1\" is no protocol that is used: it can be TLSv1.2, TLSv1.3 or all"),
            ("all -all", "\"all -all\" leaves no protocol: name TLSv1.2, TLSv1.3 or all"),
            ("", "\"\" leaves no protocol: name TLSv1.2, TLSv1.3 or all"),
        ] {
            assert_eq!(text.parse::<TlsProtocols>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn cipher_suites_have_two_names() {
        let names = "ECDHE-RSA-AES128-GCM-SHA256:TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:\
                     TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
        let suites = cipher_suites(names).unwrap();
        let expected = [
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        assert_eq!(suites, expected);
        let error = cipher_suites("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA").unwrap_err().to_string();
        let start = "\"TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA\" is no cipher suite that is used: it can be TLS_AES_256_GCM_SHA384";
        assert!(error.starts_with(start), "{error}");
    }

    #[test]
    fn a_certificate_and_its_key_go_together() {
        let tls = settings(r#"{"cert-file":"c","key-file":"k","key-file-password":"env:P"}"#).unwrap();
        assert_eq!(tls.identity.unwrap().key_password, Some(Secret::Env("P".into())));
        let tls = settings(r#"{"cert-file":"c","key-file":"k","key-file-password":"file:/p"}"#).unwrap();
        assert_eq!(tls.identity.unwrap().key_password, Some(Secret::File("/p".into())));
        let tls = settings(r#"{"cipher-suite":"TLS_AES_256_GCM_SHA384","protocols":"TLSv1.3"}"#).unwrap();
        assert_eq!(tls.cipher_suites, [CipherSuite::TLS13_AES_256_GCM_SHA384]);
        assert_eq!(settings("{}").unwrap().protocols, TlsProtocols { v1_2: true, v1_3: false });
        for (document, message) in [
            (r#"{"cert-file":"c"}"#, "tls.key-file: is required with cert-file"),
            (r#"{"key-file":"k"}"#, "tls.cert-file: is required with key-file"),
            (r#"{"key-file-password":"p"}"#, "tls.key-file-password: is given without key-file"),
            (
                r#"{"cipher-suite":"TLS_AES_256_GCM_SHA384"}"#,
                "tls.cipher-suite: names none for the protocols used: name others, or other protocols",
            ),
            (r#"{"ca-file":"","name":""}"#, "tls.name: must not be empty; tls.ca-file: must not be empty"),
        ] {
            assert_eq!(settings(document).unwrap_err().to_string(), message);
        }
    }
}
