//! Logging in: admin messages, and the session tokens that spare further connections the password.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as PlainMutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::connection::Connection;
use crate::message::{ENVELOPE, TYPE_ADMIN, envelope, push_field, split_field};
use crate::{ClusterError, Credentials, ResultCode};

// Commands and fields of the admin protocol (`security.h` of the server names the message, the official clients the
// rest).
const AUTHENTICATE: u8 = 0;
const LOGIN: u8 = 20;
const USER: u8 = 0;
const CREDENTIAL: u8 = 3;
const CLEAR_PASSWORD: u8 = 4;
const SESSION_TOKEN: u8 = 5;
const SESSION_TTL: u8 = 6;

/// Bytes of an admin message before its fields: scheme, result, command, number of fields, 12 reserved.
const HEADER: usize = 16;
/// A token is renewed this long before the server drops it.
const MARGIN: Duration = Duration::from_mins(1);

/// Every client hashes with this salt (`7EqJtq98hPqEX7fNZaFWoO`) and this cost, so that the server can compare hashes.
const SALT: [u8; 16] = [244, 107, 11, 190, 207, 254, 141, 27, 6, 103, 216, 79, 109, 193, 216, 169];
const COST: u32 = 10;

/// A login that the server remembers.
#[derive(Clone)]
struct Session {
    token: Arc<Zeroizing<Vec<u8>>>,
    /// When it is to be renewed; `None` when it lasts.
    until: Option<Instant>,
}

/// A place for a node's session; whoever logs in holds it, the others wait for the token.
type Seat = Arc<Mutex<Option<Session>>>;

/// Credentials made ready to be sent, and the sessions that they opened.
pub(crate) struct Login {
    credentials: Credentials,
    /// The bcrypt hash of the password.
    hash: Zeroizing<String>,
    /// By node address: tokens are a node's own.
    sessions: PlainMutex<HashMap<String, Seat>>,
}

impl Login {
    /// Hashes the password, which takes some 50 ms of a processor.
    pub(crate) fn new(credentials: Credentials) -> Result<Self, ClusterError> {
        let hash = match &credentials {
            Credentials::Internal { password, .. } | Credentials::External { password, .. } => {
                hash(password)?
            }
            Credentials::Pki => Zeroizing::default(),
        };
        Ok(Self { credentials, hash, sessions: PlainMutex::default() })
    }

    /// Makes a new connection one of our user's.
    pub(crate) async fn admit(&self, connection: &mut Connection) -> Result<(), ClusterError> {
        let seat = {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(sessions.entry(connection.address().to_owned()).or_default())
        };
        loop {
            let known = {
                let mut seat = seat.lock().await;
                let valid = |session: &&Session| session.until.is_none_or(|until| Instant::now() < until);
                let Some(session) = seat.as_ref().filter(valid) else {
                    *seat = self.log_in(connection).await?;
                    return Ok(());
                };
                session.clone()
            };
            let answer = exchange(connection, &self.authentication(&known.token)).await?;
            if answer.code == ResultCode::OK || answer.code == ResultCode::SECURITY_NOT_ENABLED {
                return Ok(());
            }
            // The server forgot the token: it was restarted, or the user was changed. Somebody may have got a new one.
            seat.lock().await.take_if(|session| Arc::ptr_eq(&session.token, &known.token));
        }
    }

    /// Logs in. No session comes of it on a cluster that knows users but does not ask for them.
    async fn log_in(&self, connection: &mut Connection) -> Result<Option<Session>, ClusterError> {
        let answer = exchange(connection, &self.login()).await?;
        match answer.code {
            ResultCode::OK => {}
            ResultCode::SECURITY_NOT_ENABLED => return Ok(None),
            code => {
                let node = connection.address().to_owned();
                let user = self.credentials.user().map(str::to_owned);
                return Err(ClusterError::Login { node, user, code });
            }
        }
        let token = answer.token.ok_or_else(|| connection.malformed("login without a session token"))?;
        let until = answer.ttl.map(|ttl| Instant::now() + ttl.saturating_sub(MARGIN.min(ttl / 2)));
        Ok(Some(Session { token: Arc::new(token), until }))
    }

    fn login(&self) -> Zeroizing<Vec<u8>> {
        match &self.credentials {
            Credentials::Internal { user, .. } => {
                request(LOGIN, &[(USER, user.as_bytes()), (CREDENTIAL, self.hash.as_bytes())])
            }
            Credentials::External { user, password } => request(
                LOGIN,
                &[
                    (USER, user.as_bytes()),
                    (CREDENTIAL, self.hash.as_bytes()),
                    (CLEAR_PASSWORD, password.as_bytes()),
                ],
            ),
            Credentials::Pki => request(LOGIN, &[]),
        }
    }

