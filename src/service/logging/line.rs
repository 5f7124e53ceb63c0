//! A record of the log as a line.

use std::fmt::{Arguments, Display, Write as _};

use abs_config::LogFormat;
use chrono::{SecondsFormat, Utc};
use serde_json::Value;
use slog::{KV, Key, Level, OwnedKVList, Record, Serializer};

/// The key under which a record brings its time, the text of [`now`]. No field of a line is called so.
pub(super) const TIME: &str = "@time";

/// This moment, as the log shows it: RFC 3339, UTC, milliseconds.
pub(super) fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The line, with the line feed at its end.
///
/// JSON is one object: `time`, `level`, `msg`, then the fields, from the outermost logger's to the record's own. Plain is
/// the same without the three names, fields as `key=value`; a value that is not one word is a JSON string.
/// Of fields of the same name the innermost counts. `target` is the library that a record is from.
pub(super) fn line(format: LogFormat, record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut fields = Fields { time: Value::Null, inside_out: Vec::new() };
    // Collecting does not fail; a value that cannot say itself is left out.
    let _ = record.kv().serialize(record, &mut fields);
    let _ = values.serialize(record, &mut fields);
    if !record.tag().is_empty() {
        fields.add("target", record.tag().into());
    }
    let Fields { time, inside_out } = fields;
    // slog-async says itself how many lines were dropped.
    let time = if time.is_null() { now().into() } else { time };
    let level = word(record.level());
    let message = record.msg().to_string();
    let fields = inside_out.iter().rev().map(|(key, value)| (*key, value));
    match format {
        LogFormat::Plain => plain(time.as_str().unwrap_or_default(), level, &message, fields),
        LogFormat::Json => {
            let head = [("time", &time), ("level", &level.into()), ("msg", &message.into())];
            json(head.into_iter().chain(fields))
        }
    }
}

/// The word for a level, as the settings have it.
fn word(level: Level) -> &'static str {
    match level {
        Level::Critical | Level::Error => "ERROR",
        Level::Warning => "WARN",
        Level::Info => "INFO",
        Level::Debug => "DEBUG",
        Level::Trace => "TRACE",
    }
}

fn plain<'a>(
    time: &str,
    level: &str,
    message: &str,
    fields: impl Iterator<Item = (Key, &'a Value)>,
) -> String {
    let mut line = format!("{time} {level:<5} ");
    for c in message.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    for (key, value) in fields {
        let word = value.as_str().filter(|text| is_word(text));
        let value: &dyn Display = word.as_ref().map_or(value, |word| word);
        // Writing to a string does not fail.
        let _ = write!(line, " {key}={value}");
    }
    line.push('\n');
    line
}

/// Whether a value can stand without quotes.
fn is_word(text: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\\' | '=');
    !text.is_empty() && !text.contains(odd)
}

fn json<'a>(fields: impl Iterator<Item = (Key, &'a Value)>) -> String {
    let fields: Vec<String> = fields.map(|(key, value)| format!("{}:{value}", Value::from(key))).collect();
    format!("{{{}}}\n", fields.join(","))
}

/// The fields of a record, which slog hands over from the innermost to the outermost, and the last of each first.
struct Fields {
    time: Value,
    inside_out: Vec<(Key, Value)>,
}

impl Fields {
    fn add(&mut self, key: Key, value: Value) {
        let key = match key {
            TIME => {
                self.time = value;
                return;
            }
            // The line has its own.
            "time" => "field.time",
            "level" => "field.level",
            "msg" => "field.msg",
            key => key,
        };
        if self.inside_out.iter().all(|(name, _)| *name != key) {
            self.inside_out.push((key, value));
        }
    }
}

/// Numbers and truth values stay what they are; all else is text.
impl Serializer for Fields {
    fn emit_arguments(&mut self, key: Key, value: &Arguments<'_>) -> slog::Result {
        self.add(key, value.to_string().into());
        Ok(())
    }

    fn emit_none(&mut self, key: Key) -> slog::Result {
        self.add(key, Value::Null);
        Ok(())
    }

    fn emit_bool(&mut self, key: Key, value: bool) -> slog::Result {
        self.add(key, value.into());
        Ok(())
    }

    fn emit_f64(&mut self, key: Key, value: f64) -> slog::Result {
        self.add(key, value.into());
        Ok(())
    }

    fn emit_i64(&mut self, key: Key, value: i64) -> slog::Result {
        self.add(key, value.into());
        Ok(())
    }

    fn emit_u64(&mut self, key: Key, value: u64) -> slog::Result {
        self.add(key, value.into());
        Ok(())
    }

    fn emit_i32(&mut self, key: Key, value: i32) -> slog::Result {
        self.emit_i64(key, value.into())
    }

