//! Storage in clouds: the documents, what they must say and what they mean.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::InvalidValue;
use crate::check::{Check, most};
use crate::secret::{MASK, Secret, SecretText, Secrets, below, blank, visit_secrets};
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
    #[schema(default = 5_242_880, minimum = 5_242_880, maximum = 1_073_741_824)]
    pub min_part_size: Option<i64>,
    /// How many requests may run at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 4096, example = 16)]
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

    fn recipient(&self) -> Self {
        let mut recipient = Self {
            path: None,
            s3_log_level: None,
            min_part_size: None,
            max_async_connections: None,
            storage_class: None,
            ..self.clone()
        };
        blank(&mut recipient.secret_access_key);
        recipient
    }
}

/// A bucket of S3, ready to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// The folder in the bucket, without a `/` at its ends; empty for the root.
    pub folder: String,
    /// The URL of another service that speaks the protocol.
    pub endpoint: Option<String>,
    /// The profile of AWS's configuration files; that of the environment by default.
    pub profile: Option<String>,
    /// The access key; else AWS's chain of credentials: environment, profile, web identity, container, instance.
    pub key: Option<S3Key>,
    /// The least size of the parts of an upload, in bytes.
    pub part_size: u64,
    /// How many requests may run at the same time.
    pub connections: Option<u32>,
    /// In which class data is stored; that of the bucket by default.
    pub data_class: Option<S3DataClass>,
    /// In which class metadata is stored; that of the bucket by default.
    pub metadata_class: Option<S3MetadataClass>,
    /// What of the SDK's log is wanted.
    pub log_level: S3LogLevel,
}

/// An access key of S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Key {
    /// Its name.
    pub id: Secret,
    /// The key itself.
    pub secret: Secret,
}

