//! The service itself: its HTTP server, its log, and what all routines share.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Zone;
use crate::check::{Check, Findings, most};
use crate::logger::{LoggerConfig, LoggerSettings};
use crate::text::words;

/// The document `dto.ServiceConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::ServiceConfig)]
pub struct ServiceConfig {
    /// The HTTP server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpServerConfig>,
    /// The log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logger: Option<LoggerConfig>,
    /// What all routines share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupCommonConfig>,
    /// How long running jobs may go on when the service is told to end, in milliseconds; 30,000 by default. Not in the
    /// reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 30000, minimum = 0, maximum = 2_678_400_000_i64)]
    pub shutdown_grace: Option<i64>,
    /// The directory of what the service remembers over restarts; its parent must exist. By default `abs-state` beside
    /// the file of the configuration, or in /var/lib/abs where that cannot be written. Not in the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/var/lib/abs/state")]
    pub state_dir: Option<String>,
    /// How long the claims of this service, on unfinished backups and on routines in object stores, hold without being
    /// renewed, in milliseconds; 60,000 by default. They are renewed ten times in this time; then another machine may
    /// continue the backup, or work on the routine. Not in the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 60000, minimum = 1000, maximum = 2_678_400_000_i64)]
    pub lease: Option<i64>,
    /// For how long a restore may have been interrupted by an end of the service to be resumed by its next start, in
    /// milliseconds; 900,000 by default. Not in the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 900_000, minimum = 0, maximum = 2_678_400_000_i64)]
    pub restore_resume_within: Option<i64>,
}

/// The document `dto.HTTPServerConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::HTTPServerConfig)]
pub struct HttpServerConfig {
    /// The address to listen on; 0.0.0.0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = "0.0.0.0", example = "0.0.0.0")]
    pub address: Option<String>,
    /// The port to listen on; 8080 by default; 0 for any free one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 8080, minimum = 0, maximum = 65535, example = 8080)]
    pub port: Option<i64>,
    /// What stands before the path of each request; `/` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = "/")]
    pub context_path: Option<String>,
    /// How long a request may take to arrive, in milliseconds; 5000 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 5000, minimum = 1, maximum = 2_678_400_000_i64)]
    pub timeout: Option<i64>,
    /// How many requests a client may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateLimiterConfig>,
    /// Secrets are shown in answers, as version 3.5 did; false by default (since 3.7 of the reference).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub show_secrets: Option<bool>,
}

/// The document `dto.RateLimiterConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::RateLimiterConfig)]
pub struct RateLimiterConfig {
    /// Requests per second of one client; 1024 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 1024, minimum = 1, maximum = 4_294_967_295_i64, example = 1024)]
    pub tps: Option<i64>,
    /// Requests at once of one client; 1024 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 1024, minimum = 1, maximum = 4_294_967_295_i64, example = 1024)]
    pub size: Option<i64>,
    /// Addresses (`10.0.0.1`) and networks (`10.0.0.0/8`) without a limit; none by default; `0.0.0.0/0` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub white_list: Option<Vec<String>>,
}

/// The document `dto.BackupCommonConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::BackupCommonConfig)]
pub struct BackupCommonConfig {
    /// The folders of backups are named with the time for people, too: `ISO` (2006-01-02T15-04-05), `EU`
    /// (02-Jan-2006-15-04-05) or `US` (Jan-02-2006-15-04-05); not by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<TimestampFormat>, inline)]
    pub timestamp_format: Option<String>,
    /// The time zone of schedules (since 3.7): `UTC` (the default), `Local` or an IANA name such as `Europe/Berlin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = "UTC", example = "Europe/Berlin")]
    pub schedule_timezone: Option<String>,
}

words! {
    /// How the folder of a backup tells its time to people. All in UTC.
    pub enum TimestampFormat: "form of a time" {
        /// `2006-01-02T15-04-05`.
        Iso = "ISO",
        /// `Jan-02-2006-15-04-05`.
        Us = "US",
        /// `02-Jan-2006-15-04-05`.
        Eu = "EU",
    }
}

/// What a [`ServiceConfig`] means, with all defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSettings {
    /// The HTTP server.
    pub http: HttpSettings,
    /// The log.
    pub logger: LoggerSettings,
    /// How the folders of backups tell the time to people; not at all if none.
    pub timestamp_format: Option<TimestampFormat>,
    /// The time zone of schedules.
    pub schedule_timezone: Zone,
    /// How long running jobs may go on when the service is told to end.
    pub shutdown_grace: Duration,
    /// The directory of what the service remembers over restarts, if one is named.
    pub state_dir: Option<PathBuf>,
    /// How long a claim on an unfinished backup, or on a routine, holds without being renewed.
    pub lease: Duration,
    /// For how long a restore may have been interrupted to be resumed.
    pub restore_resume_within: Duration,
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// The address to listen on.
    pub address: String,
    /// The port to listen on; 0 for any free one.
    pub port: u16,
    /// What stands before the path of each request: `/`, or `/a/b` without a slash at its end.
    pub context_path: String,
    /// How long a request may take to arrive.
    pub timeout: Duration,
    /// How many requests a client may send.
    pub rate: RateSettings,
    /// Secrets are shown in answers.
    pub show_secrets: bool,
}

