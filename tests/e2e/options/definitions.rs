//! Indexes and UDF modules: carried, left out, refused.

use std::collections::BTreeMap;

use abs_asb::{IndexData, IndexKind, SecondaryIndex, Udf, UdfLanguage};
use abs_cluster::SetIndex;
use aerospike::expressions as exp;

use super::{Backups, holds, load};
use crate::support::{Dump, Server};

/// A numeric index over bin `bin` of set `users`.
fn index(name: &str, bin: &str) -> SecondaryIndex {
    SecondaryIndex {
        set: "users".to_owned(),
        name: name.to_owned(),
        kind: IndexKind::Bin,
        bin: Some(bin.to_owned()),
        data: IndexData::Numeric,
        context: None,
        expression: None,
    }
}

/// Two indexes and a module.
fn define(server: &Server) {
    let content = b"function one(rec)\n  return 1\nend\n".to_vec();
    let udf = Udf { language: UdfLanguage::Lua, name: "one.lua".to_owned(), content };
    server.runtime.block_on(async {
        for (name, bin) in [("first", "n"), ("second", "third")] {
            server.cluster.create_index(&server.namespace, &index(name, bin)).await.unwrap();
        }
        server.cluster.put_udf(&udf).await.unwrap();
    });
}

/// The names of the namespace's indexes, set indexes included.
fn indexes(server: &Server) -> Vec<String> {
    let indexes = server.runtime.block_on(server.cluster.indexes(&server.namespace)).unwrap();
    let sets = indexes.sets.into_iter().map(|index| index.name);
    let mut names: Vec<_> = indexes.secondary.into_iter().map(|index| index.name).chain(sets).collect();
    names.sort();
    names
}

fn udfs(server: &Server) -> usize {
    server.runtime.block_on(server.cluster.udfs()).unwrap().len()
}

/// Protects: each `--no-…` of both commands leaves out exactly its part.
#[test]
fn each_part_can_be_left_out() {
    let (server, backups) = (Server::start(2), Backups::new());
    let records = load(&server, 0..100);
    define(&server);
    let cases: [(&str, &[&str], [u64; 3]); 6] = [
        ("all", &[], [100, 2, 1]),
        ("no-records", &["--no-records"], [0, 2, 1]),
        ("no-indexes", &["--no-indexes"], [100, 0, 1]),
        ("no-udfs", &["--no-udfs"], [100, 2, 0]),
        ("only-records", &["--no-indexes", "--no-udfs"], [100, 0, 0]),
        ("only-indexes", &["--no-records", "--no-udfs"], [0, 2, 0]),
    ];
    for (name, options, expected) in cases {
        let summary = server.backup(&backups.at(name), &[options, &["--json"]].concat()).ok().json();
        let counts = ["record-count", "secondary-index-count", "udf-count"].map(|key| summary[key].as_u64());
        assert_eq!(counts, expected.map(Some), "{name}");
        let dump = Dump::read(&backups.at(name));
        holds(&dump, &records, |_| expected[0] > 0);
        assert_eq!(dump.globals.len() as u64, expected[1] + expected[2], "{name}");
    }
    // What is not there cannot be wrong: a backup of less restores.
    for (name, _, expected) in cases {
        server.wipe();
        let summary = server.restore(&server.namespace, &backups.at(name), &["--json"]).ok().json();
        let counts = ["inserted-records", "index-count", "udf-count"].map(|key| summary[key].as_u64());
        assert_eq!(counts, expected.map(Some), "{name}");
    }
    let cases: [(&[&str], [u64; 3]); 3] = [
        (&["--no-records"], [0, 2, 1]),
        (&["--no-indexes"], [100, 0, 1]),
        (&["--no-udfs", "--no-records"], [0, 2, 0]),
    ];
    for (options, expected) in cases {
        server.wipe();
        let options = [options, &["--json"]].concat();
        let summary = server.restore(&server.namespace, &backups.at("all"), &options).ok().json();
        assert_eq!(
            (&summary["read-records"], &summary["skipped-records"]),
            (&100.into(), &(100 - expected[0]).into())
        );
        assert_eq!(
            [server.objects(), indexes(&server).len() as u64, udfs(&server) as u64],
            expected,
            "{options:?}"
        );
    }
}

