//! One service at a time: what two of them would spoil for each other is claimed.
//!
//! A claim is an advisory lock that the system takes back when the process ends, however it ends. Claimed are:
//!
//! - the configuration, when it is a file of this machine: two services would undo each other's changes;
//! - every routine in its local storage, as the file `.abs-locks/ROUTINE` beside the routines' folders: two services would
//!   write and delete the same backups, also when they come by different configurations. Services with other routines
//!   may use the same storage.
//!
//! A change of the configuration is a [`Transaction`]: what the new settings need (claims, the log file) is acquired first;
//! what only the old ones needed is released when the new ones are in force.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abs_actors::{ConfigSource, Configuration, Transaction};
use abs_config::{Settings, StorageSettings};
use async_trait::async_trait;
use slog::{Logger, error, info, warn};
use tokio::sync::watch;

use super::logging::{LogControl, PreparedLog};
use super::source::Source;

/// The folder of a storage that holds the locks of its routines.
const LOCKS: &str = ".abs-locks";

/// A source whose configuration this process alone works on, and the settings in force.
pub struct Exclusive {
    source: Arc<dyn ConfigSource>,
    claims: Arc<Claims>,
    logging: LogControl,
    settings: watch::Sender<Arc<Settings>>,
}

impl std::fmt::Debug for Exclusive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exclusive").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Exclusive {
    /// Claims all of a configuration that was read from `source`.
    ///
    /// # Errors
    /// One line: what is claimed by which process.
    pub fn claim(
        source: Source,
        configuration: &Configuration,
        logging: LogControl,
        log: Logger,
    ) -> Result<Self, String> {
        let claims = Arc::new(Claims { configuration: source.file, held: Mutex::default(), log });
        let settings = Arc::clone(configuration.settings());
        claims.take(&settings)?.keep();
        Ok(Self { source: source.access, claims, logging, settings: watch::Sender::new(settings) })
    }

    /// The settings in force, each time that they change, or are read again.
    pub fn settings(&self) -> watch::Receiver<Arc<Settings>> {
        self.settings.subscribe()
    }
}

#[async_trait]
impl ConfigSource for Exclusive {
    fn describe(&self) -> String {
        self.source.describe()
    }

    async fn read(&self) -> Result<String, String> {
        self.source.read().await
    }

    async fn write(&self, text: &str) -> Result<(), String> {
        self.source.write(text).await
    }

    async fn prepare(&self, settings: &Arc<Settings>) -> Result<Box<dyn Transaction>, String> {
        let (claims, logging) = (Arc::clone(&self.claims), self.logging.clone());
        let (before, settings) = (Arc::clone(&self.settings.borrow()), Arc::clone(settings));
        let published = self.settings.clone();
        let prepare = move || {
            let taken = claims.take(&settings)?;
            let logger = &settings.service.logger;
            let changed = *logger != before.service.logger;
            let log = changed.then(|| logging.prepare(logger)).transpose().map_err(|e| e.to_string())?;
            Ok(Box::new(Change { claims, taken, log, settings, published }) as Box<dyn Transaction>)
        };
        tokio::task::spawn_blocking(prepare).await.map_err(|e| e.to_string())?
    }
}

/// What other settings need, acquired.
struct Change {
    claims: Arc<Claims>,
    taken: Taken,
    log: Option<PreparedLog>,
    settings: Arc<Settings>,
    published: watch::Sender<Arc<Settings>>,
}

#[async_trait]
impl Transaction for Change {
    async fn commit(self: Box<Self>) {
        let Self { claims, taken, log, settings, published } = *self;
        taken.keep();
        claims.release_unused(&settings);
        published.send_replace(Arc::clone(&settings));
        let last = move || {
            if let Some(log) = log {
                log.commit();
                info!(claims.log, "the log continues as service.logger says now");
            }
            // The write of the configuration may have put another file in the place of the claimed one.
            match claims.take(&settings) {
                Ok(taken) => taken.keep(),
                Err(e) => error!(claims.log, "the configuration is not claimed any more"; "error" => e),
            }
        };
        // It cannot be joined only when it panicked, which is logged.
        let _ = tokio::task::spawn_blocking(last).await;
    }
}

/// All that is claimed.
#[derive(Debug)]
struct Claims {
    /// The file of the configuration, when it is in one.
    configuration: Option<PathBuf>,
    held: Mutex<BTreeMap<Claim, Lock>>,
    log: Logger,
}

/// What can be claimed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// A configuration, in this file.
    Configuration(PathBuf),
    /// A routine in the storage of this folder.
    Routine(PathBuf, String),
}

/// A lock that is held as long as this lives.
#[derive(Debug)]
struct Lock {
    _file: File,
    /// Device and number of the file.
    identity: (u64, u64),
}

/// Locks that were taken in addition to those held. Dropping them releases them.
#[derive(Debug)]
struct Taken {
    claims: Arc<Claims>,
    locks: Vec<(Claim, Lock)>,
}

impl Taken {
    fn keep(self) {
        self.claims.held().extend(self.locks);
    }
}