impl S3Storage {
    pub(crate) fn settings(&self, agents: &Agents, check: &mut Check<'_>) -> S3Settings {
        check.filled("bucket", &self.bucket);
        check.filled("s3-region", &self.s3_region);
        if let Some(endpoint) = &self.s3_endpoint_override {
            url("s3-endpoint-override", endpoint, check);
        }
        let class = self.storage_class.clone().unwrap_or_default();
        let (data_class, metadata_class) = {
            let mut check = check.inside("storage-class");
            (
                word("data", class.data.as_deref(), &mut check),
                word("metadata", class.metadata.as_deref(), &mut check),
            )
        };
        let agent = agents.of(self.secret_agent.as_ref(), self.secret_agent_name.as_deref(), check);
        let mut secret = |key: &str, text: &Option<SecretText>| {
            Some(Secret::of(text.as_ref()?, key, agent.as_ref(), check))
        };
        let id = secret("access-key-id", &self.access_key_id);
        let secret = secret("secret-access-key", &self.secret_access_key);
        for (key, text) in
            [("access-key-id", &self.access_key_id), ("secret-access-key", &self.secret_access_key)]
        {
            if let Some(text) = text {
                check.filled(key, text.expose());
            }
        }
        match (&id, &secret) {
            (Some(_), None) => check.problem("secret-access-key", "is required with access-key-id"),
            (None, Some(_)) => check.problem("access-key-id", "is required with secret-access-key"),
            _ => {}
        }
        S3Settings {
            bucket: self.bucket.clone(),
            region: self.s3_region.clone(),
            folder: folder(self.path.as_deref(), check),
            endpoint: self.s3_endpoint_override.clone(),
            profile: self.s3_profile.clone(),
            key: id.zip(secret).map(|(id, secret)| S3Key { id, secret }),
            part_size: part_size(self.min_part_size, LEAST_S3_PART, check),
            connections: self
                .max_async_connections
                .map(|n| check.clamped("max-async-connections", Some(n), 1, 1..=most::CONNECTIONS)),
            data_class,
            metadata_class,
            log_level: word("s3-log-level", self.s3_log_level.as_deref(), check).unwrap_or(S3LogLevel::Fatal),
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
    #[schema(default = 5_242_880, minimum = 262_144, maximum = 1_073_741_824)]
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

    fn recipient(&self) -> Self {
        let mut recipient = Self { path: None, min_part_size: None, storage_class: None, ..self.clone() };
        blank(&mut recipient.key);
        recipient
    }
}

/// A bucket of Google Cloud Storage, ready to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcpSettings {
    /// The bucket.
    pub bucket: String,
    /// The folder in the bucket, without a `/` at its ends; empty for the root.
    pub folder: String,
    /// The URL of another service that speaks the protocol.
    pub endpoint: Option<String>,
    /// The JSON key of the service account; else the credentials of the environment, or none with an `endpoint`.
    pub key: Option<Secret>,
    /// The least size of the parts of an upload, in bytes.
    pub part_size: u64,
    /// In which class data is stored; that of the bucket by default.
    pub data_class: Option<GcpDataClass>,
}

impl GcpStorage {
    pub(crate) fn settings(&self, agents: &Agents, check: &mut Check<'_>) -> GcpSettings {
        check.filled("bucket-name", &self.bucket_name);
        if let Some(endpoint) = &self.endpoint {
            url("endpoint", endpoint, check);
        }
        let class = self.storage_class.as_ref().and_then(|class| class.data.as_deref());
        let data_class = word("data", class, &mut check.inside("storage-class"));
        let agent = agents.of(self.secret_agent.as_ref(), self.secret_agent_name.as_deref(), check);
        let key = self.key.as_ref().map(|text| Secret::of(text, "key", agent.as_ref(), check));
        if self.key.is_some() && self.key_file_path.is_some() {
            check.problem("key", "contradicts key-file-path: give one of them");
        }
        GcpSettings {
            bucket: self.bucket_name.clone(),
            folder: folder(self.path.as_deref(), check),
            endpoint: self.endpoint.clone(),
            key: key.or_else(|| self.key_file_path.as_ref().map(|path| Secret::File(PathBuf::from(path)))),
            part_size: part_size(self.min_part_size, LEAST_GCP_PART, check),
            data_class,
        }
    }
}

/// The document `dto.AzureStorage`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schema(as = dto::AzureStorage)]
pub struct AzureStorage {
    /// The URL of the service. Its query, a shared access signature, is a secret.
    #[schema(value_type = String)]
    pub endpoint: SignedUrl,
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
    #[schema(default = 5_242_880, minimum = 1_048_576, maximum = 1_073_741_824)]
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
        self.endpoint.visit_signature(below(path, "endpoint"), visit);
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

    fn recipient(&self) -> Self {
        let mut recipient = Self { path: None, min_part_size: None, storage_class: None, ..self.clone() };
        blank(&mut recipient.account_key);
        blank(&mut recipient.client_secret);
        // Its query is the secret.
        recipient.endpoint = recipient.endpoint.without_query().into();
        recipient
    }
}

/// A URL whose query, if it has one, is a secret: a shared access signature. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct SignedUrl(SecretText);

impl SignedUrl {
    /// The whole URL.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// The URL without its query.
    #[must_use]
    pub fn without_query(&self) -> &str {
        self.expose().split('?').next().unwrap_or_default()
    }

    fn visit_signature(&mut self, path: String, visit: &mut dyn FnMut(String, &mut SecretText)) {
        let Some((url, query)) = self.expose().split_once('?').filter(|(_, query)| !query.is_empty()) else {
            return;
        };
        let mut secret = SecretText::from(query);
        let url = url.to_owned();
        visit(path, &mut secret);
        self.0 = format!("{url}?{}", secret.expose()).into();
    }
}

impl From<String> for SignedUrl {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for SignedUrl {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<SignedUrl> for String {
    fn from(url: SignedUrl) -> Self {
        url.0.into()
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.without_query())
    }
}

/// A container of Azure Blob Storage, ready to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureSettings {
    /// The URL of the service.
    pub endpoint: SignedUrl,
    /// The container.
    pub container: String,
    /// The folder in the container, without a `/` at its ends; empty for the root.
    pub folder: String,
    /// Who asks.
    pub credentials: AzureCredentials,
    /// The least size of the parts of an upload, in bytes.
    pub part_size: u64,
    /// In which tier data is stored; that of the account by default.
    pub data_tier: Option<AzureDataTier>,
    /// In which tier metadata is stored; that of the account by default.
    pub metadata_tier: Option<AzureMetadataTier>,
}

/// Who asks Azure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AzureCredentials {
    /// Nobody, or whom the endpoint's shared access signature speaks for.
    Endpoint,
    /// The account, by its shared key.
    SharedKey {
        /// The account.
        account: String,
        /// Its key, in base64.
        key: Secret,
    },
    /// A client of Entra ID (Azure Active Directory).
    Client {
        /// Its tenant.
        tenant: Secret,
        /// Its name.
        id: Secret,
        /// Its secret.
        secret: Secret,
    },
}

