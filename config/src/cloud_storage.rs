//! Storage in clouds: the documents and what they must say.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::check::Check;
use crate::secret::{Secret, SecretText, Secrets, visit_secrets};
use crate::secret_agent::SecretAgent;
use crate::settings::Agents;
use crate::text::words;

/// The document `dto.S3Storage`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::S3Storage)]
pub struct S3Storage {
    /// The bucket.
    pub bucket: String,
    /// The region of the bucket.
    #[schema(example = "eu-central-1")]
    pub s3_region: String,
    /// The folder in the bucket that holds the backups; the root by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "backups")]
    pub path: Option<String>,
    /// The profile of the credentials file of AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "default")]
    pub s3_profile: Option<String>,
    /// The URL of another service that speaks the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "http://host.docker.internal:9000")]
    pub s3_endpoint_override: Option<String>,
    /// The level of the SDK's log; `FATAL` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<S3LogLevel>, inline, default = "FATAL")]
    pub s3_log_level: Option<String>,
    /// The key's name, or its place in the Secret Agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub access_key_id: Option<SecretText>,
    /// The key, or its place in the Secret Agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub secret_access_key: Option<SecretText>,
    /// The least size of the parts of an upload, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 5_242_880, minimum = 5_242_880)]
    pub min_part_size: Option<i64>,
    /// How many requests may run at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 16)]
    pub max_async_connections: Option<i64>,
    /// In which class objects are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<S3StorageClass>,
    /// The Secret Agent that holds the keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_agent: Option<SecretAgent>,
    /// The name of a configured Secret Agent, instead of `secret-agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_agent_name: Option<String>,
}

/// The document `dto.S3StorageClass`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::S3StorageClass)]
pub struct S3StorageClass {
    /// That of the backups' data.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<S3DataClass>, inline)]
    pub data: Option<String>,
    /// That of their metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<S3MetadataClass>, inline)]
    pub metadata: Option<String>,
}

words! {
    /// A level of the log of the S3 SDK.
    #[allow(missing_docs)]
    pub enum S3LogLevel: "log level" {
        Off = "OFF",
        Fatal = "FATAL",
        Error = "ERROR",
        Warn = "WARN",
        Info = "INFO",
        Debug = "DEBUG",
        Trace = "TRACE",
    }
}

words! {
    /// A storage class of S3 for data.
    #[allow(missing_docs)]
    pub enum S3DataClass: "storage class" {
        Standard = "STANDARD",
        Glacier = "GLACIER",
        StandardIa = "STANDARD_IA",
        OneZoneIa = "ONEZONE_IA",
        IntelligentTiering = "INTELLIGENT_TIERING",
        DeepArchive = "DEEP_ARCHIVE",
        Outposts = "OUTPOSTS",
        GlacierIr = "GLACIER_IR",
        Snow = "SNOW",
        ExpressOneZone = "EXPRESS_ONEZONE",
    }
}

words! {
    /// A storage class of S3 for metadata, which must be readable at once.
    #[allow(missing_docs)]
    pub enum S3MetadataClass: "storage class" {
        Standard = "STANDARD",
        StandardIa = "STANDARD_IA",
        IntelligentTiering = "INTELLIGENT_TIERING",
        ExpressOneZone = "EXPRESS_ONEZONE",
        OneZoneIa = "ONEZONE_IA",
        Outposts = "OUTPOSTS",
    }
}

impl Secrets for S3Storage {
    fn each_secret(&mut self, path: &str, visit: &mut dyn FnMut(String, &mut SecretText)) {
        visit_secrets!(
            self,
            path,
            visit,
            access_key_id = "access-key-id",
            secret_access_key = "secret-access-key"
        );
    }
}

impl S3Storage {
    pub(crate) fn settings(&self, agents: &Agents, check: &mut Check<'_>) {
        check.filled("bucket", &self.bucket);
        check.filled("s3-region", &self.s3_region);
        folder(self.path.as_deref(), check);
        check.number("min-part-size", self.min_part_size, 0, 5 << 20..=i64::MAX);
        check.number("max-async-connections", self.max_async_connections, 0, 1..=i64::from(u32::MAX));
        if let Some(level) = &self.s3_log_level {
            check.valid("s3-log-level", level.parse::<S3LogLevel>());
        }
        if let Some(class) = &self.storage_class {
            let mut check = check.inside("storage-class");
            class.data.as_ref().map(|word| check.valid("data", word.parse::<S3DataClass>()));
            class.metadata.as_ref().map(|word| check.valid("metadata", word.parse::<S3MetadataClass>()));
        }
        let agent = agents.of(self.secret_agent.as_ref(), self.secret_agent_name.as_deref(), check);
        let id = self.access_key_id.as_ref();
        let secret = self.secret_access_key.as_ref();
        id.map(|text| Secret::of(text, "access-key-id", agent.as_ref(), check));
        secret.map(|text| Secret::of(text, "secret-access-key", agent.as_ref(), check));
        match (id, secret) {
            (Some(_), None) => check.problem("secret-access-key", "is required with access-key-id"),
            (None, Some(_)) => check.problem("access-key-id", "is required with secret-access-key"),
            _ => {}
        }
    }
}

