//! The configuration in force: where it comes from, how it changes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use abs_config::{AerospikeCluster, Config, Problems, Secrets as _, Settings, Storage};
use async_trait::async_trait;

use crate::messages::{ConfigChange, ConfigSnapshot, Edit, RequestError};

/// Where the configuration is kept: a file, an address, an object of a storage.
#[async_trait]
pub trait ConfigSource: Debug + Send + Sync {
    /// The source in a message: `file /etc/abs/config.yml`.
    fn describe(&self) -> String;

    /// Reads the text.
    ///
    /// # Errors
    /// One line: what could not be read and why.
    async fn read(&self) -> Result<String, String>;

    /// Puts another text in its place, at once or not at all.
    ///
    /// # Errors
    /// One line: what could not be written and why.
    async fn write(&self, text: &str) -> Result<(), String>;
}

/// A configuration that was checked.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// As it stands in its source.
    stored: Config,
    /// With what the environment says.
    effective: Arc<Config>,
    settings: Arc<Settings>,
}

impl Configuration {
    /// Reads the text of a source; `environment` overrides what it says.
    pub fn load(text: &str, environment: &BTreeMap<String, String>) -> Result<Self, Problems> {
        let stored = Config::from_yaml(text)?;
        let pairs = environment.iter().map(|(key, value)| (key.clone(), value.clone()));
        let effective = Config::load(text, pairs)?;
        Self::checked(stored, effective)
    }

    fn checked(stored: Config, effective: Config) -> Result<Self, Problems> {
        let settings = Arc::new(effective.check()?);
        Ok(Self { stored, effective: Arc::new(effective), settings })
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
        let mut stored = self.stored.clone();
        let mut effective = Config::clone(&self.effective);
        // Secrets that a client does not know are those in force.
        let change = unmasked(change, &effective)?;
        apply(&mut stored, change.clone(), Presence::Any)?;
        apply(&mut effective, change, Presence::Checked)?;
        Self::checked(stored, effective).map_err(|problems| RequestError::Invalid(problems.to_string()))
    }
}

/// Whether it matters that an entry exists, or does not. An entry of the environment is not in the source.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Checked,
    Any,
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

fn apply(config: &mut Config, change: ConfigChange, presence: Presence) -> Result<(), RequestError> {
    match change {
        ConfigChange::Replace(new) => *config = *new,
        ConfigChange::Cluster(edit) => {
            let users = config.backup_routines.iter().map(|(name, r)| (name, Some(&r.source_cluster)));
            edit.apply("cluster", &users_of(users), &mut config.aerospike_clusters, presence)?;
        }
        ConfigChange::Policy(edit) => {
            let users = config.backup_routines.iter().map(|(name, r)| (name, r.backup_policy.as_ref()));
            edit.apply("policy", &users_of(users), &mut config.backup_policies, presence)?;
        }
        ConfigChange::Storage(edit) => {
            let users = config.backup_routines.iter().map(|(name, r)| (name, Some(&r.storage)));
            edit.apply("storage", &users_of(users), &mut config.storage, presence)?;
        }
        ConfigChange::Routine(edit) => {
            edit.apply("routine", &BTreeMap::new(), &mut config.backup_routines, presence)?;
        }
        ConfigChange::SetDisabled { routine, disabled } => match config.backup_routines.get_mut(&routine) {
            Some(document) => document.disabled = disabled.then_some(true),
            None if presence == Presence::Any => {}
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
        presence: Presence,
    ) -> Result<(), RequestError> {
        let missing = |name: &String| RequestError::Invalid(format!("{what} {name} not found"));
        let checked = presence == Presence::Checked;
        match self {
            Self::Add(name, _) if checked && entries.contains_key(&name) => {
                return Err(RequestError::Invalid(format!(
                    "{what} {name} exists already: use PUT to change it"
                )));
            }
            Self::Update(name, _) | Self::Delete(name) if checked && !entries.contains_key(&name) => {
                return Err(missing(&name));
            }
            Self::Add(name, new) | Self::Update(name, new) => {
                entries.insert(name, *new);
            }
            Self::Delete(name) => {
                if let Some(routine) = users.get(&name).filter(|_| checked) {
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
