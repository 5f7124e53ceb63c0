//! The configuration of the nodes as `aerospike.conf` files, made from what the nodes say of it.

use crate::{Cluster, ClusterError, Node};

/// What nodes report and do not take from a file; with a value: only when it has this one, by which they say that it is
/// not set.
const NOT_IN_FILES: [(&str, Option<&str>); 28] = [
    ("dcs", None),
    ("force-long-queries", None),
    ("namespaces", None),
    ("storage-engine.stripe", None),
    ("trace-sample", None),
    ("admin.port", Some("0")),
    ("admin.tls-port", Some("0")),
    ("conflict-resolution-policy", Some("undefined")),
    ("fabric.tls-port", Some("0")),
    ("heartbeat.tls-port", Some("0")),
    ("index-type", Some("mem")),
    ("index-type.mounts-budget", Some("0")),
    ("mrt-duration", Some("0")),
    ("service.access-port", Some("0")),
    ("service.alternate-access-port", Some("0")),
    ("service.port", Some("0")),
    ("service.tls-access-port", Some("0")),
    ("service.tls-alternate-access-port", Some("0")),
    ("service.tls-port", Some("0")),
    ("sindex-type", Some("mem")),
    ("src-id", Some("0")),
    ("storage-engine.compression-acceleration", Some("0")),
    ("storage-engine.compression-level", Some("0")),
    ("storage-engine.data-size", Some("0")),
    ("storage-engine.filesize", Some("0")),
    ("sindex-type.mounts-budget", Some("0")),
    ("read-consistency-level-override", Some("off")),
    ("write-commit-level-override", Some("off")),
];

/// What the community edition reports and does not let anybody set.
const ENTERPRISE: [&str; 26] = [
    "active-rack",
    "auto-revive",
    "conflict-resolve-writes",
    "disable-mrt-writes",
    "disallow-expunge",
    "ignore-migrate-fill-delay",
    "migrate-fill-delay",
    "mrt-duration",
    "prefer-uniform-balance",
    "rack-id",
    "stay-quiesced",
    "storage-engine.commit-to-device",
    "storage-engine.compression",
    "storage-engine.compression-acceleration",
    "storage-engine.compression-level",
    "storage-engine.serialize-tomb-raider",
    "storage-engine.tomb-raider-sleep",
    "strong-consistency",
    "strong-consistency-allow-expunge",
    "tls-refresh-period",
    "tomb-raider-eligible-age",
    "tomb-raider-period",
    "tomb-raider-unmark-threads",
    "xdr-bin-tombstone-ttl",
    "xdr-tomb-raider-period",
    "xdr-tomb-raider-threads",
];

/// Names that a file has otherwise.
const RENAMED: [(&str, &str); 4] = [
    ("shipped-sets", "ship-set"),
    ("ignored-sets", "ignore-set"),
    ("shipped-bins", "ship-bin"),
    ("ignored-bins", "ignore-bin"),
];

/// A section of the file.
#[derive(Debug, Default)]
struct Section {
    /// What stands before the brace.
    head: String,
    lines: Vec<(String, String)>,
    sections: Vec<Section>,
}

impl Section {
    fn new(head: impl Into<String>) -> Self {
        Self { head: head.into(), ..Self::default() }
    }

    /// Reads `name=value;section.name=value;list[0]=value;…`.
    fn read(head: impl Into<String>, answer: &str, is_enterprise: bool) -> Self {
        let mut section = Self::new(head);
        for (key, value) in pairs(answer, ';') {
            // Items of lists, and sections of which there may be several, are numbered.
            let numbered =
                key.split_once('[').and_then(|(front, rest)| Some((front, rest.split_once(']')?.1)));
            let (bare, tail) = numbered.unwrap_or((key, ""));
            let is_foreign = NOT_IN_FILES.iter().any(|(k, v)| *k == bare && v.is_none_or(|v| v == value));
            if is_foreign || (!is_enterprise && ENTERPRISE.contains(&bare)) {
                continue;
            }
            match tail {
                "" => section.put(bare, value),
                ".shadow" => section.extend_last(bare, value),
                _ => section.put(key, value),
            }
        }
        section.name_types();
        section
    }

