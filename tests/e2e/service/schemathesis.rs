//! schemathesis, which makes requests of our OpenAPI document, good and bad ones, and holds the answers against it.

use std::process::Command;

use super::support::{Home, Service, configuration};
use crate::raw::{self, Raw, integer};
use crate::support::{Server, command, python};

/// A routine that has something to do all the time.
const ROUTINE: &str = "routine: {source-cluster: cluster, storage: disk, backup-policy: policy, \
                       interval-cron: '@yearly', incr-interval-cron: '*/2 * * * * *', namespaces: [NAMESPACE]}";

/// What cannot be said in its command line. What the document calls valid need not be accepted: its names lead nowhere.
const SETTINGS: &str = r#"
generation.database = "none"
cache.enabled = false
warnings = false

[checks]
positive_data_acceptance.enabled = false

[dictionaries.routines]
values = ["routine"]

# Names that nobody has are soon refused.
[[operations]]
include-path-regex = "^/v1/(backups|retrieve)/"
parameters = { "path.name" = { dictionary = "routines", probability = 0.7 } }

# An empty parameter is none, whatever its type.
[[operations]]
include-path-regex = "^/v1/(backups/(full|incremental|schedule)|restore/jobs)"
checks.negative_data_rejection.enabled = false

[[operations]]
include-path = "/v1/events"
max-stream-events = 1
request-timeout = 1
"#;

/// Runs it, and insists that it finds nothing.
#[track_caller]
fn run(home: &Home, service: &Service, operations: &[&str]) {
    let settings = home.path().join("schemathesis.toml");
    std::fs::write(&settings, SETTINGS).unwrap();
    let python = python();
    let mut command = Command::new(&python);
    command
        .current_dir(home.path())
        .env("NO_PROXY", "127.0.0.1")
        .args(["-m", "schemathesis.cli", "--no-color", "--config-file", settings.to_str().unwrap(), "run"])
        .arg(format!("{}/api-docs/openapi.json", service.address()))
        .args(["--max-examples", "15", "--seed", "3", "--continue-on-failure", "--output-sanitize", "false"])
        .args(operations);
    let output = command.output().unwrap_or_else(|e| panic!("{python}: {e}; scripts/test sets it up"));
    let [report, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    println!("{report}");
    assert!(output.status.success(), "schemathesis, which scripts/test sets up, says:\n{report}{errors}");
}

/// Protects: no request makes the service fail, and every answer is one of those that our OpenAPI document describes for
/// it, in status, kind and form; what the document forbids is refused.
#[test]
fn the_document_tells_the_truth() {
    let server = Server::embedded(1);
    raw::load(&server, &(0..300).map(|n| Raw::new(n).bin("bin", integer(1))).collect::<Vec<_>>());
    let text = configuration(&server, ROUTINE)
        .replace("\n  policy: {", "\n  policy: {with-cluster-configuration: true, ");
    let home = Home::new(&text);
    // Settings that it makes up name files.
    let mut command = command(&["serve", "-c", home.config().to_str().unwrap()]);
    command.current_dir(home.path());
    // And storages, which the service asks whether they are there: no such question leaves this machine.
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY"] {
        command.env(proxy, "http://127.0.0.1:1");
    }
    command.env("NO_PROXY", "127.0.0.1").env("AWS_EC2_METADATA_DISABLED", "true");
    let service = Service::start(command);
    service.backup("full", "routine");
    // The whole configuration comes last: in most that are accepted there is no routine.
    run(&home, &service, &["--exclude-operation-id", "updateConfig"]);
    run(&home, &service, &["--include-operation-id", "updateConfig"]);
    service.get("/health").is(200);
    service.signal("TERM");
    service.ended().ok();
}
