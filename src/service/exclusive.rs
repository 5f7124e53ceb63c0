//! One service at a time: what two of them would spoil for each other is claimed.
//!
//! A claim is an advisory lock that the system takes back when the process ends, however it ends. Claimed are:
//!
//! - the configuration, when it is a file of this machine: two services would undo each other's changes;
//! - every routine in its local storage, as the file `.abs-locks/ROUTINE` beside the routines' folders: two services would
//!   write and delete the same backups, also when they come by different configurations. Services with other routines
//!   may use the same storage.
//!
//! The claims follow the configuration: whatever comes into force passes here, read or written.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abs_actors::{ConfigSource, Configuration};
use abs_config::{Settings, StorageSettings};
use async_trait::async_trait;
use slog::{Logger, warn};
use tokio::sync::watch;

use super::source::Source;

/// The folder of a storage that holds the locks of its routines.
const LOCKS: &str = ".abs-locks";

/// A source whose configuration this process alone works on, and that tells what comes into force.
#[derive(Debug)]
pub struct Exclusive {
    source: Arc<dyn ConfigSource>,
    environment: BTreeMap<String, String>,
    claims: Arc<Claims>,
    settings: watch::Sender<Arc<Settings>>,
}

impl Exclusive {
    /// Claims all of a configuration that was read from `source`.
    ///
    /// # Errors
    /// One line: what is claimed by whom.
    pub fn claim(
        source: Source,
        environment: BTreeMap<String, String>,
        configuration: &Configuration,
        log: Logger,
    ) -> Result<Self, String> {
        let claims = Claims { configuration: source.file, held: Mutex::default(), log };
        let settings = Arc::clone(configuration.settings());
        claims.take(&settings)?;
        let settings = watch::Sender::new(settings);
        Ok(Self { source: source.access, environment, claims: Arc::new(claims), settings })
    }

    /// The settings in force, each time that they change, or are read again.
    pub fn settings(&self) -> watch::Receiver<Arc<Settings>> {
        self.settings.subscribe()
    }

    /// Changes the claims where it may block.
    async fn claims(
        &self,
        settings: &Arc<Settings>,
        work: impl FnOnce(&Claims, &Settings) -> Result<(), String> + Send + 'static,
    ) -> Result<(), String> {
        let (claims, settings) = (Arc::clone(&self.claims), Arc::clone(settings));
        let work = tokio::task::spawn_blocking(move || work(&claims, &settings));
        work.await.map_err(|e| e.to_string())?
    }

    /// Goes on with other settings, whose claims are taken.
    async fn adopt(&self, settings: Arc<Settings>) -> Result<(), String> {
        let renewed = |claims: &Claims, settings: &Settings| {
            claims.keep(settings);
            // The file of the configuration may be another one by now.
            claims.take(settings)
        };
        self.claims(&settings, renewed).await?;
        self.settings.send_replace(settings);
        Ok(())
    }
}

#[async_trait]
impl ConfigSource for Exclusive {
    fn describe(&self) -> String {
        self.source.describe()
    }

    async fn read(&self) -> Result<String, String> {
        let text = self.source.read().await?;
        // Whoever asked for the text will find out that it is of no use.
        if let Ok(configuration) = Configuration::load(&text, &self.environment) {
            let settings = Arc::clone(configuration.settings());
            self.claims(&settings, Claims::take).await?;
            self.adopt(settings).await?;
        }
        Ok(text)
    }

    async fn write(&self, text: &str) -> Result<(), String> {
        let configuration = Configuration::load(text, &self.environment).map_err(|e| e.to_string())?;
        let settings = Arc::clone(configuration.settings());
        self.claims(&settings, Claims::take).await?;
        if let Err(e) = self.source.write(text).await {
            let before = Arc::clone(&self.settings.borrow());
            let back = |claims: &Claims, settings: &Settings| {
                claims.keep(settings);
                Ok(())
            };
            self.claims(&before, back).await?;
            return Err(e);
        }
        self.adopt(settings).await
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

    /// Claims all that is not claimed yet, or nothing.
    fn take(&self, settings: &Settings) -> Result<(), String> {
        let mut held = self.held();
        let mut taken = Vec::new();
        for claim in self.wanted(settings) {
            let file = claim.file();
            let found = fs::metadata(&file).ok().map(|found| (found.dev(), found.ino()));
            if held.get(&claim).is_some_and(|lock| Some(lock.identity) == found) {
                continue;
            }
            match claim.lock() {
                Ok(lock) => taken.push((claim, lock)),
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
        held.extend(taken);
        Ok(())
    }

    /// Lets go of all that these settings do not need.
    fn keep(&self, settings: &Settings) {
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

    fn claims(configuration: Option<&Path>) -> Claims {
        let log = Logger::root(slog::Discard, slog::o!());
        Claims { configuration: configuration.map(Path::to_owned), held: Mutex::default(), log }
    }

    #[test]
    fn a_routine_is_claimed_once_and_let_go_when_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let storage = folder.path().join("not/there/yet");
        let of = |routines: &[&str]| Arc::clone(configuration(&storage, routines).settings());
        let (one, two) = (claims(None), claims(None));
        one.take(&of(&["a", "b"])).unwrap();
        // Again is no conflict with oneself.
        one.take(&of(&["a", "b"])).unwrap();
        two.take(&of(&["c"])).unwrap();
        let refusal = two.take(&of(&["c", "d", "b"])).unwrap_err();
        let myself = format!("another service (process {} on ", std::process::id());
        assert!(
            refusal.starts_with(&myself) && refusal.contains("runs routine b in local folder /"),
            "{refusal}"
        );
        // The refused two have claimed nothing.
        one.take(&of(&["a", "b", "d"])).unwrap();
        one.keep(&of(&["a"]));
        two.take(&of(&["b", "c"])).unwrap();
    }

    #[test]
    fn a_configuration_is_claimed_also_when_its_file_was_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yml");
        fs::write(&file, "").unwrap();
        let none = Arc::clone(configuration(folder.path(), &[]).settings());
        let (one, two) = (claims(Some(&file)), claims(Some(&file)));
        one.take(&none).unwrap();
        let refusal = two.take(&none).unwrap_err();
        assert!(refusal.contains("runs with the configuration /"), "{refusal}");
        fs::write(folder.path().join("new"), "").unwrap();
        fs::rename(folder.path().join("new"), &file).unwrap();
        one.take(&none).unwrap();
        two.take(&none).unwrap_err();
        drop(one);
        two.take(&none).unwrap();
    }

    #[test]
    fn what_cannot_be_locked_is_no_reason_to_stay_away() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        claims(Some(&folder.path().join("no"))).take(configuration(&file, &["a"]).settings()).unwrap();
    }
}
