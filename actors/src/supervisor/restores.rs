//! Requests about restores.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use abs_config::{Namespace, RestoreRequest, RestoreTimestampRequest, Settings, StorageSettings};
use abs_engine::catalog::{BackupKind, Catalog, CatalogError, Chain};
use abs_engine::{METADATA_FILE, Metadata};
use abs_storage::{ErrorKind, ObjectPath};
use actix::{
    ActorFutureExt as _, AsyncContext as _, Handler, ResponseActFuture, ResponseFuture, WrapFuture as _,
};
use chrono::{DateTime, Utc};

use super::SupervisorActor;
use super::system::reach;
use crate::job::Job;
use crate::messages::{
    CancelRestore, GetRestore, JobId, JobState, ListRestores, RequestError, RestorePath, RestoreStatus,
    RestoreToTime,
};
use crate::restore_job::{GetStatus, RestoreJobActor};
use crate::restore_run::{Piece, RestoreWork};
use crate::shared::Shared;

/// The largest metadata.yaml that is read, in bytes.
const METADATA_LIMIT: usize = 1 << 20;

type Answer = ResponseActFuture<SupervisorActor, Result<JobId, RequestError>>;

fn invalid(e: impl std::fmt::Display) -> RequestError {
    RequestError::Invalid(e.to_string())
}

impl SupervisorActor {
    /// Finds out on the runtime what there is to restore, then starts the job.
    fn plan_restore(
        &self,
        plan: impl Future<Output = Result<RestoreWork, RequestError>> + Send + 'static,
    ) -> Answer {
        let planning = self.shared.runtime.spawn(plan);
        Box::pin(planning.into_actor(self).map(|planned, actor, context| {
            let planned =
                planned.unwrap_or_else(|e| Err(RequestError::Failed(format!("a worker failed: {e}"))));
            // What was looked for kept retention away.
            let work = planned.inspect_err(|_| actor.restore_ended())?;
            if actor.stopping {
                return Err(RequestError::Stopping);
            }
            let id = actor.shared.new_id();
            let job = RestoreJobActor::of_service(&actor.shared, id, work, context.address());
            actor.add(id, Job::Restore(job));
            Ok(id)
        }))
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

    /// A restore of one backup.
    async fn path(self, request: RestoreRequest) -> Result<RestoreWork, RequestError> {
        let request = request.check(&self.settings).map_err(invalid)?;
        let catalog = self.catalog(&request.storage);
        // If it is a backup of a routine, its retention has to wait.
        let routine = request.path.split('/').next().unwrap_or_default();
        let reading = self.shared.readers.of(routine).read_owned().await;
        let folder = ObjectPath::new(&request.path);
        let folder = folder.map_err(|e| RequestError::Invalid(format!("backup-data-path: {e}")))?;
        let metadata = metadata_of(&catalog, &folder).await?;
        if let Some(map) = &request.policy.namespace
            && map.source.as_str() != metadata.namespace
        {
            return Err(RequestError::Invalid(format!(
                "policy.namespace.source: {} is not the namespace of the backup, which is {}",
                map.source, metadata.namespace
            )));
        }
        Ok(RestoreWork {
            routine: None,
            cluster: request.cluster,
            storage: Arc::clone(catalog.storage()),
            policy: request.policy,
            encryption_key: request.encryption_key,
            chains: vec![vec![Piece { folder, metadata: Arc::new(metadata) }]],
            reorder: false,
            reading: Some(reading),
        })
    }

    /// A restore of a routine's namespaces to a point in time.
    async fn time(self, request: RestoreTimestampRequest) -> Result<RestoreWork, RequestError> {
        let request = request.check(&self.settings).map_err(invalid)?;
        let catalog = self.catalog(&request.storage);
        let configured = self.settings.routines.get(&request.routine);
        let configured = configured.map(|routine| &routine.namespaces[..]).unwrap_or_default();
        let reading = self.shared.readers.of(&request.routine).read_owned().await;
        let chains = chains(&catalog, &request, configured).await?;
        Ok(RestoreWork {
            routine: Some(request.routine),
            cluster: request.cluster,
            storage: Arc::clone(catalog.storage()),
            policy: request.policy,
            encryption_key: request.encryption_key,
            chains,
            reorder: request.reorder,
            reading: Some(reading),
        })
    }
}

impl Handler<RestorePath> for SupervisorActor {
    type Result = Answer;

