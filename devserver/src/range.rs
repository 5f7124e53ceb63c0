//! The index range of a query: which values a record must have to be found.

use base64_simd::STANDARD as BASE64;

use crate::cdt::context::Context;
use crate::expression::{Expression, View};
use crate::message::{Fields, Malformed, take, take_u8, take_u32};
use crate::msgpack::Value;
use crate::namespace::Namespace;
use crate::particle;
use crate::result_code::{Outcome, ResultCode};
use crate::sindex::{Definition, KeyType, Source};

/// The values looked for.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Integers(i64, i64),
    Bytes(Vec<u8>),
}

/// An index range, bound to the index that it goes through.
pub(crate) struct Range {
    wanted: Wanted,
    bin: Option<String>,
    context: Option<Context>,
    expression: Option<Expression>,
    source: Source,
    key: KeyType,
}

impl From<Malformed> for ResultCode {
    fn from(_: Malformed) -> ResultCode {
        ResultCode::PARAMETER
    }
}

impl Range {
    pub(crate) fn parse(mut field: &[u8], fields: &Fields<'_>, namespace: &Namespace) -> Outcome<Range> {
        let data = &mut field;
        if take_u8(data)? != 1 {
            return Err(ResultCode::PARAMETER);
        }
        let name_len = take_u8(data)?;
        let bin = take(data, name_len.into())?;
        let key = take_u8(data)?;
        let wanted = match key {
            particle::INTEGER => {
                let mut bound = || -> Outcome<i64> {
                    if take_u32(data)? == 8 {
                        particle::integer(take(data, 8)?)
                    } else {
                        Err(ResultCode::PARAMETER)
                    }
                };
                let (from, to) = (bound()?, bound()?);
                if from > to {
                    return Err(ResultCode::PARAMETER);
                }
                Wanted::Integers(from, to)
            }
            particle::STRING | particle::BLOB => {
                let len = take_u32(data)? as usize;
                Wanted::Bytes(take(data, len)?.to_vec())
            }
            particle::GEOJSON => {
                log::warn!("geographic queries are not part of the development server");
                return Err(ResultCode::UNSUPPORTED_FEATURE);
            }
            _ => return Err(ResultCode::PARAMETER),
        };
        let source = fields.index_type.and_then(|bytes| bytes.first()).copied().unwrap_or(0);
        let source = Source::from_wire(source).ok_or(ResultCode::PARAMETER)?;
        let set = fields.set.unwrap_or_default();
        let base64 = |bytes: Option<&[u8]>| bytes.map(|bytes| BASE64.encode_to_string(bytes));
        let (wire_context, wire_expression) = (base64(fields.index_context), base64(fields.index_expression));
        // The index is named, or found by what it is over: in the query's set, or over all sets.
        let definition = namespace
            .indexes
            .all()
            .into_iter()
            .find(|index| match fields.index_name {
                Some(name) => index.name.as_bytes() == name,
                None => {
                    (index.set.is_empty() || index.set.as_bytes() == set)
                        && index.definition
                            == Definition::Values {
                                bin: (!bin.is_empty()).then(|| String::from_utf8_lossy(bin).into_owned()),
                                context: wire_context.clone(),
                                expression: wire_expression.clone(),
                                source,
                                key: KeyType(key),
                            }
                }
            })
            .map(|index| index.definition);
        let Some(Definition::Values { bin, context, expression, source, key }) = definition else {
            return Err(ResultCode::SINDEX_NOT_FOUND);
        };
        let decode = |text: String| BASE64.decode_to_vec(text).map_err(|_| ResultCode::PARAMETER);
        let context = context.map(|text| Context::parse(&decode(text)?)).transpose()?;
        let expression = expression.map(|text| Expression::parse(&decode(text)?)).transpose()?;
        Ok(Range { wanted, bin, context, expression, source, key })
    }

    /// The value by which a record is found (its index key), if it is.
    pub(crate) fn find(&self, view: &View<'_>) -> Option<i64> {
        let value = match (&self.expression, &self.bin) {
            (Some(expression), _) => expression.value(view)?,
            (None, Some(bin)) => {
                let (particle, bytes) = view.bins.get(bin.as_bytes())?;
                Value::from_particle(particle, bytes)?
            }
            (None, None) => return None,
        };
        let value = match &self.context {
            Some(context) => context.find(&value)?.clone(),
            None => value,
        };
        match (self.source, &value) {
            (Source::Default, value) => self.matches(value),
            (Source::List, Value::List(list)) => list.items.iter().find_map(|item| self.matches(item)),
            (Source::MapKeys, Value::Map(map)) => map.entries.iter().find_map(|(key, _)| self.matches(key)),
            (Source::MapValues, Value::Map(map)) => {
                map.entries.iter().find_map(|(_, value)| self.matches(value))
            }
            _ => None,
        }
    }

    fn matches(&self, value: &Value) -> Option<i64> {
        match (&self.wanted, value) {
            (Wanted::Integers(from, to), Value::Int(value)) => (from..=to).contains(&value).then_some(*value),
            (Wanted::Bytes(wanted), Value::Str(text)) if self.key.0 == particle::STRING => {
                (text == wanted).then_some(0)
            }
            (Wanted::Bytes(wanted), Value::Blob(particle::BLOB, bytes)) if self.key.0 == particle::BLOB => {
                (bytes == wanted).then_some(0)
            }
            _ => None,
        }
    }
}
