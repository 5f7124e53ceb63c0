//! How the files of a backup are hashed.

use crate::text::words;

words! {
    /// The hash of each whole file that the manifest of a backup holds, beside the checksums of its chunks.
    #[derive(Default)]
    pub enum FileHash: "file hash" {
        /// No hash.
        None = "none",
        /// BLAKE3.
        #[default]
        Blake3 = "blake3",
        /// SHA-256, which other tools know.
        Sha256 = "sha256",
    }
}
