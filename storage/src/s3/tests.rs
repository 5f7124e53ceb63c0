//! The bucket against services that speak the protocol: moto, and s3s within this process.
//!
//! | module | what it holds |
//! |---|---|
//! | [`answers`] | what answers mean, and what is asked, from answers as services give them |
//! | [`service`] | the services, and buckets on them |

mod answers;
mod service;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, SystemTime};

use abs_config::{AgentAddress, S3DataClass, S3Key, S3MetadataClass, Secret, SecretAgentSettings};
use aws_credential_types::provider::ProvideCredentials as _;
use bytes::Bytes;
use futures_util::{TryStreamExt as _, future};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use self::key::ConfiguredKey;
use self::service::{ID, SECRET, Service, bucket, settings};
use super::*;
use crate::cloud::bucket::Failure;

/// The least size of a part that is not the last.
const PART: usize = 5 << 20;

/// Bytes that differ from their neighbours, so that a shifted or repeated block shows.
fn pattern(length: usize) -> Bytes {
    (0..length as u64)
        .flat_map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).to_le_bytes())
        .take(length)
        .collect::<Vec<_>>()
        .into()
}

async fn collect(body: Body) -> Vec<u8> {
    let chunks: Vec<Bytes> = body.chunks.try_collect().await.unwrap();
    chunks.concat()
}

async fn put(bucket: &S3Bucket, key: &str, content: &'static str) {
    assert!(bucket.put(key, Bytes::from(content), Class::Data, false).await.unwrap());
}

async fn upload(bucket: &S3Bucket, key: &str, content: &Bytes) {
    let upload = bucket.begin(key).await.unwrap();
    let parts = content.len().div_ceil(PART);
    let stored = (0..parts).map(|i| {
        let bytes = content.slice(i * PART..content.len().min((i + 1) * PART));
        let part = Part { number: i as u32 + 1, offset: (i * PART) as u64, bytes, last: i + 1 == parts };
        bucket.part(key, &upload, part)
    });
    let receipts = future::try_join_all(stored).await.unwrap();
    bucket.complete(key, &upload, &receipts, content.len() as u64).await.unwrap();
}

fn all(prefix: &str) -> ListQuery<'_> {
    ListQuery { prefix, folders: false, page: None, limit: None }
}

/// All keys of a listing, and the folders, page by page.
async fn listed(bucket: &S3Bucket, query: ListQuery<'_>) -> (Vec<String>, Vec<String>, usize) {
    let (mut keys, mut folders, mut pages) = (Vec::new(), Vec::new(), 0);
    let mut next: Option<String> = None;
    loop {
        let query = ListQuery { page: next.as_deref(), ..query };
        let page = bucket.list(query).await.unwrap();
        keys.extend(page.objects.into_iter().map(|entry| entry.key));
        folders.extend(page.folders);
        pages += 1;
        match page.next {
            Some(page) => next = Some(page),
            None => return (keys, folders, pages),
        }
    }
}

