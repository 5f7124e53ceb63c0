//! Buckets of S3 and of services that speak its protocol.
//!
//! | module | what it holds |
//! |---|---|
//! | [`archive`] | which objects lie in an archive |
//! | [`client`] | [`Connection`]: the client of the SDK, made for one bucket |
//! | [`failure`] | what a failed request means |
//! | [`key`] | [`ConfiguredKey`]: the access key of the configuration, as the SDK asks for it |
//! | [`listing`] | pages of keys and of unfinished uploads |
//! | [`log`] | how much of the SDK's log is wanted |

mod archive;
mod client;
mod failure;
mod key;
mod listing;
pub mod log;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;

use abs_config::S3Settings;
use async_trait::async_trait;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, Delete,
    EncodingType, ObjectIdentifier, OptionalObjectAttributes, StorageClass,
};
use aws_smithy_types::base64;
use bytes::Bytes;
use futures_util::stream;

use self::client::Connection;
use crate::ErrorKind;
use crate::cloud::bucket::{
    Answer, Body, Bucket, Class, Head, ListQuery, Page, Part, UploadPage, VersionRange,
};
use crate::cloud::renewable::Renewable;

/// A bucket of S3.
#[derive(Debug)]
pub(crate) struct S3Bucket {
    settings: S3Settings,
    connection: Renewable<Connection>,
    _log: log::Wish,
}

impl S3Bucket {
    /// The bucket of these settings. Nothing is asked of it yet.
    pub fn new(settings: &S3Settings) -> Self {
        Self {
            settings: settings.clone(),
            connection: Renewable::default(),
            _log: log::Wish::new(settings.log_level),
        }
    }

    async fn connection(&self) -> Arc<Connection> {
        let made =
            self.connection.get(|| async { Ok::<_, Infallible>(Connection::new(&self.settings).await) });
        let Ok(connection) = made.await;
        connection
    }

    /// The storage class for objects of a kind; the bucket decides if none.
    fn storage_class(&self, class: Class) -> Option<StorageClass> {
        let name = match class {
            Class::Data => self.settings.data_class.map(|class| class.to_string()),
            Class::Metadata => self.settings.metadata_class.map(|class| class.to_string()),
        };
        name.as_deref().map(StorageClass::from)
    }
}

/// A part that was stored.
#[derive(Debug)]
pub(crate) struct Receipt {
    number: i32,
    etag: Option<String>,
    /// The checksum as the service repeated it; none if it knows no checksums.
    crc32c: Option<String>,
}

#[async_trait]
impl Bucket for S3Bucket {
    /// The id of the upload.
    type Upload = String;
    type Receipt = Receipt;

    const PARTS_IN_FLIGHT: usize = 3;
    const DELETE_BATCH: usize = 1000;

    fn place(&self, key: &str) -> String {
        let bucket = &self.settings.bucket;
        if key.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{key}") }
    }

    async fn list(&self, query: ListQuery<'_>) -> Answer<Page> {
        let connection = self.connection().await;
        let mut request = connection
            .client
            .list_objects_v2()
            .bucket(&self.settings.bucket)
            .prefix(query.prefix)
            // XML cannot hold every character of a key.
            .encoding_type(EncodingType::Url)
            .set_delimiter(query.folders.then(|| "/".to_owned()))
            .set_continuation_token(query.page.map(str::to_owned))
            .set_max_keys(query.limit);
        if connection.is_aws {
            request = request.optional_object_attributes(OptionalObjectAttributes::RestoreStatus);
        }
        let answer = request.send().await.map_err(|e| self.failure(&e))?;
        Ok(listing::page(answer))
    }

    async fn put(&self, key: &str, content: Bytes, class: Class, if_absent: bool) -> Answer<bool> {
        let connection = self.connection().await;
        let request = connection
            .client
            .put_object()
            .bucket(&self.settings.bucket)
            .key(key)
            .checksum_crc32_c(crc32c(&content))
            .set_storage_class(self.storage_class(class))
            .set_if_none_match(if_absent.then(|| "*".to_owned()))
            .body(ByteStream::from(content))
            .customize();
        let request = if connection.signs_bodies { request } else { request.disable_payload_signing() };
        match request.send().await {
            Ok(_) => Ok(true),
            Err(e) if if_absent && failure::status(&e) == Some(412) => Ok(false),
            Err(e) => Err(self.failure(&e)),
        }
    }

    async fn head(&self, key: &str) -> Answer<Head> {
        let request = self.connection().await.client.head_object();
        let head = request.bucket(&self.settings.bucket).key(key).send().await;
        let head = head.map_err(|e| self.failure_without_text(&e))?;
        Ok(Head {
            size: head.content_length.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
            archived: archive::of_head(&head),
            version: head.e_tag.unwrap_or_default(),
        })
    }

