//! What builds on what: the backups to restore for a moment, and the one that the next incremental backup builds on.
//!
//! An incremental backup holds what changed after its `from`. A differential one's `from` is the time of the backup
//! before it, a cumulative one's that of its full backup; the mode of a routine may have changed in between. So the
//! mode is not asked for: with a full backup and incremental ones that, put together, leave no time out, a restore is
//! right, and what newer ones cover is left out.
//!
//! A `from` may name a moment of which the namespace has no backup:
//! - Other namespaces have one of that run. Then nothing of this one had changed, and an empty backup leaves nothing
//!   behind; the run covers its time for this namespace, too.
//! - Nothing is there of that run. Then somebody deleted it. The records changed before it cannot be restored, and not
//!   to say so would be a lie: a [`ChainError`] names the moment, and the last one that can be restored.
//!
//! A backup whose time is wrong ([`suspects`](super::suspects)) belongs to no chain. An incremental backup builds on
//! those of the same selection and encryption only ([`ChainTraits`]); those of other tools and older versions do not say
//! all of theirs, and are taken to have the same, so that a routine goes on when the service in front of it is exchanged.
//!
//! Older versions, whose metadata has no `compression` yet, say less: no `from` at all, or one that may name an empty
//! run that left nothing. Their backups are taken to follow each other without a gap, as those versions took them.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::time::SystemTime;

use abs_storage::ObjectPath;
use chrono::{DateTime, SubsecRound as _, Utc};

use super::{Backup, BackupKind, Catalog, Listed, MARK_FILE, Misdated, Moment, Result, Unreadable};

/// What a restore to a moment takes, of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The full backup.
    pub full: Backup,
    /// The incremental ones to apply after it, the oldest first.
    pub incrementals: Vec<Backup>,
    /// Backups that were written later than all of these, but have a wrong time and so no place in the chain.
    pub passed_over: Vec<ObjectPath>,
}

impl Chain {
    /// All, the oldest first.
    #[must_use]
    pub fn backups(&self) -> impl DoubleEndedIterator<Item = &Backup> {
        std::iter::once(&self.full).chain(&self.incrementals)
    }
}

/// A backup that an incremental one builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// When it was made.
    pub created: DateTime<Utc>,
    /// The same by the cluster's clock, if it says so.
    pub cluster_created: Option<DateTime<Utc>>,
}

impl From<&Backup> for Base {
    fn from(backup: &Backup) -> Self {
        Self { created: backup.created, cluster_created: backup.metadata.cluster_created }
    }
}

/// What the next incremental backup of a namespace builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foundation {
    /// The last full backup: on it builds a cumulative one.
    pub full: Base,
    /// The backup until which there is no gap: on it builds a differential one. That is the last backup; but if one was
    /// deleted by hand, what the next one holds closes the gap.
    pub last: Base,
}

/// What the next incremental backups of a routine build on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foundations {
    /// By namespace, of those that have a full backup.
    pub of: BTreeMap<String, Foundation>,
    /// Why the next backup must be a full one, if it must.
    pub full_due: Option<FullDue>,
}

/// What the backups of a chain have in common: a chain is of one part of the namespace, and is restored with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainTraits {
    /// The `selection` of metadata.yaml.
    pub selection: String,
    /// The `encryption` of metadata.yaml.
    pub encryption: String,
    /// Which key.
    pub encryption_key: Option<String>,
}

impl ChainTraits {
    /// How a backup differs, as far as it says.
    fn difference(&self, backup: &Backup) -> Option<FullDue> {
        let metadata = &backup.metadata;
        let folder = || backup.key.clone();
        if metadata.selection.as_ref().is_some_and(|other| *other != self.selection) {
            return Some(FullDue::Selection { backup: folder() });
        }
        let is_other_mode =
            !metadata.encryption.is_empty() && !metadata.encryption.eq_ignore_ascii_case(&self.encryption);
        let keys = metadata.encryption_key.as_ref().zip(self.encryption_key.as_ref());
        let is_other_key = keys.is_some_and(|(other, key)| other != key);
        (is_other_mode || is_other_key).then(|| FullDue::Encryption { backup: folder() })
    }
}

