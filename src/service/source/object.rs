//! A configuration that is an object of a storage.

use std::path::Path;
use std::sync::Arc;

use abs_actors::ConfigSource;
use abs_config::StorageSettings;
use abs_storage::{Local, ObjectPath, Storage};
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
        match settings {
            StorageSettings::Local { path } => {
                let named = path.file_name().and_then(|name| name.to_str());
                let name =
                    named.ok_or_else(|| format!("local-storage.path: {} names no file", path.display()))?;
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let storage = Arc::new(Local::new(folder.unwrap_or(Path::new("."))));
                let path = ObjectPath::new(name).map_err(|e| format!("local-storage.path: {e}"))?;
                Ok(Self { storage, path })
            }
        }
    }
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
        assert!(error.contains("names no file"), "{error}");
    }
}
