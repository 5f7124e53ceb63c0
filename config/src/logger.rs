//! The log of the service.

use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::check::{Check, most};
use crate::text::words;

/// The document `dto.LoggerConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::LoggerConfig)]
pub struct LoggerConfig {
    /// From which level on lines are written; `DEBUG` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<LogLevel>, inline, default = "DEBUG")]
    pub level: Option<String>,
    /// `PLAIN` (the default) or `JSON`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<LogFormat>, inline, default = "PLAIN")]
    pub format: Option<String>,
    /// Lines are written to the standard output; true by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = true)]
    pub stdout_writer: Option<bool>,
    /// Lines are written to a file, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_writer: Option<FileLoggerConfig>,
}

words! {
    /// A level of the log.
    #[derive(Default, PartialOrd, Ord)]
    pub enum LogLevel: "log level" {
        /// Each step.
        Trace = "TRACE",
        /// What helps to find faults.
        #[default]
        Debug = "DEBUG",
        /// What happens.
        Info = "INFO",
        /// What may be wrong.
        Warn = "WARN",
        /// Another word for `WARN`.
        Warning = "WARNING",
        /// What failed.
        Error = "ERROR",
    }
}

words! {
    /// The form of the log's lines.
    #[derive(Default)]
    pub enum LogFormat: "log format" {
        /// For people.
        #[default]
        Plain = "PLAIN",
        /// One JSON object a line.
        Json = "JSON",
    }
}

/// The document `dto.FileLoggerConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = dto::FileLoggerConfig)]
pub struct FileLoggerConfig {
    /// The file.
    #[schema(example = "log.txt")]
    pub filename: String,
    /// The size in MB at which a new file begins; 100 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 4_294_967_295_i64, example = 100)]
    pub maxsize: Option<i64>,
    /// After how many days an old file is deleted; never by default or for 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 36500)]
    pub maxage: Option<i64>,
    /// How many old files are kept; all by default or for 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 4_294_967_295_i64)]
    pub maxbackups: Option<i64>,
    /// Old files are compressed with gzip; false by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub compress: Option<bool>,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggerSettings {
    /// From which level on lines are written; never `Warning`, which is `Warn`.
    pub level: LogLevel,
    /// The form of the lines.
    pub format: LogFormat,
    /// Lines are written to the standard output.
    pub stdout: bool,
    /// The file to write to, too.
    pub file: Option<LogFileSettings>,
}

/// The file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFileSettings {
    /// The file.
    pub path: PathBuf,
    /// The size in MB (of 1,048,576 bytes) at which a new file begins.
    pub max_size_mb: NonZeroU32,
    /// After how many days an old file is deleted; never if none.
    pub max_age_days: Option<NonZeroU32>,
    /// How many old files are kept; all if none.
    pub max_backups: Option<NonZeroU32>,
    /// Old files are compressed with gzip.
    pub compress: bool,
}

impl LoggerConfig {
    pub(crate) fn settings(&self, check: &mut Check<'_>) -> LoggerSettings {
        let level = match check.word("level", self.level.as_deref()) {
            LogLevel::Warning => LogLevel::Warn,
            level => level,
        };
        LoggerSettings {
            level,
            format: check.word("format", self.format.as_deref()),
            stdout: self.stdout_writer.unwrap_or(true),
            file: self.file_writer.as_ref().map(|file| file.settings(&mut check.inside("file-writer"))),
        }
    }
}

impl FileLoggerConfig {
    fn settings(&self, check: &mut Check<'_>) -> LogFileSettings {
        const DEFAULT_SIZE: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);
        check.clean_path("filename", &self.filename);
        LogFileSettings {
            path: PathBuf::from(&self.filename),
            max_size_mb: check.count("maxsize", self.maxsize, DEFAULT_SIZE, most::ANY),
            max_age_days: NonZeroU32::new(check.limit("maxage", self.maxage, 0, most::DAYS)),
            max_backups: NonZeroU32::new(check.limit("maxbackups", self.maxbackups, 0, most::ANY)),
            compress: self.compress.unwrap_or(false),
        }
    }
}
