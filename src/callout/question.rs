//! What can be asked about: a client, and the request that it makes.

use std::borrow::Cow;
use std::net::IpAddr;

use thiserror::Error;

use super::template::Field;
use crate::fetch::{HeaderMap, HeaderName, Method};
use crate::secret::Secret;

/// What is known of whoever wants to pass.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The client secret; none if it is no client that is known by one.
    pub secret: Option<&'a Secret>,
    /// The client identifier of MQTT, or nothing.
    pub client_id: &'a str,
    /// The user name of MQTT or of `Basic`, or nothing.
    pub user_name: &'a str,
    /// The SHA-256 of its certificate, or nothing.
    pub fingerprint: &'a str,
    /// Where it is.
    pub remote: IpAddr,
    /// Its request; none if it speaks MQTT.
    pub request: Option<&'a Request<'a>>,
}

/// A request, as far as it can be asked about. Its body is nobody's business but the upstream's.
#[derive(Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The host that it is for.
    pub host: &'a str,
    /// The path in its normal form.
    pub path: &'a str,
    /// The query without credentials.
    pub query: Option<String>,
    /// The fields as the client has sent them.
    pub headers: &'a HeaderMap,
    /// Its id.
    pub id: &'a str,
}

/// Something that a service judges by can be read in two ways: another one, the upstream's, might
/// get by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the field stands there more than once, in another spelling, or is no text")]
pub(super) struct Ambiguous;

impl<'a> Question<'a> {
    /// What stands for `field`; `None` if the client does not say it.
    pub(super) fn value(&self, field: &Field) -> Result<Option<Cow<'a, str>>, Ambiguous> {
        let of_request = |part: fn(&'a Request<'a>) -> &'a str| self.request.map(part);
        let value = match field {
            Field::Secret => self.secret.map(Secret::expose),
            Field::ClientId => Some(self.client_id),
            Field::UserName => Some(self.user_name),
            Field::Protocol => Some(self.request.map_or("MQTT", |_| "HTTP")),
            Field::Fingerprint => Some(self.fingerprint),
            Field::Remote => return Ok(Some(self.remote.to_string().into())),
            Field::Method => of_request(|request| request.method.as_str()),
            Field::Host => of_request(|request| request.host),
            Field::Path => of_request(|request| request.path),
            Field::RequestId => of_request(|request| request.id),
            Field::Domain => self.request.and_then(|request| domain(request.path)),
            Field::Query => {
                let query = self.request.and_then(|request| request.query.as_ref());
                return Ok(query.map(|query| format!("?{query}").into()));
            }
            Field::Header(name) => match self.request {
                Some(request) => only(request.headers, name)?,
                None => None,
            },
        };
        Ok(value.map(Cow::Borrowed))
    }
}

/// The domain of a message's path, wherever the platform's part of it begins.
fn domain(path: &str) -> Option<&str> {
    let mut segments = path.split('/').skip_while(|segment| *segment != "m");
    let named = (segments.next()?, segments.next()?, segments.next()?);
    match named {
        (_, domain, "c") if !domain.is_empty() => Some(domain),
        _ => None,
    }
}

/// The one value of a field, whatever its reader makes of its spelling.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Ambiguous> {
    let mut found = headers
        .iter()
        .filter(|(other, _)| reads_alike(other.as_str(), name.as_str()));
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some((spelt, value)), None) if spelt == name => {
            value.to_str().map(Some).map_err(|_| Ambiguous)
        }
        (Some(_), _) => Err(Ambiguous),
    }
}

/// CGI and its heirs make no difference between `-` and whatever else is neither letter nor digit
/// (RFC 3875 §4.1.18); in `name` there is nothing else.
fn reads_alike(other: &str, name: &str) -> bool {
    let alike =
        |(other, name): (u8, u8)| other == name || (name == b'-' && !other.is_ascii_alphanumeric());
    other.len() == name.len() && other.bytes().zip(name.bytes()).all(alike)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::HeaderValue;

    fn only_of(fields: &[(&'static str, &[u8])]) -> Result<Option<String>, Ambiguous> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        let found = only(&headers, &HeaderName::from_static("x-key"));
        found.map(|value| value.map(str::to_owned))
    }

    #[test]
    fn a_path_of_a_platform_names_a_domain() {
        for (path, expected) in [
            ("/http/m/home/c/meter", Some("home")),
            ("/m/home/c", Some("home")),
            ("/m/home/x/meter", None),
            ("/m//c/meter", None),
            ("/m/home", None),
            ("/xm/home/c/meter", None),
            ("/", None),
        ] {
            assert_eq!(domain(path), expected, "{path}");
        }
    }

    #[test]
    fn a_field_is_taken_if_nobody_could_read_another_one() {
        assert_eq!(only_of(&[("x-keys", b"1"), ("xkey", b"1")]), Ok(None));
        assert_eq!(only_of(&[("x-key", b"1")]), Ok(Some("1".into())));
        assert_eq!(only_of(&[("x-key", b"")]), Ok(Some(String::new())));
        for fields in [
            &[("x-key", &b"1"[..]), ("x-key", b"1")][..],
            &[("x-key", b"1"), ("x_key", b"2")],
            &[("x_key", b"1")],
            &[("x.key", b"1")],
            &[("x-key", b"\xff")],
        ] {
            assert_eq!(only_of(fields), Err(Ambiguous), "{fields:?}");
        }
    }
}
