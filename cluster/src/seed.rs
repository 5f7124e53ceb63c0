//! Seed addresses.

use std::fmt;
use std::str::FromStr;

use crate::ClusterError;

/// The port of an Aerospike service when none is named.
const DEFAULT_PORT: u16 = 3000;

/// An address at which a cluster is first asked for its nodes: `HOST[:PORT]`, `[IPV6][:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seed {
    /// Name or address of the host, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl FromStr for Seed {
    type Err = ClusterError;

    fn from_str(text: &str) -> Result<Self, ClusterError> {
        let bad = || ClusterError::BadSeed(text.to_owned());
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']').ok_or_else(bad)?;
                match tail {
                    "" => (host, None),
                    tail => (host, Some(tail.strip_prefix(':').ok_or_else(bad)?)),
                }
            }
            // More than one colon and no brackets: an IPv6 address without a port.
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(DEFAULT_PORT), |p| p.parse().map_err(|_| bad()))?;
        if host.is_empty() || port == 0 || host.contains(char::is_whitespace) {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
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
        for text in ["", ":3000", "db1:", "db1:x", "db1:0", "db1:70000", "[::1", "[::1]3000", "a b"] {
            assert!(text.parse::<Seed>().is_err(), "{text}");
        }
    }
}
