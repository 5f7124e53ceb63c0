//! Reading requests: parameters and bodies.

use std::fmt::Display;
use std::future::{Ready, ready};
use std::str::FromStr;
use std::time::Duration;

use abs_config::{Config, Problems, from_json};
use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{Bytes, BytesMut};
use actix_web::{FromRequest, HttpRequest, web};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use super::Api;
use super::errors::Failure;

/// The largest document of a request, in bytes.
const DOCUMENT: usize = 1 << 20;
/// The largest whole configuration, in bytes.
const CONFIGURATION: usize = 8 << 20;

/// The parameters of a query. Unknown ones are ignored, as in the reference, unless [`only`](Self::only) refuses them.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl FromRequest for Query {
    type Error = Failure;
    type Future = Ready<Result<Self, Failure>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::parse(request.query_string()))
    }
}

impl Query {
    fn parse(text: &str) -> Result<Self, Failure> {
        let pairs = web::Query::<Vec<_>>::from_query(text).map_err(Failure::bad_request)?;
        Ok(Self(pairs.into_inner()))
    }

    fn get(&self, name: &str) -> Result<Option<&str>, Failure> {
        let mut values = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Failure::bad_request(format_args!("{name}: is given several times"))),
            (Some(""), None) => {
                Err(Failure::bad_request(format_args!("{name}: has no value: give one, or leave it out")))
            }
            (value, None) => Ok(value),
        }
    }

    /// Refuses parameters of other names than these: a request that deletes must not be mistaken.
    pub fn only(&self, names: &[&str]) -> Result<(), Failure> {
        match self.0.iter().find(|(key, _)| !names.contains(&key.as_str())) {
            Some((key, _)) => {
                let known = names.join(" and ");
                Err(Failure::bad_request(format_args!(
                    "{key}: is no parameter of this request: there are {known}"
                )))
            }
            None => Ok(()),
        }
    }

    /// A parameter that says itself what is wrong with it.
    pub fn value<T>(&self, name: &str) -> Result<Option<T>, Failure>
    where
        T: FromStr<Err: Display>,
    {
        let value = self.get(name)?.map(str::parse).transpose();
        value.map_err(|error| Failure::bad_request(format_args!("{name}: {error}")))
    }

    /// `from` and `to`: milliseconds since 1970.
    pub fn time_range(&self) -> Result<(Option<i64>, Option<i64>), Failure> {
        let time = |name| self.get(name)?.map(|text| milliseconds(name, text)).transpose();
        let (from, to) = (time("from")?, time("to")?);
        match (from, to) {
            (Some(from), Some(to)) if from > to => {
                Err(Failure::bad_request(format_args!("from: {from} is later than to: {to}")))
            }
            _ => Ok((from, to)),
        }
    }

    /// `delay`: milliseconds.
    pub fn delay(&self) -> Result<Duration, Failure> {
        let Some(text) = self.get("delay")? else { return Ok(Duration::ZERO) };
        whole_number(text).map(|number| Duration::from_millis(number as u64)).ok_or_else(|| {
            Failure::bad_request(format_args!("delay: {text:?} is not a time in milliseconds, 0 or more"))
        })
    }
}

/// A time of a parameter: milliseconds since 1970.
fn milliseconds(name: &str, text: &str) -> Result<i64, Failure> {
    whole_number(text).ok_or_else(|| {
        let reason = "is not a time in milliseconds since 1970, as 1704110400000";
        Failure::bad_request(format_args!("{name}: {text:?} {reason}"))
    })
}

/// The routine and the time of a run in a path: milliseconds since 1970.
pub fn run(path: web::Path<(String, String)>) -> Result<(String, i64), Failure> {
    let (routine, timestamp) = path.into_inner();
    let timestamp = milliseconds("timestamp", &timestamp)?;
    Ok((routine, timestamp))
}

