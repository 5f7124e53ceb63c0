//! Storage: where backups are kept.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Problems;
use crate::check::{Check, Findings};
use crate::cloud_storage::{AzureSettings, AzureStorage, GcpSettings, GcpStorage, S3Settings, S3Storage};
use crate::secret::{SecretText, Secrets, below};
use crate::settings::Agents;
use crate::unsupported;

/// The document `dto.Storage`. It has exactly one of its keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::Storage)]
pub struct Storage {
    /// A folder of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_storage: Option<LocalStorage>,
    /// A bucket of Amazon S3 or of what speaks its protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3_storage: Option<S3Storage>,
    /// A bucket of Google Cloud Storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gcp_storage: Option<GcpStorage>,
    /// A container of Azure Blob Storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure_storage: Option<AzureStorage>,
}

/// The document `dto.LocalStorage`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::LocalStorage)]
pub struct LocalStorage {
    /// The folder that holds the backups, without `..` and the like.
    #[schema(example = "backups")]
    pub path: String,
    /// The size of the pieces in which files are written, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
    pub min_part_size: Option<i64>,
}

/// A storage, ready to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageSettings {
    /// A folder of this machine.
    Local {
        /// The folder.
        path: PathBuf,
    },
    /// A bucket of Amazon S3 or of what speaks its protocol.
    S3(S3Settings),
    /// A bucket of Google Cloud Storage.
    Gcp(GcpSettings),
    /// A container of Azure Blob Storage.
    Azure(AzureSettings),
}

impl StorageSettings {
    /// Whether locks of the system keep two services from the same routine in it, which end with their process.
    #[must_use]
    pub fn has_locks(&self) -> bool {
        matches!(self, Self::Local { .. })
    }
}

impl Secrets for Storage {
    fn each_secret(&mut self, path: &str, visit: &mut dyn FnMut(String, &mut SecretText)) {
        if let Some(s3) = &mut self.s3_storage {
            s3.each_secret(&below(path, "s3-storage"), visit);
        }
        if let Some(gcp) = &mut self.gcp_storage {
            gcp.each_secret(&below(path, "gcp-storage"), visit);
        }
        if let Some(azure) = &mut self.azure_storage {
            azure.each_secret(&below(path, "azure-storage"), visit);
        }
    }

    fn recipient(&self) -> Self {
        Self {
            local_storage: self.local_storage.clone(),
            s3_storage: self.s3_storage.as_ref().map(Secrets::recipient),
            gcp_storage: self.gcp_storage.as_ref().map(Secrets::recipient),
            azure_storage: self.azure_storage.as_ref().map(Secrets::recipient),
        }
    }
}

impl Storage {
    /// What a document that stands alone means, or all that is wrong with it: it may not name Secret Agents, for there are
    /// none around it.
    pub fn check(&self) -> Result<StorageSettings, Problems> {
        let agents = Agents::of_settings("secret-agents", &BTreeMap::new());
        let mut findings = Findings::default();
        let settings = self.settings(&agents, &mut Check::new("", &mut findings));
        findings.of_stored()?;
        settings.ok_or_else(|| Problems::one("", "is no storage"))
    }

    /// None if it is none that this version can open, with the problem noted.
    pub(crate) fn settings(&self, agents: &Agents, check: &mut Check<'_>) -> Option<StorageSettings> {
        let mut given = Vec::new();
        let mut settings = None;
        if let Some(local) = &self.local_storage {
            given.push("local-storage");
            settings = Some(local.settings(&mut check.inside("local-storage")));
        }
        if let Some(s3) = &self.s3_storage {
            given.push("s3-storage");
            settings = Some(StorageSettings::S3(s3.settings(agents, &mut check.inside("s3-storage"))));
        }
        if let Some(gcp) = &self.gcp_storage {
            given.push("gcp-storage");
            settings = Some(StorageSettings::Gcp(gcp.settings(agents, &mut check.inside("gcp-storage"))));
        }
        if let Some(azure) = &self.azure_storage {
            given.push("azure-storage");
            settings =
                Some(StorageSettings::Azure(azure.settings(agents, &mut check.inside("azure-storage"))));
        }
        if given.len() != 1 {
            let kinds = "local-storage, s3-storage, gcp-storage and azure-storage";
            let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
            check.problem("", format_args!("must have exactly one of {kinds}, not {found}"));
        }
        unsupported::storage(self, check);
        settings
    }
}

impl LocalStorage {
    fn settings(&self, check: &mut Check<'_>) -> StorageSettings {
        check.clean_path("path", &self.path);
        check.number("min-part-size", self.min_part_size, 1, 1..=i64::MAX);
        StorageSettings::Local { path: PathBuf::from(&self.path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    fn settings(document: &str) -> Result<Option<StorageSettings>, String> {
        let storage: Storage = crate::from_json(document.as_bytes()).unwrap();
        let agents = Agents::of_settings("secret-agents", &BTreeMap::new());
        Check::document("s", |check| storage.settings(&agents, check))
            .map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_storage_is_one_clean_folder() {
        for path in ["/backups", "./localStorage", "backups", "/", ".", "/a/..b/c.d"] {
            let storage = settings(&format!(r#"{{"local-storage":{{"path":{path:?}}}}}"#)).unwrap();
            assert_eq!(storage, Some(StorageSettings::Local { path: path.into() }));
        }
        for path in ["", "/a/../b", "..", "../a", "/a//b", "/a/", "a/./b", "//a"] {
            let error = settings(&format!(r#"{{"local-storage":{{"path":{path:?}}}}}"#)).unwrap_err();
            let expected = format!("must be a clean path without .., ., // or a / at its end, not {path:?}");
            assert_eq!(error, format!("s.local-storage.path: {expected}"));
        }
        let kinds =
            "s: must have exactly one of local-storage, s3-storage, gcp-storage and azure-storage, not";
        assert_eq!(settings("{}").unwrap_err(), format!("{kinds} none"));
        let two = r#"{"local-storage":{"path":"a"},"gcp-storage":{"bucket-name":"b"}}"#;
        let error = settings(two).unwrap_err();
        assert_eq!(error, format!("{kinds} local-storage and gcp-storage"));
    }

    #[test]
    fn the_size_of_parts_has_no_meaning_on_a_disk() {
        let error = settings(r#"{"local-storage":{"path":"/a","min-part-size":1}}"#).unwrap_err();
        assert!(
            error.starts_with("s.local-storage.min-part-size: is not supported by this version"),
            "{error}"
        );
    }
}
