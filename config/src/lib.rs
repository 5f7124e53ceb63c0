//! What a user says about backups and restores, as types: a value that exists is a valid one.
//!
//! Documents are those of the configuration file and of the REST API 3.5.0 (schemas `dto.…`), key by key, with what later
//! versions of the reference added; the command line fills the same policies. A document is read strictly ([`from_json`],
//! [`Config::load`]), and its `check` returns the settings to work with, all names resolved and all defaults filled in.
//! Either tells all [`Problems`] at once, each with its path.
//!
//! | module | what it holds |
//! |---|---|
//! | [`document`] [`settings`] | a whole configuration: [`Config`], and its [`Settings`] |
//! | [`load`] [`schema`] | reading documents: [`from_json`], [`from_yaml`], [`Config::load`]; [`json_schema`] for editors |
//! | [`routine`] | [`BackupRoutine`] and its [`RoutineSettings`] |
//! | [`cluster`] [`tls`] | [`AerospikeCluster`] and its [`ClusterSettings`] |
//! | [`storage`] [`cloud_storage`] | [`Storage`] and its [`StorageSettings`] |
//! | [`service`] [`logger`] | [`ServiceConfig`] and its [`ServiceSettings`]; [`LoggerConfig`] and its [`LoggerSettings`] |
//! | [`secret`] [`secret_agent`] | [`Secret`], how documents hide it ([`Secrets`]), and the [`SecretAgent`] |
//! | [`restore_request`] | [`RestoreRequest`], [`RestoreTimestampRequest`] and their settings |
//! | [`backup_policy`] | [`BackupPolicy`] and its [`BackupSettings`] |
//! | [`restore_policy`] | [`RestorePolicy`] and its [`RestoreSettings`] |
//! | [`compression`] [`encryption`] [`file_hash`] | how the files of a backup are packed: [`Compression`], [`Encryption`], [`FileHash`] |
//! | [`retention`] [`retry`] | how long backups are kept, and what is tried again: [`Retention`], [`Retry`] |
//! | [`namespace`] [`partitions`] | what is taken: [`Namespace`], [`NamespaceMap`], [`PartitionFilter`] |
//! | [`rate`] [`size`] [`timestamp`] | [`Bandwidth`], [`RecordRate`], [`SizeMb`], [`Timestamp`] |
//! | [`schedule`] | when routines run: [`Schedule`], in a [`Zone`] |
//! | [`verify`] | when and how closely backups are verified: [`Verify`], [`VerifyMode`] |
//! | [`problem`] | [`Problem`], [`Problems`], [`InvalidValue`]: what is wrong, where, and what would be right |

pub mod backup_policy;
pub mod cloud_storage;
pub mod cluster;
pub mod compression;
pub mod document;
pub mod encryption;
pub mod file_hash;
pub mod load;
pub mod logger;
pub mod namespace;
pub mod partitions;
pub mod problem;
pub mod rate;
pub mod restore_policy;
pub mod restore_request;
pub mod retention;
pub mod retry;
pub mod routine;
pub mod schedule;
pub mod schema;
pub mod secret;
pub mod secret_agent;
pub mod service;
pub mod settings;
pub mod size;
pub mod storage;
pub mod timestamp;
pub mod tls;
pub mod verify;

mod check;
mod text;
mod unsupported;

pub use backup_policy::{BackupPolicy, BackupSettings, IncrementalMode, OnInterrupt};
pub use cloud_storage::{
    AzureCredentials, AzureDataTier, AzureMetadataTier, AzureSettings, AzureStorage, AzureStorageClass,
    GcpDataClass, GcpSettings, GcpStorage, GcpStorageClass, S3DataClass, S3Key, S3LogLevel, S3MetadataClass,
    S3Settings, S3Storage, S3StorageClass, SignedUrl,
};
pub use cluster::{
    AerospikeCluster, AuthMode, ClusterSettings, CredentialSettings, Credentials, SeedAddress, SeedNode,
};
pub use compression::{Compression, CompressionMode, CompressionPolicy, RestoreCompressionPolicy};
pub use document::Config;
pub use encryption::{
    Cipher, CipherKey, Encryption, EncryptionMode, EncryptionPolicy, KeySecrets, KeySource, ReadKey,
};
pub use file_hash::FileHash;
pub use load::{from_json, from_yaml};
pub use logger::{FileLoggerConfig, LogFileSettings, LogFormat, LogLevel, LoggerConfig, LoggerSettings};
pub use namespace::{Namespace, NamespaceMap};
pub use partitions::PartitionFilter;
pub use problem::{InvalidValue, Problem, Problems, Warning};
pub use rate::{Bandwidth, RecordRate};
pub use restore_policy::{
    Existing, RestoreNamespace, RestorePolicy, RestoreSettings, TimestampRestorePolicy,
};
pub use restore_request::{
    RestoreRequest, RestoreRequestSettings, RestoreTimestampRequest, RestoreTimestampSettings,
};
pub use retention::{Retention, RetentionPolicy};
pub use retry::{Retry, RetryPolicy};
pub use routine::{BackupRoutine, RoutineSettings, Scope};
pub use schedule::{Schedule, Zone};
pub use schema::json_schema;
pub use secret::{MASK, Secret, SecretError, SecretReference, SecretText, Secrets};
pub use secret_agent::{
    AgentAddress, AgentError, AgentTls, ConnectionType, SecretAgent, SecretAgentSettings,
};
pub use service::{
    BackupCommonConfig, HttpServerConfig, HttpSettings, RateLimiterConfig, RateSettings, ServiceConfig,
    ServiceSettings, TimestampFormat,
};
pub use settings::Settings;
pub use size::SizeMb;
pub use storage::{LocalStorage, Storage, StorageSettings};
pub use timestamp::Timestamp;
pub use tls::{Tls, TlsIdentity, TlsProtocols, TlsSettings};
pub use verify::{Verify, VerifyMode};
