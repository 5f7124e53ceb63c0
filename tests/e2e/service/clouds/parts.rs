//! Files of several parts.

use serde_json::{Value, json};

use super::requests::proxy::{Kind, Proxy, Request};
use super::{Place, in_every_cloud};
use crate::faults::empty;
use crate::raw::{self, Raw, blob};
use crate::service::api::restores::done;
use crate::service::api::{held, holds, is_data, request_of, with_policy};
use crate::service::place::on_every_storage;
use crate::service::support::{Home, Service, eventually};
use crate::support::Server;

in_every_cloud!(
    a_file_of_several_parts_comes_back,
    a_canceled_backup_leaves_no_part,
    a_backup_whose_upload_hangs_can_be_canceled,
);
on_every_storage!(
    what_a_crash_left_goes_at_the_next_start,
    a_backup_is_continued_by_another_machine,
    an_interrupted_backup_is_continued,
);

/// How many records there are of [`fill`].
const RECORDS: u64 = 150;

/// Writes records that make a file of some 20 MB, four parts, no stretch of which is like another.
fn fill(server: &Server) {
    let record = |n: u64| {
        let bytes: Vec<u8> = (0..100_000_u64).map(|byte| ((n * 31 + byte / 7) % 251) as u8).collect();
        Raw::new(n).bin("bin", blob(bytes))
    };
    raw::load(server, &(0..RECORDS).map(record).collect::<Vec<_>>());
}

/// A backup that has uploaded what it can of its one file, and cannot end.
fn hang(server: &Server, service: &Service) {
    // It cannot end before this partition can be read.
    server.dev().knobs().refuse_partition(7, true).unwrap();
    service.post("/v1/backups/full/routine", None).is(202);
    let done = || service.json("/v1/backups/currentBackup/routine")["full"]["done-records"].as_u64();
    eventually(|| done().is_some_and(|done| done > RECORDS * 9 / 10))
        .unwrap_or_else(|()| panic!("it does not begin:\n{}", service.log()));
}

/// What the emulator answers, without our own client; only S3's does without a signature.
fn ask(method: &str, path: &str) -> ureq::http::Response<ureq::Body> {
    let address = Place::S3.address();
    let request = ureq::http::Request::builder().method(method).uri(format!("{address}{path}"));
    let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
    agent.run(request.body(()).unwrap()).unwrap()
}

/// Protects: a file that is larger than a part is uploaded in parts, and comes back as it was.
fn a_file_of_several_parts_comes_back(place: Place) {
    let server = Server::embedded(1);
    fill(&server);
    let expected = held(&server);
    let home = with_policy(&server, "{parallel: 1, parallel-write: 1}").at(place);
    let service = home.serve();
    let backup = service.backup("full", "routine").remove(0);
    // One of the records, one of the definitions.
    assert_eq!((&backup["file-count"], &backup["record-count"]), (&json!(2), &json!(RECORDS)));
    assert!(backup["byte-count"].as_u64().unwrap() > 15 << 20, "{backup}");
    if place == Place::S3 {
        let records = |name: &String| is_data(name) && !name.contains("/metadata_");
        let file = home.files().into_iter().find(records).unwrap();
        let head = ask("HEAD", &format!("/{}/{}/{file}", home.bucket(), home.prefix()));
        let tag = head.headers()["etag"].to_str().unwrap().trim_matches('"').to_owned();
        // That of an object of parts ends in their number.
        let (_, parts) = tag.rsplit_once('-').unwrap_or_else(|| panic!("{tag} is of one part"));
        assert!(parts.parse::<u32>().unwrap() >= 3, "{tag}");
    }
    empty(&server);
    done(&service, "full", &request_of(&backup, &json!({})));
    holds(&server, &expected);
}

