//! What cannot be looked at is not damaged, and not whole either.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use abs_engine::{Depth, KeyRing, Verdict, VerifiedBackup, verify};
use abs_storage::{
    ByteRange, ErrorKind, Listing, Local, ObjectPath, ObjectReader, ObjectWriter, Result, Storage,
    StorageError, Verb,
};
use async_trait::async_trait;
use chrono::Utc;

use crate::damage::is_data;
use crate::support::{Server, Target, plan};

/// What is wrong with the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// `.asb` files lie in an archive.
    ArchivedData,
    /// Everything does.
    ArchivedAll,
    /// Files may not be read.
    Refused,
    /// The backup is deleted when it is read.
    Deleted,
}

/// A folder with such trouble.
#[derive(Debug)]
struct Troubled {
    inner: Local,
    trouble: Trouble,
}

impl Troubled {
    async fn pass(&self, path: &ObjectPath) -> Result<()> {
        let is_data = is_data(path.name());
        let kind = match self.trouble {
            Trouble::Deleted => {
                self.inner.delete_prefix(&path.parent().unwrap()).await?;
                return Ok(());
            }
            Trouble::Refused if is_data => io::Error::from(io::ErrorKind::PermissionDenied).into(),
            Trouble::ArchivedAll => ErrorKind::Archived { tier: "GLACIER".to_owned() },
            Trouble::ArchivedData if is_data => panic!("{path} is asked for"),
            Trouble::ArchivedData | Trouble::Refused => return Ok(()),
        };
        Err(StorageError::new(Verb::Read, path.to_string(), kind))
    }
}

#[async_trait]
impl Storage for Troubled {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn create(&self, path: &ObjectPath) -> Result<Box<dyn ObjectWriter>> {
        panic!("{path} is written");
    }

    async fn open(&self, path: &ObjectPath, range: ByteRange) -> Result<Box<dyn ObjectReader>> {
        self.pass(path).await?;
        self.inner.open(path, range).await
    }

    async fn put(&self, path: &ObjectPath, _: &[u8]) -> Result<()> {
        panic!("{path} is written");
    }

    async fn put_if_absent(&self, path: &ObjectPath, _: &[u8]) -> Result<bool> {
        panic!("{path} is written");
    }

    async fn get(&self, path: &ObjectPath, limit: usize) -> Result<Vec<u8>> {
        self.pass(path).await?;
        self.inner.get(path, limit).await
    }

    async fn list(&self, prefix: &ObjectPath, recursive: bool) -> Result<Listing> {
        let mut listing = self.inner.list(prefix, recursive).await?;
        for object in &mut listing.objects {
            let is_archived = match self.trouble {
                Trouble::ArchivedData => is_data(object.path.name()),
                Trouble::ArchivedAll => true,
                Trouble::Refused | Trouble::Deleted => false,
            };
            object.archived = is_archived.then(|| "GLACIER".to_owned());
        }
        Ok(listing)
    }

    async fn delete_prefix(&self, prefix: &ObjectPath) -> Result<u64> {
        panic!("{prefix} is deleted");
    }

    async fn delete_unfinished(&self, prefix: &ObjectPath, _: Duration) -> Result<u64> {
        panic!("{prefix} is deleted");
    }
}

async fn look(target: &Target, trouble: Trouble, depth: Depth) -> VerifiedBackup {
    let inner = Local::new(target.folder.path());
    let storage: Arc<dyn Storage> = Arc::new(Troubled { inner, trouble });
    let found =
        verify(&storage, &ObjectPath::root(), &KeyRing::default(), depth, &Arc::default()).await.unwrap();
    assert_eq!(found.backups.len(), 1, "{found:?}");
    found.backups[0].clone()
}

/// Protects: nothing is said of what was not looked at, nothing is brought back from an archive, and what is known to be wrong
/// is said all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_looked_at_is_not_verifiable() {
    let server = Server::start(1).await;
    server.load("one", "", 0..20, 100).await;
    let target = Target::new();
    target.backup(&server, "b", &plan("one"), Utc::now()).await.unwrap();
    let cases = [
        (Trouble::ArchivedData, Depth::Full, "archived (GLACIER): "),
        (Trouble::ArchivedData, Depth::Quick, "archived (GLACIER): "),
        (Trouble::ArchivedAll, Depth::Full, "archived (GLACIER): b/metadata.yaml"),
        (Trouble::ArchivedAll, Depth::Quick, "archived (GLACIER): b/metadata.yaml"),
        (Trouble::Refused, Depth::Full, "cannot read b/"),
    ];
    for (trouble, depth, start) in cases {
        let backup = look(&target, trouble, depth).await;
        assert_eq!(backup.verdict(), Verdict::NotVerifiable, "{trouble:?}: {backup:?}");
        assert!(backup.obstacles.iter().any(|line| line.starts_with(start)), "{trouble:?}: {backup:?}");
    }
    assert_eq!(look(&target, Trouble::Refused, Depth::Quick).await.verdict(), Verdict::Whole);

    let files = std::fs::read_dir(target.folder.path().join("b")).unwrap();
    let mut files = files.map(|entry| entry.unwrap().path());
    std::fs::remove_file(files.find(|path| path.extension().is_some_and(|e| e == "asb")).unwrap()).unwrap();
    let backup = look(&target, Trouble::ArchivedData, Depth::Full).await;
    assert!(backup.verdict() == Verdict::Damaged && backup.problems.len() == 1, "{backup:?}");

    let backup = look(&target, Trouble::Deleted, Depth::Full).await;
    assert_eq!((backup.verdict(), backup.obstacles.len()), (Verdict::NotVerifiable, 1), "{backup:?}");
}
