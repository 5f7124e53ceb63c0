//! The configuration of the service: where it comes from, how it is checked, where changes go, what is never shown.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::support::{BARE, Home, ROUTINE, Service, configuration};
use crate::support::{Server, abs, command, outcome};

/// Protects: what is wrong with a configuration is told at once, a line each, by `serve` and by `config check`.
#[test]
fn all_problems_are_told() {
    let home = Home::new("service: {http: {prt: 1}}\nstorage: {a: {}}\nnonsense: 1\n");
    let file = home.config();
    let file = file.to_str().unwrap();
    let check = abs(&["config", "check", file]);
    assert_eq!((check.code, check.stdout.as_str()), (Some(1), ""));
    let lines: Vec<_> = check.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{check:?}");
    for path in ["service.http.prt", "nonsense", "storage.a"] {
        let start = format!("abs: file {file}: {path}: ");
        assert_eq!(lines.iter().filter(|line| line.starts_with(&start)).count(), 1, "{path}: {check:?}");
    }
    let serve = outcome(home.command().spawn().unwrap());
    assert_eq!((serve.code, &serve.stderr), (Some(2), &check.stderr));

    home.configure("storage: {a: {}, b: {}}\n");
    let check = abs(&["config", "check", file]);
    assert_eq!((check.code, check.stderr.lines().count()), (Some(1), 2), "{check:?}");
    abs(&["config", "check", "/no/such/file"]).fails(2, &["reading file /no/such/file", "No such file"]);
    home.configure(BARE);
    let check = abs(&["config", "check", file]).ok();
    assert!(check.stdout.contains("good: 0 routines, 0 clusters, 0 storages"), "{check:?}");
    abs(&["serve"]).fails(2, &["--config"]);
    let deployed = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/config/abs.yml");
    abs(&["config", "check", deployed]).ok();
}

/// Protects: editors get a schema that is JSON and knows the keys.
#[test]
fn schema() {
    let schema = abs(&["config", "schema"]).ok().json();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    // And the documentation knows every key of the configuration.
    let (_, manual) = include_str!("../../../docs/SERVICE.md").split_once("## Configuration").unwrap();
    let (manual, _) = manual.split_once("## REST API").unwrap();
    let manual = [manual, include_str!("../../../docs/STORAGE.md")];
    let words = manual.iter().flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-'));
    let words: BTreeSet<_> = words.collect();
    let mut wanted = vec!["dto.Config".to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let definition = &schema["$defs"][&name];
        for key in definition["properties"].as_object().into_iter().flat_map(|map| map.keys()) {
            assert!(
                words.contains(key.as_str()),
                "{name}.{key} is not in docs/SERVICE.md or docs/STORAGE.md"
            );
        }
        let text = definition.to_string();
        let references = text.split("#/$defs/").skip(1).filter_map(|rest| rest.split('"').next());
        wanted.extend(references.map(str::to_owned));
    }
    assert!(seen.contains("dto.BackupRoutine") && seen.contains("dto.FileLoggerConfig"), "{seen:?}");
}

