//! The actors together, on an embedded server.

mod clocks;
mod configuration;
mod failures;
mod jobs;
mod runs;
mod schedules;
