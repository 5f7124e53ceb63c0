//! The service, as a process with an API.

mod api;
mod configuration;
mod demo;
mod leaks;
mod process;
mod routines;
mod schemathesis;
pub mod support;