/// How many requests a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateSettings {
    /// Per second.
    pub tps: NonZeroU32,
    /// At once.
    pub size: NonZeroU32,
    /// Networks without a limit.
    pub white_list: Vec<IpNet>,
}

impl Default for ServiceSettings {
    /// What a configuration without `service` means.
    fn default() -> Self {
        ServiceConfig::default().settings(&mut Check::new("", &mut Findings::default()))
    }
}

impl ServiceConfig {
    pub(crate) fn settings(&self, check: &mut Check<'_>) -> ServiceSettings {
        let http = self.http.clone().unwrap_or_default().settings(&mut check.inside("http"));
        let logger = self.logger.clone().unwrap_or_default().settings(&mut check.inside("logger"));
        let (timestamp_format, schedule_timezone) = {
            let backup = self.backup.clone().unwrap_or_default();
            let check = &mut check.inside("backup");
            let format = backup.timestamp_format.as_ref();
            (
                format.and_then(|word| check.valid("timestamp-format", word.parse())),
                check.zone("schedule-timezone", backup.schedule_timezone.as_deref()).unwrap_or(Zone::Utc),
            )
        };
        ServiceSettings {
            http,
            logger,
            timestamp_format,
            schedule_timezone,
            shutdown_grace: check.milliseconds(
                "shutdown-grace",
                self.shutdown_grace,
                30_000,
                0..=most::MILLISECONDS,
            ),
            state_dir: self.state_dir.as_ref().map(|path| {
                check.clean_path("state-dir", path);
                PathBuf::from(path)
            }),
            lease: check.milliseconds("lease", self.lease, 60_000, 1000..=most::MILLISECONDS),
            restore_resume_within: check.milliseconds(
                "restore-resume-within",
                self.restore_resume_within,
                900_000,
                0..=most::MILLISECONDS,
            ),
        }
    }
}

impl HttpServerConfig {
    fn settings(&self, check: &mut Check<'_>) -> HttpSettings {
        let address = self.address.clone().unwrap_or_else(|| "0.0.0.0".to_owned());
        check.filled("address", &address);
        let context_path = self.context_path.as_deref().unwrap_or("/");
        if !is_context_path(context_path) {
            let message = format!("must be / or a path such as /backup, not {context_path:?}");
            check.problem("context-path", message);
        }
        let context_path = match context_path.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        let timeout = check.milliseconds("timeout", self.timeout, 5000, 1..=most::MILLISECONDS);
        HttpSettings {
            address,
            port: check.number("port", self.port, 8080, 0..=i64::from(u16::MAX)),
            context_path: context_path.to_owned(),
            timeout,
            rate: self.rate.clone().unwrap_or_default().settings(&mut check.inside("rate")),
            show_secrets: self.show_secrets.unwrap_or(false),
        }
    }
}

/// `/`, or segments of plain characters, with or without a slash at the end.
fn is_context_path(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.chars().all(plain);
    let inside = path.strip_prefix('/').map(|path| path.strip_suffix('/').unwrap_or(path));
    inside.is_some_and(|inside| inside.is_empty() && path == "/" || inside.split('/').all(segment))
}

