//! Against Azurite.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use abs_config::secret::Secret;
use abs_config::{AzureCredentials, AzureDataTier};
use azure_core::base64;
use azure_core::hmac::hmac_sha256;
use futures_util::future::join_all;

use super::*;
use crate::cloud::{Cloud, Shape};
use crate::{ObjectPath, Patience, Storage};

const ACCOUNT: &str = "devstoreaccount1";
/// The key of every emulator, as Microsoft documents it.
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const CONTAINER: &str = "abs-test";

fn endpoint() -> String {
    let endpoint =
        std::env::var("ABS_TEST_AZURE").unwrap_or("http://127.0.0.1:15102/devstoreaccount1".into());
    let host = endpoint.split('/').nth(2).unwrap().to_owned();
    assert!(
        TcpStream::connect(&host).is_ok(),
        "nothing listens at {host}: start the emulators with scripts/emulators up"
    );
    endpoint
}

fn settings(endpoint: String) -> AzureSettings {
    AzureSettings {
        endpoint: endpoint.into(),
        container: CONTAINER.into(),
        folder: String::new(),
        credentials: shared_key(KEY),
        part_size: 1 << 20,
        data_tier: None,
        metadata_tier: None,
    }
}

fn shared_key(key: &str) -> AzureCredentials {
    AzureCredentials::SharedKey { account: ACCOUNT.into(), key: Secret::Plain(key.to_owned().into()) }
}

fn bucket() -> AzureBucket {
    AzureBucket::new(&settings(endpoint()))
}

/// A folder that no other test has.
fn folder() -> String {
    format!("test-{:016x}/", fastrand::u64(..))
}

fn pattern(length: usize, seed: u64) -> Bytes {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

async fn put(bucket: &AzureBucket, key: &str, content: &'static [u8]) {
    assert!(bucket.put(key, Bytes::from_static(content), Class::Data, false).await.unwrap());
}

async fn bytes(body: Body) -> Answer<Vec<u8>> {
    let length = body.length;
    let chunks: Vec<Bytes> = body.chunks.try_collect().await?;
    let bytes = chunks.concat();
    assert_eq!(length, Some(bytes.len() as u64));
    Ok(bytes)
}

async fn content(bucket: &AzureBucket, key: &str) -> Vec<u8> {
    bytes(bucket.read(key, None).await.unwrap()).await.unwrap()
}

async fn keys(bucket: &AzureBucket, prefix: &str) -> Vec<String> {
    let query = ListQuery { prefix, folders: false, page: None, limit: None };
    bucket.list(query).await.unwrap().objects.into_iter().map(|entry| entry.key).collect()
}

async fn unfinished(bucket: &AzureBucket, prefix: &str) -> Vec<Unfinished<Upload>> {
    bucket.uploads(prefix, None).await.unwrap().uploads
}

fn part(number: u32, bytes: &Bytes) -> Part {
    Part { number, offset: 0, bytes: bytes.clone(), last: false }
}

/// What was refused, in one text.
fn refused<T: std::fmt::Debug>(answer: Answer<T>) -> String {
    match answer.unwrap_err().kind {
        kind @ ErrorKind::Refused { .. } => kind.to_string(),
        kind => panic!("not refused: {kind:?}"),
    }
}

#[tokio::test]
async fn what_is_put_is_read_in_any_range() {
    let (bucket, folder) = (bucket(), folder());
    let key = format!("{folder}o");
    let all = pattern(100_000, 1);
    assert!(bucket.put(&key, all.clone(), Class::Metadata, false).await.unwrap());
    let head = bucket.head(&key).await.unwrap();
    assert_eq!((head.size, head.archived), (100_000, None));
    assert_eq!(content(&bucket, &key).await, all);
    for (start, end) in [(0, 1), (0, 100_000), (99_999, 100_000), (12_345, 54_321)] {
        let range = Some(VersionRange { version: &head.version, start, end });
        let found = bytes(bucket.read(&key, range).await.unwrap()).await.unwrap();
        assert_eq!(found, all[start as usize..end as usize], "{start}..{end}");
    }
    put(&bucket, &key, b"").await;
    assert_eq!(bucket.head(&key).await.unwrap().size, 0);
    assert_eq!(content(&bucket, &key).await, b"");
    let folders = ListQuery { prefix: &folder, folders: false, page: None, limit: None };
    let entry = &bucket.list(folders).await.unwrap().objects[0];
    assert_eq!((entry.key.as_str(), entry.size, &entry.archived), (key.as_str(), 0, &None));
    assert!(entry.modified.elapsed().unwrap_or_default() < Duration::from_mins(1), "{entry:?}");
}

#[tokio::test]
async fn parts_become_one_object_in_their_order() {
    let (bucket, folder) = (bucket(), folder());
    let key = format!("{folder}o");
    let parts: Vec<Bytes> = (0..4).map(|seed| pattern(1_000_000 + seed as usize, seed)).collect();
    let upload = bucket.begin(&key).await.unwrap();
    let stored =
        (1..=4).rev().map(|number| bucket.part(&key, &upload, part(number, &parts[number as usize - 1])));
    let mut receipts: Vec<_> = join_all(stored).await.into_iter().map(Result::unwrap).collect();
    receipts.reverse();
    // One that is stored twice, because the answer to the first try was lost, is in the object once.
    receipts[1] = bucket.part(&key, &upload, part(2, &parts[1])).await.unwrap();
    assert!(keys(&bucket, &folder).await.is_empty(), "nothing is visible before it is complete");
    assert!(matches!(bucket.head(&key).await.unwrap_err().kind, ErrorKind::NotFound));
    bucket.complete(&key, &upload, &receipts, 4_000_006).await.unwrap();
    // The answer to the first try may have been lost.
    bucket.complete(&key, &upload, &receipts, 4_000_006).await.unwrap();
    assert_eq!(content(&bucket, &key).await, parts.concat());
    assert!(unfinished(&bucket, &folder).await.is_empty(), "nothing of it is left");

    let gone = bucket.begin(&key).await.unwrap();
    let never = gone.block(1);
    let error = bucket.complete(&key, &gone, &[never], 1).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::NotFound), "{error:?}");
    assert_eq!(content(&bucket, &key).await, parts.concat(), "an upload that fails touches nothing");
}

