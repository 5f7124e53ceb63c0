//! What answers mean, and what is asked, with a server that gives answers as services do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::service::{Service, bucket, settings};
use super::{all, collect, kind};
use crate::ErrorKind;
use crate::cloud::bucket::{Bucket as _, Class, Part};
use crate::s3::client::Connection;
use crate::s3::{Receipt, S3Bucket};

/// A server that gives these answers, one after the other, each on a connection of its own, and notes the heads of the
/// requests.
async fn answers(answers: Vec<String>) -> (S3Bucket, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&heads);
    tokio::spawn(async move {
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let head = read_request(&mut socket).await;
            noted.lock().unwrap().push(head);
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (bucket(&settings(&url)), heads)
}

/// Reads a request; its head.
async fn read_request(socket: &mut TcpStream) -> String {
    read_whole_request(socket).await.0
}

/// Reads a request; its head in small letters, and all of it.
async fn read_whole_request(socket: &mut TcpStream) -> (String, Vec<u8>) {
    let mut read = Vec::new();
    loop {
        let end = read.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if read.len() >= end + 4 + length.unwrap_or(0) {
                return (head, read);
            }
        }
        assert!(socket.read_buf(&mut read).await.unwrap() > 0, "the request broke off");
    }
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} -\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

fn error(status: u16, code: &str, message: &str) -> String {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
         <RequestId>4442587FB7D0A2F9</RequestId></Error>"
    );
    answer(status, "content-type: application/xml\r\n", &body)
}

#[tokio::test]
async fn a_code_says_what_is_wrong_and_what_to_do() {
    for (status, code, message, expected) in [
        (404, "NoSuchKey", "The specified key does not exist.", "NotFound: it does not exist"),
        (404, "NoSuchUpload", "The specified upload does not exist.", "NotFound: it does not exist"),
        (
            404,
            "NoSuchBucket",
            "The specified bucket does not exist",
            "Refused: the bucket abs-test does not exist (NoSuchBucket): create it or correct bucket in the configuration",
        ),
        (
            403,
            "AccessDenied",
            "User: arn:aws:iam::1:user/u is not authorized to perform: s3:GetObject",
            "Refused: User: arn:aws:iam::1:user/u is not authorized to perform: s3:GetObject (AccessDenied): allow \
             these credentials to list the bucket and to read, write and delete its objects, and look whether the \
             account is active",
        ),
        (
            403,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
            "Refused: the access key is unknown (InvalidAccessKeyId): correct access-key-id and secret-access-key in \
             the configuration",
        ),
        (
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
            "Refused: the secret key does not fit the access key (SignatureDoesNotMatch): correct access-key-id and \
             secret-access-key in the configuration",
        ),
        (
            400,
            "ExpiredToken",
            "The provided token has expired.",
            "Refused: the credentials have expired or are no longer valid (ExpiredToken): renew them",
        ),
        (
            400,
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'",
            "Refused: the bucket abs-test is not in the region us-east-1: The authorization header is malformed; the \
             region 'us-east-1' is wrong; expecting 'eu-west-1' (AuthorizationHeaderMalformed): set s3-region to the \
             region of the bucket, and look at s3-endpoint-override",
        ),
        (
            400,
            "InvalidStorageClass",
            "The storage class you specified is not valid",
            "Refused: The storage class you specified is not valid (InvalidStorageClass): correct storage-class in the \
             configuration to one that this bucket has",
        ),
        (
            507,
            "XMinioStorageFull",
            "Storage backend has reached its minimum free drive threshold.",
            "Full: Storage backend has reached its minimum free drive threshold (XMinioStorageFull)",
        ),
        (
            400,
            "InvalidRequest",
            "Something\n  else.",
            "Refused: Something else (InvalidRequest): look at the settings of the storage, of the bucket and of its \
             service",
        ),
        (
            503,
            "SlowDown",
            "Please reduce your request rate.",
            "Unavailable: Please reduce your request rate (SlowDown)",
        ),
        (
            500,
            "InternalError",
            "We encountered an internal error.",
            "Unavailable: We encountered an internal error (InternalError)",
        ),
        (400, "RequestTimeout", "Idle", "Unavailable: Idle (RequestTimeout)"),
        (
            400,
            "BadDigest",
            "The CRC32C you specified did not match",
            "Unavailable: The CRC32C you specified did not match (BadDigest)",
        ),
        (
            409,
            "OperationAborted",
            "A conflicting operation",
            "Unavailable: A conflicting operation (OperationAborted)",
        ),
        (
            403,
            "RequestTimeTooSkewed",
            "The difference is too large.",
            "Unavailable: the clocks of this machine and of the service differ too much (RequestTimeTooSkewed): set the clock",
        ),
    ] {
        let (bucket, _) = answers(vec![error(status, code, message)]).await;
        let kind = kind(bucket.read("k", None).await);
        let debug = format!("{kind:?}");
        let variant = debug.split(['(', ' ']).next().unwrap();
        assert_eq!(format!("{variant}: {kind}"), expected);
    }
}

