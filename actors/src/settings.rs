//! From what is configured to what the parts below take.

use abs_asb::EncryptionKey;
use abs_cluster::{ConnectOptions, Credentials, ProtocolVersion, Seed, TlsIdentity, TlsOptions};
use abs_config::{
    Cipher, ClusterSettings, CredentialSettings, KeySecrets, RoutineSettings, Scope, Secret, SecretError,
    TlsSettings,
};
use abs_engine::{KeyRing, PartitionChoice};

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

/// A key, fetched.
async fn key((cipher, secret): &(Cipher, Secret)) -> Result<EncryptionKey, KeyError> {
    let cipher = match cipher {
        Cipher::Aes128 => abs_asb::Cipher::Aes128,
        Cipher::Aes256 => abs_asb::Cipher::Aes256,
        Cipher::Aes128Gcm => abs_asb::Cipher::Aes128Gcm,
        Cipher::Aes256Gcm => abs_asb::Cipher::Aes256Gcm,
    };
    Ok(EncryptionKey::from_pem_or_base64(&secret.resolve().await?, cipher)?)
}

/// The key that files are encrypted with; `None` when they are not.
pub(crate) async fn main_key(keys: &KeySecrets) -> Result<Option<EncryptionKey>, KeyError> {
    match &keys.main {
        Some(main) => key(main).await.map(Some),
        None => Ok(None),
    }
}

/// The keys that backups are read with.
pub(crate) async fn key_ring(keys: &KeySecrets) -> Result<KeyRing, KeyError> {
    let mut ring = KeyRing::from(main_key(keys).await?);
    for further in &keys.further {
        ring.further.push(key(further).await?);
    }
    Ok(ring)
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
