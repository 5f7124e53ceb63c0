//! Serves the development server until Ctrl-C.

use std::net::SocketAddr;

use abs_devserver::DevServer;
use clap::Parser;

/// An in-memory Aerospike development server: no durability, no users, no replication.
#[derive(Parser)]
struct Arguments {
    /// Where the first node listens; the others take the ports after it.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// How many nodes.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// A namespace and its limit in MiB (1024 when not said); may be given several times.
    #[arg(long = "namespace", value_name = "NAME[:MIB]", default_values = ["source-ns1", "source-ns2"])]
    namespaces: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let mut builder = DevServer::builder().listen(arguments.listen).nodes(arguments.nodes);
    for namespace in &arguments.namespaces {
        let (name, mib) = namespace.split_once(':').unwrap_or((namespace, "1024"));
        builder = builder.namespace(name, mib.parse::<u64>()? << 20);
    }
    let server = builder.start().await?;
    for (node, address) in server.addresses().iter().enumerate() {
        println!("node {node} listens on {address}");
    }
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}
