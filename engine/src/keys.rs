//! The keys that backups are read with.

use abs_asb::EncryptionKey;

/// The keys that backups may have been encrypted with.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    /// The key of backups that do not say theirs.
    pub main: Option<EncryptionKey>,
    /// Further ones, of backups that do: those from before the key was changed.
    pub further: Vec<EncryptionKey>,
}

impl KeyRing {
    /// The key with this id.
    pub(crate) fn find(&self, id: &str) -> Option<&EncryptionKey> {
        self.main.iter().chain(&self.further).find(|key| key.id() == id)
    }

    /// The key to read a backup with whose metadata.yaml names this one; the main one if it names none, or one that is not
    /// there.
    pub(crate) fn of(&self, id: Option<&str>) -> Option<&EncryptionKey> {
        id.and_then(|id| self.find(id)).or(self.main.as_ref())
    }

    /// Why what is encrypted with the key of this id cannot be read.
    pub(crate) fn lack_of(&self, id: &str) -> String {
        let ids: Vec<_> = self.main.iter().chain(&self.further).map(EncryptionKey::id).collect();
        match &ids[..] {
            [] => format!("encrypted with key {id}, and no key was given"),
            ids => format!("encrypted with another key: {id}, not {}", ids.join(" or ")),
        }
    }
}

impl From<EncryptionKey> for KeyRing {
    fn from(key: EncryptionKey) -> Self {
        Some(key).into()
    }
}

impl From<Option<EncryptionKey>> for KeyRing {
    fn from(main: Option<EncryptionKey>) -> Self {
        Self { main, further: Vec::new() }
    }
}
