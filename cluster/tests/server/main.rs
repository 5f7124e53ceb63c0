//! Logins, TLS, racks and configuration, over real sockets to the development server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod clock;
mod configuration;
mod logins;
mod racks;
mod silence;
mod support;
mod tls;
