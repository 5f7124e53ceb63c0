//! UDF modules: stored and listed, never run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64_simd::STANDARD as BASE64;

use crate::info::Command;
use crate::sha1::sha1;

/// The largest module the server takes, in bytes.
const MAX_CONTENT: usize = 1024 * 1024;
/// One more than the longest file name.
const MAX_FILE_NAME: usize = 128;

/// The registered modules, by file name.
#[derive(Debug, Default)]
pub(crate) struct Modules(Mutex<BTreeMap<String, Vec<u8>>>);

impl Modules {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `udf-list`: name, hash and language of each module.
    pub(crate) fn list(&self) -> String {
        let mut out = String::new();
        for (name, content) in &*self.lock() {
            let item = format!(
                r#"{{"content64": "{}", "type": "LUA", "name": "{name}"}}"#,
                BASE64.encode_to_string(content)
            );
            let _ = write!(out, "filename={name},hash=");
            for byte in sha1(item.as_bytes()) {
                let _ = write!(out, "{byte:02x}");
            }
            out.push_str(",type=LUA;");
        }
        out
    }

    /// `udf-get`: one module in base64.
    pub(crate) fn get(&self, command: &Command<'_>) -> String {
        let Some(name) = file_name(command) else { return "error=invalid_filename".into() };
        match self.lock().get(name) {
            None => "error=not_found".into(),
            Some(content) if content.is_empty() => "error=empty".into(),
            Some(content) => format!("type=LUA;content={};", BASE64.encode_to_string(content)),
        }
    }

    /// `udf-put`: keeps a module. It is not compiled, so no error of the language is found.
    pub(crate) fn put(&self, command: &Command<'_>) -> String {
        let Some(name) = file_name(command) else { return "error=invalid_filename".into() };
        if !name.split_once('.').is_some_and(|(stem, extension)| !stem.is_empty() && !extension.is_empty()) {
            return "error=invalid_filename".into();
        }
        let Some(len) = command.get("content-len").and_then(|len| len.parse::<usize>().ok()) else {
            return "error=invalid_content_len".into();
        };
        if command.get("udf-type").is_some_and(|language| language != "LUA") {
            return "error=invalid_udf_type".into();
        }
        if len % 4 != 0 {
            return "error=invalid_content_len".into();
        }
        let Some(content) = command.get("content").filter(|content| content.len() == len) else {
            return "error=invalid_content".into();
        };
        if len / 4 * 3 > MAX_CONTENT {
            return "error=invalid_udf_content_len,>1M".into();
        }
        let Ok(content) = BASE64.decode_to_vec(content) else { return "error=invalid_base64_content".into() };
        self.lock().insert(name.to_owned(), content);
        "ok".into()
    }

    /// `udf-remove`: forgets a module; one that is not there is no error.
    pub(crate) fn remove(&self, command: &Command<'_>) -> String {
        let Some(name) = file_name(command) else { return "error=invalid_filename".into() };
        self.lock().remove(name);
        "ok".into()
    }
}

fn file_name<'a>(command: &Command<'a>) -> Option<&'a str> {
    command.get("filename").filter(|name| name.len() < MAX_FILE_NAME)
}
