//! The documents of the API: what is sent and what is answered.

use chrono::{DateTime, Utc};
use reqwest::Response;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};

use crate::ErrorKind;
use crate::cloud::bucket::Answer;

use super::failure::out_of_reach;

/// What is asked and told of an object.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resource {
    pub name: String,
    #[serde(deserialize_with = "decimal")]
    pub size: u64,
    /// Changes when the object is replaced.
    pub generation: String,
    pub time_created: DateTime<Utc>,
    /// As [`crc32c_text`] writes it; none for objects that are encrypted with keys of their owners.
    pub crc32c: Option<String>,
}

impl Resource {
    /// The names of the fields.
    pub(super) const FIELDS: &str = "name,size,generation,timeCreated,crc32c";
}

/// A page of a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Objects {
    #[serde(default)]
    pub items: Vec<Resource>,
    #[serde(default)]
    pub prefixes: Vec<String>,
    pub next_page_token: Option<String>,
}

/// What is told of an object that shall be.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewObject<'a> {
    pub name: &'a str,
    pub content_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<String>,
}

impl NewObject<'_> {
    pub(super) fn json(&self) -> Answer<String> {
        serde_json::to_string(self).map_err(|error| ErrorKind::Io(error.into()).into())
    }
}

/// Reads the whole answer.
pub(super) async fn read_json<T: DeserializeOwned>(response: Response) -> Answer<T> {
    let text = response.bytes().await.map_err(out_of_reach)?;
    serde_json::from_slice(&text)
        .map_err(|error| ErrorKind::Unavailable(format!("Google's answer cannot be read: {error}")).into())
}

/// A CRC32C as Google writes it: its bytes, the highest first, in base64.
pub(super) fn crc32c_text(crc: u32) -> String {
    base64_simd::STANDARD.encode_to_string(crc.to_be_bytes())
}

/// The CRC32C that Google writes so.
pub(super) fn crc32c_of(text: &str) -> Option<u32> {
    let bytes = base64_simd::STANDARD.decode_to_vec(text).ok()?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Numbers of 64 bits are texts in these documents.
fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}
