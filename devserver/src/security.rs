//! Users: logins, session tokens, and who is let in (the enterprise edition's part of the protocol).

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::builder::ServerError;
use crate::clock::Clock;
use crate::counters::Counters;
use crate::message::{Malformed, put_field, take, take_u8, take_u32};
use crate::result_code::ResultCode;

/// Commands of the admin protocol.
const AUTHENTICATE: u8 = 0;
const QUERY_USERS: u8 = 9;
const QUERY_ROLES: u8 = 16;
const LOGIN: u8 = 20;

/// Fields of the admin protocol.
mod field {
    pub(super) const USER: u8 = 0;
    pub(super) const CREDENTIAL: u8 = 3;
    pub(super) const CLEAR_PASSWORD: u8 = 4;
    pub(super) const SESSION_TOKEN: u8 = 5;
    pub(super) const SESSION_TTL: u8 = 6;
    pub(super) const ROLES: u8 = 10;
    pub(super) const ROLE: u8 = 11;
    pub(super) const PRIVILEGES: u8 = 12;
}

/// The role, and the privilege, to read masked values as they are.
const READ_MASKED: &str = "read-masked";
/// The privilege of that name on the wire.
const PRIVILEGE_READ_MASKED: u8 = 16;
/// The role to ask for the roles of others, and for what roles permit.
const USER_ADMIN: &str = "user-admin";

/// Bytes of an admin message before its fields: scheme, result, command, number of fields, 12 reserved.
const HEADER: usize = 16;
/// How long a session lasts unless the builder says otherwise: the real server's default, a day.
pub(crate) const SESSION_TTL: Duration = Duration::from_hours(24);

/// The salt (`7EqJtq98hPqEX7fNZaFWoO`) and the cost with which clients hash passwords.
const SALT: [u8; 16] = [244, 107, 11, 190, 207, 254, 141, 27, 6, 103, 216, 79, 109, 193, 216, 169];
const COST: u32 = 10;

/// How a user shows who he is.
pub(crate) enum Proof {
    /// By a password of which the server knows the hash.
    Password(String),
    /// By a password that some other service knows.
    External(String),
    /// By his TLS certificate.
    Certificate,
}

/// The hash of a password as clients send it and servers store it.
pub(crate) fn hash(password: &str) -> Result<String, ServerError> {
    let parts = bcrypt::hash_with_salt(password, COST, SALT);
    let parts = parts.map_err(|e| ServerError::Build(format!("the password of a user: {e}")))?;
    Ok(parts.format_for_version(bcrypt::Version::TwoA))
}

/// Who is behind a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The user that the TLS certificate names.
    pub(crate) certified: Option<String>,
    /// The user that logged in.
    pub(crate) user: Option<String>,
}

/// What users may do, as far as that differs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roles {
    /// The roles of users; others may do everything.
    pub(crate) of_users: HashMap<String, Vec<String>>,
    /// User-defined roles that may read masked values of a namespace.
    pub(crate) masked_readers: HashMap<String, String>,
}

/// The users of a server that has some.
pub(crate) struct Security {
    users: Mutex<HashMap<String, Proof>>,
    roles: Roles,
    session_ttl: Duration,
    /// By token: its node, its user, and when it ends (seconds since 2010).
    sessions: Mutex<HashMap<Vec<u8>, (usize, String, u32)>>,
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Security").finish_non_exhaustive()
    }
}

/// What a request asks.
#[derive(Default)]
struct Fields<'a> {
    user: Option<&'a [u8]>,
    credential: Option<&'a [u8]>,
    clear_password: Option<&'a [u8]>,
    token: Option<&'a [u8]>,
    role: Option<&'a [u8]>,
}

impl Security {
    pub(crate) fn new(users: HashMap<String, Proof>, roles: Roles, session_ttl: Duration) -> Security {
        let (users, sessions) = (Mutex::new(users), Mutex::default());
        Security { users, roles, session_ttl, sessions }
    }

