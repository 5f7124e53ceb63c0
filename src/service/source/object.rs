//! A configuration that is an object of a storage.

use std::path::PathBuf;
use std::sync::Arc;

use abs_actors::ConfigSource;
use abs_config::StorageSettings;
use abs_storage::{ObjectPath, Storage};
use async_trait::async_trait;

use super::{LARGEST, text};

/// A configuration in a storage.
#[derive(Debug)]
pub(super) struct Object {
    storage: Arc<dyn Storage>,
    path: ObjectPath,
}

impl Object {
    /// The object at the path of these settings, which in a configuration would be the folder of its backups.
    pub(super) fn new(settings: &StorageSettings) -> Result<Self, String> {
        let mut settings = settings.clone();
        let (key, name) = match &mut settings {
            StorageSettings::Local { path } => ("local-storage.path", local(path)),
            StorageSettings::S3(s3) => ("s3-storage.path", split(&mut s3.folder)),
            StorageSettings::Gcp(gcp) => ("gcp-storage.path", split(&mut gcp.folder)),
            StorageSettings::Azure(azure) => ("azure-storage.path", split(&mut azure.folder)),
        };
        let name = name.ok_or_else(|| format!("{key}: must name the object that holds the configuration"))?;
        let path = ObjectPath::new(&name).map_err(|e| format!("{key}: {e}"))?;
        Ok(Self { storage: abs_storage::open(&settings), path })
    }
}

/// Leaves the folder of a file, and returns the file's name.
fn local(path: &mut PathBuf) -> Option<String> {
    let name = path.file_name()?.to_str()?.to_owned();
    path.pop();
    if path.as_os_str().is_empty() {
        path.push(".");
    }
    Some(name)
}

/// Leaves the folder of an object, and returns the object's name.
fn split(path: &mut String) -> Option<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let (folder, name) = (folder.to_owned(), name.to_owned());
    *path = folder;
    Some(name).filter(|name| !name.is_empty())
}

#[async_trait]
impl ConfigSource for Object {
    fn describe(&self) -> String {
        format!("object {} of {}", self.path, self.storage.describe())
    }

    async fn read(&self) -> Result<String, String> {
        let bytes = self.storage.get(&self.path, LARGEST).await.map_err(|e| e.to_string())?;
        text(bytes, &self.describe())
    }

    async fn write(&self, text: &str) -> Result<(), String> {
        self.storage.put(&self.path, text.as_bytes()).await.map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_read_and_written_in_its_storage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yml");
        let object = Object::new(&StorageSettings::Local { path: path.clone() }).unwrap();
        assert!(object.read().await.unwrap_err().contains("config.yml"), "{object:?}");
        object.write("a: b").await.unwrap();
        assert_eq!(object.read().await.unwrap(), "a: b");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "a: b");
        let error = Object::new(&StorageSettings::Local { path: "/".into() }).unwrap_err();
        assert_eq!(error, "local-storage.path: must name the object that holds the configuration");

        let mut path = "a/b/config.yml".to_owned();
        assert_eq!((split(&mut path).as_deref(), path.as_str()), (Some("config.yml"), "a/b"));
        let mut path = "config.yml".to_owned();
        assert_eq!((split(&mut path).as_deref(), path.as_str()), (Some("config.yml"), ""));
        assert_eq!(split(&mut String::new()), None);
    }
}