impl RateLimiterConfig {
    fn settings(&self, check: &mut Check<'_>) -> RateSettings {
        const DEFAULT: NonZeroU32 = NonZeroU32::MIN.saturating_add(1023);
        let networks = self.white_list.as_deref().unwrap_or_default().iter().enumerate();
        let white_list = networks.filter_map(|(i, text)| {
            let network =
                text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
            if network.is_none() {
                let message =
                    format!("must be an address or a network such as 10.0.0.1 or 10.0.0.0/8, not {text:?}");
                check.problem(&format!("white-list[{i}]"), message);
            }
            network
        });
        RateSettings {
            white_list: white_list.collect(),
            tps: check.count("tps", self.tps, DEFAULT, most::ANY),
            size: check.count("size", self.size, DEFAULT, most::ANY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LogFormat, LogLevel};

    fn settings(document: &str) -> Result<ServiceSettings, crate::Problems> {
        let service: ServiceConfig = crate::from_json(document.as_bytes())?;
        Check::document("service", |check| service.settings(check))
    }

    #[test]
    fn the_defaults_are_those_of_the_api() {
        let service = ServiceSettings::default();
        assert_eq!((service.http.address.as_str(), service.http.port), ("0.0.0.0", 8080));
        assert_eq!((service.http.context_path.as_str(), service.http.timeout), ("/", Duration::from_secs(5)));
        assert_eq!((service.http.rate.tps.get(), service.http.rate.size.get()), (1024, 1024));
        assert!(service.http.rate.white_list.is_empty() && !service.http.show_secrets);
        let stdout =
            LoggerSettings { level: LogLevel::Debug, format: LogFormat::Plain, stdout: true, file: None };
        assert_eq!(service.logger, stdout);
        assert_eq!((service.timestamp_format, service.schedule_timezone), (None, Zone::Utc));
        assert_eq!((service.shutdown_grace, service.state_dir), (Duration::from_secs(30), None));
        assert_eq!(service.lease, Duration::from_mins(1));
        assert_eq!(service.restore_resume_within, Duration::from_mins(15));
    }

    #[test]
    fn every_key_is_understood() {
        let document = r#"{"http":{"address":"::1","port":0,"context-path":"/a/b/","timeout":1,"show-secrets":true,
            "rate":{"tps":1,"size":2,"white-list":["10.0.0.1","10.0.0.0/8","::/0"]}},
            "logger":{"level":"warning","format":"json","stdout-writer":false,
            "file-writer":{"filename":"/l","maxsize":1,"maxage":2,"maxbackups":0,"compress":true}},
            "backup":{"timestamp-format":"EU","schedule-timezone":"Europe/Berlin"},"shutdown-grace":0,
            "state-dir":"/s","lease":2000,"restore-resume-within":1}"#;
        let service = settings(document).unwrap();
        assert_eq!(service.http.context_path, "/a/b");
        let networks: Vec<String> = service.http.rate.white_list.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.1/32", "10.0.0.0/8", "::/0"]);
        assert_eq!(service.logger.level, LogLevel::Warn);
        let file = service.logger.file.unwrap();
        assert_eq!(
            (file.max_size_mb.get(), file.max_age_days.map(NonZeroU32::get), file.max_backups),
            (1, Some(2), None)
        );
        assert_eq!(service.timestamp_format, Some(TimestampFormat::Eu));
        assert_eq!(service.schedule_timezone, "Europe/Berlin".parse().unwrap());
        assert_eq!((service.shutdown_grace, service.state_dir), (Duration::ZERO, Some("/s".into())));
        assert_eq!(service.lease, Duration::from_secs(2));
        assert_eq!(service.restore_resume_within, Duration::from_millis(1));
    }

    #[test]
    fn all_problems_are_reported_with_their_paths() {
        let document = r#"{"http":{"address":"","port":65536,"context-path":"a","timeout":0,
            "rate":{"tps":0,"size":-1,"white-list":["10.0.0.0/33"]}},
            "logger":{"level":"LOUD","format":"XML","file-writer":{"filename":"/l/","maxsize":0,"maxage":-1}},
            "backup":{"timestamp-format":"UK","schedule-timezone":"Mars"},"shutdown-grace":-1,
            "state-dir":"/s/","lease":999,"restore-resume-within":-1}"#;
        let problems = settings(document).unwrap_err();
        let lines: Vec<String> = problems.list().iter().map(ToString::to_string).collect();
        let expected = [
            "http.address: must not be empty",
            "http.context-path: must be / or a path such as /backup, not \"a\"",
            "http.timeout: must be at least 1, not 0",
            "http.port: must be at most 65535, not 65536",
            "http.rate.white-list[0]: must be an address or a network such as 10.0.0.1 or 10.0.0.0/8, not \"10.0.0.0/33\"",
            "http.rate.tps: must be at least 1, not 0",
            "http.rate.size: must be at least 1, not -1",
            "logger.level: \"LOUD\" is no log level: it can be TRACE, DEBUG, INFO, WARN, WARNING or ERROR",
            "logger.format: \"XML\" is no log format: it can be PLAIN or JSON",
            "logger.file-writer.filename: must be a clean path without .., ., // or a / at its end, not \"/l/\"",
            "logger.file-writer.maxsize: must be at least 1, not 0",
            "logger.file-writer.maxage: must be at least 0, not -1",
            "backup.timestamp-format: \"UK\" is no form of a time: it can be ISO, US or EU",
        ];
        assert_eq!(lines[..expected.len()], expected.map(|line| format!("service.{line}")));
        assert!(lines[13].starts_with("service.backup.schedule-timezone: \"Mars\""), "{lines:?}");
        assert_eq!(lines[14], "service.shutdown-grace: must be at least 0, not -1");
        assert!(lines[15].starts_with("service.state-dir: must be a clean path"), "{lines:?}");
        assert_eq!(lines[16], "service.lease: must be at least 1000, not 999");
        assert_eq!(lines[17], "service.restore-resume-within: must be at least 0, not -1");
    }

    #[test]
    fn a_context_path_is_plain() {
        for good in ["/", "/a", "/a/", "/a.b/c-d_e~f"] {
            assert!(is_context_path(good), "{good}");
        }
        for bad in ["", "a", "//", "/a//b", "/a b", "/a?b", "/..", "/a/./b", "/{x}", "/a//"] {
            assert!(!is_context_path(bad), "{bad}");
        }
    }
}