/// A number of at most 63 bits, in digits alone.
fn whole_number(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The document in the body of a request.
pub async fn document<T: DeserializeOwned + ToSchema>(
    api: &Api,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<T, Failure> {
    let body = body(api, request, payload, DOCUMENT).await?;
    from_json(&body).map_err(|problems| refused(&problems))
}

/// The whole configuration in the body of a request.
pub async fn configuration(
    api: &Api,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<Config, Failure> {
    let body = body(api, request, payload, CONFIGURATION).await?;
    Config::from_json(&body).map_err(|problems| refused(&problems))
}

/// What is wrong with a body. A problem of all of it has no path of its own.
fn refused(problems: &Problems) -> Failure {
    let whole = problems.list().first().is_some_and(|problem| problem.path.is_empty());
    let subject = if whole { "the body of the request " } else { "" };
    Failure::bad_request(format_args!("{subject}{problems}"))
}

/// The body of a request, of at most `limit` bytes; its `Content-Type` does not matter, as in the reference.
async fn body(
    api: &Api,
    request: &HttpRequest,
    mut payload: web::Payload,
    limit: usize,
) -> Result<Bytes, Failure> {
    let too_large = || {
        let text = format!("the body of the request is larger than {limit} bytes");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > limit) {
        return Err(too_large());
    }
    let read = async {
        let mut body = BytesMut::new();
        while let Some(part) = payload.next().await {
            let part = part.map_err(|error| {
                Failure::bad_request(format_args!("the body of the request cannot be read: {error}"))
            })?;
            if body.len() + part.len() > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&part);
        }
        Ok(body.freeze())
    };
    let body = api.within_time(read).await.map_err(|limit| {
        let text = format!(
            "the body of the request did not arrive within {} ms (service.http.timeout)",
            limit.as_millis()
        );
        Failure::new(StatusCode::REQUEST_TIMEOUT, text)
    })??;
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::bad_request("the body of the request is empty: it should be a JSON document"));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use abs_actors::messages::StatusFilter;

    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).unwrap()
    }

    fn refusal<T>(result: Result<T, Failure>) -> String {
        result.err().unwrap().to_string()
    }

    #[test]
    fn a_time_range_may_be_open_and_is_never_backwards() {
        let range = |text: &str| query(text).time_range();
        assert_eq!(range("").unwrap(), (None, None));
        assert_eq!(range("to=7&other=").unwrap(), (None, Some(7)));
        assert_eq!(refusal(range("from=&to=7")), "from: has no value: give one, or leave it out");
        assert_eq!(range("to=7&from=7").unwrap(), (Some(7), Some(7)));
        assert_eq!(refusal(range("from=1&from=1")), "from: is given several times");
        assert_eq!(refusal(range("from=8&to=7")), "from: 8 is later than to: 7");
        for bad in ["x", "-1", "1.5", "%2B1", "9223372036854775808", "1e3", "%F0%28"] {
            assert!(refusal(range(&format!("to={bad}"))).starts_with("to: \""), "{bad}");
        }
    }

    #[test]
    fn a_delay_is_not_negative() {
        assert_eq!(query("").delay().unwrap(), Duration::ZERO);
        assert_eq!(refusal(query("delay=").delay()), "delay: has no value: give one, or leave it out");
        assert_eq!(query("delay=1500").delay().unwrap(), Duration::from_millis(1500));
        assert_eq!(
            refusal(query("delay=-1").delay()),
            "delay: \"-1\" is not a time in milliseconds, 0 or more"
        );
    }

    #[test]
    fn a_value_says_what_is_wrong_with_it() {
        assert_eq!(query("").value::<StatusFilter>("status").unwrap(), None);
        assert!(query("status=%21Failed,Canceled").value::<StatusFilter>("status").unwrap().is_some());
        assert!(
            refusal(query("status=Gone").value::<StatusFilter>("status"))
                .starts_with("status: \"Gone\" is not")
        );
    }
}
