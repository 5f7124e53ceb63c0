//! The key of an encrypted backup.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac as _};
use pkcs8::{ObjectIdentifier, PrivateKeyInfoRef, der::Encode};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::KeyError;

/// The AES variants a backup can be encrypted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeySize {
    /// 16 bytes of key.
    Aes128,
    /// 32 bytes of key.
    Aes256,
}

/// An AES key; wiped when dropped, never shown.
#[derive(Clone)]
pub struct EncryptionKey(pub(crate) Secret);

#[derive(Clone)]
pub(crate) enum Secret {
    Aes128(Zeroizing<[u8; 16]>),
    Aes256(Zeroizing<[u8; 32]>),
}

/// `rsaEncryption` of RFC 8017.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

impl EncryptionKey {
    /// The AES key that asbackup makes of an RSA private key: the first bytes of the SHA-256 of its PKCS#1 DER.
    /// `text` is the key's PEM (PKCS#8 or PKCS#1), base64 of that, or the base64 inside it alone.
    pub fn from_pem_or_base64(text: &str, size: KeySize) -> Result<Self, KeyError> {
        let der = if let Some(der) = pem_body(text.as_bytes())? {
            der
        } else {
            let decoded = base64(text.as_bytes())?;
            pem_body(&decoded)?.unwrap_or(decoded)
        };
        let pkcs1 = pkcs1(&der)?;
        let mut hash = Zeroizing::new([0; 32]);
        hash.copy_from_slice(&Sha256::digest(&pkcs1));
        Ok(Self(match size {
            KeySize::Aes128 => {
                let mut key = Zeroizing::new([0; 16]);
                key.copy_from_slice(&hash[..16]);
                Secret::Aes128(key)
            }
            KeySize::Aes256 => Secret::Aes256(hash),
        }))
    }

    /// Which AES the key is for.
    #[must_use]
    pub const fn size(&self) -> KeySize {
        match self.0 {
            Secret::Aes128(_) => KeySize::Aes128,
            Secret::Aes256(_) => KeySize::Aes256,
        }
    }

    /// Tells keys from each other: 64 bits of a hash, from which the key cannot be found.
    #[must_use]
    pub fn id(&self) -> String {
        let mut hash = Sha256::new_with_prefix(b"abs key id\n");
        hash.update(self.bytes());
        let id = hash.finalize()[..8].iter().fold(0_u64, |id, byte| id << 8 | u64::from(*byte));
        format!("{id:016x}")
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
        let derived = Hkdf::<Sha256>::new(None, self.bytes()).expand(label.as_bytes(), &mut *key);
        debug_assert!(derived.is_ok(), "two blocks can always be expanded");
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&(*key).into());
        mac.update(text);
        mac
    }

    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Secret::Aes128(key) => key.as_slice(),
            Secret::Aes256(key) => key.as_slice(),
        }
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptionKey({:?})", self.size())
    }
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
        let id = |size| EncryptionKey::from_pem_or_base64(BODY, size).unwrap().id();
        assert_eq!([id(KeySize::Aes128), id(KeySize::Aes256)], ["cefb42e33ceb2085", "d26420ed0d59b55d"]);
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
        let key = EncryptionKey::from_pem_or_base64(text, KeySize::Aes256)?;
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
        let key = EncryptionKey::from_pem_or_base64(BODY, KeySize::Aes128).unwrap();
        let Secret::Aes128(bytes) = &key.0 else { unreachable!() };
        assert_eq!(bytes.as_slice(), &aes256(BODY).unwrap()[..16]);
        assert_eq!(key.size(), KeySize::Aes128);
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
        let key = EncryptionKey::from_pem_or_base64(BODY, KeySize::Aes128).unwrap();
        assert_eq!(format!("{key:?}"), "EncryptionKey(Aes128)");
    }
}
