//! Our document against the reference's: everything of 3.5.0 is in ours, and what we add is listed here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::document;
use crate::http::endpoint::{EVERYWHERE, WITH_BODY};

/// What ours has and the reference has not.
const ADDITIONS: &[&str] = &[
    "GET /api-docs/openapi.json",
    "GET /v1/backups/full/{name} status 404",
    "GET /v1/backups/incremental/{name} status 404",
    "GET /v1/config/clusters status 400",
    "GET /v1/config/policies status 400",
    "GET /v1/config/storage status 400",
    "GET /v1/events",
    "GET /v1/retrieve/configuration/{name}/{timestamp} status 404",
    "DELETE /v1/backups/pin/{name}/{timestamp}",
    "DELETE /v1/backups/run/{name}/{timestamp}",
    "PUT /v1/backups/pin/{name}/{timestamp}",
    "GET /v1/backups/verify/status/{jobId}",
    "POST /v1/backups/full/{name} status 409",
    "POST /v1/backups/incremental/{name} status 409",
    "POST /v1/backups/schedule/{name} status 409",
    "POST /v1/backups/verify/cancel/{jobId}",
    "POST /v1/backups/verify/{name}/{timestamp}",
    "POST /v1/restore/full status 409",
    "POST /v1/restore/incremental status 409",
    "POST /v1/restore/timestamp status 409",
    "dto.BackupCommonConfig.schedule-timezone",
    "dto.BackupDetails.pinned",
    "dto.BackupDetails.warnings",
    "dto.BackupPolicy.allow-masked",
    "dto.BackupPolicy.file-hash",
    "dto.BackupPolicy.checkpoint-interval",
    "dto.BackupPolicy.compact",
    "dto.BackupPolicy.file-hash",
    "dto.BackupPolicy.incr-mode",
    "dto.BackupPolicy.on-interrupt",
    "dto.BackupPolicy.overlap",
    "dto.BackupPolicy.verify",
    "dto.BackupPolicy.verify-mode",
    "dto.BackupRoutine.filter-exp",
    "dto.BackupRoutine.schedule-timezone",
    "dto.EncryptionPolicy.mode AES128GCM",
    "dto.EncryptionPolicy.mode AES256GCM",
    "dto.EncryptionPolicy.read-keys",
    "dto.HTTPServerConfig.show-secrets",
    "dto.RestoreJobStatus.refused-records",
    "dto.RestoreJobStatus.superseded-records",
    "dto.RestoreJobStatus.validations",
    "dto.RestoreJobStatus.warnings",
    "dto.RestorePolicy.chain-memory",
    "dto.RestorePolicy.override",
    "dto.RestorePolicy.validate-only",
    "dto.RestoreTimestampRequest.source",
    "dto.RestoreTimestampRequest.source-name",
    "dto.RunningJob.retry",
    "dto.ServiceConfig.lease",
    "dto.ServiceConfig.restore-resume-within",
    "dto.ServiceConfig.shutdown-grace",
    "dto.ServiceConfig.state-dir",
    "dto.TimestampRestorePolicy.chain-memory",
    "dto.TimestampRestorePolicy.override",
    "schema dto.DeletedBackups",
    "dto.TimestampRestorePolicy.validate-only",
    "schema dto.Event",
    "schema dto.PendingRetry",
    "schema dto.ReadKey",
    "schema dto.RefusedRecords",
    "schema dto.SampledRecords",
    "schema dto.Validation",
    "schema dto.VerificationStatus",
    "schema dto.VerifiedBackup",
    "schema dto.Work",
];

/// Schemas of answers. Ours say that a property is always there; clients need not care.
const ANSWERS: &[&str] = &[
    "dto.BackupDetails",
    "dto.Metrics",
    "dto.RestoreJobStatus",
    "dto.RoutineState",
    "dto.RunningJob",
    "dto.VersionResponse",
];

/// Answers of which the reference's document says that they are text; the reference itself sends none, as we do.
const EMPTY: &[&str] = &["POST /v1/restore/cancel/{jobId} 202"];

struct Comparison {
    reference: Value,
    ours: Value,
    missing: Vec<String>,
    added: BTreeSet<String>,
}

