//! Reading documents, and writing the configuration.

use ::config::{Map, Source, Value as Layer};
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;

use crate::document::Config;
use crate::schema::{Form, fit, place};
use crate::{Problem, Problems};

/// How the names of environment variables begin that change the configuration.
const PREFIX: &str = "ABS__";

/// Reads a document of the API, such as [`Config`], [`AerospikeCluster`](crate::AerospikeCluster) or
/// [`RestoreRequest`](crate::RestoreRequest), from JSON. All that is wrong with its form is told at once; whether its values
/// make sense is for its `check`.
pub fn from_json<T: DeserializeOwned + ToSchema>(text: &[u8]) -> Result<T, Problems> {
    typed(json(text)?, Form::Json)
}

/// Reads a document, such as [`Config`] or [`Storage`](crate::Storage), from YAML, in which JSON may be written, too.
pub fn from_yaml<T: DeserializeOwned + ToSchema>(text: &str) -> Result<T, Problems> {
    typed(yaml(text)?, Form::Yaml)
}

impl Config {
    /// Reads a configuration from YAML, in which JSON may be written, too.
    pub fn from_yaml(text: &str) -> Result<Self, Problems> {
        configuration(yaml(text)?, Form::Yaml)
    }

    /// Reads a configuration from JSON.
    pub fn from_json(text: &[u8]) -> Result<Self, Problems> {
        configuration(json(text)?, Form::Json)
    }

    /// Reads a configuration from the YAML of a file and from environment variables, which have the last word:
    /// `ABS__SERVICE__HTTP__PORT=8081` is `service.http.port`. Names are compared without case, `_` stands for `-`, and
    /// lists and objects are written as YAML.
    pub fn load(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        let document = yaml(text)?;
        let mut overrides = Value::Object(serde_json::Map::new());
        let mut problems = Vec::new();
        for (name, text) in environment {
            let Some(variable) = name.strip_prefix(PREFIX) else { continue };
            let Some((path, is_text)) = place::<Self>(variable, &document) else {
                problems
                    .push(Problem { path: name, message: "names no key of the configuration".to_owned() });
                continue;
            };
            let value = if is_text { Ok(Value::String(text)) } else { yaml(&text) };
            match value {
                Ok(value) => put(&mut overrides, &path, value),
                Err(error) => problems.extend(
                    error
                        .list()
                        .iter()
                        .map(|problem| Problem { path: name.clone(), message: problem.message.clone() }),
                ),
            }
        }
        Problems::none_in(problems)?;
        let layered = ::config::Config::builder()
            .add_source(Layers(layer(document)?))
            .add_source(Layers(layer(overrides)?))
            .build()
            .and_then(::config::Config::try_deserialize)
            .map_err(|error| Problems::one("", error))?;
        configuration(layered, Form::Yaml)
    }

    /// The configuration as YAML, secrets included.
    #[must_use]
    #[expect(
        clippy::missing_panics_doc,
        clippy::expect_used,
        reason = "its keys are text, which YAML can always write"
    )]
    pub fn to_yaml(&self) -> String {
        serde_norway::to_string(self).expect("a configuration can be written")
    }
}

fn yaml(text: &str) -> Result<Value, Problems> {
    let mut document: serde_norway::Value = match serde_norway::from_str(text) {
        Ok(document) => document,
        // Almost all JSON is YAML, but not all of it.
        Err(error) => return json(text.as_bytes()).map_err(|_| no("YAML", &error)),
    };
    document.apply_merge().map_err(|error| no("YAML", &error))?;
    serde_json::to_value(document).map_err(|error| no("YAML of a configuration", &error))
}

fn json(text: &[u8]) -> Result<Value, Problems> {
    // A key that is there twice is an error to this type, but not to that of `serde_json`.
    let document: serde_norway::Value = serde_json::from_slice(text).map_err(|error| no("JSON", &error))?;
    serde_json::to_value(document).map_err(|error| no("JSON", &error))
}

fn no(language: &str, error: &dyn std::error::Error) -> Problems {
    Problems::one("", format_args!("is no {language}: {error}"))
}

fn typed<T: DeserializeOwned + ToSchema>(mut document: Value, form: Form) -> Result<T, Problems> {
    Problems::none_in(fit::<T>(&mut document, form))?;
    read(document)
}

