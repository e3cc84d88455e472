//! Clients that speak HTTP where TLS is spoken. They are told so in words that they understand, as a
//! person who has left out the `s` of `https` sees no alert.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// RFC 9112 §3: what a request line begins with. No record of TLS begins with a letter.
const BEGINNINGS: [&[u8]; 9] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"PATCH ",
    b"OPTIONS ",
    b"TRACE ",
    b"CONNECT ",
];

/// What is answered, whatever was asked for: nothing of a request that came in clear is looked at.
pub(super) const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 56\r\nConnection: close\r\n\r\n\
    This port speaks TLS, and your request came without it.\n";

/// What was read first is a request.
#[derive(Debug, Error)]
#[error("plain HTTP came instead of TLS")]
pub(super) struct PlainHttp;

impl PlainHttp {
    /// Whether this is why reading has failed.
    pub(super) fn has_caused(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|cause| cause.is::<Self>())
    }
}

/// A stream up to its ClientHello: reading fails with [`PlainHttp`] if a request comes first, before
/// rustls has sent an alert about it. A client that sends its request in crumbs gets that.
pub(super) struct Beginning<'a, IO> {
    io: &'a mut IO,
    has_begun: bool,
}

impl<'a, IO> Beginning<'a, IO> {
    pub(super) fn of(io: &'a mut IO) -> Self {
        let has_begun = false;
        Self { io, has_begun }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Beginning<'_, IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut *self.io).poll_read(cx, buf))?;
        if !self.has_begun {
            self.has_begun = true;
            let first = buf.filled().get(before..).unwrap_or_default();
            if BEGINNINGS.iter().any(|method| first.starts_with(method)) {
                return Poll::Ready(Err(io::Error::other(PlainHttp)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Beginning<'_, IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
}
