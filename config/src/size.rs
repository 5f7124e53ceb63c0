//! Sizes in megabytes.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidValue;
use crate::text::whole_number;

/// A size in megabytes of 1,048,576 bytes, at least one. A number in documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SizeMb(NonZeroU32);

impl SizeMb {
    /// `megabytes`, if that is at least one.
    #[must_use]
    pub fn new(megabytes: u32) -> Option<Self> {
        NonZeroU32::new(megabytes).map(Self)
    }

    /// The size in megabytes.
    #[must_use]
    pub fn megabytes(self) -> u32 {
        self.0.get()
    }

    /// The size in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.0.get()) << 20
    }
}

impl FromStr for SizeMb {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let number = whole_number(text)?;
        u32::try_from(number)
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| InvalidValue::new(text, format!("is not a size in MB from 1 to {}", u32::MAX)))
    }
}

impl fmt::Display for SizeMb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_megabyte_is_binary() {
        let size: SizeMb = "250".parse().unwrap();
        assert_eq!(size.bytes(), 250 * 1024 * 1024);
        assert_eq!(size.to_string(), "250");
        assert_eq!("4294967295".parse::<SizeMb>().unwrap().bytes(), 4_294_967_295 << 20);
        for bad in ["0", "4294967296", "", "1M", "-1"] {
            assert!(bad.parse::<SizeMb>().is_err(), "{bad:?} was taken");
        }
        assert_eq!(serde_json::from_str::<SizeMb>("250").unwrap(), size);
        assert!(serde_json::from_str::<SizeMb>("0").is_err());
    }
}
