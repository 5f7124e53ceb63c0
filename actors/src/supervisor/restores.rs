//! Requests about restores.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use abs_config::{
    Namespace, RestoreRequestSettings, RestoreSettings, RestoreTimestampSettings, Settings, StorageSettings,
};
use abs_engine::catalog::{BackupKind, Catalog, CatalogError};
use abs_engine::{EngineError, FoundBackup, FoundBackups, Link, Metadata, find_backups, namespace_of};
use abs_storage::{ErrorKind, ObjectPath};
use actix::{AsyncContext as _, Handler, ResponseFuture};
use chrono::{DateTime, Utc};
use slog::o;
use tokio::sync::oneshot;

use super::SupervisorActor;
use super::jobs::{Job, Reserved};
use super::system::reach;
use crate::job::restore::{Chain, ReserveNamespaces, Restore, RestoreRequest, RestoreWork, ServiceRestore};
use crate::job::{Cancel, GetSnapshot, RestoreJobActor};
use crate::messages::{
    CancelRestore, GetRestore, JobId, ListRestores, PlanWait, RequestError, RestorePath, RestoreStatus,
    RestoreToTime, Status,
};
use crate::settings;
use crate::shared::Shared;

type Answer = ResponseFuture<Result<JobId, RequestError>>;

fn invalid(e: impl std::fmt::Display) -> RequestError {
    RequestError::Invalid(e.to_string())
}

/// The answer to a request that is refused at once.
fn refuse(error: RequestError) -> Answer {
    Box::pin(async { Err(error) })
}

impl SupervisorActor {
    /// Starts a restore, which plans itself first, and answers when its plan is made, or when the wait is over.
    fn start_restore(
        &mut self,
        routine: Option<String>,
        plan: impl Future<Output = Result<RestoreWork, RequestError>> + Send + 'static,
        wait: PlanWait,
        context: &actix::Context<Self>,
    ) -> Answer {
        let id = self.shared.new_id();
        let (planned, plan_ends) = oneshot::channel();
        let log = match &routine {
            Some(name) => {
                self.shared.log.new(o!("job" => id.0, "routine" => name.clone(), "type" => "restore"))
            }
            None => self.shared.log.new(o!("job" => id.0, "type" => "restore")),
        };
        let reserve = context.address().recipient();
        let request = RestoreRequest { plan: Box::pin(plan), planned, reserve };
        let restore = Restore::Service(ServiceRestore { routine, request: Some(request) });
        let actor = RestoreJobActor::start(&self.shared, id, log, restore, context.address().recipient());
        self.add(id, Job::Restore { actor: actor.clone(), reserved: None });
        Box::pin(async move {
            tokio::select! {
                // A driver that crashed has sent nothing; its job has an end all the same.
                plan = plan_ends => plan.unwrap_or(Ok(()))?,
                () = wait.given_up.cancelled() => {
                    actor.do_send(Cancel);
                    return Err(RequestError::Failed("the request was given up".to_owned()));
                }
                () = tokio::time::sleep(wait.limit) => {}
            }
            Ok(id)
        })
    }

    /// What plans go by; none are made when the service is stopping.
    fn planner(&self) -> Result<Planner, RequestError> {
        match &self.service {
            Some(service) if !self.stopping => {
                let settings = Arc::clone(service.configuration.settings());
                Ok(Planner { settings, shared: Arc::clone(&self.shared) })
            }
            _ => Err(RequestError::Stopping),
        }
    }
}

/// Finds out what there is to restore.
struct Planner {
    settings: Arc<Settings>,
    shared: Arc<Shared>,
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

