//! From the text of a record to a row of a batch.

use abs_asb::{AsbError, Digest, Name, Record};
use abs_cluster::{BatchMessage, Exists, Generation, RowHead, TTL_NEVER, void_time_now};

use crate::plan::RestorePlan;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is a row of the batch now.
    Row,
    /// Its time to live has run out.
    Expired,
    /// The plan leaves it out.
    Skipped,
}

/// How the records of a plan become rows.
#[derive(Debug)]
pub(crate) struct RowMaker {
    sets: Vec<Vec<u8>>,
    bins: Vec<Vec<u8>>,
    skip_all: bool,
    exists: Exists,
    check_generation: bool,
    extra_ttl: u32,
    /// Seconds by which the cluster's clock is ahead of ours.
    ahead: i32,
    /// Now by the cluster's clock, in seconds since the epoch of void times.
    now: u32,
}

impl RowMaker {
    /// The rows of a plan, for a cluster whose clock is ahead of ours by so many seconds.
    pub(crate) fn new(plan: &RestorePlan, ahead: i32) -> Self {
        let bytes = |names: &[String]| names.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self {
            sets: bytes(&plan.sets),
            bins: bytes(&plan.bins),
            skip_all: plan.no_records,
            exists: match (plan.unique, plan.replace) {
                (true, _) => Exists::CreateOnly,
                (false, true) => Exists::Replace,
                (false, false) => Exists::Update,
            },
            check_generation: !plan.no_generation && !plan.unique,
            extra_ttl: plan.extra_ttl,
            ahead,
            now: void_time_now().saturating_add_signed(ahead),
        }
    }

    /// Sets the clock; to be called now and then during a long job.
    pub(crate) fn tick(&mut self) {
        self.now = void_time_now().saturating_add_signed(self.ahead);
    }

    /// Appends a record to the batch, unless it is expired or left out. By the plan's policy, or to add its bins to those that
    /// an older link wrote.
    #[inline]
    pub(crate) fn append(
        &self,
        record: &mut Record<'_>,
        batch: &mut BatchMessage,
        adds_bins: bool,
    ) -> Result<Fate, AsbError> {
        if self.skip_all || (!self.sets.is_empty() && !has(&self.sets, &record.set)) {
            return Ok(Fate::Skipped);
        }
        let until = match record.expiration {
            0 => None,
            expiration => Some(expiration.saturating_add(self.extra_ttl)),
        };
        if until.is_some_and(|until| until <= self.now) {
            return Ok(Fate::Expired);
        }
        let mut row = batch.row(&RowHead {
            digest: record.digest,
            exists: if adds_bins { Exists::Update } else { self.exists },
            generation: if self.check_generation && !adds_bins {
                // The server's generations are 16 bits wide; text of another writer may hold more.
                Generation::Less(u16::try_from(record.generation).unwrap_or(u16::MAX))
            } else {
                Generation::Any
            },
            ttl: TTL_NEVER,
        });
        if let Some(until) = until {
            row.until(until);
        }
        if !record.set.is_empty() {
            row.set(|out| unescape(record.set, out))?;
        }
        if let Some(key) = &record.key {
            row.key(key.particle() as u8, |out| key.append_to(out))?;
        }
        while let Some(bin) = record.next_bin()? {
            if self.bins.is_empty() || has(&self.bins, &bin.name) {
                row.bin(
                    bin.value.particle() as u8,
                    |out| unescape(bin.name, out),
                    |out| bin.value.append_to(out),
                )?;
            }
        }
        if row.bins() == 0 {
            return Ok(Fate::Skipped);
        }
        row.finish();
        Ok(Fate::Row)
    }
}

fn has(names: &[Vec<u8>], name: &Name<'_>) -> bool {
    names.iter().any(|listed| name.eq_bytes(listed))
}

#[inline]
#[allow(clippy::unnecessary_wraps, reason = "the shape that a row's closures have")]
fn unescape(name: Name<'_>, out: &mut Vec<u8>) -> Result<(), AsbError> {
    name.unescape_into(out);
    Ok(())
}

/// A digest as the format writes it.
pub(crate) fn digest_text(digest: &Digest) -> String {
    base64_simd::STANDARD.encode_to_string(digest)
}
