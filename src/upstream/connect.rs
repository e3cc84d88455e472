//! One connection to one server: opened in time, introduced if the server wants to know whom it is
//! for, and encrypted if it is to be. Which server, and whether a connection serves again, is
//! decided elsewhere.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Settings;
use super::proxy_protocol::{Introduction, ProxyProtocol};
use super::server::Server;
use crate::socket::{self, Socket};
use crate::tls::Initiator;

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1, and WebSockets that begin in it.
    Http1,
    /// HTTP/2.
    Http2,
    /// MQTT itself.
    Mqtt,
    /// Nothing: it is opened to see that it can be, whatever the server speaks.
    Nothing,
}

impl Spoken {
    /// Its name in ALPN (RFC 7301), if it has one.
    #[must_use]
    pub fn alpn(self) -> Option<&'static str> {
        match self {
            Self::Http1 => Some("http/1.1"),
            Self::Http2 => Some("h2"),
            Self::Mqtt => Some("mqtt"),
            Self::Nothing => None,
        }
    }
}

/// Opens a connection to `server`, one of `settings`, for `client` or for the gateway's own sake.
///
/// # Errors
/// What the system or TLS says; `TimedOut` after `settings.connect_timeout`.
pub(super) async fn connect(
    settings: &Settings,
    tls: Option<&Initiator>,
    server: &Server,
    spoken: Spoken,
    client: Option<&Introduction<'_>>,
) -> io::Result<Link> {
    let connected = async {
        let mut stream = server.connect().await?;
        prepare(&stream)?;
        if settings.proxy_protocol != ProxyProtocol::Off {
            let header = settings.proxy_protocol.header(client, spoken)?;
            stream.write_all(&header).await?;
        }
        let stream = Socket::from(stream);
        let Some(tls) = tls else {
            return Ok(Link::Tcp(stream));
        };
        let stream = tls.connect(stream, server.host(), spoken.alpn()).await?;
        Ok(Link::Tls(Box::new(stream)))
    };
    tokio::time::timeout(settings.connect_timeout, connected)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Small messages leave at once, and a server that vanishes without a word, as clients do, is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&socket::keep_alive())
}

/// An open connection to a server.
#[derive(Debug)]
pub enum Link {
    /// Unencrypted.
    Tcp(Socket),
    /// Encrypted, with a server that has proven who it is.
    Tls(Box<TlsStream<Socket>>),
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_server_that_has_vanished_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        assert!(!SockRef::from(&stream).keepalive().unwrap());
        prepare(&stream).unwrap();
        assert!(SockRef::from(&stream).keepalive().unwrap());
        assert!(stream.nodelay().unwrap());
    }
}