    /// A restore of one backup, or of all backups of one run.
    async fn path(self, request: RestoreRequestSettings) -> Result<RestoreWork, RequestError> {
        let catalog = self.catalog(&request.storage);
        // If it is a backup of a routine, its retention has to wait. The request may name a folder above or below that of the
        // routine's storage as its root.
        let place = format!("{}/{}", catalog.storage().describe(), request.path);
        let mut reading = Vec::new();
        for name in self.settings.routines.keys().filter(|name| place.split('/').any(|part| part == *name)) {
            reading.push(self.shared.readers.of(name).read_owned().await);
        }
        let chains = chains_in(&catalog, &request).await?;
        Ok(RestoreWork {
            cluster: request.cluster,
            storage: Arc::clone(catalog.storage()),
            policy: request.policy,
            encryption_key: request.encryption_key,
            chains,
            // Of one link each.
            may_lack_bins: false,
            reading,
        })
    }

    /// A restore of a routine's namespaces to a point in time.
    async fn time(self, request: RestoreTimestampSettings) -> Result<RestoreWork, RequestError> {
        let catalog = self.catalog(&request.storage);
        let configured = self.settings.routines.get(&request.routine);
        let may_lack_bins = configured.is_some_and(|routine| !routine.bins.is_empty());
        let configured = configured.map(|routine| &routine.namespaces[..]).unwrap_or_default();
        let reading = self.shared.readers.of(&request.routine).read_owned().await;
        let chains = chains(&catalog, &request, configured).await?;
        Ok(RestoreWork {
            cluster: request.cluster,
            storage: Arc::clone(catalog.storage()),
            policy: request.policy,
            encryption_key: request.encryption_key,
            chains,
            may_lack_bins,
            reading: vec![reading],
        })
    }
}

impl Handler<RestorePath> for SupervisorActor {
    type Result = Answer;

    fn handle(&mut self, message: RestorePath, context: &mut Self::Context) -> Self::Result {
        let RestorePath { request, wait, .. } = message;
        let planned = self.planner().and_then(|planner| {
            let request = request.check(&planner.settings).map_err(invalid)?;
            Ok((planner, request))
        });
        match planned {
            Ok((planner, request)) => self.start_restore(None, planner.path(request), wait, context),
            Err(e) => refuse(e),
        }
    }
}

impl Handler<RestoreToTime> for SupervisorActor {
    type Result = Answer;

    fn handle(&mut self, message: RestoreToTime, context: &mut Self::Context) -> Self::Result {
        let RestoreToTime { request, wait } = message;
        let planned = self.planner().and_then(|planner| {
            let request = request.check(&planner.settings).map_err(invalid)?;
            Ok((planner, request))
        });
        match planned {
            Ok((planner, request)) => {
                let routine = request.routine.clone();
                self.start_restore(Some(routine), planner.time(request), wait, context)
            }
            Err(e) => refuse(e),
        }
    }
}

impl Handler<ReserveNamespaces> for SupervisorActor {
    type Result = Result<(), RequestError>;

    fn handle(&mut self, reserve: ReserveNamespaces, _: &mut Self::Context) -> Self::Result {
        let ReserveNamespaces { id, cluster, namespaces } = reserve;
        let wanted = Reserved { cluster, namespaces };
        for job in self.jobs.values() {
            if let Job::Run { settings, .. } = job
                && let Some(namespace) = wanted.conflict(settings, &self.shared.clusters)
            {
                return Err(RequestError::Conflict(format!(
                    "namespace {namespace} is being backed up by routine {}: wait for the backup, or cancel it",
                    settings.name
                )));
            }
        }
        if let Some(Job::Restore { reserved, .. }) = self.jobs.get_mut(&id) {
            *reserved = Some(wanted);
        }
        Ok(())
    }
}

