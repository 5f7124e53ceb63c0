//! Finds out what there is to restore.

use std::io;
use std::sync::Arc;

use abs_config::{
    Namespace, RestoreRequestSettings, RestoreSettings, RestoreTimestampSettings, Settings, StorageSettings,
};
use abs_engine::catalog::{BackupKind, Catalog, CatalogError};
use abs_engine::{EngineError, FoundBackup, FoundBackups, Link, Metadata, find_backups, namespace_of};
use abs_storage::{ErrorKind, ObjectPath};
use chrono::{DateTime, Utc};

use super::backups::unlisted;
use super::jobs::Reserved;
use super::system::reach;
use crate::job::restore::{Plan, RestoreWork};
use crate::journal::{Chain, RestoreOrder};
use crate::messages::RequestError;
use crate::settings;
use crate::shared::Shared;

fn invalid(e: impl std::fmt::Display) -> RequestError {
    RequestError::Invalid(e.to_string())
}

/// Finds out what there is to restore.
#[derive(Clone)]
pub(super) struct Planner {
    pub settings: Arc<Settings>,
    pub shared: Arc<Shared>,
}

/// A request that was checked.
pub(super) struct Asked {
    planner: Planner,
    request: Request,
}

enum Request {
    Path(Box<RestoreRequestSettings>),
    Time(Box<RestoreTimestampSettings>),
}

impl Planner {
    /// Checks a request.
    pub(super) fn ask(self, order: &RestoreOrder) -> Result<Asked, RequestError> {
        let request = match order {
            RestoreOrder::Path(request) => {
                Request::Path(Box::new(request.check(&self.settings).map_err(invalid)?))
            }
            RestoreOrder::Time(request) => {
                Request::Time(Box::new(request.check(&self.settings).map_err(invalid)?))
            }
        };
        Ok(Asked { planner: self, request })
    }
}

impl Asked {
    /// What the restore writes to, when it restores these chains.
    pub(super) fn reserves(&self, chains: &[Chain]) -> Reserved {
        let (cluster, policy) = match &self.request {
            Request::Path(request) => (&request.cluster, &request.policy),
            Request::Time(request) => (&request.cluster, &request.policy),
        };
        let namespaces = chains.iter().map(|chain| match &policy.namespace {
            Some(map) => map.destination.to_string(),
            None => chain.source.clone(),
        });
        let namespaces = if policy.validate_only { Vec::new() } else { namespaces.collect() };
        Reserved { cluster: Arc::clone(cluster), namespaces }
    }

    /// Finds out what there is to restore, unless an earlier process has planned it.
    pub(super) fn plan(self, planned: Option<Vec<Chain>>) -> Plan {
        let Self { planner, request } = self;
        Box::new(move || {
            let (planner, planned) = (planner.clone(), planned.clone());
            match &request {
                Request::Path(request) => Box::pin(planner.path((**request).clone(), planned)),
                Request::Time(request) => Box::pin(planner.time((**request).clone(), planned)),
            }
        })
    }
}

impl Planner {
    /// The catalog of a storage. One that only a request names is not remembered.
    fn catalog(&self, storage: &Arc<StorageSettings>) -> Catalog {
        if self.settings.storage.values().any(|known| known == storage) {
            self.shared.catalogs.of(storage)
        } else {
            Catalog::new(abs_storage::open(storage))
        }
    }

    /// A restore of one backup, or of all backups of one run; of `planned` if an earlier process planned it.
    async fn path(
        self,
        request: RestoreRequestSettings,
        planned: Option<Vec<Chain>>,
    ) -> Result<RestoreWork, RequestError> {
        let catalog = self.catalog(&request.storage);
        // If it is a backup of a routine, its retention has to wait. The request may name a folder above or below that of the
        // routine's storage as its root.
        let place = format!("{}/{}", catalog.storage().describe(), request.path);
        let mut reading = Vec::new();
        for name in self.settings.routines.keys().filter(|name| place.split('/').any(|part| part == *name)) {
            reading.push(self.shared.readers.of(name).read_owned().await);
        }
        let chains = match planned {
            Some(chains) => chains,
            None => chains_in(&catalog, &request).await?,
        };
        Ok(RestoreWork {
            cluster: request.cluster,
            storage: Arc::clone(catalog.storage()),
            policy: request.policy,
            keys: request.keys,
            chains,
            // Of one link each.
            may_lack_bins: false,
            reading,
        })
    }

