//! A service from its start to its end.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use abs_actors::{Configuration, Journal, ReloadConfig, Service, Shutdown, SupervisorActor, SystemClock};
use abs_config::{ServiceSettings, Settings, Warning};
use abs_engine::Owner;
use actix::Addr;
use chrono::Utc;
use slog::{Logger, error, info, warn};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::exclusive::Exclusive;
use super::logging::{LogError, Logging};
use super::notify::notify;
use super::panics;
use super::signals::{Signals, Told};
use super::source::{Source, SourceError, delete_unfinished};
use super::state_dir::StateDir;
use crate::build_info::BuildInfo;
use crate::http::{self, Http};

/// How the names of environment variables begin that change the configuration.
const PREFIX: &str = "ABS__";

/// Why a service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another service works on the same.
    #[error("{0}")]
    Claimed(String),
    /// The system refuses what every program gets.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// Nothing can be served.
    #[error("cannot listen on {address}:{port}: {source}: set service.http.address and service.http.port")]
    Listen {
        /// The address asked for.
        address: String,
        /// The port asked for.
        port: u16,
        /// Why not.
        source: io::Error,
    },
}

/// A configuration that was read and checked, and what belongs to it.
#[derive(Debug)]
pub struct Loaded {
    source: Source,
    configuration: Configuration,
}

impl Loaded {
    /// Reads the configuration that [`Source::open`] finds, with the environment's changes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn read(location: &str, remote: bool) -> Result<Self, SourceError> {
        let source = Source::open(location, remote).await?;
        let text = source.access.read().await.map_err(SourceError::Unreadable)?;
        let configuration = Configuration::load(&text, &environment())
            .map_err(|problems| SourceError::invalid(&source.access.describe(), &problems))?;
        Ok(Self { source, configuration })
    }

    /// Where it was read, as [`abs_actors::ConfigSource::describe`] says it.
    pub fn origin(&self) -> String {
        self.source.access.describe()
    }

    /// What it means.
    pub fn settings(&self) -> &Settings {
        self.configuration.settings()
    }
}

/// The variables of the environment that change the configuration.
fn environment() -> BTreeMap<String, String> {
    let ours = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let name = name.into_string().ok().filter(|name| name.starts_with(PREFIX))?;
        Some((name, value.to_string_lossy().into_owned()))
    };
    std::env::vars_os().filter_map(ours).collect()
}

/// A service that runs.
pub struct Running {
    supervisor: Addr<SupervisorActor>,
    http: Http,
    logging: Logging,
    log: Logger,
    settings: watch::Receiver<Arc<Settings>>,
    /// Locked until the service has stopped.
    _state: Option<StateDir>,
}

impl Running {
    /// Starts the service: its log, its claims, its actors, its API; to be called inside a runtime.
    ///
    /// # Errors
    /// Why not; nothing is left running.
    pub async fn start(loaded: Loaded) -> Result<Self, StartError> {
        let Loaded { source, configuration } = loaded;
        let service = configuration.settings().service.clone();
        let logging = Logging::start(&service.logger)?;
        let log = logging.logger().clone();
        let origin = source.access.describe();
        let file = source.file.clone();
        let source = Exclusive::claim(source, &configuration, logging.control().clone(), log.clone());
        let source = Arc::new(source.map_err(StartError::Claimed)?);
        if let Some(Err(e)) = file.as_deref().map(delete_unfinished) {
            warn!(log, "{}", e);
        }
        logging.take_library_records();
        panics::log_all(log.clone());
        let build = BuildInfo::CURRENT;
        info!(log, "starting"; "version" => build.version, "commit" => build.commit, "configuration" => origin);
        let state = StateDir::open(service.state_dir.as_deref(), file.as_deref(), &log);
        let settings = source.settings();
        warn_of(&log, &[], &settings.borrow().warnings);
        let owner = Owner::new(state.as_ref().and_then(|state| state.owner_id(&log)), service.lease);
        let actors = Service { configuration, source, owner };
        let journal = state.as_ref().and_then(|state| {
            let folder = state.file("restores");
            let journal = Journal::open(folder, service.restore_resume_within, Utc::now(), log.clone());
            journal.map_err(|e| warn!(log, "restores are not kept for the next start"; "error" => %e)).ok()
        });
        let clock = Arc::new(SystemClock);
        let supervisor = abs_actors::serve(Handle::current(), clock, log.clone(), actors, journal)?;
        let http = match http::serve(supervisor.clone(), &service.http, log.clone(), build) {
            Ok(http) => http,
            Err(source) => {
                // Runs may have begun; they shall leave nothing behind.
                let _ = supervisor.send(Shutdown { grace: Duration::ZERO }).await;
                let (address, port) = (service.http.address, service.http.port);
                return Err(StartError::Listen { address, port, source });
            }
        };
        for address in http.addresses() {
            info!(log, "listening"; "address" => %address);
        }
        notify("READY=1");
        Ok(Self { supervisor, http, logging, log, settings, _state: state })
    }

