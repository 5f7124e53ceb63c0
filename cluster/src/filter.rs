//! Filter expressions of a scan: the user's own, sets, and bounds on the last update.

use aerospike::expressions::{self as exp, Expression};

use crate::ClusterError;

/// A filter expression in the server's encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanFilter(Vec<u8>);

impl ScanFilter {
    /// Combines what is given with AND; `None` when nothing is.
    ///
    /// `user` is a base64 expression, `sets` lets through records of any of these sets, `modified_after` (inclusive)
    /// and `modified_before` (exclusive) bound the last update, in nanoseconds since 1970.
    pub fn build(
        user: Option<&str>,
        sets: &[String],
        modified_after: Option<i64>,
        modified_before: Option<i64>,
    ) -> Result<Option<Self>, ClusterError> {
        let mut all: Vec<Expression> = Vec::new();
        if let Some(after) = modified_after {
            all.push(exp::ge(exp::last_update(), exp::int_val(after)));
        }
        if let Some(before) = modified_before {
            all.push(exp::lt(exp::last_update(), exp::int_val(before)));
        }
        let mut of_sets: Vec<Expression> =
            sets.iter().map(|set| exp::eq(exp::set_name(), exp::string_val(set.clone()))).collect();
        match of_sets.len() {
            0 => {}
            1 => all.append(&mut of_sets),
            _ => all.push(exp::or(of_sets)),
        }
        if let Some(user) = user {
            if base64_simd::STANDARD.check(user.as_bytes()).is_err() {
                return Err(ClusterError::Filter("it is not base64".to_owned()));
            }
            all.push(exp::from_base64(user).map_err(|e| ClusterError::Filter(e.base_message()))?);
        }
        let whole = match all.len() {
            0 => return Ok(None),
            1 => all.swap_remove(0),
            _ => exp::and(all),
        };
        let base64 = whole.base64().map_err(|e| ClusterError::Filter(e.base_message()))?;
        let bytes =
            base64_simd::STANDARD.decode_to_vec(base64).map_err(|e| ClusterError::Filter(e.to_string()))?;
        if bytes.is_empty() {
            return Err(ClusterError::Filter("it is empty".to_owned()));
        }
        Ok(Some(Self(bytes)))
    }

    /// The bytes that go into the request.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_with_and() {
        assert_eq!(ScanFilter::build(None, &[], None, None).unwrap(), None);
        let one = ScanFilter::build(None, &["a".into()], None, None).unwrap().unwrap();
        // [1 (EQ), [70 (set name)], "\x03a"]
        assert_eq!(one.as_bytes(), [0x93, 1, 0x91, 70, 0xa2, 3, b'a']);
        let user = base64_simd::STANDARD.encode_to_string(one.as_bytes());
        let same = ScanFilter::build(Some(&user), &[], None, None).unwrap().unwrap();
        assert_eq!(same, one);
        let both = ScanFilter::build(Some(&user), &[], Some(5), None).unwrap().unwrap();
        // [16 (AND), [4 (GE), [66 (last update)], 5], user's]
        let mut expected = vec![0x93, 16, 0x93, 4, 0x91, 66, 5];
        expected.extend_from_slice(one.as_bytes());
        assert_eq!(both.as_bytes(), expected);
    }

    #[test]
    fn a_bad_expression_is_refused() {
        assert!(ScanFilter::build(Some("%%%"), &[], None, None).is_err());
        assert!(ScanFilter::build(Some(""), &[], None, None).is_err());
    }
}
