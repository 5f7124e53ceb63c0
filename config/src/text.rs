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

/// Defines an enum whose values are words in documents: read in any case, written as given here.
macro_rules! words {
    (
        $(#[$doc:meta])*
        pub enum $name:ident: $what:literal {
            $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
        )]
        #[serde(try_from = "String", into = "String")]
        pub enum $name {
            $($(#[$variant_doc])* #[schema(rename = $word)] $variant,)+
        }

        impl std::str::FromStr for $name {
            type Err = $crate::InvalidValue;

            fn from_str(text: &str) -> Result<Self, $crate::InvalidValue> {
                $(if text.eq_ignore_ascii_case($word) {
                    return Ok(Self::$variant);
                })+
                let words = $crate::text::listed(&[$($word),+]);
                Err($crate::InvalidValue::new(text, format!("is no {}: it can be {words}", $what)))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word,)+
                })
            }
        }

        $crate::text::string_in_documents!($name);
    };
}
pub(crate) use words;

/// `A`, `A or B`, `A, B or C`.
pub(crate) fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// The known word that `word` was probably meant to be.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|candidate| (distance(&word.to_lowercase(), &candidate.to_lowercase()), candidate));
    near.min().filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3)).map(|(_, near)| near)
}

/// How many letters to change, add or leave out (Levenshtein), to make `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, right) in b.iter().enumerate() {
            let changed = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

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

    #[test]
    fn a_slip_is_near_and_another_word_is_not() {
        let known = ["parallel", "parallel-write", "bandwidth", "tps"];
        let near = |word| nearest(word, known.into_iter());
        assert_eq!(near("paralel"), Some("parallel"));
        assert_eq!(near("Parallel_Write"), Some("parallel-write"));
        assert_eq!(near("tp"), Some("tps"));
        assert_eq!(near("compression"), None);
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("a", "a")), (3, 3, 0));
    }

    #[test]
    fn choices_are_listed_as_people_say_them() {
        assert_eq!(listed(&["A"]), "A");
        assert_eq!(listed(&["A", "B"]), "A or B");
        assert_eq!(listed(&["A", "B", "C"]), "A, B or C");
    }
}