#[tokio::test]
async fn one_of_many_creates() {
    let (bucket, folder) = (bucket(), folder());
    let key = format!("{folder}claim");
    let claims = (0..16).map(|racer| bucket.put(&key, Bytes::from(vec![racer; 10]), Class::Metadata, true));
    let done: Vec<bool> = join_all(claims).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(done.iter().filter(|done| **done).count(), 1, "{done:?}");
    let winner = done.iter().position(|done| *done).unwrap() as u8;
    assert_eq!(content(&bucket, &key).await, vec![winner; 10]);
}

#[tokio::test]
async fn an_abort_leaves_nothing() {
    let (bucket, folder) = (bucket(), folder());
    let key = format!("{folder}a b");
    let upload = bucket.begin(&key).await.unwrap();
    bucket.abort(&key, &upload).await.unwrap();
    bucket.part(&key, &upload, part(1, &pattern(1000, 1))).await.unwrap();
    bucket.part(&key, &upload, part(2, &pattern(1000, 2))).await.unwrap();
    let found = unfinished(&bucket, &folder).await;
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].key, &found[0].upload), (&key, &upload));
    assert!(found[0].since.elapsed().unwrap() < Duration::from_mins(1));
    bucket.abort(&key, &upload).await.unwrap();
    assert!(unfinished(&bucket, &folder).await.is_empty());
    assert!(keys(&bucket, &folder).await.is_empty());
    assert!(bucket.uncommitted(&key).await.unwrap().is_empty());
    bucket.abort(&key, &upload).await.unwrap();
}

#[tokio::test]
async fn an_abort_touches_nothing_of_others() {
    let (bucket, folder) = (bucket(), folder());
    let key = format!("{folder}o");
    let (mine, other) = (bucket.begin(&key).await.unwrap(), bucket.begin(&key).await.unwrap());
    bucket.part(&key, &mine, part(1, &pattern(10, 1))).await.unwrap();
    let receipt = bucket.part(&key, &other, part(1, &Bytes::from_static(b"other"))).await.unwrap();
    bucket.abort(&key, &mine).await.unwrap();
    bucket.complete(&key, &other, &[receipt], 5).await.unwrap();

    bucket.part(&key, &mine, part(1, &pattern(10, 1))).await.unwrap();
    bucket.abort(&key, &mine).await.unwrap();
    assert_eq!(content(&bucket, &key).await, b"other", "an object that is there stays as it is");

    // Two that crashed, one after the other, are found as one and go away together.
    let key = format!("{folder}p");
    bucket.part(&key, &mine, part(1, &pattern(10, 1))).await.unwrap();
    bucket.part(&key, &other, part(1, &pattern(10, 1))).await.unwrap();
    let found = unfinished(&bucket, &folder).await;
    assert_eq!(found.len(), 1, "{found:?}");
    bucket.abort(&key, &found[0].upload).await.unwrap();
    assert!(unfinished(&bucket, &folder).await.is_empty());
}

