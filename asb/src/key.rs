//! The key of an encrypted backup.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac as _};
use pkcs8::{ObjectIdentifier, PrivateKeyInfoRef, der::Encode};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::KeyError;

/// The ciphers that a backup can be encrypted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES in counter mode with a key of 16 bytes, as asbackup uses it.
    Aes128,
    /// The same with 32 bytes.
    Aes256,
    /// AES-GCM by chunks, with a key of 16 bytes.
    Aes128Gcm,
    /// The same with 32 bytes.
    Aes256Gcm,
}

impl fmt::Display for Cipher {
    /// As metadata.yaml names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes128 => "AES128",
            Self::Aes256 => "AES256",
            Self::Aes128Gcm => "AES128GCM",
            Self::Aes256Gcm => "AES256GCM",
        })
    }
}

/// The key of a cipher; wiped when dropped, never shown.
#[derive(Clone)]
pub struct EncryptionKey(pub(crate) Secret);

#[derive(Clone)]
pub(crate) enum Secret {
    Aes128(Zeroizing<[u8; 16]>),
    Aes256(Zeroizing<[u8; 32]>),
    Aes128Gcm(Zeroizing<[u8; 16]>),
    Aes256Gcm(Zeroizing<[u8; 32]>),
}

/// From what labels keys and ids are derived, so that none says anything of another.
const DATA_LABEL: &str = "abs data";
const ID_LABEL: &str = "abs key id";

/// `rsaEncryption` of RFC 8017.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

impl EncryptionKey {
    /// The AES key that asbackup makes of an RSA private key: the first bytes of the SHA-256 of its PKCS#1 DER.
    /// `text` is the key's PEM (PKCS#8 or PKCS#1), base64 of that, or the base64 inside it alone.
    pub fn from_pem_or_base64(text: &str, cipher: Cipher) -> Result<Self, KeyError> {
        let der = if let Some(der) = pem_body(text.as_bytes())? {
            der
        } else {
            let decoded = base64(text.as_bytes())?;
            pem_body(&decoded)?.unwrap_or(decoded)
        };
        let pkcs1 = pkcs1(&der)?;
        let mut hash = Zeroizing::new([0; 32]);
        hash.copy_from_slice(&Sha256::digest(&pkcs1));
        let mut half = Zeroizing::new([0; 16]);
        half.copy_from_slice(&hash[..16]);
        Ok(Self(match cipher {
            Cipher::Aes128 => Secret::Aes128(half),
            Cipher::Aes256 => Secret::Aes256(hash),
            Cipher::Aes128Gcm => Secret::Aes128Gcm(half),
            Cipher::Aes256Gcm => Secret::Aes256Gcm(hash),
        }))
    }

    /// Which cipher the key is for.
    #[must_use]
    pub const fn cipher(&self) -> Cipher {
        match self.0 {
            Secret::Aes128(_) => Cipher::Aes128,
            Secret::Aes256(_) => Cipher::Aes256,
            Secret::Aes128Gcm(_) => Cipher::Aes128Gcm,
            Secret::Aes256Gcm(_) => Cipher::Aes256Gcm,
        }
    }

    /// Tells keys from each other: 64 bits of a hash, from which the key cannot be found.
    #[must_use]
    pub fn id(&self) -> String {
        id_text(self.id_bytes())
    }

    pub(crate) fn id_bytes(&self) -> [u8; 8] {
        let mut id = [0; 8];
        match &self.0 {
            Secret::Aes128(_) | Secret::Aes256(_) => {
                let mut hash = Sha256::new_with_prefix(b"abs key id\n");
                hash.update(self.bytes());
                id.copy_from_slice(&hash.finalize()[..8]);
            }
            Secret::Aes128Gcm(_) | Secret::Aes256Gcm(_) => self.derive(None, ID_LABEL, &mut id),
        }
        id
    }

    /// The key of the file with this salt: as many bytes as this one has, the others are 0.
    pub(crate) fn file_key(&self, salt: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        self.derive(Some(salt), DATA_LABEL, &mut key[..self.bytes().len()]);
        key
    }