/// What brings each namespace of a routine back to a time; with a map of namespaces, the one that it names.
async fn chains(
    catalog: &Catalog,
    request: &abs_config::RestoreTimestampSettings,
    configured: &[Namespace],
) -> Result<Vec<Chain>, RequestError> {
    let (routine, time) = (&request.routine, DateTime::<Utc>::from(request.time.to_system_time()));
    let mut namespaces = catalog.namespaces_at(routine, time).await.map_err(invalid)?;
    if namespaces.is_empty() {
        let all = catalog.list(routine, BackupKind::Full, ..).await.map_err(invalid)?.backups;
        let suspect = all.into_iter().find(|full| !full.is_trusted()).map(|full| full.key);
        return Err(invalid(CatalogError::NoBackup { routine: routine.clone(), time, suspect }));
    }
    if !configured.is_empty() {
        // What the routine backed up once and does no more is not wanted; what its last full backup failed to take is.
        let last = catalog.last_run(routine, BackupKind::Full, ..=time).await.map_err(invalid)?;
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
    let chains = catalog.chains(routine, &namespaces, time).await.map_err(invalid)?;
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
            links: backups.into_iter().map(|backup| Link::from(backup.key)).collect(),
            warnings,
        });
    }
    Ok(planned)
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
            let key = settings::key(&request.policy.encryption, request.encryption_key.as_ref());
            let key = key.await.map_err(invalid)?;
            namespace_of(storage, &folder, key).await.map_err(|e| unreadable(&e))?
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
        chains.push(Chain { source, links: vec![folder.clone().into()], records, warnings: Vec::new() });
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
    let given = policy.encryption.mode().to_string();
    let made = &metadata.encryption;
    if made.is_empty() || made.eq_ignore_ascii_case(&given) {
        return Ok(());
    }
    Err(RequestError::Invalid(format!(
        "policy.encryption: is {given}, but metadata.yaml of {folder} says that the backup's is {made}"
    )))
}

impl Handler<GetRestore> for SupervisorActor {
    type Result = ResponseFuture<Result<RestoreStatus, RequestError>>;

    fn handle(&mut self, GetRestore(id): GetRestore, _: &mut Self::Context) -> Self::Result {
        let ended = self.ended_restores.get(&id).cloned();
        let asked = match self.jobs.get(&id) {
            Some(Job::Restore { actor, .. }) => Some(actor.send(GetSnapshot::new())),
            _ => None,
        };
        Box::pin(async move {
            match (ended, asked) {
                (Some(result), _) => Ok(RestoreStatus::from(&*result)),
                (None, Some(asked)) => asked.await.map(RestoreStatus::from).map_err(|_| {
                    RequestError::Failed(format!("restore job {id} does not answer: try again"))
                }),
                (None, None) => Err(RequestError::not_found("restore job", id)),
            }
        })
    }
}

impl Handler<ListRestores> for SupervisorActor {
    type Result = ResponseFuture<BTreeMap<JobId, RestoreStatus>>;

    fn handle(&mut self, wanted: ListRestores, _: &mut Self::Context) -> Self::Result {
        let mut all: BTreeMap<_, _> =
            self.ended_restores.iter().map(|(id, result)| (*id, RestoreStatus::from(&**result))).collect();
        let mut asked = Vec::new();
        for (id, job) in &self.jobs {
            if let Job::Restore { actor, .. } = job {
                asked.push((*id, actor.send(GetSnapshot::new())));
            }
        }
        Box::pin(async move {
            for (id, answer) in asked {
                // One that falls at this moment is listed the next time, as failed.
                if let Ok(snapshot) = answer.await {
                    all.insert(id, snapshot.into());
                }
            }
            all.retain(|_, status| {
                let began = status.job.started.timestamp_millis();
                wanted.from.is_none_or(|from| from <= began)
                    && wanted.to.is_none_or(|to| began <= to)
                    && wanted.status.lets_through(status.state)
            });
            all
        })
    }
}

impl Handler<CancelRestore> for SupervisorActor {
    type Result = Result<(), RequestError>;

    fn handle(&mut self, CancelRestore(id): CancelRestore, _: &mut Self::Context) -> Self::Result {
        match self.jobs.get(&id) {
            Some(job @ Job::Restore { .. }) => {
                job.cancel();
                Ok(())
            }
            _ => match self.ended_restores.get(&id).map(|result| result.end.status()) {
                // As often as one likes.
                Some(Status::Canceled) => Ok(()),
                Some(_) => Err(RequestError::Invalid(format!("restore job {id} has ended"))),
                None => Err(RequestError::not_found("restore job", id)),
            },
        }
    }
}