#[tokio::test]
async fn what_a_crash_left_goes_when_it_is_old() {
    let folder = folder();
    let shape = Shape { folder: folder.trim_end_matches('/'), part_size: 1 << 20, connections: None };
    let storage = Cloud::new(bucket(), shape, Patience::default());
    let bucket = bucket();
    for key in [format!("{folder}a/o"), format!("{folder}a/p")] {
        let upload = bucket.begin(&key).await.unwrap();
        bucket.part(&key, &upload, part(1, &pattern(1000, 1))).await.unwrap();
    }
    let below = ObjectPath::new("a").unwrap();
    assert_eq!(
        storage.delete_unfinished(&below, Duration::from_hours(1)).await.unwrap(),
        0,
        "they may be at work"
    );
    assert_eq!(storage.delete_unfinished(&ObjectPath::new("b").unwrap(), Duration::ZERO).await.unwrap(), 0);
    assert_eq!(storage.delete_unfinished(&below, Duration::ZERO).await.unwrap(), 2);
    assert_eq!(storage.delete_unfinished(&below, Duration::ZERO).await.unwrap(), 0);
    assert!(keys(&bucket, &folder).await.is_empty());
}

#[tokio::test]
async fn uploads_of_other_programs_are_not_ours() {
    let (bucket, folder) = (bucket(), folder());
    let client = bucket.client().await.unwrap();
    let key = format!("{folder}o");
    let content = Bytes::from_static(b"x").into();
    client.block_blob(&key).unwrap().stage_block(b"block-000001", 1, content, None).await.unwrap();
    assert!(unfinished(&bucket, &folder).await.is_empty());
    let upload = bucket.begin(&key).await.unwrap();
    let error = refused(bucket.part(&key, &upload, part(1, &pattern(10, 1))).await);
    assert!(error.starts_with("another program began to upload a blob of that name"), "{error}");
}

#[tokio::test]
async fn no_object_is_no_refusal() {
    let (bucket, folder) = (bucket(), folder());
    let key = format!("{folder}none");
    assert!(matches!(bucket.head(&key).await.unwrap_err().kind, ErrorKind::NotFound));
    assert!(matches!(bucket.read(&key, None).await.unwrap_err().kind, ErrorKind::NotFound));
    bucket.delete(std::slice::from_ref(&key)).await.unwrap();
    assert!(keys(&bucket, &folder).await.is_empty());
}

