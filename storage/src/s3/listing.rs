//! Pages of keys and of unfinished uploads.

use std::time::SystemTime;

use aws_sdk_s3::operation::list_multipart_uploads::ListMultipartUploadsOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::EncodingType;
use percent_encoding::percent_decode_str;

use super::archive;
use crate::cloud::bucket::{Entry, Page, Unfinished, UploadPage};

/// What a page of a listing says.
pub(super) fn page(answer: ListObjectsV2Output) -> Page {
    let encoding = answer.encoding_type.as_ref();
    let objects = answer.contents().iter().map(|object| Entry {
        key: decode(object.key(), encoding),
        size: object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
        modified: time(object.last_modified()),
        archived: archive::of_object(object),
        crc32c: None,
    });
    let folders = answer.common_prefixes().iter().map(|folder| decode(folder.prefix(), encoding));
    Page {
        objects: objects.collect(),
        folders: folders.collect(),
        next: answer.next_continuation_token.filter(|_| answer.is_truncated == Some(true)),
    }
}

/// What a page of unfinished uploads says.
pub(super) fn upload_page(answer: &ListMultipartUploadsOutput) -> UploadPage<String> {
    let encoding = answer.encoding_type.as_ref();
    let uploads = answer.uploads().iter().map(|upload| Unfinished {
        key: decode(upload.key(), encoding),
        upload: upload.upload_id().unwrap_or_default().to_owned(),
        since: time(upload.initiated()),
    });
    let marker = match answer.next_key_marker() {
        key @ Some(_) if answer.is_truncated == Some(true) => Some(UploadMarker {
            key: Some(decode(key, encoding)),
            upload: answer.next_upload_id_marker().map(str::to_owned),
        }),
        _ => None,
    };
    UploadPage { uploads: uploads.collect(), next: marker.map(|marker| marker.to_string()) }
}

/// Where the next page of unfinished uploads begins: after this upload of this key.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UploadMarker {
    pub key: Option<String>,
    pub upload: Option<String>,
}

impl UploadMarker {
    /// The marker that was written as a page. An id of an upload holds no space.
    pub fn parse(page: &str) -> Self {
        let (upload, key) = page.split_once(' ').unwrap_or(("", page));
        let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self { key: filled(key), upload: filled(upload) }
    }
}

impl std::fmt::Display for UploadMarker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [upload, key] = [&self.upload, &self.key].map(|text| text.as_deref().unwrap_or_default());
        write!(f, "{upload} {key}")
    }
}

/// A key as it is, from how it is written in an answer. Keys are UTF-8.
fn decode(text: Option<&str>, encoding: Option<&EncodingType>) -> String {
    let text = text.unwrap_or_default();
    if encoding != Some(&EncodingType::Url) {
        return text.to_owned();
    }
    // AWS writes a space as a plus; a plus is always encoded.
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

fn time(time: Option<&DateTime>) -> SystemTime {
    // What has no time is not old.
    time.and_then(|time| SystemTime::try_from(*time).ok()).unwrap_or_else(SystemTime::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_keys_are_decoded_and_others_stay() {
        let decoded = decode(Some("a/b%2Bc+d%C3%A9%0A%25"), Some(&EncodingType::Url));
        assert_eq!(decoded, "a/b+c d\u{e9}\n%");
        assert_eq!(decode(Some("a+b%20"), None), "a+b%20");
    }

    #[test]
    fn a_marker_survives_any_key() {
        for (key, upload) in [("a b/c", Some("x.y_z-")), ("k", None), (" ", Some("1"))] {
            let marker = UploadMarker { key: Some(key.to_owned()), upload: upload.map(str::to_owned) };
            assert_eq!(UploadMarker::parse(&marker.to_string()), marker);
        }
    }
}
