//! The actors together, on an embedded server.

mod configuration;
mod failures;
mod jobs;
mod runs;
mod schedules;
