//! `abs config`

use clap::{Args, Subcommand};

use super::Failure;
use super::view::{complain, count, say};
use crate::service::run::Loaded;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say all that is wrong with a configuration, one line each. Exit code 0 when nothing is (there may be warnings), 1
    /// when something is, 2 when it cannot be read.
    Check(Check),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
}

#[derive(Debug, Args)]
struct Check {
    /// The configuration: a file, or an http(s) address.
    #[arg(value_name = "FILE|URL")]
    config: String,
    /// The file names a storage (`local-storage:` with the path of the configuration in it) instead.
    #[arg(short, long)]
    remote: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Command::Check(Check { config, remote }) => check(&config, remote).await,
        Command::Schema => say(&format!("{:#}", abs_config::json_schema())),
    }
}

async fn check(config: &str, remote: bool) -> Result<(), Failure> {
    let loaded = Loaded::read(config, remote).await.map_err(|e| Failure::source(e, 1))?;
    let settings = loaded.settings();
    let parts = [
        (settings.routines.len(), "routine"),
        (settings.clusters.len(), "cluster"),
        (settings.storage.len(), "storage"),
    ];
    for warning in &settings.warnings {
        complain(&format!("abs: warning: {}: {warning}", loaded.origin()));
    }
    let [routines, clusters, storage] = parts.map(|(number, thing)| count(number as u64, thing));
    say(&format!("{}: good: {routines}, {clusters}, {storage}", loaded.origin()))
}
