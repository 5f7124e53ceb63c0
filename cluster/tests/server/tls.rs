//! Certificates of both sides.

use abs_cluster::{
    CipherSuite, Cluster, ConnectOptions, Credentials, ProtocolVersion, TlsIdentity, TlsOptions,
};
use abs_devserver::DevServer;

use crate::support::{Authority, builder, internal, options, password, refusal, works};

const NAME: &str = "cluster.test";

async fn server(authority: &Authority) -> DevServer {
    let (certificate, key) = authority.sign(NAME);
    builder().tls(NAME, certificate, key).start().await.unwrap()
}

fn over_tls(server: &DevServer, tls: TlsOptions) -> ConnectOptions {
    ConnectOptions { tls: Some(tls), ..options(server) }
}

#[tokio::test]
async fn records_travel_over_tls() {
    let authority = Authority::new();
    let server = server(&authority).await;
    let cluster = Cluster::connect(over_tls(&server, authority.options(Some(NAME)))).await.unwrap();
    works(&cluster).await;
    // A connection at rest is used again, also when the server sent what TLS sends between messages.
    let before = server.knobs().counts().connections;
    works(&cluster).await;
    assert_eq!(server.knobs().counts().connections, before);
    assert_eq!(cluster.nodes()[0].tls_name.as_deref(), Some(NAME));
    // One that the node has closed is not.
    for node in 0..2 {
        server.stop_node(node).await.unwrap();
        server.start_node(node).await.unwrap();
    }
    let node = cluster.nodes().remove(0);
    let connection = cluster.connection(&node).await.unwrap();
    assert!(connection.address().ends_with(&node.port.to_string()));
    assert!(server.knobs().counts().connections > before);
}

#[tokio::test]
async fn versions_and_suites_are_those_asked_for() {
    let authority = Authority::new();
    let server = server(&authority).await;
    for (protocols, cipher_suites) in [
        (vec![ProtocolVersion::TLSv1_2], vec![]),
        (vec![ProtocolVersion::TLSv1_3], vec![]),
        (vec![], vec![CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]),
    ] {
        let tls = TlsOptions { protocols, cipher_suites, ..authority.options(Some(NAME)) };
        works(&Cluster::connect(over_tls(&server, tls)).await.unwrap()).await;
    }
    // The key of the certificate is none of RSA.
    let cipher_suites = vec![CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
    let text =
        refusal(over_tls(&server, TlsOptions { cipher_suites, ..authority.options(Some(NAME)) })).await;
    assert!(text.contains("HandshakeFailure"), "{text}");
}

#[tokio::test]
async fn who_is_not_who_he_should_be_is_not_talked_to() {
    let authority = Authority::new();
    let server = server(&authority).await;
    let text = refusal(over_tls(&server, authority.options(Some("other.test")))).await;
    assert!(text.starts_with("TLS handshake with node 127.0.0.1:"), "{text}");
    assert!(text.contains("not valid for name"), "{text}");
    // Without a name the host's own must be in the certificate.
    assert!(refusal(over_tls(&server, authority.options(None))).await.contains("not valid for"));
    let stranger = Authority::new();
    let text = refusal(over_tls(&server, stranger.options(Some(NAME)))).await;
    assert!(text.contains("UnknownIssuer") || text.contains("BadSignature"), "{text}");
    // The name of a seed goes before that of the cluster; one good seed is enough.
    let mut both = over_tls(&server, authority.options(Some("other.test")));
    both.seeds.push(both.seeds[0].clone());
    both.seeds[1].tls_name = Some(NAME.to_owned());
    works(&Cluster::connect(both).await.unwrap()).await;
}

#[tokio::test]
async fn a_cluster_that_asks_for_a_certificate_gets_it() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign(NAME);
    let builder = builder().mutual_tls(NAME, certificate, key, &authority.certificate);
    let server = builder.certified_user("backup.test").start().await.unwrap();
    let text = refusal(ConnectOptions {
        credentials: Some(internal("backup.test", "x")),
        ..over_tls(&server, authority.options(Some(NAME)))
    });
    assert!(text.await.contains("CertificateRequired"));
    let (certificate, key) = authority.sign("backup.test");
    let identity = |cert: &str, key: &str, secret: Option<&str>| TlsIdentity {
        cert_file: authority.file("cert.pem", cert),
        key_file: authority.file("key.pem", key),
        key_password: secret.map(password),
    };
    let pki = |identity| ConnectOptions {
        credentials: Some(Credentials::Pki),
        ..over_tls(&server, TlsOptions { identity: Some(identity), ..authority.options(Some(NAME)) })
    };
    works(&Cluster::connect(pki(identity(&certificate, &key, None))).await.unwrap()).await;

    let sealed = sealed(&key, "hunter2");
    works(&Cluster::connect(pki(identity(&certificate, &sealed, Some("hunter2")))).await.unwrap()).await;
    let text = refusal(pki(identity(&certificate, &sealed, Some("hunter3")))).await;
    assert!(text.contains("key.pem: wrong password"), "{text}");
    let text = refusal(pki(identity(&certificate, &sealed, None))).await;
    assert!(text.contains("key.pem: the key is encrypted: give its password"), "{text}");
    let text = refusal(pki(identity(&certificate, &key, Some("hunter2")))).await;
    assert!(text.contains("key.pem: the key is not encrypted"), "{text}");
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n";
    let text = refusal(pki(identity(&certificate, old, Some("hunter2")))).await;
    assert!(text.contains("openssl pkcs8 -topk8"), "{text}");
    let (_, another) = authority.sign("another.test");
    let text = refusal(pki(identity(&certificate, &another, None))).await;
    assert!(text.contains("key.pem: not the key of"), "{text}");
    let (certificate, key) = authority.sign("nobody.test");
    let text = refusal(pki(identity(&certificate, &key, None))).await;
    assert!(text.contains("as the user of our certificate: unknown user (code 60)"), "{text}");
}

#[tokio::test]
async fn a_password_of_another_service_goes_over_tls() {
    let authority = Authority::new();
    let (certificate, key) = authority.sign(NAME);
    let server = builder().tls(NAME, certificate, key).external_user("ldap", "right").start().await.unwrap();
    let as_user = |text: &str| ConnectOptions {
        credentials: Some(Credentials::External { user: "ldap".into(), password: password(text) }),
        ..over_tls(&server, authority.options(Some(NAME)))
    };
    works(&Cluster::connect(as_user("right")).await.unwrap()).await;
    assert!(refusal(as_user("wrong")).await.contains("as ldap: bad credential (code 65)"));
}

/// A key in PKCS#8, encrypted.
fn sealed(key: &str, secret: &str) -> String {
    let (_, key) = pkcs8::SecretDocument::from_pem(key).unwrap();
    let key = pkcs8::PrivateKeyInfoRef::try_from(key.as_bytes()).unwrap();
    let sealed = key.encrypt(secret).unwrap();
    sealed.to_pem("ENCRYPTED PRIVATE KEY", pkcs8::LineEnding::LF).unwrap().to_string()
}
