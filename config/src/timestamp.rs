//! Points in time.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Local, LocalResult, NaiveDateTime, SecondsFormat, TimeZone, Utc};
use serde::{Deserialize, Serialize};

use crate::InvalidValue;
use crate::text::{string_in_documents, whole_number};

/// The last moment of the year 9999, the last that RFC 3339 can write.
const LAST: u64 = 253_402_300_799_999;

/// A point in time from 1970 to 9999, to the millisecond.
///
/// It is read from three forms: RFC 3339 (`2024-01-01T12:00:00.5+02:00`; digits after the millisecond are cut off), the
/// form of `asbackup` in the time zone of this machine (`2024-01-01_12:00:00`), and milliseconds since 1970 UTC
/// (`1704110400000`). It is written as RFC 3339 in UTC, in documents as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// The moment `milliseconds` after 1970-01-01T00:00:00Z, if that is before the year 10000.
    #[must_use]
    pub fn from_epoch_ms(milliseconds: u64) -> Option<Self> {
        if milliseconds > LAST {
            return None;
        }
        DateTime::from_timestamp_millis(milliseconds as i64).map(Self)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn epoch_ms(self) -> u64 {
        self.0.timestamp_millis() as u64
    }

    /// The same moment for the standard library.
    #[must_use]
    pub fn to_system_time(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.epoch_ms())
    }
}

impl FromStr for Timestamp {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let refuse = |reason: &str| Err(InvalidValue::new(text, reason));
        let milliseconds = if let Ok(number) = whole_number(text) {
            i64::try_from(number).unwrap_or(i64::MAX)
        } else if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            time.timestamp_millis()
        } else if let Ok(time) = NaiveDateTime::parse_from_str(text, "%Y-%m-%d_%H:%M:%S") {
            match Local.from_local_datetime(&time) {
                LocalResult::Single(time) => time.timestamp_millis(),
                LocalResult::None => return refuse("does not exist here: the clocks were put forward then"),
                LocalResult::Ambiguous(..) => {
                    return refuse(
                        "happened twice here: the clocks were put back then; say it with its offset, as 2024-01-01T12:00:00+01:00",
                    );
                }
            }
        } else {
            return refuse(
                "is not a time: write 2024-01-01T12:00:00Z, 2024-01-01_12:00:00 (local time) or milliseconds since 1970",
            );
        };
        u64::try_from(milliseconds)
            .ok()
            .and_then(Self::from_epoch_ms)
            .ok_or_else(|| InvalidValue::new(text, "is not a time from 1970 to 9999"))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form =
            if self.epoch_ms().is_multiple_of(1000) { SecondsFormat::Secs } else { SecondsFormat::Millis };
        f.write_str(&self.0.to_rfc3339_opts(form, true))
    }
}

string_in_documents!(Timestamp);

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().epoch_ms()
    }

    #[test]
    fn three_forms_are_read_and_one_is_written() {
        assert_eq!(ms("2024-01-01T12:00:00Z"), 1_704_110_400_000);
        assert_eq!(ms("1704110400000"), 1_704_110_400_000);
        assert_eq!(ms("2024-01-01T14:00:00.1239+02:00"), 1_704_110_400_123);
        assert_eq!(ms("0"), 0);
        let local = Local.with_ymd_and_hms(2024, 1, 1, 12, 0, 0).unwrap();
        assert_eq!(ms("2024-01-01_12:00:00"), local.timestamp_millis() as u64);
        for text in [
            "2024-01-01T12:00:00Z",
            "2024-01-01T12:00:00.120Z",
            "9999-12-31T23:59:59.999Z",
            "1970-01-01T00:00:00Z",
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "yesterday",
            "2024-01-01",
            "2024-01-01T12:00:00",
            "2024-02-30_12:00:00",
            "2024-01-01_25:00:00",
            "-1",
            "1969-12-31T23:59:59Z",
            "253402300800000",
            "99999999999999999999",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad:?} was taken");
        }
        let error = "253402300800000".parse::<Timestamp>().unwrap_err().to_string();
        assert_eq!(error, "\"253402300800000\" is not a time from 1970 to 9999");
    }

    #[test]
    fn it_is_a_string_in_documents() {
        let time: Timestamp = serde_json::from_str("\"2024-01-01T12:00:00Z\"").unwrap();
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2024-01-01T12:00:00Z\"");
        assert_eq!(
            time.to_system_time().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis(),
            1_704_110_400_000
        );
    }
}
