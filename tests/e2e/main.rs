//! End-to-end tests: through the binary, over real sockets, to real files.
//!
//! They start the embedded development server, or use the one that `ABS_TEST_AEROSPIKE=HOST:PORT` names: then the
//! namespace `ABS_TEST_NAMESPACE` (else the last one that server has) is WIPED by the tests. Tests that need to hurt the
//! server always use the embedded one.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of it is tests")]

mod cli;
mod faults;
mod golden;
mod options;
mod raw;
mod service;
mod support;
