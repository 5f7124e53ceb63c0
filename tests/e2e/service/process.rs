//! The service as a process: what signals do, what it refuses, what outlives it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;

use serde_json::json;

use super::support::{BARE, Home, ROUTINE, Service, configuration, eventually, stored};
use crate::raw::{self, Raw, integer};
use crate::support::{Server, abs, outcome};

/// A routine whose backups take a minute for each 3000 records.
const SLOW: &str = "slow: {source-cluster: cluster, storage: disk, backup-policy: slow, interval-cron: '@yearly', \
                    namespaces: [NAMESPACE]}";

fn slow(server: &Server, records: u64, grace: u64) -> Home {
    let records: Vec<_> = (0..records).map(|n| Raw::new(n).bin("bin", integer(1))).collect();
    raw::load(server, &records);
    let text = configuration(server, SLOW)
        .replace("service:\n", &format!("service:\n  shutdown-grace: {grace}\n"))
        .replace(
            "backup-policies:\n",
            "backup-policies:\n  slow: {records-per-second: 50, parallel: 1, checkpoint-interval: 20}\n",
        );
    Home::new(&text)
}

/// Begins a slow backup, and waits until it is under way.
fn begin(service: &Service) {
    service.post("/v1/backups/full/slow", None).is(202);
    eventually(|| service.json("/v1/backups/currentBackup/slow")["full"].is_object()).unwrap();
}

/// Insists on a refusal to start: exit code 2 and one line of error, no panic.
#[track_caller]
fn refused(home: &Home, parts: &[&str]) {
    outcome(home.command().spawn().unwrap()).fails(2, parts);
}

/// Protects: SIGTERM and SIGINT end a service that has nothing to do, at once and with success, in so many words.
#[test]
fn a_signal_ends_it() {
    let home = Home::new(BARE);
    for name in ["TERM", "INT"] {
        let service = home.serve();
        assert_eq!(service.get("/health").is(200).text, "Ok");
        service.signal(name);
        let end = service.ended().ok();
        assert_eq!(end.stderr, "");
        for part in ["told to stop", &format!("SIG{name}"), "stopped"] {
            assert!(end.stdout.contains(part), "{part:?} is missing in {end:?}");
        }
    }
}

/// Protects: a service that is told to stop lets a running backup end within the grace, takes no new work meanwhile and
/// says so, and its backup is whole.
#[test]
fn a_running_backup_has_its_grace() {
    let server = Server::embedded(2);
    let home = slow(&server, 100, 3_600_000);
    let service = home.serve();
    begin(&service);
    service.signal("TERM");
    service.logs(&["no more work is taken"]);
    service.get("/health").is(200);
    service.get("/ready").refuses(503, &["stopping"]);
    service.post("/v1/backups/full/slow", None).refuses(503, &["stopping"]);
    service.ended().ok();
    let service = home.serve();
    let backups = service.backups("full", "slow");
    assert_eq!((backups.len(), &backups[0]["record-count"]), (1, &json!(100)));
    service.stop();
}

/// Protects: a backup that takes longer than the grace is suspended at a checkpoint, and the next start continues it.
#[test]
fn grace_ends() {
    let server = Server::embedded(2);
    let home = slow(&server, 3000, 50);
    let service = home.serve();
    begin(&service);
    let has = |file: &str| stored(&home.storage()).iter().any(|name| name.ends_with(file));
    eventually(|| has("/manifest/1.json")).unwrap_or_else(|()| panic!("{}", service.log()));
    let end = service.stop();
    assert!(end.stdout.contains("backup suspended: the next start continues it"), "{end:?}");
    assert!(!end.stdout.contains("what still runs is left"), "{end:?}");
    assert!(has("/in-progress"));
    let service = home.serve();
    service.logs(&["continuing the backup that the end of the service interrupted"]);
    service.post("/v1/backups/cancel/slow", None).is(202);
    let is_gone = || stored(&home.storage()).is_empty();
    eventually(is_gone).unwrap_or_else(|()| panic!("{:?}", stored(&home.storage())));
}

/// Protects: who says it twice does not wait.
#[test]
fn a_second_signal_ends_it_at_once() {
    let server = Server::embedded(1);
    let home = slow(&server, 3000, 3_600_000);
    let service = home.serve();
    begin(&service);
    service.signal("TERM");
    service.logs(&["no more work is taken"]);
    service.signal("INT");
    assert_eq!(service.ended().code, Some(1));
}

