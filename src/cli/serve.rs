//! `abs serve`

use clap::Args;

use super::Failure;
use crate::service::run::{Loaded, Running};
use crate::service::signals::Signals;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    place: Place,
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The configuration: a file, or an http(s) address. Variables such as `ABS__SERVICE__HTTP__PORT=8081` change what
    /// it says.
    #[arg(short, long, value_name = "FILE|URL")]
    config: String,
    /// The file names a storage (`local-storage:` with the path of the configuration in it) instead.
    #[arg(short, long)]
    remote: bool,
}

pub(super) async fn run(arguments: Arguments, mut signals: Signals) -> Result<(), Failure> {
    signals.listen_to_reloads().map_err(Failure::job)?;
    let Place { config, remote } = arguments.place;
    // An address may take its time to answer.
    let loaded = tokio::select! {
        biased;
        () = signals.stop() => return Ok(()),
        loaded = Loaded::read(&config, remote) => loaded.map_err(|e| Failure::source(e, 2))?,
    };
    let running = Running::start(loaded).await.map_err(Failure::usage)?;
    running.run(&mut signals).await.map_err(Failure::job)
}
