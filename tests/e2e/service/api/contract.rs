//! Every endpoint of the reference's OpenAPI document, with every status that it names; what is answered is what its
//! schemas say.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Home, destination, put, request_of};
use crate::service::support::{ROUTINE, configuration};
use crate::support::Server;

/// Statuses of the document that a request cannot bring about: there is no wrong way to ask.
const NEVER: [&str; 6] = [
    "GET /v1/backups/currentBackup/{name} 400",
    "GET /v1/config/clusters/{name} 400",
    "GET /v1/config/policies/{name} 400",
    "GET /v1/config/routines 400",
    "GET /v1/config/routines/{name} 400",
    "GET /v1/config/storage/{name} 400",
];

fn reference() -> Value {
    serde_json::from_str(include_str!("../../../golden/openapi-v3.5.0.json")).unwrap()
}

/// Why a value is not what a schema of the document says; unknown keys are none of it.
fn against(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return against(document, document.pointer(&reference[1..]).unwrap(), value);
    }
    if let Some(all) = schema["allOf"].as_array() {
        return all.iter().try_for_each(|schema| against(document, schema, value));
    }
    let is_right = match schema["type"].as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        other => panic!("type {other}"),
    };
    if !is_right {
        return Err(format!("{value} is no {}", schema["type"]));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Err(format!("{value} is not one of {words:?}"));
    }
    for item in value.as_array().into_iter().flatten() {
        against(document, &schema["items"], item)?;
    }
    for (key, item) in value.as_object().into_iter().flatten() {
        let schema = schema["properties"].get(key).unwrap_or(&schema["additionalProperties"]);
        if !schema.is_object() {
            return Err(format!("{key} is in no schema"));
        }
        against(document, schema, item).map_err(|e| format!("{key}: {e}"))?;
    }
    let required = schema["required"].as_array().into_iter().flatten();
    match required.map(|key| key.as_str().unwrap()).find(|key| value.get(key).is_none()) {
        Some(key) => Err(format!("{key} is missing")),
        None => Ok(()),
    }
}

/// A request, and the status to expect.
struct Asked {
    operation: String,
    /// What stands in place of the parameters in its path.
    parameters: String,
    query: &'static str,
    body: Option<String>,
    status: u16,
}

