//! A TCP connection that hands the system one buffer as what it is.
//!
//! TLS and HTTP write by lists of buffers, most of which hold one. `send` costs the system less than
//! `writev`, which knows files too.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use socket2::TcpKeepalive;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How long a peer may be silent before the system asks whether it is still there (RFC 9293 §3.8.4): long,
/// since asking wakes a sleeping device. Only MQTT sessions without a keep alive of their own are silent
/// for as long.
const SILENCE: Duration = Duration::from_secs(10 * 60);

/// How often it asks then, and after how many questions without an answer the peer is gone.
const QUESTIONS: (Duration, u32) = (Duration::from_secs(60), 5);

/// How peers are noticed that have vanished without a word, on either side of the gateway.
pub(crate) fn keep_alive() -> TcpKeepalive {
    let (interval, retries) = QUESTIONS;
    TcpKeepalive::new()
        .with_time(SILENCE)
        .with_interval(interval)
        .with_retries(retries)
}

/// A TCP connection.
#[derive(Debug)]
pub struct Socket(TcpStream);

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self(stream)
    }
}

/// Moves into `buf` what was read before anybody had room for it; how many bytes of it.
pub(crate) fn hand_over(unread: &mut Bytes, buf: &mut ReadBuf<'_>) -> usize {
    let length = unread.len().min(buf.remaining());
    buf.put_slice(&unread.split_to(length));
    if unread.is_empty() {
        // It lets go of what it was a part of.
        *unread = Bytes::new();
    }
    length
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs {
            [only] => Pin::new(&mut self.0).poll_write(cx, only),
            _ => Pin::new(&mut self.0).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
