//! The bucket against the emulator of `scripts/emulators`; with `ABS_TEST_GCS` against another.

mod faults;
mod sign_in;
mod wire;

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::*;

const PART: usize = 256 << 10;

fn endpoint() -> String {
    std::env::var("ABS_TEST_GCS").unwrap_or_else(|_| "http://127.0.0.1:15103".to_owned())
}

fn settings(endpoint: &str) -> GcpSettings {
    GcpSettings {
        bucket: "abs-test".to_owned(),
        folder: String::new(),
        endpoint: Some(endpoint.to_owned()),
        key: None,
        part_size: PART as u64,
        data_class: None,
    }
}

/// The emulator's bucket and a folder of this test's own, with a `/` at its end.
async fn emulator() -> (GcsBucket, String) {
    let bucket = GcsBucket::new(&settings(&endpoint()));
    let query = ListQuery { prefix: "none", folders: false, page: None, limit: Some(1) };
    if let Err(failure) = bucket.list(query).await {
        panic!("start the emulators with scripts/emulators up ({}: {})", endpoint(), failure.kind);
    }
    (bucket, folder())
}

fn folder() -> String {
    format!("gcs-{:016x}/", fastrand::u64(..))
}

/// Bytes that differ from their neighbours, so that a shifted or repeated piece shows.
fn pattern(length: usize) -> Bytes {
    (0..length as u64)
        .flat_map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).to_le_bytes())
        .take(length)
        .collect()
}

/// `content` in parts of the least size.
fn parts(content: &Bytes) -> Vec<Part> {
    let starts = (0..content.len()).step_by(PART);
    let part = |(index, start): (usize, usize)| Part {
        number: index as u32 + 1,
        offset: start as u64,
        bytes: content.slice(start..content.len().min(start + PART)),
        last: start + PART >= content.len(),
    };
    starts.enumerate().map(part).collect()
}

async fn bytes(body: Body) -> Answer<Vec<u8>> {
    body.chunks.try_fold(Vec::new(), async |all, chunk| Ok([all, chunk.to_vec()].concat())).await
}

async fn read(bucket: &GcsBucket, key: &str) -> Vec<u8> {
    bytes(bucket.read(key, None).await.unwrap()).await.unwrap()
}

/// All keys and folders below a prefix, page by page.
async fn list(
    bucket: &GcsBucket,
    prefix: &str,
    folders: bool,
    limit: Option<i32>,
) -> (Vec<String>, Vec<String>) {
    let (mut keys, mut below, mut next) = (Vec::new(), Vec::new(), None::<String>);
    loop {
        let page = bucket.list(ListQuery { prefix, folders, page: next.as_deref(), limit }).await.unwrap();
        let count = page.objects.len() + page.folders.len();
        assert!(limit.is_none_or(|limit| count <= limit as usize), "{count} keys in a page");
        keys.extend(page.objects.into_iter().map(|entry| entry.key));
        below.extend(page.folders);
        next = page.next;
        if next.is_none() {
            return (keys, below);
        }
    }
}

