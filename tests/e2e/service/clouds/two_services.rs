//! Two services with the same routine in the same bucket.

use std::collections::BTreeSet;

use serde_json::json;

use super::{Place, fresh, in_every_cloud};
use crate::service::api::put;
use crate::service::support::{Home, Service, configuration, eventually};
use crate::support::Server;

in_every_cloud!(
    one_of_two_services_works_on_a_routine,
    a_service_that_was_killed_is_replaced,
    a_service_that_was_stopped_gives_way,
);

/// A routine of every second that keeps three backups, and a lease of two seconds.
fn homes(server: &Server, place: Place) -> [Home; 2] {
    let routine = "routine: {source-cluster: cluster, storage: disk, backup-policy: policy, interval-cron: '* * * * * *', \
                   namespaces: [NAMESPACE]}";
    let text = configuration(server, routine)
        .replace("service:\n", "service:\n  lease: 2000\n")
        .replace("policy: {retry", "policy: {retention: {full: 3}, retry");
    put(server, 0..10, 1);
    // Not that of all tests: the emulator of S3 fails lists of a bucket in which much is deleted meanwhile.
    let bucket = fresh(place, "two");
    [(); 2].map(|()| Home::new(&text).at_folder(place, &bucket, "backups"))
}

fn holds(service: &Service) -> bool {
    service.get("/metrics").is(200).text.contains("routine_held{routine=\"routine\"} 1\n")
}

/// How many backups a service has made.
fn made(service: &Service) -> u64 {
    let text = service.get("/metrics").is(200).text;
    let line = "backup_events_total{outcome=\"success\",routine=\"routine\",type=\"full\"} ";
    text.lines().find_map(|found| found.split_once(line)).map_or(0, |(_, count)| count.parse().unwrap())
}

/// Waits until a service has the routine and has made more backups.
#[track_caller]
fn works(service: &Service) {
    eventually(|| holds(service))
        .unwrap_or_else(|()| panic!("it does not get the routine:\n{}", service.log()));
    let before = made(service);
    eventually(|| made(service) > before + 1)
        .unwrap_or_else(|()| panic!("it makes no backups:\n{}", service.log()));
}

/// The claims on the routine.
fn claims(home: &Home) -> Vec<String> {
    home.raw().files().into_iter().filter(|file| file.contains("/.abs-lease/")).collect()
}

/// Insists that the one service works on the routine and the other does not, that each backup is whole and that no more are
/// kept than the policy says.
#[track_caller]
fn is_replaced_by(old: &Service, new: &Service) {
    works(new);
    let before = made(old);
    works(new);
    assert!(!holds(old) && holds(new));
    assert_eq!(made(old), before);
    // One more while retention deletes.
    let listed = new.backups("full", "routine");
    assert!((3..=4).contains(&listed.len()), "{listed:?}");
    let times: BTreeSet<_> = listed.iter().map(|backup| backup["timestamp"].as_i64()).collect();
    assert_eq!(times.len(), listed.len());
    for backup in &listed {
        assert_eq!(backup["record-count"], json!(10), "{backup}");
    }
}

/// Protects: of two services one schedules a routine, makes its backups and deletes them; the other one refuses to, names the
/// first, lists and restores, and has the routine as soon as the first one ends. Nothing is left of their claims.
fn one_of_two_services_works_on_a_routine(place: Place) {
    let server = Server::embedded(1);
    let [first, second] = homes(&server, place);
    let service = first.serve();
    works(&service);
    let id = std::fs::read_to_string(first.path().join("abs-state/owner-id")).unwrap();
    let standby = second.serve();
    standby.logs(&["WARN", "another service has the routine", &id]);
    let has_it = format!("service {id} has the routine");
    let time = standby.backups("full", "routine")[0]["timestamp"].to_string();
    standby.post("/v1/backups/full/routine", None).refuses(409, &["routine routine", &has_it]);
    standby.delete(&format!("/v1/backups/run/routine/{time}")).refuses(409, &[&has_it]);
    standby.put(&format!("/v1/backups/pin/routine/{time}"), None).refuses(409, &[&has_it]);
    is_replaced_by(&standby, &service);
    let is_same = || standby.backups("full", "routine") == service.backups("full", "routine");
    eventually(is_same).unwrap_or_else(|()| panic!("they list different backups"));
    assert_eq!(made(&standby), 0);
    service.stop();
    works(&standby);
    // A routine that is removed is nobody's.
    standby.delete("/v1/config/routines/routine").is(204);
    eventually(|| claims(&second).is_empty()).unwrap_or_else(|()| panic!("{:?}", claims(&second)));
    standby.stop();
    let service = first.serve();
    works(&service);
    assert_eq!(claims(&first).len(), 1);
    service.stop();
    assert_eq!(claims(&first), [""; 0]);
}

/// Protects: a service that was killed is replaced by the one that stands by, and stands by when it is started again.
fn a_service_that_was_killed_is_replaced(place: Place) {
    let server = Server::embedded(1);
    let [first, second] = homes(&server, place);
    let service = first.serve();
    works(&service);
    let standby = second.serve();
    standby.logs(&["another service has the routine"]);
    // This kills it.
    drop(service);
    works(&standby);
    let service = first.serve();
    service.logs(&["another service has the routine"]);
    is_replaced_by(&service, &standby);
    assert_eq!(made(&service), 0);
}

/// Protects: a service that was stopped for longer than a lease is replaced; when it runs again it makes and deletes nothing.
fn a_service_that_was_stopped_gives_way(place: Place) {
    let server = Server::embedded(1);
    let [first, second] = homes(&server, place);
    let service = first.serve();
    works(&service);
    let standby = second.serve();
    standby.logs(&["another service has the routine"]);
    service.signal("STOP");
    works(&standby);
    service.signal("CONT");
    service.logs(&["WARN", "another service has taken the routine"]);
    service.logs(&["WARN", "another service has the routine"]);
    is_replaced_by(&service, &standby);
    standby.stop();
    works(&service);
    service.stop();
    assert_eq!(claims(&first), [""; 0]);
}
