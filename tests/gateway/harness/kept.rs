//! A client's connection that is kept for several requests.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Answer, Client, Protocol};

/// A request's body.
pub type Body = BoxBody<Bytes, Infallible>;

/// One open connection, HTTP/1.1 or HTTP/2.
pub struct Kept {
    sender: Sender,
    host: String,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// A body that announces its length.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// A body of unknown length, in parts, with trailers if there are any.
pub fn in_parts(parts: Vec<Bytes>, trailers: HeaderMap) -> Body {
    let mut frames: Vec<Result<_, Infallible>> = parts
        .into_iter()
        .map(|part| Ok(Frame::data(part)))
        .collect();
    if !trailers.is_empty() {
        frames.push(Ok(Frame::trailers(trailers)));
    }
    BodyExt::boxed(StreamBody::new(stream::iter(frames)))
}

/// A body that begins and never ends.
pub fn endless() -> Body {
    let beginning = stream::iter([Ok(Frame::data(Bytes::from_static(b"x")))]);
    BodyExt::boxed(StreamBody::new(beginning.chain(stream::pending())))
}

impl Client {
    /// Opens a connection and keeps it.
    pub async fn keep(&self, protocol: Protocol) -> io::Result<Kept> {
        let sender = if protocol == Protocol::Http2 {
            let io = TokioIo::new(self.connect(&["h2"]).await?);
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
                .await
                .map_err(io::Error::other)?;
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let io = TokioIo::new(self.connect(&["http/1.1"]).await?);
            let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            Sender::Http1(sender)
        };
        let host = self.host.clone();
        Ok(Kept { sender, host })
    }
}

impl Kept {
    /// Another hand on the same HTTP/2 connection.
    pub fn share(&self) -> Self {
        let Sender::Http2(sender) = &self.sender else {
            panic!("HTTP/1.1 carries one request at a time");
        };
        Self {
            sender: Sender::Http2(sender.clone()),
            host: self.host.clone(),
        }
    }

    /// GET, and the whole answer.
    pub async fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> io::Result<Answer> {
        self.request(Method::GET, path, fields, whole("")).await
    }

    /// Any request, and the whole answer.
    pub async fn request(
        &mut self,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
        body: Body,
    ) -> io::Result<Answer> {
        let response = self.begin(method, path, fields, body).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }

    /// Any request, and the answer as it comes.
    pub async fn begin(
        &mut self,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
        body: Body,
    ) -> io::Result<Response<Incoming>> {
        let mut request = Request::builder().method(method);
        request = match self.sender {
            Sender::Http1(_) => request.uri(path).header("host", &self.host),
            Sender::Http2(_) => request.uri(format!("https://{}{path}", self.host)),
        };
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(body).unwrap();
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.map_err(io::Error::other)?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(io::Error::other)?;
                sender.send_request(request).await
            }
        }
        .map_err(io::Error::other)
    }
}
