//! The broker's end of a session: its MQTT port, or a WebSocket (MQTT 5.0 §6).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::codec::Version;
use crate::access::{Admission, Connection};
use crate::upstream::{Busy, Dialled, Link, Servers, Spoken, UpstreamError};
use crate::websocket::{self, ByteStream};

/// An open connection to a broker.
#[derive(Debug)]
pub(super) enum Broker {
    /// To its MQTT port.
    Bare(Link),
    /// To its WebSocket port.
    WebSocket(Box<ByteStream<TokioIo<Upgraded>>>),
}

impl Broker {
    /// Dials one of `servers` for the client of `connection`, which speaks `version`. How the broker
    /// fares is not known before it has answered the CONNECT.
    pub(super) async fn dial(
        servers: &Servers,
        connection: &Connection,
        admission: &Admission,
        version: Version,
    ) -> Result<(Self, Busy), UpstreamError> {
        let device = servers.device(|| admission.device(connection));
        let client = connection.introduction();
        let Some(path) = servers.websocket_path() else {
            let Dialled { stream, busy } = servers.dial(Spoken::Mqtt, &client, device).await?;
            return Ok((Self::Bare(stream), busy));
        };
        let mut dialling = servers.dialling(Spoken::Http1, &client, device);
        loop {
            let Dialled { stream, busy } = dialling.next().await?;
            let opening = async {
                let host = servers.host(&busy)?;
                let opening = websocket::open(stream, host, path, subprotocol(version));
                opening.await.map_err(io::Error::other)
            };
            match tokio::time::timeout(servers.connect_timeout(), opening).await {
                Ok(Ok(socket)) => return Ok((Self::WebSocket(Box::new(socket)), busy)),
                // Nothing of the CONNECT has been sent: another may have it.
                Ok(Err(error)) => dialling.pass_over(&busy, error),
                Err(_) => dialling.pass_over(&busy, io::ErrorKind::TimedOut.into()),
            }
        }
    }
}

/// What servers of MQTT 3.1 know, and those of later versions.
pub(super) fn subprotocol(version: Version) -> &'static str {
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
        match self.get_mut() {
            Self::Bare(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::WebSocket(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Broker {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Bare(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::WebSocket(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Bare(stream) => Pin::new(stream).poll_flush(cx),
            Self::WebSocket(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Bare(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::WebSocket(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