fn kind<T: std::fmt::Debug>(answer: Answer<T>) -> ErrorKind {
    answer.unwrap_err().kind
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_object_is_read_as_it_was_put() {
    for service in Service::every().await {
        let (bucket, key) = (&service.bucket, service.key("small"));
        for content in ["", "one", "another"] {
            put(bucket, &key, content).await;
            let body = bucket.read(&key, None).await.unwrap();
            assert_eq!(body.length, Some(content.len() as u64));
            assert_eq!(collect(body).await, content.as_bytes());
            let head = bucket.head(&key).await.unwrap();
            assert_eq!((head.size, head.archived), (content.len() as u64, None));
        }
        let page = bucket.list(all(&key)).await.unwrap();
        let entry = &page.objects[0];
        assert_eq!((entry.key.as_str(), entry.size, &entry.archived), (key.as_str(), 7, &None));
        let age = SystemTime::now().duration_since(entry.modified).unwrap_or_default();
        assert!(age < Duration::from_mins(1), "{age:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_parts_is_read_in_ranges() {
    for service in Service::every().await {
        let (bucket, key) = (&service.bucket, service.key("parts"));
        let content = pattern(3 * PART + 12_345);
        upload(bucket, &key, &content).await;
        assert!(collect(bucket.read(&key, None).await.unwrap()).await == content, "whole");
        let head = bucket.head(&key).await.unwrap();
        assert_eq!(head.size, content.len() as u64);
        let end = content.len();
        for (start, end) in
            [(0, 1), (PART - 1, PART + 1), (PART, 2 * PART), (end - 1, end), (17, end), (0, end)]
        {
            let range = VersionRange { version: &head.version, start: start as u64, end: end as u64 };
            let body = bucket.read(&key, Some(range)).await.unwrap();
            assert_eq!(body.length, Some((end - start) as u64));
            assert!(collect(body).await == content[start..end], "{start}..{end}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_replaced_is_not_read_on() {
    let service = Service::moto().await;
    let (bucket, key) = (&service.bucket, service.key("replaced"));
    put(bucket, &key, "old").await;
    let head = bucket.head(&key).await.unwrap();
    put(bucket, &key, "new").await;
    let range = VersionRange { version: &head.version, start: 1, end: 2 };
    assert!(matches!(kind(bucket.read(&key, Some(range)).await), ErrorKind::Changed));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_who_put_an_object_if_it_is_absent_one_wins() {
    for service in Service::every().await {
        let (bucket, key) = (&service.bucket, service.key("claim"));
        // s3s does not look and put in one step.
        let racers = if service.name == "moto" { 16 } else { 1 };
        let puts = (0..racers).map(|i| {
            let content = Bytes::from(format!("racer {i}"));
            bucket.put(&key, content, Class::Metadata, true)
        });
        let won: Vec<bool> = future::try_join_all(puts).await.unwrap();
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
        assert!(!bucket.put(&key, Bytes::from("late"), Class::Metadata, true).await.unwrap());
        let winner = won.iter().position(|won| *won).unwrap();
        let content = collect(bucket.read(&key, None).await.unwrap()).await;
        assert_eq!(content, format!("racer {winner}").as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_shows_nothing_before_it_is_complete_and_leaves_nothing_when_aborted() {
    for service in Service::every().await {
        let (bucket, key) = (&service.bucket, service.key("upload"));
        let upload = bucket.begin(&key).await.unwrap();
        let part = Part { number: 1, offset: 0, bytes: pattern(PART), last: true };
        bucket.part(&key, &upload, part).await.unwrap();
        assert!(matches!(kind(bucket.head(&key).await), ErrorKind::NotFound));
        bucket.abort(&key, &upload).await.unwrap();
        // s3s denies access to uploads that do not exist.
        if service.name == "moto" {
            bucket.abort(&key, &upload).await.unwrap();
        }
        assert!(matches!(kind(bucket.head(&key).await), ErrorKind::NotFound));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_uploads_are_listed_until_they_are_aborted() {
    let service = Service::moto().await;
    let (bucket, folder) = (&service.bucket, service.key("folder/"));
    let mut begun = BTreeSet::new();
    for i in 0..3 {
        let key = format!("{folder}with space + {i}");
        begun.insert((key.clone(), bucket.begin(&key).await.unwrap()));
    }
    let other = bucket.begin(&service.key("other")).await.unwrap();
    let unfinished = async || {
        let page = bucket.uploads(&folder, None).await.unwrap();
        assert_eq!(page.next, None);
        page.uploads
    };
    let found = unfinished().await;
    // moto says the same of each.
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_289_422_113);
    assert!(found.iter().all(|upload| upload.since == then), "{found:?}");
    assert_eq!(found.into_iter().map(|found| (found.key, found.upload)).collect::<BTreeSet<_>>(), begun);
    for (key, upload) in &begun {
        bucket.abort(key, upload).await.unwrap();
    }
    assert!(unfinished().await.is_empty());
    bucket.abort(&service.key("other"), &other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_summed_up_on_request() {
    for service in Service::every().await {
        let bucket = &service.bucket;
        for key in ["a", "b/c", "b/d/e", "b.f"] {
            put(bucket, &service.key(key), "content").await;
        }
        let at = |keys: &[&str]| keys.iter().map(|key| service.key(key)).collect::<Vec<_>>();
        let (folder, b) = (service.key(""), service.key("b/"));
        let (keys, folders, _) = listed(bucket, all(&folder)).await;
        assert_eq!((keys, folders), (at(&["a", "b.f", "b/c", "b/d/e"]), at(&[])));
        let (keys, folders, _) = listed(bucket, ListQuery { folders: true, ..all(&folder) }).await;
        assert_eq!((keys, folders), (at(&["a", "b.f"]), at(&["b/"])));
        let (keys, folders, _) = listed(bucket, ListQuery { folders: true, ..all(&b) }).await;
        assert_eq!((keys, folders), (at(&["b/c"]), at(&["b/d/"])));
        let limited = bucket.list(ListQuery { limit: Some(1), ..all(&folder) }).await.unwrap();
        assert_eq!((limited.objects.len(), limited.next.is_some()), (1, true));
        let nothing = bucket.list(all(&service.key("nothing/"))).await.unwrap();
        assert!(nothing.objects.is_empty() && nothing.next.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_page_of_objects_is_listed_and_deleted() {
    for service in Service::every().await {
        let bucket = &service.bucket;
        let keys: Vec<String> = (0..1203).map(|i| service.key(&format!("many/{i:04}"))).collect();
        for some in keys.chunks(64) {
            let puts = some.iter().map(|key| bucket.put(key, Bytes::new(), Class::Data, false));
            future::try_join_all(puts).await.unwrap();
        }
        let folder = service.key("many/");
        let (found, _, pages) = listed(bucket, all(&folder)).await;
        assert_eq!((found, pages), (keys.clone(), 2));
        let (kept, deleted) = keys.split_at(3);
        for batch in deleted.chunks(S3Bucket::DELETE_BATCH) {
            bucket.delete(batch).await.unwrap();
        }
        assert_eq!(listed(bucket, all(&folder)).await.0, kept);
        let missing = [kept[0].clone(), service.key("never was")];
        bucket.delete(&missing).await.unwrap();
        bucket.delete(&missing).await.unwrap();
        assert_eq!(listed(bucket, all(&folder)).await.0, kept[1..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_hold_what_urls_and_xml_cannot() {
    let service = Service::moto().await;
    let bucket = &service.bucket;
    let names = ["a b", "a+b", "a%20b", "ä€", "<&>'\"", "a?b#c", "=,;:@$!*()", "a\\b"];
    let mut keys: Vec<String> = names.iter().map(|name| service.key(&format!("odd/{name}/object"))).collect();
    keys.sort_unstable();
    for key in &keys {
        let done = bucket.put(key, Bytes::from("content"), Class::Data, false).await;
        assert!(done.is_ok(), "{key:?}: {done:?}");
        assert_eq!(collect(bucket.read(key, None).await.unwrap()).await, b"content", "{key:?}");
    }
    let folder = service.key("odd/");
    assert_eq!(listed(bucket, all(&folder)).await.0, keys);
    let (_, folders, _) = listed(bucket, ListQuery { folders: true, ..all(&folder) }).await;
    let expected: Vec<String> =
        keys.iter().map(|key| key.strip_suffix("object").unwrap().to_owned()).collect();
    assert_eq!(folders, expected);
    bucket.delete(&keys).await.unwrap();
    assert_eq!(listed(bucket, all(&folder)).await.0, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found() {
    for service in Service::every().await {
        let (bucket, key) = (&service.bucket, service.key("nothing"));
        assert!(matches!(kind(bucket.head(&key).await), ErrorKind::NotFound));
        assert!(matches!(kind(bucket.read(&key, None).await), ErrorKind::NotFound));
        let range = VersionRange { version: "\"0\"", start: 0, end: 1 };
        assert!(matches!(kind(bucket.read(&key, Some(range)).await), ErrorKind::NotFound));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_is_no_missing_object() {
    for service in Service::every().await {
        let bucket = S3Bucket::new(&S3Settings { bucket: "not-there".into(), ..service.settings.clone() });
        let mut kinds = vec![kind(bucket.list(all("")).await)];
        // s3s does not look for the bucket.
        if service.name == "moto" {
            kinds.push(kind(bucket.read("k", None).await));
            kinds.push(kind(bucket.put("k", Bytes::new(), Class::Data, false).await));
            kinds.push(kind(bucket.begin("k").await));
        }
        for kind in kinds {
            assert_eq!(
                kind.to_string(),
                "the bucket not-there does not exist (NoSuchBucket): create it or correct bucket in the configuration",
                "{}",
                service.name
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused_with_what_is_wrong_with_it() {
    let service = Service::s3s().await;
    let bucket = bucket(&S3Settings { key: Some(key(ID, "wrong")), ..service.settings.clone() });
    assert_eq!(
        kind(bucket.put("k", Bytes::new(), Class::Data, false).await).to_string(),
        "the secret key does not fit the access key (SignatureDoesNotMatch): correct access-key-id and \
         secret-access-key in the configuration"
    );
}

fn key(id: &str, secret: &str) -> S3Key {
    S3Key { id: Secret::Plain(id.to_owned().into()), secret: Secret::Plain(secret.to_owned().into()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_had_is_refused_or_waited_for() {
    let agent = SecretAgentSettings {
        address: AgentAddress::Unix("/nowhere/agent".into()),
        timeout: Duration::from_secs(1),
        base64: false,
    };
    let reference = "secrets:s3:key".parse().unwrap();
    let file = S3Key { id: Secret::File("/nowhere/id".into()), ..key("", SECRET) };
    let agent = S3Key { secret: Secret::Agent(agent.into(), reference), ..key(ID, "") };
    let fails = async |key| {
        let bucket = bucket(&S3Settings { key: Some(key), ..settings("http://127.0.0.1:9") });
        kind(bucket.head("k").await)
    };
    let refused = fails(file).await;
    assert!(matches!(refused, ErrorKind::Refused { .. }), "{refused:?}");
    assert!(refused.to_string().starts_with("reading the secret in the file /nowhere/id: "), "{refused}");
    let unavailable = fails(agent).await;
    assert!(matches!(unavailable, ErrorKind::Unavailable(_)), "{unavailable:?}");
    assert!(unavailable.to_string().starts_with("asking the secret agent at "), "{unavailable}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changes_is_read_again_and_stays_good_while_its_agent_is_out_of_reach() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent");
    let agent = SecretAgentSettings {
        address: AgentAddress::Unix(socket.clone()),
        timeout: Duration::from_secs(1),
        base64: false,
    };
    let secret = Secret::Agent(agent.into(), "secrets:s3:key".parse().unwrap());
    let configured = ConfiguredKey::new(&S3Key { secret, ..key(ID, "") });
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let serve = async |value: &str| {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 8];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
        let answer = format!("{{\"SecretValue\":\"{value}\"}}");
        stream.write_all(&head[..4]).await.unwrap();
        stream.write_all(&(answer.len() as u32).to_be_bytes()).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
    };
    for value in ["first", "second"] {
        let (had, ()) = tokio::join!(configured.provide_credentials(), serve(value));
        assert_eq!(had.unwrap().secret_access_key(), value);
    }
    drop(listener);
    assert_eq!(configured.provide_credentials().await.unwrap().secret_access_key(), "second");
}

/// What [`child`] prints, with these variables of the environment.
fn in_environment(endpoint: &str, variables: &[(&str, &str)]) -> String {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "s3::tests::child", "--ignored", "--nocapture"])
        .env("ABS_TEST_CHILD", endpoint)
        .env("HOME", "/nowhere")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    String::from_utf8_lossy(&child.stdout).into_owned()
}

/// Puts an object and reads it, as the variables of the environment say: only another process may change its own.
#[tokio::test]
#[ignore = "run by other tests"]
async fn child() {
    let endpoint = std::env::var("ABS_TEST_CHILD").unwrap();
    let bucket = bucket(&S3Settings { key: None, ..settings(&endpoint) });
    match bucket.put("k", Bytes::from("content"), Class::Data, false).await {
        Ok(_) => println!("[{:?}]", collect(bucket.read("k", None).await.unwrap()).await == b"content"),
        Err(failure) => println!("[{:?}]", failure.kind),
    }
}

const KEY: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", ID), ("AWS_SECRET_ACCESS_KEY", SECRET)];

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_the_environment_or_are_asked_for() {
    let service = Service::s3s().await;
    let endpoint = service.settings.endpoint.as_deref().unwrap();
    let with = in_environment(endpoint, &KEY);
    assert!(with.contains("[true]"), "{with}");
    let wrong = in_environment(endpoint, &[KEY[0], ("AWS_SECRET_ACCESS_KEY", "wrong")]);
    assert!(wrong.contains("correct the credentials of the environment or of the profile"), "{wrong}");
    let without = in_environment(endpoint, &[]);
    let remedy = "give access-key-id and secret-access-key, a profile, or credentials in the environment";
    assert!(without.contains("Refused") && without.contains(remedy), "{without}");
    // A metadata service that does not answer may still be starting.
    let closed =
        [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")];
    let starting = in_environment(endpoint, &closed);
    assert!(starting.contains("Unavailable") && starting.contains(remedy), "{starting}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_trusted_if_an_authority_of_this_machine_vouches_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (endpoint, certificate) = service::serve_s3s_over_tls(folder.path()).await;
    let file = folder.path().join("authorities.pem");
    std::fs::write(&file, certificate).unwrap();
    let trusting = in_environment(&endpoint, &[KEY[0], KEY[1], ("SSL_CERT_FILE", file.to_str().unwrap())]);
    assert!(trusting.contains("[true]"), "{trusting}");
    let wary = in_environment(&endpoint, &KEY);
    let remedy = "install the certificate of its authority on this machine, or correct the endpoint";
    assert!(wary.contains("Refused") && wary.contains(remedy), "{wary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_the_environment_is_asked() {
    let service = Service::s3s().await;
    let proxy = service.settings.endpoint.as_deref().unwrap();
    let with = in_environment("http://s3.invalid", &[KEY[0], KEY[1], ("HTTP_PROXY", proxy)]);
    assert!(with.contains("[true]"), "{with}");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_and_metadata_go_into_their_classes_and_archives_are_told() {
    let service = Service::moto().await;
    let bucket = bucket(&S3Settings {
        data_class: Some(S3DataClass::Glacier),
        metadata_class: Some(S3MetadataClass::StandardIa),
        ..service.settings.clone()
    });
    let (data, parts, metadata) = (service.key("data"), service.key("parts"), service.key("metadata"));
    bucket.put(&data, Bytes::from("data"), Class::Data, false).await.unwrap();
    bucket.put(&metadata, Bytes::from("metadata"), Class::Metadata, false).await.unwrap();
    upload(&bucket, &parts, &pattern(PART + 1)).await;
    for key in [&data, &parts] {
        assert_eq!(bucket.head(key).await.unwrap().archived.as_deref(), Some("GLACIER"));
        let archived = kind(bucket.read(key, None).await);
        assert!(matches!(&archived, ErrorKind::Archived { tier, .. } if tier == "GLACIER"), "{archived:?}");
    }
    let listed = bucket.list(all(&service.key(""))).await.unwrap().objects;
    let archived: Vec<_> = listed.into_iter().map(|entry| entry.archived).collect();
    assert_eq!(archived, [Some("GLACIER".to_owned()), None, Some("GLACIER".to_owned())]);
    assert_eq!(collect(bucket.read(&metadata, None).await.unwrap()).await, b"metadata");
    let connection = bucket.connection().await;
    let client = &connection.client;
    let head = client.head_object().bucket(&service.settings.bucket).key(&metadata).send().await.unwrap();
    assert_eq!(head.storage_class().map(StorageClass::as_str), Some("STANDARD_IA"));

    let days = aws_sdk_s3::types::RestoreRequest::builder().days(1).build();
    let restore = client.restore_object().bucket(&service.settings.bucket).key(&data).restore_request(days);
    restore.send().await.unwrap();
    assert_eq!(bucket.head(&data).await.unwrap().archived, None);
    assert_eq!(collect(bucket.read(&data, None).await.unwrap()).await, b"data");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_nobody_answers_for_is_out_of_reach() {
    let bucket = bucket(&settings("http://127.0.0.1:9"));
    let Failure { kind, retry_after } = bucket.list(all("")).await.unwrap_err();
    assert!(matches!(kind, ErrorKind::Unavailable(_)), "{kind:?}");
    let text = kind.to_string();
    assert!(text.contains("Connection refused") && !text.contains('\n'), "{text}");
    assert_eq!(retry_after, None);
}

#[test]
fn a_place_is_written_as_its_owner_does() {
    let bucket = bucket(&settings("http://127.0.0.1:9"));
    assert_eq!(
        (bucket.place("a/b").as_str(), bucket.place("").as_str()),
        ("s3://abs-test/a/b", "s3://abs-test")
    );
}
