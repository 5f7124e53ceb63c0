//! The service, as a process with an API.

mod api;
mod clouds;
mod configuration;
mod demo;
mod leaks;
pub mod place;
mod process;
mod routines;
mod schemathesis;
pub mod support;
