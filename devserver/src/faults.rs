//! Faults that tests inject.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::result_code::ResultCode;

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Info commands.
    Info,
    /// A read of one record.
    Read,
    /// A write, delete or touch of one record.
    Write,
    /// A batch of reads and writes.
    Batch,
    /// A query or scan.
    Query,
    /// Every request.
    Any,
}

impl Kind {
    fn covers(self, kind: Kind) -> bool {
        self == Kind::Any || self == kind
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    CutReply { after: u64 },
    CutRequest,
    DelayRequest(Duration),
    DelayReply(Duration),
    RefuseWrites(ResultCode),
    RefuseInfo { command: &'static str, code: ResultCode },
    FailRow { row: usize, code: ResultCode },
    TimeOutRow { row: usize },
}

/// Something that goes wrong: what, for which requests, on which node, how often.
///
/// Built with one of the constructors, narrowed with [`Fault::on_node`], [`Fault::times`] and
/// [`Fault::once`], put into effect with [`Knobs::inject`](crate::Knobs::inject).
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    kind: Kind,
    action: Action,
    node: Option<usize>,
    left: Option<u64>,
}

impl Fault {
    fn new(kind: Kind, action: Action) -> Fault {
        Fault { kind, action, node: None, left: None }
    }

    /// The connection is closed after the first `after` bytes of a reply of this kind, envelopes counted.
    /// What was asked is done all the same. A reply that is no longer than that goes out whole and does not
    /// use the fault up.
    #[must_use]
    pub fn cut_reply(kind: Kind, after: u64) -> Fault {
        Fault::new(kind, Action::CutReply { after })
    }

    /// The connection is closed when a request of this kind arrives; nothing of the request is done.
    #[must_use]
    pub fn cut_request(kind: Kind) -> Fault {
        Fault::new(kind, Action::CutRequest)
    }

    /// Requests of this kind wait before anything of them is done.
    #[must_use]
    pub fn delay_request(kind: Kind, by: Duration) -> Fault {
        Fault::new(kind, Action::DelayRequest(by))
    }

    /// Each block of a reply of this kind waits before it is sent; what it answers is done by then.
    #[must_use]
    pub fn delay_reply(kind: Kind, by: Duration) -> Fault {
        Fault::new(kind, Action::DelayReply(by))
    }

    /// Writes and deletes, alone or in batches, answer `code` and do nothing.
    #[must_use]
    pub fn refuse_writes(code: ResultCode) -> Fault {
        Fault::new(Kind::Any, Action::RefuseWrites(code))
    }

    /// The info command of this name, without its parameters, answers the error `code` and does nothing.
    #[must_use]
    pub fn refuse_info(command: &'static str, code: ResultCode) -> Fault {
        Fault::new(Kind::Info, Action::RefuseInfo { command, code })
    }

    /// The row at position `row` (from 0) of a batch answers `code` and is not executed.
    #[must_use]
    pub fn fail_row(row: usize, code: ResultCode) -> Fault {
        Fault::new(Kind::Batch, Action::FailRow { row, code })
    }

    /// The row at position `row` (from 0) of a batch is executed and answers that it timed out, as one whose replicas do not
    /// answer in time.
    #[must_use]
    pub fn time_out_row(row: usize) -> Fault {
        Fault::new(Kind::Batch, Action::TimeOutRow { row })
    }

    /// Only on this node (from 0).
    #[must_use]
    pub fn on_node(self, node: usize) -> Fault {
        Fault { node: Some(node), ..self }
    }

    /// Only the first `times` times that it strikes.
    #[must_use]
    pub fn times(self, times: u64) -> Fault {
        Fault { left: Some(times), ..self }
    }

    /// Only the first time.
    #[must_use]
    pub fn once(self) -> Fault {
        self.times(1)
    }
}

/// Names an injected fault, to lift it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultId(u64);

/// The faults in effect.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Mutex<Vec<(FaultId, Fault)>>,
    next: AtomicU64,
    /// Whether there is any rule: spares the lock on the fast path.
    any: AtomicBool,
    refused: Mutex<HashSet<usize>>,
    any_refused: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faults {
    pub(crate) fn inject(&self, fault: Fault) -> FaultId {
        let id = FaultId(self.next.fetch_add(1, Ordering::Relaxed));
        lock(&self.rules).push((id, fault));
        self.any.store(true, Ordering::Release);
        id
    }

    pub(crate) fn lift(&self, id: FaultId) {
        lock(&self.rules).retain(|(other, _)| *other != id);
    }

    pub(crate) fn clear(&self) {
        lock(&self.rules).clear();
        self.any.store(false, Ordering::Release);
        lock(&self.refused).clear();
        self.any_refused.store(false, Ordering::Release);
    }

    pub(crate) fn set_refused(&self, partition: usize, refused: bool) {
        let mut set = lock(&self.refused);
        if refused {
            set.insert(partition);
        } else {
            set.remove(&partition);
        }
        self.any_refused.store(!set.is_empty(), Ordering::Release);
    }

    pub(crate) fn refuses_partition(&self, partition: usize) -> bool {
        self.any_refused.load(Ordering::Acquire) && lock(&self.refused).contains(&partition)
    }

    /// The first rule for which `find` gives something; it is used up once.
    fn strike<T>(&self, node: usize, kind: Kind, find: impl Fn(Action) -> Option<T>) -> Option<T> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut rules = lock(&self.rules);
        let at = rules.iter().position(|(_, fault)| {
            fault.kind.covers(kind)
                && fault.node.is_none_or(|only| only == node)
                && fault.left != Some(0)
                && find(fault.action).is_some()
        })?;
        let fault = &mut rules[at].1;
        if let Some(left) = &mut fault.left {
            *left -= 1;
        }
        find(fault.action)
    }