/// Protects: a backup that is canceled when some parts of its file are uploaded leaves nothing, no part either.
fn a_canceled_backup_leaves_no_part(place: Place) {
    let server = Server::embedded(1);
    fill(&server);
    let home = with_policy(&server, "{parallel: 1, parallel-write: 1}").at(place);
    let service = home.serve();
    hang(&server, &service);
    let uploads = || {
        let list = ask("GET", &format!("/{}?uploads", home.bucket())).into_body().read_to_string().unwrap();
        list.matches(&format!("<Key>{}/", home.prefix())).count()
    };
    if place == Place::S3 {
        eventually(|| uploads() == 1).unwrap_or_else(|()| panic!("nothing is uploaded:\n{}", service.log()));
    }
    service.post("/v1/backups/cancel/routine", None).is(202);
    let ended = || service.json("/v1/backups/currentBackup/routine")["full"].is_null();
    eventually(ended).unwrap_or_else(|()| panic!("it does not end:\n{}", service.log()));
    assert_eq!(home.files(), [""; 0]);
    if place == Place::S3 {
        assert_eq!(uploads(), 0);
    }
    assert_eq!(home.raw().delete_unfinished(), 0);
}

/// Protects: a cancel ends a backup at once whose storage takes no more bytes, and the routine can back up again.
fn a_backup_whose_upload_hangs_can_be_canceled(place: Place) {
    let server = Server::embedded(1);
    fill(&server);
    let home =
        with_policy(&server, "{parallel: 1, parallel-write: 1, with-cluster-configuration: true}").at(place);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::before(&place.address()));
    let text = home.configured().replace(&place.address(), &proxy.url(&place.address()));
    std::fs::write(home.config(), text).unwrap();
    let service = home.serve();
    // GCS has the name in the body; the configuration comes first.
    let is_configuration = |request: &Request| {
        request.method != "GET"
            && [".conf", "uploadType=multipart"].iter().any(|part| request.target.contains(part))
    };
    for (hangs, what) in
        [(Request::is_part as fn(&Request) -> bool, "a part"), (is_configuration, "a small object")]
    {
        proxy.strike(usize::MAX, hangs, Kind::StallRequest);
        service.post("/v1/backups/full/routine", None).is(202);
        eventually(|| proxy.struck() > 0)
            .unwrap_or_else(|()| panic!("{what} is not uploaded:\n{}", service.log()));
        service.post("/v1/backups/cancel/routine", None).is(202);
        let ended = || service.json("/v1/backups/currentBackup/routine")["full"].is_null();
        eventually(ended).unwrap_or_else(|()| panic!("{what} still hangs:\n{}", service.log()));
        assert_eq!(service.backups("full", "routine"), [json!(null); 0]);
        proxy.heal();
    }
    let backup = service.backup("full", "routine").remove(0);
    assert_eq!(backup["record-count"], RECORDS);
}

/// Protects: what a service that was killed in the middle left of its backup is gone soon after the next start, parts too,
/// and whole backups stay.
fn what_a_crash_left_goes_at_the_next_start(place: Place) {
    let server = Server::embedded(1);
    fill(&server);
    let home = with_policy(&server, "{parallel: 1, parallel-write: 1, on-interrupt: discard}").at(place);
    let service = home.serve();
    service.backup("full", "routine");
    let whole = home.files();
    hang(&server, &service);
    // This kills it.
    drop(service);
    assert!(home.files().len() > whole.len(), "it left what it had claimed");
    server.dev().knobs().refuse_partition(7, false).unwrap();
    let service = home.serve();
    service.logs(&["deleted what a crash left of a backup", "routine/backup/"]);
    assert_eq!(home.files(), whole);
    assert_eq!(home.raw().delete_unfinished(), 0);
    service.backup("full", "routine");
}

