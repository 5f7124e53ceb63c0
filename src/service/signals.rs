//! What the system tells the service.

use std::future::pending;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// To stop, by this signal.
    Stop(&'static str),
    /// To read the configuration again.
    Reload,
}

/// The signals that are listened to.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Unless it is that of any process, which may be told to ignore it.
    hangup: Option<Signal>,
}

impl Signals {
    /// From now on, signals to stop are heard here and do not end the process. To be called inside a runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: None,
        })
    }

    /// From now on, signals to reload are heard here, too.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen_to_reloads(&mut self) -> io::Result<()> {
        self.hangup = Some(signal(SignalKind::hangup())?);
        Ok(())
    }

    /// Waits for the next.
    pub async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Told::Stop("SIGINT"),
            () = hung_up(self.hangup.as_mut()) => Told::Reload,
        }
    }

    /// Waits until it is told to stop.
    pub async fn stop(&mut self) {
        while self.next().await == Told::Reload {}
    }
}

async fn hung_up(hangup: Option<&mut Signal>) {
    match hangup {
        Some(hangup) => {
            hangup.recv().await;
        }
        None => pending().await,
    }
}
