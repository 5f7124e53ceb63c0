//! Secondary indexes: listing and creating them by info commands.

use abs_asb::{IndexData, IndexKind, SecondaryIndex};

use crate::{Cluster, ClusterError};

/// The indexes of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes {
    /// Indexes on values, which the .asb format can carry.
    pub secondary: Vec<SecondaryIndex>,
    /// Indexes on sets (servers that manage them like secondary indexes), which it cannot.
    pub sets: Vec<SetIndex>,
    /// Indexes of kinds and types that we do not know: their names and what is unknown.
    pub unknown: Vec<(String, String)>,
}

/// An index over the records of one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetIndex {
    /// Its name.
    pub name: String,
    /// The set.
    pub set: String,
}

impl Cluster {
    /// The definitions of all indexes of `namespace`.
    pub async fn indexes(&self, namespace: &str) -> Result<Indexes, ClusterError> {
        let command = format!("sindex-list:{}={namespace};b64=true", self.namespace_key());
        parse_list(&self.info(&command).await?, &command)
    }

    /// Creates an index; one of the same definition that exists already is no error.
    pub async fn create_index(&self, namespace: &str, index: &SecondaryIndex) -> Result<(), ClusterError> {
        let unusable = || ClusterError::Info {
            command: "sindex-create".to_owned(),
            node: "any".to_owned(),
            answer: format!("index {:?} has no valid type", index.name),
        };
        let kind = match index.kind {
            IndexKind::Bin => "default",
            IndexKind::ListElements => "list",
            IndexKind::MapKeys => "mapkeys",
            IndexKind::MapValues => "mapvalues",
            IndexKind::Unknown(_) => return Err(unusable()),
        };
        let data = match index.data {
            IndexData::Numeric => "numeric",
            IndexData::String => "string",
            IndexData::Geo2dSphere => "geo2dsphere",
            IndexData::Blob => "blob",
            IndexData::Invalid | IndexData::Unknown(_) => return Err(unusable()),
        };
        let mut command = format!("sindex-create:{}={namespace}", self.namespace_key());
        let mut push = |key: &str, value: &str| {
            command.push(';');
            command.push_str(key);
            command.push('=');
            command.push_str(value);
        };
        if !index.set.is_empty() {
            push("set", &index.set);
        }
        push("indexname", &index.name);
        if let Some(context) = &index.context {
            push("context", context);
        }
        if index.kind != IndexKind::Bin {
            push("indextype", kind);
        }
        let bin = index.bin.as_deref().unwrap_or_default();
        match (&index.expression, self.version() >= (8, 1)) {
            (Some(expression), _) => {
                push("exp", expression);
                push("type", data);
            }
            (None, true) => {
                push("bin", bin);
                push("type", data);
            }
            (None, false) => push("indexdata", &format!("{bin},{data}")),
        }
        self.info(&command).await.map(drop)
    }

    /// Creates a set index (server 8.1 and later).
    pub async fn create_set_index(&self, namespace: &str, index: &SetIndex) -> Result<(), ClusterError> {
        let command = format!(
            "sindex-create:{}={namespace};set={};indexname={};indextype=set",
            self.namespace_key(),
            index.set,
            index.name
        );
        self.info(&command).await.map(drop)
    }

    /// Server 8.1 renamed `ns` to `namespace` in its index commands.
    fn namespace_key(&self) -> &'static str {
        if self.version() >= (8, 1) { "namespace" } else { "ns" }
    }
}

const KEYS: [&str; 8] =
    [":indexname=", ":set=", ":bin=", ":type=", ":indextype=", ":context=", ":exp=", ":state="];

