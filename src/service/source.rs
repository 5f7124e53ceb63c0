//! Where the configuration is kept, as the command line names it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`file`] | a file of this machine |
//! | [`address`] | what an http(s) address answers |
//! | [`object`] | an object of a storage |

mod address;
mod file;
mod object;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use abs_actors::ConfigSource;
use abs_config::{Problems, Storage};

use address::Address;
use file::ConfigFile;
use object::Object;

/// The largest configuration, in bytes; more is a mistake, such as the address of something else.
const LARGEST: usize = 16 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// What is wrong with it, each with its place; a line each.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
}

impl SourceError {
    /// What is wrong with what was read from `origin`.
    pub fn invalid(origin: &str, problems: &Problems) -> Self {
        Self::Invalid(problems.list().iter().map(|problem| format!("{origin}: {problem}")).collect())
    }
}

/// Where a configuration is kept.
#[derive(Clone, Debug)]
pub struct Source {
    /// Reads and writes it.
    pub access: Arc<dyn ConfigSource>,
    /// The file that holds it, when it is one of this machine.
    pub file: Option<PathBuf>,
}

impl Source {
    /// The source that `-c` names: a file, or an http(s) address. With `remote` the configuration is not there: what is
    /// there is a document like one entry of `storage`, whose `path` is that of the configuration in the storage.
    ///
    /// # Errors
    /// That nothing of the kind is there.
    pub async fn open(location: &str, remote: bool) -> Result<Self, SourceError> {
        let named = if let Some(address) = Address::recognise(location) {
            Self { access: Arc::new(address.map_err(SourceError::Unreadable)?), file: None }
        } else {
            let path = PathBuf::from(location);
            Self { access: Arc::new(ConfigFile::new(&path)), file: Some(path) }
        };
        if !remote {
            return Ok(named);
        }
        let text = named.access.read().await.map_err(SourceError::Unreadable)?;
        let origin = named.access.describe();
        let document = abs_config::from_yaml::<Storage>(&text);
        let settings = document.and_then(|document| document.check());
        let settings = settings.map_err(|problems| SourceError::invalid(&origin, &problems))?;
        let object = Object::new(&settings);
        let object = object.map_err(|e| SourceError::Invalid(vec![format!("{origin}: {e}")]))?;
        Ok(Self { access: Arc::new(object), file: None })
    }
}

/// Deletes what a service that was killed while it changed its configuration left beside the file at `path`. Only for the
/// service that has claimed the file.
///
/// # Errors
/// One line: what could not be deleted and why.
pub fn delete_unfinished(path: &Path) -> Result<(), String> {
    file::delete_unfinished(path)
        .map_err(|e| format!("deleting what is unfinished beside {}: {e}", path.display()))
}

/// The text that the bytes of `origin` are.
fn text(bytes: Vec<u8>, origin: &str) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|e| format!("reading {origin}: it is not UTF-8: {}", e.utf8_error()))
}
