//! The server behind the gateway: records what reaches it, and answers as the path asks.
//!
//! `/bytes/N` answers with N bytes, `/status/N` with that status, `/silent` never, `/half` stops in
//! the middle of its body; a WebSocket opening is accepted and its bytes echoed, except under
//! `/refuse` (403), `/wrong-accept` and `/plain-200`. Everything else is answered `ok`. Each `x-say:
//! name: value` of a request becomes a field of its answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    UPGRADE,
};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    /// The values of a field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    }
}

/// A recording server.
#[derive(Clone)]
pub struct Origin {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    requests: Vec<Received>,
    connections: usize,
}

impl Origin {
    pub async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// A server at an address that is known already.
    pub fn on(listener: TcpListener) -> Self {
        let origin = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
        };
        tokio::spawn(origin.clone().accept(listener));
        origin
    }

    /// Everything received so far.
    pub fn requests(&self) -> Vec<Received> {
        self.seen.lock().unwrap().requests.clone()
    }

    /// The one request received; panics if there were none or several.
    pub fn only_request(&self) -> Received {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.into_iter().next().unwrap()
    }

    /// The `Authorization` of the latest request, byte for byte.
    pub fn last_authorization(&self) -> Vec<u8> {
        let request = self.requests().pop().unwrap();
        let values: Vec<_> = request.headers.get_all("authorization").iter().collect();
        assert_eq!(values.len(), 1, "{values:?}");
        values[0].as_bytes().to_vec()
    }

    /// Connections opened so far.
    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// Panics if anything was received.
    pub fn assert_untouched(&self) {
        assert!(self.requests().is_empty(), "{:?}", self.requests());
        assert_eq!(self.connections(), 0, "the upstream was dialled");
    }

    async fn accept(self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            self.seen.lock().unwrap().connections += 1;
            let origin = self.clone();
            let service = service_fn(move |request| {
                let origin = origin.clone();
                async move { Ok::<_, Infallible>(origin.answer(request).await) }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades(),
            );
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let said: Vec<String> = request
            .headers()
            .get_all("x-say")
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect();
        let mut response = self.respond(request).await;
        for field in &said {
            let (name, value) = field.split_once(": ").unwrap();
            let name: HeaderName = name.parse().unwrap();
            response.headers_mut().append(name, value.parse().unwrap());
        }
        response
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        if request.headers().contains_key(UPGRADE) {
            return self.upgrade(request);
        }
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        // A body that breaks off has not been received.
        let Ok(body) = body.collect().await else {
            return reply(StatusCode::BAD_REQUEST, "broken");
        };
        self.record(&head, body.to_bytes());
        match path.trim_start_matches('/').split_once('/') {
            Some(("bytes", count)) => bytes(count.parse().unwrap()),
            Some(("status", status)) => {
                reply(StatusCode::from_bytes(status.as_bytes()).unwrap(), "ok")
            }
            _ if path == "/silent" => std::future::pending().await,
            _ if path == "/half" => half(),
            _ => reply(StatusCode::OK, "ok"),
        }
    }

    fn upgrade(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let (head, body) = request.into_parts();
        self.record(&head, Bytes::new());
        let key = head
            .headers
            .get(SEC_WEBSOCKET_KEY)
            .map_or(&b""[..], HeaderValue::as_bytes);
        let accept = derive_accept_key(key);
        let accept = match head.uri.path() {
            "/refuse" => return reply(StatusCode::FORBIDDEN, "no"),
            "/plain-200" => return reply(StatusCode::OK, "no socket here"),
            "/wrong-accept" => "AAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned(),
            _ => accept,
        };
        let mut response = reply(StatusCode::SWITCHING_PROTOCOLS, "");
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept.parse().unwrap());
        if let Some(offered) = head.headers.get("sec-websocket-protocol") {
            headers.insert("sec-websocket-protocol", offered.clone());
        }
        tokio::spawn(echo(Request::from_parts(head, body)));
        response
    }

    fn record(&self, head: &hyper::http::request::Parts, body: Bytes) {
        self.seen.lock().unwrap().requests.push(Received {
            method: head.method.to_string(),
            target: head.uri.to_string(),
            headers: head.headers.clone(),
            body,
        });
    }
}

/// Plays the server of a WebSocket: every message comes back.
async fn echo(request: Request<Incoming>) {
    use futures_util::StreamExt;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;
    let upgraded = hyper::upgrade::on(request).await.unwrap();
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let (sink, stream) = socket.split();
    // Ends when the gateway does, which is for the test to look at.
    let _ = stream
        .filter(|message| {
            std::future::ready(message.as_ref().is_ok_and(|m| m.is_text() || m.is_binary()))
        })
        .forward(sink)
        .await;
}

fn reply(status: StatusCode, body: impl Into<Bytes>) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::new(body.into()).boxed());
    *response.status_mut() = status;
    response
}

/// A body of `count` bytes that is never held whole: a hundred large ones may wait at once.
fn bytes(count: usize) -> Response<BoxBody<Bytes, Infallible>> {
    use futures_util::stream::iter;
    static PIECE: [u8; 1 << 16] = [b'x'; 1 << 16];
    let pieces = (0..count).step_by(PIECE.len()).map(move |sent| {
        let piece = &PIECE[..PIECE.len().min(count - sent)];
        Ok(Frame::data(Bytes::from_static(piece)))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(iter(pieces))));
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(count));
    response
}

fn half() -> Response<BoxBody<Bytes, Infallible>> {
    use futures_util::stream::{StreamExt, once, pending};
    let first = once(async { Ok(Frame::data(Bytes::from_static(b"half"))) });
    Response::new(BodyExt::boxed(StreamBody::new(
        first.chain(pending()).map(|f| f),
    )))
}
