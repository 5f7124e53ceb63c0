//! What is remembered of restores over restarts of the service: a document for each, which is replaced once a second while
//! it runs, and says how it ended after that. No document holds a secret.

mod documents;
mod record;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use abs_engine::ChainPosition;
use chrono::{DateTime, TimeDelta, Utc};
use slog::{Logger, warn};

use self::documents::Documents;
pub(crate) use self::record::{Chain, RestoreOrder};
use self::record::{Record, VERSION, Work};
use crate::messages::{JobId, RestoreStatus, Status};

/// Restores that have ended and are remembered.
pub(crate) const REMEMBERED: usize = 1000;
/// For how long.
const MOST_AGE: TimeDelta = TimeDelta::days(30);

/// A restore that the end of the service interrupted.
#[derive(Clone, Debug)]
pub(crate) struct Interrupted {
    pub id: JobId,
    pub started: DateTime<Utc>,
    /// Until when it is worth trying.
    pub until: DateTime<Utc>,
    pub order: RestoreOrder,
    /// Empty if it had not been planned.
    pub chains: Vec<(Chain, ChainPosition)>,
}

/// What a journal held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub ended: BTreeMap<JobId, RestoreStatus>,
    pub interrupted: Vec<Interrupted>,
    /// The greatest id that was ever given.
    pub last_id: u64,
}

/// The documents of all restores of a service.
#[derive(Debug)]
pub struct Journal {
    documents: Arc<Documents>,
    log: Logger,
    memory: Mutex<Memory>,
    /// Those of restores that have not ended.
    entries: Mutex<HashMap<JobId, Arc<Entry>>>,
}

/// The document of a restore that has not ended.
#[derive(Debug)]
struct Entry {
    is_resumable: bool,
    record: Mutex<Record>,
    /// That it could not be written was logged.
    is_broken: AtomicBool,
}

impl Journal {
    /// Opens the journal in a folder; its parent must exist. Restores that the end of the service interrupted, not longer than
    /// `within` before, are to be resumed. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be created or read.
    pub fn open(folder: PathBuf, within: Duration, now: DateTime<Utc>, log: Logger) -> io::Result<Self> {
        let documents = Documents::open(folder)?;
        let mut memory = Memory::default();
        let mut entries = HashMap::new();
        for (number, document) in documents.all::<Record>()? {
            let id = JobId(number);
            memory.last_id = memory.last_id.max(number);
            let readable = match document {
                Ok(record) if record.version == VERSION => Ok(record),
                Ok(Record { version, .. }) => Err(format!("{number}.json: its version is {version}")),
                Err(why) => Err(why),
            };
            let mut record = match readable {
                Ok(record) => record,
                Err(why) => {
                    warn!(log, "the journal of a restore is damaged: it has failed"; "job" => number, "error" => &why);
                    let last = documents.written(number).map_or(now, DateTime::from);
                    let status = RestoreStatus::lost(id, last, &why);
                    let record = Record { version: VERSION, status, work: None };
                    if let Err(e) = documents.set_aside(number, &record) {
                        warn!(log, "the journal cannot be written"; "job" => number, "error" => %e);
                    }
                    record
                }
            };
            let Some(mut work) = record.work.take() else {
                memory.ended.insert(id, record.status);
                continue;
            };
            let resumed = match record.status.state {
                Status::Running => work.resume(now, within),
                // Its cancel was journaled, its end was not.
                _ => Err(String::new()),
            };
            let resumed = resumed.and_then(|order| {
                // An attempt that is not noted might be made again for ever.
                record.work = Some(work.clone());
                documents.put(number, &record).map(|()| order).map_err(|e| e.to_string())
            });
            match resumed {
                Ok(order) => {
                    let (started, until) = (record.status.job.started, work.until(within));
                    memory.interrupted.push(Interrupted { id, started, until, order, chains: work.chains });
                    entries.insert(id, Entry::new(record));
                }
                Err(why) => {
                    record.work = None;
                    record.status.interrupt(work.last, &why);
                    if let Err(e) = documents.put(number, &record) {
                        warn!(log, "the journal cannot be written"; "job" => number, "error" => %e);
                    }
                    memory.ended.insert(id, record.status);
                }
            }
        }
        let journal = Self {
            documents: Arc::new(documents),
            log,
            memory: Mutex::new(memory),
            entries: Mutex::new(entries),
        };
        for id in forgotten(&mut lock(&journal.memory).ended, now) {
            journal.delete(id);
        }
        Ok(journal)
    }

    /// What it held when it was opened; nothing the second time.
    pub(crate) fn take_memory(&self) -> Memory {
        std::mem::take(&mut *lock(&self.memory))
    }

