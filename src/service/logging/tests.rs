//! The log as a whole, with real files.

use std::fs::{self, File};
use std::io::Read;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Command, Stdio};

use abs_config::{LogFileSettings, LogFormat, S3LogLevel, StorageSettings};
use serde_json::Value;
use slog::{debug, error, info, trace, warn};

use super::*;

fn settings(path: &Path, level: LogLevel, format: LogFormat) -> LoggerSettings {
    LoggerSettings {
        level,
        format,
        stdout: false,
        file: Some(LogFileSettings {
            path: path.to_owned(),
            max_size_mb: NonZeroU32::MIN,
            max_age_days: None,
            max_backups: None,
            compress: false,
        }),
    }
}

fn json_lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn messages(path: &Path) -> Vec<String> {
    json_lines(path).iter().map(|line| line["msg"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_last_lines_are_written_when_the_log_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("abs.log");
    let logging = Logging::start(&settings(&path, LogLevel::Info, LogFormat::Json)).unwrap();
    // Loggers that live longer do not hold it up.
    let log = logging.logger().new(o!("routine" => "daily"));
    for i in 0..10_000 {
        info!(log, "line"; "i" => i);
    }
    drop(logging);
    info!(log, "too late");
    let lines = json_lines(&path);
    assert_eq!(lines.len(), 10_000);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!((&line["i"], &line["routine"]), (&i.into(), &"daily".into()));
        assert!(line["time"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().is_ok());
    }
}

#[test]
fn threads_share_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("abs.log");
    let logging = Logging::start(&settings(&path, LogLevel::Info, LogFormat::Plain)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let log = logging.logger().new(o!("thread" => thread));
            scope.spawn(move || (0..1000).for_each(|i| info!(log, "line"; "i" => i)));
        }
    });
    drop(logging);
    let text = fs::read_to_string(&path).unwrap();
    for thread in 0..8 {
        let of_thread = text.lines().filter(|line| line.contains(&format!(" thread={thread} ")));
        let in_order = of_thread.zip(0..).filter(|(line, i)| line.ends_with(&format!(" i={i}"))).count();
        assert_eq!(in_order, 1000);
    }
}

#[test]
fn settings_change_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.log"), folder.path().join("second.log"));
    let logging = Logging::start(&settings(&first, LogLevel::Warn, LogFormat::Json)).unwrap();
    let log = logging.logger().clone();
    error!(log, "1");
    warn!(log, "2");
    info!(log, "not at this level");
    // What is on its way is written before or after the change, to one of the two.
    logging.control().prepare(&settings(&second, LogLevel::Debug, LogFormat::Json)).unwrap().commit();
    debug!(log, "3");
    trace!(log, "not at this level");
    // A change that cannot be is none.
    let nowhere = settings(&first.join("below"), LogLevel::Error, LogFormat::Plain);
    assert!(matches!(logging.control().prepare(&nowhere), Err(LogError::Open { .. })));
    debug!(log, "4");
    drop(logging);
    assert_eq!([messages(&first), messages(&second)].concat(), ["1", "2", "3", "4"]);
    assert!(messages(&second).ends_with(&["3".to_owned(), "4".to_owned()]));
}

#[test]
fn a_file_that_was_moved_away_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("abs.log"), folder.path().join("moved.log"));
    let settings = settings(&path, LogLevel::Info, LogFormat::Json);
    let logging = Logging::start(&settings).unwrap();
    fs::rename(&path, &moved).unwrap();
    logging.control().prepare(&settings).unwrap().commit();
    info!(logging.logger(), "new");
    drop(logging);
    assert_eq!(messages(&path), ["new"]);
    assert_eq!(fs::read_to_string(&moved).unwrap(), "");
}

#[test]
fn old_files_hold_the_lines_that_the_file_no_longer_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("abs.log");
    let mut settings = settings(&path, LogLevel::Info, LogFormat::Json);
    settings.file.as_mut().unwrap().compress = true;
    let logging = Logging::start(&settings).unwrap();
    let filling = "x".repeat(1000);
    (0..3000).for_each(|i| info!(logging.logger(), "line"; "i" => i, "filling" => &filling));
    drop(logging);
    // Three megabytes and the names of their lines: three files are full, and being compressed.
    let compressed = || {
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut old: Vec<_> = names.filter(|name| *name != path).collect();
        old.sort();
        (old.len() == 3 && old.iter().all(|name| name.extension().unwrap() == "gz")).then_some(old)
    };
    let old = loop {
        if let Some(old) = compressed() {
            break old;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut text = String::new();
    for old in old {
        flate2::read::GzDecoder::new(File::open(old).unwrap()).read_to_string(&mut text).unwrap();
    }
    text += &fs::read_to_string(&path).unwrap();
    let numbers = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["i"].as_i64());
    assert!(numbers.eq((0..3000).map(Some)));
}

