//! How many requests it takes to find the backups.

#[path = "../../../../storage/tests/support/proxy.rs"]
#[allow(dead_code)]
pub mod proxy;

use abs_engine::catalog::{BackupKind, Catalog, namespace_folder, run_folder};
use chrono::DateTime;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use self::proxy::{Kind, Proxy, Request};
use super::{Place, in_every_cloud};
use crate::service::api::put;
use crate::service::place::BUCKET;
use crate::service::support::{Home, ROUTINE, configuration};
use crate::support::Server;

in_every_cloud!(a_listing_takes_as_few_requests_as_it_says, a_storage_that_hangs_hides_no_other);

/// Runs of one namespace each.
const RUNS: usize = 200;

/// Protects: what docs/STORAGE.md says a listing takes, counted between us and the provider.
fn a_listing_takes_as_few_requests_as_it_says(place: Place) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let proxy = Proxy::before(&place.address()).await;
        let folder = format!("tests/requests-{}-{place:?}", std::process::id());
        let entry = place.entry(BUCKET, &folder).to_string();
        let entry = entry.replace(&place.address(), &proxy.url(&place.address()));
        let entry: abs_config::Storage =
            serde_json::from_value(serde_json::from_str::<Value>(&entry).unwrap()).unwrap();
        let storage = abs_storage::open(&entry.check().unwrap());
        let written = (0..RUNS).map(|run| {
            let created = DateTime::from_timestamp(1_704_110_400 + 3600 * run as i64, 0).unwrap();
            let folder = run_folder("daily", BackupKind::Full, created, None).unwrap();
            let path = namespace_folder(&folder, "test").unwrap().join("metadata.yaml").unwrap();
            let text = format!(
                "created: {created:?}\nfinished: {created:?}\nfrom: 0001-01-01T00:00:00Z\nnamespace: test\nrecord-count: 1\n\
                 byte-count: 1\nfile-count: 1\nsecondary-index-count: 0\nudf-count: 0\ncompression: NONE\nencryption: NONE\n"
            );
            let storage = &storage;
            async move { storage.put(&path, text.as_bytes()).await.unwrap() }
        });
        let written: Vec<_> = written.collect();
        stream::iter(written).buffer_unordered(16).collect::<Vec<()>>().await;

        let catalog = Catalog::new(storage.clone());
        let count = async || {
            let before = proxy.requests();
            let listed = catalog.list("daily", BackupKind::Full, ..).await.unwrap();
            assert_eq!((listed.backups.len(), listed.unreadable.len()), (RUNS, 0));
            proxy.requests() - before
        };
        let (first, second) = (count().await, count().await);
        println!("{place:?}: {RUNS} backups are listed with {first} requests, and again with {second}");
        assert_eq!((first, second), (1 + RUNS + RUNS, 1 + RUNS));
        storage.delete_prefix(&abs_storage::ObjectPath::root()).await.unwrap();
    });
}

/// Protects: a storage that answers and then hangs while it lists hides the backups of no other.
fn a_storage_that_hangs_hides_no_other(place: Place) {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let proxy = runtime.block_on(Proxy::before(&place.address()));
    let folder = format!("tests/hangs-{}-{place:?}", std::process::id());
    let entry =
        place.entry(BUCKET, &folder).to_string().replace(&place.address(), &proxy.url(&place.address()));
    let second = ROUTINE.replacen("routine:", "remote:", 1).replace("storage: disk", "storage: other");
    let text = configuration(&server, &format!("{ROUTINE}\n{second}"))
        .replace("\nbackup-policies", &format!("\n  other: {entry}\nbackup-policies"));
    let service = Home::new(&text).serve();
    let (here, there) = (service.backup("full", "routine"), service.backup("full", "remote"));
    assert_eq!(service.json("/v1/backups/full"), json!({"routine": here, "remote": there}));
    let is_of_runs = |request: &Request| request.method == "GET" && request.target.contains("remote");
    proxy.strike(usize::MAX, is_of_runs, Kind::StallResponse);
    assert_eq!(service.json("/v1/backups/full"), json!({"routine": here}));
    service.logs(&["WARN", "the backups cannot be listed", "remote", "takes too long"]);
}
