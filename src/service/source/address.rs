//! A configuration that an http(s) address answers. It can only be read, as with the reference.

use std::time::Duration;

use abs_actors::ConfigSource;
use async_trait::async_trait;
use ureq::Agent;
use ureq::http::Uri;

use super::LARGEST;
use crate::service::client::agent;

/// How long an answer may take, from the name's lookup to its last byte.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A configuration at an http(s) address.
#[derive(Debug)]
pub(super) struct Address {
    uri: Uri,
    agent: Agent,
}

impl Address {
    /// The address that `text` is; `None` when it is none, but a path.
    pub(super) fn recognise(text: &str) -> Option<Result<Self, String>> {
        let (scheme, _) = text.split_once("://")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            other => {
                return Some(Err(format!(
                    "a configuration cannot be read from {other}://: name a file, http:// or https://"
                )));
            }
        };
        let uri = text.parse::<Uri>().map_err(|e| format!("the address of the configuration is none: {e}"));
        Some(uri.map(|uri| Self { uri, agent: agent(https, TIMEOUT) }))
    }
}

#[async_trait]
impl ConfigSource for Address {
    /// Without what may be secret: the user, the password, the query.
    fn describe(&self) -> String {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let port = self.uri.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("address {scheme}://{}{port}{}", self.uri.host().unwrap_or_default(), self.uri.path())
    }

    async fn read(&self) -> Result<String, String> {
        let (agent, uri) = (self.agent.clone(), self.uri.clone());
        let get = move || -> Result<String, ureq::Error> {
            agent.get(uri).call()?.body_mut().with_config().limit(LARGEST as u64).read_to_string()
        };
        let text = tokio::task::spawn_blocking(get).await.map_err(|e| e.to_string())?;
        text.map_err(|e| format!("reading {}: {e}", self.describe()))
    }

    async fn write(&self, _: &str) -> Result<(), String> {
        Err(format!(
            "{} can only be read: change the configuration there and reload it with SIGHUP, or keep it in a file \
             or a storage",
            self.describe()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(text: &str) -> String {
        Address::recognise(text).unwrap().unwrap().describe()
    }

    #[test]
    fn an_address_is_told_from_a_path_and_shown_without_secrets() {
        for path in ["/etc/abs.yml", "config.yml", "C:/x", "http:/x"] {
            assert!(Address::recognise(path).is_none(), "{path}");
        }
        assert_eq!(described("http://user:pass@host:81/a/b.yml?token=t"), "address http://host:81/a/b.yml");
        assert_eq!(described("HTTPS://host/c.yml"), "address https://host/c.yml");
        for (text, part) in
            [("file:///etc/abs.yml", "file://"), ("http://", "is none"), ("http://a b/", "is none")]
        {
            let error = Address::recognise(text).unwrap().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn it_cannot_be_written() {
        let address = Address::recognise("http://localhost/c.yml").unwrap().unwrap();
        let error = address.write("").await.unwrap_err();
        assert!(error.contains("address http://localhost/c.yml can only be read"), "{error}");
    }
}
