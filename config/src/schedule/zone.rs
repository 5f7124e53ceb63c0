//! Time zones.

use std::fmt;
use std::str::FromStr;

use chrono::{FixedOffset, Local, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;

use crate::InvalidValue;

/// The time zone of a schedule, written `UTC`, `Local` (that of this machine) or as its IANA name (`Europe/Berlin`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Zone {
    /// `UTC`
    #[default]
    Utc,
    /// `Local`
    Local,
    /// A zone of the IANA time zone database.
    Iana(Tz),
}

impl Zone {
    /// How far the clocks of the zone are ahead of UTC at a moment, which is given in UTC.
    pub(super) fn offset_at(self, utc: NaiveDateTime) -> FixedOffset {
        match self {
            Self::Utc => chrono::Utc.fix(),
            Self::Local => Local.offset_from_utc_datetime(&utc).fix(),
            Self::Iana(zone) => zone.offset_from_utc_datetime(&utc).fix(),
        }
    }
}

impl FromStr for Zone {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "UTC" => Ok(Self::Utc),
            "Local" => Ok(Self::Local),
            name => name.parse().map(Self::Iana).map_err(|_| {
                InvalidValue::new(
                    text,
                    "is not a time zone: write UTC, Local or an IANA name, as Europe/Berlin",
                )
            }),
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utc => f.write_str("UTC"),
            Self::Local => f.write_str("Local"),
            Self::Iana(zone) => f.write_str(zone.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_read_as_they_are_written() {
        for text in ["UTC", "Local", "Europe/Berlin", "Australia/Lord_Howe", "Etc/UTC"] {
            assert_eq!(text.parse::<Zone>().unwrap().to_string(), text);
        }
        assert_eq!(Zone::default(), Zone::Utc);
        for bad in ["", "utc", "Europe/berlin", "CEST", "+02:00", "Mars/Phobos"] {
            let error = bad.parse::<Zone>().unwrap_err().to_string();
            assert_eq!(
                error,
                format!("{bad:?} is not a time zone: write UTC, Local or an IANA name, as Europe/Berlin")
            );
        }
    }

    #[test]
    fn offsets_are_those_of_the_moment() {
        let at = |zone: &str, text: &str| {
            zone.parse::<Zone>().unwrap().offset_at(text.parse().unwrap()).local_minus_utc()
        };
        assert_eq!(at("UTC", "2026-07-01T00:00:00"), 0);
        assert_eq!(at("Europe/Berlin", "2026-03-29T00:59:59"), 3600);
        assert_eq!(at("Europe/Berlin", "2026-03-29T01:00:00"), 7200);
        let noon = "2026-07-01T12:00:00".parse().unwrap();
        assert_eq!(Zone::Local.offset_at(noon), *Local.from_utc_datetime(&noon).offset());
    }
}