#[tokio::test]
async fn a_container_that_is_not_there_is_named() {
    let mut settings = settings(endpoint());
    settings.container = "abs-none".into();
    let bucket = AzureBucket::new(&settings);
    let upload = bucket.begin("k").await.unwrap();
    let query = ListQuery { prefix: "", folders: true, page: None, limit: None };
    let refusals = [
        refused(bucket.list(query).await),
        refused(bucket.head("k").await),
        refused(bucket.read("k", None).await),
        refused(bucket.put("k", Bytes::new(), Class::Data, false).await),
        refused(bucket.put("k", Bytes::new(), Class::Data, true).await),
        refused(bucket.part("k", &upload, part(1, &pattern(10, 1))).await),
        refused(bucket.complete("k", &upload, &[upload.block(1)], 10).await),
        refused(bucket.abort("k", &upload).await),
        refused(bucket.uploads("", None).await),
        refused(bucket.delete(&["k".to_owned()]).await),
    ];
    for refusal in refusals {
        let expected = format!(
            "the container {}/abs-none does not exist (ContainerNotFound): create it, or correct container-name in the \
             configuration",
            endpoint()
        );
        assert_eq!(refusal, expected);
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_not_shown() {
    let query = ListQuery { prefix: "", folders: true, page: None, limit: None };
    let with =
        |key: &str| AzureBucket::new(&AzureSettings { credentials: shared_key(key), ..settings(endpoint()) });
    let wrong = "aHVudGVyMg==";
    let bucket = with(wrong);
    // HEAD has no body that says more.
    for refusal in [refused(bucket.list(query).await), refused(bucket.head("k").await)] {
        // Azurite gives it another code than the service.
        assert!(
            refusal.contains("(AuthenticationFailed): ") || refusal.contains("AuthorizationFailure"),
            "{refusal}"
        );
        assert!(refusal.contains("account-key"), "{refusal}");
    }
    assert!(!format!("{bucket:?}").contains(wrong));
    let error = refused(with("hunter2!").list(query).await);
    assert_eq!(error, "account-key is not base64: give the key as Azure shows it");
    let missing = Secret::File("/none/key".into());
    let credentials = AzureCredentials::SharedKey { account: ACCOUNT.into(), key: missing };
    let bucket = AzureBucket::new(&AzureSettings { credentials, ..settings(endpoint()) });
    let error = refused(bucket.list(query).await);
    assert!(error.starts_with("reading the secret in the file /none/key: "), "{error}");
}

#[tokio::test]
async fn keys_of_any_kind_survive() {
    let (bucket, folder) = (bucket(), folder());
    let odd = [
        "space d",
        "per%cent%20",
        "plus+plus",
        "a?b=c&d",
        "hash#tag",
        "am&p;<x>\"'",
        "naïve/日本/🦀",
        "semi;colon:@,$!*()[]{}|^`~",
        " leading",
        "trailing ",
        "a=b",
        "...",
        "..a/.b",
        "tab\tx",
        "end\nof line",
        "up/../down/./here",
    ];
    let put = odd.iter().map(|name| {
        let (bucket, key) = (&bucket, format!("{folder}{name}"));
        async move {
            bucket
                .put(&key, Bytes::from_static(name.as_bytes()), Class::Data, false)
                .await
                .map_err(|e| format!("{name:?}: {e:?}"))
        }
    });
    for done in join_all(put).await {
        assert_eq!(done, Ok(true));
    }
    let expected: BTreeSet<String> = odd.iter().map(|name| format!("{folder}{name}")).collect();
    assert_eq!(keys(&bucket, &folder).await.into_iter().collect::<BTreeSet<_>>(), expected);
    for name in odd {
        let key = format!("{folder}{name}");
        assert_eq!(content(&bucket, &key).await, name.as_bytes());
        assert!(keys(&bucket, &key).await.contains(&key), "as the prefix of a listing");
        let upload = bucket.begin(&key).await.unwrap();
        let receipt = bucket.part(&key, &upload, part(1, &Bytes::from_static(b"parts"))).await.unwrap();
        bucket.complete(&key, &upload, &[receipt], 5).await.unwrap();
        assert_eq!(content(&bucket, &key).await, b"parts");
    }
    bucket.delete(&expected.iter().cloned().collect::<Vec<_>>()).await.unwrap();
    assert!(keys(&bucket, &folder).await.is_empty());
}

#[tokio::test]
async fn listings_go_on_from_page_to_page() {
    let (bucket, folder) = (bucket(), folder());
    let mut expected = BTreeSet::new();
    for i in 0..5 {
        for key in [format!("{folder}{i}"), format!("{folder}f {i}/x"), format!("{folder}f {i}/y")] {
            put(&bucket, &key, b"x").await;
            expected.insert(key);
        }
    }
    // A neighbour that begins alike is not below the folder.
    put(&bucket, &format!("{}x", folder.trim_end_matches('/')), b"x").await;
    for (folders, least_pages) in [(false, 8), (true, 5)] {
        let (mut found, mut found_folders, mut pages, mut next) = (BTreeSet::new(), BTreeSet::new(), 0, None);
        loop {
            let query = ListQuery { prefix: &folder, folders, page: next.as_deref(), limit: Some(2) };
            let page = bucket.list(query).await.unwrap();
            assert!(page.objects.len() + page.folders.len() <= 2);
            found.extend(page.objects.into_iter().map(|entry| entry.key));
            found_folders.extend(page.folders);
            pages += 1;
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        assert!(pages >= least_pages, "{pages}");
        if folders {
            assert_eq!(found, (0..5).map(|i| format!("{folder}{i}")).collect());
            assert_eq!(found_folders, (0..5).map(|i| format!("{folder}f {i}/")).collect());
        } else {
            assert_eq!(found, expected);
            assert!(found_folders.is_empty());
        }
    }
}

#[tokio::test]
async fn an_object_that_is_replaced_is_not_mixed_up() {
    let (bucket, folder) = (bucket(), folder());
    let key = format!("{folder}o");
    put(&bucket, &key, b"first").await;
    let head = bucket.head(&key).await.unwrap();
    put(&bucket, &key, b"other").await;
    let range = Some(VersionRange { version: &head.version, start: 0, end: 5 });
    let error = bucket.read(&key, range).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Changed), "{error:?}");
}

/// An endpoint before the emulator that passes on all that one connection at a time sends, but for a letter.
fn endpoint_that_changes_bytes() -> String {
    let endpoint = endpoint();
    let host = endpoint.split('/').nth(2).unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = listener.local_addr().unwrap().to_string();
    let changed = endpoint.replace(&host, &here);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(&host).unwrap());
            let (mut back, mut answers) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
            std::thread::spawn(move || {
                let mut sent = vec![0; 100_000];
                while let Ok(length @ 1..) = client.read(&mut sent) {
                    let sent = &mut sent[..length];
                    if let Some(at) = sent.windows(12).position(|bytes| bytes == b"Hello World!") {
                        sent[at + 11] = b'?';
                    }
                    server.write_all(sent).unwrap();
                }
            });
        }
    });
    changed
}

