//! What is left of restores when the service ends: they are resumed, or it is known how they ended.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use abs_cluster::Credentials;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{destination, held, holds, put, request_of};
use crate::faults::empty;
use crate::raw::{self, Raw, integer, string};
use crate::service::support::{Home, ROUTINE, Service, configuration, eventually};
use crate::support::Server;

/// A server with records, a configuration with these keys of `service`, and what is needed to restore slowly.
struct Stage {
    server: Server,
    home: Home,
    request: Value,
    records: u64,
}

impl Stage {
    /// A backup of so many records of 2 KB, some 190 of which are a block, and a request to restore them at this rate.
    fn new(records: u64, keys: &str, tps: u64) -> Self {
        Self::of(Server::embedded(2), "", records, keys, tps)
    }

    /// The same of a server, whose entry in the configuration begins like this.
    fn of(server: Server, entry: &str, records: u64, keys: &str, tps: u64) -> Self {
        let record = |n: u64| {
            Raw::new(n).bin("number", integer(n as i64)).bin("text", string(n.to_string().repeat(2000 / 4)))
        };
        raw::load(&server, &(1000..1000 + records).map(record).collect::<Vec<_>>());
        let text = configuration(&server, ROUTINE);
        let text = text.replace("cluster: {seed", &format!("cluster: {{{entry}seed"));
        let home = Home::new(&text.replace("service:\n", &format!("service:\n  {keys}\n")));
        let service = home.serve();
        let backup = service.backup("full", "routine").remove(0);
        service.stop();
        let request = request_of(&backup, &json!({"tps": tps, "batch-size": 10, "parallel": 2}));
        Self { server, home, request, records }
    }

    /// Starts the restore of a service that has just started.
    fn start(&self, service: &Service) -> u64 {
        empty(&self.server);
        service.start_restore("full", &self.request)
    }

    /// The file of a restore in the state directory.
    fn file(&self, job: u64) -> PathBuf {
        self.home.path().join(format!("abs-state/restores/{job}.json"))
    }

    /// What the file of a restore holds.
    fn journaled(&self, job: u64) -> Value {
        serde_json::from_slice(&std::fs::read(self.file(job)).unwrap()).unwrap()
    }

    /// How many records have been answered, as the journal says.
    fn answered(&self, job: u64) -> u64 {
        let counts = &self.journaled(job)["work"]["chains"][0][1]["counts"];
        ["inserted", "fresher"].iter().filter_map(|count| counts[*count].as_u64()).sum()
    }

    /// Waits until the journal says that more records have been answered.
    fn progresses(&self, service: &Service, job: u64, from: u64) {
        eventually(|| self.answered(job) > from)
            .unwrap_or_else(|()| panic!("no progress: {:#}\n{}", self.journaled(job), service.log()));
    }

    /// Insists that a restore has failed because it was interrupted, for this reason.
    #[track_caller]
    fn interrupted(service: &Service, job: u64, why: &str) {
        let status = service.json(&format!("/v1/restore/status/{job}"));
        assert_eq!(status["status"], "Failed", "{status}");
        let error = status["error"].as_str().unwrap();
        assert!(error.starts_with("interrupted: ") && error.contains(why), "{status}");
    }
}

/// Kills the service as a crash does.
fn kill(service: Service) {
    service.signal("KILL");
    service.ended();
}

fn status(service: &Service, job: u64) -> Value {
    service.json(&format!("/v1/restore/status/{job}"))
}

