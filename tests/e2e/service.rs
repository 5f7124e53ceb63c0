//! The service, as a process with an API.

mod api;
mod configuration;
mod demo;
mod process;
pub mod support;
