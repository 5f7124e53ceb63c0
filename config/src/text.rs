//! Values written as text.

use crate::InvalidValue;

/// Makes a type with `FromStr` and `Display` a string in documents.
macro_rules! string_in_documents {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = $crate::InvalidValue;

            fn try_from(text: String) -> Result<Self, $crate::InvalidValue> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}
pub(crate) use string_in_documents;

/// A whole number; `50_000_000` is one too, as in the configuration file.
pub(crate) fn whole_number(text: &str) -> Result<u64, InvalidValue> {
    let refuse = |reason: &str| Err(InvalidValue::new(text, reason));
    let between_digits = !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
    if text.is_empty() || !between_digits || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') {
        return refuse("is not a whole number");
    }
    text.replace('_', "").parse().or_else(|_| refuse("is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_grouped() {
        assert_eq!(whole_number("50_000_000").unwrap(), 50_000_000);
        assert_eq!(whole_number("007").unwrap(), 7);
        assert_eq!(whole_number("18446744073709551615").unwrap(), u64::MAX);
        for bad in ["", "_", "_1", "1_", "1__0", "-1", "+1", "1.0", " 1", "1k", "18446744073709551616"] {
            assert!(whole_number(bad).is_err(), "{bad:?} was taken");
        }
    }
}