    /// Whom to ask.
    pub fn supervisor(&self) -> &Addr<SupervisorActor> {
        &self.supervisor
    }

    /// Where the API is.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.http.addresses()
    }

    /// Serves until it is told to stop, and stops. A second word to stop ends the process at once.
    ///
    /// # Errors
    /// When the supervisor fell, a defect of this program: whoever started the process should start it again.
    pub async fn run(mut self, signals: &mut Signals) -> Result<(), &'static str> {
        let mut applied = Arc::clone(&self.settings.borrow_and_update());
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Stop(signal) => {
                        info!(self.log, "told to stop"; "signal" => signal);
                        break;
                    }
                    Told::Reload => self.reload(&applied.service),
                },
                changed = self.settings.changed() => {
                    // The supervisor holds the sender as long as it lives.
                    if changed.is_err() {
                        let what = "the supervisor failed: a defect of this program";
                        error!(self.log, "{}", what);
                        self.stop(Duration::ZERO).await;
                        return Err(what);
                    }
                    let now = Arc::clone(&self.settings.borrow_and_update());
                    warn_of(&self.log, &applied.warnings, &now.warnings);
                    let service = (&applied.service, &now.service);
                    for (key, changed) in [
                        ("http", service.0.http != service.1.http),
                        ("state-dir", service.0.state_dir != service.1.state_dir),
                        ("lease", service.0.lease != service.1.lease),
                    ] {
                        if changed {
                            warn!(self.log, "service.{} has changed: that takes effect when the service is started again", key);
                        }
                    }
                    applied = now;
                }
            }
        }
        tokio::select! {
            () = self.stop(applied.service.shutdown_grace) => {}
            () = signals.stop() => std::process::exit(1),
        }
        Ok(())
    }

    /// Takes no more work, gives what runs its grace, then cancels it; ends when all has ended.
    pub async fn stop(self, grace: Duration) {
        notify("STOPPING=1");
        // An actor that is gone has nothing left to stop.
        let _ = self.supervisor.send(Shutdown { grace }).await;
        if let Err(e) = self.http.stop().await {
            warn!(self.log, "the API did not end well"; "error" => %e);
        }
        info!(self.log, "stopped");
    }

    /// Reads the configuration again, and opens the file of the log again, which may have been moved away.
    fn reload(&self, applied: &ServiceSettings) {
        info!(self.log, "told to reload");
        match tokio::task::block_in_place(|| self.logging.control().prepare(&applied.logger)) {
            Ok(log) => log.commit(),
            Err(e) => error!(self.log, "the log file is not opened again"; "error" => %e),
        }
        let (supervisor, log) = (self.supervisor.clone(), self.log.clone());
        tokio::spawn(async move {
            let refusal = match supervisor.send(ReloadConfig).await {
                Ok(Ok(())) => return,
                Ok(Err(e)) => e.to_string(),
                Err(e) => e.to_string(),
            };
            error!(log, "the configuration cannot be loaded again: nothing changes"; "error" => refusal);
        });
    }
}

/// Logs the warnings about the configuration that are new.
fn warn_of(log: &Logger, known: &[Warning], warnings: &[Warning]) {
    for warning in warnings.iter().filter(|warning| !known.contains(warning)) {
        warn!(log, "configuration: {}", warning);
    }
}