/// Protects: SIGHUP takes over what the file says by then, the log says so; a broken file changes nothing.
#[test]
fn reload() {
    let server = Server::embedded(1);
    let good = configuration(&server, ROUTINE);
    let home = Home::new(&good);
    let service = home.serve();
    let routines = || service.json("/v1/config/routines").as_object().unwrap().len();
    assert_eq!(routines(), 1);

    home.configure(&format!(
        "{good}  {}\n",
        ROUTINE.replacen("routine", "other", 1).replace("NAMESPACE", "source-ns1")
    ));
    service.signal("HUP");
    service.logs(&["configuration loaded again"]);
    assert_eq!(routines(), 2);

    let broken = good.replace("storage: disk", "storage: dusk");
    home.configure(&broken);
    service.signal("HUP");
    service.logs(&["ERRO", "nothing changes", "backup-routines.routine.storage"]);
    fs::remove_file(home.config()).unwrap();
    service.signal("HUP");
    service.logs(&["ERRO", "nothing changes", "No such file"]);
    assert_eq!(routines(), 2);

    // The log's settings are taken over at once, the server's are not, and that is said.
    let file = home.path().join("abs.log");
    let text = format!("  logger: {{level: WARN, file-writer: {{filename: {}}}}}\n", file.display());
    home.configure(&good.replace("port: 0}\n", &format!("port: 0, timeout: 4000}}\n{text}")));
    service.signal("HUP");
    service.logs(&["WARN", "service.http has changed", "started again"]);
    eventually(|| routines() == 1).unwrap();
    let moved = home.path().join("abs.log.old");
    fs::rename(&file, moved).unwrap();
    let before = service.log();
    service.signal("HUP");
    eventually(|| file.exists()).unwrap();
    // INFO is not logged any more.
    assert_eq!(service.log(), before);
    service.stop();
}

/// Protects: a second service with the same configuration, or with the same routine in the same storage, does not start;
/// one with another routine does; and a claim ends with its process.
#[test]
fn a_second_service_on_the_same_is_refused() {
    let server = Server::embedded(1);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    refused(&home, &["another service", "runs with the configuration", home.config().to_str().unwrap()]);
    // Also after the file was written anew.
    service.put("/v1/config/policies/policy", Some(r#"{"parallel": 2}"#)).is(200);
    refused(&home, &["another service", "runs with the configuration"]);

    let other = Home::new(&home.configured());
    refused(
        &other,
        &["another service (process", &service.pid().to_string(), "runs routine routine", "storage"],
    );
    other.configure(&home.configured().replace("\n  routine:", "\n  another:"));
    let neighbour = other.serve();
    // Nor does a change come to that.
    let taken = service.json("/v1/config/routines/routine").to_string();
    neighbour
        .post("/v1/config/routines/routine", Some(&taken))
        .refuses(500, &["not made", "runs routine routine"]);
    assert!(!other.configured().contains("\n  routine:"));
    service.delete("/v1/config/routines/routine").is(204);
    neighbour.post("/v1/config/routines/routine", Some(&taken)).is(201);
    neighbour.signal("KILL");
    neighbour.ended();
    service.stop();
    other.serve().stop();
}

/// Protects: a port that is taken is told in one line.
#[test]
fn a_taken_port() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let home = Home::new(&BARE.replace("port: 0", &format!("port: {port}")));
    refused(&home, &[&format!("cannot listen on 127.0.0.1:{port}"), "in use", "service.http.port"]);
}

/// Protects: what one process backed up, the next one lists and restores.
#[test]
fn backups_outlive_the_service() {
    let server = Server::start(2);
    let records = |numbers: std::ops::Range<u64>, value| {
        raw::load(&server, &numbers.map(|n| Raw::new(n).bin("bin", integer(value))).collect::<Vec<_>>());
    };
    records(0..300, 1);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    let full = service.backup("full", "routine").remove(0);
    let first = raw::read(&server);
    records(200..400, 2);
    let incremental = service.backup("incremental", "routine").remove(0);
    let second = raw::read(&server);
    assert_eq!((&full["record-count"], &incremental["record-count"]), (&json!(300), &json!(200)));
    service.stop();

    let service = home.serve();
    let [fulls, incrementals] = ["full", "incremental"].map(|kind| service.backups(kind, "routine"));
    assert_eq!((fulls, incrementals), (vec![full.clone()], vec![incremental.clone()]));
    for (time, expected) in [(&full["timestamp"], first), (&incremental["timestamp"], second)] {
        server.wipe();
        let end = service.restore("timestamp", &json!({"routine": "routine", "time": time}));
        assert_eq!(end["status"], "Done", "{end}");
        raw::same(&raw::read(&server), &expected);
    }
    service.stop();
}

/// Protects: what a container's health check asks tells a service that lives from one that does not.
#[test]
fn health() {
    let service = Home::new(&BARE.replace("port: 0", "port: 0, context-path: /abs")).serve();
    let url = format!("{}/abs/health", service.address());
    assert_eq!(abs(&["health", &url]).ok().stdout, "Ok\n");
    abs(&["health", &url.replace("/abs", "")]).fails(1, &["404"]);
    service.stop();
    abs(&["health", &url]).fails(1, &["refused"]);
}

/// Protects: systemd hears when the service is ready and when it stops.
#[test]
fn systemd_is_told() {
    let home = Home::new(BARE);
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let hears = || {
        let mut text = [0; 100];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    };
    let mut command = home.command();
    command.env("NOTIFY_SOCKET", &path);
    let service = Service::start(command);
    assert_eq!(hears(), "READY=1");
    service.signal("TERM");
    assert_eq!(hears(), "STOPPING=1");
    service.ended().ok();
}