/// Protects: the environment has the last word, is checked like the file, and is not written into it.
#[test]
fn environment() {
    let server = Server::embedded(1);
    let home = Home::of(&server, ROUTINE);
    let mut command = home.command();
    command.env("ABS__BACKUP_ROUTINES__ROUTINE__DISABLED", "true");
    let service = Service::start(command);
    assert_eq!(service.json("/v1/config/routines/routine")["disabled"], json!(true));
    service.put("/v1/config/policies/policy", Some(r#"{"parallel": 3}"#)).is(200);
    assert!(!home.configured().contains("disabled") && home.configured().contains("parallel: 3"));
    service.stop();

    let mut command = home.command();
    command.env("ABS__SERVICE__HTTP__PROT", "1").env("ABS__SERVICE__HTTP__PORT", "many");
    let end = outcome(command.spawn().unwrap());
    assert_eq!((end.code, end.stderr.lines().count()), (Some(2), 1), "{end:?}");
    assert!(end.stderr.contains("ABS__SERVICE__HTTP__PROT: names no key"), "{end:?}");
}

/// Protects: what a service left that was killed in the middle of a change is gone after the next start; other files stay.
#[test]
fn an_unfinished_change_is_deleted_at_the_next_start() {
    let home = Home::new(BARE);
    let unfinished = home.path().join(".config.yml.abs-tmp-1");
    let other = home.path().join(".other.yml.abs-tmp-1");
    fs::write(&unfinished, "service: {http").unwrap();
    fs::write(&other, "").unwrap();
    home.serve().stop();
    assert_eq!((unfinished.exists(), other.exists()), (false, true));
}

/// Protects: a change through the API keeps the file's mode, and a link to the file stays one.
#[test]
fn changes_are_written_back() {
    let server = Server::embedded(1);
    let home = Home::of(&server, ROUTINE);
    fs::set_permissions(home.config(), fs::Permissions::from_mode(0o640)).unwrap();
    let link = home.path().join("link.yml");
    symlink("config.yml", &link).unwrap();
    let service = Service::start(command(&["serve", "--config", link.to_str().unwrap()]));
    service.put("/v1/config/policies/policy", Some(r#"{"parallel": 7}"#)).is(200);
    service.stop();
    assert!(home.configured().contains("parallel: 7"));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(home.config()).unwrap().permissions().mode() & 0o7777, 0o640);
    let service = home.serve();
    assert_eq!(service.json("/v1/config/policies/policy")["parallel"], json!(7));
}

/// A web server of one page that changes, or of redirects.
struct Web {
    address: String,
    page: Arc<Mutex<String>>,
    /// The head of the last request.
    asked: Arc<Mutex<String>>,
}

impl Web {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address =
            format!("http://user:hunter2@{}/config.yml?key=hunter2", listener.local_addr().unwrap());
        let page = Arc::<Mutex<String>>::default();
        let asked = Arc::<Mutex<String>>::default();
        let (shown, hears) = (Arc::clone(&page), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let head = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                let head: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
                *hears.lock().unwrap() = head.join("\n");
                let page = shown.lock().unwrap().clone();
                // The client may be gone.
                let _ = stream.write_all(page.as_bytes());
            }
        });
        Self { address, page, asked }
    }

    fn answers(&self, head: &str, body: &str) {
        let length = body.len();
        *self.page.lock().unwrap() =
            format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    }

    fn serve(&self) -> Command {
        let mut command = self::command(&["serve", "-c", &self.address]);
        command.env("NO_PROXY", "127.0.0.1").env_remove("HTTP_PROXY").env_remove("http_proxy");
        command
    }
}

/// Protects: a configuration from an address is read, read again, never written, and no redirect leads to a file; the
/// secrets of the address are shown nowhere.
#[test]
fn from_an_address() {
    let web = Web::start();
    web.answers("200 OK", BARE);
    let service = Service::start(web.serve());
    let asked = web.asked.lock().unwrap().to_ascii_lowercase();
    assert!(
        asked.contains("get /config.yml?key=hunter2") && asked.contains("authorization: basic"),
        "{asked}"
    );
    let policy = "/v1/config/policies/policy";
    let refusal = service.post(policy, Some("{}")).refuses(500, &["not made", "can only be read", "SIGHUP"]);
    assert!(!refusal.text.contains("hunter2"), "{refusal:?}");
    service.get(policy).is(404);
    web.answers("200 OK", &format!("{BARE}backup-policies: {{policy: {{}}}}\n"));
    service.signal("HUP");
    service.logs(&["configuration loaded again"]);
    service.get(policy).is(200);
    let end = service.stop();
    assert!(!end.stdout.contains("hunter2"), "{end:?}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yml");
    fs::write(&file, BARE).unwrap();
    for (head, part) in [
        ("404 Not Found".to_owned(), "404"),
        (format!("302 Found\r\nlocation: file://{}", file.display()), "reading address http://127.0.0.1"),
    ] {
        web.answers(&head, "");
        let end = outcome(web.serve().spawn().unwrap()).fails(2, &[part]);
        assert!(!end.stderr.contains("hunter2"), "{end:?}");
    }
    abs(&["serve", "-c", "ftp://127.0.0.1/config.yml"]).fails(2, &["ftp://", "http://"]);
}

