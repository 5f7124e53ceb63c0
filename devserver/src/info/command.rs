//! One info command: its name, its slash arguments, its `key=value` parameters; and the form of its errors.

use crate::result_code::ResultCode;

/// A command line taken apart: `name/args` or `name:key=value;key=value`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command<'a> {
    pub(crate) name: &'a str,
    /// Everything after the separator.
    pub(crate) params: &'a str,
}

/// `ERROR:code:text`, as info answers carry it.
#[derive(Debug)]
pub(crate) struct InfoError(pub(crate) ResultCode, pub(crate) String);

impl InfoError {
    pub(crate) fn new(code: ResultCode, text: impl Into<String>) -> InfoError {
        InfoError(code, text.into())
    }

    pub(crate) fn parameter(text: impl Into<String>) -> InfoError {
        InfoError::new(ResultCode::PARAMETER, text)
    }
}

impl std::fmt::Display for InfoError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ERROR:{}:{}", self.0.0, self.1)
    }
}

impl<'a> Command<'a> {
    pub(crate) fn parse(line: &'a str) -> Command<'a> {
        match line.find(['/', ':', ';']) {
            Some(at) => Command { name: &line[..at], params: &line[at + 1..] },
            None => Command { name: line, params: "" },
        }
    }

    /// The value of the parameter of this name, if it is given.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.params.split(';').find_map(|part| {
            let (key, value) = part.split_once('=')?;
            (key == name).then_some(value)
        })
    }

    /// A parameter that may be left out but not be empty.
    pub(crate) fn optional(&self, name: &str) -> Result<Option<&'a str>, InfoError> {
        match self.get(name) {
            Some("") => Err(InfoError::new(missing_code(name), format!("missing '{name}' value"))),
            given => Ok(given),
        }
    }

    /// A parameter that must be given.
    pub(crate) fn required(&self, name: &str) -> Result<&'a str, InfoError> {
        self.optional(name)?.ok_or_else(|| InfoError::new(missing_code(name), format!("missing '{name}'")))
    }

    /// The namespace under its present or its older names.
    pub(crate) fn namespace(&self) -> Result<Option<&'a str>, InfoError> {
        for name in ["namespace", "ns"] {
            if let Some(value) = self.get(name) {
                if value.is_empty() {
                    return Err(InfoError::new(ResultCode::NAMESPACE, "missing 'namespace' value"));
                }
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    pub(crate) fn required_namespace(&self) -> Result<&'a str, InfoError> {
        self.namespace()?.ok_or_else(|| InfoError::new(ResultCode::NAMESPACE, "missing 'namespace'"))
    }
}

fn missing_code(name: &str) -> ResultCode {
    if name == "namespace" { ResultCode::NAMESPACE } else { ResultCode::PARAMETER }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_apart_at_their_first_separator() {
        let plain = Command::parse("build");
        assert_eq!((plain.name, plain.params), ("build", ""));
        let slash = Command::parse("sets/ns/set:x");
        assert_eq!((slash.name, slash.params), ("sets", "ns/set:x"));
        let params = Command::parse("sindex-create:ns=a;indexname=i/j;context=kiKiA2E=");
        assert_eq!(params.name, "sindex-create");
        assert_eq!(params.get("indexname"), Some("i/j"));
        assert_eq!(params.get("context"), Some("kiKiA2E="));
        assert_eq!(params.required("set").unwrap_err().to_string(), "ERROR:4:missing 'set'");
    }
}
