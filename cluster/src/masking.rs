//! Masking rules (Enterprise Edition, since 8.1.1): which bins a user reads redacted, and whether we are such a user.
//!
//! `masking-show` and the admin protocol are as the server's source and `asadm` have them; not run on an Enterprise server.

use std::fmt;

use aerospike::{Privilege, PrivilegeCode, ResultCode as ClientCode};

use crate::cluster::one_line;
use crate::{Cluster, ClusterError, Credentials};

/// The privilege to read masked values as they are, and the predefined role that has it everywhere.
const READ_MASKED: &str = "read-masked";
/// The other predefined roles: none has that privilege, and only a user administrator may ask what a role permits.
const OTHER_ROLES: [&str; 12] = [
    "user-admin",
    "sys-admin",
    "data-admin",
    "udf-admin",
    "sindex-admin",
    "read",
    "read-write",
    "read-write-udf",
    "write",
    "truncate",
    "masking-admin",
    "write-masked",
];
/// The first version that has masking rules.
const FIRST_VERSION: (u64, u64, u64) = (8, 1, 1);

/// A masking rule of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MaskingRule {
    /// The set whose records it masks; `None` for records without a set.
    pub set: Option<String>,
    /// The bin that it masks.
    pub bin: String,
    /// What it does to the values, such as `redact`.
    pub function: String,
}

impl MaskingRule {
    /// Reads the answer to `masking-show:`, which is `ns=N;set=S;bin=B;type=T;function=F;…:ns=…`.
    fn parse(namespace: &str, answer: &str) -> Option<Vec<Self>> {
        let mut rules = Vec::new();
        for line in answer.split(':').filter(|line| !line.is_empty()) {
            // A parameter of the function may hold anything, such as the constant that is shown: a colon in it begins no
            // rule.
            if !line.starts_with("ns=") && !line.starts_with("namespace=") && !rules.is_empty() {
                continue;
            }
            let value =
                |key: &str| line.split(';').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
            let of = value("ns").or_else(|| value("namespace"))?;
            let rule = Self {
                set: value("set").filter(|set| !set.is_empty()).map(str::to_owned),
                bin: value("bin")?.to_owned(),
                function: value("function").unwrap_or_default().to_owned(),
            };
            rules.push((of == namespace).then_some(rule));
        }
        Some(rules.into_iter().flatten().collect())
    }
}

impl fmt::Display for MaskingRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { set, bin, function } = self;
        match set {
            Some(set) => write!(f, "bin {bin} of set {set} ({function})"),
            None => write!(f, "bin {bin} of records without a set ({function})"),
        }
    }
}

/// What the masking rules of a namespace do to what we read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Masking {
    /// No value is masked for us.
    None,
    /// These rules mask values, or it cannot be told that they do not.
    Rules {
        /// The rules.
        rules: Vec<MaskingRule>,
        /// The user, and what is missing.
        cause: String,
    },
    /// The rules cannot be read, for this reason.
    Unknown(String),
}

impl Cluster {
    /// Asks which masking rules of `namespace` apply to what we read. Fails only for reasons that may pass.
    pub async fn masking(&self, namespace: &str) -> Result<Masking, ClusterError> {
        if self.newest_version() < FIRST_VERSION {
            return Ok(Masking::None);
        }
        // In a cluster that is being upgraded only the nodes that know of rules mask values.
        let answers = match self.info_all("masking-show:").await {
            Ok(answers) => answers,
            // Code 25: only the Enterprise Edition has masking rules.
            Err(ClusterError::Info { answer, .. }) if answer.starts_with("ERROR:25:") => {
                return Ok(Masking::None);
            }
            Err(ClusterError::Info { answer, .. }) => return Ok(Masking::Unknown(answer)),
            Err(e) => return Err(e),
        };
        let mut rules = Vec::new();
        for (_, answer) in answers.answers {
            let Some(of_node) = MaskingRule::parse(namespace, &answer) else {
                return Ok(Masking::Unknown(format!(
                    "the answer to masking-show is not understood: {answer:?}"
                )));
            };
            rules.extend(of_node);
        }
        rules.sort();
        rules.dedup();
        if rules.is_empty() {
            return Ok(Masking::None);
        }
        Ok(match self.unreadable(namespace, rules).await? {
            (rules, _) if rules.is_empty() => Masking::None,
            (rules, cause) => Masking::Rules { rules, cause },
        })
    }

    /// Those rules that we may not read past, and why.
    async fn unreadable(
        &self,
        namespace: &str,
        rules: Vec<MaskingRule>,
    ) -> Result<(Vec<MaskingRule>, String), ClusterError> {
        let (user, roles) = match self.own_roles().await? {
            Roles::NotNeeded => return Ok((Vec::new(), String::new())),
            Roles::Unknown(cause) => return Ok((rules, cause)),
            Roles::Of(user, roles) => (user, roles),
        };
        let mut privileges = Vec::new();
        for role in roles {
            if role == READ_MASKED {
                return Ok((Vec::new(), String::new()));
            }
            if OTHER_ROLES.contains(&&*role) {
                continue;
            }
            match self.client().query_roles(&self.admin_policy(), Some(&role)).await {
                Ok(found) => privileges.extend(found.into_iter().flat_map(|role| role.privileges)),
                Err(e) => match e.server_result_code() {
                    Some(_) => {
                        let cause = format!(
                            "what the role {role} of user {user} permits can only be read by a user administrator"
                        );
                        return Ok((rules, cause));
                    }
                    None => return Err(Self::no_admin_answer(&e)),
                },
            }
        }
        let rules = rules.into_iter().filter(|rule| !privileges.iter().any(|it| covers(it, namespace, rule)));
        Ok((rules.collect(), format!("user {user} lacks the privilege {READ_MASKED}")))
    }

