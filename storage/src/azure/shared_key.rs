//! The signature of an account's shared key.
//!
//! As documented: <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>.

use std::collections::BTreeMap;
use std::fmt::Write;

use azure_core::credentials::Secret;
use azure_core::hmac::hmac_sha256;
use azure_core::http::Request;
use azure_core::http::headers::{AUTHORIZATION, HeaderName};
use azure_core::time::{OffsetDateTime, to_rfc7231};

/// The headers that are signed by their place, in their order.
const PLACES: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// An account and its shared key.
#[derive(Debug)]
pub(super) struct SharedKey {
    account: String,
    /// In base64.
    key: Secret,
}

impl SharedKey {
    /// None if `key` is no base64.
    pub(super) fn new(account: &str, key: &str) -> Option<Self> {
        let key = Secret::new(key.trim().to_owned());
        hmac_sha256("", &key).ok()?;
        Some(Self { account: account.to_owned(), key })
    }

    /// Signs a request that is otherwise complete.
    pub(super) fn sign(&self, request: &mut Request) -> azure_core::Result<()> {
        request.insert_header("x-ms-date", to_rfc7231(&OffsetDateTime::now_utc()));
        let signature = hmac_sha256(&string_to_sign(&self.account, request), &self.key)?;
        request.insert_header(AUTHORIZATION, format!("SharedKey {}:{signature}", self.account));
        Ok(())
    }
}

/// What is signed of a request: its method, headers and resource.
fn string_to_sign(account: &str, request: &Request) -> String {
    let mut text = format!("{}\n", request.method());
    let headers = request.headers();
    for name in PLACES {
        // The length is not always in a header before the request is sent; that of zero is signed as nothing.
        if name == "content-length" {
            let length = request.body().len().filter(|length| *length > 0);
            text.extend(length.map(|length| length.to_string()));
        } else {
            text.push_str(headers.get_optional_str(&HeaderName::from_static(name)).unwrap_or_default());
        }
        text.push('\n');
    }
    let own: BTreeMap<&str, &str> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .collect();
    for (name, value) in own {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}:{}", value.trim());
    }
    let _ = write!(text, "/{account}{}", request.url().path());
    let mut parameters = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in request.url().query_pairs() {
        parameters.entry(name.to_lowercase()).or_default().push(value.into_owned());
    }
    for (name, mut values) in parameters {
        values.sort_unstable();
        let _ = write!(text, "\n{name}:{}", values.join(","));
    }
    text
}

#[cfg(test)]
mod tests {
    use azure_core::http::{Method, Url};

    use super::*;

    fn request(
        method: Method,
        url: &str,
        headers: &[(&'static str, &'static str)],
        body: &'static str,
    ) -> Request {
        let mut request = Request::new(Url::parse(url).unwrap(), method);
        for (name, value) in headers {
            request.insert_header(*name, *value);
        }
        request.set_body(body);
        request
    }

    #[test]
    fn the_documented_examples_are_built() {
        let date = ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT");
        let metadata = request(
            Method::Get,
            "http://myaccount.blob.core.windows.net/mycontainer?comp=metadata&restype=container&timeout=20",
            &[("x-ms-version", "2015-02-21"), date],
            "",
        );
        assert_eq!(
            string_to_sign("myaccount", &metadata),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
        );
        let create = request(
            Method::Put,
            "http://myaccount.blob.core.windows.net/mycontainer?restype=container&timeout=30",
            &[("x-ms-version", "2015-02-21"), date, ("content-length", "0")],
            "",
        );
        assert_eq!(
            string_to_sign("myaccount", &create),
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\nrestype:container\ntimeout:30"
        );
    }

    #[test]
    fn the_documented_resources_are_built() {
        let resource = |account, url| {
            let text = string_to_sign(account, &request(Method::Get, url, &[], ""));
            text.trim_start_matches("GET\n").trim_start_matches('\n').to_owned()
        };
        assert_eq!(
            resource(
                "myaccount",
                "http://myaccount.blob.core.windows.net/mycontainer?restype=container&comp=list&include=snapshots&\
                 include=metadata&include=uncommittedblobs"
            ),
            "/myaccount/mycontainer\ncomp:list\ninclude:metadata,snapshots,uncommittedblobs\nrestype:container"
        );
        // An emulator has the account in the path: it is there twice.
        assert_eq!(
            resource(
                "devstoreaccount1",
                "http://127.0.0.1:10000/devstoreaccount1/c/a%20b?comp=block&blockid=YQ%2B%3D"
            ),
            "/devstoreaccount1/devstoreaccount1/c/a%20b\nblockid:YQ+=\ncomp:block"
        );
    }

    #[test]
    fn headers_are_signed_in_their_places() {
        let put = request(
            Method::Put,
            "https://a.blob.core.windows.net/c/b",
            &[
                ("x-ms-version", "2023-11-03"),
                ("x-ms-blob-type", " BlockBlob "),
                ("content-type", "text/plain"),
                ("if-match", "\"0x1\""),
                ("if-none-match", "*"),
                ("range", "bytes=0-1"),
            ],
            "hello world",
        );
        assert_eq!(
            string_to_sign("a", &put),
            "PUT\n\n\n11\n\ntext/plain\n\n\n\"0x1\"\n*\n\nbytes=0-1\nx-ms-blob-type:BlockBlob\nx-ms-version:2023-11-03\n/a/c/b"
        );
    }

    #[test]
    fn a_signature_is_not_shown() {
        assert!(SharedKey::new("a", "no base64!").is_none());
        let key = SharedKey::new("a", "c2VjcmV0\n").unwrap();
        assert!(!format!("{key:?}").contains("c2VjcmV0"), "{key:?}");
        let mut signed = request(Method::Get, "https://a.blob.core.windows.net/c", &[], "");
        key.sign(&mut signed).unwrap();
        assert!(signed.headers().get_str(&AUTHORIZATION).unwrap().starts_with("SharedKey a:"));
        assert!(!format!("{signed:?}").contains("SharedKey"), "{signed:?}");
    }
}
