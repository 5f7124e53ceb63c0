//! What is wrong, where, and what would be right.

use std::fmt::{self, Display};

/// A text that is not the value it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {reason}")]
pub struct InvalidValue {
    /// The text.
    pub text: String,
    /// Why not, and what would be right: `is not a partition: partitions are 0 to 4095`.
    pub reason: String,
}

impl InvalidValue {
    pub(crate) fn new(text: impl Display, reason: impl Into<String>) -> Self {
        Self { text: text.to_string(), reason: reason.into() }
    }
}

/// Something wrong in a document: `backup-policies.daily.parallel: must be at least 1, not 0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: the keys from the top of the document, separated by dots; list elements as `[0]`. Empty for the document.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{}{separator}{}", self.path, self.message)
    }
}

/// Something in a document that is refused in a new one, but accepted where it is stored already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What is wrong and what would be right.
    pub problem: Problem,
    /// What it means as long as it is there: `4096 is used`.
    pub effect: String,
}

impl Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem, self.effect)
    }
}

/// All that is wrong in a document; at least one problem. Its message is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// These problems as the result of a check: none of them is no error.
    pub(crate) fn none_in(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }

    /// A single problem.
    pub(crate) fn one(path: impl Into<String>, message: impl Display) -> Self {
        Self(vec![Problem { path: path.into(), message: message.to_string() }])
    }

    /// The problems, in the order in which they were found.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.0
    }
}

impl Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_one_line() {
        let problem =
            |path: &str, message: &str| Problem { path: path.to_owned(), message: message.to_owned() };
        let problems =
            Problems::none_in(vec![problem("a.b", "is wrong"), problem("c[0]", "too")]).unwrap_err();
        assert_eq!(problems.to_string(), "a.b: is wrong; c[0]: too");
        assert_eq!(problems.list().len(), 2);
        assert!(Problems::none_in(Vec::new()).is_ok());
        assert_eq!(problem("", "is wrong").to_string(), "is wrong");
    }
}
