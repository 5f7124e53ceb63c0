//! `abs devserver`

use std::net::SocketAddr;

use abs_devserver::DevServer;
use clap::Args;

use super::Failure;
use super::options::{cancel_on_signal, parse_memory};
use super::view::say;

/// Memory of a namespace when none is said.
const MEMORY: u64 = 1 << 30;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where the first node listens; the others take the ports after it.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:3000", value_parser = parse_listen)]
    listen: SocketAddr,
    /// A namespace and its memory (1G when not said); may be given several times.
    #[arg(long, value_name = "NAME[:MEMORY]", default_value = "test", value_parser = parse_namespace)]
    namespace: Vec<(String, u64)>,
    /// How many nodes, each on its own port.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    nodes: u16,
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an address and a port, for example 127.0.0.1:3000".to_owned())
}

fn parse_namespace(text: &str) -> Result<(String, u64), String> {
    let (name, memory) = match text.split_once(':') {
        Some((name, memory)) => (name, parse_memory(memory)?),
        None => (text, MEMORY),
    };
    let name: abs_config::Namespace = name.parse().map_err(|e: abs_config::InvalidValue| e.to_string())?;
    Ok((name.as_str().to_owned(), memory))
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let cancel = cancel_on_signal()?;
    let mut builder = DevServer::builder().listen(arguments.listen).nodes(usize::from(arguments.nodes));
    for (name, memory) in arguments.namespace {
        builder = builder.namespace(name, memory);
    }
    let server = builder.start().await.map_err(Failure::job)?;
    for (node, address) in server.addresses().iter().enumerate() {
        say(&format!("node {node} listens on {address}"))?;
    }
    say("development server: in memory only, no users, no durability; Ctrl-C ends it")?;
    cancel.cancelled().await;
    server.shutdown().await;
    Ok(())
}
