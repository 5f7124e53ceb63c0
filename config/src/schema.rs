//! The documents as JSON Schema: for editors, and to say all that is wrong with the form of a document at once.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

use crate::document::Config;
use crate::restore_request::{RestoreRequest, RestoreTimestampRequest};
use crate::secret::below;
use crate::text::{nearest, whole_number};
use crate::{Problem, unsupported};

/// All documents by the names of their schemas.
static DEFINITIONS: LazyLock<Value> = LazyLock::new(|| {
    let mut schemas = Vec::new();
    add::<Config>(&mut schemas);
    add::<RestoreRequest>(&mut schemas);
    add::<RestoreTimestampRequest>(&mut schemas);
    let definitions: Map<String, Value> =
        schemas.into_iter().map(|(name, schema)| (name, rewritten(json!(schema)))).collect();
    Value::Object(definitions)
});

fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    T::schemas(schemas);
    schemas.push((T::name().into_owned(), T::schema()));
}

/// The schema with references as JSON Schema has them.
fn rewritten(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(map) => {
            for (key, value) in map {
                if let (true, Some(name)) = (key == "$ref", value.as_str()) {
                    *value = name.replace("#/components/schemas/", "#/$defs/").into();
                } else {
                    *value = rewritten(value.take());
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = rewritten(value.take())),
        _ => {}
    }
    schema
}

/// The JSON Schema (2020-12) of the configuration file.
#[must_use]
pub fn json_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of the backup service",
        "$ref": format!("#/$defs/{}", Config::name()),
        "$defs": *DEFINITIONS,
    })
}

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    /// Whole numbers may be grouped: `50_000_000`.
    Yaml,
}

/// All that is wrong with the form of the document `T`: unknown and missing keys, values of other types. Brings it into a
/// form in which it can be read: numbers are numbers, what is `null` is not there, and something stands in for what is wrong.
pub(crate) fn fit<T: ToSchema>(document: &mut Value, form: Form) -> Vec<Problem> {
    let mut fit = Fit { form, problems: Vec::new() };
    fit.value(&DEFINITIONS[T::name().as_ref()], document, "");
    fit.problems
}

struct Fit {
    form: Form,
    problems: Vec<Problem>,
}

impl Fit {
    fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem { path: path.to_owned(), message: message.into() });
    }

    fn value(&mut self, schema: &'static Value, value: &mut Value, path: &str) {
        let schema = resolved(schema);
        let before = self.problems.len();
        match (kind(schema), &mut *value) {
            ("object", Value::Object(map)) => self.object(schema, map, path),
            ("array", Value::Array(values)) => {
                for (i, value) in values.iter_mut().enumerate() {
                    self.value(&schema["items"], value, &format!("{path}[{i}]"));
                }
            }
            ("string", Value::String(_)) | ("boolean", Value::Bool(_)) | ("number", Value::Number(_)) => {}
            ("integer", Value::Number(number)) if number.is_i64() => {}
            ("integer", Value::Number(number)) if number.is_u64() => self.problem(path, "is too large"),
            ("integer", Value::String(text)) if self.form == Form::Yaml && text.contains('_') => {
                match whole_number(text).map(i64::try_from) {
                    Ok(Ok(number)) => *value = number.into(),
                    Ok(Err(_)) => self.problem(path, "is too large"),
                    Err(error) => self.problem(path, error.to_string()),
                }
            }
            // What should be text may be a secret: it is not repeated.
            ("string", Value::Number(_) | Value::Bool(_)) => {
                self.problem(path, "must be text: put it in quotes");
            }
            // So may text where an object or a list should be.
            (kind @ ("object" | "array"), Value::String(_)) => {
                self.problem(path, format!("must be {}, not text", expected(kind, schema)));
            }
            (kind, found) => {
                let message = format!("must be {}, not {}", expected(kind, schema), described(found));
                self.problem(path, message);
            }
        }
        if self.problems[before..].iter().any(|problem| problem.path == path) {
            *value = stand_in(schema);
        }
    }

    fn object(&mut self, schema: &'static Value, map: &mut Map<String, Value>, path: &str) {
        let Some(properties) = schema["properties"].as_object() else {
            for (name, value) in map {
                self.value(&schema["additionalProperties"], value, &below(path, name));
            }
            return;
        };
        let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
        // A key that is unknown stays so when it is `null`.
        map.retain(|key, value| {
            !value.is_null()
                || required.iter().any(|required| required == key)
                || !properties.contains_key(key)
        });
        let mut missing = Vec::new();
        for key in required.iter().filter_map(Value::as_str).filter(|key| !map.contains_key(*key)) {
            self.problem(&below(path, key), "is required");
            missing.push((key.to_owned(), stand_in(&properties[key])));
        }
        map.retain(|key, value| {
            let path = below(path, key);
            match properties.get(key) {
                Some(schema) => self.value(schema, value, &path),
                None => self.problem(&path, unknown(key, &path, properties)),
            }
            properties.contains_key(key)
        });
        map.extend(missing);
    }
}

