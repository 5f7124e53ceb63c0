//! The actors together, on an embedded server.

mod clocks;
mod configuration;
mod failures;
mod holding;
mod jobs;
mod restores;
mod runs;
mod schedules;
mod verifications;
