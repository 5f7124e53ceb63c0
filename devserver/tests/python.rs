//! The official Python client (the C client underneath) against one node and against three.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::Path;

use abs_devserver::DevServer;

/// Runs `check.py`; most of its time the client waits for indexes of its own accord.
fn check(address: SocketAddr) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var("ABS_TEST_PYTHON")
        .unwrap_or_else(|_| here.join("../.venv/bin/python").to_string_lossy().into_owned());
    let output = std::process::Command::new(&python)
        .arg(here.join("tests/python/check.py"))
        .args([address.ip().to_string(), address.port().to_string(), "test".into()])
        .arg(here.join("../tests/golden/load.py"))
        .output()
        .unwrap_or_else(|e| panic!("{python}: {e}; scripts/test sets up the Python client"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_golden_data_loads_and_reads_back() {
    let mut checks = tokio::task::JoinSet::new();
    for nodes in [1, 3] {
        checks.spawn(async move {
            let server =
                DevServer::builder().nodes(nodes).namespace("test", 256 << 20).start().await.unwrap();
            let address = server.addresses()[0];
            tokio::task::spawn_blocking(move || check(address)).await.unwrap();
            server.shutdown().await;
        });
    }
    checks.join_all().await;
}