#[tokio::test]
async fn bytes_that_change_on_the_way_are_not_taken() {
    let (bucket, folder) = (AzureBucket::new(&settings(endpoint_that_changes_bytes())), folder());
    let key = format!("{folder}o");
    let content = Bytes::from_static(b"Hello World!");
    let upload = bucket.begin(&key).await.unwrap();
    for error in [
        bucket.put(&key, content.clone(), Class::Data, false).await.unwrap_err(),
        bucket.part(&key, &upload, part(1, &content)).await.unwrap_err(),
    ] {
        assert!(
            matches!(&error.kind, ErrorKind::Unavailable(text) if text.contains("Crc64Mismatch")),
            "{error:?}"
        );
    }
    put(&bucket, &key, b"Hello, World!").await;
    assert_eq!(keys(&bucket, &folder).await, [&*key], "all else passes");
}

#[tokio::test]
async fn what_is_archived_is_named() {
    let folder = folder();
    let bucket =
        AzureBucket::new(&AzureSettings { data_tier: Some(AzureDataTier::Archive), ..settings(endpoint()) });
    let (small, large, metadata) =
        (format!("{folder}small"), format!("{folder}large"), format!("{folder}metadata"));
    put(&bucket, &small, b"x").await;
    let upload = bucket.begin(&large).await.unwrap();
    let receipt = bucket.part(&large, &upload, part(1, &pattern(10, 1))).await.unwrap();
    bucket.complete(&large, &upload, &[receipt], 10).await.unwrap();
    bucket.put(&metadata, Bytes::from_static(b"m"), Class::Metadata, false).await.unwrap();
    for key in [&small, &large] {
        assert_eq!(bucket.head(key).await.unwrap().archived.as_deref(), Some("Archive"));
        let error = bucket.read(key, None).await.unwrap_err();
        assert!(matches!(&error.kind, ErrorKind::Archived { tier } if tier == "Archive"), "{error:?}");
    }
    assert_eq!(content(&bucket, &metadata).await, b"m");
    let query = ListQuery { prefix: &folder, folders: false, page: None, limit: None };
    let archived: Vec<_> =
        bucket.list(query).await.unwrap().objects.into_iter().map(|entry| entry.archived).collect();
    assert_eq!(archived, [Some("Archive".to_owned()), None, Some("Archive".to_owned())]);
}

#[tokio::test]
async fn many_are_deleted_at_once() {
    let (bucket, folder) = (bucket(), folder());
    let keys_: Vec<String> = (0..AzureBucket::DELETE_BATCH).map(|i| format!("{folder}{i}")).collect();
    for key in keys_.iter().step_by(3) {
        put(&bucket, key, b"x").await;
    }
    bucket.delete(&keys_).await.unwrap();
    assert!(keys(&bucket, &folder).await.is_empty());
}

