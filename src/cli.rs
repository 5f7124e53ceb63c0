//! The command line. Exit codes: 0 done, 1 the job failed or was canceled, 2 the command cannot be carried out as given.

mod backup;
mod config;
mod connect;
mod demo;
mod devserver;
mod health;
mod inspect;
mod job;
mod options;
mod place;
mod resources;
mod restore;
mod serve;
mod state_file;
mod verify;
mod view;

use std::process::ExitCode;

use abs_engine::EngineError;
use clap::{Parser, Subcommand};

use crate::service::signals::Signals;
use crate::service::source::SourceError;

/// Backup and restore for Aerospike clusters.
#[derive(Debug, Parser)]
#[command(name = "abs", version, disable_help_flag = true, max_term_width = 110)]
#[command(after_help = "Exit codes: 0 done, 1 the job failed or was canceled, 2 bad usage.\n\
                        The short -h is the host of a cluster: help is --help.")]
struct Arguments {
    /// Print help (-h is the host).
    #[arg(long, action = clap::ArgAction::Help, global = true)]
    help: Option<bool>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Back up a namespace to a folder.
    Backup(backup::Arguments),
    /// Restore the .asb files of a folder into a namespace.
    Restore(restore::Arguments),
    /// Read .asb files without a cluster and say what they hold and what is wrong with them.
    Inspect(inspect::Arguments),
    /// Verify backups without a cluster: are they whole, and as they were written?
    Verify(verify::Arguments),
    /// Run an in-memory Aerospike server for development and tests. It keeps nothing when it ends.
    Devserver(devserver::Arguments),
    /// Run the service: backups by schedule, and the REST API.
    Serve(serve::Arguments),
    /// Check a configuration of the service.
    Config(config::Arguments),
    /// Ask a service whether it is alive, as a container's health check does.
    Health(health::Arguments),
    /// Run the service beside an embedded server with sample data, to try it out.
    Demo(demo::Arguments),
}

/// Why a command ended without success.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The command cannot be carried out as given; exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The job failed; exit code 1.
    #[error("{0}")]
    Job(String),
    /// A configuration is wrong: its problems, and the exit code.
    #[error("{}", .0.join("; "))]
    Problems(Vec<String>, u8),
}

impl Failure {
    fn usage(e: impl std::fmt::Display) -> Self {
        Self::Usage(e.to_string())
    }

    fn job(e: impl std::fmt::Display) -> Self {
        Self::Job(e.to_string())
    }

    /// That there is no configuration; `invalid` is the exit code when there is one that is wrong.
    fn source(e: SourceError, invalid: u8) -> Self {
        match e {
            SourceError::Unreadable(line) => Self::Usage(line),
            SourceError::Invalid(lines) => Self::Problems(lines, invalid),
        }
    }
}

/// Ends a command line that is not one: help and version as clap prints them, anything else as one line.
fn refuse(e: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    match e.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // Nothing can be said when the terminal is gone.
            let _ = e.print();
        }
        _ => view::complain(&format!("abs: {}", view::shown(&one_line(&e.to_string())))),
    }
    ExitCode::from(if e.use_stderr() { 2 } else { 0 })
}

/// The message of one of clap's errors: without its title, without the usage behind it, its lists and tips in a row.
fn one_line(text: &str) -> String {
    let (message, usage) =
        text.split_once("\nUsage:").map_or((text, ""), |(message, usage)| (message, usage));
    let message = message.split("\nFor more information").next().unwrap_or_default();
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = lines.join(" ").replace(" tip: ", "; ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    if usage.is_empty() { line.to_owned() } else { format!("{line}; --help tells more") }
}

/// Carries out a command that leaves nothing when it is stopped.
async fn or_stop(
    mut signals: Signals,
    command: impl Future<Output = Result<(), Failure>>,
    canceled: Failure,
) -> Result<(), Failure> {
    tokio::select! {
        biased;
        () = signals.stop() => Err(canceled),
        result = command => result,
    }
}

/// Parses the command line and carries it out.
pub fn run() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    // First of all: until then a signal ends the process, whatever it has begun.
    let started = runtime.and_then(|runtime| {
        let signals = runtime.block_on(async { Signals::listen() })?;
        Ok((runtime, signals))
    });
    let (runtime, signals) = match started {
        Ok(started) => started,
        Err(e) => {
            view::complain(&format!("abs: cannot start: {e}"));
            return ExitCode::from(1);
        }
    };
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => return refuse(&e),
    };
    let canceled = Failure::job(EngineError::Canceled);
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Backup(arguments) => backup::run(arguments, signals).await,
            Command::Restore(arguments) => restore::run(arguments, signals).await,
            Command::Inspect(arguments) => or_stop(signals, inspect::run(arguments), canceled).await,
            // It is not known whether the backups are damaged.
            Command::Verify(arguments) => {
                or_stop(signals, verify::run(arguments), Failure::usage(EngineError::Canceled)).await
            }
            Command::Devserver(arguments) => devserver::run(arguments, signals).await,
            Command::Serve(arguments) => serve::run(arguments, signals).await,
            Command::Config(arguments) => or_stop(signals, config::run(arguments), canceled).await,
            Command::Health(arguments) => or_stop(signals, health::run(arguments), canceled).await,
            Command::Demo(arguments) => demo::run(arguments, signals).await,
        }
    });
    // Blocking writes of a canceled job may still be under way; they have nothing to add.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (lines, code) = match failure {
                Failure::Job(line) => (vec![line], 1),
                Failure::Usage(line) => (vec![line], 2),
                Failure::Problems(lines, code) => (lines, code),
            };
            for line in lines {
                view::complain(&format!("abs: {}", view::shown(&line)));
            }
            ExitCode::from(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> String {
        one_line(&Arguments::try_parse_from(line.split(' ')).unwrap_err().to_string())
    }

    #[test]
    fn usage_errors_are_one_line() {
        for (line, message) in [
            ("abs -h", "unexpected argument '-h' found; --help tells more"),
            (
                "abs backup -h a",
                "the following required arguments were not provided: --namespace <NAMESPACE> --directory <DIR>; \
                 --help tells more",
            ),
            (
                "abs backup -h a -n b -d c --bin-lst x",
                "unexpected argument '--bin-lst' found; a similar argument exists: '--bin-list'; --help tells more",
            ),
            (
                "abs backup -h a -n b -d c --compress gzip",
                "invalid value 'gzip' for '--compress <none|zstd[:LEVEL]>': \"gzip\" is no compression: write none, \
                 zstd or zstd:LEVEL (-1 to 22)",
            ),
        ] {
            assert_eq!(refused(line), message);
        }
    }
}