/// A configuration. When its form is wrong somewhere, what is wrong with the rest is told as well.
fn configuration(mut document: Value, form: Form) -> Result<Config, Problems> {
    // An empty file says nothing, and so does an empty object.
    if form == Form::Yaml && document.is_null() {
        document = Value::Object(serde_json::Map::new());
    }
    let mut problems = fit::<Config>(&mut document, form);
    let config = read::<Config>(document);
    if problems.is_empty() {
        return config;
    }
    if let Ok(Err(others)) = config.as_ref().map(Config::check) {
        let is_near =
            |one: &Problem, other: &Problem| within(&one.path, &other.path) || within(&other.path, &one.path);
        let mut others = others.list().to_vec();
        others.retain(|other| !problems.iter().any(|problem| is_near(problem, other)));
        problems.extend(others);
    }
    Problems::none_in(problems).and(config)
}

/// Whether a path is `place` or below it.
fn within(path: &str, place: &str) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| place.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}

fn read<T: DeserializeOwned>(document: Value) -> Result<T, Problems> {
    serde_path_to_error::deserialize(document).map_err(|error| {
        let path = error.path().to_string();
        Problems::one(if path == "." { "" } else { &path }, error.into_inner())
    })
}

/// Puts `value` at `path`, making the objects on the way.
fn put(document: &mut Value, path: &[String], value: Value) {
    let mut place = document;
    for key in path {
        if !place.is_object() {
            *place = Value::Object(serde_json::Map::new());
        }
        place = &mut place[key.as_str()];
    }
    *place = value;
}

/// A document as a layer of the `config` crate.
fn layer(document: Value) -> Result<Map<String, Layer>, Problems> {
    if document.is_null() {
        return Ok(Map::new());
    }
    serde_json::from_value(document).map_err(|_| Problems::one("", "must be an object with keys"))
}

#[derive(Debug, Clone)]
struct Layers(Map<String, Layer>);

impl Source for Layers {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Layer>, ::config::ConfigError> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::{RestoreRequest, TimestampRestorePolicy};

