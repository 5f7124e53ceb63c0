//! Object stores and networks that fail: an object is whole, or there is a clean error and nothing is left behind.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use abs_storage::{ByteRange, ErrorKind, ObjectPath, Patience, Result, Storage, open_with};
use support::proxy::{Kind, Proxy, Request};
use support::{CLOUDS, Cloud, pattern, s3s};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Several parts of 5 MiB.
const LENGTH: usize = 17 << 20;

/// A patience that tests can wait for.
const PATIENCE: Patience = Patience {
    tries: 4,
    give_up: Duration::from_mins(1),
    first_wait: Duration::from_millis(20),
    longest_wait: Duration::from_millis(100),
    answer: Duration::from_secs(3),
    pace: 100 << 20,
};

/// A storage behind a proxy.
async fn behind_proxy(cloud: &Cloud) -> (Proxy, Arc<dyn Storage>) {
    behind_proxy_at(cloud, &cloud.url()).await
}

async fn behind_proxy_at(cloud: &Cloud, url: &str) -> (Proxy, Arc<dyn Storage>) {
    let proxy = Proxy::before(url).await;
    let storage = open_with(&cloud.settings_at(&proxy.url(url)), PATIENCE);
    (proxy, storage)
}

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).unwrap()
}

/// Writes an object in blocks as a backup does, and gives up at the first error.
async fn write(storage: &dyn Storage, at: &str, content: &[u8]) -> Result<u64> {
    let mut writer = storage.create(&path(at)).await?;
    let mut block = Vec::new();
    for chunk in content.chunks(1 << 20) {
        block.extend_from_slice(chunk);
        if let Err(e) = writer.write(&mut block).await {
            writer.abort().await.unwrap();
            return Err(e);
        }
    }
    writer.commit().await
}

async fn read(storage: &dyn Storage, at: &str) -> Result<Vec<u8>> {
    let mut reader = storage.open(&path(at), ByteRange::ALL).await?;
    let mut content = Vec::new();
    while reader.read(&mut content, 256 << 10).await? > 0 {}
    Ok(content)
}

async fn assert_nothing_is_left(storage: &dyn Storage, what: &str) {
    let listing = storage.list(&ObjectPath::root(), true).await.unwrap();
    assert_eq!(listing.objects, [], "{what}");
    let unfinished = storage.delete_unfinished(&ObjectPath::root(), Duration::ZERO).await.unwrap();
    assert_eq!(unfinished, 0, "{what}");
}

/// What passes, passes: the object is whole after faults that do not last.
#[tokio::test(flavor = "multi_thread")]
async fn parts_survive_faults_that_pass() {
    let content = pattern(LENGTH);
    for cloud in &CLOUDS {
        let (proxy, storage) = behind_proxy(cloud).await;
        for kind in [
            Kind::ResetRequest,
            Kind::StallRequest,
            Kind::LoseResponse,
            Kind::Answer(503, "Retry-After: 0\r\n", "busy"),
            Kind::Answer(429, "", "too many"),
            Kind::Answer(500, "", "oops"),
        ] {
            let what = format!("{} {kind:?}", cloud.name);
            // Fewer than a single part may meet, whichever they strike.
            proxy.strike(2, Request::is_part, kind);
            assert_eq!(write(&*storage, "o", &content).await.unwrap(), LENGTH as u64, "{what}");
            assert_eq!(proxy.struck(), 2, "{what}");
            assert!(read(&*storage, "o").await.unwrap() == content, "{what}");
            storage.delete_prefix(&path("o")).await.unwrap();
            assert_nothing_is_left(&*storage, &what).await;
        }
    }
}

/// A byte that changed on its way is noticed by the provider, who has the checksum.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_part_is_sent_again() {
    let content = pattern(LENGTH);
    let folder = tempfile::tempdir().unwrap();
    for cloud in &CLOUDS {
        // The emulator of S3 believes what it gets.
        let url = if cloud.name == "s3" { s3s::serve(folder.path()).await } else { cloud.url() };
        let (proxy, storage) = behind_proxy_at(cloud, &url).await;
        proxy.strike(1, Request::is_part, Kind::FlipRequest);
        let written = write(&*storage, "o", &content).await;
        assert_eq!(proxy.struck(), 1, "{}", cloud.name);
        match written {
            Ok(_) => assert!(read(&*storage, "o").await.unwrap() == content, "{}", cloud.name),
            // Google tells at the end of the object, not at each part.
            Err(e) => {
                assert!(cloud.name == "gcs" && e.is_transient(), "{}: {e}", cloud.name);
                assert_nothing_is_left(&*storage, cloud.name).await;
            }
        }
    }
}

/// What lasts is told, and nothing stays behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_lasts_leaves_an_error_and_nothing_else() {
    let content = pattern(LENGTH);
    for cloud in &CLOUDS {
        let (proxy, storage) = behind_proxy(cloud).await;
        for kind in [Kind::ResetRequest, Kind::Answer(503, "", "busy")] {
            let what = format!("{} {kind:?}", cloud.name);
            proxy.strike(usize::MAX, Request::is_part, kind);
            let error = write(&*storage, "o", &content).await.unwrap_err();
            assert!(matches!(error.kind, ErrorKind::Unavailable(_)), "{what}: {error}");
            assert!(error.is_transient() && error.to_string().lines().count() == 1, "{what}: {error}");
            proxy.heal();
            assert_nothing_is_left(&*storage, &what).await;
        }
    }
}

