//! How far a job is, and times, as the reference writes them.

use abs_actors::messages;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

/// A time as the reference writes it: RFC 3339 in UTC, to the millisecond, without zeros at the end of the fraction.
pub fn rfc3339(time: DateTime<Utc>) -> String {
    let text = time.format("%Y-%m-%dT%H:%M:%S%.3f").to_string();
    format!("{}Z", text.trim_end_matches('0').trim_end_matches('.'))
}

/// The document `dto.RunningJob`: the progress of a job.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = dto::RunningJob)]
pub struct RunningJob {
    /// The records there will be, as far as can be known.
    #[schema(example = 100)]
    total_records: u64,
    /// The records that are done.
    #[schema(example = 50)]
    done_records: u64,
    /// When it began.
    #[schema(format = DateTime, example = "2006-01-02T15:04:05Z")]
    start_time: String,
    /// When it ended; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime, example = "2006-01-02T15:04:05Z")]
    finish_time: Option<String>,
    /// How long it runs, or ran, in seconds.
    duration: u64,
    /// 0 to 100.
    #[schema(example = 50, maximum = 100)]
    percentage_done: u8,
    /// When it will be done, as far as can be known; absent until it can be estimated.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, format = DateTime, example = "2006-01-02T15:04:05Z")]
    estimated_end_time: Option<String>,
    /// How fast it is.
    metrics: Metrics,
    /// The next attempt at what failed; absent unless the job waits for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = PendingRetry, required = false)]
    retry: Option<PendingRetry>,
}

/// An attempt that is still to come, after one that failed.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = dto::PendingRetry)]
pub struct PendingRetry {
    /// When.
    #[schema(format = DateTime, example = "2006-01-02T15:04:05Z")]
    time: String,
    /// Why the attempt before failed.
    error: String,
}

/// The document `dto.Metrics`: how fast a job is.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = dto::Metrics)]
pub struct Metrics {
    /// Records per second.
    records_per_second: u64,
    /// Kilobytes per second to or from the storage.
    kilobytes_per_second: u64,
    /// Records that were read and not yet written. Near zero, reading is what takes the time; growing, writing is.
    pipeline: u64,
}

impl From<&messages::RunningJob> for RunningJob {
    fn from(job: &messages::RunningJob) -> Self {
        Self {
            total_records: job.total_records,
            done_records: job.done_records,
            start_time: rfc3339(job.started),
            finish_time: job.finished.map(rfc3339),
            duration: job.duration.as_secs(),
            percentage_done: job.percentage_done,
            estimated_end_time: job.estimated_end.map(rfc3339),
            metrics: Metrics {
                records_per_second: job.records_per_second,
                kilobytes_per_second: job.kilobytes_per_second,
                pipeline: job.pipeline,
            },
            retry: job
                .retry
                .as_ref()
                .map(|retry| PendingRetry { time: rfc3339(retry.at), error: retry.error.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use abs_actors::messages::JobId;
    use serde_json::json;

    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn times_have_the_fraction_they_need() {
        for text in [
            "2024-01-01T12:00:00Z",
            "2024-01-01T12:00:10.12Z",
            "2024-01-01T12:00:00.003Z",
            "0001-01-01T00:00:00Z",
        ] {
            assert_eq!(rfc3339(time(text)), text);
        }
        assert_eq!(rfc3339(time("2024-01-01T12:00:00.1239Z")), "2024-01-01T12:00:00.123Z");
    }

    #[test]
    fn a_running_job_has_the_shape_of_the_reference() {
        let mut job = messages::RunningJob {
            id: JobId(7),
            total_records: 100_000,
            done_records: 50_000,
            started: time("2024-01-01T12:00:00Z"),
            finished: None,
            duration: Duration::from_millis(61_900),
            percentage_done: 50,
            estimated_end: Some(time("2024-01-01T13:00:00Z")),
            records_per_second: 1000,
            kilobytes_per_second: 30_000,
            pipeline: 0,
            retry: None,
        };
        let mut expected = json!({
            "total-records": 100_000, "done-records": 50_000, "start-time": "2024-01-01T12:00:00Z", "duration": 61,
            "percentage-done": 50, "estimated-end-time": "2024-01-01T13:00:00Z",
            "metrics": {"records-per-second": 1000, "kilobytes-per-second": 30_000, "pipeline": 0}
        });
        assert_eq!(serde_json::to_value(RunningJob::from(&job)).unwrap(), expected);
        job.finished = job.estimated_end.take();
        expected.as_object_mut().unwrap().remove("estimated-end-time");
        expected["finish-time"] = "2024-01-01T13:00:00Z".into();
        assert_eq!(serde_json::to_value(RunningJob::from(&job)).unwrap(), expected);
        let retry = messages::PendingRetry { at: time("2024-01-01T12:30:00Z"), error: "gone".to_owned() };
        job.retry = Some(retry);
        expected["retry"] = json!({"time": "2024-01-01T12:30:00Z", "error": "gone"});
        assert_eq!(serde_json::to_value(RunningJob::from(&job)).unwrap(), expected);
    }
}