/// Protects: a restore whose service is killed goes on at the next start with the same id: each record is there once, what
/// had been answered is not sent again, and what may have been written is in doubt.
#[test]
fn a_restore_is_resumed_after_a_kill() {
    let stage = Stage::new(3000, "", 500);
    let before = held(&stage.server);
    let mut service = stage.home.serve();
    let job = stage.start(&service);
    let started = status(&service, job)["current-job"]["start-time"].clone();
    let mut answered = 0;
    for _ in 0..2 {
        stage.progresses(&service, job, answered);
        kill(service);
        answered = stage.answered(job);
        service = stage.home.serve();
        service.logs(&["resuming the restore", &job.to_string()]);
        let status = status(&service, job);
        assert!(status["status"] == "Running" || status["status"] == "Done", "{status}");
        assert_eq!(status["current-job"]["start-time"], started);
    }
    let end = service.restored(job);
    assert_eq!(end["status"], "Done", "{end}\n{}", service.log());
    holds(&stage.server, &before);
    let number = |key: &str| end[key].as_u64().unwrap();
    assert_eq!(number("read-records"), stage.records);
    assert_eq!(number("inserted-records") + number("fresher-records"), stage.records);
    // What was written and not noted is found stored.
    assert!(number("fresher-records") <= number("errors-in-doubt"), "{end}");
    assert!(end["warnings"].to_string().contains("was interrupted"), "{end}");
}

/// Protects: a service that is told to stop leaves its restores to the next start; one that was interrupted for longer than
/// the configuration allows has failed, and says why.
#[test]
fn a_restore_outlives_a_stop_for_a_while() {
    let stage = Stage::new(1500, "shutdown-grace: 50", 500);
    let before = held(&stage.server);
    let service = stage.home.serve();
    let job = stage.start(&service);
    stage.progresses(&service, job, 0);
    let end = service.stop();
    assert!(end.stdout.contains("the next start continues them"), "{end:?}");
    let service = stage.home.serve();
    let end = service.restored(job);
    assert_eq!(end["status"], "Done", "{end}\n{}", service.log());
    holds(&stage.server, &before);

    let job = stage.start(&service);
    kill(service);
    let text = stage.home.configured().replace("shutdown-grace: 50", "restore-resume-within: 1");
    std::fs::write(stage.home.config(), text).unwrap();
    std::thread::sleep(Duration::from_millis(10));
    let service = stage.home.serve();
    Stage::interrupted(&service, job, "longer than restore-resume-within");
}

/// Protects: a restore that a restart of the service always interrupts before it gets any further comes to an end.
#[test]
fn a_restore_without_progress_is_resumed_three_times() {
    let stage = Stage::new(400, "", 1);
    let mut service = stage.home.serve();
    let job = stage.start(&service);
    for _ in 0..3 {
        kill(service);
        service = stage.home.serve();
        assert_eq!(status(&service, job)["status"], "Running");
    }
    kill(service);
    service = stage.home.serve();
    Stage::interrupted(&service, job, "3 times without progress");
    // It stays so.
    kill(service);
    Stage::interrupted(&stage.home.serve(), job, "3 times without progress");
}

/// Protects: the history of restores outlives the service, word for word; a canceled restore stays canceled; ids are not used
/// again.
#[test]
fn the_history_outlives_the_service() {
    let stage = Stage::new(400, "", 0);
    let service = stage.home.serve();
    let done = stage.start(&service);
    assert_eq!(service.restored(done)["status"], "Done");
    let mut slow = stage.request.clone();
    slow["policy"]["tps"] = json!(1);
    let canceled = service.start_restore("full", &slow);
    service.post(&format!("/v1/restore/cancel/{canceled}"), None).is(202);
    assert_eq!(stage.journaled(canceled)["status"]["state"], "canceled", "before it is canceled");
    assert_eq!(service.restored(canceled)["status"], "Canceled");
    let mut wrong = stage.request.clone();
    wrong["backup-data-path"] = json!("nowhere");
    service.post("/v1/restore/full", Some(&wrong.to_string())).refuses(400, &["nowhere"]);
    // The answer may come before the end.
    eventually(|| service.json("/v1/restore/jobs?status=running") == json!({})).unwrap();
    let history = service.json("/v1/restore/jobs");
    assert_eq!(history.as_object().unwrap().len(), 3);
    kill(service);
    let service = stage.home.serve();
    assert_eq!(service.json("/v1/restore/jobs"), history);
    service.post(&format!("/v1/restore/cancel/{done}"), None).refuses(400, &["has ended"]);
    let next = service.start_restore("full", &stage.request);
    assert!(next > canceled);
}