    /// HKDF-SHA256 of the key, `label` being the info.
    fn derive(&self, salt: Option<&[u8]>, label: &str, out: &mut [u8]) {
        let derived = Hkdf::<Sha256>::new(salt, self.bytes()).expand(label.as_bytes(), out);
        debug_assert!(derived.is_ok(), "so few bytes can always be expanded");
    }

    /// The HMAC-SHA256 of `text` by a key that is derived from this one (HKDF-SHA256 without salt, `label` as info), so that
    /// neither says anything of the other or of what another label gives.
    #[must_use]
    pub fn mac(&self, label: &str, text: &[u8]) -> [u8; 32] {
        self.hmac(label, text).finalize().into_bytes().into()
    }

    /// Whether `mac`, in hexadecimal digits, is that of `text`; compared in constant time.
    #[must_use]
    pub fn verifies(&self, label: &str, text: &[u8], mac: &str) -> bool {
        let digits = mac.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> =
            digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect();
        bytes.is_some_and(|bytes| self.hmac(label, text).verify_slice(&bytes).is_ok())
    }

    fn hmac(&self, label: &str, text: &[u8]) -> Hmac<Sha256> {
        let mut key = Zeroizing::new([0; 64]);
        self.derive(None, label, &mut *key);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&(*key).into());
        mac.update(text);
        mac
    }

    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Secret::Aes128(key) | Secret::Aes128Gcm(key) => key.as_slice(),
            Secret::Aes256(key) | Secret::Aes256Gcm(key) => key.as_slice(),
        }
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKey({:?})", self.cipher())
    }
}

/// The id of a key as documents have it.
pub(crate) fn id_text(id: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(id))
}

/// The DER of the first private key in a PEM file; none when `text` is no PEM. Lines may be of any length: keys in
/// environment variables have often lost theirs.
fn pem_body(text: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    let Ok(mut rest) = str::from_utf8(text) else { return Ok(None) };
    let mut pem = false;
    while let Some((_, block)) = rest.split_once("-----BEGIN ") {
        pem = true;
        let (label, block) = block.split_once("-----").ok_or(KeyError::Encoding)?;
        let (body, after) = block.split_once("-----END ").ok_or(KeyError::Encoding)?;
        if label == "ENCRYPTED PRIVATE KEY" || body.contains("Proc-Type:") {
            return Err(KeyError::Protected);
        }
        if label == "PRIVATE KEY" || label == "RSA PRIVATE KEY" {
            return base64(body.as_bytes()).map(Some);
        }
        rest = after;
    }
    if pem { Err(KeyError::NoPrivateKey) } else { Ok(None) }
}

fn base64(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let mut bytes = Zeroizing::new(text.to_vec());
    bytes.retain(|byte| !byte.is_ascii_whitespace());
    let len = base64_simd::STANDARD.decode_inplace(&mut bytes).map_err(|_| KeyError::Encoding)?.len();
    bytes.truncate(len);
    if len == 0 { Err(KeyError::Encoding) } else { Ok(bytes) }
}