/// A test of this file in a process of its own.
fn test_alone(test: &str) -> Command {
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{module}::{test}")]).env("ABS_TEST_ALONE", "yes");
    command
}

/// Runs a test of this file again in a process of its own and returns its two outputs; none in that process.
fn alone(test: &str) -> Option<[String; 2]> {
    if std::env::var_os("ABS_TEST_ALONE").is_some() {
        return None;
    }
    let output = test_alone(test).output().unwrap();
    let texts = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success() && texts[0].contains("1 passed"), "{texts:?}");
    Some(texts)
}

#[test]
fn a_full_disk_stops_nobody_and_is_said_once() {
    let Some([_, stderr]) = alone("a_full_disk_stops_nobody_and_is_said_once") else {
        let full = settings(Path::new("/dev/full"), LogLevel::Info, LogFormat::Json);
        let logging = Logging::start(&full).unwrap();
        (0..1000).for_each(|i| info!(logging.logger(), "line"; "i" => i));
        drop(logging);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abs.log");
        let logging = Logging::start(&full).unwrap();
        info!(logging.logger(), "lost");
        logging.control().prepare(&settings(&path, LogLevel::Info, LogFormat::Json)).unwrap().commit();
        info!(logging.logger(), "the last");
        drop(logging);
        assert_eq!(messages(&path).last().unwrap(), "the last");
        return;
    };
    let complaints: Vec<&str> = stderr.lines().filter(|line| line.starts_with("abs: ")).collect();
    // Of the second log the line may have found its place after the change.
    assert!((1..=2).contains(&complaints.len()), "{complaints:?}");
    for complaint in complaints {
        assert_eq!(
            complaint,
            "abs: cannot write the log to /dev/full: No space left on device (os error 28): lines are lost until it can be written again"
        );
    }
}

#[test]
fn a_reader_that_sleeps_stops_nobody() {
    if std::env::var_os("ABS_TEST_ALONE").is_some() {
        let settings =
            LoggerSettings { level: LogLevel::Info, format: LogFormat::Plain, stdout: true, file: None };
        let logging = Logging::start(&settings).unwrap();
        // Far more than a pipe and the log itself hold.
        (0..200_000).for_each(|i| info!(logging.logger(), "line"; "i" => i));
        drop(logging);
        std::process::exit(0);
    }
    let mut child = test_alone("a_reader_that_sleeps_stops_nobody").stdout(Stdio::piped()).spawn().unwrap();
    // It ends although nobody has read a line.
    assert!(child.wait().unwrap().success());
    let mut text = String::new();
    child.stdout.unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains(" INFO  line i=100\n"), "{text}");
}

#[test]
fn the_standard_output_has_the_lines_too() {
    let Some([stdout, _]) = alone("the_standard_output_has_the_lines_too") else {
        let settings =
            LoggerSettings { level: LogLevel::Info, format: LogFormat::Plain, stdout: true, file: None };
        let logging = Logging::start(&settings).unwrap();
        info!(logging.logger(), "backup done"; "routine" => "daily");
        return;
    };
    // The end of the line is what the test's own output does not share a line with.
    assert!(stdout.lines().any(|line| line.ends_with("Z INFO  backup done routine=daily")), "{stdout}");
}

fn s3(log_level: S3LogLevel) -> StorageSettings {
    let document =
        format!(r#"{{"s3-storage":{{"bucket":"b","s3-region":"r","s3-log-level":"{log_level}"}}}}"#);
    let storage: abs_config::Storage = abs_config::from_json(document.as_bytes()).unwrap();
    storage.check().unwrap()
}

#[test]
fn libraries_log_to_it_at_its_level() {
    // The logger of the log crate is that of the whole process.
    if alone("libraries_log_to_it_at_its_level").is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("abs.log");
    let warnings = settings(&path, LogLevel::Warn, LogFormat::Json);
    let logging = Logging::start(&warnings).unwrap();
    logging.take_library_records();
    log::warn!(target: "a_library", "1");
    log::info!(target: "a_library", "not at this level");
    logging.control().prepare(&settings(&path, LogLevel::Debug, LogFormat::Json)).unwrap().commit();
    log::info!(target: "a_library", "2");
    log::debug!(target: "a_library", "what a library says of its own works");
    log::error!(target: "aws_smithy_runtime", "what nobody wants of the SDK");
    let wish = abs_storage::open(&s3(S3LogLevel::Debug));
    log::debug!(target: "aws_smithy_runtime", "3");
    log::trace!(target: "aws_smithy_runtime", "more than was wished");
    log::debug!(target: "a_library", "what nobody wished");
    drop(wish);
    log::error!(target: "aws_smithy_runtime", "nobody wants it any more");
    drop(logging);
    let lines = json_lines(&path);
    assert_eq!(messages(&path), ["1", "2", "3"]);
    assert_eq!((&lines[0]["target"], &lines[0]["level"]), (&"a_library".into(), &"WARN".into()));
    // The log has ended; nobody breaks down over it.
    log::warn!("too late");
}