    async fn read(&self, key: &str, range: Option<VersionRange<'_>>) -> Answer<Body> {
        let mut request = self.connection().await.client.get_object().bucket(&self.settings.bucket).key(key);
        request = match range {
            Some(range) => {
                request.range(format!("bytes={}-{}", range.start, range.end - 1)).if_match(range.version)
            }
            // The SDK compares with the checksum of the object, if the service has one of the whole. For a range some
            // services answer that of the whole object, too.
            None => request.checksum_mode(ChecksumMode::Enabled),
        };
        let object = request.send().await.map_err(|e| match e.as_service_error() {
            Some(GetObjectError::InvalidObjectState(state)) => archive::failure(state).into(),
            _ if failure::status(&e) == Some(412) => ErrorKind::Changed.into(),
            _ => self.failure(&e),
        })?;
        let chunks = stream::try_unfold(object.body, |mut body| async move {
            let chunk = body.try_next().await.map_err(|e| failure::torn(&e))?;
            Ok(chunk.map(|chunk| (chunk, body)))
        });
        Ok(Body {
            length: object.content_length.and_then(|length| u64::try_from(length).ok()),
            chunks: Box::pin(chunks),
        })
    }

    async fn begin(&self, key: &str) -> Answer<String> {
        let connection = self.connection().await;
        let begun = connection
            .client
            .create_multipart_upload()
            .bucket(&self.settings.bucket)
            .key(key)
            .checksum_algorithm(ChecksumAlgorithm::Crc32C)
            // AWS then answers whole reads with a checksum of the whole; others do not know it, or get it wrong.
            .set_checksum_type(connection.is_aws.then_some(ChecksumType::FullObject))
            .set_storage_class(self.storage_class(Class::Data))
            .send()
            .await
            .map_err(|e| self.failure(&e))?;
        begun.upload_id.ok_or_else(|| ErrorKind::Unavailable("the answer names no upload".into()).into())
    }

    async fn part(&self, key: &str, upload: &String, part: Part) -> Answer<Receipt> {
        let connection = self.connection().await;
        let number = part.number as i32;
        let request = connection
            .client
            .upload_part()
            .bucket(&self.settings.bucket)
            .key(key)
            .upload_id(upload)
            .part_number(number)
            .checksum_crc32_c(crc32c(&part.bytes))
            .body(ByteStream::from(part.bytes))
            .customize();
        let request = if connection.signs_bodies { request } else { request.disable_payload_signing() };
        let stored = request.send().await.map_err(|e| self.failure(&e))?;
        Ok(Receipt { number, etag: stored.e_tag, crc32c: stored.checksum_crc32_c })
    }

    async fn complete(&self, key: &str, upload: &String, receipts: &[Receipt], size: u64) -> Answer<()> {
        let connection = self.connection().await;
        let parts = receipts.iter().map(|receipt| {
            CompletedPart::builder()
                .part_number(receipt.number)
                .set_e_tag(receipt.etag.clone())
                .set_checksum_crc32_c(receipt.crc32c.clone())
                .build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let request = connection
            .client
            .complete_multipart_upload()
            .bucket(&self.settings.bucket)
            .key(key)
            .upload_id(upload)
            .multipart_upload(parts)
            .set_mpu_object_size(connection.is_aws.then_some(size as i64));
        request.send().await.map(drop).map_err(|e| self.failure(&e))
    }

    async fn abort(&self, key: &str, upload: &String) -> Answer<()> {
        let request = self.connection().await.client.abort_multipart_upload();
        let request = request.bucket(&self.settings.bucket).key(key).upload_id(upload);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(e) if e.code() == Some("NoSuchUpload") => Ok(()),
            Err(e) => Err(self.failure(&e)),
        }
    }

    async fn uploads(&self, prefix: &str, page: Option<&str>) -> Answer<UploadPage<String>> {
        let marker = page.map(listing::UploadMarker::parse).unwrap_or_default();
        let request = self.connection().await.client.list_multipart_uploads();
        let request = request
            .bucket(&self.settings.bucket)
            .prefix(prefix)
            .encoding_type(EncodingType::Url)
            .set_key_marker(marker.key)
            .set_upload_id_marker(marker.upload);
        match request.send().await {
            Ok(answer) => Ok(listing::upload_page(&answer)),
            // A service that cannot list them must forget them by itself.
            Err(e) if failure::status(&e) == Some(501) => Ok(UploadPage { uploads: Vec::new(), next: None }),
            Err(e) => Err(self.failure(&e)),
        }
    }

    async fn sign_in_again(&self) {
        self.connection.forget();
    }

    async fn delete(&self, keys: &[String]) -> Answer<()> {
        let connection = self.connection().await;
        let objects = keys.iter().filter_map(|key| ObjectIdentifier::builder().key(key).build().ok());
        let delete = Delete::builder().set_objects(Some(objects.collect())).quiet(true).build();
        let delete = delete.map_err(std::io::Error::other)?;
        let mut request =
            connection.client.delete_objects().bucket(&self.settings.bucket).delete(delete).customize();
        if !connection.is_aws {
            // What S3 asked for until 2025 and many services still do. The SDK sends a CRC only.
            request = request.mutate_request(client::add_content_md5);
        }
        let answer = request.send().await.map_err(|e| self.failure(&e))?;
        let mut errors = answer.errors().iter().filter(|error| error.code() != Some("NoSuchKey"));
        errors.next().map_or(Ok(()), |error| Err(self.refused_deletion(error)))
    }
}

/// The checksum as S3 writes it.
fn crc32c(bytes: &[u8]) -> String {
    base64::encode(crc32c::crc32c(bytes).to_be_bytes())
}