    fn put(&mut self, path: &str, value: &str) {
        match path.split_once('.') {
            Some((section, rest)) => self.section(section).put(rest, value),
            None => self.lines.push((path.to_owned(), value.to_owned())),
        }
    }

    fn section(&mut self, head: &str) -> &mut Self {
        let at = self.sections.iter().position(|section| section.head == head).unwrap_or_else(|| {
            self.sections.push(Self::new(head));
            self.sections.len() - 1
        });
        &mut self.sections[at]
    }

    /// Puts more behind the last line of this path.
    fn extend_last(&mut self, path: &str, more: &str) {
        match path.split_once('.') {
            Some((section, rest)) => self.section(section).extend_last(rest, more),
            None => {
                if let Some((_, value)) = self.lines.iter_mut().rfind(|(name, _)| name == path) {
                    value.push(' ');
                    value.push_str(more);
                }
            }
        }
    }

    /// Makes `storage-engine=memory` the head of the section of that name, and `name=a` that of section `tls[0]`.
    fn name_types(&mut self) {
        for section in &mut self.sections {
            let is_name = |(name, _): &(String, String)| name == "name";
            if let Some((kind, _)) = section.head.split_once('[')
                && let Some(at) = section.lines.iter().position(is_name)
            {
                section.head = format!("{kind} {}", section.lines.remove(at).1);
            } else if let Some(at) = self.lines.iter().position(|(name, _)| *name == section.head) {
                section.head = format!("{} {}", section.head, self.lines.remove(at).1);
            }
        }
    }

    fn write(&self, depth: usize, out: &mut String) {
        let indent = "    ".repeat(depth);
        out.extend([&indent, &*self.head, " {\n"]);
        for (name, value) in &self.lines {
            let name =
                RENAMED.iter().find(|(reported, _)| reported == name).map_or(&**name, |(_, file)| *file);
            for value in values(name, value) {
                out.extend([&indent, "    ", name, " ", &value, "\n"]);
            }
        }
        for section in &self.sections {
            out.push('\n');
            section.write(depth + 1, out);
        }
        out.extend([&indent, "}\n"]);
    }
}

/// `name=value` pairs that are set.
fn pairs(answer: &str, separator: char) -> impl Iterator<Item = (&str, &str)> {
    let pairs = answer.split(separator).filter_map(|pair| pair.split_once('='));
    pairs.filter(|(_, value)| !matches!(*value, "" | "null"))
}

/// The values that a file has for one that is reported: a line for each of a list, `ADDRESS PORT` for `ADDRESS:PORT`.
fn values(name: &str, value: &str) -> Vec<String> {
    let is_address = name.ends_with("address-port");
    let is_list = is_address || matches!(name, "ship-set" | "ignore-set" | "ship-bin" | "ignore-bin");
    let spaced = |value: &str| match value.rsplit_once("]:") {
        _ if !is_address => value.to_owned(),
        Some((address, rest)) => format!("{}] {}", address, rest.replace(':', " ")),
        None => value.replace(':', " "),
    };
    if is_list { value.split(',').map(spaced).collect() } else { vec![value.to_owned()] }
}

/// The levels of a log: the most common one for any context, then those that differ.
fn levels(answer: &str) -> Vec<(String, String)> {
    let levels: Vec<_> = answer.split(';').filter_map(|pair| pair.split_once(':')).collect();
    let count = |level: &str| levels.iter().filter(|(_, other)| *other == level).count();
    let Some((_, common)) = levels.iter().max_by_key(|(_, level)| count(level)) else { return Vec::new() };
    let line =
        |context: &str, level: &str| ("context".to_owned(), format!("{context} {}", level.to_lowercase()));
    let others = levels.iter().filter(|(_, level)| level != common);
    std::iter::once(line("any", common)).chain(others.map(|(context, level)| line(context, level))).collect()
}

