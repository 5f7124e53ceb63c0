//! Requests about the service itself.

use std::sync::Arc;
use std::time::Duration;

use abs_engine::catalog::Catalog;
use abs_storage::{ErrorKind, Storage, StorageError};
use actix::{
    ActorFutureExt as _, Handler, MessageResult, ResponseActFuture, ResponseFuture, WrapFuture as _,
};
use futures_util::future::join_all;
use slog::{info, warn};
use tokio::time::timeout;

use super::SupervisorActor;
use super::jobs::Job;
use crate::messages::{CheckReadiness, Readiness, RenderMetrics, RequestError, Shutdown, Subscribe};
use crate::routine::Release;
use crate::shared::{PROBE, Shared};

/// How long canceled jobs may take to clean up at the end: a storage that does not answer must not hold up the system.
const CLEAN_UP: Duration = Duration::from_secs(30);

/// How long after a probe that failed the second one is made.
const SECOND_PROBE: Duration = Duration::from_millis(200);

/// How long routines may take at the end to be given up.
const RELEASE: Duration = Duration::from_secs(10);

impl Handler<CheckReadiness> for SupervisorActor {
    type Result = ResponseFuture<Readiness>;

    fn handle(&mut self, _: CheckReadiness, _: &mut Self::Context) -> Self::Result {
        let stopping = self.stopping;
        let Some(service) = &self.service else {
            return Box::pin(async move { Readiness { stopping, ..Readiness::default() } });
        };
        let settings = Arc::clone(service.configuration.settings());
        let shared = Arc::clone(&self.shared);
        let probing = self.shared.runtime.spawn(async move {
            // All at the same time: the slowest of them is waited for, not their sum.
            let storage = settings.storage.iter().map(|(name, storage)| {
                let (name, storage) = (name.clone(), shared.catalogs.of(storage));
                tokio::spawn(async move { (name, within(probe_storage(&storage)).await) })
            });
            let storage: Vec<_> = storage.collect();
            let clusters = settings.clusters.iter().map(|(name, cluster)| {
                let (name, cluster, shared) = (name.clone(), Arc::clone(cluster), Arc::clone(&shared));
                tokio::spawn(async move { (name, within(probe_cluster(&shared, &cluster)).await) })
            });
            let clusters: Vec<_> = clusters.collect();
            let mut readiness = Readiness { stopping, ..Readiness::default() };
            for probe in storage {
                readiness.storage.extend(probe.await);
            }
            for probe in clusters {
                readiness.clusters.extend(probe.await);
            }
            readiness
        });
        Box::pin(async move {
            probing.await.unwrap_or_else(|_| Readiness { stopping: true, ..Readiness::default() })
        })
    }
}

async fn within(probe: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    timeout(PROBE, probe).await.unwrap_or_else(|_| Err(format!("no answer within {} s", PROBE.as_secs())))
}

/// Fails soon when an object store is out of reach or refuses: who waits for an answer waits less long than it is tried.
pub(super) async fn reach(catalog: &Catalog) -> Result<(), RequestError> {
    let storage = catalog.storage();
    match timeout(PROBE, probe(&**storage)).await {
        Ok(Err(e)) if matches!(e.kind, ErrorKind::Refused { .. } | ErrorKind::Unavailable(_)) => {
            Err(RequestError::Failed(e.to_string()))
        }
        Ok(_) => Ok(()),
        Err(_) => {
            let seconds = PROBE.as_secs();
            Err(RequestError::Failed(format!("{} does not answer within {seconds} s", storage.describe())))
        }
    }
}

/// Asks a storage whether it can be used; once more when it fails in a way that may pass, as object stores do now and then.
async fn probe(storage: &dyn Storage) -> Result<(), StorageError> {
    match storage.probe().await {
        Err(e) if matches!(e.kind, ErrorKind::Unavailable(_)) => {
            tokio::time::sleep(SECOND_PROBE).await;
            storage.probe().await
        }
        answer => answer,
    }
}

async fn probe_storage(catalog: &Catalog) -> Result<(), String> {
    probe(&**catalog.storage()).await.map_err(|e| e.to_string())
}

async fn probe_cluster(shared: &Shared, settings: &Arc<abs_config::ClusterSettings>) -> Result<(), String> {
    let lease = shared.clusters.lease(settings).await.map_err(|e| e.to_string())?;
    lease.cluster.check_reachable().await.map_err(|e| e.to_string())
}

impl Handler<Subscribe> for SupervisorActor {
    type Result = MessageResult<Subscribe>;

    fn handle(&mut self, _: Subscribe, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.shared.events.subscribe())
    }
}

impl Handler<RenderMetrics> for SupervisorActor {
    type Result = String;

    fn handle(&mut self, _: RenderMetrics, _: &mut Self::Context) -> String {
        self.shared.metrics.render()
    }
}

impl Handler<Shutdown> for SupervisorActor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, Shutdown { grace }: Shutdown, _: &mut Self::Context) -> Self::Result {
        self.stopping = true;
        info!(self.shared.log, "stopping: no more work is taken"; "jobs" => *self.running.borrow());
        // A verification can be made again: nobody waits for it.
        self.jobs.values().filter(|job| matches!(job, Job::Verify { .. })).for_each(Job::cancel);
        let mut running = self.running.subscribe();
        let patience = async move { timeout(grace, running.wait_for(|jobs| *jobs == 0)).await.is_ok() };
        Box::pin(patience.into_actor(self).then(|all_ended, actor, _| {
            let mut left = 0;
            if !all_ended {
                let journal = actor.shared.journal.as_ref();
                let is_resumable = |id| journal.is_some_and(|journal| journal.is_resumable(id));
                let (continued, canceled): (Vec<_>, Vec<_>) =
                    actor.jobs.iter().partition(|(id, job)| job.is_continued() || is_resumable(**id));
                if !canceled.is_empty() {
                    warn!(actor.shared.log, "canceling what still runs"; "jobs" => canceled.len());
                    for (_, job) in canceled {
                        job.cancel();
                    }
                }
                if !continued.is_empty() {
                    warn!(actor.shared.log, "suspending jobs: the next start continues them"; "jobs" => continued.len());
                    // Restores go on until the process ends: their journal says how far they are.
                    left = continued.iter().filter(|(_, job)| !job.is_continued()).count();
                    for (_, job) in continued {
                        job.suspend();
                    }
                }
            }
            let mut running = actor.running.subscribe();
            // The sender lives as long as the supervisor.
            let end = async move {
                timeout(CLEAN_UP, running.wait_for(|jobs| *jobs <= left)).await.is_ok()
            };
            end.into_actor(actor).then(|all_ended, actor, _| {
                if !all_ended {
                    warn!(actor.shared.log, "what still runs is left, the next start cleans up"; "jobs" => *actor.running.borrow());
                }
                let released = join_all(actor.routines.values().map(|routine| routine.actor.send(Release)));
                // What is not released in time is free after a lease.
                timeout(RELEASE, released).into_actor(actor).map(|_, _, _| ())
            })
        }))
    }
}
