//! A container of Azure Blob Storage, through the SDK: an object is a block blob, a part is a block.
//!
//! All requests are those of the SDK's clients. Of their own, these know neither shared keys, nor a checksum of a blob
//! that is sent at once, nor folders in a listing: what completes the requests is [`client`] and [`shared_key`], and what
//! reads the listings is [`listing`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`client`] | the SDK's clients: addresses, credentials, the connection |
//! | [`shared_key`] | the signature of an account's shared key |
//! | [`blocks`] | the names of blocks, and what they tell of an upload |
//! | [`listing`] | the XML of the answers that list blobs |
//! | [`error`] | what errors of the SDK mean |

mod blocks;
mod client;
mod error;
mod listing;
mod shared_key;
#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::time::SystemTime;

use abs_config::AzureSettings;
use async_trait::async_trait;
use azure_core::http::headers::HeaderName;
use azure_core::http::{Etag, Response};
use azure_storage_blob::models::{
    AccessTier, BlobClientDeleteOptions, BlobClientDownloadOptions, BlobClientGetPropertiesResultHeaders,
    BlobClientUploadOptions, BlobContainerClientListBlobsOptions, BlockBlobClientCommitBlockListOptions,
    BlockBlobClientCommitBlockListResultHeaders, BlockListType, BlockLookupList, DeleteSnapshotsOptionType,
    HttpRange, ListBlobsIncludeItem,
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use self::blocks::{BlockName, Upload};
use self::client::Client;
use self::listing::BlobPage;
use crate::ErrorKind;
use crate::cloud::bucket::{
    Answer, Body, Bucket, Class, Entry, Failure, Head, ListQuery, Page, Part, Unfinished, UploadPage,
    VersionRange,
};
use crate::cloud::renewable::Renewable;

/// The tier from which nothing can be read before it is brought back.
const ARCHIVE: &str = "Archive";

/// How many requests one call that needs many sends at the same time.
const CONCURRENT: usize = 16;

/// More bytes than a blob can have: the SDK cuts reads into parts and would buffer them, but each read is one request
/// here, and its bytes are handed on as they arrive.
const WHOLE: usize = 1 << 50;

const BYTES: &str = "application/octet-stream";

const RESOURCE_TYPE: HeaderName = HeaderName::from_static("x-ms-resource-type");

/// A container of Azure Blob Storage.
pub(crate) struct AzureBucket {
    settings: AzureSettings,
    client: Renewable<Client>,
}

/// The endpoint may carry a secret: its query is not shown.
impl fmt::Debug for AzureBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AzureBucket").field(&self.place("")).finish()
    }
}

impl AzureBucket {
    /// The container that `settings` name. Nothing is asked of it before the first request.
    pub(crate) fn new(settings: &AzureSettings) -> Self {
        Self { settings: settings.clone(), client: Renewable::default() }
    }

    async fn client(&self) -> Answer<Arc<Client>> {
        self.client.get(|| Client::new(&self.settings)).await
    }

    fn tier(&self, class: Class) -> Option<AccessTier> {
        let tier = match class {
            Class::Data => self.settings.data_tier.map(|tier| tier.to_string()),
            Class::Metadata => self.settings.metadata_tier.map(|tier| tier.to_string()),
        };
        tier?.parse().ok()
    }

    /// A page of the blobs that begin with `prefix`; with `folders` what is below them is summed up.
    async fn page(
        &self,
        prefix: &str,
        folders: bool,
        more: BlobContainerClientListBlobsOptions<'_>,
    ) -> Answer<BlobPage> {
        let client = self.client().await?;
        let failure = |error| client.failure(&error);
        // The SDK writes an empty value without its `=`, and the signature is not that which the emulator expects.
        let prefix = Some(prefix).filter(|prefix| !prefix.is_empty()).map(str::to_owned);
        let options = BlobContainerClientListBlobsOptions { prefix, ..more };
        let pages = client.container(folders)?.list_blobs(Some(options)).map_err(failure)?;
        match pages.into_pages().try_next().await.map_err(failure)? {
            Some(page) => listing::page(page.body()),
            None => Ok(BlobPage::default()),
        }
    }

