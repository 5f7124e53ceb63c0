//! How far a restore is, in the journal.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::{ChainTask, Restore};
use crate::job::{GetSnapshot, Steps};

/// How often it is written.
const SYNC: Duration = Duration::from_secs(1);

/// Notes what is restored, and from then on how far it is, until what this returns is dropped.
pub(super) async fn keep_journal(steps: &Steps<Restore>, tasks: &[ChainTask]) -> JoinSet<()> {
    let mut journaling = JoinSet::new();
    let Some(journal) = steps.shared.journal.clone() else { return journaling };
    let chains = tasks.iter().map(|task| (task.chain.clone(), task.position.clone().unwrap_or_default()));
    journal.note_plan(steps.id, chains.collect()).await;
    let runs: Vec<_> = tasks.iter().map(|task| Arc::clone(&task.run)).collect();
    let steps = steps.clone();
    journaling.spawn(async move {
        loop {
            tokio::time::sleep(SYNC).await;
            // An actor that crashed has canceled the job.
            let Ok(snapshot) = steps.job.send(GetSnapshot::new()).await else { return };
            let positions = runs.iter().map(|run| run.get().map(|run| run.position())).collect();
            let now = steps.shared.clock.now();
            journal.note_progress(steps.id, snapshot.into(), positions, now).await;
        }
    });
    journaling
}
