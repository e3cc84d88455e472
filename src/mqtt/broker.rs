//! The broker's end of a session: its MQTT port, or a WebSocket (MQTT 5.0 §6).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::codec::Version;
use super::refusal::Failure;
use crate::access::{Admission, Connection};
use crate::upstream::{Busy, Dialled, Link, Outcome, Servers, Spoken};
use crate::websocket::{self, ByteStream};

/// An open connection to a broker.
#[derive(Debug)]
pub(super) struct Broker {
    stream: Stream,
    _busy: Busy,
}

#[derive(Debug)]
enum Stream {
    Bare(Link),
    WebSocket(Box<ByteStream<TokioIo<Upgraded>>>),
}

impl Broker {
    /// Dials one of `servers` for the client of `connection`, which speaks `version`.
    pub(super) async fn dial(
        servers: &Servers,
        connection: &Connection,
        admission: &Admission,
        version: Version,
    ) -> Result<Self, Failure> {
        let device = servers.device(|| admission.device(connection));
        let client = connection.introduction();
        let Some(path) = servers.websocket_path() else {
            let Dialled { stream, busy } = servers.dial(Spoken::Mqtt, &client, device).await?;
            servers.note(&busy, Outcome::Fine);
            return Ok(Self::new(Stream::Bare(stream), busy));
        };
        let Dialled { stream, busy } = servers.dial(Spoken::Http1, &client, device).await?;
        let opening = websocket::open(stream, busy.server(), path, subprotocol(version));
        let opened = tokio::time::timeout(servers.connect_timeout(), opening).await;
        let is_open = matches!(opened, Ok(Ok(_)));
        servers.note(
            &busy,
            if is_open {
                Outcome::Fine
            } else {
                Outcome::Faulty
            },
        );
        let socket = opened.map_err(|_| Failure::BrokerSilent)??;
        Ok(Self::new(Stream::WebSocket(Box::new(socket)), busy))
    }

    fn new(stream: Stream, busy: Busy) -> Self {
        Self {
            stream,
            _busy: busy,
        }
    }
}

/// What servers of MQTT 3.1 know, and those of later versions.
fn subprotocol(version: Version) -> &'static str {
    match version {
        Version::V31 => "mqttv3.1",
        Version::V311 | Version::V5 => "mqtt",
    }
}

impl AsyncRead for Broker {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Bare(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::WebSocket(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Broker {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Bare(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::WebSocket(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Bare(stream) => Pin::new(stream).poll_flush(cx),
            Stream::WebSocket(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Bare(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::WebSocket(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
