//! From the server's bytes to the text, without a value in between.

use crate::{
    Digest, EncodeError, ParticleType, SecondaryIndex, Udf, UdfLanguage, Version, base64,
    escape::{escape_into, is_special},
    float,
    lines::{MAX_BIN, MAX_SET},
};

/// A stored user key, as the key field of a record's message has it.
#[derive(Clone, Copy, Debug)]
pub struct WireKey<'a> {
    /// The particle type byte.
    pub particle: u8,
    /// The bytes behind it.
    pub data: &'a [u8],
}

/// What a record has besides its bins.
#[derive(Clone, Copy, Debug)]
pub struct RecordHead<'a> {
    /// The record's digest.
    pub digest: &'a Digest,
    /// Its set; empty when it has none.
    pub set: &'a [u8],
    /// Its user key, when the server keeps it.
    pub key: Option<WireKey<'a>>,
    /// How often it was written, as the server counts.
    pub generation: u32,
    /// When it expires, in seconds since 2010-01-01T00:00:00Z; 0 = never.
    pub void_time: u32,
    /// How many bins follow.
    pub bin_count: u16,
}

/// A bin, as an operation of a record's message has it.
#[derive(Clone, Copy, Debug)]
pub struct WireBin<'a> {
    /// The bin's name.
    pub name: &'a [u8],
    /// The particle type byte.
    pub particle: u8,
    /// The particle, exactly as the server sent it.
    pub data: &'a [u8],
}

/// Writes the text of one namespace's files.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// The namespace's name, escaped.
    namespace: Vec<u8>,
    /// What every record has in front of its digest.
    record_start: Vec<u8>,
    compact: bool,
}

impl Encoder {
    /// An encoder for `namespace`; `compact` writes blobs, maps, lists and HLLs raw instead of in base64.
    #[must_use]
    pub fn new(namespace: &str, compact: bool) -> Self {
        let mut escaped = Vec::new();
        escape_into(namespace.as_bytes(), &mut escaped);
        let record_start = [b"+ n ", escaped.as_slice(), b"\n+ d "].concat();
        Self { namespace: escaped, record_start, compact }
    }

    /// Appends a file's first lines to `out`.
    pub fn header(&self, version: Version, first_file: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Version ");
        out.extend_from_slice(version.text().as_bytes());
        out.extend_from_slice(b"\n# namespace ");
        out.extend_from_slice(&self.namespace);
        out.push(b'\n');
        if first_file {
            out.extend_from_slice(b"# first-file\n");
        }
    }

    /// Appends an index's line to `out`. An expression index belongs into a file of version 3.2.
    pub fn index(&self, index: &SecondaryIndex, out: &mut Vec<u8>) {
        out.extend_from_slice(if index.expression.is_some() { b"* e " } else { b"* i " });
        out.extend_from_slice(&self.namespace);
        for name in [&index.set, &index.name] {
            out.push(b' ');
            escape_into(name.as_bytes(), out);
        }
        out.extend_from_slice(&[b' ', index.kind.letter(), b' ', b'1', b' ']);
        escape_into(index.bin.as_deref().unwrap_or_default().as_bytes(), out);
        out.extend_from_slice(&[b' ', index.data.letter()]);
        if let Some(base64) = index.expression.as_ref().or(index.context.as_ref()) {
            out.push(b' ');
            out.extend_from_slice(base64.as_bytes());
        }
        out.push(b'\n');
    }

    /// Appends a UDF module to `out`.
    pub fn udf(&self, udf: &Udf, out: &mut Vec<u8>) {
        let UdfLanguage::Lua = udf.language;
        out.extend_from_slice(b"* u L ");
        escape_into(udf.name.as_bytes(), out);
        out.push(b' ');
        counted(&udf.content, out);
        out.push(b'\n');
    }

