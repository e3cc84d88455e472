//! Which host and path a request is for, said once and without doubt (RFC 9112 §3.2, RFC 9113
//! §8.3.1).

use hyper::Version;
use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use thiserror::Error;

use crate::route::PathError;

/// Why a request's target cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum TargetError {
    #[error("no Host")]
    MissingHost,
    #[error("more than one Host")]
    RepeatedHost,
    #[error("Host is not a host name")]
    MalformedHost,
    #[error("the request's target and its Host disagree")]
    HostMismatch,
    #[error(transparent)]
    Path(#[from] PathError),
}

/// The host of a request, with the port if it names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    authority: Authority,
    /// How much of it is the name.
    name: usize,
}

impl Host {
    /// Reads the one host that `head` names, wherever it stands.
    pub(super) fn of(head: &Parts) -> Result<Self, TargetError> {
        let field = host_field(head)?;
        // In HTTP/2 this is `:authority`, in HTTP/1.1 the absolute form of the target.
        let host = match (head.uri.authority(), field) {
            (Some(target), Some(field)) if !same(target, &field) => {
                return Err(TargetError::HostMismatch);
            }
            (Some(_), None) if head.version < Version::HTTP_2 => {
                return Err(TargetError::MissingHost);
            }
            (Some(target), _) => target.clone(),
            (None, Some(field)) => field,
            (None, None) => return Err(TargetError::MissingHost),
        };
        let name = plain_name(&host).ok_or(TargetError::MalformedHost)?;
        Ok(Self {
            name: name.strip_suffix('.').unwrap_or(name).len(),
            authority: host,
        })
    }

    /// Without the port, and without the final dot of a fully qualified name.
    pub(super) fn name(&self) -> &str {
        self.as_str().get(..self.name).unwrap_or_default()
    }

    /// As the client wrote it.
    pub(super) fn as_str(&self) -> &str {
        self.authority.as_str()
    }
}

fn host_field(head: &Parts) -> Result<Option<Authority>, TargetError> {
    let mut fields = head.headers.get_all(HOST).iter();
    let Some(field) = fields.next() else {
        return Ok(None);
    };
    if fields.next().is_some() {
        return Err(TargetError::RepeatedHost);
    }
    Authority::try_from(field.as_bytes())
        .map(Some)
        .map_err(|_| TargetError::MalformedHost)
}

fn same(a: &Authority, b: &Authority) -> bool {
    a.as_str().eq_ignore_ascii_case(b.as_str())
}

/// The host's name, with which it begins. `Authority` allows user information and sub-delimiters, which no
/// host of ours has.
fn plain_name(authority: &Authority) -> Option<&str> {
    let host = authority.host();
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']')
    };
    let is_plain = !host.is_empty()
        && host.bytes().all(allowed)
        && !authority.as_str().contains('@')
        && authority.as_str().strip_prefix(host).is_some_and(is_port);
    is_plain.then_some(host)
}

/// Nothing, or a colon and what may be a port. `Authority::port` says "none" of a malformed one.
fn is_port(rest: &str) -> bool {
    let Some(port) = rest.strip_prefix(':') else {
        return rest.is_empty();
    };
    // RFC 3986 §3.2.3 allows the colon alone.
    port.is_empty()
        || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn host(uri: &str, version: Version, fields: &[&str]) -> Result<String, TargetError> {
        let mut request = Request::builder().uri(uri).version(version);
        for field in fields {
            request = request.header(HOST, *field);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        Host::of(&head).map(|host| host.name().to_owned())
    }

    #[test]
    fn the_host_is_read_wherever_it_may_stand() {
        for (uri, version, fields, expected) in [
            ("/", Version::HTTP_11, &["a.b"][..], "a.b"),
            ("/", Version::HTTP_11, &["A.b:8443"], "A.b"),
            ("/", Version::HTTP_11, &["a.b."], "a.b"),
            ("/", Version::HTTP_11, &["127.0.0.1:1"], "127.0.0.1"),
            ("/", Version::HTTP_11, &["[::1]:1"], "[::1]"),
            ("http://a.b/", Version::HTTP_11, &["A.B"], "a.b"),
            ("https://a.b/", Version::HTTP_2, &[], "a.b"),
            ("https://a.b/", Version::HTTP_2, &["a.b"], "a.b"),
        ] {
            assert_eq!(
                host(uri, version, fields).as_deref(),
                Ok(expected),
                "{uri} {fields:?}"
            );
        }
    }

    #[test]
    fn a_host_that_is_missing_doubled_or_doubtful_is_refused() {
        for (uri, version, fields, expected) in [
            ("/", Version::HTTP_11, &[][..], TargetError::MissingHost),
            ("/", Version::HTTP_10, &[], TargetError::MissingHost),
            (
                "http://a.b/",
                Version::HTTP_11,
                &[],
                TargetError::MissingHost,
            ),
            (
                "/",
                Version::HTTP_11,
                &["a.b", "a.b"],
                TargetError::RepeatedHost,
            ),
            (
                "/",
                Version::HTTP_11,
                &["a.b", "c.d"],
                TargetError::RepeatedHost,
            ),
            (
                "http://a.b/",
                Version::HTTP_11,
                &["c.d"],
                TargetError::HostMismatch,
            ),
            (
                "https://a.b/",
                Version::HTTP_2,
                &["c.d"],
                TargetError::HostMismatch,
            ),
            ("/", Version::HTTP_11, &[""], TargetError::MalformedHost),
            ("/", Version::HTTP_11, &["a b"], TargetError::MalformedHost),
            ("/", Version::HTTP_11, &["a@b"], TargetError::MalformedHost),
            ("/", Version::HTTP_11, &["a/b"], TargetError::MalformedHost),
            ("/", Version::HTTP_11, &["a,b"], TargetError::MalformedHost),
            ("/", Version::HTTP_11, &["a:b"], TargetError::MalformedHost),
            (
                "/",
                Version::HTTP_11,
                &["a:99999"],
                TargetError::MalformedHost,
            ),
        ] {
            assert_eq!(
                host(uri, version, fields),
                Err(expected),
                "{uri} {fields:?}"
            );
        }
    }
}