impl Cluster {
    /// The configuration of each node as an `aerospike.conf`, in the order of the nodes' ids; nodes that do not answer
    /// are left out unless none does.
    ///
    /// It holds what a node reports: everything but the user and group it runs as, the Lua settings, and the facility and
    /// tag of a system log, of which servers say nothing.
    pub async fn configuration(&self) -> Result<Vec<(Node, String)>, ClusterError> {
        let (mut files, mut failure) = (Vec::new(), None);
        for node in self.nodes() {
            match self.configuration_of(&node).await {
                Ok(text) => files.push((node, text)),
                Err(e) => failure = Some(e),
            }
        }
        files.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        match failure {
            Some(e) if files.is_empty() => Err(e),
            None if files.is_empty() => Err(self.abandoned()),
            _ => Ok(files),
        }
    }

    async fn configuration_of(&self, node: &Node) -> Result<String, ClusterError> {
        let ask = async |command: String| self.info_of(node, &command).await;
        let config = async |context: &str| ask(format!("get-config:context={context}")).await;
        let is_enterprise = !ask("edition".to_owned()).await?.contains("Community");
        let read = |head: &str, answer: &str| Section::read(head, answer, is_enterprise);
        let mut all = vec![read("service", &config("service").await?)];

        let mut logging = Section::new("logging");
        for sink in ask("logs".to_owned()).await?.split(';') {
            let Some((id, path)) = sink.split_once(':') else { continue };
            let head = if path == "stderr" { "console".to_owned() } else { format!("file {path}") };
            let lines = levels(&ask(format!("log/{id}")).await?);
            logging.sections.push(Section { head, lines, ..Section::default() });
        }
        all.push(logging);

        let mut network = read("network", &config("network").await?);
        // Without a port it is not open, whatever else is said of it.
        let is_open = |s: &Section| s.lines.iter().any(|(name, _)| name == "port" || name == "tls-port");
        network.sections.retain(|section| section.head != "admin" || is_open(section));
        all.push(network);

        for name in ask("namespaces".to_owned()).await?.split(';').filter(|name| !name.is_empty()) {
            // Servers before 8.1 know it as `id` only, later ones as either.
            let answer = config(&format!("namespace;id={name}")).await?;
            let mut namespace = read(&format!("namespace {name}"), &answer);
            for set in ask(format!("sets/{name}")).await?.split(';') {
                namespace.sections.extend(set_section(set, is_enterprise));
            }
            all.push(namespace);
        }

        // A node without security or XDR has nothing to say, or says that it does not know the word.
        let security = config("security").await.unwrap_or_default();
        if !security.is_empty() {
            let mut security = read("security", &security);
            if security.lines.iter().any(|(name, value)| name == "enable-ldap" && value == "false") {
                security.sections.retain(|section| section.head != "ldap");
            }
            // Options of their own until 5.7: since then the sections say it.
            security.lines.retain(|(name, _)| !matches!(name.as_str(), "enable-ldap" | "enable-security"));
            all.push(security);
        }
        let xdr = config("xdr").await.unwrap_or_default();
        if !xdr.is_empty() {
            let mut section = read("xdr", &xdr);
            for dc in list(&xdr, "dcs") {
                let answer = config(&format!("xdr;dc={dc}")).await?;
                let mut of_dc = read(&format!("dc {dc}"), &answer);
                for name in list(&answer, "namespaces") {
                    let answer = config(&format!("xdr;dc={dc};namespace={name}")).await?;
                    of_dc.sections.push(read(&format!("namespace {name}"), &answer));
                }
                section.sections.push(of_dc);
            }
            all.push(section);
        }

        let mut text = String::new();
        for (at, section) in all.iter().enumerate() {
            if at > 0 {
                text.push('\n');
            }
            section.write(0, &mut text);
        }
        Ok(text)
    }
}

