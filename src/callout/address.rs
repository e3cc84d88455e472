//! Where a service is asked: a URL whose path and query may be made of the request's.

use std::borrow::Cow;
use std::str::FromStr;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;

use super::template::{Field, Part, Template, TemplateError, Values};
use crate::fetch::Url;

/// A URL with fields in its path and query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// It with a letter for every field, so that scheme and server are known.
    sample: Url,
    template: Template,
}

/// Why a text is no such URL.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// It is none.
    #[error("is no http(s) URL without a user name")]
    Url,
    /// URLs are written in their normal form where fields are to stand.
    #[error("must be in its normal form, as in {0}")]
    Form(Url),
    /// A field that no URL may hold, since URLs are logged.
    #[error("must not hold a secret or a field of the request: logs keep URLs")]
    Secret,
    /// The server is whoever the client says.
    #[error("must name scheme and server without fields")]
    Server,
    /// A part of a path elsewhere, or a query that is not the whole one: it brings its question mark.
    #[error(
        "must hold {{path}} before any question mark, and {{query}} at the end, without one before"
    )]
    Target,
    /// Not a field at all.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// All but what RFC 3986 §2.3 leaves to everybody.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What the query of a request is not made of; the rest of it stays as it is.
const QUERY: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'\'')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The same of its path.
const PATH: &AsciiSet = &QUERY.add(b'?');

impl Address {
    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.sample.scheme()
    }

    /// The fields in it.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.template.fields()
    }

    /// The URL; `None` if a value would be read as more than it is, such as a step upwards.
    pub(super) fn url(&self, values: &Values<'_>) -> Option<Url> {
        if self.fields().next().is_none() {
            return Some(self.sample.clone());
        }
        let text = self.template.render(values, escaped);
        Url::parse(&text).ok().filter(|url| url.as_str() == text)
    }
}

fn escaped<'a>(field: &Field, value: &'a str) -> Cow<'a, str> {
    let kept = match field {
        Field::Path => PATH,
        // With its question mark.
        Field::Query => QUERY,
        _ => COMPONENT,
    };
    utf8_percent_encode(value, kept).into()
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let template: Template = text.parse()?;
        check_places(template.parts())?;
        let sample = sample(template.parts());
        let url = Url::parse(&sample).map_err(|_| AddressError::Url)?;
        let is_http = matches!(url.scheme(), "https" | "http");
        if !is_http || !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::Url);
        }
        if template.fields().next().is_some() && url.as_str() != sample {
            return Err(AddressError::Form(url));
        }
        Ok(Self {
            sample: url,
            template,
        })
    }
}

fn check_places(parts: &[Part]) -> Result<(), AddressError> {
    let mut before = String::new();
    for (at, part) in parts.iter().enumerate() {
        let field = match part {
            Part::Text(text) => {
                before.push_str(text);
                continue;
            }
            Part::Field(field) => field,
        };
        if matches!(field, Field::Secret | Field::Header(_)) {
            return Err(AddressError::Secret);
        }
        let server = before.split_once("://").map(|(_, server)| server);
        let is_named = server.is_some_and(|server| server.contains(['/', '?']));
        // A path ends the server's name with its slash.
        let ends = server.is_some_and(|server| !server.is_empty()) && *field == Field::Path;
        if !is_named && !ends {
            return Err(AddressError::Server);
        }
        let is_last = at + 1 == parts.len();
        let is_target = matches!(field, Field::Path | Field::Query);
        if is_target && (before.contains('?') || (*field == Field::Query && !is_last)) {
            return Err(AddressError::Target);
        }
        before.push_str(stand_in(field));
    }
    Ok(())
}

fn sample(parts: &[Part]) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Field(field) => stand_in(field).to_owned(),
    };
    parts.iter().map(part).collect()
}

/// Something like the value.
fn stand_in(field: &Field) -> &'static str {
    match field {
        Field::Path => "/x",
        Field::Query => "?x",
        _ => "x",
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::callout::{Question, Request};
    use crate::fetch::{HeaderMap, Method};

    fn url(address: &str, client_id: &str, path: &str, query: Option<&str>) -> Option<String> {
        let address: Address = address.parse().unwrap();
        let fields: Vec<Field> = address.fields().cloned().collect();
        let request = Request {
            method: &Method::GET,
            host: "a.example:8443",
            path,
            query: query.map(str::to_owned),
            headers: &HeaderMap::new(),
            id: "r1",
        };
        let question = Question {
            secret: None,
            client_id,
            user_name: "",
            fingerprint: "",
            remote: IpAddr::from([192, 0, 2, 1]),
            request: Some(&request),
        };
        let values = Values::of(&fields, &question).unwrap();
        address.url(&values).map(String::from)
    }

    #[test]
    fn a_request_is_asked_about_under_a_prefix() {
        const CHECK: &str = "http://s/check{path}{query}";
        for (path, query, expected) in [
            ("/m/1", None, "http://s/check/m/1"),
            ("/m/%2e;a=b,c", Some(""), "http://s/check/m/%2e;a=b,c?"),
            ("/m", Some("a=b&c=?#%"), "http://s/check/m?a=b&c=?%23%"),
            (
                "/\"<>{}|^`",
                None,
                "http://s/check/%22%3C%3E%7B%7D%7C%5E%60",
            ),
            ("/\u{e9}", None, "http://s/check/%C3%A9"),
        ] {
            assert_eq!(url(CHECK, "", path, query).as_deref(), Some(expected));
        }
        let bare = url("https://s{path}", "", "//evil.example/", None);
        assert_eq!(bare.as_deref(), Some("https://s//evil.example/"));
    }

    #[test]
    fn a_value_stays_in_its_segment_or_parameter() {
        const CLIENT: &str = "http://s/c/{client_id}/x?h={host}";
        let asked = |client_id| url(CLIENT, client_id, "/", None);
        for (client_id, expected) in [
            ("c1", "http://s/c/c1/x?h=a.example%3A8443"),
            (
                "a/b?c#d%2f",
                "http://s/c/a%2Fb%3Fc%23d%252f/x?h=a.example%3A8443",
            ),
        ] {
            assert_eq!(asked(client_id).as_deref(), Some(expected));
        }
        // No server agrees with another on what these mean.
        for client_id in [".", ".."] {
            assert_eq!(asked(client_id), None);
        }
    }

    #[test]
    fn a_url_that_clients_could_lead_elsewhere_is_refused() {
        for text in [
            "",
            "check",
            "ftp://s/",
            "http://u:p@s/",
            "{host}",
            "http://{host}/",
            "http://s{query}",
            "http://s.{client_id}/",
            "http://{path}",
            "http://s:{client_id}",
            "http://s/{secret}",
            "http://s/{header.authorization}",
            "http://s/?p={path}",
            "http://s/?{query}",
            "http://s/{query}&a=b",
            "http://s/../{client_id}",
            "HTTP://S/{client_id}",
            "http://s/{nobody}",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
