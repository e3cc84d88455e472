//! A server behind the gateway that speaks HTTP/2 and answers stream by stream, as a test tells it
//! to.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use hyper::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::PATIENCE;

/// A listening server without TLS: HTTP/2 by prior knowledge.
pub struct Streams {
    pub address: SocketAddr,
    listener: TcpListener,
}

/// One connection of the gateway.
pub struct Line {
    requests: mpsc::UnboundedReceiver<Stream>,
    orders: mpsc::UnboundedSender<Order>,
}

/// One request on it.
#[derive(Debug)]
pub struct Stream {
    pub request: Request<RecvStream>,
    answer: SendResponse<Bytes>,
}

enum Order {
    /// GOAWAY, and an end when all streams have ended.
    Leave,
}

impl Streams {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            listener,
        }
    }

    /// The next connection of the gateway, which may have this many streams at once.
    pub async fn accept_with(&self, streams: u32) -> Line {
        let arrival = tokio::time::timeout(PATIENCE, self.listener.accept());
        let (stream, _) = arrival.await.expect("the gateway does not dial").unwrap();
        stream.set_nodelay(true).unwrap();
        Line::begin(stream, streams).await
    }

    /// The next connection of the gateway.
    pub async fn accept(&self) -> Line {
        self.accept_with(1000).await
    }
}

impl Line {
    /// Speaks HTTP/2 on a connection.
    pub async fn begin<IO>(io: IO, streams: u32) -> Self
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new();
        builder.max_concurrent_streams(streams);
        let handshake = tokio::time::timeout(PATIENCE, builder.handshake(io));
        let mut connection = handshake.await.expect("no preface comes").unwrap();
        let (arrived, requests) = mpsc::unbounded_channel();
        let (orders, mut ordered) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    accepted = connection.accept() => match accepted {
                        Some(Ok((request, answer))) => {
                            let _ = arrived.send(Stream { request, answer });
                        }
                        _ => return,
                    },
                    Some(order) = ordered.recv() => match order {
                        Order::Leave => connection.graceful_shutdown(),
                    },
                }
            }
        });
        Self { requests, orders }
    }

    /// The next request.
    pub async fn next(&mut self) -> Stream {
        let next = tokio::time::timeout(PATIENCE, self.requests.recv());
        let next = next.await.expect("no request comes");
        next.expect("the gateway has closed")
    }

    /// Waits until the gateway has closed; panics if a request comes.
    pub async fn closed(mut self) {
        let next = tokio::time::timeout(PATIENCE, self.requests.recv());
        let next = next.await.expect("the gateway stays");
        assert!(next.is_none(), "{next:?}");
    }

    /// Says that no more requests are wanted.
    pub fn leave(&self) {
        self.orders
            .send(Order::Leave)
            .unwrap_or_else(|_| panic!("the connection has ended"));
    }
}

impl Stream {
    /// The values of a field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let values = self.request.headers().get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }

    /// Answers `ok`.
    pub fn ok(mut self) {
        let mut body = self.begin(StatusCode::OK, &[]);
        body.send_data("ok".into(), true).unwrap();
    }

    /// Begins the answer.
    pub fn begin(&mut self, status: StatusCode, fields: &[(&str, &str)]) -> SendStream<Bytes> {
        self.answer
            .send_response(head(status, fields), false)
            .unwrap()
    }

    /// An answer without a body.
    pub fn end(mut self, status: StatusCode, fields: &[(&str, &str)]) {
        self.answer
            .send_response(head(status, fields), true)
            .unwrap();
    }

    pub fn reset(mut self, reason: Reason) {
        self.answer.send_reset(reason);
    }

    /// The next part of the request's body; `None` at its end.
    pub async fn data(&mut self) -> Option<Bytes> {
        let body = self.request.body_mut();
        let data = tokio::time::timeout(PATIENCE, body.data());
        let data = data.await.expect("nothing comes")?.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        Some(data)
    }

    /// The trailers behind the request's body.
    pub async fn trailers(&mut self) -> Option<HeaderMap> {
        self.request.body_mut().trailers().await.unwrap()
    }
}

fn head(status: StatusCode, fields: &[(&str, &str)]) -> Response<()> {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).unwrap()
}
