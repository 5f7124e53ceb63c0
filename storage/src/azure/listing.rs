//! The XML of the answers that list blobs: the SDK's model has no folders.

use std::time::SystemTime;

use azure_core::time::parse_rfc7231;
use azure_core::xml::from_xml;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::error;
use crate::cloud::bucket::Answer;

/// A page of a listing of blobs.
#[derive(Debug, Default)]
pub(super) struct BlobPage {
    pub blobs: Vec<ListedBlob>,
    /// With the `/` at their ends.
    pub folders: Vec<String>,
    /// The marker of the next page, if there is one.
    pub next: Option<String>,
}

/// A blob in a listing.
#[derive(Debug)]
pub(super) struct ListedBlob {
    pub name: String,
    /// In bytes.
    pub size: u64,
    pub modified: Option<SystemTime>,
    pub tier: Option<String>,
    /// Whether it seems to have blocks only and no content.
    pub uncommitted: bool,
}

/// Reads the answer to List Blobs.
pub(super) fn page(xml: &[u8]) -> Answer<BlobPage> {
    let answer: EnumerationResults =
        from_xml(xml).map_err(|_| error::unexpected("it is no list of blobs"))?;
    let mut page =
        BlobPage { next: Some(answer.next).filter(|next| !next.is_empty()), ..BlobPage::default() };
    for item in answer.blobs.items {
        match item {
            Item::BlobPrefix(Named { name }) => page.folders.push(name.decoded()?),
            // In accounts with a hierarchical namespace folders are listed as blobs, too.
            Item::Blob(blob) if blob.properties.resource_type.as_deref() == Some("directory") => {}
            Item::Blob(Blob { name, properties }) => page.blobs.push(ListedBlob {
                name: name.decoded()?,
                size: properties.size.unwrap_or_default(),
                modified: properties
                    .modified
                    .and_then(|time| parse_rfc7231(&time).ok())
                    .map(SystemTime::from),
                tier: properties.tier,
                // That is documented: such blobs are listed without this.
                uncommitted: properties.content_type.is_none(),
            }),
        }
    }
    Ok(page)
}

#[derive(Deserialize)]
struct EnumerationResults {
    #[serde(rename = "Blobs", default)]
    blobs: Items,
    #[serde(rename = "NextMarker", default)]
    next: String,
}

#[derive(Deserialize, Default)]
struct Items {
    #[serde(rename = "$value", default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
enum Item {
    Blob(Blob),
    BlobPrefix(Named),
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "Name")]
    name: Name,
}

#[derive(Deserialize)]
struct Blob {
    #[serde(rename = "Name")]
    name: Name,
    #[serde(rename = "Properties")]
    properties: Properties,
}

/// A name; percent-encoded if it holds what XML cannot.
#[derive(Deserialize)]
struct Name {
    #[serde(rename = "@Encoded", default)]
    encoded: bool,
    #[serde(rename = "$text", default)]
    text: String,
}

impl Name {
    fn decoded(self) -> Answer<String> {
        if !self.encoded {
            return Ok(self.text);
        }
        let name = percent_decode_str(&self.text).decode_utf8();
        Ok(name.map_err(|_| error::unexpected("it holds a name that is not UTF-8"))?.into_owned())
    }
}

#[derive(Deserialize)]
struct Properties {
    #[serde(rename = "Last-Modified")]
    modified: Option<String>,
    #[serde(rename = "Content-Length")]
    size: Option<u64>,
    #[serde(rename = "Content-Type")]
    content_type: Option<String>,
    #[serde(rename = "AccessTier")]
    tier: Option<String>,
    #[serde(rename = "ResourceType")]
    resource_type: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// As the service answers it, from its documentation: with a byte order mark, folders between blobs, a name that XML
    /// cannot hold, an archived blob, a folder of a hierarchical namespace, a blob without content.
    const PAGE: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\
        <EnumerationResults ServiceEndpoint=\"https://a.blob.core.windows.net/\" ContainerName=\"c\"><Prefix>p/</Prefix>\
        <Delimiter>/</Delimiter><Blobs>\
        <Blob><Name>p/ a &amp; b </Name><Properties><Creation-Time>Mon, 01 Jan 2024 00:00:00 GMT</Creation-Time>\
        <Last-Modified>Mon, 01 Jan 2024 00:00:01 GMT</Last-Modified><Etag>0x8D</Etag><Content-Length>7</Content-Length>\
        <Content-Type>text/plain</Content-Type><Content-Encoding /><AccessTier>Archive</AccessTier>\
        <ArchiveStatus>rehydrate-pending-to-hot</ArchiveStatus></Properties><OrMetadata /></Blob>\
        <BlobPrefix><Name>p/f/</Name></BlobPrefix>\
        <Blob><Name Encoded=\"true\">p/%01%25</Name><Properties><Content-Length>0</Content-Length></Properties></Blob>\
        <Blob><Name>p/g</Name><Properties><ResourceType>directory</ResourceType></Properties></Blob>\
        <BlobPrefix><Name>p/h/</Name></BlobPrefix>\
        </Blobs><NextMarker>2!8!x</NextMarker></EnumerationResults>";

    #[test]
    fn a_page_is_read() {
        let page = page(PAGE.as_bytes()).unwrap();
        assert_eq!(page.folders, ["p/f/", "p/h/"]);
        assert_eq!(page.next.as_deref(), Some("2!8!x"));
        let [archived, bare] = &page.blobs[..] else { panic!("{page:?}") };
        assert_eq!(
            (archived.name.as_str(), archived.size, archived.tier.as_deref()),
            ("p/ a & b ", 7, Some("Archive"))
        );
        assert_eq!(archived.modified, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_067_201)));
        assert!(!archived.uncommitted);
        assert_eq!((bare.name.as_str(), bare.size, bare.uncommitted), ("p/\u{1}%", 0, true));
    }

    #[test]
    fn the_last_page_has_no_next() {
        for end in ["<Blobs /><NextMarker />", "<Blobs></Blobs><NextMarker></NextMarker>", "<Blobs/>"] {
            let page = page(format!("<EnumerationResults>{end}</EnumerationResults>").as_bytes()).unwrap();
            assert!(page.blobs.is_empty() && page.next.is_none(), "{end}");
        }
        assert!(super::page(b"<html>").is_err());
        assert!(super::page(b"").is_err());
    }
}
