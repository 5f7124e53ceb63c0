//! Faults that tests inject into workers, and steps at which they end the process. Without the feature `faults`, as in a program that is shipped, there are none.

use crate::backup::BackupRun;
use crate::files::FileTask;
use crate::queue::Batch;
use crate::restore::ChainRestore;

#[cfg(feature = "faults")]
mod injected {
    use std::fmt;
    use std::sync::Arc;

    use std::sync::Once;

    use fail::{FailScenario, fail_point};

    use super::{BackupRun, Batch, ChainRestore, FileTask};

    /// A step has been done. `FAILPOINTS=STEP=return` in the environment ends the process here, as a crash does; with
    /// `STEP=2*off->return` the third time.
    pub(crate) fn done(step: &str) {
        static SETUP: Once = Once::new();
        // Until the end of the process.
        SETUP.call_once(|| std::mem::forget(FailScenario::setup()));
        fail_point!(step, |_| std::process::abort());
    }

    /// What a worker is about to do.
    #[derive(Clone, Copy, Debug)]
    pub enum FaultPoint<'a> {
        /// A backup's worker begins this batch, has read a block of it from the node, or is about to hand over the rest.
        Scan(&'a Batch),
        /// A restore's worker begins its share of this file, or has read a block of it.
        Restore(&'a FileTask),
    }

    /// A function that workers call at every [`FaultPoint`], never per record. It may panic.
    #[derive(Clone)]
    pub struct Fault(Arc<dyn Fn(FaultPoint<'_>) + Send + Sync>);

    impl Fault {
        /// The fault that `strike` is.
        pub fn new(strike: impl Fn(FaultPoint<'_>) + Send + Sync + 'static) -> Self {
            Self(Arc::new(strike))
        }
    }

    impl fmt::Debug for Fault {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Fault")
        }
    }

    impl BackupRun {
        pub(crate) fn strike(&self, batch: &Batch) {
            if let Some(Fault(strike)) = &self.plan.fault {
                strike(FaultPoint::Scan(batch));
            }
        }
    }

    impl ChainRestore {
        pub(crate) fn strike(&self, task: &FileTask) {
            if let Some(Fault(strike)) = &self.plan.fault {
                strike(FaultPoint::Restore(task));
            }
        }
    }
}

#[cfg(feature = "faults")]
pub(crate) use injected::done;
#[cfg(feature = "faults")]
pub use injected::{Fault, FaultPoint};

#[cfg(not(feature = "faults"))]
#[expect(clippy::unused_self, reason = "the shape of the ones that strike")]
mod none {
    use super::{BackupRun, Batch, ChainRestore, FileTask};

    #[inline]
    pub(crate) fn done(_: &str) {}

    impl BackupRun {
        #[inline]
        pub(crate) fn strike(&self, _: &Batch) {}
    }

    impl ChainRestore {
        #[inline]
        pub(crate) fn strike(&self, _: &FileTask) {}
    }
}

#[cfg(not(feature = "faults"))]
pub(crate) use none::done;
