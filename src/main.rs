//! `abs`: backup and restore for Aerospike clusters.

mod build_info;
mod cli;
mod http;
mod service;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
