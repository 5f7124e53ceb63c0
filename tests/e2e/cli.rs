//! The command line itself: what it takes, what it refuses and how, what it prints where.

mod inspect;
mod login;
mod verify;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::Child;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::raw::{self, Raw, integer};
use crate::support::{Outcome, Server, abs, command, golden};

/// A port of this machine where nobody listens.
fn closed_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A command line without the program, split at spaces; `DIR` in it is a folder of the test.
fn run(line: &str, folder: &TempDir) -> Outcome {
    let line = line.replace("DIR", folder.path().to_str().unwrap());
    abs(&line.split(' ').collect::<Vec<_>>())
}

/// Some records.
fn load(server: &Server, count: u64) {
    let records: Vec<_> =
        (0..count).map(|number| Raw::new(number).set("s").bin("n", integer(number as i64))).collect();
    raw::load(server, &records);
}

/// Protects: whatever is wrong with a command line is said in one line, before any cluster is asked, with exit code 2; the
/// folder stays untouched.
#[test]
fn bad_usage_is_one_line_and_code_2() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let backup = "backup -h 127.0.0.1:1 -n a -d DIR/x";
    let restore = "restore -h 127.0.0.1:1 -n a -d DIR";
    let key = "--encryption-key-file DIR/nokey";
    let cases: [(String, &[&str]); 44] = [
        ("-h".into(), &["'-h'", "--help"]),
        ("back".into(), &["unrecognized subcommand 'back'"]),
        ("backup".into(), &["--host <HOST[:PORT]>", "--namespace", "--directory <DIR>"]),
        ("backup -h".into(), &["--host"]),
        ("backup -h a: -n a -d b".into(), &["\"a:\"", "HOST[:PORT]"]),
        ("backup -h a -n a/b -d b".into(), &["\"a/b\"", "namespace"]),
        ("backup -h a -n a -d DIR/file".into(), &["file is not a folder"]),
        (format!("{backup} --partition-list 1 --node-list A"), &["--partition-list", "--node-list"]),
        (format!("{backup} --partition-list 4096"), &["0 to 4095"]),
        (format!("{backup} --partition-list 1,,2"), &["FIRST-COUNT"]),
        (format!("{backup} --filter-exp %%%"), &["filter expression", "base64"]),
        (format!("{backup} --filter-exp="), &["filter expression"]),
        (format!("{backup} --compress gzip"), &["\"gzip\"", "zstd:LEVEL"]),
        (format!("{backup} --compress zstd:23"), &["zstd:LEVEL (-1 to 22)"]),
        (format!("{backup} --encrypt aes128"), &["--encryption-key-file", "--encryption-key-env"]),
        (format!("{backup} --encrypt rot13 {key}"), &["'rot13'", "aes128, aes256, aes128gcm, aes256gcm"]),
        (format!("{backup} {key}"), &["--encrypt"]),
        (format!("{backup} --encrypt aes128 {key}"), &["nokey", "No such file"]),
        (format!("{backup} --encrypt aes128 {key} --encryption-key-env A"), &["cannot be used with"]),
        (format!("{backup} --encrypt aes128 --encryption-key-env NO_SUCH_KEY"), &["NO_SUCH_KEY is not set"]),
        (format!("{backup} --encrypt aes128 --encryption-key-file DIR/file"), &["file", "not usable"]),
        (format!("{backup} --modified-after yesterday"), &["\"yesterday\"", "2024-01-01T12:00:00Z"]),
        (format!("{backup} --modified-after 20 --modified-before 20"), &["--modified-after", "earlier"]),
        (format!("{backup} --parallel 0"), &["0 is not in 1..=1024"]),
        (format!("{backup} --parallel-write 1025"), &["1025"]),
        (format!("{backup} --file-limit 0"), &["\"0\"", "MB"]),
        (format!("{backup} --records-per-second -1"), &["-1"]),
        (format!("{backup} --bandwidth 1.5"), &["\"1.5\""]),
        (format!("{backup} --set="), &["--set", "empty name"]),
        (format!("{backup} --bin-list a,{}", "b".repeat(16)), &["16 bytes", "15"]),
        (format!("{backup} --no-records --no-indexes --no-udfs"), &["nothing to back up"]),
        (format!("{backup} --bin-lst a"), &["'--bin-lst'", "'--bin-list'"]),
        (format!("{backup} more"), &["'more'"]),
        (format!("{restore} --no-records --no-indexes --no-udfs"), &["nothing to restore"]),
        (format!("{restore} --read-key DIR/file"), &["--read-key", "MODE:FILE"]),
        (format!("{restore} --read-key rot13:DIR/file"), &["\"rot13\"", "aes128gcm"]),
        (format!("{restore} --read-key aes128:DIR/nokey"), &["nokey", "No such file"]),
        (format!("{restore} --unique --replace"), &["--unique", "--replace"]),
        (format!("{restore} --unique --no-generation"), &["--unique", "--no-generation"]),
        (format!("{restore} --batch-size 0"), &["0 is not in 1..=65535"]),
        ("restore -h a -n a,b,c -d DIR".into(), &["SOURCE,DESTINATION"]),
        ("restore -h a -n a -d DIR/nothing".into(), &["nothing does not exist"]),
        ("inspect DIR/nothing".into(), &["nothing does not exist"]),
        ("devserver --namespace a:much --listen 127.0.0.1:0".into(), &["\"much\" is no size"]),
    ];
    for (line, parts) in cases {
        let outcome = run(&line, &folder);
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.lines().count()), ("", 1), "{line}: {outcome:?}");
        outcome.fails(2, parts);
    }
    assert!(run("devserver --listen here", &folder).fails(2, &["127.0.0.1:3000"]).stdout.is_empty());
    assert!(!folder.path().join("x").exists());
}