/// A shared access signature for the container, as documented for the version 2020-12-06 of services.
fn access_signature(permissions: &str, expiry: &str) -> String {
    let resource = format!("/blob/{ACCOUNT}/{CONTAINER}");
    let to_sign = format!("{permissions}\n\n{expiry}\n{resource}\n\n\n\n2020-12-06\nc\n\n\n\n\n\n\n");
    let signature = hmac_sha256(&to_sign, &KEY.into()).unwrap();
    let mut query = format!("sv=2020-12-06&sr=c&sp={permissions}&se={}&sig=", expiry.replace(':', "%3A"));
    for byte in signature.bytes() {
        write!(query, "%{byte:02X}").unwrap();
    }
    query
}

#[tokio::test]
async fn a_signature_in_the_endpoint_is_on_every_request() {
    let folder = folder();
    let with = |signature: &str| {
        let endpoint = format!("{}/?{signature}", endpoint());
        AzureBucket::new(&AzureSettings { credentials: AzureCredentials::Endpoint, ..settings(endpoint) })
    };
    let bucket = with(&access_signature("racwdl", "2999-01-01T00:00:00Z"));
    let key = format!("{folder}a b");
    put(&bucket, &key, b"first").await;
    let upload = bucket.begin(&key).await.unwrap();
    let receipt = bucket.part(&key, &upload, part(1, &Bytes::from_static(b"parts"))).await.unwrap();
    bucket.complete(&key, &upload, &[receipt], 5).await.unwrap();
    assert_eq!(content(&bucket, &key).await, b"parts");
    assert_eq!(bucket.head(&key).await.unwrap().size, 5);
    assert_eq!(keys(&bucket, &folder).await, [&*key]);
    let other = format!("{folder}other");
    bucket.part(&other, &upload, part(1, &pattern(10, 1))).await.unwrap();
    assert_eq!(unfinished(&bucket, &folder).await.len(), 1);
    bucket.abort(&other, &upload).await.unwrap();
    bucket.delete(std::slice::from_ref(&key)).await.unwrap();
    assert_eq!(bucket.place(&key), format!("{}/{CONTAINER}/{key}", endpoint()));
    assert!(!format!("{bucket:?}").contains("sig="), "{bucket:?}");

    let query = ListQuery { prefix: &folder, folders: false, page: None, limit: None };
    let error = refused(with(&access_signature("racwdl", "2001-01-01T00:00:00Z")).list(query).await);
    // Azurite gives it another code than the service.
    assert!(error.contains("valid") && error.contains("shared access signature"), "{error}");
    let error = refused(
        with(&access_signature("l", "2999-01-01T00:00:00Z"))
            .put(&key, Bytes::new(), Class::Data, false)
            .await,
    );
    assert!(
        error.contains("(AuthorizationPermissionMismatch): give a shared access signature that is valid"),
        "{error}"
    );
}

#[tokio::test]
async fn a_client_asks_over_https_only() {
    let plain = |text: &str| Secret::Plain(text.to_owned().into());
    let credentials =
        AzureCredentials::Client { tenant: plain("tenant"), id: plain("id"), secret: plain("hunter2") };
    let client = |endpoint: &str, credentials: &AzureCredentials| {
        AzureBucket::new(&AzureSettings { credentials: credentials.clone(), ..settings(endpoint.into()) })
    };
    let error = refused(client("http://127.0.0.1:1", &credentials).head("k").await);
    assert_eq!(
        error,
        "a client of Entra ID is only allowed to ask over https: give an endpoint that begins with https://, or an \
         account-key"
    );
    let bad =
        AzureCredentials::Client { tenant: plain("no/tenant"), id: plain("id"), secret: plain("hunter2") };
    let error = refused(client("https://127.0.0.1:1", &bad).head("k").await);
    assert!(error.starts_with("the client of Entra ID is not valid: invalid tenant ID no/tenant"), "{error}");
    assert!(error.ends_with(": correct tenant-id, client-id and client-secret"), "{error}");
}

/// An endpoint that answers every request with these bytes and then closes the connection.
fn endpoint_that_answers(answer: &'static str) -> String {
    endpoint_that_records(answer).0
}

/// The same, and what it was asked.
fn endpoint_that_records(answer: &'static str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = [0; 10_000];
            let length = connection.read(&mut request).unwrap_or_default();
            let _ = sender.send(String::from_utf8_lossy(&request[..length]).into_owned());
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    (format!("http://{address}/account"), requests)
}

