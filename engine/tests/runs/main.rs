//! Runs against the development server, handed out as an actor does: one owner of the books, workers that may panic.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod backup;
mod checkpoints;
mod damage;
mod estimates;
mod hang;
mod incremental;
mod limits;
mod panics;
mod restarts;
mod restore;
mod resume;
mod support;
mod verify;