#[test]
fn everything_of_the_reference_is_in_ours_and_additions_are_listed() {
    let reference: Value =
        serde_json::from_str(include_str!("../../../tests/golden/openapi-v3.5.0.json")).unwrap();
    let ours = serde_json::to_value(document("", "1")).unwrap();
    let mut comparison = Comparison { reference, ours, missing: Vec::new(), added: BTreeSet::new() };
    comparison.paths();
    comparison.schemas();
    assert!(comparison.missing.is_empty(), "missing:\n{}", comparison.missing.join("\n"));
    let listed: BTreeSet<String> = ADDITIONS.iter().map(|&addition| addition.to_owned()).collect();
    let unlisted: Vec<_> = comparison.added.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&comparison.added).collect();
    assert!(
        unlisted.is_empty() && gone.is_empty(),
        "not listed: {unlisted:#?}\nlisted, but not there: {gone:#?}"
    );
}

/// Every name that ours refers to is there.
#[test]
fn no_reference_dangles() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(name)) = map.get("$ref") {
                    found.insert(name.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let ours = serde_json::to_value(document("/abs", "1")).unwrap();
    assert_eq!(ours["servers"], json!([{"url": "/abs"}]));
    let mut found = BTreeSet::new();
    references(&ours, &mut found);
    assert!(found.len() > 30, "{found:?}");
    for name in found {
        assert!(ours.pointer(name.trim_start_matches('#')).is_some(), "{name}");
    }
}

impl Comparison {
    /// Notes what of `reference` is not in `ours`, and the other way round; returns what is in both.
    fn keys<T>(
        &mut self,
        at: &str,
        reference: &BTreeMap<String, T>,
        ours: &BTreeMap<String, T>,
    ) -> Vec<String> {
        for key in reference.keys().filter(|key| !ours.contains_key(*key)) {
            self.missing.push(format!("{at}{key}"));
        }
        for key in ours.keys().filter(|key| !reference.contains_key(*key)) {
            self.added.insert(format!("{at}{key}"));
        }
        reference.keys().filter(|key| ours.contains_key(*key)).cloned().collect()
    }

    /// Notes a difference.
    fn same(&mut self, at: &str, reference: &Value, ours: &Value) {
        if reference != ours {
            self.missing.push(format!("{at}: {reference} there, {ours} here"));
        }
    }

    fn paths(&mut self) {
        let (reference, ours) = (operations(&self.reference), operations(&self.ours));
        for name in self.keys("", &reference, &ours) {
            let (reference, ours) = (&reference[&name], &ours[&name]);
            for key in ["operationId", "tags", "deprecated"] {
                self.same(&format!("{name} {key}"), &reference[key], &ours[key]);
            }
            let parameters = [parameters(reference), parameters(ours)];
            for key in self.keys(&format!("{name} parameter "), &parameters[0], &parameters[1]) {
                self.same(&format!("{name} {key}"), &parameters[0][&key], &parameters[1][&key]);
            }
            let bodies = [self.reference_body(reference), shape(&json_content(&ours["requestBody"]))];
            self.same(&format!("{name} body"), &bodies[0], &bodies[1]);
            let responses = [responses(reference), responses(ours)];
            for status in self.keys(&format!("{name} status "), &responses[0], &responses[1]) {
                let at = format!("{name} {status}");
                let [reference, ours] = [0, 1].map(|i: usize| shape(&any_content(&responses[i][&status])));
                // Errors are plain text in both, whatever the reference's document says of their media type; it does
                // not say that health checks and the like answer with text.
                let said = status.starts_with('2') && !reference.is_null();
                if said && !EMPTY.contains(&at.as_str()) {
                    self.same(&at, &reference, &ours);
                }
            }
        }
    }

    fn reference_body(&self, operation: &Value) -> Value {
        let body = &operation["requestBody"];
        let body = match body["$ref"].as_str() {
            Some(name) => self.reference.pointer(name.trim_start_matches('#')).unwrap(),
            None => body,
        };
        shape(&json_content(body))
    }

    fn schemas(&mut self) {
        let (reference, ours) = (schemas(&self.reference), schemas(&self.ours));
        for name in self.keys("schema ", &reference, &ours) {
            let (reference, ours) = (&reference[&name], &ours[&name]);
            let properties = [reference, ours].map(|schema| entries(&schema["properties"]));
            for key in self.keys(&format!("{name}."), &properties[0], &properties[1]) {
                let [reference, mut ours] = [0, 1].map(|i: usize| shape(&properties[i][&key]));
                let words = [&reference, &ours].map(|shape| strings(&shape["enum"]));
                if !words[0].is_empty() && words[0].is_subset(&words[1]) {
                    let more = words[1].difference(&words[0]);
                    self.added.extend(more.map(|word| format!("{name}.{key} {word}")));
                    ours["enum"] = reference["enum"].clone();
                }
                self.same(&format!("{name}.{key}"), &reference, &ours);
            }
            let required = [reference, ours].map(|schema| strings(&schema["required"]));
            let additions_matter = !ANSWERS.contains(&name.as_str());
            if !required[0].is_subset(&required[1]) || additions_matter && required[0] != required[1] {
                self.missing
                    .push(format!("{name} required: {:?} there, {:?} here", required[0], required[1]));
            }
            if reference["properties"].is_null() {
                self.same(&name, &shape(reference), &shape(ours));
            }
        }
    }
}

/// Operations by `METHOD path`.
fn operations(document: &Value) -> BTreeMap<String, Value> {
    let paths = entries(&document["paths"]);
    let operations = paths.iter().flat_map(|(path, methods)| {
        let methods = entries(methods);
        methods
            .into_iter()
            .map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
    });
    operations.collect()
}

fn parameters(operation: &Value) -> BTreeMap<String, Value> {
    let list = operation["parameters"].as_array().cloned().unwrap_or_default();
    let described = list.into_iter().map(|parameter| {
        let required = parameter["required"].as_bool().unwrap_or_default();
        let name = parameter["name"].as_str().unwrap().to_owned();
        (name, json!([parameter["in"], required, parameter["schema"]["type"], parameter["schema"]["format"]]))
    });
    described.collect()
}

/// Responses by their status, without those that ours has everywhere.
fn responses(operation: &Value) -> BTreeMap<String, Value> {
    let mut responses = entries(&operation["responses"]);
    for (status, _) in EVERYWHERE.iter().chain(&WITH_BODY) {
        responses.remove(&status.to_string());
    }
    responses
}

fn schemas(document: &Value) -> BTreeMap<String, Value> {
    entries(&document["components"]["schemas"])
}

fn entries(value: &Value) -> BTreeMap<String, Value> {
    let map: Map<String, Value> = value.as_object().cloned().unwrap_or_default();
    map.into_iter().collect()
}

fn strings(value: &Value) -> BTreeSet<String> {
    let list = value.as_array().cloned().unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn json_content(value: &Value) -> Value {
    value["content"]["application/json"]["schema"].clone()
}

fn any_content(value: &Value) -> Value {
    entries(&value["content"])
        .into_values()
        .next()
        .map(|content| content["schema"].clone())
        .unwrap_or_default()
}

/// What a schema means, however the two versions of OpenAPI write it; whether `null` is allowed does not count.
fn shape(schema: &Value) -> Value {
    if let Some(name) = schema["$ref"].as_str() {
        return name.into();
    }
    for several in ["allOf", "oneOf", "anyOf"] {
        let list = schema[several].as_array().cloned().unwrap_or_default();
        let mut shapes: Vec<_> = list.iter().filter(|one| one["type"] != "null").map(shape).collect();
        shapes.retain(|shape| !shape.is_null());
        if shapes.len() == 1 {
            return shapes.remove(0);
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| **kind != "null").cloned().unwrap_or_default(),
        kind => kind.clone(),
    };
    let mut shape_of = Map::new();
    if kind.is_null() {
        return kind;
    }
    if schema["items"].is_object() {
        shape_of.insert("items".to_owned(), shape(&schema["items"]));
    }
    if schema["additionalProperties"].is_object() {
        shape_of.insert("values".to_owned(), shape(&schema["additionalProperties"]));
    }
    let words = strings(&schema["enum"]);
    if !words.is_empty() {
        shape_of.insert("enum".to_owned(), json!(words));
    }
    shape_of.insert("type".to_owned(), kind);
    shape_of.into()
}
