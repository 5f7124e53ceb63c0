//! Particle types, and the checks a value passes before it becomes part of a record.

use std::borrow::Cow;

use crate::cdt;
use crate::geojson;
use crate::hll;
use crate::result_code::{Outcome, ResultCode};

pub(crate) const NULL: u8 = 0;
pub(crate) const INTEGER: u8 = 1;
pub(crate) const FLOAT: u8 = 2;
pub(crate) const STRING: u8 = 3;
pub(crate) const BLOB: u8 = 4;
/// Java, C#, Python, Ruby, PHP and Erlang blobs.
const LANGUAGE_BLOBS: std::ops::RangeInclusive<u8> = 7..=12;
const VECTOR: u8 = 16;
pub(crate) const BOOL: u8 = 17;
pub(crate) const HLL: u8 = 18;
pub(crate) const MAP: u8 = 19;
pub(crate) const LIST: u8 = 20;
pub(crate) const GEOJSON: u8 = 23;

pub(crate) fn is_blob(particle: u8) -> bool {
    matches!(particle, BLOB | VECTOR) || LANGUAGE_BLOBS.contains(&particle)
}

/// Reads an integer of any of the widths clients send. Shorter ones are unsigned.
pub(crate) fn integer(value: &[u8]) -> Outcome<i64> {
    match value.len() {
        1 | 2 | 4 | 8 => Ok(value.iter().fold(0, |number, byte| number << 8 | i64::from(*byte))),
        _ => Err(ResultCode::PARAMETER),
    }
}

/// Reads a float.
pub(crate) fn float(value: &[u8]) -> Outcome<f64> {
    value.try_into().map(f64::from_be_bytes).map_err(|_| ResultCode::PARAMETER)
}

/// Turns a value as a client sends it into the bytes the server keeps and answers with.
pub(crate) fn accept(particle: u8, value: &[u8]) -> Outcome<Cow<'_, [u8]>> {
    match particle {
        INTEGER if value.len() == 8 => Ok(Cow::Borrowed(value)),
        INTEGER => Ok(Cow::Owned(integer(value)?.to_be_bytes().to_vec())),
        FLOAT => float(value).map(|_| Cow::Borrowed(value)),
        BOOL if matches!(value, [0 | 1]) => Ok(Cow::Borrowed(value)),
        STRING => Ok(Cow::Borrowed(value)),
        HLL => hll::accept(value).map(|()| Cow::Borrowed(value)),
        MAP | LIST => cdt::accept(particle, value),
        GEOJSON => geojson::accept(value).map(Cow::Owned),
        _ if is_blob(particle) => Ok(Cow::Borrowed(value)),
        _ => Err(ResultCode::PARAMETER),
    }
}
