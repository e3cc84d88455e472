//! Bodies on their way through: streamed, counted, bounded, never collected.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::time::{Sleep, sleep_until, timeout};

use super::exchange::Exchange;
use super::http2;
use super::watch::Progress;
use crate::upstream::ResponseBody;

/// Why a body ended early.
#[derive(Debug, Error)]
pub enum BodyError {
    /// More bytes than the route allows.
    #[error("the body is longer than its limit")]
    TooLarge,
    /// No byte for too long.
    #[error("the body stood still for too long")]
    Stalled,
    /// The sender or the network failed.
    #[error("the body broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// The same in HTTP/2.
    #[error("the body broke off: {0}")]
    Reset(#[from] h2::Error),
}

impl BodyError {
    fn fault(&self) -> Fault {
        match self {
            Self::TooLarge => Fault::TooLarge,
            Self::Stalled => Fault::Stalled,
            Self::Broken(_) | Self::Reset(_) => Fault::Broken,
        }
    }
}

/// A limit on how long a body may stand still. Costs nothing as long as bytes are there when they
/// are asked for.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            deadline: None,
        }
    }

    fn rewarded(&mut self) {
        self.deadline = None;
    }

    fn poll_exhausted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        self.deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)))
            .as_mut()
            .poll(cx)
    }
}

/// How far a request's body has come, for those who do not hold it.
#[derive(Debug, Default)]
pub(super) struct Upload {
    sent: AtomicU64,
    awaited: AtomicBool,
    fault: OnceLock<Fault>,
}

/// Why a request's body ended early, for those who only hear that it could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// See [`BodyError::TooLarge`].
    TooLarge,
    /// See [`BodyError::Stalled`].
    Stalled,
    /// See [`BodyError::Broken`].
    Broken,
}

impl Upload {
    /// Bytes sent on so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether more of it has been asked for than the client has sent.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    /// What was wrong with the body itself, if anything.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }
}

/// A request's body as it comes from the client, without trailers.
#[derive(Debug)]
pub(super) enum ClientBody {
    Http1(Incoming),
    Http2(http2::Incoming),
    /// There is none, and never was.
    None,
}

/// Most bytes of a body that are read for nothing.
pub(super) const MOST_DROPPED: u64 = 64 * 1024;

impl ClientBody {
    /// Reads a body that nobody wants, within bounds; whether it has ended.
    pub(super) async fn run_out(mut self) -> bool {
        const LONGEST: Duration = Duration::from_secs(2);
        let reading = async {
            let mut read = 0;
            while let Some(frame) = self.frame().await {
                let Ok(frame) = frame else {
                    return false;
                };
                read += frame.data_ref().map_or(0, |data| data.len() as u64);
                if read > MOST_DROPPED {
                    return false;
                }
            }
            true
        };
        timeout(LONGEST, reading).await.unwrap_or(false)
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Http1(incoming) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx)).transpose()?;
                // Trailers end here (RFC 9110 §6.5.1): a server might take them for fields of the head,
                // from which what clients must not say has been removed.
                Poll::Ready(frame.filter(Frame::is_data).map(Ok))
            }
            Self::Http2(incoming) => {
                let data = ready!(incoming.poll_data(cx)).transpose()?;
                Poll::Ready(data.map(Frame::data).map(Ok))
            }
            Self::None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(incoming) => incoming.is_end_stream(),
            Self::None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(incoming) => incoming.size_hint(),
            Self::None => SizeHint::with_exact(0),
        }
    }
}

/// A request's body on its way to the upstream.
#[derive(Debug)]
pub struct RequestBody {
    incoming: ClientBody,
    /// There is nothing of it, as of most. In HTTP/2 each question to h2 takes a lock.
    is_empty: bool,
    room: u64,
    upload: Arc<Upload>,
    patience: Patience,
    progress: Arc<Progress>,
}

impl RequestBody {
    /// At most `limit` bytes of `incoming`; `upload` tells how far they have come.
    pub(super) fn new(
        incoming: ClientBody,
        limit: u64,
        stall: Duration,
        upload: Arc<Upload>,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            is_empty: incoming.is_end_stream(),
            incoming,
            room: limit,
            upload,
            patience: Patience::new(stall),
            progress,
        }
    }
}