    /// The blocks of `key` that are not part of its blob; none if there is neither.
    async fn uncommitted(&self, key: &str) -> Answer<Vec<Option<BlockName>>> {
        let client = self.client().await?;
        let answer = client.block_blob(key)?.get_block_list(BlockListType::Uncommitted, None).await;
        match answer.and_then(Response::into_model).map_err(|error| client.failure(&error)) {
            Ok(list) => Ok(list
                .uncommitted_blocks
                .unwrap_or_default()
                .into_iter()
                .map(|block| BlockName::parse(&block.name?))
                .collect()),
            Err(failure) if matches!(failure.kind, ErrorKind::NotFound) => Ok(Vec::new()),
            Err(failure) => Err(failure),
        }
    }

    /// The upload whose blocks wait under `key`, if there are such and all of them are ours.
    async fn unfinished(&self, key: String) -> Answer<Option<Unfinished<Upload>>> {
        let Some(blocks) = self.uncommitted(&key).await?.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let last = blocks.iter().map(|block| block.written).max();
        Ok(Upload::of(&blocks).zip(last).map(|(upload, since)| Unfinished { key, upload, since }))
    }

    /// Makes the blob of these blocks.
    async fn commit(
        &self,
        key: &str,
        blocks: &[BlockName],
        tier: Option<AccessTier>,
        if_absent: bool,
    ) -> Answer<Option<Etag>> {
        let client = self.client().await?;
        let failure = |error| client.failure(&error);
        // The latest block of a name is the one that waits, else the one that the blob has: that is an earlier try of
        // this request that arrived, its answer lost.
        let latest = Some(blocks.iter().map(BlockName::to_bytes).collect());
        let list = BlockLookupList { latest, ..BlockLookupList::default() }.try_into().map_err(failure)?;
        let options = BlockBlobClientCommitBlockListOptions {
            blob_content_type: Some(BYTES.to_owned()),
            if_none_match: if_absent.then(|| "*".into()),
            tier,
            ..BlockBlobClientCommitBlockListOptions::default()
        };
        let answer = client.block_blob(key)?.commit_block_list(list, Some(options)).await.map_err(failure)?;
        answer.etag().map_err(failure)
    }

    /// Deletes a blob, if there is one, and if it is of that version where one is given.
    async fn delete_one(&self, key: &str, version: Option<Etag>) -> Answer<()> {
        let client = self.client().await?;
        let options = BlobClientDeleteOptions {
            // A blob with snapshots cannot be deleted without them.
            delete_snapshots: Some(DeleteSnapshotsOptionType::Include),
            if_match: version,
            ..BlobClientDeleteOptions::default()
        };
        match client.blob(key)?.delete(Some(options)).await.map_err(|error| client.failure(&error)) {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.kind, ErrorKind::NotFound | ErrorKind::Changed) => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}

#[async_trait]
impl Bucket for AzureBucket {
    type Upload = Upload;
    type Receipt = BlockName;

    const PARTS_IN_FLIGHT: usize = 3;
    /// A request takes one.
    const DELETE_BATCH: usize = 1;

    fn place(&self, key: &str) -> String {
        let endpoint = self.settings.endpoint.without_query().trim_end_matches('/');
        format!("{endpoint}/{}/{key}", self.settings.container)
    }

    async fn list(&self, query: ListQuery<'_>) -> Answer<Page> {
        let options = BlobContainerClientListBlobsOptions {
            marker: query.page.map(str::to_owned),
            maxresults: query.limit,
            ..BlobContainerClientListBlobsOptions::default()
        };
        let answer = self.page(query.prefix, query.folders, options).await?;
        let mut page = Page { next: answer.next, folders: answer.folders, objects: Vec::new() };
        for blob in answer.blobs {
            page.objects.push(Entry {
                key: blob.name,
                size: blob.size,
                modified: blob.modified.unwrap_or(SystemTime::UNIX_EPOCH),
                archived: blob.tier.filter(|tier| tier == ARCHIVE),
                crc32c: None,
            });
        }
        Ok(page)
    }