fn refused(failure: Failure) -> String {
    match failure.kind {
        kind @ ErrorKind::Refused { .. } => kind.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn small_objects_are_stored_described_read_and_deleted() {
    let (bucket, folder) = emulator().await;
    for (name, content) in
        [("empty", Bytes::new()), ("text", Bytes::from("a\r\nb\n\r")), ("bytes", pattern(300_000))]
    {
        let key = format!("{folder}{name}");
        let before = SystemTime::now() - Duration::from_mins(1);
        assert!(bucket.put(&key, content.clone(), Class::Data, false).await.unwrap());
        let head = bucket.head(&key).await.unwrap();
        assert_eq!((head.size, head.archived), (content.len() as u64, None));
        let body = bucket.read(&key, None).await.unwrap();
        assert_eq!(body.length, Some(content.len() as u64));
        assert!(bytes(body).await.unwrap() == content, "{name}");

        let query = ListQuery { prefix: &key, folders: true, page: None, limit: Some(1) };
        let entry = bucket.list(query).await.unwrap().objects.remove(0);
        assert_eq!((&entry.key, entry.size, entry.archived), (&key, content.len() as u64, None));
        assert!(entry.modified > before && entry.modified < before + Duration::from_mins(2));

        bucket.delete(&[key.clone(), format!("{key}-none")]).await.unwrap();
        assert!(matches!(bucket.head(&key).await.unwrap_err().kind, ErrorKind::NotFound));
    }
}

#[tokio::test]
async fn the_version_changes_when_an_object_is_replaced() {
    let (bucket, folder) = emulator().await;
    let key = format!("{folder}o");
    bucket.put(&key, Bytes::from("first"), Class::Metadata, false).await.unwrap();
    let Head { version, .. } = bucket.head(&key).await.unwrap();
    let range = VersionRange { version: &version, start: 1, end: 3 };
    assert_eq!(bytes(bucket.read(&key, Some(range)).await.unwrap()).await.unwrap(), b"ir");

    bucket.put(&key, Bytes::from("other"), Class::Metadata, false).await.unwrap();
    assert_ne!(bucket.head(&key).await.unwrap().version, version);
    assert!(matches!(bucket.read(&key, Some(range)).await.unwrap_err().kind, ErrorKind::Changed));
    bucket.delete(std::slice::from_ref(&key)).await.unwrap();
    assert!(matches!(bucket.read(&key, Some(range)).await.unwrap_err().kind, ErrorKind::Changed));
    assert!(matches!(bucket.read(&key, None).await.unwrap_err().kind, ErrorKind::NotFound));
}

#[tokio::test]
async fn of_many_who_put_an_absent_object_one_wins() {
    let (bucket, folder) = emulator().await;
    let key = format!("{folder}claim");
    let racers = (0..16).map(|racer: u8| bucket.put(&key, Bytes::from(vec![racer]), Class::Metadata, true));
    let won: Vec<bool> = join_all(racers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
    let winner = won.iter().position(|won| *won).unwrap();
    assert_eq!(read(&bucket, &key).await, [winner as u8]);
    assert!(bucket.put(&key, Bytes::from("x"), Class::Metadata, false).await.unwrap(), "without a condition");
}

#[tokio::test]
async fn an_upload_appears_whole_with_its_last_part() {
    let (bucket, folder) = emulator().await;
    // The last part is shorter, or as long as the others.
    for length in [3 * PART + 12_345, 2 * PART] {
        let (key, content) = (format!("{folder}{length}"), pattern(length));
        let upload = bucket.begin(&key).await.unwrap();
        for part in parts(&content) {
            assert!(matches!(bucket.head(&key).await.unwrap_err().kind, ErrorKind::NotFound));
            assert!(
                bucket.complete(&key, &upload, &[], length as u64).await.is_err(),
                "it is not complete yet"
            );
            bucket.part(&key, &upload, part).await.unwrap();
        }
        bucket.complete(&key, &upload, &[], length as u64).await.unwrap();
        assert!(bucket.complete(&key, &upload, &[], 1).await.is_err());

        let Head { size, version, .. } = bucket.head(&key).await.unwrap();
        assert_eq!(size, length as u64);
        let mut found = Vec::new();
        for start in (0..size).step_by(100_000) {
            let end = size.min(start + 100_000);
            let body = bucket.read(&key, Some(VersionRange { version: &version, start, end })).await.unwrap();
            assert!(body.length.is_none_or(|length| length == end - start));
            found.extend(bytes(body).await.unwrap());
        }
        assert!(found == content);
    }
    assert!(bucket.uploads(&folder, None).await.unwrap().uploads.is_empty());
}

#[tokio::test]
async fn a_part_that_is_sent_again_is_stored_once() {
    let (bucket, folder) = emulator().await;
    let (key, content) = (format!("{folder}o"), pattern(2 * PART + 5));
    let upload = bucket.begin(&key).await.unwrap();
    for part in parts(&content) {
        bucket.part(&key, &upload, part.clone()).await.unwrap();
        bucket.part(&key, &upload, part).await.unwrap();
    }
    assert!(read(&bucket, &key).await == content);
}

#[tokio::test]
async fn parts_out_of_order_are_an_error_that_no_try_mends() {
    let (bucket, folder) = emulator().await;
    let (key, content) = (format!("{folder}o"), pattern(3 * PART));
    let upload = bucket.begin(&key).await.unwrap();
    let failure = bucket.part(&key, &upload, parts(&content).remove(1)).await.unwrap_err();
    assert!(matches!(failure.kind, ErrorKind::Io(_)), "{failure:?}");
}

#[tokio::test]
async fn an_aborted_upload_leaves_nothing() {
    let (bucket, folder) = emulator().await;
    let (key, content) = (format!("{folder}o"), pattern(2 * PART));
    let upload = bucket.begin(&key).await.unwrap();
    let mut parts = parts(&content);
    bucket.part(&key, &upload, parts.remove(0)).await.unwrap();
    bucket.abort(&key, &upload).await.unwrap();
    bucket.abort(&key, &upload).await.unwrap();
    let failure = bucket.part(&key, &upload, parts.remove(0)).await.unwrap_err();
    assert!(matches!(failure.kind, ErrorKind::Io(_)), "a new upload may go better: {failure:?}");
    assert_eq!(list(&bucket, &folder, false, None).await, (vec![], vec![]));
}

#[tokio::test]
async fn only_data_goes_to_the_storage_class_of_the_configuration() {
    let (_, folder) = emulator().await;
    let nearline = Some(abs_config::GcpDataClass::Nearline);
    let bucket = GcsBucket::new(&GcpSettings { data_class: nearline, ..settings(&endpoint()) });
    let keys = ["data", "metadata", "upload"].map(|name| format!("{folder}{name}"));
    bucket.put(&keys[0], pattern(1), Class::Data, false).await.unwrap();
    bucket.put(&keys[1], pattern(1), Class::Metadata, false).await.unwrap();
    let upload = bucket.begin(&keys[2]).await.unwrap();
    bucket.part(&keys[2], &upload, parts(&pattern(9)).remove(0)).await.unwrap();
    for (key, class) in keys.iter().zip(["NEARLINE", "STANDARD", "NEARLINE"]) {
        let url = bucket.url("/storage/v1", Some(key), &[]).unwrap();
        let answer = bucket.http().await.unwrap().get(url).send().await.unwrap().bytes().await.unwrap();
        let object: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(
            (&object["storageClass"], &object["contentType"]),
            (&class.into(), &OCTETS.into()),
            "{key}"
        );
        assert!(object["contentEncoding"].is_null());
    }
}

#[tokio::test]
async fn a_missing_bucket_is_named() {
    emulator().await;
    let bucket = GcsBucket::new(&GcpSettings { bucket: "abs-none".to_owned(), ..settings(&endpoint()) });
    let query = ListQuery { prefix: "", folders: true, page: None, limit: Some(1) };
    for text in [
        refused(bucket.list(query).await.unwrap_err()),
        refused(bucket.put("o", Bytes::from("x"), Class::Metadata, false).await.unwrap_err()),
        refused(bucket.put("o", Bytes::from("x"), Class::Metadata, true).await.unwrap_err()),
        refused(bucket.begin("o").await.unwrap_err()),
    ] {
        assert!(text.starts_with("the bucket abs-none does not exist (404 "), "{text}");
        assert!(text.ends_with("create it or correct bucket-name in the configuration"), "{text}");
    }
}

#[tokio::test]
async fn keys_are_taken_as_they_are() {
    let (bucket, folder) = emulator().await;
    let names = [
        "a b",
        "a+b",
        "a%2Fb",
        "a%",
        "a&b=c",
        "a?b",
        "a#b",
        "naïve/日本 語",
        "a;b:c@d,e",
        "(a)[b]{c}",
        "a\\b",
        "a\"b'c`",
        "...",
        "..a/.b",
        "tab\there",
        "~!*$^|<>",
    ];
    let mut keys = names.map(|name| format!("{folder}{name}"));
    keys.sort_unstable();
    for (index, key) in keys.iter().enumerate() {
        let content = Bytes::from(key.clone());
        if index % 2 == 0 {
            bucket.put(key, content, Class::Data, true).await.unwrap();
        } else {
            let upload = bucket.begin(key).await.unwrap();
            bucket.part(key, &upload, parts(&content).remove(0)).await.unwrap();
        }
    }
    assert_eq!(list(&bucket, &folder, false, None).await.0, keys);
    for key in &keys {
        assert_eq!(bucket.head(key).await.unwrap().size, key.len() as u64, "{key}");
        assert_eq!(read(&bucket, key).await, key.as_bytes());
        assert_eq!(list(&bucket, key, true, None).await.0.first(), Some(key));
    }
    bucket.delete(&keys).await.unwrap();
    assert_eq!(list(&bucket, &folder, false, None).await.0, [""; 0]);
}

#[tokio::test]
async fn listings_come_in_pages() {
    let (bucket, folder) = emulator().await;
    let keys: Vec<String> = (0..25).map(|i| format!("{folder}{:02}/{}", i / 2, i % 2)).collect();
    join_all(keys.iter().map(|key| bucket.put(key, Bytes::from("x"), Class::Data, false))).await;
    bucket.put(&format!("{folder}o"), Bytes::from("x"), Class::Data, false).await.unwrap();
    for limit in [None, Some(4), Some(1)] {
        let (found, folders) = list(&bucket, &folder, false, limit).await;
        assert_eq!((found.len(), folders.len()), (26, 0), "{limit:?}");
        assert_eq!(found[..25], keys);
        let (found, folders) = list(&bucket, &folder, true, limit).await;
        assert_eq!(found, [format!("{folder}o")]);
        assert_eq!(folders, (0..13).map(|i| format!("{folder}{i:02}/")).collect::<Vec<_>>(), "{limit:?}");
    }
    bucket.delete(&keys).await.unwrap();
    assert_eq!(list(&bucket, &folder, false, None).await.0, [format!("{folder}o")]);
}

#[test]
fn an_endpoint_may_hold_the_path_of_the_api() {
    for endpoint in ["http://h:1", "http://h:1/", "http://h:1/storage/v1", "http://h:1/storage/v1/"] {
        let url = GcsBucket::new(&settings(endpoint)).url("/storage/v1", Some("a/b"), &[]).unwrap();
        assert_eq!(url.as_str(), "http://h:1/storage/v1/b/abs-test/o/a%2Fb?");
    }
    let bucket = GcsBucket::new(&GcpSettings { endpoint: None, ..settings("") });
    let url = bucket.url("/upload/storage/v1", None, &[("name", "ä b")]).unwrap();
    assert_eq!(url.as_str(), "https://storage.googleapis.com/upload/storage/v1/b/abs-test/o?name=%C3%A4+b");
    assert_eq!(bucket.place("a/b"), "gs://abs-test/a/b");
}