/// The items of a list in an answer.
fn list<'a>(answer: &'a str, key: &str) -> Vec<&'a str> {
    let value = pairs(answer, ';').find(|(name, _)| *name == key).map_or("", |(_, value)| value);
    value.split(',').filter(|item| !item.is_empty()).collect()
}

/// What is configured of a set, of `ns=N:set=S:objects=0:…:default-ttl=0:…`; configuration has hyphens, numbers do not.
fn set_section(answer: &str, is_enterprise: bool) -> Option<Section> {
    let name = pairs(answer, ':').find(|(key, _)| *key == "set")?.1;
    let set: Vec<_> = pairs(answer, ':')
        .filter(|(key, value)| key.contains('-') && !matches!(*value, "0" | "false"))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    (!set.is_empty()).then(|| Section::read(format!("set {name}"), &set.join(";"), is_enterprise))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(head: &str, answer: &str, is_enterprise: bool) -> String {
        let mut text = String::new();
        Section::read(head, answer, is_enterprise).write(0, &mut text);
        text
    }

    #[test]
    fn sections_lists_and_types_are_as_a_file_has_them() {
        let answer = "replication-factor=2;rack-id=3;mrt-duration=0;vault=null;index-type=flash;index-type.mount[0]=/mnt/a;\
                      sindex-type=mem;storage-engine=device;storage-engine.device[0]=/dev/a;\
                      storage-engine.device[0].shadow=/dev/b;storage-engine.device[1]=/dev/c;\
                      storage-engine.device[1].shadow=/dev/d;storage-engine.filesize=0";
        let expected = "namespace test {
    replication-factor 2
    rack-id 3

    index-type flash {
        mount /mnt/a
    }

    storage-engine device {
        device /dev/a /dev/b
        device /dev/c /dev/d
    }
}
";
        assert_eq!(written("namespace test", answer, true), expected);
        assert_eq!(written("namespace test", answer, false), expected.replace("    rack-id 3\n", ""));
    }

    #[test]
    fn tls_sections_have_names_and_addresses_have_spaces() {
        let answer = "service.tls-port=4000;service.port=0;tls[0].name=a.b;tls[0].ca-file=/ca;tls[1].name=c;tls[1].ca-path=null;\
                      heartbeat.mesh-seed-address-port=10.0.0.1:3002;\
                      heartbeat.mesh-seed-address-port=[fe80::1]:3002";
        let expected = "network {

    service {
        tls-port 4000
    }

    tls a.b {
        ca-file /ca
    }

    tls c {
    }

    heartbeat {
        mesh-seed-address-port 10.0.0.1 3002
        mesh-seed-address-port [fe80::1] 3002
    }
}
";
        assert_eq!(written("network", answer, true), expected);
        let xdr =
            "node-address-port=10.0.0.1:3000,10.0.0.2:3000:a;namespaces=x,y;ignored-sets=a,b;shipped-sets=";
        let expected = "dc one {
    node-address-port 10.0.0.1 3000
    node-address-port 10.0.0.2 3000 a
    ignore-set a
    ignore-set b
}
";
        assert_eq!(written("dc one", xdr, true), expected);
        assert_eq!(list(xdr, "namespaces"), ["x", "y"]);
    }

    #[test]
    fn a_log_has_one_level_and_its_exceptions() {
        let level = |context: &str, level: &str| ("context".to_owned(), format!("{context} {level}"));
        assert_eq!(levels("misc:INFO;query:DEBUG;tls:INFO"), [level("any", "info"), level("query", "debug")]);
        assert!(levels("").is_empty());
    }

    #[test]
    fn a_set_is_there_when_something_is_configured() {
        let plain = "ns=n:set=one:objects=5:sindexes=1:default-ttl=0:disable-eviction=false";
        assert!(set_section(plain, false).is_none());
        let mut text = String::new();
        let set = "ns=n:set=one:objects=5:sindexes=1:default-ttl=7:disable-eviction=false:enable-index=true";
        set_section(set, false).unwrap().write(0, &mut text);
        assert_eq!(text, "set one {\n    default-ttl 7\n    enable-index true\n}\n");
    }
}
