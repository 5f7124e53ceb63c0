//! The log of the service: to the standard output and to a file, through slog.
//!
//! | module | what it holds |
//! |---|---|
//! | [`line`] | a record as a line, for people or as JSON |
//! | [`output`] | where lines go, and what is said when they cannot |
//! | [`rotating_file`] | a file that begins anew when it is full, and its old ones |

mod line;
mod output;
mod rotating_file;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use abs_config::{LogLevel, LoggerSettings};
use abs_storage::s3::log::{is_of_sdk, tells_of_credentials};
use slog::{BorrowedKV, Drain, Level, Logger, Never, OwnedKVList, Record, RecordStatic, SingleKV, o};
use slog_async::{Async, AsyncGuard, OverflowStrategy};

use output::Output;

/// How many lines may wait to be written. Lines beyond that are counted and dropped, so that nobody waits for a disk.
const WAITING_LINES: usize = 16_384;
/// How long the last lines may take to be written when the log ends.
const LAST_LINES: Duration = Duration::from_secs(5);

/// What cannot be done with the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be made or opened.
    #[error("cannot open the log file {}: {source}: name a file in a folder that can be written to", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Lines are lost.
    #[error("cannot write the log to {to}: {source}: lines are lost until it can be written again")]
    Write {
        /// The standard output or the file.
        to: String,
        /// Why.
        source: io::Error,
    },
    /// A full file goes on growing.
    #[error("cannot begin the log file {} anew: {source}: it goes on growing", path.display())]
    Rotate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Old files stay as they are.
    #[error("cannot delete or compress the old log files of {}: {source}", path.display())]
    Tidy {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The running log. When it is dropped, the lines that wait are written; later ones are lost.
pub struct Logging {
    logger: Logger,
    control: LogControl,
    guard: Option<AsyncGuard>,
}

/// Changes the settings of a running log.
#[derive(Clone)]
pub struct LogControl {
    level: Arc<AtomicUsize>,
    output: Arc<Mutex<Output>>,
    /// Whether the log takes the records of libraries.
    libraries: Arc<AtomicBool>,
}

/// Settings of the log whose file is open. Dropping them changes nothing.
pub struct PreparedLog {
    control: LogControl,
    level: usize,
    output: Output,
}

impl Logging {
    /// Opens the log and starts the thread that writes it.
    ///
    /// # Errors
    /// [`LogError::Open`].
    pub fn start(settings: &LoggerSettings) -> Result<Self, LogError> {
        let output = Arc::new(Mutex::new(Output::open(settings)?));
        let level = Arc::new(AtomicUsize::new(slog_level(settings.level).as_usize()));
        let (drain, guard) = Async::new(Writer(Arc::clone(&output)))
            .chan_size(WAITING_LINES)
            .overflow_strategy(OverflowStrategy::DropAndReport)
            .thread_name("log".to_owned())
            .build_with_guard();
        let logger = Logger::root(Front { level: Arc::clone(&level), drain: drain.ignore_res() }, o!());
        let control = LogControl { level, output, libraries: Arc::default() };
        Ok(Self { logger, control, guard: Some(guard) })
    }

    /// What to log with. It never waits, and takes changes of the settings.
    pub fn logger(&self) -> &Logger {
        &self.logger
    }

    /// Takes the records of libraries that log with the `log` crate, too. For the one log of a process.
    pub fn take_library_records(&self) {
        slog_scope::set_global_logger(self.logger.clone()).cancel_reset();
        // It fails only when the log crate has a logger already; then that one is ours.
        let _ = slog_stdlog::init();
        self.control.libraries.store(true, Ordering::Relaxed);
        log::set_max_level(libraries_level(self.control.level.load(Ordering::Relaxed)));
    }

    /// Changes its settings.
    pub fn control(&self) -> &LogControl {
        &self.control
    }
}

impl LogControl {
    /// Opens the log file of these settings, also when it is open already: it may have been moved away. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// [`LogError::Open`].
    pub fn prepare(&self, settings: &LoggerSettings) -> Result<PreparedLog, LogError> {
        let output = Output::open(settings)?;
        Ok(PreparedLog { control: self.clone(), level: slog_level(settings.level).as_usize(), output })
    }
}

impl PreparedLog {
    /// Continues the log with these settings. It may wait for the line that is being written.
    pub fn commit(self) {
        let Self { control, level, output } = self;
        *control.output.lock().unwrap_or_else(PoisonError::into_inner) = output;
        control.level.store(level, Ordering::Relaxed);
        if control.libraries.load(Ordering::Relaxed) {
            log::set_max_level(libraries_level(level));
        }
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        // The guard waits for the lines to be written, and a reader of the standard output that sleeps would hold
        // up the end of the process for ever.
        let (written, wait) = mpsc::channel();
        let guard = self.guard.take();
        let writing = std::thread::Builder::new().spawn(move || {
            drop(guard);
            // Nobody may be waiting any more.
            let _ = written.send(());
        });
        if writing.is_ok() {
            let _ = wait.recv_timeout(LAST_LINES);
        }
    }
}

fn slog_level(level: LogLevel) -> Level {
    match level {
        LogLevel::Trace => Level::Trace,
        LogLevel::Debug => Level::Debug,
        LogLevel::Info => Level::Info,
        LogLevel::Warn | LogLevel::Warning => Level::Warning,
        LogLevel::Error => Level::Error,
    }
}

/// What of the libraries is logged at a level of slog, given as its number: a step less than of our own, because they tell of
/// their works and not of the user's. At the lowest, all.
fn library_level(level: usize) -> log::LevelFilter {
    match Level::from_usize(level) {
        Some(Level::Trace) => log::LevelFilter::Trace,
        Some(Level::Debug) => log::LevelFilter::Info,
        Some(Level::Info | Level::Warning) => log::LevelFilter::Warn,
        _ => log::LevelFilter::Error,
    }
}

/// What the most talkative of the libraries may log: storages may want more of the SDK of S3.
fn libraries_level(level: usize) -> log::LevelFilter {
    library_level(level).max(abs_storage::s3::log::level())
}

/// The lowest level, as slog's number, at which records of `target` are logged; our own have none. The SDK of S3 has a level in
/// the configuration of its storage.
fn lowest(target: &str, level: usize) -> usize {
    let libraries = match target {
        "" => return level,
        target if is_of_sdk(target) && tells_of_credentials(target) => log::LevelFilter::Off,
        target if is_of_sdk(target) => abs_storage::s3::log::level(),
        _ => library_level(level),
    };
    // Slog's numbers have one level more, at the top.
    (libraries as usize + 1).min(level)
}

/// What a record meets first, on the thread that logs: it is dropped if its level is too low, and gets its time.
struct Front<D> {
    level: Arc<AtomicUsize>,
    drain: D,
}

impl<D: Drain<Ok = (), Err = Never>> Drain for Front<D> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if record.level().as_usize() > lowest(record.tag(), self.level.load(Ordering::Relaxed)) {
            return Ok(());
        }
        let time = SingleKV::from((line::TIME, line::now()));
        let timed = (time, record.kv());
        let fixed = RecordStatic { location: record.location(), tag: record.tag(), level: record.level() };
        self.drain.log(&Record::new(&fixed, record.msg(), BorrowedKV(&timed)), values)
    }
}

/// Where the thread of the log writes.
struct Writer(Arc<Mutex<Output>>);

impl Drain for Writer {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(record, values);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
