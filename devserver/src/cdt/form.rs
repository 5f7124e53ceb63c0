//! In which form the elements that an operation means are returned.

use crate::msgpack::ORDERED;
use crate::result_code::{Outcome, ResultCode};

/// What of the elements is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Nothing,
    Index,
    ReverseIndex,
    Rank,
    ReverseRank,
    Count,
    Key,
    Value,
    /// Keys and values; the flags of the map that holds them.
    KeyValue(u8),
    IndexRange,
    ReverseIndexRange,
    RankRange,
    ReverseRankRange,
    Exists,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) what: What,
    pub(super) inverted: bool,
    pub(super) multi: bool,
}

const INVERTED: i64 = 0x1_0000;
/// The flag of a map whose entries are in the order that was asked for.
const PRESERVE_ORDER: u8 = 8;

impl Form {
    pub(super) const VALUES: Form = Form { what: What::Value, inverted: false, multi: true };
    pub(super) const VALUE: Form = Form { what: What::Value, inverted: false, multi: false };
    pub(super) const ONE_COUNT: Form = Form { what: What::Count, inverted: false, multi: false };
    pub(super) const COUNT: Form = Form { what: What::Count, inverted: false, multi: true };

    pub(super) fn parse(code: i64, multi: bool) -> Outcome<Form> {
        let what = match code & 0xffff {
            0 => What::Nothing,
            1 => What::Index,
            2 => What::ReverseIndex,
            3 => What::Rank,
            4 => What::ReverseRank,
            5 => What::Count,
            6 => What::Key,
            7 => What::Value,
            8 => What::KeyValue(PRESERVE_ORDER),
            9 => What::IndexRange,
            10 => What::ReverseIndexRange,
            11 => What::RankRange,
            12 => What::ReverseRankRange,
            13 => What::Exists,
            16 => What::KeyValue(0),
            17 => What::KeyValue(ORDERED),
            _ => return Err(ResultCode::OP_NOT_APPLICABLE),
        };
        let inverted = code & INVERTED != 0;
        if inverted && !multi {
            return Err(ResultCode::OP_NOT_APPLICABLE);
        }
        Ok(Form { what, inverted, multi })
    }

    /// Whether keys and values are returned in the order of keys.
    pub(super) fn is_sorted_map(self) -> bool {
        matches!(self.what, What::KeyValue(flags) if flags != PRESERVE_ORDER)
    }

    pub(super) fn inverted(self) -> Form {
        Form { inverted: true, ..self }
    }
}
