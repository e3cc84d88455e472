//! HTTP/1.1 (RFC 9112) with one server on one connection, in the task of whoever sends the request:
//! no exchange waits for another task to be woken, and none hands its messages through channels.
//!
//! [`upload`] sends a request, [`head`] reads the head of its answer, [`body`] what follows it, and
//! [`chunked`] that if its length is not known before.

mod body;
mod chunked;
mod head;
mod upload;

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use hyper::http::response;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, split};
use tokio::task::coop::unconstrained;
use tokio_util::io::poll_read_buf;

pub(super) use body::Body;
pub use chunked::{Chunked, Piece};
pub use head::{Flaw, Framing, Head};
use upload::{Stop, Upload};

use super::common_fields::CommonFields;
use super::connect::Link;
use crate::socket::hand_over;

/// So much is read at a time while a head is waited for.
const HEAD_READ: usize = 8 << 10;

/// Most interim answers before the answer.
const MOST_INTERIM: usize = 32;

/// Why a server has not answered on an open connection.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// It closed the connection before it had answered.
    #[error("the server closed the connection before it had answered")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// It sent what is no answer.
    #[error("the head of its answer {0}")]
    Malformed(#[from] Flaw),
    /// The request's own body broke off.
    #[error("the body of the request broke off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// HTTP/2: hyper's own error; its source is h2's, or that of the request's body.
    #[error("{0}")]
    Http2(#[from] hyper::Error),
}

/// How a request fared that was not answered.
pub(super) enum Failure<B> {
    /// Not a byte of it was sent.
    Unsent(Box<Request<B>>, io::Error),
    /// The server has closed the connection without a word, as it may at any time where it has answered
    /// before; the request may be sent twice (RFC 9112 §9.3.1).
    Closed(Box<Request<B>>, ExchangeError),
    Failed(ExchangeError),
}

/// Who hears of the interim answers to a request (RFC 9110 §15.2); stands in its extensions.
#[derive(Clone)]
pub struct OnInterim(Arc<Hear>);

type Hear = dyn Fn(StatusCode, &HeaderMap) + Send + Sync;

impl OnInterim {
    /// `hear` is called for each, before the answer is there.
    pub fn new(hear: impl Fn(StatusCode, &HeaderMap) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }
}

impl fmt::Debug for OnInterim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnInterim")
    }
}

/// An open connection. Between two exchanges nothing has come on it that was not asked for.
pub(super) struct Connection {
    ends: Ends,
    /// What has come and has not been read.
    input: BytesMut,
    /// Room for what is sent next.
    output: Vec<u8>,
}

enum Ends {
    Both(Link),
    /// The request is still being sent, by somebody else.
    Reading(ReadHalf<Link>),
}