impl AzureStorage {
    pub(crate) fn settings(&self, agents: &Agents, check: &mut Check<'_>) -> AzureSettings {
        self.check_endpoint(check);
        check.filled("container-name", &self.container_name);
        let class = self.storage_class.clone().unwrap_or_default();
        let (data_tier, metadata_tier) = {
            let mut check = check.inside("storage-class");
            (
                word("data", class.data.as_deref(), &mut check),
                word("metadata", class.metadata.as_deref(), &mut check),
            )
        };
        AzureSettings {
            endpoint: self.endpoint.clone(),
            container: self.container_name.clone(),
            folder: folder(self.path.as_deref(), check),
            credentials: self.credentials(agents, check),
            part_size: part_size(self.min_part_size, LEAST_AZURE_PART, check),
            data_tier,
            metadata_tier,
        }
    }

    fn check_endpoint(&self, check: &mut Check<'_>) {
        url("endpoint", self.endpoint.expose(), check);
        if self.endpoint.expose().split_once('?').is_some_and(|(_, query)| query == MASK) {
            check.problem("endpoint", format_args!("has the query {MASK}: give the shared access signature"));
        }
    }

    fn credentials(&self, agents: &Agents, check: &mut Check<'_>) -> AzureCredentials {
        let agent = agents.of(self.secret_agent.as_ref(), self.secret_agent_name.as_deref(), check);
        let mut secret = |key: &str, text: &Option<SecretText>| {
            Some(Secret::of(text.as_ref()?, key, agent.as_ref(), check))
        };
        let key = secret("account-key", &self.account_key);
        let tenant = secret("tenant-id", &self.tenant_id);
        let client = secret("client-id", &self.client_id);
        let password = secret("client-secret", &self.client_secret);
        if key.is_some() && password.is_some() {
            check
                .problem("account-key", "contradicts client-secret: give a shared key or a client, not both");
        }
        match (key, &self.account_name) {
            (Some(key), Some(account)) => {
                return AzureCredentials::SharedKey { account: account.clone(), key };
            }
            (Some(_), None) => check.problem("account-name", "is required with account-key"),
            (None, _) => {}
        }
        let missing = [
            ("tenant-id", tenant.is_none()),
            ("client-id", client.is_none()),
            ("client-secret", password.is_none()),
        ];
        if missing.iter().any(|(_, missing)| !missing) {
            for (key, _) in missing.iter().filter(|(_, missing)| *missing) {
                check.problem(key, "is required: a client has a tenant-id, a client-id and a client-secret");
            }
        }
        match (tenant, client, password) {
            (Some(tenant), Some(id), Some(secret)) => AzureCredentials::Client { tenant, id, secret },
            _ => AzureCredentials::Endpoint,
        }
    }
}

/// The least sizes of parts, in bytes: that of S3 for all parts but the last, the unit of a resumable upload to Google, and
/// what Aerospike Backup Service asks of Azure.
const LEAST_S3_PART: u64 = 5 << 20;
const LEAST_GCP_PART: u64 = 256 << 10;
const LEAST_AZURE_PART: u64 = 1 << 20;

/// Parts of this size by default, in bytes.
const PART: u64 = 5 << 20;

/// The most that `min-part-size` can say, in bytes: an upload holds four parts in memory.
const LARGEST_PART: i64 = 1 << 30;

