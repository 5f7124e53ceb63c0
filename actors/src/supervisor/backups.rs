//! Requests about backups.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use abs_config::RoutineSettings;
use abs_engine::catalog::{BackupKind, CatalogError};
use abs_storage::ObjectPath;
use actix::dev::ToEnvelope;
use actix::{Context, Handler, Message, ResponseFuture};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

use super::SupervisorActor;
use super::system::reach;
use crate::messages::{
    BackupLists, CancelBackups, DeleteBackup, GetClusterConfiguration, GetRoutineState, ListBackups,
    PinBackup, RequestError, RoutineBackups, RoutineState, TriggerBackup,
};
use crate::routine::{CancelRuns, Delete, GetState, Pin, RoutineActor, Trigger};
use crate::shared::Shared;

/// How many routines of a storage are listed at the same time.
const ROUTINES_AT_ONCE: usize = 8;

type Answer<T> = ResponseFuture<Result<T, RequestError>>;

fn refused<T: 'static>(error: RequestError) -> Answer<T> {
    Box::pin(std::future::ready(Err(error)))
}

/// The actor fell between the question and its answer; the supervisor sets it up again.
fn fallen(routine: &str) -> RequestError {
    RequestError::Failed(format!("routine {routine} does not answer: try again"))
}

impl Handler<TriggerBackup> for SupervisorActor {
    type Result = Answer<()>;

    fn handle(&mut self, message: TriggerBackup, _: &mut Self::Context) -> Self::Result {
        let TriggerBackup { routine, kind, delay } = message;
        if self.stopping {
            return refused(RequestError::Stopping);
        }
        match self.routine(&routine) {
            Ok(found) => {
                let answer = found.actor.send(Trigger { kind, delay });
                Box::pin(async move { answer.await.map_err(|_| fallen(&routine))? })
            }
            Err(e) => refused(e),
        }
    }
}

impl Handler<CancelBackups> for SupervisorActor {
    type Result = Result<(), RequestError>;

    fn handle(&mut self, message: CancelBackups, _: &mut Self::Context) -> Self::Result {
        self.routine(&message.routine)?.actor.do_send(CancelRuns);
        Ok(())
    }
}

impl Handler<PinBackup> for SupervisorActor {
    type Result = Answer<()>;

    fn handle(&mut self, message: PinBackup, _: &mut Self::Context) -> Self::Result {
        let PinBackup { routine, timestamp, pinned } = message;
        self.ask(routine, timestamp, |created| Pin { created, pinned })
    }
}

impl Handler<DeleteBackup> for SupervisorActor {
    type Result = Answer<Vec<ObjectPath>>;

    fn handle(&mut self, message: DeleteBackup, _: &mut Self::Context) -> Self::Result {
        let DeleteBackup { routine, timestamp, cascade, dry_run } = message;
        self.ask(routine, timestamp, |created| Delete { created, cascade, dry_run })
    }
}

impl SupervisorActor {
    /// Asks a routine about the backups of a time.
    fn ask<M, T>(
        &self,
        routine: String,
        timestamp: i64,
        message: impl FnOnce(DateTime<Utc>) -> M,
    ) -> Answer<T>
    where
        M: Message<Result = Result<T, RequestError>> + Send + 'static,
        T: Send + 'static,
        RoutineActor: Handler<M>,
        Context<RoutineActor>: ToEnvelope<RoutineActor, M>,
    {
        if self.stopping {
            return refused(RequestError::Stopping);
        }
        let found = match self.routine(&routine) {
            Ok(found) => found,
            Err(e) => return refused(e),
        };
        let Some(created) = DateTime::<Utc>::from_timestamp_millis(timestamp) else {
            let text = format!("timestamp: {timestamp} is beyond all times");
            return refused(RequestError::Invalid(text));
        };
        let answer = found.actor.send(message(created));
        Box::pin(async move { answer.await.map_err(|_| fallen(&routine))? })
    }
}

impl Handler<GetRoutineState> for SupervisorActor {
    type Result = Answer<RoutineState>;

    fn handle(
        &mut self,
        GetRoutineState { routine }: GetRoutineState,
        _: &mut Self::Context,
    ) -> Self::Result {
        match self.routine(&routine) {
            Ok(found) => {
                let answer = found.actor.send(GetState);
                Box::pin(async move { answer.await.map_err(|_| fallen(&routine)) })
            }
            Err(e) => refused(e),
        }
    }
}

impl Handler<ListBackups> for SupervisorActor {
    type Result = Answer<BackupLists>;

