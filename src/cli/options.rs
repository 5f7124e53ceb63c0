//! Options that several commands share.

use std::path::{Path, PathBuf};

use abs_asb::EncryptionKey;
use abs_engine::KeyRing;
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::service::signals::Signals;

/// How the files are encrypted.
#[allow(clippy::struct_field_names, reason = "fields are named as their options")]
#[derive(Debug, Args)]
pub(super) struct Encryption {
    /// The files are encrypted: with AES in counter mode, or, with authentication, with AES-GCM.
    #[arg(long, value_name = "aes128|aes256|aes128gcm|aes256gcm", requires = "key")]
    encrypt: Option<Cipher>,
    /// File with the RSA private key (PEM, or base64 of it) that the AES key is made from.
    #[arg(long, value_name = "FILE", group = "key", requires = "encrypt")]
    encryption_key_file: Option<PathBuf>,
    /// Environment variable with that key (PEM, or base64 of it).
    #[arg(long, value_name = "NAME", group = "key", requires = "encrypt")]
    encryption_key_env: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cipher {
    Aes128,
    Aes256,
    #[value(name = "aes128gcm")]
    Aes128Gcm,
    #[value(name = "aes256gcm")]
    Aes256Gcm,
}

impl Cipher {
    /// The key in a text, which is from `origin`.
    fn key(self, text: &str, origin: &str) -> Result<EncryptionKey, Failure> {
        let cipher = match self {
            Self::Aes128 => abs_asb::Cipher::Aes128,
            Self::Aes256 => abs_asb::Cipher::Aes256,
            Self::Aes128Gcm => abs_asb::Cipher::Aes128Gcm,
            Self::Aes256Gcm => abs_asb::Cipher::Aes256Gcm,
        };
        EncryptionKey::from_pem_or_base64(text, cipher)
            .map_err(|e| Failure::Usage(format!("the encryption key in {origin} is not usable: {e}")))
    }

    fn key_in(self, file: &Path) -> Result<EncryptionKey, Failure> {
        let origin = file.display().to_string();
        let text = std::fs::read_to_string(file)
            .map_err(|e| Failure::Usage(format!("cannot read the encryption key {origin}: {e}")))?;
        self.key(&text, &origin)
    }
}

impl Encryption {
    pub(super) fn key(self) -> Result<Option<EncryptionKey>, Failure> {
        let Some(cipher) = self.encrypt else { return Ok(None) };
        match (self.encryption_key_file, self.encryption_key_env) {
            (Some(file), _) => cipher.key_in(&file).map(Some),
            (None, Some(name)) => {
                let text = std::env::var(&name)
                    .map_err(|_| Failure::Usage(format!("the environment variable {name} is not set")))?;
                cipher.key(&text, &name).map(Some)
            }
            (None, None) => Err(Failure::usage("--encrypt needs a key")),
        }
    }
}

/// How the files of backups may be encrypted that are read.
#[derive(Debug, Args)]
pub(super) struct Decryption {
    #[command(flatten)]
    main: Encryption,
    /// A further key, for backups that were made with another key or mode: as --encrypt names the mode, and the file of the key.
    /// Can be repeated.
    #[arg(long = "read-key", value_name = "MODE:FILE", value_parser = parse_read_key)]
    further: Vec<(Cipher, PathBuf)>,
}

impl Decryption {
    pub(super) fn keys(self) -> Result<KeyRing, Failure> {
        let mut keys = KeyRing::from(self.main.key()?);
        for (cipher, file) in self.further {
            keys.further.push(cipher.key_in(&file)?);
        }
        Ok(keys)
    }
}

fn parse_read_key(text: &str) -> Result<(Cipher, PathBuf), String> {
    let (mode, file) = text.split_once(':').ok_or("write MODE:FILE, for example aes256gcm:old-key.pem")?;
    let modes: Vec<_> = Cipher::value_variants().iter().filter_map(Cipher::to_possible_value).collect();
    let modes: Vec<_> = modes.iter().map(PossibleValue::get_name).collect();
    let cipher = Cipher::from_str(mode, true)
        .map_err(|_| format!("{mode:?} is no mode of encryption: it can be {}", modes.join(", ")))?;
    Ok((cipher, file.into()))
}

/// Refuses a path that is something else than a folder.
pub(super) fn check_folder(path: &Path) -> Result<(), Failure> {
    if path.exists() && !path.is_dir() {
        return Err(Failure::Usage(format!("{} is not a folder", path.display())));
    }
    Ok(())
}

/// A name of 1 to `MAX` bytes, as the server takes it.
pub(super) fn parse_name<const MAX: usize>(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("an empty name".to_owned()),
        length if length > MAX => Err(format!("the name has {length} bytes, the server takes {MAX}")),
        _ => Ok(text.to_owned()),
    }
}

/// Bytes in the name of a set.
pub(super) const MAX_SET: usize = 63;
/// Bytes in the name of a bin.
pub(super) const MAX_BIN: usize = 15;

/// A token that is cancelled by the first signal to stop.
pub(super) fn cancel_on(mut signals: Signals) -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        signals.stop().await;
        cancel.cancel();
        signals.stop().await;
        // Cleaning up waits for the storage; a user who cannot wait, as on a dead network disk, says so twice.
        std::process::exit(1);
    });
    token
}

/// Bytes as `MEMORY` says them: a number with K, M or G.
pub(super) fn parse_memory(text: &str) -> Result<u64, String> {
    let (digits, shift) =
        match text.to_ascii_uppercase().strip_suffix('B').unwrap_or(&text.to_ascii_uppercase()) {
            t if t.ends_with('K') => (t[..t.len() - 1].to_owned(), 10),
            t if t.ends_with('M') => (t[..t.len() - 1].to_owned(), 20),
            t if t.ends_with('G') => (t[..t.len() - 1].to_owned(), 30),
            t => (t.to_owned(), 0),
        };
    let number: u64 =
        digits.parse().map_err(|_| format!("{text:?} is no size: write for example 512M or 2G"))?;
    number
        .checked_mul(1 << shift)
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| format!("{text:?} is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_with_and_without_units() {
        for (text, bytes) in [("1", 1), ("2k", 2048), ("512M", 512 << 20), ("2G", 2 << 30), ("4gb", 4 << 30)]
        {
            assert_eq!(parse_memory(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "-1", "0", "1T", "99999999999999999G"] {
            assert!(parse_memory(text).is_err(), "{text}");
        }
    }
}
