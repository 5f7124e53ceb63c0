//! What a journal says of restores when it is opened again.

use abs_engine::RestoreSnapshot;
use slog::o;
use tempfile::TempDir;

use super::*;

const WITHIN: Duration = Duration::from_mins(15);

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn order(password: &str) -> RestoreOrder {
    let request = format!(
        r#"{{"backup-data-path": "p", "source-name": "s", "destination":
            {{"seed-nodes": [{{"host-name": "h", "port": 1}}], "credentials": {{"user": "u", "password": {password:?}}}}}}}"#
    );
    RestoreOrder::Path(abs_config::from_json(request.as_bytes()).unwrap())
}

/// A folder that journals are opened in, one after the other.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self, now: DateTime<Utc>) -> Journal {
        let log = Logger::root(slog::Discard, o!());
        Journal::open(self.0.path().join("restores"), WITHIN, now, log).unwrap()
    }

    /// A journal with a restore that began at 0.
    async fn begun(&self, password: &str) -> Journal {
        let journal = self.open(at(0));
        journal.begin(JobId(7), order(password), at(0));
        journal.note_start(JobId(7)).await;
        let chain = Chain { source: "n".to_owned(), links: Vec::new(), records: None, warnings: Vec::new() };
        journal.note_plan(JobId(7), vec![(chain, ChainPosition::default())]).await;
        journal
    }
}

async fn progress(journal: &Journal, inserted: u64, now: DateTime<Utc>) {
    let counts = RestoreSnapshot { inserted, read: inserted, ..RestoreSnapshot::default() };
    let status = RestoreStatus { counts: counts.clone(), ..RestoreStatus::begun(JobId(7), at(0)) };
    let position = ChainPosition { counts, ..ChainPosition::default() };
    journal.note_progress(JobId(7), status, vec![Some(position)], now).await;
}

/// How the one restore ended, or its position if it is to be resumed.
fn found(journal: &Journal) -> Result<u64, (Status, String)> {
    let Memory { mut ended, interrupted, last_id } = journal.take_memory();
    assert_eq!((ended.len() + interrupted.len(), last_id), (1, 7));
    match ended.pop_first() {
        None => Ok(interrupted[0].chains[0].1.counts.inserted),
        Some((_, status)) => {
            assert!(status.job.finished.is_some());
            Err((status.state, status.error.unwrap_or_default()))
        }
    }
}

/// Protects: a restore that a restart interrupts again and again comes to an end, unless it gets further in between.
#[tokio::test]
async fn a_restore_is_resumed_three_times_without_progress() {
    let place = Place::new();
    progress(&place.begun("secrets:a:b").await, 10, at(1)).await;
    for _ in 0..3 {
        assert_eq!(found(&place.open(at(2))), Ok(10));
    }
    let journal = place.open(at(2));
    let (state, error) = found(&journal).unwrap_err();
    assert_eq!(
        (state, error.as_str()),
        (Status::Failed, "interrupted: it was resumed 3 times without progress")
    );
    assert_eq!(found(&place.open(at(3))).unwrap_err().0, Status::Failed);

    let place = Place::new();
    place.begun("secrets:a:b").await;
    for inserted in 1..10 {
        let journal = place.open(at(2));
        assert_eq!(found(&journal), Ok(inserted - 1));
        progress(&journal, inserted, at(2)).await;
    }
}

/// Protects: what was interrupted for too long, or asked with a secret, has failed with its reason, and no secret is written.
#[tokio::test]
async fn what_is_not_resumed_says_why() {
    let place = Place::new();
    progress(&place.begun("secrets:a:b").await, 10, at(100)).await;
    assert_eq!(found(&place.open(at(1000))), Ok(10));
    let (state, error) = found(&place.open(at(1001))).unwrap_err();
    assert_eq!(state, Status::Failed);
    assert!(error.contains("for 901 s, longer than restore-resume-within (900 s)"), "{error}");

    let place = Place::new();
    let journal = place.begun("hunter2").await;
    assert!(!journal.is_resumable(JobId(7)));
    let text = std::fs::read_to_string(place.0.path().join("restores/7.json")).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    assert!(found(&place.open(at(1))).unwrap_err().1.contains("holds secrets"));
}

/// Protects: a cancel counts from the moment it is journaled, whatever is noted after it.
#[tokio::test]
async fn a_cancel_stays() {
    let place = Place::new();
    let journal = place.begun("secrets:a:b").await;
    journal.cancel(JobId(7)).await;
    progress(&journal, 10, at(1)).await;
    assert_eq!(found(&place.open(at(2))), Err((Status::Canceled, String::new())));
}

/// Protects: the journal does not grow for ever.
#[tokio::test]
async fn what_is_old_is_forgotten() {
    let place = Place::new();
    let journal = place.open(at(0));
    for id in 1..=REMEMBERED as u64 + 2 {
        journal.begin(JobId(id), order("secrets:a:b"), at(0));
        let mut status = RestoreStatus::begun(JobId(id), at(0));
        (status.state, status.job.finished) = (Status::Done, Some(at(i64::from(id > 10))));
        journal.end(JobId(id), status).await;
    }
    let first = |now| place.open(now).take_memory().ended.keys().next().copied();
    assert_eq!(first(at(2)), Some(JobId(3)));
    assert_eq!(first(at(0) + MOST_AGE + TimeDelta::milliseconds(1)), Some(JobId(11)));
    assert_eq!(first(at(0) + MOST_AGE), Some(JobId(11)));
}

/// Protects: a restore whose document is damaged in any way is known as failed, for as long as others are, and the document is
/// kept beside.
#[tokio::test]
async fn a_damaged_document_is_a_failed_restore() {
    let last_write = |file: &std::path::Path| std::fs::File::open(file).unwrap().set_modified(at(0).into());
    for damage in ["cut", "flipped", "empty"] {
        let place = Place::new();
        progress(&place.begun("secrets:a:b").await, 10, at(1)).await;
        let file = place.0.path().join("restores/7.json");
        let mut text = std::fs::read(&file).unwrap();
        let why = if damage == "flipped" {
            text[20] ^= 1;
            "checksum differs"
        } else {
            text.truncate(if damage == "cut" { text.len() / 2 } else { 0 });
            "is not whole"
        };
        std::fs::write(&file, &text).unwrap();
        let aside = file.with_extension("json.damaged");
        last_write(&file).unwrap();
        for _ in 0..2 {
            let (state, error) = found(&place.open(at(2))).unwrap_err();
            assert_eq!(state, Status::Failed);
            assert!(error.contains("journal is damaged") && error.contains(why), "{error}");
            assert_eq!(std::fs::read(&aside).unwrap(), text);
        }
        place.open(at(0) + MOST_AGE + TimeDelta::milliseconds(1));
        assert!(!aside.exists() && !file.exists());
    }

    let place = Place::new();
    let journal = place.begun("secrets:a:b").await;
    let mut record = lock(&lock(&journal.entries)[&JobId(7)].record).clone();
    record.version += 1;
    journal.documents.put(7, &record).unwrap();
    last_write(&place.0.path().join("restores/7.json")).unwrap();
    assert!(found(&place.open(at(2))).unwrap_err().1.contains("version is 2"));
}
