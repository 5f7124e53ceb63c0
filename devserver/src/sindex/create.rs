//! `sindex-create` and `sindex-delete`.

use base64_simd::STANDARD as BASE64;

use super::{Definition, Index, KeyType, Source};
use crate::cdt::context;
use crate::cluster::Cluster;
use crate::expression;
use crate::info::{Command, InfoError};
use crate::particle;

/// One more than the longest bin name, as the limits below are one more than theirs.
const BIN_NAME_SIZE: usize = 16;
const INDEX_NAME_SIZE: usize = 256;
const SET_NAME_SIZE: usize = 64;
const NAMESPACE_SIZE: usize = 32;

fn limited<'a>(name: &str, value: &'a str, size: usize) -> Result<&'a str, InfoError> {
    if value.len() < size { Ok(value) } else { Err(InfoError::parameter(format!("'{name}' value too long"))) }
}

/// `sindex-create`, in its present and its older form.
pub(crate) fn create(cluster: &Cluster, command: &Command<'_>) -> Result<String, InfoError> {
    let name = limited("indexname", command.required("indexname")?, INDEX_NAME_SIZE)?;
    let namespace_name = limited("namespace", command.required_namespace()?, NAMESPACE_SIZE)?;
    let namespace = cluster.namespace(namespace_name.as_bytes());
    let is_set = command.get("indextype").is_some_and(|text| text.eq_ignore_ascii_case("set"));
    let (set, definition) = if is_set {
        for refused in ["context", "indexdata", "type", "bin", "exp"] {
            if command.get(refused).is_some() {
                return Err(InfoError::parameter(format!(
                    "{refused} parameter is not supported for set index"
                )));
            }
        }
        (limited("set", command.required("set")?, SET_NAME_SIZE)?, Definition::Set)
    } else {
        let set = limited("set", command.optional("set")?.unwrap_or_default(), SET_NAME_SIZE)?;
        (set, values_definition(command)?)
    };
    let Some(namespace) = namespace else {
        // The real server keeps definitions of namespaces that it does not have; nothing ever shows them.
        return if is_set { Err(InfoError::parameter("namespace not found")) } else { Ok("ok".into()) };
    };
    if is_set && namespace.find_or_make_set(set.as_bytes()).is_err() {
        return Err(InfoError::parameter("failed to get/create set"));
    }
    namespace.indexes.create(Index { name: name.into(), set: set.into(), definition })?;
    Ok("ok".into())
}

fn values_definition(command: &Command<'_>) -> Result<Definition, InfoError> {
    let context = command.optional("context")?;
    if let Some(context) = context {
        let bytes =
            BASE64.decode_to_vec(context).map_err(|_| InfoError::parameter("'context' invalid base64"))?;
        context::check(&bytes).map_err(|_| InfoError::parameter("'context' invalid cdt context"))?;
    }
    let source = match command.optional("indextype")? {
        None => Source::Default,
        Some(text) => Source::parse(text).ok_or_else(|| {
            InfoError::parameter("bad 'indextype' - must be one of 'default', 'list', 'mapkeys', 'mapvalues'")
        })?,
    };
    let (bin, expression, key) = match (command.optional("indexdata")?, command.optional("type")?) {
        (None, None) => return Err(InfoError::parameter("both 'indexdata' and 'type' are missing")),
        (Some(_), Some(_)) => return Err(InfoError::parameter("both 'indexdata' and 'type' are specified")),
        (Some(data), None) => {
            let (bin, key) =
                data.split_once(',').ok_or_else(|| InfoError::parameter("'indexdata' missing bin type"))?;
            if bin.is_empty() {
                return Err(InfoError::parameter("'indexdata' missing bin name"));
            }
            if bin.len() >= BIN_NAME_SIZE {
                return Err(InfoError::parameter("'indexdata' bin name too long"));
            }
            let key = KeyType::parse(key).ok_or_else(|| {
                InfoError::parameter(
                    "bad 'indexdata' bin type - must be one of 'numeric', 'string', 'blob', 'geo2dsphere'",
                )
            })?;
            (Some(bin), None, key)
        }
        (None, Some(key)) => {
            let key = KeyType::parse(key).ok_or_else(|| {
                InfoError::parameter("bad 'type' - must be one of 'numeric', 'string', 'blob', 'geo2dsphere'")
            })?;
            let bin = command.optional("bin")?.map(|bin| limited("bin", bin, BIN_NAME_SIZE)).transpose()?;
            let expression = command.optional("exp")?;
            match (bin, expression) {
                (Some(_), Some(_)) => {
                    return Err(InfoError::parameter("both 'bin' and 'exp' are specified"));
                }
                (None, None) => return Err(InfoError::parameter("both 'bin' and 'exp' are missing")),
                _ => {}
            }
            if expression.is_some() && context.is_some() {
                return Err(InfoError::parameter("both 'context' and 'exp' are specified"));
            }
            if let Some(expression) = expression {
                check_expression(expression, source, key)?;
            }
            (bin, expression, key)
        }
    };
    if source == Source::MapKeys && key.0 == particle::GEOJSON {
        return Err(InfoError::parameter(
            "bad 'indexdata' bin type for 'indextype' 'mapkeys' - must be one of 'numeric', 'string', 'blob'",
        ));
    }
    Ok(Definition::Values {
        bin: bin.map(str::to_owned),
        context: context.map(str::to_owned),
        expression: expression.map(str::to_owned),
        source,
        key,
    })
}

/// Whether the expression gives what the index is over. One that this server cannot evaluate is kept all the
/// same: nothing but a query through the index needs its value.
fn check_expression(expression: &str, source: Source, key: KeyType) -> Result<(), InfoError> {
    let bad = || InfoError::parameter("bad 'exp'");
    let bytes = BASE64.decode_to_vec(expression).map_err(|_| bad())?;
    let Some(gives) = expression::type_of(&bytes).map_err(|_| bad())? else { return Ok(()) };
    let needs = match source {
        Source::Default => key.0,
        Source::List => particle::LIST,
        Source::MapKeys | Source::MapValues => particle::MAP,
    };
    if gives == needs {
        return Ok(());
    }
    if gives == particle::NULL {
        return Err(bad());
    }
    let name = |particle| match particle {
        particle::LIST => "list",
        particle::MAP => "map",
        other => KeyType(other).name(),
    };
    Err(InfoError::parameter(format!(
        "bad 'exp' - expression type '{}' does not match expected type '{}'",
        name(gives),
        name(needs)
    )))
}

/// `sindex-delete`. Deleting what is not there is no error.
pub(crate) fn delete(cluster: &Cluster, command: &Command<'_>) -> Result<String, InfoError> {
    let name = command.required("indexname")?;
    let namespace = command.required_namespace()?;
    if let Some(namespace) = cluster.namespace(namespace.as_bytes()) {
        namespace.indexes.lock().retain(|index| index.name != name);
    }
    Ok("ok".into())
}
