//! Where a route leads: to an upstream, or to an answer of the gateway's own.

use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::http::uri::Authority;
use hyper::{StatusCode, Uri};
use thiserror::Error;

use super::path_match::PathMatch;
use super::template::{QueryUse, Target, Template, TemplateError};

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To an upstream, an index into the list of upstreams.
    Upstream(usize),
    /// To another URL, where the client goes itself.
    Redirect(Redirect),
    /// Nowhere else.
    Answer(FixedAnswer),
    /// To the keys by which the gateway's own assertions are verified.
    KeySet,
}

/// An answer that sends clients elsewhere (RFC 9110 §15.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Where to.
    pub location: Location,
    /// Whether for good, and with which method.
    pub status: StatusCode,
}

/// An answer that is always the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its body, which may be empty.
    pub body: Bytes,
    /// What its body is; `None` without one.
    pub content_type: Option<HeaderValue>,
}

/// A URL made of a request's parts. Which server it leads to is for the operator to say, and the
/// request's host at most: nothing else of a request reaches that part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location(Template);

/// Why a text is no location.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LocationError {
    /// It is no template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// It could lead to a server that a request names in its path.
    #[error(
        "must begin with https://, http:// and a host, or with one slash and what the request does \
         not say"
    )]
    Server,
    /// No request makes a URL of it.
    #[error("does not make a URL")]
    Url,
}

impl Location {
    /// Reads a location for requests to the paths `matched`.
    ///
    /// # Errors
    /// [`LocationError`] says what is wrong with it.
    pub fn parse(text: &str, matched: &PathMatch) -> Result<Self, LocationError> {
        let template = Template::parse(text, matched, QueryUse::Allowed)?;
        if !names_its_server(text) {
            return Err(LocationError::Server);
        }
        let sample = Target {
            matched,
            host: "host",
            path: "/path",
            query: Some("query"),
        };
        let sample: Result<Uri, _> = template.fill(&sample).parse();
        sample.map_err(|_| LocationError::Url)?;
        Ok(Self(template))
    }

    /// The URL for a request; its characters are those of a URI.
    #[must_use]
    pub fn of(&self, target: &Target<'_>) -> String {
        let location = self.0.fill(target);
        // Where a variable is empty two slashes may come together, and what is behind them would be
        // a server (RFC 3986 §4.2).
        match location.trim_start_matches('/') {
            path if location.starts_with("//") => format!("/{path}"),
            _ => location,
        }
    }
}

/// Whether `text` says which server, or that it is the same one: `//server` in a path would be
/// another (RFC 3986 §4.2).
fn names_its_server(text: &str) -> bool {
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let Some(rest) = rest else {
        return text.starts_with('/') && !text.starts_with("//") && !text.starts_with("/{path}");
    };
    let end = ["/", "?", "#", "{path}", "{query}"]
        .iter()
        .filter_map(|end| rest.find(end))
        .min();
    let server = &rest[..end.unwrap_or(rest.len())];
    // Users' names and passwords have no place in it.
    if server.contains('@') {
        return false;
    }
    let server: Result<Authority, _> = server.replace("{host}", "host").parse();
    server.is_ok_and(|server| {
        let is_bare = server.as_str() == server.host();
        !server.host().is_empty() && (is_bare || server.port_u16().is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_names_its_server_or_stays_on_it() {
        for text in [
            "https://{host}{path}{query}",
            "https://{host}:8443{path}",
            "https://www.{host}/",
            "http://example.com?from={host}",
            "https://example.com",
            "https://[::1]{path}",
            "/there{path}{query}",
            "/{query}",
            "/",
            "https://example.com/{rest}",
            "/{rest}",
            "/{rest}/{rest}",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    fn parse(text: &str) -> Result<Location, LocationError> {
        Location::parse(text, &PathMatch::Prefix("/a".into()))
    }

    #[test]
    fn two_slashes_never_begin_a_path() {
        let matched = PathMatch::Prefix("/a".into());
        let target = Target {
            matched: &matched,
            host: "host",
            path: "/a",
            query: None,
        };
        assert_eq!(
            parse("/{rest}/evil.example").unwrap().of(&target),
            "/evil.example"
        );
        assert_eq!(parse("/x/{rest}/y").unwrap().of(&target), "/x//y");
    }

    #[test]
    fn a_request_cannot_choose_the_server_by_its_path() {
        for text in [
            "",
            "{path}",
            "//example.com",
            "//{host}{path}",
            "/{path}",
            "https:/{path}",
            "https://{path}",
            "https://{query}",
            "https://user@{host}{path}",
            "https://user@{host}:1{path}",
            "https://:8443{path}",
            "https://{host}:port{path}",
            "ftp://example.com/",
            "javascript:alert(1)",
            "example.com{path}",
            "https://{rest}",
            "https://example.com{rest}",
            "https://{rest}.example.com/",
            "{rest}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
