//! The configuration in force: where it comes from, how it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use abs_config::{AerospikeCluster, Config, Problems, Secrets as _, Settings, Storage};
use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::messages::{ConfigChange, ConfigSnapshot, Edit, RequestError};

/// Where the configuration is kept: a file, an address, an object of a storage.
#[async_trait]
pub trait ConfigSource: Debug + Send + Sync {
    /// The source in a message: `file /etc/abs/config.yml`.
    fn describe(&self) -> String;

    /// Reads the text and changes nothing.
    ///
    /// # Errors
    /// One line: what could not be read and why.
    async fn read(&self) -> Result<String, String>;

    /// Puts another text in its place, at once or not at all.
    ///
    /// # Errors
    /// One line: what could not be written and why.
    async fn write(&self, text: &str) -> Result<(), String>;

    /// Acquires what the service needs to run with these settings (locks, the log file) in addition to what it holds for
    /// the settings in force, which stay in force until the transaction is committed.
    ///
    /// # Errors
    /// One line: what cannot be acquired and why.
    async fn prepare(&self, _settings: &Arc<Settings>) -> Result<Box<dyn Transaction>, String> {
        Ok(Box::new(()))
    }
}

/// A prepared change of the settings. Dropping it rolls it back.
#[async_trait]
pub trait Transaction: Send {
    /// Puts the new settings in force and releases what only the old ones needed.
    async fn commit(self: Box<Self>);
}

/// The transaction of settings that need nothing.
#[async_trait]
impl Transaction for () {
    async fn commit(self: Box<Self>) {}
}

/// A configuration that was checked.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// As it stands in its source.
    stored: Config,
    /// With what the environment says.
    effective: Arc<Config>,
    settings: Arc<Settings>,
    environment: Arc<BTreeMap<String, String>>,
}

/// Why a change is refused that would not last.
const OVERRIDDEN: &str =
    "the environment overrides what this would change: change the ABS__ variables of the service";

impl Configuration {
    /// Reads the text of a source; `environment` overrides what it says.
    pub fn load(text: &str, environment: &BTreeMap<String, String>) -> Result<Self, Problems> {
        let stored = Config::from_yaml(text)?;
        let pairs = environment.iter().map(|(key, value)| (key.clone(), value.clone()));
        let effective = Config::load(text, pairs)?;
        let settings = Arc::new(effective.check()?);
        let environment = Arc::new(environment.clone());
        Ok(Self { stored, effective: Arc::new(effective), settings, environment })
    }

    /// What the source says now, in the same environment.
    pub(crate) fn reload(&self, text: &str) -> Result<Self, Problems> {
        Self::load(text, &self.environment)
    }

    /// What it means.
    #[must_use]
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The text to store.
    pub(crate) fn text(&self) -> String {
        self.stored.to_yaml()
    }

    pub(crate) fn snapshot(&self) -> ConfigSnapshot {
        ConfigSnapshot { config: Arc::clone(&self.effective), settings: Arc::clone(&self.settings) }
    }

    /// This configuration with a change, checked as a whole.
    pub(crate) fn with(&self, change: ConfigChange) -> Result<Self, RequestError> {
        // Secrets that a client does not know are those in force.
        let change = unmasked(change, &self.effective)?;
        let mut effective = Config::clone(&self.effective);
        apply(&mut effective, change)?;
        let settings = effective.check().map_err(|problems| RequestError::Invalid(problems.to_string()))?;
        // What is stored already may stay; nothing of the kind is added.
        let added = settings.warnings.iter().filter(|warning| !self.settings.warnings.contains(warning));
        let added: Vec<_> = added.map(|warning| warning.problem.to_string()).collect();
        if !added.is_empty() {
            return Err(RequestError::Invalid(added.join("; ")));
        }
        let stored = self.to_store(&effective)?;
        let effective = Arc::new(effective);
        // What is read again from the source must be the same.
        let lasts = || self.reload(&stored.to_yaml()).is_ok_and(|again| again.effective == effective);
        if !self.environment.is_empty() && !lasts() {
            return Err(RequestError::Invalid(OVERRIDDEN.to_owned()));
        }
        Ok(Self {
            stored,
            effective,
            settings: Arc::new(settings),
            environment: Arc::clone(&self.environment),
        })
    }

    /// What to store so that `changed` is in force: not what the environment says already.
    fn to_store(&self, changed: &Config) -> Result<Config, RequestError> {
        if self.environment.is_empty() {
            return Ok(changed.clone());
        }
        let cannot = |e: serde_json::Error| RequestError::Failed(format!("the change was not made: {e}"));
        let value = |config: &Config| serde_json::to_value(config).map_err(cannot);
        let (before, stored, after) = (value(&self.effective)?, value(&self.stored)?, value(changed)?);
        let merged =
            carry_over(Some(&before), Some(&stored), Some(&after)).unwrap_or(Value::Object(Map::new()));
        serde_json::from_value(merged).map_err(|_| RequestError::Invalid(OVERRIDDEN.to_owned()))
    }
}

