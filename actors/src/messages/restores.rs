//! Requests about restores.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use abs_config::{RestoreRequest, RestoreTimestampRequest};
use abs_engine::catalog::BackupKind;
use abs_engine::{RestoreSnapshot, Validation};
use actix::Message;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{JobId, JobSnapshot, RequestError, RestoreResult, RunningJob};

/// How long a request waits for the plan of the restore or the verification that it starts. The job has its id before; a plan
/// that fails meanwhile is the answer, and a later failure is in its status.
#[derive(Clone, Debug)]
pub struct PlanWait {
    /// At most this long.
    pub limit: Duration,
    /// Canceled when the request ends without an answer: the job, whose id the client does not know, is canceled with it.
    pub given_up: CancellationToken,
}

impl Default for PlanWait {
    /// Two seconds.
    fn default() -> Self {
        Self { limit: Duration::from_secs(2), given_up: CancellationToken::new() }
    }
}

/// Starts a restore of one backup, or of the backups of one run, by its path.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<JobId, RequestError>")]
pub struct RestorePath {
    /// Which of the two requests it was.
    pub kind: BackupKind,
    /// The request.
    pub request: RestoreRequest,
    /// How long it waits.
    pub wait: PlanWait,
}

/// Starts a restore of a routine's namespaces to a point in time.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<JobId, RequestError>")]
pub struct RestoreToTime {
    /// The request.
    pub request: RestoreTimestampRequest,
    /// How long it waits.
    pub wait: PlanWait,
}

/// Asks how a restore stands.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<RestoreStatus, RequestError>")]
pub struct GetRestore(pub JobId);

/// Lists the restores that run, and those that have ended and are remembered.
#[derive(Clone, Debug, Default, Message)]
#[rtype(result = "BTreeMap<JobId, RestoreStatus>")]
pub struct ListRestores {
    /// Only those begun at this time or later; milliseconds since 1970.
    pub from: Option<i64>,
    /// Only those begun at this time or earlier.
    pub to: Option<i64>,
    /// Only those in certain states.
    pub status: StatusFilter,
}

/// Cancels a restore; what was restored stays.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Result<(), RequestError>")]
pub struct CancelRestore(pub JobId);

/// A restore at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RestoreStatus {
    /// What was done with the records.
    pub counts: RestoreSnapshot,
    /// Its progress.
    pub job: RunningJob,
    /// Its state.
    pub state: Status,
    /// Why it failed.
    pub error: Option<String>,
    /// Warnings for the user, one line each.
    pub warnings: Vec<String>,
    /// What a restore would do, for each namespace, if that was the question and it is known.
    #[serde(default)]
    pub validations: Vec<Validation>,
}

impl From<JobSnapshot<RestoreSnapshot>> for RestoreStatus {
    fn from(JobSnapshot { counts, progress, warnings }: JobSnapshot<RestoreSnapshot>) -> Self {
        // Its end is known when the supervisor knows it.
        let job = RunningJob { finished: None, ..progress };
        Self { counts, job, state: Status::Running, error: None, warnings, validations: Vec::new() }
    }
}

impl From<&RestoreResult> for RestoreStatus {
    fn from(result: &RestoreResult) -> Self {
        let job = result.snapshot.progress.clone();
        let (state, error) = (result.end.status(), result.end.error());
        let validations = result.reports.iter().filter_map(|report| report.validation.clone()).collect();
        Self { job, state, error, validations, ..result.snapshot.clone().into() }
    }
}

/// The status of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It goes on.
    Running,
    /// It did all it was asked.
    Done,
    /// It ended early, by itself.
    Failed,
    /// It ended early, as somebody wished.
    Canceled,
}

impl FromStr for Status {
    type Err = String;

    /// The names of 3.5 (`Running`, `Done`, `Failed`, `Canceled`) and of 3.6 (`running`, `success`, `failure`,
    /// `canceled`), in any case.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "running" => Ok(Self::Running),
            "done" | "success" => Ok(Self::Done),
            "failed" | "failure" => Ok(Self::Failed),
            "canceled" => Ok(Self::Canceled),
            _ => Err(format!("{text:?} is not a status: use Running, Done, Failed or Canceled")),
        }
    }
}

/// Which states are wanted: a comma list (`Running,Done`), or with `!` in front all but those.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusFilter {
    excluded: bool,
    states: Vec<Status>,
}

impl StatusFilter {
    /// Whether a job in this state is wanted; without a list every one is.
    #[must_use]
    pub fn lets_through(&self, state: Status) -> bool {
        self.states.is_empty() || self.states.contains(&state) != self.excluded
    }
}

impl FromStr for StatusFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (excluded, list) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let states = list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::parse);
        Ok(Self { excluded, states: states.collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_filter_takes_both_sets_of_names_and_excludes() {
        let filter = |text: &str| text.parse::<StatusFilter>().unwrap();
        assert!(filter("").lets_through(Status::Done));
        assert!(filter("running, SUCCESS").lets_through(Status::Done));
        assert!(!filter("running,success").lets_through(Status::Failed));
        assert!(!filter("!Failed,Canceled").lets_through(Status::Canceled));
        assert!(filter("!failure,Canceled").lets_through(Status::Running));
        assert!("Gone".parse::<StatusFilter>().unwrap_err().contains("\"Gone\" is not a status"));
    }
}
