//! How much of the SDK's log is wanted. The SDK logs for the whole process, so it is as much as any bucket wants.

use std::sync::atomic::{AtomicUsize, Ordering};

use abs_config::S3LogLevel;
use log::LevelFilter;

/// How many buckets want which level, by number.
static WISHES: [AtomicUsize; 6] = [const { AtomicUsize::new(0) }; 6];

/// The most that any open bucket wants of the SDK's log. That of records whose target [`is_of_sdk`].
#[must_use]
pub fn level() -> LevelFilter {
    let wanted = |level: &LevelFilter| WISHES[*level as usize].load(Ordering::Relaxed) > 0;
    LevelFilter::iter().filter(wanted).last().unwrap_or(LevelFilter::Off)
}

/// Whether a record of this target is the SDK's.
#[must_use]
pub fn is_of_sdk(target: &str) -> bool {
    target.starts_with("aws_")
}

/// Whether records of this target of the SDK tell of credentials: nobody may want those.
#[must_use]
pub fn tells_of_credentials(target: &str) -> bool {
    ["auth", "endpoint", "sigv4", "credential", "identity", "aws_config"]
        .iter()
        .any(|word| target.contains(word))
}

/// That a bucket, as long as it is open, wants a level.
#[derive(Debug)]
pub(super) struct Wish(LevelFilter);

impl Wish {
    pub fn new(level: S3LogLevel) -> Self {
        let level = match level {
            // Nothing of what the SDK logs is the end of a process.
            S3LogLevel::Off | S3LogLevel::Fatal => LevelFilter::Off,
            S3LogLevel::Error => LevelFilter::Error,
            S3LogLevel::Warn => LevelFilter::Warn,
            S3LogLevel::Info => LevelFilter::Info,
            // Its traces are the whole of its inside, keys' names too.
            S3LogLevel::Debug | S3LogLevel::Trace => LevelFilter::Debug,
        };
        WISHES[level as usize].fetch_add(1, Ordering::Relaxed);
        // Whoever takes the records drops those of others.
        log::set_max_level(log::max_level().max(level));
        Self(level)
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        WISHES[self.0 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_that_wants_most_decides_until_it_is_closed() {
        // Other tests open buckets that want nothing.
        let _warn = Wish::new(S3LogLevel::Warn);
        assert_eq!(level(), LevelFilter::Warn);
        let trace = Wish::new(S3LogLevel::Trace);
        let _fatal = Wish::new(S3LogLevel::Fatal);
        assert_eq!(level(), LevelFilter::Debug);
        drop(trace);
        assert_eq!(level(), LevelFilter::Warn);
        assert!(is_of_sdk("aws_smithy_runtime::client::orchestrator") && !is_of_sdk("abs_storage::s3"));
    }
}