/// Protects: a reload that is refused changes nothing: the routine stays locked against other services, the log goes where
/// and as it went.
#[test]
fn a_refused_reload_changes_nothing() {
    let server = Server::embedded(1);
    let home = Home::of(&server, ROUTINE);
    let service = home.serve();
    let good = home.configured();
    let web = Web::start();
    web.answers("403 Forbidden", "<Error><Code>AccessDenied</Code><Message>no</Message></Error>");
    let (_, port) = web.address.rsplit_once(':').unwrap();
    let (port, _) = port.split_once('/').unwrap();
    let denied = json!({"s3-storage": {
        "bucket": "b", "s3-region": "r", "s3-endpoint-override": format!("http://127.0.0.1:{port}"),
        "access-key-id": "k", "secret-access-key": "s"
    }});
    let quiet = |text: &str, more: &str| {
        text.replace("port: 0}\n", &format!("port: 0}}\n  logger: {{level: ERROR{more}}}\n"))
    };
    let denied = quiet(&good.replace(&home.entry().to_string(), &denied.to_string()), "");
    fs::write(home.config(), denied).unwrap();
    service.post("/v1/config/apply", None).refuses(400, &["storage.disk: ", "AccessDenied"]);
    let no_log = quiet(&good, ", file-writer: {filename: /proc/no/abs.log}").replace("routine:", "other:");
    fs::write(home.config(), no_log).unwrap();
    service.post("/v1/config/apply", None).refuses(400, &["cannot open the log file /proc/no/abs.log"]);

    let other = Home::new(&good);
    let refused = outcome(other.command().spawn().unwrap());
    refused.fails(2, &["another service", "runs routine routine"]);
    assert_eq!(service.json("/v1/config/storage/disk"), home.entry());
    service.post("/v1/backups/full/routine", None).is(202);
    service.logs(&["INFO", "backup asked for"]);
    // And when nothing is wrong, all of it changes.
    fs::write(home.config(), quiet(&good, "").replace("  routine:", "  other:")).unwrap();
    service.post("/v1/config/apply", None).is(200);
    other.serve().stop();
    let before = service.log();
    service.backup("full", "other");
    let after = service.log();
    assert!(!after[before.len()..].contains("backup asked for"), "{after}");
}

