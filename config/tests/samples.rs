//! The samples are what they say they are: they load, they mean something, and editors accept them.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use abs_config::{
    AzureCredentials, Config, GcpDataClass, IncrementalMode, Scope, Settings, StorageSettings,
    TimestampFormat, json_schema,
};
use serde_json::{Value, json};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn sample(name: &str) -> Config {
    Config::from_yaml(&std::fs::read_to_string(folder("examples").join(name)).unwrap()).unwrap()
}

fn settings(name: &str) -> Settings {
    sample(name).check().unwrap_or_else(|problems| panic!("{name}: {problems}"))
}

#[test]
fn each_sample_loads_and_is_written_back_the_same() {
    let names: Vec<PathBuf> =
        std::fs::read_dir(folder("examples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(names.len() >= 4, "{names:?}");
    for path in names {
        let config = Config::from_yaml(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|problems| panic!("{}: {problems}", path.display()));
        config.check().unwrap_or_else(|problems| panic!("{}: {problems}", path.display()));
        assert_eq!(Config::from_yaml(&config.to_yaml()).unwrap(), config);
        assert_eq!(Config::from_json(&serde_json::to_vec(&config).unwrap()).unwrap(), config);
    }
}

#[test]
fn the_least_configuration_has_all_defaults() {
    let settings = settings("minimal.yml");
    let routine = &settings.routines["nightly"];
    assert!(routine.namespaces.is_empty() && routine.incremental.is_none() && !routine.disabled);
    assert_eq!((&routine.scope, routine.full.text()), (&Scope::All, "@daily"));
    assert_eq!(routine.policy, abs_config::BackupSettings::default());
    assert_eq!(settings.service, abs_config::ServiceSettings::default());
    assert_eq!(settings.clusters["cluster"].label, "cluster");
}

#[test]
fn several_clusters_have_schedules_of_their_own() {
    let settings = settings("several-clusters.yml");
    let [berlin, new_york] = ["berlin-orders", "new-york"].map(|name| &settings.routines[name]);
    assert_eq!(berlin.full.zone(), "Europe/Berlin".parse().unwrap());
    assert_eq!(new_york.full.zone(), "America/New_York".parse().unwrap());
    assert_eq!(berlin.timestamp_format, Some(TimestampFormat::Iso));
    for routine in [berlin, new_york] {
        assert_eq!(routine.policy.incremental_mode, IncrementalMode::Cumulative);
        assert_eq!(routine.policy.retention.full, Some(7), "the alias of the policy was not followed");
    }
    assert!(berlin.policy.sealed && !new_york.policy.sealed);
    assert_eq!(settings.clusters["berlin"].prefer_racks, [1, 2]);
    assert!(settings.clusters["new-york"].tls.is_some());
}

/// The keys of the schemas that the one of `name` leads to.
fn keys(schema: &Value, name: &str, into: &mut Vec<(String, String)>) {
    let definition = &schema["$defs"][name];
    let Some(properties) = definition["properties"].as_object() else { return };
    for (key, property) in properties {
        into.push((name.to_owned(), key.clone()));
        let text = property.to_string();
        for reference in text.split("#/$defs/").skip(1) {
            keys(schema, reference.split('"').next().unwrap(), into);
        }
    }
}

#[test]
fn the_full_sample_shows_every_key_that_can_be_used() {
    let text = std::fs::read_to_string(folder("examples/full.yml")).unwrap();
    let mut known = Vec::new();
    keys(&json_schema(), "dto.Config", &mut known);
    assert!(known.len() > 100, "{}", known.len());
    for (document, key) in known.iter().filter(|(_, key)| key != "use-scan-compression") {
        assert!(text.contains(&format!("{key}:")), "{document}.{key} is not in full.yml");
    }
}

#[test]
fn the_samples_of_clouds_mean_what_they_say() {
    let s3 = settings("s3.yml");
    let StorageSettings::S3(minio) = &*s3.storage["minio"] else { panic!("{s3:?}") };
    assert_eq!(minio.endpoint.as_deref(), Some("http://minio.example.com:9000"));
    assert_eq!((minio.folder.as_str(), minio.connections), ("", Some(16)));
    assert!(minio.key.is_some());
    let StorageSettings::S3(amazon) = &*s3.storage["amazon"] else { panic!("{s3:?}") };
    assert_eq!((amazon.folder.as_str(), &amazon.key), ("backups", &None));
    let azure = settings("azure.yml");
    let credentials = |name: &str| match &*azure.storage[name] {
        StorageSettings::Azure(azure) => azure.credentials.clone(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(credentials("shared-key"), AzureCredentials::SharedKey { .. }));
    assert!(matches!(credentials("client"), AzureCredentials::Client { .. }));
    let gcp = settings("gcp.yml");
    let StorageSettings::Gcp(gcs) = &*gcp.storage["gcs"] else { panic!("{gcp:?}") };
    assert_eq!(gcs.data_class, Some(GcpDataClass::Nearline));
}

#[test]
fn editors_accept_the_samples_and_nothing_else() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    for name in [
        "minimal.yml",
        "full-and-incremental.yml",
        "several-clusters.yml",
        "full.yml",
        "s3.yml",
        "gcp.yml",
        "azure.yml",
    ] {
        let document = serde_json::to_value(sample(name)).unwrap();
        let errors: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
    for wrong in [
        json!([]),
        json!({"backup-policy": {}}),
        json!({"backup-policies": {"p": {"parallel": "many"}}}),
        json!({"backup-policies": {"p": {"parallel": 0}}}),
        json!({"backup-policies": {"p": {"compression": {"mode": "LZ4"}}}}),
        json!({"backup-routines": {"r": {}}}),
        json!({"aerospike-clusters": {"c": {"seed-nodes": [{"host-name": "h", "port": 65536}]}}}),
    ] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
}
