//! The server as the official Rust client sees it, and, where the client hides things, as the bytes on the
//! wire show it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod admin;
mod batches;
mod collections;
mod expiry;
mod faults;
mod limits;
mod nodes;
mod policies;
mod queries;
mod raw;
mod records;
mod security;
mod support;