    /// The roles of the user that we are.
    async fn own_roles(&self) -> Result<Roles, ClusterError> {
        let user = match self.credentials().map(Credentials::user) {
            // A cluster without login refuses no user.
            None => return Ok(Roles::NotNeeded),
            Some(None) => {
                let cause =
                    "the user of our certificate is not known by name, and so not its roles".to_owned();
                return Ok(Roles::Unknown(cause));
            }
            Some(Some(user)) => user,
        };
        match self.client().query_users(&self.admin_policy(), Some(user)).await {
            Ok(users) => {
                let roles = users.into_iter().flat_map(|user| user.roles).collect();
                Ok(Roles::Of(user.to_owned(), roles))
            }
            Err(e) => match e.server_result_code() {
                Some(ClientCode::SecurityNotEnabled | ClientCode::SecurityNotSupported) => {
                    Ok(Roles::NotNeeded)
                }
                Some(code) => Ok(Roles::Unknown(format!("the roles of user {user} cannot be read: {code}"))),
                None => Err(Self::no_admin_answer(&e)),
            },
        }
    }

    fn no_admin_answer(error: &aerospike::Error) -> ClusterError {
        let node = "of the cluster".to_owned();
        ClusterError::NoAnswer {
            command: "query roles".to_owned(),
            node,
            cause: one_line(&error.to_string()),
        }
    }
}

/// What is known of our roles.
enum Roles {
    /// The cluster has no users.
    NotNeeded,
    /// The user, and its roles.
    Of(String, Vec<String>),
    /// Nothing, for this reason.
    Unknown(String),
}

/// Whether a privilege permits to read the values that a rule masks.
fn covers(privilege: &Privilege, namespace: &str, rule: &MaskingRule) -> bool {
    // A scope without a name is everything.
    let named = |scope: &Option<String>| scope.clone().filter(|name| !name.is_empty());
    privilege.code == PrivilegeCode::ReadMasked
        && named(&privilege.namespace).is_none_or(|name| name == namespace)
        && named(&privilege.set_name).is_none_or(|name| Some(name) == rule.set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(set: Option<&str>, bin: &str, function: &str) -> MaskingRule {
        MaskingRule { set: set.map(str::to_owned), bin: bin.to_owned(), function: function.to_owned() }
    }

    /// Protects: the rules of the namespace that is backed up are found, whatever their functions are given.
    #[test]
    fn an_answer_gives_the_rules_of_its_namespace() {
        let answer = "ns=test;set=demo;bin=ssn;type=string;function=redact;position=0;length=4;value=*:\
                      ns=other;set=demo;bin=email;type=string;function=redact:\
                      ns=test;set=demo;bin=note;type=string;function=constant;value=see: 4;5:\
                      namespace=test;set=;bin=free;type=string;function=redact";
        assert_eq!(
            MaskingRule::parse("test", answer).unwrap(),
            [
                rule(Some("demo"), "ssn", "redact"),
                rule(Some("demo"), "note", "constant"),
                rule(None, "free", "redact")
            ]
        );
        assert_eq!(MaskingRule::parse("test", "").unwrap(), []);
        assert_eq!(MaskingRule::parse("test", "ok"), None);
        assert_eq!(MaskingRule::parse("test", "ns=test;set=demo"), None);
    }

    #[test]
    fn a_privilege_covers_the_rules_of_its_scope() {
        let privilege = |code, namespace: Option<&str>, set: Option<&str>| {
            Privilege::new(code, namespace.map(str::to_owned), set.map(str::to_owned))
        };
        let (read, masked) = (PrivilegeCode::Read, PrivilegeCode::ReadMasked);
        let (in_set, bare) = (rule(Some("s"), "b", "redact"), rule(None, "b", "redact"));
        for (privilege, expected) in [
            (privilege(masked.clone(), None, None), [true, true]),
            (privilege(masked.clone(), Some(""), Some("")), [true, true]),
            (privilege(masked.clone(), Some("test"), Some("")), [true, true]),
            (privilege(masked.clone(), Some("test"), Some("s")), [true, false]),
            (privilege(masked.clone(), Some("test"), Some("t")), [false, false]),
            (privilege(masked, Some("other"), None), [false, false]),
            (privilege(read, None, None), [false, false]),
        ] {
            let covered = [&in_set, &bare].map(|rule| covers(&privilege, "test", rule));
            assert_eq!(covered, expected, "{privilege:?}");
        }
    }
}