    /// Begins the document of a restore. It is written with the first change.
    pub(crate) fn begin(&self, id: JobId, order: RestoreOrder, started: DateTime<Utc>) {
        let order = (!order.has_secrets()).then_some(order);
        let work = Work { order, chains: Vec::new(), last: started, attempts: 0, answered: 0 };
        let status = RestoreStatus::begun(id, started);
        let entry = Entry::new(Record { version: VERSION, status, work: Some(work) });
        lock(&self.entries).insert(id, entry);
    }

    /// Whether the next start of the service resumes this restore if the process ends now.
    pub(crate) fn is_resumable(&self, id: JobId) -> bool {
        let entries = lock(&self.entries);
        entries.get(&id).is_some_and(|entry| entry.is_resumable && !entry.is_broken.load(Relaxed))
    }

    /// Notes that there is the restore.
    pub(crate) fn note_start(&self, id: JobId) -> impl Future<Output = ()> + use<> {
        self.change(id, |_, _| ())
    }

    /// Notes what the restore restores.
    pub(crate) fn note_plan(
        &self,
        id: JobId,
        chains: Vec<(Chain, ChainPosition)>,
    ) -> impl Future<Output = ()> + use<> {
        self.change(id, |_, work| work.chains = chains)
    }

    /// Notes how far the restore is.
    pub(crate) fn note_progress(
        &self,
        id: JobId,
        status: RestoreStatus,
        positions: Vec<Option<ChainPosition>>,
        now: DateTime<Utc>,
    ) -> impl Future<Output = ()> + use<> {
        self.change(id, move |before, work| {
            // A cancel stays.
            *before = RestoreStatus { state: before.state, ..status };
            if positions.iter().any(Option::is_some) {
                work.last = now;
            }
            for ((_, position), new) in work.chains.iter_mut().zip(positions) {
                *position = new.unwrap_or_else(|| position.clone());
            }
        })
    }

    /// Notes that the user cancels the restore.
    pub(crate) fn cancel(&self, id: JobId) -> impl Future<Output = ()> + use<> {
        self.change(id, |status, _| status.state = Status::Canceled)
    }

    /// Notes how the restore ended.
    pub(crate) fn end(&self, id: JobId, status: RestoreStatus) -> impl Future<Output = ()> + use<> {
        let entry = lock(&self.entries).remove(&id);
        self.write(id, entry, |record| (record.status, record.work) = (status, None))
    }

    /// Forgets restores that have ended.
    pub(crate) fn forget(self: &Arc<Self>, ids: Vec<JobId>) {
        if !ids.is_empty() {
            let journal = Arc::clone(self);
            tokio::task::spawn_blocking(move || ids.into_iter().for_each(|id| journal.delete(id)));
        }
    }

    fn delete(&self, id: JobId) {
        if let Err(e) = self.documents.delete(id.0) {
            warn!(self.log, "a restore cannot be deleted from the journal"; "job" => id.0, "error" => %e);
        }
    }

    /// Changes and writes the document of a restore that has not ended.
    fn change<C: FnOnce(&mut RestoreStatus, &mut Work) + Send + 'static>(
        &self,
        id: JobId,
        change: C,
    ) -> impl Future<Output = ()> + use<C> {
        let entry = lock(&self.entries).get(&id).cloned();
        self.write(id, entry, |record| {
            if let Some(work) = &mut record.work {
                change(&mut record.status, work);
            }
        })
    }

    /// Changes a document and writes it; what cannot be written is logged once.
    fn write<C: FnOnce(&mut Record) + Send + 'static>(
        &self,
        id: JobId,
        entry: Option<Arc<Entry>>,
        change: C,
    ) -> impl Future<Output = ()> + use<C> {
        let (documents, log) = (Arc::clone(&self.documents), self.log.clone());
        async move {
            let Some(entry) = entry else { return };
            let written = tokio::task::spawn_blocking(move || {
                // One writer at a time: the last change is in what is written last.
                let mut record = lock(&entry.record);
                change(&mut record);
                let written = documents.put(id.0, &*record);
                written.err().filter(|_| !entry.is_broken.swap(true, Relaxed))
            });
            if let Ok(Some(e)) = written.await {
                warn!(log, "the journal cannot be written, so the restore may not be resumed"; "job" => id.0, "error" => %e);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    fn new(record: Record) -> Arc<Self> {
        let is_resumable = record.work.as_ref().is_some_and(|work| work.order.is_some());
        Arc::new(Self { is_resumable, record: Mutex::new(record), is_broken: AtomicBool::new(false) })
    }
}

/// Takes out what is not remembered any longer; returns its ids.
pub(crate) fn forgotten(ended: &mut BTreeMap<JobId, RestoreStatus>, now: DateTime<Utc>) -> Vec<JobId> {
    let mut ids = Vec::new();
    while let Some((&id, first)) = ended.first_key_value() {
        let age = now - first.job.finished.unwrap_or(first.job.started);
        if age <= MOST_AGE && ended.len() <= REMEMBERED {
            break;
        }
        ended.remove(&id);
        ids.push(id);
    }
    ids
}

#[cfg(test)]
mod tests;