/// Protects: every operation of the reference answers with every status that its document names, and in its schema.
#[test]
fn every_operation_answers_with_every_status_as_the_document_says() {
    let server = Server::embedded(1);
    put(&server, 0..10, 1);
    let text = configuration(&server, ROUTINE)
        .replace("policy: {retry", "policy: {with-cluster-configuration: true, retry")
        // The reference does not know it.
        .replace(", overlap: 0", "");
    let home = Home::new(&text);
    let service = home.serve();
    let full = service.backup("full", "routine").remove(0);
    put(&server, 0..5, 2);
    let incremental = service.backup("incremental", "routine").remove(0);
    let time = full["timestamp"].as_i64().unwrap();
    // Records that are left alone make a warning, which the reference does not have.
    let overwrite = json!({"no-generation": true});
    let job = service.start_restore("full", &request_of(&full, &overwrite));
    service.restored(job);
    let slow = json!({"tps": 1, "batch-size": 1, "max-async-batches": 1, "no-generation": true});
    let running = service.start_restore("full", &request_of(&full, &slow));

    let full_restore = request_of(&full, &overwrite).to_string();
    let incremental_restore = request_of(&incremental, &overwrite).to_string();
    let timestamp_restore = json!({"routine": "routine", "time": time, "policy": overwrite}).to_string();
    let config = service.json("/v1/config").to_string();
    let cluster = destination(&server).to_string();
    let storage = json!({"local-storage": {"path": home.path().join("other")}}).to_string();
    let policy = json!({"parallel": 3}).to_string();
    let mut routine = service.json("/v1/config/routines/routine");
    routine["disabled"] = json!(true);
    let routine = routine.to_string();
    let wrong = r#"{"wrong": 1}"#;

    let mut asked = Vec::new();
    let mut ask = |operation: &str, parameters: &str, query, body: Option<&str>, status| {
        asked.push(Asked {
            operation: operation.to_owned(),
            parameters: parameters.to_owned(),
            query,
            body: body.map(str::to_owned),
            status,
        });
    };
    for path in ["GET /", "GET /api-docs/", "GET /health", "GET /metrics", "GET /ready", "GET /version"] {
        ask(path, "", "", None, 200);
    }
    for kind in ["full", "incremental"] {
        let backups = format!("/v1/backups/{kind}");
        let (all, one) = (&format!("GET {backups}"), &format!("GET {backups}/{{name}}"));
        let (make, restore) = (&format!("POST {backups}/{{name}}"), &format!("POST /v1/restore/{kind}"));
        let good = if kind == "full" { &full_restore } else { &incremental_restore };
        ask(all, "", "?from=0", None, 200);
        ask(all, "", "?from=x", None, 400);
        ask(one, "routine", "?from=0", None, 200);
        ask(one, "routine", "?to=x", None, 400);
        ask(make, "routine", "?delay=3600000", None, 202);
        ask(make, "routine", "?delay=x", None, 400);
        ask(make, "nobody", "", None, 404);
        ask(restore, "", "", Some(good), 202);
        ask(restore, "", "", Some(wrong), 400);
    }
    ask("POST /v1/backups/schedule/{name}", "routine", "?delay=3600000", None, 202);
    ask("POST /v1/backups/schedule/{name}", "routine", "?delay=x", None, 400);
    ask("POST /v1/backups/schedule/{name}", "nobody", "", None, 404);
    ask("GET /v1/backups/currentBackup/{name}", "routine", "", None, 200);
    ask("GET /v1/backups/currentBackup/{name}", "nobody", "", None, 404);
    ask("POST /v1/backups/cancel/{name}", "routine", "", None, 202);
    ask("POST /v1/backups/cancel/{name}", "nobody", "", None, 404);
    ask("POST /v1/restore/timestamp", "", "", Some(&timestamp_restore), 202);
    ask("POST /v1/restore/timestamp", "", "", Some(wrong), 400);
    ask("GET /v1/restore/jobs", "", "?status=Done,Running", None, 200);
    ask("GET /v1/restore/jobs", "", "?status=x", None, 400);
    let (job, running) = (job.to_string(), running.to_string());
    ask("GET /v1/restore/status/{jobId}", &job, "", None, 200);
    ask("GET /v1/restore/status/{jobId}", &running, "", None, 200);
    ask("GET /v1/restore/status/{jobId}", "x", "", None, 400);
    ask("GET /v1/restore/status/{jobId}", "1", "", None, 404);
    ask("POST /v1/restore/cancel/{jobId}", &running, "", None, 202);
    ask("POST /v1/restore/cancel/{jobId}", "x", "", None, 400);
    ask("POST /v1/restore/cancel/{jobId}", "1", "", None, 404);
    let of_time = format!("routine/{time}");
    ask("GET /v1/retrieve/configuration/{name}/{timestamp}", &of_time, "", None, 200);
    ask("GET /v1/retrieve/configuration/{name}/{timestamp}", "routine/x", "", None, 400);
    ask("GET /v1/config", "", "", None, 200);
    ask("PUT /v1/config", "", "", Some(&config), 200);
    ask("PUT /v1/config", "", "", Some(wrong), 400);
    for (entries, body) in
        [("clusters", &cluster), ("policies", &policy), ("routines", &routine), ("storage", &storage)]
    {
        let all = format!("GET /v1/config/{entries}");
        let [read, update, add, delete] =
            ["GET", "PUT", "POST", "DELETE"].map(|method| format!("{method} /v1/config/{entries}/{{name}}"));
        let [read, update, add, delete] = [&read, &update, &add, &delete];
        ask(add, "new", "", Some(body), 201);
        ask(add, "new", "", Some(body), 400);
        ask(&all, "", "", None, 200);
        ask(read, "new", "", None, 200);
        ask(read, "nobody", "", None, 404);
        ask(update, "new", "", Some(body), 200);
        ask(update, "nobody", "", Some(body), 400);
        ask(delete, "new", "", None, 204);
        ask(delete, "new", "", None, 400);
    }
    for path in ["PUT /v1/config/routines/{name}/disable", "PUT /v1/config/routines/{name}/enable"] {
        ask(path, "routine", "", None, 204);
        ask(path, "nobody", "", None, 404);
    }
    ask("POST /v1/config/apply", "", "", None, 200);

    let document = reference();
    let mut answered = BTreeSet::new();
    let mut check = |Asked { operation, parameters, query, body, status }: Asked| {
        let body = body.as_deref();
        let (method, path) = operation.split_once(' ').unwrap();
        let names = path.find('{').unwrap_or(path.len());
        let end = if path.ends_with("able") { &path[path.rfind('/').unwrap()..] } else { "" };
        let url = format!("{}{parameters}{end}{query}", &path[..names]);
        let described =
            &document["paths"][path][method.to_ascii_lowercase()]["responses"][status.to_string()];
        assert!(described.is_object(), "{operation} {status} is not in the document");
        let name = format!("{operation} {status}");
        if operation.contains("retrieve/configuration") && status == 200 {
            // A file, looked at elsewhere.
            assert_eq!(super::open(&service, &url).status(), 200);
        } else if status >= 400 {
            service.ask(method, &url, body).refuses(status, &[]);
        } else {
            let answer = service.ask(method, &url, body).is(status);
            let (kind, content) = described["content"].as_object().and_then(|c| c.iter().next()).unzip();
            match (kind.map(String::as_str), content) {
                (Some("text/html"), _) => assert!(answer.text.contains("<html"), "{answer:?}"),
                (Some(_), Some(content)) if content["schema"]["type"] != "string" => {
                    against(&document, &content["schema"], &answer.json())
                        .unwrap_or_else(|e| panic!("{name}: {e} in {}", answer.text));
                }
                _ if path.starts_with("/v1/") || path == "/" => assert_eq!(answer.text, "", "{name}"),
                _ => {}
            }
        }
        answered.insert(name);
    };
    for request in asked {
        check(request);
    }
    // What cannot be applied: the file is broken.
    std::fs::write(home.config(), "wrong: 1\n").unwrap();
    let apply = "POST /v1/config/apply".to_owned();
    check(Asked { operation: apply, parameters: String::new(), query: "", body: None, status: 400 });

    // The wrong method: what the document says of a path is true of the path.
    for (operation, path, method) in [
        ("POST /v1/restore/full", "/v1/restore/full", "GET"),
        ("POST /v1/restore/incremental", "/v1/restore/incremental", "PUT"),
        ("POST /v1/restore/timestamp", "/v1/restore/timestamp", "DELETE"),
        ("GET /v1/retrieve/configuration/{name}/{timestamp}", "/v1/retrieve/configuration/routine/1", "POST"),
    ] {
        service.ask(method, path, None).refuses(405, &[method]);
        answered.insert(format!("{operation} 405"));
    }

    let mut documented = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            for status in operation["responses"].as_object().unwrap().keys() {
                documented.insert(format!("{} {path} {status}", method.to_ascii_uppercase()));
            }
        }
    }
    answered.extend(NEVER.map(str::to_owned));
    let left: Vec<_> = documented.difference(&answered).collect();
    assert!(left.is_empty(), "never asked: {left:#?}");
}