    /// Appends a record to `out`; after an error `out` is as it was.
    pub fn record<'a>(
        &self,
        head: &RecordHead<'_>,
        bins: impl IntoIterator<Item = WireBin<'a>>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let before = out.len();
        let result = self.append_record(head, bins, out);
        if result.is_err() {
            out.truncate(before);
        }
        result
    }

    fn append_record<'a>(
        &self,
        head: &RecordHead<'_>,
        bins: impl IntoIterator<Item = WireBin<'a>>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        if let Some(key) = head.key {
            self.key(key, out)?;
        }
        out.extend_from_slice(&self.record_start);
        base64::encode_append(head.digest, out);
        let mut line = Line::new();
        line.put(b"\n");
        if !head.set.is_empty() {
            if head.set.len() > MAX_SET {
                return Err(EncodeError::NameTooLong { place: "the set".into(), limit: MAX_SET });
            }
            line.put(b"+ s ");
            line.flush_into(out);
            escape_into(head.set, out);
            line.put(b"\n");
        }
        line.put(b"+ g ");
        line.decimal(head.generation);
        line.put(b"\n+ t ");
        line.decimal(head.void_time);
        line.put(b"\n+ b ");
        line.decimal(head.bin_count);
        line.put(b"\n");
        line.flush_into(out);
        let mut left = head.bin_count;
        for bin in bins {
            left = left.checked_sub(1).ok_or(EncodeError::BinCount(head.bin_count))?;
            self.bin(&bin, &mut line, out)?;
        }
        if left == 0 { Ok(()) } else { Err(EncodeError::BinCount(head.bin_count)) }
    }

    fn key(&self, key: WireKey<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        use ParticleType::{Blob, Float, Integer, String};
        let Some(particle @ (Integer | Float | String | Blob)) = ParticleType::from_wire(key.particle) else {
            return Err(EncodeError::ParticleType { place: "the user key".into(), particle: key.particle });
        };
        let mut line = Line::new();
        line.put(b"+ k ");
        self.value(particle, None, key.data, &mut line, out).map_err(|NotOfType| EncodeError::Particle {
            place: "the user key".into(),
            particle: key.particle,
            len: key.data.len(),
        })
    }

    #[inline]
    fn bin(&self, bin: &WireBin<'_>, line: &mut Line, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let place = || format!("bin \"{}\"", bin.name.escape_ascii());
        if bin.name.len() > MAX_BIN {
            return Err(EncodeError::NameTooLong { place: place(), limit: MAX_BIN });
        }
        let Some(particle) = ParticleType::from_wire(bin.particle) else {
            return Err(EncodeError::ParticleType { place: place(), particle: bin.particle });
        };
        line.put(b"- ");
        self.value(particle, Some(bin.name), bin.data, line, out).map_err(|NotOfType| EncodeError::Particle {
            place: place(),
            particle: bin.particle,
            len: bin.data.len(),
        })
    }

    /// The rest of a `+ k` or `-` line: type, name and value.
    #[inline]
    fn value(
        &self,
        particle: ParticleType,
        name: Option<&[u8]>,
        data: &[u8],
        line: &mut Line,
        out: &mut Vec<u8>,
    ) -> Result<(), NotOfType> {
        let base64 = particle.is_base64();
        line.put(&[particle.letter()]);
        if base64 && self.compact {
            line.put(b"!");
        }
        line.put(b" ");
        if let Some(name) = name {
            line.escaped(name);
            if particle != ParticleType::Null {
                line.put(b" ");
            }
        }
        match particle {
            ParticleType::Null if data.is_empty() => {}
            ParticleType::Null => return Err(NotOfType),
            ParticleType::Bool => line.put(match data {
                [0] => b"F",
                [1] => b"T",
                _ => return Err(NotOfType),
            }),
            ParticleType::Integer => line.decimal(integer(data)?),
            ParticleType::Float => {
                let bits = data.try_into().map_err(|_| NotOfType)?;
                line.flush_into(out);
                float::append(f64::from_be_bytes(bits), out);
            }
            _ if base64 && !self.compact => {
                line.decimal(base64::encoded_len(data.len()));
                line.put(b" ");
                line.flush_into(out);
                base64::encode_append(data, out);
            }
            _ => {
                let bytes = if particle == ParticleType::GeoJson { json(data)? } else { data };
                line.decimal(bytes.len());
                line.put(b" ");
                line.flush_into(out);
                out.extend_from_slice(bytes);
            }
        }
        line.put(b"\n");
        line.flush_into(out);
        Ok(())
    }
}

/// The short parts of a line, gathered here so that the output grows once for all of them. The most is a bin's type,
/// name and length (2 + 3 + 30 + 1 + 10 + 1 bytes).
struct Line {
    bytes: [u8; 64],
    len: usize,
}

impl Line {
    const fn new() -> Self {
        Self { bytes: [0; 64], len: 0 }
    }

    #[inline]
    fn put<const N: usize>(&mut self, part: &[u8; N]) {
        self.bytes[self.len..self.len + N].copy_from_slice(part);
        self.len += N;
    }

    /// A name of at most 15 bytes.
    #[inline]
    fn escaped(&mut self, name: &[u8]) {
        for &byte in name {
            if is_special(byte) {
                self.put(b"\\");
            }
            self.put(&[byte]);
        }
    }

    #[inline]
    fn decimal(&mut self, number: impl itoa::Integer) {
        for &digit in itoa::Buffer::new().format(number).as_bytes() {
            self.put(&[digit]);
        }
    }

    #[inline]
    fn flush_into(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[..self.len]);
        self.len = 0;
    }
}

/// The bytes are no particle of their type.
struct NotOfType;

/// `LEN SP bytes`.
fn counted(bytes: &[u8], out: &mut Vec<u8>) {
    decimal(bytes.len(), out);
    out.push(b' ');
    out.extend_from_slice(bytes);
}

fn decimal(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// An integer particle: the server reads shorter ones than 8 bytes without a sign.
fn integer(data: &[u8]) -> Result<i64, NotOfType> {
    if !matches!(data.len(), 1 | 2 | 4 | 8) {
        return Err(NotOfType);
    }
    let mut bytes = [0; 8];
    bytes[8 - data.len()..].copy_from_slice(data);
    Ok(i64::from_be_bytes(bytes))
}

/// The text of a GeoJSON particle: flags, the number of cells, that many cells of 8 bytes, the text.
fn json(data: &[u8]) -> Result<&[u8], NotOfType> {
    let (&[_, high, low], rest) = data.split_first_chunk().ok_or(NotOfType)?;
    rest.get(usize::from(u16::from_be_bytes([high, low])) * 8..).ok_or(NotOfType)
}
