//! Requests about the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use abs_config::{ClusterSettings, RoutineSettings, Settings};
use abs_storage::ErrorKind;
use actix::{ActorFutureExt as _, Handler, MessageResult, ResponseActFuture, WrapFuture as _};
use futures_util::future::join_all;
use slog::{info, warn};
use tokio::time::timeout;

use super::SupervisorActor;
use crate::config::{ConfigSource, Configuration};
use crate::messages::{ChangeConfig, ConfigSnapshot, GetConfig, ReloadConfig, RequestError};
use crate::shared::{PROBE, Shared};

/// How long the source of the configuration may take to read or to write it; the next change waits meanwhile. An http(s)
/// address has a limit of its own, of 30 seconds.
const SOURCE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 35_000 });

type Answer = ResponseActFuture<SupervisorActor, Result<(), RequestError>>;

impl Handler<GetConfig> for SupervisorActor {
    type Result = MessageResult<GetConfig>;

    fn handle(&mut self, _: GetConfig, _: &mut Self::Context) -> Self::Result {
        let snapshot = match &self.service {
            Some(service) => service.configuration.snapshot(),
            None => ConfigSnapshot::default(),
        };
        MessageResult(snapshot)
    }
}

impl SupervisorActor {
    fn adopt(&mut self, configuration: Configuration, context: &mut actix::Context<Self>) {
        if let Some(service) = &mut self.service {
            service.configuration = configuration;
        }
        self.adopt_routines(context);
    }

    /// Makes another configuration of the one in force, one after the other, and adopts it. It is made on the runtime:
    /// here a large document would hold up everybody, and a panic would end the service.
    fn change<F>(
        &self,
        done: &'static str,
        make: impl FnOnce(Configuration, Arc<dyn ConfigSource>) -> F + 'static,
    ) -> Answer
    where
        F: Future<Output = Result<Configuration, RequestError>> + Send + 'static,
    {
        let changing = Arc::clone(&self.changing);
        let turn = async move { changing.lock_owned().await };
        Box::pin(turn.into_actor(self).then(move |turn, actor, _| {
            let service = actor.service.as_ref();
            let service = service.map(|service| (service.configuration.clone(), Arc::clone(&service.source)));
            let runtime = actor.shared.runtime.clone();
            let made = async move {
                let (configuration, source) = service.ok_or(RequestError::Stopping)?;
                let making = runtime.spawn(make(configuration, source));
                making.await.map_err(|e| RequestError::Failed(format!("a worker failed: {e}")))?
            };
            made.into_actor(actor).map(move |made, actor, context| {
                actor.adopt(made?, context);
                info!(actor.shared.log, "{done}");
                drop(turn);
                Ok(())
            })
        }))
    }
}

impl Handler<ChangeConfig> for SupervisorActor {
    type Result = Answer;

    fn handle(&mut self, ChangeConfig(change): ChangeConfig, _: &mut Self::Context) -> Self::Result {
        let shared = Arc::clone(&self.shared);
        self.change("configuration changed", |configuration, source| async move {
            let changed = configuration.with(change)?;
            check_reachable(&shared, configuration.settings(), changed.settings()).await?;
            put_in_force(&*source, &changed, Some(&changed.text())).await?;
            Ok(changed)
        })
    }
}

impl Handler<ReloadConfig> for SupervisorActor {
    type Result = Answer;

    fn handle(&mut self, _: ReloadConfig, _: &mut Self::Context) -> Self::Result {
        let shared = Arc::clone(&self.shared);
        self.change("configuration loaded again", |configuration, source| async move {
            let text =
                within_limit(&*source, "reading", source.read()).await.map_err(RequestError::Invalid)?;
            let changed = configuration.reload(&text);
            let changed = changed.map_err(|problems| RequestError::Invalid(problems.to_string()))?;
            check_reachable(&shared, configuration.settings(), changed.settings()).await?;
            put_in_force(&*source, &changed, None).await?;
            Ok(changed)
        })
    }
}

/// Puts a checked configuration in force, and writes its `text` to the source if there is one. On an error nothing has
/// changed.
async fn put_in_force(
    source: &dyn ConfigSource,
    changed: &Configuration,
    text: Option<&str>,
) -> Result<(), RequestError> {
    let failed = |e| RequestError::Failed(format!("the change was not made: {e}"));
    let prepared = within_limit(source, "preparing", source.prepare(changed.settings())).await;
    let transaction = match text {
        Some(_) => prepared.map_err(failed)?,
        None => prepared.map_err(RequestError::Invalid)?,
    };
    if let Some(text) = text {
        within_limit(source, "writing", source.write(text)).await.map_err(failed)?;
    }
    transaction.commit().await;
    Ok(())
}

