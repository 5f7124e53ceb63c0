//! Limits per second.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidValue;
use crate::text::whole_number;

/// Defines a rate: a number of something per second, at least one, that is a number in documents.
macro_rules! rate {
    ($(#[$doc:meta])* $name:ident, $unit:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(NonZeroU32);

        impl $name {
            #[doc = concat!("`rate` ", $unit, " per second, if that is at least one.")]
            #[must_use]
            pub fn new(rate: u32) -> Option<Self> {
                NonZeroU32::new(rate).map(Self)
            }

            #[doc = concat!("The limit in ", $unit, " per second.")]
            #[must_use]
            pub fn get(self) -> u32 {
                self.0.get()
            }
        }

        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                let expected = concat!("is not a number of ", $unit, " per second from 1 to 4294967295");
                let rate = u32::try_from(whole_number(text)?).ok();
                rate.and_then(Self::new).ok_or_else(|| InvalidValue::new(text, expected))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

rate! {
    /// A limit in records per second. To have no limit is to have no `RecordRate`.
    RecordRate, "records"
}

rate! {
    /// A limit in MiB per second. To have no limit is to have no `Bandwidth`.
    Bandwidth, "MiB"
}

impl Bandwidth {
    /// The limit in bytes per second.
    #[must_use]
    pub fn bytes_per_second(self) -> u64 {
        u64::from(self.get()) << 20
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_positive_numbers() {
        assert_eq!("10_000".parse::<RecordRate>().unwrap().get(), 10_000);
        assert_eq!("8".parse::<Bandwidth>().unwrap().bytes_per_second(), 8 << 20);
        assert_eq!(RecordRate::new(5).unwrap().to_string(), "5");
        assert_eq!(serde_json::to_string(&Bandwidth::new(7)).unwrap(), "7");
        for bad in ["0", "-1", "1.5", "4294967296", "fast"] {
            assert!(bad.parse::<RecordRate>().is_err(), "{bad:?} was taken");
        }
        let error = "0".parse::<Bandwidth>().unwrap_err().to_string();
        assert_eq!(error, "\"0\" is not a number of MiB per second from 1 to 4294967295");
    }
}
