//! The opening handshake (RFC 6455 §4, in HTTP/2 RFC 8441), seen from between its two ends.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TE, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::http::response;
use hyper::{HeaderMap, Method, StatusCode, Version};
use thiserror::Error;

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a request that asks for a WebSocket does not open one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpeningError {
    /// Another version than 13 (RFC 6455 §4.4).
    #[error("Sec-WebSocket-Version is not 13")]
    Version,
    /// Not a GET, no valid key, or a body.
    #[error("the WebSocket opening is malformed")]
    Malformed,
    /// None of the subprotocols that are spoken here (RFC 6455 §1.9).
    #[error("the WebSocket opening offers no subprotocol that is spoken here")]
    Subprotocol,
    /// Nothing but a WebSocket is served here.
    #[error("not a WebSocket opening")]
    Missing,
}

/// A request for a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    key: HeaderValue,
    form: Form,
}

/// How a client asks for a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// By a GET that asks for an upgrade of its connection.
    Upgrade,
    /// By an extended CONNECT, which makes a tunnel of its stream (RFC 8441 §5). It has no key.
    Connect,
}

/// Whether `head` is an extended CONNECT for a WebSocket (RFC 8441 §4).
#[must_use]
pub fn is_websocket_connect(head: &Parts) -> bool {
    let protocol = head.extensions.get::<Protocol>();
    head.method == Method::CONNECT && protocol.is_some_and(|name| name.as_str() == "websocket")
}

impl Opening {
    /// Whether `head` asks for a WebSocket, in either form. Both fields are lists (RFC 9110 §7.6.1, §7.8):
    /// `Connection: keep-alive, Upgrade` asks as well.
    ///
    /// # Errors
    /// [`OpeningError`] if it asks, but not as it should.
    pub fn of(head: &Parts) -> Result<Option<Self>, OpeningError> {
        if is_websocket_connect(head) {
            check_version(head)?;
            return Ok(Some(Self::with_new_key(Form::Connect)));
        }
        let asks = head.version == Version::HTTP_11
            && head.headers.contains_key(UPGRADE)
            && has_token(&head.headers, &UPGRADE, "websocket")
            && has_token(&head.headers, &CONNECTION, "upgrade");
        if !asks {
            return Ok(None);
        }
        check_version(head)?;
        let key = single(&head.headers, &SEC_WEBSOCKET_KEY).filter(|key| is_nonce(key));
        match key {
            Some(key) if head.method == Method::GET => Ok(Some(Self {
                key: key.clone(),
                form: Form::Upgrade,
            })),
            _ => Err(OpeningError::Malformed),
        }
    }

    /// One of the gateway's own, with a new key (RFC 6455 §4.1).
    #[must_use]
    pub(super) fn new() -> Self {
        Self::with_new_key(Form::Upgrade)
    }

    fn with_new_key(form: Form) -> Self {
        let mut nonce = [0; 16];
        // The key only shows that the answer is to this opening: without randomness it still does.
        let _ = aws_lc_rs::rand::fill(&mut nonce);
        let key = HeaderValue::try_from(STANDARD.encode(nonce));
        Self {
            key: key.expect("Base64 is made of visible characters"),
            form,
        }
    }

    /// The key that the answer is computed from.
    pub(super) fn key(&self) -> &HeaderValue {
        &self.key
    }

    /// Asks for the WebSocket on the next hop, which speaks HTTP/1.1 whatever the client does.
    pub fn ask(&self, head: &mut Parts) {
        self.set(&mut head.headers);
        // There are no trailers after a 101, and HTTP/1.1 would want it named by Connection.
        head.headers.remove(TE);
        if self.form == Form::Connect {
            head.method = Method::GET;
            head.headers.insert(SEC_WEBSOCKET_KEY, self.key.clone());
        }
    }

    /// Sets the fields of an upgrade: they are hop-by-hop and have been removed.
    pub(super) fn set(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }

    /// The status that tells the client of its WebSocket.
    #[must_use]
    pub fn success(&self) -> StatusCode {
        match self.form {
            Form::Upgrade => StatusCode::SWITCHING_PROTOCOLS,
            Form::Connect => StatusCode::OK,
        }
    }

    /// Whether an answer with `status` would open it for the client, though the next hop meant
    /// something else: to a CONNECT every success is one (RFC 9110 §9.3.6).
    #[must_use]
    pub fn is_mistaken_for_success(&self, status: StatusCode) -> bool {
        self.form == Form::Connect && status.is_success()
    }