    /// A restore of a routine's namespaces to a point in time; of `planned` if an earlier process planned it.
    async fn time(
        self,
        request: RestoreTimestampSettings,
        planned: Option<Vec<Chain>>,
    ) -> Result<RestoreWork, RequestError> {
        let catalog = self.catalog(&request.storage);
        let configured = self.settings.routines.get(&request.routine);
        let may_lack_bins = configured.is_some_and(|routine| !routine.bins.is_empty());
        let configured = configured.map(|routine| &routine.namespaces[..]).unwrap_or_default();
        let reading = self.shared.readers.of(&request.routine).read_owned().await;
        let chains = match planned {
            Some(chains) => chains,
            None => chains(&catalog, &request, configured).await?,
        };
        Ok(RestoreWork {
            cluster: request.cluster,
            storage: Arc::clone(catalog.storage()),
            policy: request.policy,
            keys: request.keys,
            chains,
            may_lack_bins,
            reading: vec![reading],
        })
    }
}

/// What brings each namespace of a routine back to a time; with a map of namespaces, the one that it names.
async fn chains(
    catalog: &Catalog,
    request: &abs_config::RestoreTimestampSettings,
    configured: &[Namespace],
) -> Result<Vec<Chain>, RequestError> {
    let (routine, time) = (&request.routine, DateTime::<Utc>::from(request.time.to_system_time()));
    let mut namespaces = catalog.namespaces_at(routine, time).await.map_err(unlisted)?;
    if namespaces.is_empty() {
        let all = catalog.list(routine, BackupKind::Full, ..).await.map_err(unlisted)?.backups;
        let suspect = all.into_iter().find(|full| !full.is_trusted()).map(|full| full.key);
        return Err(invalid(CatalogError::NoBackup { routine: routine.clone(), time, suspect }));
    }
    if !configured.is_empty() {
        // What the routine backed up once and does no more is not wanted; what its last full backup failed to take is.
        let last = catalog.last_run(routine, BackupKind::Full, ..=time).await.map_err(unlisted)?;
        namespaces.retain(|name| {
            configured.iter().any(|wanted| wanted.as_str() == name)
                || last.iter().any(|full| full.namespace() == name)
        });
    }
    if let Some(map) = &request.policy.namespace {
        if !namespaces.iter().any(|name| name == map.source.as_str()) {
            return Err(RequestError::Invalid(format!(
                "policy.namespace.source: routine {routine} has no full backup of namespace {} at that time, but of {}",
                map.source,
                namespaces.join(", ")
            )));
        }
        namespaces.retain(|name| name == map.source.as_str());
    }
    let chains = catalog.chains(routine, &namespaces, time).await.map_err(unlisted)?;
    let mut planned = Vec::new();
    for (source, chain) in chains {
        let chain = chain.map_err(invalid)?;
        let passed_over = chain.passed_over.iter().map(|folder| {
            format!(
                "{folder} was written later than what is restored, but is left out, because its time is wrong (clock-suspect): \
                 restore it by its path"
            )
        });
        let warnings = passed_over.collect();
        let backups: Vec<_> = chain.backups().rev().cloned().collect();
        for backup in &backups {
            check_encryption(&request.policy, &backup.key, &backup.metadata)?;
        }
        planned.push(Chain {
            source,
            records: Some(backups.iter().map(|backup| backup.metadata.record_count).sum()),
            links: backups.into_iter().map(|backup| described(backup.key)).collect(),
            warnings,
        });
    }
    Ok(planned)
}

