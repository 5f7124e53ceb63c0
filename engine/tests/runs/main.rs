//! Runs against the development server, handed out as an actor does: one owner of the books, workers that may panic.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod backup;
mod estimates;
mod incremental;
mod limits;
mod panics;
mod restore;
mod support;
