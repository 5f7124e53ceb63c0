//! Which partitions of a namespace are meant.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidValue;
use crate::text::{string_in_documents, whole_number};

/// How many partitions a namespace has.
pub const PARTITIONS: u16 = 4096;

/// Some of the 4096 partitions of a namespace, at least one.
///
/// Written as a list of partitions and of ranges `FIRST-COUNT`, separated by commas: `0,100-50` is partition 0 and the 50
/// partitions from 100 to 149. Entries may overlap and come in any order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PartitionFilter {
    /// In ascending order, with gaps between them.
    ranges: Vec<Range<u16>>,
}

impl PartitionFilter {
    /// All partitions.
    #[must_use]
    pub fn all() -> Self {
        Self { ranges: std::iter::once(0..PARTITIONS).collect() }
    }

    /// Whether these are all partitions.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.count() == usize::from(PARTITIONS)
    }

    /// Whether `partition` is among them.
    #[must_use]
    pub fn contains(&self, partition: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(&partition))
    }

    /// The partitions in ascending order, each once.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.ranges.iter().cloned().flatten()
    }

    /// How many partitions these are, 1 to 4096.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }
}

impl Default for PartitionFilter {
    fn default() -> Self {
        Self::all()
    }
}

impl FromStr for PartitionFilter {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let mut ranges =
            text.split(',').map(|entry| parse_entry(entry.trim())).collect::<Result<Vec<_>, _>>()?;
        ranges.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u16>> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Ok(Self { ranges: merged })
    }
}

fn parse_entry(entry: &str) -> Result<Range<u16>, InvalidValue> {
    let refuse = |reason: String| Err(InvalidValue::new(entry, reason));
    let (first, count) = match entry.split_once('-') {
        Some((first, count)) => (first.trim(), Some(count.trim())),
        None => (entry, None),
    };
    let (Ok(first), Ok(count)) = (whole_number(first), count.map_or(Ok(1), whole_number)) else {
        return refuse("is neither a partition (as 7) nor a range FIRST-COUNT (as 100-50)".to_owned());
    };
    let limit = u64::from(PARTITIONS);
    if first >= limit {
        return refuse(format!("begins at partition {first}: partitions are 0 to {}", limit - 1));
    }
    if count == 0 || count > limit - first {
        return refuse(format!(
            "means {count} partitions from {first}: it can be 1 to {} of them",
            limit - first
        ));
    }
    Ok(first as u16..(first + count) as u16)
}

impl fmt::Display for PartitionFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.ranges.iter().enumerate() {
            let separator = if i == 0 { "" } else { "," };
            match range.len() {
                1 => write!(f, "{separator}{}", range.start)?,
                count => write!(f, "{separator}{}-{count}", range.start)?,
            }
        }
        Ok(())
    }
}

string_in_documents!(PartitionFilter);

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> PartitionFilter {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_is_a_first_partition_and_a_count() {
        let some = filter("0,100-50");
        assert_eq!(some.count(), 51);
        assert_eq!(some.iter().take(2).collect::<Vec<_>>(), [0, 100]);
        assert_eq!(some.iter().last(), Some(149));
        assert!(some.contains(149) && !some.contains(150) && !some.contains(1));
        assert!(!some.is_all());
        assert_eq!(filter("4095").iter().collect::<Vec<_>>(), [4095]);
    }

    #[test]
    fn entries_are_merged_and_sorted() {
        for (text, canonical) in [
            ("7", "7"),
            ("7-1", "7"),
            ("300,200,100", "100,200,300"),
            ("3, 1,2", "1-3"),
            ("100-50,120-10,150", "100-51"),
            ("0-4096", "0-4096"),
            ("0-2048,2048-2048", "0-4096"),
            ("5,5,5", "5"),
        ] {
            assert_eq!(filter(text).to_string(), canonical);
            assert_eq!(filter(canonical), filter(text));
        }
        assert!(filter("2048-2048,0-2048").is_all());
        assert_eq!(filter("0-4096"), PartitionFilter::default());
    }

    #[test]
    fn what_is_no_partition_is_refused() {
        for (text, message) in [
            ("", "\"\" is neither a partition (as 7) nor a range FIRST-COUNT (as 100-50)"),
            ("1,", "\"\" is neither a partition (as 7) nor a range FIRST-COUNT (as 100-50)"),
            ("1-2-3", "\"1-2-3\" is neither a partition (as 7) nor a range FIRST-COUNT (as 100-50)"),
            ("-1", "\"-1\" is neither a partition (as 7) nor a range FIRST-COUNT (as 100-50)"),
            ("0,4096", "\"4096\" begins at partition 4096: partitions are 0 to 4095"),
            ("4000-4095", "\"4000-4095\" means 4095 partitions from 4000: it can be 1 to 96 of them"),
            ("7-0", "\"7-0\" means 0 partitions from 7: it can be 1 to 4089 of them"),
        ] {
            assert_eq!(text.parse::<PartitionFilter>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn it_is_a_string_in_documents() {
        let some: PartitionFilter = serde_json::from_str("\"0,100-50\"").unwrap();
        assert_eq!(serde_json::to_string(&some).unwrap(), "\"0,100-50\"");
        assert!(serde_json::from_str::<PartitionFilter>("\"4096\"").is_err());
    }
}