/// The link of a backup that has a metadata.yaml.
fn described(folder: ObjectPath) -> Link {
    Link { folders: vec![folder], is_described: true }
}

/// What there is to restore in a folder: one backup, all backups of one run, or files without a metadata.yaml.
async fn chains_in(catalog: &Catalog, request: &RestoreRequestSettings) -> Result<Vec<Chain>, RequestError> {
    let folder = ObjectPath::new(&request.path);
    let folder = folder.map_err(|e| RequestError::Invalid(format!("backup-data-path: {e}")))?;
    let storage = catalog.storage();
    reach(catalog).await?;
    let FoundBackups { backups: found, bare } =
        find_backups(&**storage, &folder).await.map_err(|e| unreadable(&e))?;
    let map = request.policy.namespace.as_ref();
    if found.is_empty() {
        let source = if let Some(map) = map {
            map.source.to_string()
        } else {
            let keys = settings::key_ring(&request.keys).await.map_err(invalid)?;
            namespace_of(storage, &folder, &keys).await.map_err(|e| unreadable(&e))?
        };
        return Ok(vec![Chain { source, links: vec![folder.into()], records: None, warnings: Vec::new() }]);
    }
    let mut chains: Vec<Chain> = Vec::new();
    for FoundBackup { folder, metadata, .. } in &found {
        if metadata.created != found[0].metadata.created {
            return Err(RequestError::Invalid(format!(
                "backup-data-path: {} and {folder} are backups of different times: name the folder of one, or of one run",
                found[0].folder
            )));
        }
        if let Some(other) = chains.iter().find(|chain| chain.source == metadata.namespace) {
            return Err(RequestError::Invalid(format!(
                "backup-data-path: {} and {folder} are both backups of namespace {}: name the folder of one",
                other.links[0].folders[0], metadata.namespace
            )));
        }
        check_encryption(&request.policy, folder, metadata)?;
        let (source, records) = (metadata.namespace.clone(), Some(metadata.record_count));
        chains.push(Chain { source, links: vec![described(folder.clone())], records, warnings: Vec::new() });
    }
    if let Some(bare) = bare.first() {
        return Err(RequestError::Invalid(format!(
            "backup-data-path: {bare} has files but no metadata.yaml, {} has one: name the folder of one backup",
            found[0].folder
        )));
    }
    if let Some(map) = map {
        let names: Vec<_> = chains.iter().map(|chain| chain.source.clone()).collect();
        chains.retain(|chain| chain.source == map.source.as_str());
        if chains.is_empty() {
            return Err(RequestError::Invalid(format!(
                "policy.namespace.source: {} is not the namespace of the backup, which is {}",
                map.source,
                names.join(", ")
            )));
        }
    }
    Ok(chains)
}

/// The answer when what is to be restored cannot be read.
fn unreadable(error: &EngineError) -> RequestError {
    match error {
        EngineError::Deleting { .. } => RequestError::Conflict(format!("backup-data-path: {error}")),
        EngineError::Storage(e) => match &e.kind {
            ErrorKind::Io(why) if why.kind() != io::ErrorKind::InvalidFilename => {
                RequestError::Failed(error.to_string())
            }
            ErrorKind::Unavailable(_) => RequestError::Failed(error.to_string()),
            _ => RequestError::Invalid(format!("backup-data-path: {error}")),
        },
        _ => RequestError::Invalid(format!("backup-data-path: {error}")),
    }
}

/// Checks that the policy decrypts as its metadata.yaml says the backup was encrypted; older ones do not say it.
fn check_encryption(
    policy: &RestoreSettings,
    folder: &ObjectPath,
    metadata: &Metadata,
) -> Result<(), RequestError> {
    let made = &metadata.encryption;
    if made.is_empty() || policy.encryption.reads(made) {
        return Ok(());
    }
    let given = policy.encryption.modes();
    Err(RequestError::Invalid(format!(
        "policy.encryption: is {given}, but metadata.yaml of {folder} says that the backup's is {made}"
    )))
}