/// Why the next backup of a routine must be a full one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FullDue {
    /// Another part of the namespace is selected than was before.
    #[error("the selection of the routine has changed since {backup}")]
    Selection {
        /// The folder of a backup with the other selection.
        backup: ObjectPath,
    },
    /// Another encryption is configured than there was before.
    #[error("the encryption of the routine, or its key, has changed since {backup}")]
    Encryption {
        /// The folder of a backup with the other encryption.
        backup: ObjectPath,
    },
    /// Since the last full backup one was found whose time is wrong.
    #[error("the time of {backup} is wrong")]
    Suspect {
        /// The folder of that backup.
        backup: ObjectPath,
    },
}

/// What to do about a backup that is missing because its time is wrong.
pub(super) fn suspect_hint(folder: &ObjectPath) -> String {
    format!(
        "; {folder} is left out, because its time is wrong ({MARK_FILE}): restore it by its path, or, if its time is right, delete \
         the mark in it"
    )
}

/// Why a moment cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// There is no full backup to begin with.
    #[error(
        "routine {routine}, namespace {namespace}: there is no full backup at or before {}{}{}",
        Moment(*.time),
        .first.map(|first| format!("; the first is of {}", Moment(first))).unwrap_or_default(),
        .suspect.as_ref().map(suspect_hint).unwrap_or_default()
    )]
    NoFull {
        /// The routine.
        routine: String,
        /// The namespace.
        namespace: String,
        /// The moment to restore.
        time: DateTime<Utc>,
        /// When the first full backup after it was made.
        first: Option<DateTime<Utc>>,
        /// The folder of one whose time is wrong.
        suspect: Option<ObjectPath>,
    },
    /// A backup is gone, or has a wrong time, that a later one builds on.
    #[error(
        "routine {routine}, namespace {namespace}: the backup of {} {}, which that of {} builds on; \
         the latest that can be restored before is {}",
        Moment(*.moment),
        if *.is_suspect { "is in no chain because its time is wrong" } else { "is missing" },
        Moment(*.needed_by), Moment(*.latest)
    )]
    Missing {
        /// The routine.
        routine: String,
        /// The namespace.
        namespace: String,
        /// When the missing one was made.
        moment: DateTime<Utc>,
        /// Whether it is there, but with a wrong time.
        is_suspect: bool,
        /// When the one was made that builds on it.
        needed_by: DateTime<Utc>,
        /// The last moment before that can be restored.
        latest: DateTime<Utc>,
    },
    /// A backup is there but cannot be read.
    #[error(
        "routine {routine}, namespace {namespace}: {backup}{}",
        .latest.map(|latest| format!("; the latest that can be restored without it is {}", Moment(latest)))
            .unwrap_or_default()
    )]
    Unreadable {
        /// The routine.
        routine: String,
        /// The namespace.
        namespace: String,
        /// The backup.
        backup: Box<Unreadable>,
        /// The last moment before that can be restored.
        latest: Option<DateTime<Utc>>,
    },
}

impl Catalog {
    /// What to restore of `namespace` for the moment `time`: its last full backup made then or before, and the
    /// incremental ones that lead from it to the last one made then or before.
    pub async fn chain(&self, routine: &str, namespace: &str, time: DateTime<Utc>) -> Result<Chain> {
        let mut chains = self.chains(routine, &[namespace.to_owned()], time).await?;
        let chain = chains.remove(namespace).unwrap_or_else(|| Err(no_full(routine, namespace, time, None)));
        Ok(chain?)
    }

    /// The [`chain`](Self::chain) of each of several namespaces; the storage is read once.
    pub async fn chains(
        &self,
        routine: &str,
        namespaces: &[String],
        time: DateTime<Utc>,
    ) -> Result<BTreeMap<String, Result<Chain, ChainError>>> {
        let suspects = &mut Vec::new();
        let fulls = self.last_fulls(routine, namespaces, time, suspects).await?;
        let after = (Bound::Excluded(time), Bound::Unbounded);
        let later = self.list(routine, BackupKind::Full, after).await?.backups;
        let (later, wrong): (Vec<_>, Vec<_>) = later.into_iter().partition(Backup::is_trusted);
        suspects.extend(wrong);
        // Later ones too: they know of backups that are gone.
        let incrementals =
            self.incrementals_since(routine, &fulls.backups, Bound::Unbounded, suspects).await?;
        let mut chains = BTreeMap::new();
        for namespace in namespaces {
            let history =
                History { routine, namespace, fulls: &fulls, incrementals: &incrementals, suspects };
            let mut chain = history.chain(time);
            if let Err(ChainError::NoFull { first, suspect, .. }) = &mut chain {
                *first = later.iter().find(|full| full.namespace() == namespace).map(|full| full.created);
                let own = suspects.iter().find(|full| full.namespace() == namespace);
                *suspect = own.map(|full| full.key.clone());
            }
            chains.insert(namespace.clone(), chain);
        }
        Ok(chains)
    }

