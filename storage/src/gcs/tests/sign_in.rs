//! The sign-in, at a Google of our own: what is asked there, and what its answers mean.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use abs_config::Secret;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::wire::{Message, answer, serve};
use super::*;
use crate::Storage as _;

/// Made for these tests; opens nothing.
const KEY: &str = include_str!("key.pem");

/// What the fake says to a sign-in: the status and the body.
type Says = Arc<Mutex<(u16, String)>>;

/// A Google that gives tokens and an empty bucket to those who bring the last one, and what it was asked.
async fn google(status: u16, body: Value) -> (String, Says, Arc<Mutex<Vec<Message>>>) {
    let says: Says = Arc::new(Mutex::new((status, body.to_string())));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (saying, log) = (Arc::clone(&says), Arc::clone(&asked));
    let url = serve(move |request: Message, mut stream: TcpStream| {
        let (mut status, mut body) = saying.lock().unwrap().clone();
        if request.line().starts_with("GET /storage") {
            let token: Value = serde_json::from_str(&body).unwrap_or_default();
            let token = token["access_token"].as_str().unwrap_or("none");
            let known = request.head.contains(&format!("authorization: Bearer {token}\r\n"));
            (status, body) = if known { (200, "{}".to_owned()) } else { (401, String::new()) };
        }
        log.lock().unwrap().push(request);
        async move { answer(&mut stream, status, &body).await }
    });
    (url.await, says, asked)
}

fn token(token: &str) -> Value {
    json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600})
}

fn key_of(url: &str) -> String {
    json!({
        "type": "service_account", "client_email": "abs@p.iam.gserviceaccount.com", "private_key_id": "1",
        "private_key": KEY, "token_uri": format!("{url}/token"),
    })
    .to_string()
}

fn bucket(url: &str, key: Secret) -> GcsBucket {
    GcsBucket::new(&GcpSettings { key: Some(key), ..settings(url) })
}

async fn ask(bucket: &GcsBucket) -> Answer<()> {
    bucket.list(ListQuery { prefix: "", folders: true, page: None, limit: Some(1) }).await.map(drop)
}

fn sign_ins(asked: &Mutex<Vec<Message>>) -> usize {
    asked.lock().unwrap().iter().filter(|request| request.line().starts_with("POST /token")).count()
}

#[tokio::test]
async fn a_key_signs_in_once_for_many_requests() {
    let (url, _, asked) = google(200, token("t1")).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.json");
    std::fs::write(&file, format!("{}\n", key_of(&url))).unwrap();
    for key in [Secret::Plain(key_of(&url).into()), Secret::File(file)] {
        asked.lock().unwrap().clear();
        let bucket = bucket(&url, key);
        for _ in 0..3 {
            ask(&bucket).await.unwrap();
        }
        assert_eq!(sign_ins(&asked), 1);
        let asked = asked.lock().unwrap();
        let form = String::from_utf8(asked[0].body.clone()).unwrap();
        let (grant, assertion) = form.split_once("&assertion=").unwrap();
        assert_eq!(grant, "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer");
        let claims = assertion.split('.').nth(1).unwrap();
        let claims = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(claims).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["iss"], "abs@p.iam.gserviceaccount.com");
        assert_eq!(claims["aud"], format!("{url}/token"));
        assert!(claims["scope"].as_str().unwrap().contains("devstorage.read_write"));
    }
}

#[tokio::test]
async fn a_token_that_google_no_longer_takes_is_replaced() {
    let (url, says, asked) = google(200, token("t1")).await;
    let bucket = bucket(&url, Secret::Plain(key_of(&url).into()));
    ask(&bucket).await.unwrap();
    says.lock().unwrap().1 = token("t2").to_string();
    let text = refused(ask(&bucket).await.unwrap_err());
    assert!(text.starts_with("Google answers 401 Unauthorized: "), "{text}");
    assert_eq!(sign_ins(&asked), 1);
    // As every caller has it: a refusal is asked once more with a new token.
    let patience = crate::Patience { tries: 1, ..crate::Patience::default() };
    let shape = crate::cloud::Shape { folder: "", part_size: 1, connections: None };
    crate::cloud::Cloud::new(bucket, shape, patience).probe().await.unwrap();
    assert_eq!(sign_ins(&asked), 2);
}

