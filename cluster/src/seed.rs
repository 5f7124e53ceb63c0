//! Seed addresses.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::ClusterError;

/// The port of an Aerospike service when none is named.
const DEFAULT_PORT: u16 = 3000;

/// An address at which a cluster is first asked for its nodes: `HOST[:[TLS-NAME:]PORT]`, an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seed {
    /// Name or address of the host, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The name that the node's certificate must have; `None` for that of the TLS options, or of the host.
    pub tls_name: Option<String>,
}

impl Seed {
    /// A seed without a TLS name of its own.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, tls_name: None }
    }
}

impl FromStr for Seed {
    type Err = ClusterError;

    fn from_str(text: &str) -> Result<Self, ClusterError> {
        let bad = || ClusterError::BadSeed(text.to_owned());
        let (host, tail) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']').ok_or_else(bad)?;
                (host, if tail.is_empty() { None } else { Some(tail.strip_prefix(':').ok_or_else(bad)?) })
            }
            // An IPv6 address without brackets has no room for a port.
            None if text.parse::<Ipv6Addr>().is_ok() => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, tail)| (host, Some(tail))),
        };
        let (tls_name, port) = match tail.map(|tail| tail.rsplit_once(':').ok_or(tail)) {
            None => (None, DEFAULT_PORT),
            Some(Err(port)) => (None, port.parse().map_err(|_| bad())?),
            Some(Ok((name, port))) => (Some(name), port.parse().map_err(|_| bad())?),
        };
        let is_bad = |name: &str| {
            name.is_empty() || name.contains([':', '[', ']']) || name.contains(char::is_whitespace)
        };
        if host.is_empty() || host.contains(char::is_whitespace) || tls_name.is_some_and(is_bad) || port == 0
        {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), port, tls_name: tls_name.map(str::to_owned) })
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:", self.host)?;
        } else {
            write!(f, "{}:", self.host)?;
        }
        if let Some(name) = &self.tls_name {
            write!(f, "{name}:")?;
        }
        write!(f, "{}", self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_and_refuses_the_rest() {
        for (text, host, port) in [
            ("db1", "db1", 3000),
            ("db1:3100", "db1", 3100),
            ("10.0.0.1:4000", "10.0.0.1", 4000),
            ("[::1]:3000", "::1", 3000),
            ("[fe80::1]", "fe80::1", 3000),
            ("::1", "::1", 3000),
        ] {
            let seed: Seed = text.parse().unwrap();
            assert_eq!((seed.host.as_str(), seed.port), (host, port), "{text}");
            assert_eq!(seed.to_string().parse::<Seed>().unwrap(), seed, "{text}");
        }
        for (text, tls_name) in
            [("db1:cert:3100", "cert"), ("[::1]:a.b:4000", "a.b"), ("10.0.0.1:x:3000", "x")]
        {
            let seed: Seed = text.parse().unwrap();
            assert_eq!((seed.tls_name.as_deref(), seed.to_string().as_str()), (Some(tls_name), text));
        }
        for text in [
            "host::3000",
            "db1:a:b:3000",
            "db1:a:",
            "::1:",
            "[::1]:a:x",
            "",
            ":3000",
            "db1:",
            "db1:x",
            "db1:0",
            "db1:70000",
            "[::1",
            "[::1]3000",
            "a b",
        ] {
            assert!(text.parse::<Seed>().is_err(), "{text}");
        }
    }
}