/// Makes the change from `before` to `after` in `stored`.
fn carry_over(before: Option<&Value>, stored: Option<&Value>, after: Option<&Value>) -> Option<Value> {
    if before == after {
        return stored.cloned();
    }
    let (Some(Value::Object(old)), Some(Value::Object(new))) = (before, after) else { return after.cloned() };
    let known = stored.and_then(Value::as_object);
    let names: BTreeSet<_> = known.into_iter().flat_map(Map::keys).chain(new.keys()).collect();
    let of = |name: &String| {
        let stored = known.and_then(|known| known.get(name));
        Some((name.clone(), carry_over(old.get(name), stored, new.get(name))?))
    };
    Some(Value::Object(names.into_iter().filter_map(of).collect()))
}

/// The change with the stored secrets where it says `[secret]`.
fn unmasked(mut change: ConfigChange, stored: &Config) -> Result<ConfigChange, RequestError> {
    let result = match &mut change {
        ConfigChange::Replace(config) => config.unmask(Some(stored)),
        ConfigChange::Cluster(edit) => edit.unmask(&stored.aerospike_clusters, AerospikeCluster::unmask),
        ConfigChange::Storage(edit) => edit.unmask(&stored.storage, Storage::unmask),
        ConfigChange::Policy(_) | ConfigChange::Routine(_) | ConfigChange::SetDisabled { .. } => Ok(()),
    };
    result.map_err(|problems| RequestError::Invalid(problems.to_string()))?;
    Ok(change)
}

fn apply(config: &mut Config, change: ConfigChange) -> Result<(), RequestError> {
    match change {
        ConfigChange::Replace(new) => *config = *new,
        ConfigChange::Cluster(edit) => {
            let users = config.backup_routines.iter().map(|(name, r)| (name, Some(&r.source_cluster)));
            edit.apply("cluster", &users_of(users), &mut config.aerospike_clusters)?;
        }
        ConfigChange::Policy(edit) => {
            let users = config.backup_routines.iter().map(|(name, r)| (name, r.backup_policy.as_ref()));
            edit.apply("policy", &users_of(users), &mut config.backup_policies)?;
        }
        ConfigChange::Storage(edit) => {
            let users = config.backup_routines.iter().map(|(name, r)| (name, Some(&r.storage)));
            edit.apply("storage", &users_of(users), &mut config.storage)?;
        }
        ConfigChange::Routine(edit) => {
            edit.apply("routine", &BTreeMap::new(), &mut config.backup_routines)?;
        }
        ConfigChange::SetDisabled { routine, disabled } => match config.backup_routines.get_mut(&routine) {
            Some(document) => document.disabled = disabled.then_some(true),
            None => return Err(RequestError::not_found("routine", routine)),
        },
    }
    Ok(())
}

/// Which routine uses an entry, by the entry's name.
fn users_of<'a>(pairs: impl Iterator<Item = (&'a String, Option<&'a String>)>) -> BTreeMap<String, String> {
    pairs.filter_map(|(routine, used)| Some((used?.clone(), routine.clone()))).collect()
}

impl<T> Edit<T> {
    fn unmask(
        &mut self,
        stored: &BTreeMap<String, T>,
        unmask: impl FnOnce(&mut T, Option<&T>) -> Result<(), Problems>,
    ) -> Result<(), Problems> {
        match self {
            Self::Add(_, new) => unmask(new, None),
            Self::Update(name, new) => unmask(new, stored.get(name)),
            Self::Delete(_) => Ok(()),
        }
    }

    fn apply(
        self,
        what: &'static str,
        users: &BTreeMap<String, String>,
        entries: &mut BTreeMap<String, T>,
    ) -> Result<(), RequestError> {
        let missing = |name: &String| RequestError::Invalid(format!("{what} {name} not found"));
        match self {
            Self::Add(name, _) if entries.contains_key(&name) => {
                return Err(RequestError::Invalid(format!(
                    "{what} {name} exists already: use PUT to change it"
                )));
            }
            Self::Update(name, _) | Self::Delete(name) if !entries.contains_key(&name) => {
                return Err(missing(&name));
            }
            Self::Add(name, new) | Self::Update(name, new) => {
                entries.insert(name, *new);
            }
            Self::Delete(name) => {
                if let Some(routine) = users.get(&name) {
                    let why =
                        format!("{what} {name} is used by routine {routine}: change or delete that first");
                    return Err(RequestError::Invalid(why));
                }
                entries.remove(&name);
            }
        }
        Ok(())
    }
}