    /// Whether the connection is to be closed instead of serving a request.
    pub(crate) fn cuts_request(&self, node: usize, kind: Kind) -> bool {
        self.strike(node, kind, |action| (action == Action::CutRequest).then_some(())).is_some()
    }

    /// Of a reply block that reaches from byte `from` to byte `to` of its reply: where the connection is to
    /// be cut.
    pub(crate) fn cuts_reply(&self, node: usize, kind: Kind, from: u64, to: u64) -> Option<u64> {
        self.strike(node, kind, |action| match action {
            Action::CutReply { after } if (from..to).contains(&after) => Some(after),
            _ => None,
        })
    }

    pub(crate) fn request_delay(&self, node: usize, kind: Kind) -> Option<Duration> {
        self.strike(node, kind, |action| match action {
            Action::DelayRequest(by) => Some(by),
            _ => None,
        })
    }

    pub(crate) fn reply_delay(&self, node: usize, kind: Kind) -> Option<Duration> {
        self.strike(node, kind, |action| match action {
            Action::DelayReply(by) => Some(by),
            _ => None,
        })
    }

    pub(crate) fn refused_write(&self, node: usize) -> Option<ResultCode> {
        self.strike(node, Kind::Write, |action| match action {
            Action::RefuseWrites(code) => Some(code),
            _ => None,
        })
    }

    pub(crate) fn refused_info(&self, node: usize, name: &str) -> Option<ResultCode> {
        self.strike(node, Kind::Info, |action| match action {
            Action::RefuseInfo { command, code } if command == name => Some(code),
            _ => None,
        })
    }

    pub(crate) fn times_out_row(&self, node: usize, row: usize) -> bool {
        let is_meant = |action| (action == Action::TimeOutRow { row }).then_some(());
        self.strike(node, Kind::Batch, is_meant).is_some()
    }

    pub(crate) fn failed_row(&self, node: usize, row: usize) -> Option<ResultCode> {
        self.strike(node, Kind::Batch, |action| match action {
            Action::FailRow { row: only, code } if only == row => Some(code),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_its_kind_on_its_node_as_often_as_it_says() {
        let faults = Faults::default();
        faults.inject(Fault::cut_request(Kind::Read).on_node(1).times(2));
        assert!(!faults.cuts_request(0, Kind::Read));
        assert!(!faults.cuts_request(1, Kind::Write));
        assert_eq!([0; 3].map(|_| faults.cuts_request(1, Kind::Read)), [true, true, false]);
        let any = faults.inject(Fault::cut_request(Kind::Any));
        assert!(faults.cuts_request(3, Kind::Info));
        faults.lift(any);
        assert!(!faults.cuts_request(3, Kind::Info));
    }

    #[test]
    fn a_reply_is_cut_in_the_block_that_reaches_the_place() {
        let faults = Faults::default();
        faults.inject(Fault::cut_reply(Kind::Query, 100).once());
        assert_eq!(faults.cuts_reply(0, Kind::Query, 0, 100), None);
        assert_eq!(faults.cuts_reply(0, Kind::Query, 100, 200), Some(100));
        assert_eq!(faults.cuts_reply(0, Kind::Query, 100, 200), None);
    }

    #[test]
    fn clearing_takes_everything_back() {
        let faults = Faults::default();
        faults.inject(Fault::refuse_writes(ResultCode::OUT_OF_SPACE));
        faults.inject(Fault::fail_row(2, ResultCode::PARAMETER));
        faults.set_refused(7, true);
        assert_eq!(faults.failed_row(0, 1), None);
        assert_eq!(faults.failed_row(0, 2), Some(ResultCode::PARAMETER));
        assert!(faults.refuses_partition(7) && !faults.refuses_partition(8));
        faults.clear();
        assert_eq!(faults.refused_write(0), None);
        assert!(!faults.refuses_partition(7));
    }
}
