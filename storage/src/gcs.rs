//! Google Cloud Storage, by its JSON API.
//!
//! | module | what it holds |
//! |---|---|
//! | [`credentials`] | who asks: a key, the environment, or nobody |
//! | [`failure`] | what Google means when it does not do what was asked |
//! | [`resource`] | the documents of the API |
//! | [`upload`] | [`Upload`](upload::Upload): a resumable upload |
//!
//! The requests are written here, on the HTTP client that the sign-in uses, too: the crates that offer them speak gRPC for
//! half of them, or have no way to ask for single fields, to send a checksum with the last part, and to see how long
//! Google asks to wait.

mod credentials;
mod failure;
mod resource;
#[cfg(test)]
mod tests;
mod upload;

use std::io;

use abs_config::GcpSettings;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RANGE};
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use tokio::sync::OnceCell;

use crate::ErrorKind;
use crate::cloud::bucket::{
    Answer, Body, Bucket, Class, Entry, Failure, Head, ListQuery, Page, Part, UploadPage, VersionRange,
};
use credentials::Credentials;
use failure::{About, out_of_reach, refusal};
use resource::{NewObject, Objects, Resource, crc32c_of, crc32c_text, read_json};
use upload::{State, Upload};

/// Where Google listens.
const GOOGLE: &str = "https://storage.googleapis.com";

/// How the bytes of an object are described: as nothing but bytes, so that no one compresses or converts them.
const OCTETS: &str = "application/octet-stream";

/// A bucket of Google Cloud Storage.
pub(crate) struct GcsBucket {
    settings: GcpSettings,
    /// Where the API is, without a `/` at the end.
    endpoint: String,
    http: OnceCell<Client>,
    credentials: Credentials,
}

impl GcsBucket {
    /// The bucket of these settings. Nothing is asked of the network.
    pub(crate) fn new(settings: &GcpSettings) -> Self {
        // The clients of this service and those of the sign-in take the process's provider. It is an error only that there
        // is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Other clients want the path of the API in the endpoint, so people write it.
        let endpoint = settings.endpoint.as_deref().unwrap_or(GOOGLE).trim_end_matches('/');
        let endpoint = endpoint.strip_suffix("/storage/v1").unwrap_or(endpoint).trim_end_matches('/');
        Self {
            settings: settings.clone(),
            endpoint: endpoint.to_owned(),
            http: OnceCell::new(),
            credentials: Credentials::new(settings),
        }
    }

    async fn http(&self) -> Answer<&Client> {
        let build = async || {
            Client::builder()
                // Over HTTP/2 all parts of all uploads would share one connection, and its speed.
                .http1_only()
                // What is read is what is stored, also when another crate switches decompression on.
                .no_gzip()
                .no_brotli()
                .no_deflate()
                .no_zstd()
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .user_agent(concat!("aerospike-backup-service/", env!("CARGO_PKG_VERSION")))
                .build()
        };
        self.http.get_or_try_init(build).await.map_err(out_of_reach)
    }

    /// The address of the bucket's objects, or of one.
    fn url(&self, api: &str, key: Option<&str>, query: &[(&str, &str)]) -> Answer<Url> {
        let mut address = format!("{}{api}/b/{}/o", self.endpoint, escaped(&self.settings.bucket));
        if let Some(key) = key {
            address.push('/');
            address.push_str(&escaped(key));
        }
        let mut url = Url::parse(&address).map_err(|error| ErrorKind::Refused {
            reason: format!("the endpoint {} is no URL ({error})", self.endpoint),
            remedy: "correct endpoint in the configuration".to_owned(),
        })?;
        url.query_pairs_mut().extend_pairs(query);
        Ok(url)
    }

