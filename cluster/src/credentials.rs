//! Who we are to the nodes of a cluster.

use std::fmt;

use zeroize::Zeroizing;

/// Who we are to the nodes of a cluster, and how we show it. The text of a password is wiped from memory when the last
/// clone goes, and no `Debug` output has it.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user of the cluster's own (`INTERNAL`). Only a hash of the password is sent.
    Internal {
        /// The user's name.
        user: String,
        /// The user's password.
        password: Zeroizing<String>,
    },
    /// A user of an external service such as LDAP (`EXTERNAL`). The password itself is sent: only over TLS.
    External {
        /// The user's name.
        user: String,
        /// The user's password.
        password: Zeroizing<String>,
    },
    /// The user that our TLS certificate names (`PKI`).
    Pki,
}

impl Credentials {
    /// The user's name; `None` when the certificate names it.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Internal { user, .. } | Self::External { user, .. } => Some(user),
            Self::Pki => None,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Internal { .. } => "Internal",
            Self::External { .. } => "External",
            Self::Pki => return f.write_str("Pki"),
        };
        f.debug_struct(name).field("user", &self.user()).field("password", &"[secret]").finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let password = Zeroizing::new("hunter2".to_owned());
        for credentials in [
            Credentials::Internal { user: "u".into(), password: password.clone() },
            Credentials::External { user: "u".into(), password },
        ] {
            let shown = format!("{credentials:?} {credentials:#?}");
            assert!(!shown.contains("hunter2") && shown.contains("[secret]"), "{shown}");
        }
    }
}