    /// The roles of a user.
    fn roles_of(&self, user: &str) -> Vec<&str> {
        match self.roles.of_users.get(user) {
            Some(roles) => roles.iter().map(String::as_str).collect(),
            None => {
                vec!["read-write-udf", "data-admin", "sys-admin", USER_ADMIN, READ_MASKED, "write-masked"]
            }
        }
    }

    /// Whether a user reads the masked values of a namespace as they are.
    pub(crate) fn may_read_masked(&self, user: &str, namespace: &str) -> bool {
        let permits = |role: &str| {
            let scope = self.roles.masked_readers.get(role);
            role == READ_MASKED || scope.is_some_and(|scope| scope == namespace)
        };
        self.roles_of(user).into_iter().any(permits)
    }

    /// Answers which roles a user has, the own ones to everybody.
    fn put_user(&self, fields: &Fields<'_>, peer: &str, out: &mut Vec<u8>) -> Result<(), ResultCode> {
        let asked = fields.user.map(String::from_utf8_lossy);
        let Some(user) = asked.filter(|user| user == peer || self.roles_of(peer).contains(&USER_ADMIN))
        else {
            return Err(ResultCode::ROLE_VIOLATION);
        };
        if !self.users.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&*user) {
            return Err(ResultCode::USER);
        }
        let roles = self.roles_of(&user);
        let mut list = vec![roles.len() as u8];
        for role in roles {
            list.push(role.len() as u8);
            list.extend_from_slice(role.as_bytes());
        }
        put_head(out, ResultCode::OK, 2);
        put_field(out, field::USER, &[user.as_bytes()]);
        put_field(out, field::ROLES, &[&list]);
        Ok(())
    }

    /// Answers what a user-defined role permits.
    fn put_role(&self, fields: &Fields<'_>, peer: &str, out: &mut Vec<u8>) -> Result<(), ResultCode> {
        if !self.roles_of(peer).contains(&USER_ADMIN) {
            return Err(ResultCode::ROLE_VIOLATION);
        }
        let role = String::from_utf8_lossy(fields.role.unwrap_or_default());
        let namespace = self.roles.masked_readers.get(&*role).ok_or(ResultCode::ROLE)?;
        put_head(out, ResultCode::OK, 2);
        put_field(out, field::ROLE, &[role.as_bytes()]);
        let head = [1, PRIVILEGE_READ_MASKED, namespace.len() as u8];
        put_field(out, field::PRIVILEGES, &[&head, namespace.as_bytes(), &[0]]);
        Ok(())
    }

    /// Changes how a user shows who he is. Sessions that he has end.
    pub(crate) fn set_user(&self, name: &str, proof: Proof) {
        self.users.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), proof);
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (_, user, _)| user != name);
    }

    /// Forgets all sessions, as a server that starts again does.
    pub(crate) fn forget_sessions(&self) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Answers an admin message, and notes in `peer` who has logged in.
    pub(crate) fn answer(
        &self,
        node: usize,
        clock: &Clock,
        body: &[u8],
        peer: &mut Peer,
        counters: &Counters,
        out: &mut Vec<u8>,
    ) {
        let result =
            parse(body).map_err(|Malformed| ResultCode::SECURITY_FIELD).and_then(|(command, fields)| {
                match command {
                    LOGIN => {
                        Counters::add(&counters.logins, 1);
                        self.log_in(node, clock, &fields, peer).map(Some)
                    }
                    AUTHENTICATE => {
                        Counters::add(&counters.authentications, 1);
                        self.authenticate(node, clock, &fields, peer).map(|()| None)
                    }
                    _ => {
                        let user = peer.user.as_deref().ok_or(ResultCode::NOT_AUTHENTICATED)?;
                        match command {
                            QUERY_USERS => self.put_user(&fields, user, out)?,
                            QUERY_ROLES => self.put_role(&fields, user, out)?,
                            _ => return Err(ResultCode::SECURITY_COMMAND),
                        }
                        // Lists have an end of their own.
                        Err(ResultCode::QUERY_END)
                    }
                }
            });
        let (code, token) = match result {
            Ok(token) => (ResultCode::OK, token),
            Err(code) => (code, None),
        };
        put_head(out, code, if token.is_some() { 2 } else { 0 });
        if let Some(token) = token {
            let seconds = u32::try_from(self.session_ttl.as_secs()).unwrap_or(u32::MAX);
            put_field(out, field::SESSION_TOKEN, &[&token]);
            put_field(out, field::SESSION_TTL, &[&seconds.to_be_bytes()]);
        }
    }

    fn log_in(
        &self,
        node: usize,
        clock: &Clock,
        fields: &Fields<'_>,
        peer: &mut Peer,
    ) -> Result<Vec<u8>, ResultCode> {
        let user = self.prove(fields, peer)?;
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        // Each has keys of its own: nobody guesses them who does not try hard.
        let token: Vec<u8> =
            (0..4).flat_map(|part| RandomState::new().hash_one(part).to_be_bytes()).collect();
        let end = clock.now_secs().saturating_add(self.session_ttl.as_secs() as u32);
        sessions.insert(token.clone(), (node, user.clone(), end));
        peer.user = Some(user);
        Ok(token)
    }

    fn authenticate(
        &self,
        node: usize,
        clock: &Clock,
        fields: &Fields<'_>,
        peer: &mut Peer,
    ) -> Result<(), ResultCode> {
        let Some(token) = fields.token else {
            // As clients did before there were sessions.
            peer.user = Some(self.prove(fields, peer)?);
            return Ok(());
        };
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let named = fields.user.map(|name| String::from_utf8_lossy(name).into_owned());
        match sessions.get(token) {
            Some((of, user, end))
                if *of == node && named.or(peer.certified.clone()).as_ref() == Some(user) =>
            {
                if clock.now_secs() >= *end {
                    return Err(ResultCode::SESSION_EXPIRED);
                }
                peer.user = Some(user.clone());
                Ok(())
            }
            _ => Err(ResultCode::CREDENTIAL),
        }
    }

    /// The user that the fields, or the certificate without fields, show.
    fn prove(&self, fields: &Fields<'_>, peer: &Peer) -> Result<String, ResultCode> {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(name) = fields.user else {
            let name = peer.certified.clone().ok_or(ResultCode::USER)?;
            return match users.get(&name) {
                Some(Proof::Certificate) => Ok(name),
                _ => Err(ResultCode::USER),
            };
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let holds = match users.get(&name).ok_or(ResultCode::USER)? {
            Proof::Password(hash) => fields.credential == Some(hash.as_bytes()),
            Proof::External(password) => fields.clear_password == Some(password.as_bytes()),
            Proof::Certificate => false,
        };
        if holds { Ok(name) } else { Err(ResultCode::CREDENTIAL) }
    }
}

/// Appends what an answer has before its fields.
fn put_head(out: &mut Vec<u8>, code: ResultCode, n_fields: u8) {
    let mut head = [0; HEADER];
    (head[1], head[3]) = (code.0, n_fields);
    out.extend_from_slice(&head);
}

fn parse(body: &[u8]) -> Result<(u8, Fields<'_>), Malformed> {
    let mut data = body;
    let head = take(&mut data, HEADER)?;
    let mut fields = Fields::default();
    for _ in 0..head[3] {
        let len = take_u32(&mut data)? as usize;
        let kind = take_u8(&mut data)?;
        let value = take(&mut data, len.checked_sub(1).ok_or(Malformed)?)?;
        match kind {
            field::USER => fields.user = Some(value),
            field::CREDENTIAL => fields.credential = Some(value),
            field::CLEAR_PASSWORD => fields.clear_password = Some(value),
            field::SESSION_TOKEN => fields.token = Some(value),
            field::ROLE => fields.role = Some(value),
            _ => {}
        }
    }
    Ok((head[2], fields))
}