    /// The namespaces that have a full backup made at `time` or before, by name.
    pub async fn namespaces_at(&self, routine: &str, time: DateTime<Utc>) -> Result<Vec<String>> {
        let listed = self.list(routine, BackupKind::Full, ..=time).await?;
        let trusted = listed.backups.iter().filter(|full| full.is_trusted());
        let mut namespaces: Vec<_> = trusted.map(|full| full.namespace().to_owned()).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        Ok(namespaces)
    }

    /// What an incremental backup made at `time` with these `traits` builds on, for each of the namespaces that has a full
    /// backup. `later` is what is dated later than now.
    pub async fn foundations(
        &self,
        routine: &str,
        namespaces: &[String],
        time: DateTime<Utc>,
        traits: &ChainTraits,
        later: &Misdated,
    ) -> Result<Foundations> {
        let mut suspects: Vec<_> = later.backups().cloned().collect();
        let fulls = self.last_fulls(routine, namespaces, time, &mut suspects).await?;
        let until = Bound::Included(time);
        let incrementals = self.incrementals_since(routine, &fulls.backups, until, &mut suspects).await?;
        let mut foundations = Foundations::default();
        let last_full = fulls.backups.iter().map(|full| full.written).max();
        let is_new = |noticed: SystemTime| last_full.is_none_or(|full| noticed > full);
        if let Some(suspect) = later
            .marked
            .first()
            .or_else(|| suspects.iter().find(|suspect| suspect.suspect.is_some_and(is_new)))
        {
            foundations.full_due = Some(FullDue::Suspect { backup: suspect.key.clone() });
        }
        for full in &fulls.backups {
            let own: Vec<_> =
                incrementals.backups.iter().filter(|backup| backup.namespace() == full.namespace()).collect();
            let since = own.iter().copied().filter(|backup| backup.created >= full.created);
            if let Some(due) = std::iter::once(full).chain(since).find_map(|backup| traits.difference(backup))
            {
                foundations.full_due = Some(due);
            }
            let steps = steps(full, own, &[]);
            let reached = steps.iter().filter(|step| step.is_reached).filter_map(|step| step.backup);
            let last = reached.max_by_key(|backup| backup.created).unwrap_or(full);
            let foundation = Foundation { full: full.into(), last: last.into() };
            foundations.of.insert(full.namespace().to_owned(), foundation);
        }
        Ok(foundations)
    }

    /// The last full backup of each of the namespaces at `time`, and what cannot be read of newer runs. Those whose time is
    /// not true are added to `suspects`.
    async fn last_fulls(
        &self,
        routine: &str,
        namespaces: &[String],
        time: DateTime<Utc>,
        suspects: &mut Vec<Backup>,
    ) -> Result<Listed> {
        let mut last = Listed::default();
        self.walk(routine, BackupKind::Full, ..=time, |listed| {
            last.unreadable.extend(listed.unreadable);
            let (trusted, suspect): (Vec<_>, Vec<_>) =
                listed.backups.into_iter().partition(Backup::is_trusted);
            suspects.extend(suspect);
            for full in trusted.into_iter().rev() {
                let is_wanted = namespaces.iter().any(|namespace| namespace == full.namespace());
                if is_wanted && last.backups.iter().all(|newer| newer.namespace() != full.namespace()) {
                    last.backups.push(full);
                }
            }
            last.backups.len() == namespaces.len()
        })
        .await?;
        Ok(last)
    }

    /// The incremental backups made after the first of `fulls`. Those whose time is wrong are added to `suspects`.
    async fn incrementals_since(
        &self,
        routine: &str,
        fulls: &[Backup],
        until: Bound<DateTime<Utc>>,
        suspects: &mut Vec<Backup>,
    ) -> Result<Listed> {
        let Some(first) = fulls.iter().map(|full| full.created).min() else { return Ok(Listed::default()) };
        let range = (Bound::Excluded(first), until);
        let mut listed = self.list(routine, BackupKind::Incremental, range).await?;
        suspects.extend(listed.backups.extract_if(.., |backup| !backup.is_trusted()));
        Ok(listed)
    }
}