impl Claims {
    /// What is to be claimed for these settings.
    fn wanted(&self, settings: &Settings) -> Vec<Claim> {
        let routines = settings.routines.iter().filter_map(|(name, routine)| match &*routine.storage {
            StorageSettings::Local { path } => Some(Claim::Routine(path.clone(), name.clone())),
            // Object stores have no locks that end with a process.
            StorageSettings::S3(_) | StorageSettings::Gcp(_) | StorageSettings::Azure(_) => None,
        });
        self.configuration.iter().cloned().map(Claim::Configuration).chain(routines).collect()
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<Claim, Lock>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks all that is not locked yet, or nothing. Without a lock of our own: a file system may hang.
    fn take(self: &Arc<Self>, settings: &Settings) -> Result<Taken, String> {
        let mut locks = Vec::new();
        for claim in self.wanted(settings) {
            let file = claim.file();
            let found = fs::metadata(&file).ok().map(|found| (found.dev(), found.ino()));
            if self.held().get(&claim).is_some_and(|lock| Some(lock.identity) == found) {
                continue;
            }
            match claim.lock() {
                Ok(lock) => locks.push((claim, lock)),
                Err(TryLockError::WouldBlock) => {
                    // It says so itself.
                    let holder = match &claim {
                        Claim::Configuration(_) => String::new(),
                        Claim::Routine(..) => fs::read_to_string(&file).unwrap_or_default(),
                    };
                    return Err(claim.refusal(holder.trim()));
                }
                // A file system without locks, or one that is not there now, which /ready tells.
                Err(TryLockError::Error(e)) => {
                    warn!(self.log, "cannot keep other services away"; "file" => %file.display(), "error" => %e);
                }
            }
        }
        Ok(Taken { claims: Arc::clone(self), locks })
    }

    /// Releases all that these settings do not need.
    fn release_unused(&self, settings: &Settings) {
        let wanted = self.wanted(settings);
        self.held().retain(|claim, _| wanted.contains(claim));
    }
}

impl Claim {
    /// The file whose lock stands for it.
    fn file(&self) -> PathBuf {
        match self {
            Self::Configuration(file) => file.clone(),
            Self::Routine(storage, name) => storage.join(LOCKS).join(name),
        }
    }

    fn lock(&self) -> Result<Lock, TryLockError> {
        let path = self.file();
        let file = match self {
            Self::Configuration(_) => File::open(&path).map_err(TryLockError::Error)?,
            Self::Routine(..) => lock_file(&path).map_err(TryLockError::Error)?,
        };
        file.try_lock()?;
        if let Self::Routine(..) = self {
            sign(&file).map_err(TryLockError::Error)?;
        }
        let found = file.metadata().map_err(TryLockError::Error)?;
        Ok(Lock { identity: (found.dev(), found.ino()), _file: file })
    }

    /// That somebody else has it.
    fn refusal(&self, holder: &str) -> String {
        let who = if holder.is_empty() { String::new() } else { format!(" ({holder})") };
        match self {
            Self::Configuration(file) => {
                format!("another service{who} runs with the configuration {}", file.display())
            }
            Self::Routine(storage, name) => format!(
                "another service{who} runs routine {name} in local folder {}: give each its own routines or storage",
                storage.display()
            ),
        }
    }
}

/// A file to lock, in a folder that is made if need be.
fn lock_file(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Says in the file who has locked it.
fn sign(mut file: &File) -> io::Result<()> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    file.set_len(0)?;
    writeln!(file, "process {} on {}", std::process::id(), host.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(storage: &Path, routines: &[&str]) -> Configuration {
        use std::fmt::Write as _;
        let mut text = format!(
            "aerospike-clusters: {{c: {{seed-nodes: [{{host-name: h, port: 3000}}]}}}}\n\
             storage: {{s: {{local-storage: {{path: {}}}}}}}\nbackup-routines:\n",
            storage.display()
        );
        for routine in routines {
            let _ = writeln!(
                text,
                "  {routine}: {{source-cluster: c, storage: s, interval-cron: '@daily', namespaces: [n]}}"
            );
        }
        Configuration::load(&text, &BTreeMap::new()).unwrap()
    }

    fn claims(configuration: Option<&Path>) -> Arc<Claims> {
        let log = Logger::root(slog::Discard, slog::o!());
        Arc::new(Claims { configuration: configuration.map(Path::to_owned), held: Mutex::default(), log })
    }

    #[test]
    fn a_routine_is_claimed_once_and_let_go_when_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let storage = folder.path().join("not/there/yet");
        let of = |routines: &[&str]| Arc::clone(configuration(&storage, routines).settings());
        let (one, two) = (claims(None), claims(None));
        one.take(&of(&["a", "b"])).unwrap().keep();
        // Again is no conflict with oneself.
        one.take(&of(&["a", "b"])).unwrap().keep();
        two.take(&of(&["c"])).unwrap().keep();
        let refusal = two.take(&of(&["c", "d", "b"])).unwrap_err();
        let myself = format!("another service (process {} on ", std::process::id());
        assert!(
            refusal.starts_with(&myself) && refusal.contains("runs routine b in local folder /"),
            "{refusal}"
        );
        // The refused two have claimed nothing.
        one.take(&of(&["a", "b", "d"])).unwrap().keep();
        // What is not kept is released again.
        drop(one.take(&of(&["e"])).unwrap());
        drop(two.take(&of(&["e"])).unwrap());
        one.release_unused(&of(&["a"]));
        two.take(&of(&["b", "c"])).unwrap().keep();
    }

    #[test]
    fn a_configuration_is_claimed_also_when_its_file_was_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yml");
        fs::write(&file, "").unwrap();
        let none = Arc::clone(configuration(folder.path(), &[]).settings());
        let (one, two) = (claims(Some(&file)), claims(Some(&file)));
        one.take(&none).unwrap().keep();
        let refusal = two.take(&none).unwrap_err();
        assert!(refusal.contains("runs with the configuration /"), "{refusal}");
        fs::write(folder.path().join("new"), "").unwrap();
        fs::rename(folder.path().join("new"), &file).unwrap();
        one.take(&none).unwrap().keep();
        two.take(&none).unwrap_err();
        drop(one);
        two.take(&none).unwrap().keep();
    }

    #[test]
    fn what_cannot_be_locked_is_no_reason_to_stay_away() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        claims(Some(&folder.path().join("no"))).take(configuration(&file, &["a"]).settings()).unwrap();
    }
}
