//! Why a backup or a restore ended early; one line to the user.

use std::path::PathBuf;

use abs_asb::{EncodeError, FileError, FrameError};
use abs_cluster::{ClusterError, ResultCode};
use abs_storage::StorageError;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The cluster failed for good.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A partition could not be read, however often it was tried.
    #[error("namespace {namespace}, partition {partition}: given up after {attempts} attempts: {cause}")]
    Partition {
        /// The namespace.
        namespace: String,
        /// 0 to 4095.
        partition: u16,
        /// How often it was tried without progress.
        attempts: u32,
        /// What happened last.
        cause: String,
    },
    /// A record of the server cannot be written as text.
    #[error("namespace {namespace}, record {digest}: {cause}")]
    Record {
        /// The namespace.
        namespace: String,
        /// Its digest in base64.
        digest: String,
        /// What is wrong with it.
        cause: EncodeError,
    },
    /// A file of the backup cannot be read as text.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of the backup cannot be compressed or decompressed.
    #[error("{file}: {cause}")]
    Frame {
        /// The file.
        file: String,
        /// What went wrong.
        cause: FrameError,
    },
    /// A file of the backup is not what it should be.
    #[error("{file}: {what}")]
    BadFile {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file of a backup is not as it was written.
    #[error("{file}: damaged: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// What differs.
        what: String,
    },
    /// The folder to back up to holds something already.
    #[error("{folder} is not empty: choose a new folder for each backup")]
    NotEmpty {
        /// The folder.
        folder: String,
    },
    /// The folder to back up to holds what a backup left whose process was killed.
    #[error(
        "{folder} holds an unfinished backup of a process that ended (in-progress): continue it, delete the folder, or choose \
         another one"
    )]
    LeftOver {
        /// The folder.
        folder: String,
    },
    /// There is no backup to continue.
    #[error("{folder} holds no unfinished backup that can be continued")]
    NothingToContinue {
        /// The folder.
        folder: String,
    },
    /// The backup to continue is finished.
    #[error("{folder} holds a whole backup: there is nothing to continue")]
    AlreadyDone {
        /// The folder.
        folder: String,
    },
    /// The unfinished backup is of something else.
    #[error(
        "{folder} holds an unfinished backup of namespace {namespace:?} with another selection, encryption or key than given: \
         continue it with the options that it was begun with"
    )]
    OtherOptions {
        /// The folder.
        folder: String,
        /// The namespace.
        namespace: String,
    },
    /// The unfinished backup is of another cluster.
    #[error("{folder} holds an unfinished backup of another cluster: none of its nodes is in this one")]
    OtherCluster {
        /// The folder.
        folder: String,
    },
    /// A backup was continued again and again without a new checkpoint.
    #[error("{folder}: the backup was continued {times} times without progress")]
    NoProgress {
        /// The folder.
        folder: String,
        /// How often.
        times: u32,
    },
    /// The folder to back up to is another backup's.
    #[error(
        "{folder} holds an unfinished backup (in-progress) that another process is writing, or left: wait for its end, or \
         choose another folder"
    )]
    Claimed {
        /// The folder.
        folder: String,
    },
    /// Nodes were away, or lost records, while the backup was made.
    #[error(
        "namespace {namespace}: records are missing, because more nodes were away during the backup than there are further \
         copies ({nodes})"
    )]
    Restarted {
        /// The namespace.
        namespace: String,
        /// The nodes.
        nodes: String,
    },
    /// Nodes lost records that had been restored.
    #[error(
        "namespace {namespace} is in memory only, and more nodes were away during the restore than there are further copies \
         ({nodes}): records that were written before are lost"
    )]
    RestoreLost {
        /// The namespace.
        namespace: String,
        /// The nodes.
        nodes: String,
    },
    /// A file was deleted or replaced before the backup was done.
    #[error("{file} {what}: it was deleted or replaced while the backup was written")]
    Changed {
        /// The file.
        file: String,
        /// What is there instead.
        what: String,
    },
    /// The backup was suspended at a checkpoint.
    #[error("the backup was suspended and can be continued")]
    Suspended,
    /// What is to be read is being deleted.
    #[error("{folder} is being deleted")]
    Deleting {
        /// The folder.
        folder: String,
    },
    /// What was to be read was deleted.
    #[error("{folder} was deleted since the restore was planned: its metadata.yaml is gone")]
    Deleted {
        /// The folder.
        folder: String,
    },
    /// Another process took the folder, or deleted it.
    #[error(
        "{folder} was taken by another process while it was written: its in-progress object is gone, or was not renewed for \
         a lease; do two services back up the same routine?"
    )]
    Taken {
        /// The folder.
        folder: String,
    },
    /// A backup is being written to the folder to restore from, or was when its process ended early.
    #[error(
        "{folder} holds no whole backup: it is being written, or its process ended before it was done (in-progress)"
    )]
    Unfinished {
        /// The folder.
        folder: String,
    },
    /// The folder to restore from holds no backup.
    #[error("{folder} holds no backup: there is no .asb file")]
    NoFiles {
        /// The folder.
        folder: String,
    },
    /// The folder to restore from holds more than one backup.
    #[error("{folder} holds several backups, {one} and {other} among them: name the folder of one")]
    SeveralBackups {
        /// The folder.
        folder: String,
        /// The metadata.yaml of one of them.
        one: String,
        /// That of another.
        other: String,
    },
    /// The files of a backup do not hold what its metadata says.
    #[error("{folder}: the backup is not whole: metadata.yaml says {expected}, the files hold {found}")]
    NotWhole {
        /// The folder.
        folder: String,
        /// What metadata.yaml says.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The digests of the newer backups of a chain do not fit.
    #[error(
        "cannot keep the digests of the newer backups in {}: {cause}; about {needed_mib} MiB are needed there, or a larger \
         chain-memory",
        .folder.display()
    )]
    ChainMemory {
        /// The folder of temporary files.
        folder: PathBuf,
        /// How much they may need there.
        needed_mib: u64,
        /// What went wrong.
        cause: String,
    },
    /// A row was refused for good.
    #[error("writing record {digest} to namespace {namespace}: {}", with_remedy(*code))]
    Row {
        /// The namespace written to.
        namespace: String,
        /// The record's digest in base64.
        digest: String,
        /// The server's answer.
        code: ResultCode,
    },
    /// A batch could not be written, however often it was tried.
    #[error("writing {rows} records to namespace {namespace}: given up after {attempts} attempts: {cause}")]
    Batch {
        /// The namespace written to.
        namespace: String,
        /// How many rows had no final answer.
        rows: usize,
        /// How often they were sent.
        attempts: u32,
        /// What happened last.
        cause: String,
    },
    /// A backup would hold redacted values.
    #[error(
        "namespace {namespace} has masking rules that hide values from the backup: {rules}; {cause}: grant the user the role \
         read-masked, or take the redacted values with allow-masked"
    )]
    Masked {
        /// The namespace.
        namespace: String,
        /// The rules, or the first of them.
        rules: String,
        /// The user, and what is missing.
        cause: String,
    },
    /// A plan that cannot be carried out.
    #[error("{0}")]
    Plan(String),
    /// The job was canceled.
    #[error("canceled")]
    Canceled,
    /// A worker of the job panicked; a defect of this program.
    #[error("a worker of the job failed: {0}")]
    Worker(String),
}

/// A refusal and what to do about it, as the end of a message.
pub(crate) fn with_remedy(code: ResultCode) -> String {
    code.remedy().map_or_else(|| code.to_string(), |remedy| format!("{code}: {remedy}"))
}

impl EngineError {
    /// True when the same run may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Cluster(e) => e.is_transient(),
            // Another run of ours, or the user, may make room.
            Self::Storage(e) => e.is_transient() || e.is_full(),
            // Only what is transient is tried more than once.
            Self::Partition { .. } | Self::Batch { .. } | Self::Worker(_) | Self::Changed { .. } => true,
            _ => false,
        }
    }

    /// Whether what a backup has made is kept for another attempt.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        self.is_transient() || matches!(self, Self::Suspended)
    }
}
