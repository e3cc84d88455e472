//! Which host and path a request is for, said once and without doubt (RFC 9112 §3.2, RFC 9113
//! §8.3.1).

use std::borrow::Cow;
use std::sync::OnceLock;

use hyper::Version;
use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use thiserror::Error;

use crate::access::Connection;
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
            name: name.len(),
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

    /// Whether `head` names it, written in the same way, and nothing else.
    fn is_of(&self, head: &Parts) -> bool {
        let mut fields = head.headers.get_all(HOST).iter();
        match (head.uri.authority(), fields.next(), fields.next()) {
            (Some(target), None, None) => {
                head.version >= Version::HTTP_2 && target.as_str() == self.as_str()
            }
            (None, Some(field), None) => field == self.as_str(),
            _ => false,
        }
    }
}

/// The host of a request, and whether its connection may carry requests for that.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    pub(super) host: Host,
    pub(super) is_covered: bool,
}

impl Destination {
    fn of(head: &Parts, connection: &Connection) -> Result<Self, TargetError> {
        let host = Host::of(head)?;
        Ok(Self {
            is_covered: connection.covers(host.name()),
            host,
        })
    }

    /// Copied, or it would hold on to the whole head that it stands in.
    fn copy(&self) -> Self {
        let Host { authority, name } = &self.host;
        let copy = Authority::try_from(authority.as_str().as_bytes());
        Self {
            host: Host {
                authority: copy.unwrap_or_else(|_| authority.clone()),
                name: *name,
            },
            is_covered: self.is_covered,
        }
    }
}

/// The destination of a connection's first request, which nearly all others have as well.
#[derive(Debug, Default)]
pub(super) struct UsualDestination(OnceLock<Destination>);

impl UsualDestination {
    /// It, if a request with `head` has it, so that nothing is read again; otherwise that request's own.
    pub(super) fn or_of(
        &self,
        head: &Parts,
        connection: &Connection,
    ) -> Result<Cow<'_, Destination>, TargetError> {
        if let Some(usual) = self.0.get().filter(|usual| usual.host.is_of(head)) {
            return Ok(Cow::Borrowed(usual));
        }
        let destination = Destination::of(head, connection)?;
        self.0.get_or_init(|| destination.copy());
        Ok(Cow::Owned(destination))
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

/// Most bytes of a name, written without its final dot.
const LONGEST_NAME: usize = 253;

/// The host's name, with which it begins, without a final dot. `Authority` allows user information and
/// sub-delimiters, which no host of ours has, and names that are nothing but dots.
fn plain_name(authority: &Authority) -> Option<&str> {
    let host = authority.host();
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    // RFC 1035 §2.3.4. What a connection keeps of its first host, it would keep for as long as it is idle.
    if name.len() > LONGEST_NAME {
        return None;
    }
    // RFC 1034 §3.1: the empty label is the root's. In a location, no name would begin the path.
    let is_plain = !name.split('.').any(str::is_empty)
        && name.bytes().all(allowed)
        && !authority.as_str().contains('@')
        && authority.as_str().strip_prefix(host).is_some_and(is_port);
    is_plain.then_some(name)
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
        Host::of(&head(uri, version, fields)).map(|host| host.name().to_owned())
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

    fn head(uri: &str, version: Version, fields: &[&str]) -> Parts {
        let mut request = Request::builder().uri(uri).version(version);
        for field in fields {
            request = request.header(HOST, *field);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_host_is_known_again_where_it_is_written_alike_and_alone() {
        let usual = Host::of(&head("/", Version::HTTP_11, &["a.b:1"])).unwrap();
        for (uri, version, fields, expected) in [
            ("/c", Version::HTTP_11, &["a.b:1"][..], true),
            ("https://a.b:1/", Version::HTTP_2, &[], true),
            // The same host, but not as it was written, or not where it was.
            ("/", Version::HTTP_11, &["A.b:1"], false),
            ("https://a.b:1/", Version::HTTP_2, &["a.b:1"], false),
            ("http://a.b:1/", Version::HTTP_11, &["a.b:1"], false),
            // Another, or none that can be told.
            ("/", Version::HTTP_11, &["a.b"], false),
            ("/", Version::HTTP_11, &["a.b:1", "a.b:1"], false),
            ("/", Version::HTTP_11, &["a.b:1", "c"], false),
            ("/", Version::HTTP_11, &[], false),
            ("http://a.b:1/", Version::HTTP_11, &[], false),
            ("https://c/", Version::HTTP_2, &["a.b:1"], false),
        ] {
            let head = head(uri, version, fields);
            assert_eq!(usual.is_of(&head), expected, "{uri} {fields:?}");
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
            ("/", Version::HTTP_11, &["."], TargetError::MalformedHost),
            ("/", Version::HTTP_11, &[".:1"], TargetError::MalformedHost),
            ("/", Version::HTTP_11, &[".b"], TargetError::MalformedHost),
            ("/", Version::HTTP_11, &["a..b"], TargetError::MalformedHost),
            ("/", Version::HTTP_11, &["a.."], TargetError::MalformedHost),
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