/// Credentials that expire in the middle end the upload at once: they are asked for again, but trying more often would not
/// help.
#[tokio::test(flavor = "multi_thread")]
async fn expired_credentials_fail_at_once() {
    let content = pattern(LENGTH);
    for cloud in &CLOUDS {
        let (proxy, storage) = behind_proxy(cloud).await;
        let (status, headers, body) = cloud.expired;
        proxy.strike(usize::MAX, Request::is_part, Kind::Answer(status, headers, body));
        let start = Instant::now();
        let error = write(&*storage, "o", &content).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Refused { .. }), "{}: {error}", cloud.name);
        assert!(!error.is_transient());
        assert!(error.to_string().contains("abs-test"), "it names the bucket: {error}");
        assert!(proxy.struck() <= 8, "{}: {} parts were tried", cloud.name, proxy.struck());
        assert!(start.elapsed() < Duration::from_secs(10), "{}", cloud.name);
        proxy.heal();
        assert_nothing_is_left(&*storage, cloud.name).await;
    }
}

/// A secret agent whose first answers are stale ones; its port.
async fn agent(stale: usize, secret: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for answers in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 8];
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
            stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
            let value = if answers < stale { "c3RhbGU=" } else { secret };
            let answer = format!("{{\"SecretValue\":\"{value}\"}}");
            stream.write_all(&head[..4]).await.unwrap();
            stream.write_all(&(answer.len() as u32).to_be_bytes()).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    port
}

/// Protects: a key that was replaced in its secret agent is asked for again when the old one is refused; nobody restarts
/// anything. (For Google `gcs::tests::sign_in` does that: no emulator of it signs anybody in.)
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_refused_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    for (cloud, (key, secret)) in
        [(&CLOUDS[0], ("secret-access-key", "test-secret")), (&CLOUDS[1], ("account-key", support::AZURITE))]
    {
        let url = if cloud.name == "s3" { s3s::serve(folder.path()).await } else { cloud.url() };
        let port = agent(1, secret).await;
        let more = format!(
            r#""{key}":"secrets:r:k","secret-agent":{{"connection-type":"TCP","address":"127.0.0.1","port":{port}}}"#
        );
        let settings = cloud.settings_with(&url, &format!(r#""{key}":"{}""#, cloud.secret()), &more);
        let storage = open_with(&settings, PATIENCE);
        storage.put(&path("o"), b"content").await.unwrap_or_else(|e| panic!("{}: {e}", cloud.name));
        assert_eq!(storage.get(&path("o"), 100).await.unwrap(), b"content");
        storage.delete_prefix(&path("o")).await.unwrap();
    }
}

/// A read goes on at the byte where it broke.
#[tokio::test(flavor = "multi_thread")]
async fn reads_survive_faults_that_pass() {
    let content = pattern(LENGTH);
    for cloud in &CLOUDS {
        let (proxy, storage) = behind_proxy(cloud).await;
        write(&*storage, "o", &content).await.unwrap();
        for kind in [
            Kind::ResetResponse,
            Kind::StallResponse,
            Kind::LoseResponse,
            Kind::Answer(503, "Retry-After: 0\r\n", "busy"),
        ] {
            let what = format!("{} {kind:?}", cloud.name);
            proxy.strike(3, Request::is_read, kind);
            assert!(read(&*storage, "o").await.unwrap() == content, "{what}");
            assert_eq!(proxy.struck(), 3, "{what}");
        }
        proxy.strike(usize::MAX, Request::is_read, Kind::Answer(503, "", "busy"));
        let error = read(&*storage, "o").await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Unavailable(_)), "{}: {error}", cloud.name);
    }
}

/// Whoever won knows it, even if the answer that said so was lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_was_lost_is_ours() {
    for cloud in &CLOUDS {
        let (proxy, storage) = behind_proxy(cloud).await;
        proxy.strike(1, |request| request.method != "GET", Kind::LoseResponse);
        assert!(storage.put_if_absent(&path("claim"), b"mine").await.unwrap(), "{}", cloud.name);
        assert_eq!(proxy.struck(), 1, "{}", cloud.name);
        proxy.strike(1, |request| request.method != "GET", Kind::LoseResponse);
        assert!(!storage.put_if_absent(&path("claim"), b"other").await.unwrap(), "{}", cloud.name);
        assert_eq!(storage.get(&path("claim"), 100).await.unwrap(), b"mine", "{}", cloud.name);
    }
}

/// Nobody there: an error that says so, after as many tries as patience has.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_is_named() {
    for cloud in &CLOUDS {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let storage = open_with(&cloud.settings_at(&nobody), PATIENCE);
        let error = storage.put(&path("o"), b"x").await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Unavailable(_)), "{}: {error}", cloud.name);
        let text = error.to_string();
        assert!(text.contains("abs-test") && text.lines().count() == 1, "{text}");
        assert!(text.contains("refused"), "the cause is told: {text}");
        assert!(storage.probe().await.is_err());
    }
}