/// The document `dto.GcpStorage`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::GcpStorage)]
pub struct GcpStorage {
    /// The bucket.
    pub bucket_name: String,
    /// The folder in the bucket that holds the backups; the root by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "backups")]
    pub path: Option<String>,
    /// The URL of another service that speaks the protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The JSON key of the service account, or its place in the Secret Agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub key: Option<SecretText>,
    /// The file that holds that key, instead of `key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file_path: Option<String>,
    /// The least size of the parts of an upload, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 5_242_880, minimum = 262_144)]
    pub min_part_size: Option<i64>,
    /// In which class objects are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<GcpStorageClass>,
    /// The Secret Agent that holds the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_agent: Option<SecretAgent>,
    /// The name of a configured Secret Agent, instead of `secret-agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_agent_name: Option<String>,
}

/// The document `dto.GcpStorageClass`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::GcpStorageClass)]
pub struct GcpStorageClass {
    /// That of the backups' data.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<GcpDataClass>, inline)]
    pub data: Option<String>,
}

words! {
    /// A storage class of Google Cloud Storage.
    #[allow(missing_docs)]
    pub enum GcpDataClass: "storage class" {
        Standard = "STANDARD",
        Nearline = "NEARLINE",
        Coldline = "COLDLINE",
        Archive = "ARCHIVE",
    }
}

impl Secrets for GcpStorage {
    fn each_secret(&mut self, path: &str, visit: &mut dyn FnMut(String, &mut SecretText)) {
        visit_secrets!(self, path, visit, key = "key");
    }
}

impl GcpStorage {
    pub(crate) fn settings(&self, agents: &Agents, check: &mut Check<'_>) {
        check.filled("bucket-name", &self.bucket_name);
        folder(self.path.as_deref(), check);
        check.number("min-part-size", self.min_part_size, 0, 256 << 10..=i64::MAX);
        if let Some(word) = self.storage_class.as_ref().and_then(|class| class.data.as_ref()) {
            check.inside("storage-class").valid("data", word.parse::<GcpDataClass>());
        }
        let agent = agents.of(self.secret_agent.as_ref(), self.secret_agent_name.as_deref(), check);
        self.key.as_ref().map(|text| Secret::of(text, "key", agent.as_ref(), check));
        if self.key.is_some() && self.key_file_path.is_some() {
            check.problem("key", "contradicts key-file-path: give one of them");
        }
    }
}

/// The document `dto.AzureStorage`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::AzureStorage)]
pub struct AzureStorage {
    /// The URL of the service.
    pub endpoint: String,
    /// The container.
    pub container_name: String,
    /// The folder in the container that holds the backups; the root by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "backups")]
    pub path: Option<String>,
    /// The account, for a shared key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_name: Option<String>,
    /// The shared key, or its place in the Secret Agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub account_key: Option<SecretText>,
    /// The tenant of Azure Active Directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tenant_id: Option<SecretText>,
    /// The client of Azure Active Directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub client_id: Option<SecretText>,
    /// The client's secret, or its place in the Secret Agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub client_secret: Option<SecretText>,
    /// The least size of the parts of an upload, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(default = 5_242_880, minimum = 1_048_576)]
    pub min_part_size: Option<i64>,
    /// In which tier objects are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<AzureStorageClass>,
    /// The Secret Agent that holds the keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_agent: Option<SecretAgent>,
    /// The name of a configured Secret Agent, instead of `secret-agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_agent_name: Option<String>,
}

/// The document `dto.AzureStorageClass`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::AzureStorageClass)]
pub struct AzureStorageClass {
    /// That of the backups' data.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AzureDataTier>, inline)]
    pub data: Option<String>,
    /// That of their metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<AzureMetadataTier>, inline)]
    pub metadata: Option<String>,
}

