//! Walking through a document, collecting what is wrong.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::{InvalidValue, Problem, Problems, Warning, Zone};

/// The bounds of numbers. A schema repeats them as literals, which a test compares.
pub(crate) mod most {
    /// What has no other bound.
    pub(crate) const ANY: i64 = u32::MAX as i64;
    /// Scans at a time: a namespace has this many partitions.
    pub(crate) const SCANS: i64 = 4096;
    /// Scans at a time on one cluster, of all its namespaces.
    pub(crate) const CLUSTER_SCANS: i64 = 65_535;
    /// Files read or written at a time: each takes a descriptor and a block of memory.
    pub(crate) const FILES: i64 = 1024;
    /// Nodes: each of the partitions has one master.
    pub(crate) const NODES: i64 = 4096;
    /// Rows of a batch: a batch of the smallest rows is full with fewer.
    pub(crate) const BATCH: i64 = 65_535;
    /// Requests at a time, each on a connection of its own.
    pub(crate) const CONNECTIONS: i64 = 4096;
    /// Milliseconds: 31 days.
    pub(crate) const MILLISECONDS: i64 = 31 * 24 * 3_600_000;
    /// Milliseconds between two attempts: a day.
    pub(crate) const WAIT: i64 = 24 * 3_600_000;
    /// New attempts.
    pub(crate) const RETRIES: i64 = 10_000;
    /// By what a wait grows.
    pub(crate) const MULTIPLIER: f64 = 100.0;
    /// MiB per second: a TiB.
    pub(crate) const BANDWIDTH: i64 = 1 << 20;
    /// Seconds that records live: ten years, the server's limit.
    pub(crate) const TTL: i64 = 10 * 365 * 24 * 3600;
    /// MiB of memory for the digests of a chain.
    pub(crate) const CHAIN_MEMORY: i64 = 65_536;
    /// Days that a file of the log is kept: a hundred years.
    pub(crate) const DAYS: i64 = 36_500;
}

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

impl Findings {
    /// The warnings about a stored document, or what is wrong with it.
    pub(crate) fn of_stored(self) -> Result<Vec<Warning>, Problems> {
        Problems::none_in(self.problems).map(|()| self.warnings)
    }

    /// What is wrong with a new document.
    pub(crate) fn of_new(self) -> Result<(), Problems> {
        let refused = self.warnings.into_iter().map(|warning| warning.problem);
        Problems::none_in(self.problems.into_iter().chain(refused).collect())
    }
}

/// Whether a character cannot be printed as it is.
fn is_hidden(c: char) -> bool {
    // Inside of a text, all such characters are escaped; so are quotes and backslashes.
    !matches!(c, '"' | '\'' | '\\') && format!("x{c}").escape_debug().any(|c| c == '\\')
}

/// A name with its hidden characters escaped.
pub(crate) fn shown(name: &str) -> String {
    let mut shown = String::with_capacity(name.len());
    for c in name.chars() {
        if is_hidden(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// Collects the problems of a document below one path, and goes on with a stand-in for each bad value.
pub(crate) struct Check<'a> {
    path: String,
    findings: &'a mut Findings,
}

impl<'a> Check<'a> {
    /// Collects in `findings` those of the document at `path` (empty for a whole document).
    pub(crate) fn new(path: &str, findings: &'a mut Findings) -> Self {
        Self { path: path.to_owned(), findings }
    }

    /// Runs `work` on the new document at `path`; its result counts only without problems.
    pub(crate) fn document<T>(path: &str, work: impl FnOnce(&mut Check<'_>) -> T) -> Result<T, Problems> {
        let mut findings = Findings::default();
        let result = work(&mut Check::new(path, &mut findings));
        findings.of_new().map(|()| result)
    }

    /// The part of the document at `key`.
    pub(crate) fn inside(&mut self, key: &str) -> Check<'_> {
        Check { path: self.path_of(key), findings: self.findings }
    }

    /// Notes a problem of `key`, or of the document itself if `key` is empty.
    pub(crate) fn problem(&mut self, key: &str, message: impl Display) {
        let path = self.path_of(key);
        self.findings.problems.push(Problem { path, message: message.to_string() });
    }

    /// Notes what is wrong with `key` in a new document; in a stored one it has this effect.
    pub(crate) fn warning(&mut self, key: &str, message: impl Display, effect: impl Display) {
        let problem = Problem { path: self.path_of(key), message: message.to_string() };
        self.findings.warnings.push(Warning { problem, effect: effect.to_string() });
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

    /// The same, but a stored number beyond the range is taken for the last one of it.
    pub(crate) fn clamped(
        &mut self,
        key: &str,
        value: Option<i64>,
        default: u32,
        range: RangeInclusive<i64>,
    ) -> u32 {
        let high = *range.end();
        match value {
            Some(value) if value > high => {
                let message = format_args!("must be at most {high}, not {value}");
                self.warning(key, message, format_args!("{high} is used"));
                u32::try_from(high).unwrap_or(u32::MAX)
            }
            value => self.number(key, value, default, range),
        }
    }

    /// A number of things of which there is at least one.
    pub(crate) fn count(
        &mut self,
        key: &str,
        value: Option<i64>,
        default: NonZeroU32,
        most: i64,
    ) -> NonZeroU32 {
        NonZeroU32::new(self.clamped(key, value, default.get(), 1..=most)).unwrap_or(default)
    }

    /// A limit of which 0 means that there is none.
    pub(crate) fn limit(&mut self, key: &str, value: Option<i64>, default: u32, most: i64) -> u32 {
        self.clamped(key, value, default, 0..=most)
    }

    /// A duration in milliseconds.
    pub(crate) fn milliseconds(
        &mut self,
        key: &str,
        value: Option<i64>,
        default: u32,
        range: RangeInclusive<i64>,
    ) -> Duration {
        Duration::from_millis(self.clamped(key, value, default, range).into())
    }

    /// `socket-timeout` and `total-timeout`, in milliseconds: how long a socket may be idle, and how long a command may
    /// take; none for as long as it takes. A socket timeout of 0 is that of the command.
    pub(crate) fn timeouts(
        &mut self,
        socket: Option<i64>,
        total: Option<i64>,
    ) -> (Option<Duration>, Option<Duration>) {
        let mut duration = |key, value, default| {
            let duration = self.milliseconds(key, value, default, 0..=most::MILLISECONDS);
            (!duration.is_zero()).then_some(duration)
        };
        let socket = duration("socket-timeout", socket, 60_000);
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

    /// Notes that a name has characters that are not visible, or that change how text around them is shown.
    pub(crate) fn visible_name(&mut self, key: &str, name: &str) {
        if let Some(c) = name.chars().find(|c| is_hidden(*c)) {
            let message = format_args!(
                "{name:?} must be a name of visible characters, without {}, which is a control, format or other \
                 invisible character",
                c.escape_unicode()
            );
            self.warning(key, message, "logs and lists may show it wrongly");
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
