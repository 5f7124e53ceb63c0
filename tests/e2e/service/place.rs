//! Where backups go in a test: a folder of this machine, or an object store, for which an emulator of `scripts/emulators`
//! stands.

use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;

use abs_storage::{ByteRange, ObjectPath, Storage};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::python;

/// The bucket that every emulator has.
pub const BUCKET: &str = "abs-test";

/// A kind of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Local,
    S3,
    Azure,
    Gcs,
}

/// Makes a test of each of these storages out of a function of a [`Place`], so that a failure names it.
macro_rules! tests_of {
    ($test:ident: $($name:ident $place:ident),+) => {
        mod $test {
            $(#[test]
            fn $name() {
                super::$test(crate::service::place::Place::$place);
            })+
        }
    };
}

/// Makes tests of functions of a [`Place`], of every storage.
macro_rules! on_every_storage {
    ($($test:ident),+ $(,)?) => {
        $(crate::service::place::tests_of!($test: local Local, s3 S3, azure Azure, gcs Gcs);)+
    };
}

/// The same without the folder of this machine.
macro_rules! in_every_cloud {
    ($($test:ident),+ $(,)?) => {
        $(crate::service::place::tests_of!($test: s3 S3, azure Azure, gcs Gcs);)+
    };
}

pub(crate) use {in_every_cloud, on_every_storage, tests_of};

impl Place {
    /// The address of the emulator.
    pub fn address(self) -> String {
        let (name, default) = match self {
            Self::Local => panic!("no emulator stands for a folder"),
            Self::S3 => ("ABS_TEST_S3", "http://127.0.0.1:15101"),
            Self::Azure => ("ABS_TEST_AZURE", "http://127.0.0.1:15102/devstoreaccount1"),
            Self::Gcs => ("ABS_TEST_GCS", "http://127.0.0.1:15103"),
        };
        let address = std::env::var(name).unwrap_or_else(|_| default.to_owned());
        let host = address.split('/').nth(2).unwrap();
        assert!(
            TcpStream::connect(host).is_ok(),
            "nothing listens at {host}: start the emulators with scripts/emulators up"
        );
        address
    }

    /// The entry of a configuration for a folder of a bucket; for a folder of this machine the bucket is nothing.
    pub fn entry(self, bucket: &str, folder: &str) -> Value {
        let mut entry = match self {
            Self::Local => json!({"local-storage": {"path": folder}}),
            Self::S3 => json!({"s3-storage": {
                "bucket": bucket, "path": folder, "s3-region": "us-east-1",
                "s3-endpoint-override": self.address(),
                "access-key-id": "test", "secret-access-key": "test-secret"
            }}),
            Self::Azure => json!({"azure-storage": {
                "container-name": bucket, "path": folder, "endpoint": self.address(),
                "account-name": "devstoreaccount1",
                // Every Azurite has it.
                "account-key": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
            }}),
            Self::Gcs => json!({"gcp-storage": {
                "bucket-name": bucket, "path": folder, "endpoint": self.address()
            }}),
        };
        // The root needs no path.
        if folder.is_empty() {
            let storage = entry.as_object_mut().unwrap().values_mut().next().unwrap();
            storage.as_object_mut().unwrap().remove("path");
        }
        entry
    }

    /// Makes a bucket, or removes one that holds nothing.
    #[track_caller]
    pub fn bucket(self, action: &str, name: &str) {
        let place = match self {
            Self::Local => panic!("a folder has no buckets"),
            Self::S3 => "s3",
            Self::Azure => "azure",
            Self::Gcs => "gcs",
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bucket");
        let made = Command::new(python()).args([script, action, place, name]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
    }
}

/// An entry of a configuration as the API shows it.
pub fn masked(mut entry: Value) -> Value {
    for storage in entry.as_object_mut().unwrap().values_mut() {
        for key in ["access-key-id", "secret-access-key", "account-key"] {
            if let Some(secret) = storage.get_mut(key) {
                *secret = json!("[secret]");
            }
        }
    }
    entry
}

/// A storage as it is, looked at and changed without the service.
#[derive(Debug)]
pub struct Raw {
    storage: Arc<dyn Storage>,
    runtime: Runtime,
}

impl Raw {
    /// The storage of an entry of a configuration.
    pub fn open(entry: &Value) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let entry: abs_config::Storage = serde_json::from_value(entry.clone()).unwrap();
        let _inside = runtime.enter();
        Self { storage: abs_storage::open(&entry.check().unwrap()), runtime }
    }

    /// The paths of all objects, sorted.
    #[track_caller]
    pub fn files(&self) -> Vec<String> {
        let listing = self.runtime.block_on(self.storage.list(&ObjectPath::root(), true)).unwrap();
        listing.objects.into_iter().map(|object| object.path.to_string()).collect()
    }

    #[track_caller]
    pub fn read(&self, path: &str) -> Vec<u8> {
        self.runtime.block_on(async {
            let mut reader = self.storage.open(&object(path), ByteRange::ALL).await.unwrap();
            let mut bytes = Vec::new();
            while reader.read(&mut bytes, 1 << 20).await.unwrap() > 0 {}
            bytes
        })
    }

    #[track_caller]
    pub fn write(&self, path: &str, bytes: &[u8]) {
        self.runtime.block_on(self.storage.put(&object(path), bytes)).unwrap();
    }

    #[track_caller]
    pub fn delete(&self, path: &str) {
        self.runtime.block_on(self.storage.delete_prefix(&object(path))).unwrap();
    }

    /// Deletes what writers left that never ended; returns how many that were.
    #[track_caller]
    pub fn delete_unfinished(&self) -> u64 {
        let age = std::time::Duration::ZERO;
        self.runtime.block_on(self.storage.delete_unfinished(&ObjectPath::root(), age)).unwrap()
    }
}

#[track_caller]
fn object(path: &str) -> ObjectPath {
    ObjectPath::new(path).unwrap()
}
