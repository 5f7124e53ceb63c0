//! Fail points: steps at which tests end the process or make workers panic. Without the feature `faults`, as in a program that
//! is shipped, there are none.

use crate::backup::BackupRun;
use crate::queue::Batch;
use crate::restore::ChainRestore;

#[cfg(feature = "faults")]
mod injected {
    use std::sync::Once;

    use fail::{FailScenario, fail_point};

    use super::{BackupRun, Batch, ChainRestore};

    /// Reads the environment, before the first point is configured or reached: it removes all points.
    fn set_up() {
        static SETUP: Once = Once::new();
        // Until the end of the process.
        SETUP.call_once(|| std::mem::forget(FailScenario::setup()));
    }

    /// A step has been done. `FAILPOINTS=STEP=return` in the environment ends the process here, as a crash does; with
    /// `STEP=2*off->return` the third time.
    pub(crate) fn done(step: &str) {
        set_up();
        fail_point!(step, |_| std::process::abort());
    }

    /// A function that workers call at a point, never per record, until this is dropped. It may panic.
    #[derive(Debug)]
    pub struct Fault(String);

    impl Fault {
        /// Whenever a worker of a backup of a namespace to a storage begins a batch, has read a block of it, or is about to
        /// hand over the rest. `storage` is as it describes itself.
        pub fn in_backup(namespace: &str, storage: &str, strike: impl Fn() + Send + Sync + 'static) -> Self {
            Self::at(format!("backup {namespace} {storage}"), strike)
        }

        /// Whenever such a worker begins a batch with this partition.
        pub fn in_partition(
            partition: u16,
            namespace: &str,
            storage: &str,
            strike: impl Fn() + Send + Sync + 'static,
        ) -> Self {
            Self::at(format!("partition {partition} {namespace} {storage}"), strike)
        }

        /// Whenever a worker of a restore of a namespace from a storage begins its share of a file, or has read a block of it.
        pub fn in_restore(namespace: &str, storage: &str, strike: impl Fn() + Send + Sync + 'static) -> Self {
            Self::at(format!("restore {namespace} {storage}"), strike)
        }

        fn at(point: String, strike: impl Fn() + Send + Sync + 'static) -> Self {
            set_up();
            // Nothing is parsed of a callback.
            let _ = fail::cfg_callback(&point, strike);
            Self(point)
        }
    }

    impl Drop for Fault {
        fn drop(&mut self) {
            fail::remove(&self.0);
        }
    }

    fn reach(point: &str) {
        set_up();
        fail_point!(point);
    }

    impl BackupRun {
        fn place(&self) -> String {
            format!("{} {}", self.plan.namespace, self.files.folder.storage.describe())
        }

        pub(crate) fn begin_batch(&self, batch: &Batch) {
            let place = self.place();
            for partition in batch.partitions() {
                reach(&format!("partition {partition} {place}"));
            }
            self.strike();
        }

        pub(crate) fn strike(&self) {
            reach(&format!("backup {}", self.place()));
        }
    }

    impl ChainRestore {
        pub(crate) fn strike(&self) {
            reach(&format!("restore {} {}", self.plan.source, self.source.storage.describe()));
        }
    }
}

#[cfg(feature = "faults")]
pub use injected::Fault;
#[cfg(feature = "faults")]
pub(crate) use injected::done;

#[cfg(not(feature = "faults"))]
#[expect(clippy::unused_self, reason = "the shape of those that strike")]
mod none {
    use super::{BackupRun, Batch, ChainRestore};

    #[inline]
    pub(crate) fn done(_: &str) {}

    impl BackupRun {
        #[inline]
        pub(crate) fn begin_batch(&self, _: &Batch) {}

        #[inline]
        pub(crate) fn strike(&self) {}
    }

    impl ChainRestore {
        #[inline]
        pub(crate) fn strike(&self) {}
    }
}

#[cfg(not(feature = "faults"))]
pub(crate) use none::done;
