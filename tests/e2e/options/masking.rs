//! Masked data: a user without the privilege to read it must not back it up by mistake.

use std::fs;

use abs_cluster::Credentials;
use abs_devserver::{Fault, ResultCode};
use zeroize::Zeroizing;

use super::Backups;
use crate::raw::{self, Raw, string};
use crate::service::support::{Home, ROUTINE, configuration, eventually};
use crate::support::{Dump, Server};

const PASSWORD: &str = "hunter2";

/// A server with a masked bin, and users who may read it or not.
fn masked() -> Server {
    let user = "admin".to_owned();
    let credentials = Credentials::Internal { user, password: Zeroizing::new(PASSWORD.to_owned()) };
    let build = |builder: abs_devserver::Builder| {
        let users: [(&str, &[&str]); 4] = [
            ("plain", &["read"]),
            ("reader", &["read", "read-masked"]),
            ("scoped", &["read", "unmask"]),
            ("scoped-admin", &["read", "unmask", "user-admin"]),
        ];
        let with_user = |builder: abs_devserver::Builder, (name, roles): (&str, &[&str])| {
            builder.user(name, PASSWORD).user_roles(name, roles)
        };
        let builder = builder.user("admin", PASSWORD).masked_reader_role("unmask", "source-ns2");
        users.into_iter().fold(builder.masked_bin("source-ns2", "people", "ssn"), with_user)
    };
    let server = Server::built(build, Some(credentials));
    let record = |set: &str, n| Raw::new(n).set(set).bin("ssn", string("123-45")).bin("name", string("Ann"));
    raw::load(&server, &[record("people", 1), record("other", 2)]);
    server
}

fn login(user: &'static str) -> [&'static str; 4] {
    ["-U", user, "-P", PASSWORD]
}

/// How many bins of the files hold this text.
fn bins_with(dump: &Dump, text: &str) -> usize {
    let lines = dump.records.values().flat_map(|record| &record.bins);
    lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}

/// Protects: a backup that would hold redacted values fails and names rule, bin and privilege, unless they are taken on
/// purpose, and then it is marked.
#[test]
fn redacted_values_are_backed_up_on_purpose_only() {
    let (server, backups) = (masked(), Backups::new());
    let refused = server.backup(&backups.at("refused"), &login("plain"));
    let parts =
        ["bin ssn of set people (redact)", "user plain lacks the privilege read-masked", "allow-masked"];
    refused.fails(1, &parts);
    assert!(!backups.at("refused").exists(), "nothing is left");

    for user in ["reader", "scoped-admin"] {
        let dump = backups.dump(&server, user, &login(user));
        assert_eq!((bins_with(&dump, "123-45"), bins_with(&dump, "******")), (2, 0), "{user}");
        let metadata = fs::read_to_string(backups.at(user).join("metadata.yaml")).unwrap();
        assert!(!metadata.contains("masked"), "{metadata}");
    }
    // Only a user administrator may ask what a role permits.
    server
        .backup(&backups.at("scoped"), &login("scoped"))
        .fails(1, &["role unmask of user scoped", "bin ssn"]);

    let taken =
        server.backup(&backups.at("taken"), &[&login("plain")[..], &["--allow-masked"]].concat()).ok();
    assert!(
        taken.stderr.contains("warning: ") && taken.stderr.contains("bin ssn of set people"),
        "{taken:?}"
    );
    let dump = Dump::read(&backups.at("taken"));
    assert_eq!((bins_with(&dump, "123-45"), bins_with(&dump, "******")), (1, 1));
    let metadata = fs::read_to_string(backups.at("taken").join("metadata.yaml")).unwrap();
    assert!(metadata.contains("\nmasked: true\n"), "{metadata}");

    // What the rules do not touch needs no privilege.
    for (name, options) in [
        ("bins", ["--bin-list", "name"]),
        ("sets", ["--set", "other"]),
        ("none", ["--no-records", "--no-udfs"]),
    ] {
        let done = server.backup(&backups.at(name), &[&login("plain")[..], &options].concat()).ok();
        assert!(!done.stderr.contains("warning"), "{done:?}");
    }
}

/// Protects: rules that cannot be read stop no backup, but it warns that it may hold redacted values.
#[test]
fn rules_that_cannot_be_read_are_warned_of() {
    let (server, backups) = (masked(), Backups::new());
    server.dev().knobs().inject(Fault::refuse_info("masking-show", ResultCode::PARAMETER));
    let made = server.backup(&backups.at("b"), &login("reader")).ok();
    let warning = "warning: namespace source-ns2: the masking rules cannot be read";
    assert!(made.stderr.contains(warning) && made.stderr.contains("ERROR:4"), "{made:?}");
    let metadata = fs::read_to_string(backups.at("b").join("metadata.yaml")).unwrap();
    assert!(!metadata.contains("masked"), "{metadata}");
}

/// Protects: the service refuses redacted values as the command line does, takes them when the policy says so, and does
/// not warn of rules on a server that cannot have any.
#[test]
fn a_routine_takes_redacted_values_if_its_policy_says_so() {
    let server = masked();
    let text = configuration(&server, ROUTINE);
    let text = text.replace(
        "  cluster: {seed-nodes",
        &format!("  cluster: {{credentials: {{user: plain, password: {PASSWORD}}}, seed-nodes"),
    );
    let home = Home::new(&text);
    let service = home.serve();
    service.post("/v1/backups/full/routine", None).is(202);
    service.logs(&["backup failed", "bin ssn of set people", "read-masked"]);
    assert_eq!(service.backups("full", "routine"), [] as [serde_json::Value; 0]);
    service.put("/v1/config/policies/policy", Some(r#"{"allow-masked": true}"#)).is(200);
    service.backup("full", "routine");
    service.logs(&["WARN", "redacted values", "bin ssn of set people"]);

    let community = Server::embedded(1);
    let home = Home::of(&community, ROUTINE);
    let service = home.serve();
    raw::load(&community, &[Raw::new(1).bin("ssn", string("123-45"))]);
    service.backup("full", "routine");
    eventually(|| service.log().contains("backup done")).unwrap();
    assert!(!service.log().contains("WARN"), "{}", service.log());
}
