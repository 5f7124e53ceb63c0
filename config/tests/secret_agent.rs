//! A little Secret Agent that speaks the protocol, and what our side makes of its answers.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use abs_config::{Secret, SecretAgent, SecretAgentSettings, from_json};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

const MAGIC: [u8; 4] = [0x51, 0xde, 0xc1, 0xcc];

/// Reads one request and answers it: `RESOURCE/KEY` is the secret of that place, except for some keys.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[..4], MAGIC);
    let mut body = vec![0; u32::from_be_bytes(head[4..].try_into().unwrap()) as usize];
    stream.read_exact(&mut body).await.unwrap();
    let request: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(request.as_object().unwrap().len(), 2);
    let place =
        format!("{}/{}", request["Resource"].as_str().unwrap(), request["SecretKey"].as_str().unwrap());
    let (magic, answer) = match place.as_str() {
        "r/unknown" => (MAGIC, json!({"Error": "no such secret"}).to_string()),
        "r/base64" => (MAGIC, json!({"SecretValue": "aHVudGVyMg=="}).to_string()),
        "r/nothing" => (MAGIC, "{}".to_owned()),
        "r/garbage" => (MAGIC, "garbage".to_owned()),
        "r/magic" => ([0; 4], json!({"SecretValue": "x"}).to_string()),
        "r/long" => (MAGIC, "x".repeat((1 << 20) + 1)),
        "r/late" => return tokio::time::sleep(Duration::from_mins(1)).await,
        _ => (MAGIC, json!({"SecretValue": place}).to_string()),
    };
    stream.write_all(&magic).await.unwrap();
    stream.write_all(&(answer.len() as u32).to_be_bytes()).await.unwrap();
    // Our side hangs up on an answer that is too long.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn tcp_agent(tls: Option<TlsAcceptor>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    None => serve(stream).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream).await;
                        }
                    }
                }
            });
        }
    });
    port
}

fn settings(document: &Value) -> Arc<SecretAgentSettings> {
    let agent: SecretAgent = from_json(document.to_string().as_bytes()).unwrap();
    Arc::new(agent.check("agent").unwrap())
}

async fn ask(agent: &Arc<SecretAgentSettings>, key: &str) -> Result<String, String> {
    let secret = Secret::Agent(Arc::clone(agent), format!("secrets:r:{key}").parse().unwrap());
    secret.resolve().await.map(|secret| secret.to_string()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn secrets_are_asked_over_tcp() {
    let port = tcp_agent(None).await;
    let document = json!({"connection-type": "TCP", "address": "127.0.0.1", "port": port});
    let agent = settings(&document);
    assert_eq!(ask(&agent, "password").await.unwrap(), "r/password");
    for (key, reason) in [
        ("unknown", "it answers: no such secret"),
        ("nothing", "its answer is without SecretValue"),
        ("garbage", "its answer is no JSON object of an answer"),
        ("magic", "its answer is not that of a secret agent: its magic number is wrong"),
        ("long", "its answer is longer than a mebibyte"),
    ] {
        let expected = format!("asking the secret agent at 127.0.0.1:{port} for r:{key}: {reason}");
        assert_eq!(ask(&agent, key).await.unwrap_err(), expected);
    }

    let mut base64 = document.clone();
    base64["is-base64"] = true.into();
    assert_eq!(ask(&settings(&base64), "base64").await.unwrap(), "hunter2");
    let error = ask(&settings(&base64), "!").await.unwrap_err();
    assert!(error.ends_with("its answer is not base64, though is-base64 says so"), "{error}");

    let mut hasty = document;
    hasty["timeout"] = 50.into();
    let error = ask(&settings(&hasty), "late").await.unwrap_err();
    assert!(error.ends_with("for r:late: no answer in 50 ms"), "{error}");
}

#[tokio::test]
async fn secrets_are_asked_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    let agent = settings(&json!({"connection-type": "unix", "address": path}));
    let error = ask(&agent, "password").await.unwrap_err();
    assert!(
        error.starts_with(&format!("asking the secret agent at {} for r:password: ", path.display())),
        "{error}"
    );

    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move { serve(listener.accept().await.unwrap().0).await });
    assert_eq!(ask(&agent, "password").await.unwrap(), "r/password");
}

/// An authority, and a certificate of it for `name`, each in files: `{name}.pem`, `{name}.key`.
fn certify(folder: &Path, authority: &CertifiedIssuer<'_, KeyPair>, name: &str) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn secrets_are_asked_over_tls_with_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(file("ca.pem"), authority.pem()).unwrap();
    certify(folder.path(), &authority, "agent.example.com");
    certify(folder.path(), &authority, "client.example.com");

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(file("agent.example.com.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(file("agent.example.com.key")).unwrap(),
        )
        .unwrap();
    let port = tcp_agent(Some(TlsAcceptor::from(Arc::new(server)))).await;

    let document = json!({
        "connection-type": "tcp", "address": "127.0.0.1", "port": port, "name": "agent.example.com",
        "ca-file": file("ca.pem"), "cert-file": file("client.example.com.pem"), "key-file": file("client.example.com.key"),
    });
    assert_eq!(ask(&settings(&document), "password").await.unwrap(), "r/password");

    let without = |keys: &[&str]| {
        let mut document = document.clone();
        for key in keys {
            document[*key] = Value::Null;
        }
        settings(&document)
    };
    let error = ask(&without(&["name"]), "password").await.unwrap_err();
    assert!(error.contains("certificate not valid for name"), "{error}");
    assert!(
        ask(&without(&["cert-file", "key-file"]), "password").await.is_err(),
        "the agent asks for a certificate"
    );
    std::fs::write(file("ca.pem"), "no certificate").unwrap();
    let error = ask(&settings(&document), "password").await.unwrap_err();
    let expected = format!("reading {}: it holds no certificate", file("ca.pem").display());
    assert!(error.ends_with(&expected), "{error}");
}

#[test]
fn what_is_wrong_with_an_agent_is_told() {
    for (document, message) in [
        (
            json!({"connection-type": "tcp", "address": ""}),
            "a.address: must not be empty; a.port: is required for connection-type tcp",
        ),
        (
            json!({"connection-type": "unix", "address": "/a", "port": 1, "ca-file": "c"}),
            "a.port: is for connection-type tcp: leave it out; a.ca-file: is for connection-type tcp: leave it out",
        ),
        (
            json!({"connection-type": "udp", "address": "h", "port": 70000, "timeout": 0}),
            "a.connection-type: \"udp\" is no connection type: it can be tcp or unix; a.port: must be at most 65535, not \
             70000; a.timeout: must be at least 1, not 0",
        ),
        (
            json!({"connection-type": "tcp", "address": "h", "port": 1, "cert-file": "c"}),
            "a.ca-file: is required for TLS: give the certificates to trust; a.key-file: is required with cert-file",
        ),
        (
            json!({"connection-type": "tcp", "address": "h", "port": 1, "ca-file": "c", "name": "a b"}),
            "a.name: \"a b\" is neither the name of a host nor an IP address",
        ),
    ] {
        let agent: SecretAgent = from_json(document.to_string().as_bytes()).unwrap();
        assert_eq!(agent.check("a").unwrap_err().to_string(), message);
    }
}