    fn handle(&mut self, message: ListBackups, _: &mut Self::Context) -> Self::Result {
        let ListBackups { routine, kind, from, to, limit } = message;
        let Some(service) = &self.service else { return refused(RequestError::Stopping) };
        let config = Arc::clone(&service.configuration.snapshot().config);
        let wanted: Vec<_> = match &routine {
            Some(name) => match self.routine(name) {
                Ok(found) => vec![Arc::clone(&found.settings)],
                Err(e) => return refused(e),
            },
            None => self.routines.values().map(|routine| Arc::clone(&routine.settings)).collect(),
        };
        let mut storages: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for settings in wanted {
            storages.entry(settings.storage_name.clone()).or_default().push(settings);
        }
        // A time beyond all times is a bound, too.
        let time = |ms| DateTime::from_timestamp_millis(ms).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let bound = |ms: Option<i64>| ms.map_or(Bound::Unbounded, |ms| Bound::Included(time(ms)));
        let range = (bound(from), bound(to));
        let shared = Arc::clone(&self.shared);
        let listing = self.shared.runtime.spawn(async move {
            let deadline = Instant::now() + limit;
            // All storages at the same time: one that does not answer hides no other.
            let lists = storages.into_iter().map(|(name, routines)| {
                let (shared, storage) = (&shared, config.storage.get(&name).cloned().unwrap_or_default());
                async move { list_storage(shared, &storage, routines, kind, range, deadline).await }
            });
            let mut answer = BackupLists::default();
            for (routine, list) in join_all(lists).await.into_iter().flatten() {
                match list {
                    Ok(backups) => {
                        answer.routines.insert(routine, backups);
                    }
                    Err(e) => {
                        answer.unavailable.insert(routine, e);
                    }
                }
            }
            match answer.unavailable.first_key_value() {
                Some((_, error)) if answer.routines.is_empty() => return Err(error.clone()),
                _ => {}
            }
            for (routine, error) in &answer.unavailable {
                slog::warn!(shared.log, "the backups cannot be listed"; "routine" => routine, "error" => %error);
            }
            Ok(answer)
        });
        Box::pin(async move { listing.await.unwrap_or_else(|e| Err(lost(&e))) })
    }
}

/// Lists the backups of the routines of one storage. A listing that takes too long continues, so that the next one is quicker.
async fn list_storage(
    shared: &Shared,
    storage: &abs_config::Storage,
    routines: Vec<Arc<RoutineSettings>>,
    kind: BackupKind,
    range: (Bound<DateTime<Utc>>, Bound<DateTime<Utc>>),
    deadline: Instant,
) -> Vec<(String, Result<RoutineBackups, RequestError>)> {
    let Some(first) = routines.first() else { return Vec::new() };
    // A storage that does not answer is asked once, not by each of its routines.
    let catalog = shared.catalogs.of(&first.storage);
    let late = || {
        let place = catalog.storage().describe();
        RequestError::Failed(format!("{place} takes too long to list the backups: try again"))
    };
    let reached = timeout_at(deadline, reach(&catalog)).await.unwrap_or_else(|_| Err(late()));
    let lists = routines.into_iter().map(|settings| {
        let (catalog, reached, late) = (catalog.clone(), reached.clone(), &late);
        async move {
            let name = settings.name.clone();
            if let Err(e) = reached {
                return (name, Err(e));
            }
            let listing =
                shared.runtime.spawn(async move { catalog.list(&settings.name, kind, range).await });
            let list = match timeout_at(deadline, listing).await {
                Ok(Ok(Ok(list))) => list,
                Ok(Ok(Err(e))) => return (name, Err(unlisted(e))),
                Ok(Err(e)) => return (name, Err(lost(&e))),
                Err(_) => return (name, Err(late())),
            };
            for unreadable in &list.unreadable {
                slog::warn!(shared.log, "a backup cannot be listed"; "routine" => &name, "error" => %unreadable);
            }
            (name, Ok(RoutineBackups { storage: storage.clone(), backups: list.backups }))
        }
    });
    stream::iter(lists.collect::<Vec<_>>()).buffer_unordered(ROUTINES_AT_ONCE).collect().await
}

impl Handler<GetClusterConfiguration> for SupervisorActor {
    type Result = Answer<Vec<(String, Vec<u8>)>>;

    fn handle(&mut self, message: GetClusterConfiguration, _: &mut Self::Context) -> Self::Result {
        let GetClusterConfiguration { routine, timestamp } = message;
        let catalog = match self.routine(&routine) {
            Ok(found) => self.shared.catalogs.of(&found.settings.storage),
            Err(e) => return refused(e),
        };
        let Some(time) = DateTime::<Utc>::from_timestamp_millis(timestamp) else {
            return refused(RequestError::Invalid(format!("timestamp: {timestamp} is beyond all times")));
        };
        let reading = self.shared.runtime.spawn(async move { catalog.configurations(&routine, time).await });
        Box::pin(async move { worked(reading.await) })
    }
}

fn lost(error: &tokio::task::JoinError) -> RequestError {
    RequestError::Failed(format!("a worker failed: {error}"))
}

pub(super) fn unlisted(error: CatalogError) -> RequestError {
    match error {
        CatalogError::Storage(e) => RequestError::Failed(e.to_string()),
        e => RequestError::Invalid(e.to_string()),
    }
}

/// The result of work on the runtime.
pub(super) fn worked<T>(
    joined: Result<Result<T, CatalogError>, tokio::task::JoinError>,
) -> Result<T, RequestError> {
    joined.map_err(|e| lost(&e))?.map_err(unlisted)
}