#[tokio::test]
async fn without_a_code_the_status_decides() {
    for (status, passes) in [
        (400, false),
        (401, false),
        (404, false),
        (408, true),
        (429, true),
        (500, true),
        (501, false),
        (502, true),
        (503, true),
        (504, true),
    ] {
        for body in ["", "<html>Service Unavailable</html>"] {
            let (bucket, _) = answers(vec![answer(status, "", body)]).await;
            let kind = kind(bucket.list(all("")).await);
            assert_eq!(matches!(kind, ErrorKind::Unavailable(_)), passes, "{status}: {kind:?}");
        }
    }
}

#[tokio::test]
async fn the_service_says_when_to_come_back() {
    let (bucket, _) = answers(vec![answer(503, "retry-after: 7\r\n", "")]).await;
    assert_eq!(bucket.list(all("")).await.unwrap_err().retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_head_has_no_text_but_a_meaning() {
    for (status, expected) in [
        (404, "NotFound"),
        (403, "Refused { reason: \"access is denied (403)\""),
        (400, "Refused { reason: \"the request is not accepted (400)\""),
        (301, "Refused { reason: \"the bucket abs-test is not in the region us-east-1: "),
        (503, "Unavailable"),
    ] {
        let (bucket, _) = answers(vec![format!("HTTP/1.1 {status} -\r\nconnection: close\r\n\r\n")]).await;
        let kind = format!("{:?}", kind(bucket.head("k").await));
        assert!(kind.starts_with(expected), "{status}: {kind}");
    }
}

#[tokio::test]
async fn the_region_of_the_bucket_is_named_when_the_service_names_it() {
    let redirect = answer(301, "x-amz-bucket-region: eu-west-1\r\n", "");
    let (bucket, _) = answers(vec![redirect]).await;
    let kind = kind(bucket.list(all("")).await).to_string();
    assert!(kind.ends_with(": set s3-region to eu-west-1"), "{kind}");
}

#[tokio::test]
async fn a_conflict_of_conditional_puts_is_no_answer() {
    let conflict =
        || error(409, "ConditionalRequestConflict", "A conflicting conditional operation is in progress");
    let absent =
        || error(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold");
    let (bucket, _) = answers(vec![conflict(), absent()]).await;
    let put = || bucket.put("k", Bytes::from("k"), Class::Metadata, true);
    assert!(matches!(kind(put().await), ErrorKind::Unavailable(_)));
    assert!(!put().await.unwrap());
}

#[tokio::test]
async fn an_error_in_an_answer_that_looks_like_success_is_one() {
    let deleted = "<DeleteResult><Error><Key>a</Key><Code>NoSuchKey</Code></Error>\
                   <Error><Key>b</Key><Code>%</Code><Message>Denied</Message></Error></DeleteResult>";
    let (bucket, heads) = answers(vec![
        error(200, "InternalError", "We encountered an internal error."),
        error(200, "NoSuchUpload", "The specified upload does not exist."),
        answer(200, "", &deleted.replace('%', "AccessDenied")),
        answer(200, "", &deleted.replace('%', "InternalError")),
    ])
    .await;
    let receipt = || Receipt { number: 1, etag: Some("\"e\"".into()), crc32c: None };
    let upload = "u".to_owned();
    let completed = bucket.complete("k", &upload, &[receipt()], 1).await;
    assert!(matches!(kind(completed), ErrorKind::Unavailable(_)));
    let completed = bucket.complete("k", &upload, &[receipt()], 1).await;
    assert!(matches!(kind(completed), ErrorKind::NotFound));
    let keys = ["a".to_owned(), "b".to_owned()];
    let refused = kind(bucket.delete(&keys).await);
    assert!(matches!(refused, ErrorKind::Refused { .. }), "{refused:?}");
    assert!(matches!(kind(bucket.delete(&keys).await), ErrorKind::Unavailable(_)));
    let heads = heads.lock().unwrap();
    assert!(
        heads[2].contains("content-md5: ") && heads[2].contains("x-amz-checksum-crc32: "),
        "{}",
        heads[2]
    );
}

#[tokio::test]
async fn bytes_that_break_off_or_changed_are_an_error() {
    let torn = "HTTP/1.1 200 -\r\nconnection: close\r\ncontent-length: 9\r\n\r\nshort".to_owned();
    // The checksum is that of other bytes.
    let changed = answer(200, "x-amz-checksum-crc32c: AAAAAA==\r\n", "content");
    let (bucket, heads) = answers(vec![torn, changed]).await;
    for _ in 0..2 {
        let mut body = bucket.read("k", None).await.unwrap();
        let failure = loop {
            use futures_util::StreamExt as _;
            match body.chunks.next().await {
                Some(Ok(_)) => {}
                end => break end.unwrap().unwrap_err(),
            }
        };
        assert!(matches!(failure.kind, ErrorKind::Unavailable(_)), "{failure:?}");
    }
    assert!(heads.lock().unwrap()[0].contains("x-amz-checksum-mode: enabled"));
}

#[tokio::test]
async fn after_a_complaint_about_the_clock_requests_are_signed_with_that_of_the_service() {
    let future = "date: Tue, 01 Jun 2100 00:00:00 GMT\r\n";
    let skewed =
        error(403, "RequestTimeTooSkewed", "-").replacen("connection", &format!("{future}connection"), 1);
    let (bucket, heads) = answers(vec![skewed, answer(200, "", "content")]).await;
    assert!(matches!(kind(bucket.read("k", None).await), ErrorKind::Unavailable(_)));
    assert_eq!(collect(bucket.read("k", None).await.unwrap()).await, b"content");
    let heads = heads.lock().unwrap();
    assert!(!heads[0].contains("x-amz-date: 2100") && heads[1].contains("x-amz-date: 2100"), "{heads:?}");
}

#[tokio::test]
async fn a_request_is_tried_once() {
    let (bucket, heads) = answers(vec![error(503, "SlowDown", "-"), error(503, "SlowDown", "-")]).await;
    assert!(matches!(kind(bucket.list(all("")).await), ErrorKind::Unavailable(_)));
    assert_eq!(heads.lock().unwrap().len(), 1);
}

/// A way to a server on which the last byte of each request that has a body changes.
async fn damaging_way(url: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let way = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (head, mut request) = read_whole_request(&mut client).await;
            if !head.contains("content-length: 0") {
                *request.last_mut().unwrap() ^= 1;
            }
            let mut server = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
            server.write_all(&request).await.unwrap();
            tokio::spawn(async move { tokio::io::copy(&mut server, &mut client).await });
        }
    });
    way
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_change_on_their_way_are_noticed() {
    let service = Service::s3s().await;
    let upload = service.bucket.begin("k").await.unwrap();
    let way = damaging_way(service.settings.endpoint.clone().unwrap()).await;
    // Over plain HTTP the signature is that of the bytes. s3s calls it InternalError.
    let signing = bucket(&settings(&way));
    let part = Part { number: 1, offset: 0, bytes: Bytes::from("part"), last: true };
    let signed = kind(signing.part("k", &upload, part).await);
    assert!(matches!(signed, ErrorKind::Unavailable(_)), "{signed:?}");
    // Over TLS it is the checksum.
    let client = signing.connection().await.client.clone();
    let connection = Connection { client, is_aws: false, signs_bodies: false }.into();
    let trusting = S3Bucket { connection, ..bucket(&settings(&way)) };
    let sent = kind(trusting.put("k", Bytes::from("content"), Class::Data, false).await);
    assert!(matches!(&sent, ErrorKind::Unavailable(text) if text.contains("BadDigest")), "{sent:?}");
}

#[tokio::test]
async fn the_next_page_of_uploads_begins_where_the_last_ended() {
    let page = |rest: &str| {
        let upload = "<Upload><Key>a%2Fb+%2B</Key><UploadId>one</UploadId>\
                      <Initiated>2026-01-02T03:04:05.000Z</Initiated></Upload>";
        let body = format!(
            "<ListMultipartUploadsResult><EncodingType>url</EncodingType>{upload}{rest}</ListMultipartUploadsResult>"
        );
        answer(200, "", &body)
    };
    let more = "<IsTruncated>true</IsTruncated><NextKeyMarker>a%2Fb+%2B</NextKeyMarker>\
                <NextUploadIdMarker>one</NextUploadIdMarker>";
    let (bucket, heads) = answers(vec![page(more), page("<IsTruncated>false</IsTruncated>")]).await;
    let first = bucket.uploads("a/", None).await.unwrap();
    assert_eq!((first.uploads[0].key.as_str(), first.uploads[0].upload.as_str()), ("a/b +", "one"));
    let last = bucket.uploads("a/", first.next.as_deref()).await.unwrap();
    assert_eq!(last.next, None);
    let heads = heads.lock().unwrap();
    assert!(heads[0].contains("prefix=a%2f") && !heads[0].contains("marker"), "{}", heads[0]);
    assert!(heads[1].contains("key-marker=a%2fb%20%2b"), "{}", heads[1]);
    assert!(heads[1].contains("upload-id-marker=one"), "{}", heads[1]);
}

#[tokio::test]
async fn a_copy_that_was_restored_can_be_read_and_one_on_its_way_cannot() {
    let object = |key: &str, class: &str, restore: &str| {
        format!(
            "<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified>\
             <StorageClass>{class}</StorageClass>{restore}</Contents>"
        )
    };
    let going = "<RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus>";
    let done = "<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress>\
                <RestoreExpiryDate>2126-01-02T03:04:05.000Z</RestoreExpiryDate></RestoreStatus>";
    let body = [
        object("a", "GLACIER", ""),
        object("b", "DEEP_ARCHIVE", going),
        object("c", "GLACIER", done),
        object("d", "GLACIER_IR", ""),
        object("e", "STANDARD", ""),
    ];
    let body = format!("<ListBucketResult>{}</ListBucketResult>", body.concat());
    let heads = [
        "x-amz-storage-class: DEEP_ARCHIVE\r\n",
        "x-amz-storage-class: GLACIER\r\nx-amz-restore: ongoing-request=\"true\"\r\n",
        "x-amz-storage-class: GLACIER\r\n\
         x-amz-restore: ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2126 00:00:00 GMT\"\r\n",
        "x-amz-storage-class: INTELLIGENT_TIERING\r\nx-amz-archive-status: ARCHIVE_ACCESS\r\n",
        "x-amz-storage-class: INTELLIGENT_TIERING\r\n",
        "x-amz-storage-class: GLACIER_IR\r\n",
    ];
    let mut given = vec![answer(200, "", &body)];
    given.extend(heads.iter().map(|headers| answer(200, headers, "")));
    let (bucket, _) = answers(given).await;
    let objects = bucket.list(all("")).await.unwrap().objects;
    let archived: Vec<_> = objects.iter().map(|entry| entry.archived.as_deref()).collect();
    assert_eq!(archived, [Some("GLACIER"), Some("DEEP_ARCHIVE"), None, None, None]);
    for expected in [Some("DEEP_ARCHIVE"), Some("GLACIER"), None, Some("ARCHIVE_ACCESS"), None, None] {
        assert_eq!(bucket.head("k").await.unwrap().archived.as_deref(), expected);
    }
}

/// What is asked, of AWS or of another service.
async fn asked(aws: bool) -> Vec<String> {
    let begun = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
    let completed = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>";
    let (bucket, heads) = answers(vec![
        answer(200, "", "<ListBucketResult></ListBucketResult>"),
        answer(200, "", begun),
        answer(200, "etag: e\r\n", ""),
        answer(200, "", completed),
        answer(200, "", "<DeleteResult></DeleteResult>"),
    ])
    .await;
    if aws {
        let client = bucket.connection().await.client.clone();
        let connection = Connection { client, is_aws: true, signs_bodies: false };
        return ask(S3Bucket { connection: connection.into(), ..bucket }, &heads).await;
    }
    ask(bucket, &heads).await
}

async fn ask(bucket: S3Bucket, heads: &Mutex<Vec<String>>) -> Vec<String> {
    bucket.list(all("")).await.unwrap();
    let upload = bucket.begin("k").await.unwrap();
    let part = Part { number: 1, offset: 0, bytes: Bytes::from("part"), last: true };
    let receipt = bucket.part("k", &upload, part).await.unwrap();
    bucket.complete("k", &upload, &[receipt], 4).await.unwrap();
    bucket.delete(&["k".to_owned()]).await.unwrap();
    heads.lock().unwrap().clone()
}

#[tokio::test]
async fn only_aws_is_asked_for_what_others_may_not_know() {
    let only_aws = [
        (0, "x-amz-optional-object-attributes: restorestatus"),
        (1, "x-amz-checksum-type: full_object"),
        (2, "x-amz-content-sha256: unsigned-payload"),
        (3, "x-amz-mp-object-size: 4"),
    ];
    let (aws, other) = (asked(true).await, asked(false).await);
    for (request, header) in only_aws {
        assert!(aws[request].contains(header), "{}", aws[request]);
        assert!(!other[request].contains(header), "{}", other[request]);
    }
    assert!(!aws[4].contains("content-md5") && other[4].contains("content-md5"), "{}", other[4]);
    for head in [&aws[2], &other[2]] {
        assert!(head.contains("x-amz-checksum-crc32c: ") && !head.contains("chunked"), "{head}");
    }
}