#[tokio::test]
async fn a_key_that_google_does_not_take_is_refused_without_a_word_of_it() {
    let grant = json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."});
    let (url, says, _) = google(400, grant).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.json");
    std::fs::write(&file, key_of(&url)).unwrap();
    let bucket = bucket(&url, Secret::File(file));
    let text = refused(ask(&bucket).await.unwrap_err());
    assert_eq!(
        text,
        "Google's sign-in fails (invalid_grant: Invalid JWT Signature.): check key or key-file-path in the \
         configuration: the key may be damaged, deleted or disabled; and check this machine's clock"
    );
    // A new key in the same place is taken up.
    *says.lock().unwrap() = (200, token("t").to_string());
    bucket.sign_in_again().await;
    ask(&bucket).await.unwrap();
}

#[tokio::test]
async fn a_sign_in_that_is_busy_or_out_of_reach_is_tried_again() {
    let (busy, _, _) = google(503, json!({})).await;
    for url in [&busy, "http://127.0.0.1:1"] {
        let failure = ask(&bucket(url, Secret::Plain(key_of(url).into()))).await.unwrap_err();
        assert!(matches!(failure.kind, ErrorKind::Unavailable(_)), "{failure:?}");
    }
}

#[tokio::test]
async fn a_broken_key_is_refused_without_a_word_of_it() {
    let whole = key_of("http://127.0.0.1:1");
    let broken = [
        "hunter2".to_owned(),
        "\"hunter2\"".to_owned(),
        "{\"type\": \"service_account\", \"private_key\": \"hunter2\"}".to_owned(),
        "{\"type\": [\"hunter2\"]}".to_owned(),
        "{\"type\": \"service_account\"}".to_owned(),
        whole[..whole.len() / 2].to_owned(),
        whole.replace("-----BEGIN", "hunter2"),
    ];
    for key in broken {
        let text = refused(ask(&bucket("http://127.0.0.1:1", Secret::Plain(key.into()))).await.unwrap_err());
        assert!(text.contains("key-file-path in the configuration"), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("MII") && !text.contains('\n'), "{text}");
    }
    let text =
        refused(ask(&bucket("http://127.0.0.1:1", Secret::File("/none/key.json".into()))).await.unwrap_err());
    assert!(text.contains("/none/key.json"), "{text}");
}

/// Asks the environment of this process for a token: run by the test below, in an environment of its choice.
#[tokio::test]
#[ignore = "asks the environment"]
async fn environment() {
    let credentials = Credentials::new(&GcpSettings { endpoint: None, ..settings("") });
    let _ = GcsBucket::new(&settings(""));
    match credentials.token().await {
        Ok(token) => println!("token {token:?}"),
        Err(failure) => println!("{:?}", failure.kind),
    }
}

#[tokio::test]
async fn without_a_key_the_environment_is_asked() {
    let (url, _, _) = google(200, token("t1")).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.json");
    std::fs::write(&file, key_of(&url)).unwrap();
    let none = folder.path().join("none.json").display().to_string();
    let run = async |server: &str, credentials: Option<&str>| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "gcs::tests::sign_in::environment", "--ignored", "--nocapture"]);
        command.env("HOME", folder.path()).env("GCE_METADATA_HOST", server);
        command
            .env_remove("GOOGLE_APPLICATION_CREDENTIALS_JSON")
            .env_remove("GOOGLE_APPLICATION_CREDENTIALS");
        command.envs(credentials.map(|path| ("GOOGLE_APPLICATION_CREDENTIALS", path)));
        let begin = Instant::now();
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        String::from_utf8(output.stdout).unwrap()
    };
    let server = url.trim_start_matches("http://").to_owned();
    let silent = silent.local_addr().unwrap().to_string();
    for (server, credentials, expected) in [
        (server.as_str(), None, "token Some(\"t1\")"),
        ("127.0.0.1:1", file.to_str(), "token Some(\"t1\")"),
        ("127.0.0.1:1", None, "or set GOOGLE_APPLICATION_CREDENTIALS"),
        (silent.as_str(), None, "Unavailable(\"there are no Google credentials"),
        (server.as_str(), Some(none.as_str()), "No such file or directory"),
    ] {
        let text = run(server, credentials).await;
        assert!(text.contains(expected), "{server} {credentials:?}: {text}");
        let refused = credentials == Some(none.as_str());
        assert_eq!(text.contains("Refused"), refused, "a metadata server may still be starting: {text}");
    }
}