    /// Turns the next hop's 101 into the answer for the client.
    pub fn pass_on(&self, head: &mut response::Parts) {
        head.status = self.success();
        if self.form == Form::Connect {
            for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
                head.headers.remove(name);
            }
        }
    }

    /// The fields of an answer that opens the WebSocket here, with the first of `spoken` that the
    /// client offers as the subprotocol.
    ///
    /// # Errors
    /// [`OpeningError::Subprotocol`] if it offers none of them.
    pub fn answer(&self, head: &Parts, spoken: &[&'static str]) -> Result<HeaderMap, OpeningError> {
        // Its names know case: what is answered must be what was offered (RFC 6455 §4.1).
        let offered =
            |name: &&&str| items(&head.headers, &SEC_WEBSOCKET_PROTOCOL).any(|item| item == **name);
        let subprotocol = *spoken
            .iter()
            .find(offered)
            .ok_or(OpeningError::Subprotocol)?;
        let mut headers = HeaderMap::new();
        if self.form == Form::Upgrade {
            self.set(&mut headers);
            let accept = HeaderValue::try_from(accept(self.key.as_bytes()));
            let accept = accept.map_err(|_| OpeningError::Malformed)?;
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        headers.insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(subprotocol),
        );
        Ok(headers)
    }

    /// Whether a 101 with these fields really opens this WebSocket (RFC 6455 §4.2.2).
    #[must_use]
    pub fn is_accepted(&self, headers: &HeaderMap) -> bool {
        let expected = accept(self.key.as_bytes());
        has_token(headers, &UPGRADE, "websocket")
            && has_token(headers, &CONNECTION, "upgrade")
            && single(headers, &SEC_WEBSOCKET_ACCEPT)
                .is_some_and(|value| value == expected.as_str())
    }

    /// Whether an answer with these fields takes up `subprotocol`, the only one offered.
    pub(super) fn has_agreed_on(&self, subprotocol: &str, headers: &HeaderMap) -> bool {
        single(headers, &SEC_WEBSOCKET_PROTOCOL).is_some_and(|agreed| agreed == subprotocol)
    }
}

fn check_version(head: &Parts) -> Result<(), OpeningError> {
    match single(&head.headers, &SEC_WEBSOCKET_VERSION) {
        Some(version) if version == "13" => Ok(()),
        Some(_) | None => Err(OpeningError::Version),
    }
}

fn accept(key: &[u8]) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(GUID);
    STANDARD.encode(hash.finish())
}

/// 16 bytes in Base64 (RFC 6455 §4.1).
fn is_nonce(key: &HeaderValue) -> bool {
    STANDARD
        .decode(key.as_bytes())
        .is_ok_and(|nonce| nonce.len() == 16)
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    items(headers, name).any(|item| item.eq_ignore_ascii_case(token))
}

fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn opening(method: &str, fields: &[(&str, &str)]) -> Result<bool, OpeningError> {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        Opening::of(&head).map(|opening| opening.is_some())
    }

    #[test]
    fn the_accept_value_is_the_one_of_rfc_6455() {
        assert_eq!(accept(KEY.as_bytes()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn an_opening_is_recognised_by_tokens() {
        for connection in ["Upgrade", "upgrade", "keep-alive, Upgrade"] {
            let fields = [
                ("connection", connection),
                ("upgrade", "WebSocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", KEY),
            ];
            assert_eq!(opening("GET", &fields), Ok(true), "{connection}");
        }
        assert_eq!(opening("GET", &[("upgrade", "websocket")]), Ok(false));
        assert_eq!(
            opening("GET", &[("connection", "upgrade"), ("upgrade", "h2c")]),
            Ok(false)
        );
        assert_eq!(opening("GET", &[]), Ok(false));
    }

    #[test]
    fn an_opening_that_is_not_as_it_should_be_is_refused() {
        let base = [("connection", "upgrade"), ("upgrade", "websocket")];
        for (method, extra, expected) in [
            ("GET", &[][..], OpeningError::Version),
            (
                "GET",
                &[("sec-websocket-version", "8")],
                OpeningError::Version,
            ),
            (
                "GET",
                &[("sec-websocket-version", "13")],
                OpeningError::Malformed,
            ),
            (
                "GET",
                &[
                    ("sec-websocket-version", "13"),
                    ("sec-websocket-key", "short"),
                ],
                OpeningError::Malformed,
            ),
            (
                "POST",
                &[("sec-websocket-version", "13"), ("sec-websocket-key", KEY)],
                OpeningError::Malformed,
            ),
            (
                "GET",
                &[
                    ("sec-websocket-version", "13"),
                    ("sec-websocket-key", KEY),
                    ("sec-websocket-key", KEY),
                ],
                OpeningError::Malformed,
            ),
        ] {
            let fields: Vec<_> = base.iter().chain(extra).copied().collect();
            assert_eq!(
                opening(method, &fields),
                Err(expected),
                "{method} {extra:?}"
            );
        }
    }

    #[test]
    fn only_the_right_answer_opens_a_websocket() {
        let opening = Opening {
            key: HeaderValue::from_static(KEY),
            form: Form::Upgrade,
        };
        let mut answer = HeaderMap::new();
        opening.set(&mut answer);
        assert!(!opening.is_accepted(&answer));
        answer.insert(
            SEC_WEBSOCKET_ACCEPT,
            HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        );
        assert!(opening.is_accepted(&answer));
        answer.remove(UPGRADE);
        assert!(!opening.is_accepted(&answer));
    }
}
