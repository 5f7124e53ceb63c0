//! The configuration of the cluster that was saved with a backup.

use abs_storage::ObjectPath;
use chrono::{DateTime, Utc};

use super::layout::{CONFIGURATION_EXTENSION, configuration_file, configuration_folder, time_in};
use super::{Backup, BackupKind, Catalog, CatalogError, Result};

/// The largest configuration of a node that is read, in bytes.
const LIMIT: usize = 16 << 20;

impl Catalog {
    /// Saves the configuration of the `index`th node (from 0) of the cluster with a run.
    pub async fn write_configuration(&self, run: &ObjectPath, index: usize, text: &str) -> Result<()> {
        Ok(self.storage().put(&configuration_file(run, index)?, text.as_bytes()).await?)
    }

    /// The names and contents of the configuration files that were saved with the last full backup at or before `time`,
    /// in the order of the nodes. So it is in Aerospike Backup Service; clients give the time of a backup.
    ///
    /// [`CatalogError::NoBackup`] when there is no full backup, [`CatalogError::NoConfiguration`] when nothing was
    /// saved with it.
    pub async fn configurations(&self, routine: &str, time: DateTime<Utc>) -> Result<Vec<(String, Vec<u8>)>> {
        // A backup that cannot be read has its configuration none the less.
        let mut run = None;
        self.walk(routine, BackupKind::Full, ..=time, |listed| {
            let trusted = listed.backups.into_iter().filter(Backup::is_trusted);
            let readable = trusted.map(|backup| (backup.created, backup.run));
            let others = listed.unreadable.into_iter().filter_map(|other| Some((other.created?, other.run)));
            run = readable.chain(others).max();
            run.is_some()
        })
        .await?;
        let Some((_, run)) = run else {
            return Err(CatalogError::NoBackup { routine: routine.to_owned(), time, suspect: None });
        };
        // Of a backup without a time in its path it lies beside the namespaces.
        let has_time = time_in(run.name()).is_some();
        let home = if has_time { run.clone() } else { BackupKind::Full.folder(routine)? };
        let mut files = self.storage().list(&configuration_folder(&home)?, false).await?.objects;
        files.retain(|file| file.path.name().ends_with(CONFIGURATION_EXTENSION));
        // By number: that of node 10 comes after that of node 9.
        files.sort_by(|a, b| {
            let (a, b) = (a.path.name(), b.path.name());
            (a.len(), a).cmp(&(b.len(), b))
        });
        if files.is_empty() {
            return Err(CatalogError::NoConfiguration { run });
        }
        let mut texts = Vec::with_capacity(files.len());
        for file in files {
            let text = self.storage().get(&file.path, LIMIT).await?;
            texts.push((file.path.name().to_owned(), text));
        }
        Ok(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Place, at, metadata, run};
    use super::*;

    #[tokio::test]
    async fn it_is_that_of_the_last_full_backup_then() {
        let place = Place::new();
        let catalog = &place.catalog;
        let ask = |minutes| catalog.configurations("r", at(minutes));
        assert!(matches!(ask(0).await.unwrap_err(), CatalogError::NoBackup { .. }));
        place.full("test", 0);
        place.full("other", 0);
        let error = ask(0).await.unwrap_err().to_string();
        assert!(error.starts_with("r/backup/1704110400000 holds no cluster configuration"), "{error}");
        for index in 0..12 {
            catalog
                .write_configuration(&run(BackupKind::Full, 0), index, &format!("node {index}"))
                .await
                .unwrap();
        }
        place.write("r/backup/1704110400000/configuration/notes.txt", "");
        place.full("test", 10);
        catalog.write_configuration(&run(BackupKind::Full, 10), 0, "later").await.unwrap();
        for minutes in [0, 9] {
            let files = ask(minutes).await.unwrap();
            assert_eq!(files.len(), 12);
            assert_eq!(files[2], ("aerospike_2.conf".to_owned(), b"node 2".to_vec()));
            assert_eq!(files[11].0, "aerospike_11.conf");
        }
        assert_eq!(ask(10).await.unwrap(), [("aerospike_0.conf".to_owned(), b"later".to_vec())]);
        place.write("r/backup/1704111000000/data/test/metadata.yaml", "damaged");
        assert_eq!(ask(10).await.unwrap()[0].1, b"later", "the configuration is not");
        assert!(ask(-1).await.is_err());
    }

    #[tokio::test]
    async fn before_3_0_it_may_lie_beside_the_namespaces() {
        let place = Place::new();
        place.backup("r/backup/data/test", &metadata("test", at(0), None));
        place.write("r/backup/configuration/aerospike_0.conf", "old");
        let files = place.catalog.configurations("r", at(5)).await.unwrap();
        assert_eq!(files, [("aerospike_0.conf".to_owned(), b"old".to_vec())]);
    }
}