    fn authentication(&self, token: &[u8]) -> Zeroizing<Vec<u8>> {
        match self.credentials.user() {
            Some(user) => request(AUTHENTICATE, &[(USER, user.as_bytes()), (SESSION_TOKEN, token)]),
            None => request(AUTHENTICATE, &[(SESSION_TOKEN, token)]),
        }
    }
}

/// Whether a node serves only users that log in.
pub(crate) async fn is_asked(connection: &mut Connection) -> bool {
    let answer = exchange(connection, &request(LOGIN, &[])).await;
    let without = [ResultCode::SECURITY_NOT_SUPPORTED, ResultCode::SECURITY_NOT_ENABLED];
    answer.is_ok_and(|answer| !without.contains(&answer.code))
}

fn hash(password: &str) -> Result<Zeroizing<String>, ClusterError> {
    let parts = bcrypt::hash_with_salt(password, COST, SALT)
        .map_err(|e| ClusterError::Credentials(format!("the password cannot be hashed: {e}")))?;
    Ok(Zeroizing::new(parts.format_for_version(bcrypt::Version::TwoA)))
}

fn request(command: u8, fields: &[(u8, &[u8])]) -> Zeroizing<Vec<u8>> {
    let size = HEADER + fields.iter().map(|(_, data)| data.len() + 5).sum::<usize>();
    // Never grown, so that no copy of a password is left behind.
    let mut out = Zeroizing::new(Vec::with_capacity(ENVELOPE + size));
    out.extend_from_slice(&envelope(TYPE_ADMIN, size));
    out.extend_from_slice(&[0, 0, command, fields.len() as u8]);
    out.extend_from_slice(&[0; HEADER - 4]);
    for (kind, data) in fields {
        push_field(&mut out, *kind, data);
    }
    out
}

struct Answer {
    code: ResultCode,
    token: Option<Zeroizing<Vec<u8>>>,
    ttl: Option<Duration>,
}

async fn exchange(connection: &mut Connection, request: &[u8]) -> Result<Answer, ClusterError> {
    connection.send(request).await?;
    let body = connection.receive_admin().await?;
    parse(connection.body(body)).ok_or_else(|| connection.malformed("admin message cut short"))
}

fn parse(body: &[u8]) -> Option<Answer> {
    let (header, mut rest) = body.split_first_chunk::<HEADER>()?;
    let mut answer = Answer { code: ResultCode(header[1]), token: None, ttl: None };
    for _ in 0..header[3] {
        let (kind, data, after) = split_field(rest)?;
        rest = after;
        match kind {
            SESSION_TOKEN => answer.token = Some(Zeroizing::new(data.to_vec())),
            SESSION_TTL => {
                let seconds = u32::from_be_bytes(*data.first_chunk()?);
                answer.ttl = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
            }
            _ => {}
        }
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers: what every client makes of these passwords.
    #[test]
    fn passwords_are_hashed_as_the_server_stores_them() {
        for (password, expected) in [
            ("password", "$2a$10$7EqJtq98hPqEX7fNZaFWoOqUH6KN8IKy3Yk5Kz..RHGKNAUCoP/LG"),
            ("p@ss w\u{f6}rd", "$2a$10$7EqJtq98hPqEX7fNZaFWoOvOHC3TQiAAgdPnOsxztx/kKSmQ9nwIm"),
        ] {
            assert_eq!(*hash(password).unwrap(), expected);
        }
    }

    #[test]
    fn an_answer_gives_its_token_and_how_long_it_lasts() {
        let mut body = vec![0, 0, LOGIN, 2];
        body.extend_from_slice(&[0; 12]);
        push_field(&mut body, SESSION_TOKEN, b"token");
        push_field(&mut body, SESSION_TTL, &86_400_u32.to_be_bytes());
        let answer = parse(&body).unwrap();
        assert_eq!(answer.token.unwrap().as_slice(), b"token");
        assert_eq!(answer.ttl, Some(Duration::from_hours(24)));
        for cut in 0..body.len() {
            assert!(parse(&body[..cut]).is_none(), "cut at {cut}");
        }
        let refused = parse(&[0, 65, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(refused.code, ResultCode(65));
    }
}