/// A value that has the form of a schema and says as little as can be.
fn stand_in(schema: &'static Value) -> Value {
    let schema = resolved(schema);
    match kind(schema) {
        "object" => {
            let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
            let keys = required.iter().filter_map(Value::as_str);
            keys.map(|key| (key.to_owned(), stand_in(&schema["properties"][key]))).collect()
        }
        "array" => json!([]),
        "string" => json!(""),
        "boolean" => json!(false),
        _ => json!(0),
    }
}

fn unknown(key: &str, path: &str, properties: &Map<String, Value>) -> String {
    if let Some(message) = unsupported::key(path) {
        return message;
    }
    if let Some(near) = nearest(key, properties.keys().map(String::as_str)) {
        return format!("is no key here: did you mean {near}?");
    }
    let known: Vec<&str> = properties.keys().map(String::as_str).collect();
    format!("is no key here: there is {}", known.join(", "))
}

/// The schema that a reference, or a choice between `null` and one other, means.
fn resolved(mut schema: &'static Value) -> &'static Value {
    loop {
        let choices = ["oneOf", "anyOf", "allOf"].iter().find_map(|key| schema[*key].as_array());
        schema = if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
            &DEFINITIONS[name]
        } else if let Some(choice) =
            choices.and_then(|list| list.iter().find(|choice| choice["type"] != "null"))
        {
            choice
        } else {
            return schema;
        };
    }
}

/// The type of a schema besides `null`.
fn kind(schema: &Value) -> &str {
    match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        kind => kind.as_str(),
    }
    .unwrap_or_default()
}

fn expected(kind: &str, schema: &Value) -> &'static str {
    match kind {
        "object" if schema["properties"].is_object() => "an object with keys",
        "object" => "an object with names",
        "array" => "a list",
        "string" => "text",
        "boolean" => "true or false",
        "integer" => "a whole number",
        _ => "a number",
    }
}

fn described(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    }
}

/// Finds the place in `document`, which is a `T`, that a variable such as `SERVICE__HTTP__PORT` names: its keys, and
/// whether there is text. Names are compared without case, and `_` is any of `-`, `_` and `.`. None if there is no such
/// place.
pub(crate) fn place<T: ToSchema>(variable: &str, document: &Value) -> Option<(Vec<String>, bool)> {
    let alike = |a: &str, b: &str| {
        a.to_lowercase().replace(['-', '.'], "_") == b.to_lowercase().replace(['-', '.'], "_")
    };
    let mut schema = resolved(&DEFINITIONS[T::name().as_ref()]);
    let mut value = Some(document);
    let mut path = Vec::new();
    for part in variable.split("__") {
        let name = if let Some(properties) = schema["properties"].as_object() {
            let name = properties.keys().find(|key| alike(key, part))?;
            schema = resolved(&properties[name]);
            name.clone()
        } else if schema["additionalProperties"].is_object() && !part.is_empty() {
            schema = resolved(&schema["additionalProperties"]);
            let known =
                value.and_then(Value::as_object).and_then(|map| map.keys().find(|key| alike(key, part)));
            known.cloned().unwrap_or_else(|| part.to_lowercase().replace('_', "-"))
        } else {
            return None;
        };
        value = value.and_then(|value| value.get(&name));
        path.push(name);
    }
    Some((path, kind(schema) == "string"))
}