    fn emit_u16(&mut self, key: Key, value: u16) -> slog::Result {
        self.emit_u64(key, value.into())
    }

    fn emit_u32(&mut self, key: Key, value: u32) -> slog::Result {
        self.emit_u64(key, value.into())
    }

    fn emit_usize(&mut self, key: Key, value: usize) -> slog::Result {
        self.emit_u64(key, value as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use slog::{Drain, Logger, Never, b, info, o, warn};

    use super::*;

    /// Collects lines.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<(String, String)>>>);

    impl Drain for Lines {
        type Ok = ();
        type Err = Never;

        fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
            let timed = (slog::SingleKV(TIME, "T"), record.kv());
            let fixed =
                slog::RecordStatic { location: record.location(), tag: record.tag(), level: record.level() };
            let record = Record::new(&fixed, record.msg(), slog::BorrowedKV(&timed));
            let of = |format| line(format, &record, values);
            self.0.lock().unwrap().push((of(LogFormat::Plain), of(LogFormat::Json)));
            Ok(())
        }
    }

    fn logged(log: impl FnOnce(Logger)) -> (String, String) {
        let lines = Lines::default();
        log(Logger::root(lines.clone(), o!()));
        lines.0.lock().unwrap().pop().unwrap()
    }

    #[test]
    fn fields_are_in_the_order_they_were_given() {
        let (plain, json) = logged(|log| {
            let log = log.new(o!("routine" => "daily", "job" => 7_u64)).new(o!("namespace" => "test"));
            info!(log, "backup {}", "done"; "records" => 10_u32, "part" => 0.5, "empty" => false);
        });
        assert_eq!(
            plain,
            "T INFO  backup done routine=daily job=7 namespace=test records=10 part=0.5 empty=false\n"
        );
        assert_eq!(
            json,
            "{\"time\":\"T\",\"level\":\"INFO\",\"msg\":\"backup done\",\"routine\":\"daily\",\"job\":7,\"namespace\":\"test\",\"records\":10,\"part\":0.5,\"empty\":false}\n"
        );
    }

    #[test]
    fn the_innermost_of_a_name_counts_and_no_name_comes_twice() {
        let (plain, json) = logged(|log| {
            let log = log.new(o!("a" => 1, "b" => 1)).new(o!("a" => 2));
            warn!(log, "m"; "a" => 3, "msg" => "x", "level" => "y", "time" => "z");
        });
        assert_eq!(plain, "T WARN  m b=1 a=3 field.msg=x field.level=y field.time=z\n");
        let object: serde_json::Map<String, Value> = serde_json::from_str(&json).unwrap();
        assert_eq!(object.len(), json.matches("\":").count());
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let nasty = "a\nb \u{1b}[31m\"q\" =\\";
        let (plain, json) =
            logged(|log| info!(log, "{nasty}"; "value" => nasty, "nothing" => "", "none" => None::<u8>));
        assert_eq!(
            plain,
            "T INFO  a\\nb \\u{1b}[31m\"q\" =\\ value=\"a\\nb \\u001b[31m\\\"q\\\" =\\\\\" nothing=\"\" none=null\n"
        );
        assert_eq!(json.matches('\n').count(), 1);
        let object: serde_json::Map<String, Value> = serde_json::from_str(&json).unwrap();
        assert_eq!((object["msg"].as_str(), object["value"].as_str()), (Some(nasty), Some(nasty)));
    }

    #[test]
    fn numbers_stay_numbers_and_libraries_are_named() {
        let (_, json) = logged(|log| {
            log.log(&slog::record!(
                Level::Error,
                "library",
                &format_args!("m"),
                b!("u" => u64::MAX, "i" => i64::MIN, "n" => f64::NAN, "d" => ?[1])
            ));
        });
        let object: serde_json::Map<String, Value> = serde_json::from_str(&json).unwrap();
        assert_eq!(object["u"], u64::MAX);
        assert_eq!(object["i"], i64::MIN);
        assert_eq!(object["n"], Value::Null);
        assert_eq!(object["d"], "[1]");
        assert_eq!((&object["level"], &object["target"]), (&"ERROR".into(), &"library".into()));
    }

    #[test]
    fn a_record_without_its_time_gets_one() {
        let line = line(
            LogFormat::Plain,
            &slog::record!(Level::Warning, "", &format_args!("m"), b!()),
            &o!().into(),
        );
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.parse::<chrono::DateTime<Utc>>().is_ok() && rest == "WARN  m\n", "{line}");
    }

    #[test]
    fn times_are_utc_to_the_millisecond() {
        let now = now();
        assert_eq!(now.len(), "2026-11-23T15:04:05.678Z".len());
        assert!(now.ends_with('Z') && now.parse::<chrono::DateTime<Utc>>().is_ok());
    }
}
