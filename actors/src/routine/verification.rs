//! Verifications by schedule.

use std::collections::BTreeSet;
use std::sync::Arc;

use abs_config::{Namespace, RoutineSettings};
use abs_engine::catalog::{Catalog, CatalogError, ChainError};
use actix::{ActorFutureExt as _, AsyncContext as _, Context, Message, WrapFuture as _};
use chrono::{DateTime, Utc};
use slog::error;

use super::RoutineActor;

/// A routine asks for a verification of runs of its own.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct VerifyRuns {
    pub routine: String,
    pub times: BTreeSet<DateTime<Utc>>,
}

/// What a restore to a time would read.
#[derive(Debug, Default)]
struct Readable {
    /// The times of the runs.
    runs: BTreeSet<DateTime<Utc>>,
    /// Why namespaces cannot be restored.
    broken: Vec<ChainError>,
}

impl Readable {
    async fn at(
        catalog: &Catalog,
        routine: &RoutineSettings,
        time: DateTime<Utc>,
    ) -> Result<Self, CatalogError> {
        let name = &routine.name;
        let mut namespaces: Vec<_> = routine.namespaces.iter().map(Namespace::to_string).collect();
        if namespaces.is_empty() {
            namespaces = catalog.namespaces_at(name, time).await?;
        }
        if namespaces.is_empty() {
            return Err(CatalogError::NoBackup { routine: name.clone(), time, suspect: None });
        }
        let mut readable = Self::default();
        for chain in catalog.chains(name, &namespaces, time).await?.into_values() {
            match chain {
                Ok(chain) => readable.runs.extend(chain.backups().map(|backup| backup.created)),
                Err(e) => readable.broken.push(e),
            }
        }
        Ok(readable)
    }
}

impl RoutineActor {
    /// Has the backups verified that a restore to now would read. That there are none to restore is a failure, too.
    pub(super) fn verify_newest(&self, context: &mut Context<Self>) {
        let catalog = self.shared.catalogs.of(&self.settings.storage);
        let (settings, now) = (Arc::clone(&self.settings), self.shared.clock.now());
        let read = self.shared.runtime.spawn(async move { Readable::at(&catalog, &settings, now).await });
        context.spawn(read.into_actor(self).map(|read, actor, _| {
            let Ok(read) = read else { return };
            let (runs, failures) = match read {
                Ok(Readable { runs, broken }) => (runs, broken.into_iter().map(CatalogError::from).collect()),
                Err(e) => (BTreeSet::new(), vec![e]),
            };
            for e in &failures {
                error!(actor.log, "verification failed"; "error" => %e);
                actor.shared.metrics.verification_ended(&actor.settings.name, None);
            }
            actor.verify(runs);
        }));
    }

    /// Has runs verified, and those that wait for their verification.
    pub(super) fn verify(&self, times: BTreeSet<DateTime<Utc>>) {
        self.verifier.do_send(VerifyRuns { routine: self.settings.name.clone(), times });
    }
}