fn part_size(bytes: Option<i64>, least: u64, check: &mut Check<'_>) -> u64 {
    bytes.map_or(PART, |bytes| check.number("min-part-size", Some(bytes), PART, least as i64..=LARGEST_PART))
}

/// The folder of a bucket; an empty one is the root.
fn folder(path: Option<&str>, check: &mut Check<'_>) -> String {
    let path = path.unwrap_or_default();
    if !path.is_empty() && path != "/" {
        check.clean_path("path", path);
    }
    let path = if path == "." { "" } else { path.strip_prefix("./").unwrap_or(path) };
    path.trim_matches('/').to_owned()
}

fn word<T: FromStr<Err = InvalidValue>>(key: &str, word: Option<&str>, check: &mut Check<'_>) -> Option<T> {
    word.and_then(|word| check.valid(key, word.parse()))
}

/// The address of a service.
fn url(key: &str, text: &str, check: &mut Check<'_>) {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
        check.problem(key, "must be a URL that begins with http:// or https:// and names a host");
    }
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    if host.contains('@') {
        check.problem(key, "must not hold a user or a password: they are shown");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Findings;

    use std::collections::BTreeMap;

    /// Protects: a password in a URL, which every answer and many log lines show, is refused.
    #[test]
    fn an_endpoint_holds_no_password() {
        let document =
            r#"{"s3-storage":{"bucket":"b","s3-region":"r","s3-endpoint-override":"http://u:p@h:1/x"}}"#;
        let storage: crate::Storage = crate::from_json(document.as_bytes()).unwrap();
        let agents = Agents::of_settings("secret-agents", &BTreeMap::new());
        let problems = Check::document("", |check| storage.settings(&agents, check)).unwrap_err();
        let lines: Vec<String> = problems.list().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            ["s3-storage.s3-endpoint-override: must not hold a user or a password: they are shown"]
        );
        let document = document.replace("u:p@h:1/x", "h:1/x@y");
        let storage: crate::Storage = crate::from_json(document.as_bytes()).unwrap();
        Check::document("", |check| storage.settings(&agents, check)).unwrap();
    }

    #[test]
    fn what_is_wrong_with_a_cloud_is_told_too() {
        let document = r#"{
            "s3-storage":{"bucket":"","s3-region":"r","path":"/a/../b","min-part-size":1,"s3-log-level":"loud",
                "storage-class":{"data":"STANDARD","metadata":"GLACIER"},"access-key-id":"a"},
            "gcp-storage":{"bucket-name":"b","key":"k","key-file-path":"p","storage-class":{"data":"x"}},
            "azure-storage":{"endpoint":"h:1","container-name":"c","account-key":"k","client-secret":"secrets:r:k",
                "storage-class":{"metadata":"Archive"}}}"#;
        let storage: crate::Storage = crate::from_json(document.as_bytes()).unwrap();
        let agents = Agents::of_settings("secret-agents", &BTreeMap::new());
        let problems = Check::document("", |check| storage.settings(&agents, check)).unwrap_err();
        let lines: Vec<String> = problems.list().iter().map(ToString::to_string).collect();
        let client = "is required: a client has a tenant-id, a client-id and a client-secret";
        let expected = [
            "s3-storage.bucket: must not be empty",
            "s3-storage.storage-class.metadata: \"GLACIER\" is no storage class: it can be STANDARD, STANDARD_IA, \
             INTELLIGENT_TIERING, EXPRESS_ONEZONE, ONEZONE_IA or OUTPOSTS",
            "s3-storage.secret-access-key: is required with access-key-id",
            "s3-storage.path: must be a clean path without .., ., // or a / at its end, not \"/a/../b\"",
            "s3-storage.min-part-size: must be at least 5242880, not 1",
            "s3-storage.s3-log-level: \"loud\" is no log level: it can be OFF, FATAL, ERROR, WARN, INFO, DEBUG or TRACE",
            "gcp-storage.storage-class.data: \"x\" is no storage class: it can be STANDARD, NEARLINE, COLDLINE or ARCHIVE",
            "gcp-storage.key: contradicts key-file-path: give one of them",
            "azure-storage.endpoint: must be a URL that begins with http:// or https:// and names a host",
            "azure-storage.storage-class.metadata: \"Archive\" is no storage tier: it can be Hot, Cool or Cold",
            "azure-storage.client-secret: is in a secret agent: give secret-agent-name or secret-agent",
            "azure-storage.account-key: contradicts client-secret: give a shared key or a client, not both",
            "azure-storage.account-name: is required with account-key",
            &format!("azure-storage.tenant-id: {client}"),
            &format!("azure-storage.client-id: {client}"),
        ];
        assert_eq!(lines[..expected.len()], expected);
        assert_eq!(lines.len(), expected.len() + 1, "and that there are several");
    }

    /// What a storage means, with the paths of its folder written in all ways.
    #[test]
    fn a_cloud_is_a_folder_of_a_bucket() {
        let agents = Agents::of_settings("secret-agents", &BTreeMap::new());
        let mut findings = Findings::default();
        let mut check = Check::new("", &mut findings);
        let s3 = |path: Option<&str>| S3Storage {
            bucket: "b".into(),
            s3_region: "r".into(),
            path: path.map(str::to_owned),
            access_key_id: Some("id".into()),
            secret_access_key: Some("key".into()),
            ..S3Storage::default()
        };
        for (path, folder) in [
            (None, ""),
            (Some(""), ""),
            (Some("/"), ""),
            (Some("a/b"), "a/b"),
            (Some("/a"), "a"),
            (Some("."), ""),
            (Some("./a"), "a"),
        ] {
            let settings = s3(path).settings(&agents, &mut check);
            assert_eq!((settings.folder.as_str(), settings.part_size), (folder, 5 << 20));
            assert!(settings.key.is_some());
        }
        let gcp = GcpStorage {
            bucket_name: "b".into(),
            key_file_path: Some("/k".into()),
            min_part_size: Some(1 << 20),
            ..GcpStorage::default()
        };
        let gcp = gcp.settings(&agents, &mut check);
        assert_eq!((gcp.key, gcp.part_size), (Some(Secret::File("/k".into())), 1 << 20));
        let azure = AzureStorage {
            endpoint: "https://a.blob.core.windows.net/?sv=1&sig=hunter2".into(),
            container_name: "c".into(),
            ..AzureStorage::default()
        };
        let settings = azure.settings(&agents, &mut check);
        assert_eq!(settings.credentials, AzureCredentials::Endpoint);
        assert!(settings.endpoint.expose().ends_with("hunter2"));
        assert!(!format!("{settings:?} {azure:?}").contains("hunter2"), "{settings:?} {azure:?}");
        let keyed = AzureStorage { account_name: Some("a".into()), account_key: Some("k".into()), ..azure };
        let credentials = keyed.settings(&agents, &mut check).credentials;
        assert!(matches!(credentials, AzureCredentials::SharedKey { account, .. } if account == "a"));
        findings.of_new().unwrap();
    }

    /// Protects: a shared access signature is masked, and comes back for its mask.
    #[test]
    fn a_signature_in_an_endpoint_is_a_secret() {
        let stored = AzureStorage {
            endpoint: "https://a.blob.core.windows.net/?sv=1&sig=hunter2".into(),
            container_name: "c".into(),
            ..AzureStorage::default()
        };
        let masked = stored.masked();
        assert_eq!(masked.endpoint.expose(), "https://a.blob.core.windows.net/?[secret]");
        let mut returned = masked.clone();
        returned.unmask(Some(&stored)).unwrap();
        assert_eq!(returned, stored);
        let refused = masked.clone().unmask(None).unwrap_err();
        assert!(refused.list()[0].to_string().starts_with("endpoint: reads [secret]"), "{refused:?}");
        let agents = Agents::of_settings("secret-agents", &BTreeMap::new());
        let problems = Check::document("", |check| masked.settings(&agents, check)).unwrap_err();
        assert!(
            problems.list()[0].to_string().starts_with("endpoint: has the query [secret]"),
            "{problems:?}"
        );
        let bare = AzureStorage { endpoint: "https://a/".into(), ..stored };
        assert_eq!(bare.masked(), bare);
    }
}