/// Protects: a job that cannot be done says in one line what it wanted of whom, and ends with code 1 in bounded time.
#[test]
fn a_job_that_fails_is_one_line_and_code_1() {
    let server = Server::start(1);
    load(&server, 10);
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("used")).unwrap();
    fs::write(folder.path().join("used/file"), "mine").unwrap();
    let (address, namespace) = (&server.address, &server.namespace);
    let closed = closed_port();
    // Accepts connections, as the system does for it, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap().to_string();
    let cases: [(String, &[&str]); 9] = [
        (format!("backup -h {closed} -n a -d DIR/x"), &["cannot reach the cluster", &closed, "refused"]),
        (
            format!("backup -h {silent_address} --connect-timeout 300 -n a -d DIR/x"),
            &["cannot reach the cluster", &silent_address],
        ),
        (format!("backup -h {address} -n nobody -d DIR/x"), &["no namespace \"nobody\""]),
        (format!("backup -h {address} -n {namespace} -d DIR/used"), &["used", "not empty", "new folder"]),
        // Nobody can write there, not even root.
        (format!("backup -h {address} -n {namespace} -d /proc/abs"), &["cannot write /proc/abs/"]),
        (format!("backup -h {address} -n {namespace} -d DIR/x --node-list A,B"), &["no node \"A\""]),
        // Base64, but no expression: only the server can tell.
        (
            format!("backup -h {address} -n {namespace} -d DIR/x --filter-exp aaaa"),
            &["filter expression", namespace, "parameter error (code 4)"],
        ),
        (format!("restore -h {closed} -n a -d DIR"), &["cannot reach the cluster", &closed]),
        (format!("restore -h {address} -n {namespace} -d DIR"), &["holds no backup"]),
    ];
    for (line, parts) in cases {
        let start = Instant::now();
        let outcome = run(&line, &folder);
        assert!(start.elapsed() < Duration::from_secs(30), "{line}");
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.lines().count()), ("", 1), "{line}: {outcome:?}");
        outcome.fails(1, parts);
    }
    assert_eq!(fs::read_to_string(folder.path().join("used/file")).unwrap(), "mine");
    // One seed that answers is enough.
    run(&format!("backup -h {closed},{address} -n {namespace} -d DIR/y"), &folder).ok();
}

/// Protects: help and version are there, on standard output, and say what one must know: -h is the host, the exit codes,
/// what partition lists look like, what the development server is not.
#[test]
fn help() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str]); 10] = [
        (
            "--help",
            &[
                "backup",
                "restore",
                "serve",
                "config",
                "inspect",
                "verify",
                "devserver",
                "demo",
                "Exit codes: 0 done, 1",
                "-h is the host",
            ],
        ),
        (
            "backup --help",
            &[
                "-h, --host <HOST[:PORT]>",
                "100-50",
                "zstd[:LEVEL]",
                "--encryption-key-env",
                "RFC 3339",
                "--json",
            ],
        ),
        (
            "restore --help",
            &["SOURCE[,DESTINATION]", "--no-generation", "--unique", "--replace", "--extra-ttl", "--tps"],
        ),
        ("inspect --help", &["DIR|FILE", "without a cluster", "--json"]),
        ("verify --help", &["-d, --directory <DIR>", "--quick", "0 whole, 1 damaged, 2 "]),
        ("devserver --help", &["for development and tests", "keeps nothing", "127.0.0.1:3000"]),
        ("demo --help", &["--records", "--directory", "--once"]),
        ("serve --help", &["-c, --config <FILE|URL>", "-r, --remote", "ABS__"]),
        ("config check --help", &["<FILE|URL>", "--remote", "Exit code 0"]),
        ("help backup", &["--partition-list"]),
    ];
    for (line, parts) in cases {
        let outcome = run(line, &folder).ok();
        assert_eq!(outcome.stderr, "", "{line}");
        // Where a line of help is broken depends on the terminal.
        let text = outcome.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in parts {
            assert!(text.contains(part), "{part:?} is missing in {line}: {text}");
        }
    }
    assert_eq!(run("--version", &folder).ok().stdout, format!("abs {}\n", env!("CARGO_PKG_VERSION")));
    // Without a command the help is the answer, but it is not what was asked for.
    let nothing = abs(&[]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(2), ""));
    assert!(nothing.stderr.contains("Usage: abs <COMMAND>"), "{nothing:?}");
}

