//! What breaks between here and Google: answers that are lost, parts that arrive in part, bytes that change.

use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::wire::{Message, answer, serve};
use super::*;

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The request is done, but nobody hears of it.
    LoseAnswer,
    /// Only so many bytes of the body arrive, and the answer is lost.
    Cut(usize),
    /// Only so many bytes of the body arrive, and the answer says so.
    Shorten(usize),
    /// A byte in the middle of the body changes.
    Corrupt,
    /// The same, and nobody can tell: the checksum is gone, too.
    CorruptUnseen,
    /// The service is busy.
    Busy,
}

/// The emulator behind a wire that does `fault` to the requests that `hits` accepts.
async fn faulty(
    fault: Fault,
    hits: impl Fn(&Message) -> bool + Send + Sync + 'static,
) -> (GcsBucket, Arc<Mutex<Vec<String>>>) {
    emulator().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (upstream, hits, log) = (endpoint(), Arc::new(hits), Arc::clone(&seen));
    let url = serve(move |request, stream| {
        let hit = hits(&request).then_some(fault);
        log.lock().unwrap().push(request.line().to_owned());
        forward(upstream.clone(), request, stream, hit)
    });
    (GcsBucket::new(&settings(&url.await)), seen)
}

async fn forward(upstream: String, request: Message, mut stream: TcpStream, fault: Option<Fault>) {
    let Message { mut head, mut body } = request;
    match fault {
        Some(Fault::Busy) => return answer(&mut stream, 503, "").await,
        Some(Fault::Cut(length) | Fault::Shorten(length)) => body.truncate(length),
        Some(Fault::Corrupt) => change(&mut body),
        Some(Fault::CorruptUnseen) => {
            change(&mut body);
            head = head.replace("x-goog-hash", "x-lost-hash");
        }
        Some(Fault::LoseAnswer) | None => {}
    }
    let mut service = TcpStream::connect(upstream.trim_start_matches("http://")).await.unwrap();
    let closing = |head: &str| head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let head = closing(&head);
    service.write_all(head.as_bytes()).await.unwrap();
    service.write_all(&body).await.unwrap();
    service.shutdown().await.unwrap();
    let reply = Message::read(&mut service).await.unwrap();
    if !matches!(fault, Some(Fault::LoseAnswer | Fault::Cut(_))) {
        let _ = stream.write_all(&[closing(&reply.head).as_bytes(), &reply.body].concat()).await;
    }
}

fn change(body: &mut [u8]) {
    let middle = body.len() / 2;
    body[middle] ^= 1;
}

/// Accepts the first request whose head holds `words`.
fn first(words: &'static str) -> impl Fn(&Message) -> bool {
    let done = Mutex::new(false);
    move |request| request.head.contains(words) && !std::mem::replace(&mut done.lock().unwrap(), true)
}

/// Stores a part, tried again as often as it takes; returns how often that was.
async fn store(bucket: &GcsBucket, key: &str, upload: &Upload, part: Part) -> usize {
    for tries in 1..=5 {
        match bucket.part(key, upload, part.clone()).await {
            Ok(()) => return tries,
            Err(failure) => assert!(matches!(failure.kind, ErrorKind::Unavailable(_)), "{failure:?}"),
        }
    }
    panic!("the part is not stored");
}

#[tokio::test]
async fn a_part_goes_on_where_it_broke() {
    let content = pattern(3 * PART + 77);
    let end = content.len();
    for (fault, range) in [
        (Fault::LoseAnswer, format!("bytes {PART}-{}/*", 2 * PART - 1)),
        (Fault::Cut(0), format!("bytes {PART}-{}/*", 2 * PART - 1)),
        (Fault::Cut(1000), format!("bytes {PART}-{}/*", 2 * PART - 1)),
        (Fault::Shorten(1000), format!("bytes {PART}-{}/*", 2 * PART - 1)),
        (Fault::Busy, format!("bytes {PART}-{}/*", 2 * PART - 1)),
        (Fault::Cut(0), format!("bytes 0-{}/*", PART - 1)),
        (Fault::LoseAnswer, format!("bytes {}-{}/{end}", 3 * PART, end - 1)),
        (Fault::Cut(70), format!("bytes {}-{}/{end}", 3 * PART, end - 1)),
        (Fault::Busy, format!("bytes {}-{}/{end}", 3 * PART, end - 1)),
    ] {
        let done = Mutex::new(false);
        let (bucket, seen) = faulty(fault, move |request| {
            request.head.contains(&range) && !std::mem::replace(&mut done.lock().unwrap(), true)
        })
        .await;
        let key = format!("{}o", folder());
        let upload = bucket.begin(&key).await.unwrap();
        let mut tries = 0;
        for part in parts(&content) {
            tries += store(&bucket, &key, &upload, part).await;
        }
        assert_eq!(tries, 5, "one of four parts was tried twice: {fault:?} {:?}", seen.lock().unwrap());
        bucket.complete(&key, &upload, &[], end as u64).await.unwrap();
        assert!(read(&bucket, &key).await == content);
    }
}

