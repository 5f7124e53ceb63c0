//! Where in a bucket backups are, and what is said of a bucket that is not there.

use serde_json::json;

use super::{Place, fresh, in_every_cloud};
use crate::faults::empty;
use crate::service::api::restores::done;
use crate::service::api::{held, holds, put, request_of};
use crate::service::place::masked;
use crate::service::support::{Home, ROUTINE};
use crate::support::Server;

in_every_cloud!(
    folders_of_a_bucket_are_apart,
    a_bucket_that_does_not_exist_is_refused,
    readiness_names_a_bucket_that_is_gone,
    readiness_names_a_store_that_does_not_answer,
);

/// Protects: backups may be at the root of a bucket or deep in it, in folders of any name, and one whose name begins with
/// that of another is not taken for it, neither in lists nor by retention.
fn folders_of_a_bucket_are_apart(place: Place) {
    let server = Server::embedded(1);
    let bucket = fresh(place, "apart");
    let folders = ["", "a", "ab", "a/b", "deep/down/with space/and ü+&=%41"];
    let text = crate::service::support::configuration(&server, ROUTINE)
        .replace("policy: {retry", "policy: {retention: {full: 1}, retry");
    let homes = folders.map(|folder| Home::new(&text).at_folder(place, &bucket, folder));
    let mut moments = Vec::new();
    for (number, home) in homes.iter().enumerate() {
        put(&server, 0..20 + number as u64, number as i64);
        let service = home.serve();
        assert_eq!(service.backups("full", "routine"), [json!(null); 0], "{number}");
        let full = service.backup("full", "routine").remove(0);
        assert_eq!(full["storage"], masked(home.entry()));
        assert!(full["key"].as_str().unwrap().starts_with("routine/backup/"), "{full}");
        moments.push((full, held(&server)));
    }
    for (home, (full, expected)) in homes.iter().zip(&moments) {
        let service = home.serve();
        assert_eq!(service.backups("full", "routine"), std::slice::from_ref(full));
        empty(&server);
        done(&service, "full", &request_of(full, &json!({})));
        holds(&server, expected);
    }
    // The first one of the folder goes, and nothing else.
    let service = homes[1].serve();
    let last = service.backup("full", "routine").remove(0);
    let kept = last["key"].as_str().unwrap();
    crate::service::support::eventually(|| {
        homes[1].files().iter().all(|name| name.starts_with(kept) || name.starts_with("b/"))
    })
    .unwrap_or_else(|()| panic!("more is left than {kept}: {:?}", homes[1].files()));
    for (number, (home, (full, _))) in homes.iter().zip(&moments).enumerate() {
        if number != 1 {
            assert_eq!(home.serve().backups("full", "routine"), std::slice::from_ref(full));
        }
    }
}

/// Protects: a storage whose bucket does not exist is refused as soon as it is configured, with the bucket and what to do.
fn a_bucket_that_does_not_exist_is_refused(place: Place) {
    let server = Server::embedded(1);
    let home = Home::of(&server, ROUTINE).at(place);
    let service = home.serve();
    let before = service.json("/v1/config");
    let gone = place.entry("abs-gone", "x");
    service
        .post("/v1/config/storage/new", Some(&gone.to_string()))
        .refuses(400, &["storage.new", "abs-gone", "does not exist", "create"]);
    service
        .put("/v1/config/storage/disk", Some(&gone.to_string()))
        .refuses(400, &["storage.disk", "abs-gone", "does not exist"]);
    let mut whole = before.clone();
    whole["storage"]["other"] = gone;
    service
        .put("/v1/config", Some(&whole.to_string()))
        .refuses(400, &["storage.other", "abs-gone", "does not exist"]);
    assert_eq!(service.json("/v1/config"), before);
    assert!(!home.configured().contains("abs-gone"));
    // What is there is taken.
    service.post("/v1/config/storage/new", Some(&home.entry().to_string())).is(201);
}

/// Protects: a wrong key is refused as soon as it is configured, and is not in the answer. Of the emulators, Azurite alone asks
/// for the right one.
#[test]
fn a_wrong_key_is_refused() {
    let server = Server::embedded(1);
    let home = Home::of(&server, ROUTINE).at(Place::Azure);
    let service = home.serve();
    let mut wrong = home.entry();
    let key = "d3Jvbmc=";
    wrong["azure-storage"]["account-key"] = json!(key);
    let refusal = service
        .post("/v1/config/storage/new", Some(&wrong.to_string()))
        .refuses(400, &["storage.new", crate::service::place::BUCKET, "authenticate"]);
    assert!(!refusal.text.contains(key), "{refusal:?}");
    wrong["azure-storage"]["account-key"] = json!("no base64!");
    service
        .post("/v1/config/storage/new", Some(&wrong.to_string()))
        .refuses(400, &["storage.new", "account-key", "base64"]);
}

/// Protects: a bucket that vanishes while the service runs is named, with what to do, and the service is ready again when it
/// is back.
fn readiness_names_a_bucket_that_is_gone(place: Place) {
    let server = Server::embedded(1);
    let bucket = fresh(place, "vanishes");
    // A routine that is disabled has no claim there: only an empty bucket can be removed.
    let home =
        Home::of(&server, &ROUTINE.replacen('{', "{disabled: true, ", 1)).at_folder(place, &bucket, "x");
    let service = home.serve();
    assert_eq!(service.get("/ready").is(200).text, "Ok");
    place.bucket("delete", &bucket);
    service.get("/ready").refuses(503, &["storage disk: ", &bucket, "does not exist", "create"]);
    assert_eq!(service.get("/health").is(200).text, "Ok");
    place.bucket("create", &bucket);
    assert_eq!(service.get("/ready").is(200).text, "Ok");
}

/// Protects: a store that does not answer is named, soon; nothing of its secrets is.
fn readiness_names_a_store_that_does_not_answer(place: Place) {
    let server = Server::embedded(1);
    let home = Home::of(&server, ROUTINE).at(place);
    // Nobody listens there.
    let text = home.configured().replace(&place.address(), &place.address().replace(&port(place), "1"));
    assert_ne!(text, home.configured());
    std::fs::write(home.config(), text).unwrap();
    let service = home.serve();
    let refusal = service.get("/ready").refuses(503, &["storage disk: "]);
    assert!(!refusal.text.contains("test-secret") && !refusal.text.contains("Eby8vdM0"), "{refusal:?}");
    let log = service.stop().stdout;
    assert!(!log.contains("test-secret") && !log.contains("Eby8vdM0"), "{log}");
}

/// The port of an emulator.
fn port(place: Place) -> String {
    let address = place.address();
    let (_, rest) = address.rsplit_once(':').unwrap();
    rest.split('/').next().unwrap().to_owned()
}