    async fn put(&self, key: &str, content: Bytes, class: Class, if_absent: bool) -> Answer<bool> {
        let client = self.client().await?;
        let options = BlobClientUploadOptions {
            if_none_match: if_absent.then(|| "*".into()),
            // One request, however large it is.
            partition_size: Some(NonZero::<u64>::MAX),
            tier: self.tier(class),
            ..BlobClientUploadOptions::default()
        };
        let answer = client.blob(key)?.upload(content.into(), Some(options)).await;
        match answer.map_err(|error| client.failure(&error)) {
            Ok(_) => Ok(true),
            Err(failure) if if_absent && exists_already(&failure) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn head(&self, key: &str) -> Answer<Head> {
        let client = self.client().await?;
        let failure = |error| client.failure(&error);
        let properties = client.blob(key)?.get_properties(None).await.map_err(failure)?;
        // In accounts with a hierarchical namespace folders are blobs of a kind.
        if properties.headers().get_optional_str(&RESOURCE_TYPE) == Some("directory") {
            return Err(ErrorKind::NotFound.into());
        }
        let missing = || error::unexpected("it does not say the size and the etag of the blob");
        Ok(Head {
            size: properties.content_length().map_err(failure)?.ok_or_else(missing)?,
            version: properties.etag().map_err(failure)?.ok_or_else(missing)?.into(),
            archived: properties.access_tier().map_err(failure)?.filter(|tier| tier == ARCHIVE),
        })
    }

    /// Two requests where the blob is empty: the SDK asks for a range, and an empty blob has none.
    async fn read(&self, key: &str, range: Option<VersionRange<'_>>) -> Answer<Body> {
        let client = self.client().await?;
        let options = BlobClientDownloadOptions {
            if_match: range.map(|range| range.version.into()),
            parallel: Some(NonZero::<usize>::MIN),
            partition_size: NonZero::new(WHOLE),
            range: range.map(|range| HttpRange::from(range.start..range.end)),
            ..BlobClientDownloadOptions::default()
        };
        let answer =
            client.blob(key)?.download(Some(options)).await.map_err(|error| client.failure(&error))?;
        let chunks = answer.body.map_err(|error| error::transport(&error)).boxed();
        Ok(Body { length: answer.properties.content_length, chunks })
    }

    async fn begin(&self, _key: &str) -> Answer<Upload> {
        // Azure knows no uploads, only blocks.
        Ok(Upload::begin())
    }

    async fn part(&self, key: &str, upload: &Upload, part: Part) -> Answer<BlockName> {
        let client = self.client().await?;
        let block = upload.block(part.number);
        let (length, content) = (part.bytes.len() as u64, part.bytes.into());
        let answer = client.block_blob(key)?.stage_block(&block.to_bytes(), length, content, None).await;
        answer.map_err(|error| client.failure(&error))?;
        Ok(block)
    }

    async fn complete(&self, key: &str, _upload: &Upload, receipts: &[BlockName], _size: u64) -> Answer<()> {
        self.commit(key, receipts, self.tier(Class::Data), false).await.map(drop)
    }

    /// Three requests. Blocks cannot be deleted: a commit of none of them discards them, and makes an empty blob that is
    /// deleted at once. Where a blob stands, or others' blocks wait, nothing is touched: Azure discards blocks that
    /// nobody touched for a week.
    async fn abort(&self, key: &str, upload: &Upload) -> Answer<()> {
        let blocks = self.uncommitted(key).await?;
        let ours = |block: &Option<BlockName>| block.as_ref().is_some_and(|block| upload.wrote(block));
        if blocks.is_empty() || !blocks.iter().all(ours) {
            return Ok(());
        }
        let version = match self.commit(key, &[], None, true).await {
            Err(failure) if exists_already(&failure) => return Ok(()),
            answer => answer?,
        };
        if version.is_none() {
            return Err(error::unexpected("it does not say the etag of the blob"));
        }
        self.delete_one(key, version).await
    }

    /// A listing and a request for each blob in it that only has blocks.
    async fn uploads(&self, prefix: &str, page: Option<&str>) -> Answer<UploadPage<Upload>> {
        let options = BlobContainerClientListBlobsOptions {
            include: Some(vec![ListBlobsIncludeItem::UncommittedBlobs]),
            marker: page.map(str::to_owned),
            ..BlobContainerClientListBlobsOptions::default()
        };
        let answer = self.page(prefix, false, options).await?;
        let candidates = answer.blobs.into_iter().filter(|blob| blob.uncommitted);
        let requests: Vec<_> = candidates.map(|blob| self.unfinished(blob.name)).collect();
        let uploads = stream::iter(requests)
            .buffered(CONCURRENT)
            .try_filter_map(|upload| async { Ok(upload) })
            .try_collect()
            .await?;
        Ok(UploadPage { uploads, next: answer.next })
    }

    async fn sign_in_again(&self) {
        self.client.forget();
    }

    async fn delete(&self, keys: &[String]) -> Answer<()> {
        for key in keys {
            self.delete_one(key, None).await?;
        }
        Ok(())
    }
}

/// Whether a blob stood in the way of a request that must not replace one.
fn exists_already(failure: &Failure) -> bool {
    matches!(failure.kind, ErrorKind::AlreadyExists | ErrorKind::Changed)
}
