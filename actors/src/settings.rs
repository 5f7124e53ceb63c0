//! From what is configured to what the parts below take.

use abs_asb::{EncryptionKey, KeySize};
use abs_cluster::{ConnectOptions, Credentials, ProtocolVersion, Seed, TlsIdentity, TlsOptions};
use abs_config::{
    Cipher, ClusterSettings, CredentialSettings, Encryption, RoutineSettings, Scope, Secret, SecretError,
    TlsSettings,
};
use abs_engine::PartitionChoice;

use crate::run_error::KeyError;

/// How to connect to a cluster, its secrets fetched.
pub(crate) async fn connect_options(settings: &ClusterSettings) -> Result<ConnectOptions, SecretError> {
    let seed = |seed: &abs_config::SeedAddress| Seed {
        host: seed.host.clone(),
        port: seed.port,
        tls_name: seed.tls_name.clone(),
    };
    let credentials = match &settings.credentials {
        None => None,
        Some(CredentialSettings::Internal { user, password }) => {
            Some(Credentials::Internal { user: user.clone(), password: password.resolve().await? })
        }
        Some(CredentialSettings::External { user, password }) => {
            Some(Credentials::External { user: user.clone(), password: password.resolve().await? })
        }
        Some(CredentialSettings::Pki) => Some(Credentials::Pki),
    };
    let tls = match &settings.tls {
        None => None,
        Some(settings) => Some(tls_options(settings).await?),
    };
    Ok(ConnectOptions {
        timeout: settings.timeout,
        use_services_alternate: settings.use_services_alternate,
        credentials,
        tls,
        ..ConnectOptions::new(settings.seeds.iter().map(seed).collect())
    })
}

async fn tls_options(settings: &TlsSettings) -> Result<TlsOptions, SecretError> {
    let identity = match &settings.identity {
        None => None,
        Some(identity) => Some(TlsIdentity {
            cert_file: identity.cert_file.clone(),
            key_file: identity.key_file.clone(),
            key_password: match &identity.key_password {
                Some(password) => Some(password.resolve().await?),
                None => None,
            },
        }),
    };
    let versions = [
        (settings.protocols.v1_2, ProtocolVersion::TLSv1_2),
        (settings.protocols.v1_3, ProtocolVersion::TLSv1_3),
    ];
    Ok(TlsOptions {
        name: settings.name.clone(),
        ca_file: settings.ca_file.clone(),
        ca_path: settings.ca_path.clone(),
        identity,
        protocols: versions.into_iter().filter(|(on, _)| *on).map(|(_, version)| version).collect(),
        cipher_suites: settings.cipher_suites.clone(),
    })
}

/// The key that files are encrypted with; `None` when they are not.
pub(crate) async fn key(
    encryption: &Encryption,
    secret: Option<&Secret>,
) -> Result<Option<EncryptionKey>, KeyError> {
    let Encryption::On(cipher, _) = encryption else { return Ok(None) };
    let text = secret.ok_or(KeyError::Missing)?.resolve().await?;
    let size = match cipher {
        Cipher::Aes128 => KeySize::Aes128,
        Cipher::Aes256 => KeySize::Aes256,
    };
    Ok(Some(EncryptionKey::from_pem_or_base64(&text, size)?))
}

/// Which partitions a routine backs up.
pub(crate) fn partitions(routine: &RoutineSettings) -> PartitionChoice {
    match &routine.scope {
        Scope::All => PartitionChoice::All,
        Scope::Partitions(filter) => PartitionChoice::Partitions(filter.iter().collect()),
        Scope::Nodes(nodes) => PartitionChoice::Nodes(nodes.clone()),
        Scope::Racks(racks) => PartitionChoice::Racks(racks.clone()),
    }
}
