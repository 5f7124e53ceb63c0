//! A backup and its restore, as a client asks for them.

use abs_devserver::DevServer;
use serde_json::json;

use super::*;

/// Reads events until one of this name, and returns its data.
async fn wait_for(event: &str, stream: &mut TcpStream, text: &mut String) -> Value {
    let begin = format!("event: {event}\ndata: ");
    loop {
        if let Some((_, rest)) = text.split_once(&begin)
            && let Some((data, rest)) = rest.split_once("\n\n")
        {
            let data = serde_json::from_str(data).unwrap();
            *text = rest.to_owned();
            return data;
        }
        read_some(stream, text).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_listed_and_restored() {
    let cluster = DevServer::builder().listen(([127, 0, 0, 1], 0).into()).namespace("test", 64 << 20);
    let cluster = cluster.start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = routine(folder.path())
        .replace("port: 1}", &format!("port: {}}}", cluster.addresses()[0].port()))
        .replace("    credentials: {user: u, password: hidden}\n", "");
    let server = Server::start(&config);
    assert_eq!(server.get("/ready").await.body, "Ok");
    let mut events = server.connect().await;
    events.write_all(b"GET /v1/events HTTP/1.1\r\nHost: abs\r\n\r\n").await.unwrap();
    let mut text = String::new();
    while !text.contains(": alive") {
        read_some(&mut events, &mut text).await;
    }

    let accepted = server.ask("POST", "/v1/backups/full/daily?delay=1", "").await;
    assert_eq!((accepted.status, accepted.body.as_str()), (202, ""));
    let started = wait_for("job-started", &mut events, &mut text).await;
    assert_eq!((&started["kind"], &started["routine"]), (&json!("full"), &json!("daily")));
    let finished = wait_for("job-finished", &mut events, &mut text).await;
    assert_eq!((&finished["job-id"], &finished["status"]), (&started["job-id"], &json!("Done")));

    let list = server.get("/v1/backups/full").await.json();
    let backup = &list["daily"][0];
    assert_eq!(server.get("/v1/backups/full/daily").await.json(), json!([backup]));
    let timestamp = backup["timestamp"].as_i64().unwrap();
    let [before, after] = [timestamp - 1, timestamp + 1];
    assert_eq!(server.get(&format!("/v1/backups/full/daily?to={before}")).await.json(), json!([]));
    assert_eq!(server.get(&format!("/v1/backups/full?from={after}")).await.json(), json!({"daily": []}));
    let state = server.get("/v1/backups/currentBackup/daily").await.json();
    assert_eq!(state["last-full"], backup["created"]);

    // The storage and the key of the list are what a restore takes.
    let by_path = json!({
        "destination-name": "c", "source": backup["storage"], "backup-data-path": backup["key"]
    });
    let by_time = json!({"routine": "daily", "time": timestamp});
    for (path, request) in [("/v1/restore/full", by_path), ("/v1/restore/timestamp", by_time)] {
        let accepted = server.ask("POST", path, &request.to_string()).await;
        assert_eq!(accepted.status, 202, "{}", accepted.body);
        let id = accepted.json();
        let finished = wait_for("job-finished", &mut events, &mut text).await;
        assert_eq!((&finished["kind"], &finished["job-id"]), (&json!("restore"), &id));
        let status = server.get(&format!("/v1/restore/status/{id}")).await.json();
        assert_eq!(status["status"], "Done", "{status}");
        let jobs = server.get("/v1/restore/jobs?status=done").await.json();
        assert_eq!(jobs[id.to_string()], status);
    }
}