/// Protects: set indexes, which the .asb format has no line for, travel in metadata.yaml.
#[test]
fn set_indexes_are_carried() {
    let (server, backups) = (Server::start(2), Backups::new());
    load(&server, 0..40);
    let create = |name: &str, set: &str| {
        let index = SetIndex { name: name.to_owned(), set: set.to_owned() };
        server.runtime.block_on(server.cluster.create_set_index(&server.namespace, &index)).unwrap();
    };
    create("by-user", "users");
    create("by-order", "orders");
    let folder = backups.at("b");
    let summary = server.backup(&folder, &["--json"]).ok().json();
    assert_eq!((&summary["set-index-count"], &summary["secondary-index-count"]), (&2.into(), &0.into()));
    let metadata = std::fs::read_to_string(folder.join("metadata.yaml")).unwrap();
    assert!(metadata.contains("set-indexes:\n  by-order: orders\n  by-user: users\n"), "{metadata}");

    server.wipe();
    assert!(indexes(&server).is_empty());
    assert_eq!(server.restore(&server.namespace, &folder, &["--json"]).ok().json()["index-count"], 2);
    assert_eq!(indexes(&server), ["by-order", "by-user"]);

    // Once more: what is there already is as good as created. One of another set is a conflict.
    assert_eq!(server.restore(&server.namespace, &folder, &["--json"]).ok().json()["index-count"], 2);
    server.wipe();
    load(&server, 0..40);
    create("by-user", "orders");
    let outcome =
        server.restore(&server.namespace, &folder, &[]).fails(1, &["by-user", "another definition"]);
    assert!(!outcome.stderr.contains("by-order"), "{outcome:?}");

    server.wipe();
    let without = server.backup(&backups.at("without"), &["--no-indexes", "--json"]).ok().json();
    assert_eq!(without["set-index-count"], 0);
}

/// Protects: an index over an expression makes the file one of version 3.2 and comes back with its expression.
#[test]
fn expression_indexes() {
    let (server, backups) = (Server::start(2), Backups::new());
    load(&server, 0..40);
    let expression = exp::num_add(vec![exp::int_bin("n".to_owned()), exp::int_val(1)]).base64().unwrap();
    let index = SecondaryIndex { bin: None, expression: Some(expression.clone()), ..index("sum", "") };
    server.runtime.block_on(server.cluster.create_index(&server.namespace, &index)).unwrap();
    server.backup(&backups.at("b"), &[]).ok();
    let text = std::fs::read_to_string(backups.at("b").join(format!("metadata_{}_1.asb", server.namespace)));
    let text = text.unwrap();
    assert!(text.starts_with("Version 3.2\n"), "{text}");
    assert!(text.contains(&format!("* e {} users sum N 1  N {expression}\n", server.namespace)), "{text}");

    server.wipe();
    assert_eq!(
        server.restore(&server.namespace, &backups.at("b"), &["--json"]).ok().json()["index-count"],
        1
    );
    let found = server.runtime.block_on(server.cluster.indexes(&server.namespace)).unwrap();
    assert_eq!(found.secondary, [index]);
    // Once more: the same definition is no conflict.
    server.restore(&server.namespace, &backups.at("b"), &[]).ok();
}

