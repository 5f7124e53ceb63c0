//! Standard base64 with padding, strictly: one text for every value, or a flipped bit could go unseen.

use base64_simd::{Out, STANDARD};

use crate::Digest;

/// Bytes of base64 for `len` bytes.
pub(crate) const fn encoded_len(len: usize) -> usize {
    len.div_ceil(3) * 4
}

/// Appends the base64 of `data` to `out`.
#[inline]
pub(crate) fn encode_append(data: &[u8], out: &mut Vec<u8>) {
    // Doubling, where the call below would grow by just what it needs.
    out.reserve(encoded_len(data.len()));
    STANDARD.encode_append(data, out);
}

/// Appends what `text` stands for to `out`; false, with `out` as it was, when `text` is not base64.
#[inline]
pub(crate) fn decode_append(text: &[u8], out: &mut Vec<u8>) -> bool {
    out.reserve(text.len() / 4 * 3);
    STANDARD.decode_append(text, out).is_ok()
}

/// The digest `text` stands for; none when it is not base64 of a digest.
#[inline]
pub(crate) fn decode_digest(text: &[u8]) -> Option<Digest> {
    let mut bytes = [0; size_of::<Digest>() + 1];
    if text.len() != encoded_len(size_of::<Digest>()) {
        return None;
    }
    (*STANDARD.decode(text, Out::from_slice(&mut bytes)).ok()?).try_into().ok()
}

/// Whether `text` is base64.
pub(crate) fn is_valid(text: &[u8]) -> bool {
    STANDARD.check(text).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(data: &[u8]) -> Vec<u8> {
        let mut text = b"kept".to_vec();
        encode_append(data, &mut text);
        text.split_off(4)
    }

    fn decode(text: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"kept".to_vec();
        let right = decode_append(text, &mut out);
        assert!(out.starts_with(b"kept") && (right || out.len() == 4));
        assert_eq!(right, is_valid(text));
        right.then(|| out.split_off(4))
    }

    #[test]
    fn one_text_for_every_value() {
        for (text, value) in
            [("", ""), ("AA==", "\0"), ("AAA=", "\0\0"), ("YWJj", "abc"), ("YWJjZA==", "abcd")]
        {
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(value.as_bytes()));
        }
        for text in [
            "A",
            "AA",
            "AAA",
            "AA=",
            "A===",
            "====",
            "=",
            "AB==",
            "AAB=",
            "AA=A",
            "AA==AAAA",
            "AAAA=",
            "A A=",
            "AA-_",
            "AAAA\n",
            "AAA\u{c1}",
        ] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
            // The same where the vector code has done most.
            let long = "AAAA".repeat(40) + text;
            assert_eq!(decode(long.as_bytes()), None, "{long}");
        }
    }

    #[test]
    fn a_digest_has_twenty_bytes() {
        for len in 0..60 {
            assert_eq!(decode_digest(&encode(&vec![7; len])), (len == 20).then_some([7; 20]), "{len}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn every_value_comes_back(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = encode(&data);
            prop_assert_eq!(text.len(), encoded_len(data.len()));
            prop_assert_eq!(decode(&text), Some(data));
        }

        #[test]
        fn damage_gives_another_value_or_none(
            data in prop::collection::vec(any::<u8>(), 1..100),
            at: prop::sample::Index,
            byte: u8,
        ) {
            let mut text = encode(&data);
            let at = at.index(text.len());
            text[at] = byte;
            if let Some(other) = decode(&text) {
                prop_assert_eq!(encode(&other), text);
            }
        }
    }
}