    async fn request(&self, method: Method, url: Url) -> Answer<RequestBuilder> {
        let request = self.http().await?.request(method, url);
        Ok(match self.credentials.token().await? {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    /// Sends a request; every answer but success is a failure.
    async fn send(&self, request: RequestBuilder, about: About) -> Answer<Response> {
        let response = request.send().await.map_err(out_of_reach)?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response, about, &self.settings.bucket).await)
    }

    /// Deletes an object, or only one `generation` of it. One that does not exist is no error.
    async fn delete_one(&self, key: &str, generation: Option<&str>) -> Answer<()> {
        let query = generation.map(|generation| ("generation", generation));
        let url = self.url("/storage/v1", Some(key), query.as_slice())?;
        let request = self.request(Method::DELETE, url).await?;
        match self.send(request, About::Object).await {
            Ok(_) | Err(Failure { kind: ErrorKind::NotFound, .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// The storage class to ask for; that of the bucket if none.
    fn storage_class(&self, class: Class) -> Option<String> {
        self.settings.data_class.filter(|_| class == Class::Data).map(|class| class.to_string())
    }
}

impl std::fmt::Debug for GcsBucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GcsBucket").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[async_trait]
impl Bucket for GcsBucket {
    type Upload = Upload;
    type Receipt = ();

    /// A resumable upload takes its parts in their order.
    const PARTS_IN_FLIGHT: usize = 1;
    /// A request takes one.
    const DELETE_BATCH: usize = 1;

    fn place(&self, key: &str) -> String {
        format!("gs://{}/{key}", self.settings.bucket)
    }

    async fn list(&self, query: ListQuery<'_>) -> Answer<Page> {
        let fields = format!("items({}),prefixes,nextPageToken", Resource::FIELDS);
        let mut pairs = vec![("prefix", query.prefix), ("fields", fields.as_str())];
        if query.folders {
            pairs.push(("delimiter", "/"));
        }
        pairs.extend(query.page.map(|page| ("pageToken", page)));
        let limit = query.limit.map(|limit| limit.to_string());
        pairs.extend(limit.iter().map(|limit| ("maxResults", limit.as_str())));

        let request = self.request(Method::GET, self.url("/storage/v1", None, &pairs)?).await?;
        let objects: Objects = read_json(self.send(request, About::Bucket).await?).await?;
        let entry = |object: Resource| Entry {
            key: object.name,
            size: object.size,
            modified: object.time_created.into(),
            // The class ARCHIVE is dearer to read, not slower.
            archived: None,
            crc32c: object.crc32c.as_deref().and_then(crc32c_of),
        };
        Ok(Page {
            objects: objects.items.into_iter().map(entry).collect(),
            folders: objects.prefixes,
            next: objects.next_page_token,
        })
    }

    async fn put(&self, key: &str, content: Bytes, class: Class, if_absent: bool) -> Answer<bool> {
        let object = NewObject {
            name: key,
            content_type: OCTETS,
            storage_class: self.storage_class(class),
            crc32c: Some(crc32c_text(crc32c::crc32c(&content))),
        };
        let mut query = vec![("uploadType", "multipart"), ("fields", "name")];
        if if_absent {
            query.push(("ifGenerationMatch", "0"));
        }
        let boundary = format!("part-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let head = format!(
            "--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{}\r\n\
             --{boundary}\r\nContent-Type: {OCTETS}\r\n\r\n",
            object.json()?
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let length = head.len() + content.len() + tail.len();
        // As three pieces, so that the content is not copied.
        let pieces = [Bytes::from(head), content, Bytes::from(tail)].map(Ok::<_, io::Error>);

        let url = self.url("/upload/storage/v1", None, &query)?;
        let request = self.request(Method::POST, url).await?;
        let request = request
            .header(CONTENT_TYPE, format!("multipart/related; boundary={boundary}"))
            .header(CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(stream::iter(pieces)));
        match self.send(request, About::Bucket).await {
            Ok(_) => Ok(true),
            Err(Failure { kind: ErrorKind::Changed, .. }) if if_absent => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn head(&self, key: &str) -> Answer<Head> {
        let url = self.url("/storage/v1", Some(key), &[("fields", Resource::FIELDS)])?;
        let request = self.request(Method::GET, url).await?;
        let object: Resource = read_json(self.send(request, About::Object).await?).await?;
        Ok(Head { size: object.size, version: object.generation, archived: None })
    }

    async fn read(&self, key: &str, range: Option<VersionRange<'_>>) -> Answer<Body> {
        let mut query = vec![("alt", "media")];
        query.extend(range.map(|range| ("ifGenerationMatch", range.version)));
        let request = self.request(Method::GET, self.url("/storage/v1", Some(key), &query)?).await?;
        // Without it Google would decompress an object that somebody else stored as gzip, and ignore the range.
        let mut request = request.header(ACCEPT_ENCODING, "gzip");
        if let Some(VersionRange { start, end, .. }) = range {
            request = request.header(RANGE, format!("bytes={start}-{}", end - 1));
        }
        let response = match self.send(request, About::Object).await {
            Err(Failure { kind: ErrorKind::NotFound, .. }) if range.is_some() => {
                return Err(ErrorKind::Changed.into());
            }
            answer => answer?,
        };
        let length = response.content_length();
        if let Some(VersionRange { start, end, .. }) = range {
            let expected = end - start;
            if length.is_some_and(|length| length != expected) {
                let text = format!("Google sends {} bytes instead of {expected}", length.unwrap_or_default());
                return Err(ErrorKind::Unavailable(text).into());
            }
        }
        let chunks = response.bytes_stream().map_err(out_of_reach).boxed();
        Ok(Body { length, chunks })
    }

    async fn begin(&self, key: &str) -> Answer<Upload> {
        let object = NewObject {
            name: key,
            content_type: OCTETS,
            storage_class: self.storage_class(Class::Data),
            crc32c: None,
        };
        let url = self.url("/upload/storage/v1", None, &[("uploadType", "resumable"), ("name", key)])?;
        let request = self.request(Method::POST, url).await?;
        let request = request
            .header(CONTENT_TYPE, "application/json; charset=UTF-8")
            .header("X-Upload-Content-Type", OCTETS)
            .body(object.json()?);
        let response = self.send(request, About::Bucket).await?;
        let address = response.headers().get(LOCATION).map(HeaderValue::to_str);
        address
            .and_then(Result::ok)
            .and_then(|address| Url::parse(address).ok())
            .map(Upload::new)
            .ok_or_else(|| ErrorKind::Unavailable("Google gives no address for the upload".to_owned()).into())
    }

    async fn part(&self, key: &str, upload: &Upload, part: Part) -> Answer<()> {
        let stored = upload.store(self.http().await?, part, &self.settings.bucket).await;
        let Some(finished) = stored.map_err(forgotten)? else { return Ok(()) };
        if let Err(failure) = finished.verdict {
            // What is there now is not what was sent: better no object than that one.
            self.delete_one(key, Some(&finished.generation)).await?;
            return Err(failure);
        }
        Ok(())
    }

    /// The last part has finished the object already.
    async fn complete(&self, _: &str, upload: &Upload, _: &[()], size: u64) -> Answer<()> {
        if upload.is_finished(size) {
            return Ok(());
        }
        Err(ErrorKind::Io(io::Error::other("the upload ends before its last part")).into())
    }

    async fn abort(&self, key: &str, upload: &Upload) -> Answer<()> {
        let (http, bucket) = (self.http().await?, &self.settings.bucket);
        // A last part whose answer was lost may have made the object.
        if upload.may_be_finished()
            && let Ok(State::Finished(object)) = upload.status(http, bucket).await
        {
            return self.delete_one(key, Some(&object.generation)).await;
        }
        upload.cancel(http, bucket).await
    }

    /// None: Google tells nobody of uploads that were never finished. It forgets them within a week and takes no money
    /// for them.
    async fn uploads(&self, _: &str, _: Option<&str>) -> Answer<UploadPage<Upload>> {
        Ok(UploadPage { uploads: Vec::new(), next: None })
    }

    async fn sign_in_again(&self) {
        self.credentials.forget().await;
    }

    async fn delete(&self, keys: &[String]) -> Answer<()> {
        for key in keys {
            self.delete_one(key, None).await?;
        }
        Ok(())
    }
}

/// An upload that Google no longer knows is nothing that the owner could mend: a new one will do.
fn forgotten(failure: Failure) -> Failure {
    match failure.kind {
        ErrorKind::NotFound => {
            ErrorKind::Io(io::Error::other("Google no longer knows the upload: it must begin anew")).into()
        }
        _ => failure,
    }
}

/// A key as one segment of a path. The `url` crate would leave out tabs and line ends, and take `.` for the folder.
fn escaped(key: &str) -> String {
    use std::fmt::Write;
    let mut escaped = String::with_capacity(key.len() + key.len() / 2);
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            escaped.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