/// Protects: a backup whose machine failed is continued at once by a service with the same state directory, and by another one
/// when its claim was not renewed for a lease.
fn a_backup_is_continued_by_another_machine(place: Place) {
    let server = Server::embedded(1);
    fill(&server);
    let expected = held(&server);
    let home = with_policy(&server, "{parallel: 1, parallel-write: 2, checkpoint-interval: 20}").at(place);
    let text = home.configured().replace("service:\n", "service:\n  lease: 3600000\n");
    std::fs::write(home.config(), text).unwrap();
    let service = home.serve();
    hang(&server, &service);
    let there = || home.files().iter().any(|file| file.ends_with("/manifest/1.json"));
    eventually(there).unwrap_or_else(|()| panic!("no checkpoint: {:?}", home.files()));
    // This kills it.
    drop(service);
    // As if that was on another machine, or before this one was started again.
    let moves = |claim: &str, lease: &str| {
        let text = String::from_utf8(home.read(claim)).unwrap();
        let (start, process) = text.split_once(" by ").unwrap();
        let (_, process) = process.split_once(' ').unwrap();
        let start = start.replace("lease 3600000", lease);
        home.raw().write(claim, format!("{start} by another-boot {process}").as_bytes());
    };
    let claim = home.files().into_iter().find(|file| file.ends_with("/in-progress")).unwrap();
    moves(&claim, "lease 3600000");
    let service = home.serve();
    service.logs(&["continuing the backup that the end of the service interrupted"]);
    let claim = format!("{claim}-2");
    eventually(|| home.files().contains(&claim)).unwrap_or_else(|()| panic!("{:?}", home.files()));
    drop(service);

    moves(&claim, "lease 2000");
    std::fs::remove_dir_all(home.path().join("abs-state")).unwrap();
    server.dev().knobs().refuse_partition(7, false).unwrap();
    let service = home.serve();
    let backup = whole_at_the_end(&home, &server, &service);
    service.logs(&["continuing the backup that the end of the service interrupted"]);
    assert_eq!(backup["record-count"], RECORDS);
    assert!(held(&server) == expected);
}

/// Waits until the continued backup is listed and has left nothing else, restores it into the emptied namespace, and returns it.
#[track_caller]
fn whole_at_the_end(home: &Home, server: &Server, service: &Service) -> Value {
    let listed = || !service.backups("full", "routine").is_empty();
    eventually(listed).unwrap_or_else(|()| panic!("it does not end:\n{}", service.log()));
    let backup = service.backups("full", "routine").remove(0);
    let odd = |name: &&String| name.contains("/manifest/") || name.contains("in-progress");
    eventually(|| home.files().iter().find(odd).is_none()).unwrap_or_else(|()| panic!("{:?}", home.files()));
    assert_eq!(home.raw().delete_unfinished(), 0);
    empty(server);
    done(service, "full", &request_of(&backup, &json!({})));
    backup
}

/// Protects: a backup whose service was killed, again and again, is continued at the next start from its last checkpoint: it
/// keeps its time, has each record once, and leaves nothing else.
fn an_interrupted_backup_is_continued(place: Place) {
    let server = Server::embedded(1);
    fill(&server);
    let expected = held(&server);
    let home = with_policy(&server, "{parallel: 1, parallel-write: 2, checkpoint-interval: 20}").at(place);
    let mut service = home.serve();
    hang(&server, &service);
    let checkpoint = |number: u32| {
        let name = format!("/manifest/{number}.json");
        let there = || home.files().iter().any(|file| file.ends_with(&name));
        eventually(there).unwrap_or_else(|()| panic!("no checkpoint {number}: {:?}", home.files()));
    };
    checkpoint(1);
    let begun: Vec<_> =
        home.files().iter().filter_map(|file| file.split('/').nth(2).map(str::to_owned)).collect();
    for kills in 1..=2 {
        // This kills it.
        drop(service);
        service = home.serve();
        service.logs(&["continuing the backup that the end of the service interrupted"]);
        // The first checkpoint of an attempt says that it was begun.
        checkpoint(1 + kills);
    }
    server.dev().knobs().refuse_partition(7, false).unwrap();
    let backup = whole_at_the_end(&home, &server, &service);
    assert_eq!(
        (&backup["record-count"], &json!(backup["timestamp"].to_string())),
        (&json!(RECORDS), &json!(begun[0]))
    );
    assert!(held(&server) == expected);
}