/// What a restore of a backup takes, of these.
pub(super) fn chain_to(
    routine: &str,
    backup: &Backup,
    fulls: &Listed,
    incrementals: &Listed,
) -> Result<Chain, ChainError> {
    let own = |full: &&Backup| full.namespace() == backup.namespace() && full.created <= backup.created;
    let full = fulls.backups.iter().filter(own).max_by_key(|full| full.created).cloned();
    let fulls = Listed { backups: full.into_iter().collect(), unreadable: fulls.unreadable.clone() };
    let namespace = backup.namespace();
    History { routine, namespace, fulls: &fulls, incrementals, suspects: &[] }.chain(backup.created)
}

/// What is known of a namespace.
struct History<'a> {
    routine: &'a str,
    namespace: &'a str,
    fulls: &'a Listed,
    incrementals: &'a Listed,
    /// Backups whose time is wrong.
    suspects: &'a [Backup],
}

impl History<'_> {
    fn chain(&self, time: DateTime<Utc>) -> Result<Chain, ChainError> {
        let full = self.fulls.backups.iter().find(|full| full.namespace() == self.namespace);
        let unreadable = || self.unreadable(full, time);
        let Some(full) = full else {
            return Err(match unreadable().next() {
                Some(backup) => self.cannot_read(backup, None),
                None => no_full(self.routine, self.namespace, time, None),
            });
        };
        let (own, others): (Vec<_>, Vec<_>) = self
            .incrementals
            .backups
            .iter()
            .filter(|backup| backup.created > full.created)
            .partition(|backup| backup.namespace() == self.namespace);
        // Where this namespace has a backup that cannot be read, the others do not speak for it.
        let others: Vec<_> = others
            .into_iter()
            .filter(|other| unreadable().all(|own| own.created != Some(other.created)))
            .collect();
        let (own, later): (Vec<_>, Vec<_>) = own.into_iter().partition(|backup| backup.created <= time);
        let steps = steps(full, own, &others);
        // The restore ends with the last backup, reached or not.
        let last = steps.iter().rposition(|step| step.backup.is_some());
        let latest = |before: DateTime<Utc>| {
            let reached = steps.iter().filter(|step| step.is_reached && step.backup.is_some());
            reached.map(|step| step.created).filter(|created| *created < before).max().unwrap_or(full.created)
        };
        let missing = |moment, needed_by| match unreadable().find(|other| other.created == Some(moment)) {
            Some(backup) => self.cannot_read(backup, Some(latest(moment))),
            None => ChainError::Missing {
                routine: self.routine.to_owned(),
                namespace: self.namespace.to_owned(),
                moment,
                is_suspect: self
                    .suspects
                    .iter()
                    .any(|suspect| suspect.created == moment && suspect.namespace() == self.namespace),
                needed_by,
                latest: latest(moment),
            },
        };
        if let Some(last) = last
            && !steps[last].is_reached
        {
            let broken = first_broken(&steps, last);
            return Err(missing(broken.from, broken.created));
        }
        // Was a newer one made that is gone?
        let end = last.map_or(full.created, |last| steps[last].created);
        if let Some(backup) = unreadable().find(|other| other.created.is_some_and(|created| created > end)) {
            return Err(self.cannot_read(backup, Some(end)));
        }
        for backup in later.into_iter().filter(|backup| is_linked(backup)) {
            let from = floor(backup.metadata.from);
            if from > end && from <= time && others.iter().all(|other| other.created != from) {
                return Err(missing(from, backup.created));
            }
        }
        let incrementals = last.map_or_else(Vec::new, |last| shortest(full, &steps, last));
        let written = incrementals.iter().map(|backup| backup.written).fold(full.written, SystemTime::max);
        let is_later = |suspect: &&Backup| suspect.namespace() == self.namespace && suspect.written > written;
        let passed_over = self.suspects.iter().filter(is_later).map(|suspect| suspect.key.clone()).collect();
        Ok(Chain { full: full.clone(), incrementals, passed_over })
    }

    /// What cannot be read and was made after `full`, or may have been.
    fn unreadable(&self, full: Option<&Backup>, time: DateTime<Utc>) -> impl Iterator<Item = &Unreadable> {
        let after = full.map(|full| full.created);
        self.fulls.unreadable.iter().chain(&self.incrementals.unreadable).filter(move |other| {
            other.may_be_of(self.namespace)
                && other
                    .created
                    .is_none_or(|created| created <= time && after.is_none_or(|after| created > after))
        })
    }

    fn cannot_read(&self, backup: &Unreadable, latest: Option<DateTime<Utc>>) -> ChainError {
        ChainError::Unreadable {
            routine: self.routine.to_owned(),
            namespace: self.namespace.to_owned(),
            backup: Box::new(backup.clone()),
            latest,
        }
    }
}

