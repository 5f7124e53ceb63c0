//! The samples are what they say they are: they load, they mean something, and editors accept them.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use abs_config::{
    AzureCredentials, Config, GcpDataClass, IncrementalMode, RestorePolicy, Scope, Settings, StorageSettings,
    TimestampFormat, from_json, json_schema,
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

/// The schema that a property's schema refers to, if it does.
fn followed<'a>(schema: &'a Value, property: &'a Value) -> &'a Value {
    let choices = ["oneOf", "anyOf", "allOf"].iter().find_map(|key| property[*key].as_array());
    let choice = choices.and_then(|list| list.iter().find(|choice| choice["type"] != "null"));
    let property = choice.unwrap_or(property);
    match property["$ref"].as_str() {
        Some(name) => &schema["$defs"][name.trim_start_matches("#/$defs/")],
        None => property,
    }
}

/// The numbers of a document, as JSON pointers, each with its bounds in the schema.
fn numbers(schema: &Value, of: &Value, document: &Value, path: &str, into: &mut Vec<(String, f64, f64)>) {
    let of = followed(schema, of);
    for (key, value) in document.as_object().into_iter().flatten() {
        let property = match of["properties"].get(key) {
            Some(property) => property,
            None => &of["additionalProperties"],
        };
        let path = format!("{path}/{key}");
        if value.is_number() {
            let bound = |name: &str| property[name].as_f64().unwrap_or_else(|| panic!("{path}: no {name}"));
            into.push((path.clone(), bound("minimum"), bound("maximum")));
        }
        numbers(schema, property, value, &path, into);
    }
}

/// Protects: every number has bounds in the schema, and the check has the same. Beyond them a stored configuration goes on
/// with a warning or is refused, a request is refused.
#[test]
fn every_number_has_bounds_in_schema_and_check() {
    let schema = json_schema();
    let config = serde_json::to_value(sample("full.yml")).unwrap();
    let policy = json!({"parallel": 1, "socket-timeout": 1, "total-timeout": 1, "batch-size": 1, "max-async-batches": 1,
        "bandwidth": 8, "tps": 1, "extra-ttl": 1, "retry-policy": {"base-timeout": 1, "multiplier": 1, "max-retries": 1}});
    let said = |name: &str, document: &Value| -> Vec<String> {
        let text = document.to_string();
        if name == "dto.Config" {
            let checked = Config::from_json(text.as_bytes()).and_then(|config| config.check());
            match checked {
                Ok(settings) => settings.warnings.iter().map(ToString::to_string).collect(),
                Err(problems) => problems.list().iter().map(ToString::to_string).collect(),
            }
        } else {
            let checked = from_json::<RestorePolicy>(text.as_bytes()).and_then(|policy| policy.check(""));
            checked.err().iter().flat_map(abs_config::Problems::list).map(ToString::to_string).collect()
        }
    };
    for (name, document, count) in [("dto.Config", &config, 30), ("dto.RestorePolicy", &policy, 11)] {
        assert_eq!(said(name, document), [""; 0]);
        let mut found = Vec::new();
        numbers(&schema, &schema["$defs"][name], document, "", &mut found);
        assert!(found.len() >= count, "{found:?}");
        for (pointer, least, most) in found {
            let place = pointer.trim_start_matches('/').replace('/', ".");
            let with = |number: i64| {
                let mut document = document.clone();
                *document.pointer_mut(&pointer).unwrap() = number.into();
                said(name, &document)
            };
            for (number, bound) in [(most as i64, "at most"), (least as i64, "at least")] {
                let wrong = format!("{place}: must be {bound} {number}, not");
                let said = with(number);
                assert!(!said.iter().any(|line| line.starts_with(&wrong)), "{said:?}");
                let beyond = if bound == "at most" { number + 1 } else { number - 1 };
                let said = with(beyond);
                assert!(said.iter().any(|line| line.starts_with(&wrong)), "{place} {beyond}: {said:?}");
            }
        }
    }
}