/// Protects: scripts read standard output: the summary is there and nothing else, one line of JSON when asked for.
#[test]
fn summaries() {
    let server = Server::start(2);
    load(&server, 1200);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);

    let outcome = server.backup(&at("b"), &[]).ok();
    assert_eq!((outcome.stderr.as_str(), outcome.stdout.lines().count()), ("", 2), "{outcome:?}");
    for part in ["1,200 records", "0 indexes", "0 UDF modules", &server.namespace, at("b").to_str().unwrap()]
    {
        assert!(outcome.stdout.contains(part), "{part:?} is missing in {}", outcome.stdout);
    }
    let outcome = server.restore(&server.namespace, &at("b"), &[]).ok();
    assert_eq!((outcome.stderr.lines().count(), outcome.stdout.lines().count()), (1, 3), "{outcome:?}");
    assert!(outcome.stderr.starts_with("warning: 1200 of 1200 records"), "{outcome:?}");
    assert!(outcome.stderr.trim_end().ends_with("restore with no-generation"), "{outcome:?}");
    for part in ["0 of 1,200 records", "1,200 records left alone: the stored generation is not lower"] {
        assert!(outcome.stdout.contains(part), "{part:?} is missing in {}", outcome.stdout);
    }

    let json = |outcome: Outcome| {
        let outcome = outcome.ok();
        assert_eq!((outcome.stderr.as_str(), outcome.stdout.lines().count()), ("", 1), "{outcome:?}");
        outcome.json()
    };
    let backup = json(server.backup(&at("c"), &["--json"]));
    assert_eq!(
        (&backup["record-count"], &backup["namespace"]),
        (&1200.into(), &server.namespace.clone().into())
    );
    assert!(
        backup["seconds"].as_f64().unwrap() > 0.0 && backup["records-per-second"].as_f64().unwrap() > 0.0
    );
    let restore = server.restore(&server.namespace, &at("c"), &["--json"]).ok().json();
    assert_eq!((&restore["read-records"], &restore["fresher-records"]), (&1200.into(), &1200.into()));
    assert_eq!(restore["warnings"].as_array().map(Vec::len), Some(1));
    assert_eq!(restore["total-bytes"], backup["byte-count"]);
    let inspect = json(abs(&["inspect", at("c").to_str().unwrap(), "--json"]));
    assert_eq!(inspect[0]["metadata"]["record-count"], 1200);
}

/// Protects: a job that takes long tells now and then, on standard error, how far it is.
#[test]
fn progress_goes_to_standard_error() {
    let server = Server::embedded(1);
    load(&server, 700);
    let folder = tempfile::tempdir().unwrap();
    let outcome = server.backup(folder.path(), &["--records-per-second", "100", "--json"]).ok();
    assert_eq!(outcome.json()["record-count"], 700);
    let line = outcome.stderr.lines().next().unwrap();
    for part in ["backing up:", " %, ", " records, ", "records/s", "/s, ", " s left"] {
        assert!(line.contains(part), "{part:?} is missing in {:?}", outcome.stderr);
    }
}

/// Protects: a reader of the output that goes away early, as `head` does, is no failure; output that cannot be written is.
#[test]
fn output_that_nobody_reads() {
    let plain = golden().join("asb/plain");
    let arguments = ["inspect", plain.to_str().unwrap()];
    let mut child = command(&arguments).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));

    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command(&arguments).stdout(full).output().unwrap();
    Outcome::of(output).fails(1, &["cannot write to standard output", "No space left"]);
}

/// A child that is killed when the test ends in whatever way.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Protects: the development server says where it listens, serves, warns what it is, and ends on SIGTERM with success.
#[test]
fn devserver() {
    let mut child = Running(
        command(&["devserver", "--listen", "127.0.0.1:0", "--namespace", "one", "--namespace", "two:64M"])
            .spawn()
            .unwrap(),
    );
    let mut output = BufReader::new(child.0.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        line
    };
    let first = line();
    let address = first.trim_end().strip_prefix("node 0 listens on ").unwrap();
    assert!(line().contains("in memory only"));
    let folder = tempfile::tempdir().unwrap();
    for namespace in ["one", "two"] {
        let place = folder.path().join(namespace);
        abs(&["backup", "-h", address, "-n", namespace, "-d", place.to_str().unwrap()]).ok();
    }
    abs(&["devserver", "--listen", address]).fails(1, &["cannot listen on", address]);
    let pid = child.0.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(0));
    let mut errors = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(errors, "");
}