#[tokio::test]
async fn requests_are_written_for_the_real_service() {
    let (endpoint, requests) = endpoint_that_records("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    let bucket = AzureBucket::new(&settings(endpoint));
    let query = ListQuery { prefix: "a b+c/", folders: true, page: None, limit: None };
    bucket.list(query).await.unwrap_err();
    let list = requests.recv().unwrap();
    assert!(list.contains("&delimiter=%2F&prefix=a%20b%2Bc%2F&"), "a space is no plus: {list}");
    let range = Some(VersionRange { version: "\"0\"", start: 5, end: 10 << 30 });
    bucket.read("k", range).await.unwrap_err();
    let read = requests.recv().unwrap();
    assert!(read.contains("range: bytes=5-10737418239\r\n"), "a read is not cut: {read}");
    assert!(read.contains("if-match: \"0\"\r\n"), "{read}");
}

#[tokio::test]
async fn what_may_pass_is_told_from_what_does_not() {
    let head = |answer| async move {
        AzureBucket::new(&settings(endpoint_that_answers(answer))).head("k").await.unwrap_err()
    };
    let busy = head(
        "HTTP/1.1 503 Busy\r\nx-ms-error-code: ServerBusy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert!(matches!(&busy.kind, ErrorKind::Unavailable(text) if text.contains("ServerBusy")), "{busy:?}");
    assert_eq!(busy.retry_after, Some(Duration::from_secs(7)));
    let proxy = head("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await;
    assert!(
        matches!(&proxy.kind, ErrorKind::Unavailable(text) if text.contains("502 Bad Gateway")),
        "{proxy:?}"
    );
    let closed = head("").await;
    assert!(matches!(&closed.kind, ErrorKind::Unavailable(_)), "{closed:?}");
    let stranger = head("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    let expected = "the endpoint answers 404 Not Found: correct endpoint in the configuration: this is no answer of Azure Blob Storage";
    assert_eq!(stranger.kind.to_string(), expected, "else a wrong endpoint is an empty storage");
    let folder =
        head("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: \"0\"\r\nx-ms-resource-type: directory\r\n\r\n")
            .await;
    assert!(matches!(folder.kind, ErrorKind::NotFound), "a folder is no object: {folder:?}");

    let torn = endpoint_that_answers("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
    let bucket = AzureBucket::new(&settings(torn));
    let error = bytes(bucket.read("k", None).await.unwrap()).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unavailable(_)), "{error:?}");
    let query = ListQuery { prefix: "", folders: true, page: None, limit: None };
    let error = bucket.list(query).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unavailable(_)), "{error:?}");
    let html = endpoint_that_answers("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>");
    let error = AzureBucket::new(&settings(html)).list(query).await.unwrap_err();
    assert!(error.kind.to_string().starts_with("the answer of the endpoint is not Azure's: "), "{error:?}");
}

#[tokio::test]
async fn a_message_shows_no_signature() {
    // Port 1 of this machine: nothing listens there.
    let endpoint = "http://127.0.0.1:1/account?sv=2020-12-06&sig=hunter2";
    let settings = AzureSettings { credentials: AzureCredentials::Endpoint, ..settings(endpoint.into()) };
    let error = AzureBucket::new(&settings).head("k").await.unwrap_err();
    let ErrorKind::Unavailable(text) = &error.kind else { panic!("{error:?}") };
    assert!(text.contains("Connection refused"), "{text}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    let settings = AzureSettings { endpoint: "http://[::1?sig=hunter2".into(), ..settings };
    let error = refused(AzureBucket::new(&settings).head("k").await);
    assert!(error.contains("correct endpoint") && !error.contains("hunter2"), "{error}");
}

#[test]
fn checksums_are_those_of_the_service() {
    // Of the tests of Microsoft's libraries.
    for (text, expected) in [
        ("", 0),
        ("Hello World!", 208_604_604_655_264_165),
        ("123456789!@#$%^&*()", 2_153_758_901_452_455_624),
        (
            "This is a test where the data is longer than 64 characters so that we can test that code path.",
            2_736_107_658_526_394_369,
        ),
    ] {
        let checksum = base64::decode(client::checksum(text.as_bytes())).unwrap();
        assert_eq!(u64::from_le_bytes(checksum.try_into().unwrap()), expected, "{text}");
    }
}