fn no_full(routine: &str, namespace: &str, time: DateTime<Utc>, first: Option<DateTime<Utc>>) -> ChainError {
    ChainError::NoFull {
        routine: routine.to_owned(),
        namespace: namespace.to_owned(),
        time,
        first,
        suspect: None,
    }
}

/// A run after a full backup.
#[derive(Clone, Copy, Debug)]
struct Step<'a> {
    /// It covers what changed after this…
    from: DateTime<Utc>,
    /// …until this.
    created: DateTime<Utc>,
    /// Its backup of the namespace; none when nothing of it had changed.
    backup: Option<&'a Backup>,
    /// Whether there is no gap between the full backup and it.
    is_reached: bool,
}

/// The runs after `full`, by time: those with a backup of the namespace, and those with backups of `others` only, as far
/// as they are not later than its last one.
fn steps<'a>(
    full: &Backup,
    own: impl IntoIterator<Item = &'a Backup>,
    others: &[&'a Backup],
) -> Vec<Step<'a>> {
    let mut steps: Vec<Step<'a>> = Vec::new();
    let mut previous = full.created;
    for backup in own.into_iter().filter(|backup| backup.created > full.created) {
        let from = floor(backup.metadata.from);
        let from = match (is_linked(backup), has_from(backup)) {
            (true, _) => from,
            (false, true) => from.min(previous),
            (false, false) => previous,
        };
        previous = backup.created;
        steps.push(Step { from, created: backup.created, backup: Some(backup), is_reached: false });
    }
    let own: Vec<_> = steps.iter().map(|step| step.created).collect();
    for other in others.iter().filter(|other| is_linked(other) && other.created <= previous) {
        if !own.contains(&other.created) {
            let from = floor(other.metadata.from);
            steps.push(Step { from, created: other.created, backup: None, is_reached: false });
        }
    }
    // Of several others the one that covers least speaks.
    steps.sort_by_key(|step| (step.created, std::cmp::Reverse(step.from)));
    steps.dedup_by(|next, step| next.backup.is_none() && next.created == step.created);
    let mut covered = full.created;
    let mut unchanged = HashSet::new();
    for step in &mut steps {
        step.is_reached = step.from <= covered || unchanged.contains(&step.from);
        match step.backup {
            Some(_) if step.is_reached => covered = step.created,
            None if step.is_reached => _ = unchanged.insert(step.created),
            _ => {}
        }
    }
    steps
}

impl Step<'_> {
    /// Whether `next` may build on this. A backup does for any moment up to its own. A run without one does only for
    /// what names it: the namespace may as well have failed then, and what was made since builds on an earlier one.
    fn leads_to(&self, next: &Self) -> bool {
        if self.backup.is_some() { self.created >= next.from } else { self.created == next.from }
    }
}

/// The first step of those that lead to `last`, which is not reached; what was made at its `from` is missing.
fn first_broken<'a>(steps: &[Step<'a>], last: usize) -> Step<'a> {
    let mut current = last;
    while let Some(before) = steps[..current].iter().position(|step| step.leads_to(&steps[current])) {
        current = before;
    }
    steps[current]
}

/// The fewest backups that lead from `full` to `last`, which is reached; the oldest first.
fn shortest(full: &Backup, steps: &[Step<'_>], last: usize) -> Vec<Backup> {
    let mut chain = vec![last];
    let mut current = last;
    while steps[current].from > full.created {
        let before = (0..current).filter(|i| steps[*i].is_reached && steps[*i].leads_to(&steps[current]));
        // A backup rather than a run without one, and the one that reaches back furthest. There is one, or `current`
        // would not be reached.
        let Some(before) = before.min_by_key(|i| (steps[*i].backup.is_none(), steps[*i].from)) else { break };
        chain.push(before);
        current = before;
    }
    chain.iter().rev().filter_map(|i| steps[*i].backup.cloned()).collect()
}

/// Whether its metadata says when the backup it builds on was made, and something was left of that.
fn is_linked(backup: &Backup) -> bool {
    has_from(backup) && !backup.metadata.compression.is_empty()
}

fn has_from(backup: &Backup) -> bool {
    backup.metadata.from > DateTime::UNIX_EPOCH
}

/// To the millisecond, as times are in paths; older metadata is more precise.
fn floor(time: DateTime<Utc>) -> DateTime<Utc> {
    time.trunc_subsecs(3)
}

#[cfg(test)]
mod tests;
