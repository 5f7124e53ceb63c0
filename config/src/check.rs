//! Walking through a document, collecting what is wrong.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::{InvalidValue, Problem, Problems, Zone};

/// The largest number of most keys.
const MOST: i64 = u32::MAX as i64;

/// Collects the problems of a document below one path, and goes on with a stand-in for each bad value.
pub(crate) struct Check<'a> {
    path: String,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Check<'a> {
    /// Collects in `problems` those of the document at `path` (empty for a whole document).
    pub(crate) fn new(path: &str, problems: &'a mut Vec<Problem>) -> Self {
        Self { path: path.to_owned(), problems }
    }

    /// Runs `work` on the document at `path` ; its result counts only without problems.
    pub(crate) fn document<T>(path: &str, work: impl FnOnce(&mut Check<'_>) -> T) -> Result<T, Problems> {
        let mut problems = Vec::new();
        let result = work(&mut Check::new(path, &mut problems));
        Problems::none_in(problems).map(|()| result)
    }

    /// The part of the document at `key`.
    pub(crate) fn inside(&mut self, key: &str) -> Check<'_> {
        Check { path: self.path_of(key), problems: self.problems }
    }

    /// Notes a problem of `key`, or of the document itself if `key` is empty.
    pub(crate) fn problem(&mut self, key: &str, message: impl Display) {
        let path = self.path_of(key);
        self.problems.push(Problem { path, message: message.to_string() });
    }

    /// The value, or none with its problem noted.
    pub(crate) fn valid<T>(&mut self, key: &str, result: Result<T, impl Display>) -> Option<T> {
        result.map_err(|error| self.problem(key, error)).ok()
    }

    /// The word's value, or the default if there is none.
    pub(crate) fn word<T: FromStr<Err = InvalidValue> + Default>(
        &mut self,
        key: &str,
        word: Option<&str>,
    ) -> T {
        word.and_then(|word| self.valid(key, word.parse())).unwrap_or_default()
    }

    /// A whole number in `range`, or `default` if there is none.
    pub(crate) fn number<T: TryFrom<i64>>(
        &mut self,
        key: &str,
        value: Option<i64>,
        default: T,
        range: RangeInclusive<i64>,
    ) -> T {
        let Some(value) = value else { return default };
        match T::try_from(value) {
            Ok(number) if range.contains(&value) => return number,
            _ => {}
        }
        let (low, high) = range.into_inner();
        if value < low {
            self.problem(key, format_args!("must be at least {low}, not {value}"));
        } else {
            self.problem(key, format_args!("must be at most {high}, not {value}"));
        }
        default
    }

    /// A number of things of which there is at least one.
    pub(crate) fn count(&mut self, key: &str, value: Option<i64>, default: NonZeroU32) -> NonZeroU32 {
        NonZeroU32::new(self.number(key, value, default.get(), 1..=MOST)).unwrap_or(default)
    }

    /// A limit of which 0 means that there is none.
    pub(crate) fn limit(&mut self, key: &str, value: Option<i64>, default: u32) -> u32 {
        self.number(key, value, default, 0..=MOST)
    }

    /// `socket-timeout` and `total-timeout`, in milliseconds: how long a socket may be idle, and how long a command may
    /// take; none for as long as it takes. A socket timeout of 0 is that of the command.
    pub(crate) fn timeouts(
        &mut self,
        socket: Option<i64>,
        total: Option<i64>,
    ) -> (Option<Duration>, Option<Duration>) {
        let mut duration = |key, value, default| {
            let milliseconds = self.number(key, value, default, 0..=MOST);
            (milliseconds > 0).then(|| Duration::from_millis(u64::from(milliseconds)))
        };
        let socket = duration("socket-timeout", socket, 60_000_u32);
        let total = duration("total-timeout", total, 0);
        (socket.or(total), total)
    }

    /// Notes that a text is empty.
    pub(crate) fn filled(&mut self, key: &str, text: &str) {
        if text.is_empty() {
            self.problem(key, "must not be empty");
        }
    }

    /// Notes that a path is not clean: it climbs (`..`), stays (`.`), or has empty parts. `./` may begin it.
    pub(crate) fn clean_path(&mut self, key: &str, path: &str) {
        let inside = path.strip_prefix("./").or_else(|| path.strip_prefix('/')).unwrap_or(path);
        let clean = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
        if !(inside.split('/').all(clean) || path == "/" || path == ".") {
            self.problem(
                key,
                format_args!("must be a clean path without .., ., // or a / at its end, not {path:?}"),
            );
        }
    }

    /// Notes that a name is not that of one folder.
    pub(crate) fn folder_name(&mut self, name: &str) {
        let bad = |c: char| c.is_control() || c == '/' || c == '\\';
        if name.is_empty() || name.len() > 255 || name == "." || name == ".." || name.contains(bad) {
            let message = "must be a name that a folder can have, without slashes, 1 to 255 bytes";
            self.problem("", format_args!("{name:?} {message}"));
        } else if name != name.trim() || name.starts_with(".abs-") {
            // Locks and unfinished files are called so.
            self.problem(
                "",
                format_args!("{name:?} must not begin with .abs- nor begin or end with a space"),
            );
        }
    }

    /// A time zone.
    pub(crate) fn zone(&mut self, key: &str, zone: Option<&str>) -> Option<Zone> {
        zone.and_then(|zone| self.valid(key, zone.parse()))
    }

    /// Names of at most `limit` bytes each, none empty.
    pub(crate) fn names(&mut self, key: &str, names: Option<&[String]>, limit: usize) -> Vec<String> {
        let names = names.unwrap_or_default();
        for (i, name) in names.iter().enumerate() {
            if name.is_empty() || name.len() > limit {
                let message =
                    format!("must be a name of 1 to {limit} bytes, not {name:?} ({} bytes)", name.len());
                self.problem(&format!("{key}[{i}]"), message);
            }
        }
        names.to_vec()
    }

    fn path_of(&self, key: &str) -> String {
        match (self.path.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (_, true) => self.path.clone(),
            _ => format!("{}.{key}", self.path),
        }
    }
}
