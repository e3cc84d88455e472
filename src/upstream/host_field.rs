//! The Host that servers get (RFC 9110 §7.2).

use std::io;

use hyper::HeaderMap;
use hyper::header::{HOST, HeaderValue};

use super::server::Server;

/// What stands in the Host field, or in HTTP/2 in `:authority`, of a request to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostField {
    /// What the client has asked for.
    AsIs,
    /// The server's own name.
    Server,
    /// This.
    Fixed(HeaderValue),
}

impl HostField {
    /// For a WebSocket that the gateway opens itself, to speak MQTT in it: no client has asked for a host of
    /// `server` then.
    ///
    /// # Errors
    /// A name that cannot stand there.
    pub(super) fn of_gateway(&self, server: &Server, is_tls: bool) -> io::Result<HeaderValue> {
        match self {
            Self::AsIs | Self::Server => {
                let host = of_server(server.name(), is_tls);
                HeaderValue::try_from(host).map_err(io::Error::other)
            }
            Self::Fixed(host) => Ok(host.clone()),
        }
    }

    /// Sets it for a request to `server`, for which a client's own stands there already.
    pub(super) fn set(&self, fields: &mut HeaderMap, server: &Server, is_tls: bool) {
        match self {
            Self::AsIs => {}
            // A name that cannot stand there has not been resolved either.
            Self::Server => {
                if let Ok(host) = HeaderValue::try_from(of_server(server.name(), is_tls)) {
                    fields.insert(HOST, host);
                }
            }
            Self::Fixed(host) => {
                fields.insert(HOST, host.clone());
            }
        }
    }
}

/// Without the port that goes without saying.
fn of_server(name: &str, is_tls: bool) -> &str {
    let usual = if is_tls { ":443" } else { ":80" };
    name.strip_suffix(usual).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_goes_without_saying_is_not_said() {
        for (name, is_tls, expected) in [
            ("a.example:443", true, "a.example"),
            ("a.example:443", false, "a.example:443"),
            ("a.example:80", false, "a.example"),
            ("a.example:8080", false, "a.example:8080"),
            ("[::1]:443", true, "[::1]"),
        ] {
            assert_eq!(of_server(name, is_tls), expected, "{name}");
        }
    }
}
