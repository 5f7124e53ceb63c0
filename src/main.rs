//! `abs`: backup and restore for Aerospike clusters.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