impl RequestBody {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        let is_awaited = polled.is_pending();
        self.upload.awaited.store(is_awaited, Ordering::Relaxed);
        let Poll::Ready(frame) = polled else {
            ready!(self.patience.poll_exhausted(cx));
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        };
        self.patience.rewarded();
        if frame.is_none() {
            self.progress.body_read();
        }
        let Some(frame) = frame.transpose()? else {
            return Poll::Ready(None);
        };
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(room) = self.room.checked_sub(length) else {
            return Poll::Ready(Some(Err(BodyError::TooLarge)));
        };
        self.room = room;
        self.upload.sent.fetch_add(length, Ordering::Relaxed);
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // Where its length was announced, nobody asks for more than that.
        if self.is_end_stream() {
            self.progress.body_read();
            return;
        }
        let body = mem::replace(&mut self.incoming, ClientBody::None);
        // Its stream would be reset, and some clients then lose the answer (RFC 9113 §8.1).
        if let (ClientBody::Http2(_), Ok(runtime)) = (&body, Handle::try_current()) {
            runtime.spawn(body.run_out());
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.poll_data(cx)).transpose();
        if let Err(error) = &frame {
            // If it is set already, the body was polled again after its end.
            let _ = self.upload.fault.set(error.fault());
        }
        Poll::Ready(frame.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty || self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The body of an answer, with the exchange that ends when it does.
#[derive(Debug)]
pub struct AnswerBody {
    content: Content,
    /// Its end has been seen, or what has come in place of that.
    is_over: bool,
    exchange: Box<Exchange>,
}

#[derive(Debug)]
enum Content {
    /// Nothing, or bytes of our own.
    Own(Option<Bytes>),
    /// The upstream's, as it comes.
    Streamed(Box<Streamed>),
}

#[derive(Debug)]
struct Streamed {
    incoming: ResponseBody,
    patience: Patience,
    /// The end, whatever has come by then.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Why it has broken off.
    failure: Option<io::Error>,
}

impl AnswerBody {
    /// An answer of the gateway itself.
    pub(super) fn own(bytes: Bytes, mut exchange: Box<Exchange>) -> Self {
        exchange.hold(true);
        let content = Content::Own((!bytes.is_empty()).then_some(bytes));
        Self {
            content,
            is_over: false,
            exchange,
        }
    }

    /// The upstream's answer, which may stand still for `patience` at a time.
    pub(super) fn streamed(
        incoming: ResponseBody,
        patience: Duration,
        mut exchange: Box<Exchange>,
    ) -> Self {
        exchange.hold(true);
        let streamed = Streamed {
            incoming,
            patience: Patience::new(patience),
            deadline: exchange.deadline().map(|end| Box::pin(sleep_until(end))),
            failure: None,
        };
        Self {
            content: Content::Streamed(Box::new(streamed)),
            is_over: false,
            exchange,
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if !self.is_over && !self.is_end_stream() {
            self.exchange.given_up();
        }
    }
}

impl Streamed {
    /// What comes next. That it has broken off is told only when what came before has been sent, or the client
    /// would be left without the head of an answer that its request has had.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        let next = ready!(self.poll_next(cx)).transpose();
        Poll::Ready(match next {
            Ok(frame) => frame.map(Ok),
            Err(failure) => {
                self.failure = Some(failure);
                // Whoever asks sends all that there is before asking again.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            ready!(self.patience.poll_exhausted(cx));
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        };
        self.patience.rewarded();
        Poll::Ready(frame)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.exchange.asked();
        let polled = match &mut self.content {
            Content::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Streamed(streamed) => streamed.poll(cx),
        };
        self.exchange.hold(polled.is_ready());
        let mut frame = ready!(polled);
        match &mut frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.exchange.sent(length);
                if let Some(trailers) = frame.trailers_mut() {
                    self.exchange.trim(trailers);
                }
            }
            Some(Err(_)) if self.exchange.is_overdue() => self.exchange.failed("overdue"),
            Some(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                self.exchange.failed("upstream_timeout");
            }
            Some(Err(_)) => self.exchange.failed("upstream_broke_off"),
            None => {}
        }
        self.is_over = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(bytes) => bytes.is_none(),
            Content::Streamed(streamed) => streamed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Streamed(streamed) => streamed.incoming.size_hint(),
        }
    }
}
