//! A storage as configured.

use std::sync::Arc;

use abs_config::StorageSettings;

use crate::azure::AzureBucket;
use crate::cloud::patience::Patience;
use crate::cloud::{Cloud, Shape};
use crate::gcs::GcsBucket;
use crate::s3::S3Bucket;
use crate::{Local, Storage};

/// The storage of these settings. Nothing is asked of it yet: what is wrong with it shows at the first call.
#[must_use]
pub fn open(settings: &StorageSettings) -> Arc<dyn Storage> {
    open_with(settings, Patience::default())
}

/// The storage of these settings, with another patience towards object stores.
#[must_use]
pub fn open_with(settings: &StorageSettings, patience: Patience) -> Arc<dyn Storage> {
    match settings {
        StorageSettings::Local { path } => Arc::new(Local::new(path)),
        StorageSettings::Gcp(gcs) => {
            let shape = Shape { folder: &gcs.folder, part_size: gcs.part_size, connections: None };
            Arc::new(Cloud::new(GcsBucket::new(gcs), shape, patience))
        }
        StorageSettings::Azure(azure) => {
            let shape = Shape { folder: &azure.folder, part_size: azure.part_size, connections: None };
            Arc::new(Cloud::new(AzureBucket::new(azure), shape, patience))
        }
        StorageSettings::S3(s3) => {
            let shape = Shape { folder: &s3.folder, part_size: s3.part_size, connections: s3.connections };
            Arc::new(Cloud::new(S3Bucket::new(s3), shape, patience))
        }
    }
}
