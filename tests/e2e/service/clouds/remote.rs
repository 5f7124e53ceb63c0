//! A configuration that is kept in an object store.

use std::fs;

use serde_json::{Value, json};

use super::{Place, in_every_cloud};
use crate::service::support::{Home, ROUTINE, Service};
use crate::support::{Server, abs, command};

in_every_cloud!(the_configuration_may_be_an_object);

/// The entry for an object, as the file that `-r` reads has it.
fn at(mut entry: Value, path: &str) -> String {
    for storage in entry.as_object_mut().unwrap().values_mut() {
        storage["path"] = json!(path);
    }
    entry.to_string()
}

/// Protects: with `-r` the configuration is read from a bucket and changes are written there, with its secrets, and are in
/// force after a restart; what is not there is told in a line.
fn the_configuration_may_be_an_object(place: Place) {
    let server = Server::embedded(1);
    let home = Home::of(&server, ROUTINE).at(place);
    home.raw().write("settings/abs.yml", home.configured().as_bytes());
    let named = home.path().join("remote.yml");
    let object = |path: &str| format!("{}/{path}", home.prefix());
    fs::write(&named, at(home.entry(), &object("settings/abs.yml"))).unwrap();
    let name = named.to_str().unwrap();
    abs(&["config", "check", "-r", name]).ok();
    let serve = || Service::start(command(&["serve", "-c", name, "-r"]));
    let service = serve();
    service.put("/v1/config/policies/policy", Some(r#"{"parallel": 7}"#)).is(200);
    service.backup("full", "routine");
    service.stop();
    let text = String::from_utf8(home.read("settings/abs.yml")).unwrap();
    assert!(text.contains("parallel: 7") && !text.contains("[secret]"), "{text}");
    let service = serve();
    assert_eq!(service.json("/v1/config/policies/policy")["parallel"], json!(7));
    assert_eq!(service.backups("full", "routine").len(), 1);
    // Somebody else's change, when it is asked for.
    home.raw().write("settings/abs.yml", text.replace("parallel: 7", "parallel: 8").as_bytes());
    service.post("/v1/config/apply", None).is(200);
    assert_eq!(service.json("/v1/config/policies/policy")["parallel"], json!(8));
    service.stop();

    fs::write(&named, at(home.entry(), &object("settings/gone.yml"))).unwrap();
    abs(&["serve", "-r", "-c", name]).fails(2, &["settings/gone.yml", "does not exist"]);
    fs::write(&named, at(place.entry("abs-gone", ""), "abs.yml")).unwrap();
    abs(&["serve", "-r", "-c", name]).fails(2, &["abs-gone", "does not exist"]);
}