    fn handle(&mut self, message: RestorePath, _: &mut Self::Context) -> Self::Result {
        let planner = self.planner();
        self.plan_restore(async move { planner?.path(message.request).await })
    }
}

impl Handler<RestoreToTime> for SupervisorActor {
    type Result = Answer;

    fn handle(&mut self, message: RestoreToTime, _: &mut Self::Context) -> Self::Result {
        let planner = self.planner();
        self.plan_restore(async move { planner?.time(message.request).await })
    }
}

/// What brings each namespace of a routine back to a time; with a map of namespaces, the one that it names.
async fn chains(
    catalog: &Catalog,
    request: &abs_config::RestoreTimestampSettings,
    configured: &[Namespace],
) -> Result<Vec<Vec<Piece>>, RequestError> {
    let (routine, time) = (&request.routine, DateTime::<Utc>::from(request.time.to_system_time()));
    let mut namespaces = catalog.namespaces_at(routine, time).await.map_err(invalid)?;
    if namespaces.is_empty() {
        return Err(invalid(CatalogError::NoBackup { routine: routine.clone(), time }));
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
    let pieces = |chain: Chain| {
        chain
            .backups()
            .map(|backup| Piece { folder: backup.key.clone(), metadata: Arc::clone(&backup.metadata) })
            .collect()
    };
    chains.into_values().map(|chain| chain.map(pieces).map_err(invalid)).collect()
}

/// The metadata of the backup in a folder.
async fn metadata_of(catalog: &Catalog, folder: &ObjectPath) -> Result<Metadata, RequestError> {
    let path = folder.join(METADATA_FILE).map_err(invalid)?;
    let storage = catalog.storage();
    reach(catalog).await?;
    let text = storage.get(&path, METADATA_LIMIT).await.map_err(|e| match e.kind {
        ErrorKind::NotFound => RequestError::Invalid(format!(
            "backup-data-path: {} holds no backup: there is no {path}",
            storage.describe()
        )),
        ErrorKind::Io(ref why) if why.kind() != io::ErrorKind::InvalidFilename => {
            RequestError::Failed(e.to_string())
        }
        ErrorKind::Unavailable(_) => RequestError::Failed(e.to_string()),
        _ => RequestError::Invalid(format!("backup-data-path: {e}")),
    })?;
    Metadata::from_yaml(&text).map_err(|e| RequestError::Invalid(format!("backup-data-path: {path}: {e}")))
}

impl Handler<GetRestore> for SupervisorActor {
    type Result = ResponseFuture<Result<RestoreStatus, RequestError>>;

    fn handle(&mut self, GetRestore(id): GetRestore, _: &mut Self::Context) -> Self::Result {
        let ended = self.ended_restores.get(&id).cloned();
        let asked = match self.jobs.get(&id) {
            Some(Job::Restore(actor)) => Some(actor.send(GetStatus { is_last: false })),
            _ => None,
        };
        Box::pin(async move {
            match (ended, asked) {
                (Some(status), _) => Ok(status),
                (None, Some(asked)) => asked.await.map_err(|_| {
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
        let mut all = self.ended_restores.clone();
        let mut asked = Vec::new();
        for (id, job) in &self.jobs {
            if let Job::Restore(actor) = job {
                asked.push((*id, actor.send(GetStatus { is_last: false })));
            }
        }
        Box::pin(async move {
            for (id, answer) in asked {
                // One that falls at this moment is listed the next time, as failed.
                if let Ok(status) = answer.await {
                    all.insert(id, status);
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
            Some(job @ Job::Restore(_)) => {
                job.cancel();
                Ok(())
            }
            _ => match self.ended_restores.get(&id).map(|status| status.state) {
                // As often as one likes.
                Some(JobState::Canceled) => Ok(()),
                Some(_) => Err(RequestError::Invalid(format!("restore job {id} has ended"))),
                None => Err(RequestError::not_found("restore job", id)),
            },
        }
    }
}
