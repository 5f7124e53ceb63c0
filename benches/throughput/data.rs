//! The benchmark's records: 15 bins each, about 760 bytes in a scan's reply.

use abs_asb::Digest;

/// The bins of one record: name, particle type, value.
pub type Bins = Vec<(String, u8, Vec<u8>)>;

/// An integer, a double, a 100-character string, a 200-byte blob, ten maps of one entry, a list of ten integers.
pub fn bins(number: u32) -> Bins {
    let mut random = Random(u64::from(number) + 1);
    let mut bins = vec![
        ("int".to_owned(), 1, random.next().to_be_bytes().to_vec()),
        ("double".to_owned(), 2, (random.next() as f64 / 1e7).to_be_bytes().to_vec()),
        ("string".to_owned(), 3, (0..100).map(|_| random.letter()).collect()),
        ("blob".to_owned(), 4, (0..200).map(|_| random.next() as u8).collect()),
    ];
    for map in 0..10 {
        // A map of one entry: a string of five letters (with its type byte), an unsigned 32-bit integer.
        let mut value = vec![0x81, 0xa6, 3];
        value.extend((0..5).map(|_| random.letter()));
        value.push(0xce);
        value.extend_from_slice(&(random.next() as u32 | 1 << 31).to_be_bytes());
        bins.push((format!("map_{map}"), 19, value));
    }
    let mut list = vec![0x9a];
    for _ in 0..10 {
        list.push(0xce);
        list.extend_from_slice(&(random.next() as u32 | 1 << 31).to_be_bytes());
    }
    bins.push(("list".to_owned(), 20, list));
    bins
}

/// The digest of record `number`, well spread over the partitions.
pub fn digest(number: u32) -> Digest {
    let mut random = Random((u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut digest = Digest::default();
    for chunk in digest.chunks_mut(8) {
        let bytes = random.next().to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
    digest
}

/// The generator `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn letter(&mut self) -> u8 {
        b"abcdefghijklmnopqrstuvwxyz0123456789"[(self.next() % 36) as usize]
    }
}