/// Protects: a restore whose file in the journal is damaged is known to have failed; the log says so once, not at each start.
#[test]
fn a_damaged_journal_is_told_once() {
    let stage = Stage::new(400, "", 1);
    let service = stage.home.serve();
    let job = stage.start(&service);
    kill(service);
    std::fs::write(stage.file(job), "{").unwrap();
    for is_news in [true, false] {
        let service = stage.home.serve();
        let status = status(&service, job);
        let error = status["error"].as_str().unwrap();
        assert!(status["status"] == "Failed" && error.contains("journal is damaged"), "{status}");
        let warnings = service.log().lines().filter(|line| line.contains("is damaged")).count();
        assert_eq!(warnings, usize::from(is_news), "{}", service.log());
        kill(service);
    }
}

/// Protects: what the journal holds is readable by its owner only, and no secret is in it; a restore whose request held one is
/// not resumed, and says so.
#[test]
fn no_secret_is_journaled() {
    use std::os::unix::fs::PermissionsExt as _;
    let credentials =
        Credentials::Internal { user: "admin".to_owned(), password: Zeroizing::new("hunter2".to_owned()) };
    let server = Server::built(|builder| builder.user("admin", "hunter2"), Some(credentials));
    let stage = Stage::of(server, "credentials: {user: admin, password: hunter2}, ", 400, "", 1);
    let service = stage.home.serve();
    let mut request = stage.request.clone();
    request.as_object_mut().unwrap().remove("destination-name");
    request["destination"] = destination(&stage.server);
    request["destination"]["credentials"] = json!({"user": "admin", "password": "hunter2"});
    let job = service.start_restore("full", &request);
    let plain = stage.start(&service);
    for job in [job, plain] {
        let text = std::fs::read_to_string(stage.file(job)).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("password"), "{text}");
        assert_eq!(stage.file(job).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(stage.journaled(plain)["work"]["order"]["path"]["destination-name"], "cluster");
    kill(service);
    let service = stage.home.serve();
    Stage::interrupted(&service, job, "holds secrets");
    assert_eq!(status(&service, plain)["status"], "Running");
}

/// Protects: a service whose state directory cannot be used says so, and restores all the same.
#[test]
fn a_service_without_a_state_directory_restores() {
    let server = Server::embedded(1);
    put(&server, 0..100, 1);
    let text = configuration(&server, ROUTINE);
    let home = Home::new(&text.replace("service:\n", "service:\n  state-dir: config.yml/state\n"));
    let service = home.serve();
    service.logs(&["WARN", "no state directory can be used", "config.yml/state"]);
    let backup = service.backup("full", "routine").remove(0);
    let end = service.restore("full", &request_of(&backup, &json!({"no-generation": true})));
    assert_eq!(end["status"], "Done", "{end}");
}

/// Protects: a resumed restore whose backup was deleted meanwhile, be it in part, has failed and names the backup, because it is
/// not known what else is missing.
#[test]
fn a_restore_whose_backup_was_deleted_fails() {
    let stage = Stage::new(1500, "", 500);
    let service = stage.home.serve();
    let job = stage.start(&service);
    stage.progresses(&service, job, 0);
    kill(service);
    let backup = stage.request["backup-data-path"].as_str().unwrap();
    std::fs::remove_file(stage.home.storage().join(backup).join("metadata.yaml")).unwrap();
    let service = stage.home.serve();
    let end = service.restored(job);
    let error = end["error"].as_str().unwrap();
    assert!(end["status"] == "Failed" && error.contains("was deleted") && error.contains(backup), "{end}");
}

/// Copies all that comes to an address to another one, and back.
fn forward(from: TcpListener, to: String) {
    std::thread::spawn(move || {
        for incoming in from.incoming() {
            let (incoming, outgoing) = (incoming.unwrap(), TcpStream::connect(&to).unwrap());
            for (mut from, mut to) in
                [(incoming.try_clone().unwrap(), outgoing.try_clone().unwrap()), (outgoing, incoming)]
            {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
}

/// Protects: a resumed restore waits for a cluster or a storage that cannot be reached when the service starts, says so, and is
/// resumed when they can; it has failed when they cannot for longer than the configuration allows.
#[test]
fn a_resumed_restore_waits_for_its_cluster() {
    let stage = Stage::new(400, "", 100);
    let before = held(&stage.server);
    let service = stage.home.serve();
    let job = stage.start(&service);
    stage.progresses(&service, job, 0);
    kill(service);
    let reachable = stage.home.configured();
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let port = stage.server.address.rsplit_once(':').unwrap().1;
    let unreachable = reachable.replace(&format!("port: {port}"), &format!("port: {}", away.port()));
    std::fs::write(stage.home.config(), &unreachable).unwrap();
    let waits = |service: &Service, job| {
        let waits = || !status(service, job)["current-job"]["retry"].is_null();
        eventually(waits).unwrap_or_else(|()| panic!("{}\n{}", status(service, job), service.log()));
        assert_eq!(status(service, job)["status"], "Running");
    };
    let service = stage.home.serve();
    waits(&service, job);
    forward(TcpListener::bind(away).unwrap(), stage.server.address.clone());
    let end = service.restored(job);
    assert_eq!(end["status"], "Done", "{end}\n{}", service.log());
    holds(&stage.server, &before);
    service.stop();

    // The same for its storage.
    std::fs::write(stage.home.config(), &reachable).unwrap();
    let service = stage.home.serve();
    let job = stage.start(&service);
    stage.progresses(&service, job, 0);
    kill(service);
    let backup = stage.home.storage().join(stage.request["backup-data-path"].as_str().unwrap());
    let elsewhere = stage.home.path().join("elsewhere");
    std::fs::rename(&backup, &elsewhere).unwrap();
    // What the system does not follow.
    std::os::unix::fs::symlink(&backup, &backup).unwrap();
    let service = stage.home.serve();
    waits(&service, job);
    std::fs::remove_file(&backup).unwrap();
    std::fs::rename(&elsewhere, &backup).unwrap();
    let end = service.restored(job);
    assert_eq!(end["status"], "Done", "{end}\n{}", service.log());

    let job = stage.start(&service);
    stage.progresses(&service, job, 0);
    kill(service);
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = reachable.replace(&format!("port: {port}"), &format!("port: {}", away.port()));
    let short = unreachable.replace("service:\n", "service:\n  restore-resume-within: 8000\n");
    std::fs::write(stage.home.config(), short).unwrap();
    let end = stage.home.serve().restored(job);
    let error = end["error"].as_str().unwrap();
    assert!(end["status"] == "Failed" && error.starts_with("interrupted, and cannot be continued"), "{end}");
}

/// Protects: a restore whose cluster is no longer configured has failed, with the reason.
#[test]
fn a_restore_that_cannot_be_asked_again_fails() {
    let stage = Stage::new(400, "", 1);
    let service = stage.home.serve();
    let job = stage.start(&service);
    kill(service);
    let text = stage.home.configured();
    std::fs::write(
        stage.home.config(),
        text.replace("cluster: {seed", "other: {seed")
            .replace("source-cluster: cluster", "source-cluster: other"),
    )
    .unwrap();
    let service = stage.home.serve();
    let end = service.restored(job);
    assert_eq!(end["status"], "Failed", "{end}");
    let error = end["error"].as_str().unwrap();
    assert!(error.contains("interrupted") && error.contains("destination-name"), "{error}");
}