    fn lines(problems: &Problems) -> Vec<String> {
        problems.list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_that_is_wrong_with_the_form_is_told_at_once() {
        let text = "
backup-policy: {}
service: { http: { prot: 1, rate: [], white-list: [] }, https: {}, logger: loud }
aerospike-clusters:
  c: { seed-nodes: [{ host-name: 1 }, x], credentials: { password: 12345, user: true } }
backup-policies:
  p: { parallel: many, bandwidth: 1.5, sealed: 1, retry-policy: { multiplier: x } }
  q: 7
backup-routines: [r]
";
        let problems = Config::from_yaml(text).unwrap_err();
        let mut found = lines(&problems);
        found.sort();
        let expected = [
            "aerospike-clusters.c.credentials.password: must be text: put it in quotes",
            "aerospike-clusters.c.credentials.user: must be text: put it in quotes",
            "aerospike-clusters.c.seed-nodes[0].host-name: must be text: put it in quotes",
            "aerospike-clusters.c.seed-nodes[0].port: is required",
            "aerospike-clusters.c.seed-nodes[1]: must be an object with keys, not text",
            "backup-policies.p.bandwidth: must be a whole number, not 1.5",
            "backup-policies.p.parallel: must be a whole number, not \"many\"",
            "backup-policies.p.retry-policy.multiplier: must be a number, not \"x\"",
            "backup-policies.p.sealed: must be true or false, not 1",
            "backup-policies.q: must be an object with keys, not 7",
            "backup-policy: is no key here: did you mean backup-policies?",
            "backup-routines: must be an object with names, not a list",
            "service.http.prot: is no key here: did you mean port?",
            "service.http.rate: must be an object with keys, not a list",
            "service.http.white-list: is no key here: there is address, context-path, port, rate, show-secrets, timeout",
            "service.https: is not supported by this version: put a proxy that speaks TLS before the service",
            "service.logger: must be an object with keys, not text",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn numbers_may_be_grouped_in_yaml_only() {
        let config =
            Config::from_yaml("backup-policies: { p: { file-limit: 50_000, bandwidth: 1_0 } }").unwrap();
        let policy = &config.backup_policies["p"];
        assert_eq!((policy.file_limit, policy.bandwidth), (Some(50_000), Some(10)));
        for (text, message) in [
            ("1__0", "\"1__0\" is not a whole number"),
            ("\"5\"", "must be a whole number, not \"5\""),
            ("99_999_999_999_999_999_999", "\"99_999_999_999_999_999_999\" is too large"),
            ("10_000_000_000_000_000_000", "is too large"),
            ("10000000000000000000", "is too large"),
        ] {
            let error =
                Config::from_yaml(&format!("backup-policies: {{ p: {{ parallel: {text} }} }}")).unwrap_err();
            assert_eq!(error.to_string(), format!("backup-policies.p.parallel: {message}"));
        }
        let error = Config::from_json(br#"{"backup-policies":{"p":{"parallel":"1_0"}}}"#).unwrap_err();
        assert_eq!(error.to_string(), "backup-policies.p.parallel: must be a whole number, not \"1_0\"");
    }

    #[test]
    fn what_is_null_is_not_there() {
        let text = r#"{"service":null,"storage":null,"aerospike-clusters":{"c":{"label":null,
            "seed-nodes":[{"host-name":"h","port":1}]}}}"#;
        let config = Config::from_json(text.as_bytes()).unwrap();
        assert_eq!((config.service, config.aerospike_clusters["c"].label.clone()), (None, None));
        let error = Config::from_json(br#"{"storage":{"s":{"local-storage":{"path":null}}}}"#).unwrap_err();
        assert_eq!(error.to_string(), "storage.s.local-storage.path: must be text, not nothing");
        let error = Config::from_json(br#"{"storages":null}"#).unwrap_err();
        assert_eq!(error.to_string(), "storages: is no key here: did you mean storage?");
    }

    #[test]
    fn what_is_no_document_is_told_in_one_line() {
        for (text, start) in [
            ("a: [", "is no YAML: "),
            ("a: 1\na: 2", "is no YAML: "),
            (r#"{"a": 1, "a": 2}"#, "is no YAML: "),
            ("--- 1\n--- 2", "is no YAML: "),
            ("[]", "must be an object with keys, not a list"),
            ("? [a]\n: 1", "is no YAML of a configuration: "),
        ] {
            let error = Config::from_yaml(text).unwrap_err().to_string();
            assert!(error.starts_with(start) && !error.contains('\n'), "{text:?}: {error}");
        }
        let smile = Config::from_yaml("{\t\"backup-policies\": {\"\\ud83d\\ude00\": {}}}").unwrap();
        assert!(smile.backup_policies.contains_key("😀"), "JSON that is no YAML is read, too");
        for text in ["", "{", "{}{}", "\u{0}", r#"{"storage":{},"storage":{}}"#] {
            let error = Config::from_json(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("is no JSON: ") && !error.contains('\n'), "{error}");
        }
        assert_eq!(
            from_json::<RestoreRequest>(b"null").unwrap_err().to_string(),
            "must be an object with keys, not nothing"
        );
    }

    #[test]
    fn documents_of_the_api_are_read_one_by_one() {
        let request: RestoreRequest = from_json(br#"{"backup-data-path":"r/backup/1/ns"}"#).unwrap();
        assert_eq!(request.backup_data_path, "r/backup/1/ns");
        let error = from_json::<RestoreRequest>(br#"{"policy":{"compresion":{}}}"#).unwrap_err();
        assert_eq!(
            lines(&error),
            ["backup-data-path: is required", "policy.compresion: is no key here: did you mean compression?"]
        );
        from_json::<TimestampRestorePolicy>(br#"{"replace":true}"#).unwrap();
        let error = from_json::<TimestampRestorePolicy>(br#"{"compression":{}}"#).unwrap_err().to_string();
        assert!(error.starts_with("compression: is no key here: there is bandwidth"), "{error}");
    }

    #[test]
    fn the_environment_has_the_last_word() {
        let text = "
service: { http: { port: 1, address: a } }
aerospike-clusters:
  absDefault.Cluster: { seed-nodes: [{ host-name: h, port: 1 }], credentials: { user: u, password: p } }
";
        let load = |variables: &[(&str, &str)]| {
            Config::load(text, variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())))
        };
        assert_eq!(load(&[("PATH", "/bin"), ("ABS_X", "1")]).unwrap(), Config::from_yaml(text).unwrap());
        let config = load(&[
            ("ABS__SERVICE__HTTP__PORT", "8_081"),
            ("ABS__SERVICE__HTTP__SHOW_SECRETS", "true"),
            ("ABS__SERVICE__HTTP__RATE__WHITE_LIST", "[10.0.0.0/8, 127.0.0.1]"),
            ("ABS__AEROSPIKE_CLUSTERS__ABSDEFAULT_CLUSTER__CREDENTIALS__PASSWORD", "12345"),
            ("ABS__AEROSPIKE_CLUSTERS__ABSDEFAULT_CLUSTER__SEED_NODES", "[{host-name: i, port: 2}]"),
            ("ABS__BACKUP_POLICIES__MY_POLICY", "{parallel: 3}"),
            ("ABS__STORAGE__S__LOCAL_STORAGE__PATH", "/b"),
        ])
        .unwrap();
        let http = config.service.unwrap().http.unwrap();
        assert_eq!(
            (http.port, http.address.as_deref(), http.show_secrets),
            (Some(8081), Some("a"), Some(true))
        );
        assert_eq!(http.rate.unwrap().white_list.unwrap(), ["10.0.0.0/8", "127.0.0.1"]);
        let cluster = &config.aerospike_clusters["absDefault.Cluster"];
        assert_eq!(
            (config.aerospike_clusters.len(), cluster.seed_nodes.len(), cluster.seed_nodes[0].port),
            (1, 1, 2)
        );
        let credentials = cluster.credentials.clone().unwrap();
        assert_eq!(credentials.password.unwrap().expose(), "12345", "a password of digits is text");
        assert_eq!(credentials.user.as_deref(), Some("u"));
        assert_eq!(config.backup_policies["my-policy"].parallel, Some(3));
        assert_eq!(config.storage["s"].local_storage.clone().unwrap().path, "/b");

        let error = load(&[
            ("ABS__SERVICE__HTP__PORT", "1"),
            ("ABS__SERVICE__HTTP__PORT__X", "1"),
            ("ABS__SERVICE__HTTP__TIMEOUT", "[1"),
            ("ABS__", "1"),
        ])
        .unwrap_err();
        assert_eq!(lines(&error).len(), 4, "{error}");
        assert_eq!(lines(&error)[0], "ABS__SERVICE__HTP__PORT: names no key of the configuration");
        assert!(lines(&error)[2].starts_with("ABS__SERVICE__HTTP__TIMEOUT: is no YAML: "), "{error}");
        let error = load(&[("ABS__SERVICE__HTTP__PORT", "many")]).unwrap_err();
        assert_eq!(error.to_string(), "service.http.port: must be a whole number, not \"many\"");
    }

    /// What is wrong with the form of one part hides nothing of another, and is not told twice.
    #[test]
    fn form_and_meaning_are_checked_together() {
        let text = "
            aerospike-clusters: { c: { seed-nodes: 3 }, d: { seed-nodes: [{ host-name: h, port: 0 }] } }
            storage: { s: { local-storag: { path: /x } } }
            backup-policies: { p: { parallel: zero, retention: { full: 1, incremental: 2 } } }
            backup-routines:
              r: { source-cluster: c, storage: s, interval-cron: soon, namespaces: [], backup-policy: nobody }
              t: { storage: s, namespaces: [n], interval-cron: '@daily' }";
        let problems = Config::from_yaml(text).unwrap_err();
        let mut paths: Vec<_> = problems.list().iter().map(|problem| problem.path.as_str()).collect();
        paths.sort_unstable();
        let expected = [
            "aerospike-clusters.c.seed-nodes",
            "aerospike-clusters.d.seed-nodes[0].port",
            "backup-policies.p.parallel",
            "backup-policies.p.retention.incremental",
            "backup-routines.r.backup-policy",
            "backup-routines.r.interval-cron",
            "backup-routines.t.source-cluster",
            "storage.s.local-storag",
        ];
        assert_eq!(paths, expected, "{problems}");
    }
}
