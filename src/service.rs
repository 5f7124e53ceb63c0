//! The service as a process.
//!
//! | module | what it holds |
//! |---|---|
//! | [`run`] | from its start to its end: what is started, what a reload changes, how it stops |
//! | [`source`] | where the configuration is kept: a file, an address, a storage |
//! | [`exclusive`] | one service at a time on the same configuration and the same backups |
//! | [`state_dir`] | where what it remembers over restarts is |
//! | [`client`] | the HTTP client |
//! | [`signals`] | SIGTERM, SIGINT, SIGHUP |
//! | [`notify`] | what systemd hears |
//! | [`logging`] | the log |
//! | [`panics`] | panics in the log |

pub mod client;
pub mod exclusive;
pub mod logging;
pub mod notify;
pub mod panics;
pub mod run;
pub mod signals;
pub mod source;
pub mod state_dir;