/// Gives up what hangs, such as a network file system, so that later changes are not blocked.
async fn within_limit<T>(
    source: &dyn ConfigSource,
    action: &str,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let timed_out = |_| Err(format!("{action} {} took longer than {SOURCE:?}", source.describe()));
    timeout(SOURCE, work).await.unwrap_or_else(timed_out)
}

/// Checks what a change brings against the storages and clusters that answer.
async fn check_reachable(shared: &Shared, before: &Settings, after: &Settings) -> Result<(), RequestError> {
    let (storage, namespaces) =
        tokio::join!(check_storage(shared, before, after), check_namespaces(shared, before, after));
    storage?;
    match namespaces.as_slice() {
        [] => Ok(()),
        missing => Err(RequestError::Invalid(missing.join("; "))),
    }
}

/// The namespaces of new or changed routines that their clusters do not have. A cluster that does not answer may be on
/// its way.
pub(super) async fn check_namespaces(shared: &Shared, before: &Settings, after: &Settings) -> Vec<String> {
    let known = |name: &String, routine: &RoutineSettings| {
        before.routines.get(name).is_some_and(|known| {
            shared.clusters.are_same(&known.cluster, &routine.cluster)
                && routine.namespaces.iter().all(|namespace| known.namespaces.contains(namespace))
        })
    };
    let mut clusters: BTreeMap<&str, Vec<(&String, &RoutineSettings)>> = BTreeMap::new();
    for (name, routine) in &after.routines {
        if !routine.namespaces.is_empty() && !known(name, routine) {
            clusters.entry(&routine.cluster_name).or_default().push((name, routine));
        }
    }
    let checks = clusters.into_iter().map(|(cluster, routines)| async move {
        // Each cluster has a routine.
        let Some((_, first)) = routines.first() else { return Vec::new() };
        let there = match timeout(PROBE, namespaces_of(shared, &first.cluster)).await {
            Ok(Ok(there)) => there,
            Ok(Err(error)) => {
                warn!(shared.log, "the namespaces of routines cannot be checked"; "cluster" => cluster, "error" => error);
                return Vec::new();
            }
            Err(_) => {
                warn!(shared.log, "the namespaces of routines cannot be checked: the cluster does not answer";
                    "cluster" => cluster);
                return Vec::new();
            }
        };
        let mut missing = Vec::new();
        for (name, routine) in routines {
            for (i, namespace) in routine.namespaces.iter().enumerate() {
                if !there.contains(namespace.as_str()) {
                    let known = there.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                    missing.push(format!(
                        "backup-routines.{name}.namespaces[{i}]: cluster {cluster} has no namespace \
                         \"{namespace}\": it has {known}"
                    ));
                }
            }
        }
        missing
    });
    join_all(checks).await.concat()
}

async fn namespaces_of(shared: &Shared, cluster: &Arc<ClusterSettings>) -> Result<BTreeSet<String>, String> {
    let lease = shared.clusters.lease(cluster).await.map_err(|e| e.to_string())?;
    let answers = lease.cluster.info_all("namespaces").await.map_err(|e| e.to_string())?;
    let names =
        answers.answers.iter().flat_map(|(_, answer)| answer.split(';')).filter(|name| !name.is_empty());
    Ok(names.map(str::to_owned).collect())
}

/// Asks the storages that a change brings whether they are there. One that says no (no such bucket, wrong credentials, no
/// permission) is a mistake; one that does not answer may be on its way.
async fn check_storage(shared: &Shared, before: &Settings, after: &Settings) -> Result<(), RequestError> {
    let known = |storage| before.storage.values().any(|known| known == storage);
    let probes =
        after.storage.iter().filter(|(_, storage)| !known(*storage)).map(|(name, storage)| async move {
            let storage = abs_storage::open(storage);
            (name, timeout(PROBE, storage.probe()).await)
        });
    let probes: Vec<_> = probes.collect();
    for (name, probe) in join_all(probes).await {
        match probe {
            Ok(Ok(())) => {}
            Ok(Err(e)) if matches!(e.kind, ErrorKind::Refused { .. }) => {
                return Err(RequestError::Invalid(format!("storage.{name}: {e}")));
            }
            Ok(Err(e)) => {
                warn!(shared.log, "a new storage cannot be used yet"; "storage" => name, "error" => %e);
            }
            Err(_) => warn!(shared.log, "a new storage does not answer"; "storage" => name),
        }
    }
    Ok(())
}