words! {
    /// A tier of Azure Blob Storage for data.
    #[allow(missing_docs)]
    pub enum AzureDataTier: "storage tier" {
        Hot = "Hot",
        Cool = "Cool",
        Cold = "Cold",
        Archive = "Archive",
    }
}

words! {
    /// A tier of Azure Blob Storage for metadata, which must be readable at once.
    #[allow(missing_docs)]
    pub enum AzureMetadataTier: "storage tier" {
        Hot = "Hot",
        Cool = "Cool",
        Cold = "Cold",
    }
}

impl Secrets for AzureStorage {
    fn each_secret(&mut self, path: &str, visit: &mut dyn FnMut(String, &mut SecretText)) {
        visit_secrets!(
            self,
            path,
            visit,
            account_key = "account-key",
            tenant_id = "tenant-id",
            client_id = "client-id",
            client_secret = "client-secret"
        );
    }
}

impl AzureStorage {
    pub(crate) fn settings(&self, agents: &Agents, check: &mut Check<'_>) {
        check.filled("endpoint", &self.endpoint);
        check.filled("container-name", &self.container_name);
        folder(self.path.as_deref(), check);
        check.number("min-part-size", self.min_part_size, 0, 1 << 20..=i64::MAX);
        if let Some(class) = &self.storage_class {
            let mut check = check.inside("storage-class");
            class.data.as_ref().map(|word| check.valid("data", word.parse::<AzureDataTier>()));
            class.metadata.as_ref().map(|word| check.valid("metadata", word.parse::<AzureMetadataTier>()));
        }
        let agent = agents.of(self.secret_agent.as_ref(), self.secret_agent_name.as_deref(), check);
        for (key, text) in [
            ("account-key", &self.account_key),
            ("tenant-id", &self.tenant_id),
            ("client-id", &self.client_id),
            ("client-secret", &self.client_secret),
        ] {
            text.as_ref().map(|text| Secret::of(text, key, agent.as_ref(), check));
        }
        if self.account_key.is_some() && self.client_secret.is_some() {
            check
                .problem("account-key", "contradicts client-secret: give a shared key or a client, not both");
        }
    }
}

/// The folder of a bucket; an empty one is the root.
fn folder(path: Option<&str>, check: &mut Check<'_>) {
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        check.clean_path("path", path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    #[test]
    fn what_is_wrong_with_a_cloud_is_told_too() {
        let document = r#"{
            "s3-storage":{"bucket":"","s3-region":"r","path":"/a/../b","min-part-size":1,"s3-log-level":"loud",
                "storage-class":{"data":"STANDARD","metadata":"GLACIER"},"access-key-id":"a"},
            "gcp-storage":{"bucket-name":"b","key":"k","key-file-path":"p","storage-class":{"data":"x"}},
            "azure-storage":{"endpoint":"e","container-name":"c","account-key":"k","client-secret":"secrets:r:k",
                "storage-class":{"metadata":"Archive"}}}"#;
        let storage: crate::Storage = crate::from_json(document.as_bytes()).unwrap();
        let agents = Agents::of_settings("secret-agents", &BTreeMap::new());
        let problems = Check::document("", |check| storage.settings(&agents, check)).unwrap_err();
        let lines: Vec<String> = problems.list().iter().map(ToString::to_string).collect();
        let expected = [
            "s3-storage.bucket: must not be empty",
            "s3-storage.path: must be a clean path without .., ., // or a / at its end, not \"/a/../b\"",
            "s3-storage.min-part-size: must be at least 5242880, not 1",
            "s3-storage.s3-log-level: \"loud\" is no log level: it can be OFF, FATAL, ERROR, WARN, INFO, DEBUG or TRACE",
            "s3-storage.storage-class.metadata: \"GLACIER\" is no storage class: it can be STANDARD, STANDARD_IA, \
             INTELLIGENT_TIERING, EXPRESS_ONEZONE, ONEZONE_IA or OUTPOSTS",
            "s3-storage.secret-access-key: is required with access-key-id",
            "gcp-storage.storage-class.data: \"x\" is no storage class: it can be STANDARD, NEARLINE, COLDLINE or ARCHIVE",
            "gcp-storage.key: contradicts key-file-path: give one of them",
            "azure-storage.storage-class.metadata: \"Archive\" is no storage tier: it can be Hot, Cool or Cold",
            "azure-storage.client-secret: is in a secret agent: give secret-agent-name or secret-agent",
            "azure-storage.account-key: contradicts client-secret: give a shared key or a client, not both",
        ];
        assert_eq!(lines[..expected.len()], expected);
    }
}