/// Protects: numbers beyond all reason are refused through the API; in a file they are used as the largest that may be, with
/// a warning, and the service lives and backs up.
#[test]
fn numbers_have_bounds() {
    let server = Server::embedded(1);
    let text = configuration(&server, ROUTINE)
        .replace("  policy: {", "  policy: {parallel: 2147483647, parallel-write: 2147483647, ");
    let home = Home::new(&text);
    let check = abs(&["config", "check", home.config().to_str().unwrap()]).ok();
    let warning = "backup-policies.policy.parallel: must be at most 4096, not 2147483647: 4096 is used";
    assert!(check.stderr.lines().any(|line| line.ends_with(warning)), "{check:?}");
    assert_eq!(check.stderr.lines().count(), 2, "{check:?}");
    let service = home.serve();
    service.logs(&["WARN", warning]);
    service.backup("full", "routine");
    // The policy is kept as it is written, also when something else changes.
    service.put("/v1/config/routines/routine/disable", None).is(204);
    assert!(home.configured().contains("parallel: 2147483647"));

    let policy = "/v1/config/policies/new";
    service
        .post(policy, Some(r#"{"parallel": 4097}"#))
        .refuses(400, &["parallel: must be at most 4096, not 4097"]);
    service.post(policy, Some(r#"{"parallel": 4096}"#)).is(201);
    service
        .put(policy, Some(r#"{"bandwidth": 9000000000}"#))
        .refuses(400, &["bandwidth: must be at most 1048576"]);
    let mut whole = service.json("/v1/config");
    service.put("/v1/config", Some(&whole.to_string())).is(200);
    whole["backup-policies"]["third"] = json!({"retry-policy": {"max-retries": 1_000_000}});
    service
        .put("/v1/config", Some(&whole.to_string()))
        .refuses(400, &["third.retry-policy.max-retries: must be at most"]);
    let restore = json!({"backup-data-path": "routine/backup/1/data/n", "source-name": "disk",
        "destination-name": "cluster", "policy": {"parallel": 1_000_000}});
    service
        .post("/v1/restore/full", Some(&restore.to_string()))
        .refuses(400, &["policy.parallel: must be at most 1024, not 1000000"]);
}

/// Protects: names with characters that hide or turn what is shown are refused for new entries; stored ones go on.
#[test]
fn names_are_visible() {
    let server = Server::embedded(1);
    let hidden = "pol\u{202e}icy";
    let home = Home::of(&server, &ROUTINE.replace("backup-policy: policy", "backup-policy: other"));
    home.configure(&home.configured().replace("  policy:", "  other: {}\n  policy:"));
    let text = home.configured().replace("  policy:", &format!("  \"{hidden}\":"));
    fs::write(home.config(), text).unwrap();
    let service = home.serve();
    service.logs(&["WARN", "pol\\u{202e}icy", "control, format or other invisible character"]);
    service.put("/v1/config/policies/pol%E2%80%AEicy", Some(r#"{"parallel": 2}"#)).is(200);
    let part = &["must be a name of visible characters", "control, format"];
    let routine = service.json("/v1/config/routines/routine").to_string();
    for name in ["a%E2%80%AEb", "a%C2%ADb", "%EF%BB%BFa", "a%E2%81%A6b", "a%E2%80%8Bb"] {
        service.post(&format!("/v1/config/policies/{name}"), Some("{}")).refuses(400, part);
        service.post(&format!("/v1/config/routines/{name}"), Some(&routine)).refuses(400, part);
    }
    service.post("/v1/config/routines/a%00b", Some(&routine)).is(400);
}

/// Protects: a stored password is not sent to another host or as another user because a client says `[secret]`.
#[test]
fn a_mask_does_not_move_a_secret() {
    let server = Server::embedded(1);
    let text = configuration(&server, ROUTINE)
        .replace("}]}\nstorage", "}], credentials: {user: u, password: hunter2}}\nstorage");
    let home = Home::new(&text);
    let service = home.serve();
    let path = "/v1/config/clusters/cluster";
    let shown = service.json(path);
    let mut moved = shown.clone();
    moved["seed-nodes"][0]["port"] = json!(1);
    let part = &["credentials.password: reads [secret], but what it is sent to has changed: give the secret"];
    service.put(path, Some(&moved.to_string())).refuses(400, part);
    let mut whole = service.json("/v1/config");
    whole["aerospike-clusters"]["cluster"] = moved.clone();
    service.put("/v1/config", Some(&whole.to_string())).refuses(400, part);
    assert_eq!(service.json(path), shown);
    let mut slower = shown;
    slower["conn-timeout"] = json!(7000);
    service.put(path, Some(&slower.to_string())).is(200);
    assert!(home.configured().contains("hunter2"));
}

/// Protects: a routine of a namespace that its cluster does not have is refused; when the cluster does not answer it is
/// taken, and one that is stored already is warned of.
#[test]
fn namespaces_are_those_of_the_cluster() {
    let server = Server::embedded(1);
    let home = Home::of(&server, &ROUTINE.replace("[NAMESPACE]", "[NAMESPACE, nope]"));
    let service = home.serve();
    let missing = "namespaces[1]: cluster cluster has no namespace \"nope\": it has source-ns1, source-ns2";
    service.logs(&["WARN", &format!("backup-routines.routine.{missing}")]);
    let mut routine = service.json("/v1/config/routines/routine");
    let part = &[&*format!("backup-routines.new.{missing}")];
    service.post("/v1/config/routines/new", Some(&routine.to_string())).refuses(400, part);
    // What is stored may change in other ways.
    routine["interval-cron"] = json!("@monthly");
    service.put("/v1/config/routines/routine", Some(&routine.to_string())).is(200);
    let mut cluster = service.json("/v1/config/clusters/cluster");
    cluster["label"] = json!("production");
    service.put("/v1/config/clusters/cluster", Some(&cluster.to_string())).is(200);
    let before = home.configured();
    home.configure(&before.replace("nope", "nothing"));
    service.post("/v1/config/apply", None).refuses(400, &["no namespace \"nothing\""]);
    home.configure(&before);
    let gone = r#"{"seed-nodes": [{"host-name": "127.0.0.1", "port": 1}], "conn-timeout": 500}"#;
    service.post("/v1/config/clusters/gone", Some(gone)).is(201);
    routine["source-cluster"] = json!("gone");
    service.post("/v1/config/routines/new", Some(&routine.to_string())).is(201);
    service.logs(&["WARN", "the namespaces of routines cannot be checked", "gone"]);
}

/// Protects: with `-r` the file names a storage that holds the configuration, which is read and written there.
#[test]
fn from_a_storage() {
    let server = Server::embedded(1);
    let home = Home::of(&server, ROUTINE);
    let named = home.path().join("remote.yml");
    let path = home.config();
    fs::write(&named, format!("local-storage: {{path: {}}}\n", path.display())).unwrap();
    let named = named.to_str().unwrap();
    abs(&["config", "check", "-r", named]).ok();
    let service = Service::start(command(&["serve", "-c", named, "-r"]));
    service.put("/v1/config/policies/policy", Some(r#"{"parallel": 7}"#)).is(200);
    service.stop();
    assert!(home.configured().contains("parallel: 7"));

    fs::write(named, "{}").unwrap();
    abs(&["serve", "-r", "-c", named]).fails(2, &[named, "must have exactly one of"]);
}

/// Protects: no secret of the configuration is in the log or in an answer, whatever happens; it stays in the file.
#[test]
fn secrets_are_kept() {
    let server = Server::embedded(1);
    let text = configuration(&server, ROUTINE)
        .replace("}]}\nstorage", "}], credentials: {user: u, password: hunter2}}\nstorage");
    let home = Home::new(&text.replace("port: 0}", "port: 0}\n  logger: {level: TRACE}"));
    assert!(home.configured().contains("hunter2"));
    let service = home.serve();
    let mut shown = String::new();
    for path in ["/v1/config", "/v1/config/clusters", "/v1/config/clusters/cluster", "/ready", "/metrics"] {
        shown.push_str(&service.get(path).text);
    }
    assert!(shown.contains("[secret]"));
    let cluster = service.json("/v1/config/clusters/cluster").to_string();
    shown.push_str(&service.put("/v1/config/clusters/cluster", Some(&cluster)).is(200).text);
    shown.push_str(&service.post("/v1/config/clusters/new", Some(&cluster)).is(400).text);
    let wrong = cluster.replace("[secret]", "hunter2").replace("\"user\"", "\"usr\"");
    shown.push_str(&service.put("/v1/config/clusters/cluster", Some(&wrong)).is(400).text);
    service.post("/v1/backups/full/routine", None).is(202);
    service.signal("HUP");
    service.logs(&["configuration loaded again"]);
    shown.push_str(&service.stop().stdout);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(home.configured().contains("hunter2"));
}
