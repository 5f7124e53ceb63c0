//! The restore of one chain of backups.

use std::sync::{Arc, OnceLock};

use abs_cluster::Cluster;
use abs_engine::{
    ChainPosition, ChainRestore, EngineError, ReadMarks, RestoreLimits, RestorePlan, RestoreProgress,
    RestoreReport,
};
use abs_storage::Storage;
use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::patience::patiently;
use super::reading::Reading;
use super::{Restore, marks};
use crate::job::Steps;
use crate::journal::Chain;

/// A chain to restore.
pub(super) struct ChainTask {
    pub chain: Chain,
    pub plan: RestorePlan,
    /// Where an earlier process was interrupted.
    pub position: Option<ChainPosition>,
    /// Until when it waits for its cluster and its storage, if it was interrupted.
    pub until: Option<DateTime<Utc>>,
    /// The restore, as soon as it has begun.
    pub run: Arc<OnceLock<Arc<ChainRestore>>>,
}

/// Restores one chain, link by link.
pub(super) async fn restore_chain(
    steps: &Steps<Restore>,
    cluster: &Cluster,
    storage: &Arc<dyn Storage>,
    task: ChainTask,
    limits: &Arc<RestoreLimits>,
    cancel: &CancellationToken,
) -> Result<RestoreReport, EngineError> {
    let what = format!("namespace {}", task.chain.source);
    let begin = || Begun::begin(steps, cluster, storage, &task, limits, cancel);
    let Begun { run, progress, marks } =
        patiently(steps, cancel, task.until, &what, EngineError::is_transient, begin).await?;
    let restored = restore_links(steps, run, &progress, task).await;
    marks::end(marks).await;
    restored
}

/// A chain whose backups were found and marked.
struct Begun {
    run: Arc<ChainRestore>,
    progress: Arc<RestoreProgress>,
    marks: ReadMarks,
}

impl Begun {
    async fn begin(
        steps: &Steps<Restore>,
        cluster: &Cluster,
        storage: &Arc<dyn Storage>,
        ChainTask { chain, plan, position, .. }: &ChainTask,
        limits: &Arc<RestoreLimits>,
        cancel: &CancellationToken,
    ) -> Result<Self, EngineError> {
        let progress = Arc::new(RestoreProgress::default());
        for warning in &chain.warnings {
            progress.warn(warning.clone());
        }
        steps.begin(&chain.source, &progress, chain.records).await?;
        let marks = if plan.validate_only {
            ReadMarks::default()
        } else {
            let marked = cancel.run_until_cancelled(marks::begin(steps, storage, chain)).await;
            marked.unwrap_or(Err(EngineError::Canceled))?
        };
        let mut links = chain.links.clone();
        if position.as_ref().is_some_and(|position| position.ended == links.len()) {
            // All records were restored: it is no matter whether their backups were deleted since.
            for link in &mut links {
                link.is_described = false;
            }
        }
        match ChainRestore::begin(cluster, storage, &links, plan, limits, &progress, cancel).await {
            Ok(run) => Ok(Self { run, progress, marks }),
            Err(e) => {
                marks::end(marks).await;
                Err(e)
            }
        }
    }
}

/// Restores the links of a chain.
async fn restore_links(
    steps: &Steps<Restore>,
    run: Arc<ChainRestore>,
    progress: &RestoreProgress,
    ChainTask { chain, plan, position, run: place, .. }: ChainTask,
) -> Result<RestoreReport, EngineError> {
    if let Some(position) = position {
        run.resume(position)?;
        progress.warn(format!(
            "the restore of namespace {} was interrupted by an end of the service: records that may have been written before it \
             and were sent again are counted in errors-in-doubt, and may count as existed or fresher",
            chain.source
        ));
    }
    let run = place.get_or_init(|| run);
    while let Some(queue) = run.next_link().await {
        if let Err(e) = steps.run_stage(Reading { run: Arc::clone(run), queue }, plan.parallel).await {
            run.fail(e);
        }
    }
    run.finish().await
}
