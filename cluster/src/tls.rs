//! TLS to the nodes: what a user says of it, made into what the handshake needs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ALL_VERSIONS, CipherSuite, ClientConfig, ProtocolVersion, RootCertStore};
use zeroize::Zeroizing;

use crate::ClusterError;

/// How to speak TLS to a cluster. Files are PEM and are read at each [`Cluster::connect`](crate::Cluster::connect).
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// The name that a node's certificate must have when neither its seed nor the cluster says one; `None` for the
    /// name of its host.
    pub name: Option<String>,
    /// File with the certificates of the authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// Folder of such files. Without either the system's authorities are trusted.
    pub ca_path: Option<PathBuf>,
    /// Our own certificate, for clusters that ask for one.
    pub identity: Option<TlsIdentity>,
    /// The versions of TLS to speak, of 1.2 and 1.3; both when empty.
    pub protocols: Vec<ProtocolVersion>,
    /// The cipher suites to offer, best first; all that are safe when empty.
    pub cipher_suites: Vec<CipherSuite>,
}

/// Our certificate and its key.
#[derive(Clone)]
pub struct TlsIdentity {
    /// File with the certificate, and behind it those of the authorities between it and the root.
    pub cert_file: PathBuf,
    /// File with its private key (PKCS#8, PKCS#1 or SEC1).
    pub key_file: PathBuf,
    /// What the key is encrypted with (PKCS#8 only).
    pub key_password: Option<Zeroizing<String>>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .field("key_password", &self.key_password.as_ref().map(|_| "[secret]"))
            .finish()
    }
}

impl TlsOptions {
    /// Reads the files and makes the configuration of the handshake.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, ClusterError> {
        let mut provider = ring::default_provider();
        if !self.cipher_suites.is_empty() {
            let find = |wanted: &CipherSuite| {
                let suite = provider.cipher_suites.iter().find(|suite| suite.suite() == *wanted);
                suite
                    .copied()
                    .ok_or_else(|| ClusterError::Tls(format!("{wanted:?} is no cipher suite that is safe")))
            };
            provider.cipher_suites = self.cipher_suites.iter().map(find).collect::<Result<_, _>>()?;
        }
        let version = |wanted: &ProtocolVersion| {
            let version = ALL_VERSIONS.iter().find(|version| version.version == *wanted);
            version
                .copied()
                .ok_or_else(|| ClusterError::Tls(format!("{wanted:?} is not spoken, only 1.2 and 1.3")))
        };
        let versions = match &self.protocols[..] {
            [] => ALL_VERSIONS.to_vec(),
            wanted => wanted.iter().map(version).collect::<Result<_, _>>()?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&versions)
            .map_err(|e| ClusterError::Tls(format!("the cipher suites do not fit the protocols: {e}")))?
            .with_root_certificates(self.roots()?);
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some(identity) => {
                let certificates = certificates(&identity.cert_file)?;
                let key = identity.key()?;
                builder.with_client_auth_cert(certificates, key).map_err(|e| {
                    unusable(
                        &identity.key_file,
                        &format!("not the key of {}: {e}", identity.cert_file.display()),
                    )
                })
            }
        }
    }

    /// The authorities to trust.
    fn roots(&self) -> Result<RootCertStore, ClusterError> {
        let mut roots = RootCertStore::empty();
        let mut add = |file: &Path| {
            let all = certificates(file)?;
            all.into_iter().try_for_each(|one| roots.add(one).map_err(|e| unusable(file, &e.to_string())))
        };
        if let Some(file) = &self.ca_file {
            add(file)?;
        }
        if let Some(folder) = &self.ca_path {
            let entries = std::fs::read_dir(folder).map_err(|e| unusable(folder, &e.to_string()))?;
            for entry in entries {
                let file = entry.map_err(|e| unusable(folder, &e.to_string()))?.path();
                if file.is_file() {
                    add(&file)?;
                }
            }
        }
        if self.ca_file.is_none() && self.ca_path.is_none() {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            return Err(ClusterError::Tls(
                "no certificate of an authority to trust: give ca-file".to_owned(),
            ));
        }
        Ok(roots)
    }
}

impl TlsIdentity {
    fn key(&self) -> Result<PrivateKeyDer<'static>, ClusterError> {
        const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
        const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
        let bad = |what: &str| unusable(&self.key_file, what);
        let pem = std::fs::read_to_string(&self.key_file).map(Zeroizing::new);
        let pem = pem.map_err(|e| bad(&e.to_string()))?;
        if let Some(start) = pem.find(BEGIN) {
            let end = pem.find(END).ok_or_else(|| bad("the key has no end"))? + END.len();
            let password =
                self.key_password.as_ref().ok_or_else(|| bad("the key is encrypted: give its password"))?;
            let (_, sealed) = SecretDocument::from_pem(&pem[start..end]).map_err(|e| bad(&e.to_string()))?;
            let sealed =
                EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes()).map_err(|e| bad(&e.to_string()))?;
            let key =
                sealed.decrypt(password.as_bytes()).map_err(|e| bad(&format!("wrong password, or {e}")))?;
            return Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into());
        }
        if pem.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(bad(
                "its encryption is of an old kind: convert it with openssl pkcs8 -topk8 -v2 aes256",
            ));
        }
        if self.key_password.is_some() {
            return Err(bad("the key is not encrypted, and a password is given"));
        }
        PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| bad(&format!("no private key in PEM: {e}")))
    }
}

/// The certificates in a file, at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ClusterError> {
    let pem = std::fs::read(file).map_err(|e| unusable(file, &e.to_string()))?;
    let all = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|e| unusable(file, &e.to_string()))?;
    if all.is_empty() {
        return Err(unusable(file, "no certificate in PEM"));
    }
    Ok(all)
}

fn unusable(file: &Path, what: &str) -> ClusterError {
    ClusterError::Tls(format!("{}: {what}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_spoken_is_refused() {
        let refusal = |options: TlsOptions| options.client_config().unwrap_err().to_string();
        let of = |version| TlsOptions { protocols: vec![version], ..TlsOptions::default() };
        assert!(refusal(of(ProtocolVersion::TLSv1_1)).contains("only 1.2 and 1.3"));
        let cbc = vec![CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA];
        assert!(refusal(TlsOptions { cipher_suites: cbc, ..TlsOptions::default() }).contains("CBC"));
        let gcm = vec![CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
        let options = TlsOptions { cipher_suites: gcm, ..of(ProtocolVersion::TLSv1_3) };
        assert!(refusal(options).contains("do not fit the protocols"));
    }

    #[test]
    fn a_file_that_does_not_hold_what_it_should_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let refusal = |options: &TlsOptions| options.client_config().unwrap_err().to_string();
        let options = TlsOptions { ca_file: Some(file.clone()), ..TlsOptions::default() };
        assert!(refusal(&options).contains("ca.pem: No such file"), "{}", refusal(&options));
        std::fs::write(&file, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        assert!(refusal(&options).contains("ca.pem: no certificate in PEM"), "{}", refusal(&options));
    }
}
