//! What the journal holds of one restore.

use std::time::Duration;

use abs_config::{RestoreRequest, RestoreTimestampRequest, Secrets};
use abs_engine::{ChainPosition, Link, RestoreSnapshot};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::messages::{JobId, RestoreStatus, RunningJob, Status};

/// How often a restore is resumed that does not get any further.
const MOST_ATTEMPTS: u32 = 3;
/// The form of the documents.
pub(super) const VERSION: u32 = 1;

/// A request for a restore, as it can be made again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RestoreOrder {
    /// Of one backup, or of the backups of one run.
    Path(RestoreRequest),
    /// Of a routine's namespaces to a point in time.
    Time(RestoreTimestampRequest),
}

impl RestoreOrder {
    /// The routine whose namespaces are restored to a point in time, if it is such a restore.
    pub(crate) fn routine(&self) -> Option<String> {
        match self {
            Self::Path(_) => None,
            Self::Time(request) => Some(request.routine.clone()),
        }
    }

    /// Whether the request holds a secret itself, not only references to some.
    pub(super) fn has_secrets(&self) -> bool {
        match self {
            Self::Path(request) => request.masked() != *request,
            Self::Time(request) => request.masked() != *request,
        }
    }
}

/// The links to restore into one namespace, the newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Chain {
    /// The namespace that they are backups of.
    pub source: String,
    pub links: Vec<Link>,
    /// How many records they hold, if that is known.
    pub records: Option<u64>,
    /// Warnings for the user, one line each.
    pub warnings: Vec<String>,
}

/// What a document holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Record {
    pub version: u32,
    pub status: RestoreStatus,
    /// Of a restore that has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
}

/// What it takes to resume a restore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Work {
    /// None if it holds secrets.
    pub order: Option<RestoreOrder>,
    /// What is restored, and how far each chain is; empty until that is planned.
    pub chains: Vec<(Chain, ChainPosition)>,
    /// When the restore was last known to run, not only to wait for its cluster or storage.
    pub last: DateTime<Utc>,
    /// How often it was resumed at the same position, and how many records had been answered there.
    pub attempts: u32,
    pub answered: u64,
}

impl Work {
    /// Until when it is worth trying to resume the restore.
    pub(super) fn until(&self, within: Duration) -> DateTime<Utc> {
        let until = TimeDelta::from_std(within).ok().and_then(|within| self.last.checked_add_signed(within));
        until.unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Takes note that the restore is resumed, and returns what was asked; or says why it is not resumed.
    pub(super) fn resume(&mut self, now: DateTime<Utc>, within: Duration) -> Result<RestoreOrder, String> {
        let Some(order) = self.order.clone() else {
            return Err("its request holds secrets, which are not kept, so it is not resumed".to_owned());
        };
        let interrupted = (now - self.last).to_std().unwrap_or_default();
        if interrupted > within {
            return Err(format!(
                "for {} s, longer than restore-resume-within ({} s)",
                interrupted.as_secs(),
                within.as_secs_f64()
            ));
        }
        let settled =
            |(_, position): &(Chain, ChainPosition)| position.counts.settled() + position.ended as u64;
        let answered = self.chains.iter().map(settled).sum();
        if answered > self.answered {
            (self.answered, self.attempts) = (answered, 0);
        }
        if self.attempts == MOST_ATTEMPTS {
            return Err(format!("it was resumed {MOST_ATTEMPTS} times without progress"));
        }
        self.attempts += 1;
        Ok(order)
    }
}

impl RestoreStatus {
    /// That of a restore that has just begun.
    pub(super) fn begun(id: JobId, started: DateTime<Utc>) -> Self {
        let job = RunningJob {
            id,
            total_records: 0,
            done_records: 0,
            started,
            finished: None,
            duration: Duration::ZERO,
            percentage_done: 0,
            estimated_end: None,
            records_per_second: 0,
            kilobytes_per_second: 0,
            pipeline: 0,
            retry: None,
        };
        let (counts, state) = (RestoreSnapshot::default(), Status::Running);
        Self { counts, job, state, error: None, warnings: Vec::new(), validations: Vec::new() }
    }

    /// That of a restore of which the journal holds nothing that can be read.
    pub(super) fn lost(id: JobId, last: DateTime<Utc>, why: &str) -> Self {
        let mut status = Self::begun(id, last);
        (status.state, status.job.finished) = (Status::Failed, Some(last));
        status.error = Some(format!(
            "its journal is damaged, so it is not known how it ended ({why}; kept as {id}.json.damaged)"
        ));
        status
    }

    /// Ends a restore that is not resumed: one that was not canceled has failed.
    pub(super) fn interrupt(&mut self, last: DateTime<Utc>, why: &str) {
        self.job.finished = Some(last);
        (self.job.retry, self.job.estimated_end) = (None, None);
        if self.state == Status::Running {
            self.state = Status::Failed;
            self.error = Some(format!("interrupted: {why}"));
        }
    }
}
