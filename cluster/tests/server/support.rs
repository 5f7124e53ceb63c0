//! A server with records, clusters connected to it, and certificates for both.

use std::path::PathBuf;
use std::time::Duration;

use abs_cluster::{
    BatchFlags, BatchMessage, Cluster, ClusterError, ConnectOptions, Credentials, Exists, Generation, Node,
    PARTITIONS, PartitionCursor, PartitionMap, ResultCode, RowHead, Scan, ScanEvent, ScanRequest, Seed,
    TTL_NEVER, TlsOptions,
};
use abs_devserver::{Builder, DevServer};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use zeroize::Zeroizing;

pub const NAMESPACE: &str = "test";
pub const RECORDS: u32 = 500;

pub fn builder() -> Builder {
    DevServer::builder().nodes(2).namespace(NAMESPACE, 64 << 20)
}

pub fn options(server: &DevServer) -> ConnectOptions {
    let seed = server.addresses()[0];
    let seeds = vec![Seed::new(seed.ip().to_string(), seed.port())];
    ConnectOptions { timeout: Duration::from_secs(5), ..ConnectOptions::new(seeds) }
}

pub fn password(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

pub fn internal(user: &str, text: &str) -> Credentials {
    Credentials::Internal { user: user.to_owned(), password: password(text) }
}

pub fn digest(number: u32) -> [u8; 20] {
    let mut digest = [7; 20];
    digest[..2].copy_from_slice(&((number * 37) as u16).to_le_bytes());
    digest[16..].copy_from_slice(&number.to_be_bytes());
    digest
}

/// Writes [`RECORDS`] records over connections of our own.
pub async fn fill(cluster: &Cluster) {
    let map = cluster.partition_map(NAMESPACE).await.unwrap();
    for (index, node) in map.nodes().iter().enumerate() {
        let mut batch = BatchMessage::new(NAMESPACE, BatchFlags::default());
        for number in
            (0..RECORDS).filter(|n| map.owner(abs_cluster::partition_of(&digest(*n))) == Some(index))
        {
            let (exists, generation, ttl) = (Exists::Update, Generation::Any, TTL_NEVER);
            let mut row = batch.row(&RowHead { digest: digest(number), exists, generation, ttl });
            let bytes = |bytes: &'static [u8]| {
                move |out: &mut Vec<u8>| {
                    out.extend_from_slice(bytes);
                    Ok::<_, ()>(())
                }
            };
            row.bin(1, bytes(b"n"), bytes(&[0; 8])).unwrap();
            row.finish();
        }
        let mut connection = cluster.connection(node).await.unwrap();
        let mut results = Vec::new();
        connection.write_batch(&mut batch, &mut results).await.unwrap();
        assert!(results.iter().all(|result| *result == Some(ResultCode::OK)));
        cluster.release(node, connection);
    }
}

/// Asks a node for partitions: the number of records, and of partitions that it does not serve.
pub async fn scan(cluster: &Cluster, node: &Node, partitions: &[u16]) -> Result<(u32, u32), ClusterError> {
    let request = ScanRequest {
        namespace: NAMESPACE.to_owned(),
        socket_timeout: Duration::from_secs(5),
        ..ScanRequest::default()
    };
    let cursors: Vec<PartitionCursor> = partitions.iter().copied().map(Into::into).collect();
    let connection = cluster.connection(node).await?;
    let mut scan = Scan::start(connection, &request, &cursors).await?;
    let (mut records, mut refused) = (0, 0);
    loop {
        for event in scan.next().await? {
            match event? {
                ScanEvent::Record(_) => records += 1,
                ScanEvent::PartitionDone { code, .. } => refused += u32::from(code != ResultCode::OK),
                ScanEvent::Last(code) => {
                    assert_eq!(code, ResultCode::OK);
                    cluster.release(node, scan.into_connection());
                    return Ok((records, refused));
                }
            }
        }
    }
}

/// Counts the records as a map says where they are.
pub async fn count(cluster: &Cluster, map: &PartitionMap) -> u32 {
    let mut sum = 0;
    for (index, node) in map.nodes().iter().enumerate() {
        let partitions: Vec<u16> = (0..PARTITIONS).filter(|p| map.owner(*p) == Some(index)).collect();
        if !partitions.is_empty() {
            let (records, refused) = scan(cluster, node, &partitions).await.unwrap();
            assert_eq!(refused, 0);
            sum += records;
        }
    }
    sum
}

/// That records go out and come back.
pub async fn works(cluster: &Cluster) {
    fill(cluster).await;
    let map = cluster.partition_map(NAMESPACE).await.unwrap();
    assert_eq!(count(cluster, &map).await, RECORDS);
    assert_eq!(cluster.nodes().len(), 2);
    cluster.check_reachable().await.unwrap();
}

/// An authority, and what it signed.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: String,
    folder: tempfile::TempDir,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), certificate, folder: tempfile::tempdir().unwrap() }
    }

    /// A certificate with this name, as host and as subject, and its key.
    pub fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "tests");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// A file of this authority's folder.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Options that trust this authority.
    pub fn options(&self, name: Option<&str>) -> TlsOptions {
        TlsOptions {
            name: name.map(str::to_owned),
            ca_file: Some(self.file("ca.pem", &self.certificate)),
            ..TlsOptions::default()
        }
    }
}

/// What a connect fails with: it must be one line, and it must not be worth another try.
pub async fn refusal(options: ConnectOptions) -> String {
    let error = Cluster::connect(options).await.unwrap_err();
    let text = error.to_string();
    assert!(!error.is_transient(), "{text}");
    assert!(!text.contains('\n'), "{text}");
    text
}
