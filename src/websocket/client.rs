//! Opening a WebSocket as its client (RFC 6455 §4.1), for servers that speak nothing else.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{
    HOST, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION,
};
use hyper::http::uri::PathAndQuery;
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use super::bytes::ByteStream;
use super::opening::Opening;

/// Why a server opened no WebSocket.
#[derive(Debug, Error)]
pub enum DialError {
    /// The connection failed, or what came was not HTTP.
    #[error("the WebSocket's opening failed: {0}")]
    Exchange(#[from] hyper::Error),
    /// It refuses.
    #[error("the WebSocket's opening was answered with {0}")]
    Status(StatusCode),
    /// It agrees, but not to this opening, not to the subprotocol, or to extensions as well, of which
    /// none is offered (RFC 6455 §4.1).
    #[error("the answer opens another WebSocket than the one that was asked for")]
    Answer,
}

/// A WebSocket on the new connection `io`, for `subprotocol` at `path` of `host`.
///
/// # Errors
/// [`DialError`]; the connection is closed then.
pub async fn open<IO>(
    io: IO,
    host: HeaderValue,
    path: &PathAndQuery,
    subprotocol: &'static str,
) -> Result<ByteStream<TokioIo<Upgraded>>, DialError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let opening = Opening::new();
    let request = request(&opening, host, path, subprotocol);
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    tokio::spawn(async move {
        // Its end is seen by whoever reads the answer or the upgraded stream.
        let _ = connection.with_upgrades().await;
    });
    let mut response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(DialError::Status(response.status()));
    }
    let fields = response.headers();
    let is_what_was_asked_for = opening.is_accepted(fields)
        && opening.has_agreed_on(subprotocol, fields)
        && !fields.contains_key(SEC_WEBSOCKET_EXTENSIONS);
    if !is_what_was_asked_for {
        return Err(DialError::Answer);
    }
    let upgraded = hyper::upgrade::on(&mut response).await?;
    Ok(ByteStream::of_client(TokioIo::new(upgraded)))
}

fn request(
    opening: &Opening,
    host: HeaderValue,
    path: &PathAndQuery,
    subprotocol: &'static str,
) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = Uri::from(path.clone());
    let fields = request.headers_mut();
    fields.insert(HOST, host);
    opening.set(fields);
    fields.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    fields.insert(SEC_WEBSOCKET_KEY, opening.key().clone());
    let subprotocol = HeaderValue::from_static(subprotocol);
    fields.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    request
}
