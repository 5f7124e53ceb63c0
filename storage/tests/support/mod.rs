//! The object stores of the tests: servers that others wrote, on loopback (`scripts/emulators up`).

#![allow(dead_code, clippy::unwrap_used)]

pub mod proxy;
pub mod s3s;
pub mod sink;

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use abs_config::StorageSettings;

/// An object store.
#[derive(Debug, Clone, Copy)]
pub struct Cloud {
    pub name: &'static str,
    /// The variable that tells where it is, and where it is by default.
    place: (&'static str, &'static str),
    /// An entry of `storage`; `URL` and `FOLDER` stand for what they say.
    document: &'static str,
    /// What it answers when credentials have expired: status, body.
    pub expired: (u16, &'static str, &'static str),
}

/// The account and key of every Azurite; they are public.
pub const AZURITE: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

pub const CLOUDS: [Cloud; 3] = [
    Cloud {
        name: "s3",
        place: ("ABS_TEST_S3", "http://127.0.0.1:15101"),
        document: r#"{"s3-storage":{"bucket":"abs-test","s3-region":"us-east-1","s3-endpoint-override":"URL","path":"FOLDER",
            "access-key-id":"test","secret-access-key":"test-secret"}}"#,
        expired: (
            403,
            "Content-Type: application/xml\r\n",
            "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>",
        ),
    },
    Cloud {
        name: "azure",
        place: ("ABS_TEST_AZURE", "http://127.0.0.1:15102/devstoreaccount1"),
        document: r#"{"azure-storage":{"endpoint":"URL","container-name":"abs-test","path":"FOLDER",
            "account-name":"devstoreaccount1","account-key":"KEY"}}"#,
        expired: (
            403,
            "Content-Type: application/xml\r\nx-ms-error-code: AuthenticationFailed\r\n",
            "<Error><Code>AuthenticationFailed</Code><Message>Signature not valid in the specified time frame</Message></Error>",
        ),
    },
    Cloud {
        name: "gcs",
        place: ("ABS_TEST_GCS", "http://127.0.0.1:15103"),
        document: r#"{"gcp-storage":{"bucket-name":"abs-test","endpoint":"URL","path":"FOLDER"}}"#,
        expired: (
            401,
            "Content-Type: application/json\r\n",
            r#"{"error":{"code":401,"message":"Invalid Credentials","errors":[{"domain":"global","reason":"authError","message":"Invalid Credentials"}]}}"#,
        ),
    },
];

impl Cloud {
    /// Where it is.
    pub fn url(&self) -> String {
        let (variable, default) = self.place;
        let url = std::env::var(variable).unwrap_or_else(|_| default.to_owned());
        let host = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let found = TcpStream::connect(host);
        assert!(
            found.is_ok(),
            "{} is not at {url}: start the emulators with scripts/emulators up",
            self.name
        );
        url
    }

    /// The key of its document.
    pub fn secret(&self) -> &'static str {
        if self.name == "azure" { AZURITE } else { "test-secret" }
    }

    /// A storage in a folder of its bucket that nobody else uses.
    pub fn settings(&self) -> StorageSettings {
        self.settings_at(&self.url())
    }

    /// The same, at another URL.
    pub fn settings_at(&self, url: &str) -> StorageSettings {
        self.settings_with(url, "", "")
    }

    /// The same, with a piece of its document replaced.
    pub fn settings_with(&self, url: &str, piece: &str, by: &str) -> StorageSettings {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let folder = format!("tests/{}-{now}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let document = self.document.replace("URL", url).replace("FOLDER", &folder).replace("KEY", AZURITE);
        assert!(document.contains(piece), "{document}");
        let document = document.replace(piece, by);
        let storage: abs_config::Storage = abs_config::from_json(document.as_bytes()).unwrap();
        storage.check().unwrap()
    }
}

/// Bytes that differ from their neighbours, so that a shifted or repeated block shows.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64)
        .flat_map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).to_le_bytes())
        .take(length)
        .collect()
}
