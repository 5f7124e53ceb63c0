//! `abs devserver`

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use abs_devserver::DevServer;
use clap::Args;

use super::Failure;
use super::options::{cancel_on, parse_memory};
use super::view::say;
use crate::service::signals::Signals;

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
    /// The rack of each node, separated by commas.
    #[arg(long, value_name = "RACKS", value_delimiter = ',')]
    racks: Vec<u32>,
    /// A user, who must log in with this password; may be given several times. Without any user nobody needs to.
    #[arg(long, value_name = "NAME:PASSWORD", value_parser = parse_user)]
    user: Vec<(String, String)>,
    /// A user who logs in with a certificate of this common name.
    #[arg(long, value_name = "NAME", requires = "tls_client_cafile")]
    certified_user: Vec<String>,
    /// Speak TLS; the name that clients find in the certificate.
    #[arg(long, value_name = "NAME", requires_all = ["tls_certfile", "tls_keyfile"])]
    tls_name: Option<String>,
    /// The certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_name")]
    tls_certfile: Option<PathBuf>,
    /// Its key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_name")]
    tls_keyfile: Option<PathBuf>,
    /// Authorities, in PEM, of which clients must have a certificate.
    #[arg(long, value_name = "FILE", requires = "tls_name")]
    tls_client_cafile: Option<PathBuf>,
}

fn parse_user(text: &str) -> Result<(String, String), String> {
    let (name, password) = text.split_once(':').ok_or("write NAME:PASSWORD")?;
    Ok((name.to_owned(), password.to_owned()))
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|e| Failure::Usage(format!("cannot read {}: {e}", file.display())))
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

pub(super) async fn run(arguments: Arguments, signals: Signals) -> Result<(), Failure> {
    let cancel = cancel_on(signals);
    let mut builder =
        DevServer::builder().listen(arguments.listen).nodes(usize::from(arguments.nodes)).volatile();
    for (name, memory) in arguments.namespace {
        builder = builder.namespace(name, memory);
    }
    if !arguments.racks.is_empty() {
        builder = builder.racks(arguments.racks);
    }
    for (name, password) in arguments.user {
        builder = builder.user(name, password);
    }
    for name in arguments.certified_user {
        builder = builder.certified_user(name);
    }
    if let (Some(name), Some(certificate), Some(key)) =
        (arguments.tls_name, arguments.tls_certfile, arguments.tls_keyfile)
    {
        let (certificate, key) = (read(&certificate)?, read(&key)?);
        builder = match arguments.tls_client_cafile {
            Some(authorities) => builder.mutual_tls(name, certificate, key, read(&authorities)?),
            None => builder.tls(name, certificate, key),
        };
    }
    let server = builder.start().await.map_err(Failure::job)?;
    for (node, address) in server.addresses().iter().enumerate() {
        say(&format!("node {node} listens on {address}"))?;
    }
    say("development server: in memory only, no durability; Ctrl-C ends it")?;
    cancel.cancelled().await;
    server.shutdown().await;
    Ok(())
}