/// Protects: a module's source is carried byte for byte, whatever it holds.
#[test]
fn udf_modules_to_the_byte() {
    let (server, backups) = (Server::start(1), Backups::new());
    let odd = b"--[[ \xff\xfe \\ \t\r\n\n+ n fake\n* u L\n]]\nfunction f(rec)\n  return 1\nend";
    let contents: [&[u8]; 3] = [odd, b"-- \n", b"local x = 1\n\n\n"];
    let udf = |(number, content): (usize, &&[u8])| Udf {
        language: UdfLanguage::Lua,
        name: format!("m{number}.lua"),
        content: content.to_vec(),
    };
    let mut modules: Vec<_> = contents.iter().enumerate().map(udf).collect();
    for module in &modules {
        server.runtime.block_on(server.cluster.put_udf(module)).unwrap();
    }
    let read = || {
        let mut found = server.runtime.block_on(server.cluster.udfs()).unwrap();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    };
    assert_eq!(read(), modules);
    server.backup(&backups.at("b"), &[]).ok();
    server.wipe();
    assert_eq!(read(), []);
    // One of them is there in another version: the backup's takes its place.
    let other = Udf { content: b"-- other\n".to_vec(), ..modules[1].clone() };
    server.runtime.block_on(server.cluster.put_udf(&other)).unwrap();
    assert_eq!(server.restore(&server.namespace, &backups.at("b"), &["--json"]).ok().json()["udf-count"], 3);
    modules.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(read(), modules);
}

/// Protects: an index of the same name and another definition is left alone and named; all else is restored.
#[test]
fn a_conflicting_index_is_left_alone_and_named() {
    let (server, backups) = (Server::start(2), Backups::new());
    load(&server, 0..50);
    define(&server);
    server.backup(&backups.at("b"), &[]).ok();
    server.wipe();
    let other = index("first", "other");
    server.runtime.block_on(server.cluster.create_index(&server.namespace, &other)).unwrap();

    let outcome = server.restore(&server.namespace, &backups.at("b"), &["--json"]);
    let summary = outcome.json();
    assert_eq!(summary["conflicting-indexes"], serde_json::json!(["first"]));
    assert_eq!((&summary["index-count"], &summary["inserted-records"]), (&1.into(), &50.into()));
    outcome.fails(1, &["first", "another definition"]);
    let found = server.runtime.block_on(server.cluster.indexes(&server.namespace)).unwrap();
    let found: BTreeMap<_, _> = found.secondary.into_iter().map(|i| (i.name, i.bin.unwrap())).collect();
    assert_eq!(found["first"], "other");
    assert_eq!(found["second"], "third");
    assert_eq!(udfs(&server), 1);
}

/// Protects: an index of a whole namespace stays one, though its file names the set `null` as asbackup does; one that lost
/// its expression, or is of a kind that is unknown, is named in a warning and left out; all else is restored.
#[test]
fn indexes_of_other_writers() {
    let (server, backups) = (Server::start(1), Backups::new());
    let namespace = &server.namespace;
    let folder = backups.at("f");
    std::fs::create_dir(&folder).unwrap();
    let lines = [
        format!("Version 3.1\n# namespace {namespace}\n"),
        format!("* i {namespace} null lower N 1 v N\n"),
        format!("* i {namespace} NULL upper N 1 v S\n"),
        format!("* i {namespace} nullable set N 1 v N\n"),
        format!("* i {namespace} ints exp1 N 1 null N\n"),
        format!("* i {namespace} ints tree T 1 v N\n"),
        format!("* i {namespace} ints decimals N 1 v D\n"),
        format!("* i {namespace} ints never N 1 v I\n"),
    ];
    std::fs::write(folder.join("a.asb"), lines.concat()).unwrap();
    let outcome = server.restore(namespace, &folder, &["--json"]).ok();
    let summary = outcome.json();
    assert_eq!(summary["index-count"], 3, "{summary}");
    assert_eq!(
        summary["warnings"].as_array().unwrap().len(),
        4 + 1,
        "and one of no metadata.yaml: {summary}"
    );
    for warning in [
        "exp1 was left out",
        "neither a bin nor an expression",
        "tree was left out: its kind T is unknown",
        "index never",
    ] {
        assert!(outcome.stderr.contains(warning), "{outcome:?}");
    }
    let found = server.runtime.block_on(server.cluster.indexes(namespace)).unwrap();
    let mut sets: Vec<_> =
        found.secondary.iter().map(|index| (index.name.as_str(), index.set.as_str())).collect();
    sets.sort_unstable();
    assert_eq!(sets, [("lower", ""), ("set", "nullable"), ("upper", "")]);
}