/// The PKCS#1 DER of an RSA key in PKCS#8 or PKCS#1 DER.
fn pkcs1(der: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let inner = match PrivateKeyInfoRef::try_from(der) {
        Ok(info) if info.algorithm.oid == RSA => info.private_key.as_bytes(),
        Ok(_) => return Err(KeyError::NotRsa),
        Err(_) => der,
    };
    let key = pkcs1::RsaPrivateKeyRef::try_from(inner).map_err(|_| KeyError::NotRsa)?;
    key.to_der().map(Zeroizing::new).map_err(|_| KeyError::NotRsa)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of a PKCS#8 PEM.
    const BODY: &str = include_str!("../../tests/golden/test-key.b64");
    /// The Ed25519 key of RFC 8410, section 10.3.
    const ED25519: &str = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC";

    /// Protects: the id of a key stays what it is, and each key has its own.
    #[test]
    fn an_id_tells_keys_from_each_other() {
        let id = |cipher| EncryptionKey::from_pem_or_base64(BODY, cipher).unwrap().id();
        assert_eq!([id(Cipher::Aes128), id(Cipher::Aes256)], ["cefb42e33ceb2085", "d26420ed0d59b55d"]);
        assert_eq!([id(Cipher::Aes128Gcm), id(Cipher::Aes256Gcm)], ["d96fe1a8a6ae9391", "518983e2b7d28ed8"]);
    }

    fn pem(label: &str, body: &str, end: &str) -> String {
        let body: String = body.split_whitespace().collect();
        let lines: Vec<_> = body.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----{end}{}{end}-----END {label}-----{end}", lines.join(end))
    }

    fn pkcs1_body() -> String {
        base64_simd::STANDARD.encode_to_string(pkcs1(&base64(BODY.as_bytes()).unwrap()).unwrap().as_slice())
    }

    fn aes256(text: &str) -> Result<Vec<u8>, KeyError> {
        let key = EncryptionKey::from_pem_or_base64(text, Cipher::Aes256)?;
        let Secret::Aes256(bytes) = &key.0 else { unreachable!() };
        Ok(bytes.to_vec())
    }

    #[test]
    fn every_way_to_write_a_key_gives_the_same() {
        let expected = aes256(BODY).unwrap();
        let pkcs8_pem = pem("PRIVATE KEY", BODY, "\n");
        let texts = [
            BODY.split_whitespace().collect(),
            pkcs8_pem.clone(),
            pem("PRIVATE KEY", BODY, "\r\n"),
            pem("PRIVATE KEY", BODY, " "),
            pem("PRIVATE KEY", BODY, ""),
            format!("  \n{pkcs8_pem}\n\n"),
            format!("{}\n{pkcs8_pem}", pem("CERTIFICATE", "AAAA", "\n")),
            pem("RSA PRIVATE KEY", &pkcs1_body(), "\n"),
            pkcs1_body(),
            base64_simd::STANDARD.encode_to_string(&pkcs8_pem),
            base64_simd::STANDARD.encode_to_string(pem("RSA PRIVATE KEY", &pkcs1_body(), "\n")),
        ];
        for text in texts {
            assert_eq!(aes256(&text).as_ref(), Ok(&expected), "{text}");
        }
    }

    #[test]
    fn aes128_is_the_first_half() {
        let key = EncryptionKey::from_pem_or_base64(BODY, Cipher::Aes128).unwrap();
        let Secret::Aes128(bytes) = &key.0 else { unreachable!() };
        assert_eq!(bytes.as_slice(), &aes256(BODY).unwrap()[..16]);
        assert_eq!(key.cipher(), Cipher::Aes128);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for (text, error) in [
            (String::new(), KeyError::Encoding),
            (" \n".into(), KeyError::Encoding),
            ("not base64!".into(), KeyError::Encoding),
            ("AAAA".into(), KeyError::NotRsa),
            (BODY.split_whitespace().next().unwrap().into(), KeyError::NotRsa),
            (ED25519.into(), KeyError::NotRsa),
            (pem("PRIVATE KEY", ED25519, "\n"), KeyError::NotRsa),
            (pem("EC PRIVATE KEY", "AAAA", "\n"), KeyError::NoPrivateKey),
            (pem("CERTIFICATE", "AAAA", "\n"), KeyError::NoPrivateKey),
            (pem("ENCRYPTED PRIVATE KEY", BODY, "\n"), KeyError::Protected),
            ("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----".into(), KeyError::Protected),
            ("-----BEGIN PRIVATE KEY-----\nAAAA".into(), KeyError::Encoding),
            ("-----BEGIN ".into(), KeyError::Encoding),
        ] {
            assert_eq!(aes256(&text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = EncryptionKey::from_pem_or_base64(BODY, Cipher::Aes128).unwrap();
        assert_eq!(format!("{key:?}"), "EncryptionKey(Aes128)");
    }
}
