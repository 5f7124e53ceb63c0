//! Restores from a storage that the service is not configured with.

use serde_json::json;

use super::{Place, in_every_cloud};
use crate::faults::empty;
use crate::service::api::restores::done;
use crate::service::api::{destination, held, holds, put};
use crate::service::place::masked;
use crate::service::support::{Home, ROUTINE};
use crate::support::Server;

in_every_cloud!(a_backup_elsewhere_is_restored_with_its_storage_in_the_request);

/// Protects: a service whose own backups are in the store of one provider restores from that of another, which the request
/// describes, by path and by time.
fn a_backup_elsewhere_is_restored_with_its_storage_in_the_request(place: Place) {
    let server = Server::embedded(1);
    let away = Home::of(&server, ROUTINE).at(place);
    let service = away.serve();
    put(&server, 0..50, 1);
    let full = service.backup("full", "routine").remove(0);
    let first = held(&server);
    put(&server, 30..80, 2);
    let incremental = service.backup("incremental", "routine").remove(0);
    let second = held(&server);
    service.stop();

    let own = match place {
        Place::S3 => Place::Azure,
        Place::Azure => Place::Gcs,
        Place::Gcs | Place::Local => Place::S3,
    };
    let home = Home::of(&server, ROUTINE).at(own);
    let service = home.serve();
    let mut request = json!({
        "source": away.entry(), "destination": destination(&server), "backup-data-path": full["key"]
    });
    empty(&server);
    done(&service, "full", &request);
    holds(&server, &first);
    empty(&server);
    let at = json!({"source": away.entry(), "routine": "routine", "time": incremental["timestamp"]});
    done(&service, "timestamp", &at);
    holds(&server, &second);
    // As another service shows it, it is good for nothing here.
    let shown = masked(away.entry());
    if shown != away.entry() {
        request["source"] = shown;
        service.post("/v1/restore/full", Some(&request.to_string())).refuses(400, &["source", "[secret]"]);
    }
    assert_eq!(home.files(), [""; 0]);
    let log = service.stop().stdout;
    assert!(!log.contains("test-secret") && !log.contains("Eby8vdM0"), "{log}");
}
