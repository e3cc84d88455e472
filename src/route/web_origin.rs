//! Where a browser's page comes from (RFC 6454).

use std::str::FromStr;

use hyper::header::HeaderValue;
use hyper::http::uri::Authority;
use thiserror::Error;

/// An origin as browsers say it: scheme and host, and the port if it is not the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin(HeaderValue);

/// A text that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("is no origin, such as \"https://app.example.com\" or \"http://localhost:3000\"")]
pub struct WebOriginError;

impl FromStr for WebOrigin {
    type Err = WebOriginError;

    /// RFC 6454 §6.2, of which browsers write all in small letters.
    fn from_str(text: &str) -> Result<Self, WebOriginError> {
        let text = text.to_ascii_lowercase();
        let (scheme, server) = text.split_once("://").ok_or(WebOriginError)?;
        let is_scheme = |scheme: &str| {
            let more = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(more)
        };
        let host: Authority = server.parse().map_err(|_| WebOriginError)?;
        let has_port = host.as_str() != host.host();
        if !is_scheme(scheme)
            || host.host().is_empty()
            || server.contains(['@', '*'])
            || (has_port && host.port_u16().is_none())
        {
            return Err(WebOriginError);
        }
        let server = match (scheme, host.port_u16()) {
            ("https", Some(443)) | ("http", Some(80)) => host.host(),
            _ => server,
        };
        let value = HeaderValue::try_from(format!("{scheme}://{server}"));
        value.map(Self).map_err(|_| WebOriginError)
    }
}

impl WebOrigin {
    pub(super) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// Whether `field`, the value of an `Origin` field, is this one.
    #[must_use]
    pub fn is(&self, field: &HeaderValue) -> bool {
        self.0 == field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_compared_as_browsers_say_it() {
        for (text, said) in [
            ("https://app.example.com", "https://app.example.com"),
            ("HTTPS://App.Example.com:443", "https://app.example.com"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://a.example:80", "http://a.example"),
            ("https://a.example:80", "https://a.example:80"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            let origin: WebOrigin = text.parse().unwrap();
            assert!(origin.is(&HeaderValue::from_static(said)), "{text}");
            let others = [
                "null",
                "https://app.example.com.evil.example",
                "https://example.com",
            ];
            for other in others {
                assert!(
                    !origin.is(&HeaderValue::from_static(other)),
                    "{text} {other}"
                );
            }
        }
    }

    #[test]
    fn what_no_browser_says_is_no_origin() {
        for text in [
            "",
            "*",
            "null",
            "app.example.com",
            "https://",
            "https://a.example/",
            "https://a.example/path",
            "https://a.example?x",
            "https://*.example.com",
            "https://user@a.example",
            "https://a.example:port",
            "https://a b",
            "1https://a",
            "://a",
        ] {
            assert_eq!(text.parse::<WebOrigin>(), Err(WebOriginError), "{text}");
        }
    }
}
