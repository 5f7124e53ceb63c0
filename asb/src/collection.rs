//! The msgpack of lists and maps: whether it is whole.

use crate::ParticleType;

/// Checks that the particle of a list or map is one whole collection of its type: every element that it claims is there,
/// and nothing behind it. Other types are not looked into.
///
/// Nesting takes no stack: what is open is a number of elements still to come.
pub(crate) fn check(particle: ParticleType, bytes: &[u8]) -> Result<(), &'static str> {
    match (particle, Reader { bytes }.element()) {
        (ParticleType::List, Ok(Element::List(_))) | (ParticleType::Map, Ok(Element::Map(_))) => {}
        (ParticleType::List, _) => return Err("the value of a list is not one"),
        (ParticleType::Map, _) => return Err("the value of a map is not one"),
        _ => return Ok(()),
    }
    let mut reader = Reader { bytes };
    let mut missing = 1_u64;
    while missing > 0 {
        missing -= 1;
        missing += match reader.element()? {
            Element::Value => 0,
            Element::List(count) => u64::from(count),
            Element::Map(count) => 2 * u64::from(count),
        };
        // An element takes a byte at the least.
        if missing > reader.bytes.len() as u64 {
            return Err(TOO_SHORT);
        }
    }
    if reader.bytes.is_empty() { Ok(()) } else { Err("a list or map has bytes behind its last element") }
}

const TOO_SHORT: &str = "a list or map claims more elements than its bytes hold";

enum Element {
    Value,
    /// So many elements follow.
    List(u32),
    /// So many pairs follow.
    Map(u32),
}

struct Reader<'b> {
    bytes: &'b [u8],
}

impl Reader<'_> {
    /// The next element, without the elements in it.
    fn element(&mut self) -> Result<Element, &'static str> {
        let head = self.number::<1>()?;
        let data = match head {
            // Small integers, nil, booleans.
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => 0,
            0x80..=0x8f => return Ok(Element::Map(head & 0x0f)),
            0x90..=0x9f => return Ok(Element::List(head & 0x0f)),
            0xa0..=0xbf => head & 0x1f,
            // Binary and text of 8, 16 and 32 bits of length.
            0xc4 | 0xd9 => self.number::<1>()?,
            0xc5 | 0xda => self.number::<2>()?,
            0xc6 | 0xdb => self.number::<4>()?,
            // Extensions: a type byte, then the data.
            0xc7 => self.extension::<1>()?,
            0xc8 => self.extension::<2>()?,
            0xc9 => self.extension::<4>()?,
            0xd4..=0xd8 => self.skip(1).map(|()| 1 << (head - 0xd4))?,
            // Floats, integers.
            0xcc | 0xd0 => 1,
            0xcd | 0xd1 => 2,
            0xca | 0xce | 0xd2 => 4,
            0xcb | 0xcf | 0xd3 => 8,
            0xdc => return self.number::<2>().map(Element::List),
            0xdd => return self.number::<4>().map(Element::List),
            0xde => return self.number::<2>().map(Element::Map),
            0xdf => return self.number::<4>().map(Element::Map),
            _ => return Err("a list or map has an element of no type"),
        };
        self.skip(data)?;
        Ok(Element::Value)
    }

    fn extension<const N: usize>(&mut self) -> Result<u32, &'static str> {
        let length = self.number::<N>()?;
        self.skip(1)?;
        Ok(length)
    }

    /// A big-endian number of `N` bytes, at most 4.
    fn number<const N: usize>(&mut self) -> Result<u32, &'static str> {
        let (number, rest) = self.bytes.split_first_chunk::<N>().ok_or(TOO_SHORT)?;
        self.bytes = rest;
        Ok(number.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte)))
    }

    fn skip(&mut self, count: u32) -> Result<(), &'static str> {
        self.bytes = self.bytes.get(count as usize..).ok_or(TOO_SHORT)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A collection as the server stores it, nested now and then, with the extension that says how it is ordered.
    fn collection() -> impl Strategy<Value = Vec<u8>> {
        let value = prop_oneof![
            Just(vec![0xc0]),
            any::<u8>().prop_map(|byte| vec![0xcc, byte]),
            any::<u64>().prop_map(|number| [&[0xcf][..], &number.to_be_bytes()].concat()),
            any::<f64>().prop_map(|number| [&[0xcb][..], &number.to_be_bytes()].concat()),
            prop::collection::vec(any::<u8>(), 0..300)
                .prop_map(|bytes| { [&[0xda][..], &(bytes.len() as u16).to_be_bytes(), &bytes].concat() }),
            Just(vec![0xd4, 0xff, 0x01]),
        ];
        value.prop_recursive(6, 60, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(|items| list(&items)),
                prop::collection::vec((inner.clone(), inner), 0..8).prop_map(|pairs| {
                    let pairs: Vec<_> = pairs.into_iter().flat_map(|(key, value)| [key, value]).collect();
                    [&[0xde, 0, (pairs.len() / 2) as u8][..], &pairs.concat()].concat()
                }),
            ]
        })
    }

    fn list(items: &[Vec<u8>]) -> Vec<u8> {
        let order = [0xc7, 0x00, 0x01];
        [&[0xdc, 0, items.len() as u8 + 1][..], &order, &items.concat()].concat()
    }

    proptest! {
        /// Protects: every collection that is whole passes; none that is cut or has a byte more does.
        #[test]
        fn what_is_whole_passes_and_what_is_cut_does_not(items in prop::collection::vec(collection(), 0..6)) {
            let whole = list(&items);
            prop_assert_eq!(check(ParticleType::List, &whole), Ok(()));
            prop_assert!(check(ParticleType::Map, &whole).is_err());
            prop_assert!((0..whole.len()).all(|end| check(ParticleType::List, &whole[..end]).is_err()));
            prop_assert!(check(ParticleType::List, &[&whole[..], &[0]].concat()).is_err());
        }

        /// Protects: no bytes make it panic.
        #[test]
        fn anything_may_come(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = check(ParticleType::List, &bytes);
            let _ = check(ParticleType::Map, &bytes);
        }
    }

    /// Protects: a claim of 2^32 elements, and a nesting of millions, cost nothing.
    #[test]
    fn claims_are_not_believed() {
        assert_eq!(check(ParticleType::List, &[0xdd, 0xff, 0xff, 0xff, 0xff, 0x01]), Err(TOO_SHORT));
        assert_eq!(check(ParticleType::Map, &[0xdf, 0xff, 0xff, 0xff, 0xff, 0x01]), Err(TOO_SHORT));
        let mut nested = vec![0x91; 8 << 20];
        assert_eq!(check(ParticleType::List, &nested), Err(TOO_SHORT));
        nested.push(0xc0);
        assert_eq!(check(ParticleType::List, &nested), Ok(()));
        assert_eq!(check(ParticleType::List, &[0x91, 0xc1]), Err("a list or map has an element of no type"));
        assert_eq!(check(ParticleType::Map, &[0x80]), Ok(()));
        assert_eq!(check(ParticleType::Blob, &[0xc1]), Ok(()));
    }
}