#[tokio::test]
async fn what_is_stored_of_a_part_is_not_sent_again() {
    let content = pattern(2 * PART);
    let (bucket, seen) = faulty(Fault::Cut(PART), first("bytes 0-")).await;
    let key = format!("{}o", folder());
    let upload = bucket.begin(&key).await.unwrap();
    for part in parts(&content) {
        store(&bucket, &key, &upload, part).await;
    }
    let puts = seen.lock().unwrap().iter().filter(|line| line.starts_with("PUT")).count();
    assert_eq!(puts, 3, "the part, a question, the next part");
    assert!(read(&bucket, &key).await == content);
}

#[tokio::test]
async fn an_abort_deletes_the_object_whose_last_answer_was_lost() {
    let content = pattern(PART + 1);
    let (bucket, _) = faulty(Fault::LoseAnswer, first("/262145\r\n")).await;
    let key = format!("{}o", folder());
    let upload = bucket.begin(&key).await.unwrap();
    let mut parts = parts(&content);
    bucket.part(&key, &upload, parts.remove(0)).await.unwrap();
    assert!(bucket.part(&key, &upload, parts.remove(0)).await.is_err());
    assert!(bucket.head(&key).await.is_ok(), "it was made, but nobody heard of it");
    bucket.abort(&key, &upload).await.unwrap();
    assert!(matches!(bucket.head(&key).await.unwrap_err().kind, ErrorKind::NotFound));
}

#[tokio::test]
async fn bytes_that_change_on_the_way_are_refused() {
    let content = pattern(PART + 100);
    let (bucket, _) = faulty(Fault::Corrupt, |request| request.body.len() > 1000).await;
    let key = format!("{}o", folder());
    let failure = bucket.put(&key, content.clone(), Class::Data, false).await.unwrap_err();
    assert!(matches!(failure.kind, ErrorKind::Unavailable(_)), "{failure:?}");

    for fault in [Fault::Corrupt, Fault::CorruptUnseen] {
        let (bucket, _) =
            faulty(fault, |request| request.body.len() == PART || request.head.contains("x-goog-hash")).await;
        let upload = bucket.begin(&key).await.unwrap();
        let mut parts = parts(&content);
        bucket.part(&key, &upload, parts.remove(0)).await.unwrap();
        let failure = bucket.part(&key, &upload, parts.remove(0)).await.unwrap_err();
        assert!(matches!(failure.kind, ErrorKind::Unavailable(_)), "{failure:?}");
        assert!(bucket.complete(&key, &upload, &[], content.len() as u64).await.is_err());
        assert!(matches!(bucket.head(&key).await.unwrap_err().kind, ErrorKind::NotFound));
    }
}

#[tokio::test]
async fn who_is_not_there_or_breaks_off_is_asked_again() {
    let nobody = GcsBucket::new(&settings("http://127.0.0.1:1"));
    let failure = nobody.head("o").await.unwrap_err();
    assert!(matches!(&failure.kind, ErrorKind::Unavailable(text) if text.contains("refused")), "{failure:?}");

    let torn = serve(async |_, mut stream: TcpStream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1234").await.unwrap();
    });
    let bucket = GcsBucket::new(&settings(&torn.await));
    let failure = bytes(bucket.read("o", None).await.unwrap()).await.unwrap_err();
    assert!(matches!(failure.kind, ErrorKind::Unavailable(_)), "{failure:?}");

    let busy = serve(async |_, mut stream: TcpStream| {
        stream.write_all(b"HTTP/1.1 429 X\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    });
    let failure = GcsBucket::new(&settings(&busy.await)).head("o").await.unwrap_err();
    assert!(matches!(failure.kind, ErrorKind::Unavailable(_)), "{failure:?}");
    assert_eq!(failure.retry_after, Some(Duration::from_secs(9)));
}
