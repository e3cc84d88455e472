//! The server's half of the WebSocket handshake (RFC 6455 §4.2), over hyper.
//! The adapter checks path and credential first, then asks for the handshake, and picks up the
//! socket when hyper has sent the `101`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::{self, OnUpgrade, Upgraded};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::bus::MAX_MESSAGE;
use crate::refusal::{Answer, Refusal};

const UPGRADE_LIMIT: Duration = Duration::from_secs(10);

pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Holds what a granted upgrade needs until the HTTP side of its connection is done.
pub(crate) struct Slot<T>(Mutex<Option<(OnUpgrade, T)>>);

impl<T> Slot<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn grant(&self, request: &mut Request<Incoming>, purpose: T) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some((upgrade::on(request), purpose));
    }

    /// The socket, if an upgrade was granted and came about.
    pub(crate) async fn take(self) -> Option<(Socket, T)> {
        let granted = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (upgrade, purpose) = granted?;
        let upgraded = timeout(UPGRADE_LIMIT, upgrade).await.ok()?.ok()?;
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let io = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await;
        Some((socket, purpose))
    }
}

/// Which of the offered subprotocols a server speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subprotocols {
    /// The first one offered, or none.
    Any,
    /// The first offered of these; a client that offers none of them is refused.
    OneOf(&'static [&'static str]),
}

impl Subprotocols {
    fn pick(self, headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
        let mut offered = tokens(headers, SEC_WEBSOCKET_PROTOCOL);
        match self {
            Self::Any => Ok(offered.next()),
            Self::OneOf(known) => match offered.find(|offer| known.contains(offer)) {
                Some(offer) => Ok(Some(offer)),
                None => Err(Refusal::BadUpgrade),
            },
        }
    }
}

/// The `101` answer to a valid handshake.
pub(crate) fn handshake(
    request: &Request<Incoming>,
    subprotocols: Subprotocols,
) -> Result<Answer, Refusal> {
    if request.method() != Method::GET {
        return Err(Refusal::MethodNotAllowed { allow: "GET" });
    }
    let headers = request.headers();
    if !asks_for_websocket(headers) {
        return Err(Refusal::NotAnUpgrade);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(Refusal::BadUpgrade)?;
    let accept = header_value(&derive_accept_key(key.as_bytes()))?;
    let subprotocol = subprotocols.pick(headers)?.map(header_value).transpose()?;
    Ok(switching_protocols(accept, subprotocol))
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let has = |name, wanted| tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted));
    has(CONNECTION, "upgrade") && has(UPGRADE, "websocket") && has(SEC_WEBSOCKET_VERSION, "13")
}

fn switching_protocols(accept: HeaderValue, subprotocol: Option<HeaderValue>) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(subprotocol) = subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    answer
}

/// The members of a comma-separated list, over all its fields (RFC 9110 §5.6.1).
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

fn header_value(value: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(value).map_err(|_| Refusal::BadUpgrade)
}
