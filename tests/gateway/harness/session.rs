//! A connection that stays open for several requests, by HTTP/1.1 or HTTP/2.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;

use super::client::{Answer, Client, Protocol};

/// One open connection of a [`Client`].
pub struct Session {
    sender: Sender,
    host: String,
    /// Whether the handshake was a full one.
    pub kind: HandshakeKind,
    pub version: ProtocolVersion,
    pub group: Option<NamedGroup>,
    pub alpn: Option<Vec<u8>>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Session {
    /// Connects, offering the protocol by ALPN.
    pub async fn open(client: &Client, protocol: Protocol) -> io::Result<Self> {
        let alpn = match protocol {
            Protocol::Http2 => "h2",
            Protocol::Http1 | Protocol::WebSocket => "http/1.1",
        };
        Self::speak(client, client.connect(&[alpn]).await?).await
    }

    /// Speaks the protocol that `stream` has agreed on.
    pub async fn speak<IO>(client: &Client, stream: TlsStream<IO>) -> io::Result<Self>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tls = stream.get_ref().1;
        let kind = tls.handshake_kind().unwrap();
        let version = tls.protocol_version().unwrap();
        let group = tls
            .negotiated_key_exchange_group()
            .map(|group| group.name());
        let alpn = tls.alpn_protocol().map(<[u8]>::to_vec);
        let io = TokioIo::new(stream);
        let sender = if alpn.as_deref() == Some(b"h2") {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
                .await
                .map_err(io::Error::other)?;
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            Sender::Http1(sender)
        };
        Ok(Self {
            sender,
            host: client.host.clone(),
            kind,
            version,
            group,
            alpn,
        })
    }

    /// GET, for the client's own host.
    pub async fn get(&mut self, path: &str) -> io::Result<Answer> {
        let host = self.host.clone();
        self.get_from(&host, path).await
    }

    /// GET for any host.
    pub async fn get_from(&mut self, host: &str, path: &str) -> io::Result<Answer> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                let request = Request::get(path).header("host", host);
                sender.ready().await.map_err(io::Error::other)?;
                sender.send_request(empty(request)).await
            }
            Sender::Http2(sender) => {
                let request = Request::get(format!("https://{host}{path}"));
                sender.ready().await.map_err(io::Error::other)?;
                sender.send_request(empty(request)).await
            }
        };
        read(response.map_err(io::Error::other)?).await
    }
}

fn empty(request: hyper::http::request::Builder) -> Request<Full<Bytes>> {
    request.body(Full::default()).unwrap()
}

async fn read(response: Response<hyper::body::Incoming>) -> io::Result<Answer> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
    })
}