/// Reads `ns=N:indexname=I:set=S:bin=B:type=T:indextype=K:context=C:exp=E:state=RW;…`, where a missing set, bin,
/// context or expression is absent or the word `null`. Names may hold colons, so values end only at a known key.
fn parse_list(answer: &str, command: &str) -> Result<Indexes, ClusterError> {
    let mut indexes = Indexes::default();
    let mut rest = answer.trim_start_matches(';');
    while let Some(entry) = rest.strip_prefix("ns=") {
        let end = entry.find(";ns=").unwrap_or(entry.len());
        let (entry, after) = entry.split_at(end);
        rest = after.trim_start_matches(';');
        let entry = entry.trim_end_matches(';');
        let value = |key: &str| {
            let start = entry.find(key)? + key.len();
            let end = KEYS.iter().filter_map(|k| entry[start..].find(k)).min();
            let value = &entry[start..end.map_or(entry.len(), |end| start + end)];
            (!value.is_empty() && !value.eq_ignore_ascii_case("null")).then_some(value)
        };
        let unnamed = || ClusterError::Info {
            command: command.to_owned(),
            node: "any".to_owned(),
            answer: format!("no index name in {entry:?}"),
        };
        let name = value(":indexname=").ok_or_else(unnamed)?.to_owned();
        let set = value(":set=").unwrap_or_default().to_owned();
        let kind = match value(":indextype=").unwrap_or("default").to_ascii_lowercase().as_str() {
            "default" | "none" => IndexKind::Bin,
            "list" => IndexKind::ListElements,
            "mapkeys" => IndexKind::MapKeys,
            "mapvalues" => IndexKind::MapValues,
            "set" => {
                indexes.sets.push(SetIndex { name, set });
                continue;
            }
            other => {
                indexes.unknown.push((name, format!("its kind {other:?} is unknown")));
                continue;
            }
        };
        let data = match value(":type=").unwrap_or_default().to_ascii_lowercase().as_str() {
            "numeric" | "int signed" => IndexData::Numeric,
            "string" | "text" => IndexData::String,
            "geo2dsphere" | "geojson" => IndexData::Geo2dSphere,
            "blob" => IndexData::Blob,
            other => {
                indexes.unknown.push((name, format!("its type {other:?} is unknown")));
                continue;
            }
        };
        indexes.secondary.push(SecondaryIndex {
            set,
            name,
            kind,
            bin: value(":bin=").map(str::to_owned),
            data,
            context: value(":context=").map(str::to_owned),
            expression: value(":exp=").map(str::to_owned),
        });
    }
    Ok(indexes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_server_are_read_whole() {
        let answer = "ns=test:indexname=a b:set=null:bin=x:y:type=numeric:indextype=default:context=null:exp=null:state=RW;\
                      ns=test:indexname=i2:set=s:bin=m:type=string:indextype=mapkeys:context=kiKiA2E=:exp=null:state=WO;\
                      ns=test:indexname=i3:set=s:bin=null:type=blob:indextype=list:context=null:exp=k1EC:state=RW;\
                      ns=test:indexname=sidx:set=a:indextype=set";
        let indexes = parse_list(answer, "c").unwrap();
        assert_eq!(indexes.sets, [SetIndex { name: "sidx".into(), set: "a".into() }]);
        let [a, b, c] = &indexes.secondary[..] else { panic!("{indexes:?}") };
        assert_eq!((a.name.as_str(), a.set.as_str(), a.bin.as_deref()), ("a b", "", Some("x:y")));
        assert_eq!((b.kind, b.context.as_deref()), (IndexKind::MapKeys, Some("kiKiA2E=")));
        assert_eq!(
            (c.kind, c.data, c.expression.as_deref()),
            (IndexKind::ListElements, IndexData::Blob, Some("k1EC"))
        );
        assert_eq!(c.bin, None);
        assert_eq!(parse_list("", "c").unwrap(), Indexes::default());
        assert_eq!(parse_list(";ns=test:indexname=s:set=a:indextype=set", "c").unwrap().sets.len(), 1);
        assert!(parse_list("ns=test:set=s:bin=b:type=numeric", "c").is_err());
    }

    /// Protects: an index of a later server is left out by name; the others are read.
    #[test]
    fn unknown_indexes_are_left_out() {
        let answer = "ns=t:indexname=a:set=s:bin=b:type=weird;ns=t:indexname=b:set=s:bin=b:type=numeric;\
                      ns=t:indexname=c:set=s:bin=b:type=numeric:indextype=tree";
        let indexes = parse_list(answer, "c").unwrap();
        assert_eq!(indexes.secondary.len(), 1);
        let unknown = [("a", "its type \"weird\" is unknown"), ("c", "its kind \"tree\" is unknown")];
        assert_eq!(indexes.unknown, unknown.map(|(name, why)| (name.to_owned(), why.to_owned())));
    }
}