impl AsyncRead for Ends {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Both(link) => Pin::new(link).poll_read(cx, buf),
            Self::Reading(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

impl Connection {
    pub(super) fn on(link: Link) -> Box<Self> {
        Box::new(Self {
            ends: Ends::Both(link),
            input: BytesMut::new(),
            output: Vec::new(),
        })
    }

    /// Whether it can take a request, as far as this side knows: a server that has closed it, or says
    /// something unasked, is about to leave.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut byte = ReadBuf::new(&mut byte);
        let read = poll_fn(|cx| Pin::new(&mut self.ends).poll_read(cx, &mut byte));
        // A task that has used up its turn would be told that nothing has come, whatever has.
        let read = pin!(unconstrained(read));
        read.poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    }

    /// Sends `request` with `common` and waits for the head of the answer; the body is read afterwards. If
    /// the server answers before it has all of the request, the rest is sent while the answer is read.
    pub(super) async fn exchange<B>(
        mut self: Box<Self>,
        mut request: Box<Request<B>>,
        common: &CommonFields,
    ) -> Result<(response::Parts, Body), Failure<B>>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let hearer = request.extensions_mut().remove::<OnInterim>();
        let to_head = request.method() == Method::HEAD;
        let mut upload = Upload::begin(request, common, std::mem::take(&mut self.output));
        let mut interim = 0;
        let read = poll_fn(|cx| {
            self.poll_send(cx, &mut upload)?;
            loop {
                let head = ready!(self.poll_head(cx, to_head))?;
                if !head.is_interim() {
                    return Poll::Ready(Ok(head));
                }
                interim += 1;
                if interim > MOST_INTERIM {
                    return Poll::Ready(Err(Flaw::TooLarge.into()));
                }
                if let Some(OnInterim(hear)) = &hearer {
                    hear(head.status, &head.headers);
                    // It is passed on before the answer is looked at, which may be there already.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        });
        match read.await {
            Ok(head) => {
                let is_broken = upload.is_broken();
                let this = self.let_finish(upload);
                Ok(this.answered(head, !is_broken))
            }
            Err(error) => Err(upload.blame(error, self.input.is_empty() && interim == 0)),
        }
    }

    /// Sends more of the request, as long as the server takes it: one that does not may have answered.
    fn poll_send<B>(
        &mut self,
        cx: &mut Context<'_>,
        upload: &mut Upload<B>,
    ) -> Result<(), ExchangeError>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Ends::Both(link) = &mut self.ends
            && let Poll::Ready(Err(Stop::Body(error))) = upload.poll(cx, link)
        {
            return Err(ExchangeError::Body(error));
        }
        Ok(())
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        to_head: bool,
    ) -> Poll<Result<Head, ExchangeError>> {
        loop {
            if !self.input.is_empty()
                && let Some(head) = Head::take(&mut self.input, to_head)?
            {
                return Poll::Ready(Ok(head));
            }
            if ready!(self.poll_fill(cx, HEAD_READ))? == 0 {
                return Poll::Ready(Err(ExchangeError::Closed));
            }
        }
    }

    /// Reads what there is; `Ok(0)` at the end. There is room for `most` bytes, or somewhat more.
    fn poll_fill(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        let room = self.input.capacity() - self.input.len();
        if room < most.min(HEAD_READ / 2) || room < most && most > HEAD_READ {
            self.input.reserve(most);
        }
        poll_read_buf(Pin::new(&mut self.ends), cx, &mut self.input)
    }

    /// Whatever has not been sent yet is sent by a task of its own.
    fn let_finish<B>(mut self: Box<Self>, upload: Upload<B>) -> Box<Self>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if upload.is_over() {
            self.output = upload.into_room();
            return self;
        }
        let Self { ends, input, .. } = *self;
        let ends = match ends {
            Ends::Both(link) => {
                let (reading, writing) = split(link);
                tokio::spawn(upload.finish(writing));
                Ends::Reading(reading)
            }
            Ends::Reading(reading) => Ends::Reading(reading),
        };
        Box::new(Self {
            ends,
            input,
            output: Vec::new(),
        })
    }

    /// Whether a request has been sent to its end, and nothing has come that is not read.
    fn is_whole(&self) -> bool {
        matches!(self.ends, Ends::Both(_)) && self.input.is_empty()
    }

    fn switch(self) -> Option<Switched> {
        match self.ends {
            Ends::Both(link) => Some(Switched {
                link,
                input: self.input.freeze(),
            }),
            Ends::Reading(_) => None,
        }
    }

    fn answered(self: Box<Self>, head: Head, may_stay: bool) -> (response::Parts, Body) {
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = head.status;
        parts.headers = head.headers;
        if let Some(reason) = head.reason {
            parts.extensions.insert(reason);
        }
        let body = Body::new(self, head.framing, may_stay && head.keeps_alive);
        (parts, body)
    }
}

/// A connection on which HTTP is not spoken any more.
pub struct Switched {
    link: Link,
    /// What has come with the answer already.
    input: Bytes,
}

impl fmt::Debug for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Switched")
    }
}

impl AsyncRead for Switched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            return Pin::new(&mut self.link).poll_read(cx, buf);
        }
        hand_over(&mut self.input, buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Switched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.link.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::consume_budget;

    use super::*;
    use crate::socket::Socket;

    #[tokio::test]
    async fn a_connection_is_not_quiet_though_the_task_has_used_up_its_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await;
        let near = near.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        far.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        near.readable().await.unwrap();
        let mut connection = Connection::on(Link::Tcp(Socket::from(near)));
        poll_fn(|cx| {
            while pin!(consume_budget()).poll(cx).is_ready() {}
            assert!(!connection.is_quiet());
            Poll::Ready(())
        })
        .await;
    }
}
