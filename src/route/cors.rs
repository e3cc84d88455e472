//! Which pages of other origins may read answers (Fetch, "CORS protocol"): the rule of one route.
//!
//! Browsers ask for it and keep to it; it protects their users, and nothing here. Whoever is not
//! listed is told nothing, which is a no.

use std::str::FromStr;
use std::time::Duration;

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, ORIGIN, VARY,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};

use super::web_origin::{WebOrigin, WebOriginError};
use crate::host::HostPattern;

/// What pages of other origins may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Which pages.
    pub origins: Vec<OriginPattern>,
    /// Their methods, a list for browsers; `None` for GET, HEAD and POST, which need no leave.
    pub methods: Option<HeaderValue>,
    /// The fields that they may send, a list for browsers; `None` for those that need no leave.
    pub headers: Option<HeaderValue>,
    /// The fields of answers that they may read, a list for browsers; `None` for those that any page
    /// may.
    pub expose_headers: Option<HeaderValue>,
    /// Whether they may use the user's cookies, certificates and passwords.
    pub credentials: bool,
    /// How long browsers may remember the leave.
    pub max_age: Duration,
}

/// Some of all origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// Every one.
    Any,
    /// This one.
    One(WebOrigin),
    /// Those with this scheme and port whose host is below another.
    Below {
        /// `https://`.
        scheme: String,
        /// Their hosts.
        host: HostPattern,
        /// `:8443`, or nothing.
        port: String,
    },
}

/// What the rule says to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leave {
    /// To no page, or to one that is not listed.
    Nobody,
    /// To any page.
    Anybody,
    /// To the pages of this origin.
    Page(HeaderValue),
}

impl FromStr for OriginPattern {
    type Err = WebOriginError;

    fn from_str(text: &str) -> Result<Self, WebOriginError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let Some((scheme, parent)) = text.split_once("://*.") else {
            return text.parse().map(Self::One);
        };
        // A wildcard stands for one label, so that a name in its place shows what the origin is.
        let sample: WebOrigin = format!("{scheme}://x.{parent}").parse()?;
        let sample = sample.as_str();
        let (scheme, server) = sample.split_once("://").ok_or(WebOriginError)?;
        let (host, port) = match server.split_once(':') {
            Some((host, port)) => (host, format!(":{port}")),
            None => (server, String::new()),
        };
        let parent = host.strip_prefix("x.").ok_or(WebOriginError)?;
        let host = format!("*.{parent}").parse().map_err(|_| WebOriginError)?;
        Ok(Self::Below {
            scheme: format!("{scheme}://"),
            host,
            port,
        })
    }
}

impl OriginPattern {
    /// Whether `field`, the value of an `Origin` field, is among them. A page of no origin, "null",
    /// is one of all at most.
    fn has(&self, field: &HeaderValue) -> bool {
        match self {
            Self::Any => true,
            Self::One(origin) => origin.is(field),
            Self::Below { scheme, host, port } => {
                let server = field.to_str().ok();
                let server = server.and_then(|field| field.strip_prefix(scheme.as_str()));
                let name = server.and_then(|server| server.strip_suffix(port.as_str()));
                name.is_some_and(|name| is_host(name) && host.matches(name))
            }
        }
    }
}

/// As browsers write a host, in small letters and without a final dot: nothing that ends a host
/// stands in it.
fn is_host(name: &str) -> bool {
    let may_be =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    name.bytes().all(may_be) && !name.ends_with('.')
}

impl Cors {
    /// The method of the request that `head` asks leave for, if it is a preflight.
    #[must_use]
    pub fn preflighted(head: &Parts) -> Option<Method> {
        if head.method != Method::OPTIONS || !head.headers.contains_key(ORIGIN) {
            return None;
        }
        let method = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        Method::from_bytes(method.as_bytes()).ok()
    }

    /// The leave of a request with these fields.
    #[must_use]
    pub fn leave(&self, headers: &HeaderMap) -> Leave {
        if self.is_for_anybody() {
            return Leave::Anybody;
        }
        let mut named = headers.get_all(ORIGIN).iter();
        match (named.next(), named.next()) {
            (Some(origin), None) if self.origins.iter().any(|known| known.has(origin)) => {
                Leave::Page(origin.clone())
            }
            (_, _) => Leave::Nobody,
        }
    }

    /// Whether answers are the same for all pages.
    fn is_for_anybody(&self) -> bool {
        self.origins.contains(&OriginPattern::Any)
    }

    /// Sets what an answer says of `leave`.
    pub fn set(&self, headers: &mut HeaderMap, leave: &Leave) {
        if !self.is_for_anybody() {
            // For caches, whoever has asked.
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        let origin = match leave {
            Leave::Nobody => return,
            Leave::Anybody => HeaderValue::from_static("*"),
            Leave::Page(origin) => origin.clone(),
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if let Some(names) = &self.expose_headers {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
        }
    }

    /// Sets what the answer to a preflight says besides.
    pub fn set_preflight(&self, headers: &mut HeaderMap, leave: &Leave) {
        const ASKED: &str = "access-control-request-method, access-control-request-headers";
        headers.append(VARY, HeaderValue::from_static(ASKED));
        if *leave == Leave::Nobody {
            return;
        }
        if let Some(methods) = &self.methods {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
        }
        if let Some(names) = &self.headers {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.as_secs().into());
    }

    /// Removes what an upstream says of the kind: two words about the same would be none.
    pub fn remove_others(headers: &mut HeaderMap) {
        let is_of_it = |name: &&HeaderName| name.as_str().starts_with("access-control-");
        let names: Vec<HeaderName> = headers.keys().filter(is_of_it).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(pattern: &str, origin: &str) -> bool {
        let pattern: OriginPattern = pattern.parse().unwrap();
        pattern.has(&HeaderValue::from_str(origin).unwrap())
    }

    #[test]
    fn a_pattern_has_the_origins_below_its_host_and_no_others() {
        for (pattern, origin) in [
            ("https://app.example.com", "https://app.example.com"),
            ("https://*.example.com", "https://app.example.com"),
            ("HTTPS://*.Example.com:443", "https://app.example.com"),
            ("http://*.example.com:8080", "http://a-1.example.com:8080"),
            ("*", "https://app.example.com"),
            ("*", "null"),
        ] {
            assert!(has(pattern, origin), "{pattern} {origin}");
        }
        for origin in [
            "null",
            "",
            "https://example.com",
            "https://.example.com",
            "https://a.b.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.",
            "https://app.example.com/",
            "https://app.example.com.evil.example",
            "https://evilexample.com",
            "http://app.example.com",
            "https://evil:80@app.example.com",
            "https://evil/app.example.com",
            "https://evil.example/.example.com",
            "https://APP.example.com",
            "https://*.example.com",
        ] {
            assert!(!has("https://*.example.com", origin), "{origin}");
        }
        assert!(!has("http://*.example.com:8080", "http://a.example.com"));
    }

    #[test]
    fn what_no_browser_says_is_no_pattern() {
        for text in [
            "",
            "null",
            "*.example.com",
            "https://*",
            "https://*.",
            "https://a.*.example.com",
            "https://*.*.com",
            "https://*.example.com/",
            "https://*.example.com/path",
            "https://*.[::1]",
            "*://*.example.com",
        ] {
            assert_eq!(text.parse::<OriginPattern>(), Err(WebOriginError), "{text}");
        }
    }
}
